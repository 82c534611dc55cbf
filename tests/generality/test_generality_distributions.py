"""From the distributions to findings: planted circuits give the right numbers, identities hold exactly, tests agree
with slow ones."""

from dataclasses import replace

import numpy as np
import patch_models
import planted_circuits as planted
import pytest
from scipy import stats

from profiler.circuits import circuit_tables
from profiler.circuits.circuit import Circuit, Member, Scope
from profiler.errors import PairError
from profiler.generality.distributions import variants
from profiler.generality.distributions.subject import PromptDistribution
from profiler.generality.evidence.distributions import DISCOVERY, Distribution
from profiler.generality.evidence.finding import NO_NULL, Finding
from profiler.generality.evidence.thresholds import DEFAULT
from profiler.generality.evidence.verdict import judge
from profiler.generality.faithfulness import prompts, trend
from profiler.patching.setting import prepare
from profiler.prompts.pairs import Encoded, make


def found(rows: tuple[Finding, ...], statistic: str, distribution: str) -> Finding:
    """The one finding of a statistic on a distribution."""
    (one,) = [row for row in rows if row.statistic == statistic and row.distribution == distribution]
    return one


def by_hand(distributions: dict, name: str) -> float:
    """Faithfulness of {L0H0} from the features themselves."""
    tokens = distributions[name]
    whole = [t.get("on", 0) + t.get("alternative", 0) - t.get("doubt", 0) + t["noise"] for t in tokens]
    return sum(t.get("on", 0) for t in tokens) / sum(whole)


@pytest.mark.parametrize(
    "distributions", [planted.GENERALISES, planted.NARROW, planted.OVER], ids=["generalises", "narrow", "over"]
)
def test_planted_faithfulness_is_what_the_features_say(distributions):
    rows = prompts.findings(planted.subject(distributions)).findings
    for name in distributions:
        one = found(rows, "faithfulness", name)
        assert one.value == pytest.approx(by_hand(distributions, name), abs=1e-12)
        assert one.lo <= one.value <= one.hi
        assert one.n == 24 and one.unit == "prompts"
        assert (
            one.choices.direction == "noise outside" and one.choices.ablation == "resample" and one.choices.set == name
        )


def test_a_circuit_that_generalises_is_as_good_as_on_the_discovery_prompts():
    rows = prompts.findings(planted.subject(planted.GENERALISES)).findings
    for name in ("other words", "wide"):
        assert found(rows, "as on discovery", name).p < 0.01
        assert abs(found(rows, "gap", name).value) < 0.1
    slope = found(rows, "slope", trend.EVERY)
    assert slope.lo < 0 < slope.hi


def test_a_narrow_circuit_has_a_gap_and_is_not_equivalent():
    rows = prompts.findings(planted.subject(planted.NARROW)).findings
    gap = found(rows, "gap", "other words")
    assert gap.hi < -0.7
    assert found(rows, "as on discovery", "other words").p > 0.99


def test_a_circuit_without_its_suppressor_recovers_too_much():
    rows = prompts.findings(planted.subject(planted.OVER)).findings
    one = found(rows, "faithfulness", "other words")
    assert one.lo > 2 and one.value == pytest.approx(2.5, abs=0.4)
    whole = prompts.findings(planted.subject(planted.OVER, ("L0H0", "L0H2"))).findings
    assert found(whole, "faithfulness", "other words").value == pytest.approx(1.0, abs=0.1)


def test_random_circuits_of_one_head_are_the_three_other_heads():
    """The circuit is not compared with itself, the others are counted, and the one head generalises."""
    subject = planted.subject(planted.GENERALISES, draws=400)
    rows = prompts.findings(subject).findings
    one = found(rows, "faithfulness", DISCOVERY)
    assert (one.null_n, one.p, one.p_least) == (3, 0.25, 0.25)
    assert [one.null, one.null_hi, 1 - one.null_near] == pytest.approx([0, 0, 0], abs=0.02)
    judged = judge(rows, list(planted.GENERALISES))
    assert judged.word == "generalises"
    assert "each of the 3 other circuits of its shape, as chance alone would make it with p = 0.25" in judged.sentence
    need = found(rows, "necessity", DISCOVERY)
    assert need.value == pytest.approx(one.value, abs=1e-12)  # one layer that adds up: what is kept alone is lost alone


