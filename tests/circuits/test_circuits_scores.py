"""Scores on models whose circuits are known, on a made-up evaluator, and curves with known areas."""

import numpy as np
import patch_models
import pytest
import torch
from function_evaluator import FunctionEvaluator
from scipy import stats

from profiler.circuits import choose
from profiler.circuits.scoring import curve, null, scores
from profiler.circuits.scoring.evaluate import Evaluator, node_labels
from profiler.patching import batch as batches


def evaluator(gate: str) -> Evaluator:
    net, batch = patch_models.GATES[gate](), patch_models.gate_batch()
    return Evaluator(net, batch, node_labels(net, mlps=False), batches.trace(net, batch.corrupted, batch.ends))


def test_half_of_an_or_is_faithful_and_incomplete() -> None:
    """A13."""
    evaluate = evaluator("or")
    first, both = evaluate.mask(["L0H0"]), evaluate.mask(["L0H0", "L0H1"])
    assert scores.faithfulness(evaluate, first).normalised == 1
    assert scores.gaps(evaluate, first, first[None]) == [1]
    assert scores.incompleteness(evaluate, first, {"mover": ["L0H0"]}, greedy_runs=1).classes == {"mover": 1}
    assert scores.incompleteness(evaluate, first, {}, greedy_runs=1).greedy == [1]
    assert scores.faithfulness(evaluate, both).normalised == 1
    every = np.array([[False, False], [True, False], [False, True], [True, True]])
    assert list(scores.gaps(evaluate, both, every)) == [0] * 4
    costs = [
        scores.removal_cost(evaluate, both, v, [np.zeros(2, bool), evaluate.mask([f"L0H{1 - v}"])]) for v in (0, 1)
    ]
    assert costs == [1, 1]
    assert scores.removal_cost(evaluate, both, 0, [np.zeros(2, bool)]) == 0


def test_faithfulness_in_all_its_forms() -> None:
    value = lambda s: 4.0 if len(s) == 3 else {0: 1.0, 1: 2.5, 2: 4.9}[len(s)]  # noqa: E731
    evaluate = FunctionEvaluator(3, value)
    one = scores.faithfulness(evaluate, np.array([True, False, False]))
    assert (one.model, one.circuit, one.empty) == pytest.approx((4, 2.5, 1))
    assert one.gap == pytest.approx(1.5)
    assert one.ratio == pytest.approx(2.5 / 4)
    assert one.normalised == pytest.approx(0.5)
    assert one.interval[0] <= 0.5 <= one.interval[1]
    assert one.per_pair.median == pytest.approx(0.5)
    assert not one.over_recovery
    assert scores.faithfulness(evaluate, np.array([True, True, False])).over_recovery


def test_choice_finds_both_kinds_of_member_and_drops_the_others() -> None:
    """Node 0 OR node 1 matter in one direction alone, node 2 in the other; 3 to 7 do nothing."""

    def value(s: set) -> float:
        return float((0 in s or 1 in s) and 2 in s)

    evaluate = FunctionEvaluator(8, value)
    noise = np.random.default_rng(0).normal(0, 0.01, (8, 16))
    recovered, lost = noise.copy(), noise[::-1].copy()
    recovered[0] += 0.8
    recovered[1] += 0.6
    lost[2] += 1
    effects = choose.Effects(recovered, lost, np.ones(16))
    assert choose.candidates(effects) == [2, 0, 1]
    assert evaluate.labels(choose.choose(evaluate, effects)) == ["L0H0", "L0H1", "L0H2"]
    assert evaluate.labels(choose.prune(evaluate, np.arange(8) < 3, 0.1)) == ["L0H1", "L0H2"]  # faithful, incomplete
    assert evaluate.labels(choose.grow(evaluate, [3, 2, 1, 0], 0.1)) == ["L0H1", "L0H2", "L0H3"]
    assert evaluate.labels(choose.prune(evaluate, np.ones(8, bool), 0.1)) == ["L0H1", "L0H2"]
    nothing = choose.Effects(noise, noise, np.ones(16))
    assert len(choose.candidates(nothing)) == 1


def test_minimality_against_inflated_circuits() -> None:
    value = lambda s: 1.0 * (0 in s) + 0.5 * (1 in s) + 0.001 * len(s & {4, 5, 6, 7})  # noqa: E731
    evaluate = FunctionEvaluator(8, value)
    keep = np.array([True, True, True, False, False, False, False, False])
    found = scores.minimality(evaluate, keep, [], draws=99)
    w = scores.whole(evaluate)
    assert found.effect == pytest.approx(np.array([1, 0.5, 0]) / w)
    assert len(found.null) == 30 and found.p_least == pytest.approx(1 / 11)  # all there are of five other nodes
    assert found.p[:2] == pytest.approx([1 / 31, 1 / 31])
    assert found.p_adjusted[:2] == pytest.approx([1 / 11, 1 / 11])
    assert found.p[2] == 1
    assert set(np.round(found.null * w, 9)) == {0.0, 0.001}
    assert len(scores.inflated_null(evaluate, np.ones(8, bool), 5, np.random.default_rng(0), [])) == 0


