"""Total effects against finite differences, against ablations of linear models, and in every order of batches."""

import effect_models
import numpy as np
import pytest
import torch

from profiler.effects import final_norm, methods
from profiler.effects.ablation import AblationCase, ablate
from profiler.effects.settings import EffectSettings, refuse_bad
from profiler.effects.sums import FIELDS, EffectSums
from profiler.errors import ProfilerError
from profiler.model.gradients.network import unchanged
from profiler.text.windows import make_batch

FORMS = ("gpt2", "neox", "llama")
STEP = 1e-5


def summed(net, batch, edit=unchanged):
    """Sums of logits and losses over ordinary positions."""
    with torch.no_grad():
        passed = net.run(batch.tokens, batch.targets, edit, loss_at=batch.ordinary)
    return {"logit": float(passed.logit[batch.ordinary].sum()), "loss": float(passed.loss.double().sum())}


def nudged(net, batch, place, by):
    """The sums with one value of a block moved."""

    def edit(block, value):
        if block != place[0]:
            return value
        changed = value.clone()
        changed[place[1:]] += by
        return changed

    return summed(net, batch, edit)


@pytest.mark.parametrize("form", FORMS)
def test_slopes_are_finite_differences(form):
    net, _, batch = effect_models.batch_of(effect_models.loaded(form), effect_models.random_ids(3, 12))
    found = methods.slopes(net, batch)
    generator = torch.Generator().manual_seed(0)
    for block, slopes in found.items():
        for _ in range(2):
            at = tuple(int(torch.randint(size, (1,), generator=generator)) for size in slopes["logit"].shape)
            above, below = (nudged(net, batch, (block, *at), by) for by in (STEP, -STEP))
            for measure, slope in slopes.items():
                expected = (above[measure] - below[measure]) / (2 * STEP)
                loose = 1e-2 if measure == "loss" else 1e-4  # losses are summed from float32 norms in Llama
                assert float(slope[at]) == pytest.approx(expected, rel=loose, abs=loose * 0.1), (block, at, measure)


@pytest.mark.parametrize("method", ("gradient", "frozen", "integrated"))
def test_a_linear_model_is_estimated_exactly(method):
    """Every unit at some positions, against zero and the mean, ablated by itself."""
    model = effect_models.linear()
    net, layout, batch = effect_models.batch_of(model, effect_models.random_ids(2, 9))
    references = methods.references(net, (batch,))
    seen = 0
    for found in methods.effects(net, batch, method, references, steps=2):
        given = references[found.reference][found.block]
        cases = [AblationCase(found.block, unit, batch.windows[1], 3, given[unit]) for unit in range(found.block.units)]
        exact = [effect.logit for effect in ablate(net, layout, cases)]
        np.testing.assert_allclose(found.total["logit"][1, 3].numpy(), exact, rtol=1e-6, atol=1e-7)
        seen += len(cases)
    assert seen >= 8


def test_direct_effects_are_what_a_pass_records_as_attribution():
    from profiler.model.direct import by_part

    model = effect_models.loaded("neox")
    net, _, batch = effect_models.batch_of(model, effect_models.random_ids(2, 10))
    references = methods.references(net, (batch,))
    with torch.no_grad():
        capture = net.run(batch.tokens, batch.targets).capture
    parts = {part.components.start: part.dla for part in by_part(capture, model.weights, model.spec, batch.targets)}
    for found in methods.effects(net, batch, "gradient", references, 1):
        if found.reference == "zero":
            expected = parts[model.spec.slices[found.block].start]
            torch.testing.assert_close(found.direct, expected, rtol=1e-9, atol=1e-10)


def test_the_last_layer_acts_directly_alone_where_norms_are_held():
    net, _, batch = effect_models.batch_of(effect_models.loaded("neox"), effect_models.random_ids(2, 10))
    references = methods.references(net, (batch,))
    last = [f for f in methods.effects(net, batch, "frozen", references, 1) if f.block.layer == 1]
    for found in last:
        at = batch.ordinary
        torch.testing.assert_close(found.total["logit"][at], found.direct[at], rtol=1e-6, atol=1e-8)
    assert len(last) == 4
    plain = [f for f in methods.effects(net, batch, "gradient", references, 1) if f.block.layer == 1]
    assert not torch.allclose(plain[0].total["logit"][batch.ordinary], plain[0].direct[batch.ordinary], rtol=1e-3)


def test_frozen_leaves_the_network_as_it_was():
    net, _, batch = effect_models.batch_of(effect_models.loaded("gpt2"), effect_models.random_ids(2, 10))
    before, gradients = summed(net, batch), methods.slopes(net, batch)
    with net.frozen():
        assert summed(net, batch) == pytest.approx(before)
    after = methods.slopes(net, batch)
    for block, slopes in gradients.items():
        assert torch.equal(slopes["logit"], after[block]["logit"])


