"""What the charts draw: folding, stacking, quantile marks, and the parts of the specifications that carry meaning."""

import math

import numpy as np
import polars as pl
import pytest

from profiler.pages.charts import component, overview, spectrum, theme


def edges(per_octave: int) -> np.ndarray:
    """Edges of log-linear bins from 2^-16 to 2^16 with an infinite bin on each side."""
    octaves = 2.0 ** np.arange(-16, 16)
    positive = np.append((octaves[:, None] * (1 + np.arange(per_octave) / per_octave)).ravel(), [2.0**16, np.inf])
    return np.concatenate([-positive[::-1], positive])


@pytest.fixture(scope="module")
def values() -> pl.DataFrame:
    """Activations of a made-up neuron: mostly small and negative, large at numbers."""
    rng = np.random.default_rng(5)
    kinds = rng.choice(["word", "number", "newline"], 4000, p=[0.8, 0.15, 0.05])
    pre = rng.normal(-1, 1, 4000) + (kinds == "number") * rng.gamma(2, 2, 4000)
    return pl.DataFrame({"class": kinds, "x": np.where(pre > 0, pre, 0.05 * pre), "dla": rng.normal(0, 1, 4000) * pre})


@pytest.fixture(scope="module")
def density(values) -> pl.DataFrame:
    """The query `density`."""
    at = np.searchsorted(edges(16), values["x"].to_numpy(), side="right") - 1
    counts = pl.DataFrame({"bin": at}).group_by("bin").len("n").sort("bin").with_columns(pl.col("n").cast(pl.Int64))
    low, high = edges(16)[counts["bin"].to_numpy()], edges(16)[counts["bin"].to_numpy() + 1]
    shares = counts.with_columns(pl.Series("lo", low), pl.Series("hi", high), (pl.col("n") / len(values)).alias("p"))
    return shares.with_columns(pl.col("p").cum_sum().alias("cumulative"))


@pytest.fixture(scope="module")
def by_class(values) -> pl.DataFrame:
    """The query `spectrum_by_class`."""
    at = np.searchsorted(edges(2), values["x"].to_numpy(), side="right") - 1
    sums = (
        values.with_columns(pl.Series("bin", at))
        .group_by("class", "bin")
        .agg(
            pl.len().cast(pl.Int64).alias("n"),
            pl.col("dla").sum().alias("sum_dla"),
            pl.col("dla").abs().sum().alias("sum_abs_dla"),
        )
    )
    low, high = edges(2)[sums["bin"].to_numpy()], edges(2)[sums["bin"].to_numpy() + 1]
    rows = sums.with_columns(pl.Series("lo", low), pl.Series("hi", high))
    share, all_dla = pl.col("n") / pl.col("n").sum().over("bin"), pl.col("sum_abs_dla").sum()
    return rows.with_columns(
        share.alias("class_share"),
        (share - 0.01).alias("class_share_lo"),
        (share + 0.01).alias("class_share_hi"),
        (pl.col("n") / pl.col("n").sum().over("class")).alias("within_class"),
        ((pl.col("lo") + pl.col("hi")) / 2 * pl.col("n") / len(values)).alias("expected_value"),
        (pl.col("sum_abs_dla") / all_dla).alias("importance_share"),
    ).sort("bin", "class")


def bars(**columns) -> pl.DataFrame:
    """A breakdown frame."""
    return pl.DataFrame(columns)


def rows_of(chart) -> list[dict]:
    """All rows that a chart carries."""
    return [row for rows in chart.to_dict()["datasets"].values() for row in rows]


def test_folding_loses_no_position_and_keeps_edges_apart(by_class):
    floor = spectrum.floor_of(by_class)
    folded = spectrum.fold(by_class, floor, ["class"])
    for name in ("n", "sum_dla", "expected_value", "importance_share"):
        assert folded[name].sum() == pytest.approx(by_class[name].sum(), rel=1e-12)
    bins = folded.select("lo", "hi").unique().sort("lo")
    assert (bins["hi"].to_numpy()[:-1] <= bins["lo"].to_numpy()[1:]).all()
    assert (-floor, floor) in bins.rows()


