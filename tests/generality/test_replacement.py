"""Replacement by understanding: models that do exactly what a rule says, models that do not, and slow recomputation."""

from dataclasses import replace

import numpy as np
import pytest
import replacement_models as built
import torch
from questions import question

from profiler.circuits.circuit import Member
from profiler.errors import PatchError
from profiler.generality.edits import sites
from profiler.generality.edits import texts as edits_texts
from profiler.generality.replacement import explain, of_members, rules
from profiler.generality.replacement.copy_rules import BUILT_IN, towards_attended
from profiler.generality.replacement.rows import DIRECT
from profiler.generality.replacement.run import TextBatch, base_of, fit, means_of, seen_of
from profiler.model import attention
from profiler.patching import capability
from profiler.patching.sites import Target

EXACT = 1e-9


# --- rules ---


def test_places_are_those_of_attention_masses():
    tokens = torch.randint(0, 4, (3, 12))
    net = built.model([built.layer([built.first_head()])])
    batch = replace(built.reading(0, 3), tokens=tokens)
    seen = seen_of(base_of(net, batch), Target("head", 0, 0), torch.zeros(12).double())
    queries = torch.arange(12).repeat(3)
    rows = attention.masks(tokens.repeat_interleave(12, 0), tokens.repeat_interleave(12, 0), queries)
    for name in ("induction", "duplicate", "previous_token", "two_back", "self"):
        theirs = rows[:, attention.MASSES.index(name)].reshape(3, 12, 12).bool()
        causal = torch.ones(12, 12, dtype=torch.bool).tril()
        assert torch.equal(rules.ATTENDED[name](seen) & causal, theirs & causal), name


def test_a_doubled_token_is_no_target_of_its_own_induction():
    """In "5 5" the second token follows an earlier copy of itself: attention to it is attention to itself."""
    tokens = torch.tensor([[5, 5, 5, 3, 5, 5]])
    rows = attention.masks(tokens.expand(6, -1), torch.zeros(6, 6, dtype=torch.long), torch.arange(6))
    mass = lambda name: [row.nonzero()[:, 0].tolist() for row in rows[:, attention.MASSES.index(name)]]  # noqa: E731
    assert mass("induction") == [[], [], [1], [], [1, 2, 3], [1, 2, 3]]
    assert mass("prefix_induction") == [[], [], [], [], [], [2, 3]]
    assert mass("duplicate") == [[], [0], [0, 1], [], [0, 1, 2], [0, 1, 2, 4]]
    text = edits_texts.EditText("t", (3, 5, 5), 0)
    for name in ("induction", "prefix_induction"):
        assert sites._repeated(name, text) == sites.NOT_HERE
    assert sites._repeated("duplicate", text).targets == (1,)
    ends = torch.tensor([2])
    assert not capability.attention_patterns(torch.tensor([[3, 5, 5]]), ends)["induction"].any()


def test_longest_prefix_and_latest_copy():
    tokens = torch.tensor([[1, 2, 3, 4, 2, 5, 1, 2, 0]])
    net = built.model([built.layer([built.first_head()])])
    batch = TextBatch(
        tokens, tokens, tokens, torch.ones_like(tokens, dtype=torch.bool), torch.zeros(1, dtype=torch.long)
    )
    seen = seen_of(base_of(net, batch), Target("head", 0, 0), torch.zeros(12).double())
    places = {name: rules.ATTENDED[name](seen)[0, 7].nonzero()[:, 0].tolist() for name in rules.ATTENDED}
    assert places["induction"] == [2, 5]
    assert places["prefix_induction"] == [2]  # "1 2" stood before offset 2
    assert places["latest_induction"] == [5]
    assert places["previous_token"] == [6]


@pytest.mark.parametrize("name", [*rules.ATTENDED, "first_token"])
def test_a_rules_pattern_is_causal_and_sums_to_one(name):
    net = built.model([built.layer([built.diffuse_head()])])
    seen = seen_of(base_of(net, built.reading(3)), Target("head", 0, 0), torch.zeros(12).double())
    pattern, says = BUILT_IN[name].value(seen)
    assert torch.allclose(pattern.sum(-1), torch.ones_like(pattern[..., 0]))
    assert (pattern.triu(1) == 0).all()
    assert (pattern[~says][:, 0] == 1).all()  # the fallback


# --- planted truth ---


@pytest.mark.parametrize(("head", "rule"), [(built.previous_head, "previous_token"), (built.first_head, "first_token")])
def test_a_head_that_is_the_rule_is_explained_exactly(head, rule):
    net = built.model(
        [
            built.layer([built.diffuse_head(1.0, 1), head(), built.diffuse_head(2.0, 2)]),
            built.layer([built.diffuse_head(0.5)] * 3),
        ]
    )
    found = built.explained(net, "L0H1", rule)
    for measure in ("KL", "net loss", "|change of loss|", DIRECT):
        assert found.shares[measure].explained == pytest.approx(1, abs=EXACT)
        assert found.shares[measure].d_ablated > 0.01
    assert {label for label, _ in found.null_heads} == {"L0H0", "L0H2"}
    assert found.nulls["KL"].mean < 0.5
    assert found.nulls["KL"].p == pytest.approx(1 / 3)


