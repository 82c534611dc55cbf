"""Queries that count by total effect, against the same slow recomputations from the planted total effects."""

from types import SimpleNamespace

import brute
import brute_behaviours
import fake_run
import numpy as np
import pytest

from profiler.database import query
from profiler.errors import QueryError

CHECKED = ("behaviours", "components_by_behaviour", "mixture", "coverage_curve", "unexplained")
ACTS = "SELECT acts FROM importance WHERE component = 'L0H1'"


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    return fake_run.build(tmp_path_factory.mktemp("importance") / "fake.duckdb")


def by_total(fake, label):
    """The rows of the uniform sample where the total effect is known, each of weight 1."""
    kept = brute_behaviours.kept_by_direct(fake, label)
    dense = fake.positions.filter("dense")["position_id"].to_numpy()
    total = brute.totals(fake, label)
    known = np.array([p in total for p in kept.position.tolist()]) & np.isin(kept.position, dense)
    kept = kept.only(known)
    sizes = np.array([abs(total[p]) for p in kept.position.tolist()])
    return brute_behaviours.Kept(**vars(kept) | {"m": sizes, "weight": np.ones(len(sizes))})


def run_by_total(db, name, **parameters):
    declared = {p.name for p in query.header(name).parameters}
    return query.run(db, name, **parameters, **({"importance": "total"} if "importance" in declared else {}))


@pytest.mark.parametrize("name", CHECKED)
def test_equals_a_slow_recomputation(name, fake, monkeypatch):
    monkeypatch.setattr(brute_behaviours, "kept_by_direct", brute_behaviours.kept, raising=False)
    monkeypatch.setattr(brute_behaviours, "kept", by_total)
    monkeypatch.setattr(brute_behaviours, "query", SimpleNamespace(run=run_by_total, Connection=query.Connection))
    with query.open_run(fake.path) as db:
        brute_behaviours.CHECKS[name](fake, db)


def test_both_importances_stand_side_by_side(fake):
    with query.open_run(fake.path) as db:
        direct, total = (query.run(db, "behaviours", importance=name, top=0) for name in ("direct", "total"))
        mixed = {
            name: query.run(db, "mixture", component="L1H0", importance=name).filter(slice="all")
            for name in ("direct", "total")
        }
    np.testing.assert_allclose(direct["direct_coverage"], direct["coverage"], rtol=1e-9)
    np.testing.assert_allclose(total["total_coverage"], total["coverage"], rtol=1e-9)
    keys = ["component", "behaviour"]
    both = direct.join(total, on=keys, suffix="_by_total")
    np.testing.assert_allclose(both["total_coverage"], both["coverage_by_total"], rtol=1e-9)
    assert not np.allclose(both["coverage"], both["coverage_by_total"], rtol=0.02)
    for name, frame in mixed.items():
        np.testing.assert_allclose(frame[f"{name}_share"], frame["share"], rtol=1e-9, atol=1e-12)


def test_ranks_are_by_the_importance_asked_for(fake):
    direct, total = (query.run(fake.path, "component_overview", importance=name, top=0) for name in ("direct", "total"))
    assert direct["abs_dla"].is_sorted(descending=True) and total["total_importance"].is_sorted(descending=True)
    assert total["total_rank"].to_list() == sorted(total["total_rank"].to_list())
    row = query.run(fake.path, "component_rank", component=total["component"][2]).row(0, named=True)
    assert row["total_rank"] == 3 and row["total_importance_lo"] < row["total_importance"] < row["total_importance_hi"]
    ids = brute.column(fake, "position_id")
    at, dla = fake.ordinary & (ids % 5 != 0), fake.dla[fake.row(row["component"])]
    expected = (abs(dla) * (1 + 2 * (ids % 2)))[at].mean()
    assert row["total_importance"] == pytest.approx(expected) and row["n_total"] == at.sum()
    assert row["direct_importance"] == pytest.approx(abs(dla)[at].mean())
    assert row["acts"] == "both" and row["agrees"] == "not checked"


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A run without total effects."""
    return fake_run.build(tmp_path_factory.mktemp("bare") / "run.duckdb", has_totals=False).path


@pytest.mark.parametrize("name", ["behaviours", "mixture", "component_overview", "head_attention"])
def test_a_run_without_total_effects_says_how_to_measure_them(name, bare):
    parameters = {"component": "L0H1"} if name != "component_overview" else {}
    assert query.run(bare, name, **parameters).height
    with pytest.raises(QueryError, match="record it with --effects total, or measure them"):
        query.run(bare, name, importance="total", **parameters)
    assert query.run(bare, ACTS)["acts"].to_list() == [None]


def test_another_word_is_refused(fake):
    with pytest.raises(QueryError, match="importance 'causal' cannot be used: choose direct or total"):
        query.run(fake.path, "behaviours", importance="causal")
