"""Circuits by edges: EAP-IG against differences, sets of edges, choosing, MIB's fractions, and a whole experiment."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import patch_models
import polars as pl
import pytest
import torch

import profiler
from profiler.circuits import edge_mask, edges
from profiler.circuits.by_edges import choose, edge_sets, edge_tables, fractions
from profiler.circuits.circuit import Circuit, Scope, check_circuit, members_of
from profiler.circuits.scoring import curve
from profiler.errors import CircuitError
from profiler.patching.setting import PairRuns, prepare
from profiler.prompts.pairs import Encoded, jsonl


def _gate(name: str) -> PairRuns:
    pairs = Encoded(patch_models.gate_batch(24).pairs, ())
    return prepare("discovery", patch_models.GATES[name](), pairs)


def _toy(form: str = "gpt2", n: int = 5) -> PairRuns:
    return prepare("discovery", patch_models.network(form), Encoded(patch_models.token_pairs(n), ()))


def _scores(runs: PairRuns, along=edges.AT_BASE) -> torch.Tensor:
    return edges.edge_scores(runs.net.plain, runs.clean, runs.corrupted, runs.batch.clean, runs.batch, along)


def _of(runs: PairRuns, scores: torch.Tensor, writer: str, reader: str) -> float:
    graph = edge_mask.graph_of(runs.net.plain)
    return scores[graph.writers.index(writer), graph.readers.index(reader)].item()


@pytest.mark.parametrize("form", patch_models.FORMS)
def test_integrated_scores_by_differences_of_the_metric(form: str) -> None:
    """A slow oracle: the derivative along (other - live) at each interpolated input, by central differences."""
    runs = _toy(form)
    net, graph, along = runs.net.plain, edge_mask.graph_of(runs.net.plain), [0.25, 0.75]
    scores = _scores(runs, along)
    change = edge_mask.all_writes(net, runs.corrupted) - edge_mask.all_writes(net, runs.clean)
    first, last = runs.clean["embed"][0].clone(), runs.corrupted["embed"][0].clone()
    rng, step = np.random.default_rng(0), 1e-5
    for number in rng.permutation(int(graph.exists.sum()))[:6]:
        writer, reader = graph.exists.nonzero()[number].tolist()
        slope = 0.0
        for share in along:
            values = []
            for sign in (1, -1):
                state = edges.Listener(len(graph.readers), first)
                state.leaves = torch.zeros_like(state.leaves)
                state.leaves[reader] = sign * step * change[writer]
                with torch.inference_mode():
                    start = torch.lerp(first, last, share)
                    logits = edge_mask.run(net, runs.batch.clean, runs.batch.ends, state, start)
                values.append(runs.batch.options.values(logits).mean())
            slope += (values[0] - values[1]) / (2 * step) / len(along)
        assert scores[writer, reader].item() == pytest.approx(slope, abs=1e-7)


def test_a_step_at_the_clean_run_is_eap_and_parts_change_nothing(monkeypatch) -> None:
    runs = _toy()
    one = _scores(runs)
    monkeypatch.setattr(edge_mask, "AT_ONCE", 1)
    assert (one - _scores(runs, [0.0])).abs().max() < 1e-12
    assert edges.midpoints(2) == [0.25, 0.75]


def test_or_is_seen_by_integration_and_not_by_one_gradient() -> None:
    """T22: at the clean run of an OR every gradient is zero; along the path it is not."""
    runs = _gate("or")
    assert _of(runs, _scores(runs), "L0H0", "L0_mlp_out") == 0
    found = _scores(runs, edges.midpoints(8))
    assert _of(runs, found, "L0H0", "L0_mlp_out") == _of(runs, found, "L0H1", "L0_mlp_out") < -0.2
    single = _gate("single")
    assert _of(single, _scores(single, edges.midpoints(3)), "L0H0", "logits") == -1.0


def test_sets_of_edges_are_edge_masks() -> None:
    """A5: all edges are the model, none the other run; any set is a pass of the mask."""
    runs = _toy("llama")
    evaluate = edge_sets.evaluator(runs)
    n = len(evaluate.nodes)
    keep = np.random.default_rng(0).random((3, n)) < 0.6
    keep[0], keep[1] = True, False
    values = evaluate(keep)
    assert values[0] == pytest.approx(runs.metric_clean, abs=1e-12)
    assert values[1] == pytest.approx(runs.metric_corrupted, abs=1e-12)
    graph = edge_mask.graph_of(runs.net.plain)
    mask = graph.mask(edge for edge, live in zip(evaluate.edges, keep[2], strict=True) if live)
    with torch.inference_mode():
        logits = edge_mask.masked(runs.net.plain, runs.batch.clean, runs.batch.ends, mask, evaluate.writes)
    assert values[2] == pytest.approx(runs.batch.options.values(logits), abs=1e-12)
    some = edge_sets.first_pairs(runs, 2)
    assert some(keep[2:])[0] == pytest.approx(values[2][:2], abs=1e-12)
    slim = replace(runs, corrupted=replace(runs.corrupted, sites=runs.corrupted.sites | {"embed": []}))
    assert edge_sets.evaluator(slim)(keep[2:])[0] == pytest.approx(values[2], abs=1e-12)
    node = evaluate.mask(["L0H1"])
    assert {edge.writer for edge, live in zip(evaluate.edges, node, strict=True) if live} >= {"L0H1", "embed"}


def test_edges_of_gates_are_chosen_and_judged() -> None:
    """The known edges of hand-built models, and nothing beside them."""
    known = {
        "single": {"embed->L0H0.v", "L0H0->logits"},
        "sum": {"embed->L0H0.v", "embed->L0H1.v", "L0H0->logits", "L0H1->logits"},
        "and": {"embed->L0H0.v", "embed->L0H1.v", "L0H0->L0_mlp_out", "L0H1->L0_mlp_out", "L0_mlp_out->logits"},
    }
    for gate, wanted in known.items():
        runs = _gate(gate)
        estimated = edge_tables.estimates_of(runs, 8)
        blank = Circuit("c", "m", (), Scope("gate", "24", ("off",), granularity="edge"))
        circuit = edge_tables.chosen(blank, runs, estimated)
        assert {edge_sets.label(edge) for edge in circuit.edges} == wanted
        check_circuit(circuit, runs.net.plain)
        judged = edge_tables.judge(runs, circuit, 19, 0, full=True)
        scores = dict(judged.scores.select("metric", "score").rows())
        assert (scores["faithfulness"], set(judged.scores["granularity"])) == (1.0, {"edge"})
        kept, frame, more = edge_tables.edge_rows(runs, circuit, estimated, mlps=True)
        assert (kept, more) == (circuit, [])
        assert frame.height == len(wanted)
    with pytest.raises(CircuitError, match="offers no edges"):
        edge_tables.chosen(blank, runs, None)


def test_connected_edges_alone_carry_anything() -> None:
    """What no path joins to input and logits changes nothing with resampled values."""
    runs = _toy("gpt2")
    evaluate = edge_sets.evaluator(runs)
    rng = np.random.default_rng(1)
    for share in (0.02, 0.1, 0.3):
        keep = rng.random(len(evaluate.nodes)) < share
        joined = choose.connected(evaluate.edges, keep)
        assert (joined <= keep).all()
        assert evaluate(joined[None])[0] == pytest.approx(evaluate(keep[None])[0], abs=1e-12)
    assert choose.smallest(lambda size: size >= 37, 100) == 37
    assert choose.smallest(lambda _: False, 100) == 100


def test_random_sets_of_edges_are_others_of_the_same_size() -> None:
    keep = np.array([True, False, False, False])
    drawn = edge_sets.other_edges(keep, 50)
    assert len(drawn) == 3 and (drawn.sum(1) == 1).all() and not drawn[:, 0].any()


def test_fractions_and_areas_are_those_of_mib() -> None:
    """A slow recomputation of CPR and CMD as the leaderboard's program makes them."""
    runs = _gate("sum")
    evaluate, estimated = edge_sets.evaluator(runs), edge_tables.estimates_of(runs, 4)
    assert estimated is not None
    table = fractions.rows(evaluate, estimated.importance)
    worth = {label: -_of(runs, estimated.change, *label.split("->")) for label in evaluate.nodes}
    found = fractions.areas(table)
    for order, name in (("signed", "edge_cpr"), ("absolute", "edge_cmd")):
        key = (lambda label: -worth[label]) if order == "signed" else (lambda label: -abs(worth[label]))
        listed = sorted(evaluate.nodes, key=key)
        values = []
        for fraction in fractions.FRACTIONS:
            live = set(listed[: int(fraction * len(listed))])
            keep = np.array([[label in live for label in evaluate.nodes]])
            values.append(
                (evaluate(keep).mean() - runs.metric_corrupted.mean())
                / (runs.metric_clean.mean() - runs.metric_corrupted.mean())
            )
        heights = values if order == "signed" else [abs(1 - value) for value in values]
        area = 0.0
        for i in range(len(heights) - 1):
            area += (fractions.FRACTIONS[i + 1] - fractions.FRACTIONS[i]) * (heights[i] + heights[i + 1]) / 2
        assert found[name] == pytest.approx(area, abs=1e-12)
    assert found["edge_cpr"] + found["edge_cmd"] >= 0.999 - 1e-12
    full = table.filter(fraction=1.0)
    assert full["faithfulness"].to_list() == pytest.approx([1.0] * 4)
    assert dict(full.select("level", "items").unique().rows()) == {"edge": 13, "node": 3}
    assert curve.distance(np.array([0.5, 1.0]), np.array([0.0, 2.0])) == 0.25  # where the leaderboard has .5


