"""Circuits at positions, neurons as members, and other values outside: against patches put in one by one."""

import dataclasses

import numpy as np
import patch_models
import polars as pl
import pytest
import torch

from profiler.circuits import circuit_tables, edge_mask, experiment, nodes, pair_runs
from profiler.circuits.circuit import Circuit, Member, Scope, check_circuit
from profiler.circuits.scoring import evaluate, null, scores
from profiler.errors import CircuitError
from profiler.model.steps.network import forward
from profiler.pages import build
from profiler.patching import setting, sweep, values
from profiler.patching.metrics import logit_diff
from profiler.patching.setting import PatchSettings
from profiler.patching.sites import parse_target
from profiler.prompts.pairs import jsonl
from profiler.prompts.pairs.encode import Encoded

SCOPE = Scope("toy", "5", ("swap",))
MIXED = Circuit(
    "mixed",
    "m",
    (
        Member("L0H0", positions="second"),
        Member("L0H0", positions="end"),
        Member("L1H1", positions="second"),
        Member("L1N3"),
        Member("L2H0"),
        Member("L0_mlp_out", positions="end"),
        Member("L2N5", positions="second"),
    ),
    SCOPE,
)


def _setting(form: str = "neox_sequential", outside: str = "resample") -> setting.PairRuns:
    net = patch_models.network(form)
    one = setting.prepare("discovery", net, Encoded(patch_models.token_pairs(), ()))
    references = patch_models.token_pairs(30, seed=9)
    return pair_runs.with_outside(one, outside, lambda: values.means(net, one.clean, one.batch, references))


def _by_hand(one: setting.PairRuns, circuit: Circuit, mlps: bool) -> torch.Tensor:
    """Logit difference with every head, MLP and neuron that is not live at an offset written over there, one at a
    time."""
    net, batch = one.net, one.batch
    live: dict[str, torch.Tensor] = {}
    for member in circuit.members:
        live[member.component] = live.get(member.component, torch.zeros_like(batch.valid)) | batch.mask(
            member.positions
        )
    other = one.corrupted if one.outside is None else one.outside
    apart = {parse_target(label).layer for label in circuit.components if "N" in label}

    def edit(site, layer, value, offsets):
        value = value.clone()
        for unit in range(net.n_heads if site == "head" else 0):
            gone = ~live.get(f"L{layer}H{unit}", torch.zeros_like(batch.valid))
            value[:, :, unit] = torch.where(gone[..., None], other[site][layer][:, :, unit], value[:, :, unit])
        mlp = f"L{layer}_mlp_out"
        whole = live.get(mlp, torch.zeros_like(batch.valid)) if mlps or mlp in live else batch.valid
        if site == "mlp_out" and layer not in apart:
            value = torch.where(whole[..., None], value, other[site][layer])
        for unit in range(net.d_mlp if site == "neuron" and layer in apart else 0):
            kept = live.get(f"L{layer}N{unit}", whole) if f"L{layer}N{unit}" in circuit.components else whole
            value[:, :, unit] = torch.where(kept, value[:, :, unit], other[site][layer][:, :, unit])
        return value

    with torch.inference_mode():
        logits = forward(net, batch.clean, edit)
    return logit_diff(logits[torch.arange(len(batch)), batch.ends], batch.options)


@pytest.mark.parametrize("mlps", [False, True])
@pytest.mark.parametrize("form", ["neox_sequential", "neox"])
@pytest.mark.parametrize("outside", ["resample", "mean", "zero"])
def test_a_circuit_at_positions_with_neurons_is_what_single_patches_make_it(
    form: str, outside: str, mlps: bool
) -> None:
    one = _setting(form, outside)
    measure = circuit_tables.evaluator(one, MIXED, mlps=mlps)
    found = measure.of(nodes.members_nodes(MIXED))
    assert found == pytest.approx(_by_hand(one, MIXED, mlps).numpy(), abs=1e-12)
    assert measure.model == pytest.approx(one.metric_clean, abs=1e-12)
    heads = [label for label in measure.nodes if "H" in label]
    assert len(heads) == one.net.n_layers * one.net.n_heads * 3
    bare = dataclasses.replace(MIXED, members=tuple(Member(m.component) for m in MIXED.members[1:]))
    other = circuit_tables.evaluator(one, bare, mlps=mlps)
    assert not any("@" in node for node in other.nodes)
    assert other.of(nodes.members_nodes(bare)) == pytest.approx(_by_hand(one, bare, mlps).numpy(), abs=1e-12)
    assert np.abs(other.of(nodes.members_nodes(bare)) - found).max() > 1e-6


