"""The page of two runs: which components do something else in the second, at a bounded false discovery rate.

A page of the query `compare` on a connection that has both runs (`profiler.behaviours.compare.open_both`), beside the
components that already differ between domains of the first. Answer first; what the runs have in common is said.
"""

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from profiler.behaviours.importance import SIZE, Importance
from profiler.pages import method, numbers, tables
from profiler.pages.blocks import Chart, Note, Report, Section
from profiler.pages.charts.component import layered, tips, value_axis
from profiler.pages.reader import Reader, Result

LEVEL = 0.05
SHOWN = 40
METHOD = (
    ("Coverage", "The share of a component's Σ|DLA| at positions where the behaviour holds, in each run."),
    (
        "Test",
        (
            "Compares the importance ratio: mean |DLA| where the behaviour holds over mean |DLA| elsewhere, which does"
            " not change where a text merely has the behaviour more often. The difference of the log ratios over the"
            " root of the summed jackknife variances is compared with Student's t, with Welch's degrees of freedom."
        ),
    ),
    (
        "Scrambled",
        "Coverage of the same claim permuted among the positions of each domain: what the text alone would give.",
    ),
    (
        "q",
        (
            "Benjamini-Hochberg adjusted p-value over all rows of the query: among claims with q below 0.05, at most"
            " 5 % are expected to be false. A claim is tested where each run has 10 effective documents with such a"
            " position and 10 without."
        ),
    ),
    (
        "In a shell",
        "The second run is attached as `other`: ATTACH 'b.duckdb' AS other (READ_ONLY) before the query.",
    ),
)


def build(
    read: Reader,
    first: str,
    second: str,
    notes: Sequence[str],
    kind: str = "head",
    family: str = "auto",
    top: int = 100,
    importance: Importance = "direct",
) -> Report:
    """The page of two runs, named `first` and `second`.

    Args:
        read: answers queries on both.
        notes: of `profiler.behaviours.compare.notes`.
        kind, family, top, importance: as in the query.
    """
    result = read("compare", kind=kind, family=family, top=top, importance=importance)
    changed = result.frame.filter(pl.col("q") < LEVEL)
    return Report(
        title=f"What changed from {first} to {second}",
        subtitle="Two runs compared",
        answer=(_answer(result.frame, changed, kind), *_counted(importance), *notes),
        sections=(_map(result, first, second), _table(result, changed), _domains(read, kind, family, top, first)),
        method=(*METHOD, *method.method(read)),
        run_facts=method.run_facts(read),
    )


def _counted(importance: Importance) -> tuple[str, ...]:
    """What positions count by, where that is not |DLA|."""
    return (f"Positions count by {SIZE[importance]}.",) if importance != "direct" else ()


def _answer(frame: pl.DataFrame, changed: pl.DataFrame, kind: str) -> str:
    tested = frame.filter(pl.col("p").is_not_null())
    if tested.is_empty():
        return (
            f"No claim could be tested: of {numbers.plural(len(frame), 'claim')} none has enough documents in both runs"
            " with and without the behaviour."
        )
    n_tested, n_changed = tested["component"].n_unique(), changed["component"].n_unique()
    n_moved = frame.filter("differs")["component"].n_unique()
    text = (
        f"{n_changed:,} of {n_tested:,} tested {kind}s change what they matter for, beyond what the text explains"
        f" (false discovery rate 5 %). The leading behaviour of {n_moved:,} differs."
        f" {len(tested):,} of {len(frame):,} claims could be tested."
    )
    if changed.is_empty():
        return f"{text} A difference that was not found may still exist: see the intervals."
    row = changed.sort(pl.col("difference").abs(), "component", descending=[True, False]).row(0, named=True)
    before, after = (
        f"{numbers.share_with_interval(row, f'coverage_{run}')}, scrambled {numbers.percent(row[f'scrambled_{run}'])},"
        for run in "ab"
    )
    return (
        f"{text} The largest change: “{row['behaviour']}” of {row['component']} goes from {before} to {after} of its"
        " |DLA|."
    )


