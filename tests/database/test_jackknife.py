"""The standard error over domains: in NumPy, in SQL, and where a domain has one group or one document."""

from pathlib import Path

import brute
import duckdb
import fake_run
import numpy as np
import planted
import pytest

from profiler.database import query
from profiler.statistics import ratio_error


@pytest.fixture(scope="module")
def fake(tmp_path_factory) -> fake_run.FakeRun:
    return fake_run.build(tmp_path_factory.mktemp("fake") / "fake.duckdb")


def ask(path: Path, above: np.ndarray, below: np.ndarray, groups: list[int]) -> dict:
    """The macro jackknife_ratios on sums per group."""
    rows = ", ".join(
        f"('x', {g}, {a!r}::DOUBLE, {b!r}::DOUBLE)"
        for g, a, b in zip(groups, above.tolist(), below.tolist(), strict=True)
    )
    with duckdb.connect(str(path), read_only=True) as con:
        text = f"WITH sums(key, group_id, above, below) AS (VALUES {rows}) SELECT * FROM jackknife_ratios('sums')"
        return con.sql(text).pl().row(0, named=True)


def groups_of(path: Path) -> tuple[list[int], np.ndarray, np.ndarray]:
    with duckdb.connect(str(path), read_only=True) as con:
        frame = con.sql("SELECT group_id, domain_id, n_documents FROM replicate_groups ORDER BY group_id").pl()
    return (
        frame["group_id"].to_list(),
        frame["domain_id"].cast(int).to_numpy(),
        frame["n_documents"].cast(float).to_numpy(),
    )


def test_numpy_and_sql_are_one_formula(fake):
    groups, domain, size = groups_of(fake.path)
    rng = np.random.default_rng(0)
    for _ in range(5):
        below = rng.exponential(5, len(groups)) * (rng.random(len(groups)) < 0.8)
        above = below * rng.random(len(groups))
        error, row = ratio_error(above, below, domain, size), ask(fake.path, above, below, groups)
        assert row["ratio"] == pytest.approx(above.sum() / below.sum())
        assert row["se"] == pytest.approx(error.se, rel=1e-9)
        assert row["t"] * row["se"] == pytest.approx(error.half, rel=1e-5)
        present = below > 0  # a group that holds nothing may be left out of the rows: it stands for nothing
        some = ask(
            fake.path, above[present], below[present], [g for g, here in zip(groups, present, strict=True) if here]
        )
        assert some["se"] == pytest.approx(row["se"], rel=1e-9)


def test_equal_groups_give_the_formula_of_the_textbook():
    """Sum over domains of (G - 1) / G * sum of squares around the domain's own mean."""
    rng = np.random.default_rng(1)
    domain, below = np.repeat([0, 1], [8, 6]), np.ones(14)
    above = rng.random(14) + 5 * domain
    wanted = 0.0
    for d, n in ((0, 8), (1, 6)):
        x = above[domain == d]
        again = [(above[domain != d].sum() + (x.sum() - one) * n / (n - 1)) / 14 for one in x]
        wanted += (n - 1) / n * ((np.array(again) - np.mean(again)) ** 2).sum()
    error = ratio_error(above, below, domain)
    assert error.se == pytest.approx(np.sqrt(wanted))
    assert 5 <= error.df <= 12


def test_the_error_shrinks_with_documents_however_unlike_the_domains_are():
    rng = np.random.default_rng(2)
    small, large = (
        ratio_error(np.concatenate([rng.random(n), 9 + rng.random(n)]), np.ones(2 * n), np.repeat([0, 1], n)).se
        for n in (100, 10000)
    )
    assert small / large == pytest.approx(10, rel=0.2)
    assert small == pytest.approx(np.sqrt(1 / 12 / 200), rel=0.15)


def test_a_domain_of_one_group_widens_the_interval_and_does_not_count_as_certain():
    rng = np.random.default_rng(3)
    above = np.append(rng.random(8), 3.0)
    alone = ratio_error(above, np.ones(9), np.repeat([0, 1], [8, 1]))
    without = ratio_error(above[:8], np.ones(8), np.zeros(8, int))
    assert alone.se > 2 * without.se
    assert alone.df < 2  # nearly all of it is that one group's
    assert ratio_error(np.ones(1), np.ones(1), np.zeros(1, int)) is None
    assert ratio_error(np.ones(3), np.array([1.0, 0.0, 0.0]), np.zeros(3, int)) is None


def test_in_a_run_a_domain_of_one_document_is_undecided_alone_and_counted_with_the_others(tmp_path):
    rng = np.random.default_rng(4)
    w = planted.world(rng, n_documents=60, per_document=10)
    w = planted.World(w.document, (w.document == 7).astype(int), w.token, w.following, w.effect)
    size = np.exp(rng.normal(0, 0.5, len(w)))
    path = planted.write(
        tmp_path / "one.duckdb", w, [planted.attends("L0H0", {"induction": rng.random(len(w)) < 0.3}, size)]
    )
    rows = query.run(path, "mixture", component="L0H0").filter(behaviour="induction")
    by = {(r["slice"], r["value"]): r for r in rows.to_dicts()}
    assert by["domain", "domain1"]["share_se"] is None
    assert by["domain", "domain1"]["share_lo"] is None
    assert by["domain", "domain0"]["share_se"] > 0
    assert by["all", "all"]["share_se"] > 0


def test_brute_force_agrees(fake):
    i, dense = fake.row("L1H0"), brute.column(fake, "dense")
    groups, domain, size = groups_of(fake.path)
    m, group = np.abs(fake.dla[i]) * dense * fake.ordinary, brute.column(fake, "group_id")
    early = brute.column(fake, "offset") < 16
    above, below = (np.array([x[group == g].sum() for g in groups]) for x in (m * early, m))
    se, half = brute.error(fake, lambda use: (m * early * use).sum() / (m * use).sum())
    assert ratio_error(above, below, domain, size).se == pytest.approx(se)
    assert ratio_error(above, below, domain, size).half == pytest.approx(half)
