"""Attribution patching: where it is exact, where it is blind, and that its map says so."""

from dataclasses import replace

import numpy as np
import patch_models
import pytest
import torch

from profiler.circuits import edge_mask, edges
from profiler.model.steps.network import Network, forward
from profiler.model.steps.plain import Layer, Norm, PlainNetwork
from profiler.patching import batch as batches
from profiler.patching import setting, sites, sweep, sweep_tables
from profiler.patching.attribution import atp_star, estimates, gradient, reliability
from profiler.patching.metrics import logit_diff
from profiler.patching.redundancy import self_repair
from profiler.patching.sites import Target
from profiler.prompts.pairs.encode import Encoded
from profiler.statistics import ROUNDING


def _traces(net, batch) -> list:
    return [batches.trace(net, tokens, batch.ends) for tokens in (batch.clean, batch.corrupted)]


def _estimate(net, batch, base, other, tokens, targets, steps: int = 0) -> torch.Tensor:
    if steps:
        slopes = gradient.along(net, base, other, tokens, batch, steps).mean
    else:
        slopes, _ = gradient.gradients(net, tokens, batch)
    return gradient.estimate(base, other, slopes, batch, targets)


@pytest.mark.parametrize(("gate", "at_clean", "at_corrupted"), [("or", 0, 1), ("and", -1, 0), ("sum", -0.5, 0.5)])
def test_gradients_of_gates(gate: str, at_clean: float, at_corrupted: float) -> None:
    """A7: exact where linear, 0 at the clean OR and at the corrupted AND, though both heads together move all."""
    net, batch = patch_models.GATES[gate](), patch_models.gate_batch()
    clean, corrupted = _traces(net, batch)
    heads = sites.every(net, "head")
    assert torch.equal(
        _estimate(net, batch, clean, corrupted, batch.clean, heads), torch.full((2, 3), float(at_clean)).double()
    )
    assert torch.equal(
        _estimate(net, batch, corrupted, clean, batch.corrupted, heads),
        torch.full((2, 3), float(at_corrupted)).double(),
    )
    for steps in (2, 8):
        assert _estimate(net, batch, clean, corrupted, batch.clean, heads, steps).sum(0).tolist() == [-1] * 3


@pytest.mark.slow
def test_integrated_gradients_approach_the_joint_effect() -> None:
    """A7: over all writers to one reader, the error falls with the number of steps."""
    net, batch = patch_models.network("neox"), patch_models.batch()
    clean, corrupted = _traces(net, batch)
    whole = logit_diff(corrupted.logits, batch.options) - logit_diff(clean.logits, batch.options)
    off = []
    for steps in (1, 4, 16, 64):
        path = gradient.along(net, clean, corrupted, batch.clean, batch, steps)
        found = gradient.estimate(clean, corrupted, path.mean, batch, [Target("resid_pre", 0)])[0]
        off.append((found - whole).abs().mean().item())
    assert off[3] < off[2] < off[0]
    assert off[3] < 1e-3
    assert path.nonlinearity > 0.01


class FrozenNorm(Norm):
    """A norm whose denominator carries no gradient: direct logit attribution's view of it."""

    def __call__(self, x):
        centred = x - x.mean(-1, keepdim=True) if self.centres else x
        return centred / self.scale(x).detach() * self.weight + self.bias


def frozen(net: PlainNetwork) -> PlainNetwork:
    """The network with its final norm's denominator frozen."""
    norm = net.norm_final
    return replace(net, norm_final=FrozenNorm(norm.weight, norm.bias, norm.centres, norm.eps))


def test_a_last_head_with_a_frozen_norm_is_exact() -> None:
    """A7: in a parallel model nothing reads what a head of the last layer writes."""
    net, batch = patch_models.network("neox"), patch_models.batch()
    clean, corrupted = _traces(net, batch)
    targets = [Target("head", net.n_layers - 1, head) for head in range(net.n_heads)]
    slopes, _ = gradient.gradients(frozen(net.plain), batch.clean, batch)
    found = gradient.estimate(clean, corrupted, slopes, batch, targets)
    before = self_repair.run_writes(net, batch.clean, batch)
    for row, target in zip(found, targets, strict=True):
        direct = self_repair.repair(net, before, batch.clean, batch, target, sweep.resample(corrupted)).direct
        assert (row - direct).abs().max() < 1e-12
    live = gradient.estimate(clean, corrupted, gradient.gradients(net, batch.clean, batch)[0], batch, targets)
    assert (live - found).abs().max() > 1e-6


