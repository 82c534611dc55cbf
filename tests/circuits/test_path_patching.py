"""Path patching: identities with edge cuts, a slow chain by hooks, hand-built gates, and what is refused."""

import numpy as np
import patch_models
import pytest
import torch

from profiler.circuits import edge_mask
from profiler.circuits.by_edges import paths
from profiler.errors import CircuitError, PairError
from profiler.model.steps.plain import attend, mix, neurons
from profiler.patching.setting import PairRuns, prepare
from profiler.prompts.pairs import Encoded


def _runs(form: str) -> PairRuns:
    return prepare("discovery", patch_models.network(form), Encoded(patch_models.token_pairs(), ()))


def _slow(runs: PairRuns, path: paths.NamedPath) -> torch.Tensor:
    """The path by plain loops: every component's input is a sum of writes, of which one is exchanged at each hop."""
    net, batch = runs.net.plain, runs.batch
    clean, corrupted = _writes(net, batch.clean), _writes(net, batch.corrupted)
    message = corrupted[path.sender.split(".")[0]]
    for hop in path.hops():
        told = _writes(net, batch.clean, exchange=(hop.writer, hop.reader, message - clean[hop.writer]))
        message = told[hop.reader.split(".")[0]]
    return told["logits"][torch.arange(len(batch)), batch.ends]


def _writes(net, tokens, exchange=("", "", 0.0)) -> dict[str, torch.Tensor]:
    """What everybody writes at every position, with a change of what one reader hears."""
    writer, reader, change = exchange
    stream = net.embed[tokens]
    written = {"embed": stream}
    stream = stream + (0 if net.positions is None else net.positions[: tokens.shape[1]])

    def heard(name: str) -> torch.Tensor:
        return stream + (change if writer and name in (reader, *(f"{reader}.{part}" for part in "qkv")) else 0)

    for i, w in enumerate(net.layers):
        new = {}
        for h in range(net.n_heads):
            read = {part: w.norm_attn(heard(f"L{i}H{h}.{part}")) for part in "qkv"}
            q, k, v = (read[p] @ getattr(w, f"w_{p}")[h] + getattr(w, f"b_{p}")[h] for p in "qkv")
            everywhere = torch.arange(tokens.shape[1])[None]
            z = mix(attend(net, q[:, :, None], k[:, :, None], everywhere), v[:, :, None])[:, :, 0]
            new[f"L{i}H{h}"] = z @ w.w_o[h]
        after = stream + sum(new.values()) + w.b_o
        stream = stream if net.parallel else after
        new[f"L{i}_mlp_out"] = neurons(net, i, w.norm_mlp(heard(f"L{i}_mlp_out"))) @ w.w_out
        stream = after + new[f"L{i}_mlp_out"] + w.b_out
        written |= new
    return written | {"logits": net.norm_final(heard("logits")) @ net.unembed + net.b_unembed}


@pytest.mark.parametrize("form", patch_models.FORMS)
@pytest.mark.parametrize("text", ["L0H1:L1H0.k", "L0H0:L1H1:logits", "embed:L0H1.v:L1H0.q:L1_mlp_out:logits"])
def test_a_path_against_plain_loops(form: str, text: str) -> None:
    runs = _runs(form)
    if runs.net.plain.parallel and "L1H0.q:L1_mlp_out" in text:
        text = "embed:L0H1.v:L1H0.q:logits"
    net = runs.net.plain
    path = paths.parse(text, edge_mask.graph_of(net))
    writes = edge_mask.all_writes(net, runs.clean), edge_mask.all_writes(net, runs.corrupted)
    with torch.inference_mode():
        fast = paths.patched(runs, path, writes, runs.batch.mask("all"))
    assert (fast - _slow(runs, path)).abs().max() < 1e-12
    assert (fast - runs.clean.logits).abs().max() > 1e-6


def test_a_path_of_two_is_an_edge_that_is_cut() -> None:
    runs = _runs("gpt2")
    net = runs.net.plain
    graph, other = edge_mask.graph_of(net), edge_mask.all_writes(net, runs.corrupted)
    found = paths.effect(runs, "L0H1 -> L1H0")
    keep = graph.exists & ~graph.mask(found.path.hops())
    with torch.inference_mode():
        cut = edge_mask.masked(net, runs.batch.clean, runs.batch.ends, keep, other)
    lost = runs.metric_clean - runs.batch.options.values(cut)
    assert found.share == pytest.approx(lost.mean() / runs.whole.mean(), abs=1e-12)
    assert found.path.text == "L0H1:L1H0"
    assert set(found.controls) == {"L0H0"}
    assert found.p_least == 0.5


def test_positions_of_a_path() -> None:
    """What is sent at a role alone and elsewhere alone differ; a role that nobody has is refused."""
    runs = _runs("gpt2")
    everywhere, there = (paths.effect(runs, "embed:L0H1.v:logits", at).share for at in ("all", "second"))
    assert there == pytest.approx(everywhere, abs=1e-12)  # prompts differ there alone
    assert paths.effect(runs, "embed:L0H1.v:logits", "first").share == pytest.approx(0, abs=1e-12)
    with pytest.raises(PairError, match="no pair has the role"):
        paths.effect(runs, "L0H0:logits", "third")


def test_paths_of_hand_built_gates() -> None:
    """SUM: each head carries half, straight. AND: each carries all through the neuron, nothing straight."""

    def share(gate: str, text: str) -> float:
        net = patch_models.GATES[gate]()
        runs = prepare("discovery", net, Encoded(patch_models.gate_batch().pairs, ()))
        return paths.effect(runs, text).share

    assert [share("sum", "L0H0:logits"), share("sum", "L0H0:L0_mlp_out:logits")] == [0.5, 0.0]
    assert [share("and", "L0H0:logits"), share("and", "L0H0:L0_mlp_out:logits")] == [0.0, 1.0]
    assert share("or", "L0H0:L0_mlp_out:logits") == 0.0
    # serial: the second head hears that the first is silent, and writes the answer itself; it is restored
    assert share("serial", "L0H0:logits") == 1.0
    assert share("serial", "L0H0:L1H0.v:logits") == -1.0


@pytest.mark.parametrize("text", ["L0H0", "L0H0:", "L1H0:L0H0", "L0H0:L9H0.q", "L0H0:L0H1.q", "nobody:logits"])
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(CircuitError):
        paths.parse(text, edge_mask.Graph(2, 2, False))


def test_every_other_sender_is_a_control() -> None:
    graph = edge_mask.Graph(3, 2, False)
    assert paths.other_senders(paths.parse("L0H0:L2H1.q", graph), graph) == ["L0H1", "L1H0", "L1H1"]
    assert paths.other_senders(paths.parse("L0_mlp_out:L2H1.q", graph), graph) == ["L1_mlp_out"]
    assert paths.other_senders(paths.parse("embed:L2H1.q", graph), graph) == []
    runs = _runs("gpt2")
    found = paths.effect(runs, "embed:logits")
    assert (found.controls, found.p, found.p_least) == ({}, 1.0, 1.0)
    assert found.n == len(runs.batch)
    assert np.isfinite([found.low, found.high]).all()
