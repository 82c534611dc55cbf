"""From frames to tables and contexts. Every text of the corpus passes through `profiler.pages.visible_text` here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from markupsafe import Markup

from profiler.pages import numbers, visible_text
from profiler.pages.blocks import Block, Cell, Example, ExampleGroup, Examples, Note, Sign, Source, Table, Width
from profiler.pages.component import contexts
from profiler.pages.reader import Result

Row = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of a table: its label, a hint shown on hovering, and the cell of a row."""

    label: str
    cell: Callable[[Row], Cell]
    hint: str = ""


def words(name: str, label: str, hint: str = "") -> Column:
    """A column of plain text."""
    return Column(
        label, lambda row: Cell(numbers.MISSING if row[name] is None else visible_text.span(str(row[name]))), hint
    )


def token(name: str, label: str) -> Column:
    """A column of tokens."""
    return Column(label, lambda row: Cell(visible_text.token(row[name])))


def count(name: str, label: str, hint: str = "") -> Column:
    """A column of whole numbers."""
    return Column(label, lambda row: Cell(numbers.count(row[name]), numeric=True), hint)


def value(name: str, label: str, hint: str = "", *, signed: bool = False) -> Column:
    """A column of numbers, ± the 95 % half width where the frame has `name`_lo and `name`_hi; signed ones coloured."""

    def cell(row: Row) -> Cell:
        low, high = row.get(f"{name}_lo"), row.get(f"{name}_hi")
        half = None if low is None or high is None else (high - low) / 2
        shown = numbers.number(row[name]) + ("" if half is None else f" ± {numbers.number(half, 2)}")
        return Cell(shown, numeric=True, sign=_sign(row[name]) if signed else "")

    return Column(label, cell, hint)


def _sign(number: float | None) -> Sign:
    return "" if not number else "positive" if number > 0 else "negative"


def share(name: str, label: str, hint: str = "", full: float = 1.0) -> Column:
    """A column of shares with their 95 % interval, where the frame has one, and a bar that is full at `full`."""

    def cell(row: Row) -> Cell:
        low, high = row.get(f"{name}_lo"), row.get(f"{name}_hi")
        bounds = "" if low is None or high is None else f" ({numbers.percent_range(low, high)})"
        bar = None if row[name] is None or not full else min(1.0, max(0.0, row[name] / full))
        return Cell(numbers.percent(row[name]) + bounds, numeric=True, bar=bar)

    return Column(label, cell, hint)


def table(
    title: str,
    caption: str,
    result: Result,
    columns: Sequence[Column],
    frame: pl.DataFrame | None = None,
    width: Width = "half",
    empty: str = "Nothing was recorded here.",
) -> Block:
    """A table of `frame` (by default the whole answer), or a note with the reason `empty` where it has no rows."""
    rows = (result.frame if frame is None else frame).to_dicts()
    if not rows:
        return Note(title, empty, width)
    cells = tuple(tuple(column.cell(row) for column in columns) for row in rows)
    return Table(title, caption, tuple((c.label, c.hint) for c in columns), cells, result.source, width)


@dataclass(frozen=True)
class Reach:
    """The largest |activation| and |DLA| that a card shows: the full tint of its contexts."""

    activation: float
    dla: float


def reach_of(*frames: pl.DataFrame) -> Reach:
    """The largest |activation| and |DLA| in these frames."""
    largest = {
        name: max((abs(v) for f in frames for v in f[name] if v is not None), default=0.0)
        for name in ("activation", "dla")
    }
    return Reach(**largest)


