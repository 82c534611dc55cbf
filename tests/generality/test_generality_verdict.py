"""The ledger and the verdict: planted claims over 100 seeds, and every rule against a hand-made case."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import planted_claims as planted
import pytest
from scipy import stats
from statsmodels.stats.inter_rater import cohens_kappa

from profiler.generality.evidence import agreement, ledger
from profiler.generality.evidence.finding import Finding, Question
from profiler.generality.evidence.thresholds import DEFAULT
from profiler.generality.evidence.verdict import judge

SEEDS = range(100)
DISTRIBUTIONS = ("discovery", "names", "templates", "corpus")


def words(case: planted.Planted) -> Counter[str]:
    return Counter(judge(case(np.random.default_rng(seed)), planted.DISTRIBUTIONS).word for seed in SEEDS)


@pytest.mark.parametrize("case", planted.TRUTH, ids=lambda case: case.__name__)
def test_planted_claims_get_the_right_verdict(case: planted.Planted) -> None:
    """At most 5 of 100 wrong, `inconclusive` not counted; and it is not inconclusive out of caution."""
    found = words(case)
    right = found[planted.TRUTH[case]]
    assert len(SEEDS) - right - found["inconclusive"] <= 5, found
    assert right >= 60, found


@pytest.mark.slow
@pytest.mark.parametrize("case", [planted.scrambled, planted.half_scrambled, planted.random_circuit])
def test_scrambled_roles_and_random_circuits_never_generalise(case: planted.Planted) -> None:
    found = words(case)
    assert found["generalises"] == 0, found
    assert found["inconclusive"] <= 50, found


def number(distribution: str, value: float, half: float = 0.05, n: int = 48, **more) -> Finding:
    """A faithfulness with a symmetric interval."""
    fields = {
        "subject": "c",
        "role": "",
        "technique": "faithfulness",
        "statistic": "faithfulness",
        "null": 0.05,
        "null_hi": 0.2,
    } | more
    return Finding(
        distribution=distribution, value=value, lo=value - half, hi=value + half, n=n, unit="prompts", **fields
    )


def test_faithfulness_with_means_is_held_against_means() -> None:
    """0.1 with means is no fall from 0.9 with resampled values; it is one from 0.9 with means."""
    means = {"technique": "corpus faithfulness"}
    resampled, wide = number("discovery", 0.9), number("corpus", 0.1, **means)
    assert ledger.lines((resampled, wide), DISTRIBUTIONS)[1].speaks == "undecided"
    for value, speaks in ((0.9, "against"), (0.15, "undecided")):
        base = number("discovery", value, statistic="faithfulness with means", **means)
        assert ledger.lines((resampled, base, wide), DISTRIBUTIONS)[2].speaks == speaks


def role(distribution: str, value: float, half: float = 0.05, subject: str = "L1H4", **more) -> Finding:
    return number(
        distribution,
        value,
        half,
        subject=subject,
        role="induction",
        technique=more.pop("technique", "coverage"),
        statistic=more.pop("statistic", "coverage"),
        **more,
    )


FINDINGS = (number("discovery", 0.9), number("names", 0.88), number("templates", 0.9))


def test_a_word_for_each_plain_case() -> None:
    assert judge(FINDINGS, DISTRIBUTIONS).word == "generalises"
    assert judge((*FINDINGS[:2], number("templates", 0.3)), DISTRIBUTIONS).word == "narrows"
    assert judge((*FINDINGS[:2], number("templates", 1.3)), DISTRIBUTIONS).word == "over-recovers"
    assert judge((number("discovery", 0.1), *FINDINGS[1:]), DISTRIBUTIONS).word == "does something else"
    assert judge((*FINDINGS, role("corpus", 0.2)), DISTRIBUTIONS).word == "does something else"
    assert judge((*FINDINGS[:2], number("templates", 0.7, 0.2)), DISTRIBUTIONS).word == "inconclusive"
    assert judge((), DISTRIBUTIONS).word == "inconclusive"
    with pytest.raises(ValueError, match="discovery prompts first"):
        judge(FINDINGS, ())


def test_a_distribution_that_may_be_over_recovery_is_not_as_good() -> None:
    """Its interval reaches above 1 + MARGIN and below 1 + OVER: neither word is earned."""
    maybe = judge((*FINDINGS[:2], number("templates", 1.15, 0.08)), DISTRIBUTIONS)
    assert maybe.word == "inconclusive"
    assert judge((*FINDINGS[:2], number("templates", 1.05, 0.08)), DISTRIBUTIONS).word == "generalises"


def test_nothing_wider_than_the_discovery_prompts_is_no_generality() -> None:
    assert judge(FINDINGS[:1], DISTRIBUTIONS).word == "inconclusive"


@pytest.mark.parametrize("null", [0.6, 1.1])
def test_a_perfect_circuit_is_better_than_random_ones_that_recover_more_than_everything(null: float) -> None:
    """Random circuits' 95th percentile is 1.285; what is nearer to 1 is better, not what is higher."""
    random = {"null": null, "null_hi": 1.285, "null_near": 0.15, "null_distance": 0.4}
    perfect = tuple(number(distribution, 1.0, 0.0, **random) for distribution in DISTRIBUTIONS[:3])
    assert {line.speaks for line in ledger.lines(perfect, DISTRIBUTIONS)} == {"for"}
    assert judge(perfect, DISTRIBUTIONS).word == "generalises"
    good = tuple(number(distribution, 0.93, 0.03, **random) for distribution in DISTRIBUTIONS[:3])
    assert judge(good, DISTRIBUTIONS).word == "generalises"


