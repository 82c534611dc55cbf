"""Many sets of nodes at once: the same as one set at a time, for all forms of models, at roles, with neurons, in
text."""

import dataclasses

import numpy as np
import patch_models
import planted_circuits as planted
import pytest
import torch

from profiler.circuits import circuit_tables, edge_mask, node_sets, nodes, pair_runs
from profiler.circuits.circuit import Circuit, Member, Scope
from profiler.generality.distributions import build
from profiler.generality.faithfulness import means as ablated
from profiler.generality.faithfulness import prompts
from profiler.generality.faithfulness.runs import Runner, WindowPiece
from profiler.patching import values
from profiler.patching.batch import batch_of
from profiler.patching.setting import PairRuns, prepare
from profiler.prompts.pairs import Encoded
from profiler.text.windows import Batch

SCOPE = Scope("resample", "all", ("heads",))
MIXED = Circuit(
    "mixed",
    "m",
    (
        Member("L0H0", positions="second"),
        Member("L1H1"),
        Member("L1N3", positions="end"),
        Member("L2H1", positions="end"),
    ),
    SCOPE,
)


def setting_of(form: str, n: int = 7) -> PairRuns:
    pairs = patch_models.token_pairs(n)
    return prepare("discovery", patch_models.network(form), Encoded(pairs, ()))


@pytest.mark.parametrize("circuit", [None, MIXED], ids=["whole", "at roles"])
@pytest.mark.parametrize("mlps", [False, True])
@pytest.mark.parametrize("form", patch_models.FORMS)
def test_sets_together_are_sets_one_by_one(form: str, mlps: bool, circuit: Circuit | None) -> None:
    one = setting_of(form)
    evaluate = circuit_tables.evaluator(one, circuit, mlps=mlps)
    rng = np.random.default_rng(0)
    keep = rng.random((9, len(evaluate.nodes))) < 0.5
    keep[3], keep[4], keep[5] = keep[2], True, False  # two alike, the whole model, the empty circuit
    found = prompts.on_pairs(one, evaluate.nodes, keep, 5)
    assert found == pytest.approx(evaluate(keep)[:, :5], abs=1e-10)
    assert found[4] == pytest.approx(one.metric_clean[:5], abs=1e-10)
    assert np.ptp(found, axis=0).min() > 1e-6


@pytest.mark.parametrize("outside", ["zero", "mean"])
@pytest.mark.parametrize(
    "circuit", [dataclasses.replace(MIXED, members=MIXED.members[1:2]), MIXED], ids=["whole", "at"]
)
def test_the_check_puts_in_what_the_scope_says_as_patching_does(circuit: Circuit, outside: str) -> None:
    """Faithfulness and its null with zeros or means outside are those of `profiler patch`, not those of resampling."""
    plain = setting_of("neox_sequential", 24)
    circuit = dataclasses.replace(circuit, scope=dataclasses.replace(SCOPE, outside=outside))
    means = values.means(plain.net, plain.clean, plain.batch, plain.batch.pairs)
    patched = pair_runs.with_outside(plain, outside, lambda: means)
    one = build.with_outside(build.slim(plain), outside)
    base = planted.subject(planted.GENERALISES, draws=3)
    subject = dataclasses.replace(base, net=plain.net, circuit=circuit)
    evaluate = circuit_tables.evaluator(patched, circuit, mlps=subject.mlps)
    keep = evaluate.mask(nodes.members_nodes(circuit))
    expected = float(evaluate.faithfulness(keep[None])[0])
    again = circuit_tables.evaluator(one, circuit, mlps=subject.mlps)
    assert float(again.faithfulness(keep[None])[0]) == pytest.approx(expected, abs=1e-9)
    assert prompts.random_circuits(subject, one, keep).faithful[0] == pytest.approx(expected, abs=1e-9)
    resampled = circuit_tables.evaluator(plain, circuit, mlps=subject.mlps)
    assert abs(float(resampled.faithfulness(keep[None])[0]) - expected) > 1e-3
    assert prompts.choices(subject, "faithfulness", "x").ablation == outside


def test_the_prefix_that_both_prompts_share_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs differ from offset 18 on: what is normed for attention of several sets is never wider than what is left."""
    one = setting_of("neox_sequential", 6)
    labels = circuit_tables.evaluator(one, mlps=True).nodes
    seen = []
    plain = node_sets._Layer.attention
    monkeypatch.setattr(
        node_sets._Layer, "attention", lambda self, x, groups: seen.append(x.shape[1]) or plain(self, x, groups)
    )
    prompts.on_pairs(one, labels, np.random.default_rng(0).random((4, len(labels))) < 0.5)
    pairs = one.batch.pairs
    assert min(pair.first_difference for pair in pairs) > 5
    assert max(seen) <= max(len(pair.clean) for pair in pairs) - min(pair.first_difference for pair in pairs)


def test_attention_of_the_first_layer_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    one = setting_of("neox_sequential", 3)
    batch = batch_of(one.batch.pairs, dtype=torch.float64)
    labels = nodes.node_labels(one.net, mlps=False)
    asked = node_sets.NodeSetInputs(one.net, batch.clean, batch.ends, labels, lambda s, i: one.corrupted[s][i], {})
    rows = []
    plain = node_sets._Layer.attention
    monkeypatch.setattr(
        node_sets._Layer, "attention", lambda self, x, groups: rows.append(len(x)) or plain(self, x, groups)
    )
    keep = np.array([[i == j for j in range(len(labels))] for i in range(len(labels))])
    node_sets.logits(asked, keep)
    assert rows == [3, 3 * 3, 3 * 5]  # one set; two heads kept or none; and of the next layer the same


def test_attention_of_a_layer_is_not_run_for_sets_that_drop_all_of_its_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of nothing, the heads of the first layer, and everything, the second layer's attention is run for the last."""
    one = setting_of("neox_sequential", 3)
    batch = batch_of(one.batch.pairs, dtype=torch.float64)
    labels = nodes.node_labels(one.net, mlps=False)
    asked = node_sets.NodeSetInputs(one.net, batch.clean, batch.ends, labels, lambda s, i: one.corrupted[s][i], {})
    rows, steps = [], type(one.net.begin(batch.clean))
    plain = steps.heads
    monkeypatch.setattr(
        steps, "heads", lambda self, i, x, *a, **k: rows.append((i, len(x))) or plain(self, i, x, *a, **k)
    )
    first = np.array([label.startswith("L0") for label in labels])
    node_sets.logits(asked, np.stack([np.zeros_like(first), first, np.ones_like(first)]))
    assert rows == [(layer, 3) for layer in range(one.net.n_layers)]
    rows.clear()
    node_sets.logits(asked, np.stack([np.zeros_like(first), first]))
    assert rows == [(0, 3)]


