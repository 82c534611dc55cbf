"""Accumulators: any split merged equals the whole, order does not matter, and the whole equals NumPy on raw values."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from worlds import AXES, COMPONENTS, CPU, LAYOUT, N_COMPONENTS, World, dense_bins

from profiler.recording.accumulators.bins import DENSITY, SPECTRUM
from profiler.recording.accumulators.cells import BUCKET_STARTS, EXTREMA, N_CLASSES, POWERS, CellSums, PowerSums
from profiler.recording.accumulators.central import about_mean, joined
from profiler.recording.accumulators.dense import DenseRows
from profiler.recording.accumulators.smallest import Entries, Smallest
from profiler.recording.accumulators.spectrum import Bins, FilledCells, SpectrumCounts, counting_type
from profiler.text.sampling_keys import component_keys, component_marks
from profiler.text.windows import Batch, make_batch


def new_cells() -> CellSums:
    return CellSums(AXES, N_COMPONENTS, CPU)


def add_to_cells(cells: CellSums, world: World, batch: Batch) -> None:
    cells.grow(int(batch.groups.max()) + 1)
    hot = AXES.indicator(batch, torch.float64)
    cells.count(batch.groups, hot)
    cells.update(batch.groups, hot, world.part(batch))


def new_powers() -> PowerSums:
    return PowerSums(N_COMPONENTS, CPU, torch.float64)


def at_positions(world: World, batch: Batch) -> tuple[torch.Tensor, ...]:
    part, valid = world.part(batch), batch.valid
    return part.activation[valid], part.dla[valid], batch.classes[valid], batch.ordinary[valid].nonzero()[:, 0]


def add_to_powers(powers: PowerSums, world: World, batch: Batch) -> None:
    powers.grow(int(batch.domains.max()) + 1)
    powers.update(batch.domains, AXES.indicator(batch, torch.float64)[:, AXES.slices["class"]], world.part(batch))
    a, d, _, _ = at_positions(world, batch)
    cells = (batch.domains[:, None] * N_CLASSES + batch.classes)[batch.valid]
    powers.update_extrema(cells, COMPONENTS, a, d)


def new_spectrum() -> SpectrumCounts:
    return SpectrumCounts(N_COMPONENTS, CPU)


def add_to_spectrum(spectrum: SpectrumCounts, world: World, batch: Batch) -> None:
    spectrum.update(COMPONENTS, *at_positions(world, batch))


def new_dense() -> DenseRows:
    return DenseRows(6, N_COMPONENTS, 2, CPU)


def add_to_dense(dense: DenseRows, world: World, batch: Batch) -> None:
    plan = dense.plan(batch)
    dense.update(plan, world.part(batch))
    dense.outcome[plan.slots] = batch.position_ids[plan.windows, plan.offsets, None].double() + torch.arange(4)
    dense.update_attention(
        plan, slice(0, 2), dense.outcome[plan.slots, :1, None].expand(-1, 2, dense.attention.shape[2])
    )


def new_samples() -> Smallest:
    return Smallest(3, 4, torch.int64, torch.float64, CPU)


def add_to_samples(samples: Smallest, world: World, batch: Batch, seen: int = 0) -> None:
    a, d, _, ordinary = at_positions(world, batch)
    positions, keys = batch.position_ids[batch.valid][ordinary], batch.keys[batch.valid][ordinary]
    samples.offer(
        torch.arange(3), component_keys(keys, component_marks(1, 3)), positions, a[ordinary], d[ordinary], seen
    )


def new_extremes() -> Smallest:
    return Smallest(3, 4, torch.float64, torch.float64, CPU)


def add_to_extremes(extremes: Smallest, world: World, batch: Batch) -> None:
    """Coarse values, so that there are many ties."""
    a, d, _, ordinary = at_positions(world, batch)
    a = a[ordinary].round()
    extremes.offer(torch.arange(3), a, batch.position_ids[batch.valid][ordinary], a, d[ordinary], 0)


KINDS: dict[str, tuple[Callable[[], Any], Callable[..., None]]] = {
    "CellSums": (new_cells, add_to_cells),
    "PowerSums": (new_powers, add_to_powers),
    "SpectrumCounts": (new_spectrum, add_to_spectrum),
    "Smallest, random keys": (new_samples, add_to_samples),
    "Smallest, tied values": (new_extremes, add_to_extremes),
    "DenseRows": (new_dense, add_to_dense),
}


def state(accumulator: Any) -> dict[str, np.ndarray]:
    """What an accumulator holds, in an order of its own where its order has no meaning."""
    if isinstance(accumulator, DenseRows):
        order = accumulator.positions.argsort()
        return {k: v[order].numpy() for k, v in vars(accumulator).items() if isinstance(v, torch.Tensor)}
    if isinstance(accumulator, SpectrumCounts):
        counts, sums = dense_bins(accumulator, slice(0, N_COMPONENTS))
        return {"counts": counts.numpy(), "sums": sums.numpy(), "density": accumulator.density.numpy()}
    return {k: v.numpy() for k, v in vars(accumulator).items() if isinstance(v, torch.Tensor)}


def fed(kind: str, world: World, batches: list[Batch]) -> Any:
    new, add = KINDS[kind]
    accumulator = new()
    if hasattr(accumulator, "grow"):
        accumulator.grow(6 if kind == "CellSums" else 2)
    for batch in batches:
        add(accumulator, world, batch)
    return accumulator


LENGTHS = st.lists(st.integers(0, 20), min_size=1, max_size=8)
KIND = pytest.mark.parametrize("kind", list(KINDS))


@pytest.mark.slow
@KIND
@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 2**32 - 1), n_parts=st.integers(1, 4))
def test_any_split_in_any_order_merged_equals_the_whole(kind, lengths, seed, n_parts):
    world = World.of(lengths)
    whole = fed(kind, world, [make_batch([w], LAYOUT) for w in world.windows])
    merged, *others = [fed(kind, world, batches) for batches in world.batches(seed, n_parts)]
    for other in others:
        merged.merge(other)
    for name, want in state(whole).items():
        np.testing.assert_allclose(state(merged)[name], want, rtol=1e-12, atol=1e-12, err_msg=name)


@KIND
def test_an_empty_accumulator_is_neutral(kind):
    world = World.of([9, 14, 3])
    batches = [make_batch(world.windows, LAYOUT)]
    for first, second in ((batches, []), ([], batches)):
        left = fed(kind, world, first)
        left.merge(fed(kind, world, second))
        for name, want in state(fed(kind, world, batches)).items():
            np.testing.assert_array_equal(state(left)[name], want, err_msg=name)


@pytest.fixture(scope="module")
def world() -> World:
    return World.of([20, 3, 17, 1, 40, 8, 7, 16, 30], seed=5)


def fill(kind: str, world: World) -> Any:
    return fed(kind, world, [batch for part in world.batches(3, 1) for batch in part])


def test_cell_sums_agree_with_numpy_on_the_raw_values(world):
    cells, raw = fill("CellSums", world), world.raw()
    buckets = np.searchsorted(BUCKET_STARTS, raw["offset"], side="right") - 1
    for axis, values, among in (
        ("class", raw["class"], np.ones(len(buckets), bool)),
        ("next_class", raw["next"], raw["ordinary"]),
        ("position", buckets, raw["ordinary"]),
    ):
        of_axis = AXES.slices[axis]
        for value in range(of_axis.stop - of_axis.start):
            for group in range(6):
                at = (values == value) & (raw["group"] == group) & among
                assert cells.counts[group, of_axis][value] == at.sum()
                got = cells.sums[:, group, of_axis][:, value, COMPONENTS]
                want = [raw["a"][at].sum(0), raw["d"][at].sum(0), np.abs(raw["d"][at]).sum(0)]
                np.testing.assert_allclose(got, want, atol=1e-10)
    assert not cells.sums[..., 0].any()
    assert not cells.sums[..., 4].any()


def moments_of(x: np.ndarray) -> list[np.ndarray]:
    """Mean and sums of powers of value - mean, by column, in numpy's own way."""
    away = x - x.mean(0) if len(x) else x
    return [x.mean(0) if len(x) else x.sum(0), *((away**power).sum(0) for power in (2, 3, 4))]


