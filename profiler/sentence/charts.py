"""Charts of a head's attention on a text: the whole pattern, and arcs from each token to what it attends to."""

from collections.abc import Sequence

import altair as alt
import polars as pl

from profiler.pages.charts import theme
from profiler.pages.charts.component import layered

CELL = 18
"""Pixels of a cell of the pattern, where the text is short."""
TALLEST = 520
LEAST_WEIGHT = 0.05
"""Attention below which no arc is drawn."""
STEPS = 16
"""Straight pieces of an arc."""


def pattern(attention: pl.DataFrame, tokens: Sequence[str]) -> alt.Chart:
    """The attention of every token (rows) to every token (columns). `attention` has offset, key_offset, weight."""
    names = _names(tokens)
    rows = attention.with_columns(
        pl.col("offset").replace_strict(names).alias("from"), pl.col("key_offset").replace_strict(names).alias("to")
    )
    order = list(names.values())
    colour = alt.Scale(range=["transparent", theme.SIZE_COLOUR], domain=[0, 1])
    chart: alt.Chart = (
        alt.Chart(rows)
        .mark_rect()
        .encode(
            x=alt.X("to:N", sort=order, title="attended token", axis=alt.Axis(labelAngle=-60)),
            y=alt.Y("from:N", sort=order, title="token that attends"),
            color=alt.Color("weight:Q", scale=colour, title="attention"),
            tooltip=["from:N", "to:N", alt.Tooltip("weight:Q", format=".3f")],
        )
        .properties(height=min(TALLEST, max(5 * CELL, CELL * len(order))))
    )
    return chart


def arcs(attention: pl.DataFrame, tokens: Sequence[str]) -> alt.LayerChart:
    """Arcs from each token to the tokens it attends to with at least 5 %, the wider the more; to itself no arc."""
    drawn = attention.filter((pl.col("weight") >= LEAST_WEIGHT) & (pl.col("offset") != pl.col("key_offset")))
    steps = pl.DataFrame({"step": range(STEPS + 1)})
    span = pl.col("offset") - pl.col("key_offset")
    part = pl.col("step") / STEPS
    points = drawn.with_row_index("arc").join(steps, how="cross")
    points = points.with_columns(
        (pl.col("key_offset") + span * part).alias("x"), (4 * span * part * (1 - part)).cast(float).alias("y")
    )
    names = _names(tokens)
    words = pl.DataFrame({"x": list(names), "token": list(names.values()), "y": [0.0] * len(names)})
    lines = (
        alt.Chart(points)
        .mark_line(interpolate="monotone", color=theme.SIZE_COLOUR)
        .encode(
            x=alt.X("x:Q", axis=None, scale=alt.Scale(domain=[-0.5, len(names) - 0.5])),
            y=alt.Y("y:Q", axis=None),
            detail="arc:N",
            order="step:Q",
            opacity=alt.Opacity("weight:Q", scale=alt.Scale(domain=[0, 1], range=[0.1, 1]), title="attention"),
            strokeWidth=alt.StrokeWidth("weight:Q", scale=alt.Scale(domain=[0, 1], range=[0.5, 4]), legend=None),
            tooltip=[alt.Tooltip("weight:Q", format=".3f")],
        )
    )
    labels = (
        alt.Chart(words)
        .mark_text(angle=300, align="right", baseline="middle", dx=-4, dy=4, color="gray")
        .encode(x="x:Q", y="y:Q", text="token:N")
    )
    return layered(lines, labels, height=260)


def _names(tokens: Sequence[str]) -> dict[int, str]:
    """A name for each offset, all different: its number and its token, blanks as dots."""
    return {
        offset: f"{offset} {token.replace(' ', '·').replace(chr(10), '⏎')[:20]}" for offset, token in enumerate(tokens)
    }
