"""Whole reports from a run with known raw values: the answer's numbers, every kind of component, the command line."""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from test_report_page import NOT_FETCHED, own_part
from test_report_text import parse
from typer.testing import CliRunner

from profiler.cli import report as command
from profiler.database import query
from profiler.errors import ProfilerError
from profiler.model.components import units_in_words
from profiler.pages import build, numbers
from profiler.pages.component.answer import high_positions

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def card(fake) -> Callable[[str], str]:
    """The card of a component by its label, built once."""
    return cache(lambda label: build.build(fake.path, "component", component=label))


@pytest.fixture(scope="module")
def overview(fake) -> str:
    """The overview of the run."""
    return build.build(fake.path, "overview")


def answer_of(html: str) -> str:
    """The text of the answer, blanks made ordinary."""
    section = re.search(r'<section class="answer".*?</section>', html, re.DOTALL)[0]
    return re.sub(r"\s+", " ", "".join(parse(section).text)).replace("\u00a0", " ").strip()


def components(fake) -> list[str]:
    return fake.components["component"].to_list()


LABELS = [*(f"L0{unit}" for unit in ("H0", "H1", *(f"N{i}" for i in range(6)))), "L1H0", "L1N1", "L1N2", "L1N5"]
"""Each kind of distribution that a unit of the fake run has, and those of the second layer that are read below."""
SLOW_LABELS = {"L0H1", "L0N1", "L0N2", "L0N4", "L1N1", "L1N2", "L1N5", "L1_mlp_bias", "pos_embed"}
EMBEDDINGS_AND_BIASES = ["embed", "pos_embed", "L0_attn_bias", "L1_mlp_bias", "final_bias"]


@pytest.mark.parametrize(
    "label",
    [
        pytest.param(label, marks=pytest.mark.slow if label in SLOW_LABELS else ())
        for label in LABELS + EMBEDDINGS_AND_BIASES
    ],
)
def test_a_card_is_built_for_every_kind_of_component(fake, card, label):
    html = card(label)
    parse(html)
    writes = label in LABELS and bool(fake.dla[fake.row(label)].any())
    assert ("Claims and their baselines" in html) == writes
    assert label in answer_of(html) or not writes
    said = ("Claims and their baselines" in html) == (
        "label" in answer_of(html) or "falls where that holds" in answer_of(html)
    )
    assert said
    assert set(re.findall(r"https?://[^\s\"'`\\)<]*", html)) <= NOT_FETCHED
    assert "NaN" not in own_part(html) and "None" not in answer_of(html)


def test_the_page_of_behaviours_is_built(fake):
    parse(build.build(fake.path, "behaviours"))


def test_the_overview_is_built(overview):
    assert "Half of all |DLA|" in answer_of(overview)
    assert set(re.findall(r"https?://[^\s\"'`\\)<]*", overview)) <= NOT_FETCHED


def importance_of(fake) -> np.ndarray:
    """Σ|DLA| of each component over ordinary positions, from the raw values."""
    return np.abs(fake.dla[:, fake.ordinary]).sum(1)


def test_the_importance_in_the_answer_is_that_of_the_raw_values(fake, card):
    live = fake.components["kind"].is_in(["head", "neuron"]).to_numpy()
    importance = importance_of(fake)
    for label in ("L0H0", "L1N1", "L1N5"):
        share = importance[fake.row(label)] / importance[live].sum()
        rank = 1 + (importance[live] > importance[fake.row(label)]).sum()
        answer = answer_of(card(label))
        assert f"accounts for {numbers.percent(share)}".replace("\u00a0", " ") in answer
        assert f"rank {rank} of {live.sum()} heads and neurons" in answer


