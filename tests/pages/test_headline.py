"""The first sentence of a card: the planted label, or that none holds; raw shares decide nothing."""

from pathlib import Path

import numpy as np
import planted
import polars as pl
import pytest

from profiler.database import query
from profiler.pages.component import headline


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> pl.DataFrame:
    """The query `behaviours` on heads with a known label, and heads and a neuron without any."""
    rng = np.random.default_rng(1)
    w = planted.world(rng, n_documents=80, per_document=10)
    size = lambda: np.exp(rng.normal(0, 0.4, len(w)))  # noqa: E731
    often, seldom, always = rng.random(len(w)) < 0.7, rng.random(len(w)) < 0.04, np.ones(len(w), bool)
    heads = [
        planted.attends("L0H0", {"induction": often}, 3 * size()),
        planted.attends("L0H1", {"previous_token": always}, 2 * size()),
        planted.attends("L0H2", {"duplicate": seldom}, size()),
        planted.attends("L0H3", {"delimiter": rng.random(len(w)) < 0.3}, size()),
        planted.Component("L0N4", size(), size()),
    ]
    effects = {"component_id": [0], "side": ["boosted"], "rank": [1], "token_id": [1], "effect": [1.0]}
    more = {"logit_effects": pl.DataFrame(effects).with_columns(component_id=pl.lit(4))}
    path: Path = planted.write(tmp_path_factory.mktemp("labels") / "run.duckdb", w, heads, more)
    with query.open_run(path) as run:
        kinds = [query.run(run, "behaviours", kind=kind, top=0) for kind in ("head", "neuron")]
    return pl.concat(kinds)


def of(rows: pl.DataFrame, label: str) -> pl.DataFrame:
    return rows.filter(pl.col("component") == label)


def test_planted_labels_are_found_and_no_others(rows):
    found = headline.labels(rows)
    assert dict(found.select("component", "behaviour").iter_rows()) == {"L0H0": "induction", "L0H1": "previous_token"}


def test_a_head_that_always_does_it_is_that_head_though_its_scrambled_claim_covers_as_much(rows):
    row = of(rows, "L0H1").filter(pl.col("behaviour") == "previous_token").row(0, named=True)
    assert row["scrambled"] == pytest.approx(row["coverage"])
    assert headline.sentence(of(rows, "L0H1"), "head").startswith("Previous token: 100\u00a0%")


def test_without_a_label_the_nearest_is_said_with_its_baselines(rows):
    said = headline.sentence(of(rows, "L0H3"), "head")
    assert said.startswith("No label of the list holds: none covers 50\u00a0% of its |DLA|")
    assert "Nearest is “delimiter”" in said and "scrambled" in said and "other heads of its layer" in said
    assert headline.sentence(of(rows, "L0N4"), "neuron").startswith("No label of the list holds")


def made(**changed) -> pl.DataFrame:
    """A row of the query `behaviours`: a neuron that is on numbers."""
    row = {
        "component": "L0N0",
        "behaviour": "on_number",
        "family": "token",
        "n_held": 100,
        "coverage": 0.9,
        "coverage_lo": 0.8,
        "coverage_hi": 0.95,
        "scrambled": 0.05,
        "scrambled_hi": 0.1,
        "random": 0.02,
        "effective_documents": 40.0,
    }
    return pl.DataFrame([row | changed])


@pytest.mark.parametrize(
    "changed",
    [
        {"n_held": 20},  # of 1,024 positions
        {"coverage": 0.3, "coverage_lo": 0.25},
        {"scrambled": 0.8, "scrambled_hi": 0.85},  # it holds nearly everywhere
        {"random": 0.75},  # every neuron does it
        {"coverage_lo": None, "coverage_hi": None},  # its error cannot be told
    ],
    ids=["few positions", "less than half", "what the text gives", "what others do", "no interval"],
)
def test_what_lacks_one_of_the_conditions_is_no_label(changed):
    assert headline.labels(made()).height == 1
    assert headline.labels(made(**changed)).is_empty()
    assert headline.sentence(made(**changed), "neuron").startswith("No label")


def test_the_largest_excess_is_the_label_and_not_the_largest_share():
    broad = made(behaviour="in_brackets", coverage=0.95, coverage_lo=0.9, scrambled=0.5, scrambled_hi=0.6)
    assert headline.labels(pl.concat([broad, made()]))["behaviour"].to_list() == ["on_number"]


def test_few_documents_are_said():
    assert "its rows count as 3.9 documents" in headline.sentence(made(effective_documents=3.918), "neuron")
    assert "documents" not in headline.sentence(made(), "neuron")


def test_what_writes_nothing_has_no_sentence():
    assert headline.sentence(made(coverage=None, coverage_lo=None), "neuron") == ""
