"""Sums of activation, DLA and |DLA| per component, value of an axis, and replicate group of documents.

The axes are the class of the token, the class of the next token and the position bucket. From these sums come every
mean and share with its document-clustered interval (delete-a-group jackknife). Moments are in PowerSums.

A batch costs one product of a [cell, offset] indicator with [offset, component] values per window and quantity, in the
values' own precision over one window, added to float64. Memory: groups * cells * components * 24 bytes.
"""

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from profiler.model.direct import Part
from profiler.recording.accumulators.central import about_mean, joined
from profiler.text.token_classes import CLASSES
from profiler.text.windows import Batch

N_CLASSES = len(CLASSES)
BUCKET_STARTS = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768]


@dataclass(frozen=True)
class Axes:
    """The cells of the three breakdown axes, one after the other."""

    n_buckets: int

    @classmethod
    def for_context(cls, context_length: int) -> "Axes":
        """Position buckets that cover offsets below `context_length`."""
        return cls(sum(start < context_length for start in BUCKET_STARTS))

    @property
    def slices(self) -> dict[str, slice]:
        """The cells of each axis."""
        buckets = slice(2 * N_CLASSES, 2 * N_CLASSES + self.n_buckets)
        return {"class": slice(0, N_CLASSES), "next_class": slice(N_CLASSES, 2 * N_CLASSES), "position": buckets}

    @property
    def n_cells(self) -> int:
        """All cells."""
        return 2 * N_CLASSES + self.n_buckets

    @staticmethod
    def buckets(width: int) -> Int[Tensor, " offset"]:
        """Position bucket of each offset below `width`."""
        return torch.searchsorted(torch.tensor(BUCKET_STARTS), torch.arange(width), right=True) - 1

    def indicator(self, batch: Batch, dtype: torch.dtype) -> Float[Tensor, "window cell offset"]:
        """1 where a position belongs to a cell. Special positions belong to their special class and to nothing else."""
        n_windows, width = batch.tokens.shape
        hot = torch.zeros(n_windows, self.n_cells, width, dtype=dtype)
        buckets = self.buckets(width)
        hot.scatter_(1, batch.classes[:, None], batch.valid[:, None].to(dtype))
        ordinary = batch.ordinary[:, None].to(dtype)
        hot.scatter_(1, N_CLASSES + batch.next_classes[:, None], ordinary)
        return hot.scatter_(1, (2 * N_CLASSES + buckets).expand(n_windows, 1, width), ordinary)


class CellSums:
    """The sums and, once for all components that are present everywhere, the numbers of positions.

    Attributes:
        counts: int64 [row, cell].
        present_counts: int64 [presence - 1, row, cell], of components that are absent at some positions
            (ModelSpec.presences).
        sums: float64 [quantity, row, cell, component]; quantities are activation, DLA, |DLA|.
    """

    def __init__(self, axes: Axes, n_components: int, device: torch.device, n_presences: int = 0):
        self.axes, self.n_components, self.device = axes, n_components, device
        self.counts = torch.zeros(0, axes.n_cells, dtype=torch.int64)
        self.present_counts = torch.zeros(n_presences, 0, axes.n_cells, dtype=torch.int64)
        self.sums = torch.zeros(3, 0, axes.n_cells, n_components, dtype=torch.float64, device=device)

    def grow(self, n_rows: int) -> None:
        """Make room for replicate groups up to `n_rows` (domains appear while the corpus is read)."""
        missing = n_rows - self.counts.shape[0]
        if missing > 0:
            self.counts = torch.cat([self.counts, self.counts.new_zeros(missing, self.axes.n_cells)])
            room = self.counts.new_zeros(len(self.present_counts), missing, self.axes.n_cells)
            self.present_counts = torch.cat([self.present_counts, room], 1)
            shape = (3, missing, self.axes.n_cells, self.n_components)
            self.sums = torch.cat([self.sums, self.sums.new_zeros(shape)], 1)

    def count(self, groups: Int[Tensor, " window"], hot: Float[Tensor, "window cell offset"]) -> None:
        """Count a batch's positions, once for all its parts."""
        self.counts.index_add_(0, groups, hot.sum(-1).round().to(torch.int64))

    def count_present(
        self, presence: int, groups: Int[Tensor, " window"], hot: Float[Tensor, "window cell offset"]
    ) -> None:
        """Count the positions of a batch that the components of a presence are present at; `hot` is 0 elsewhere."""
        counted = hot.sum(-1).round().to(torch.int64).to(self.present_counts.device)
        self.present_counts[presence - 1].index_add_(0, groups.to(self.present_counts.device), counted)

    def count_of(self, presence: int) -> Int[Tensor, "row cell"]:
        """Positions of the components of a presence; of all others for 0."""
        return self.present_counts[presence - 1] if presence else self.counts

    def update(self, groups: Int[Tensor, " window"], hot: Float[Tensor, "window cell offset"], part: Part) -> None:
        """Add the values of one part of a batch."""
        for target, values in zip(self.sums, (part.activation, part.dla, part.dla.abs()), strict=True):
            target[:, :, part.components].index_add_(0, groups, (hot @ values).double())

    def merge(self, other: "CellSums") -> None:
        """Add the sums of another part of the corpus."""
        self.grow(other.counts.shape[0])
        rows = slice(0, other.counts.shape[0])
        self.counts[rows] += other.counts
        self.present_counts[:, rows] += other.present_counts
        self.sums[:, rows] += other.sums