def test_power_sums_and_extremes_agree_with_numpy_on_the_raw_values(world):
    powers, raw = fill("PowerSums", world), world.raw()
    a, d = raw["a"], raw["d"]
    for domain in range(2):
        for token_class in range(N_CLASSES):
            at = (raw["domain"] == domain) & (raw["class"] == token_class)
            want = [np.full(a.shape[1], at.sum()), *moments_of(a[at]), np.abs(a[at]).sum(0), *moments_of(d[at])]
            for name, row, values in zip(POWERS, powers.sums[:, domain, token_class, COMPONENTS], want, strict=True):
                np.testing.assert_allclose(row, values, atol=1e-10, err_msg=name)
            want = [
                a[at].min(0, initial=np.inf),
                a[at].max(0, initial=-np.inf),
                d[at].min(0, initial=np.inf),
                d[at].max(0, initial=-np.inf),
            ]
            np.testing.assert_array_equal(powers.extrema[:, domain, token_class, COMPONENTS], want)


@pytest.mark.parametrize("centre", [0.0, 1e4, -1e6])
def test_moments_are_right_where_the_mean_is_far_from_zero(centre):
    """Raw powers lose them: at a mean of 10,000 and a deviation of 1 the fourth is 10^16 times smaller than its
    terms."""
    rng = np.random.default_rng(0)
    x = centre + rng.gamma(2.0, size=(3000, 2))
    parts, joined_ = np.split(x, [1, 40, 41, 900]), (0.0, 0.0, 0.0, 0.0)
    n = 0.0
    for part in parts:
        away = part[:, 0] - part[0, 0]
        found = about_mean(len(part), part[0, 0], *(math.fsum(away**p) for p in (1, 2, 3, 4)))
        joined_ = joined(n, joined_, len(part), found, n + len(part))
        n += len(part)
    mean, m2, m3, m4 = joined_
    np.testing.assert_allclose(mean, x[:, 0].mean(), rtol=1e-14)
    np.testing.assert_allclose([m2, m3, m4], [v[0] for v in moments_of(x)[1:]], rtol=1e-8)
    assert abs(m4 / n / (m2 / n) ** 2 - stats.kurtosis(x[:, 0], fisher=False)) < 1e-8


