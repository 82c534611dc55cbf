"""All per-value work of one part of a batch in one loop, compiled, for the CPU.

What CellSums, PowerSums and Spectrum do with a dozen tensor passes is done here value by value while it is in the
first-level cache: components are the outer (parallel) loop, and the tokens of a component come sorted by replicate group
and class, so that sums stay in registers and a class's bins in a few kilobytes. The same loop marks the values that could
enter a sample or the extremes. The tensor versions stay: other devices use them, and the tests hold the two against each
other.

Sums are float64 throughout. Cost: about 20 ns a value on one core with its copies, where the tensor passes take about 90; the first call
compiles for some seconds (cached on disk).
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numba import njit, prange
from torch import Tensor

from profiler.accumulators.cells import N_CLASSES, CellSums, PowerSums
from profiler.accumulators.smallest import Entries, Smallest
from profiler.accumulators.spectrum import Spectrum
from profiler.bins import DENSITY, FLOAT32_BIAS, FLOAT32_MANTISSA, LOWEST_EXPONENT, SPECTRUM
from profiler.keys import GOLDEN, signed

MULTIPLIER = signed(GOLDEN)
SAMPLE, EXTREMES = 1, (2, 4, 8, 16)


@dataclass(frozen=True)
class Order:
    """The tokens of a batch sorted by replicate group and class, and the runs of equal ones.

    Attributes:
        rows: where each sorted token stands in the tables of values that `add` is given.
        bounds: int64 [segment, 2], first and last + 1 sorted token.
        cells: int64 [segment, 4]: replicate group, domain, class, 1 where the class is ordinary.
        tokens: int64 [token, 2]: class of the next token, position bucket (both counted from the end of the classes).
    """

    rows: Int[Tensor, " token"]
    bounds: np.ndarray
    cells: np.ndarray
    tokens: np.ndarray
    keys: np.ndarray
    positions: np.ndarray


def make_order(
    groups: Int[Tensor, " token"],
    domains: Int[Tensor, " token"],
    classes: Int[Tensor, " token"],
    ordinary: Bool[Tensor, " token"],
    next_classes: Int[Tensor, " token"],
    buckets: Int[Tensor, " token"],
    keys: Int[Tensor, " token"],
    positions: Int[Tensor, " token"],
) -> Order:
    """Sort a batch's positions once, for all its parts."""
    rows = torch.argsort(groups * N_CLASSES + classes, stable=True)
    sorted_ = [t[rows].numpy() for t in (groups, domains, classes, ordinary.long())]
    change = np.flatnonzero((np.diff(sorted_[0]) != 0) | (np.diff(sorted_[2]) != 0)) + 1
    starts, ends = np.append(0, change), np.append(change, len(rows))
    tokens = np.stack([next_classes[rows].numpy(), N_CLASSES + buckets[rows].numpy()], 1)
    return Order(
        rows,
        np.stack([starts, ends], 1),
        np.stack([t[starts] for t in sorted_], 1),
        tokens,
        keys[rows].numpy(),
        positions[rows].numpy(),
    )


def add(
    cells: CellSums,
    powers: PowerSums,
    spectrum: Spectrum,
    samples: Smallest,
    extremes: Smallest,
    marks: Int[Tensor, " all_components"],
    order: Order,
    components: slice,
    activation: Float[Tensor, "token component"],
    dla: Float[Tensor, "token component"],
    offer: bool = True,
) -> None:
    """Feed one part of a batch to every accumulator; `order.rows` are rows of the values.

    Args:
        offer: whether to offer the values to samples and extremes; sums and counts are the same bits either way.
    """
    a, d = (values[order.rows].T.contiguous().numpy() for values in (activation, dla))
    first, last = components.start, components.stop
    strata, kinds = slice(first * SPECTRUM.n_bins, last * SPECTRUM.n_bins), slice(first * 4, last * 4)
    marked = _accumulate(
        a, d, a.astype(np.float32, copy=False).view(np.int32), order.bounds, order.cells, order.tokens, order.keys, order.positions,
        cells.sums.numpy(), powers.sums.numpy(), powers.extrema.numpy(), first,
        spectrum.counts[components].numpy(), spectrum.sums[:, components].numpy(), spectrum.density[components].numpy(),
        marks[components].numpy(),
        *_limits(samples, strata, offer), *_limits(extremes, kinds, offer),
    )  # fmt: skip
    if offer:
        _offer_marked(samples, extremes, marks, order, first, a, d, marked)


def _limits(kept: Smallest, cells: slice, offer: bool) -> tuple[np.ndarray, np.ndarray]:
    """Key and position that an entry must come before; where nothing is offered, what nothing comes before."""
    keys, positions = kept.threshold[cells].numpy(), kept.threshold_position[cells].numpy()
    if offer:
        return keys, positions
    lowest = -np.inf if keys.dtype.kind == "f" else np.iinfo(keys.dtype).min
    return np.full_like(keys, lowest), np.full_like(positions, -1)


def _offer_marked(
    samples: Smallest,
    extremes: Smallest,
    marks: Int[Tensor, " all_components"],
    order: Order,
    first: int,
    a: np.ndarray,
    d: np.ndarray,
    marked: UInt8[np.ndarray, "component token"],
) -> None:
    """Pass on the values that could enter a sample or the extremes."""
    flat = np.flatnonzero(marked.ravel())
    flags = marked.ravel()[flat]
    component, token = np.divmod(flat, a.shape[1])
    value, dla, position = a.ravel()[flat], d.ravel()[flat], order.positions[token]
    chosen = (flags & SAMPLE) > 0
    key = (order.keys[token[chosen]] ^ marks.numpy()[first + component[chosen]]) * np.int64(MULTIPLIER)
    stratum = SPECTRUM.index(torch.from_numpy(value[chosen])).numpy()
    cell = (first + component[chosen]) * SPECTRUM.n_bins + stratum
    samples.update(_entries(cell, key, position[chosen], value[chosen], dla[chosen]))
    for kind, flag in enumerate(EXTREMES):
        chosen = (flags & flag) > 0
        v = (value if kind < 2 else dla)[chosen]
        cell = (first + component[chosen]) * 4 + kind
        extremes.update(_entries(cell, -v if kind % 2 == 0 else v, position[chosen], value[chosen], dla[chosen]))