def test_a_circuit_that_is_no_nearer_than_the_nearest_random_ones_is_undecided() -> None:
    near = {"null": 0.4, "null_hi": 1.285, "null_near": 0.02, "null_distance": 0.6}
    wide = tuple(number(distribution, 0.93, 0.03, **near) for distribution in DISTRIBUTIONS[:3])
    assert {line.speaks for line in ledger.lines(wide, DISTRIBUTIONS)} == {"undecided"}
    assert judge(wide, DISTRIBUTIONS).word == "inconclusive"
    typical = number("discovery", 0.93, 0.03, null=0.99, null_hi=1.0, null_near=0.0, null_distance=0.01)
    assert ledger.lines((typical,), DISTRIBUTIONS)[0].speaks == "against"


def at_positions(distribution: str, value: float, head: int) -> Finding:
    named = replace(role(distribution, value, subject=f"L1H{head}"), role="at end attends to S2 (90%)")
    return named


def test_a_role_that_was_refused_where_it_was_read_off_is_not_called_wrong() -> None:
    """Too few discovery pairs: nobody knows whether the roles hold there, so their failing elsewhere is no more than
    narrow."""
    failing = tuple(at_positions("names", 0.1, head) for head in range(9))
    holding = tuple(at_positions("discovery", 0.9, head) for head in range(9))
    assert judge((*FINDINGS, *holding, *failing), DISTRIBUTIONS).word == "narrows"
    refused = tuple(
        Question(one.subject, one.role, "coverage", "discovery", "prompts").refused("coverage", 12, "12 prompts")
        for one in holding
    )
    found = judge((*FINDINGS, *refused, *failing), DISTRIBUTIONS)
    assert found.word == "narrows"
    assert "The discovery prompts decide nothing on 9 of them" in found.sentence
    unsure = tuple(replace(one, value=0.5, lo=0.3, hi=0.7) for one in holding)
    assert judge((*FINDINGS, *unsure, *failing), DISTRIBUTIONS).word == "narrows"
    bad = tuple(at_positions("discovery", 0.1, head) for head in range(9))
    assert judge((*FINDINGS, *bad, *failing), DISTRIBUTIONS).word == "does something else"


def test_over_recovery_is_never_a_success_and_comes_before_the_rest() -> None:
    both = judge((*FINDINGS[:1], number("names", 0.2), number("templates", 1.5), role("corpus", 0.1)), DISTRIBUTIONS)
    assert both.word == "over-recovers"
    assert "On names it falls to 20\u00a0%" in both.sentence
    assert "The only tested role is refuted" in both.sentence


def test_of_two_reasons_why_a_distribution_was_not_asked_the_distributionss_is_told() -> None:
    """Resampled values come first, as in the check; means have an effect of their own, whose refusal must not stand for
    it."""
    why = ("the model's own effect is −0.85 logits", "the model's own effect is −0.04 logits")
    made = [
        Question("c", "", technique, "text", "prompts").refused("faithfulness", 90, one)
        for technique, one in zip(("faithfulness", "corpus faithfulness"), why, strict=True)
    ]
    assert judge((*FINDINGS, *made), (*DISTRIBUTIONS, "text")).change[-1] == f"Not tested: text ({why[0]})."


