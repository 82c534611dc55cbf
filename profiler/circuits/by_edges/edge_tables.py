"""Tables by edges: the circuit's edges cut one by one, a circuit of edges chosen and judged, MIB's fractions.

Edges need every reader's own input, so they are given where the weights are known one by one
(`profiler.model.steps.plain`); elsewhere there are none, and a circuit by edges is refused. They are at all positions;
a neuron's are those of its MLP. Cost: `steps` forward and backward passes, then one pass per edge that is cut and per
set of edges.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from profiler.circuits import circuit_tables, edges
from profiler.circuits.by_edges import choose, edge_sets, fractions
from profiler.circuits.circuit import INPUT, OUTPUT, Circuit, Edge, Member
from profiler.circuits.circuit_tables import Judged, faithfulness_rows, score_row
from profiler.circuits.edge_mask import Graph, all_writes, graph_of, masked
from profiler.circuits.scoring import null, scores
from profiler.errors import CircuitError, ModelError
from profiler.model.steps.plain import PlainNetwork
from profiler.patching.setting import PairRuns
from profiler.patching.sites import parse_target

LIMIT, LEAST_SHARE = 60, 0.01
"""Edges that are cut exactly, and the share of the effect from which one matters."""
MOST_DRAWS = 39
"""Random sets of edges: each is a whole pass of the pairs, and hardly any does anything."""
SCHEMA = {
    "writer": pl.String,
    "reader": pl.String,
    "estimated": pl.Float64,
    "lost": pl.Float64,
    "matters": pl.Boolean,
}


@dataclass(frozen=True, eq=False)
class EdgeEstimates:
    """EAP-IG of every edge on the discovery pairs: estimated change of the metric when it is cut, mean over pairs."""

    net: PlainNetwork
    graph: Graph
    change: Float[Tensor, "writer reader"]

    @property
    def importance(self) -> Float[np.ndarray, "writer reader"]:
        """What each edge is worth: minus the change."""
        return -self.change.numpy(force=True)


def estimates_of(setting: PairRuns, steps: int) -> EdgeEstimates | None:
    """EAP-IG of every edge; None where the network offers no edges."""
    try:
        net = setting.net.plain
    except ModelError:
        return None
    along = edges.midpoints(steps)
    change = edges.edge_scores(net, setting.clean, setting.corrupted, setting.batch.clean, setting.batch, along)
    return EdgeEstimates(net, graph_of(net), change)


def chosen(circuit: Circuit, setting: PairRuns, estimated: EdgeEstimates | None) -> Circuit:
    """The circuit with edges that are chosen on these pairs, and the nodes that they join as its members.

    Raises:
        CircuitError: the network offers no edges.
    """
    if estimated is None:
        raise CircuitError(
            f"{circuit.model} offers no edges, since the weights of its heads are not known one by one: leave out"
            " --edges to choose a circuit by nodes"
        )
    evaluate = edge_sets.evaluator(setting)
    ends = evaluate.ends
    keep = choose.choose(evaluate, estimated.importance[ends[:, 0], ends[:, 1]])
    live = [edge for edge, is_live in zip(evaluate.edges, keep, strict=True) if is_live]
    joined = {edge.writer for edge in live} | {edge.reader.split(".")[0] for edge in live}
    members = tuple(Member(label) for label in estimated.graph.writers if label in joined - {INPUT})
    if not members:  # the input alone feeds the logits
        members = (Member(estimated.graph.writers[1]),)
    return replace(circuit, members=members, edges=tuple(live))


def edge_rows(
    setting: PairRuns, circuit: Circuit, estimated: EdgeEstimates | None, *, mlps: bool
) -> tuple[Circuit, pl.DataFrame, list[dict[str, Any]]]:
    """Edges between members, the largest by EAP-IG cut exactly; the circuit with those that matter; scores.

    A circuit by edges has its own edges, of which LIMIT are cut.
    """
    if estimated is None:
        return circuit, pl.DataFrame(schema=SCHEMA), []
    net, graph, whole = estimated.net, estimated.graph, float(setting.whole.mean())
    among = graph.mask(circuit.edges) if circuit.by_edges else _between_members(graph, circuit, mlps=mlps)
    confirmed = edges.confirm(
        net, setting.batch, setting.clean, setting.corrupted, among, LIMIT, estimated.change.to(net.embed.device)
    )
    shares = -edges.sizes(confirmed, whole)
    important = [cut.edge for cut, size in zip(confirmed, shares, strict=True) if abs(size) >= LEAST_SHARE]
    rows = [
        {
            "writer": cut.edge.writer,
            "reader": cut.edge.reader,
            "estimated": -cut.estimated / whole,
            "lost": share,
            "matters": cut.edge in important,
        }
        for cut, share in zip(confirmed, shares, strict=True)
    ]
    if circuit.by_edges:
        rows += _uncut(graph, estimated, circuit.edges, {cut.edge for cut in confirmed}, whole)
        return circuit, pl.DataFrame(rows, schema=SCHEMA), []
    values = [_faithfulness(setting, net, keep) for keep in (graph.mask(important), among)]
    scored = [
        score_row("edge_faithfulness", values[0], n=len(important)),
        score_row("edge_faithfulness_all", values[1], n=int(among.sum())),
    ]
    ends = {*circuit.components, INPUT, OUTPUT}
    inside = tuple(edge for edge in important if {edge.writer, edge.reader.split(".")[0]} <= ends)
    return replace(circuit, edges=inside), pl.DataFrame(rows, schema=SCHEMA), scored


def _between_members(graph: Graph, circuit: Circuit, *, mlps: bool) -> Bool[Tensor, "writer reader"]:
    targets = map(parse_target, circuit.components)
    ends = [f"L{target.layer}_mlp_out" if target.site == "neuron" else target.label for target in targets]
    return edges.candidates(graph, ends, mlps_kept=not mlps)


def _uncut(
    graph: Graph, estimated: EdgeEstimates, of_circuit: Iterable[Edge], cut: set[Edge], whole: float
) -> list[dict[str, Any]]:
    """Rows of the circuit's edges that were not cut alone."""
    importance = estimated.importance
    left = [edge for edge in of_circuit if edge not in cut]
    worth = [importance[graph.writers.index(edge.writer), graph.readers.index(edge.reader)] for edge in left]
    return [
        {"writer": edge.writer, "reader": edge.reader, "estimated": float(value) / whole, "lost": None, "matters": None}
        for edge, value in sorted(zip(left, worth, strict=True), key=lambda row: -abs(row[1]))
    ]


