"""All per-value work of one part of a batch in one loop, compiled, for the CPU.

What CellSums, PowerSums, SpectrumCounts and Smallest do with dozens of tensor passes is done here value by value while
it is in the first-level cache: components are the outer (parallel) loop, and the tokens of a component come sorted by
replicate group and class, so that sums stay in registers and a class's bins in a few kilobytes. A value that comes
before the last of its sample or of an extreme is put in its place at once. The tensor versions stay: other devices use
them, and the tests hold the two against each other.

Sums are float64 throughout; powers are taken about the first value of a run of equal group and class
(profiler.recording.accumulators.central). Cost: about 12 ns a value on one core, where the tensor passes take about 90;
the first call compiles for some seconds (cached on disk).
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numba import njit, prange
from torch import Tensor

from profiler.recording.accumulators.bins import DENSITY, FLOAT32_BIAS, FLOAT32_MANTISSA, LOWEST_EXPONENT, SPECTRUM
from profiler.recording.accumulators.cells import N_CLASSES, CellSums, PowerSums
from profiler.recording.accumulators.central import Moments, Sums, about_mean, joined
from profiler.recording.accumulators.smallest import Smallest
from profiler.recording.accumulators.spectrum import N_CELLS, FilledCells, SpectrumCounts
from profiler.text.sampling_keys import GOLDEN, signed

MULTIPLIER = signed(GOLDEN)
Number = Any
"""A scalar of the compiled loop: its type is the compiler's to find."""


@dataclass(frozen=True)
class Order:
    """The tokens of a batch sorted by replicate group and class, and the runs of equal ones.

    Attributes:
        rows: int64 [token], where each sorted token stands in the tables that values come in.
        bounds: int64 [segment, 2], first and last + 1 sorted token.
        cells: int64 [segment, 4]: replicate group, domain, class, 1 where the class is ordinary.
        tokens: int64 [token, 2]: class of the next token, position bucket (both counted from the end of the classes).
    """

    rows: np.ndarray
    bounds: np.ndarray
    cells: np.ndarray
    tokens: np.ndarray
    keys: np.ndarray
    positions: np.ndarray

    def at(self, row_of: np.ndarray) -> "Order":
        """The order of some of its tokens; runs without a token are left out.

        Args:
            row_of: int64, for every row of the tables the row to take instead, -1 where it is left out.
        """
        rows = row_of[self.rows]
        is_present = rows >= 0
        bounds = np.append(0, np.cumsum(is_present))[self.bounds]
        filled = bounds[:, 0] < bounds[:, 1]
        tables = (table[is_present] for table in (self.tokens, self.keys, self.positions))
        return Order(rows[is_present], bounds[filled], self.cells[filled], *tables)

    def counts(self, n_cells: int) -> tuple[np.ndarray, np.ndarray]:
        """Replicate groups of the order, and the numbers of their tokens by cell."""
        lengths = self.bounds[:, 1] - self.bounds[:, 0]
        groups, row = np.unique(self.cells[:, 0], return_inverse=True)
        counts = np.zeros((len(groups), n_cells), dtype=np.int64)
        np.add.at(counts, (row, self.cells[:, 2]), lengths)
        ordinary = np.repeat(self.cells[:, 3] != 0, lengths)
        np.add.at(counts, (np.repeat(row, lengths)[ordinary][:, None], N_CLASSES + self.tokens[ordinary]), 1)
        return groups, counts


def make_order(
    rows: Int[Tensor, " token"],
    groups: Int[Tensor, " token"],
    domains: Int[Tensor, " token"],
    classes: Int[Tensor, " token"],
    ordinary: Bool[Tensor, " token"],
    next_classes: Int[Tensor, " token"],
    buckets: Int[Tensor, " token"],
    keys: Int[Tensor, " token"],
    positions: Int[Tensor, " token"],
) -> Order:
    """Sort a batch's positions once, for all its parts; `rows` are where they stand in the tables of values."""
    order = torch.argsort(groups * N_CLASSES + classes, stable=True)
    sorted_ = [t[order].numpy() for t in (groups, domains, classes, ordinary.long())]
    change = np.flatnonzero((np.diff(sorted_[0]) != 0) | (np.diff(sorted_[2]) != 0)) + 1
    starts, ends = np.append(0, change), np.append(change, len(order))
    tokens = np.stack([next_classes[order].numpy(), N_CLASSES + buckets[order].numpy()], 1)
    return Order(
        rows[order].numpy(),
        np.stack([starts, ends], 1),
        np.stack([t[starts] for t in sorted_], 1),
        tokens,
        keys[order].numpy(),
        positions[order].numpy(),
    )


