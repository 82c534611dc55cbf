"""Replacement by understanding: models that do exactly what a rule says, models that do not, and slow recomputation."""

from dataclasses import replace

import numpy as np
import patch_models
import pytest
import replacement_models as built
import tiny
import torch
from transformers import GPT2LMHeadModel

from profiler import attention, attribution
from profiler.circuits.circuit import Member
from profiler.config import RunConfig
from profiler.errors import PatchError
from profiler.forward import Wanted
from profiler.generality import replacement, replacement_share, replacement_stage, replacement_view, understood
from profiler.generality.replacement_rows import DIRECT, GONE
from profiler.generality.replacement_run import Job, Reading, base_of, fit, means_of, run, seen_of
from profiler.generality.replacement_text import FIT_IN
from profiler.generality.replacement_view import Claimed
from profiler.generality.understood_copy import BUILT_IN, towards_attended
from profiler.keys import stable_hash
from profiler.model import load_model
from profiler.patching.batch import trace
from profiler.patching.network import forward
from profiler.patching.sites import Target, parse_target
from profiler.patching.sweep import put

EXACT = 1e-9


def explained(net, component, rule, texts=None, nulls=2):
    target = parse_target(component)
    claim = Claimed(target, replacement.rule_named(rule, target), str(rule))
    return replacement.examine(net, texts or built.texts(), [claim], nulls)[0]


# --- rules ---


def test_places_are_those_of_attention_masses():
    tokens = torch.randint(0, 4, (3, 12))
    net = built.model([built.layer([built.first_head()])])
    batch = replace(built.reading(0, 3), tokens=tokens)
    seen = seen_of(base_of(net, batch), Target("head", 0, 0), torch.zeros(12).double())
    queries = torch.arange(12).repeat(3)
    rows = attention.masks(tokens.repeat_interleave(12, 0), tokens.repeat_interleave(12, 0), queries)
    for name in ("induction", "duplicate", "previous", "two_back", "self"):
        theirs = rows[:, attention.MASSES.index(name)].reshape(3, 12, 12).bool()
        causal = torch.ones(12, 12, dtype=torch.bool).tril()
        assert torch.equal(understood.PLACES[name](seen) & causal, theirs & causal), name


def test_longest_prefix_and_latest_copy():
    tokens = torch.tensor([[1, 2, 3, 4, 2, 5, 1, 2, 0]])
    net = built.model([built.layer([built.first_head()])])
    batch = Reading(tokens, tokens, tokens, torch.ones_like(tokens, dtype=torch.bool), torch.zeros(1, dtype=torch.long))
    seen = seen_of(base_of(net, batch), Target("head", 0, 0), torch.zeros(12).double())
    places = {name: understood.PLACES[name](seen)[0, 7].nonzero()[:, 0].tolist() for name in understood.PLACES}
    assert places["induction"] == [2, 5]
    assert places["prefix_induction"] == [2]  # "1 2" stood before offset 2
    assert places["latest_induction"] == [5]
    assert places["previous"] == [6]


@pytest.mark.parametrize("name", [*understood.PLACES, "first"])
def test_a_rules_pattern_is_causal_and_sums_to_one(name):
    net = built.model([built.layer([built.diffuse_head()])])
    seen = seen_of(base_of(net, built.reading(3)), Target("head", 0, 0), torch.zeros(12).double())
    pattern, says = BUILT_IN[name].value(seen)
    assert torch.allclose(pattern.sum(-1), torch.ones_like(pattern[..., 0]))
    assert (pattern.triu(1) == 0).all()
    assert (pattern[~says][:, 0] == 1).all()  # the fallback


# --- planted truth ---


