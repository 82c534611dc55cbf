"""The component card's breakdowns: the spectrum by class of the token, and where the component matters.

Every number comes from the queries by_class, by_next_class, by_domain, by_position and spectrum_by_class. Cost: none
beyond them.
"""

import polars as pl

from profiler.pages import tables
from profiler.pages.blocks import Block, Chart, Note, Section
from profiler.pages.charts import component
from profiler.pages.reader import Reader, Result


def class_views(by_class: Result) -> tuple[Chart, ...]:
    """The spectrum split by class of the token, six ways. `by_class` is the query `spectrum_by_class`."""
    frame, source = by_class.frame, by_class.source
    return (
        Chart(
            "Class share",
            "Share of each class among the positions of a bin, P(class | bin). A band that widens to the right is what"
            " the high activations are about.",
            component.class_share(frame),
            source,
        ),
        Chart(
            "Expected value",
            "Contribution of each bin to the mean activation, x · p(x). Large activations matter only as much as they"
            " weigh here.",
            component.expected_value(frame),
            source,
        ),
        Chart(
            "DLA-weighted",
            "The component's Σ|DLA| by activation and class. If most of it lies left of the top bins, the extremes do"
            " not show what the component mostly does.",
            component.importance(frame),
            source,
        ),
        Chart(
            "Class share with intervals",
            "P(class | bin) of the classes with most Σ|DLA|, with 95 % intervals: wide where a bin holds few"
            " positions.",
            component.posterior(frame),
            source,
        ),
        Chart(
            "Within each class",
            "P(bin | class): base rates removed. A rare class may lie far right here and still be a small share of the"
            " bin; read it beside the class share.",
            component.class_density(frame),
            source,
        ),
        Chart(
            "DLA by activation",
            "Mean DLA of each bin, in logits: whether larger activations raise or lower the logit of the token that"
            " came next.",
            component.mean_dla(frame),
            source,
        ),
    )


def section(read: Reader, label: str) -> Section:
    """Where the component matters: by class of the token and of the next, by domain, by position in the window."""
    by_class, by_next = read("by_class", component=label), read("by_next_class", component=label)
    by_domain, by_position = read("by_domain", component=label), read("by_position", component=label)
    blocks = [
        *_bars(
            "By class of the token",
            "Mean |DLA| at positions of each class, with 95 % intervals over groups of documents.",
            by_class,
            "abs_dla",
            "mean |DLA|, logits",
            by_class=True,
        ),
        *_bars(
            "By class of the next token",
            "Mean DLA to the token that came next: which classes it raises and lowers.",
            by_next,
            "dla",
            "mean DLA, logits",
        ),
        *_bars(
            "By domain",
            "Mean |DLA| in each domain. Where bars differ, how important the component is depends on the text.",
            by_domain,
            "abs_dla",
            "mean |DLA|, logits",
        ),
        *_bars(
            "By position in the window",
            "Mean |DLA| by distance from the start of the window, in buckets that double.",
            by_position,
            "abs_dla",
            "mean |DLA|, logits",
            in_order=True,
        ),
    ]
    return Section("Where it matters", "", (*blocks, _class_table(by_class)))


def _bars(
    title: str, caption: str, result: Result, measure: str, axis: str, *, by_class: bool = False, in_order: bool = False
) -> list[Block]:
    frame = result.frame.filter(pl.col("n") > 0)
    if frame.is_empty():
        return [Note(title, "No ordinary position was recorded.")]
    order = frame["value"].to_list() if in_order else None
    return [
        Chart(
            title, caption, component.interval_bars(frame, measure, axis, by_class=by_class, order=order), result.source
        )
    ]


def _class_table(by_class: Result) -> Block:
    total = by_class.frame["n"].sum()
    frame = by_class.frame.with_columns((pl.col("n") / total).alias("share_n")).sort("share_abs_dla", descending=True)
    columns = (
        tables.words("value", "Class"),
        tables.count("n", "n", "positions"),
        tables.share("share_n", "of positions"),
        tables.share("share_abs_dla", "of its Σ|DLA|", "with the 95 % interval"),
        tables.value("activation", "Mean activation"),
        tables.value("dla", "Mean DLA, logits", signed=True),
    )
    caption = "A class matters to this component only as far as its share of Σ|DLA| exceeds its share of positions."
    return tables.table("Classes in numbers", caption, by_class, columns, frame, "full")
