"""A model written by hand, from a pass to its pages: the head that acts through others alone is described by that."""

import pytest

import profiler
from profiler.config import RunConfig
from profiler.pages.build import build as page_of
from profiler.recording.pipeline import record
from profiler.truth.circuit import SIZES
from profiler.truth.directory import build
from profiler.truth.models.copying import PREVIOUS_ROLE, induction

pytestmark = pytest.mark.slow
SIZES_OF_HEADS = ("total_importance", "direct_importance")
SETTINGS = {"steps": 8, "checked": 8, "checked_windows": 4, "repair": 0, "routes": 2}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The run, and the label of the previous-token head."""
    made = build(induction(), tmp_path_factory.mktemp("truth") / "model", SIZES[0], pairs=60)
    path = made.folder / "run.duckdb"
    record(RunConfig(model=str(made.folder), corpora=(str(made.corpus),), tokens=None), path)
    with profiler.open(path) as run:
        run.effects(methods=("gradient", "integrated"), tokens=None, integrated_tokens=2_000, reread=True, **SETTINGS)
    (previous,) = (label for label, role in dict(made.truth.roles).items() if role == PREVIOUS_ROLE)
    return path, previous, made.truth


def test_the_previous_token_head_matters_and_acts_through_others(measured):
    path, previous, truth = measured
    with profiler.open(path) as run:
        row = run.query("component_rank", component=previous).row(0, named=True)
        heads = run.query("component_overview", kind="head", importance="total", top=0)
        routes = run.query("effect_routes", component=previous)
    assert row["abs_dla"] < 1e-5 < 0.02 < row["total_importance"] and row["acts"] == "through others"
    assert row["method"] == "integrated" and row["agrees"] in ("reliable", "unreliable")
    by_total, by_direct = (heads.sort(name, descending=True)["component"].to_list() for name in SIZES_OF_HEADS)
    assert by_total.index(previous) < 4 < by_direct.index(previous) + 1
    ways = routes.sort("share", descending=True)["through"].head(len(truth.members) - 1)
    assert set(ways) == set(truth.members) - {previous}


def test_what_it_does_is_asked_of_its_total_effect(measured):
    path, previous, _ = measured
    with profiler.open(path) as run:
        total = run.query("behaviours", component=previous, importance="total", behaviour="previous_token")
        mixed = run.query("mixture", component=previous, importance="total").filter(slice="all")
        by_class = run.query("importance_by_class", component=previous)
    assert total["total_coverage"].item() == total["coverage"].item() > 0.95
    assert dict(mixed.select("behaviour", "share").iter_rows())["previous_token"] > 0.9
    assert by_class["total_share"].sum() == pytest.approx(1)


def test_its_card_is_not_blank(measured):
    path, previous, _ = measured
    page = page_of(path, "component", previous)
    assert "it acts through later components" in page and "Counted by |total effect|" in page
    assert "accounts for" in page and "of its |total effect|" in page
    assert "by all that they do" in page_of(path, "overview")
