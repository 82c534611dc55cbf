"""Every family that is recorded is patched, through its own modules: equal to a hook written by hand."""

from collections.abc import Callable
from typing import Any

import patch_models
import pytest
import tiny
import torch
import zoo
from torch import Tensor, nn
from transformers import PreTrainedModel

from profiler.circuits import edge_mask, nodes
from profiler.circuits.scoring.evaluate import Evaluator
from profiler.config import RunConfig
from profiler.errors import ModelError
from profiler.model.load import Model, model_from
from profiler.model.steps.as_network import network_of, network_of_direct_heads, network_of_heads
from profiler.model.steps.network import Network
from profiler.patching import batch as batches
from profiler.patching import sweep
from profiler.patching.metrics import logit_diff
from profiler.patching.redundancy import self_repair
from profiler.patching.sites import Target, every, parse_target

WITHOUT_HEADS = ("mamba", "mamba2")
PATCHED = [name for name in (*zoo.FAMILIES, *zoo.MADE_UP) if name not in WITHOUT_HEADS]
QUICK = ("neox_parallel", "gemma2", "qwen3", "lfm2", "mixtral", "bloom")
"""Of the ways that blocks are built; the others are tried by the slow tests."""
SWEPT = {
    *QUICK,
    "opt",
    "olmo2",
    "falcon_h1",
    "falcon",
    "gemma3",
    "llama2",
    "qwen3_moe",
    "gpt_oss",
    "deepseek_v3",
    "gptj",
}
"""Families whose every site is swept by the slow tests; those of the others by the monthly ones."""
ROUNDED = 2e-5
"""Of families that compute in float32 inside whatever their dtype; all others agree to 1e-9."""
FLOAT32 = {"nemotron_h", "gptj", "codegen", "gpt_neo", "mpt", "bloom", "xglm"}


def built(name: str) -> PreTrainedModel:
    return zoo.double(zoo.build(name, torch.float32 if name == "xglm" else torch.float64))


def loaded(name: str) -> Model:
    dtype = "float32" if name == "xglm" else "float64"  # transformers runs XGLM in float32 alone
    config = RunConfig(model=name, corpora=("x",), dtype=dtype, context_length=48)
    return model_from(built(name), tiny.tokenizer(), config)


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in PATCHED]
)
def made(request: pytest.FixtureRequest) -> tuple[str, Model, Network, batches.PairBatch]:
    model = loaded(request.param)
    net = network_of(model)
    return request.param, model, net, batches.batch_of(patch_models.token_pairs(3), dtype=net.dtype)


def limit(name: str) -> float:
    return ROUNDED if name in FLOAT32 else 1e-9


