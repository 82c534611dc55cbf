"""Identities that hold for any weights (A1 to A13) on tiny random models in float64, and gates with known answers."""

import itertools

import numpy as np
import pandas as pd
import patch_models
import pytest
import torch
from scipy import stats
from statsmodels.stats.multitest import multipletests
from transformer_lens.patching import PatchingResult

from profiler import statistics
from profiler.model.steps.network import forward
from profiler.patching import batch as batches
from profiler.patching import effects, metrics, sites, sweep
from profiler.patching.metrics import Options
from profiler.patching.redundancy import gates, self_repair
from profiler.patching.sites import Target

ANSWER = np.array([2.0, 3.0, -1.0, 0.5])


def _traces(form: str) -> tuple:
    net, batch = patch_models.network(form), patch_models.batch()
    return net, batch, *(batches.trace(net, tokens, batch.ends) for tokens in (batch.clean, batch.corrupted))


@pytest.mark.parametrize("form", patch_models.FORMS)
def test_dla_adds_up_to_the_logit_difference(form: str) -> None:
    """A1."""
    net, batch = patch_models.network(form), patch_models.batch()
    parts = self_repair.run_writes(net, batch.clean, batch)
    assert parts.dla.shape == (len(batch), len(self_repair.names(net)))
    whole = metrics.logit_diff(forward(net, batch.clean, ends=batch.ends), batch.options)
    assert (parts.dla.sum(-1) + parts.constant - whole).abs().max() < 1e-12
    assert parts.dla.abs().sum() > 1


@pytest.mark.parametrize("form", patch_models.FORMS)
@pytest.mark.parametrize("site", ["head", "mlp_out"])
def test_ablation_splits_into_direct_downstream_and_norm(form: str, site: str) -> None:
    """A2."""
    net, batch, clean, corrupted = _traces(form)
    before = self_repair.run_writes(net, batch.clean, batch)
    for target in sites.every(net, site):
        found = self_repair.repair(net, before, batch.clean, batch, target, sweep.resample(corrupted))
        patched = sweep.intervene(net, batch.clean, batch.ends, batch, [target], sweep.resample(corrupted))
        change = metrics.logit_diff(patched, batch.options) - metrics.logit_diff(clean.logits, batch.options)
        others = found.delta.sum(-1) - found.direct
        assert (change - found.direct - others - found.norm).abs().max() < 1e-12
        assert (change - found.change).abs().max() < 1e-12
        assert found.residual.abs().max() < 1e-12
        assert found.norm.abs().max() > 1e-6
        for name, delta in zip(self_repair.names(net), found.delta.T, strict=True):
            layer = int(name[1]) if name[0] == "L" else -1
            earlier = layer < target.layer or (
                layer == target.layer and (site == "mlp_out" or net.parallel or "H" in name)
            )
            if earlier and name != target.label:
                assert torch.equal(delta, torch.zeros_like(delta)), name


def _shares(net, batch, label: str) -> tuple[float, float]:
    """recovered_denoise and lost_noise of one head."""
    clean, corrupted = (batches.trace(net, tokens, batch.ends) for tokens in (batch.clean, batch.corrupted))
    m = [metrics.logit_diff(run.logits, batch.options).numpy() for run in (clean, corrupted)]
    target = sites.parse_target(label)
    _, into_corrupted = next(sweep.sweep(net, corrupted, batch, [target], sweep.resample(clean)))
    _, into_clean = next(sweep.sweep(net, clean, batch, [target], sweep.resample(corrupted)))
    recovered = effects.recovered_denoise(metrics.logit_diff(into_corrupted[0], batch.options).numpy(), *m)
    lost = effects.lost_noise(metrics.logit_diff(into_clean[0], batch.options).numpy(), *m)
    return float(recovered.of_means), float(lost.of_means)


@pytest.mark.parametrize(
    ("gate", "first", "second", "label"),
    [
        ("or", (1, 0), (1, 0), "OR-like"),
        ("and", (0, 1), (0, 1), "AND-like"),
        ("sum", (0.5, 0.5), (0.5, 0.5), "partial"),
        ("single", (1, 1), (0, 0), "sufficient and necessary"),
    ],
)
def test_gates_have_exactly_their_shares_and_labels(gate: str, first: tuple, second: tuple, label: str) -> None:
    """A6."""
    net, batch = patch_models.GATES[gate](), patch_models.gate_batch()
    assert _shares(net, batch, "L0H0") == first
    assert _shares(net, batch, "L0H1") == second
    assert gates.gate(*_shares(net, batch, "L0H0")) == label
    assert gates.gate(*_shares(net, batch, "L0H1")) == ("none" if gate == "single" else label)


