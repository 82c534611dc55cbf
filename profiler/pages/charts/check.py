"""Charts of a check, from the frames of their queries: the distributions, the plane, coverage, mixtures, replacement,
other tasks.

What speaks for a claim is green and what speaks against it purple, as DLA is elsewhere; undecided is grey. Each number
stands with its interval, and with what random circuits or scrambled roles give.
"""

import altair as alt
import polars as pl

from profiler.pages.charts import theme
from profiler.pages.charts.component import HEIGHT, layered, only, tips, value_axis
from profiler.pages.component.behaviours import UNEXPLAINED

SPEAKS = {"for": "#2e9a57", "against": "#9a4fb0", "undecided": "#a9adb5"}
ROW = 26


def _speaks(*, legend: bool = True) -> alt.Color:
    scale = alt.Scale(domain=list(SPEAKS), range=list(SPEAKS.values()))
    return alt.Color("speaks:N", scale=scale, legend=alt.Legend(title=None) if legend else None)


def named_distributions(frame: pl.DataFrame) -> pl.DataFrame:
    """The query `distributions` with `name`: the distribution and how many prompts or documents its number rests on."""
    n, unit = pl.coalesce("n", "kl_recovered_n"), pl.coalesce("unit", "kl_recovered_unit")
    name = pl.format("{} ({} {})", "distribution", n.cast(pl.String), unit)
    return frame.with_columns(name=pl.when(n.is_null()).then(pl.col("distribution")).otherwise(name))


def distributions(frame: pl.DataFrame, margin: float) -> alt.LayerChart:
    """Faithfulness and necessity of each distribution with their intervals, random circuits, and what counts as good.

    `frame` is the query `distributions`, distributions without a number left out; `margin` is how much lower still is
    as good.
    """
    rows = named_distributions(frame).with_columns(null=pl.coalesce("null_hi", "kl_recovered_null_hi"))
    columns = (
        "name",
        "faithfulness",
        "faithfulness_lo",
        "faithfulness_hi",
        "necessity",
        "null",
        "n",
        "speaks",
        "kl_recovered",
        "kl_recovered_lo",
        "kl_recovered_hi",
    )
    y = alt.Y("name:N", sort=rows["name"].to_list(), title=None, axis=alt.Axis(labelLimit=230, grid=False))
    base = alt.Chart(only(rows, *columns)).encode(y=y)
    x = alt.X("faithfulness:Q", title="share of the effect", axis=value_axis(share=True))
    shown = [
        "name:N",
        *tips("faithfulness", "faithfulness_lo", "faithfulness_hi", "kl_recovered", "necessity", "null", "n"),
    ]
    null = base.mark_bar(color=theme.REST_COLOUR, opacity=0.35, height=9)
    null = null.transform_calculate(zero="0").encode(x=alt.X("zero:Q", title=""), x2="null:Q")
    reach = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("faithfulness_lo:Q", title=""), x2="faithfulness_hi:Q", color=_speaks()
    )
    dots = base.mark_circle(size=70, opacity=1).encode(x=x, color=_speaks(), tooltip=shown)
    recovered = [
        base.mark_rule(strokeWidth=2, color=theme.SIZE_COLOUR).encode(x="kl_recovered_lo:Q", x2="kl_recovered_hi:Q"),
        base.mark_square(size=56, color=theme.SIZE_COLOUR, opacity=1).encode(x="kl_recovered:Q", tooltip=shown),
    ]
    necessity = base.mark_point(size=52, strokeWidth=1.5, color=theme.SIZE_COLOUR).encode(
        x="necessity:Q", tooltip=shown
    )
    layers = (*_bounds(frame, margin), null, reach, *recovered, dots, necessity)
    return layered(*layers, height=max(110, ROW * len(rows)))


def _bounds(frame: pl.DataFrame, margin: float) -> list[alt.Chart]:
    """Dashed rules at 1 and at the least that is as good as on the discovery prompts."""
    base = frame.filter(pl.col("ordinal") == 0)["faithfulness"].drop_nulls().to_list()
    marks = pl.DataFrame({"at": [1.0, *(value - margin for value in base[:1])]})
    return [alt.Chart(marks).mark_rule(strokeDash=[4, 4], strokeWidth=0.9).encode(x="at:Q")]


def plane(frame: pl.DataFrame) -> alt.LayerChart:
    """Specific to general, incomplete to complete. `frame` is the query `generality_plane`, rows with both numbers."""
    share = alt.Scale(domain=[0, 1])
    x = alt.X("generality:Q", title="specific → general", scale=share, axis=value_axis(share=True))
    y = alt.Y("completeness:Q", title="incomplete → complete", scale=share, axis=value_axis(share=True))
    base = alt.Chart(only(frame, "subject", "role", "kind", "generality", "completeness", "completeness_by")).encode(
        x=x, y=y
    )
    shape = alt.Shape(
        "kind:N",
        scale=alt.Scale(domain=["circuit", "component"], range=["diamond", "circle"]),
        legend=alt.Legend(title=None),
    )
    dots = base.mark_point(filled=True, size=110, opacity=0.9).encode(
        shape=shape,
        color=alt.value(theme.SIZE_COLOUR),
        tooltip=["subject:N", "role:N", *tips("generality", "completeness")],
    )
    words = base.mark_text(dy=-11, fontSize=10.5).encode(text="subject:N")
    half = pl.DataFrame({"at": [0.5]})
    rules = [
        alt.Chart(half).mark_rule(strokeDash=[3, 3], strokeWidth=0.6, opacity=0.6).encode(**{axis: "at:Q"})
        for axis in ("x", "y")
    ]
    return layered(*rules, dots, words, height=HEIGHT + 130)