@pytest.mark.parametrize("outside", ["resample", "mean"])
def test_pairs_in_groups_are_pairs_together(outside: str) -> None:
    """Groups of pairs that begin to differ late are run from there on, with all values of the plain pass."""
    net = patch_models.network("neox_sequential")
    one = setting.prepare("discovery", net, Encoded(patch_models.token_pairs(3 * evaluate.TOGETHER + 1), ()))
    one = pair_runs.with_outside(one, outside, lambda: values.means(net, one.clean, one.batch, one.batch.pairs))
    asked = circuit_tables.evaluator(one, MIXED, mlps=False)
    assert len(asked.parts) == 3
    assert sorted(row for part in asked.parts for row in part.rows) == list(range(len(one.batch)))
    late = [pair.first_difference for pair in one.batch.pairs]
    for part in asked.parts:
        expected = min(late[row] for row in part.rows) if outside == "resample" else 0
        assert part.asked.first == expected
    assert len({part.asked.first for part in asked.parts}) == (3 if outside == "resample" else 1)
    keep = np.random.default_rng(0).random((6, len(asked.nodes))) < 0.5
    other = one.corrupted if outside == "resample" else one.outside
    logits = edge_mask.with_nodes(
        net, one.batch.clean, one.batch.ends, torch.from_numpy(~keep), asked.nodes, other, asked.masks
    )
    plain = logit_diff(logits.flatten(0, 1), one.batch.options.rows(6)).numpy().reshape(6, -1)
    assert asked(keep) == pytest.approx(plain, abs=1e-11)


def test_positions_that_say_everything_are_the_whole_component() -> None:
    one = _setting()
    parts = [Member("L0H0", positions=role) for role in ("first", "second", "end")]
    circuit = Circuit("parts", "m", (*parts, Member("L2H1")), SCOPE)
    measure = circuit_tables.evaluator(one, circuit, mlps=False)
    kept = [*nodes.members_nodes(circuit), "L0H0@elsewhere"]
    plain = circuit_tables.evaluator(one, mlps=False)
    assert measure.of(kept) == pytest.approx(plain.of(["L0H0", "L2H1"]), abs=1e-12)
    assert measure.of(["L0H0", "L2H1"]) == pytest.approx(plain.of(["L0H0", "L2H1"]), abs=1e-12)
    assert list(measure.mask(["L0H0@end"])) == [node == "L0H0@end" for node in measure.nodes]


def test_effects_of_nodes_at_positions_are_exact_patches() -> None:
    one = _setting()
    measure = circuit_tables.evaluator(one, MIXED, mlps=False)
    found = circuit_tables.effects_of(one, [], measure.nodes)
    part = one.batch.valid & ~one.batch.roles["second"] & ~one.batch.roles["end"]
    batch = dataclasses.replace(one.batch, roles=one.batch.roles | {"rest": part})
    for node, at in (
        ("L0H0@second", "second"),
        ("L1H0@elsewhere", "rest"),
        ("L2N5@end", "end"),
        ("L0_mlp_out@end", "end"),
    ):
        target = parse_target(node.split("@")[0], at)
        patched = sweep.intervene(one.net, batch.clean, batch.ends, batch, [target], sweep.resample(one.corrupted))
        row = measure.nodes.index(node)
        assert found.lost[row] == pytest.approx(
            one.metric_clean - logit_diff(patched, batch.options).numpy(), abs=1e-10
        )
        assert np.abs(found.lost[row]).max() > 0