def test_the_folded_bin_of_a_positive_component_begins_at_zero():
    frame = pl.DataFrame({"lo": [0.0001, 1.0, 64.0], "hi": [0.0002, 1.5, 96.0], "n": [1, 5, 94]})
    assert spectrum.fold(frame, spectrum.floor_of(frame)).row(0) == (0.0, spectrum.floor_of(frame), 1)


@pytest.mark.parametrize(
    "frame",
    [
        pl.DataFrame(schema={"lo": pl.Float64, "hi": pl.Float64, "n": pl.Int64}),
        pl.DataFrame({"lo": [-(2.0**-16)], "hi": [2.0**-16], "n": [10]}),
        pl.DataFrame({"lo": [65536.0], "hi": [math.inf], "n": [10]}),
        pl.DataFrame({"lo": [-math.inf, 1.0], "hi": [-65536.0, 1.5], "n": [1, 1]}),
    ],
)
def test_odd_spectra_have_finite_axes(frame):
    folded = spectrum.fold(frame, spectrum.floor_of(frame))
    assert folded["n"].sum() == frame["n"].sum()
    assert all(math.isfinite(v) for v in [*folded["lo"], *folded["hi"]])


def test_stacks_fill_each_bin_to_one(by_class):
    rows = pl.DataFrame(rows_of(component.class_share(by_class)))
    tops = rows.group_by("lo").agg(pl.col("start").min(), pl.col("end").max())
    assert tops["start"].abs().max() < 1e-12 and (tops["end"] - 1).abs().max() < 1e-12


def test_stacks_of_expected_value_add_up_to_the_mean_activation(by_class, values):
    rows = pl.DataFrame(rows_of(component.expected_value(by_class)))
    assert rows["expected_value"].sum() == pytest.approx(values["x"].mean(), rel=0.05)
    assert (rows["end"] - rows["start"] - rows["expected_value"]).abs().max() < 1e-12


def test_the_density_integrates_to_one(density):
    chart = component.density(density)
    rows = pl.DataFrame([row for row in rows_of(chart) if "density" in row])
    assert (rows["density"] * (rows["hi"] - rows["lo"])).sum() == pytest.approx(1, rel=1e-9)
    assert chart.to_dict()["layer"][0]["encoding"]["y"]["scale"]["type"] == "log"
    assert chart.to_dict()["layer"][0]["encoding"]["x"]["scale"]["type"] == "symlog"


def test_quantile_marks_are_within_half_a_bin_of_the_quantiles(density, values):
    marks = spectrum.quantile_marks(density, component.LEVELS)
    exact = np.quantile(values["x"].to_numpy(), component.LEVELS, method="inverted_cdf")
    np.testing.assert_allclose(marks["activation"], exact, rtol=1 / 31)
    assert marks["label"].to_list() == ["50 %", "75 %", "90 %", "95 %", "99 %", "99.9 %"]


def test_many_classes_are_merged_into_the_rest():
    names = [f"class {i}" for i in range(12)]
    frame = pl.DataFrame(
        {
            "class": names,
            "lo": 1.0,
            "hi": 1.5,
            "n": 1,
            "sum_dla": 0.0,
            "sum_abs_dla": [float(i) for i in range(12)],
            "expected_value": 0.1,
            "importance_share": 0.1,
        }
    )
    bins, order = spectrum.class_bins(frame)
    assert order == [*(f"class {i}" for i in range(11, 4, -1)), theme.REST]
    assert bins.filter(pl.col("class") == theme.REST)["n"].item() == 5


@pytest.mark.parametrize("name", ["class_share", "expected_value", "importance", "posterior", "class_density"])
def test_classes_have_their_colours_in_every_view(by_class, name):
    spec = getattr(component, name)(by_class).to_dict()
    encoding = spec["encoding"] if "encoding" in spec else spec["layer"][0]["encoding"]
    scale = encoding["color"]["scale"]
    assert scale["range"] == theme.class_colours(scale["domain"])
    assert dict(zip(scale["domain"], scale["range"], strict=True))["number"] == theme.CLASS_COLOURS["number"]


