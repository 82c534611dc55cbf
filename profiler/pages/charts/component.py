"""Altair charts from the frames of the queries, with the same axes, colours and words everywhere.

Each function takes frames with the columns of its query and returns an `altair` chart that a notebook user can restyle;
a page draws it at the width of its box. Shares and densities are of ordinary positions (special ones are left out).
"""

from collections.abc import Sequence
from typing import Any, cast

import altair as alt
import polars as pl

from profiler.pages import numbers
from profiler.pages.charts import spectrum, theme

HEIGHT = 230
"""Height of most charts, pixels."""
LEVELS = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
PLAIN = "format(datum.value, '.4~g')"
SIGNED = ("dla", "activation")
GAP: dict[str, Any] = {"stroke": "#80808055", "strokeWidth": 0.4}


def _activation_axis(bins: pl.DataFrame, floor: float, title: str = "activation") -> alt.X:
    """The x axis of every spectrum: symlog, linear inside ±floor."""
    low, high = spectrum.number_of(bins["lo"].min()), spectrum.number_of(bins["hi"].max())
    scale = alt.Scale(type="symlog", constant=floor, domain=[low, high], nice=False)
    ticks = spectrum.ticks(low, high, floor)
    axis = alt.Axis(values=ticks, labelExpr=PLAIN, labelOverlap="greedy", grid=False)
    return alt.X("lo:Q", scale=scale, axis=axis, title=title)


def value_axis(*, share: bool = False, **settings: Any) -> alt.Axis:
    """The axis of a share, in per cent, or of a number, in plain digits."""
    return alt.Axis(format="~%", **settings) if share else alt.Axis(labelExpr=PLAIN, **settings)


def layered(*layers: alt.Chart, height: int) -> alt.LayerChart:
    """Charts drawn over each other, the first at the bottom."""
    return cast(alt.LayerChart, alt.layer(*layers).properties(height=height))


def _class_colour(order: Sequence[str]) -> alt.Color:
    scale = alt.Scale(domain=list(order), range=theme.class_colours(order))
    return alt.Color("class:N", scale=scale, sort=list(order), legend=alt.Legend(title=None))


def density(frame: pl.DataFrame, levels: Sequence[float] = LEVELS) -> alt.LayerChart:
    """Probability density of the activation on a log axis, with quantile marks. `frame` is the query `density`.

    A range can be brushed: the interval selection `brush`, which a page answers with examples.
    """
    floor = spectrum.floor_of(frame)
    bins = spectrum.fold(frame, floor).with_columns((pl.col("p") / (pl.col("hi") - pl.col("lo"))).alias("density"))
    least, most = spectrum.ends_of(bins["density"])
    lowest = least / 2
    bins = bins.with_columns(
        pl.lit(lowest).alias("base"),
        pl.when(pl.col("hi") <= 0)
        .then(pl.lit("negative"))
        .when(pl.col("lo") < 0)
        .then(pl.lit("about zero"))
        .otherwise(pl.lit("positive"))
        .alias("sign"),
    )
    colour = alt.Color(
        "sign:N", legend=None, scale=_sign_scale(theme.ACTIVATION_SIGN | {"about zero": theme.REST_COLOUR})
    )
    y = alt.Y(
        "density:Q",
        scale=alt.Scale(type="log", nice=False),
        axis=alt.Axis(format=".0e", values=spectrum.decades(lowest, most)),
        title="density (log)",
    )
    shape = (
        alt.Chart(bins)
        .mark_rect(opacity=0.85)
        .encode(
            x=_activation_axis(bins, floor),
            x2=alt.X2("hi:Q"),
            y=y,
            y2=alt.Y2("base:Q"),
            color=colour,
            tooltip=tips("lo", "hi", "n", "p", "density"),
        )
        .add_params(alt.selection_interval(name="brush", encodings=["x"]))
    )
    return layered(shape, *_quantile_layers(frame, levels, floor), height=HEIGHT + 20)