@pytest.mark.parametrize("form", patch_models.FORMS)
def test_edges_of_a_node_add_up_to_the_node(form: str) -> None:
    """A8."""
    net, batch = patch_models.network(form), patch_models.batch()
    clean, corrupted = _traces(net, batch)
    scores = edges.edge_scores(net.plain, clean, corrupted, batch.clean, batch)
    targets = [*sites.every(net, "head"), *sites.every(net, "mlp_out")]
    nodes = _estimate(net, batch, clean, corrupted, batch.clean, targets).mean(-1)
    writers = edge_mask.graph_of(net.plain).writers
    for target, node in zip(targets, nodes, strict=True):
        assert scores[writers.index(target.label)].sum() == pytest.approx(node.item(), abs=1e-12)
    assert nodes.abs().max() > 1e-3


def test_edges_are_confirmed_exactly() -> None:
    net, batch = patch_models.network("gpt2"), patch_models.batch()
    clean, corrupted = _traces(net, batch)
    graph = edge_mask.graph_of(net.plain)
    among = edges.candidates(graph, ["L0H0", "L1H1"], mlps_kept=False)
    scores = edges.edge_scores(net.plain, clean, corrupted, batch.clean, batch)
    found = edges.confirm(net.plain, batch, clean, corrupted, among, 6, scores)
    sizes = [abs(one.exact) for one in found]
    # those that are nearer keep the order of their estimates
    assert sizes == pytest.approx(sorted(sizes, reverse=True), abs=ROUNDING)
    assert {end.split(".")[0] for one in found for end in (one.edge.writer, one.edge.reader)} <= {
        "embed",
        "L0H0",
        "L1H1",
        "logits",
    }
    writes = edge_mask.all_writes(net.plain, corrupted)
    keep = graph.exists & ~graph.mask([found[0].edge])
    cut = logit_diff(edge_mask.masked(net.plain, batch.clean, batch.ends, keep, writes), batch.options)
    assert (cut - logit_diff(clean.logits, batch.options)).mean().item() == pytest.approx(found[0].exact, abs=1e-12)
    assert edges.sizes(found, 2.0)[0] == found[0].exact / 2
    assert (
        edges.candidates(graph, ["L0H0"], mlps_kept=True).sum()
        > edges.candidates(graph, ["L0H0"], mlps_kept=False).sum()
    )


def _random_net(seed: int) -> Network:
    """Three pre-norm layers of four heads, width 32, weights as circuits.md's own run of A9 had them."""
    rng = torch.Generator().manual_seed(seed)
    d, h, dh, v, s = 32, 4, 8, 50, 6

    def some(*shape: int) -> torch.Tensor:
        return 0.3 * torch.randn(*shape, generator=rng, dtype=torch.float64)

    norm = Norm(torch.ones(d).double(), torch.zeros(d).double(), True, 1e-5)
    zeros = torch.zeros(h, dh).double()
    layers = tuple(
        Layer(
            norm,
            norm,
            some(h, d, dh),
            some(h, d, dh),
            some(h, d, dh),
            zeros,
            zeros,
            zeros,
            some(h, dh, d),
            some(d),
            some(d, 4 * d),
            some(4 * d),
            None,
            None,
            some(4 * d, d),
            some(d),
        )
        for _ in range(3)
    )
    return PlainNetwork(
        layers, some(v, d), some(s, d), None, norm, some(d, v), some(v), torch.nn.functional.gelu, False, dh**-0.5
    )


@pytest.mark.slow
def test_attribution_is_better_late() -> None:
    """A9: mean relative error by layer over 20 random models falls, first above last nearly always."""
    errors = []
    for seed in range(20):
        net = _random_net(seed)
        rng = torch.Generator().manual_seed(seed)
        tokens = torch.randint(0, 50, (3, 6), generator=rng)
        other = tokens.clone()
        other[:, 2] = (other[:, 2] + 5) % 50
        one = torch.ones(3, 1).double()
        options = batches.Options(torch.full((3, 1), 7), one, torch.full((3, 1), 9), one)
        batch = batches.PairBatch(
            (), tokens, other, torch.full((3,), 5), torch.ones(3, 6, dtype=torch.bool), options, {}
        )
        clean, corrupted = _traces(net, batch)
        targets = [*sites.every(net, "head"), *sites.every(net, "mlp_out")]
        estimated = _estimate(net, batch, clean, corrupted, tokens, targets)
        exact = torch.zeros_like(estimated)
        for indices, logits in sweep.sweep(net, clean, batch, targets, sweep.resample(corrupted)):
            exact[indices] = torch.stack([logit_diff(row, options) for row in logits]) - logit_diff(
                clean.logits, options
            )
        layer = torch.tensor([target.layer for target in targets])
        errors.append([((estimated - exact)[layer == i].norm() / exact[layer == i].norm()).item() for i in range(3)])
    mean = np.mean(errors, axis=0)
    assert mean[0] > mean[1] > mean[2]
    assert sum(e[0] > e[2] for e in errors) >= 19
    assert mean[2] < 0.3 < mean[0]


