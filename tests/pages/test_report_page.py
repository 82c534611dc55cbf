"""The page itself: one file, nothing fetched, nothing of the corpus outside of text and JSON strings."""

import itertools
import json
import re

import altair as alt
import numpy as np
import polars as pl
import pytest
import vl_convert
from test_report_text import HOSTILE, parse

from profiler.pages import page, shell
from profiler.pages.blocks import Cell, Chart, ExampleGroup, Examples, Note, Report, Section, Source, Table
from profiler.pages.charts import theme
from profiler.pages.tables import Reach, example

# Names that the bundle compares or writes and never fetches: XML namespaces, the identifier of the Vega schema, the
# text of a warning, and the address of an editor whose menu is switched off. The content security policy forbids the
# rest.
NOT_FETCHED = {
    "http://www.w3.org/1999/xlink",
    "http://www.w3.org/2000/svg",
    "http://www.w3.org/2000/xmlns/",
    "https://github.com/vega/vega-lite/issues/2415",
    "https://vega.github.io/editor/",
    "https://vega.github.io/schema/vega/v6.json",
}


def make_report(word: str) -> Report:
    """A report with `word` in every place that can hold text of the corpus."""
    source = Source("some_query", f"SELECT '{word}' WHERE 1 < 2")
    chart = alt.Chart(pl.DataFrame({"name": [word], "value": [0.123456789]})).mark_bar().encode(x="value:Q", y="name:N")
    row = {
        "context_before": word,
        "context_token": word,
        "context_after": word,
        "next_token": word,
        "activation": 1.0,
        "dla": -1.0,
        "domain": word,
        "source": word,
    }
    groups = (ExampleGroup(word, word, (example(row, Reach(1.0, 1.0)),)),)
    blocks = (
        Chart("A chart", word, chart, source),
        Table("A table", word, ((word, word),), ((Cell(word, bar=0.5),),), source),
        Examples("Contexts", word, groups, source),
        Note("A note", word),
    )
    return Report(word, word, (word,), (Section("One section", word, blocks),), ((word, word),), ((word, word),))


def own_part(html: str) -> str:
    """The page without the Vega bundle."""
    return html.replace(str(page.bundle()), "")


def data_of(html: str) -> dict:
    return json.loads(re.search(r'id="page-data">(.*?)</script>', html, re.DOTALL)[1])


@pytest.mark.parametrize("word", HOSTILE)
def test_hostile_texts_change_nothing_in_the_structure(word):
    plain, hostile = (parse(own_part(page.render(make_report(text)))) for text in ("plain", word))
    signs = [tag for tag in hostile.tags if tag != "span"]
    assert signs == [tag for tag in plain.tags if tag != "span"]


def test_the_structure_check_sees_an_unescaped_text():
    html = own_part(page.render(make_report("plain")))
    assert parse(html.replace("<h1>plain", "<h1><b>plain")).tags != parse(html).tags


@pytest.mark.parametrize("word", HOSTILE)
def test_hostile_texts_come_back_from_the_data_as_they_were(word):
    html = page.render(make_report(word))
    data = data_of(html)
    assert [columns["name"] for columns in data["datasets"].values()] == [[word]]
    assert not set("<>&\u2028\u2029") & set(re.search(r'id="page-data">(.*?)</script>', html, re.DOTALL)[1])


def test_nothing_is_fetched():
    html = page.render(make_report("plain"))
    found = set(re.findall(r"https?://[^\s\"'`\\)<]*", html))
    assert found <= NOT_FETCHED
    assert "default-src 'none'" in html and "connect-src 'none'" in html
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?!#)", own_part(html))
    assert not re.findall(r"@import|url\(", own_part(html))


def test_the_bundle_is_there_once_and_cannot_end_its_element():
    html = page.render(make_report("plain"))
    assert html.count("window.vegaEmbed=") == vl_convert.javascript_bundle().count("window.vegaEmbed=") == 1
    assert html.count("</script>") == 3