@pytest.mark.slow
def test_a_head_that_is_not_the_rule_is_not_explained():
    net = built.model([built.layer([built.diffuse_head(), built.previous_head(), built.first_head()])])
    for rule in ("previous_token", "duplicate", "induction"):
        one = built.explained(net, "L0H0", rule).shares["KL"]
        assert one.explained < 0.2, rule
    assert built.explained(net, "L0H1", "first_token").shares["KL"].explained < 0.05


def test_its_own_pattern_changes_nothing():
    net = built.model(
        [built.layer([built.diffuse_head(), built.previous_head()]), built.layer([built.diffuse_head()] * 2)]
    )
    found = built.explained(net, "L0H0", "own_pattern")
    assert found.shares["KL"].d_replaced == pytest.approx(0, abs=1e-12)  # of two forward passes in float64
    assert all(row.explained == pytest.approx(1, abs=EXACT) for row in found.rows if row.explained is not None)


def test_positions_without_a_target_are_counted():
    net = built.model([built.layer([built.diffuse_head(), built.previous_head()])])
    texts = built.texts()
    found = built.explained(net, "L0H0", "duplicate", texts)
    silent = total = 0
    for reading in texts.testing:
        for row in reading.tokens.tolist():
            silent += sum(row[i] not in row[:i] for i in range(1, len(row)))
            total += len(row) - 1
    assert found.silent == pytest.approx(silent / total)
    assert found.fallback == "attends to the first token"


def test_a_neuron_that_depends_on_the_token_is_explained_by_it():
    net = built.model([built.layer([built.first_head()], neurons=20, by_token=True)])
    found = built.explained(net, "L0N3", "token_mean")
    assert found.shares["KL"].explained == pytest.approx(1, abs=EXACT)
    assert found.silent == 0
    assert built.explained(net, "L0N3", "class_mean").shares["KL"].explained < 0.9  # three classes, seven tokens


def test_a_neuron_that_is_a_function_of_the_class_is_explained_exactly():
    net = built.model([built.layer([built.first_head()], neurons=20, by_token=True)])
    in_class = net.layers[0].w_in[torch.arange(built.VOCAB) % 3]
    net.layers[0].w_in[: built.VOCAB] = in_class  # tokens of a class excite alike
    assert built.explained(net, "L0N3", "class_mean").shares["KL"].explained == pytest.approx(1, abs=EXACT)
    assert built.explained(net, "L0N3", "class_mean").shares["net loss"].d_replaced == pytest.approx(0, abs=1e-12)


def test_class_means_are_of_the_fitting_documents():
    net = built.model([built.layer([built.first_head()], neurons=20, by_token=True)])
    fitting, testing = [built.reading(0)], built.reading(1)
    target, means = Target("neuron", 0, 3), means_of(net, fitting)
    rule = fit(net, fitting, means, [(target, BUILT_IN["class_mean"])])[target, "class_mean"]
    value, says = rule.value(seen_of(base_of(net, testing), target, means.of(target)))
    live = base_of(net, fitting[0]).sites["neuron", 0][:, :, 3]
    for number in range(3):
        wanted = live[fitting[0].counted & (fitting[0].classes == number)].mean()
        assert torch.allclose(value[testing.classes == number], wanted)
    assert says.all()


def test_a_class_that_was_not_fitted_falls_back_to_the_mean_over_all_and_is_counted():
    net = built.model([built.layer([built.first_head()], neurons=20, by_token=True)])
    fitting, testing = [built.reading(0)], replace(built.reading(1), classes=built.reading(1).classes * 0 + 9)
    target, means = Target("neuron", 0, 3), means_of(net, fitting)
    rule = fit(net, fitting, means, [(target, BUILT_IN["class_mean"])])[target, "class_mean"]
    value, says = rule.value(seen_of(base_of(net, testing), target, means.of(target)))
    assert torch.allclose(value, means.of(target)) and not says.any()


def test_a_function_of_tokens_is_a_rule_and_a_wrong_shape_is_refused():
    net = built.model([built.layer([built.previous_head(), built.diffuse_head()])])

    def before(tokens):
        width = tokens.shape[1]
        pattern = torch.zeros(width, width)
        pattern[torch.arange(width), (torch.arange(width) - 1).clamp_min(0)] = 1
        return pattern.expand(len(tokens), -1, -1)

    assert built.explained(net, "L0H0", before).shares["KL"].explained == pytest.approx(1, abs=EXACT)
    with pytest.raises(PatchError, match=r"gave shape \(40, 12\), expected \(40, 12, 12\)"):
        built.explained(net, "L0H0", lambda tokens: tokens)


# --- copy suppression ---