def test_the_class_in_the_answer_is_that_of_the_raw_values(fake, card):
    classes = np.array(fake.positions["class"].to_list())
    for label in ("L0H0", "L1N1"):
        sizes = np.abs(fake.dla[fake.row(label)])
        sums = {name: sizes[fake.ordinary & (classes == name)].sum() for name in set(classes[fake.ordinary])}
        n = {name: (fake.ordinary & (classes == name)).sum() for name in sums}
        shares = {name: size / sum(sums.values()) for name, size in sums.items()}
        bases = {name: n[name] / fake.ordinary.sum() for name in sums}
        lowest = dict(query.run(fake.path, "by_class", component=label).select("value", "share_abs_dla_lo").iter_rows())
        excess = {name: lowest[name] - bases[name] for name in sums if n[name] >= 20 and lowest[name] > bases[name]}
        answer = answer_of(card(label))
        if not excess:
            assert "No token class has clearly more of its |DLA| than of all positions" in answer
            continue
        top = max(excess, key=excess.get)
        assert f"matters most at “{top}”: {numbers.percent(shares[top])}".replace("\u00a0", " ") in answer
        assert f"of its |DLA|, {numbers.percent(bases[top])} of all positions".replace("\u00a0", " ") in answer


def test_the_high_activations_in_the_answer_are_those_of_the_raw_values(fake, card):
    """Precision and coverage among the fewest spectrum bins from the top that hold 1 % of the positions."""
    classes = np.array(fake.positions["class"].to_list())[fake.ordinary]
    edges = np.array([2.0**e * m for e in range(-16, 16) for m in (1.0, 1.5)])
    for label in ("L0H0", "L1N1"):
        values = fake.activation[fake.row(label)][fake.ordinary]
        bins = sorted({edges[edges <= value].max() for value in values if value >= edges[0]}, reverse=True)
        high = values >= next(low for low in bins if (values >= low).mean() >= 0.01)
        assert high.mean() <= 0.1
        counts = {name: (high & (classes == name)).sum() for name in sorted(set(classes))}
        top = max(counts, key=counts.get)
        precision, coverage = counts[top] / high.sum(), counts[top] / (classes == top).sum()
        answer = answer_of(card(label))
        assert f"most active ({high.sum()} positions, {numbers.percent(high.mean())})".replace("\u00a0", " ") in answer
        assert f"class is “{top}”: {numbers.percent(precision)} of these positions".replace("\u00a0", " ") in answer
        assert f"“{top}” positions, {numbers.percent(coverage)} are that active".replace("\u00a0", " ") in answer


def test_the_kinds_of_units_are_all_named_whatever_names_them():
    for kinds in (["neuron", "head", "head"], iter(["neuron", "head", "head"])):
        assert units_in_words(kinds) == "heads and neurons"


def test_a_bin_that_holds_nearly_everything_is_not_high():
    frame = pl.DataFrame({"class": ["a", "b", "b"], "lo": [0.0, 1.0, 2.0], "n": [990, 5, 2]})
    assert high_positions(frame).rows() == [("b", 7, 7), ("a", 0, 990)]
    assert high_positions(frame.head(1)).rows() == [("a", 990, 990)]


def test_the_half_in_the_overview_is_that_of_the_raw_values(fake, overview):
    live = fake.components["kind"].is_in(["head", "neuron"]).to_numpy()
    shares = np.sort(importance_of(fake)[live])[::-1] / importance_of(fake)[live].sum()
    half = int((shares.cumsum() < 0.5).sum()) + 1
    answer = answer_of(overview)
    assert f"comes from {half} of {live.sum()} heads and neurons" in answer
    first = components(fake)[int(np.argmax(np.where(live, importance_of(fake), -1)))]
    assert f"most important is {first} with {numbers.percent(shares[0])}".replace("\u00a0", " ") in answer


def test_every_sample_and_extreme_is_on_the_card(card):
    html = card("L0H0")
    for heading in (
        "99.9 %",
        "99 %",
        "95 %",
        "90 %",
        "75 %",
        "50 %",
        "Largest activation",
        "Lowers the next token most",
        "Any position",
    ):
        assert f"<h4>{heading}</h4>" in html
    assert html.count("<li><span") >= 6 + 4 * 8 + 12