def test_positions_of_an_estimate_add_up() -> None:
    net, batch = patch_models.network("gpt2"), patch_models.batch()
    clean, corrupted = _traces(net, batch)
    slopes, _ = gradient.gradients(net, batch.clean, batch)
    for target in (targets[0] for site in sites.ALL_SITES if (targets := sites.every(net, site))):
        by_role = [target.during(role) for role in ("first", "second", "end")]
        found = gradient.estimate(clean, corrupted, slopes, batch, [target, *by_role])
        rest = batch.valid & ~batch.mask("first") & ~batch.mask("second") & ~batch.mask("end")
        other = gradient.estimate(
            clean,
            corrupted,
            slopes,
            batches.PairBatch(**{**vars(batch), "roles": {"rest": rest}}),
            [target.during("rest")],
        )
        assert (found[0] - found[1:].sum(0) - other[0]).abs().max() < 1e-12, site


def test_sizes_of_patches() -> None:
    net, batch = patch_models.GATES["sum"](), patch_models.gate_batch()
    clean, corrupted = _traces(net, batch)
    heads = sites.every(net, "head")
    assert gradient.patch_size(clean, corrupted, batch, heads).tolist() == [1, 1]
    assert gradient.patch_size(clean, clean, batch, heads).tolist() == [0, 0]


def test_saturated_attention_and_shut_neurons_are_flagged() -> None:
    net, batch = patch_models.GATES["or"](), patch_models.gate_batch()
    clean, corrupted = _traces(net, batch)
    neuron = Target("neuron", 0, 0)
    assert gradient.saturated(clean, corrupted, batch, neuron)
    assert not gradient.saturated(corrupted, clean, batch, neuron)
    assert not gradient.saturated(clean, corrupted, batch, Target("head", 0, 0))
    flat = [batches.Trace(dict(run.sites), run.logits) for run in (clean, corrupted)]
    flat[0].sites["pattern"] = [torch.tensor([0.0, 1.0]).expand(3, 2, 2, 2)]
    flat[1].sites["pattern"] = [torch.tensor([0.5, 0.5]).expand(3, 2, 2, 2)]
    assert gradient.saturated(*flat, batch, Target("q", 0, 0))
    assert not gradient.saturated(flat[1], flat[1], batch, Target("q", 0, 0))


def test_agreement_of_a_cell() -> None:
    exact = np.array([1.0, -1.0, 0.5, 0.0])
    right = reliability.agreement(exact, exact, 0.1)
    assert (right.pearson, right.sign, right.slope, right.error, right.false_negatives) == pytest.approx(
        (1, 1, 1, 0, 0)
    )
    assert right.reliable
    half = reliability.agreement(exact / 2, exact, 0.1)
    assert (half.slope, half.error, half.sign) == pytest.approx((2, 0.5, 1))
    assert half.spearman == pytest.approx(1)
    blind = reliability.agreement(exact * [1, 0, 1, 1], exact, 0.1)
    assert blind.false_negatives == pytest.approx(1 / 3)
    assert blind.sign == pytest.approx(2 / 3)
    assert not blind.reliable
    assert np.isnan(reliability.agreement(exact[:2], exact[:2], 0.1).pearson)
    nothing = reliability.agreement(np.zeros(4), np.zeros(4), 0.1)
    assert nothing.reliable
    assert np.isnan(nothing.false_negatives)
    assert reliability.use_exact(exact * [1, 0, 1, 1], exact, np.array([False, False, True, False]), 0.1).tolist() == [
        False,
        True,
        True,
        False,
    ]


