"""The page of a check: its numbers against the queries, its drawings against their rows, hostile texts, nothing to
show."""

import html
import re
from pathlib import Path

import duckdb
import fake_check
import fake_run
import planted_claims as planted
import polars as pl
import pytest

from profiler.database import query
from profiler.errors import ProfilerError
from profiler.generality import store
from profiler.generality.evidence.thresholds import DEFAULT
from profiler.generality.evidence.verdict import judge
from profiler.pages import build, numbers
from profiler.pages.charts import check


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_check.build(tmp_path_factory.mktemp("page") / "run.duckdb")


@pytest.fixture(scope="module")
def page(path: Path) -> str:
    return build.build(path, "generality")


def visible(page: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", " ", page.split("<script")[0])).replace(numbers.BLANK, " ")


@pytest.mark.slow
def test_the_verdict_comes_first_and_is_the_stored_one(path: Path, page: str) -> None:
    row = query.run(path, "checks").row(0, named=True)
    text = visible(page)
    assert text.index(row["sentence"].replace(numbers.BLANK, " ")) < text.index("The distributions")
    assert (
        f"{row['speak_for']} support the claims, {row['speak_against']} contradict them, {row['undecided']} are" in text
    )
    assert (
        f"{row['registered']} of the tested numbers were predicted beforehand, {row['post_hoc']} are post hoc" in text
    )
    assert "9 distributions were tried" in text


def test_every_section_has_its_numbers(path: Path, page: str) -> None:
    text = re.sub(r"\s+", " ", visible(page))
    for heading in (
        "The distributions",
        "How general, how complete",
        "Roles",
        "Replacement by understanding",
        "Counter-examples",
        "Edits and swaps",
        "Weights, other tasks, other papers",
        "The ledger",
        "Predictions",
    ):
        assert f"{heading}</h2>" in page, heading
    for row in query.run(path, "distributions").filter(pl.col("faithfulness").is_not_null()).to_dicts():
        assert numbers.percent(row["faithfulness"]).replace(numbers.BLANK, " ") in text
    for row in query.run(path, "predictions").to_dicts()[:2]:
        assert row["statement"] in text
    assert "3 prompts; 20 are needed" in text
    assert "remove the copy" in text


def test_hostile_text_stays_text(page: str) -> None:
    shown = page.split('<script type="application/json"')[0]
    assert "</script><b>" not in shown
    assert "&lt;/script&gt;&lt;b&gt;" in shown
    data = page.split('id="page-data">')[1].split("</script>")[0]
    assert "<" not in data


def test_the_distributions_is_drawn_from_its_rows(path: Path) -> None:
    frame = query.run(path, "distributions").filter(pl.col("faithfulness").is_not_null())
    spec = check.distributions(frame, DEFAULT.margin).to_dict()
    sets = [spec["datasets"][layer["data"]["name"]] for layer in spec["layer"]]
    assert sorted(mark["at"] for mark in sets[0]) == pytest.approx(
        sorted([1.0, frame["faithfulness"][0] - DEFAULT.margin])
    )
    assert [row["faithfulness"] for row in sets[1]] == frame["faithfulness"].to_list()
    assert sets[1][0]["name"] == "discovery (48 prompts)"
    assert {row["speaks"] for row in sets[1]} == {"for"}


def test_other_drawings_hold_their_rows(path: Path) -> None:
    read = lambda name: query.run(path, name)  # noqa: E731
    plane = check.plane(read("generality_plane")).to_dict()
    assert {row["subject"] for row in plane["datasets"][plane["layer"][2]["data"]["name"]]} == {
        "planted",
        "L0H1",
        "L1H0",
    }
    covered = check.coverage(read("role_coverage")).to_dict()
    assert covered["layer"][0]["encoding"]["x"]["sort"] == [
        "templates",
        "repeats",
        "domain: code",
        "domain: prose",
        "corpus",
    ]
    mixed = check.mixtures(read("role_mixture")).to_dict()
    assert mixed["encoding"]["color"]["scale"]["domain"] == ["induction", "previous_token", "unexplained"]
    replaced = check.replaced(read("replacements").filter(pl.col("percentile_lo") > 0)).to_dict()
    assert [row["bin"] for rows in replaced["datasets"].values() for row in rows] == ["99–100"]
    tasks = check.tasks(read("cross_tasks")).to_dict()
    assert {(row["circuit"], row["task"]) for rows in tasks["datasets"].values() for row in rows} == {
        ("planted", "ioi"),
        ("planted", "docstring"),
    }


@pytest.mark.slow
def test_a_check_with_next_to_nothing_is_a_page_too(tmp_path: Path) -> None:
    path = tmp_path / "run.duckdb"
    fake_run.build(path)
    with pytest.raises(ProfilerError):
        build.build(path, "generality")
    verdict = judge([], ["discovery"])
    store.write(
        path,
        "bare",
        circuit=fake_check.circuit("bare", [("L0H1", "")]),
        findings=[],
        distributions=fake_check.DISTRIBUTIONS[-1:],
        verdict=verdict,
    )
    text = visible(build.build(path, "generality"))
    assert "bare: inconclusive" in text
    assert "nothing that decides could be measured" in text
    assert "No distribution has a number" in text
    assert "every claim above is post hoc" in text


@pytest.mark.slow
def test_a_changed_prediction_is_seen_on_the_page(tmp_path: Path) -> None:
    path = tmp_path / "run.duckdb"
    fake_run.build(path)
    store.register(path, fake_check.PREDICTIONS[:1])
    fake_check.write(path, case=planted.narrow)
    store.resolve(path)
    assert "was changed" not in visible(build.build(path, "generality"))
    with duckdb.connect(str(path)) as shell:
        shell.execute("UPDATE prediction_log SET content = replace(content, '0.7', '0.1')")
    assert "1 registered prediction was changed or removed after it was written" in visible(
        build.build(path, "generality")
    )