def test_the_posterior_carries_its_interval(by_class):
    spec = component.posterior(by_class).to_dict()
    band = spec["layer"][0]["encoding"]
    assert (band["y"]["field"], band["y2"]["field"]) == ("class_share_lo", "class_share_hi")


def test_bars_carry_their_interval_and_their_sign():
    frame = bars(value=["a", "b"], n=[1, 2], dla=[0.5, -0.5], dla_lo=[0.4, None], dla_hi=[0.6, None])
    spec = component.interval_bars(frame, "dla", "mean DLA").to_dict()
    assert [row["low"] for row in rows_of(component.interval_bars(frame, "dla", "mean DLA"))] == [0.4, None]
    assert spec["layer"][0]["encoding"]["color"]["value"] == theme.DLA_SIGN["positive"]
    assert spec["layer"][0]["encoding"]["y"]["sort"] == ["a", "b"]
    ordered = component.interval_bars(frame, "dla", "mean DLA", order=["b", "a"]).to_dict()
    assert ordered["layer"][0]["encoding"]["y"]["sort"] == ["b", "a"]


def test_attention_bars_carry_both_intervals():
    frame = pl.DataFrame(
        {
            "measure": ["previous_token", "entropy"],
            "mean": [0.5, 1.0],
            "mean_lo": [0.48, 0.8],
            "mean_hi": [0.52, 1.2],
            "importance_weighted_mean": [0.9, 1.0],
            "importance_weighted_mean_lo": [0.7, 0.8],
            "importance_weighted_mean_hi": [1.1, 1.2],
            "n": [10, 10],
        }
    )
    rows = {row["weights"]: row for row in rows_of(component.attention(frame))}
    assert rows["every position"]["low"] == pytest.approx(0.48) and rows["every position"]["high"] == pytest.approx(
        0.52
    )
    assert rows["weighted by |DLA|"]["high"] == 1.0 and len(rows) == 2
    assert rows["weighted by |DLA|"]["low"] == 0.7


def test_layers_add_up():
    frame = pl.DataFrame({"layer": [0, 0, 1], "kind": ["head", "head", "neuron"], "share_abs_dla": [0.2, 0.3, 0.5]})
    rows = rows_of(overview.layer_profile(frame))
    assert [(r["layer"], r["kind"], round(r["share_abs_dla"], 9), r["components"]) for r in rows] == [
        (0, "head", 0.5, 2),
        (1, "neuron", 0.5, 1),
    ]


@pytest.mark.parametrize(
    ("low", "high", "floor"), [(-0.2, 30.0, 0.03), (0.0, 4.0, 0.1), (-1e4, 1e4, 10.0), (0.0, 2.0**-15, 2.0**-25)]
)
def test_ticks_lie_on_the_axis_and_are_few(low, high, floor):
    ticks = spectrum.ticks(low, high, floor)
    assert 0.0 in ticks and all(low <= tick <= high for tick in ticks) and 2 <= len(ticks) <= 16


def test_marks_that_would_cover_each_other_are_one():
    marks = pl.DataFrame(
        {"quantile": [0.5, 0.75, 0.99], "label": ["", "", ""], "activation": [0.0, 1e-5, 3.0], "row": [0, 1, 0]}
    )
    merged = spectrum.merged_marks(marks, 0.01)
    assert merged["label"].to_list() == ["50, 75 %", "99 %"] and merged["row"].to_list() == [0, 1]
    assert spectrum.merged_marks(marks.clear(), 0.01).is_empty()


def test_names_in_the_scatter_keep_apart():
    rows = pl.DataFrame(
        {"component": ["a", "b", "c"], "share_abs_dla": [0.5, 0.45, 0.01], "top_class_share": [0.3, 0.31, 0.3]}
    )
    assert overview.apart(rows) == ["a", "c"]


def test_decades():
    assert spectrum.decades(0.002, 30.0) == [0.01, 0.1, 1.0, 10.0]
    assert spectrum.decades(0.9, 7.0) == [1.0, 2.0, 5.0]
