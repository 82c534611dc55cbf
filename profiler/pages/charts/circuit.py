"""Charts of patching and circuits, from the frames of their queries.

Gate labels have the same colours in every chart: sufficient and necessary dark blue, OR-like orange, AND-like green,
partial light blue, none grey; what an edge or a component adds is green and what it holds back purple, as DLA is
elsewhere.
"""

import re
from typing import Any

import altair as alt
import polars as pl

from profiler.pages.charts import spectrum, theme
from profiler.pages.charts.component import HEIGHT, layered, only, tips, value_axis

GATES = {
    "sufficient and necessary": "#1f5a96",
    "OR-like": "#e6a000",
    "AND-like": "#2e9a57",
    "partial": "#7ec3ea",
    "none": "#a9adb5",
}
NAMED = 24
DRAWN_EDGES = 40
LEVEL = 0.05
"""Adjusted p-value below which an effect is drawn as clear."""


def quadrant(frame: pl.DataFrame) -> alt.LayerChart:
    """Sufficiency against necessity. `frame` is the query `gates`, one set of positions."""
    points = only(frame, "component", "component_kind", "layer", "recovered_denoise", "lost_noise", "gate", "excess")
    named = frame.with_columns(
        pl.max_horizontal(pl.col("recovered_denoise").abs(), pl.col("lost_noise").abs()).alias("size")
    )
    named = only(
        named.filter(pl.col("gate") != "none").sort("size", descending=True).head(NAMED),
        "component",
        "recovered_denoise",
        "lost_noise",
    )
    x = alt.X("recovered_denoise:Q", title="recovered by clean values (sufficient)", axis=value_axis(share=True))
    y = alt.Y("lost_noise:Q", title="lost by corrupted values (necessary)", axis=value_axis(share=True))
    colour = alt.Color("gate:N", scale=alt.Scale(domain=list(GATES), range=list(GATES.values())))
    dots = (
        alt.Chart(points)
        .mark_circle(size=46, opacity=0.85)
        .encode(
            x=x,
            y=y,
            color=colour,
            tooltip=[
                "component:N",
                "gate:N",
                alt.Tooltip("recovered_denoise:Q", format=".3f"),
                alt.Tooltip("lost_noise:Q", format=".3f"),
            ],
        )
    )
    words = alt.Chart(named).mark_text(dy=-8, fontSize=10).encode(x=x, y=y, text="component:N")
    return layered(_diagonal(frame), dots, words, height=HEIGHT + 150)


def _diagonal(frame: pl.DataFrame) -> alt.Chart:
    """The line on which both shares are equal: partial above and below."""
    most = max(0.1, frame["recovered_denoise"].abs().max() or 0.1, frame["lost_noise"].abs().max() or 0.1)
    ends = pl.DataFrame({"recovered_denoise": [0.0, most], "lost_noise": [0.0, most]})
    chart: alt.Chart = (
        alt.Chart(ends)
        .mark_line(strokeDash=[4, 4], strokeWidth=0.8, opacity=0.6)
        .encode(x="recovered_denoise:Q", y="lost_noise:Q")
    )
    return chart


def drawing(members: pl.DataFrame, edges: pl.DataFrame) -> alt.LayerChart:
    """The circuit from the embedding up to the logits. `members` and `edges` are the queries circuit_members,
    circuit_edges."""
    strong = edges.filter(pl.col("matters")).sort(pl.col("lost").abs(), descending=True).head(DRAWN_EDGES)
    nodes = node_positions(members, strong)
    at = {row["node"]: (row["x"], row["y"]) for row in nodes.to_dicts()}
    rows = [
        {
            "writer": e["writer"],
            "reader": e["reader"],
            "lost": e["lost"],
            "size": abs(e["lost"]),
            "x": at[e["writer"]][0],
            "y": at[e["writer"]][1],
            "x2": at[_node(e["reader"])][0],
            "y2": at[_node(e["reader"])][1],
        }
        for e in strong.to_dicts()
    ]
    schema = {"writer": pl.String, "reader": pl.String} | dict.fromkeys(
        ("lost", "size", "x", "y", "x2", "y2"), pl.Float64
    )
    lines = (
        alt.Chart(pl.DataFrame(rows, schema=schema))
        .mark_rule(opacity=0.55)
        .encode(
            x=alt.X("x:Q", axis=None),
            y=alt.Y("y:Q", axis=None),
            x2="x2:Q",
            y2="y2:Q",
            strokeWidth=alt.StrokeWidth("size:Q", scale=alt.Scale(range=[0.5, 6]), legend=None),
            color=alt.condition(
                "datum.lost < 0", alt.value(theme.DLA_SIGN["negative"]), alt.value(theme.DLA_SIGN["positive"])
            ),
            tooltip=["writer:N", "reader:N", alt.Tooltip("lost:Q", format=".3f")],
        )
    )
    base = alt.Chart(nodes).encode(
        x=alt.X("x:Q", axis=None, scale=alt.Scale(padding=70)), y=alt.Y("y:Q", axis=None, scale=alt.Scale(padding=26))
    )
    dots = base.mark_circle(size=170, opacity=1).encode(
        color=alt.Color("gate:N", scale=alt.Scale(domain=list(GATES), range=list(GATES.values()))),
        tooltip=["node:N", "role:N", "gate:N"],
    )
    labels = base.mark_text(dy=-15, fontSize=11, fontWeight=600).encode(text="node:N")
    roles = base.mark_text(dy=17, fontSize=9).encode(text="role:N")
    return layered(lines, dots, labels, roles, height=90 * len(nodes["y"].unique()))


def _node(reader: str) -> str:
    return reader.split(".")[0]


