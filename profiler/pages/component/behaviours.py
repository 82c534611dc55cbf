"""Behaviours on pages: the heat map over components, the stacked mixture of a component, and the section of its card.

Every number comes from the queries behaviours, mixture, unexplained and rarity. A coverage never stands alone: beside
it are the same claim scrambled, and the other components of the same kind and layer.
"""

import altair as alt
import polars as pl

from profiler.model.components import LABELLED, ComponentId
from profiler.pages import numbers, tables
from profiler.pages.blocks import Block, Chart, Note, Section
from profiler.pages.charts import theme
from profiler.pages.charts.component import tips, value_axis
from profiler.pages.reader import Reader, Result

UNEXPLAINED = "unexplained"
SHOWN = 9


def heat_map(frame: pl.DataFrame) -> alt.Chart:
    """Coverage of each behaviour by each component, most important component first. `frame` is the query
    `behaviours`."""
    components = frame["component"].unique(maintain_order=True).to_list()
    behaviours = (
        frame.group_by("behaviour")
        .agg(pl.col("coverage").max())
        .sort(["coverage", "behaviour"], descending=[True, False])
    )
    shown = tips("component", "behaviour", "coverage", "coverage_lo", "coverage_hi", "scrambled", "random", "n")
    scale = alt.Scale(domain=[0, 1], scheme="blues")
    chart: alt.Chart = (
        alt.Chart(frame)
        .mark_rect()
        .encode(
            x=alt.X("behaviour:N", sort=behaviours["behaviour"].to_list(), title=None, axis=alt.Axis(labelAngle=-40)),
            y=alt.Y("component:N", sort=components, title=None),
            color=alt.Color("coverage:Q", scale=scale, legend=alt.Legend(title="coverage", format="%")),
            tooltip=shown,
        )
        .properties(height=max(80, 17 * len(components)))
    )
    return chart


def names_of(frame: pl.DataFrame) -> list[str]:
    """Behaviours of a mixture by their share over all positions, `unexplained` last."""
    over_all = frame.filter(pl.col("slice") == "all", pl.col("behaviour") != UNEXPLAINED)
    return [*over_all.sort(["share", "behaviour"], descending=[True, False])["behaviour"].to_list(), UNEXPLAINED]


def mixture(frame: pl.DataFrame, slice_: str, order: list[str]) -> alt.Chart:
    """One stacked bar per value of a slice. `frame` is the query `mixture`; `order` fixes the stacking."""
    rows = frame.filter(pl.col("slice") == slice_).with_columns(
        rank=pl.col("behaviour").replace_strict({n: i for i, n in enumerate(order)})
    )
    colours = [theme.behaviour_colour(name) for name in order]
    values = rows["value"].unique(maintain_order=True).to_list()
    chart: alt.Chart = (
        alt.Chart(rows)
        .mark_bar()
        .encode(
            y=alt.Y("value:N", sort=values[::-1] if slice_ == "quantile" else values, title=None),
            x=alt.X(
                "share:Q",
                stack="zero",
                title="share of Σ|DLA|",
                axis=value_axis(share=True, tickCount=5),
                scale=alt.Scale(domain=[0, 1], nice=False),
            ),
            color=alt.Color(
                "behaviour:N", scale=alt.Scale(domain=order, range=colours), sort=order, legend=alt.Legend(title=None)
            ),
            order=alt.Order("rank:Q"),
            tooltip=tips("value", "share_n", "behaviour", "share", "share_lo", "share_hi", "scrambled", "n"),
        )
        .properties(height=max(50, 26 * len(values)))
    )
    return chart


def section(read: Reader, component: ComponentId) -> Section:
    """What a head or neuron does: its mixture, the claims with their baselines, what is left, what could not be
    seen."""
    if component.kind not in LABELLED:
        return Section("Behaviours", "", ())
    result = read("mixture", component=component.label)
    if result.frame.is_empty():
        return Section("Behaviours", "", (Note("Behaviours", "It writes nothing at the recorded positions.", "full"),))
    order = names_of(result.frame)
    blocks = [_stack(result, slice_, order) for slice_ in ("quantile", "domain")]
    return Section("Behaviours", sentence(result.frame), (*blocks, _claims(read, component), *_rest(read, component)))


