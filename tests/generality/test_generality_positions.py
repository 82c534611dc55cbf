"""Roles that name places of prompts: asked there and nowhere else, beside what the head attends to instead."""

import re
from dataclasses import replace

import numpy as np
import patch_models
import planted_circuits
import polars as pl
import pytest
import torch
from questions import question
from test_generality_distributions import found
from test_generality_verdict import DISTRIBUTIONS, FINDINGS, number, role

from profiler.circuits.circuit import Circuit, Member, Scope
from profiler.circuits.positions import BEFORE, FIRST, ITSELF, PositionRole, position_role
from profiler.generality import role_catalogue
from profiler.generality.counterexamples import find
from profiler.generality.coverage import at_positions as coverage_at_positions
from profiler.generality.coverage import everywhere
from profiler.generality.distributions.subject import PromptDistribution
from profiler.generality.distributions.variants import variants
from profiler.generality.edits import at_positions as edits_at_positions
from profiler.generality.edits.results import Edit
from profiler.generality.edits.texts import Vocabulary
from profiler.generality.evidence import claims, ledger, needs
from profiler.generality.evidence.distributions import CORPUS, Distribution
from profiler.generality.evidence.finding import Finding, Question, StageResult
from profiler.generality.evidence.verdict import judge
from profiler.model.steps.network import forward
from profiler.patching import sweep
from profiler.patching.metrics import logit_diff
from profiler.patching.setting import PatchSettings, prepare
from profiler.patching.sites import parse_target
from profiler.prompts.pairs import Encoded, Pair, TokenPair

PLACED = "at end attends to S2 (97%)"


@pytest.fixture(scope="module")
def distribution() -> PromptDistribution:
    """Pairs of a random model in float64, turned so that the model does what is asked on each."""
    net = patch_models.network("neox")
    pairs = patch_models.token_pairs(24)
    setting = prepare("x", net, Encoded(pairs, ()))
    turned = [
        pair if right else replace(pair, answers=pair.distractors, distractors=pair.answers)
        for pair, right in zip(pairs, setting.whole > 0, strict=True)
    ]
    return PromptDistribution(Distribution("x", 0, "prompts", "x", 24), prepare("x", net, Encoded(tuple(turned), ())))


def about(component: str, role: str) -> Question:
    return question(component, role, "coverage", "x", unit="prompts")


def slow(distribution: PromptDistribution, label: str, at: str, to: str) -> tuple[list[float], list[bool]]:
    """What patching a head at a place does, and whether it attends to the other most, one prompt at a time."""
    net, (layer, head) = patch_models.network("neox"), map(int, re.findall(r"\d+", label))
    one, sizes, holds = distribution.setting, [], []
    ways = (
        (one.batch.clean, one.corrupted, one.metric_clean),
        (one.batch.corrupted, one.clean, one.metric_corrupted),
    )
    effects = np.zeros(len(one.batch))
    for tokens, other, before in ways:
        donor, target = sweep.resample(other), parse_target(label, at)
        patched = sweep.intervene(net, tokens, one.batch.ends, one.batch, [target], donor)
        after = logit_diff(patched, one.batch.options).double().numpy()
        effects = np.maximum(effects, np.abs(before - after))
    for pair, effect in zip(one.batch.pairs, effects, strict=True):
        sites, places = {}, dict(pair.roles)
        forward(net, torch.tensor([pair.clean]), lambda s, i, v, _, sites=sites: sites.setdefault((s, i), v))
        query = places[at][-1]
        sizes.append(abs(float(effect)))
        row = sites["pattern", layer][0, head, query].tolist()
        places |= {ITSELF: (query,), BEFORE: (query - 1,), FIRST: (0,)}
        holds.append(row.index(max(row)) in places[to])
    return sizes, holds