@pytest.mark.parametrize(("head", "rule"), [(built.previous_head, "previous"), (built.first_head, "first")])
def test_a_head_that_is_the_rule_is_explained_exactly(head, rule):
    net = built.model(
        [
            built.layer([built.diffuse_head(1.0, 1), head(), built.diffuse_head(2.0, 2)]),
            built.layer([built.diffuse_head(0.5)] * 3),
        ]
    )
    found = explained(net, "L0H1", rule)
    for measure in ("KL", "net loss", "|change of loss|", DIRECT):
        assert found.shares[measure].explained == pytest.approx(1, abs=EXACT)
        assert found.shares[measure].d_ablated > 0.01
    assert {label for label, _ in found.null_heads} == {"L0H0", "L0H2"}
    assert found.nulls["KL"].mean < 0.5
    assert found.nulls["KL"].p == pytest.approx(1 / 3)


def test_a_head_that_is_not_the_rule_is_not_explained():
    net = built.model([built.layer([built.diffuse_head(), built.previous_head(), built.first_head()])])
    for rule in ("previous", "duplicate", "induction"):
        one = explained(net, "L0H0", rule).shares["KL"]
        assert one.explained < 0.2, rule
    assert explained(net, "L0H1", "first").shares["KL"].explained < 0.05


def test_its_own_pattern_changes_nothing():
    net = built.model(
        [built.layer([built.diffuse_head(), built.previous_head()]), built.layer([built.diffuse_head()] * 2)]
    )
    found = explained(net, "L0H0", "own_pattern")
    assert found.shares["KL"].d_replaced == pytest.approx(0, abs=1e-15)
    assert all(row.explained == pytest.approx(1, abs=EXACT) for row in found.rows if row.explained is not None)


def test_positions_without_a_target_are_counted():
    net = built.model([built.layer([built.diffuse_head(), built.previous_head()])])
    texts = built.texts()
    found = explained(net, "L0H0", "duplicate", texts)
    silent = total = 0
    for reading in texts.testing:
        for row in reading.tokens.tolist():
            silent += sum(row[i] not in row[:i] for i in range(1, len(row)))
            total += len(row) - 1
    assert found.silent == pytest.approx(silent / total)
    assert found.fallback == "attends to the first token"


def test_a_neuron_that_depends_on_the_token_is_explained_by_it():
    net = built.model([built.layer([built.first_head()], neurons=20, by_token=True)])
    found = explained(net, "L0N3", "token_mean")
    assert found.shares["KL"].explained == pytest.approx(1, abs=EXACT)
    assert found.silent == 0
    assert explained(net, "L0N3", "class_mean").shares["KL"].explained < 0.9  # three classes, seven tokens


def test_a_neuron_that_is_a_function_of_the_class_is_explained_exactly():
    net = built.model([built.layer([built.first_head()], neurons=20, by_token=True)])
    in_class = net.layers[0].w_in[torch.arange(built.VOCAB) % 3]
    net.layers[0].w_in[: built.VOCAB] = in_class  # tokens of a class excite alike
    assert explained(net, "L0N3", "class_mean").shares["KL"].explained == pytest.approx(1, abs=EXACT)
    assert explained(net, "L0N3", "class_mean").shares["net loss"].d_replaced == pytest.approx(0, abs=1e-12)


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

    assert explained(net, "L0H0", before).shares["KL"].explained == pytest.approx(1, abs=EXACT)
    with pytest.raises(PatchError, match=r"gave shape \(40, 12\), expected \(40, 12, 12\)"):
        explained(net, "L0H0", lambda tokens: tokens)


# --- copy suppression ---


def _network_and_seen(form="neox"):
    net = patch_models.network(form)
    tokens = torch.randint(1, 257, (4, 20), generator=torch.Generator().manual_seed(0))
    counted = torch.ones_like(tokens, dtype=torch.bool)
    reading = Reading(tokens, tokens % 5, tokens.roll(-1, 1), counted, torch.arange(4))
    return net, reading, means_of(net, [reading])


def _write(net, base, target, rule, mean):
    value, _ = rule.value(seen_of(base, target, mean))
    return value


