"""The pages of a site that are about the run: reports, the table of components, the queries. Text in, text out."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import duckdb
import polars as pl

from profiler.database import query
from profiler.model.components import units_in_words
from profiler.pages import build, method, numbers, page
from profiler.pages.component import headline
from profiler.pages.reader import Reader
from profiler.pages.shell import Link, Shell, script_json

NAMED = {
    "overview": ("index.html", "Overview"),
    "generality": ("generality.html", "Last check"),
    "verdicts": ("verdicts.html", "Verdicts"),
}
CONTENTS = (("components.html", "Components"), ("queries.html", "Queries"))
SHARED = ("page.css", "page.js", "theme.js", "site.js")
BEST = "the attention behaviour that covers clearly more of it than the text and the layer's other heads give"


@dataclass(frozen=True)
class SiteColumn:
    """A column of the table of components: `format` is word, number, signed (coloured) or share (per cent,
    interval)."""

    name: str
    label: str
    format: str
    hint: str = ""

    @property
    def numeric(self) -> bool:
        """Whether it stands on the right."""
        return self.format != "word"


COLUMNS = (
    SiteColumn("component", "Component", "word"),
    SiteColumn("kind", "Kind", "word"),
    SiteColumn("layer", "Layer", "number"),
    SiteColumn("share", "of all |DLA|", "share", "share of Σ|DLA| of all heads and neurons, with its 95 % interval"),
    SiteColumn("dla", "Mean DLA, logits", "signed"),
    SiteColumn("activation", "Mean activation", "number"),
    SiteColumn("sd", "SD", "number", "standard deviation of the activation over positions"),
    SiteColumn("top_class", "Most important class", "word", "the token class with the largest part of its |DLA|"),
    SiteColumn("top_class_share", "of its |DLA|", "share"),
    SiteColumn(
        "top_class_base",
        "of positions",
        "share",
        "share of all positions with that class: what the text alone would give",
    ),
    SiteColumn("behaviour", "Behaviour", "word", f"heads: {BEST}"),
    SiteColumn("coverage", "Coverage", "share", "share of its |DLA| where that behaviour holds"),
)


def available(connection: duckdb.DuckDBPyConnection) -> dict[str, ModuleType]:
    """The reports about the whole run that it has rows for, the overview first.

    A report says which tables it needs in `NEEDS` (names of tables that must hold a row); without one it always fits.
    """
    modules = {name: build.load(name) for name in sorted(build.names(), key=lambda name: name != "overview")}
    return {
        name: module
        for name, module in modules.items()
        if not module.NEEDS_COMPONENT
        and all(query.has_rows(connection, table) for table in getattr(module, "NEEDS", ()))
    }


def navigation(name: str) -> tuple[str, str]:
    """File and words of a report in the site's navigation."""
    return NAMED.get(name, (f"{name}.html", name.capitalize()))


@dataclass(frozen=True)
class Contents:
    """What a site has beside cards: reports by name; file and words of the page of each earlier experiment, and of each
    check."""

    reports: dict[str, ModuleType]
    circuits: dict[str, tuple[str, str]]
    checks: dict[str, tuple[str, str]]

    def links(self, current: str) -> tuple[Link, ...]:
        """The navigation of the page `current`: overview, components, the other reports, earlier circuits, queries.

        Pages of checks are reached by the page of all verdicts, which stands for them here.
        """
        first, *rest = [navigation(name) for name in self.reports if name != "generality"]
        listed = (first, CONTENTS[0], *rest, *self.circuits.values(), CONTENTS[1])
        shown = navigation("verdicts")[0] if current in {file for file, _ in self.checks.values()} else current
        return tuple((words, file, file == shown) for file, words in listed)


def contents(connection: duckdb.DuckDBPyConnection) -> Contents:
    """What the run has rows for; reports on a circuit or a check are about the one written last, so earlier ones get
    pages too."""
    reports = available(connection)
    made = query.run(connection, "checks") if "generality" in reports else pl.DataFrame({"check_id": [], "latest": []})
    checks = {
        name: (navigation("generality")[0] if latest else f"generality-{page.slug(name)}.html", name)
        for name, latest in made.select("check_id", "latest").iter_rows()
    }
    before = (
        query.run(connection, "experiments").filter(~pl.col("latest"))["experiment"].to_list()
        if "circuit" in reports
        else []
    )
    return Contents(reports, {name: (f"circuit-{page.slug(name)}.html", f"Circuit {name}") for name in before}, checks)