@pytest.mark.parametrize("label", ["L0H0", "L1H1"])
@pytest.mark.parametrize(
    ("at", "to"),
    [("end", "first"), ("end", "second"), ("second", "first"), ("end", ITSELF), ("second", BEFORE), ("end", FIRST)],
)
def test_coverage_at_a_place_is_what_the_patterns_say(
    distribution: PromptDistribution, label: str, at: str, to: str
) -> None:
    net, words = patch_models.network("neox"), PositionRole(at, to).words(0.9)
    rows = coverage_at_positions.on_distribution(net, distribution, [(about(label, words), PositionRole(at, to))])
    one = found(tuple(rows), "coverage", "x")
    sizes, holds = slow(distribution, label, at, to)
    if label == "L1H1" and at == "second":  # the last layer acts at the end alone
        assert one.value is None and "changes nothing of the answer" in one.refused and max(sizes) < 1e-9
        return
    assert one.value == pytest.approx(np.dot(sizes, holds) / sum(sizes), abs=1e-9)
    assert (one.role, one.n, one.unit, one.technique) == (words, 24, "prompts", "coverage")
    other = slow(distribution, label[:3] + str(1 - int(label[3])), at, to)
    assert one.null == pytest.approx(np.dot(sizes, other[1]) / sum(sizes), abs=1e-9)
    shares = [row.value for row in rows if row.technique == "mixture"]
    assert sum(shares) == pytest.approx(1.0) and min(shares) > 0


def test_a_place_that_the_prompts_lack_is_refused_with_its_name(distribution: PromptDistribution) -> None:
    for place, lost in ((PositionRole("end", "S2"), "S2"), (PositionRole("S1", "first"), "S1")):
        (row,) = coverage_at_positions.on_distribution(
            patch_models.network("neox"), distribution, [(about("L0H0", place.words(1.0)), place)]
        )
        assert row.value is None and repr(lost) in row.refused


def test_where_the_model_does_not_do_the_task_nothing_is_tested(distribution: PromptDistribution) -> None:
    pairs = distribution.setting.batch.pairs
    turned = tuple(replace(pair, answers=pair.distractors, distractors=pair.answers) for pair in pairs)
    net = patch_models.network("neox")
    undone = replace(distribution, setting=prepare("x", net, Encoded(turned, ())))
    asked, place = about("L0H0", "at end attends to first (9%)"), PositionRole("end", "first")
    here = [
        row
        for row in coverage_at_positions.on_distribution(net, undone, [(asked, place)])
        if row.technique == "coverage"
    ]
    assert [row.statistic for row in here] == [coverage_at_positions.UNDONE]
    assert ledger.lines(here, DISTRIBUTIONS)[0].speaks == "describes"
    assert coverage_at_positions.does_task(distribution.setting) and not coverage_at_positions.does_task(undone.setting)


def test_words_are_read_back_and_others_name_no_place() -> None:
    for place in (
        PositionRole("end", "S2"),
        PositionRole("S2", ITSELF),
        PositionRole("B_doc", BEFORE),
        PositionRole("end", FIRST),
    ):
        assert position_role(place.words(0.714)) == place
    assert position_role("at end attends to S2") == PositionRole("end", "S2")
    for other in ("", "induction head", "name mover", "at the end, attends to names", "attends to S2"):
        assert position_role(other) is None


def test_each_claim_is_what_its_own_name_claims() -> None:
    """The general form of a role is given by the claim's name, which must lead back to it."""
    assert all(claims.claim_of(claim.role) == claim for claim in claims.HEAD_CLAIMS)


@pytest.mark.parametrize("at", ["first", "previous", "self", "newline", "end", "copy", "suppressor", "argument-mover"])
@pytest.mark.parametrize("to", ["first", "previous", "bos", "duplicate", "induction", "backup", "sink", "S2x"])
def test_a_users_names_of_positions_are_no_claims(at: str, to: str) -> None:
    assert claims.claim_of(f"at {at} attends to {to} (90%)") is None


def test_positions_of_the_built_in_tasks_and_of_every_token_are_claims() -> None:
    for words, claim in (
        ("at end attends to IO (60%)", claims.NAME_MOVER),
        ("at end attends to S2 (97%)", claims.S_INHIBITION),
        ("at S2 attends to S1 (93%)", claims.DUPLICATE),
        ("at B_doc attends to A_def", claims.INDUCTION),
        ("at end attends to A_def", claims.COPYING),
        ("at first attends to the token before (80%)", claims.PREVIOUS),
        ("at first attends to itself (80%)", claims.CURRENT),
        ("at second attends to the first token (80%)", claims.FIRST),
        ("attends to the first token", claims.FIRST),
    ):
        assert claims.claim_of(words) == claim
    assert claims.claim_of("moves the first name") is None


