"""A uniform random sample of ordinary positions with every component's activation and DLA, and every head's attention.

The sample is the k positions of the smallest keys, so it is planned before a batch is run: only rows that will be kept
(or pushed out by a later position) are computed. Memory: k * components * 8 bytes.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from profiler.model.attention import MEASURES
from profiler.model.direct import Part
from profiler.text.windows import Batch


@dataclass(frozen=True)
class DensePlan:
    """Which positions of a batch enter the sample (`windows`, `offsets`), and the places they take (`slots`)."""

    windows: Int[Tensor, " query"]
    offsets: Int[Tensor, " query"]
    slots: Int[Tensor, " query"]


class DenseRows:
    """The sample.

    Attributes:
        keys, positions: int64 [slot]; free slots have position -1.
        activation, dla: float32 [slot, component]; NaN where the component is absent.
        total: float32 [slot, component], total effects; NaN where a component has none. No column where they are not
            recorded.
        gate, value: float32 [slot, component], the factors of gated neurons; NaN of others. No column before the first
            gated part.
        attention: float32 [slot, head, measure], heads of all layers; the last measure is dla_to_attended. NaN
            where attention weights cannot be read.
        outcome: float64 [slot, 4]: loss, rank, entropy, slope of the soft cap (NaN where the model has none).
    """

    def __init__(self, k: int, n_components: int, n_heads: int, device: torch.device, *, has_totals: bool = False):
        self.keys = torch.full((k,), torch.iinfo(torch.int64).max)
        self.positions = torch.full((k,), -1)
        self.activation = torch.zeros(k, n_components, device=device)
        self.dla = torch.zeros(k, n_components, device=device)
        self.total = torch.full((k, n_components if has_totals else 0), torch.nan, device=device)
        self.gate = torch.full((k, 0), torch.nan, device=device)
        self.value = torch.full((k, 0), torch.nan, device=device)
        self.attention = torch.full((k, n_heads, len(MEASURES) + 1), torch.nan, device=device)
        self.outcome = torch.zeros(k, 4, dtype=torch.float64, device=device)

    def plan(self, batch: Batch) -> DensePlan:
        """Let a batch's ordinary positions into the sample where their keys are small enough."""
        k = len(self.keys)
        windows, offsets = batch.ordinary.nonzero(as_tuple=True)
        keys = torch.cat([self.keys, batch.keys[windows, offsets]])
        chosen = torch.argsort(keys, stable=True)[:k]
        new = chosen[chosen >= k]
        new = new[keys[new] < torch.iinfo(torch.int64).max] - k
        leaving = torch.ones(k, dtype=torch.bool).index_fill_(0, chosen[chosen < k], value=False)
        slots = leaving.nonzero()[: len(new), 0]
        self.keys[slots] = keys[k + new]
        self.positions[slots] = batch.position_ids[windows[new], offsets[new]]
        return DensePlan(windows[new], offsets[new], slots)

    def update(self, plan: DensePlan, part: Part) -> None:
        """Write one part's values of the planned positions that it has values of."""
        self.activation[plan.slots, part.components] = part.activation[plan.windows, plan.offsets].to(torch.float32)
        self.dla[plan.slots, part.components] = part.dla[plan.windows, plan.offsets].to(torch.float32)
        if part.total is not None:
            self.total[plan.slots, part.components] = part.total[plan.windows, plan.offsets].to(torch.float32)

    def update_factors(self, plan: DensePlan, part: Part) -> None:
        """Write one part's factors of the planned positions, where it is gated."""
        if part.factors is None:
            return
        self.widen()
        for table, factor in zip((self.gate, self.value), part.factors, strict=True):
            table[plan.slots, part.components] = factor[plan.windows, plan.offsets].to(torch.float32)

    def widen(self) -> None:
        """Make room for the factors of gated neurons, where there is none yet."""
        if self.gate.shape != self.dla.shape:
            self.gate, self.value = (torch.full_like(self.dla, torch.nan) for _ in range(2))

    def leave_out(self, plan: DensePlan, components: slice) -> None:
        """Let components be absent from the planned positions; those where they are present are written after."""
        self.activation[plan.slots, components] = torch.nan
        self.dla[plan.slots, components] = torch.nan

    def update_attention(self, plan: DensePlan, heads: slice, measures: Float[Tensor, "query head measure"]) -> None:
        """Write one layer's attention summary of the planned positions."""
        self.attention[plan.slots, heads] = measures.to(torch.float32)

    def update_outcomes(self, plan: DensePlan, outcomes: Float[Tensor, "query 4"]) -> None:
        """Write loss, rank, entropy and slope of the soft cap of the planned positions."""
        self.outcome[plan.slots] = outcomes

    def merge(self, other: "DenseRows") -> None:
        """Take another part's rows where their keys are smaller."""
        for mine, theirs in ((self, other), (other, self)):
            if theirs.gate.shape[1]:
                mine.widen()
        keys = torch.cat([self.keys, other.keys])
        chosen = torch.argsort(keys, stable=True)[: len(self.keys)]
        for name, mine in vars(self).items():
            setattr(self, name, torch.cat([mine, getattr(other, name)])[chosen.to(mine.device)])
