"""All per-value work of one part of a batch in compiled loops, for the CPU.

What CellSums, PowerSums, SpectrumCounts and Smallest do with dozens of tensor passes is done here, for blocks of
components in parallel, by three loops over the block's values. Tokens come sorted into runs of equal cells.

* Sums, moments and extremes of each run, and sums by next class and position bucket: what a token belongs to is the
  same for all components, so LANES of them are added side by side, in vectors, four tokens at once.
* Bins and samples: a bin depends on the value, so components come one after the other, their values turned before; the
  table of one component stays in the cache and is then joined to its filled cells. A value that comes before the last
  of its sample is put in its place at once.

The tensor versions stay: other devices use them, and the tests hold the two against each other.

Sums are float64 throughout; powers are taken about the first value of a run of equal group and class
(profiler.recording.accumulators.central). Local tables have a size that LLVM knows, so that it knows, too, that their
rows do not overlap, and makes vectors. The first call compiles (cached on disk).
"""

import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numba import njit
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
class Runs:
    """Some tokens of a batch, sorted so that those of a cell come one after the other.

    Attributes:
        rows: int64 [token], where each stands in the tables that values come in.
        bounds: int64 [run, 2], first and last + 1 token of each run.
        cells: int64 [run, column], what the tokens of a run share.
        keys, positions: int64 [token]; keys are those of samples.
    """

    rows: np.ndarray
    bounds: np.ndarray
    cells: np.ndarray
    keys: np.ndarray
    positions: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, cells: np.ndarray, keys: np.ndarray, positions: np.ndarray) -> "Runs":
        """Tokens sorted by their cells, columns [column, token] of which the first is the last to change."""
        order = np.lexsort(cells[::-1])
        ordered = cells[:, order]
        change = np.flatnonzero((np.diff(ordered) != 0).any(0)) + 1
        starts = np.append(np.zeros(min(1, len(rows)), dtype=np.int64), change)
        bounds = np.stack([starts, np.append(starts[1:], np.full(min(1, len(rows)), len(rows)))], 1)
        return cls(rows[order], bounds, ordered[:, starts].T.copy(), keys[order], positions[order])

    def at(self, row_of: np.ndarray) -> "Runs":
        """Those of the tokens that are left; runs without a token are left out.

        Args:
            row_of: int64, for every row of the tables the row to take instead, -1 where it is left out.
        """
        rows = row_of[self.rows]
        is_left = rows >= 0
        bounds = np.append(0, np.cumsum(is_left))[self.bounds]
        filled = bounds[:, 0] < bounds[:, 1]
        tables = (table[is_left] for table in (self.keys, self.positions))
        return Runs(rows[is_left], bounds[filled], self.cells[filled], *tables)