def test_a_minority_of_refuted_roles_narrows() -> None:
    kept = tuple(role("corpus", 0.9, subject=f"L{i}H0") for i in range(3))
    assert judge((*FINDINGS, *kept), DISTRIBUTIONS).word == "generalises"
    found = judge((*FINDINGS, *kept, role("corpus", 0.1)), DISTRIBUTIONS)
    assert found.word == "narrows"
    assert "1 of 4 tested roles is refuted" in found.sentence
    assert "L1H4 is “induction” on 10\u00a0%" in found.sentence


def test_a_role_that_was_claimed_and_not_tested_keeps_a_circuit_from_generalising() -> None:
    untested = Question("L1H4", "backup name mover", "coverage", "corpus", "documents").refused(
        "coverage", 0, "no trigger"
    )
    found = judge((*FINDINGS, untested), DISTRIBUTIONS)
    assert found.word == "inconclusive"
    assert "no role could be tested" in found.sentence


def test_a_role_that_fails_in_one_domain_is_refuted_though_it_holds_on_the_corpus() -> None:
    fine, failing = role("corpus", 0.8), role("domain: prose", 0.2)
    assert judge((*FINDINGS, fine), DISTRIBUTIONS).word == "generalises"
    assert judge((*FINDINGS, fine, failing), DISTRIBUTIONS).word == "does something else"


def test_a_role_that_may_fail_somewhere_does_not_hold_yet() -> None:
    fine = role("corpus", 0.9)
    assert judge((*FINDINGS, fine, role("domain: prose", 0.4, 0.2)), DISTRIBUTIONS).word == "inconclusive"
    assert judge((*FINDINGS, fine, role("domain: prose", 0.6, 0.2)), DISTRIBUTIONS).word == "generalises"


def test_the_sentence_names_the_widest_distribution_and_what_was_not_tested() -> None:
    untested = Question("L0H0", "backup name mover", "coverage", "corpus", "documents").refused(
        "coverage", 0, "no trigger"
    )
    found = judge((*FINDINGS, role("names", 0.1), role("corpus", 0.2), untested), DISTRIBUTIONS)
    assert found.word == "does something else"
    assert "the only tested role is refuted (1 more could not be tested)" in found.sentence
    assert "on 20\u00a0%" in found.sentence
    assert found.numbers[0].distribution == "corpus"


def test_edits_refute_a_role_and_a_replacement_only_keeps_it_from_holding() -> None:
    fine = role("corpus", 0.9)
    edits = role("corpus", 0.12, technique="edits", statistic="success rate", null=0.1, null_hi=None)
    assert (
        judge((*FINDINGS, fine, replace(edits, value=0.1, lo=0.05, hi=0.15)), DISTRIBUTIONS).word
        == "does something else"
    )
    assert judge((*FINDINGS, fine, replace(edits, value=0.9, lo=0.85, hi=0.95)), DISTRIBUTIONS).word == "generalises"
    replacement = role("corpus", -0.4, technique="replacement", statistic="explained", null=-0.1, null_hi=0.1)
    assert judge((*FINDINGS, fine, replacement), DISTRIBUTIONS).word == "inconclusive"


def test_what_is_not_needed_does_not_generalise_and_is_not_refuted() -> None:
    needed = number("names", 0.8, technique="necessity", statistic="necessity")
    assert judge((*FINDINGS, needed), DISTRIBUTIONS).word == "generalises"
    assert (
        judge((*FINDINGS, replace(needed, null_hi=0.9)), DISTRIBUTIONS).word == "generalises"
    )  # random knock-outs that cost all
    assert judge((*FINDINGS, replace(needed, null=0.85, null_hi=0.9)), DISTRIBUTIONS).word == "inconclusive"
    assert judge((*FINDINGS, replace(needed, lo=0.4)), DISTRIBUTIONS).word == "inconclusive"
    (line,) = ledger.lines((replace(needed, null_hi=0.9),), DISTRIBUTIONS)
    assert line.speaks == "undecided"


def test_distributions_that_could_not_be_asked_are_told_with_every_word() -> None:
    few = Question("c", "", "faithfulness", "lower case", "prompts").refused("faithfulness", 4, "4 usable prompts")
    for findings in (
        FINDINGS,
        (*FINDINGS, number("corpus", 0.2)),
        (*FINDINGS, number("corpus", 1.5)),
        (FINDINGS[0], number("corpus", 0.7, 0.2)),
    ):
        assert "Not tested: lower case (4 usable prompts)." in judge((*findings, few), DISTRIBUTIONS).change
        assert not any("Not tested" in sentence for sentence in judge(findings, DISTRIBUTIONS).change)


