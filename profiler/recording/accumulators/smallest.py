"""Keep, in each of many cells, the k entries of the smallest keys.

With a cell per component and spectrum bin and fixed random keys this is a simple random sample of every bin
(profiler.text.sampling_keys); with a cell per component, measure and side and the value itself as key, the extremes.
Ties go to the smaller position id, so the result depends on the entries alone, not on their order. Merging is taking
the other's entries. A batch first drops what is above a cell's k-th key, so after a warm-up it costs one comparison a
value.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

SMALLEST_BLOCK = 64


def _doubling_blocks(seen: int, n: int) -> Iterator[slice]:
    """Slices of range(n), each at most as long as everything before it, `seen` included."""
    start = 0
    while start < n:
        end = min(n, start + max(SMALLEST_BLOCK, seen + start))
        yield slice(start, end)
        start = end


@dataclass(frozen=True)
class Entries:
    """Entries on their way into cells: parallel arrays."""

    cells: Int[Tensor, " entry"]
    keys: Tensor
    positions: Int[Tensor, " entry"]
    activation: Float[Tensor, " entry"]
    dla: Float[Tensor, " entry"]

    def take(self, rows: Tensor) -> "Entries":
        """The entries of these rows."""
        return Entries(self.cells[rows], self.keys[rows], self.positions[rows], self.activation[rows], self.dla[rows])

    def extend(self, other: "Entries") -> "Entries":
        """Both, one after the other."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Entries(*(torch.cat(pair) for pair in pairs))

    def ordered(self) -> "Entries":
        """By cell, then key, then position."""
        rows = torch.argsort(self.positions, stable=True)
        rows = rows[torch.argsort(self.keys[rows], stable=True)]
        return self.take(rows[torch.argsort(self.cells[rows], stable=True)])


class Smallest:
    """The k smallest keys of each cell and what came with them.

    Attributes:
        keys: [cell, k], ascending; free places hold the largest value of the key's dtype.
        positions: int64 [cell, k], -1 where free.
        activation, dla: [cell, k].
        threshold, threshold_position: [cell], the k-th entry: one that comes after it cannot enter.
    """

    def __init__(self, n_cells: int, k: int, key_dtype: torch.dtype, value_dtype: torch.dtype, device: torch.device):
        self.k = k
        self.free = torch.inf if key_dtype.is_floating_point else torch.iinfo(key_dtype).max
        self.keys = torch.full((n_cells, k), self.free, dtype=key_dtype, device=device)
        self.positions = torch.full((n_cells, k), -1, dtype=torch.int64, device=device)
        self.activation = torch.zeros(n_cells, k, dtype=value_dtype, device=device)
        self.dla = torch.zeros(n_cells, k, dtype=value_dtype, device=device)
        self.threshold = self.keys[:, -1].clone()
        self.threshold_position = torch.full((n_cells,), torch.iinfo(torch.int64).max, device=device)

    def offer(
        self,
        cells: Int[Tensor, "*token component"],
        keys: Shaped[Tensor, "token component"],
        positions: Int[Tensor, " token"],
        activation: Float[Tensor, "token component"],
        dla: Float[Tensor, "token component"],
        seen: int,
    ) -> None:
        """Take those of many entries that can enter.

        Rows are taken in blocks no longer than the number of tokens `seen` before: at the start of a run, when
        thresholds are still high, each block then adds about k entries a cell, and not all of its rows.

        Args:
            cells: cell of each entry, or of each column where it is the same for all rows.
        """
        for rows in _doubling_blocks(seen, len(keys)):
            block = cells if cells.ndim == 1 else cells[rows]
            at = self._could_enter(block, keys[rows], positions[rows]).nonzero(as_tuple=True)
            chosen = block[at[1]] if cells.ndim == 1 else block[at]
            self.update(Entries(chosen, keys[rows][at], positions[rows][at[0]], activation[rows][at], dla[rows][at]))

    def _could_enter(self, cells: Tensor, keys: Tensor, positions: Tensor) -> Bool[Tensor, "token component"]:
        """Whether each key comes before the k-th of its cell; equal keys (a neuron that is often 0) go by position."""
        threshold = self.threshold[cells]
        enters, ties = keys < threshold, keys == threshold
        if ties.any():
            enters |= ties & (positions[:, None] < self.threshold_position[cells])
        return enters

    def update(self, new: Entries) -> None:
        """Take entries (those that cannot enter may be left out by the caller)."""
        if not len(new.cells):
            return
        touched = torch.unique(new.cells)
        entries = self.entries(touched).extend(new).ordered()
        starts = torch.searchsorted(entries.cells, touched)
        rank = torch.arange(len(entries.cells), device=touched.device)
        rank -= starts[torch.searchsorted(touched, entries.cells)]
        first, rank = entries.take(rank < self.k), rank[rank < self.k]
        for target, values in zip(
            (self.keys, self.positions, self.activation, self.dla),
            (first.keys, first.positions, first.activation, first.dla),
            strict=True,
        ):
            target[first.cells, rank] = values.to(target.dtype)
        self.threshold[touched] = self.keys[touched, -1]
        last = self.positions[touched, -1]
        self.threshold_position[touched] = torch.where(last < 0, torch.iinfo(torch.int64).max, last)

    def entries(self, cells: Int[Tensor, " cell"] | None = None) -> Entries:
        """What is held, of all cells or of some."""
        chosen = torch.arange(len(self.keys), device=self.keys.device) if cells is None else cells
        row, column = (self.positions[chosen] >= 0).nonzero(as_tuple=True)
        at = (chosen[row], column)
        return Entries(at[0], self.keys[at], self.positions[at], self.activation[at], self.dla[at])

    def merge(self, other: "Smallest") -> None:
        """Take another part's entries."""
        self.update(other.entries())