def _role(row: dict[str, Any]) -> str:
    """The member's role, and the positions at which alone it is one."""
    at = "" if row["positions"] == "all" else f"only at {row['positions']}"
    return "; ".join(part for part in (row["role"], at) if part)


def node_positions(members: pl.DataFrame, edges: pl.DataFrame) -> pl.DataFrame:
    """Where each node is drawn: a row per layer (its MLP half a row above), spread evenly from left to right."""
    known = {row["component"]: row | {"role": _role(row)} for row in members.to_dicts()}
    names = dict.fromkeys(["embed", *known, *edges["writer"], *(_node(r) for r in edges["reader"]), "logits"])
    layers = {name: int(match[1]) for name in names if (match := re.match(r"L(\d+)", name))}
    top = max(layers.values(), default=0) + 1.0
    rows: dict[float, list[str]] = {}
    for name in sorted(names):
        height = -1.0 if name == "embed" else top if name == "logits" else layers[name] + 0.5 * ("H" not in name)
        rows.setdefault(height, []).append(name)
    return pl.DataFrame(
        [
            {
                "node": name,
                "x": (i + 1) / (len(row) + 1),
                "y": height,
                "role": (known.get(name) or {}).get("role") or "",
                "gate": (known.get(name) or {}).get("gate") or "none",
            }
            for height, row in rows.items()
            for i, name in enumerate(row)
        ]
    )


def size_curve(frame: pl.DataFrame) -> alt.LayerChart:
    """Faithfulness of the k best nodes. `frame` is the query `circuit_curve`."""
    rule = (
        alt.Chart(pl.DataFrame({"faithfulness": [1.0]}))
        .mark_rule(strokeDash=[4, 4], strokeWidth=0.8)
        .encode(y="faithfulness:Q")
    )
    line = (
        alt.Chart(only(frame, "size", "faithfulness", "component"))
        .mark_line(point=alt.OverlayMarkDef(size=22))
        .encode(
            x=alt.X("size:Q", title="best nodes"),
            y=alt.Y("faithfulness:Q", title="faithfulness", axis=value_axis(share=True)),
            tooltip=["size:Q", "component:N", alt.Tooltip("faithfulness:Q", format=".3f")],
        )
    )
    return layered(rule, line, height=HEIGHT)


def random_circuits(frame: pl.DataFrame, observed: float) -> alt.LayerChart:
    """Faithfulness of random circuits, and of the circuit. `frame` is the query `circuit_random`, one set of pairs."""
    bars = (
        alt.Chart(only(frame, "faithfulness"))
        .mark_bar(color=theme.SIZE_COLOUR)
        .encode(
            x=alt.X("faithfulness:Q", bin=alt.Bin(maxbins=40), title="faithfulness", axis=alt.Axis(format="~%")),
            y=alt.Y("count()", title="random circuits"),
        )
    )
    mark = (
        alt.Chart(pl.DataFrame({"faithfulness": [observed]}))
        .mark_rule(strokeWidth=2, color=theme.DLA_SIGN["positive"])
        .encode(x="faithfulness:Q")
    )
    return layered(bars, mark, height=HEIGHT)


def saturation(frame: pl.DataFrame) -> alt.LayerChart:
    """Share recovered by sets of top heads. `frame` is the query `saturation`."""
    base = alt.Chart(only(frame, "size", "share", "lowest", "highest")).encode(
        x=alt.X("size:Q", title="heads patched together", axis=alt.Axis(tickMinStep=1))
    )
    band = base.mark_area(opacity=0.2).encode(
        y=alt.Y("lowest:Q", title="recovered", axis=value_axis(share=True)), y2="highest:Q"
    )
    line = base.mark_line(point=True).encode(y="share:Q", tooltip=["size:Q", alt.Tooltip("share:Q", format=".3f")])
    return layered(band, line, height=HEIGHT)


def responses(frame: pl.DataFrame) -> alt.LayerChart:
    """Components by corruptions and pairs of them. `frame` is the query `corruption_factors`, the rows to be drawn, in
    order."""
    drawn = frame.filter(pl.col("effect").is_not_null()).with_columns(clear=pl.col("p_adjusted") < LEVEL)
    names, axes = (drawn[name].unique(maintain_order=True).to_list() for name in ("component", "axis"))
    most = max(0.1, spectrum.number_of(drawn["effect"].abs().max()))
    columns = ("component", "axis", "effect", "effect_lo", "effect_hi", "part", "p_adjusted", "clear")
    base = alt.Chart(only(drawn, *columns)).encode(
        x=alt.X("axis:N", sort=axes, title=None, axis=alt.Axis(labelAngle=-35, orient="top", labelLimit=200)),
        y=alt.Y("component:N", sort=names, title=None),
    )
    signs = theme.DLA_SIGN
    colour = alt.Color(
        "effect:Q",
        scale=alt.Scale(
            type="pow",
            exponent=0.6,
            interpolate="rgb",
            domain=[-most, 0, most],
            range=[signs["negative"], "#f4f4f6", signs["positive"]],
        ),
        legend=None,
    )
    tooltip = ["component:N", "axis:N", *tips("effect", "effect_lo", "effect_hi", "part", "p_adjusted")]
    fill = base.mark_rect(stroke="white", strokeWidth=1).encode(color=colour, tooltip=tooltip)
    dark = alt.condition(f"abs(datum.effect) > {0.45 * most}", alt.value("white"), alt.value("#1d1f23"))
    words = (
        base.mark_text(fontSize=10)
        .transform_filter("datum.clear")
        .encode(text=alt.Text("effect:Q", format=".1f"), color=dark)
    )
    return layered(fill, words, height=max(120, 22 * len(names)))