def test_an_empty_part_changes_no_bit_of_the_moments():
    some, none = (0.1, 2.3, -0.7, 9.1), (0.0, 0.0, 0.0, 0.0)
    assert joined(3.0, some, 0.0, none, 3.0) == some
    assert joined(0.0, none, 3.0, some, 3.0) == some
    tensors = tuple(torch.tensor(value, dtype=torch.float64) for value in some)
    assert (
        joined(torch.tensor(3.0), tensors, torch.tensor(0.0), (torch.zeros(1)[0].double(),) * 4, torch.tensor(3.0))
        == tensors
    )


def test_maximum_of_negative_values_is_negative_and_of_nothing_infinite():
    """Extremes that start at 0 would give 0 (anchors, trap S11)."""
    world = World.of([20, 20], shift=100.0)
    powers, raw = fill("PowerSums", world), world.raw()
    seen = np.isin(np.arange(N_CLASSES), raw["class"][raw["domain"] == 0])
    smallest, largest = (powers.extrema[EXTREMA.index(name), 0][:, COMPONENTS].numpy() for name in ("a_min", "a_max"))
    assert (largest[seen] < -90).all()
    assert (largest[~seen] == -np.inf).all()
    assert (smallest[~seen] == np.inf).all()
    assert (powers.extrema[0, :, :, 0] == np.inf).all()


def test_top_of_negative_values_holds_no_zero():
    keep = Smallest(1, 3, torch.float32, torch.float32, CPU)
    values = torch.tensor([[-5.0], [-2.0]])
    keep.offer(torch.tensor([0]), -values, torch.tensor([10, 11]), values, values, 0)
    entries = keep.entries()
    assert entries.activation.tolist() == [-2.0, -5.0]
    assert entries.positions.tolist() == [11, 10]


def test_spectrum_agrees_with_numpy_on_the_raw_values(world):
    spectrum, raw = fill("SpectrumCounts", world), world.raw()
    counts, sums = dense_bins(spectrum, slice(0, N_COMPONENTS))
    for column in range(3):
        a, d = raw["a"][:, column], raw["d"][:, column]
        for resolution, by_class in ((SPECTRUM, True), (DENSITY, False)):
            edges = resolution.edges()
            at = np.where(a < 0, np.searchsorted(edges, a, "left"), np.searchsorted(edges, a, "right")) - 1
            if not by_class:
                want = np.bincount(at[raw["ordinary"]], minlength=resolution.n_bins)
                np.testing.assert_array_equal(spectrum.density[1 + column], want)
                continue
            for token_class in range(N_CLASSES):
                own = raw["class"] == token_class
                for got, weights in (
                    (counts, np.ones_like(d)),
                    (sums[0], d),
                    (sums[1], np.abs(d)),
                ):
                    want = np.bincount(at[own], weights[own], resolution.n_bins)
                    np.testing.assert_allclose(got[1 + column, token_class], want, atol=1e-12)


