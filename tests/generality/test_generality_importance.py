"""Roles are counted by |DLA|, or by |total effect| of a member that acts through others; the other stands beside."""

import shutil

import duckdb
import fake_run
import pytest

from profiler.database import query
from profiler.generality.coverage import everywhere
from profiler.generality.evidence.distributions import CORPUS
from profiler.generality.evidence.finding import Question

HEAD, ROLE = "L1H0", "previous-token head"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fake_run.build(tmp_path_factory.mktemp("roles") / "fake.duckdb").path


@pytest.fixture(scope="module")
def through_others(run):
    """The same run, in which the head writes nothing directly that is worth saying."""
    path = shutil.copy(run, run.with_name("through.duckdb"))
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE component_importance SET sum_abs_direct = 1e-3 * sum_abs_direct")
    return path


def covered(path):
    asked = Question(HEAD, ROLE, "coverage", CORPUS, "positions")
    found = [row for row in everywhere.of_run(path, asked) if row.distribution == CORPUS]
    return {row.statistic: row.value for row in found if row.statistic.startswith("coverage")}


def shares(path):
    rows = query.run(path, "mixture", component=HEAD, behaviours="previous_token").filter(
        slice="all", behaviour="previous_token"
    )
    return rows.row(0, named=True)


def test_a_role_is_counted_by_direct_effects_and_total_ones_stand_beside(run):
    found, expected = covered(run), shares(run)
    assert found["coverage"] == pytest.approx(expected["direct_share"])
    assert found["coverage by |total effect|"] == pytest.approx(expected["total_share"], rel=0.2)
    assert found["coverage"] != pytest.approx(found["coverage by |total effect|"], rel=1e-3)


def test_a_role_of_a_member_that_acts_through_others_is_counted_by_its_total_effect(run, through_others):
    direct, total = covered(run), covered(through_others)
    assert total["coverage"] == pytest.approx(direct["coverage by |total effect|"])
    assert total["coverage by |DLA|"] == pytest.approx(direct["coverage"])


def test_a_run_without_total_effects_has_the_direct_one_alone(tmp_path):
    bare = fake_run.build(tmp_path / "bare.duckdb", has_totals=False).path
    assert [name for name in covered(bare) if name.startswith("coverage by")] == []