def sentence(frame: pl.DataFrame) -> str:
    """The mixture over all positions in words: the largest behaviour and the unexplained share."""
    rows = {row["behaviour"]: row for row in frame.filter(pl.col("slice") == "all").to_dicts()}
    left = numbers.share_with_interval(rows[UNEXPLAINED], "share")
    first = names_of(frame)[0]
    if first == UNEXPLAINED:
        return f"No behaviour of the list holds where it writes: {left} of its |DLA| is unexplained."
    return (
        f"“{first}” accounts for {numbers.share_with_interval(rows[first], 'share')} of its |DLA|; {left} is"
        " unexplained. Where several behaviours hold, the position counts for the behaviour of highest priority."
    )


def _stack(result: Result, slice_: str, order: list[str]) -> Chart:
    texts = {
        "quantile": (
            "Mixture by activation",
            (
                "Each band of activation is named by the quantile at which it begins; hover for its share of positions."
                " Quantiles with tied activations have no band."
            ),
        ),
        "domain": (
            "Mixture by domain",
            (
                "Hover for the share of the scrambled claim: if that differs between domains in the same way, the text"
                " differs, not the component."
            ),
        ),
    }
    title, caption = texts[slice_]
    return Chart(
        title, f"Shares of Σ|DLA|; grey is unexplained. {caption}", mixture(result.frame, slice_, order), result.source
    )


def _claims(read: Reader, component: ComponentId) -> Block:
    result = read("behaviours", component=component.label)
    frame = result.frame.sort(["coverage", "behaviour"], descending=[True, False]).head(SHOWN)
    columns = (
        tables.words("behaviour", "Behaviour"),
        tables.share("coverage", "Coverage", "share of Σ|DLA| where it holds, with the 95 % interval"),
        tables.share("base_rate", "Base rate", "share of positions where it holds"),
        tables.share("scrambled", "Scrambled", "coverage of the claim permuted among the positions of each domain"),
        tables.share("random", f"Other {component.kind}s", f"median coverage of the layer's other {component.kind}s"),
        tables.count("n_held", "n", "recorded positions where it holds"),
    )
    caption = (
        f"Coverage beside two baselines: the claim scrambled, and the claim made of other {component.kind}s of the"
        " layer. A claim says something only as far as it exceeds both."
    )
    return tables.table("Claims and their baselines", caption, result, columns, frame, "full")


def _rest(read: Reader, component: ComponentId) -> list[Block]:
    left, rare = read("unexplained", component=component.label, top=6), read("rarity", component=component.label)
    shown = ",".join(map(str, left.frame["position_id"]))
    tokens = read("context_tokens", component=component.label, positions=shown).frame if shown else None
    frame = left.frame if tokens is None else tables.with_tokens(left.frame, tokens)
    groups = [tables.group("No behaviour holds", "largest |DLA| first", frame, tables.reach_of(frame))]
    never = rare.frame.filter(pl.col("n_held") == 0).head(SHOWN)
    columns = (
        tables.words("behaviour", "Not seen"),
        tables.share("rate_hi", "Rate is below", "3 / n, with the effective n"),
        tables.count("n_needed", "n for 0.01 %", "positions that would show a rate of 0.01 % with probability 95 %"),
        tables.words("verdict", "Verdict"),
    )
    return [
        tables.examples(
            "Unexplained",
            "The most important positions at which no behaviour of the list holds.",
            left.source,
            groups,
            "Some behaviour holds at every recorded position.",
        ),
        tables.table(
            "What could not have been seen",
            "Not seen in n positions: the rate is below 3/n, with n the effective number of positions.",
            rare,
            columns,
            never,
            "full",
            "Every behaviour of the list was seen at least once.",
        ),
    ]