def test_recall_and_the_bound_on_what_was_missed() -> None:
    exact, estimated = np.array([3.0, -2, 1, 0.1]), np.array([0.0, -2, 1, 0.5])
    assert reliability.recall(estimated, exact, 2, 3) == 0.5
    assert reliability.recall(estimated, exact, 2, 4) == 1
    assert reliability.false_negative_bound(0, 100, 1000) == pytest.approx(1000 * (1 - 0.05 ** (1 / 100)))
    assert reliability.false_negative_bound(5, 100, 1000) > 50
    assert reliability.size_bin(0.05) == "0 to 0.1"
    assert reliability.size_bin(4.0) == "1 or more"


def _saturated_head() -> Network:
    """A head whose query at the question looks at the first token where that is on, far into the softmax's flat
    part."""
    off = patch_models._head({0: 1.0}, 6)
    w_q, w_k, w_v, w_o = (part.clone() for part in off)
    w_k[1, 0], w_k[0, 0], w_q[7, 0] = 0.0, 40.0, 1.0
    w_v[7, 0], w_v[0, 0] = 1.0, 0.0
    w_v[1, 0] = -1.0
    return patch_models.hand_built([patch_models._layer([(w_q, w_k, w_v, w_o), patch_models.NOTHING], [])])


def test_the_fix_of_queries_and_keys_sees_through_saturated_attention() -> None:
    """Everything after the pattern is linear, so the fixed estimate is exact where the plain one is blind."""
    net, batch = _saturated_head(), patch_models.gate_batch()
    clean, corrupted = _traces(net, batch)
    slopes, _ = gradient.gradients(net, batch.clean, batch)
    target = [Target("k", 0, 0)]
    exact = logit_diff(
        sweep.intervene(net, batch.clean, batch.ends, batch, target, sweep.resample(corrupted)), batch.options
    ) - logit_diff(clean.logits, batch.options)
    assert exact.tolist() == pytest.approx([-0.5] * 3)
    assert gradient.estimate(clean, corrupted, slopes, batch, target).abs().max() < 1e-9
    fixed = atp_star.qk_fixed(net, clean, corrupted, slopes, batch, target)
    assert fixed[0].tolist() == pytest.approx(exact.tolist(), abs=1e-12)
    assert atp_star.qk_fixed(net, clean, corrupted, slopes, batch, []).shape == (0, 3)


@pytest.mark.parametrize("form", patch_models.FORMS)
def test_the_fix_against_a_pattern_made_by_hand(form: str) -> None:
    """The change of the pattern is that of the patched run, at single positions too."""
    net, batch = patch_models.network(form), patch_models.batch()
    clean, corrupted = _traces(net, batch)
    slopes, _ = gradient.gradients(net, batch.clean, batch)
    for target in (Target("q", 1, 1, "end"), Target("k", 0, 0, "second"), Target("q", 0, 1), Target("k", 1, 0)):
        seen = {}

        def edit(site, layer, value, offsets, target=target, seen=seen):
            if (site, layer) == (target.site, target.layer):
                value = sweep.put(value, corrupted[site][layer], batch.mask(target.positions), target)
            if (site, layer) == ("pattern", target.layer):
                seen["pattern"] = value
            return value

        with torch.no_grad():
            forward(net, batch.clean, edit)
        change = (seen["pattern"] - clean["pattern"][target.layer])[:, target.unit]
        slow = (change * slopes["pattern", target.layer][:, target.unit]).flatten(1).sum(1)
        assert (atp_star.qk_fixed(net, clean, corrupted, slopes, batch, [target])[0] - slow).abs().max() < 1e-12
        assert slow.abs().max() > 0


def _cancelling() -> Network:
    """L0H0 writes the answer, and a head of the next layer takes as much away again: its whole effect is 0."""
    first = patch_models._layer([patch_models._head({0: 1}, 6), patch_models.NOTHING], [])
    w_q, w_k, w_v, w_o = patch_models._head({6: -1}, 6)
    w_q, w_k = torch.zeros_like(w_q), torch.zeros_like(w_k)
    w_q[7, 0], w_k[1, 0] = 1.0, patch_models.FAR
    return patch_models.hand_built([first, patch_models._layer([(w_q, w_k, w_v, w_o), patch_models.NOTHING], [])])