def _joint(net, batch, labels: list[str], denoise: bool) -> float:
    """Change of the logit difference with these heads patched together."""
    tokens, other = (batch.corrupted, batch.clean) if denoise else (batch.clean, batch.corrupted)
    donor = sweep.resample(batches.trace(net, other, batch.ends))
    targets = [sites.parse_target(label) for label in labels]
    patched = sweep.intervene(net, tokens, batch.ends, batch, targets, donor)
    before = forward(net, tokens, ends=batch.ends)
    return float((metrics.logit_diff(patched, batch.options) - metrics.logit_diff(before, batch.options)).mean())


@pytest.mark.parametrize(("gate", "denoise", "lost"), [("or", -1, 1), ("and", 1, -1), ("sum", 0, 0), ("single", 0, 0)])
def test_gates_have_exactly_their_interactions(gate: str, denoise: float, lost: float) -> None:
    """A6."""
    net, batch = patch_models.GATES[gate](), patch_models.gate_batch()
    effect = {
        (labels, way): _joint(net, batch, list(labels), way)
        for labels in (("L0H0",), ("L0H1",), ("L0H0", "L0H1"))
        for way in (True, False)
    }
    together, alone = ("L0H0", "L0H1"), (("L0H0",), ("L0H1",))
    assert gates.interaction(effect[together, True], *(effect[a, True] for a in alone)) == denoise
    assert gates.interaction(*(-effect[key, False] for key in (together, *alone))) == lost
    assert effect[together, True] == 1
    assert effect[together, False] == -1


@pytest.mark.parametrize(("model", "change", "kind"), [("serial", 1.0, "serial"), ("parallel", 0.0, "parallel")])
def test_serial_and_parallel_redundancy(model: str, change: float, kind: str) -> None:
    """A12."""
    net, batch = patch_models.GATES[model](), patch_models.gate_batch()
    corrupted = batches.trace(net, batch.corrupted, batch.ends)
    target = Target("head", 0, 0)
    found = self_repair.repair(
        net, self_repair.run_writes(net, batch.clean, batch), batch.clean, batch, target, sweep.resample(corrupted)
    )
    assert torch.equal(found.change, torch.zeros(3).double())
    delta = found.delta[:, self_repair.names(net).index("L1H0")]
    assert torch.equal(delta, torch.full((3,), change).double())
    lost = [-_joint(net, batch, labels, denoise=False) for labels in (["L0H0", "L1H0"], ["L0H0"], ["L1H0"])]
    extra = np.full(3, gates.interaction(*lost))
    assert gates.redundancy(delta.numpy(), extra, whole=1.0) == kind
    assert lost[0] == 1
    assert lost[1] == 0


def test_redundancy_needs_evidence_for_every_label() -> None:
    flat, noisy = np.zeros(8), np.array([3.0, -3, 2, -2, 3, -3, 2, -2])
    assert gates.redundancy(flat, flat, 1.0) == "independent"
    assert gates.redundancy(flat - 1 + 0.01 * noisy, flat, 1.0) == "composed"
    assert gates.redundancy(noisy, flat, 1.0) == "inconclusive"
    assert gates.redundancy(flat, noisy, 1.0) == "inconclusive"
    assert gates.redundancy(flat[:1], flat[:1], 1.0) == "inconclusive"
    assert gates.redundancy(-flat - 1, flat, -1.0) == "serial"


@pytest.mark.parametrize(
    ("recovered", "lost", "label"),
    [
        (0.01, -0.02, "none"),
        (0.3, 0.1, "OR-like"),
        (0.1, 0.3, "AND-like"),
        (0.2, 0.3, "partial"),
        (0.9, 0.85, "sufficient and necessary"),
        (0.9, 0.7, "partial"),
        (-0.2, -0.25, "partial"),
        (0.1, -0.9, "partial"),
        (-0.3, 0.0, "OR-like"),
        (float("nan"), float("nan"), "none"),
    ],
)
def test_gate_labels_of_real_shares(recovered: float, lost: float, label: str) -> None:
    assert gates.gate(recovered, lost) == label