def test_scripts_in_the_corpus_stay_text(card):
    html = own_part(card("L0H0"))
    assert "&lt;script&gt;alert(1)" in html and "<script>alert" not in html
    assert html.count("<script") == 3 and "\u202e" not in html


def test_building_twice_gives_the_same_page(fake, card):
    assert build.build(fake.path, "component", component="L1N2") == card("L1N2")


def test_every_report_is_in_the_index_and_the_index_names_no_other():
    index = (ROOT / "reports" / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \| (.*?) \|", index, re.MULTILINE)
    assert dict(listed) == {name: build.load(name).QUESTION for name in build.names()}


def test_reports_read_only_through_query_files():
    for path in (ROOT / "reports").glob("*.py"):
        assert not re.search(r"SELECT|duckdb|\.execute\(", path.read_text(encoding="utf-8")), path.name


@pytest.mark.parametrize(
    ("name", "component", "message"),
    [
        ("componant", None, "did you mean 'component'"),
        ("component", None, "--component"),
        ("component", "L9H9", "L9H9"),
        ("component", "<script>", "<script>"),
    ],
)
def test_mistakes_are_one_sentence(fake, name, component, message):
    with pytest.raises(ProfilerError, match=re.escape(message)) as caught:
        build.build(fake.path, name, component=component)
    assert "\n" not in str(caught.value)


def test_a_missing_run_is_one_sentence(tmp_path):
    with pytest.raises(ProfilerError, match="no file"):
        build.build(tmp_path / "none.duckdb", "overview")


def run_command(*arguments: object):
    """The command as a user gives it."""
    import typer

    app = typer.Typer()
    command.register(app)
    app.command("other")(lambda: None)
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_the_page_goes_beside_the_run(fake):
    result = run_command(fake.path, "component", "--component", "L0H1")
    assert result.exit_code == 0, result.output
    page = fake.path.with_name("fake-component-L0H1.html")
    assert page.name in re.sub(r"\s", "", result.output) and page.read_text(encoding="utf-8").startswith(
        "<!DOCTYPE html>"
    )


def test_the_page_replaces_an_old_one_and_leaves_nothing_else(fake, tmp_path):
    out = tmp_path / "page.html"
    assert run_command(fake.path, "component", "--component", "L0H1", "--out", out).exit_code == 0
    old = out.read_text(encoding="utf-8")
    assert run_command(fake.path, "overview", "--out", out).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert out.read_text(encoding="utf-8") != old


def test_what_is_no_page_of_ours_is_never_replaced(fake, tmp_path):
    out = tmp_path / "page.html"
    out.write_text("theirs")
    result = run_command(fake.path, "overview", "--out", out)
    assert isinstance(result.exception, ProfilerError) and "is no page of the profiler" in str(result.exception)
    assert out.read_text() == "theirs"


def test_a_folder_that_cannot_be_written_is_one_sentence(fake, tmp_path):
    result = run_command(fake.path, "overview", "--out", tmp_path / "none" / "page.html")
    assert isinstance(result.exception, ProfilerError) and "--out" in str(result.exception)
    assert "\n" not in str(result.exception)


def test_an_interrupted_write_leaves_the_old_page(tmp_path):
    out = tmp_path / "page.html"
    out.write_text("old")
    with pytest.raises(ProfilerError):
        build.write(tmp_path, "new")
    with pytest.raises(UnicodeEncodeError):
        build.write(out, "\ud800")
    assert out.read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_the_reports_need_no_torch():
    import subprocess
    import sys

    code = "import sys; from profiler.pages import build as report; report.load('component'); report.load('overview'); "
    code += (
        "sys.exit(any(name.split('.')[0] in ('torch', 'transformers', 'transformer_lens', 'datasets') for name in"
        " sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
