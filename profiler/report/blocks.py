"""What a report is made of, as frozen descriptions: nothing is drawn until `page.render`.

A `Report` has an answer, sections and a method. A `Section` has a text and blocks: a `Chart`, a `Table` or `Examples`.
Each block names the queries it came from (`Source`), so that each number on a page can be had from one file.
"""

from dataclasses import dataclass
from typing import Any, Literal

from markupsafe import Markup

Sign = Literal["positive", "negative", ""]
Width = Literal["half", "full"]


@dataclass(frozen=True)
class Source:
    """A query that was run: its name and the text to run again, parameters set."""

    name: str
    sql: str


@dataclass(frozen=True, eq=False)
class Chart:
    """An altair chart; two are the same only if they are one object.

    `caption` says what to see in it, `title` what it shows.
    """

    title: str
    caption: str
    chart: Any
    source: Source
    width: Width = "half"


@dataclass(frozen=True)
class Cell:
    """One cell: text (or Markup already escaped), `bar` a share in 0..1 drawn behind it, `sign` colours it."""

    text: str | Markup
    numeric: bool = False
    bar: float | None = None
    sign: Sign = ""


@dataclass(frozen=True)
class Table:
    """A table. `header` holds (label, hint) pairs; rows are as wide as the header."""

    title: str
    caption: str
    header: tuple[tuple[str, str], ...]
    rows: tuple[tuple[Cell, ...], ...]
    source: Source
    width: Width = "half"


@dataclass(frozen=True)
class Example:
    """One position in its context. `activation_tint` and `dla_tint` are in -1..1 and colour the token and the next."""

    before: Markup
    token: Markup
    following: Markup
    after: Markup
    next_token: Markup
    activation: str
    dla: str
    activation_tint: float
    dla_tint: float
    where: Markup


@dataclass(frozen=True)
class ExampleGroup:
    """Examples under one heading, such as one quantile."""

    heading: str
    note: str
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Examples:
    """Groups of token contexts."""

    title: str
    caption: str
    groups: tuple[ExampleGroup, ...]
    source: Source
    width: Width = "full"


@dataclass(frozen=True)
class Note:
    """A sentence in the place of a block that has nothing to show, with the reason."""

    title: str
    text: str
    width: Width = "half"


Block = Chart | Table | Examples | Note


@dataclass(frozen=True)
class Section:
    """A heading, a text that says what was found, and the evidence."""

    title: str
    text: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Report:
    """A page. `answer` holds sentences, the first the shortest; `method` holds (term, explanation) pairs."""

    title: str
    subtitle: str
    answer: tuple[str, ...]
    sections: tuple[Section, ...]
    method: tuple[tuple[str, str], ...]
    run_facts: tuple[tuple[str, str], ...]
