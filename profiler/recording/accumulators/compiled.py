"""All per-value work of one part of a batch in one loop, compiled, for the CPU.

What CellSums, PowerSums, SpectrumCounts and Smallest do with dozens of tensor passes is done here while the values are
in the first-level cache: LANES components side by side are the outer (parallel) loop, so that a token's class, cell and
group are the same for all of them and sums are sums of vectors; the tokens come sorted by class and replicate group, in
tiles, so that a class's bins stay in the cache. Bins differ between components and are counted value by value. A tile is compared with the last entries of
samples and extremes as a whole; only a value that may come before one of them is looked at alone, and put in its place
at once. The tensor versions stay: other devices use them, and the tests hold the two against each other.

Sums are float64 throughout; powers are taken about the first value of a run of equal group and class
(profiler.recording.accumulators.central), and sums per group and class follow from them at its end. Cost: about 6 ns a
value on one core, half of it for bins; the first call compiles for some seconds (cached on disk).
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
from profiler.recording.accumulators.spectrum import SpectrumCounts
from profiler.text.sampling_keys import GOLDEN, signed

MULTIPLIER = signed(GOLDEN)
Number = Any
"""A scalar of the compiled loop: its type is the compiler's to find."""


@dataclass(frozen=True)
class Order:
    """The tokens of a batch sorted by class and replicate group, and the runs of equal ones.

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

    def at(self, place: np.ndarray) -> "Order":
        """The order of some of its tokens; runs without a token are left out.

        Args:
            place: int64, for every row of the tables the row to take instead, -1 where it is left out.
        """
        rows = place[self.rows]
        kept = rows >= 0
        bounds = np.append(0, np.cumsum(kept))[self.bounds]
        held = bounds[:, 0] < bounds[:, 1]
        tables = (table[kept] for table in (self.tokens, self.keys, self.positions))
        return Order(rows[kept], bounds[held], self.cells[held], *tables)

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
    order = torch.argsort(classes * (int(groups.max()) + 1) + groups if len(groups) else groups, stable=True)
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
    tables = Tables(
        cells.sums.numpy(),
        powers.sums.numpy(),
        powers.extrema.numpy(),
        spectrum.counts.numpy(),
        spectrum.sums.numpy(),
        spectrum.density.numpy(),
        marks.numpy(),
    )
    held = _held(samples), _held(extremes)
    groups, number = np.unique(order.cells[:, 0], return_inverse=True)
    runs = np.column_stack([order.cells, number])
    tokens = Sorted(groups, order.rows, order.bounds, runs, order.tokens, order.keys, order.positions)
    _accumulate(activation.contiguous().numpy(), dla.contiguous().numpy(), tokens, tables, *held, components.start)


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
    """Add n tokens' values to sums of powers about `about` (of activations, then of DLA), and of sizes."""
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
            sums[9 * LANES + lane] += abs(y8)


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
def _add_cells(x: np.ndarray, y: np.ndarray, tokens: np.ndarray, cells: np.ndarray) -> None:
    """Add tokens' values to their cells: activation, DLA, |DLA|."""
    for axis in range(2):
        for i in range(len(tokens)):
            start = tokens[i, axis] * (3 * LANES)
            cell = cells[start : start + 3 * LANES]
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
def _draw(
    coarse: np.ndarray, fine: np.ndarray, lane: int, keys: np.ndarray, mark: int, density: np.ndarray, limits: np.ndarray, may_enter: np.ndarray
) -> int:
    """Count a component's ordinary values in fine bins; note which may enter their bin's sample, and return how many."""
    found = 0
    for i in range(len(keys)):
        density[fine[i * LANES + lane]] += 1
        enters = (keys[i] ^ mark) * MULTIPLIER <= limits[coarse[i * LANES + lane]]
        may_enter[i * LANES + lane] = enters
        found += enters
    return found


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
def _exceed(x: np.ndarray, y: np.ndarray, n: int, bounds: np.ndarray, may_enter: np.ndarray) -> int:
    """Note which of n tokens' values may enter an extreme, and return how many."""
    found = 0
    for i in range(n):
        for lane in range(LANES):
            x1, y1 = x[i * LANES + lane], y[i * LANES + lane]
            over = (x1 > bounds[lane]) | (y1 > bounds[2 * LANES + lane])
            under = (x1 < bounds[LANES + lane]) | (y1 < bounds[3 * LANES + lane])
            may_enter[i * LANES + lane] |= over | under
            found += over | under
    return found