def test_symmetric_corruption_recovers_half_by_knowing_nothing() -> None:
    """A10."""
    clean, corrupted = ANSWER + 4, -(ANSWER + 4)
    recovered = effects.recovered_denoise(np.zeros(4), clean, corrupted)
    assert recovered.of_means == 0.5
    assert recovered.median == 0.5
    neutral = effects.neutral_level(clean, corrupted)
    assert neutral == 0.5
    assert effects.excess(recovered.of_means, neutral) == 0
    assert effects.excess(np.array(1.0), neutral) == 1


def test_fix_and_break_add_up_to_the_change() -> None:
    _, batch, clean, corrupted = _traces("gpt2")
    before, after = (metrics.panel(run.logits, batch.options, clean.logits).numpy() for run in (corrupted, clean))
    column = {name: i for i, name in enumerate(metrics.METRICS)}
    answer, distractor = column["answer_logit"], column["distractor_logit"]
    fix, broken = effects.fix_and_break(
        after[:, answer], after[:, distractor], before[:, answer], before[:, distractor]
    )
    assert fix + broken == pytest.approx((after - before)[:, column["logit_diff"]].mean(), abs=1e-12)


def test_log_probability_rises_by_lowering_another_token() -> None:
    """A11: Rome from 100 to 0 raises Paris' log probability by 100 - ln V and its difference to Berlin by nothing."""
    size, rome, paris, berlin = 50257, 1, 2, 3
    before = torch.zeros(1, size).double()
    before[0, rome] = 100.0
    after = torch.zeros(1, size).double()
    one = torch.ones(1, 1).double()
    options = Options(torch.tensor([[paris]]), one, torch.tensor([[berlin]]), one)
    found = dict(
        zip(
            metrics.METRICS,
            (metrics.panel(after, options, before) - metrics.panel(before, options, before))[0],
            strict=True,
        )
    )
    assert found["log_prob"] == pytest.approx(100 - np.log(size), abs=1e-9)
    assert found["logit_diff"] == 0


def test_panel_against_a_slow_recomputation() -> None:
    logits, reference = (torch.randn(2, 6, generator=torch.Generator().manual_seed(i)).double() for i in (0, 1))
    weights = torch.tensor([[0.5, 0.5], [1.0, 0.0]]).double()
    options = Options(torch.tensor([[0, 1], [2, 2]]), weights, torch.tensor([[3], [4]]), torch.ones(2, 1).double())
    found = metrics.panel(logits, options, reference).numpy()
    for row, (answers, wrong) in enumerate([((0, 1), 3), ((2,), 4)]):
        x, r = logits[row].numpy(), reference[row].numpy()
        p, q = np.exp(x) / np.exp(x).sum(), np.exp(r) / np.exp(r).sum()
        m = (p + q) / 2
        best = max(x[a] for a in answers)
        expected = [
            np.mean([x[a] for a in answers]) - x[wrong],
            np.mean([x[a] for a in answers]) - x.mean(),
            x[wrong] - x.mean(),
            np.log(sum(p[a] for a in answers)),
            sum(p[a] for a in answers),
            (x > best).sum(),
            float((x > best).sum() == 0),
            -(p * np.log(p)).sum(),
            (q * np.log(q / p)).sum(),
            (p * np.log(p / q)).sum(),
            ((p * np.log(p / m)).sum() + (q * np.log(q / m)).sum()) / 2,
        ]
        assert found[row] == pytest.approx(np.array(expected), abs=1e-12)


def test_both_averaging_orders_are_kept_and_tiny_denominators_counted() -> None:
    """A20."""
    clean, corrupted = np.array([1.0, 10.0, 4.0, 0.001]), np.zeros(4)
    patched = np.array([1.0, 0.0, 2.0, 50.0])
    found = effects.recovered_denoise(patched, clean, corrupted)
    assert found.of_means == pytest.approx(53 / 15.001)
    assert found.median == 0.5
    assert (found.low, found.high) == (0.25, 0.75)
    assert found.excluded == 1
    assert np.isnan(effects.recovered_denoise(patched, corrupted, corrupted).of_means)


def test_equivalence_is_claimed_only_inside_the_margin() -> None:
    """A23."""
    assert statistics.verdict(-0.01, 0.02, 0.05) == "no effect"
    assert statistics.verdict(-0.10, 0.02, 0.05) == "inconclusive"
    assert statistics.verdict(0.02, 0.10, 0.05) == "effect"
    assert statistics.verdict(-0.2, -0.1, 0.05) == "effect"