def test_copy_suppression_keeps_everything_or_nothing_at_its_ends():
    net, reading, means = built.network_and_seen()
    base, target = base_of(net, reading), Target("head", 1, 0)
    mean, w_o = means.of(target), net.plain.layers[1].w_o[0]
    live = base.sites["head", 1][:, :, 0] @ w_o
    whole = built.write(net, base, target, towards_attended("x", None, None, project=False), mean)
    assert torch.allclose(whole, live, atol=1e-12)
    whole = built.write(net, base, target, towards_attended("x", None, 1.0, project=False), mean)
    assert torch.allclose(whole, live, atol=1e-12)
    parts = [
        built.write(net, base, target, towards_attended("x", sign, None), mean) - mean @ w_o for sign in (1, -1, None)
    ]
    assert torch.allclose(parts[0] + parts[1], parts[2], atol=1e-12)


def test_copy_suppression_against_a_loop_over_positions():
    net, reading, means = built.network_and_seen()
    base, target = base_of(net, reading), Target("head", 1, 1)
    mean, w_o = means.of(target), net.plain.layers[1].w_o[1]
    given = built.write(net, base, target, BUILT_IN["copy_suppression"], mean)
    unembed = (net.plain.unembed - net.plain.unembed.mean(1, keepdim=True)).T * net.plain.norm_final.weight
    unembed = unembed - unembed.mean(1, keepdim=True)
    lens = net.logits(base.sites["resid_pre", 1])
    for window, query in [(0, 0), (1, 7), (2, 19), (3, 12)]:
        sources = range(query + 1)
        tokens = reading.tokens[window]
        predicted = sorted(sources, key=lambda k: (-float(lens[window, query, tokens[k]]), k))
        kept = predicted[: max(1, int(np.ceil(0.05 * (query + 1))))]
        write = mean @ w_o
        for k in kept:
            unit = unembed[tokens[k]] / unembed[tokens[k]].norm()
            term = base.sites["pattern", 1][window, 1, query, k] * ((base.sites["v", 1][window, k, 1] - mean) @ w_o)
            write = write + torch.minimum(term @ unit, torch.tensor(0.0)) * unit
        assert torch.allclose(given[window, query], write, atol=1e-10)


def test_a_head_that_suppresses_what_it_attends_to_is_explained_by_that():
    net = built.model([built.layer([built.diffuse_head(-3.0), built.diffuse_head(3.0, 5)])])
    suppressing = built.explained(net, "L0H0", "copy_suppression_ov").shares["KL"].explained
    copying = built.explained(net, "L0H1", "copy_suppression_ov").shares["KL"].explained
    assert suppressing > 0.5 > copying


# --- roles and the stage ---


@pytest.mark.parametrize(
    ("role", "component", "rule"),
    [
        ("induction head", "L2H0", "induction"),
        ("previous token", "L1H3", "previous_token"),
        ("duplicate token", "L0H1", "duplicate"),
        ("negative name mover", "L3H1", "copy_suppression"),
        ("name mover", "L3H2", "copying"),
        ("first token", "L0H0", "first_token"),
        ("at S2 attends to S1 (93%)", "L0H1", "duplicate"),
        ("fires on numbers", "L1N5", "class_mean"),
        ("S-inhibition", "L3H0", ""),
        ("", "L3H0", ""),
        ("does magic", "L3H0", ""),
    ],
)
def test_words_of_a_role_name_a_rule(role, component, rule):
    assert rules.rule_of_role(role, component) == rule
    assert not rule or rule in BUILT_IN


def test_claims_are_the_fair_rule_then_the_strict_one():
    claims = of_members.claims_of(Member("L1H1", "previous token"))
    assert [claim.rule.name for claim in claims] == ["previous_token_calibrated", "previous_token"]
    assert of_members.claims_of(Member("L1_mlp_out", "fires on numbers")) == []
    net = built.model([built.layer([built.previous_head(), built.diffuse_head(), built.first_head()])])
    fair, strict = explain.examine(net, built.texts(), [replace(c, target=Target("head", 0, 0)) for c in claims], 2)
    assert fair.fallback == "first token; 1.00 on the rule's positions"
    asked = question("L0H0", "previous token", "replacement")
    names = [row.statistic for one in (fair, strict) for row in of_members.result_of(asked, one).findings]
    assert names.count("explained") == 1 and names.count(of_members.STRICT) == 1


def test_a_calibrated_rule_takes_the_mean_attention_of_other_documents():
    net = built.model([built.layer([built.diffuse_head(), built.first_head()])])
    fitting, target = [built.reading(0)], Target("head", 0, 0)
    means = means_of(net, fitting)
    rule = fit(net, fitting, means, [(target, BUILT_IN["previous_token_calibrated"])])[
        target, "previous_token_calibrated"
    ]
    weight = float(base_of(net, fitting[0]).sites["pattern", 0][:, 0].diagonal(-1, 1, 2).mean())
    given, _ = rule.value(seen_of(base_of(net, built.reading(1)), target, means.of(target)))
    assert given[0, 5, 4] == pytest.approx(weight) and given[0, 5, 0] == pytest.approx(1 - weight)