def coverage(frame: pl.DataFrame) -> alt.LayerChart:
    """Coverage of each member's role on each distribution. `frame` is the query `role_coverage`, rows with a number."""
    rows = frame.with_columns(claim=pl.format("{} · {}", "component", "role"))
    distributions = (
        rows.unique("distribution", maintain_order=True)
        .sort("ordinal", "distribution", nulls_last=True)["distribution"]
        .to_list()
    )
    x = alt.X("distribution:N", sort=distributions, title=None, axis=alt.Axis(labelAngle=-40, labelLimit=130))
    base = alt.Chart(
        only(rows, "claim", "distribution", "coverage", "coverage_lo", "coverage_hi", "scrambled", "n", "speaks")
    ).encode(
        x=x,
        y=alt.Y(
            "claim:N",
            sort=rows["claim"].unique(maintain_order=True).to_list(),
            title=None,
            axis=alt.Axis(labelLimit=210),
        ),
    )
    shown = ["claim:N", "distribution:N", *tips("coverage", "coverage_lo", "coverage_hi", "scrambled", "n"), "speaks:N"]
    scale = alt.Scale(domain=[0, 1], scheme="blues")
    fill = base.mark_rect().encode(
        color=alt.Color("coverage:Q", scale=scale, legend=alt.Legend(title="coverage", format="%")), tooltip=shown
    )
    dark = alt.condition("datum.coverage > 0.55", alt.value("white"), alt.value("#1d1f23"))
    words = base.mark_text(fontSize=10).encode(text=alt.Text("coverage:Q", format=".0%"), color=dark)
    return layered(fill, words, height=max(80, 24 * rows["claim"].n_unique()))


def mixtures(frame: pl.DataFrame) -> alt.Chart:
    """What each member does, a stacked bar each. `frame` is the query `role_mixture`, one distribution."""
    totals = (
        frame.group_by("behaviour").agg(pl.col("share").sum()).sort(["share", "behaviour"], descending=[True, False])
    )
    order = [name for name in totals["behaviour"] if name != UNEXPLAINED] + [UNEXPLAINED]
    colours = [theme.behaviour_colour(name) for name in order]
    rows = frame.with_columns(rank=pl.col("behaviour").replace_strict({name: i for i, name in enumerate(order)}))
    chart: alt.Chart = (
        alt.Chart(only(rows, "component", "role", "behaviour", "share", "share_lo", "share_hi", "n", "rank"))
        .mark_bar()
        .encode(
            y=alt.Y("component:N", sort=rows["component"].unique(maintain_order=True).to_list(), title=None),
            x=alt.X("share:Q", stack="zero", title="share of Σ|DLA|", axis=value_axis(share=True)),
            color=alt.Color(
                "behaviour:N", scale=alt.Scale(domain=order, range=colours), sort=order, legend=alt.Legend(title=None)
            ),
            order=alt.Order("rank:Q"),
            tooltip=["component:N", "behaviour:N", *tips("share", "share_lo", "share_hi", "n")],
        )
        .properties(height=max(60, 24 * rows["component"].n_unique()))
    )
    return chart


def replaced(frame: pl.DataFrame) -> alt.LayerChart:
    """Effect explained by percentile of importance. `frame` is the query `replacements`, one measure, bins alone."""
    rows = frame.with_columns(
        claim=pl.format("{} · {}", "component", "rule"),
        bin=pl.format("{}–{}", pl.col("percentile_lo").cast(pl.Int64), pl.col("percentile_hi").cast(pl.Int64)),
    )
    bins = rows.unique("bin", maintain_order=True).sort("percentile_lo")["bin"].to_list()
    columns = ("claim", "bin", "explained", "explained_lo", "explained_hi", "null_explained", "n")
    base = alt.Chart(only(rows, *columns)).encode(
        x=alt.X("bin:N", sort=bins, title="percentile of importance", axis=alt.Axis(labelAngle=0)),
        color=alt.Color("claim:N", legend=alt.Legend(title=None)),
    )
    y = alt.Y("explained:Q", title="effect explained", axis=value_axis(share=True))
    line = base.mark_line(point=alt.OverlayMarkDef(size=30)).encode(
        y=y, tooltip=["claim:N", "bin:N", *tips("explained", "explained_lo", "explained_hi", "null_explained", "n")]
    )
    reach = base.mark_rule(strokeWidth=1).encode(y=alt.Y("explained_lo:Q", title=""), y2="explained_hi:Q")
    null = base.mark_line(strokeDash=[3, 3], strokeWidth=1).encode(y="null_explained:Q")
    return layered(null, reach, line, height=HEIGHT)


def tasks(frame: pl.DataFrame) -> alt.LayerChart:
    """Circuits by tasks. `frame` is the query `cross_tasks`, rows with a number."""
    base = alt.Chart(only(frame, "circuit", "task", "faithfulness", "faithfulness_lo", "faithfulness_hi", "n")).encode(
        x=alt.X("circuit:N", title="members of", axis=alt.Axis(labelAngle=0)), y=alt.Y("task:N", title="prompts of")
    )
    colour = alt.Color("faithfulness:Q", scale=alt.Scale(domain=[0, 1], scheme="blues", clamp=True), legend=None)
    fill = base.mark_rect().encode(
        color=colour, tooltip=["circuit:N", "task:N", *tips("faithfulness", "faithfulness_lo", "faithfulness_hi", "n")]
    )
    dark = alt.condition("datum.faithfulness > 0.55", alt.value("white"), alt.value("#1d1f23"))
    words = base.mark_text(fontSize=11).encode(text=alt.Text("faithfulness:Q", format=".0%"), color=dark)
    return layered(fill, words, height=max(90, 40 * frame["task"].n_unique()))
