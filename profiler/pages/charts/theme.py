"""One set of colours for every chart and table: classes, kinds of component, the sign of an activation and of a DLA.

A class and a behaviour have the same colour in every report; related classes share a hue (white space brown, words
blue, brackets teal). Signs have the hues of Brewer's PuOr and PRGn. Classes and behaviours began from Okabe and Ito's
hues and were moved, by a search within each hue's neighbourhood, to where the two nearest of them lie far apart for
readers with any complete colour-vision deficiency (tests/test_report_page.py holds them to it); charts name their
series in tooltips and legends all the same. Middle tones are used, so that a colour reads on a light and on a dark
page. Ink (text, axes, rules) is a CSS variable of page.css.
"""

import zlib
from collections.abc import Sequence
from typing import Any

CLASS_COLOURS = {
    "word": "#287ae4",
    "word_piece": "#abc2f2",
    "identifier": "#23bd7a",
    "capitalised": "#c23a0d",
    "all_caps": "#aa1e31",
    "number": "#ec9d0d",
    "punctuation": "#89407c",
    "operator": "#7c32ac",
    "symbols": "#93a7f2",
    "bracket_open": "#10a0c7",
    "bracket_close": "#81e2ce",
    "quote": "#d4a5b2",
    "newline": "#8b6567",
    "indentation": "#9b805c",
    "space": "#e6ca93",
    "byte_fragment": "#b08b17",
    "non_latin": "#c8db24",
    "other": "#8a8f98",
}
BEHAVIOUR_COLOURS = {
    "induction": "#d8d10d",
    "prefix_induction": "#a8a20a",
    "duplicate": "#6e99f2",
    "previous_token": "#247cb4",
    "two_back": "#216065",
    "self": "#5d39a8",
    "first_token": "#d3940d",
    "newline": "#992e0d",
    "delimiter": "#b67668",
    "diffuse": "#9fdbf2",
    "prefix_repeated": "#a8a20a",
    "repeated": "#6e99f2",
    "after_newline": "#992e0d",
    "in_quotes": "#d4a5b2",
    "in_brackets": "#81e2ce",
    "early": "#d3940d",
    "unexplained": "#a9adb5",
}
REST = "all other classes"
REST_COLOUR = "#a9adb5"
KIND_COLOURS = {"head": "#3b82c4", "neuron": "#e6a000", "mixer": "#1f7a55", "per_layer": "#b04a9a"}
KIND_COLOURS |= {"feature": "#991fdf", "direction": "#78a37a", "subspace": "#b093ae"}
SIZE_COLOUR = "#5f8db8"
ACTIVATION_SIGN = {"positive": "#d95f02", "negative": "#3b82c4"}
DLA_SIGN = {"positive": "#2e9a57", "negative": "#9a4fb0"}


def class_colours(classes: Sequence[str]) -> list[str]:
    """A colour for each class. Classes of a partition other than ours take the unused colours in the order given."""
    known = {name: CLASS_COLOURS.get(name) for name in classes} | {REST: REST_COLOUR}
    free = [colour for colour in CLASS_COLOURS.values() if colour not in known.values()] or [REST_COLOUR]
    unknown = [name for name in classes if known[name] is None]
    return [known[name] or free[unknown.index(name) % len(free)] for name in classes]


def behaviour_colour(name: str) -> str:
    """The colour of a behaviour, the same on every page: of its own, of the class it is about, or one fixed by its
    name."""
    about = name.removeprefix("on_").removeprefix("before_")
    known = BEHAVIOUR_COLOURS.get(name) or CLASS_COLOURS.get(about)
    spare = list(CLASS_COLOURS.values())
    return known or spare[zlib.crc32(about.encode()) % len(spare)]


def page_config(ink: str = "var(--ink)", muted: str = "var(--muted)", grid: str = "var(--rule)") -> dict[str, Any]:
    """Vega-Lite configuration of charts inside a page: inks are CSS variables, so a chart follows the page's theme."""
    text = {"labelColor": muted, "titleColor": ink, "labelFontSize": 11, "titleFontSize": 11.5, "titleFontWeight": 500}
    return {
        "aria": False,  # the box of a chart is an image with a label; a label per mark is noise to a screen reader
        "background": "transparent",
        "font": "system-ui, -apple-system, 'Segoe UI', 'Noto Sans', sans-serif",
        "view": {"stroke": None},
        "mark": {"color": SIZE_COLOUR},
        "text": {"color": muted, "fontSize": 10.5},
        "rule": {"color": ink},
        "axis": (
            text | {"gridColor": grid, "domainColor": grid, "tickColor": grid, "titlePadding": 8, "labelLimit": 150}
        ),
        "legend": (
            text | {"orient": "bottom", "title": None, "symbolType": "square", "symbolOpacity": 1, "labelLimit": 150}
        ),
        "title": {"color": ink, "subtitleColor": muted},
    }
