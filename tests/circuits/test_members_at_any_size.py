"""What is planted is found, whatever else the model has: inert nodes change no member, and nothing alone makes few."""

import numpy as np
import pytest
from function_evaluator import FunctionEvaluator

from profiler import statistics
from profiler.circuits import choose
from profiler.circuits.scoring import null, scores
from profiler.patching import factorial
from profiler.prompts.pairs.crossed import Factor

PLANTED = 10
SIZES = [32, 50, 144, 1000, pytest.param(10_000, marks=pytest.mark.slow)]


def effects(nodes: int, pairs: int = 48, noise: float = 0.02, seed: int = 0) -> choose.Effects:
    """Ten nodes with an effect on every pair, in one direction each; noise in all the others."""
    rng = np.random.default_rng(seed)
    both = noise * np.random.default_rng(seed + 1).normal(size=(2, PLANTED, pairs))
    both[0, : PLANTED // 2] += 0.3 + 0.1 * rng.normal(size=(PLANTED // 2, pairs))
    both[1, PLANTED // 2 :] += 0.3 + 0.1 * rng.normal(size=(PLANTED // 2, pairs))
    rest = noise * rng.normal(size=(2, nodes - PLANTED, pairs))
    return choose.Effects(*np.concatenate([both, rest], 1), np.ones(pairs))


@pytest.mark.parametrize("nodes", SIZES)
@pytest.mark.parametrize("pairs", [12, 24, 48])
def test_planted_nodes_are_candidates_among_any_number_of_others(nodes: int, pairs: int) -> None:
    assert sorted(choose.candidates(effects(nodes, pairs))) == list(range(PLANTED))


@pytest.mark.parametrize("nodes", SIZES)
def test_nodes_that_do_nothing_change_no_p_value(nodes: int) -> None:
    """Inert heads and layers have effects of exactly 0, or of the last bits of float32."""
    few, rng = effects(32), np.random.default_rng(0)
    inert = 1e-8 * rng.choice([-1.0, 0.0, 1.0], size=(2, nodes - 32, 48))
    inert[:, ::2] = 0
    many = choose.Effects(*np.concatenate([[few.recovered, few.lost], inert], 1), few.whole)
    assert choose.candidates(many) == choose.candidates(few)
    alone = statistics.flip_tests(few.recovered)
    together = statistics.flip_tests(np.concatenate([few.recovered, np.zeros((nodes, 48))]))
    assert together.adjusted[:32] == pytest.approx(alone.adjusted)
    assert (together.adjusted[32:] == 1).all()
    assert alone.adjusted[: PLANTED // 2].max() == alone.least[0] == 1 / statistics.DRAWS


@pytest.mark.parametrize("nodes", [32, 50, 144, 400])
def test_the_same_circuit_is_chosen_whatever_else_the_model_has(nodes: int) -> None:
    """Four of the planted nodes add up, and one of two more is enough: it and the one that stands in for it."""
    sums = {0, 1, 2, 3}
    evaluate = FunctionEvaluator(nodes, lambda s: float(len(s & sums) + 2 * bool(s & {8, 9})))
    assert evaluate.labels(choose.choose(evaluate, effects(nodes))) == [f"L0H{i}" for i in (0, 1, 2, 3, 8, 9)]


def test_adjusted_p_is_the_step_down_of_the_largest_statistic_and_never_below_p() -> None:
    """By its definition, over all flips of few pairs."""
    values = np.random.default_rng(3).normal(0.4, 1, (6, 8)) * np.array([1, 10, 0.1, 1, 5, 0])[:, None]
    flips = 1 - 2 * ((np.arange(256)[:, None] >> np.arange(8)) & 1)
    sums = np.abs(np.einsum("tp,dp->td", values, flips))
    size = np.sqrt(np.square(values).sum(1))
    sums[:5] /= size[:5, None]
    observed, expected = sums[:, 0], np.zeros(6)
    order, largest = np.argsort(-observed), 0.0
    for i, target in enumerate(order):
        largest = max(largest, float((sums[order[i:]].max(0) >= observed[target] - 1e-12).mean()))
        expected[target] = largest
    found = statistics.flip_tests(values)
    assert found.adjusted == pytest.approx(expected)
    assert found.p[:5] == pytest.approx(statistics.sign_flip_p(values)[:5])
    assert (found.adjusted >= found.p).all() and (found.least == 2 / 256).all()


def test_more_flips_are_drawn_only_where_they_decide() -> None:
    clear = np.concatenate([np.full((1, 40), 1.0), np.random.default_rng(0).normal(size=(1, 40)) * 0])
    assert statistics.flip_tests(clear).least[0] == 1 / statistics.DRAWS
    rng = np.random.default_rng(0)
    near = next(v for v in rng.normal(0.3, 1, (1000, 1, 40)) if abs(statistics.sign_flip_p(v)[0] - 0.05) < 0.002)
    assert statistics.flip_tests(near).least[0] < 1 / statistics.DRAWS


@pytest.mark.parametrize("pairs", range(1, 7))
def test_too_few_pairs_cannot_decide_and_the_least_p_says_so(pairs: int) -> None:
    found = statistics.flip_tests(np.full((3, pairs), 5.0) + 0.1 * np.arange(3)[:, None])
    assert (found.adjusted == found.least).all() and found.least[0] == statistics.least_flip_p(pairs)
    assert (found.least[0] < 0.05) == (pairs >= statistics.fewest_pairs()) == (pairs >= 6)


@pytest.mark.slow
@pytest.mark.parametrize("pairs", [10, 48])
@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_false_positives_stay_at_the_level(pairs: int, shared: float) -> None:
    """Nodes without effect, alone or with most of their noise in common, heavy tails: any is found in 5 % of models."""
    rng, models = np.random.default_rng(int(10 * shared) + pairs), 400
    wrong = 0
    for _ in range(models):
        noise = rng.standard_t(3, (100, pairs)) + shared / (1 - shared) * rng.standard_t(3, (1, pairs))
        wrong += bool(statistics.flip_tests(noise * rng.exponential(size=(100, 1))).clear().any())
    low, high = statistics.clopper_pearson(wrong, models, 0.999)
    assert low <= 0.05 <= high if pairs > statistics.EXACT_PAIRS else low <= 0.05


@pytest.mark.slow
def test_false_positives_stay_at_the_level_beside_true_effects() -> None:
    rng, models = np.random.default_rng(5), 400
    wrong = 0
    for _ in range(models):
        values = rng.normal(size=(60, 48))
        values[:PLANTED] += 2
        wrong += bool(statistics.flip_tests(values).clear()[PLANTED:].any())
    assert statistics.clopper_pearson(wrong, models, 0.999)[0] <= 0.05


@pytest.mark.parametrize("components", [31, 143])
def test_a_component_responds_to_a_change_however_many_components_there_are(components: int) -> None:
    factors = (Factor(("a",)), Factor(("b",)))
    lost = 0.02 * np.random.default_rng(0).normal(size=(components + 1, 4, 16))
    lost[:10, 2:] += 1.0
    names = (*(f"L0H{i}" for i in range(components)), factorial.MODEL)
    rows = factorial.factor_rows(factorial.Responses(factors, names, (0,) * components + (None,), lost, 0))
    clear = rows.filter((rows["p_adjusted"] < 0.05) & (rows["effect"].abs() > 0.1))
    assert sorted(set(clear["component"])) == [f"L0H{i}" for i in range(10)]
    assert (rows["p_least"].drop_nulls() <= 1 / statistics.DRAWS).all()


@pytest.mark.parametrize("members", [3, 10, 30])
def test_a_circuit_of_any_size_can_be_minimal(members: int) -> None:
    """The null grows with the members: each is needed, every other node does next to nothing."""
    value = lambda s: sum(1.0 for i in range(members) if i in s) + 0.001 * len(s)  # noqa: E731
    evaluate = FunctionEvaluator(4 * members + 20, value)
    keep = np.arange(len(evaluate.nodes)) < members
    found = scores.minimality(evaluate, keep, [])
    assert found.share() == 1.0
    assert found.p_least < 0.05 and found.p_adjusted == pytest.approx(found.p_least)


def test_a_null_that_cannot_decide_says_nothing_of_minimality() -> None:
    evaluate = FunctionEvaluator(6, lambda s: float(len(s & {0, 1})))
    found = scores.minimality(evaluate, np.arange(6) < 2, [])
    assert len(found.null) == 12 and found.p_least == pytest.approx(1 / 7)
    assert np.isnan(found.share())


def test_twelve_members_are_minimal_where_each_costs_more_than_the_most_of_twelve_random_nodes() -> None:
    """One node in ten costs a lot by itself: among twelve there is often one, so a member like it shows nothing."""
    rng = np.random.default_rng(0)
    own = np.concatenate([np.linspace(0.4, 1.0, 11), [0.1], np.where(rng.random(228) < 0.1, 0.2, 0.001)])
    evaluate = FunctionEvaluator(240, lambda s: float(own[sorted(s)].sum()))
    found = scores.minimality(evaluate, np.arange(240) < 12, [])
    assert len(found.null) >= 480 and found.p_least == pytest.approx(1 / 41)
    assert (found.p_adjusted[:11] == found.p_least).all()
    assert found.p[11] < 0.2 < 0.5 < largest_of_twelve(found)
    assert found.p_adjusted[11] == pytest.approx(found.p[11], abs=0.15)  # it is compared last, with single nodes
    assert found.share() == pytest.approx(11 / 12)


def largest_of_twelve(found: scores.Minimality) -> float:
    """How often the most that twelve random nodes cost is as much as the twelfth member."""
    most = found.null[: len(found.null) // 12 * 12].reshape(-1, 12).max(1)
    return float((most >= found.effect[11]).mean())


def test_members_that_cost_no_more_than_random_nodes_are_seldom_called_minimal() -> None:
    """Twelve members that cost what twelve of the other nodes do: any of them passes in one circuit of twenty."""
    wrong, models = 0, 100
    for seed in range(models):
        own = np.random.default_rng(seed).exponential(size=120)
        own[:12] = np.random.default_rng(seed).permutation(own[12:])[:12]
        evaluate = FunctionEvaluator(120, lambda s, own=own: float(own[sorted(s)].sum()))
        wrong += bool((scores.minimality(evaluate, np.arange(120) < 12, [], seed=seed).p_adjusted < 0.05).any())
    assert statistics.clopper_pearson(wrong, models, 0.999)[0] <= 0.05


def test_the_null_takes_the_largest_over_the_sets_that_the_members_take_it_over() -> None:
    """Nodes 0 and 1 stand in for each other, and so do 4 and 5 outside: without 0, a random node costs as much."""
    value = lambda s: float(bool(s & {0, 1})) + 0.5 * bool(s & {0, 4}) + 0.01 * len(s)  # noqa: E731
    evaluate, keep = FunctionEvaluator(40, value), np.arange(40) < 2
    without = [np.arange(40) == 0]
    alone, after = (scores.minimality(evaluate, keep, sets).null.max() for sets in ([], without))
    assert alone == pytest.approx(0.01 / scores.whole(evaluate)) and after == pytest.approx(
        0.51 / scores.whole(evaluate)
    )


def test_random_circuits_are_others_and_all_of_them_where_they_are_few() -> None:
    evaluate = FunctionEvaluator(12, lambda s: float(0 in s))
    found = null.random_circuits(evaluate, np.arange(12) < 1)
    assert found.alternatives == len(found.faithfulness) == 11
    assert set(found.faithfulness) == {0.0}
    assert found.p == found.p_least == pytest.approx(1 / 12)
    every = null.random_circuits(FunctionEvaluator(3, lambda s: float(len(s))), np.ones(3, bool))
    assert every.alternatives == len(every.faithfulness) == 0 and every.p == every.p_least == 1
