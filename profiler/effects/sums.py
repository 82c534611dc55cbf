"""Sums of effects per unit and replicate group, which merge: over batches, in any order, over shards of documents.

Of every method and reference, and of ordinary positions s:

| field | what is summed |
|---|---|
| total, abs_total | total(unit, s) and its size: importance |
| direct, abs_direct | its direct part, and its size |
| abs_through | size of total - direct |
| loss, abs_loss | total effect on the loss, and its size |
| special | size of total(unit, s) at special positions (BOS, first of a window), which all else leaves out |

Cost: 64 bytes a unit, group, method and reference.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from profiler.effects.methods import BlockEffects, PerUnit
from profiler.model.components import ModelSpec
from profiler.text.windows import Batch

FIELDS = ("total", "abs_total", "direct", "abs_direct", "abs_through", "loss", "abs_loss", "special")
Key = tuple[str, str, int]
"""Method, reference, replicate group."""


@dataclass
class Counts:
    """What was read under one method: ordinary and special positions by replicate group, and documents."""

    positions: dict[int, int] = field(default_factory=dict)
    special: dict[int, int] = field(default_factory=dict)
    documents: dict[int, int] = field(default_factory=dict)
    """Of each document its replicate group."""

    def merge(self, other: "Counts") -> None:
        """Add another's."""
        for mine, theirs in ((self.positions, other.positions), (self.special, other.special)):
            for group, n in theirs.items():
                mine[group] = mine.get(group, 0) + n
        self.documents |= other.documents


@dataclass
class EffectSums:
    """Sums of effects.

    Attributes:
        spec: the model, whose ids number the units.
        values: by method, reference and replicate group: a row per unit, a column per field, float64.
        counts: by method.
    """

    spec: ModelSpec
    values: dict[Key, Float[np.ndarray, "unit field"]] = field(default_factory=dict)
    counts: dict[str, Counts] = field(default_factory=dict)

    def count(self, method: str, batch: Batch) -> None:
        """Count the positions and documents of a batch."""
        counts = self.counts.setdefault(method, Counts())
        ordinary, special = batch.ordinary.sum(1).tolist(), (batch.valid & ~batch.ordinary).sum(1).tolist()
        for window, n, n_special in zip(batch.windows, ordinary, special, strict=True):
            group = window.document.group_id
            counts.positions[group] = counts.positions.get(group, 0) + n
            counts.special[group] = counts.special.get(group, 0) + n_special
            counts.documents[window.document.doc_id] = group

    def add(self, method: str, batch: Batch, effects: BlockEffects) -> None:
        """Add the effects of a block's units."""
        units, reference = self.spec.slices[effects.block], effects.reference
        fields = _fields(effects, batch)
        for group in batch.groups.unique().tolist():
            rows = (batch.groups == group).to(fields.device)
            room = self.values.setdefault((method, reference, group), np.zeros((units_of(self.spec), len(FIELDS))))
            room[units] += fields[rows].sum((0, 1), dtype=torch.float64).cpu().numpy()

    def merge(self, other: "EffectSums") -> None:
        """Add another's."""
        for key, theirs in other.values.items():
            self.values[key] = self.values[key] + theirs if key in self.values else theirs.copy()
        for method, counts in other.counts.items():
            self.counts.setdefault(method, Counts()).merge(counts)

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Every method and reference that there are sums of, in order."""
        return iter(dict.fromkeys((method, reference) for method, reference, _ in self.values))


def units_of(spec: ModelSpec) -> int:
    """How many units the blocks have; their ids come first."""
    return spec.first_embedding_or_bias


def _fields(effects: BlockEffects, batch: Batch) -> Float[Tensor, "window offset unit field"]:
    """The fields at every position; 0 where they are not counted."""
    total, direct, loss = effects.total["logit"], effects.direct, effects.total["loss"]
    device = total.device
    values = [total, total.abs(), direct, direct.abs(), (total - direct).abs(), loss, loss.abs()]
    ordinary, special = batch.ordinary.to(device), (batch.valid & ~batch.ordinary).to(device)
    return torch.stack([*(_where(ordinary, value) for value in values), _where(special, total.abs())], -1)


def _where(mask: Bool[Tensor, "window offset"], value: PerUnit) -> PerUnit:
    return torch.where(mask[..., None], value, 0)
