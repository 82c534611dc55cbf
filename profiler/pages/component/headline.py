"""What a component does, in a label, or that no label holds: the first sentence of its card and its line in tables.

A label is a behaviour of the list that covers most of the component's |DLA|, and clearly more than it covers of other
components and than the text alone would give: the lower end of its interval lies LEAST_EXCESS above the median of the
layer's other components and, where the behaviour is a property of the text, above the upper end of the scrambled claim.
(What a head attends to is the head's own: one that always does it is that head, though its scrambled claim covers as
much.) Of several the largest such excess is the label. Raw shares decide nothing: what holds at most positions covers
most of everything.

The rows come from the query `behaviours`.
"""

from collections.abc import Callable

import polars as pl

from profiler.behaviours.importance import SIZE, Importance
from profiler.model.components import LABELLED
from profiler.pages import numbers

LEAST_EXCESS = 0.1
"""Share of Σ|DLA| by which a label lies above its baselines."""
LEAST_COVERAGE = 0.5
"""Share of Σ|DLA| that a label covers."""
LEAST_HELD = 30
"""Recorded positions at which a label holds."""
FEW_DOCUMENTS = 10
"""Effective documents below which a label is said with that number."""


def with_excess(behaviours: pl.DataFrame) -> pl.DataFrame:
    """The rows with `excess`: the lower end of the coverage's interval less the baseline; null where there is no
    interval or too few positions."""
    baseline = (
        pl.when(pl.col("family") == "attention")
        .then(pl.col("random").fill_null(0.0))
        .otherwise(pl.max_horizontal("scrambled_hi", "random"))
    )
    told = (pl.col("n_held") >= LEAST_HELD) & pl.col("coverage_lo").is_not_null()
    return behaviours.with_columns(excess=pl.when(told).then(pl.col("coverage_lo") - baseline))


def labels(behaviours: pl.DataFrame) -> pl.DataFrame:
    """The row of each component's label; components without a label have none."""
    found = with_excess(behaviours).filter(pl.col("excess") >= LEAST_EXCESS, pl.col("coverage") >= LEAST_COVERAGE)
    ordered = found.sort(["component", "excess", "behaviour"], descending=[False, True, False])
    return ordered.group_by("component", maintain_order=True).first()


def brief(row: dict[str, object]) -> str:
    """A label in few words, for tables: what it is, its coverage and interval."""
    return f"{_words(str(row['behaviour']))}: {numbers.share_with_interval(row, 'coverage')}"


def with_labels(overview: pl.DataFrame, behaviours_of: Callable[[str, int], pl.DataFrame]) -> pl.DataFrame:
    """The rows of component_overview with `label`, what each component's card begins with; null where no label holds.

    Args:
        behaviours_of: the query `behaviours` of a kind's most important components, by kind and how many.
    """
    counts = [(kind, int((overview["kind"] == kind).sum())) for kind in LABELLED]
    rows = [row for kind, n in counts if n for row in labels(behaviours_of(kind, n)).to_dicts()]
    told = {"component": [row["component"] for row in rows], "label": [brief(row) for row in rows]}
    frame = pl.DataFrame(told, schema={"component": pl.String, "label": pl.String})
    return overview.join(frame, on="component", how="left", maintain_order="left")


def sentence(behaviours: pl.DataFrame, kind: str, importance: Importance = "direct") -> str:
    """What a component does, of the rows of that component alone; empty where it writes nothing.

    Args:
        importance: what the rows count by.
    """
    rows = behaviours.filter(pl.col("coverage").is_not_null())
    if rows.is_empty():
        return ""
    found = labels(rows)
    if found.is_empty():
        return _no_label(rows, kind, importance)
    row = found.row(0, named=True)
    few = row["effective_documents"]
    documents = f"; its rows count as {numbers.number(few, 2)} documents" if few and few < FEW_DOCUMENTS else ""
    return f"{_words(row['behaviour'])}: {_evidence(row, kind, importance)}{documents}."


def _no_label(rows: pl.DataFrame, kind: str, importance: Importance) -> str:
    """That none holds, and what comes nearest."""
    told = with_excess(rows).filter(pl.col("excess") > 0).sort(["excess", "behaviour"], descending=[True, False])
    half = numbers.percent(LEAST_COVERAGE)
    said = (
        f"No label of the list holds: none covers {half} of its {SIZE[importance]} beyond what the text and other"
        f" {kind}s give."
    )
    if told.is_empty():
        return said
    row = told.row(0, named=True)
    return f"{said} Nearest is {_quoted(row['behaviour'])}: {_evidence(row, kind, importance)}."


def _evidence(row: dict[str, object], kind: str, importance: Importance) -> str:
    scrambled, others = (
        numbers.percent(value if isinstance(value, float) else None) for value in (row["scrambled"], row["random"])
    )
    return (
        f"{numbers.share_with_interval(row, 'coverage')} of its {SIZE[importance]} falls where that holds"
        f" (scrambled {scrambled}, other {kind}s of its layer {others})"
    )


def _words(name: str) -> str:
    """A behaviour's name as the beginning of a sentence."""
    return numbers.capitalised(name.replace("_", " "))


def _quoted(name: str) -> str:
    return f"“{name.replace('_', ' ')}”"