def _quantile_layers(frame: pl.DataFrame, levels: Sequence[float], floor: float) -> list[alt.Chart]:
    """Dashed rules at the quantiles, their labels above the plot in two rows."""
    marks = alt.Chart(spectrum.merged_marks(spectrum.quantile_marks(frame, levels), floor)).encode(
        x=alt.X("activation:Q")
    )
    rules = marks.mark_rule(strokeDash=[3, 3], strokeWidth=0.8).encode(tooltip=tips("label", "activation"))
    near, far = (
        marks.transform_filter(alt.datum.row == row)
        .mark_text(baseline="bottom", dy=-3 - 12 * row)
        .encode(text=alt.Text("label:N"), y=alt.YValue(0))  # type: ignore[no-untyped-call]
        for row in (0, 1)
    )
    return [rules, near, far]


def _sign_scale(colours: dict[str, str]) -> alt.Scale:
    return alt.Scale(domain=list(colours), range=list(colours.values()))


def tips(*names: str) -> list[alt.Tooltip]:
    """Tooltip entries: numbers to four significant digits, words as they are."""
    words = {"class", "label", "component", "kind", "value", "top_class", "measure", "sign", "weights", "layer"}
    return [alt.Tooltip(f"{n}:N") if n in words else alt.Tooltip(f"{n}:Q", format=",.4~g") for n in names]


def _stack(frame: pl.DataFrame, value: str, title: str, *, whole: bool = False) -> alt.Chart:
    """Rectangles of `value` by bin, stacked by class. `frame` is the query `spectrum_by_class`."""
    bins, order = spectrum.class_bins(frame)
    columns = ("lo", "hi", "class", "n", "class_share", value, "start", "end")
    rows = only(spectrum.stacked(bins, value, order), *dict.fromkeys(columns))
    axis = value_axis(share=value.endswith("_share"))
    scale = alt.Scale(domain=[0, 1]) if whole else alt.Scale()
    chart: alt.Chart = (
        alt.Chart(rows)
        .mark_rect(**GAP)
        .encode(
            x=_activation_axis(rows, spectrum.floor_of(frame)),
            x2=alt.X2("hi:Q"),
            y=alt.Y("start:Q", title=title, axis=axis, scale=scale),
            y2=alt.Y2("end:Q"),
            color=_class_colour(order),
            tooltip=tips("class", "lo", "hi", "n", "class_share", value),
        )
        .properties(height=HEIGHT)
    )
    return chart


def class_share(frame: pl.DataFrame) -> alt.Chart:
    """P(class | bin) stacked to one. `frame` is the query `spectrum_by_class`."""
    return _stack(frame, "class_share", "share of the bin", whole=True)


def expected_value(frame: pl.DataFrame) -> alt.Chart:
    """Contribution of each bin to the mean activation, x·p(x), by class. `frame` is the query `spectrum_by_class`."""
    return _stack(frame, "expected_value", "x · p(x)")


def importance(frame: pl.DataFrame) -> alt.Chart:
    """Share of the component's Σ|DLA| that each bin holds, by class. `frame` is the query `spectrum_by_class`."""
    return _stack(frame, "importance_share", "share of Σ|DLA|")