@pytest.mark.parametrize(
    ("gate", "missing", "stands_in"),
    [("or", 1.0, ["L0H1"]), ("serial", 1.0, ["L1H0"]), ("sum", 0.5, ["L0H1"]), ("single", 0.0, [])],
)
def test_a_check_reads_completeness_and_names_what_stands_in(gate, missing, stands_in):
    """Half of an OR, and a head without its backup, are faithful and incomplete; so is half of a sum."""
    net, pairs = patch_models.GATES[gate](), patch_models.gate_batch(24).pairs
    setting = prepare(DISCOVERY, net, Encoded(pairs, ()))
    distribution = PromptDistribution(Distribution(DISCOVERY, 0, "prompts", "x", 24), setting)
    base = replace(planted.subject(planted.GENERALISES), net=net)
    subject = with_members(replace(base, distributions=replace(base.distributions, prompts=(distribution,))), ["L0H0"])
    rows = prompts.distribution_findings(subject, distribution)[0]
    assert found(tuple(rows), "incompleteness", DISCOVERY).value == pytest.approx(missing)
    assert [row.subject for row in rows if row.statistic == "restores"] == stands_in
    sentence = judge(rows, [DISCOVERY]).sentence
    assert ("It is incomplete" in sentence) == bool(stands_in) and all(name in sentence for name in stands_in)


def test_a_null_is_the_draws_mean_upper_end_and_rank():
    """For necessity more is better, for faithfulness what is near 1; p counts the circuit itself, ties go to the
    null."""
    null = np.linspace(0.0, 1.9, 20)
    values = np.array([1.5, *null])
    high = prompts.null_of(values, values)
    assert high.mean == pytest.approx(0.95) and high.hi == pytest.approx(1.805)
    assert high.p == pytest.approx((1 + 5) / 21)
    values = np.array([0.95, *null])
    close = prompts.null_of(-np.abs(1 - values), values)
    assert close.p == pytest.approx(
        (1 + 1) / 21
    )  # of the draws 1.0 alone is nearer to 1 than the circuit on the same prompts
    assert close.near is None and prompts.closeness_null(values).near == pytest.approx(0.0)
    assert prompts.closeness_null(values).p == close.p and (close.n, close.p_least) == (20, 1 / 21)
    assert prompts.null_of(values[:1], values[:1]) == NO_NULL  # no other circuit


def test_matched_circuits_keep_sizes_by_layer_and_kind():
    nodes = [f"L{layer}{unit}" for layer in range(3) for unit in ("H0", "H1", "H2", "H3", "_mlp_out")]
    keep = np.array([node in ("L0H1", "L2H0", "L2H2", "L2H3", "L1_mlp_out") for node in nodes])
    drawn = prompts.matched(nodes, keep, 500, seed=3)
    assert len(drawn) == 4 * 4 - 1 and len(np.unique(drawn, axis=0)) == 15  # all there are but the circuit itself
    assert not (drawn == keep).all(1).any()
    layers = np.array([node[:2] for node in nodes])
    for layer in set(layers):
        for mark in ("H", "_"):
            part = np.array([lay == layer and mark in node for lay, node in zip(layers, nodes, strict=True)])
            assert (drawn[:, part].sum(1) == keep[part].sum()).all()
    first = drawn[:, [i for i, node in enumerate(nodes) if node.startswith("L0H")]].mean(0)
    assert first == pytest.approx([4 / 15, 3 / 15, 4 / 15, 4 / 15])


def test_matched_circuits_move_all_parts_of_a_component_together():
    nodes = [f"L0H{head}@{part}" for head in range(4) for part in ("S2", "elsewhere")]
    keep = np.array([node == "L0H1@S2" for node in nodes])
    drawn = prompts.matched(nodes, keep, 50)
    assert drawn[:, ::2].sum(1).tolist() == [1] * 3 and not drawn[:, 1::2].any()


def test_random_circuits_are_uniform_among_the_others():
    nodes = [f"L0H{head}" for head in range(40)]
    keep = np.array([head < 3 for head in range(40)])
    drawn = prompts.matched(nodes, keep, 2000)
    assert len(drawn) == 2000 == len(np.unique(drawn, axis=0))
    assert np.abs(drawn.mean(0) - 3 / 40).max() < 0.025


@pytest.fixture(scope="module")
def exact() -> prompts.CheckSubject:
    """A random model in float64 with pairs whose answers are what the model does more of on the clean prompt."""
    net = patch_models.network("neox_sequential")
    batch = patch_models.batch(24)
    base = planted.subject(planted.GENERALISES)
    setting = prepare("x", net, Encoded(batch.pairs, ()))
    evaluate = circuit_tables.evaluator(setting, mlps=False)
    sign = evaluate.model - evaluate.empty > 0
    turned = [
        pair if right else replace(pair, answers=pair.distractors, distractors=pair.answers)
        for pair, right in zip(batch.pairs, sign, strict=True)
    ]
    setting = prepare("x", net, Encoded(tuple(turned), ()))
    distribution = PromptDistribution(Distribution("x", 0, "prompts", "x", 24), setting)
    return replace(base, net=net, distributions=replace(base.distributions, prompts=(distribution,)))


