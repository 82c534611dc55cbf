"""All per-value work of one part of a batch in one loop, compiled, for the CPU.

What CellSums, PowerSums, SpectrumCounts and Smallest do with dozens of tensor passes is done here while the values are
in the cache. The outer (parallel) loop takes LANES components side by side: a token's class, cells and group are the
same for all of them, so sums are sums of vectors. Tokens come sorted by class, so that the bins of a class stay in the
cache. Bins differ between components and are counted value by value; those of a class that are filled are noted at its
end, and joined to the component's at the end of the batch. A token's values are compared with the last entries of
extremes as a whole; only where one of them may come before those are they looked at alone. The tensor versions stay:
other devices use them, and the tests hold the two against each other.

Sums are float64 throughout; powers are taken about the first value of a run of equal class and domain
(profiler.recording.accumulators.central). The first call compiles for half a minute (cached on disk).
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
from profiler.recording.accumulators.central import about_mean, joined
from profiler.recording.accumulators.smallest import Smallest
from profiler.recording.accumulators.spectrum import N_CELLS, FilledCells, SpectrumCounts
from profiler.text.sampling_keys import GOLDEN, signed

MULTIPLIER = signed(GOLDEN)
Number = Any
"""A scalar of the compiled loop: its type is the compiler's to find."""