def test_counts_are_narrow_where_the_tokens_are_known_to_be_few():
    kinds = [counting_type(tokens) for tokens in (1_000_000, 2**30, 2**30 + 1, None)]
    assert kinds == [torch.int32, torch.int32, torch.int64, torch.int64]


def test_filled_cells_take_new_ones_in_any_order_and_keep_room_for_more():
    filled = FilledCells(3, CPU, torch.int32)
    sums = torch.arange(8.0, dtype=torch.float64).view(2, 4)
    new = Bins(torch.tensor([2, 0, 2, 2]), torch.tensor([9, 5, 3, 9]), torch.ones(4, dtype=torch.int32), sums)
    filled.join(new)
    filled.grow(torch.tensor([40, 0, 0]))
    filled.join(Bins(*(table[..., :1] for table in vars(new).values())))
    held = filled.entries()
    assert held.component.tolist() == [0, 2, 2] and held.cell.tolist() == [5, 3, 9]
    assert held.counts.tolist() == [1, 1, 3] and held.sums.tolist() == [[1, 2, 3], [5, 6, 15]]
    filled.grow(torch.tensor([40, 0, 0]))
    assert (filled.starts.diff() - filled.lengths).min() >= 0 and filled.starts[1] >= 40
    assert all(map(torch.equal, vars(filled.entries()).values(), vars(held).values()))


def test_extremes_agree_with_a_sort_and_ties_go_to_the_smaller_position(world):
    extremes, raw = fill("Smallest, tied values", world), world.raw()
    for column in range(3):
        a, ids = raw["a"][raw["ordinary"], column].round(), raw["id"][raw["ordinary"]]
        order = np.lexsort([ids, a])[:4]
        assert len(np.unique(a[order])) < 4, "no ties to be tested"
        assert extremes.keys[column].tolist() == a[order].tolist()
        assert extremes.positions[column].tolist() == ids[order].tolist()


def test_cells_with_fewer_entries_than_places_keep_them_all():
    keep = Smallest(4, 3, torch.int64, torch.float32, CPU)
    keep.update(Entries(*map(torch.tensor, ([2, 0, 2], [5, 1, -9], [7, 8, 9], [0.5, 1.0, 2.0], [0.0, 0.0, 1.0]))))
    assert keep.positions.tolist() == [[8, -1, -1], [-1] * 3, [9, 7, -1], [-1] * 3]
    assert keep.entries().cells.tolist() == [0, 2, 2]


@pytest.mark.parametrize("seen", [0, 1, 1_000_000])
def test_how_offers_are_cut_into_blocks_changes_nothing(seen):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(700, 3, generator=generator).round(decimals=1)
    cells = torch.randint(0, 5, (700, 3), generator=generator)
    positions = torch.randperm(700, generator=generator)
    keep = Smallest(5, 4, torch.float32, torch.float32, CPU)
    keep.offer(cells, values, positions, values, values, seen)
    for cell in range(5):
        at = (cells == cell).nonzero()
        rows = sorted((values[i, j].item(), positions[i].item()) for i, j in at.tolist())[:4]
        assert list(zip(keep.keys[cell].tolist(), keep.positions[cell].tolist(), strict=True)) == rows


def test_dense_rows_are_the_positions_of_the_smallest_keys(world):
    dense = fill("DenseRows", world)
    keys = {}
    for window in world.windows:
        batch = make_batch([window], LAYOUT)
        keys |= dict(zip(batch.position_ids[batch.ordinary].tolist(), batch.keys[batch.ordinary].tolist(), strict=True))
    assert sorted(dense.positions.tolist()) == sorted(sorted(keys, key=keys.get)[:6])
    raw = world.raw()
    at = {position: i for i, position in enumerate(raw["id"])}
    for slot, position in enumerate(dense.positions.tolist()):
        np.testing.assert_allclose(dense.activation[slot, COMPONENTS], raw["a"][at[position]], rtol=1e-6)
        np.testing.assert_allclose(dense.dla[slot, COMPONENTS], raw["d"][at[position]], rtol=1e-6)
        assert dense.outcome[slot, 0] == position


def test_dense_rows_with_more_room_than_positions():
    world = World.of([4])
    dense = fill("DenseRows", world)
    ordinary = world.raw()["ordinary"].sum()
    assert 0 < ordinary < 6
    assert (dense.positions >= 0).sum() == ordinary


def test_no_room_for_dense_rows():
    dense = DenseRows(0, N_COMPONENTS, 2, CPU)
    assert len(dense.plan(make_batch(World.of([9]).windows, LAYOUT)).slots) == 0