def text_of(form: str) -> tuple[Batch, ablated.PositionMeans, list[str]]:
    """Random tokens as a batch, its first offset special, and means over them."""
    net = patch_models.network(form)
    rng = torch.Generator().manual_seed(3)
    tokens = torch.randint(1, 60, (5, 20), generator=rng)
    valid = torch.arange(20)[None] < torch.tensor([20, 20, 18, 11, 5])[:, None]
    special = torch.zeros_like(tokens)
    special[:, 0] = 1
    batch = Batch((), tokens, valid, tokens.roll(-1, 1), special, tokens, tokens, tokens, tokens)
    return batch, ablated.means_of(net, [batch]), nodes.node_labels(net, mlps=False)


@pytest.mark.parametrize("form", patch_models.FORMS)
def test_text_with_means_is_that_of_the_plain_edit(form: str) -> None:
    net = patch_models.network(form)
    batch, means, labels = text_of(form)
    runner = Runner(net, labels, means)
    keep = np.random.default_rng(1).random((4, len(labels))) < 0.5
    streams = node_sets.streams(runner.asked(batch.tokens), keep)
    for one, stream in zip(keep, streams, strict=True):
        expected = ablated.logits(net, batch.tokens, labels, one, means)
        found = net.finish(stream)
        torch.testing.assert_close(found[batch.valid], expected[batch.valid], rtol=0, atol=1e-10)


@pytest.mark.parametrize("form", patch_models.FORMS)
def test_the_empty_circuit_is_a_matter_of_the_token(form: str) -> None:
    """Its answer to a token, computed once, is that of the plain edit wherever the token stands."""
    net = patch_models.network(form)
    batch, means, labels = text_of(form)
    chosen = batch.ordinary
    piece = WindowPiece(batch.tokens, chosen, batch.targets[chosen], np.arange(int(chosen.sum())))
    runner = Runner(net, labels, means)
    found, kind = runner.empty(piece)
    expected = ablated.logits(net, batch.tokens, labels, np.zeros(len(labels), dtype=bool), means)[chosen]
    torch.testing.assert_close(found[kind], expected, rtol=0, atol=1e-10)
    assert len(found) < len(kind) or net.places_matter
    before = len(runner.known)
    runner.empty(piece)
    assert len(runner.known) == before


def test_sets_are_those_of_the_evaluators_pass() -> None:
    """The logits themselves, all of the vocabulary, against `with_nodes`."""
    one = setting_of("neox_sequential", 4)
    labels = nodes.node_labels(one.net, mlps=True)
    keep = np.random.default_rng(2).random((5, len(labels))) < 0.5
    batch = one.batch
    asked = node_sets.NodeSetInputs(
        one.net, batch.clean, batch.ends, labels, lambda s, i: one.corrupted[s][i], {}, batch.first_difference
    )
    expected = edge_mask.with_nodes(one.net, batch.clean, batch.ends, torch.from_numpy(~keep), labels, one.corrupted)
    torch.testing.assert_close(node_sets.logits(asked, keep), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "circuit", [dataclasses.replace(MIXED, members=MIXED.members[1:2]), MIXED], ids=["whole", "at roles"]
)
def test_the_circuit_beside_random_ones_has_its_own_shares(circuit: Circuit) -> None:
    """First in the null, on the same pairs: both shares are those of the definition, where the empty circuit is not at
    0."""
    one = setting_of("neox_sequential", 9)
    base = planted.subject(planted.GENERALISES, draws=3)
    subject = dataclasses.replace(base, net=one.net, circuit=circuit)
    evaluate = circuit_tables.evaluator(one, circuit, mlps=subject.mlps)
    keep = evaluate.mask(nodes.members_nodes(circuit))
    found = prompts.random_circuits(subject, one, keep)
    model, empty = evaluate.model.mean(), evaluate.empty.mean()
    drawn = prompts.matched(evaluate.nodes, keep, 3, subject.settings.seed)
    for row, kept in enumerate([keep, *drawn]):
        alone, without = evaluate(kept[None]).mean(), evaluate(~kept[None]).mean()
        assert found.faithful[row] == pytest.approx((alone - empty) / (model - empty), abs=1e-9)
        assert found.gone[row] == pytest.approx((model - without) / (model - empty), abs=1e-9)
    assert len(found.faithful) == len(found.gone) == 1 + len(drawn) and abs(empty) > 1e-3
