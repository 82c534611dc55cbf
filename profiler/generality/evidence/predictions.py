"""Predictions registered before their test: what is hashed, and how they are scored. No torch, no database.

Why: a claim that was made with the answer at hand is worth less than one that could have failed. A prediction names a
subject, a statistic, a distribution, a direction and a threshold; it is hashed with the time and with the entry before
it, so that editing or deleting one later breaks the chain from there on. Whoever rewrites the whole file could rewrite
the chain too: keep the hash that `profiler predict register` prints (a notebook, an e-mail, a commit) and give it to
`predict list`.

Scoring: `> t` is confirmed where the 95 % interval lies above t, refuted where it lies below, undecided in between.
Cost: none.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from profiler.errors import PredictionError
from profiler.generality.evidence.finding import Finding

Outcome = Literal["confirmed", "refuted", "undecided"]
DIRECTIONS = (">", "<")
CIRCUIT = "circuit"
"""Subject of a prediction that is about the circuit as a whole, whatever its name."""


@dataclass(frozen=True)
class Prediction:
    """A statement about one number, made before its test.

    Attributes:
        statement: the prediction in words.
        subject: label of a component, name of a circuit, or `circuit` for whichever is checked.
        statistic: name of the number, as in the findings: faithfulness, necessity, coverage, explained, success rate,
          ...
        direction: `>` or `<`.
        threshold: in the statistic's unit.
        distribution: distribution it is about.
        role: what is claimed of the component; empty for any.
        circuit: circuit in whose check it is tested; empty for any.
        origin: `user`, or `role catalogue`.
    """

    statement: str
    subject: str
    statistic: str
    direction: str
    threshold: float
    distribution: str
    role: str = ""
    circuit: str = ""
    origin: str = "user"


@dataclass(frozen=True)
class Entry:
    """One entry of the log."""

    entry: int
    kind: str
    written: str
    content: str
    previous: str
    hash: str


def check(prediction: Prediction) -> Prediction:
    """Return the prediction if it can be scored.

    Raises:
        PredictionError: the direction is none, the threshold is no number, or a name is empty.
    """
    if prediction.direction not in DIRECTIONS:
        raise PredictionError(f"--direction {prediction.direction!r}: give > or < (in quotes, for the shell)")
    if prediction.threshold != prediction.threshold or abs(prediction.threshold) == float("inf"):
        raise PredictionError(f"--threshold {prediction.threshold}: give a finite number, such as 0.8")
    for name in ("statement", "subject", "statistic", "distribution"):
        if not getattr(prediction, name).strip():
            raise PredictionError(f"--{name} is empty: a prediction without it cannot be scored")
    return prediction


def content_of(value: dict[str, Any]) -> str:
    """Canonical JSON of a value, so that its hash can be computed again."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def entry_hash(entry: int, kind: str, written: str, content: str, previous: str) -> str:
    """SHA-256 of the five values, a line each, in hexadecimal; view prediction_entries computes the same in SQL."""
    return hashlib.sha256("\n".join([str(entry), kind, written, content, previous]).encode()).hexdigest()


def append(kind: str, value: dict[str, Any], written: str, entries: int, head: str) -> Entry:
    """The next entry of a log of `entries` entries, whose last has the hash `head`."""
    content = content_of(value)
    return Entry(entries + 1, kind, written, content, head, entry_hash(entries + 1, kind, written, content, head))


def registration(prediction: Prediction, *, known_before: bool) -> dict[str, Any]:
    """The fields of a prediction that are hashed."""
    return asdict(prediction) | {"known_before": known_before}


def outcome(direction: str, threshold: float, finding: Finding) -> Outcome:
    """The outcome of a prediction, by the interval of a finding."""
    if finding.value is None or finding.lo is None or finding.hi is None:
        return "undecided"
    above, below = finding.lo > threshold, finding.hi < threshold
    if above or below:
        return "confirmed" if above == (direction == ">") else "refuted"
    return "undecided"


def overlap(discovery: Sequence[str], tested: Sequence[str]) -> float | None:
    """Share of the tested examples that are discovery examples too; None where either is not known."""
    if not discovery or not tested:
        return None
    known = set(discovery)
    return sum(key in known for key in tested) / len(tested)