@dataclass(frozen=True)
class Order:
    """The tokens of a batch in the orders that the loops read them in.

    Attributes:
        groups: runs of equal replicate group, domain, class, and 1 where the class is ordinary.
        axes: ordinary tokens twice: runs of equal replicate group and class of the next token, then of equal replicate
            group and position bucket; cells are group and cell.
        classes: runs of equal class, and 1 where it is ordinary.
    """

    groups: Runs
    axes: Runs
    classes: Runs

    def at(self, row_of: np.ndarray) -> "Order":
        """The order of some of its tokens (Runs.at)."""
        return Order(self.groups.at(row_of), self.axes.at(row_of), self.classes.at(row_of))

    def counts(self, n_cells: int) -> tuple[np.ndarray, np.ndarray]:
        """Replicate groups of the order, and the numbers of their tokens by cell."""
        groups = np.unique(self.groups.cells[:, 0])
        counts = np.zeros((len(groups), n_cells), dtype=np.int64)
        for runs, column in ((self.groups, 2), (self.axes, 1)):
            rows = np.searchsorted(groups, runs.cells[:, 0])
            np.add.at(counts, (rows, runs.cells[:, column]), runs.bounds[:, 1] - runs.bounds[:, 0])
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
    table = np.stack([t.numpy() for t in (rows, keys, positions, groups, domains, classes, ordinary.long())])
    after = np.stack([next_classes.numpy() + N_CLASSES, buckets.numpy() + 2 * N_CLASSES])
    of_token, (group, domain, token_class, is_ordinary) = table[:3], table[3:]
    chosen = is_ordinary != 0
    twice = np.tile(of_token[:, chosen], 2)
    axes = np.stack([np.tile(group[chosen], 2), after[:, chosen].ravel()])
    return Order(
        Runs.of(of_token[0], np.stack([group, domain, token_class, is_ordinary]), *of_token[1:]),
        Runs.of(twice[0], axes, *twice[1:]),
        Runs.of(of_token[0], np.stack([token_class, is_ordinary]), *of_token[1:]),
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
    """The tables of Runs, as the loops want them."""

    rows: np.ndarray
    bounds: np.ndarray
    cells: np.ndarray
    keys: np.ndarray
    positions: np.ndarray


def _tokens(runs: Runs) -> Tokens:
    return Tokens(*(getattr(runs, name) for name in Tokens._fields))


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
    a, d, first = activation.contiguous().numpy(), dla.contiguous().numpy(), components.start
    groups, axes, classes = map(_tokens, (order.groups, order.axes, order.classes))
    filled, rows = spectrum.block_of(components)
    needed = np.zeros(a.shape[1], dtype=np.int64)
    tables = (
        *(a, d, groups, axes, classes, cells.sums.numpy(), powers.sums.numpy(), powers.extrema.numpy()),
        *(_cells(filled, rows), needed, spectrum.density[components].numpy(), first, marks[components].numpy()),
        *(_held(samples), _held(extremes)),
    )
    _in_threads(np.arange(0, a.shape[1], LANES), lambda blocks: _accumulate(blocks, *tables))
    if needed.any():
        room = filled.lengths.clone()
        room[rows] = torch.maximum(room[rows], torch.from_numpy(needed))
        filled.grow(room)
        _add_left_out(a, d, classes, _cells(filled, rows), needed)


def _in_threads(starts: np.ndarray, work: Callable[[np.ndarray], None]) -> None:
    """Do the work of blocks in as many threads as torch has; compiled work holds no lock of Python's."""
    parts = np.array_split(starts, min(torch.get_num_threads(), len(starts)))
    if len(parts) == 1:
        work(starts)
        return
    with ThreadPoolExecutor(len(parts)) as threads:
        for done in [threads.submit(work, part) for part in parts]:
            done.result()


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


@_compiled(error_model="numpy")
def _offer_extremes(
    extremes: Held,
    cell: Number,
    a: np.ndarray,
    d: np.ndarray,
    column: Number,
    rows: np.ndarray,
    positions: np.ndarray,
) -> None:
    """Take those of a run's positions into a component's four lists of extremes that enter."""
    for t in range(len(rows)):
        x, y = a[rows[t], column], d[rows[t], column]
        _offer(extremes, cell, -x, positions[t], x, y)
        _offer(extremes, cell + 1, x, positions[t], x, y)
        _offer(extremes, cell + 2, -y, positions[t], x, y)
        _offer(extremes, cell + 3, y, positions[t], x, y)


_about_mean = _compiled(inline="always")(about_mean)
_joined = _compiled(inline="always")(joined)


@_compiled(error_model="numpy", fastmath={"contract", "nsz", "nnan"})
def _run_sums(values: np.ndarray, rows: np.ndarray, c0: int, w: int) -> np.ndarray:
    """Of a run's values of `w` components, [sum of sizes, of powers 1 to 4 of value - first, first][component].

    Four tokens are taken at once, because memory for the sums is the limit.
    """
    sums = np.zeros((6, LANES))
    r0 = values[rows[0], c0 : c0 + w]
    for j in range(w):
        sums[5, j] = np.float64(r0[j])
    whole = len(rows) // 4 * 4
    for t in range(0, whole, 4):
        r0, r1 = values[rows[t], c0 : c0 + w], values[rows[t + 1], c0 : c0 + w]
        r2, r3 = values[rows[t + 2], c0 : c0 + w], values[rows[t + 3], c0 : c0 + w]
        for j in range(w):
            first = sums[5, j]
            x0, x1, x2, x3 = np.float64(r0[j]), np.float64(r1[j]), np.float64(r2[j]), np.float64(r3[j])
            sums[0, j] += (abs(x0) + abs(x1)) + (abs(x2) + abs(x3))
            x0, x1, x2, x3 = x0 - first, x1 - first, x2 - first, x3 - first
            y0, y1, y2, y3 = x0 * x0, x1 * x1, x2 * x2, x3 * x3
            sums[1, j] += (x0 + x1) + (x2 + x3)
            sums[2, j] += (y0 + y1) + (y2 + y3)
            sums[3, j] += (y0 * x0 + y1 * x1) + (y2 * x2 + y3 * x3)
            sums[4, j] += (y0 * y0 + y1 * y1) + (y2 * y2 + y3 * y3)
    for t in range(whole, len(rows)):
        r0 = values[rows[t], c0 : c0 + w]
        for j in range(w):
            x0 = np.float64(r0[j])
            x1 = x0 - sums[5, j]
            x2 = x1 * x1
            sums[0, j] += abs(x0)
            sums[1, j] += x1
            sums[2, j] += x2
            sums[3, j] += x2 * x1
            sums[4, j] += x2 * x2
    return sums


@_compiled(error_model="numpy")
def _run_ends(values: np.ndarray, rows: np.ndarray, c0: int, w: int) -> np.ndarray:
    """Least and largest of a run's values, [2, component]."""
    ends = np.empty((2, LANES), values.dtype)
    r0 = values[rows[0], c0 : c0 + w]
    for j in range(w):
        ends[0, j] = ends[1, j] = r0[j]
    last = len(rows) - 1
    for t in range(1, len(rows), 4):
        r0, r1 = values[rows[t], c0 : c0 + w], values[rows[min(t + 1, last)], c0 : c0 + w]
        r2, r3 = values[rows[min(t + 2, last)], c0 : c0 + w], values[rows[min(t + 3, last)], c0 : c0 + w]
        for j in range(w):
            ends[0, j] = min(ends[0, j], min(min(r0[j], r1[j]), min(r2[j], r3[j])))
            ends[1, j] = max(ends[1, j], max(max(r0[j], r1[j]), max(r2[j], r3[j])))
    return ends


@_compiled(error_model="numpy")
def _join_moments(of: np.ndarray, row: int, k0: int, w: int, n: Number, sums: np.ndarray) -> None:
    """Join the moments of a run of n values, its `_run_sums`, to those of `w` components from k0 on.

    Args:
        of: [power, component], of which the first row is the number of values and those from `row` on mean, m2, m3, m4.
    """
    table = np.empty((11, LANES))
    for k in range(6):
        for j in range(w):
            table[k, j] = sums[k, j]
    for j in range(w):
        table[6, j] = of[0, k0 + j]
    for k in range(4):
        for j in range(w):
            table[7 + k, j] = of[row + k, k0 + j]
    for j in range(w):
        own = _about_mean(n, table[5, j], table[1, j], table[2, j], table[3, j], table[4, j])
        mine = table[7, j], table[8, j], table[9, j], table[10, j]
        mine = _joined(table[6, j], mine, n, own, table[6, j] + n)
        table[7, j], table[8, j], table[9, j], table[10, j] = mine
    for k in range(4):
        for j in range(w):
            of[row + k, k0 + j] = table[7 + k, j]


@_compiled(error_model="numpy")
def _widen(extrema: np.ndarray, k0: int, w: int, ends: np.ndarray) -> None:
    """Take new least and largest values into extrema[2, component]."""
    for j in range(w):
        extrema[0, k0 + j] = min(extrema[0, k0 + j], ends[0, j])
    for j in range(w):
        extrema[1, k0 + j] = max(extrema[1, k0 + j], ends[1, j])


@_compiled(error_model="numpy")
def _add_runs(
    a: np.ndarray,
    d: np.ndarray,
    c0: int,
    w: int,
    runs: Tokens,
    cell_sums: np.ndarray,
    power_sums: np.ndarray,
    extrema: np.ndarray,
    k0: int,
    extremes: Held,
) -> None:
    """Sums by class, moments and extremes of `w` components, the first of them at c0 in the values and k0 in tables."""
    for s in range(len(runs.bounds)):
        group, domain, token_class, ordinary = runs.cells[s]
        rows = runs.rows[runs.bounds[s, 0] : runs.bounds[s, 1]]
        n = float(len(rows))
        of_a, of_d = _run_sums(a, rows, c0, w), _run_sums(d, rows, c0, w)
        ends_a, ends_d = _run_ends(a, rows, c0, w), _run_ends(d, rows, c0, w)
        for j in range(w):
            cell_sums[0, group, token_class, k0 + j] += n * of_a[5, j] + of_a[1, j]
        for j in range(w):
            cell_sums[1, group, token_class, k0 + j] += n * of_d[5, j] + of_d[1, j]
        for j in range(w):
            cell_sums[2, group, token_class, k0 + j] += of_d[0, j]
        powers = power_sums[:, domain, token_class]
        _join_moments(powers, 1, k0, w, n, of_a)
        _join_moments(powers, 6, k0, w, n, of_d)
        for j in range(w):
            power_sums[0, domain, token_class, k0 + j] += n
        for j in range(w):
            power_sums[5, domain, token_class, k0 + j] += of_a[0, j]
        _widen(extrema[:2, domain, token_class], k0, w, ends_a)
        _widen(extrema[2:, domain, token_class], k0, w, ends_d)
        if ordinary:
            positions = runs.positions[runs.bounds[s, 0] : runs.bounds[s, 1]]
            for j in range(w):
                cell = 4 * (k0 + j)
                if (
                    ends_a[1, j] >= -extremes.limit[cell]
                    or ends_a[0, j] <= extremes.limit[cell + 1]
                    or ends_d[1, j] >= -extremes.limit[cell + 2]
                    or ends_d[0, j] <= extremes.limit[cell + 3]
                ):
                    _offer_extremes(extremes, cell, a, d, c0 + j, rows, positions)


@_compiled(error_model="numpy", fastmath={"contract", "nsz", "nnan"})
def _plain_sums(a: np.ndarray, d: np.ndarray, rows: np.ndarray, c0: int, w: int) -> np.ndarray:
    """Of a run's values of `w` components, [activation, DLA, |DLA|][component]; four tokens at once."""
    sums = np.zeros((3, LANES))
    whole = len(rows) // 4 * 4
    for t in range(0, whole, 4):
        r0, r1 = a[rows[t], c0 : c0 + w], a[rows[t + 1], c0 : c0 + w]
        r2, r3 = a[rows[t + 2], c0 : c0 + w], a[rows[t + 3], c0 : c0 + w]
        for j in range(w):
            sums[0, j] += (np.float64(r0[j]) + np.float64(r1[j])) + (np.float64(r2[j]) + np.float64(r3[j]))
        r0, r1 = d[rows[t], c0 : c0 + w], d[rows[t + 1], c0 : c0 + w]
        r2, r3 = d[rows[t + 2], c0 : c0 + w], d[rows[t + 3], c0 : c0 + w]
        for j in range(w):
            x0, x1, x2, x3 = np.float64(r0[j]), np.float64(r1[j]), np.float64(r2[j]), np.float64(r3[j])
            sums[1, j] += (x0 + x1) + (x2 + x3)
            sums[2, j] += (abs(x0) + abs(x1)) + (abs(x2) + abs(x3))
    for t in range(whole, len(rows)):
        r0, r1 = a[rows[t], c0 : c0 + w], d[rows[t], c0 : c0 + w]
        for j in range(w):
            sums[0, j] += np.float64(r0[j])
        for j in range(w):
            sums[1, j] += np.float64(r1[j])
            sums[2, j] += abs(np.float64(r1[j]))
    return sums


@_compiled(error_model="numpy")
def _add_axes(a: np.ndarray, d: np.ndarray, c0: int, w: int, runs: Tokens, cell_sums: np.ndarray, k0: int) -> None:
    """Sums by class of the next token and by position bucket, of the same components as `_add_runs`."""
    for s in range(len(runs.bounds)):
        group, cell = runs.cells[s]
        sums = _plain_sums(a, d, runs.rows[runs.bounds[s, 0] : runs.bounds[s, 1]], c0, w)
        for quantity in range(3):
            for j in range(w):
                cell_sums[quantity, group, cell, k0 + j] += sums[quantity, j]


@_compiled(error_model="numpy")
def _make_room(table: Cells, c: Number, sums: np.ndarray) -> Number:
    """Put a component's newly filled cells among its own, in order; 0, or how many cells it needs where there is no
    room for them, and nothing is changed."""
    start, length = table.starts[c], table.lengths[c]
    fresh = np.empty(N_CELLS, dtype=np.int16)
    new = 0
    for cell in range(N_CELLS):
        if sums[cell, 0] != 0:
            fresh[new] = cell
            new += 1
    needed = length + new
    if start + needed > table.starts[c + 1]:
        return needed
    table.lengths[c] = needed
    i, to = start + length - 1, start + needed - 1
    while new > 0:
        if i >= start and table.cells[i] > fresh[new - 1]:
            table.cells[to], table.counts[to] = table.cells[i], table.counts[i]
            table.sums[0, to], table.sums[1, to] = table.sums[0, i], table.sums[1, i]
            i -= 1
        else:
            new -= 1
            cell = fresh[new]
            table.cells[to], table.counts[to] = cell, np.int64(sums[cell, 0])
            table.sums[0, to], table.sums[1, to] = sums[cell, 1], sums[cell, 2]
            sums[cell] = 0.0
        to -= 1
    return 0


@_compiled(error_model="numpy")
def _join_bins(table: Cells, c: Number, n: Number, sums: np.ndarray) -> Number:
    """Add a component's table of all cells, of n values, to its filled ones, and empty it; 0, or how many cells it
    needs for those that were not filled before, which are left."""
    start, length = table.starts[c], table.lengths[c]
    counted = 0.0
    for i in range(start, start + length):
        cell = table.cells[i]
        counted += sums[cell, 0]
        table.counts[i] += np.int64(sums[cell, 0])
        table.sums[0, i] += sums[cell, 1]
        table.sums[1, i] += sums[cell, 2]
        sums[cell] = 0.0
    return 0 if counted == n else _make_room(table, c, sums)


@_compiled(error_model="numpy")
def _turned(values: np.ndarray, rows: np.ndarray, c0: int, w: int) -> np.ndarray:
    """Some rows of `w` columns of a table, turned: [column, row]; read and written in whole cache lines."""
    turned, tile = np.empty((w, len(rows)), values.dtype), np.empty((LINE, LANES), values.dtype)
    for t0 in range(0, len(rows), LINE):
        length = min(LINE, len(rows) - t0)
        for t in range(length):
            row = values[rows[t0 + t], c0 : c0 + w]
            for j in range(w):
                tile[t, j] = row[j]
        for j in range(w):
            line = turned[j, t0 : t0 + length]
            for t in range(length):
                line[t] = tile[t, j]
    return turned


@_compiled(error_model="numpy")
def _number_bins(values: np.ndarray, fine: np.ndarray, coarse: np.ndarray) -> None:
    """Each value's bin of the density and of the spectrum (bins.Resolution.index)."""
    bits = values.astype(np.float32).view(np.int32)
    for t in range(len(bits)):
        size, sign = _size(bits[t]), bits[t] >> 31
        fine[t] = DENSITY_SIDE + ((size ^ sign) - sign)
        size = (size + STEPS - 1) >> STEP_BITS
        coarse[t] = SPECTRUM_SIDE + ((size ^ sign) - sign)


@_compiled(inline="always")
def _size(bits: Number) -> Number:
    """How far from the zero bin a value's bin of the density is, from its bits."""
    size = ((bits & 0x7FFFFFFF) >> (FLOAT32_MANTISSA - DENSITY_BITS)) - (
        ((FLOAT32_BIAS + LOWEST_EXPONENT) << DENSITY_BITS) - 1
    )
    return min(max(size, 0), DENSITY_SIDE)


@_compiled(error_model="numpy")
def _fill(sums: np.ndarray, runs: Tokens, coarse: np.ndarray, y: np.ndarray) -> None:
    """Add a component's values to its [cell, (count, DLA, |DLA|)]."""
    for s in range(len(runs.bounds)):
        of_class = sums[runs.cells[s, 0] * SPECTRUM_BINS : (runs.cells[s, 0] + 1) * SPECTRUM_BINS]
        for t in range(runs.bounds[s, 0], runs.bounds[s, 1]):
            value, cell = np.float64(y[t]), coarse[t]
            of_class[cell, 0] += 1.0
            of_class[cell, 1] += value
            of_class[cell, 2] += abs(value)


@_compiled(error_model="numpy")
def _fill_and_sample(
    sums: np.ndarray,
    density: np.ndarray,
    samples: Held,
    cell: int,
    mark: int,
    runs: Tokens,
    fine: np.ndarray,
    coarse: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
) -> None:
    """`_fill`, and of the ordinary classes' values the counts of the density, and the samples of the bins, which begin
    at `cell`: in one loop, as each waits for memory."""
    limit = samples.limit[cell : cell + SPECTRUM_BINS]
    for s in range(len(runs.bounds)):
        of_class = sums[runs.cells[s, 0] * SPECTRUM_BINS : (runs.cells[s, 0] + 1) * SPECTRUM_BINS]
        ordinary = runs.cells[s, 1]
        for t in range(runs.bounds[s, 0], runs.bounds[s, 1]):
            value, number = np.float64(y[t]), coarse[t]
            of_class[number, 0] += 1.0
            of_class[number, 1] += value
            of_class[number, 2] += abs(value)
            if ordinary:
                density[fine[t]] += 1
                key = (runs.keys[t] ^ mark) * MULTIPLIER
                if key <= limit[number]:
                    _offer(samples, cell + number, key, runs.positions[t], x[t], y[t])


@_compiled(error_model="numpy")
def _add_bins(
    a: np.ndarray,
    d: np.ndarray,
    c0: int,
    w: int,
    runs: Tokens,
    table: Cells,
    needed: np.ndarray,
    density: np.ndarray,
    k0: int,
    marks: np.ndarray,
    samples: Held,
) -> None:
    """Bins and samples, component after component; `needed` says which had too little memory for new cells."""
    n_tokens = len(runs.rows)
    x, y = _turned(a, runs.rows, c0, w), _turned(d, runs.rows, c0, w)
    fine, coarse = np.empty(n_tokens, dtype=np.uint32), np.empty(n_tokens, dtype=np.uint32)
    sums = np.zeros((N_CELLS, 4))
    for j in range(w):
        c = c0 + j
        _number_bins(x[j], fine, coarse)
        cell = (k0 + j) * SPECTRUM_BINS
        _fill_and_sample(sums, density[c], samples, cell, marks[c], runs, fine, coarse, x[j], y[j])
        needed[c] = _join_bins(table, c, n_tokens, sums)
        if needed[c] > 0:
            sums[:] = 0.0


@_compiled(nogil=True, cache=True, error_model="numpy")
def _accumulate(
    blocks: np.ndarray,
    a: np.ndarray,
    d: np.ndarray,
    groups: Tokens,
    axes: Tokens,
    classes: Tokens,
    cell_sums: np.ndarray,
    power_sums: np.ndarray,
    extrema: np.ndarray,
    filled: Cells,
    needed: np.ndarray,
    density: np.ndarray,
    first: int,
    marks: np.ndarray,
    samples: Held,
    extremes: Held,
) -> None:
    """The loops of the module docstring, of the blocks of LANES components that begin at `blocks`."""
    for c0 in blocks:
        w, k0 = min(LANES, a.shape[1] - c0), first + c0
        _add_runs(a, d, c0, w, groups, cell_sums, power_sums, extrema, k0, extremes)
        _add_axes(a, d, c0, w, axes, cell_sums, k0)
        _add_bins(a, d, c0, w, classes, filled, needed, density, k0, marks, samples)


@_compiled(cache=True, error_model="numpy")
def _add_left_out(a: np.ndarray, d: np.ndarray, runs: Tokens, table: Cells, needed: np.ndarray) -> None:
    """Fill the cells of components that had too little memory for them in `_add_bins`."""
    fine, coarse = np.empty(len(runs.rows), dtype=np.uint32), np.empty(len(runs.rows), dtype=np.uint32)
    sums = np.zeros((N_CELLS, 4))
    for c0 in range(0, len(needed), LANES):
        w = min(LANES, len(needed) - c0)
        if needed[c0 : c0 + w].max() > 0:
            x, y = _turned(a, runs.rows, c0, w), _turned(d, runs.rows, c0, w)
            for j in range(w):
                c = c0 + j
                if needed[c] > 0:
                    _number_bins(x[j], fine, coarse)
                    _fill(sums, runs, coarse, y[j])
                    for i in range(table.starts[c], table.starts[c] + table.lengths[c]):
                        sums[table.cells[i]] = 0.0  # these were added
                    _make_room(table, c, sums)


SPECTRUM_SIDE, SPECTRUM_BINS = SPECTRUM.per_side, SPECTRUM.n_bins
DENSITY_BITS, DENSITY_SIDE = DENSITY.mantissa_bits, DENSITY.per_side
STEP_BITS = DENSITY.mantissa_bits - SPECTRUM.mantissa_bits
STEPS = 1 << STEP_BITS
"""Bins of the density in a bin of the spectrum."""
LINE = 16
"""Values of a cache line, in float32."""
LANES = 128
"""Components that are taken side by side: enough for reads of a row to be long, few enough for their sums to stay in
the first-level cache."""