def test_copy_suppression_keeps_everything_or_nothing_at_its_ends():
    net, reading, means = _network_and_seen()
    base, target = base_of(net, reading), Target("head", 1, 0)
    mean, w_o = means.of(target), net.layers[1].w_o[0]
    live = base.sites["head", 1][:, :, 0] @ w_o
    whole = _write(net, base, target, towards_attended("x", None, None, project=False), mean)
    assert torch.allclose(whole, live, atol=1e-12)
    whole = _write(net, base, target, towards_attended("x", None, 1.0, project=False), mean)
    assert torch.allclose(whole, live, atol=1e-12)
    parts = [_write(net, base, target, towards_attended("x", sign, None), mean) - mean @ w_o for sign in (1, -1, None)]
    assert torch.allclose(parts[0] + parts[1], parts[2], atol=1e-12)


def test_copy_suppression_against_a_loop_over_positions():
    net, reading, means = _network_and_seen()
    base, target = base_of(net, reading), Target("head", 1, 1)
    mean, w_o = means.of(target), net.layers[1].w_o[1]
    given = _write(net, base, target, BUILT_IN["copy_suppression"], mean)
    unembed = (net.unembed - net.unembed.mean(1, keepdim=True)).T * net.norm_final.weight
    unembed = unembed - unembed.mean(1, keepdim=True)
    lens = net.norm_final(base.sites["resid_pre", 1]) @ net.unembed + net.b_unembed
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
    suppressing = explained(net, "L0H0", "copy_suppression_ov").shares["KL"].explained
    copying = explained(net, "L0H1", "copy_suppression_ov").shares["KL"].explained
    assert suppressing > 0.5 > copying


# --- the engine ---


@pytest.mark.parametrize("form", patch_models.FORMS)
def test_mean_ablation_is_that_of_patching(form):
    net, reading, means = _network_and_seen(form)
    for target in (Target("head", 0, 1), Target("head", 1, 0), Target("neuron", 0, 5), Target("neuron", 1, 2)):
        measured = run(net, [reading], means, [Job(target)])

        def edit(site, layer, value, offsets, target=target):
            if (site, layer) != (target.site, target.layer):
                return value
            given = value.clone()
            given[:, :, target.unit] = means.of(target)
            return put(value, given, reading.counted, target)

        log_p, log_q = (forward(net, reading.tokens, *e).log_softmax(-1) for e in ((), (edit,)))
        kl = (log_p.exp() * (log_p - log_q)).sum(-1)[reading.counted]
        assert np.allclose(measured.effects[Job(target)][:, 0], kl.numpy(), atol=1e-12)
        assert kl.max() > 1e-6


@pytest.mark.parametrize("form", patch_models.FORMS)
def test_a_pattern_put_in_is_that_of_the_plain_forward_pass(form):
    net, reading, means = _network_and_seen(form)
    target, rule = Target("head", 0, 1), BUILT_IN["previous"]
    measured = run(net, [reading], means, [Job(target, rule)])

    def edit(site, layer, value, offsets):
        if (site, layer) != ("pattern", 0):
            return value
        value = value.clone()
        value[:, 1] = 0
        steps = torch.arange(value.shape[-1])
        value[:, 1, steps, (steps - 1).clamp_min(0)] = 1
        return value

    log_p, log_q = (forward(net, reading.tokens, *e).log_softmax(-1) for e in ((), (edit,)))
    loss = (log_p - log_q).gather(-1, reading.targets[..., None])[..., 0][reading.counted].numpy()
    effects = measured.effects[Job(target, rule)]
    assert np.allclose(effects[:, 1], loss, atol=1e-12) and np.allclose(effects[:, 2], np.abs(loss), atol=1e-12)


