"""F(C) for sets of edges: the metric with only a circuit's edges live (`profiler.circuits.edge_mask`).

An edge outside the set carries what its writer writes in the other run (resample: the corrupted one; mean; zero). All
edges give the model's own value, no edge the other run. Labels are `L0H1->L1H0.k`.

Cost: one forward pass of the batch per set, up to three times as long where most edges are dropped.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from profiler.circuits.circuit import Circuit, Edge
from profiler.circuits.edge_mask import Graph, Writes, all_writes, graph_of, masked
from profiler.circuits.scoring.evaluate import Evaluator
from profiler.patching.batch import Trace
from profiler.patching.setting import PairRuns

ARROW = "->"


def label(edge: Edge) -> str:
    """The label of an edge."""
    return f"{edge.writer}{ARROW}{edge.reader}"


def edges_of(graph: Graph) -> list[Edge]:
    """All edges of a model, writer by writer."""
    return [Edge(graph.writers[w], graph.readers[r]) for w, r in graph.exists.nonzero().tolist()]


@dataclass(frozen=True, eq=False)
class EdgeEvaluator(Evaluator):
    """F of sets of edges on one batch; `nodes` are the labels of all edges of the model."""

    @cached_property
    def graph(self) -> Graph:
        """The model's writers and readers."""
        return graph_of(self.net.plain)

    @cached_property
    def edges(self) -> list[Edge]:
        """The edges in the order of `nodes`."""
        return edges_of(self.graph)

    @cached_property
    def writes(self) -> Writes:
        """What dropped edges carry."""
        return all_writes(self.net.plain, self.other)

    @cached_property
    def ends(self) -> Int[np.ndarray, "edge two"]:
        """Row and column of every edge in the mask."""
        return self.graph.exists.nonzero().numpy()

    def mask(self, labels: Iterable[str]) -> Bool[np.ndarray, " edge"]:
        """The set of these labels; the label of a node means every edge that it writes or reads."""
        chosen = set(labels)
        return np.array(
            [bool({label(edge), edge.writer, edge.reader.split(".")[0]} & chosen) for edge in self.edges], dtype=bool
        )

    def matrix(self, keep: Bool[np.ndarray, " edge"]) -> Bool[torch.Tensor, "writer reader"]:
        """A set as the mask of a forward pass."""
        mask = torch.zeros_like(self.graph.exists)
        mask[self.ends[keep, 0], self.ends[keep, 1]] = True
        return mask

    def _run(self, keep: Bool[np.ndarray, "set edge"]) -> Float[np.ndarray, "set pair"]:
        batch = self.batch
        with torch.inference_mode():
            runs = (masked(self.net.plain, batch.clean, batch.ends, self.matrix(row), self.writes) for row in keep)
            return np.stack([batch.options.values(logits) for logits in runs])


def evaluator(setting: PairRuns) -> EdgeEvaluator:
    """F of sets of edges on the pairs of a setting.

    Raises:
        ModelError: the network offers no edges: its readers are not written out one by one.
    """
    plain = setting.net.plain
    other = setting.corrupted if setting.outside is None else setting.outside
    if not other["embed"]:
        other = replace(other, sites={**other.sites, "embed": [plain.embed[setting.batch.corrupted]]})
    return EdgeEvaluator(setting.net, setting.batch, [label(edge) for edge in edges_of(graph_of(plain))], other)


def mask_of(evaluate: EdgeEvaluator, circuit: Circuit) -> Bool[np.ndarray, " edge"]:
    """The circuit's edges as a set.

    Raises:
        CircuitError: the model lacks one.
    """
    mask = evaluate.graph.mask(circuit.edges).numpy()
    return np.asarray(mask[evaluate.ends[:, 0], evaluate.ends[:, 1]])


def other_edges(keep: Bool[np.ndarray, " edge"], draws: int, seed: int = 0) -> Bool[np.ndarray, "draw edge"]:
    """Random sets of as many edges, never the set itself."""
    rng = np.random.default_rng(seed)
    drawn = np.stack([rng.permutation(keep) for _ in range(draws)]) if draws else np.zeros((0, len(keep)), dtype=bool)
    return np.unique(drawn[(drawn != keep).any(1)], axis=0)


def first_pairs(setting: PairRuns, n: int) -> EdgeEvaluator:
    """F of sets of edges on the first `n` pairs."""
    every = evaluator(setting)
    batch, rows = every.batch, slice(n)
    some = replace(
        batch,
        pairs=batch.pairs[:n],
        clean=batch.clean[rows],
        corrupted=batch.corrupted[rows],
        ends=batch.ends[rows],
        valid=batch.valid[rows],
        options=batch.options.of(np.arange(len(batch.pairs[:n]))),
        roles={name: mask[rows] for name, mask in batch.roles.items()},
    )
    sites = {site: [value[rows] for value in every.other[site]] for site in ("embed", "head", "mlp_out")}
    return replace(every, batch=some, other=Trace(sites, every.other.logits[rows]), known={})
