"""Two runs side by side: which components do something else in the second, with false discoveries controlled.

Two runs of one model over different corpora, or of two checkpoints of one model, ask the same claims of the same
components; the coverages are compared by their jackknife errors, which are independent because the documents are. Runs
of models of different shape, or of different tokenizers, have no component or token in common and are refused; runs
that read the same documents are not independent, and that is said.

Every number comes from the query `compare`, on both runs in one closed connection, the second as `other`. Cost: that
query.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from profiler.behaviours.importance import Importance
from profiler.database import connections, faults, query
from profiler.errors import RunError

SHAPE = ("architecture", "n_layers", "n_heads", "d_mlp", "n_vocab")
FACTS = "SELECT model, model_hash, tokenizer_hash, architecture, n_layers, n_heads, d_mlp, n_vocab FROM runs"
TEXTS = "SELECT text_hash FROM documents"


@dataclass(frozen=True)
class Comparison:
    """Rows of the query `compare`, smallest p first, and what to know of them."""

    frame: pl.DataFrame
    notes: tuple[str, ...]


def compare(
    first: Path,
    second: Path,
    kind: str = "head",
    family: str = "auto",
    top: int = 0,
    importance: Importance = "direct",
) -> Comparison:
    """Every claim of a family asked of both runs.

    Args:
        family: of behaviours; auto takes attention of heads, token and context of neurons, and the user's own.
        top: the most important components of the first run only; 0 takes all.
        importance: what positions count by: direct, |DLA|, or total, |total effect|, where both runs have measured it.

    Raises:
        RunError: no finished run, or runs whose components or tokens are not the same.
    """
    with open_both(first, second) as both:
        frame = query.run(both, "compare", kind=kind, family=family, top=top, importance=importance)
    return Comparison(frame, notes(first, second))


@contextmanager
def open_both(first: Path, second: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A closed, read-only connection to two runs that can be compared: the first as it is, the second in `other`.

    Raises:
        RunError: no finished run, one run twice, runs whose components or tokens are not the same, or a run that is
            open in this process.
    """
    _refuse_unlike(first, second, *(_facts(path) for path in (first, second)))
    try:
        with connections.comparing(first, second) as con:
            yield con
    except faults.FAULTS as error:
        raise faults.fault_error(error, f"opening {first} and {second}", query.UNCHANGED) from None
    except duckdb.ConnectionException:
        raise RunError(f"{first} is open in this process: close it (run.close()), then compare") from None


def _facts(path: Path) -> dict[str, Any]:
    return query.run(path, FACTS).row(0, named=True)


def _refuse_unlike(first: Path, second: Path, a: dict[str, Any], b: dict[str, Any]) -> None:
    """Only runs of the same tokens and the same components can be compared.

    Raises:
        RunError: they are not.
    """
    if first.resolve() == second.resolve():
        raise RunError(f"{first} and {second} are one run: name two; a run's own domains are compared by polysemantic")
    if a["tokenizer_hash"] != b["tokenizer_hash"]:
        raise RunError(
            f"{first} and {second} have different tokenizers ({a['model']}, {b['model']}): the same text is other"
            " tokens there, so classes and positions have no counterpart; record both with models of one tokenizer"
        )
    if unlike := [name for name in SHAPE if a[name] != b[name]]:
        name = unlike[0]
        raise RunError(
            f"{first} and {second} are of models of different shape ({name} {a[name]} and {b[name]}): L0H0 of one is"
            " not L0H0 of the other; compare runs of one model, or of checkpoints of one"
        )


def notes(first: Path, second: Path) -> tuple[str, ...]:
    """What a reader of the comparison must know: documents in common, weights that differ."""
    a, b = _facts(first), _facts(second)
    shared = query.run(first, TEXTS).join(query.run(second, TEXTS), on="text_hash", how="semi").height
    sentences = []
    if shared:
        sentences.append(
            f"{shared:,} documents of {first} have a text that is also in {second}: the errors are not independent, so"
            " differences are surer than shown where the texts push both runs the same way"
        )
    if a["model_hash"] != b["model_hash"]:
        sentences.append(
            "the weights differ: a component of one number need not have become the same thing in training"
        )
    return tuple(sentences)