def example(row: Row, reach: Reach) -> Example:
    """A position in its context: token by token where the row has `tokens` (query context_tokens), else in four
    pieces."""
    tokens, shown = _tokens(row)
    tints = tint(row["activation"], reach.activation), tint(row["dla"], reach.dla)
    chance = tokens[shown].probability
    weight = row.get("weight")
    return Example(
        context=contexts.html(tokens, shown, *tints),
        activation=numbers.number(row["activation"]),
        dla=numbers.number(row["dla"], 2),
        probability="" if chance is None else numbers.percent(chance),
        activation_tint=tints[0],
        dla_tint=tints[1],
        where=Markup("<span>{}</span> <span>{}</span>").format(
            visible_text.span(row["domain"]), _source(row["source"])
        ),
        note=_attends(row, shown),
        stratum=None if weight is None else (weight, row["activation"]),
    )


def _tokens(row: Row) -> tuple[tuple[contexts.Token, ...], int]:
    """The tokens of a context and the index of the shown one; the next token is added where the window ends."""
    if row.get("tokens") is None:
        return contexts.plain(_pieces(row)), 1
    shown, listed = row["shown"], list(row["tokens"])
    listed += [row["next_token"]] * (shown + 1 == len(listed))
    columns = [row["activations"], row["dlas"], row["probabilities"], _attention(row, len(listed))]
    filled = [[*(column or []), *[None] * len(listed)] for column in columns]
    made = zip(contexts.texts(listed, shown), *filled, strict=False)
    return tuple(contexts.Token(*values) for values in made), shown


def _attention(row: Row, length: int) -> list[float | None]:
    """The whole row where it was recomputed; else the most attended token alone, if it is in sight."""
    out: list[float | None] = [None] * length
    if row.get("attention") is not None:
        out = row["attention"]
        return out
    if row.get("top_offset") is not None and row["top_offset"] <= row["shown"]:
        out[row["shown"] - row["top_offset"]] = row["top_weight"]
    return out


def _attends(row: Row, shown: int) -> str:
    """Where a head attends from here, in words."""
    if row.get("top_offset") is None:
        return ""
    back = row["top_offset"]
    source = "itself" if back == 0 else "the previous token" if back == 1 else f"the token {back} back"
    unseen = "" if back <= shown else ", not shown"
    return f"attends {numbers.percent(row['top_weight'])} to {source}{unseen}"


def _pieces(row: Row) -> tuple[str, str, str, str]:
    """The text before, the token, the next token, and what follows it."""
    after, following = row["context_after"] or "", row["next_token"] or ""
    starts = bool(following) and after.startswith(following)
    before = visible_text.clip(row["context_before"] or "", keep="end")
    rest = after[len(following) :] if starts else after
    return before, row["context_token"], following if starts else "", rest


def with_tokens(frame: pl.DataFrame, tokens: pl.DataFrame) -> pl.DataFrame:
    """The frame with the columns of the query context_tokens, by position."""
    return frame.join(tokens, on="position_id", how="left", maintain_order="left")


def _source(source: str | None) -> Markup:
    """The end of a document's source, short; the whole of it is shown on hovering."""
    whole = visible_text.clip(source or "", keep="end")
    return Markup('<span title="{}">{}</span>').format(
        visible_text.plain(whole), visible_text.span(visible_text.clip(whole, 20, keep="end"))
    )


def tint(number: float | None, largest: float) -> float:
    """A value as part of the largest, -1 to 1; 0 where either is missing."""
    return 0.0 if not number or not largest else max(-1.0, min(1.0, number / largest))


def group(heading: str, note: str, frame: pl.DataFrame, reach: Reach) -> ExampleGroup:
    """Examples of all rows of `frame` in their order."""
    return ExampleGroup(heading, note, tuple(example(row, reach) for row in frame.to_dicts()))


def examples(
    title: str, caption: str, source: Source, groups: Sequence[ExampleGroup], empty: str, reach: Reach | None = None
) -> Block:
    """The groups that have examples, or a note with the reason `empty` where none has."""
    filled = tuple(group for group in groups if group.examples)
    full = (0.0, 0.0) if reach is None else (reach.activation, reach.dla)
    return Examples(title, caption, filled, source, reach=full) if filled else Note(title, empty, "full")
