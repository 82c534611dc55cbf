"""Objects of a run show themselves in a notebook: HTML without scripts, escaped, with charts that can be restyled."""

import altair as alt
import polars as pl
import pytest
from test_report_text import parse

import profiler
from profiler.errors import ComponentError, ProfilerError, QueryError
from profiler.pages import build, picture


@pytest.fixture(scope="module")
def run(fake):
    with profiler.open(fake.path) as opened:
        yield opened


@pytest.fixture(scope="module")
def component(run):
    return run.component("L0H0")


@pytest.fixture(scope="module")
def page(run) -> str:
    return build.build(run.path, "component", component="L0H0")


@pytest.mark.slow
def test_a_component_shows_the_answer_charts_and_examples_of_its_card(run, component, page):
    shown = component._repr_mimebundle_()
    html = shown["text/html"]
    structure = parse(html)
    for sentence in component.answer:
        assert sentence in "".join(structure.text) and sentence in shown["text/plain"]
        assert sentence.split(" and ")[0].replace("'", "&#39;").replace("|", "|") in page
    assert structure.tags.count("svg") == 2 and structure.tags.count("h4") >= 4 and "mark" in structure.tags
    assert run.component("L0H0")._repr_html_() == html


@pytest.mark.slow
def test_nothing_in_it_runs_or_is_fetched(run, component):
    html = component._repr_html_() + run._repr_html_() + run.spectrum("L0H0")._repr_html_()
    assert "script" not in parse(html).tags and "href=" not in html and "src=" not in html
    assert "&lt;script&gt;alert" in html and "\u202e" not in html


def test_charts_are_altair_and_frames_polars(run):
    one = run.component("L1N1")
    for name in one.charts:
        assert isinstance(one.chart(name), alt.Chart | alt.LayerChart)
    assert one.chart("importance").properties(width=111).to_dict()["width"] == 111
    assert {type(f()) for f in (one.samples, one.extremes, one.moments)} == {pl.DataFrame}
    assert one.samples(0.9).equals(run.samples("L1N1", 0.9))
    with pytest.raises(QueryError, match="no chart 'pie'"):
        one.chart("pie")
    with pytest.raises(ComponentError, match="The nearest is L1N5"):
        run.component("L1N55")


def test_a_table_shows_its_chart_above_its_rows(run):
    tags = parse(run.density("L1N1")._repr_html_()).tags
    assert tags.index("svg") < tags.index("table")


def test_an_embedding_is_shown_too(run):
    assert "embed is an embedding or a bias" in run.component("embed")._repr_html_()


@pytest.mark.slow
def test_its_page_is_the_card(component, page):
    assert component.page() == page


def test_a_picture_needs_a_browser(tmp_path, monkeypatch):
    monkeypatch.setattr(picture.shutil, "which", lambda _: None)
    with pytest.raises(ProfilerError, match="Chromium or Chrome"):
        picture.take(tmp_path / "page.html", tmp_path / "page.png", (100, 100))
