"""The engine of replacement by understanding: against patching, the plain forward pass, plain transformers; what it
refuses."""

from dataclasses import replace

import numpy as np
import patch_models
import pytest
import replacement_models as built
import tiny
import torch
from transformers import GPT2LMHeadModel

from profiler.config import RunConfig
from profiler.errors import PatchError
from profiler.generality.replacement import explain
from profiler.generality.replacement.copy_rules import BUILT_IN
from profiler.generality.replacement.run import Job, run
from profiler.generality.replacement.text import FIT_IN
from profiler.model import direct
from profiler.model.components import Block
from profiler.model.forward import Wanted
from profiler.model.load import load_model
from profiler.model.steps.network import forward
from profiler.patching.batch import trace
from profiler.patching.sites import Target
from profiler.patching.sweep import put
from profiler.text.sampling_keys import stable_hash

EXACT = 1e-9


# --- the engine ---


@pytest.mark.parametrize("form", patch_models.FORMS)
def test_mean_ablation_is_that_of_patching(form):
    net, reading, means = built.network_and_seen(form)
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
    net, reading, means = built.network_and_seen(form)
    target, rule = Target("head", 0, 1), BUILT_IN["previous_token"]
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
    net, reading, means = built.network_and_seen()
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
    net, whole, means = built.network_and_seen()
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
    net, reading, means = built.network_and_seen()
    target = Target("head", 0, 1)
    effects = run(net, [reading], means, [Job(target, None, True)]).effects[Job(target, None, True)]
    ends = torch.full((4,), 19)
    whole = trace(net, reading.tokens, ends)
    delta = (means.of(target) - whole["head"][0][:, :, 1]) @ net.plain.layers[0].w_o[1]
    log_p, log_q = (net.logits(whole["resid_final"][0] + d).log_softmax(-1) for d in (0, delta))
    assert np.allclose(effects[:, 0], (log_p.exp() * (log_p - log_q)).sum(-1).flatten().numpy(), atol=1e-12)


# --- slow recomputation with plain transformers ---


def _fitting(i):
    return stable_hash(f"fit text:{i}") % FIT_IN == 0


def test_against_plain_transformers(tmp_path):
    """GPT-2's own forward pass with hooks on c_attn and c_proj, one text at a time, gives the same effects."""
    folder = tiny.save("gpt2", tmp_path)
    model = load_model(RunConfig(model=str(folder), corpora=("none",), dtype="float64"))
    texts, part = [tiny.text(i, 6)[:40] for i in range(60)], slice(8, 16)
    found = explain.explain(model, "L0H1", "previous_token", texts, "previous token", nulls=1)

    plain = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()
    seen = {"how": None}

    def keep_values(module, given, out):
        seen["v"] = out[..., 32:48][..., part]

    def before_output(module, given):
        mixed = given[0].clone()
        seen["mixed"] = mixed[..., part].clone()
        if seen["how"] is not None:
            mixed[:, 1:, part] = seen["v"][:, :-1] if seen["how"] == "previous_token" else seen["mean"]
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
    wanted = {"previous_token": [], "mean": []}
    for row in (row for i, row in enumerate(ids) if not _fitting(i)):
        clean = log_p(row, None)
        for how, values in wanted.items():
            values.append((clean.exp() * (clean - log_p(row, how))).sum(-1))
    kl = found.shares["KL"]
    assert kl.n == sum(len(row) - 2 for i, row in enumerate(ids) if not _fitting(i))
    assert kl.d_replaced == pytest.approx(float(torch.cat(wanted["previous_token"]).mean()), rel=1e-9)
    assert kl.d_ablated == pytest.approx(float(torch.cat(wanted["mean"]).mean()), rel=1e-9)
    assert kl.explained == pytest.approx(1 - kl.d_replaced / kl.d_ablated)


def test_importance_is_direct_logit_attribution():
    model = patch_models.loaded("neox")
    net, reading, means = built.network_and_seen()
    target = Target("head", 1, 1)
    measured = run(net, [reading], means, [Job(target)])
    capture = model.run(reading.tokens, Wanted())
    parts = list(direct.by_part(capture, model.weights, model.spec, reading.targets))
    dla = next(
        part.dla for part in parts if part.components == model.spec.slices[Block(1, "head", model.spec.n_heads)]
    )[..., 1]
    assert np.allclose(measured.importance[target], dla.flatten().abs().numpy(), atol=1e-9)


# --- errors ---


def test_what_cannot_be_replaced_is_refused():
    net = built.model([built.layer([built.first_head()])])
    with pytest.raises(PatchError, match="there is no rule 'magic'"):
        built.explained(net, "L0H0", "magic")
    with pytest.raises(PatchError, match="would never fire"):
        built.explained(net, "L3H0", "first_token")
    with pytest.raises(PatchError, match="cannot be replaced by a rule"):
        built.explained(net, "L0_mlp_out", "first_token")
    with pytest.raises(PatchError, match="is about attention and L0N0 is a neuron"):
        built.explained(net, "L0N0", "previous_token")