def test_charts_of_one_frame_share_their_rows():
    frame = pl.DataFrame({"x": [1, 2], "y": [0.1, 0.2]})
    source = Source("q", "SELECT 1")
    blocks = tuple(Chart(f"{i}", "c", alt.Chart(frame).mark_bar().encode(x="x:Q", y="y:Q"), source) for i in range(2))
    data = data_of(page.render(Report("t", "s", ("a",), (Section("S", "", blocks),), (), ())))
    assert len(data["charts"]) == 2 and len(data["datasets"]) == 1


def test_each_query_is_listed_once_and_every_link_has_its_target():
    html = own_part(page.render(make_report("plain")))
    ids = re.findall(r'id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)
    assert html.count("<details") == 1


def test_numbers_that_json_cannot_hold_are_refused_and_floats_are_short():
    assert page.columns([{"x": 0.123456789}, {"x": None}]) == {"x": [0.12346, None]}
    with pytest.raises(ValueError):
        shell.script_json(float("nan"))


def seen_by(colour: str, weakness: str) -> tuple[float, ...]:
    """A colour as it is seen with a complete colour-vision deficiency (Machado, Oliveira, Fernandes 2009), linear
    RGB."""
    matrices = {
        "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
        "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
        "tritan": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
    }
    srgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in srgb]
    return tuple(sum(m * c for m, c in zip(row, linear, strict=True)) for row in matrices[weakness])


def perceived(linear: tuple[float, ...]) -> np.ndarray:
    """Linear RGB as OKLab (Ottosson 2020), where a distance of 0.02 is just seen between neighbouring patches."""
    lms = np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]]) @ np.maximum(
        linear, 0
    )
    lab = [[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]
    return np.array(lab) @ np.cbrt(lms)


def nearest(colours: dict[str, str], weakness: str) -> float:
    """The distance of the two colours that are most alike."""
    points = [perceived(seen_by(colour, weakness)) for colour in set(colours.values())]
    return min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(points, 2))


ATTENTION = (
    "induction",
    "duplicate",
    "previous_token",
    "two_back",
    "self",
    "first_token",
    "newline",
    "delimiter",
    "diffuse",
    "unexplained",
)


@pytest.mark.parametrize(("weakness", "least"), [("protan", 0.065), ("deutan", 0.065), ("tritan", 0.04)])
def test_no_two_classes_or_behaviours_look_alike_without_a_cone(weakness, least):
    assert nearest(theme.CLASS_COLOURS, weakness) > least
    assert nearest({name: theme.BEHAVIOUR_COLOURS[name] for name in ATTENTION}, weakness) > 1.5 * least
    assert nearest({"a": "#c84c3c", "b": "#7f7c3a"}, "deutan") < 0.065  # red and olive, as a check of the check


def test_a_behaviour_keeps_its_colour_and_one_about_a_class_has_the_class_s():
    assert theme.behaviour_colour("on_number") == theme.CLASS_COLOURS["number"]
    assert theme.behaviour_colour("before_mine") == theme.behaviour_colour("on_mine")


@pytest.mark.parametrize("weakness", ["protan", "deutan", "tritan"])
@pytest.mark.parametrize("pair", [theme.ACTIVATION_SIGN, theme.DLA_SIGN, theme.KIND_COLOURS])
def test_opposite_colours_are_told_apart_without_a_cone(pair, weakness):
    for first, second in itertools.combinations((seen_by(colour, weakness) for colour in pair.values()), 2):
        assert sum((a - b) ** 2 for a, b in zip(first, second, strict=True)) ** 0.5 > 0.15


def test_red_and_green_would_fail_that_check():
    first, second = (seen_by(colour, "deutan") for colour in ("#c84c3c", "#7f7c3a"))
    assert sum((a - b) ** 2 for a, b in zip(first, second, strict=True)) ** 0.5 < 0.15


def test_a_class_keeps_its_colour_and_unknown_ones_get_free_ones():
    assert theme.class_colours(["number", "word"]) == [
        theme.class_colours(["number"])[0],
        theme.class_colours(["word", "x"])[0],
    ]
    colours = theme.class_colours(["number", "whitespace", "byte", theme.REST])
    assert len(set(colours)) == 4
