"""How long an experiment will take, said before it begins, and what is left out to keep to a budget.

What one patch, one gradient, one set of nodes and one set of edges takes is measured on the experiment's own pairs; how
many of each there will be is counted from the settings. The size of the circuit is not known before it is chosen:
MEMBERS is assumed. On a processor with one thread the measure is its own seconds, so that other work on it does not
count.

Cost: about fifty patches and a few passes.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from profiler.circuits import edges
from profiler.circuits.by_edges import edge_sets
from profiler.circuits.circuit_tables import evaluator
from profiler.circuits.scoring import scores
from profiler.errors import ModelError, PairError
from profiler.patching import sweep_tables, values
from profiler.patching.attribution import gradient
from profiler.patching.batch import trace
from profiler.patching.factorial import PROMPTS
from profiler.patching.setting import SCHEME_PAIRS, PairRuns, PatchSettings, parts_of_file
from profiler.patching.sites import every
from profiler.prompts.pairs import find_task
from profiler.prompts.pairs.crossed import cells

MEMBERS = 9
"""Members that are assumed of a circuit that is not chosen yet."""
SETS = 32
"""Sets of nodes that are timed."""
INFLATED, COMPLETE = 0.65, 0.4
"""What a set costs in minimality and in completeness beside a random one: they share more. Measured with the bundled
model."""
SEARCH = 300
"""Sets of nodes that choosing takes, and choosing again for stability."""
OF_EDGES = 60
"""Sets of edges, in passes with half of them dropped: cut one by one, and at fixed fractions."""
JOINT = 60
"""Passes with several heads patched together."""
LADDERS: tuple[tuple[str, tuple[object, ...]], ...] = (
    ("neurons", (32, 0)),
    ("by_role", (False,)),
    ("draws", (99, 39)),
    ("top", (3, 2)),
    ("pairs", (32, 24, 20)),
)
"""Settings that are lowered to keep to a budget, those that decide least first, each as far as its tests still decide:
39 draws give p down to .025, 20 pairs are what a check needs."""


@dataclass(frozen=True)
class UnitCosts:
    """Seconds of one of each, on all pairs of the discovery set: `edge_slope` is one gradient by edges."""

    run: float
    patch: float
    slope: float
    nodes: float
    edges: float = 0.0
    edge_slope: float = 0.0


@dataclass(frozen=True)
class PatchForecast:
    """Counts, and the seconds that they will take."""

    patches: float
    circuits: float
    seconds: float

    @property
    def sentence(self) -> str:
        """The forecast in words."""
        minutes = self.seconds / 60
        about = f"{minutes:.0f} min" if minutes >= 1 else f"{max(1.0, self.seconds):.0f} s"
        return f"forecast: about {about} for {self.patches:,.0f} patches and about {self.circuits:,.0f} circuits"


def stages(settings: PatchSettings, *, given: bool) -> int:
    """How many stages will be reported."""
    parts = parts_of_file(settings) if settings.is_file else None
    test, held_out = (True, True) if parts is None else (bool(parts.test), bool(parts.held_out))
    if settings.edges and not given:
        return 13 + test + held_out
    return 16 + 3 * test + held_out + (not given)


def unit_costs(main: PairRuns, settings: PatchSettings) -> UnitCosts:
    """Time a little of each kind of work."""
    net, batch, clock = main.net, main.batch, clock_of(main.net.device)
    plan = _plans(main, settings)[1]
    middle = {(net.n_layers - 1) // 2, net.n_layers // 2}  # what comes after these is what comes after all on average
    some = tuple(target for target in plan.targets if target.layer in middle)[:: len(middle)]
    evaluate = evaluator(main, mlps=settings.mlps)
    keep = np.random.default_rng(settings.seed).random((SETS, len(evaluate.nodes))) < scores.DROPPED
    evaluate(np.ones_like(keep[:1]))  # what is prepared once
    costs = UnitCosts(
        seconds_of(clock, lambda: trace(net, batch.clean, batch.ends)),
        seconds_of(clock, lambda: sweep_tables.run_plan(main, replace(plan, targets=some))) / len(some),
        seconds_of(clock, lambda: gradient.gradients(net, batch.clean, batch)),
        seconds_of(clock, lambda: evaluate(keep)) / SETS,
    )
    try:
        plain = net.plain
    except ModelError:
        return costs
    by_edges = edge_sets.evaluator(main)
    half = np.random.default_rng(settings.seed).random((1, len(by_edges.nodes))) < scores.DROPPED
    return replace(
        costs,
        edges=seconds_of(clock, lambda: by_edges(half)),
        edge_slope=seconds_of(clock, lambda: edges.edge_scores(plain, main.clean, main.corrupted, batch.clean, batch)),
    )


def clock_of(device: torch.device | str) -> Callable[[], float]:
    """What seconds are measured by: those of the process where its one thread does all of the work."""
    alone = torch.device(device).type == "cpu" and torch.get_num_threads() == 1
    return time.process_time if alone else time.perf_counter


def seconds_of(clock: Callable[[], float], work: Callable[[], object]) -> float:
    """How long something takes."""
    began = clock()
    work()
    return clock() - began


def forecast(main: PairRuns, settings: PatchSettings, costs: UnitCosts) -> PatchForecast:
    """Counts from the settings times what each costs; of other settings than `main` was made by, in proportion."""
    swept = sum(len(plan.targets) for plan in _plans(main, settings))
    others = sweep_tables.other_units(main, settings.neurons // 2, settings.seed)
    patches = swept + 2 * (settings.neurons + len(others)) + _of_schemes(main, settings)
    circuits = _circuits(main, settings)
    slopes = 2 * (1 + settings.steps + main.net.n_layers)
    by_edges = OF_EDGES + (settings.edges * 3 * min(39, settings.draws))
    seconds = (
        patches * costs.patch
        + circuits * costs.nodes
        + slopes * costs.slope
        + (JOINT * settings.top / 6 + 6) * costs.run
        + by_edges * costs.edges
        + settings.steps * costs.edge_slope
    )
    return PatchForecast(patches, circuits, seconds * settings.pairs / max(settings.pairs, len(main.batch)))


def within(
    budget: float, main: PairRuns, settings: PatchSettings, costs: UnitCosts
) -> tuple[PatchSettings, tuple[str, ...]]:
    """The settings with as little left out as the budget (seconds) asks for, and what was left out, in words.

    Raises:
        PairError: even the least of everything takes longer.
    """
    chosen = settings
    for name, ladder in LADDERS:
        for value in ladder:
            if forecast(main, chosen, costs).seconds <= budget:
                return chosen, _lowered(settings, chosen)
            if value < getattr(chosen, name):
                chosen = replace(chosen, **{name: value})  # type: ignore[arg-type]
    least = forecast(main, chosen, costs).seconds
    if least > budget:
        raise PairError(
            f"the budget is {budget / 60:.1f} min, and with {', '.join(_lowered(settings, chosen)) or 'all this'} the"
            f" experiment still takes about {least / 60:.1f} min: give that much"
        )
    return chosen, _lowered(settings, chosen)


def _lowered(before: PatchSettings, after: PatchSettings) -> tuple[str, ...]:
    pairs = [(name, getattr(before, name), getattr(after, name)) for name, _ in LADDERS]
    return tuple(f"{name} {was} -> {now}" for name, was, now in pairs if was != now)


def _plans(main: PairRuns, settings: PatchSettings) -> list[sweep_tables.SweepPlan]:
    donors = dict.fromkeys(("zero", "mean", "noise"), values.zero(main.clean))
    return sweep_tables.plans(main, donors, by_role=settings.by_role)


def _circuits(main: PairRuns, settings: PatchSettings) -> float:
    """Sets of nodes, as random ones: of random and inflated circuits, of completeness, and of the search."""
    if settings.edges:
        return float(len(every(main.net, "head")))
    members = min(MEMBERS, len(every(main.net, "head")))
    greedy = 2 * min(scores.GREEDY_STEPS, members) * min(scores.GREEDY_TRIED, members)
    complete = (scores.GREEDY_RUNS + 1) * greedy / 2 + 4 * scores.RANDOM_SETS
    inflated: float = max(settings.draws, min(settings.draws, scores.PER_MEMBER) * members)
    inflated = inflated * (1 + 1 / max(1, members // 2)) + 2 * members * (scores.GREEDY_RUNS + 1)
    full = settings.draws + INFLATED * inflated
    tested = not settings.is_file or bool(parts_of_file(settings).test)
    return (1 + tested) * (full + COMPLETE * complete) + tested * COMPLETE * complete + SEARCH


def _of_schemes(main: PairRuns, settings: PatchSettings) -> float:
    """Patches under other schemes and under all of them crossed, as patches of all pairs."""
    if settings.is_file:
        return 0.0
    task, targets = find_task(settings.task), len(every(main.net, "head")) + len(every(main.net, "mlp_out"))
    pairs = 2 * (len(task.schemes) - 1) * SCHEME_PAIRS + (len(cells(task.factors)) - 1) * PROMPTS
    return targets * pairs / len(main.batch)