def test_a_role_as_common_as_its_null_does_not_hold() -> None:
    common = role("corpus", 0.8, null=0.79, null_hi=0.82)
    (line,) = ledger.lines((common,), DISTRIBUTIONS)
    assert line.speaks == "undecided"
    assert judge((*FINDINGS, common), DISTRIBUTIONS).word == "inconclusive"
    below = replace(common, null=0.95, null_hi=0.97)
    assert ledger.lines((below,), DISTRIBUTIONS)[0].speaks == "against"


def test_a_role_that_claims_every_position_is_not_held_against_its_scrambling() -> None:
    """A head that always attends to the token before is as good scrambled: that is no reason to doubt it."""
    always = replace(role("corpus", 0.95, 0.02, null=0.95, null_hi=0.97), role="previous token")
    assert ledger.lines((always,), DISTRIBUTIONS)[0].speaks == "for"
    assert ledger.lines((replace(always, role="induction"),), DISTRIBUTIONS)[0].speaks != "for"


def test_as_good_is_two_one_sided_tests_at_five_per_cent() -> None:
    """The 90 % interval of the difference must lie inside the margin, with both errors in it."""
    base, wide = number("discovery", 0.9, 0.05), number("names", 0.82, 0.08)
    error = math.hypot(0.05, 0.08) / ledger.Z95
    p = stats.norm.sf((0.82 - (0.9 - DEFAULT.margin)) / error)
    _, line = ledger.lines((base, wide), DISTRIBUTIONS)
    assert line.p_for == pytest.approx(p)
    assert line.speaks == ("for" if p < 0.05 else "undecided")
    _, line = ledger.lines((base, replace(wide, value=0.84, lo=0.76, hi=0.92)), DISTRIBUTIONS)
    assert line.speaks == "for"


def test_what_speaks_against_is_corrected_by_holm() -> None:
    """Alone it is significant, among ten distributions it is not."""
    base, low = number("discovery", 0.9, 0.0), number("names", 0.6, 0.1)
    alone = ledger.lines((base, low), DISTRIBUTIONS)[1]
    many = ledger.lines((base, low, *(number(f"distribution {i}", 0.9) for i in range(8))), DISTRIBUTIONS)[1]
    assert alone.speaks == "against"
    assert alone.p_against == pytest.approx(stats.norm.sf(ledger.Z95))
    assert many.speaks == "undecided"
    assert many.p_against == pytest.approx(9 * alone.p_against)


def test_an_estimate_without_spread_is_decided_by_its_sign_alone() -> None:
    exact = role("corpus", 1.0, 0.0)
    assert ledger.lines((exact,), DISTRIBUTIONS)[0].speaks == "for"
    assert ledger.lines((replace(exact, value=0.0, lo=0.0, hi=0.0),), DISTRIBUTIONS)[0].speaks == "against"
    assert ledger.lines((replace(exact, value=0.5, lo=0.5, hi=0.5),), DISTRIBUTIONS)[0].speaks == "undecided"


def test_weights_count_what_is_shared_once() -> None:
    one = role("corpus", 0.9, shares=("data corpus",))
    same = ledger.lines((one,) * 4, DISTRIBUTIONS)
    assert [line.weight for line in same] == pytest.approx([0.25] * 4)
    apart = [
        role(f"distribution {i}", 0.9, technique=t, statistic=s)
        for i, (t, s) in enumerate([("coverage", "coverage"), ("edits", "success rate"), ("replacement", "explained")])
    ]
    assert [line.weight for line in ledger.lines(apart, DISTRIBUTIONS)] == [1.0, 1.0, 1.0]
    gradients = [replace(finding, shares=("gradients",)) for finding in apart]
    assert [line.weight for line in ledger.lines(gradients, DISTRIBUTIONS)] == pytest.approx([1 / (1 + 2 / 5)] * 3)
    other = ledger.lines((one, replace(one, subject="L0H0")), DISTRIBUTIONS)
    assert [line.weight for line in other] == [1.0, 1.0]


def test_lines_that_test_nothing_weigh_nothing() -> None:
    described = role("corpus", 0.9, statistic="unexplained share", technique="mixture")
    none = Question("c", "", "necessity", "names", "prompts").refused("necessity", 3, "too few")
    found = ledger.lines((described, none), DISTRIBUTIONS)
    assert [(line.speaks, line.weight) for line in found] == [("describes", 0.0), ("refused", 0.0)]
    assert [line.weight for line in found] == [0.0, 0.0]