def circuit(*members: tuple[str, str]) -> Circuit:
    return Circuit("c", "m", tuple(Member(*one) for one in members), Scope("ioi", "48 pairs", ("abc",)))


def test_other_stages_ask_the_general_form_and_say_so() -> None:
    made = circuit(("L1H4", PLACED), ("L0H1", "induction"), ("L0H2", "at end attends to extra (3%)"))
    subject = replace(planted_circuits.subject(planted_circuits.NARROW), circuit=made)
    assert [m.role for m in subject.general.members] == ["S-inhibition", "induction", "at end attends to extra (3%)"]
    assert made.members[0].role == PLACED

    def words(component: str, role: str) -> str:
        return subject.question("coverage", subject.corpus, component, role).general_form_of

    assert [words("L1H4", role) for role in ("induction", "S-inhibition")] == [PLACED, PLACED]
    assert [words("L1H4", PLACED), words("L0H1", "induction"), words("", "")] == ["", "", ""]


# --- edits at positions ---

OFF, ON, QUESTION, ANSWER, WRONG = 0, 1, 2, 3, 4
VOCABULARY = Vocabulary(tuple("abcde"), np.zeros(5, int), np.zeros(5, int), np.ones(5, bool), {})


def small_pair(i: int) -> TokenPair:
    """`source` is all that the head of the gate `single` attends to; it is on in half of the prompts, and off in the
    corrupted twin, or the other way round.

    No role names offset 2."""
    first = (ON, OFF)[i % 2]
    clean, roles = (first, QUESTION, QUESTION, QUESTION), (("source", (0,)), ("beside", (1,)), ("end", (3,)))
    pair = Pair(f"p{i}", "toy", "x", "", "", ("",), ("",), ())
    return TokenPair(pair, clean, ((OFF, ON)[i % 2], *clean[1:]), (ANSWER,), (WRONG,), roles, 0)


@pytest.mark.parametrize(("to", "works"), [("source", 1.0), ("beside", 0.0)])
def test_an_edit_arrives_from_the_place_that_is_read(to: str, works: float) -> None:
    net = patch_models.GATES["single"]()
    base = planted_circuits.subject(planted_circuits.NARROW)
    pairs = tuple(map(small_pair, range(24)))
    one = PromptDistribution(Distribution("x", 0, "prompts", "x", 24), prepare("x", net, Encoded(pairs, ())))
    subject = replace(base, net=net)
    place = PositionRole("end", to)
    result = edits_at_positions.on_distribution(
        subject, one, subject.question("edits", one.distribution, "L0H0", place.words(1.0)), place, VOCABULARY
    )
    if to == "beside":  # all prompts have the same token there, so that none can be put in
        assert result == StageResult()
        return
    (rate,) = [row for row in result.findings if row.statistic == "success rate"]
    assert (rate.value, rate.null, rate.role, rate.n) == (works, 0.0, place.words(1.0), 24)
    edits = result.rows
    assert all(isinstance(row, Edit) for row in edits)
    assert len(edits) == 24 and all(row.shift == pytest.approx(1.0) and row.control_shift < 1 for row in edits)
    assert {row.before[:3] for row in edits} == {"⟦a⟧", "⟦b⟧"}


@pytest.mark.parametrize("name", ["single", "and"])
def test_what_is_put_in_differs_as_the_corrupted_prompt_does(name: str) -> None:
    """Two tokens mean `on`: one put in for the other is no edit. The corrupted prompt's token is."""
    plain = patch_models.GATES[name]()
    net = replace(plain, embed=plain.embed.clone())
    net.embed[WRONG] = net.embed[ON]
    pairs = []
    for i in range(24):
        clean = ((ON, WRONG)[i % 2], *small_pair(i).clean[1:])
        pairs.append(replace(small_pair(i), clean=clean, corrupted=(OFF, *clean[1:]), distractors=(OFF,)))
    one = PromptDistribution(Distribution("x", 0, "prompts", "x", 24), prepare("x", net, Encoded(tuple(pairs), ())))
    subject = replace(planted_circuits.subject(planted_circuits.NARROW), net=net)
    place = PositionRole("end", "source")
    question = subject.question("edits", one.distribution, "L0H0", place.words(1.0))

    def rows(some: PromptDistribution) -> StageResult:
        return edits_at_positions.on_distribution(subject, some, question, place, VOCABULARY)

    (rate,) = [row for row in rows(one).findings if row.statistic == "success rate"]
    assert (rate.value, rate.null, rate.n) == (1.0, 0.0, 24)
    assert all(row.shift == pytest.approx(1.0) for row in rows(one).rows)
    same = tuple(replace(pair, corrupted=(*pair.clean[:1], ON, *pair.clean[2:])) for pair in pairs)
    (refused,) = rows(replace(one, setting=prepare("x", net, Encoded(same, ())))).findings
    assert refused.value is None and "no contrast" in refused.refused