def test_gone_components_are_gone_from_both_sides():
    net, reading, means = _network_and_seen()
    target, gone = Target("head", 1, 0), Target("head", 0, 1)
    measured = run(net, [reading], means, [Job(target)], [gone])

    def edit_of(*targets):
        def edit(site, layer, value, offsets):
            for one in targets:
                if (site, layer) == ("head", one.layer):
                    value = value.clone()
                    value[:, :, one.unit] = means.of(one)
            return value

        return edit

    log_p, log_q = (forward(net, reading.tokens, edit_of(*t)).log_softmax(-1) for t in ((gone,), (gone, target)))
    kl = (log_p.exp() * (log_p - log_q)).sum(-1)[reading.counted]
    assert np.allclose(measured.effects[Job(target)][:, 0], kl.numpy(), atol=1e-12)
    with pytest.raises(PatchError, match="to be replaced and to be gone"):
        run(net, [reading], means, [Job(target)], [target])


def test_what_is_not_counted_stays():
    net, whole, means = _network_and_seen()
    counted = torch.zeros_like(whole.counted)
    counted[:, 5::3] = True
    reading, target = replace(whole, counted=counted), Target("head", 0, 1)
    effects = run(net, [reading], means, [Job(target)]).effects[Job(target)]

    def edit(site, layer, value, offsets):
        if (site, layer) != ("head", 0):
            return value
        return put(value, means.of(target).expand_as(value[:, :, :1]), counted, target)

    log_p, log_q = (forward(net, reading.tokens, *e).log_softmax(-1) for e in ((), (edit,)))
    kl = (log_p.exp() * (log_p - log_q)).sum(-1)
    assert np.allclose(effects[:, 0], kl[counted].numpy(), atol=1e-12)
    assert len(effects) == 4 * 5


def test_a_direct_change_passes_later_layers_by():
    net, reading, means = _network_and_seen()
    target = Target("head", 0, 1)
    effects = run(net, [reading], means, [Job(target, None, True)]).effects[Job(target, None, True)]
    ends = torch.full((4,), 19)
    whole = trace(net, reading.tokens, ends)
    delta = (means.of(target) - whole["head"][0][:, :, 1]) @ net.layers[0].w_o[1]
    log_p, log_q = (
        (net.norm_final(whole["resid_final"][0] + d) @ net.unembed + net.b_unembed).log_softmax(-1) for d in (0, delta)
    )
    assert np.allclose(effects[:, 0], (log_p.exp() * (log_p - log_q)).sum(-1).flatten().numpy(), atol=1e-12)


# --- shares ---


def test_shares_intervals_and_bins():
    rng = np.random.default_rng(0)
    documents = np.repeat(np.arange(60), 20)
    ablated = rng.exponential(1.0, 1200)
    replaced = 0.25 * ablated
    one = replacement_share.share(replaced, ablated, documents, "KL")
    assert one.explained == pytest.approx(0.75) and one.lo == pytest.approx(0.75) and one.hi == pytest.approx(0.75)
    noisy = replacement_share.share(rng.exponential(0.25, 1200), ablated, documents, "KL")
    assert noisy.lo < 0.75 < noisy.hi and 0.01 < noisy.hi - noisy.lo < 0.1
    parts = replacement_share.bins(ablated)
    assert [len(at) for _, _, at in parts] == [1200, 600, 300, 180, 60, 48, 12]
    assert ablated[parts[-1][2]].min() >= ablated[parts[-2][2]].max()


def test_intervals_cover():
    """95 % intervals of a ratio with documents of their own level, 200 draws: between 89 and 99 % hold it."""
    rng = np.random.default_rng(1)
    documents, hits = np.repeat(np.arange(40), 10), 0
    for _ in range(200):
        level = rng.gamma(2.0, 1.0, 40)[documents]
        share = replacement_share.share(
            0.4 * level * rng.uniform(0.5, 1.5, 400), level * rng.uniform(0.5, 1.5, 400), documents, "KL"
        )
        hits += share.lo <= 0.6 <= share.hi
    assert 178 <= hits <= 198


