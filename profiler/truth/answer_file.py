"""Answers to the models of known circuit, one a line of a .jsonl file: a long run can be stopped and gone on with.

Cost: none.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from profiler.errors import CircuitError
from profiler.truth.tables import RUN, SCORES, VERDICTS, TruthResult

Row = dict[str, Any]
Key = tuple[str, str, int]
"""Model, size and seed."""


@dataclass(frozen=True)
class Answer:
    """What came out of one model.

    Attributes:
        row: its row of the table of verdicts.
        scores: (component, score, whether it is a true member) of its heads.
    """

    row: Row
    scores: tuple[tuple[str, float, bool], ...]

    @property
    def key(self) -> Key:
        """What it is filed under."""
        return self.row["model"], self.row["size"], self.row["seed"]


def read(path: Path) -> dict[Key, Answer]:
    """The answers of a file; none where there is no file.

    Raises:
        CircuitError: a line is no answer.
    """
    known: dict[Key, Answer] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            given = json.loads(line)
            answer = Answer(given["row"], tuple((str(c), float(s), bool(m)) for c, s, m in given["scores"]))
            known[answer.key] = answer
        except (ValueError, TypeError, KeyError):
            raise CircuitError(
                f"{path}, line {number}: this is no answer of `profiler circuits truth`: name another file"
            ) from None
    return known


def append(path: Path, answer: Answer) -> None:
    """Write one more answer."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"row": answer.row, "scores": answer.scores}) + "\n")


def result(answers: Iterable[Answer]) -> TruthResult:
    """The tables of some answers."""
    made = list(answers)
    scores = [
        {name: answer.row[name] for name in RUN} | dict(zip(("component", "score", "is_member"), row, strict=True))
        for answer in made
        for row in answer.scores
    ]
    return TruthResult(pl.DataFrame([answer.row for answer in made], VERDICTS), pl.DataFrame(scores, SCORES))
