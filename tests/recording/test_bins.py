"""Bins against their own edges, and quantiles from bins against quantiles of the raw values."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from profiler.config import QUANTILES
from profiler.recording.accumulators.bins import DENSITY, SPECTRUM, Resolution, quantile_bins, resolved_levels

RESOLUTIONS = pytest.mark.parametrize("resolution", [SPECTRUM, DENSITY, Resolution("whole octaves", 0)])
FLOAT32 = st.floats(allow_nan=False, allow_infinity=False, width=32)
IN_RANGE = st.floats(2.0**-16, 2.0**16, width=32, exclude_max=True)
TINY = np.finfo(np.float32)


def by_edges(resolution: Resolution, values: np.ndarray) -> np.ndarray:
    """The bin of each value by search: [lo, hi) above zero, (lo, hi] below, the zero bin open on both sides."""
    edges = resolution.edges()
    positive = np.searchsorted(edges, values, side="right") - 1
    negative = np.searchsorted(edges, values, side="left") - 1
    return np.where(values < 0, negative, positive)


def index(resolution: Resolution, values: np.ndarray) -> np.ndarray:
    return resolution.index(torch.from_numpy(values.astype(np.float32))).numpy()


def boundary_values(resolution: Resolution) -> np.ndarray:
    """Every finite edge and its float32 neighbours on both sides."""
    edges = resolution.edges()[1:-1].astype(np.float32)
    return np.concatenate([edges, np.nextafter(edges, np.float32(np.inf)), np.nextafter(edges, np.float32(-np.inf))])


@RESOLUTIONS
def test_edges_ascend_are_exact_floats_and_are_symmetric(resolution):
    edges = resolution.edges()
    assert len(edges) == resolution.n_bins + 1
    assert (np.diff(edges) > 0).all()
    assert (edges[1:-1] == edges[1:-1].astype(np.float32)).all()
    assert (edges == -edges[::-1]).all()
    assert edges[[0, -1]].tolist() == [-np.inf, np.inf]


@RESOLUTIONS
def test_index_agrees_with_a_search_of_the_edges_on_random_values(resolution):
    generator = np.random.default_rng(0)
    values = generator.standard_normal(20_000) * 2.0 ** generator.integers(-40, 40, 20_000)
    values = values.astype(np.float32)
    np.testing.assert_array_equal(index(resolution, values), by_edges(resolution, values))


@RESOLUTIONS
def test_index_agrees_with_a_search_of_the_edges_on_every_boundary(resolution):
    values = boundary_values(resolution)
    np.testing.assert_array_equal(index(resolution, values), by_edges(resolution, values))


@RESOLUTIONS
def test_zero_subnormals_and_extremes_of_float32(resolution):
    zero = np.array([0.0, -0.0, TINY.smallest_subnormal, -TINY.smallest_subnormal, TINY.tiny, -TINY.tiny, 2.0**-17])
    assert (index(resolution, zero) == resolution.zero_bin).all()
    large = np.array([TINY.max, np.inf, 2.0**16])
    assert (index(resolution, large) == resolution.n_bins - 1).all()
    assert (index(resolution, -large) == 0).all()
    assert resolution.edges()[resolution.zero_bin : resolution.zero_bin + 2].tolist() == [-(2.0**-16), 2.0**-16]


@RESOLUTIONS
@given(a=FLOAT32, b=FLOAT32)
def test_index_is_monotone(resolution, a, b):
    first, second = index(resolution, np.array([a, b]))
    assert (first <= second) if a <= b else (first >= second)


@RESOLUTIONS
def test_relative_error_is_within_the_stated_bound_and_the_bound_is_tight(resolution):
    values = boundary_values(resolution)
    values = values[(np.abs(values) >= 2.0**-16) & (np.abs(values) < 2.0**16)].astype(np.float64)
    error = np.abs(resolution.middles()[index(resolution, values)] - values) / np.abs(values)
    assert error.max() <= resolution.relative_error
    assert error.max() == pytest.approx(resolution.relative_error, rel=1e-6)


def test_a_density_bin_lies_inside_one_spectrum_bin():
    edges = DENSITY.edges()
    assert set(SPECTRUM.edges()) <= set(edges)
    inner = DENSITY.middles()
    coarse = SPECTRUM.index(torch.from_numpy(inner)).numpy()
    assert (SPECTRUM.edges()[coarse] <= inner).all()
    assert (inner <= SPECTRUM.edges()[coarse + 1]).all()


def raw_quantile(values: np.ndarray, level: float) -> float:
    """The smallest value with at least level * n values at or below it."""
    return np.quantile(values, level, method="inverted_cdf")


def binned_quantiles(values: np.ndarray) -> np.ndarray:
    counts = torch.bincount(torch.from_numpy(index(DENSITY, values)).long(), minlength=DENSITY.n_bins)
    return DENSITY.middles()[quantile_bins(counts[None], QUANTILES)[0].numpy()]


RAW = {
    "normal": np.random.default_rng(1).standard_normal(5_000),
    "heavy tails": np.random.default_rng(2).standard_t(1.5, 3_333),
    "all negative": -np.random.default_rng(3).gamma(0.3, 2, 1_000) - 1e-3,
    "ties": np.random.default_rng(4).integers(-3, 4, 777).astype(float),
    "mostly zero": np.maximum(np.random.default_rng(5).standard_normal(2_000) - 1, 0),
    "one value": np.array([-7.3]),
    "two values": np.array([0.5, 3.0]),
}


@pytest.mark.parametrize("name", list(RAW))
def test_quantiles_are_within_the_stated_error_of_numpy_on_the_raw_values(name):
    values = RAW[name].astype(np.float32).astype(np.float64)
    for level, got in zip(QUANTILES, binned_quantiles(values), strict=True):
        want = raw_quantile(values, level)
        assert abs(got - want) <= DENSITY.relative_error * abs(want) + 2.0**-16, level


@given(st.lists(st.one_of(IN_RANGE, IN_RANGE.map(float.__neg__)), min_size=1, max_size=60))
def test_quantiles_of_any_values(values):
    values = np.array(values, dtype=np.float64)
    for level, got in zip(QUANTILES, binned_quantiles(values), strict=True):
        want = raw_quantile(values, level)
        assert abs(got - want) <= DENSITY.relative_error * abs(want), level


def test_quantiles_of_several_components_are_those_of_each_alone():
    rows = [RAW["normal"], RAW["ties"], RAW["one value"]]
    counts = torch.stack(
        [torch.bincount(torch.from_numpy(index(DENSITY, row)).long(), minlength=DENSITY.n_bins) for row in rows]
    )
    together = DENSITY.middles()[quantile_bins(counts, QUANTILES).numpy()]
    for row, got in zip(rows, together, strict=True):
        np.testing.assert_array_equal(got, binned_quantiles(row))


def levels_of(values: np.ndarray) -> dict[float, tuple[float, float]]:
    counts = torch.bincount(DENSITY.index(torch.from_numpy(values)).long(), minlength=DENSITY.n_bins)
    level, reached = resolved_levels(counts[None], QUANTILES, DENSITY)
    return {q: (a, b) for q, a, b in zip(QUANTILES, level[0], reached[0], strict=True) if not np.isnan(a)}


def above(values: np.ndarray, level: float) -> float:
    """As macro `reaches` has it: an edge below zero belongs to the bin under it."""
    return float(((values > level) | ((level > 0) & (values == level))).mean())


@pytest.mark.parametrize("name", ["normal", "skewed", "negative", "coarse"])
def test_levels_are_near_their_quantile_and_reach_what_they_say(name):
    rng = np.random.default_rng(0)
    values = {
        "normal": rng.normal(size=20_000),
        "skewed": rng.exponential(size=20_000),
        "negative": -rng.exponential(size=20_000),
        "coarse": torch.from_numpy(rng.normal(size=20_000)).to(torch.bfloat16).float().numpy(),
    }[name].astype(np.float32)
    levels = levels_of(values)
    assert len(levels) >= 10
    for quantile, (level, reached) in levels.items():
        assert reached == above(values, level)
        odds = (reached / (1 - reached)) / ((1 - quantile) / quantile)
        assert 0.5 <= odds <= 2
    assert len({level for level, _ in levels.values()}) == len(levels)


@pytest.mark.parametrize("zero", [0.5, 0.93, 0.998, 1.0])
def test_quantiles_that_tie_have_no_level(zero):
    """A ReLU neuron: no band of 99 % is said to hold 99.8 % of the positions."""
    rng = np.random.default_rng(1)
    values = np.where(rng.random(50_000) < zero, 0.0, rng.exponential(size=50_000)).astype(np.float32)
    levels = levels_of(values)
    for quantile, (level, reached) in levels.items():
        assert reached == above(values, level)
        assert 0.5 <= (reached / (1 - reached)) / ((1 - quantile) / quantile) <= 2
    inside = [q for q in levels if 0.25 <= q <= 0.99]
    assert inside == {0.5: [0.5, 0.75, 0.9, 0.95, 0.99], 0.93: [0.9, 0.95, 0.99], 0.998: [], 1.0: []}[zero]
