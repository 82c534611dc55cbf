"""Edges by attribution, confirmed by exact patching.

    score(w -> r) = sum over positions of (other_w - live_w) . d metric / d (what r hears)

(Syed et al. 2023; summed over readers it is the node's attribution). An edge is kept if cutting it alone, exactly,
changes the metric by at least a threshold: estimates only decide in which order edges are tried.
Cost: one forward and backward pass, then one forward pass per confirmed edge.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from profiler.circuits.circuit import Edge
from profiler.circuits.edge_mask import Graph, State, Writes, all_writes, graph_of, masked, run
from profiler.model.steps.network import Offsets
from profiler.model.steps.plain import PlainNetwork
from profiler.patching.batch import PairBatch, Trace
from profiler.patching.metrics import logit_diff
from profiler.statistics import level


class Listener(State):
    """Lets every reader hear the run itself, through a leaf of its own that collects the gradient."""

    def __init__(self, n_readers: int, like: Float[Tensor, "prompt position model"]):
        self.leaves = torch.zeros(n_readers, *like.shape, dtype=like.dtype, device=like.device, requires_grad=True)
        self.n = 0

    def add(self, live: Writes, ends: Offsets = None) -> None:
        """Nothing is compared."""

    def heard(self, stream: Tensor, readers: slice, _n: int, ends: Offsets = None) -> Float[Tensor, "reader p o m"]:
        """The stream, plus the readers' leaves, which are 0."""
        leaves = self.leaves[readers]
        if ends is not None:
            leaves = leaves[:, torch.arange(len(ends), device=ends.device), ends][:, :, None]
        return stream + leaves


def edge_scores(
    net: PlainNetwork, base: Trace, other: Trace, tokens: Int[Tensor, "p o"], batch: PairBatch
) -> Float[Tensor, "writer reader"]:
    """Estimated change of the metric, mean over pairs, when an edge of the run `base` carries what `other` wrote."""
    graph = graph_of(net)
    state = Listener(len(graph.readers), base["embed"][0])
    with torch.enable_grad():
        metric = logit_diff(run(net, tokens, batch.ends, state), batch.options)
        slope = torch.autograd.grad(metric.sum(), state.leaves)[0]
    with torch.inference_mode():
        change = all_writes(net, other) - all_writes(net, base)
        scores = torch.einsum("wpom,rpom->wr", change, slope) / len(batch)
        return scores * graph.exists


@dataclass(frozen=True)
class Confirmed:
    """An edge with its estimated and exact effect on the metric (cut alone), mean over pairs."""

    edge: Edge
    estimated: float
    exact: float


def confirm(
    net: PlainNetwork, batch: PairBatch, base: Trace, other: Trace, among: Bool[Tensor, "writer reader"], limit: int
) -> list[Confirmed]:
    """The `limit` edges of `among` with the largest estimates, each cut exactly, largest exact effect first."""
    graph = graph_of(net)
    scores = edge_scores(net, base, other, batch.clean, batch)
    listed = torch.where(among, scores.abs(), 0.0).flatten().argsort(descending=True, stable=True)[:limit].tolist()
    writes = all_writes(net, other)
    before = logit_diff(base.logits, batch.options)
    confirmed = []
    with torch.inference_mode():
        for number in listed:
            writer, reader = divmod(number, len(graph.readers))
            keep = graph.exists.clone()
            keep[writer, reader] = False
            after = logit_diff(masked(net, batch.clean, batch.ends, keep, writes), batch.options)
            edge = Edge(graph.writers[writer], graph.readers[reader])
            confirmed.append(Confirmed(edge, scores[writer, reader].item(), (after - before).mean().item()))
    order = np.argsort(-level(np.array([abs(cut.exact) for cut in confirmed])), kind="stable")
    return [confirmed[i] for i in order]


def candidates(graph: Graph, members: Sequence[str], *, mlps_kept: bool) -> Bool[Tensor, "writer reader"]:
    """Edges between members, the input and the logits; also to and from MLPs that are always kept."""
    extra = [node for node in graph.writers if node.endswith("_mlp_out")] if mlps_kept else []
    return graph.between([*members, *extra])


def sizes(confirmed: Sequence[Confirmed], whole: float) -> Float[np.ndarray, " edge"]:
    """Exact effects as parts of the whole effect."""
    return np.array([cut.exact for cut in confirmed]) / whole
