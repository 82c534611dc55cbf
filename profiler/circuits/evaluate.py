"""F(C): the metric with only a circuit live, for many sets of nodes at once. The measuring instrument of all scores.

F of a set of nodes is the logit difference of each pair with the set's complement writing other values (resample: the
corrupted run's; mean: means of reference prompts; zero). The embedding, biases, and everything that is not a node stay;
what nodes are, whole or at positions, is said in `profiler.circuits.nodes`.
The whole set of nodes gives the model's own value, the empty one the reference point of normalised faithfulness.

Cost: one forward pass of the batch per set; sets are run together and remembered.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from profiler.circuits.mask import with_nodes
from profiler.circuits.nodes import masks, node_labels
from profiler.patching.batch import Batch, Trace
from profiler.patching.metrics import logit_diff
from profiler.patching.network import Network
from profiler.patching.sweep import BATCH_TOKENS


@dataclass(frozen=True, eq=False)
class Evaluator:
    """F of sets of nodes on one batch. `other` is what dropped nodes write; `known` remembers sets.

    `nodes` are labels, or labels at a role (`profiler.circuits.nodes.node_labels`).
    """

    net: Network
    batch: Batch
    nodes: list[str]
    other: Trace
    tokens_at_once: int = BATCH_TOKENS
    known: dict[bytes, np.ndarray] = field(default_factory=dict)

    def __call__(self, keep: Bool[np.ndarray, "set node"]) -> Float[np.ndarray, "set pair"]:
        """Logit difference per set and pair."""
        keys = [row.tobytes() for row in keep]
        new = list({key: row for key, row in zip(keys, keep, strict=True) if key not in self.known}.items())
        size = max(1, self.tokens_at_once // self.batch.clean.numel())
        for begin in range(0, len(new), size):
            part = new[begin : begin + size]
            for (key, _), values in zip(part, self._run(np.stack([row for _, row in part])), strict=True):
                self.known[key] = values
        return np.stack([self.known[key] for key in keys])

    def _run(self, keep: Bool[np.ndarray, "set node"]) -> Float[np.ndarray, "set pair"]:
        drop = torch.from_numpy(~keep).to(self.net.device)
        logits = with_nodes(self.net, self.batch.clean, self.batch.ends, drop, self.nodes, self.other, self.masks)
        options = self.batch.options.rows(len(keep))
        return logit_diff(logits.flatten(0, 1), options).double().cpu().numpy().reshape(len(keep), -1)

    @cached_property
    def masks(self) -> dict[str, Bool[Tensor, "prompt offset"]]:
        """Offsets of the roles that nodes are at."""
        return masks(self.batch, self.nodes)

    def mask(self, labels: Iterable[str]) -> Bool[np.ndarray, " node"]:
        """The set of these labels; a label without a role means all parts of it."""
        chosen = set(labels)
        return np.array([node in chosen or node.partition("@")[0] in chosen for node in self.nodes])

    def of(self, labels: Iterable[str]) -> Float[np.ndarray, " pair"]:
        """F of one set, per pair."""
        return self(self.mask(labels)[None])[0]

    def labels(self, keep: Bool[np.ndarray, " node"]) -> list[str]:
        """Labels of a set."""
        return [node for node, kept in zip(self.nodes, keep, strict=True) if kept]

    @property
    def model(self) -> Float[np.ndarray, " pair"]:
        """F(M)."""
        return self.of(self.nodes)

    @property
    def empty(self) -> Float[np.ndarray, " pair"]:
        """F of the empty circuit."""
        return self.of(())

    def faithfulness(self, keep: Bool[np.ndarray, "set node"]) -> Float[np.ndarray, " set"]:
        """Normalised faithfulness of sets, ratio of means: (F(C) - F(none)) / (F(M) - F(none))."""
        model, empty = self.model.mean(), self.empty.mean()
        return (self(keep).mean(-1) - empty) / (model - empty)


__all__ = ["Evaluator", "node_labels", "sizes"]


def sizes(ranking: Sequence[int], n: int) -> Bool[np.ndarray, "size node"]:
    """The sets of the 0, 1, 2 ... best of a ranking."""
    keep = np.zeros((len(ranking) + 1, n), dtype=bool)
    for size, node in enumerate(ranking, 1):
        keep[size:, node] = True
    return keep
