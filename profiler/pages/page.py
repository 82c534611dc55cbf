"""A report becomes one HTML file that needs nothing but itself.

1. Every altair chart becomes a Vega-Lite specification; the rows of all charts are pulled out and kept once, by column,
   so that charts of the same frame share them and the page's CSV button reads them too.
2. The template is filled with autoescape on. Texts of the corpus arrive as `Markup` made by
`profiler.pages.visible_text`.
3. Data inside <script> is JSON with <, >, & and the two line separators written as \\u escapes, so no text can end it.
4. The Vega bundle (0.9 MB) is embedded once. It names the XML namespaces of SVG, the identifier of the Vega schema, an
   issue and the address of an editor whose button is off; none is fetched, and the content security policy forbids it.

Cost: 1.4 s for the bundle once per process, then a few milliseconds a page.
"""

import re
from contextlib import AbstractContextManager
from functools import cache
from importlib.resources import files
from math import isfinite
from typing import Any

import altair as alt
import jinja2
import vl_convert
from markupsafe import Markup

from profiler.pages import visible_text as text
from profiler.pages.blocks import Block, Chart, Report, Source, Spectrum
from profiler.pages.charts import theme
from profiler.pages.shell import Shell

DIGITS = 5
NOISE = 1e-14
"""Part of the largest of a column's numbers below which another is what is left of 0 by rounding."""
MADE_BY = "generality profiler"
"""What a page says of its making, by which an earlier page is known."""


def render(report: Report, shell: Shell | None = None) -> str:
    """The page as text: one file that needs nothing else, or a page of a site (`shell`)."""
    shell = shell or Shell()
    drawn = (Chart, Spectrum)
    charts = {block: f"c{i}" for i, block in enumerate(b for b in _blocks(report) if isinstance(b, drawn))}
    alone = shell.root is None
    return (
        environment()
        .get_template("page.html.jinja")
        .render(
            report=report,
            shell=shell,
            charts=charts,
            ids=_source_ids(report),
            css=Markup(asset("page.css")) if alone else "",
            theme=Markup(asset("theme.js")) if alone else "",
            script=Markup(asset("page.js")) if alone else "",
            bundle=Markup(bundle()) if alone else "",
            data=lambda: Markup(shell.pack(page_data(charts))),  # after the parts that the template placed
        )
    )


def _blocks(report: Report) -> list[Block]:
    return [block for section in report.sections for block in section.blocks]


def _source_ids(report: Report) -> dict[Source, str]:
    """A place in the list of queries for each query that was run, in order of appearance."""
    sources = dict.fromkeys(
        source for block in _blocks(report) for name in ("source", "drawn") if (source := getattr(block, name, None))
    )
    return {source: f"{i}-{slug(source.name)}" for i, source in enumerate(sources)}


def page_data(charts: dict[Chart | Spectrum, str]) -> dict[str, Any]:
    """What page.js draws from: specifications without their rows, and each set of rows once."""
    datasets: dict[str, dict[str, list[Any]]] = {}
    specs, names = {}, dict[str, str]()
    for block, chart_id in charts.items():
        spec = block.chart.to_dict(validate=alt.utils.schemapi.DEBUG_MODE)
        rows = spec.pop("datasets", {})
        for name, values in rows.items():
            datasets.setdefault(names.setdefault(name, f"d{len(names)}"), columns(values))
        drawn = _for_page(_named(spec, names))
        specs[chart_id] = {"spec": drawn, "datasets": [names[name] for name in _largest_first(rows)]}
    return {"charts": specs, "datasets": datasets, "config": theme.page_config()}


def _named(spec: Any, names: dict[str, str]) -> Any:
    """The specification with its sets of rows under their names on the page; altair's are hashes of what is not
    shown, the last bits of numbers."""
    if isinstance(spec, dict):
        return {
            key: {"name": names[value["name"]]}
            if key == "data" and value.get("name") in names
            else _named(value, names)
            for key, value in spec.items()
        }
    return [_named(value, names) for value in spec] if isinstance(spec, list) else spec


def _largest_first(rows: dict[str, list[Any]]) -> list[str]:
    """Names of the data sets, the one that the CSV button saves first."""
    return sorted(rows, key=lambda name: -len(rows[name]))


def _for_page(spec: dict[str, Any]) -> dict[str, Any]:
    """The specification at the width of its box, and with the page's configuration instead of altair's."""
    shown = {key: value for key, value in spec.items() if key not in ("config", "$schema")}
    return shown | {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}


def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Rows turned into columns, floats to five significant digits."""
    names = list(rows[0]) if rows else []
    return {name: short([row.get(name) for row in rows]) for name in names}


def short(values: list[Any]) -> list[Any]:
    """The values with floats to five significant digits; what is rounding of the largest is 0."""
    least = NOISE * max((abs(value) for value in values if isinstance(value, float) and isfinite(value)), default=0.0)

    def shown(value: float) -> float:
        return 0.0 if abs(value) < least else float(f"{value:.{DIGITS}g}")

    return [shown(value) if isinstance(value, float) else value for value in values]


def unchecked() -> AbstractContextManager[None]:
    """Inside it altair does not check each specification against the schema, a third of a card's time: for cards in
    bulk.

    The tests draw every chart with the check on.
    """
    return alt.utils.schemapi.debug_mode(arg=False)


def slug(text: str) -> str:
    """A text as an anchor: lower case, one hyphen for every run of other characters."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def sign(value: float) -> str:
    """The CSS class of a signed value."""
    return "positive" if value > 0 else "negative" if value < 0 else "zero"


def asset(name: str) -> str:
    """The text of a file of this package."""
    return files("profiler.pages").joinpath(name).read_text(encoding="utf-8")


@cache
def bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script that can stand inside <script>."""
    bundled: Any = vl_convert.javascript_bundle  # without a snippet, the whole bundle; its type asks for a snippet
    text: str = bundled()
    return re.sub(r"</(?=script)|<!--", lambda match: match[0].replace("<", "\\x3c"), text, flags=re.IGNORECASE)


def _kind(block: Block) -> str:
    return type(block).__name__.lower()


@cache
def environment() -> jinja2.Environment:
    """The templates of this package: autoescape is on, and every bare text is cleaned where it is put in."""
    loader = jinja2.FunctionLoader(asset)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, finalize=text.plain
    )
    environment.globals["made_by"] = MADE_BY
    environment.filters |= {"slug": slug, "sign": sign, "kind": _kind}
    return environment