def _entries(*columns: np.ndarray) -> Entries:
    return Entries(*(torch.from_numpy(np.ascontiguousarray(column)) for column in columns))


def _compiled(**options: Any) -> Callable[[Callable], Callable]:
    """numba.njit, of the function itself and not of a checker wrapped around it while tests run."""
    return lambda function: njit(**options)(inspect.unwrap(function))


@_compiled(inline="always")
def _bin(bits, mantissa_bits, per_side):
    """Resolution.index of one value's bits."""
    size = ((bits & 0x7FFFFFFF) >> (FLOAT32_MANTISSA - mantissa_bits)) - (
        ((FLOAT32_BIAS + LOWEST_EXPONENT) << mantissa_bits) - 1
    )
    size = min(max(size, 0), per_side)
    return per_side - size if bits < 0 else per_side + size


@_compiled(inline="always")
def _before(key, position, threshold, threshold_position):
    return key < threshold or (key == threshold and position < threshold_position)


@_compiled(inline="always")
def _extreme(x, y, position, limit, limit_position):
    """Flags EXTREMES of one value against the limits of its component's four kinds."""
    return (
        2 * _before(-x, position, limit[0], limit_position[0])
        | 4 * _before(x, position, limit[1], limit_position[1])
        | 8 * _before(-y, position, limit[2], limit_position[2])
        | 16 * _before(y, position, limit[3], limit_position[3])
    )


@_compiled(inline="always")
def _widen(extrema, low, high, low_d, high_d):
    """Take four new extremes: a_min, a_max, d_min, d_max."""
    extrema[0], extrema[1] = min(extrema[0], low), max(extrema[1], high)
    extrema[2], extrema[3] = min(extrema[2], low_d), max(extrema[3], high_d)


@_compiled(parallel=True, cache=True, error_model="numpy")
def _accumulate(
    a, d, bits, bounds, segments, tokens, keys, positions, cell_sums, power_sums, extrema, first,
    counts, sums, density, marks, key_limit, key_limit_position, value_limit, value_limit_position,
):  # fmt: skip
    """The loop of the module docstring; returns uint8 [component, token], the flags of values that could enter."""
    n_components, n_tokens = a.shape
    marked = np.zeros((n_components, n_tokens), dtype=np.uint8)
    n_cells = cell_sums.shape[2]
    for c in prange(n_components):
        local = np.zeros((n_cells - N_CLASSES, 3))
        for s in range(len(bounds)):
            group, domain, token_class, ordinary = segments[s]
            s1 = s2 = s3 = s4 = s_abs = t1 = t2 = t3 = t4 = t_abs = 0.0
            low = low_d = np.inf
            high = high_d = -np.inf
            for t in range(bounds[s, 0], bounds[s, 1]):
                x, y = a[c, t], d[c, t]
                number = _bin(bits[c, t], SPECTRUM_BITS, SPECTRUM_SIDE)
                y_abs = abs(y)
                counts[c, token_class, number] += 1
                sums[0, c, token_class, number] += y
                sums[1, c, token_class, number] += y_abs
                x8, y8 = np.float64(x), np.float64(y)
                x2, y2 = x8 * x8, y8 * y8
                s1 += x8
                s2 += x2
                s3 += x2 * x8
                s4 += x2 * x2
                s_abs += abs(x8)
                t1 += y8
                t2 += y2
                t3 += y2 * y8
                t4 += y2 * y2
                t_abs += y_abs
                low, high, low_d, high_d = min(low, x8), max(high, x8), min(low_d, y8), max(high_d, y8)
                if ordinary:
                    density[c, _bin(bits[c, t], DENSITY_BITS, DENSITY_SIDE)] += 1
                    for axis in range(2):
                        cell = tokens[t, axis]
                        local[cell, 0] += x
                        local[cell, 1] += y
                        local[cell, 2] += y_abs
                    key, stratum = (keys[t] ^ marks[c]) * MULTIPLIER, c * SPECTRUM_BINS + number
                    enters = _before(key, positions[t], key_limit[stratum], key_limit_position[stratum])
                    marked[c, t] = enters | _extreme(
                        x, y, positions[t], value_limit[4 * c :], value_limit_position[4 * c :]
                    )
            k = first + c
            cell_sums[0, group, token_class, k] += s1
            cell_sums[1, group, token_class, k] += t1
            cell_sums[2, group, token_class, k] += t_abs
            for power, value in enumerate((s2, s3, s4, s_abs, t2, t3, t4)):
                power_sums[power, domain, token_class, k] += value
            _widen(extrema[:, domain, token_class, k], low, high, low_d, high_d)
            if s + 1 == len(bounds) or segments[s + 1, 0] != group:
                for cell in range(n_cells - N_CLASSES):
                    for quantity in range(3):
                        cell_sums[quantity, group, N_CLASSES + cell, k] += local[cell, quantity]
                local[:] = 0.0
    return marked


SPECTRUM_BITS, SPECTRUM_SIDE, SPECTRUM_BINS = SPECTRUM.mantissa_bits, SPECTRUM.per_side, SPECTRUM.n_bins
DENSITY_BITS, DENSITY_SIDE = DENSITY.mantissa_bits, DENSITY.per_side
