"""Numbers of forward passes compared up to rounding: another processor's last bits change no choice, rank, p value or
verdict."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from function_evaluator import FunctionEvaluator
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from profiler import statistics
from profiler.circuits import choose
from profiler.circuits.scoring import null, scores
from profiler.generality.edits import edits
from profiler.generality.evidence import ledger
from profiler.generality.evidence.finding import NO_NULL, Finding
from profiler.generality.faithfulness import prompts
from profiler.generality.replacement import shares
from profiler.generality.weights import heads
from profiler.patching.attribution import reliability

LAST_BITS = [0.0, 2e-16, -2e-16, 1e-9, -1e-9]
"""What two processors may differ by, of numbers near 1: in float64, and in means of float32."""


def beside(value: float) -> list[float]:
    return [value + bits for bits in LAST_BITS]


def shaken(values: np.ndarray, seed: int) -> np.ndarray:
    """The values as another processor would give them."""
    return values + np.random.default_rng(seed).choice(LAST_BITS, size=values.shape)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30))
def test_level_moves_nothing_by_more_than_rounding_and_keeps_the_order(values: list[float]) -> None:
    values = np.array(values)
    found = statistics.level(values)
    assert ((found >= values) & (found - values <= statistics.ROUNDING)).all()
    assert (np.diff(found[np.argsort(values, kind="stable")]) >= 0).all()
    assert (np.diff(np.unique(found)) > statistics.ROUNDING).all()


def test_level_makes_ties_of_what_differs_by_rounding() -> None:
    """A long chain of small steps is no tie from end to end."""
    for value in beside(0.7):
        assert len(set(statistics.level(np.array([value, 0.7, 0.1])))) == 2
    chain = statistics.level(np.arange(0, 1e-4, 0.9 * statistics.ROUNDING))
    assert len(set(chain)) > 50
    assert np.isnan(statistics.level(np.array([np.nan, 1.0]))).tolist() == [True, False]


@pytest.mark.parametrize("own", beside(0.9))
def test_equal_but_for_rounding_is_as_good_and_no_larger(own: float) -> None:
    assert statistics.random_set_p(own, np.array([0.1, 0.95, 0.9])) == 0.75
    assert statistics.rank(own, np.array([0.1, 0.95, 0.9])) == 2
    assert shares.null_of(own, [0.1, 0.95, 0.9])[0].p == 0.75


@pytest.mark.parametrize("seed", range(5))
def test_a_mean_that_is_nothing_but_rounding_is_no_effect(seed: int) -> None:
    """Values that cancel: all signs give a mean at least as large, whatever their sum's last bits are."""
    values = shaken(np.array([1.0, -1.0, 0.3, -0.3]), seed) if seed else np.array([0.1, 0.2, -0.3, 0.0])
    assert statistics.sign_flip_p(values) == pytest.approx(1.0) if not seed else statistics.sign_flip_p(values) > 0.5


@pytest.mark.parametrize("seed", range(5))
def test_nodes_that_do_the_same_are_ranked_and_dropped_in_the_models_order(seed: int) -> None:
    """Eight nodes, of which two do everything and six the same little thing."""
    effect = np.outer([1.0, 1.0, *[0.2] * 6], np.ones(16))
    effects = choose.Effects(shaken(effect, seed), 0 * effect, np.ones(16))
    assert choose.ranking(effects) == list(range(8))
    assert choose.candidates(effects) == list(range(8))
    noise = iter(np.random.default_rng(seed).choice(LAST_BITS, 10_000))
    evaluate = FunctionEvaluator(8, lambda s: (0 in s) + (1 in s) + 0.01 * len(s & {2, 3, 4, 5, 6, 7}) + next(noise))
    kept = choose.prune(evaluate, np.ones(8, bool), 0.017)
    assert evaluate.labels(kept) == ["L0H0", "L0H1", *(f"L0H{i}" for i in range(5, 8))]


@pytest.mark.parametrize("seed", range(5))
def test_scores_of_members_that_do_nothing(seed: int) -> None:
    """Of ten nodes one does everything: removing others costs nothing, no random circuit without it is as close."""
    noise = iter(np.random.default_rng(seed).choice(LAST_BITS, 100_000))
    evaluate = FunctionEvaluator(10, lambda s: float(0 in s) + next(noise))
    keep = np.arange(10) < 3
    found = scores.minimality(evaluate, keep, [], draws=99)
    assert found.p[0] == 1 / 121 and found.p[1:].tolist() == [1.0, 1.0]
    assert not scores.greedy_set(evaluate, keep, np.random.default_rng(0)).any()
    assert not scores.faithfulness(evaluate, keep).over_recovery
    drawn = null.random_circuits(evaluate, keep, draws=199)
    assert drawn.p == (1 + (np.abs(drawn.faithfulness - 1) < 0.5).sum()) / 120  # 119 other threes of ten nodes


def test_a_null_of_no_circuit_is_none_and_the_circuit_is_as_good_as_what_equals_it() -> None:
    equal = np.array(beside(0.5))
    assert prompts.null_of(equal[:1], equal[:1]) == NO_NULL
    assert prompts.null_of(equal, equal).p == 1.0
    for own in beside(0.5):
        values = np.array([own, 0.5, 0.1])
        assert prompts.null_of(values, values).p == pytest.approx(2 / 3)


@pytest.mark.parametrize("value", beside(1.0))
def test_a_line_without_scatter_at_its_bound_says_nothing(value: float) -> None:
    """The rule explains all of a head and all of other heads: not more than for them."""
    exact = Finding(
        "L0H0",
        "first token",
        "replacement",
        "corpus",
        "explained",
        value,
        1.0,
        value,
        40,
        "documents",
        null=1.0,
        null_hi=1.0,
    )
    (line,) = ledger.lines((exact,), ("discovery", "corpus"))
    assert (line.speaks, line.p_for, line.p_against) == ("undecided", 1.0, 1.0)
    assert ledger.n_needed(replace(exact, value=value), 1.0) == np.inf


@pytest.mark.parametrize("control", beside(0.6))
def test_an_edit_that_moves_as_much_as_its_control_is_no_success(control: float) -> None:
    assert edits.succeeds(np.array([0.6]), np.array([control])).tolist() == [0.0]
    assert edits.succeeds(np.array([0.6]), np.array([0.5])).tolist() == [1.0]


@pytest.mark.parametrize("seed", range(5))
def test_ranks_of_heads_whose_scores_are_equal(seed: int) -> None:
    """Half of the heads score 0 and half 1, by weights and on text: the same rank correlation every time."""
    x, y = np.arange(24) % 2, np.arange(24) // 12
    scores, behaviour = ({"x": torch.from_numpy(shaken(v * 1.0, seed + i))} for i, v in enumerate((x, y)))
    found = SimpleNamespace(scored=SimpleNamespace(values=scores), seen=SimpleNamespace(behaviour=behaviour))
    assert heads.WeightsOfHeads.agreement(found, "x")[0] == pytest.approx(stats.spearmanr(x, y)[0])
    assert heads._against("L0H0", "x", 1.0, shaken(np.ones(9), seed).tolist()).rank == 1


@pytest.mark.parametrize("seed", range(5))
def test_recall_counts_equal_effects_in_their_order(seed: int) -> None:
    exact, estimated = np.array([1.0, 0.5, 0.5, 0.5]), np.array([1.0, 0.2, 0.2, 0.2])
    assert reliability.recall(shaken(estimated, seed), shaken(exact, seed + 9), 2, 2) == 1.0