class Sorted(NamedTuple):
    """An Order, as the loop wants it: `groups` are the replicate groups in it, and of each run the last column is the
    number of its group among them."""

    groups: np.ndarray
    rows: np.ndarray
    bounds: np.ndarray
    runs: np.ndarray
    cells: np.ndarray
    keys: np.ndarray
    positions: np.ndarray


class Tables(NamedTuple):
    """All accumulators' arrays, of all components; `spectrum` are counts, sums of DLA and of |DLA|."""

    cells: np.ndarray
    powers: np.ndarray
    extrema: np.ndarray
    counts: np.ndarray
    sums: np.ndarray
    density: np.ndarray
    marks: np.ndarray


class Tile(NamedTuple):
    """Values of up to TILE tokens of LANES components, their bins, and what a run of tokens adds up to."""

    x: np.ndarray
    y: np.ndarray
    single: np.ndarray
    coarse: np.ndarray
    fine: np.ndarray
    may_enter: np.ndarray
    about: np.ndarray
    powers: np.ndarray
    ends: np.ndarray
    cells: np.ndarray
    bounds: np.ndarray
    held: np.ndarray


@_compiled(error_model="numpy")
def _tile(values: np.ndarray, n_cells: int) -> Tile:
    """An empty tile."""
    x, n = np.zeros(TILE * LANES, values.dtype), TILE * LANES
    bins = np.zeros(n, np.uint32), np.zeros(n, np.uint32), np.zeros(n, np.uint8)
    run = np.zeros(2 * LANES), np.zeros(10 * LANES), np.zeros(4 * LANES, values.dtype)
    bounds = np.zeros(4 * LANES, values.dtype)
    cells, held = np.zeros(n_cells * 3 * LANES), np.zeros(10 * LANES)
    return Tile(x, x.copy(), np.zeros(n, np.float32), *bins, *run, cells, bounds, held)


@_compiled(error_model="numpy")
def _begin_run(tile: Tile) -> None:
    """Forget the run before."""
    tile.powers[:] = 0.0
    tile.about[:LANES], tile.about[LANES:] = tile.x[:LANES], tile.y[:LANES]
    for lane in range(LANES):
        tile.ends[lane], tile.ends[LANES + lane] = np.inf, -np.inf
        tile.ends[2 * LANES + lane], tile.ends[3 * LANES + lane] = np.inf, -np.inf


@_compiled(error_model="numpy")
def _offer_all(
    tile: Tile,
    first: int,
    width: int,
    keys: np.ndarray,
    positions: np.ndarray,
    marks: np.ndarray,
    samples: Held,
    extremes: Held,
) -> None:
    """Take the values of a tile that may enter samples and extremes."""
    for i in range(len(keys)):
        for lane in range(width):
            if tile.may_enter[i * LANES + lane]:
                component, position = first + lane, positions[i]
                x, y = tile.x[i * LANES + lane], tile.y[i * LANES + lane]
                stratum = component * SPECTRUM_BINS + np.int64(tile.coarse[i * LANES + lane])
                _offer(samples, stratum, (keys[i] ^ marks[component]) * MULTIPLIER, position, x, y)
                _offer(extremes, 4 * component, -x, position, x, y)
                _offer(extremes, 4 * component + 1, x, position, x, y)
                _offer(extremes, 4 * component + 2, -y, position, x, y)
                _offer(extremes, 4 * component + 3, y, position, x, y)