class Held(NamedTuple):
    """The tables of a Smallest, as the loop wants them."""

    keys: np.ndarray
    positions: np.ndarray
    activation: np.ndarray
    dla: np.ndarray
    limit: np.ndarray
    limit_position: np.ndarray


def _held(smallest: Smallest) -> Held:
    names = ("keys", "positions", "activation", "dla", "threshold", "threshold_position")
    return Held(*(getattr(smallest, name).numpy() for name in names))


class Cells(NamedTuple):
    """The tables of FilledCells, as the loop wants them; `starts` and `lengths` of the components of a part."""

    starts: np.ndarray
    lengths: np.ndarray
    cells: np.ndarray
    counts: np.ndarray
    sums: np.ndarray


def _cells(filled: FilledCells, components: slice) -> Cells:
    starts = filled.starts[components.start : components.stop + 1]
    tables = (starts, filled.lengths[components], filled.cells, filled.counts, filled.sums)
    return Cells(*(table.numpy() for table in tables))


class Tokens(NamedTuple):
    """The tables of an Order, as the loop wants them."""

    bounds: np.ndarray
    cells: np.ndarray
    tokens: np.ndarray
    keys: np.ndarray
    positions: np.ndarray


def add(
    cells: CellSums,
    powers: PowerSums,
    spectrum: SpectrumCounts,
    samples: Smallest,
    extremes: Smallest,
    marks: Int[Tensor, " all_components"],
    order: Order,
    components: slice,
    activation: Float[Tensor, "row component"],
    dla: Float[Tensor, "row component"],
) -> None:
    """Feed one part of a batch to every accumulator; the order says which rows of the values count."""
    a, d = (by_component(values.contiguous().numpy(), order.rows) for values in (activation, dla))
    bits = a.astype(np.float32, copy=False).view(np.int32)
    filled, rows = spectrum.block_of(components)
    needed = np.zeros(len(a), dtype=np.int64)
    _accumulate(
        a,
        d,
        bits,
        Tokens(order.bounds, order.cells, order.tokens, order.keys, order.positions),
        cells.sums.numpy(),
        powers.sums.numpy(),
        powers.extrema.numpy(),
        components.start,
        _cells(filled, rows),
        needed,
        spectrum.density[components].numpy(),
        marks[components].numpy(),
        _held(samples),
        _held(extremes),
    )
    if needed.any():
        room = filled.lengths.clone()
        room[rows] = torch.maximum(room[rows], torch.from_numpy(needed))
        filled.grow(room)
        _add_left_out(d, bits, order.bounds, order.cells, _cells(filled, rows), needed)


def launch_threads(threads: int | None = None) -> None:
    """Launch Numba's threads, as many as torch uses, and leave torch as many as it had.

    Numba's OpenMP layer sets the number of threads of the whole process, torch's with it, to the number of cores when
    it starts. In a process that has fewer cores to itself than that, all work of torch afterwards is several times
    slower.

    Args:
        threads: of both; None takes torch's.
    """
    threads = threads or torch.get_num_threads()
    numba.set_num_threads(min(threads, vars(numba.config)["NUMBA_NUM_THREADS"]))
    torch.set_num_threads(threads)


def _compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """numba.njit, of the function itself and not of a checker wrapped around it while tests run."""

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        made: Callable[..., Any] = njit(**options)(inspect.unwrap(function))
        return made

    return compiled