def test_ratios_of_nothing_are_refused():
    rng = np.random.default_rng(2)
    documents = np.repeat(np.arange(40), 10)
    tiny = replacement_share.share(np.full(400, 1e-7), np.full(400, 1e-6), documents, "KL")
    assert tiny.explained is None and "too little" in tiny.refused
    noise = replacement_share.share(rng.normal(0, 1, 400), rng.normal(0.02, 1, 400), documents, "net loss")
    assert noise.explained is None and ("not clear of 0" in noise.refused or "too little" in noise.refused)
    few = replacement_share.share(np.ones(30), np.ones(30), np.arange(30) % 5, "KL")
    assert few.explained is None and few.refused == "5 documents, at least 20 are needed"


def test_nulls_are_floored_and_p_counts_the_share_itself():
    null = replacement_share.null_of(0.8, [0.9, -30.0, None, 0.1])
    assert null.mean == pytest.approx((0.9 - 1 + 0.1) / 3) and null.n == 3 and null.p == pytest.approx(2 / 4)
    assert replacement_share.null_of(0.8, [None]).mean is None


# --- the guard ---


def test_null_heads_are_as_many_as_p_needs_and_of_the_nearest_layers_first():
    net = patch_models.network("neox_sequential")
    target = Target("head", 1, 0)
    claim = Claimed(target, BUILT_IN["previous"], "previous token")
    found = replacement._candidates(net, [claim], claim, 0)
    assert [head.label for head in found] == ["L1H1", "L0H0", "L0H1", "L2H0", "L2H1"]
    twin = Claimed(Target("head", 0, 1), BUILT_IN["previous"], "previous token")
    assert "L0H1" not in [head.label for head in replacement._candidates(net, [claim, twin], claim, 0)]
    assert 1 / (1 + replacement.NULLS) < 0.05 <= 1 / replacement.NULLS
    fires = Claimed(Target("neuron", 1, 2), BUILT_IN["class_mean"])
    neurons = replacement._candidates(net, [fires], fires, 0)
    assert len(neurons) == min(replacement.CANDIDATES, net.d_mlp - 1) and Target("neuron", 1, 2) not in neurons