@pytest.mark.parametrize(("margin", "needed"), [(0.1, 76), (0.05, 290)])
def test_tost_accepts_a_perfect_circuit_from_the_known_sample_size_on(margin: float, needed: int) -> None:
    """A15; odd sizes have a tie that counts to both sides, so even ones are looked at."""
    same = lambda n: statistics.tost_sign_p(np.zeros(n), np.zeros(n), margin)  # noqa: E731
    accepted = [n for n in range(2, 400, 2) if same(n) < 0.05]
    assert min(accepted) == needed
    assert statistics.tost_sign_p(np.ones(400), np.zeros(400), margin) > 0.99


def test_sign_flips_are_exact_for_few_pairs_and_close_for_many() -> None:
    values = np.array([1.0, 2.0, 3.0, -0.5])
    means = [abs(np.mean(values * signs)) for signs in itertools.product((1, -1), repeat=4)]
    assert statistics.sign_flip_p(values) == pytest.approx(np.mean([m >= abs(values.mean()) - 1e-12 for m in means]))
    many = np.random.default_rng(0).normal(0.3, 1, (2, 40))
    for row, p in zip(many, statistics.sign_flip_p(many), strict=True):
        assert p == pytest.approx(stats.ttest_1samp(row, 0).pvalue, abs=0.03)
    assert statistics.sign_flip_p(np.ones(40)) == 1 / statistics.DRAWS


@pytest.mark.parametrize("n", [9, 40])
def test_statistics_over_pairs_agree_with_those_of_transformer_lens(n: int) -> None:
    """Shares pair by pair, sign flips (exact for few pairs) and bootstrap intervals of its PatchingResult."""
    rng = np.random.default_rng(n)
    corrupted, clean = rng.normal(-2, 0.5, n), rng.normal(3, 0.5, n)
    patched = corrupted + rng.normal([[0.0], [0.2], [1.5]], 1.0, (3, n))
    theirs = PatchingResult(
        torch.tensor(patched), [], pd.DataFrame(index=range(3)), ["metric"], False, torch.tensor(corrupted)
    )
    ours = effects.recovered_denoise(patched, clean, corrupted)
    shares = theirs.normalized(torch.tensor(clean)).numpy()
    assert ours.median == pytest.approx(np.median(shares, -1), abs=1e-12)
    assert ours.of_means == pytest.approx(theirs.effect().numpy().mean(-1) / (clean - corrupted).mean(), abs=1e-12)
    p = theirs.permutation_pvalue(n_permutations=4000).numpy()
    assert statistics.sign_flip_p(patched - corrupted) == pytest.approx(p, abs=1e-9 if n <= 12 else 0.03)
    low, high = (bound.numpy() for bound in theirs.bootstrap_ci(of_effect=True, n_resamples=4000))
    ours_low, ours_high = statistics.bootstrap_ratio(patched - corrupted, np.ones(n))
    assert ours_low == pytest.approx(low, abs=0.08)
    assert ours_high == pytest.approx(high, abs=0.08)


def test_holm_and_random_sets_and_rates() -> None:
    assert statistics.holm(np.array([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.06, 0.06])
    many = np.random.default_rng(0).random(40) ** 4
    assert statistics.holm(many) == pytest.approx(multipletests(many, method="holm")[1], abs=1e-15)
    assert len(statistics.holm(np.zeros(0))) == 0
    assert statistics.random_set_p(0.9, np.array([0.1, 0.95, 0.9])) == 0.75
    assert statistics.random_set_p(0.9, np.zeros(99)) == 0.01
    low, high = statistics.clopper_pearson(0, 10)
    assert (low, high) == (0, pytest.approx(1 - 0.025**0.1))


def test_shapley_values_add_up_and_split_a_gate_evenly() -> None:
    listed = [[0, 1], [1, 0]]
    values = np.array([[0.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    assert gates.shapley(values, listed) == pytest.approx([0.5, 0.5])
    assert gates.saturation(values) == pytest.approx([0, 1, 1])
    drawn = gates.orders(3, 5)
    assert all(sorted(order) == [0, 1, 2] for order in drawn)
    assert gates.super_additivity(1.22, [0.3, 0.3]) == pytest.approx(1.22 / 0.6)
