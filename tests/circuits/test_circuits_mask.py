"""The edge mask: ends, nodes, and every single edge against a slow forward pass that replaces one input at a time."""

import numpy as np
import patch_models
import pytest
import torch
from transformer_lens.tools.analysis.attribution_patching import Node, faithfulness

from profiler.circuits import edge_mask
from profiler.circuits.circuit import Edge
from profiler.circuits.scoring.evaluate import Evaluator, node_labels, sizes
from profiler.errors import CircuitError
from profiler.model.steps.plain import attend, mix, neurons
from profiler.patching import batch as batches
from profiler.patching import sites, sweep
from profiler.patching.metrics import logit_diff


def _setting(form: str) -> tuple:
    net, batch = patch_models.network(form).plain, patch_models.batch()
    clean, corrupted = (batches.trace(net, tokens, batch.ends) for tokens in (batch.clean, batch.corrupted))
    return net, batch, clean, corrupted, edge_mask.all_writes(net, corrupted)


def _slow(net, tokens, ends, keep, other) -> torch.Tensor:
    """Each reader's input summed writer by writer, head by head."""
    graph = edge_mask.graph_of(net)
    row = {label: i for i, label in enumerate(graph.writers)}
    column = {label: i for i, label in enumerate(graph.readers)}
    live: dict[str, torch.Tensor] = {"embed": net.embed[tokens]}
    constant = (
        torch.zeros_like(live["embed"])
        if net.positions is None
        else net.positions[: tokens.shape[1]].expand_as(live["embed"])
    )

    def heard(reader: str) -> torch.Tensor:
        parts = [value if keep[row[w], column[reader]] else other[row[w]] for w, value in live.items()]
        return sum(parts) + constant

    for i, w in enumerate(net.layers):
        new, after = {}, constant + w.b_o
        for h in range(net.n_heads):
            read = {part: w.norm_attn(heard(f"L{i}H{h}.{part}")) for part in "qkv"}
            q, k, v = (read[p] @ getattr(w, f"w_{p}")[h] + getattr(w, f"b_{p}")[h] for p in "qkv")
            everywhere = torch.arange(tokens.shape[1])[None]
            z = mix(attend(net, q[:, :, None], k[:, :, None], everywhere), v[:, :, None])[:, :, 0]
            new[f"L{i}H{h}"] = z @ w.w_o[h]
        if net.parallel:
            post = neurons(net, i, w.norm_mlp(heard(f"L{i}_mlp_out"))) @ w.w_out
            live |= new
            constant = after
        else:
            live |= new
            constant = after
            post = neurons(net, i, w.norm_mlp(heard(f"L{i}_mlp_out"))) @ w.w_out
        live[f"L{i}_mlp_out"] = post
        constant = constant + w.b_out
    logits = net.norm_final(heard("logits")) @ net.unembed + net.b_unembed
    return logits[torch.arange(len(ends)), ends]


@pytest.mark.parametrize("form", patch_models.FORMS)
def test_ends_of_the_edge_mask(form: str) -> None:
    """A5: all edges give the model, no edges the other run, bit by bit where nothing is dropped."""
    net, batch, clean, corrupted, other = _setting(form)
    exists = edge_mask.graph_of(net).exists
    everything = edge_mask.masked(net, batch.clean, batch.ends, exists, other)
    assert (everything - clean.logits).abs().max() < 1e-12
    nothing = edge_mask.masked(net, batch.clean, batch.ends, torch.zeros_like(exists), other)
    assert (nothing - corrupted.logits).abs().max() < 1e-12


@pytest.mark.parametrize("form", patch_models.FORMS)
@pytest.mark.parametrize("kept", [0.2, 0.8])
def test_any_edge_mask_against_one_edge_at_a_time(form: str, kept: float) -> None:
    """A5."""
    net, batch, _, _, other = _setting(form)
    exists = edge_mask.graph_of(net).exists
    keep = exists & (torch.rand(exists.shape, generator=torch.Generator().manual_seed(int(10 * kept))) < kept)
    fast = edge_mask.masked(net, batch.clean, batch.ends, keep, other)
    assert (fast - _slow(net, batch.clean, batch.ends, keep, other)).abs().max() < 1e-12


@pytest.mark.parametrize("form", ["gpt2", "neox"])
def test_every_single_edge(form: str) -> None:
    net, batch, _, _, other = _setting(form)
    exists = edge_mask.graph_of(net).exists
    for writer, reader in exists.nonzero().tolist()[::5]:
        keep = exists.clone()
        keep[writer, reader] = False
        fast = edge_mask.masked(net, batch.clean, batch.ends, keep, other)
        assert (fast - _slow(net, batch.clean, batch.ends, keep, other)).abs().max() < 1e-12


def test_edges_that_exist_are_those_of_the_form() -> None:
    graph = edge_mask.Graph(2, 2, False)
    assert len(graph.writers) == 7
    assert len(graph.readers) == 15
    assert int(graph.exists.sum()) == 1 * 6 + 3 + 4 * 6 + 6 + 7
    parallel = edge_mask.Graph(2, 2, True)
    assert int(parallel.exists.sum()) == 1 * 6 + 1 + 4 * 6 + 4 + 7
    small = edge_mask.Graph(12, 12, False)
    assert int(small.exists.sum()) == 32491  # GPT-2 small, as EAP-IG counts them