def test_null_heads_on_a_part_of_the_text_are_those_of_all_of_it_when_it_is_all():
    """Every k-th reading; with fewer tokens asked for than there are, a part, and the claim's own share stays."""
    readings = built.texts().testing
    n = sum(int(reading.counted.sum()) for reading in readings)
    assert replacement.part_of(readings, n) == tuple(readings)
    part = replacement.part_of(readings, n // 2)
    assert 0 < len(part) < len(readings) and set(part) < set(readings)


def test_a_share_alone_has_no_null_and_no_guard():
    net = built.model([built.layer([built.previous_head(), built.first_head(), built.previous_head(0.7)])])
    target = Target("head", 0, 0)
    full, alone = (Claimed(target, BUILT_IN["previous"], "x", alone=alone) for alone in (False, True))
    first, second = replacement.examine(net, built.texts(), [full, alone], 2)
    assert second.shares["KL"] == first.shares["KL"]
    assert second.nulls["KL"].n == 0 and DIRECT not in second.shares and not second.guard.rivals
    assert first.nulls["KL"].n > 0 and DIRECT in first.shares


def test_a_component_that_others_stand_in_for_is_refused_and_shown_without_them():
    """Two heads write the same; a neuron passes on at most one of them, so that the loss of one alone is small."""
    heads = [built.previous_head(1.0), built.previous_head(1.0), built.diffuse_head(0.05)]
    net = built.model([built.layer(heads, neurons=built.VOCAB)])
    bound = built.layer([built.diffuse_head(0.0)] * 3, neurons=built.VOCAB)
    bound.w_in[built.OUT], bound.w_out[:, built.OUT] = torch.eye(built.VOCAB).double(), -torch.eye(built.VOCAB).double()
    bound.b_in[:] = -1.05  # 2 is cut down to 1.05: a head alone is worth 1, the second 0.05
    net = replace(net, layers=(net.layers[0], bound))
    found = explained(net, "L0H0", "previous")
    assert found.guard.rivals[:1] == ("L0H1",) and found.guard.others[1] > 2
    assert "stand in for it" in found.guard.refused or "make up for it" in found.guard.refused
    named = {finding.statistic: finding for finding in found.findings()}
    assert named["explained"].value is None and named["explained"].refused == found.guard.refused
    assert named[f"explained, {GONE}"].value == pytest.approx(1, abs=EXACT)


def test_the_guard_says_which_of_the_two_it_is():
    none, some = (1.0, 0.9, 1.1), (3.0, 2.5, 3.5)
    assert replacement_view._why(none, some, ("L0H1", "L1H2")).startswith(
        "L0H1 and L1H2 stand in for it: with them gone its ablation costs 3.0"
    )
    assert replacement_view._why((0.3, 0.2, 0.4), None, ()).startswith(
        "later components make up for it: its ablation costs 0.30"
    )
    assert replacement_view._why(none, (2.2, 1.9, 2.6), ("L0H1",)) == ""
    assert replacement_view._why((0.4, 0.3, 0.6), none, ("L0H1",)) == ""


def test_a_component_without_stand_ins_is_not_refused():
    net = built.model([built.layer([built.previous_head(), built.first_head(), built.diffuse_head()])])
    found = explained(net, "L0H0", "previous")
    assert found.guard.refused == "" and found.guard.later[0] == pytest.approx(1)
    finding = found.findings("somewhere")[0]
    assert (finding.statistic, finding.rung, finding.technique, finding.unit) == (
        "explained",
        "somewhere",
        "replacement",
        "documents",
    )
    assert finding.value == pytest.approx(1) and finding.n == 80 and finding.null < 0.5


# --- errors ---


def test_what_cannot_be_replaced_is_refused():
    net = built.model([built.layer([built.first_head()])])
    with pytest.raises(PatchError, match="there is no rule 'magic'"):
        explained(net, "L0H0", "magic")
    with pytest.raises(PatchError, match="would never fire"):
        explained(net, "L3H0", "first")
    with pytest.raises(PatchError, match="cannot be replaced by a rule"):
        explained(net, "L0_mlp_out", "first")
    with pytest.raises(PatchError, match="is about attention and L0N0 is a neuron"):
        explained(net, "L0N0", "previous")


# --- slow recomputation with plain transformers ---


def _fitting(i):
    return stable_hash(f"fit text:{i}") % FIT_IN == 0


def test_against_plain_transformers(tmp_path):
    """GPT-2's own forward pass with hooks on c_attn and c_proj, one text at a time, gives the same effects."""
    folder = tiny.save("gpt2", tmp_path)
    model = load_model(RunConfig(model=str(folder), corpora=("none",), dtype="float64"))
    texts, part = [tiny.text(i, 6)[:40] for i in range(60)], slice(8, 16)
    found = replacement.explain(model, "L0H1", "previous", texts, "previous token", nulls=1)

    plain = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()
    seen = {"how": None}

    def keep_values(module, given, out):
        seen["v"] = out[..., 32:48][..., part]

    def before_output(module, given):
        mixed = given[0].clone()
        seen["mixed"] = mixed[..., part].clone()
        if seen["how"] is not None:
            mixed[:, 1:, part] = seen["v"][:, :-1] if seen["how"] == "previous" else seen["mean"]
        return (mixed,)

    plain.transformer.h[0].attn.c_attn.register_forward_hook(keep_values)
    plain.transformer.h[0].attn.c_proj.register_forward_pre_hook(before_output)
    ids = [[0, *model.encode(text)] for text in texts]

    def log_p(row, how):
        seen["how"] = how
        with torch.inference_mode():
            return plain(torch.tensor([row])).logits.log_softmax(-1)[0, 1:-1]

    fitted = []
    for row in (row for i, row in enumerate(ids) if _fitting(i)):
        log_p(row, None)
        fitted.append(seen["mixed"][0, 1:-1])
    seen["mean"] = torch.cat(fitted).mean(0)
    wanted = {"previous": [], "mean": []}
    for row in (row for i, row in enumerate(ids) if not _fitting(i)):
        clean = log_p(row, None)
        for how, values in wanted.items():
            values.append((clean.exp() * (clean - log_p(row, how))).sum(-1))
    kl = found.shares["KL"]
    assert kl.n == sum(len(row) - 2 for i, row in enumerate(ids) if not _fitting(i))
    assert kl.d_replaced == pytest.approx(float(torch.cat(wanted["previous"]).mean()), rel=1e-9)
    assert kl.d_ablated == pytest.approx(float(torch.cat(wanted["mean"]).mean()), rel=1e-9)
    assert kl.explained == pytest.approx(1 - kl.d_replaced / kl.d_ablated)


def test_importance_is_direct_logit_attribution():
    model = patch_models.loaded("neox")
    net, reading, means = _network_and_seen()
    target = Target("head", 1, 1)
    measured = run(net, [reading], means, [Job(target)])
    capture = model.run(reading.tokens, Wanted())
    _, scale = attribution.final_norm(capture.residual, model.weights)
    parts = list(attribution.by_part(capture, model.weights, model.spec, reading.targets, scale))
    dla = next(part.dla for part in parts if part.components == model.spec.heads(1))[..., 1]
    assert np.allclose(measured.importance[target], dla.flatten().abs().numpy(), atol=1e-9)


# --- roles and the stage ---


@pytest.mark.parametrize(
    ("role", "component", "rule"),
    [
        ("induction head", "L2H0", "induction"), ("previous token", "L1H3", "previous"), ("duplicate token", "L0H1", "duplicate"),
        ("negative name mover", "L3H1", "copy_suppression"), ("name mover", "L3H2", "copying"), ("first token", "L0H0", "first"),
        ("at S2 attends to S1 (93%)", "L0H1", "duplicate"), ("fires on numbers", "L1N5", "class_mean"), ("S-inhibition", "L3H0", ""),
        ("", "L3H0", ""), ("does magic", "L3H0", ""),
    ],
)  # fmt: skip
def test_words_of_a_role_name_a_rule(role, component, rule):
    assert understood.rule_of_role(role, component) == rule
    assert not rule or rule in BUILT_IN


def test_claims_are_the_fair_rule_then_the_strict_one():
    claims = replacement_stage.claims_of(Member("L1H1", "previous token"))
    assert [claim.rule.name for claim in claims] == ["previous_calibrated", "previous"]
    assert replacement_stage.claims_of(Member("L1_mlp_out", "fires on numbers")) == []
    net = built.model([built.layer([built.previous_head(), built.diffuse_head(), built.first_head()])])
    fair, strict = replacement.examine(net, built.texts(), [replace(c, target=Target("head", 0, 0)) for c in claims], 2)
    assert fair.fallback == "first token; 1.00 on the rule's places"
    rows = [row for one in (fair, strict) for row in replacement_stage.rows_of(one)]
    names = [row.statistic for row in rows if hasattr(row, "statistic")]
    assert names.count("explained") == 1 and names.count(replacement_stage.STRICT) == 1


def test_a_calibrated_rule_takes_the_mean_attention_of_other_documents():
    net = built.model([built.layer([built.diffuse_head(), built.first_head()])])
    fitting, target = [built.reading(0)], Target("head", 0, 0)
    means = means_of(net, fitting)
    rule = fit(net, fitting, means, [(target, BUILT_IN["previous_calibrated"])])[target, "previous_calibrated"]
    weight = float(base_of(net, fitting[0]).sites["pattern", 0][:, 0].diagonal(-1, 1, 2).mean())
    given, _ = rule.value(seen_of(base_of(net, built.reading(1)), target, means.of(target)))
    assert given[0, 5, 4] == pytest.approx(weight) and given[0, 5, 0] == pytest.approx(1 - weight)