def with_members(subject, labels):
    circuit = Circuit("c", "m", tuple(map(Member, labels)), Scope("toy", "x", ()))
    return replace(subject, circuit=circuit)


def test_the_whole_model_is_faithful_exactly_and_the_empty_circuit_not_at_all(exact):
    heads = [f"L{layer}H{head}" for layer in range(3) for head in range(2)]
    (one,) = exact.distributions.prompts
    full, _ = prompts.distribution_findings(with_members(exact, heads), one)
    assert found(tuple(full), "faithfulness", "x").value == 1.0
    assert found(tuple(full), "necessity", "x").value == 1.0
    assert found(tuple(full), "faithfulness", "x").null is None  # no other circuit of this size
    empty, _ = prompts.distribution_findings(with_members(exact, []), one)
    assert found(tuple(empty), "faithfulness", "x").value == 0.0
    assert found(tuple(empty), "necessity", "x").value == 0.0


def test_faithfulness_is_that_of_the_patching_scores(exact):
    (one,) = exact.distributions.prompts
    subject = with_members(exact, ["L0H1", "L2H0"])
    made, _ = prompts.distribution_findings(subject, one)
    evaluate = circuit_tables.evaluator(one.setting, mlps=False)
    keep = evaluate.mask(["L0H1", "L2H0"])
    assert found(tuple(made), "faithfulness", "x").value == pytest.approx(
        float(evaluate.faithfulness(keep[None])[0]), abs=1e-12
    )


def test_a_distribution_where_the_model_shows_nothing_is_refused_with_the_reason():
    distributions = {DISCOVERY: planted.some(on=1.0), "nothing": planted.some(seed=1, on=1.0, doubt=1.0)}
    rows = prompts.findings(planted.subject(distributions)).findings
    one = found(rows, "faithfulness", "nothing")
    assert one.value is None and "there is nothing to explain" in one.refused
    assert not [row for row in rows if row.distribution == "nothing" and row.technique == "trend"]


def test_few_documents_are_refused_however_many_prompts():
    subject = planted.subject(planted.GENERALISES)
    tokens = range(planted.FIRST, planted.FIRST + 24)
    made = planted.pairs(tokens, planted.FIRST + 72, ["a", "b", "c", "d"] * 6)
    one = PromptDistribution(
        Distribution("natural", 1, "prompts", "x", 24, 48, 4), prepare("natural", subject.net, Encoded(made, ()))
    )
    (refused, *_), effect = prompts.distribution_findings(subject, one)
    assert "4 documents" in refused.refused and effect is None and refused.unit == "documents"


def test_intervals_resample_documents_not_prompts():
    """Prompts of one document that say the same thing are one piece of evidence."""
    rng = np.random.default_rng(0)
    effect = np.repeat(rng.normal(1, 0.5, 12), 20)
    ones, alone, together = np.ones(240), np.arange(240), np.repeat(np.arange(12), 20)
    narrow, wide = (prompts.ratio(effect, ones, clusters) for clusters in (alone, together))
    assert (narrow.n, wide.n) == (240, 12)
    assert (wide.hi - wide.lo) / (narrow.hi - narrow.lo) == pytest.approx(20**0.5, rel=0.15)


def test_ratio_interval_covers_the_truth():
    """95 % intervals of a ratio of sums hold the true ratio in 90 to 99 % of 200 simulations of 30 documents."""
    rng = np.random.default_rng(1)
    held = 0
    for i in range(200):
        below = rng.gamma(4, 1, 30)
        one = prompts.ratio(0.6 * below + rng.normal(0, 0.5, 30), below, np.arange(30), seed=i)
        held += one.lo <= 0.6 <= one.hi
    assert 0.90 <= held / 200 <= 0.99


