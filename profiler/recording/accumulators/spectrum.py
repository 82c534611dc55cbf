"""The distribution of every component's activation: counts per log-linear bin, split by class, and fine without split.

Two resolutions, because memory asks for it: 2 bins an octave with the class, ΣDLA and Σ|DLA| (the spectrum and the
strata that samples are drawn from), and 16 bins an octave without (density and quantiles, off by at most 1/32 of the
value).

Of the 131 bins of 21 classes a neuron fills a quarter after 100,000 tokens and two fifths after ten million, so only
filled cells have memory: of a component the numbers of its cells, ascending, and beside them counts and sums. A batch
is added up in a table of one component, which stays in the cache, and then joined. Memory: filled cells * 22 bytes
(26 where counts are int64) and the room that is left for new ones, 1027 * 4 bytes for the density.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from profiler.recording.accumulators.bins import DENSITY, SPECTRUM
from profiler.recording.accumulators.cells import N_CLASSES

BLOCK = 256
AT_ONCE = 512
"""Components whose table of all cells is held at once, where there is no compiled loop."""
N_CELLS = N_CLASSES * SPECTRUM.n_bins
ROOM, LEAST_ROOM = 4, 64
"""A component that is given memory gets a quarter more than it needs, and at least this many cells."""
LARGEST_NARROW = 2**30


def counting_type(tokens: int | None) -> torch.dtype:
    """The integer that counts the positions of `tokens` tokens: int32 where it reaches, int64 where nothing is known.

    A BOS before each window makes positions more than tokens, but never twice as many.
    """
    return torch.int32 if tokens is not None and tokens <= LARGEST_NARROW else torch.int64


@dataclass(frozen=True)
class Bins:
    """Filled cells, by component and cell: parallel tables.

    Attributes:
        component: int64, ascending.
        cell: int64, class * bins + bin; ascending in a component.
        counts: positions.
        sums: float64 [2, entry]: ΣDLA, Σ|DLA|.
    """

    component: Int[Tensor, " entry"]
    cell: Int[Tensor, " entry"]
    counts: Int[Tensor, " entry"]
    sums: Float[Tensor, "2 entry"]


class FilledCells:
    """The filled cells of components that are taken together.

    Attributes:
        starts: int64 [component + 1]: where the memory of each begins; the last is where it ends.
        lengths: int64 [component]: how many cells are filled.
        cells: int16 [entry]: class * bins + bin, ascending in a component.
        counts: [entry].
        sums: float64 [2, entry]: ΣDLA, Σ|DLA|.
    """

    def __init__(self, n_components: int, device: torch.device, counted: torch.dtype):
        self.starts = torch.zeros(n_components + 1, dtype=torch.int64, device=device)
        self.lengths = torch.zeros(n_components, dtype=torch.int64, device=device)
        self.cells = torch.zeros(0, dtype=torch.int16, device=device)
        self.counts = torch.zeros(0, dtype=counted, device=device)
        self.sums = torch.zeros(2, 0, dtype=torch.float64, device=device)

    def _indices(self, components: slice = slice(None)) -> Int[Tensor, " entry"]:
        """Where each filled cell stands, component by component."""
        lengths, starts = self.lengths[components], self.starts[:-1][components]
        within = torch.arange(int(lengths.sum()), device=lengths.device)
        return within + (starts - (lengths.cumsum(0) - lengths)).repeat_interleave(lengths)

    def entries(self, components: slice = slice(None)) -> Bins:
        """What is held of some of its components."""
        indices, lengths = self._indices(components), self.lengths[components]
        first, stop, _ = components.indices(len(self.lengths))
        component = torch.arange(first, stop, device=lengths.device).repeat_interleave(lengths)
        return Bins(component, self.cells[indices].long(), self.counts[indices], self.sums[:, indices])

    def grow(self, needed: Int[Tensor, " component"]) -> None:
        """Give each component memory for `needed` cells, and some more where what it has does not reach."""
        has = self.starts[1:] - self.starts[:-1]
        needed = needed.clamp_min(self.lengths)
        room = torch.where(needed + LEAST_ROOM // 2 > has, needed + needed // ROOM + LEAST_ROOM, has)
        indices, (cells, counts, sums) = self._indices(), (self.cells, self.counts, self.sums)
        self.starts = torch.cat([room.new_zeros(1), room.clamp_max(N_CELLS).cumsum(0)])
        self.cells, self.counts = (old.new_zeros(int(self.starts[-1])) for old in (cells, counts))
        self.sums = sums.new_zeros(2, len(self.cells))
        at = self._indices()
        self.cells[at], self.counts[at] = cells[indices], counts[indices]
        self.sums[:, at] = sums[:, indices]

    def join(self, new: Bins) -> None:
        """Add counts and sums of cells; those of one component need not be in order, nor each be there once."""
        old = self.entries()
        key = torch.cat([old.component, new.component]) * N_CELLS + torch.cat([old.cell, new.cell])
        keys, row = key.unique(return_inverse=True)
        counts = torch.cat([old.counts, new.counts.to(old.counts.dtype)])
        self.counts = counts.new_zeros(len(keys)).index_add_(0, row, counts)
        self.sums = old.sums.new_zeros(2, len(keys)).index_add_(1, row, torch.cat([old.sums, new.sums], 1))
        self.cells = (keys % N_CELLS).to(torch.int16)
        self.lengths = torch.bincount(keys // N_CELLS, minlength=len(self.lengths))
        self.starts = torch.cat([self.lengths.new_zeros(1), self.lengths.cumsum(0)])


class SpectrumCounts:
    """Counts and sums per bin.

    Attributes:
        blocks: filled cells of each block of components, special classes too.
        density: [component, fine bin], ordinary positions only.
    """

    def __init__(
        self,
        n_components: int,
        device: torch.device,
        blocks: Sequence[slice] = (),
        counted: torch.dtype = torch.int64,
    ):
        """Empty.

        Args:
            blocks: components whose memory grows together, in order; none: all of them.
            counted: dtype of counts.
        """
        slices = [block for block in blocks if block.stop > block.start] or [slice(0, n_components)]
        self.firsts = [block.start for block in slices]
        self.blocks = [FilledCells(block.stop - block.start, device, counted) for block in slices]
        self.density = torch.zeros(n_components, DENSITY.n_bins, dtype=counted, device=device)

    def block_of(self, components: slice) -> tuple[FilledCells, slice]:
        """The block that components lie in, and which of its own they are."""
        number = bisect_right(self.firsts, components.start) - 1
        first = self.firsts[number]
        return self.blocks[number], slice(components.start - first, components.stop - first)

    def entries(self, components: slice) -> Bins:
        """What is held of components of one block; they are counted from the first of these."""
        block, rows = self.block_of(components)
        filled = block.entries(rows)
        return Bins(filled.component - rows.start, filled.cell, filled.counts, filled.sums)

    def update(
        self,
        components: slice,
        activation: Float[Tensor, "token component"],
        dla: Float[Tensor, "token component"],
        classes: Int[Tensor, " token"],
        ordinary: Int[Tensor, " ordinary"],
    ) -> None:
        """Add the values of one part; `ordinary` are the rows of ordinary positions."""
        block, rows = self.block_of(components)
        filled = []
        for first in range(0, activation.shape[1], AT_ONCE):
            of = slice(first, first + AT_ONCE)
            filled.append(_split(activation[:, of], dla[:, of], classes, rows.start + first))
        block.join(
            Bins(*(torch.cat(tables, -1) for tables in zip(*(vars(bins).values() for bins in filled), strict=True)))
        )
        for tokens in torch.split(ordinary, BLOCK):
            self._add_density(components, activation[tokens])

    def _add_density(self, components: slice, activation: Tensor) -> None:
        cell = torch.arange(activation.shape[1], device=activation.device) * DENSITY.n_bins
        index = (cell + DENSITY.index(activation)).view(-1)
        ones = torch.ones_like(index, dtype=self.density.dtype)
        self.density[components].view(-1).scatter_add_(0, index, ones)

    def take(self, new: Bins) -> None:
        """Add counts and sums of cells of any components, ascending."""
        ends = [*self.firsts[1:], len(self.density)]
        for block, first, end in zip(self.blocks, self.firsts, ends, strict=True):
            low, high = torch.searchsorted(new.component, torch.tensor([first, end], device=new.component.device))
            of = slice(int(low), int(high))
            block.join(Bins(new.component[of] - first, new.cell[of], new.counts[of], new.sums[:, of]))

    def merge(self, other: "SpectrumCounts") -> None:
        """Add another part of the corpus."""
        for mine, theirs in zip(self.blocks, other.blocks, strict=True):
            mine.join(theirs.entries())
        self.density += other.density


def _split(
    activation: Float[Tensor, "token component"],
    dla: Float[Tensor, "token component"],
    classes: Int[Tensor, " token"],
    component: int,
) -> Bins:
    """The filled cells of a few components' values, the first of them of number `component`; tokens are taken in blocks
    that stay in the cache."""
    width, device = activation.shape[1], activation.device
    counts = torch.zeros(width * N_CELLS, dtype=torch.int64, device=device)
    sums = torch.zeros(2, width * N_CELLS, dtype=torch.float64, device=device)
    first = torch.arange(width, device=device) * N_CELLS
    for rows in torch.split(torch.arange(len(classes), device=device), BLOCK):
        index = (first + classes[rows, None] * SPECTRUM.n_bins + SPECTRUM.index(activation[rows])).view(-1)
        counts.scatter_add_(0, index, torch.ones_like(index))
        values = dla[rows].reshape(-1).double()
        sums[0].scatter_add_(0, index, values)
        sums[1].scatter_add_(0, index, values.abs())
    at = counts.nonzero()[:, 0]
    return Bins(component + at // N_CELLS, at % N_CELLS, counts[at], sums[:, at])
