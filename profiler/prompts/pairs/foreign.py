"""Pairs in the files of other tools, as these publish them.

| file | of | columns or fields |
|---|---|---|
| .csv | EAP-IG (Hanna et al. 2024), years | clean, corrupted, label: the two digits of the clean prompt's year |
| .jsonl | feature-circuits (Marks et al. 2024), verbs | clean_prefix, patch_prefix, clean_answer, patch_answer, case |

Years above the label are answers, the others distractors. Both kinds of file become pairs of this package, which
`profiler.prompts.pairs.jsonl` writes. Cost: none.
"""

import csv
from pathlib import Path
from typing import Any

from profiler.errors import PairError
from profiler.prompts.pairs.pair import Pair

EAP_COLUMNS = ("clean", "corrupted", "label")
FEATURE_FIELDS = ("clean_prefix", "patch_prefix", "clean_answer", "patch_answer")
YEARS = range(100)
"""Two digits that may end a year of a century."""


def read_eap(path: str | Path) -> list[Pair]:
    """The pairs of a greater-than file of EAP-IG.

    Raises:
        PairError: the file cannot be read, has other columns, or a label is no year with a later one.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PairError(f"the pair file {path} cannot be read ({error}): give a .csv of EAP-IG or a .jsonl") from None
    columns = tuple(rows[0]) if rows else ()
    if not rows or set(EAP_COLUMNS) - set(columns):
        raise PairError(
            f"the pair file {path} has columns {', '.join(map(str, columns)) or 'none'} and {len(rows)} rows: a .csv of"
            f" EAP-IG has {', '.join(EAP_COLUMNS)}; write other pairs as .jsonl"
        )
    return [_of_years(row, path.stem, f"{path.name}:{i}") for i, row in enumerate(rows, 2)]


def _of_years(row: dict[str, Any], task: str, name: str) -> Pair:
    """The pair of one row."""
    label, clean, corrupted = str(row["label"]), row["clean"], row["corrupted"]
    if not (label.isdecimal() and int(label) in YEARS[:-1]):
        raise PairError(f"pair {name!r}: label {label!r} is no year: give two digits, 00 to 98")
    if not clean or not corrupted:
        raise PairError(f"pair {name!r} lacks a prompt: give clean and corrupted")
    endings = tuple(f"{year:02d}" for year in YEARS)
    first_later = int(label) + 1
    return Pair(name, task, "eap-ig", clean, corrupted, endings[first_later:], endings[:first_later])


def is_feature_circuits(value: dict[str, Any]) -> bool:
    """Whether a JSON object is a pair as feature-circuits writes them."""
    return FEATURE_FIELDS[0] in value and "clean" not in value


def of_feature_circuits(value: dict[str, Any], name: str) -> Pair:
    """The pair of a JSON object of feature-circuits; its `case` is the template.

    Raises:
        PairError: a field is missing or no text.
    """
    wrong = [field for field in FEATURE_FIELDS if not isinstance(value.get(field), str) or not value[field]]
    if wrong:
        raise PairError(
            f"pair {name!r}: {', '.join(wrong)} must be text: a pair of feature-circuits has"
            f" {', '.join(FEATURE_FIELDS)}"
        )
    clean, corrupted, answer, wrong_answer = (value[field] for field in FEATURE_FIELDS)
    case, task = str(value.get("case", "")), name.partition(".")[0]
    return Pair(name, task, "patch", clean, corrupted, (answer,), (wrong_answer,), template=case, symmetric=True)