@dataclass(frozen=True)
class Order:
    """The tokens of a batch sorted by class, domain and replicate group, and the runs of equal class and domain.

    Attributes:
        rows: int64 [token], where each sorted token stands in the tables that values come in.
        bounds: int64 [run, 2], first and last + 1 sorted token.
        runs: int64 [run, 3]: domain, class, 1 where the class is ordinary.
        groups: int64 [token], replicate group.
        cells: int64 [token, 3]: its cells on the three axes of CellSums; special tokens have the first alone.
    """

    rows: np.ndarray
    bounds: np.ndarray
    runs: np.ndarray
    groups: np.ndarray
    cells: np.ndarray
    keys: np.ndarray
    positions: np.ndarray

    def at(self, place: np.ndarray) -> "Order":
        """The order of some of its tokens; runs without a token are left out.

        Args:
            place: int64, for every row of the tables the row to take instead, -1 where it is left out.
        """
        rows = place[self.rows]
        kept = rows >= 0
        bounds = np.append(0, np.cumsum(kept))[self.bounds]
        filled = bounds[:, 0] < bounds[:, 1]
        tables = (table[kept] for table in (self.groups, self.cells, self.keys, self.positions))
        return Order(rows[kept], bounds[filled], self.runs[filled], *tables)

    def counts(self, n_cells: int) -> tuple[np.ndarray, np.ndarray]:
        """Replicate groups of the order, and the numbers of their tokens by cell."""
        groups, row = np.unique(self.groups, return_inverse=True)
        counts = np.zeros((len(groups), n_cells), dtype=np.int64)
        np.add.at(counts, (row, self.cells[:, 0]), 1)
        ordinary = np.repeat(self.runs[:, 2] != 0, self.bounds[:, 1] - self.bounds[:, 0])
        np.add.at(counts, (row[ordinary][:, None], self.cells[ordinary, 1:]), 1)
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
    order = np.lexsort([table.numpy() for table in (groups, domains, classes)])
    kinds = np.stack([table.numpy()[order] for table in (domains, classes, ordinary.long())], 1)
    change = np.flatnonzero((np.diff(kinds, axis=0) != 0).any(1)) + 1
    starts, ends = np.append(0, change), np.append(change, len(order))
    filled = starts < ends
    cells = (classes, N_CLASSES + next_classes, 2 * N_CLASSES + buckets)
    return Order(
        rows.numpy()[order],
        np.stack([starts, ends], 1)[filled],
        kinds[starts[filled]],
        groups.numpy()[order],
        np.stack([table.numpy()[order] for table in cells], 1),
        keys.numpy()[order],
        positions.numpy()[order],
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
    values = activation.contiguous().numpy(), dla.contiguous().numpy()
    filled, rows = spectrum.block_of(components)
    tables = Tables(
        cells.sums.numpy(), powers.sums.numpy(), powers.extrema.numpy(), spectrum.density.numpy(), marks.numpy()
    )
    groups, number = np.unique(order.groups, return_inverse=True)
    places = (number[:, None] * cells.axes.n_cells + order.cells) * (3 * LANES)
    tokens = Sorted(groups, order.rows, order.bounds, order.runs, places, order.keys, order.positions)
    needed = np.zeros(activation.shape[1], dtype=np.int64)
    held = _held(samples), _held(extremes)
    _accumulate(*values, tokens, tables, *held, _cells(filled, rows), needed, components.start)
    if needed.any():
        room = filled.lengths.clone()
        room[rows] = torch.maximum(room[rows], torch.from_numpy(needed))
        filled.grow(room)
        _add_left_out(*values, tokens, _cells(filled, rows), needed)


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


@_compiled(inline="always")
def _before(key: Number, position: Number, threshold: Number, threshold_position: Number) -> Number:
    return key < threshold or (key == threshold and position < threshold_position)


@_compiled(error_model="numpy")
def _insert(held: Held, cell: Number, key: Number, position: Number, x: Number, y: Number) -> None:
    """Put an entry that comes before the last of its cell in its place; the last leaves."""
    last = held.keys.shape[1] - 1
    at = last
    while at > 0 and (
        held.positions[cell, at - 1] < 0
        or _before(key, position, held.keys[cell, at - 1], held.positions[cell, at - 1])
    ):
        held.keys[cell, at], held.positions[cell, at] = held.keys[cell, at - 1], held.positions[cell, at - 1]
        held.activation[cell, at], held.dla[cell, at] = held.activation[cell, at - 1], held.dla[cell, at - 1]
        at -= 1
    held.keys[cell, at], held.positions[cell, at] = key, position
    held.activation[cell, at], held.dla[cell, at] = x, y
    held.limit[cell] = held.keys[cell, last]
    if held.positions[cell, last] >= 0:
        held.limit_position[cell] = held.positions[cell, last]


@_compiled(error_model="numpy")
def _offer(held: Held, cell: Number, key: Number, position: Number, x: Number, y: Number) -> None:
    """Take a value into a cell, if it comes before the cell's last."""
    if _before(key, position, held.limit[cell], held.limit_position[cell]):
        _insert(held, cell, key, position, x, y)


_about_mean = _compiled(inline="always")(about_mean)
_joined = _compiled(inline="always")(joined)


@_compiled(error_model="numpy")
def _load(table: np.ndarray, rows: np.ndarray, first: int, width: int, tile: np.ndarray) -> None:
    """Copy `width` columns from `first` on of some rows to a tile, LANES values a row."""
    for i in range(len(rows)):
        values = table[rows[i], first : first + width]
        for lane in range(width):
            tile[i * LANES + lane] = values[lane]


@_compiled(error_model="numpy")
def _number(bits: np.ndarray, n: int, coarse: np.ndarray, fine: np.ndarray) -> None:
    """Resolution.index of n values' bits, for SPECTRUM and DENSITY."""
    for j in range(n):
        size = bits[j] & np.int32(0x7FFFFFFF)
        c = min(max((size >> COARSE_SHIFT) - COARSE_ZERO, np.int32(0)), COARSE_SIDE)
        f = min(max((size >> FINE_SHIFT) - FINE_ZERO, np.int32(0)), FINE_SIDE)
        coarse[j] = COARSE_SIDE - c if bits[j] < 0 else COARSE_SIDE + c
        fine[j] = FINE_SIDE - f if bits[j] < 0 else FINE_SIDE + f


@_compiled(error_model="numpy")
def _add_powers(x: np.ndarray, y: np.ndarray, n: int, about: np.ndarray, sums: np.ndarray) -> None:
    """Add n tokens' values to sums of the powers 1 to 4 of their distance from `about`, and of |activation|."""
    for i in range(n):
        for lane in range(LANES):
            x8, y8 = np.float64(x[i * LANES + lane]), np.float64(y[i * LANES + lane])
            u, v = x8 - about[lane], y8 - about[LANES + lane]
            u2, v2 = u * u, v * v
            sums[lane] += u
            sums[LANES + lane] += u2
            sums[2 * LANES + lane] += u2 * u
            sums[3 * LANES + lane] += u2 * u2
            sums[4 * LANES + lane] += abs(x8)
            sums[5 * LANES + lane] += v
            sums[6 * LANES + lane] += v2
            sums[7 * LANES + lane] += v2 * v
            sums[8 * LANES + lane] += v2 * v2


@_compiled(error_model="numpy")
def _widen(x: np.ndarray, y: np.ndarray, n: int, ends: np.ndarray) -> None:
    """Take n tokens' values into the extremes: a_min, a_max, d_min, d_max."""
    for i in range(n):
        for lane in range(LANES):
            x1, y1 = x[i * LANES + lane], y[i * LANES + lane]
            ends[lane] = min(ends[lane], x1)
            ends[LANES + lane] = max(ends[LANES + lane], x1)
            ends[2 * LANES + lane] = min(ends[2 * LANES + lane], y1)
            ends[3 * LANES + lane] = max(ends[3 * LANES + lane], y1)


@_compiled(error_model="numpy")
def _add_cells(x: np.ndarray, y: np.ndarray, places: np.ndarray, n_axes: int, sums: np.ndarray) -> None:
    """Add tokens' activation, DLA and |DLA| to their cells on the first axes."""
    for axis in range(n_axes):
        for i in range(len(places)):
            cell = sums[places[i, axis] : places[i, axis] + 3 * LANES]
            for lane in range(LANES):
                x8, y8 = np.float64(x[i * LANES + lane]), np.float64(y[i * LANES + lane])
                cell[lane] += x8
                cell[LANES + lane] += y8
                cell[2 * LANES + lane] += abs(y8)


@_compiled(error_model="numpy")
def _count(
    coarse: np.ndarray, y: np.ndarray, lane: int, n: int, counts: np.ndarray, sums: np.ndarray, sizes: np.ndarray
) -> None:
    """Count a component's values in its bins of a class, and add up their DLA there."""
    for i in range(n):
        number, y8 = coarse[i * LANES + lane], np.float64(y[i * LANES + lane])
        counts[number] += 1
        sums[number] += y8
        sizes[number] += abs(y8)


@_compiled(error_model="numpy")
def _count_fine(fine: np.ndarray, lane: int, n: int, density: np.ndarray) -> None:
    """Count a component's values in its fine bins."""
    for i in range(n):
        density[fine[i * LANES + lane]] += 1


@_compiled(error_model="numpy")
def _draw(
    tile: Any, lane: int, component: int, mark: int, keys: np.ndarray, positions: np.ndarray, samples: Held
) -> None:
    """Take a component's values into the samples of their bins, where their keys are small enough."""
    first = component * SPECTRUM_BINS
    limits = samples.limit[first : first + SPECTRUM_BINS]
    for i in range(len(keys)):
        number, key = tile.coarse[i * LANES + lane], (keys[i] ^ mark) * MULTIPLIER
        if key <= limits[number]:
            x, y = tile.x[i * LANES + lane], tile.y[i * LANES + lane]
            _offer(samples, first + np.int64(number), key, positions[i], x, y)


@_compiled(error_model="numpy")
def _bound(extremes: Held, first: int, width: int, earliest: int, bounds: np.ndarray) -> None:
    """What an activation or DLA has to exceed, or stay below, to enter extremes: a top, a bottom, d top, d bottom.

    Args:
        earliest: smallest position of the batch; an equal value enters where its position may be the smaller.
    """
    for lane in range(width):
        for kind in range(4):
            cell = 4 * (first + lane) + kind
            limit = extremes.limit[cell]
            if extremes.limit_position[cell] > earliest:
                limit = np.nextafter(limit, bounds.dtype.type(np.inf))
            bounds[kind * LANES + lane] = limit if kind % 2 else -limit


@_compiled(error_model="numpy")
def _exceed(x: np.ndarray, y: np.ndarray, i: int, bounds: np.ndarray) -> int:
    """How many of a token's values may enter an extreme."""
    found = 0
    for lane in range(LANES):
        x1, y1 = x[i * LANES + lane], y[i * LANES + lane]
        over = (x1 > bounds[lane]) | (y1 > bounds[2 * LANES + lane])
        under = (x1 < bounds[LANES + lane]) | (y1 < bounds[3 * LANES + lane])
        found += over | under
    return found


@_compiled(error_model="numpy")
def _keep_extremes(tile: Any, i: int, first: int, width: int, position: int, extremes: Held) -> None:
    """Take a token's values that enter extremes."""
    for lane in range(width):
        x, y, cell = tile.x[i * LANES + lane], tile.y[i * LANES + lane], 4 * (first + lane)
        _offer(extremes, cell, -x, position, x, y)
        _offer(extremes, cell + 1, x, position, x, y)
        _offer(extremes, cell + 2, -y, position, x, y)
        _offer(extremes, cell + 3, y, position, x, y)


class Sorted(NamedTuple):
    """An Order, as the loop wants it: `groups` are the replicate groups in it, ascending, and `places` say where the
    sums of each token's cells begin in a tile."""

    groups: np.ndarray
    rows: np.ndarray
    bounds: np.ndarray
    runs: np.ndarray
    places: np.ndarray
    keys: np.ndarray
    positions: np.ndarray


class Tables(NamedTuple):
    """The arrays of accumulators, of all components."""

    cells: np.ndarray
    powers: np.ndarray
    extrema: np.ndarray
    density: np.ndarray
    marks: np.ndarray


class Tile(NamedTuple):
    """Up to TILE tokens' values of LANES components (`single` in float32) and their bins; of the run so far, powers
    about its first values, extremes and moments to be joined; sums of cells; what is to be exceeded."""

    x: np.ndarray
    y: np.ndarray
    single: np.ndarray
    coarse: np.ndarray
    fine: np.ndarray
    about: np.ndarray
    powers: np.ndarray
    ends: np.ndarray
    held: np.ndarray
    cells: np.ndarray
    bounds: np.ndarray


class Filled(NamedTuple):
    """Bins of the class under way, [lane, bin] and [lane, 2, bin]; and of classes before it, those that are filled:
    how many, which (class * bins + bin, ascending), and what is in them."""

    counts: np.ndarray
    sums: np.ndarray
    lengths: np.ndarray
    cells: np.ndarray
    in_cells: np.ndarray
    of_cells: np.ndarray


@_compiled(error_model="numpy")
def _tile(values: np.ndarray, n_cells: int) -> Tile:
    """An empty tile."""
    x, n = np.zeros(TILE * LANES, values.dtype), TILE * LANES
    bins = np.zeros(n, np.float32), np.zeros(n, np.uint32), np.zeros(n, np.uint32)
    run = np.zeros(2 * LANES), np.zeros(9 * LANES), np.zeros(4 * LANES, values.dtype), np.zeros(10 * LANES)
    return Tile(x, x.copy(), *bins, *run, np.zeros(n_cells * 3 * LANES), np.zeros(4 * LANES, values.dtype))


@_compiled(error_model="numpy")
def _filled() -> Filled:
    """No bins."""
    under_way = np.zeros((LANES, SPECTRUM_BINS), np.int32), np.zeros((LANES, 2, SPECTRUM_BINS))
    cells = np.empty((LANES, N_CELLS), np.int16), np.empty((LANES, N_CELLS), np.int32), np.empty((LANES, 2, N_CELLS))
    return Filled(*under_way, np.zeros(LANES, np.int64), *cells)


@_compiled(error_model="numpy")
def _end_class(bins: Filled, token_class: int, width: int) -> None:
    """Put the filled bins of a class behind those of classes before it, and empty them."""
    for lane in range(width):
        n, counts, sums = bins.lengths[lane], bins.counts[lane], bins.sums[lane]
        for number in range(SPECTRUM_BINS):
            if counts[number]:
                bins.cells[lane, n] = token_class * SPECTRUM_BINS + number
                bins.in_cells[lane, n] = counts[number]
                bins.of_cells[lane, 0, n], bins.of_cells[lane, 1, n] = sums[0, number], sums[1, number]
                n += 1
        bins.lengths[lane] = n
    bins.counts[:] = 0
    bins.sums[:] = 0.0


@_compiled(error_model="numpy")
def _join_bins(held: Cells, c: Number, touched: np.ndarray, counts: np.ndarray, sums: np.ndarray) -> Number:
    """Add cells that a component has touched, ascending, to its filled ones, in order; 0, or how many it needs, and
    nothing added."""
    start, length = held.starts[c], held.lengths[c]
    new = i = 0
    for t in range(len(touched)):
        while i < length and held.cells[start + i] < touched[t]:
            i += 1
        new += i == length or held.cells[start + i] != touched[t]
    if start + length + new > held.starts[c + 1]:
        return length + new
    i, to = start + length - 1, start + length + new - 1
    for t in range(len(touched) - 1, -1, -1):
        cell = touched[t]
        while i >= start and held.cells[i] > cell:
            held.cells[to], held.counts[to] = held.cells[i], held.counts[i]
            held.sums[0, to], held.sums[1, to] = held.sums[0, i], held.sums[1, i]
            i -= 1
            to -= 1
        if i >= start and held.cells[i] == cell:
            held.cells[to], held.counts[to] = cell, held.counts[i] + counts[t]
            held.sums[0, to], held.sums[1, to] = held.sums[0, i] + sums[0, t], held.sums[1, i] + sums[1, t]
            i -= 1
        else:
            held.cells[to], held.counts[to] = cell, counts[t]
            held.sums[0, to], held.sums[1, to] = sums[0, t], sums[1, t]
        to -= 1
    held.lengths[c] = length + new
    return 0


@_compiled(parallel=True, cache=True, error_model="numpy")
def _add_left_out(a: np.ndarray, d: np.ndarray, tokens: Sorted, held: Cells, needed: np.ndarray) -> None:
    """Fill the bins of components that had too little memory in `_accumulate`."""
    for c in prange(a.shape[1]):
        if needed[c] > 0:
            n = len(tokens.rows)
            single, coarse, fine = np.empty(n, np.float32), np.empty(n, np.uint32), np.empty(n, np.uint32)
            for t in range(n):
                single[t] = a[tokens.rows[t], c]
            _number(single.view(np.int32), n, coarse, fine)
            counts, sums = np.zeros(N_CELLS, np.int32), np.zeros((2, N_CELLS))
            for s in range(len(tokens.bounds)):
                for t in range(tokens.bounds[s, 0], tokens.bounds[s, 1]):
                    cell = tokens.runs[s, 1] * SPECTRUM_BINS + np.int64(coarse[t])
                    counts[cell] += 1
                    sums[0, cell] += d[tokens.rows[t], c]
                    sums[1, cell] += abs(d[tokens.rows[t], c])
            touched = np.flatnonzero(counts)
            _join_bins(held, c, touched, counts[touched], sums[:, touched])


@_compiled(error_model="numpy")
def _begin_run(tile: Tile) -> None:
    """Forget the run before; the first values of the tile are those of the new one."""
    tile.powers[:] = 0.0
    tile.about[:LANES], tile.about[LANES:] = tile.x[:LANES], tile.y[:LANES]
    for lane in range(LANES):
        tile.ends[lane], tile.ends[LANES + lane] = np.inf, -np.inf
        tile.ends[2 * LANES + lane], tile.ends[3 * LANES + lane] = np.inf, -np.inf


@_compiled(error_model="numpy")
def _join(held: np.ndarray, n: Number, about: np.ndarray, powers: np.ndarray) -> None:
    """Join the moments of a run of n values, from sums of powers about `about`, to the rows of POWERS in `held`."""
    for lane in range(LANES):
        for first, sums, shift in ((1, 0, 0), (6, 5, 1)):
            h, p = first * LANES + lane, sums * LANES + lane
            mine = held[h], held[h + LANES], held[h + 2 * LANES], held[h + 3 * LANES]
            k1, k2, k3, k4 = powers[p], powers[p + LANES], powers[p + 2 * LANES], powers[p + 3 * LANES]
            moments = _about_mean(n, about[shift * LANES + lane], k1, k2, k3, k4)
            mean, m2, m3, m4 = _joined(held[lane], mine, n, moments, held[lane] + n)
            held[h], held[h + LANES], held[h + 2 * LANES], held[h + 3 * LANES] = mean, m2, m3, m4
    for lane in range(LANES):
        held[5 * LANES + lane] += powers[4 * LANES + lane]
        held[lane] += n


@_compiled(error_model="numpy")
def _end_run(tile: Tile, n: Number, first: int, width: int, domain: int, token_class: int, tables: Tables) -> None:
    """Join moments and extremes of a run of n tokens to those of its domain and class."""
    last = first + width
    for power in range(10):
        tile.held[power * LANES : power * LANES + width] = tables.powers[power, domain, token_class, first:last]
    _join(tile.held, n, tile.about, tile.powers)
    for power in range(10):
        tables.powers[power, domain, token_class, first:last] = tile.held[power * LANES : power * LANES + width]
    for end in range(4):
        row = tables.extrema[end, domain, token_class, first:last]
        for lane in range(width):
            mine = tile.ends[end * LANES + lane]
            row[lane] = max(row[lane], mine) if end % 2 else min(row[lane], mine)


@_compiled(error_model="numpy")
def _end_groups(tile: Tile, first: int, width: int, groups: np.ndarray, cells: np.ndarray) -> None:
    """Add the sums per group and cell."""
    for number in range(len(groups)):
        for cell in range(cells.shape[2]):
            start = 3 * LANES * (number * cells.shape[2] + cell)
            for quantity in range(3):
                row = cells[quantity, groups[number], cell, first : first + width]
                for lane in range(width):
                    row[lane] += tile.cells[start + quantity * LANES + lane]


@_compiled(error_model="numpy")
def _add_tile(tile: Tile, n: int, width: int, bins: Filled) -> None:
    """Add a tile's values to the run under way and to the bins of its class."""
    tile.single[: n * LANES] = tile.x[: n * LANES]
    _number(tile.single.view(np.int32), n * LANES, tile.coarse, tile.fine)
    _add_powers(tile.x, tile.y, n, tile.about, tile.powers)
    _widen(tile.x, tile.y, n, tile.ends)
    for lane in range(width):
        _count(tile.coarse, tile.y, lane, n, bins.counts[lane], bins.sums[lane, 0], bins.sums[lane, 1])


@_compiled(error_model="numpy")
def _pick(
    tile: Tile,
    first: int,
    width: int,
    keys: np.ndarray,
    positions: np.ndarray,
    tables: Tables,
    samples: Held,
    extremes: Held,
    earliest: int,
) -> None:
    """What is of ordinary tokens alone: fine bins, samples, extremes."""
    for lane in range(width):
        component = first + lane
        _count_fine(tile.fine, lane, len(keys), tables.density[component])
        _draw(tile, lane, component, tables.marks[component], keys, positions, samples)
    entered = 0
    for i in range(len(keys)):
        if _exceed(tile.x, tile.y, i, tile.bounds):
            _keep_extremes(tile, i, first, width, positions[i], extremes)
            entered = 1
    if entered:
        _bound(extremes, first, width, earliest, tile.bounds)


@_compiled(error_model="numpy")
def _add_components(
    a: np.ndarray,
    d: np.ndarray,
    column: int,
    width: int,
    tokens: Sorted,
    tables: Tables,
    samples: Held,
    extremes: Held,
    bins: Filled,
    first: int,
) -> None:
    """Feed `width` components, from `column` of the values on, to every accumulator but SpectrumCounts, whose bins are
    left in `bins`; `first` is the component's id."""
    tile, earliest = _tile(a, len(tokens.groups) * tables.cells.shape[2]), tokens.positions.min()
    _bound(extremes, first, width, earliest, tile.bounds)
    for s in range(len(tokens.bounds)):
        begin, end = tokens.bounds[s, 0], tokens.bounds[s, 1]
        domain, token_class, ordinary = tokens.runs[s]
        for start in range(begin, end, TILE):
            stop = min(start + TILE, end)
            _load(a, tokens.rows[start:stop], column, width, tile.x)
            _load(d, tokens.rows[start:stop], column, width, tile.y)
            if start == begin:
                _begin_run(tile)
            _add_tile(tile, stop - start, width, bins)
            _add_cells(tile.x, tile.y, tokens.places[start:stop], 3 if ordinary else 1, tile.cells)
            if ordinary:
                keys, positions = tokens.keys[start:stop], tokens.positions[start:stop]
                _pick(tile, first, width, keys, positions, tables, samples, extremes, earliest)
        _end_run(tile, float(end - begin), first, width, domain, token_class, tables)
        if s + 1 == len(tokens.bounds) or tokens.runs[s + 1, 1] != token_class:
            _end_class(bins, token_class, width)
    _end_groups(tile, first, width, tokens.groups, tables.cells)


@_compiled(parallel=True, cache=True, error_model="numpy")
def _accumulate(
    a: np.ndarray,
    d: np.ndarray,
    tokens: Sorted,
    tables: Tables,
    samples: Held,
    extremes: Held,
    held: Cells,
    needed: np.ndarray,
    first: int,
) -> None:
    """The loop of the module docstring; `first` is the id of the first of the values' components."""
    for block in prange((a.shape[1] + LANES - 1) // LANES):
        column = block * LANES
        width, bins = min(LANES, a.shape[1] - column), _filled()
        _add_components(a, d, column, width, tokens, tables, samples, extremes, bins, first + column)
        for lane in range(width):
            n = bins.lengths[lane]
            of = bins.cells[lane, :n], bins.in_cells[lane, :n], bins.of_cells[lane, :, :n]
            needed[column + lane] = _join_bins(held, column + lane, of[0], of[1], of[2])


LANES, TILE = 32, 32
SPECTRUM_BINS = SPECTRUM.n_bins
COARSE_SHIFT, FINE_SHIFT = (np.int32(FLOAT32_MANTISSA - r.mantissa_bits) for r in (SPECTRUM, DENSITY))
COARSE_ZERO, FINE_ZERO = (
    np.int32(((FLOAT32_BIAS + LOWEST_EXPONENT) << r.mantissa_bits) - 1) for r in (SPECTRUM, DENSITY)
)
COARSE_SIDE, FINE_SIDE = (np.int32(r.per_side) for r in (SPECTRUM, DENSITY))