def slow_tost(first, second, margin):
    """Two one-sided Welch tests, from the formulas."""
    difference = np.mean(second) - np.mean(first)
    parts = [np.var(part, ddof=1) / len(part) for part in (first, second)]
    error = np.sqrt(sum(parts))
    df = sum(parts) ** 2 / sum(part**2 / (len(x) - 1) for part, x in zip(parts, (first, second), strict=True))
    above = stats.t.sf((difference + margin) / error, df)
    below = stats.t.cdf((difference - margin) / error, df)
    return difference, max(above, below)


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.2, -0.3])
def test_tost_is_two_one_sided_tests(shift):
    rng = np.random.default_rng(2)
    first, second = rng.normal(1, 0.2, 30), rng.normal(1 + shift, 0.4, 45)
    difference, lo, hi, p = trend.tost(first, second, 0.2)
    slow = slow_tost(first, second, 0.2)
    assert (difference, p) == pytest.approx(slow, rel=1e-9)
    assert lo < difference < hi


def test_tost_without_any_scatter_says_what_the_difference_says():
    ones = np.ones(10)
    assert trend.tost(ones, ones + 0.1, 0.2)[3] == 0.0
    assert trend.tost(ones, ones + 0.3, 0.2)[3] == 1.0


def test_the_linear_part_has_the_ratio_as_its_mean_and_its_error():
    rng = np.random.default_rng(3)
    whole, clusters = rng.gamma(9, 1, 200), np.arange(200) // 4
    kept = 0.7 * whole + rng.normal(0, 1, 200)
    one = trend.PairEffects(Distribution("x", 0, "prompts", "x", 200), kept, whole, clusters)
    values = trend.linear(one)
    assert len(values) == 50 and values.mean() == pytest.approx(kept.sum() / whole.sum(), abs=1e-12)
    resampled = prompts.ratio(kept, whole, clusters)
    assert 2 * 1.96 * values.std(ddof=1) / 50**0.5 == pytest.approx(resampled.hi - resampled.lo, rel=0.1)


def test_the_fewest_are_the_ledgers():
    assert DEFAULT.fewest == 20


def test_self_repair_of_a_serial_backup():
    """L1H0 writes the answer where L0H0 did not: all of the direct effect of L0H0 is made up for."""
    net = patch_models.GATES["serial"]()
    batch = patch_models.gate_batch(24)
    setting = prepare(DISCOVERY, net, Encoded(batch.pairs, ()))
    distribution = PromptDistribution(Distribution(DISCOVERY, 0, "prompts", "x", 24), setting)
    base = planted.subject(planted.GENERALISES)
    subject = replace(
        with_members(base, ["L0H0"]),
        net=net,
        distributions=replace(base.distributions, prompts=(distribution,)),
    )
    assert prompts.repaired_members(subject) == ("L0H0",)
    one = prompts._repair(subject, distribution, "L0H0", prompts.clean_writes(setting))
    assert one.value == pytest.approx(1.0, abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_planted_circuits_get_their_word_from_what_is_measured(seed: int):
    """Hand-made models through the measuring itself and the verdict; one of 64 heads, so that random circuits are
    others."""
    for word, distributions in planted.truths(seed).items():
        rows = prompts.findings(planted.subject(distributions, ("L0H0",), 99, spare=60)).findings
        assert judge(rows, list(distributions)).word == word
    distributions = planted.truths(seed)["generalises"]
    for head in ("L0H1", "L0H3", "L0H30"):
        rows = prompts.findings(planted.subject(distributions, (head,), 99, spare=60)).findings
        assert judge(rows, list(distributions)).word == "does something else"


def test_a_vocabulary_too_small_for_repeated_tokens_has_none_of_them() -> None:
    """It ended in a traceback of `random.sample`."""
    assert variants.repeats(0, 3, tuple(range(26))) == ()
    assert len(variants.repeats(0, 3, tuple(range(28)))) == 3
    with pytest.raises(PairError, match="draws 14 different tokens from half of the ordinary tokens"):
        make("repeated-tokens", None, "train", 3, vocabulary=tuple(range(26)))


def test_a_random_circuit_is_as_good_where_it_is_as_faithful_and_as_necessary():
    """One of two heads that stand in for each other is as faithful as both, and nothing is lost without it."""
    faithful, necessity = np.array([1.0, 1.0, 0.5, 1.0]), np.array([1.0, 0.1, 1.0, 1.0])
    null = prompts.closeness_null(faithful, necessity)
    assert (null.p, null.n, null.near) == (2 / 4, 3, 0.0)
    assert null.distance == pytest.approx(0.5 / 3)
    alone = prompts.closeness_null(faithful[:3], necessity[:3])
    assert (alone.p, alone.near) == (1 / 3, 0.5)
    assert prompts.closeness_null(faithful[:3]).p == 2 / 3
    over = prompts.closeness_null(np.array([1.0, 1.4]), np.array([0.2, 0.9]))
    assert over.near == pytest.approx(0.4)  # a larger necessity makes up for nothing