def by_hand(name: str, batch: batches.PairBatch, site: str, put: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Logits at the ends of the clean prompts, with what a matrix reads changed by a hook.

    Args:
        put: of what the matrix reads in the clean and in the corrupted run.
    """
    network = built(name).eval()
    module: nn.Module = network.get_submodule(site)
    seen: list[Tensor] = []

    def leave(_module: nn.Module, args: Any) -> None:
        seen.append(args[0])

    def change(_module: nn.Module, args: Any) -> tuple[Tensor]:
        return (
            put(args[0].reshape(*batch.clean.shape, -1), seen[0].reshape(*batch.clean.shape, -1)).reshape(
                args[0].shape
            ),
        )

    with torch.no_grad():
        handle = module.register_forward_pre_hook(leave)
        network(batch.corrupted, use_cache=False)
        handle.remove()
        module.register_forward_pre_hook(change)
        logits = network(batch.clean, use_cache=False).logits
    return logits[torch.arange(len(batch)), batch.ends]


def test_a_patched_head_and_neuron_are_those_of_a_hook(made) -> None:
    name, model, net, batch = made
    clean, corrupted = (batches.trace(net, tokens, batch.ends) for tokens in (batch.clean, batch.corrupted))
    moved = []
    for site, kind in (("head", "head"), ("neuron", "neuron")):
        targets = [target for target in every(net, site, "second") if target.unit == 1]
        for indices, logits in sweep.sweep(net, clean, batch, targets, sweep.resample(corrupted)):
            for i, got in zip(indices, logits, strict=True):
                target = targets[i]
                block = next(b for b in model.spec.blocks if (b.layer, b.kind, b.group) == (target.layer, kind, ""))
                writer = model.weights.writers[block]
                part = slice(writer.width, 2 * writer.width)
                mask = batch.mask("second")[..., None]

                def put(live: Tensor, given: Tensor, part: slice = part, mask: Tensor = mask) -> Tensor:
                    live = live.clone()
                    live[..., part] = torch.where(mask, given[..., part], live[..., part])
                    return live

                expected = by_hand(name, batch, writer.site, put)
                scale = expected.abs().max()
                assert (got - expected).abs().max() <= limit(name) * scale, target
                moved.append(bool((got - clean.logits).abs().max() > limit(name) * scale))
    layers = [t.layer for t in (*every(net, "head"), *every(net, "neuron"))]
    read_later = any(net.heads(later) for layer in layers for later in range(layer + 1, net.n_layers))
    assert any(moved) or not read_later


def test_sites_of_some_families_are_patched_alike_one_by_one_and_in_a_sweep(made) -> None:
    if made[0] not in SWEPT:
        pytest.skip("a monthly test sweeps it")
    assert_swept_alike(*made)


@pytest.mark.monthly
def test_sites_of_every_family_are_patched_alike_one_by_one_and_in_a_sweep(made) -> None:
    assert_swept_alike(*made)


def assert_swept_alike(name: str, _model: Model, net: Network, batch: batches.PairBatch) -> None:
    """A sweep goes on from what it need not compute again; the plain pass computes everything."""
    clean, corrupted = (batches.trace(net, tokens, batch.ends) for tokens in (batch.clean, batch.corrupted))
    donor = sweep.resample(corrupted)
    for site in ("q", "k", "v", "pattern", "head", "attn_out", "mlp_out", "resid_pre", "neuron"):
        targets = [t for t in every(net, site) if t.unit in (None, 0)]
        for indices, logits in sweep.sweep(net, clean, batch, targets, donor):
            for i, got in zip(indices, logits, strict=True):
                expected = sweep.intervene(net, batch.clean, batch.ends, batch, [targets[i]], donor)
                assert (got - expected).abs().max() <= limit(name) * expected.abs().max(), targets[i]


def test_direct_effects_add_up_to_the_logit_difference(made) -> None:
    """What every component adds, and after an ablation the change, with the norm's part."""
    name, _, net, batch = made
    if net.n_vocab and getattr(getattr(net, "weights", None), "wiring", None) and net.weights.wiring.soft_cap:
        pytest.skip("a soft cap stands after what is added up")
    if not net.heads_direct:
        with pytest.raises(ModelError, match="has no direct part of the logits"):
            self_repair.run_writes(net, batch.clean, batch)
        return
    with torch.inference_mode():
        before = self_repair.run_writes(net, batch.clean, batch)
    scale = before.dla.abs().max()
    total = before.dla.sum(-1) + before.constant
    assert (total - before.logit_diff).abs().max() <= limit(name) * scale * 10
    corrupted = batches.trace(net, batch.corrupted, batch.ends)
    mlps = [target for target in every(net, "mlp_out") if net.direct("mlp_out", target.layer)]
    for target in (every(net, "head")[0], *mlps[-1:]):
        repaired = self_repair.repair(net, before, batch.clean, batch, target, sweep.resample(corrupted))
        assert repaired.residual.abs().max() <= limit(name) * scale * 10
        assert repaired.direct.abs().max() > 0


def test_sets_of_nodes_are_joint_patches(made) -> None:
    name, _, net, batch = made
    corrupted = batches.trace(net, batch.corrupted, batch.ends)
    labels = nodes.node_labels(net, mlps=True)
    keep = torch.rand((3, len(labels)), generator=torch.Generator().manual_seed(2)).numpy() < 0.5
    evaluate = Evaluator(net, batch, labels, corrupted)
    for row, kept in zip(evaluate(keep), keep, strict=True):
        dropped = [parse_target(node) for node in evaluate.labels(~kept)]
        joint = sweep.intervene(net, batch.clean, batch.ends, batch, dropped, sweep.resample(corrupted))
        expected = logit_diff(joint, batch.options).double().numpy()
        assert row == pytest.approx(expected, rel=0, abs=100 * limit(name))
    whole = edge_mask.with_nodes(
        net, batch.clean, batch.ends, torch.zeros(1, len(labels), dtype=torch.bool), labels, corrupted
    )
    clean = batches.trace(net, batch.clean, batch.ends).logits
    assert (whole[0] - clean).abs().max() <= limit(name) * clean.abs().max()


def test_what_asks_for_more_than_a_family_has_is_refused_with_its_cause() -> None:
    with pytest.raises(ModelError, match="has no heads, of which circuits are made"):
        network_of_heads(loaded("mamba"))
    with pytest.raises(ModelError, match="norms of the residual stream stand between the layers"):
        network_of_direct_heads(loaded("gpt1"))


def test_a_layer_without_heads_or_neurons_has_none_to_patch() -> None:
    """LFM2's first layers are convolutions."""
    net = network_of(loaded("lfm2"))
    without = [layer for layer in range(net.n_layers) if not net.heads(layer)]
    assert without
    assert not {target.layer for target in every(net, "head")} & {*without}
    with pytest.raises(Exception, match="would never fire"):
        sweep.check_target(net, Target("head", without[0], 0))