@_compiled(parallel=True, cache=True, error_model="numpy")
def by_component(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Some rows of a table, turned: [component, token]; read by cache lines and written in runs of a tile."""
    turned = np.empty((values.shape[1], len(rows)), values.dtype)
    for block in prange((values.shape[1] + LINE - 1) // LINE):
        first, last = block * LINE, min((block + 1) * LINE, values.shape[1])
        for start in range(0, len(rows), LINE):
            for column in range(first, last):
                for t in range(start, min(start + LINE, len(rows))):
                    turned[column, t] = values[rows[t], column]
    return turned


@_compiled(inline="always")
def _bin(bits: Number, mantissa_bits: int, per_side: int) -> Number:
    """Resolution.index of one value's bits."""
    size = ((bits & 0x7FFFFFFF) >> (FLOAT32_MANTISSA - mantissa_bits)) - (
        ((FLOAT32_BIAS + LOWEST_EXPONENT) << mantissa_bits) - 1
    )
    size = min(max(size, 0), per_side)
    return per_side - size if bits < 0 else per_side + size


@_compiled(inline="always")
def _before(key: Number, position: Number, threshold: Number, threshold_position: Number) -> Number:
    return key < threshold or (key == threshold and position < threshold_position)


@_compiled(error_model="numpy")
def _insert(table: Held, cell: Number, key: Number, position: Number, x: Number, y: Number) -> None:
    """Put an entry that comes before the last of its cell in its place; the last leaves."""
    last = table.keys.shape[1] - 1
    at = last
    while at > 0 and (
        table.positions[cell, at - 1] < 0
        or _before(key, position, table.keys[cell, at - 1], table.positions[cell, at - 1])
    ):
        table.keys[cell, at], table.positions[cell, at] = table.keys[cell, at - 1], table.positions[cell, at - 1]
        table.activation[cell, at], table.dla[cell, at] = table.activation[cell, at - 1], table.dla[cell, at - 1]
        at -= 1
    table.keys[cell, at], table.positions[cell, at] = key, position
    table.activation[cell, at], table.dla[cell, at] = x, y
    table.limit[cell] = table.keys[cell, last]
    if table.positions[cell, last] >= 0:
        table.limit_position[cell] = table.positions[cell, last]


@_compiled(error_model="numpy")
def _offer(table: Held, cell: Number, key: Number, position: Number, x: Number, y: Number) -> None:
    """Take a value into a cell, if it comes before the cell's last."""
    if _before(key, position, table.limit[cell], table.limit_position[cell]):
        _insert(table, cell, key, position, x, y)


@_compiled(inline="always")
def _limits(limit: np.ndarray, cell: Number) -> tuple[Number, Number, Number, Number]:
    """What activation and DLA must at least, or at most, be to enter a component's four lists of extremes."""
    return -limit[cell], limit[cell + 1], -limit[cell + 2], limit[cell + 3]


@_compiled(error_model="numpy")
def _offer_extreme(extremes: Held, cell: Number, position: Number, x: Number, y: Number) -> None:
    """Take a position into those of a component's four lists of extremes where it enters."""
    _offer(extremes, cell, -x, position, x, y)
    _offer(extremes, cell + 1, x, position, x, y)
    _offer(extremes, cell + 2, -y, position, x, y)
    _offer(extremes, cell + 3, y, position, x, y)


@_compiled(error_model="numpy", fastmath={"reassoc", "contract", "nsz", "nnan"})
def _run_sums(values: np.ndarray) -> tuple[Number, Number, Number, Sums]:
    """Of a run's values sum of sizes, least and largest, and sums of powers about the first; several lanes at once."""
    first = np.float64(values[0])
    size = p1 = p2 = p3 = p4 = 0.0
    low = high = values[0]
    for value in values:
        x = np.float64(value)
        u = x - first
        u2 = u * u
        size += abs(x)
        p1 += u
        p2 += u2
        p3 += u2 * u
        p4 += u2 * u2
        low, high = min(low, value), max(high, value)
    return size, np.float64(low), np.float64(high), (first, p1, p2, p3, p4)


@_compiled(inline="always")
def _widen(extrema: np.ndarray, low: Number, high: Number, low_d: Number, high_d: Number) -> None:
    """Take four new extremes: a_min, a_max, d_min, d_max."""
    extrema[0], extrema[1] = min(extrema[0], low), max(extrema[1], high)
    extrema[2], extrema[3] = min(extrema[2], low_d), max(extrema[3], high_d)


_about_mean = _compiled(inline="always")(about_mean)
_joined = _compiled(inline="always")(joined)


@_compiled(inline="always")
def _take_in(sums: np.ndarray, first: int, n: Number, moments: Moments) -> None:
    """Join n values' moments to those that stand from `first` on; `sums` are the rows of POWERS."""
    mine = sums[first], sums[first + 1], sums[first + 2], sums[first + 3]
    sums[first], sums[first + 1], sums[first + 2], sums[first + 3] = _joined(sums[0], mine, n, moments, sums[0] + n)


@_compiled(error_model="numpy")
def _join_run(sums: np.ndarray, n: Number, size: Number, of_a: Sums, of_d: Sums) -> None:
    """Add a run of n values to the rows of POWERS: sum of |activation|, and sums of powers after their means."""
    _take_in(sums, 1, n, _about_mean(n, of_a[0], of_a[1], of_a[2], of_a[3], of_a[4]))
    _take_in(sums, 6, n, _about_mean(n, of_d[0], of_d[1], of_d[2], of_d[3], of_d[4]))
    sums[5] += size
    sums[0] += n


@_compiled(error_model="numpy")
def _make_room(table: Cells, c: Number, counts: np.ndarray) -> Number:
    """Put a component's newly filled cells, empty, among its own, in order; how many it then needs, though there may be
    no room for them, and nothing is changed."""
    start, length = table.starts[c], table.lengths[c]
    fresh, known = np.empty(N_CELLS, dtype=np.int16), np.zeros(N_CELLS, dtype=np.bool_)
    for i in range(start, start + length):
        known[table.cells[i]] = True
    new = 0
    for cell in range(N_CELLS):
        if counts[cell] != 0 and not known[cell]:
            fresh[new] = cell
            new += 1
    if start + length + new > table.starts[c + 1]:
        return length + new
    table.lengths[c] = length + new
    i, to = start + length - 1, start + length + new - 1
    while new > 0:
        if i >= start and table.cells[i] > fresh[new - 1]:
            table.cells[to], table.counts[to] = table.cells[i], table.counts[i]
            table.sums[0, to], table.sums[1, to] = table.sums[0, i], table.sums[1, i]
            i -= 1
        else:
            new -= 1
            table.cells[to], table.counts[to] = fresh[new], 0
            table.sums[0, to] = table.sums[1, to] = 0.0
        to -= 1
    return table.lengths[c]


@_compiled(error_model="numpy")
def _join_bins(table: Cells, c: Number, n: Number, counts: np.ndarray, sums: np.ndarray) -> Number:
    """Add a component's table of all cells, of n values, to its filled ones; 0, or how many it needs, and nothing
    added."""
    start, length = table.starts[c], table.lengths[c]
    counted = 0
    for cell in table.cells[start : start + length]:
        counted += counts[cell]
    if counted < n:
        length = _make_room(table, c, counts)
        if start + length > table.starts[c + 1]:
            return length
    for i in range(start, start + length):
        cell = table.cells[i]
        table.counts[i] += counts[cell]
        table.sums[0, i] += sums[0, cell]
        table.sums[1, i] += sums[1, cell]
    return 0


@_compiled(parallel=True, cache=True, error_model="numpy")
def _add_left_out(
    d: np.ndarray, bits: np.ndarray, bounds: np.ndarray, segments: np.ndarray, table: Cells, needed: np.ndarray
) -> None:
    """Fill the bins of components that had too little memory in `_accumulate`."""
    for c in prange(len(d)):
        if needed[c] > 0:
            counts, sums = np.zeros(N_CELLS, dtype=np.int32), np.zeros((2, N_CELLS))
            for s in range(len(bounds)):
                for t in range(bounds[s, 0], bounds[s, 1]):
                    number = segments[s, 2] * SPECTRUM_BINS + _bin(bits[c, t], SPECTRUM_BITS, SPECTRUM_SIDE)
                    counts[number] += 1
                    sums[0, number] += d[c, t]
                    sums[1, number] += abs(d[c, t])
            _join_bins(table, c, d.shape[1], counts, sums)


@_compiled(error_model="numpy")
def _empty_into(sums: np.ndarray, local: np.ndarray) -> None:
    """Add a replicate group's sums by cell to [quantity, cell] of the whole, and begin anew."""
    for cell in range(len(local)):
        for quantity in range(3):
            sums[quantity, cell] += local[cell, quantity]
    local[:] = 0.0


@_compiled(parallel=True, cache=True, error_model="numpy")
def _accumulate(
    a: np.ndarray,
    d: np.ndarray,
    bits: np.ndarray,
    order: Tokens,
    cell_sums: np.ndarray,
    power_sums: np.ndarray,
    extrema: np.ndarray,
    first: int,
    filled: Cells,
    needed: np.ndarray,
    density: np.ndarray,
    marks: np.ndarray,
    samples: Held,
    extremes: Held,
) -> None:
    """The loop of the module docstring.

    Tables that are written here are arguments by themselves: what the loop itself writes into a table of a named tuple,
    Numba takes for unused and leaves out. Functions that it calls may write there.
    """
    n_cells, bounds, segments = cell_sums.shape[2], order.bounds, order.cells
    for c in prange(len(a)):
        local = np.zeros((n_cells - N_CLASSES, 3))
        counts, sums = np.zeros(N_CELLS, dtype=np.int32), np.zeros((2, N_CELLS))
        highest, lowest, highest_d, lowest_d = _limits(extremes.limit, 4 * (first + c))
        for s in range(len(bounds)):
            group, domain, token_class, ordinary = segments[s]
            k, n = first + c, float(bounds[s, 1] - bounds[s, 0])
            s_abs, low, high, of_a = _run_sums(a[c, bounds[s, 0] : bounds[s, 1]])
            t_abs, low_d, high_d, of_d = _run_sums(d[c, bounds[s, 0] : bounds[s, 1]])
            for t in range(bounds[s, 0], bounds[s, 1]):
                x, y = a[c, t], d[c, t]
                number = _bin(bits[c, t], SPECTRUM_BITS, SPECTRUM_SIDE)
                y_abs = abs(y)
                in_class = token_class * SPECTRUM_BINS + number
                counts[in_class] += 1
                sums[0, in_class] += y
                sums[1, in_class] += y_abs
                if ordinary:
                    density[c, _bin(bits[c, t], DENSITY_BITS, DENSITY_SIDE)] += 1
                    for axis in range(2):
                        cell = order.tokens[t, axis]
                        local[cell, 0] += x
                        local[cell, 1] += y
                        local[cell, 2] += y_abs
                    position = order.positions[t]
                    _offer(samples, k * SPECTRUM_BINS + number, (order.keys[t] ^ marks[c]) * MULTIPLIER, position, x, y)
                    if x >= highest or x <= lowest or y >= highest_d or y <= lowest_d:
                        _offer_extreme(extremes, 4 * k, position, x, y)
                        highest, lowest, highest_d, lowest_d = _limits(extremes.limit, 4 * k)
            cell_sums[0, group, token_class, k] += n * of_a[0] + of_a[1]
            cell_sums[1, group, token_class, k] += n * of_d[0] + of_d[1]
            cell_sums[2, group, token_class, k] += t_abs
            _join_run(power_sums[:, domain, token_class, k], n, s_abs, of_a, of_d)
            _widen(extrema[:, domain, token_class, k], low, high, low_d, high_d)
            if s + 1 == len(bounds) or segments[s + 1, 0] != group:
                _empty_into(cell_sums[:, group, N_CLASSES:, k], local)
        needed[c] = _join_bins(filled, c, a.shape[1], counts, sums)


SPECTRUM_BITS, SPECTRUM_SIDE, SPECTRUM_BINS = SPECTRUM.mantissa_bits, SPECTRUM.per_side, SPECTRUM.n_bins
DENSITY_BITS, DENSITY_SIDE = DENSITY.mantissa_bits, DENSITY.per_side
LINE = 16
"""Values of a cache line, in float32."""