def test_agreement_is_cohens_kappa_and_says_when_it_could_not_have_been_otherwise() -> None:
    rng = np.random.default_rng(3)
    says = [(bool(rng.random() < 0.6), bool(rng.random() < 0.4)) for _ in range(12)]
    findings = [
        role("corpus", 0.9 if yes else 0.1, subject=f"L0H{i}", technique=t, statistic=s, null=0.0, null_hi=0.0)
        for i, both in enumerate(says)
        for yes, t, s in zip(both, ("coverage", "replacement"), ("coverage", "explained"), strict=True)
    ]
    findings = [
        replace(f, value=-0.5, lo=-0.6, hi=-0.4) if f.technique == "replacement" and f.value < 0.5 else f
        for f in findings
    ]
    (pair,) = agreement.agreement(ledger.lines(findings, DISTRIBUTIONS))
    table = np.zeros((2, 2))
    for first, second in says:
        table[int(first), int(second)] += 1
    assert (pair.n, pair.agree) == (12, sum(a == b for a, b in says))
    assert pair.kappa == pytest.approx(cohens_kappa(table, return_results=False))
    assert pair.could_disagree == pytest.approx(12 * (1 - pair.expected))
    always = [f for f in findings if says[int(f.subject[3:])] == (True, True)]
    (pair,) = agreement.agreement(ledger.lines(always, DISTRIBUTIONS))
    assert (pair.could_disagree, pair.kappa) == (0.0, None)


def test_the_examples_that_would_settle_it_do() -> None:
    """With the intervals that so many examples give, the bound is left out; with fewer, it is not."""
    base, wide = number("discovery", 0.9, 0.1), number("templates", 0.777, 0.2)
    found = judge((base, number("names", 0.9, 0.01), wide), DISTRIBUTIONS)
    assert found.word == "inconclusive"
    need = max(found.needs, key=lambda one: one.needed)
    assert (need.distribution, need.n) == ("templates", 48)
    for n, inside in ((need.needed, False), (need.needed - 2, True)):
        half = math.hypot(0.1, 0.2) * math.sqrt(48 / n)
        assert (0.777 - half <= 0.9 - DEFAULT.margin) == inside
    assert f"{need.needed:,} prompts would decide it" in found.sentence
    more = [
        replace(one, lo=one.value - half, hi=one.value + half, n=need.needed)
        for one, half in ((base, 0.1 * math.sqrt(48 / need.needed)), (wide, 0.2 * math.sqrt(48 / need.needed)))
    ]
    assert judge(more, DISTRIBUTIONS).word == "generalises"


def test_a_score_of_weights_has_no_interval_and_asks_for_no_examples() -> None:
    score = Finding(
        "L1H4", "induction", "weights", "weights", "matching", 0.3, None, None, 1, "components", 0.2, 0.5, 0.3
    )
    found = judge((FINDINGS[0], score), DISTRIBUTIONS)
    assert [line.speaks for line in found.ledger] == ["for", "undecided"]
    assert found.needs == ()
    assert ledger.lines((replace(score, p=0.01),), DISTRIBUTIONS)[0].speaks == "for"


def test_refused_distributions_ask_for_as_many_as_a_rate_needs() -> None:
    few = Question("c", "", "faithfulness", "templates", "prompts").refused("faithfulness", 4, "too few")
    found = judge((FINDINGS[0], few), DISTRIBUTIONS)
    assert found.word == "inconclusive"
    assert (found.needs[0].n, found.needs[0].needed) == (4, 20)


def test_the_numbers_of_the_sentence_are_findings() -> None:
    for case in planted.TRUTH:
        findings = case(np.random.default_rng(0))
        found = judge(findings, planted.DISTRIBUTIONS)
        assert found.numbers
        assert set(found.numbers) <= set(findings)
        assert [line.finding for line in found.ledger] == findings
        assert all(f"{100 * one.value:.0f}\u00a0%" in found.sentence for one in found.numbers)
        assert found.change or found.word == "inconclusive"


def test_what_was_registered_is_marked() -> None:
    found = judge(FINDINGS, DISTRIBUTIONS, {("c", "faithfulness", "names")})
    assert [line.registered for line in found.ledger] == [False, True, False]