def posterior(frame: pl.DataFrame, classes: int = 3) -> alt.LayerChart:
    """P(class | bin) with its interval, for the classes with most Σ|DLA|. `frame` is the query `spectrum_by_class`."""
    order = spectrum.shown_classes(frame)[:classes]
    floor = spectrum.floor_of(frame)
    rows = (
        spectrum.finite_edges(frame)
        .filter(
            pl.col("class").is_in(order),
            pl.max_horizontal(pl.col("lo").abs(), pl.col("hi").abs()) > floor,
            pl.col("n") > 0,
        )
        .with_columns(
            ((pl.col("lo") + pl.col("hi")) / 2).alias("middle"), (pl.col("lo") < 0).cast(pl.Int8).alias("side")
        )
    )
    x = _activation_axis(finite_or_unit(rows), floor)
    x.shorthand = "middle:Q"
    share = alt.Axis(format="%")
    base = alt.Chart(
        only(rows, "class", "lo", "hi", "middle", "side", "n", "class_share", "class_share_lo", "class_share_hi")
    )
    band = base.mark_area(opacity=0.16, line={"strokeWidth": 0.6, "opacity": 0.5}).encode(
        x=x,
        y=alt.Y("class_share_lo:Q", axis=share, title="P(class | bin)"),
        y2=alt.Y2("class_share_hi:Q"),
        color=_class_colour(order),
        detail=alt.Detail("side:N"),
    )
    line = base.mark_line(strokeWidth=1.6, point=alt.OverlayMarkDef(size=14)).encode(
        x=x,
        y=alt.Y("class_share:Q"),
        color=_class_colour(order),
        detail=alt.Detail("side:N"),
        tooltip=tips("class", "lo", "hi", "n", "class_share", "class_share_lo", "class_share_hi"),
    )
    return layered(band, line, height=HEIGHT)


