"""One set of colours for every chart and table: classes, kinds of component, the sign of an activation and of a DLA.

A class and a behaviour have the same colour in every report; related classes share a hue (white space brown, words blue, brackets teal).
Hues are Okabe and Ito's and Brewer's PuOr and PRGn, which readers with any of the common colour-vision deficiencies can
tell apart; charts name their series in tooltips and legends all the same. Middle tones are used, so that a colour reads
on a light and on a dark page. Ink (text, axes, rules) is a CSS variable of page.css.
"""

import zlib
from collections.abc import Sequence
from typing import Any

CLASS_COLOURS = {
    "word": "#3b82c4",
    "word_piece": "#7ec3ea",
    "identifier": "#009e73",
    "capitalised": "#d55e00",
    "all_caps": "#a33b20",
    "number": "#e6a000",
    "punctuation": "#c8709f",
    "operator": "#8a63b8",
    "symbols": "#b39ad6",
    "bracket_open": "#2ba5a5",
    "bracket_close": "#7fd1c7",
    "quote": "#e58fb8",
    "newline": "#8c6239",
    "indentation": "#b98e5f",
    "space": "#d9bd94",
    "byte_fragment": "#8f9a2e",
    "non_latin": "#c3cc5a",
    "other": "#8a8f98",
}
BEHAVIOUR_COLOURS = {
    "induction": "#e6a000",
    "prefix_induction": "#b07a00",
    "duplicate": "#3b82c4",
    "previous": "#2ba5a5",
    "two_back": "#009e73",
    "self": "#8a63b8",
    "first": "#d55e00",
    "newline": "#8c6239",
    "delimiter": "#c8709f",
    "diffuse": "#7ec3ea",
    "prefix_repeated": "#b07a00",
    "repeated": "#3b82c4",
    "after_newline": "#8c6239",
    "in_quotes": "#e58fb8",
    "in_brackets": "#7fd1c7",
    "early": "#d55e00",
    "unexplained": "#a9adb5",
}
REST = "all other classes"
REST_COLOUR = "#a9adb5"
KIND_COLOURS = {"head": "#3b82c4", "neuron": "#e6a000"}
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
    """The colour of a behaviour, the same on every page: of its own, of the class it is about, or one fixed by its name."""
    about = name.removeprefix("on_").removeprefix("before_")
    known = BEHAVIOUR_COLOURS.get(name) or CLASS_COLOURS.get(about)
    others = list(CLASS_COLOURS.values())
    return known or others[zlib.crc32(about.encode()) % len(others)]


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
        "axis": text
        | {"gridColor": grid, "domainColor": grid, "tickColor": grid, "titlePadding": 8, "labelLimit": 150},
        "legend": text
        | {"orient": "bottom", "title": None, "symbolType": "square", "symbolOpacity": 1, "labelLimit": 150},
        "title": {"color": ink, "subtitleColor": muted},
    }