def _faithfulness(setting: PairRuns, net: PlainNetwork, keep: Bool[Tensor, "writer reader"]) -> float:
    """Normalised faithfulness of a set of edges, the others carrying resampled values."""
    batch = setting.batch
    with torch.inference_mode():
        logits = masked(net, batch.clean, batch.ends, keep, all_writes(net, setting.corrupted))
    return float((batch.options.values(logits) - setting.metric_corrupted).mean() / setting.whole.mean())


def judge(setting: PairRuns, circuit: Circuit, draws: int, seed: int, *, full: bool) -> Judged:
    """Faithfulness of a circuit by edges on a set of pairs, and of random sets of as many edges where it is `full`.

    Raises:
        ModelError: the network offers no edges.
    """
    evaluate = edge_sets.evaluator(setting)
    keep = edge_sets.mask_of(evaluate, circuit)
    rows, six = faithfulness_rows(evaluate, keep), circuit_tables.six_values(setting, circuit)
    random = pl.DataFrame()
    if full and scores.explainable(evaluate):
        drawn = null.beside(evaluate, keep, edge_sets.other_edges(keep, min(draws, MOST_DRAWS), seed))
        rows += circuit_tables.random_rows(drawn)
        random = circuit_tables.random_frame(drawn).with_columns(**six)
    return Judged(pl.DataFrame(rows, infer_schema_length=None).with_columns(**six), random, pl.DataFrame())


def fraction_rows(
    discovery: PairRuns, other_sets: Sequence[PairRuns], estimated: EdgeEstimates | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Table `circuit_fractions`, and its areas as rows of `circuit_scores`; on fresh pairs where there are some.

    Empty where the network offers no edges, or shows no effect on these pairs.
    """
    if estimated is None:
        return pl.DataFrame(), pl.DataFrame()
    setting = next((runs for runs in other_sets if runs.name == "test"), discovery)
    evaluate = edge_sets.evaluator(setting)
    if not scores.explainable(evaluate):
        return pl.DataFrame(), pl.DataFrame()
    table = fractions.rows(evaluate, estimated.importance)
    six = {
        "component_kind": pl.lit("edge"),
        "value": pl.lit("resample"),
        "positions": pl.lit("all"),
        "direction": pl.lit("noise outside"),
        "pair_set": pl.lit(setting.name),
    }
    rows = [score_row(name, value, n=len(setting.batch)) for name, value in fractions.areas(table).items()]
    areas = pl.DataFrame(rows, infer_schema_length=None).with_columns(**six, granularity=pl.lit("edge"))
    return table.with_columns(**six, granularity=pl.col("level")), areas
