"""The page of behaviours and the card's section: the numbers are the queries', the planted heads are named."""

import re
from pathlib import Path

import numpy as np
import planted
import polars as pl
import pytest

from profiler.database import query
from profiler.model.components import ComponentId
from profiler.pages import build, numbers
from profiler.pages.component import behaviours
from profiler.pages.reader import Reader


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """An induction head, a previous-token head in one domain that is two-back in the other, and two that do neither."""
    rng = np.random.default_rng(0)
    w = planted.world(rng, n_documents=80, per_document=10)
    size = lambda: np.exp(rng.normal(0, 0.4, len(w)))  # noqa: E731
    often, all_ = rng.random(len(w)) < 0.7, np.ones(len(w), bool)
    heads = [
        planted.attends("L0H0", {"induction": often}, 3 * size()),
        planted.attends("L0H1", {"previous_token": w.domain == 0, "two_back": w.domain == 1}, 2 * size()),
        planted.attends("L0H2", {"first_token": all_}, size()),
        planted.attends("L0H3", {"first_token": all_}, size()),
    ]
    effects = {"component_id": [0], "side": ["boosted"], "rank": [1], "token_id": [1], "effect": [1.0]}
    heads.append(planted.Component("L0N4", size(), size()))
    more = {"logit_effects": pl.DataFrame(effects).with_columns(component_id=pl.lit(4))}
    return planted.write(tmp_path_factory.mktemp("page") / "run.duckdb", w, heads, more)


@pytest.fixture(scope="module")
def read(run):
    with query.open_run(run) as connection:
        yield Reader(connection)


def test_the_page_names_the_planted_heads_and_the_one_that_differs(run):
    page = build.load("behaviours").build(Reader(query.open_run(run)))
    row = query.run(run, "behaviours", behaviour="induction").filter(pl.col("component") == "L0H0").row(0, named=True)
    assert 0.6 < row["coverage"] < 0.8
    assert numbers.share_with_interval(row, "coverage") in page.answer[0]
    assert page.answer[0].startswith("“induction” covers L0H0 most")
    assert page.answer[1].startswith("“previous_token” covers L0H1 most")
    assert "1 of 4 attend elsewhere in another domain" in page.answer[-1]
    table = next(b for s in page.sections for b in s.blocks if b.title == "Attending elsewhere in different domains")
    assert "L0H1" in str(table.rows[0][0].text)
    assert re.search("previous_token|two_back", str(table.rows[0][1].text))


def test_the_heat_map_holds_every_claim(read):
    frame = read("behaviours", kind="head", family="attention", top=60).frame
    drawn = behaviours.heat_map(frame).to_dict()
    rows = next(iter(drawn["datasets"].values()))
    assert len(rows) == len(frame) == 4 * 10
    assert drawn["encoding"]["y"]["sort"][0] == "L0H0"
    assert {r["behaviour"]: r["coverage"] for r in rows if r["component"] == "L0H2"}["first_token"] == 1


def test_the_section_says_the_mixture_and_what_is_left(read):
    made = behaviours.section(read, ComponentId("head", 0, 0))
    rows = {
        r["behaviour"]: r for r in read("mixture", component="L0H0").frame.filter(pl.col("slice") == "all").to_dicts()
    }
    assert made.text.startswith(f"“induction” accounts for {numbers.share_with_interval(rows['induction'], 'share')}")
    assert numbers.share_with_interval(rows["unexplained"], "share") in made.text
    titles = [block.title for block in made.blocks]
    assert titles == [
        "Mixture by activation",
        "Mixture by domain",
        "Claims and their baselines",
        "Unexplained",
        "What could not have been seen",
    ]
    bars = next(iter(made.blocks[1].chart.to_dict()["datasets"].values()))
    for domain in ("domain0", "domain1"):
        assert sum(b["share"] for b in bars if b["value"] == domain) == pytest.approx(1)
    assert behaviours.section(read, ComponentId("embed", None, None)).blocks == ()


def test_all_unexplained_is_said(read):
    assert behaviours.section(read, ComponentId("neuron", 0, 4)).text.startswith(
        "No behaviour of the list holds where it matters: 100"
    )
