"""Log-linear bins in the float's own bits: no range to guess, a stated relative error, and merging is integer addition.

A value's bin is its sign, its exponent and the first `mantissa_bits` bits of its mantissa, so a bin is 2^-mantissa_bits
of its lower edge wide and its middle is off by at most half of that. Values below 2^-16 share the zero bin; those of
2^16 and above share one overflow bin a side (their exact extremes are kept beside). Bins ascend with the value.

Cost: one reinterpretation and four integer operations per value. The idea is that of HDR histograms and DDSketch
(Masson, Rim, Lee 2019), with edges on dyadic numbers so that no logarithm is taken.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

EXPONENTS = 32
LOWEST_EXPONENT = -16
FLOAT32_BIAS = 127
FLOAT32_MANTISSA = 23
ODDS = 2.0  # how far off a level may be from its quantile, as a factor of the odds of being above it


@dataclass(frozen=True)
class Resolution:
    """A bin layout. `mantissa_bits` m gives 2^m bins an octave and a relative error of at most 2^-(m+1)."""

    name: str
    mantissa_bits: int

    @property
    def per_side(self) -> int:
        """Bins of one sign, the overflow bin included."""
        return (EXPONENTS << self.mantissa_bits) + 1

    @property
    def n_bins(self) -> int:
        """Bins of both signs and the zero bin."""
        return 2 * self.per_side + 1

    @property
    def zero_bin(self) -> int:
        """The bin of values smaller than 2^-16 in size."""
        return self.per_side

    def index(self, values: Float[Tensor, "..."]) -> Int[Tensor, "..."]:
        """Bin of each value, int32. NaN lands in an overflow bin: callers refuse NaN before."""
        bits = values.to(torch.float32).view(torch.int32)
        shift = FLOAT32_MANTISSA - self.mantissa_bits
        first = (FLOAT32_BIAS + LOWEST_EXPONENT) << self.mantissa_bits
        size = ((bits & 0x7FFFFFFF) >> shift).sub_(first - 1).clamp_(0, self.per_side)
        return torch.where(bits < 0, -size, size).add_(self.zero_bin)

    def edges(self) -> np.ndarray:
        """Edges in ascending order, float64, shape [n_bins + 1]; the outermost are infinite."""
        steps = np.arange(2**self.mantissa_bits) / 2**self.mantissa_bits
        octaves = 2.0 ** np.arange(LOWEST_EXPONENT, LOWEST_EXPONENT + EXPONENTS)
        positive = np.append((octaves[:, None] * (1 + steps)).ravel(), [2.0 ** (LOWEST_EXPONENT + EXPONENTS), np.inf])
        return np.concatenate([-positive[::-1], positive])

    def middles(self) -> np.ndarray:
        """Middle of each bin, float64, shape [n_bins]; an overflow bin is represented by its finite edge."""
        edges = self.edges()
        middles: np.ndarray = (edges[:-1] + edges[1:]) / 2
        middles[0], middles[-1] = edges[1], edges[-2]
        return middles

    @property
    def relative_error(self) -> float:
        """Largest |middle - value| / |value| for 2^-16 <= |value| < 2^16."""
        return 2.0 ** -(self.mantissa_bits + 1)


SPECTRUM = Resolution("spectrum", 1)
DENSITY = Resolution("density", 4)


def quantile_bins(counts: Int[Tensor, "component bin"], quantiles: list[float]) -> Int[Tensor, "component quantile"]:
    """For each component the bin that holds each quantile: the first whose cumulative count reaches q * n (int64).

    Args:
        counts: positions per bin, any integer dtype.
        quantiles: levels in (0, 1).
    """
    cumulative = counts.cumsum(1)
    wanted = cumulative[:, -1:] * torch.tensor(quantiles, dtype=torch.float64)
    return torch.searchsorted(cumulative.double(), wanted.contiguous())


def resolved_levels(
    counts: Int[Tensor, "component bin"], quantiles: list[float], resolution: Resolution
) -> tuple[Float[np.ndarray, "component quantile"], Float[np.ndarray, "component quantile"]]:
    """For each quantile the bin edge that parts the positions most nearly there, and the share of positions above it.

    Where many positions tie (a neuron that is 0 almost everywhere), no edge is near: both are NaN if the odds of being
    above would be off by more than a factor of ODDS, or if the edge is nearer to another quantile. So levels differ,
    and each comes with the share that it really reaches.

    Args:
        counts: positions per bin, any integer dtype.
        quantiles: ascending levels in (0, 1).
        resolution: the layout of these bins.
    """
    number = quantile_bins(counts, quantiles).clamp(max=resolution.n_bins - 1).numpy()
    above = (counts.sum(1, keepdim=True) - counts.cumsum(1)).double().numpy()
    above = np.pad(above, ((0, 0), (1, 0)), constant_values=np.nan)
    above[:, 0] = counts.sum(1).double().numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = above / above[:, :1]  # [component, edge]: of edge i, the lower one of bin i
        log_odds = np.log(shares) - np.log1p(-shares)
    edges = np.stack([number, number + 1], -1)
    wanted = np.log1p(-np.array(quantiles)) - np.log(quantiles)
    rows = np.arange(len(number))[:, None]
    off = np.abs(log_odds[rows[..., None], edges] - wanted[:, None])
    off = np.where(np.isnan(off), np.inf, off)
    edge, off = (np.take_along_axis(x, off.argmin(-1, keepdims=True), -1)[..., 0] for x in (edges, off))
    nearer = (edge[:, :, None] == edge[:, None, :]) & (off[:, None, :] < off[:, :, None])
    resolved = (off <= math.log(ODDS)) & ~nearer.any(-1)
    level, reached = resolution.edges()[edge], shares[rows, edge]
    return np.where(resolved, level, np.nan), np.where(resolved, reached, np.nan)