def test_an_edit_changes_its_place_and_the_control_one_that_no_role_names() -> None:
    pair, rng = small_pair(0), np.random.default_rng(0)
    plan = edits_at_positions.plan_of(pair, PositionRole("end", "source"), 0, [OFF, ON], VOCABULARY, rng)
    assert plan.edited == (OFF, *pair.clean[1:]) and plan.changed == (0,) and plan.control_changed == (2,)
    assert plan.control[2] not in (*pair.clean, ANSWER)
    full = replace(pair, roles=(*pair.roles, ("also", (2,))))
    assert edits_at_positions.plan_of(full, PositionRole("end", "source"), 0, [OFF, ON], VOCABULARY, rng) is None
    assert edits_at_positions._source(pair, PositionRole("end", "beside"), 0) == 1
    assert edits_at_positions._source(pair, PositionRole("beside", "end"), 0) is None
    wide = replace(pair, roles=(("source", (0, 1)), ("end", (3,))))
    assert [edits_at_positions._source(wide, PositionRole("end", "source"), most) for most in (1, 2)] == [1, 0]


# --- the verdict ---


def at_place(distribution: str, value: float, **more) -> Finding:
    return replace(role(distribution, value), role=PLACED, **more)


GENERAL = replace(role("corpus", 0.1, 0.02), role="S-inhibition", general_form_of=PLACED)


def test_a_role_that_holds_at_its_place_generalises_whatever_the_head_does_elsewhere() -> None:
    found = judge((*FINDINGS, at_place("discovery", 0.95), at_place("names", 0.9), GENERAL), DISTRIBUTIONS)
    assert found.word == "generalises"
    assert found.sentence.endswith(
        "At every position of the corpus, which the circuit does not claim, the role does not hold: L1H4,"
        " “S-inhibition” on 10\u00a0% of its importance."
    )
    assert [line.speaks for line in found.ledger[-2:]] == ["for", "against"]
    more = [replace(GENERAL, subject=f"L2H{i}", value=v, lo=v - 0.02, hi=v + 0.02) for i, v in enumerate((0.2, 0.9))]
    three = judge((*FINDINGS, at_place("discovery", 0.95), GENERAL, *more), DISTRIBUTIONS)
    assert three.sentence.endswith(
        "At every position of the corpus, which the circuit does not claim, 1 of 3 roles holds: highest L2H1,"
        " “S-inhibition” on 90\u00a0% of its importance, lowest L1H4, “S-inhibition” on 10\u00a0%."
    )
    claimed = replace(GENERAL, general_form_of="")
    assert judge((*FINDINGS, at_place("discovery", 0.95), claimed), DISTRIBUTIONS).word == "does something else"


def test_a_role_that_fails_away_from_home_is_narrow_and_one_that_fails_at_home_is_wrong() -> None:
    away = judge((*FINDINGS, at_place("discovery", 0.95), at_place("templates", 0.1)), DISTRIBUTIONS)
    assert (
        away.word == "narrows" and "As a whole the circuit keeps" in away.sentence and "on templates" in away.sentence
    )
    home = judge((*FINDINGS, at_place("discovery", 0.1), at_place("templates", 0.95)), DISTRIBUTIONS)
    assert home.word == "does something else"
    failed = at_place("discovery", 0.1, technique="edits", statistic="success rate", null=0.1, null_hi=None)
    assert judge((*FINDINGS, at_place("discovery", 0.95), failed), DISTRIBUTIONS).word == "does something else"


def test_others_of_the_layer_that_do_the_same_do_not_make_a_role_wrong() -> None:
    many = at_place("discovery", 0.97, null=0.95, null_hi=None)
    assert ledger.lines((many,), DISTRIBUTIONS)[0].speaks == "for"