def test_random_circuits_of_the_same_size() -> None:
    value = lambda s: float(s >= {0, 1, 2})  # noqa: E731
    found = null.random_circuits(FunctionEvaluator(20, value), np.arange(20) < 3, draws=99)
    assert found.observed == 1
    assert found.p == 0.01
    assert set(found.faithfulness) == {0}
    too_much = FunctionEvaluator(20, lambda s: 3.0 if s == {0, 1, 2} else len(s) / 20)
    assert null.random_circuits(too_much, np.arange(20) < 3, draws=99).p == 1


def test_stability_of_a_clear_and_of_an_arbitrary_circuit() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, (10, 40))
    clear = choose.Effects(noise + 10 * (np.arange(10) < 3)[:, None], noise * 0, np.ones(40))
    keep = np.arange(10) < 3
    found = null.stability(clear, keep, lambda effects, _pairs: np.isin(np.arange(10), choose.ranking(effects)[:3]))
    assert set(found.jaccard) == {1}
    assert list(found.frequency[:3]) == [1, 1, 1]
    assert found.halves == 1
    vague = choose.Effects(noise, noise * 0, np.ones(40))
    again = null.stability(vague, keep, lambda effects, _pairs: np.isin(np.arange(10), choose.ranking(effects)[:3]))
    assert again.jaccard.mean() < 0.7
    assert again.tau < found.tau or again.tau < 0.9
    given = null.stability(vague, keep)  # nothing was chosen, so nothing is compared
    assert given.tau == again.tau and not len(given.jaccard) and np.isnan(given.halves)
    assert np.isnan(given.frequency).all()
    assert null.jaccard(keep, np.arange(10) < 5) == 0.6
    assert null.jaccard(keep & False, keep & False) == 1


def test_stability_chooses_anew_as_the_circuit_was_chosen() -> None:
    """Every pair says the same, so the same circuit is chosen from any of them; it is not the top of the ranking."""
    evaluate = FunctionEvaluator(8, lambda s: float(s >= {2, 3}) + 0.01 * len(s & {0, 1}), pairs=30)
    strength = np.array([0.9, 0.8, 0.5, 0.4, 0, 0, 0, 0])
    effects = choose.Effects(np.repeat(strength[:, None], 30, 1), np.zeros((8, 30)), np.ones(30))
    keep = choose.choose(evaluate, effects)
    assert evaluate.labels(keep) == ["L0H2", "L0H3"]
    found = null.stability(effects, keep, lambda some, pairs: choose.choose(evaluate.drawn(pairs), some))
    assert len(found.jaccard) == null.CHOSEN_AGAIN and set(found.jaccard) == {1.0} and found.halves == 1.0
    assert found.frequency.tolist() == keep.astype(float).tolist()
    some = evaluate.drawn([0, 0, 3])
    assert some(keep[None]).shape == (1, 3) and (some(keep[None]) == evaluate(keep[None])[:, [0, 0, 3]]).all()


def test_areas_of_curves() -> None:
    """A14."""
    x = np.array([0.001, 0.2, 0.5, 1.0])
    for f, over in ((np.array([0, 0.4, 0.9, 1.0]), False), (np.array([0, 1.4, 0.9, 1.0]), True)):
        found = curve.areas(x, f)
        assert found.cpr + found.cmd >= 0.999 - 1e-12
        assert (found.cpr + found.cmd > 0.999 + 1e-9) == over
    assert curve.distance(np.array([0.5, 1.0]), np.array([0.0, 2.0])) == 0.25
    fine = np.linspace(0, 1, 20001)
    rough = np.array([0.3, 1.7, 0.6])
    slow = np.trapezoid(np.abs(1 - np.interp(fine, [0, 0.4, 1], rough)), fine)
    assert curve.distance(np.array([0, 0.4, 1.0]), rough) == pytest.approx(slow, abs=1e-6)
    logs = curve.areas(np.array([0.0, 0.01, 0.1, 1.0]), np.array([0, 0, 1.0, 1.0]))
    assert logs.cpr_log == pytest.approx(0.75)
    assert curve.smallest(np.array([0, 0.95, 0.5, 0.92, 1])) == 3
    assert curve.smallest(np.array([0, 0.5])) is None
    assert curve.smallest(np.array([0.95, 1])) == 0


def test_control_is_the_better_half() -> None:
    keep = np.array([True, True, True, True, False])
    assert scores.control(keep, [4, 3, 0, 1, 2]).tolist() == [True, False, False, True, False]


def test_random_sets_see_less_than_greedy_ones() -> None:
    """A circuit that lacks a backup: only taking out the one main member shows it."""
    value = lambda s: 1.0 if 0 in s or 9 in s else 0.0  # noqa: E731
    evaluate = FunctionEvaluator(10, value)
    keep = np.arange(10) < 6
    found = scores.incompleteness(evaluate, keep, {"main": ["L0H0"], "rest": ["L0H1", "L0H2"]}, seed=3)
    assert found.classes == {"main": 1, "rest": 0}
    assert found.greedy.max() == 1
    assert 0 < found.random.mean() < 1
    assert stats.describe(found.random).minmax == (0, 1)


def test_evaluator_remembers_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = evaluator("sum")
    keep = evaluate.mask(["L0H0"])[None]
    first = evaluate(keep)
    monkeypatch.setattr("profiler.circuits.node_sets.logits", lambda *_: torch.zeros(0))
    assert np.array_equal(evaluate(keep), first)
    assert first.tolist() == [[0.5] * 3]
