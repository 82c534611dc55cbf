"""How long each query of a component's card takes: on one connection, warm, the median of several times.

A card asks about twenty queries (those with a component among them prune their tables to it). What is timed is what the
card's report asks, through the same call, on components from the middle of the ranking: one head and one neuron. Cost:
a few seconds.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from profiler.database import query
from profiler.pages import build
from profiler.pages.reader import Reader, Result


@dataclass(frozen=True)
class Timing:
    """One query of one card: milliseconds by the clock and of the processor (medians), rows of its answer."""

    component: str
    query: str
    milliseconds: float
    cpu_milliseconds: float
    rows: int


class _Noting(Reader):
    """A reader that notes what it is asked."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.asked: dict[tuple[str, tuple[tuple[str, Any], ...]], None] = {}

    def __call__(self, name: str, **parameters: Any) -> Result:
        self.asked[name, tuple(sorted(parameters.items()))] = None
        return super().__call__(name, **parameters)


def card_timings(run: Path, components: Sequence[str] = (), rounds: int = 5) -> tuple[Timing, ...]:
    """Every query of the cards of `components` (without any: a head and a neuron), slowest first.

    Raises:
        RunError: no finished run.
        ComponentError: the run has no such component.
    """
    card = build.load("component")
    timings = []
    with query.open_run(run) as connection:
        for label in components or middle(query.run(connection, "component_overview", top=0)):
            read = _Noting(connection)
            card.build(read, build.find(connection, label))
            timings += [_time(connection, label, name, dict(given), rounds) for name, given in read.asked]
    return tuple(sorted(timings, key=lambda timing: -timing.milliseconds))


def middle(overview: pl.DataFrame) -> list[str]:
    """The head and the neuron in the middle of the ranking, where there are any."""
    kinds = [overview.filter(pl.col("kind") == kind)["component"].to_list() for kind in ("head", "neuron")]
    return [labels[len(labels) // 2] for labels in kinds if labels]


def _time(connection: Any, label: str, name: str, given: dict[str, Any], rounds: int) -> Timing:
    clock, cpu, rows = [], [], 0
    for _ in range(rounds + 1):
        begun, used = time.perf_counter(), time.process_time()
        rows = query.run(connection, name, **given).height
        clock.append(time.perf_counter() - begun)
        cpu.append(time.process_time() - used)
    wall, processor = (1e3 * statistics.median(values[1:]) for values in (clock, cpu))  # the first one warms up
    return Timing(label, name, wall, processor, rows)