def finite_or_unit(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows, or one bin from 0 to 1 in the place of none, so that an axis can be drawn."""
    return rows if not rows.is_empty() else pl.DataFrame({"lo": [0.0], "hi": [1.0]})


def class_density(frame: pl.DataFrame, classes: int = 5) -> alt.Chart:
    """P(bin | class): each class's own distribution, base rates removed. `frame` is the query `spectrum_by_class`."""
    order = spectrum.shown_classes(frame)[:classes]
    bins = spectrum.fold(frame.filter(pl.col("class").is_in(order)), spectrum.floor_of(frame), ["class"])
    rows = bins.with_columns(((pl.col("lo") + pl.col("hi")) / 2).alias("middle"))
    x = _activation_axis(rows, spectrum.floor_of(frame))
    x.shorthand = "middle:Q"
    columns = only(rows, "class", "lo", "hi", "middle", "n", "within_class")
    chart: alt.Chart = (
        alt.Chart(columns)
        .mark_line(strokeWidth=1.6, point=alt.OverlayMarkDef(size=14))
        .encode(
            x=x,
            y=alt.Y("within_class:Q", axis=alt.Axis(format="%"), title="P(bin | class)"),
            color=_class_colour(order),
            tooltip=tips("class", "lo", "hi", "n", "within_class"),
        )
        .properties(height=HEIGHT)
    )
    return chart


def mean_dla(frame: pl.DataFrame) -> alt.Chart:
    """Mean DLA of each bin, logits. `frame` is the query `spectrum_by_class`."""
    bins = spectrum.fold(frame, spectrum.floor_of(frame)).with_columns((pl.col("sum_dla") / pl.col("n")).alias("dla"))
    chart: alt.Chart = (
        alt.Chart(bins.with_columns(pl.lit(0.0).alias("zero")))
        .mark_rect(**GAP)
        .encode(
            x=_activation_axis(bins, spectrum.floor_of(frame)),
            x2=alt.X2("hi:Q"),
            y=alt.Y("zero:Q", title="mean DLA, logits", axis=value_axis()),
            y2=alt.Y2("dla:Q"),
            color=_sign_fill("dla"),
            tooltip=tips("lo", "hi", "n", "dla"),
        )
        .properties(height=HEIGHT)
    )
    return chart


def only(frame: pl.DataFrame, *names: str) -> pl.DataFrame:
    """These columns of the frame, so that a page carries no others."""
    return frame.select([name for name in names if name in frame.columns])


def interval_bars(
    frame: pl.DataFrame, measure: str, title: str, *, by_class: bool = False, order: Sequence[str] | None = None
) -> alt.LayerChart:
    """Bars of `measure` with 95 % intervals, one per value of a breakdown (queries by_class, by_domain, ...).

    Args:
        frame: columns value, n, `measure`, `measure`_lo and `measure`_hi; no rule is drawn where these are null.
        by_class: whether the values are classes and have their colours; the others are coloured by sign.
        order: values from top to bottom; by size where it is None.
    """
    low = pl.col(f"{measure}_lo").clip(lower_bound=None if measure in SIGNED else 0.0)
    rows = frame.select("value", "n", measure, low.alias("low"), pl.col(f"{measure}_hi").alias("high"))
    names = (
        list(order) if order is not None else rows.sort([measure, "value"], descending=[True, False])["value"].to_list()
    )
    base = alt.Chart(rows).encode(y=alt.Y("value:N", sort=names, title=None, axis=alt.Axis(grid=False)))
    shown = tips("value", "n", measure, "low", "high")
    bars = base.mark_bar(height={"band": 0.72}).encode(
        x=alt.X(f"{measure}:Q", title=title, axis=value_axis(share=measure.startswith("share"), tickCount=5)),
        color=_class_fill(names) if by_class else _sign_fill(measure),
        tooltip=shown,
    )
    rules = base.mark_rule(strokeWidth=1.2).encode(x=alt.X("low:Q"), x2=alt.X2("high:Q"), tooltip=shown)
    return layered(bars, rules, height=max(60, 19 * len(names)))


def _class_fill(names: Sequence[str]) -> alt.Color:
    scale = alt.Scale(domain=list(names), range=theme.class_colours(names))
    return alt.Color("value:N", scale=scale, legend=None)


def _sign_fill(measure: str) -> Any:
    """By the sign of a DLA or an activation; what has no sign has a colour of its own."""
    if measure not in SIGNED:
        return alt.ColorValue(theme.SIZE_COLOUR)
    colours = theme.DLA_SIGN if measure == "dla" else theme.ACTIVATION_SIGN
    below = {"test": f"datum['{measure}'] < 0", "value": colours["negative"]}
    return alt.ColorValue(value=colours["positive"], condition=below)


ATTENTION = ("previous_token", "first_token", "self", "induction", "duplicate", "top_weight")


def attention(frame: pl.DataFrame, by: str = "|DLA|") -> alt.LayerChart:
    """Attention to each kind of source, over positions and weighted by importance. `frame` is the query
    `head_attention`, `by` what it weighs by."""
    weighted = f"weighted by {by}"
    masses = frame.filter(pl.col("measure").is_in(ATTENTION))
    rows = pl.concat(
        [
            _attention_rows(masses, "every position", "mean"),
            _attention_rows(masses, weighted, "importance_weighted_mean"),
        ]
    )
    scale = alt.Scale(domain=["every position", weighted], range=["#8a8f98", theme.KIND_COLOURS["head"]])
    base = alt.Chart(rows).encode(
        y=alt.Y("measure:N", scale=alt.Scale(domain=list(ATTENTION)), title=None, axis=alt.Axis(grid=False)),
        yOffset=alt.YOffset("weights:N", scale=alt.Scale(domain=scale.domain)),
    )
    bars = base.mark_bar().encode(
        x=alt.X("share:Q", title="mean attention", axis=alt.Axis(format="%", tickCount=5)),
        color=alt.Color("weights:N", scale=scale, legend=alt.Legend(title=None)),
        tooltip=tips("measure", "weights", "share", "low", "high"),
    )
    return layered(bars, base.mark_rule().encode(x=alt.X("low:Q"), x2=alt.X2("high:Q")), height=36 * len(ATTENTION))


def _attention_rows(masses: pl.DataFrame, weights: str, mean: str) -> pl.DataFrame:
    low, high = (pl.col(f"{mean}_{end}").clip(0.0, 1.0) for end in ("lo", "hi"))
    return masses.select("measure", weights=pl.lit(weights), share=mean, low=low, high=high)


def bin_label(low: float, high: float) -> str:
    """A stratum in words: 1.5 to 2."""
    return f"{numbers.number(low)} to {numbers.number(high)}"