@_compiled(error_model="numpy")
def _add_tile(
    tile: Tile, n: int, first: int, width: int, token_class: int, keys: np.ndarray, tables: Tables, drawn: np.ndarray
) -> int:
    """Add a tile's values to everything but samples and extremes, and return how many of them may enter those.

    Args:
        keys: of ordinary tokens; empty where the tokens are special.
        drawn: of each stratum the last key of its sample.
    """
    tile.single[: n * LANES] = tile.x[: n * LANES]
    _number(tile.single.view(np.int32), n * LANES, tile.coarse, tile.fine)
    _add_powers(tile.x, tile.y, n, tile.about, tile.powers)
    _widen(tile.x, tile.y, n, tile.ends)
    found = 0
    for lane in range(width):
        c = first + lane
        _count(tile.coarse, tile.y, lane, n, tables.counts[c, token_class], tables.sums[0, c, token_class], tables.sums[1, c, token_class])
        limits = drawn[c * SPECTRUM_BINS : (c + 1) * SPECTRUM_BINS]
        found += _draw(tile.coarse, tile.fine, lane, keys, tables.marks[c], tables.density[c], limits, tile.may_enter)
    return found + _exceed(tile.x, tile.y, len(keys), tile.bounds, tile.may_enter)


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
def _end_run(tile: Tile, n: Number, first: int, width: int, run: np.ndarray, tables: Tables) -> None:
    """Add what a run of n tokens adds up to, to the sums of its class: per group, and moments per domain."""
    group, domain, token_class = run[0], run[1], run[2]
    last, p = first + width, tile.powers
    a, d = tables.cells[0, group, token_class, first:last], tables.cells[1, group, token_class, first:last]
    sizes = tables.cells[2, group, token_class, first:last]
    for lane in range(width):
        a[lane] += p[lane] + n * tile.about[lane]
        d[lane] += p[5 * LANES + lane] + n * tile.about[LANES + lane]
        sizes[lane] += p[9 * LANES + lane]
    for power in range(10):
        tile.held[power * LANES : power * LANES + width] = tables.powers[power, domain, token_class, first:last]
    _join(tile.held, n, tile.about, p)
    for power in range(10):
        tables.powers[power, domain, token_class, first:last] = tile.held[power * LANES : power * LANES + width]
    for end in range(4):
        row = tables.extrema[end, domain, token_class, first:last]
        for lane in range(width):
            mine = tile.ends[end * LANES + lane]
            row[lane] = max(row[lane], mine) if end % 2 else min(row[lane], mine)


@_compiled(error_model="numpy")
def _end_groups(tile: Tile, first: int, width: int, groups: np.ndarray, tables: Tables) -> None:
    """Add the sums per group and cell."""
    n_cells = tables.cells.shape[2] - N_CLASSES
    for number in range(len(groups)):
        for cell in range(n_cells):
            for quantity in range(3):
                row = tables.cells[quantity, groups[number], N_CLASSES + cell, first : first + width]
                start = (3 * (number * n_cells + cell) + quantity) * LANES
                for lane in range(width):
                    row[lane] += tile.cells[start + lane]


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
    first: int,
) -> None:
    """Feed `width` components, from `column` of the values on, to every accumulator; `first` is the component's id."""
    n_cells, earliest = tables.cells.shape[2] - N_CLASSES, tokens.positions.min()
    tile = _tile(a, len(tokens.groups) * n_cells)
    _bound(extremes, first, width, earliest, tile.bounds)
    for s in range(len(tokens.bounds)):
        run, begin, end = tokens.runs[s], tokens.bounds[s, 0], tokens.bounds[s, 1]
        sums = tile.cells[3 * LANES * n_cells * run[4] : 3 * LANES * n_cells * (run[4] + 1)]
        for start in range(begin, end, TILE):
            stop = min(start + TILE, end)
            counted = stop if run[3] else start
            _load(a, tokens.rows[start:stop], column, width, tile.x)
            _load(d, tokens.rows[start:stop], column, width, tile.y)
            if start == begin:
                _begin_run(tile)
            cells, keys = tokens.cells[start:counted], tokens.keys[start:counted]
            _add_cells(tile.x, tile.y, cells, sums)
            if _add_tile(tile, stop - start, first, width, run[2], keys, tables, samples.limit):
                _offer_all(tile, first, width, keys, tokens.positions[start:counted], tables.marks, samples, extremes)
                _bound(extremes, first, width, earliest, tile.bounds)
        _end_run(tile, float(end - begin), first, width, run, tables)
    _end_groups(tile, first, width, tokens.groups, tables)


@_compiled(parallel=True, cache=True, error_model="numpy")
def _accumulate(a: np.ndarray, d: np.ndarray, tokens: Sorted, tables: Tables, samples: Held, extremes: Held, first: int) -> None:
    """The loop of the module docstring; `first` is the id of the first of the values' components."""
    for block in prange((a.shape[1] + LANES - 1) // LANES):
        column = block * LANES
        width = min(LANES, a.shape[1] - column)
        _add_components(a, d, column, width, tokens, tables, samples, extremes, first + column)


LANES, TILE = 32, 32
SPECTRUM_BINS = SPECTRUM.n_bins
COARSE_SHIFT, FINE_SHIFT = (np.int32(FLOAT32_MANTISSA - r.mantissa_bits) for r in (SPECTRUM, DENSITY))
COARSE_ZERO, FINE_ZERO = (
    np.int32(((FLOAT32_BIAS + LOWEST_EXPONENT) << r.mantissa_bits) - 1) for r in (SPECTRUM, DENSITY)
)
COARSE_SIDE, FINE_SIDE = (np.int32(r.per_side) for r in (SPECTRUM, DENSITY))