POWERS = ("n", "a_mean", "a_m2", "a_m3", "a_m4", "a_abs", "d_mean", "d_m2", "d_m3", "d_m4")
EXTREMA = ("a_min", "a_max", "d_min", "d_max")
ACTIVATION, A_ABS, DLA = slice(1, 5), 5, slice(6, 10)
"""Where the moments of activation and DLA stand among POWERS, and the sum of |activation|."""


class PowerSums:
    """Moments and exact extremes per component, class and domain.

    Attributes:
        sums: float64 [power, domain, class, component], the rows of POWERS: numbers of values, means, sums of powers of
            value - mean (profiler.recording.accumulators.central), and the sum of |activation|.
        extrema: [a_min, a_max, d_min, d_max][domain, class, component], starting at plus and minus infinity.
    """

    def __init__(self, n_components: int, device: torch.device, dtype: torch.dtype):
        self.n_components = n_components
        self.sums = torch.zeros(len(POWERS), 0, N_CLASSES, n_components, dtype=torch.float64, device=device)
        self.extrema = torch.zeros(len(EXTREMA), 0, N_CLASSES, n_components, dtype=dtype, device=device)

    def grow(self, n_domains: int) -> None:
        """Make room for domains up to `n_domains`."""
        missing = n_domains - self.sums.shape[1]
        if missing > 0:
            self.sums = torch.cat(
                [self.sums, self.sums.new_zeros(len(POWERS), missing, N_CLASSES, self.n_components)], 1
            )
            start = self.extrema.new_tensor([torch.inf, -torch.inf, torch.inf, -torch.inf])
            room = start[:, None, None, None].expand(-1, missing, N_CLASSES, self.n_components)
            self.extrema = torch.cat([self.extrema, room], 1)

    def update(self, domains: Int[Tensor, " window"], hot: Float[Tensor, "window class offset"], part: Part) -> None:
        """Add the values of one part of a batch."""
        n = self._of_domains(domains, hot.sum(-1, keepdim=True))
        a, d = (self._moments(domains, hot, values, n) for values in (part.activation, part.dla))
        size = self._of_domains(domains, hot @ part.activation.abs())
        self._join(torch.stack([n.expand_as(size), *a, size, *d]), part.components)

    def _of_domains(
        self, domains: Int[Tensor, " window"], values: Float[Tensor, "window class column"]
    ) -> Float[Tensor, "domain class column"]:
        """Windows' sums added up in float64, domain by domain."""
        room = values.new_zeros(self.sums.shape[1], *values.shape[1:], dtype=torch.float64)
        return room.index_add_(0, domains, values.double())

    def _moments(
        self,
        domains: Int[Tensor, " window"],
        hot: Float[Tensor, "window class offset"],
        values: Float[Tensor, "window offset component"],
        n: Float[Tensor, "domain class 1"],
    ) -> list[Float[Tensor, "domain class component"]]:
        """Mean, m2, m3, m4 of a batch's values, which are summed about their mean in the values' own precision."""
        whole = n.clamp_min(1)
        mean = (self._of_domains(domains, hot @ values) / whole).to(values.dtype)
        away = values - hot.transpose(1, 2) @ mean[domains]
        sums = [self._of_domains(domains, hot @ away**power) for power in (1, 2, 3, 4)]
        return list(about_mean(whole, mean.double(), *sums))

    def _join(self, other: Float[Tensor, "power domain class column"], components: slice = slice(None)) -> None:
        """Take moments of other values of the first domains in."""
        mine = self.sums[:, : other.shape[1], :, components]
        n, k = mine[0].clone(), other[0]
        whole = (n + k).clamp_min(1)
        for rows in (ACTIVATION, DLA):
            a, b = tuple(mine[rows].clone()), tuple(other[rows])
            mine[rows] = torch.stack(joined(n, a, k, b, whole))
        mine[A_ABS] += other[A_ABS]
        mine[0] += k

    def update_extrema(
        self,
        cells: Int[Tensor, " token"],
        components: slice,
        activation: Float[Tensor, "token component"],
        dla: Float[Tensor, "token component"],
    ) -> None:
        """Widen the extremes by one part's positions; `cells` is domain * N_CLASSES + class."""
        pairs = ((activation, "amin"), (activation, "amax"), (dla, "amin"), (dla, "amax"))
        for target, (values, way) in zip(self.extrema, pairs, strict=True):
            flat = target.view(-1, self.n_components)[:, components]
            with warnings.catch_warnings(action="ignore"):  # index_reduce_ is beta; our tests check its results
                flat.index_reduce_(0, cells, values.to(target.dtype), way)

    def merge(self, other: "PowerSums") -> None:
        """Add another part of the corpus."""
        self.grow(other.sums.shape[1])
        rows = slice(0, other.sums.shape[1])
        self._join(other.sums)
        for mine, theirs, way in zip(self.extrema, other.extrema, (torch.minimum, torch.maximum) * 2, strict=True):
            mine[rows] = way(mine[rows], theirs)