def test_a_circuit_by_edges_needs_edges() -> None:
    net = patch_models.network("gpt2").plain
    for scope in (Scope("t", "p", (), granularity="edge"), Scope("t", "p", (), granularity="path")):
        with pytest.raises(CircuitError, match=r"scope\.granularity"):
            check_circuit(Circuit("c", "m", members_of(["L0H0"]), scope), net)


@pytest.mark.slow
def test_a_whole_experiment_by_edges(tmp_path: Path) -> None:
    """Patched by edges, judged on every set, asked for paths, and read again by its queries."""
    file = tmp_path / "toy.jsonl"
    jsonl.write(file, patch_models.pairs(48, seed=3))
    model = patch_models.loaded("gpt2")
    run, small = tmp_path / "r.duckdb", {"neurons": 2, "top": 2, "draws": 19, "by_role": False, "pairs": 24}
    done = profiler.patch(run, file, model=model, edges=True, metric="kl", **small)
    assert done.circuit.by_edges and done.circuit.edges
    assert set(done.scores.filter(metric="faithfulness")["granularity"]) == {"edge"}
    value = done.scores.filter(metric="faithfulness", pair_set="discovery")["score"][0]
    assert abs(1 - value) <= choose.TOLERANCE
    assert "edges" in str(done) and "minus KL" in str(done)
    found = profiler.paths(run, file, ["L0H1:L1H0", "L0H0:logits"], model=model, pairs=24, metric="kl")
    with profiler.open(run) as opened:
        asked = opened.query("paths")
        assert (
            asked.filter(~pl.col("is_control"))["share"].to_list()
            == found.filter(~pl.col("is_control")).sort("path")["share"].to_list()
        )
        assert opened.query("circuit_fractions").height == 4 * len(fractions.FRACTIONS)
        assert opened.query("experiments")["metric"].to_list() == ["kl"]
        text = opened.sql("SELECT yaml FROM circuits")["yaml"][0]
        assert "granularity: edge" in text
