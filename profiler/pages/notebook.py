"""A component as a notebook shows it: a piece of HTML without scripts, drawn once, in the ink of the notebook.

The answer of the component's card, its density and DLA-weighted spectrum as SVG, and random examples around its
quantiles. Jupyter and marimo ask an object for it by `_repr_html_`. `widget` is the whole card instead, alive: the page
itself in a frame, with its scripts, which need no network. Everything of the corpus is escaped as on the
pages.

Cost: the queries of a card, a second or two, and 0.2 s per chart; about 100 kB in the notebook's file.
"""

import importlib
from functools import cache
from typing import Any

import vl_convert
from markupsafe import Markup

from profiler.errors import ProfilerError
from profiler.pages import page
from profiler.pages.blocks import Chart, Examples, Report, Spectrum
from profiler.pages.charts import theme
from profiler.pages.visible_text import plain

CHARTS = ("Density", "DLA-weighted")
STYLE = """
.profiler-card { font: 13px/1.5 system-ui, sans-serif; max-width: 62rem; overflow-x: auto; }
.profiler-card h3 { margin: 0 0 .2rem; font-size: 17px; font-weight: 600; } .profiler-card p { margin: .15rem 0; }
.profiler-card .charts { display: flex; flex-wrap: wrap; gap: 1rem; margin: .6rem 0; }
.profiler-card .charts svg { display: block; max-width: 100%; height: auto; }
.profiler-card h4 { margin: .6rem 0 .1rem; font-size: 12px; font-weight: 600; }
.profiler-card .line { font: 11px/1.6 ui-monospace, Menlo, Consolas, monospace; white-space: pre-wrap;
  unicode-bidi: isolate; padding-inline-start: 8rem; text-indent: -8rem; }
.profiler-card .line b { font-weight: 400; opacity: .75; display: inline-block; min-width: 8rem; text-indent: 0; }
.profiler-card i { font-style: normal; } .profiler-card .sign { opacity: .6; }
.profiler-card mark { color: inherit; border-radius: 3px; outline: 1px solid #8888; }
.profiler-card mark.positive { background: color-mix(in oklab, POSITIVE calc(12% + var(--t) * 58%), transparent); }
.profiler-card mark.negative { background: color-mix(in oklab, NEGATIVE calc(12% + var(--t) * 58%), transparent); }
.profiler-card mark.zero { background: none; }
.profiler-card u.positive { text-decoration-color: RAISES; }
.profiler-card u.negative { text-decoration-color: LOWERS; }
.profiler-card u { text-decoration-thickness: calc(1px + var(--t) * 2.5px); text-underline-offset: .2em; }
"""


def style() -> str:
    """The style of a piece, with the colours of the pages."""
    act, dla = theme.ACTIVATION_SIGN, theme.DLA_SIGN
    colours = {
        "POSITIVE": act["positive"],
        "NEGATIVE": act["negative"],
        "RAISES": dla["positive"],
        "LOWERS": dla["negative"],
    }
    text = STYLE
    for name, colour in colours.items():
        text = text.replace(name, colour)
    return text


def svg(chart: Any, width: int = 350) -> Markup:
    """An altair chart as SVG in the ink of what stands around it; without its selections, which need scripts.

    They would clip, too, by ids that are numbered anew in every drawing and meet in one notebook.
    """
    config = theme.page_config("currentColor", "currentColor", "#8886")
    config["legend"] |= {"columns": max(2, width // 110)}
    spec = {**chart.properties(width=width).to_dict(), "config": config}
    spec.pop("params", None)
    return Markup(vl_convert.vegalite_to_svg(spec))


def card(report: Report) -> Markup:
    """The piece of HTML of a component's card."""
    blocks = {block.title: block for section in report.sections for block in section.blocks}
    drawn = [block for name in CHARTS if isinstance(block := blocks.get(name), Chart | Spectrum)]
    charts = Markup("").join(svg(block.chart) for block in drawn)
    answer = Markup("").join(Markup("<p>{}</p>").format(plain(sentence)) for sentence in report.answer)
    samples = [block for block in blocks.values() if isinstance(block, Examples) and block.title.startswith("Around")]
    return Markup(
        '<style>{}</style><div class="profiler-card"><h3>{}</h3>{}<div class="charts">{}</div>{}</div>'
    ).format(
        Markup(style()), plain(report.title), answer, charts, Markup("").join(_examples(block) for block in samples)
    )


def _examples(block: Examples) -> Markup:
    line = Markup('<div class="line" dir="auto"><b>{} {}</b>{}</div>')
    parts = []
    for group in block.groups:
        parts.append(Markup("<h4>{}</h4>").format(plain(group.heading)))
        parts += [line.format(e.activation, e.dla, e.context) for e in group.examples[:3]]
    note = Markup("<p>Random positions around its quantiles: activation, DLA in logits, context.</p>")
    return note + Markup("").join(parts)


def table(chart: Any, frame_html: str) -> Markup:
    """A chart above the rows it draws."""
    return Markup('<div class="profiler-card">{}{}</div>').format(svg(chart), Markup(frame_html))


def widget(report: Report, height: int) -> Any:
    """A component's card as an anywidget: it hovers, brushes and sorts as the page does.

    Cost: the page, 1 MB, goes to the browser with each widget, and into the notebook's file where its state is saved.

    Args:
        height: of the frame, pixels.

    Raises:
        ProfilerError: anywidget is not installed.
    """
    return _widgets()(page=page.render(report), title=report.title, height=height)


@cache
def _widgets() -> Any:
    """The class of widgets, made when the first is asked for, because anywidget is an extra."""
    try:
        anywidget, traitlets = map(importlib.import_module, ("anywidget", "traitlets"))
    except ImportError:
        raise ProfilerError(
            "a card that is alive needs anywidget: pip install 'generality-profiler[notebook]'; without it a component"
            " shows its card drawn once"
        ) from None
    synced = {name: traitlets.Unicode().tag(sync=True) for name in ("page", "title")}
    members = synced | {"height": traitlets.Int().tag(sync=True), "_esm": page.asset("widget.js")}
    return type("CardWidget", (anywidget.AnyWidget,), members)
