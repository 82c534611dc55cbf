"""The distribution of every component's activation: counts per log-linear bin, split by class, and fine without split.

Two resolutions, because memory asks for it: 2 bins an octave with the class, ΣDLA and Σ|DLA| (the spectrum and the
strata that samples are drawn from), and 16 bins an octave without (density and quantiles, off by at most 1/32 of the
value). A batch costs one bin index and one scatter per value and table; tokens are taken in blocks that stay in cache.
Memory: components * (classes * 131 * 24 + 1027 * 8) bytes.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from profiler.recording.accumulators.bins import DENSITY, SPECTRUM
from profiler.recording.accumulators.cells import N_CLASSES

BLOCK = 256


class SpectrumCounts:
    """Counts and sums per bin.

    Attributes:
        counts: int64 [component, class, bin], special classes too.
        sums: float64 [2, component, class, bin]: ΣDLA, Σ|DLA|.
        density: int64 [component, fine bin], ordinary positions only.
    """

    def __init__(self, n_components: int, device: torch.device):
        shape = (n_components, N_CLASSES, SPECTRUM.n_bins)
        self.counts = torch.zeros(shape, dtype=torch.int64, device=device)
        self.sums = torch.zeros((2, *shape), dtype=torch.float64, device=device)
        self.density = torch.zeros(n_components, DENSITY.n_bins, dtype=torch.int64, device=device)

    def update(
        self,
        components: slice,
        activation: Float[Tensor, "token component"],
        dla: Float[Tensor, "token component"],
        classes: Int[Tensor, " token"],
        ordinary: Int[Tensor, " ordinary"],
    ) -> None:
        """Add the values of one part; `ordinary` are the rows of ordinary positions."""
        for rows in torch.split(torch.arange(len(classes), device=classes.device), BLOCK):
            self._add_split(components, activation[rows], dla[rows], classes[rows])
        for rows in torch.split(ordinary, BLOCK):
            self._add_density(components, activation[rows])

    def _add_split(self, components: slice, activation: Tensor, dla: Tensor, classes: Tensor) -> None:
        width = activation.shape[1]
        cell = torch.arange(width, device=classes.device) * N_CLASSES + classes[:, None]
        index = (cell * SPECTRUM.n_bins + SPECTRUM.index(activation)).view(-1)
        self.counts[components].view(-1).scatter_add_(0, index, torch.ones_like(index))
        dla = dla.reshape(-1).double()
        self.sums[0, components].view(-1).scatter_add_(0, index, dla)
        self.sums[1, components].view(-1).scatter_add_(0, index, dla.abs())

    def _add_density(self, components: slice, activation: Tensor) -> None:
        cell = torch.arange(activation.shape[1], device=activation.device) * DENSITY.n_bins
        index = (cell + DENSITY.index(activation)).view(-1)
        self.density[components].view(-1).scatter_add_(0, index, torch.ones_like(index))

    def merge(self, other: "SpectrumCounts") -> None:
        """Add another part of the corpus."""
        self.counts += other.counts
        self.sums += other.sums
        self.density += other.density