def test_general_forms_are_corrected_apart() -> None:
    """Twenty general forms that hold do not make it harder to refute a claim, and ask for no examples."""
    base, low = number("discovery", 0.9), at_place("names", 0.4, lo=0.3, hi=0.5)
    alone = ledger.lines((base, low), DISTRIBUTIONS)[1].p_against
    holds = replace(GENERAL, value=0.9, lo=0.85, hi=0.95)
    assert ledger.lines((base, low, *[holds] * 20), DISTRIBUTIONS)[1].p_against == alone < 0.05
    open_ones = (replace(holds, value=0.55, lo=0.4, hi=0.7), at_place("names", 0.55, lo=0.4, hi=0.7))
    asked = needs.needs(ledger.lines(open_ones, DISTRIBUTIONS), None)
    assert [(need.subject, need.distribution) for need in asked] == [("L1H4", "names")]


def test_a_role_is_not_confirmed_by_the_pairs_that_it_was_read_off() -> None:
    """On the discovery prompts a role that names positions holds by construction; only other text supports it."""
    assert judge((*FINDINGS, at_place("discovery", 0.95)), DISTRIBUTIONS).word == "inconclusive"
    both = (*FINDINGS, at_place("discovery", 0.95), at_place("names", 0.95))
    assert judge(both, DISTRIBUTIONS).word == "generalises"


def test_what_could_not_be_asked_stands_in_the_sentence() -> None:
    lost = Finding(
        "c", "", "faithfulness", "natural text", "faithfulness", None, None, None, 9, "prompts", refused="9 prompts"
    )
    assert (
        "No faithfulness could be measured on natural text."
        in judge((*FINDINGS, at_place("discovery", 0.95), at_place("names", 0.9), lost), DISTRIBUTIONS).sentence
    )


def test_the_catalogue_takes_places_at_their_word() -> None:
    assert role_catalogue.same(PLACED, "at end attends to S2 (60%)", "L0H0")
    assert not role_catalogue.same(PLACED, "at end attends to S1 (97%)", "L0H0")
    assert not role_catalogue.same(PLACED, "S-inhibition", "L0H0")


# --- what prompts and text offer ---


def test_mentions_that_a_variant_puts_in_have_a_name() -> None:
    made = {one.name: one.pairs for one in variants(PatchSettings(task="ioi"), 5, (1, 2))}
    for name, extra in (("fresh prompts", 0), ("extra mention", 1), ("two extra mentions", 2), ("distractor", 1)):
        for pair in made[name]:
            spelled = {role: str(pair.clean)[a:b] for role, (a, b) in pair.roles}
            names = [word for role, word in spelled.items() if role.startswith("extra")]
            assert len(names) == extra and len(set(dict(pair.roles).values())) == 3 + extra
            third = name == "distractor"
            assert all((word in pair.distractors) if third else (word == spelled["IO"]) for word in names)


@pytest.mark.slow
def test_a_claim_without_a_behaviour_is_covered_from_the_same_rows(run_path) -> None:
    """`name mover` is no behaviour of the library: the share of importance where it should act and does."""
    asked = question("L1H0", "S-inhibition", "coverage", unit="positions")
    claim = replace(claims.S_INHIBITION, trigger="repeated", acts='"offset" % 2 = 0')
    rows = {row.distribution: row for row in everywhere._claim_rows(run_path, asked, claim)}
    facts = find.facts(run_path, "L1H0", claim).filter(pl.col("component") == "L1H0")
    weight = (facts["weight"] * facts["importance"]).to_numpy()
    held = (facts["should"] & facts["acts"]).to_numpy()
    assert 0 < held.sum() < len(held)
    assert rows[CORPUS].value == pytest.approx((weight * held).sum() / weight.sum())
    assert rows[CORPUS].null == pytest.approx(float(np.average(held, weights=facts["weight"])))
    own = (facts["domain"] == "a").to_numpy()
    assert rows["domain: a"].value == pytest.approx((weight * held * own).sum() / (weight * own).sum())
    assert rows[CORPUS].lo < rows[CORPUS].value < rows[CORPUS].hi
    covered = [row for row in everywhere.of_run(run_path, asked) if row.technique == "coverage"]
    assert {row.distribution for row in covered} == {CORPUS, "domain: a", "domain: b"} and covered[0].value is not None
