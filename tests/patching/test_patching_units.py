"""Units that are neither heads nor an MLP's neurons are patched as a hook written by hand does: neurons of routed and
shared experts, channels of mixers, units of per-layer projections; and families whose norms stand in the stream."""

from typing import Any

import patch_models
import pytest
import tiny
import torch
import zoo
from torch import Tensor, nn
from transformers import PreTrainedModel

from profiler.config import RunConfig
from profiler.errors import PatchError
from profiler.model import writers
from profiler.model.components import Block
from profiler.model.load import Model, model_from
from profiler.model.steps.as_network import network_of
from profiler.model.steps.network import Network
from profiler.patching import batch as batches
from profiler.patching import sweep
from profiler.patching.sites import EXPERT, OTHER_UNITS, Target, every, parse_target, units_of

QUICK = ("gemma4_moe", "mixtral", "gpt1")
"""Norms after several blocks together, experts, norms in the stream; the others take part in the slow tests."""
OTHERS = [name for name in zoo.HYBRID | zoo.EXPERTS if name not in QUICK]
FLOAT32 = {"mamba", "mamba2", "nemotron_h"}
"""Families that compute in float32 inside whatever their dtype."""
ROLE = "second"


def built(name: str) -> PreTrainedModel:
    return zoo.double(zoo.build(name))


def loaded(name: str) -> Model:
    return model_from(built(name), tiny.tokenizer(), RunConfig(model=name, corpora=("x",), dtype="float64"))


