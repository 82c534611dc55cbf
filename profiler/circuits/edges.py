"""Edges by attribution, confirmed by exact patching.

    score(w -> r) = sum over positions of (other_w - live_w) . d metric / d (what r hears)

(Syed et al. 2023, EAP; summed over readers it is the node's attribution). At a single run the gradient says nothing
where something is saturated, and is zero for a metric that is at its best there (KL). EAP-IG (Hanna et al. 2024)
averages it over runs whose token embeddings lie between the two prompts'; here at midpoints, so that both ends are left
out by the same amount (the authors' program takes k / steps from the corrupted prompt, its own end included; `along`
may be given any points). An edge is kept if cutting it alone, exactly, changes the metric by at least a threshold:
estimates only decide in which order edges are tried.

Cost: one forward and backward pass per step, then one forward pass per confirmed edge.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from profiler.circuits.circuit import Edge
from profiler.circuits.edge_mask import Graph, State, Writes, all_writes, graph_of, masked, parts_of, run
from profiler.model.steps.network import Offsets
from profiler.model.steps.plain import PlainNetwork
from profiler.patching.batch import PairBatch, Trace
from profiler.statistics import level

AT_BASE = (0.0,)
"""Where a single gradient is taken: at the run that is patched."""


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
    net: PlainNetwork,
    base: Trace,
    other: Trace,
    tokens: Int[Tensor, "p o"],
    batch: PairBatch,
    along: Sequence[float] = AT_BASE,
) -> Float[Tensor, "writer reader"]:
    """Estimated change of the metric, mean over pairs, when an edge of the run `base` carries what `other` wrote.

    Args:
        tokens: of `base`.
        along: shares of the way from the embeddings of `base` to those of `other` at which the gradient is taken.
    """
    graph = graph_of(net)
    total = torch.zeros(len(graph.writers), len(graph.readers), dtype=torch.float64, device=tokens.device)
    for part in parts_of(tokens):
        slope = _slope(net, base, other, tokens, batch, along, part)
        change = all_writes(net, _some(other, part)) - all_writes(net, _some(base, part))
        total += torch.einsum("wpom,rpom->wr", change, slope)
    return total / len(batch) * graph.exists.to(total.device)


def _slope(
    net: PlainNetwork,
    base: Trace,
    other: Trace,
    tokens: Int[Tensor, "p o"],
    batch: PairBatch,
    along: Sequence[float],
    part: slice,
) -> Float[Tensor, "reader row position model"]:
    """The mean gradient of each pair's metric by what readers hear, for some of the pairs."""
    rows = np.arange(len(tokens))[part]
    options, ends = batch.options.of(rows), batch.ends[part]
    first, last = (run["embed"][0][part].clone() for run in (base, other))
    total = torch.zeros(())
    for share in along:
        state = Listener(len(graph_of(net).readers), first)
        with torch.enable_grad():
            metric = options.measure(run(net, tokens[part], ends, state, torch.lerp(first, last, share)))
            total = total + torch.autograd.grad(metric.sum(), state.leaves)[0] / len(along)
    return total


def _some(trace: Trace, part: slice) -> Trace:
    """Some prompts of a run, as far as writers need it."""
    return Trace(
        {site: [value[part] for value in trace[site]] for site in ("embed", "head", "mlp_out")}, trace.logits[part]
    )


def midpoints(steps: int) -> list[float]:
    """Where integrated gradients are taken: the middles of `steps` equal parts of the way."""
    return [(step + 0.5) / steps for step in range(steps)]


@dataclass(frozen=True)
class Confirmed:
    """An edge with its estimated and exact effect on the metric (cut alone), mean over pairs."""

    edge: Edge
    estimated: float
    exact: float


def confirm(
    net: PlainNetwork,
    batch: PairBatch,
    base: Trace,
    other: Trace,
    among: Bool[Tensor, "writer reader"],
    limit: int,
    scores: Float[Tensor, "writer reader"],
) -> list[Confirmed]:
    """The `limit` edges of `among` with the largest `scores`, each cut exactly, largest exact effect first."""
    graph = graph_of(net)
    sizes = torch.where(among.to(scores.device), scores.abs(), -1.0).flatten()
    listed = sizes.argsort(descending=True, stable=True)[: min(limit, int(among.sum()))].tolist()
    writes = all_writes(net, other)
    before = batch.options.values(base.logits)
    confirmed = []
    with torch.inference_mode():
        for number in listed:
            writer, reader = divmod(number, len(graph.readers))
            keep = graph.exists.clone()
            keep[writer, reader] = False
            after = batch.options.values(masked(net, batch.clean, batch.ends, keep, writes))
            edge = Edge(graph.writers[writer], graph.readers[reader])
            confirmed.append(Confirmed(edge, scores[writer, reader].item(), float((after - before).mean())))
    order = np.argsort(-level(np.array([abs(cut.exact) for cut in confirmed])), kind="stable")
    return [confirmed[i] for i in order]


def candidates(graph: Graph, members: Sequence[str], *, mlps_kept: bool) -> Bool[Tensor, "writer reader"]:
    """Edges between members, the input and the logits; also to and from MLPs that are always kept."""
    extra = [node for node in graph.writers if node.endswith("_mlp_out")] if mlps_kept else []
    return graph.between([*members, *extra])


def sizes(confirmed: Sequence[Confirmed], whole: float) -> Float[np.ndarray, " edge"]:
    """Exact effects as parts of the whole effect."""
    return np.array([cut.exact for cut in confirmed]) / whole