def test_masks_of_edges_and_nodes() -> None:
    graph = edge_mask.Graph(2, 2, False)
    kept = graph.mask([Edge("L0H1", "L1H0"), Edge("embed", "logits")])
    assert {(graph.writers[w], graph.readers[r]) for w, r in kept.nonzero().tolist()} == {
        ("L0H1", "L1H0.q"),
        ("L0H1", "L1H0.k"),
        ("L0H1", "L1H0.v"),
        ("embed", "logits"),
    }
    between = graph.between(["L0H1", "L1H0"])
    assert int(between.sum()) == 3 + 6 + 3
    for edge in (Edge("L1H0", "L0H0"), Edge("L9H0", "logits"), Edge("L0H0", "L0H9.q")):
        with pytest.raises(CircuitError, match="edge"):
            graph.mask([edge])


@pytest.mark.parametrize("form", patch_models.FORMS)
def test_node_sets_are_edge_masks_and_joint_patches(form: str) -> None:
    net, batch, _, corrupted, other = _setting(form)
    nodes = node_labels(net, mlps=True)
    rng = np.random.default_rng(0)
    keep = rng.random((4, len(nodes))) < 0.5
    evaluate = Evaluator(net, batch, nodes, corrupted, tokens_at_once=2 * batch.clean.numel())
    values = evaluate(keep)
    for row, kept in zip(values, keep, strict=True):
        edges = edge_mask.node_mask_logits(net, batch, evaluate.labels(kept), other)
        assert row == pytest.approx(logit_diff(edges, batch.options).numpy(), abs=1e-12)
        dropped = [sites.parse_target(node) for node in evaluate.labels(~kept)]
        joint = sweep.intervene(net, batch.clean, batch.ends, batch, dropped, sweep.resample(corrupted))
        assert row == pytest.approx(logit_diff(joint, batch.options).numpy(), abs=1e-12)


def test_whole_and_empty_circuit_have_faithfulness_one_and_zero() -> None:
    """A5."""
    net, batch, clean, corrupted, _ = _setting("gpt2")
    evaluate = Evaluator(net, batch, node_labels(net, mlps=False), corrupted)
    assert list(evaluate.faithfulness(sizes([], 4)[[0, 0]] | np.array([[True], [False]]))) == [1, 0]
    assert evaluate.model == pytest.approx(logit_diff(clean.logits, batch.options).numpy(), abs=1e-12)
    assert np.array_equal(evaluate.empty, evaluate.of([]))
    assert len(evaluate.known) == 2


def test_sizes_of_a_ranking() -> None:
    assert sizes([2, 0], 3).tolist() == [[False] * 3, [False, False, True], [True, False, True]]


def _their_node(label: str, layer_of_logits: int, position: int) -> Node:
    """A writer or reader as TransformerLens names it."""
    if label in ("embed", "logits"):
        return Node(label, position, layer_of_logits if label == "logits" else None)
    name, _, part = label.partition(".")
    if name.endswith("_mlp_out"):
        return Node(part or "mlp_out", position, int(name[1]))
    return Node(f"{part}_input" if part else "attn_head_out", position, int(name[1]), int(name[3]))


def test_an_edge_circuit_is_as_faithful_as_transformer_lens_says() -> None:
    """A5: the same edges at every offset, one pair, to 1e-4."""
    net, batch = patch_models.network("gpt2").plain, patch_models.batch(1)
    clean, corrupted = (batches.trace(net, tokens, batch.ends) for tokens in (batch.clean, batch.corrupted))
    graph = edge_mask.graph_of(net)
    keep = graph.exists & (torch.rand(graph.exists.shape, generator=torch.Generator().manual_seed(5)) < 0.6)
    edges = []
    for writer, reader in keep.nonzero().tolist():
        source, target = graph.writers[writer], graph.readers[reader]
        target = target.replace("_mlp_out", "_mlp_out.mlp_in")
        edges += [(_their_node(source, 1, i), _their_node(target, 1, i)) for i in range(batch.clean.shape[1])]
    end = int(batch.ends[0])
    model = patch_models.loaded("gpt2")
    theirs = faithfulness(
        model.bridge, batch.clean, batch.corrupted, lambda x: logit_diff(x[:, end], batch.options)[0], edges
    )
    ours = edge_mask.masked(net, batch.clean, batch.ends, keep, edge_mask.all_writes(net, corrupted))
    values = [logit_diff(x, batch.options).item() for x in (ours, corrupted.logits, clean.logits)]
    assert (values[0] - values[1]) / (values[2] - values[1]) == pytest.approx(theirs.recovered, abs=1e-4)
    assert theirs.full_metric == pytest.approx(values[2], abs=1e-6)
    assert abs(theirs.recovered - 1) > 0.02