@pytest.fixture(scope="module", params=[*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def made(request: pytest.FixtureRequest) -> tuple[str, Model, Network, batches.PairBatch]:
    model = loaded(request.param)
    net = network_of(model)
    return request.param, model, net, batches.batch_of(patch_models.token_pairs(3), dtype=net.dtype)


def label(block: Block, unit: int) -> str:
    letter = {"head": "H", "neuron": "N", "mixer": "M", "per_layer": "P"}[block.kind]
    return f"L{block.layer}{block.group}{letter}{unit}"


def runs(net: Network, batch: batches.PairBatch) -> tuple[batches.Trace, batches.Trace]:
    clean, corrupted = (batches.trace(net, tokens, batch.ends) for tokens in (batch.clean, batch.corrupted))
    return clean, corrupted


def patched(net: Network, base: batches.Trace, batch: batches.PairBatch, target: Target, donor: sweep.Donor) -> Tensor:
    ((_, logits),) = sweep.sweep(net, base, batch, [target], donor)
    return logits[0]


def by_hook(network: PreTrainedModel, batch: batches.PairBatch, site: str, unit: int, width: int) -> Tensor:
    """Logits at the ends of the clean prompts with what a matrix reads of one unit taken from the corrupted run."""
    module: nn.Module = network.get_submodule(site)
    seen: list[Tensor] = []

    def change(_module: nn.Module, args: Any) -> tuple[Tensor]:
        value = args[0].reshape(*batch.clean.shape, -1)
        if not seen:
            seen.append(value)
            return args
        mask = batch.mask(ROLE)[..., None] & (torch.arange(value.shape[-1]) // width == unit)
        return (torch.where(mask, seen[0], value).reshape(args[0].shape),)

    module.register_forward_pre_hook(change)
    with torch.no_grad():
        network(batch.corrupted, use_cache=False)
        logits = network(batch.clean, use_cache=False).logits
    return logits[torch.arange(len(batch)), batch.ends]


def by_expert_hook(
    network: PreTrainedModel, batch: batches.PairBatch, site: str, expert: int, neuron: int
) -> tuple[Tensor, int]:
    """The same for a neuron of an expert, and at how many positions: its activations are computed by the module's own
    weights, one position at a time, and its write is exchanged in what the module returns."""
    module: Any = network.get_submodule(site)
    called: list[dict[tuple[int, int], tuple[Tensor, Tensor]]] = []

    def leave(_module: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        read, *rest = (*args, *named.values())
        chosen, weights = sorted(rest, key=torch.is_floating_point)
        found = {}
        for row, (x, choice, weight) in enumerate(zip(read.reshape(-1, read.shape[-1]), chosen, weights, strict=True)):
            if expert in choice:
                activation = writers.activations(module, expert, x[None])[0, neuron]
                found[divmod(row, batch.clean.shape[1])] = activation, weight[choice == expert][0]
        called.append(found)

    n_patched = 0

    def change(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        nonlocal n_patched
        if len(called) == 1:
            return output
        out, down = output.clone(), module.down_proj[expert]
        row = (down if module.is_transposed else down.T)[neuron]
        for (prompt, offset), (live, weight) in called[1].items():
            if bool(batch.mask(ROLE)[prompt, offset]) and (prompt, offset) in called[0]:
                given = called[0][prompt, offset][0]
                out.view(*batch.clean.shape, -1)[prompt, offset] += weight * (given - live) * row
                n_patched += 1
        return out

    module.register_forward_pre_hook(leave, with_kwargs=True)
    module.register_forward_hook(change)
    with torch.no_grad():
        network(batch.corrupted, use_cache=False)
        logits = network(batch.clean, use_cache=False).logits
    return logits[torch.arange(len(batch)), batch.ends], n_patched


def test_every_block_that_is_recorded_has_units_to_patch(made) -> None:
    _, model, net, _ = made
    patchable = {t.label for site in ("head", "neuron", *OTHER_UNITS) for t in every(net, site)}
    assert {label(block, unit) for block in model.spec.blocks for unit in (0, block.units - 1)} <= patchable
    assert all(parse_target(name).label == name for name in patchable)


def test_a_patched_unit_is_that_of_a_hook(made) -> None:
    name, model, net, batch = made
    clean, corrupted = runs(net, batch)
    donor, tried = sweep.resample(corrupted), 0
    for block, writer in model.weights.writers.items():
        target = parse_target(label(block, 1), ROLE)
        if writer.expert is None:
            expected = by_hook(built(name), batch, writer.site, 1, writer.width)
        else:
            expected, n_patched = by_expert_hook(built(name), batch, writer.site, writer.expert, 1)
            if not n_patched:
                with pytest.raises(PatchError, match="never fires: no position is sent to expert"):
                    patched(net, clean, batch, target, donor)
                continue
        limit = (2e-5 if name in FLOAT32 else 1e-9) * expected.abs().max()
        together = sweep.intervene(net, batch.clean, batch.ends, batch, [target], donor)
        assert (patched(net, clean, batch, target, donor) - expected).abs().max() <= limit, target
        assert (together - expected).abs().max() <= limit, target
        tried += int((expected - clean.logits).abs().max() > limit)
    assert tried


def test_a_whole_mixer_is_patched_alike_in_a_sweep_and_alone(made) -> None:
    name, _, net, batch = made
    clean, corrupted = runs(net, batch)
    donor, moved = sweep.resample(corrupted), []
    targets = every(net, "mixer_out", ROLE)
    assert bool(targets) == any(units_of(net, "mixer", layer) for layer in range(net.n_layers))
    for target in targets:
        expected = sweep.intervene(net, batch.clean, batch.ends, batch, [target], donor)
        limit = (2e-5 if name in FLOAT32 else 1e-9) * expected.abs().max()
        assert (patched(net, clean, batch, target, donor) - expected).abs().max() <= limit
        moved.append(bool((expected - clean.logits).abs().max() > limit))
    assert any(moved) or not targets  # in the last layer nothing is read later


def test_an_expert_that_a_position_is_not_sent_to_has_no_activation_there() -> None:
    """NaN, not 0; and ablating it there changes nothing."""
    net = network_of(loaded("mixtral"))
    batch = batches.batch_of(patch_models.token_pairs(3), dtype=net.dtype)
    clean, _ = runs(net, batch)
    live, chosen = clean[EXPERT][1], clean["expert_choice"][1]
    for expert in range(live.shape[2]):
        sent = (chosen == expert).any(-1)
        assert live[:, :, expert].isnan().all(-1).equal(~sent)
        assert live[:, :, expert].isnan().any(-1).equal(~sent)
    ablated = patched(net, clean, batch, Target(EXPERT, 1, 3, "all", 2), lambda site, at: clean[site][at] * 0)
    joint = sweep.intervene(
        net, batch.clean, batch.ends, batch, [Target(EXPERT, 1, 3, "all", 2)], lambda site, at: clean[site][at] * 0
    )
    torch.testing.assert_close(ablated, joint, rtol=1e-9, atol=1e-12)
    assert (ablated - clean.logits).abs().max() > 0