def test_random_circuits_sit_at_the_same_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    measure = circuit_tables.evaluator(_setting(), MIXED, mlps=False)
    keep = measure.mask(nodes.members_nodes(MIXED))
    drawn, plain = [], evaluate.Evaluator.faithfulness
    monkeypatch.setattr(evaluate.Evaluator, "faithfulness", lambda self, sets: drawn.append(sets) or plain(self, sets))
    null.random_circuits(measure, keep, draws=7, seed=0)
    shapes = {node: node.partition("@")[2] for node in measure.nodes}
    assert (drawn[0][0] == keep).all()  # the circuit itself, then others
    for row in drawn[0][1:]:
        chosen = [node for node, kept in zip(measure.nodes, row, strict=True) if kept]
        assert sorted(shapes[n] for n in chosen if "H" in n) == sorted(
            shapes[n] for n in measure.labels(keep) if "H" in n
        )
        assert {n for n in chosen if "N" in n} == {n for n in measure.labels(keep) if "N" in n}
    assert all((row != keep).any() for row in drawn[0][1:])


def test_a_role_that_no_pair_has_and_unknown_values_are_named() -> None:
    one = _setting()
    wrong = Circuit("c", "m", (Member("L0H0"), Member("L1H1", positions="S2")), SCOPE)
    with pytest.raises(CircuitError, match="L1H1 is listed at 'S2', a role that no pair has"):
        nodes.check_roles(wrong, one.batch)
    with pytest.raises(CircuitError, match=r"scope\.outside is 'nose'"):
        check_circuit(
            dataclasses.replace(MIXED, scope=dataclasses.replace(SCOPE, outside="nose")), patch_models.network("gpt2")
        )


@pytest.mark.slow
def test_a_circuit_with_positions_is_judged_and_stored(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole experiment: members keep their positions in the tables, scores name the values outside."""
    monkeypatch.setattr(scores, "explainable", lambda _: True)  # a random model need not do the task
    model = patch_models.loaded("neox_sequential")
    jsonl.write(tmp_path / "toy.jsonl", patch_models.pairs(8, seed=3))
    settings = PatchSettings(str(tmp_path / "toy.jsonl"), neurons=2, top=2, steps=2, draws=5, by_role=False)
    mean = dataclasses.replace(MIXED, scope=dataclasses.replace(SCOPE, outside="mean", intact="embedding, biases"))
    outcome = experiment.patch(model, settings, tmp_path / "r.duckdb", lambda _: None, mean)
    members = outcome.frames["circuit_members"]
    assert members.select("component", "positions").rows() == [(m.component, m.positions) for m in MIXED.members]
    assert members["removal_cost"].null_count() == 0
    assert members["p_adjusted"].null_count() == 0
    rows = outcome.frames["circuit_scores"].filter(pl.col("granularity") != "edge", pair_set="discovery")
    assert set(rows["value"]) == {"mean"}  # fractions of edges stand beside, always of resampled values
    assert set(rows["positions"]) == {"each member's"}
    assert set(rows["component_kind"]) == {"head, neuron, mlp_out"}
    found = dict(rows.select("metric", "score").rows())
    one = _setting_of(model, settings, mean)
    assert found["metric_circuit"] == pytest.approx(_by_hand(one, MIXED, mlps=True).mean().item(), abs=1e-9)
    assert found["nodes"] == (6 + 3 + 2) * 3
    forced = experiment.patch(
        model, dataclasses.replace(settings, outside="zero"), tmp_path / "r.duckdb", lambda _: None, mean
    )
    assert forced.circuit.scope.outside == "zero"
    page = build.build(tmp_path / "r.duckdb", "circuit")
    assert "L0H0 at end" in page
    assert "L1N3" in page
    assert "only at second" in page


def _setting_of(model, settings: PatchSettings, circuit: Circuit) -> setting.PairRuns:
    """The discovery set of the experiment with its means, again."""
    encoded = setting.encoded(model, setting.draw(model, settings, "train", 0))
    one = setting.prepare("discovery", patch_models.network("neox_sequential"), encoded)
    return pair_runs.with_outside(one, "mean", lambda: values.means(one.net, one.clean, one.batch, encoded.pairs))
