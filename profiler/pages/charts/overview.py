"""Altair charts of all heads and neurons together, from the query `component_overview`."""

import math

import altair as alt
import polars as pl

from profiler.pages.charts import component, spectrum, theme

LABEL_WIDTH, LABEL_HEIGHT = 0.12, 0.1
"""Room that a label takes in the scatter plot: share of its own |DLA|, powers of ten."""
ACTIVATION_TICKS = [sign * size for sign in (-1, 1) for size in (0.1, 0.3, 1, 3, 10, 30, 100)] + [0]


def _kind_colour(rows: pl.DataFrame) -> alt.Color:
    """The colour of each kind that is there, in a fixed order."""
    kinds = [kind for kind in theme.KIND_COLOURS if kind in set(rows["kind"])]
    scale = alt.Scale(domain=kinds, range=[theme.KIND_COLOURS[kind] for kind in kinds])
    return alt.Color("kind:N", scale=scale, legend=alt.Legend(title=None))


def _share_axis(rows: pl.DataFrame) -> alt.Y:
    """Share of all |DLA| on a log axis with a line at each power of ten."""
    shares = rows["share_abs_dla"]
    ticks = spectrum.decades(*spectrum.ends_of(shares)) if len(shares) else []
    scale = alt.Scale(type="log", nice=False, padding=6)
    return alt.Y(
        "share_abs_dla:Q",
        title="share of all |DLA| (log)",
        scale=scale,
        axis=component.value_axis(share=True, values=ticks),
    )


def apart(rows: pl.DataFrame, most: int = 8) -> list[str]:
    """Names of the most important components whose labels do not cover each other in the scatter plot."""
    labelled: list[tuple[float, float, str]] = []
    for row in rows.sort("share_abs_dla", descending=True).head(5 * most).to_dicts():
        x, y = row["top_class_share"], math.log10(row["share_abs_dla"])
        if len(labelled) < most and all(abs(x - a) > LABEL_WIDTH or abs(y - b) > LABEL_HEIGHT for a, b, _ in labelled):
            labelled.append((x, y, row["component"]))
    return [name for _, _, name in labelled]


def importance_scatter(frame: pl.DataFrame) -> alt.LayerChart:
    """Share of all |DLA| against how much of it falls on one class. `frame` is the query `component_overview`.

    Narrow components lie to the right, important ones at the top; the most important are named where there is room.
    """
    rows = component.only(
        frame.filter(pl.col("share_abs_dla") > 0),
        "component",
        "kind",
        "layer",
        "activation",
        "share_abs_dla",
        "top_class",
        "top_class_share",
    )
    base = alt.Chart(rows).encode(
        x=alt.X(
            "top_class_share:Q", title="share of its own |DLA| on its most important class", axis=alt.Axis(format="%")
        ),
        y=_share_axis(rows),
    )
    points = base.mark_circle(size=26, opacity=0.65).encode(
        color=_kind_colour(rows),
        tooltip=component.tips("component", "kind", "share_abs_dla", "top_class", "top_class_share", "activation"),
    )
    names = (
        base.transform_filter(alt.FieldOneOfPredicate(field="component", oneOf=apart(rows)))
        .mark_text(align="left", dx=5, dy=-3)
        .encode(text="component:N")
    )
    return component.layered(points, names, height=330)


def activation_scatter(frame: pl.DataFrame) -> alt.Chart:
    """Share of all |DLA| against the mean activation. `frame` is the query `component_overview`."""
    rows = component.only(
        frame.filter(pl.col("share_abs_dla") > 0), "component", "kind", "layer", "activation", "share_abs_dla"
    )
    chart: alt.Chart = (
        alt.Chart(rows)
        .mark_circle(size=26, opacity=0.65)
        .encode(
            x=alt.X(
                "activation:Q",
                title="mean activation (head: norm of its output)",
                scale=alt.Scale(type="symlog", constant=0.05, nice=False, padding=6),
                axis=component.value_axis(values=ACTIVATION_TICKS, labelOverlap="greedy"),
            ),
            y=_share_axis(rows),
            color=_kind_colour(rows),
            tooltip=component.tips("component", "kind", "activation", "share_abs_dla"),
        )
        .properties(height=330)
    )
    return chart


def layer_profile(frame: pl.DataFrame) -> alt.Chart:
    """Σ|DLA| of each layer's heads and neurons as a share of all. `frame` is the query `component_overview`, whole."""
    rows = frame.group_by("layer", "kind").agg(pl.col("share_abs_dla").sum(), pl.len().alias("components"))
    chart: alt.Chart = (
        alt.Chart(rows.sort("layer", "kind"))
        .mark_bar()
        .encode(
            x=alt.X("layer:O", title="layer", axis=alt.Axis(labelAngle=0)),
            xOffset="kind:N",
            y=alt.Y("share_abs_dla:Q", title="share of all |DLA|", axis=alt.Axis(format="%")),
            color=_kind_colour(rows),
            tooltip=component.tips("layer", "kind", "components", "share_abs_dla"),
        )
        .properties(height=component.HEIGHT)
    )
    return chart
