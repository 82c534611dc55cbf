"""`profiler check` as a library call: a finished circuit, and what becomes of it off the prompts it was found on.

1. the circuit: stored in the run by `profiler patch`, or a YAML file
2. the ladder: rungs of prompts from the discovery pairs outward, and rungs of the run's own corpus, read again
3. STAGES: each takes the Subject and returns rows: findings, and records of its own whose fields are columns
4. trends over the ladder, from the findings

Cost: with the bundled model and 300k tokens some minutes on one core; a forecast is reported first.
"""

from collections.abc import Callable
from typing import Any

from profiler.generality.subject import Subject

Stage = Callable[[Subject], tuple[Any, ...]]

STAGES: tuple[tuple[str, Stage], ...] = ()
"""Name and function of each stage, in order. A stage returns Findings, and frozen dataclasses of its own for detail rows."""


def run_stages(subject: Subject) -> tuple[Any, ...]:
    """Rows of all stages, in order."""
    rows: list[Any] = []
    for name, stage in STAGES:
        subject.report(name)
        rows += stage(subject)
    return tuple(rows)
