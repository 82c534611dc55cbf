"""Circuits of models with redundancy: whatever stands in for a member is one too, and is named for what it is."""

import numpy as np
import patch_models
import pytest
from function_evaluator import FunctionEvaluator

from profiler.circuits import choose, circuit_tables
from profiler.patching import setting, sweep_tables, values
from profiler.patching.redundancy import redundancy_tables
from profiler.patching.setting import PatchSettings
from profiler.patching.sites import every
from profiler.patching.sweep import resample
from profiler.prompts.pairs import Encoded

MEMBERS = {
    "single": ["L0H0"],
    "sum": ["L0H0", "L0H1"],
    "and": ["L0H0", "L0H1"],
    "or": ["L0H0", "L0H1"],
    "serial": ["L0H0", "L1H0"],
    "parallel": ["L0H0", "L1H0"],
}


def found(gate: str) -> tuple[setting.PairRuns, list[sweep_tables.PatchedPanel]]:
    """A hand-built model's pairs and its sweeps in both directions."""
    net = patch_models.GATES[gate]()
    runs = setting.prepare("discovery", net, Encoded(patch_models.gate_batch(24).pairs, ()))
    donors = {"denoise": runs.clean, "noise": runs.corrupted}
    heads = tuple(every(net, "head"))
    plans = [sweep_tables.SweepPlan(heads, way, "resample", resample(donor)) for way, donor in donors.items()]
    return runs, [panel for plan in plans for panel in sweep_tables.run_plan(runs, plan)]


@pytest.mark.parametrize("gate", MEMBERS)
def test_members_are_all_that_stands_in_for_another(gate: str) -> None:
    runs, measured = found(gate)
    keep, _ = circuit_tables.find(runs, measured, PatchSettings("gate"))
    evaluate = circuit_tables.evaluator(runs, mlps=False)
    assert evaluate.labels(keep) == MEMBERS[gate]
    assert evaluate.faithfulness(keep[None])[0] == pytest.approx(1)
    assert choose.largest_gap(evaluate, keep)[1] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("gate", "relation"), [("or", "parallel"), ("sum", "independent"), ("parallel", "parallel"), ("serial", "serial")]
)
def test_two_heads_of_a_layer_can_be_parallel(gate: str, relation: str) -> None:
    runs, measured = found(gate)
    targets = [target for target in every(runs.net, "head") if target.label in MEMBERS[gate]]
    donors = {"resample": resample(runs.corrupted), "zero": values.zero(runs.clean)}
    repaired = redundancy_tables.repairs(runs, targets, donors)
    rows = redundancy_tables.interaction_rows(runs, targets, measured, repaired)
    assert set(rows["relation"]) == {relation}


def test_nothing_joins_that_stands_in_for_nobody() -> None:
    """A node with an effect of its own in the ablated model, which the circuit has too, is no stand-in."""
    both = FunctionEvaluator(6, lambda s: 0.95 * (0 in s) + 0.05 * (5 in s))
    keep = np.arange(6) < 1
    assert (choose.complete(both, keep, range(6)) == keep).all()


def test_a_stand_in_that_would_make_the_circuit_unfaithful_stays_out() -> None:
    either = FunctionEvaluator(4, lambda s: float(bool(s & {0, 1})) + 0.5 * ({0, 1} <= s and 2 not in s))
    keep = np.array([True, False, False, False])
    assert either.faithfulness(keep[None])[0] == pytest.approx(1)
    assert either.labels(choose.complete(either, keep, range(4))) == ["L0H0"]
