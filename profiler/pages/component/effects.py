"""The component card's section on total effects: what it does through everything after it, beside what it writes
directly. Shown where `profiler effects` was run. Cost: four short queries.
"""

from typing import Any

from profiler.model.components import ComponentId
from profiler.pages import numbers, tables
from profiler.pages.blocks import Block, Note, Section
from profiler.pages.component import answer
from profiler.pages.numbers import number, percent, share_with_interval
from profiler.pages.reader import Reader

TITLE = "Everything it does"
WAYS = 12
COLUMNS = (
    tables.words("through", "through", "the first component that reads what it wrote; logits is the direct effect"),
    tables.words("input", "input", "query, key or value of a head"),
    tables.share("share", "share", "of the sizes of all ways"),
    tables.value("effect", "effect", "mean, logits; ways of opposite sign cancel", signed=True),
)


def section(read: Reader, component: ComponentId) -> Section:
    """Direct and total importance with their ranks; ways; self-repair; the final norm. Empty without a pass."""
    if component.unit is None or not read.has("effect_totals"):
        return Section(TITLE, "", ())
    rows = read("effects", component=component.label).frame.to_dicts()
    if not rows:
        return Section(TITLE, "", ())
    blocks = (Note("Direct and total", _compared(rows[0]), "full"), *_ways(read, component), *_notes(read, component))
    return Section(TITLE, f"{numbers.capitalised(answer.ACTS[rows[0]['acts']])}.", blocks)


def _compared(row: dict[str, Any]) -> str:
    """Both importances, their ranks, and whether the estimate can be believed."""
    text = (
        f"Mean size of its total effect: {number(row['importance'])} logits (rank {row['rank']} of {row['of_kind']});"
        f" of its direct effect at the same positions: {number(row['direct_importance'])} (rank {row['direct_rank']})."
        f" Held against its mean; estimated by the method {row['method']}."
    )
    if row["reliable"] is None:
        return f"{text} No ablation was made to hold these estimates against."
    error = f"the estimates of its layer and kind are off by {percent(row['error'])} of ablations"
    return f"{text} {'Reliable' if row['reliable'] else 'Unreliable'}: {error}."


def _ways(read: Reader, component: ComponentId) -> tuple[Block, ...]:
    ways = read("effect_routes", component=component.label)
    if ways.frame.is_empty():
        return ()
    caption = "Its total effect, split over the components that read what it wrote; each way is counted once."
    return (tables.table("Through whom", caption, ways, COLUMNS, ways.frame.head(WAYS)),)


def _notes(read: Reader, component: ComponentId) -> tuple[Block, ...]:
    """Self-repair, and what it does through the final norm."""
    notes: list[Block] = []
    for row in read("effect_repair", component=component.label).frame.drop_nulls("repaired").to_dicts():
        back = f"{share_with_interval(row, 'repaired')} of its direct effect comes back when it is removed"
        by_norm = f"{percent(row['by_norm'])} by the final norm's denominator"
        notes.append(Note("Self-repair", f"{back}, {by_norm}; at {row['n']} positions drawn by its direct effect."))
    for row in read("effect_norms", component=component.label).frame.to_dicts():
        text = f"Without it the final norm's denominator changes by {percent(row['scale'])} on average"
        if row["entropy"] is not None:
            text += f", which alone changes the entropy by {number(row['entropy'])} nats and the next token's margin"
            text += f" by {number(row['margin'])} logits"
        notes.append(Note("Through the final norm", f"{text}."))
    return tuple(notes)
