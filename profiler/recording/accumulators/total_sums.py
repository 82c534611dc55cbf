"""Sums of total effects per component and replicate group, over ordinary positions.

From these come mean importance with its interval, and how a component acts: directly, through others, or both. Memory:
groups * components * 32 bytes, where total effects are recorded.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from profiler.model.direct import Part

TOTAL_FIELDS = ("sum_total", "sum_abs_total", "sum_abs_direct", "sum_abs_through")


class TotalSums:
    """The sums.

    Attributes:
        counts: int64 [group], ordinary positions.
        sums: float64 [field, group, component], the fields of TOTAL_FIELDS; 0 for components that have no total
            effect.
    """

    def __init__(self, n_components: int, device: torch.device):
        self.counts = torch.zeros(0, dtype=torch.int64)
        self.sums = torch.zeros(len(TOTAL_FIELDS), 0, n_components, dtype=torch.float64, device=device)

    def grow(self, n_groups: int) -> None:
        """Make room for replicate groups up to `n_groups`."""
        missing = n_groups - len(self.counts)
        if missing > 0:
            self.counts = torch.cat([self.counts, self.counts.new_zeros(missing)])
            fields, _, n = self.sums.shape
            self.sums = torch.cat([self.sums, self.sums.new_zeros(fields, missing, n)], 1)

    def count(self, groups: Int[Tensor, " window"], ordinary: Float[Tensor, "window offset"]) -> None:
        """Count a batch's positions, once for all its parts; `ordinary` is 1 at ordinary positions, else 0."""
        self.counts.index_add_(0, groups.cpu(), ordinary.sum(1).round().long().cpu())

    def update(self, groups: Int[Tensor, " window"], ordinary: Float[Tensor, "window offset"], part: Part) -> None:
        """Add the values of one part of a batch; nothing where it has no total effects."""
        if part.total is None:
            return
        for target, values in zip(self.sums, fields_of(part.total, part.dla), strict=True):
            of_windows = (ordinary[:, None] @ values)[:, 0]
            target[:, part.components].index_add_(0, groups, of_windows.double())

    def merge(self, other: "TotalSums") -> None:
        """Add the sums of another part of the corpus."""
        self.grow(len(other.counts))
        self.counts[: len(other.counts)] += other.counts
        self.sums[:, : len(other.counts)] += other.sums


def fields_of(total: Tensor, direct: Tensor) -> tuple[Tensor, ...]:
    """What is summed, in the order of TOTAL_FIELDS."""
    return total, total.abs(), direct.abs(), (total - direct).abs()
