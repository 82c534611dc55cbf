"""What a report is made of, as frozen descriptions: nothing is drawn until `page.render`.

A `Report` has an answer, sections and a method. A `Section` has a text and blocks: a `Chart`, a `Table` or `Examples`.
Each block names the queries it came from (`Source`), so that each number on a page can be had from one file; None where
the numbers are a model's and no run's.
"""

from dataclasses import dataclass
from typing import Any, Literal

from markupsafe import Markup

Sign = Literal["positive", "negative", ""]
Width = Literal["half", "full"]


@dataclass(frozen=True)
class Source:
    """A query that was run: its name, the text to run again, parameters set, and how they were set (its first
    lines)."""

    name: str
    sql: str
    settings: str = ""


@dataclass(frozen=True, eq=False)
class Chart:
    """An altair chart; two are the same only if they are one object.

    `caption` says what to see in it, `title` what it shows.
    """

    title: str
    caption: str
    chart: Any
    source: Source | None
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
    source: Source | None
    width: Width = "half"


@dataclass(frozen=True)
class Example:
    """One position in its context.

    Attributes:
        context: the tokens as elements (profiler.pages.component.contexts.html), the shown one tinted by its
          activation, the
            next one underlined by the DLA to it.
        activation, dla, probability: as they are written; probability is of the token that came next, "" if not stored.
        activation_tint, dla_tint: in -1..1.
        where: domain and source.
        note: where a head attends from here, "" if not stored.
        stratum: (weight, activation) of a sample that a brushed range may draw, None for others.
    """

    context: Markup
    activation: str
    dla: str
    probability: str
    activation_tint: float
    dla_tint: float
    where: Markup
    note: str = ""
    stratum: tuple[float, float] | None = None


@dataclass(frozen=True)
class ExampleGroup:
    """Examples under one heading, such as one quantile."""

    heading: str
    note: str
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Examples:
    """Groups of token contexts. `reach` holds the |activation| and |DLA| of a full tint."""

    title: str
    caption: str
    groups: tuple[ExampleGroup, ...]
    source: Source | None
    width: Width = "full"
    reach: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Spectrum:
    """A density chart on which a range can be brushed, and the samples that it draws from.

    The interval selection of `chart` is named `brush`, its largest data set has the columns lo, hi and n (positions);
    `samples` carry their stratum.
    """

    title: str
    caption: str
    chart: Any
    samples: tuple[Example, ...]
    source: Source
    drawn: Source
    reach: tuple[float, float] = (0.0, 0.0)
    width: Width = "full"


@dataclass(frozen=True)
class Note:
    """A sentence in the place of a block that has nothing to show, with the reason."""

    title: str
    text: str
    width: Width = "half"


Block = Chart | Table | Examples | Spectrum | Note


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