def makers(
    read: Reader,
    contents: Contents,
    frame: Callable[[], pl.DataFrame],
    shell: Callable[[str], Shell],
    run_name: str,
    more_cards: str,
) -> dict[str, Callable[[], str]]:
    """What makes each page of a site but the cards, by its file.

    Args:
        frame: gives the rows of the table of components (`components_frame`).
        shell: of a file's page.
        more_cards: how more cards are made, in words.
    """
    made: dict[str, Callable[[], str]] = {}
    for name in contents.reports.keys() - {"generality"}:
        file = navigation(name)[0]
        made[file] = partial(_shown, contents.reports[name], read, shell, file)
    for experiment, (file, _) in contents.circuits.items():
        made[file] = partial(_shown, contents.reports["circuit"], read.about(experiment=experiment), shell, file)
    for check, (file, _) in contents.checks.items():
        made[file] = partial(_shown, contents.reports["generality"], read.about(check_id=check), shell, file)
    made["components.html"] = lambda: components_page(read, frame(), shell("components.html"), more_cards)
    made["queries.html"] = lambda: queries_page(read, shell("queries.html"), run_name)
    return made


def _shown(module: ModuleType, read: Reader, shell: Callable[[str], Shell], file: str) -> str:
    return report_page(module, read, shell(file))


def assets(frame: Callable[[], pl.DataFrame], cards: Callable[[], Iterable[str]]) -> dict[str, Callable[[], str]]:
    """What makes each file that pages of a site load, by its name in the folder `assets`.

    Args:
        frame: as for `makers`.
        cards: gives the labels of components that have a card.
    """
    return {name: partial(page.asset, name) for name in SHARED} | {
        "vega.js": page.bundle,
        "components.js": lambda: _script("profilerComponents", components_data(frame(), {*cards()})),
        "queries.js": lambda: _script("profilerQueries", {name: query.sql_text(name) for name in query.names()}),
    }


def _script(name: str, value: dict[str, Any]) -> str:
    return f"window.{name} = {script_json(value)};\n"


def report_page(module: ModuleType, read: Reader, shell: Shell) -> str:
    """A report about the run as a page of the site."""
    return page.render(module.build(read), shell)


def components_frame(read: Reader) -> pl.DataFrame:
    """The rows of the table of components, most important first: COLUMNS and the bounds of shares."""
    overview = read("component_overview", kind="all", top=0)
    renamed = overview.frame.rename(
        {f"share_abs_dla{end}": f"share{end}" for end in ("", "_lo", "_hi")} | {"activation_sd": "sd"}
    )
    frame = renamed.join(_best_behaviours(read), on="component", how="left", maintain_order="left")
    bounds = [f"{name}_{end}" for name in ("share", "coverage") for end in ("lo", "hi")]
    return frame.select([column.name for column in COLUMNS] + bounds)


def _best_behaviours(read: Reader) -> pl.DataFrame:
    """Per head its label, where an attention behaviour is that."""
    claims = read("behaviours", kind="head", family="attention", top=0).frame
    return headline.labels(claims).select("component", "behaviour", "coverage", "coverage_lo", "coverage_hi")


def components_data(frame: pl.DataFrame, cards: set[str]) -> dict[str, Any]:
    """What site.js draws the table from: columns, their formats, full bars, and which rows link to a card."""
    return {
        "columns": {name: page.short(frame[name].to_list()) for name in frame.columns},
        "formats": {column.name: column.format for column in COLUMNS},
        "full": {"share": frame["share"].max() or 1.0, "top_class_share": 1.0, "top_class_base": 1.0, "coverage": 1.0},
        "links": [int(label in cards) for label in frame["component"]],
    }


def components_page(read: Reader, frame: pl.DataFrame, shell: Shell, more_cards: str) -> str:
    """The page around the table of components."""
    linked = sum(label in shell.cards for label in frame["component"])
    return (
        page.environment()
        .get_template("components.html.jinja")
        .render(
            shell=shell,
            model=method.run_row(read)["model"],
            answer=(
                f"{numbers.count(len(frame))} {units_in_words(frame['kind'])}, most important first;"
                f" {numbers.count(linked)} {'has' if linked == 1 else 'have'} a card."
            ),
            how=more_cards,
            settings="SET VARIABLE kind = 'all';\nSET VARIABLE top = 0;\n",
            columns=COLUMNS,
            method=method.method(read),
        )
    )


def queries_page(read: Reader, shell: Shell, run_name: str) -> str:
    """Every query with its question, its parameters and its text."""
    listed = [(name, query.header(name), query.sql_text(name)) for name in query.names()]
    model = method.run_row(read)["model"]
    template = page.environment().get_template("queries.html.jinja")
    return template.render(shell=shell, model=model, queries=listed, run=run_name)