def test_dropping_layers_finds_what_cancels() -> None:
    """Direct effect 1, indirect -1: the plain estimate is 0, dropping layer 1 shows 1, dropping its own layer 0."""
    net, batch = _cancelling(), patch_models.gate_batch()
    clean, corrupted = _traces(net, batch)
    target = [Target("head", 0, 0), Target("head", 1, 0)]
    slopes, _ = gradient.gradients(net, batch.clean, batch)
    assert gradient.estimate(clean, corrupted, slopes, batch, target)[0].tolist() == [0] * 3
    found = atp_star.grad_dropped(net, clean, corrupted, batch.clean, batch, target)
    assert found[0].tolist() == [1] * 3
    assert found[1].tolist() == [1] * 3


def test_dropping_against_a_network_without_the_layer() -> None:
    """The gradient with a layer dropped is that of a network that adds the layer's write as a constant."""
    net, batch = patch_models.network("gpt2"), patch_models.batch()
    clean, _ = _traces(net, batch)
    slopes, metric = gradient.gradients(net, batch.clean, batch, dropped=1)
    assert metric == pytest.approx(logit_diff(clean.logits, batch.options), abs=1e-12)
    written = clean["resid_final"][0] - clean["resid_pre"][1]
    leaf = clean["head"][0].clone().requires_grad_(True)

    def edit(site, layer, value, offsets):
        return leaf if (site, layer) == ("head", 0) else value

    with torch.enable_grad():
        steps = net.begin(batch.clean)
        stream = steps.layer(0, steps.stream, edit) + written
        logits = net.finish(stream)[torch.arange(len(batch)), batch.ends]
        slow = torch.autograd.grad(logit_diff(logits, batch.options).sum(), leaf)[0]
    assert (slopes["head", 0] - slow).abs().max() < 1e-12
    assert torch.equal(slopes["head", 1], torch.zeros_like(slopes["head", 1]))


def test_an_experiment_estimates_queries_and_keys_by_every_method() -> None:
    one = setting.prepare("discovery", patch_models.network("gpt2"), Encoded(patch_models.token_pairs(), ()))
    targets = (Target("q", 0, 1), Target("k", 1, 0, "end"), Target("head", 0, 0), Target("neuron", 1, 2))
    plan = [
        sweep_tables.SweepPlan(targets, way, "resample", sweep.resample(run))
        for way, run in (("denoise", one.clean), ("noise", one.corrupted))
    ]
    measured = [m for p in plan for m in sweep_tables.run_plan(one, p)]
    found = estimates.slopes(one, 2, targets)
    rows = estimates.estimate_rows(one, found, measured)
    counts = dict(rows.group_by("method").len().rows())
    assert counts == {"gradient": 8, "integrated": 8, "grad_drop": 8, "qk_fix": 4}
    for way, base, other, tokens, sign in (
        ("denoise", one.corrupted, one.clean, one.batch.corrupted, 1),
        ("noise", one.clean, one.corrupted, one.batch.clean, -1),
    ):
        slopes, _ = gradient.gradients(one.net, tokens, one.batch)
        fixed = (
            atp_star.qk_fixed(one.net, base, other, slopes, one.batch, targets[:2]).mean(-1) * sign / one.whole.mean()
        )
        sizes = atp_star.grad_dropped(one.net, base, other, tokens, one.batch, targets).mean(-1) / abs(one.whole.mean())
        stored = rows.filter(direction=way)
        assert stored.filter(method="qk_fix")["estimated"].to_numpy() == pytest.approx(fixed.numpy(), abs=1e-12)
        dropped = stored.filter(method="grad_drop")["estimated"].to_numpy()
        assert np.abs(dropped) == pytest.approx(sizes.numpy(), abs=1e-12)
        plain = stored.filter(method="gradient")["estimated"].to_numpy()
        assert (dropped * plain >= 0).all()
        assert np.abs(dropped).max() > 0
    neurons = sites.every(one.net, "neuron")
    chosen = estimates.choose_neurons(one, found, len(neurons), 0)
    assert sorted(chosen.largest + chosen.sampled) == sorted(neurons)
    size = {
        target: max(
            np.abs(estimates.estimated(one, some, method, [target]).mean())
            for some in found
            for method in estimates.methods_of(target)
        )
        for target in neurons
    }
    rounding = 1e-12  # estimated here one by one, there all together
    assert min(size[target] for target in chosen.largest) >= max(size[target] for target in chosen.sampled) - rounding
    assert len(estimates.choose_neurons(one, found, 5, 0).largest) == 2