def scatter(frame: pl.DataFrame, first: str, second: str) -> alt.LayerChart:
    """Coverage in both runs, a dot per claim. `frame` is the query `compare`."""
    rows = frame.with_columns(changed=(pl.col("q") < LEVEL).fill_null(value=False))
    axes: dict[str, Any] = {"axis": value_axis(share=True), "scale": alt.Scale(domain=[0, 1])}
    dots = (
        alt.Chart(rows)
        .mark_circle(size=55, opacity=0.75)
        .encode(
            x=alt.X("coverage_a:Q", title=f"coverage in {first}", **axes),
            y=alt.Y("coverage_b:Q", title=f"coverage in {second}", **axes),
            color=alt.Color(
                "changed:N", title="q below 0.05", scale=alt.Scale(domain=[False, True], range=["#a9adb5", "#d55e00"])
            ),
            tooltip=tips(
                "component",
                "behaviour",
                "coverage_a",
                "scrambled_a",
                "coverage_b",
                "scrambled_b",
                "ratio_a",
                "ratio_b",
                "q",
            ),
        )
    )
    line = alt.Chart(pl.DataFrame({"x": [0.0, 1.0]})).mark_rule(strokeDash=[4, 4], opacity=0.5)
    diagonal = line.encode(x=alt.X("min(x):Q"), x2="max(x):Q", y=alt.Y("min(x):Q"), y2="max(x):Q")
    return layered(diagonal, dots, height=340)


def _map(result: Result, first: str, second: str) -> Section:
    if result.frame.is_empty():
        return Section(
            "Both runs", "", (Note("Coverage", "The runs have no component and behaviour in common.", "full"),)
        )
    caption = (
        "Each dot is a claim about a component. Off the diagonal the text or the component differs. Orange: the"
        " component changed, beyond chance and beyond what the text explains."
    )
    return Section(
        "Both runs",
        "",
        (Chart("Coverage in both", caption, scatter(result.frame, first, second), result.source, "full"),),
    )


def _table(result: Result, changed: pl.DataFrame) -> Section:
    columns = (
        tables.words("component", "Component"),
        tables.words("behaviour", "Behaviour"),
        tables.share("coverage_a", "First run"),
        tables.share("scrambled_a", "Scrambled"),
        tables.share("coverage_b", "Second run"),
        tables.share("scrambled_b", "Scrambled"),
        tables.value(
            "times", "Times", "importance ratio in the second run over that in the first, with the 95 % interval"
        ),
        tables.value("q", "q", "Benjamini-Hochberg adjusted p-value, over all rows"),
        tables.words("largest_a", "Leading in the first"),
        tables.words("largest_b", "Leading in the second"),
    )
    listed = changed.sort(pl.col("difference").abs(), "component", "behaviour", descending=[True, False, False])
    caption = "Claims with q below 0.05, largest difference of coverage above scrambled first, with 95 % intervals."
    empty = "No claim changed beyond chance."
    return Section(
        "Changed", "", (tables.table("Changed claims", caption, result, columns, listed.head(SHOWN), "full", empty),)
    )


def _domains(read: Reader, kind: str, family: str, top: int, first: str) -> Section:
    result = read("polysemantic", kind=kind, family=family, top=top)
    columns = (
        tables.words("component", "Component"),
        tables.words("behaviour", "Behaviour"),
        tables.words("domain_a", "Domain"),
        tables.share("coverage_a", "Coverage"),
        tables.share("scrambled_a", "Scrambled"),
        tables.words("domain_b", "and"),
        tables.share("coverage_b", "Coverage there"),
        tables.share("scrambled_b", "Scrambled"),
        tables.value("q", "q", "Benjamini-Hochberg adjusted p-value, over components"),
    )
    caption = f"Components of {first} that matter for different things in two of its own domains."
    frame = result.frame.filter(pl.col("q") < LEVEL).head(SHOWN)
    return Section(
        "Within the first run",
        "",
        (
            tables.table(
                "By domain",
                caption,
                result,
                columns,
                frame,
                "full",
                "No component differs between domains beyond chance.",
            ),
        ),
    )