def test_integrated_effects_of_a_layer_add_up_to_what_removing_all_its_heads_does():
    net, _, batch = effect_models.batch_of(effect_models.loaded("gpt2"), effect_models.random_ids(2, 10))
    references = methods.references(net, (batch,))
    for found in methods.effects(net, batch, "integrated", references, steps=64):
        given = references[found.reference][found.block]

        def edit(block, value, found=found, given=given):
            return given.expand_as(value) if block == found.block else value

        removed, whole = summed(net, batch, edit), summed(net, batch)
        for measure, total in found.total.items():
            assert float(total.sum()) == pytest.approx(whole[measure] - removed[measure], rel=2e-3, abs=2e-3)


@pytest.fixture(scope="module")
def pieces():
    """Sums of some documents in one batch, one by one backwards, and in two shards."""
    model = effect_models.loaded("neox")
    layout, windows = effect_models.windows(model, effect_models.random_ids(6, 14))
    net, _, batch = effect_models.batch_of(model, effect_models.random_ids(6, 14))
    references = methods.references(net, (batch,))

    def of(parts):
        sums = EffectSums(model.spec)
        for part in parts:
            made = make_batch(part, layout)
            for method in ("gradient", "integrated"):
                sums.count(method, made)
                for found in methods.effects(net, made, method, references, 2):
                    sums.add(method, made, found)
        return sums

    shards = [of([windows[i::2]]) for i in range(2)]
    shards[0].merge(shards[1])
    return of([windows]), of([[window] for window in reversed(windows)]), shards[0]


@pytest.mark.parametrize("other", [1, 2], ids=["order and batches", "shards"])
def test_sums_do_not_depend_on_batches_order_or_shards(pieces, other):
    whole, same = pieces[0], pieces[other]
    assert whole.values.keys() == same.values.keys()
    for key, values in whole.values.items():
        np.testing.assert_allclose(values, same.values[key], rtol=1e-9, atol=1e-10)
    for method, counts in whole.counts.items():
        assert counts == same.counts[method]
        assert sum(counts.positions.values()) + sum(counts.special.values()) > 0


def test_the_sizes_of_parts_are_not_below_the_size_of_their_sum(pieces):
    for values in pieces[0].values.values():
        field = dict(zip(FIELDS, values.T, strict=True))
        assert (field["abs_total"] <= field["abs_direct"] + field["abs_through"] + 1e-9).all()
        assert (np.abs(field["total"]) <= field["abs_total"] + 1e-9).all()


def test_the_change_of_the_denominator_is_that_of_the_stream_without_the_unit():
    model = effect_models.loaded("gpt2")
    net, _, batch = effect_models.batch_of(model, effect_models.random_ids(2, 9))
    with torch.no_grad():
        passed = net.run(batch.tokens, batch.targets)
        norm = final_norm.norm_of(net)
        stream = passed.capture.residual
        for block, change in final_norm.changes(net, passed):
            rows = model.weights.matrix(block).unflatten(0, (block.units, -1))
            for unit in (0, block.units - 1):
                left = stream - passed.values[block][:, :, unit] @ rows[unit]
                expected = (norm.denominator(left) / norm.denominator(stream))[..., 0] - 1
                torch.testing.assert_close(change[..., unit], expected, rtol=1e-7, atol=1e-9)


def test_a_unit_removed_changes_the_entropy_as_the_model_says():
    """By the denominator alone: logits of the stream without the unit, divided by either denominator."""
    model = effect_models.loaded("gpt2")
    net, _, batch = effect_models.batch_of(model, effect_models.random_ids(1, 9))
    with torch.no_grad():
        passed = net.run(batch.tokens, batch.targets)
        block = next(block for block in passed.values if block.kind == "neuron")
        (shift,) = final_norm.shifts(net, batch, passed, [(block, 2)])
        stream, norm = passed.capture.residual, final_norm.norm_of(net)
        left = stream - passed.values[block][:, :, 2] @ model.weights.matrix(block)[2:3]
        own = net.module.transformer.ln_f(left)
        held = (own - norm.bias) * norm.denominator(left) / norm.denominator(stream) + norm.bias
        entropies = []
        for read in (held, own):
            log_p = net.module.lm_head.weight.matmul(read[0].T).T.log_softmax(-1)
            entropies.append(-(log_p.exp() * log_p).sum(-1)[batch.ordinary[0]])
    np.testing.assert_allclose(shift.entropy, (entropies[1] - entropies[0]).numpy(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("changes", [{"methods": ()}, {"methods": ("slope",)}, {"steps": 0}, {"checked_windows": 1}])
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(ProfilerError, match=r"choose among|too few"):
        refuse_bad(EffectSettings(**changes))
