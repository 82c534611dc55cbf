"""F(C): the metric with only a circuit live, for many sets of nodes at once. The measuring instrument of all scores.

F of a set of nodes is the metric of each pair (the logit difference unless asked otherwise) with the set's complement
writing other values (resample: the corrupted run's; mean: means of reference prompts; zero). The embedding, biases, and
everything that is not a node stay; what nodes are, whole or at positions, is said in `profiler.circuits.nodes`.
The whole set of nodes gives the model's own value, the empty one the reference point of normalised faithfulness.

Cost: at most one forward pass of the batch per set, and a third of one for random circuits: what sets share and
positions before the first difference are not run again (`profiler.circuits.node_sets`); sets are run together and
remembered.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from profiler.circuits import node_sets
from profiler.circuits.nodes import masks, node_labels, nodes_by_site
from profiler.model.steps.network import Network
from profiler.patching.batch import PairBatch, Trace, trace
from profiler.patching.metrics import Options
from profiler.patching.values import rows_of

TOGETHER = 8
TOKENS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class PairGroup:
    """Some pairs that are run together: their rows, what is asked of them, and their answers."""

    rows: Int[np.ndarray, " row"]
    asked: node_sets.NodeSetInputs
    options: Options


@dataclass(frozen=True, eq=False)
class Evaluator:
    """F of sets of nodes on one batch. `other` is what dropped nodes write; `known` remembers sets.

    `nodes` are labels, or labels at a role (`profiler.circuits.nodes.node_labels`).
    """

    net: Network
    batch: PairBatch
    nodes: list[str]
    other: Trace
    tokens_at_once: int = TOKENS_AT_ONCE
    known: dict[bytes, np.ndarray] = field(default_factory=dict)

    def __call__(self, keep: Bool[np.ndarray, "set node"]) -> Float[np.ndarray, "set pair"]:
        """The metric per set and pair."""
        keys = [row.tobytes() for row in keep]
        new = {key: row for key, row in zip(keys, keep, strict=True) if key not in self.known}
        if new:
            self.known.update(zip(new, self._run(np.stack(list(new.values()))), strict=True))
        return np.stack([self.known[key] for key in keys])

    def _run(self, keep: Bool[np.ndarray, "set node"]) -> Float[np.ndarray, "set pair"]:
        """Pairs of like length that begin to differ at like positions are run together, with as many sets as fit."""
        values = np.empty((len(keep), len(self.batch)))
        for part in self.parts:
            left = part.asked.tokens.shape[1] - part.asked.first
            size = max(1, self.tokens_at_once // (len(part.rows) * left))
            for begin in range(0, len(keep), size):
                logits = node_sets.logits(part.asked, keep[begin : begin + size])
                options = part.options.rows(len(logits))
                metric = options.values(logits.flatten(0, 1))
                values[begin : begin + size, part.rows] = metric.reshape(len(logits), -1)
        return values

    @cached_property
    def parts(self) -> list["PairGroup"]:
        """The pairs in groups."""
        first = self.first.cpu().numpy()
        length = (self.batch.ends + 1).cpu().numpy()
        order = np.lexsort((length, first))
        return [
            self._part(rows, int(first[rows].min())) for rows in np.array_split(order, max(1, len(order) // TOGETHER))
        ]

    def _part(self, rows: Int[np.ndarray, " row"], first: int) -> "PairGroup":
        batch = self.batch
        width = int(batch.ends[rows].max()) + 1
        other = rows_of(self.other, rows, width)
        masks = {name: mask[rows, :width] for name, mask in self.masks.items()}
        asked = node_sets.NodeSetInputs(
            self.net,
            batch.clean[rows, :width],
            batch.ends[rows],
            self.nodes,
            lambda site, layer: other[site][layer],
            masks,
            first,
        )
        return PairGroup(rows, asked, batch.options.of(rows))

    @cached_property
    def first(self) -> Int[Tensor, " pair"]:
        """The first position of each pair at which a dropped node writes anything else than the clean run does."""
        clean = trace(self.net, self.batch.clean, self.batch.ends)
        differs = torch.zeros_like(self.batch.valid)
        for site, layer in nodes_by_site(self.net, self.nodes):
            differs |= (clean[site][layer] != self.other[site][layer]).flatten(2).any(-1)
        positions = torch.where(
            differs & self.batch.valid, torch.arange(differs.shape[1], device=differs.device), self.batch.ends[:, None]
        )
        return positions.amin(1)

    @cached_property
    def masks(self) -> dict[str, Bool[Tensor, "prompt position"]]:
        """Positions of the roles that nodes are at."""
        return masks(self.batch, self.nodes)

    def mask(self, labels: Iterable[str]) -> Bool[np.ndarray, " node"]:
        """The set of these labels; a label without a role means all parts of it."""
        chosen = set(labels)
        return np.array([node in chosen or node.partition("@")[0] in chosen for node in self.nodes])

    def of(self, labels: Iterable[str]) -> Float[np.ndarray, " pair"]:
        """F of one set, per pair."""
        return np.asarray(self(self.mask(labels)[None])[0])

    def labels(self, keep: Bool[np.ndarray, " node"]) -> list[str]:
        """Labels of a set."""
        return [node for node, live in zip(self.nodes, keep, strict=True) if live]

    @property
    def model(self) -> Float[np.ndarray, " pair"]:
        """F(M)."""
        return np.asarray(self._ends[0])

    @property
    def empty(self) -> Float[np.ndarray, " pair"]:
        """F of the empty circuit."""
        return np.asarray(self._ends[1])

    @property
    def _ends(self) -> Float[np.ndarray, "2 pair"]:
        """F of all nodes and of none, run together."""
        return self(np.repeat([[True], [False]], len(self.nodes), 1))

    def faithfulness(self, keep: Bool[np.ndarray, "set node"]) -> Float[np.ndarray, " set"]:
        """Normalised faithfulness of sets, ratio of means: (F(C) - F(none)) / (F(M) - F(none))."""
        model, empty = self.model.mean(), self.empty.mean()
        return np.asarray((self(keep).mean(-1) - empty) / (model - empty))

    def necessity(self, keep: Bool[np.ndarray, "set node"]) -> Float[np.ndarray, " set"]:
        """What is lost when a set is removed, ratio of means: (F(M) - F(M - C)) / (F(M) - F(none))."""
        model, empty = self.model.mean(), self.empty.mean()
        return np.asarray((model - self(~keep).mean(-1)) / (model - empty))

    def drawn(self, pairs: Sequence[int] | np.ndarray) -> "Evaluator":
        """F on some of the pairs, with repeats; sets that were run for one draw are not run again for another."""
        return _DrawnEvaluator(self, pairs)


class _DrawnEvaluator(Evaluator):
    """F on some pairs of another evaluator, which runs the sets."""

    def __init__(self, every: Evaluator, pairs: Sequence[int] | np.ndarray) -> None:
        for name, value in {"every": every, "pairs": np.asarray(pairs), "nodes": every.nodes}.items():
            object.__setattr__(self, name, value)

    def __call__(self, keep: Bool[np.ndarray, "set node"]) -> Float[np.ndarray, "set pair"]:
        return np.asarray(self.every(keep)[:, self.pairs])  # type: ignore[attr-defined]


__all__ = ["Evaluator", "node_labels", "sizes"]


def sizes(ranking: Sequence[int], n: int) -> Bool[np.ndarray, "size node"]:
    """The sets of the 0, 1, 2 ... best of a ranking."""
    keep = np.zeros((len(ranking) + 1, n), dtype=bool)
    for size, node in enumerate(ranking, 1):
        keep[size:, node] = True
    return keep
