"""The views of a run agree with recomputations from the raw values, and everything in the database is commented."""

from collections.abc import Iterator
from pathlib import Path

import brute
import duckdb
import fake_run
import numpy as np
import polars as pl
import pytest
from scipy import stats

from profiler.database.comments import comment_statements

SURFACE = {
    "components": "component_id component kind layer unit",
    "documents": "doc_id domain source n_tokens n_dropped",
    "windows": "window_id doc_id start token_ids",
    "positions": (
        "position_id window_id doc_id pos offset token_id token next_token_id next_token class target_logit loss "
        "rank entropy special"
    ),
    "activations": "component position_id activation dla",
    "samples": "component stratum quantile position_id token next_token context activation dla inclusion_probability",
    "extremes": "component side measure rank position_id token next_token context activation dla",
    "moments": (
        "component class domain n mean sd skew kurtosis min max mean_se dla_mean dla_sd dla_skew dla_kurtosis "
        "dla_min dla_max dla_mean_se"
    ),
    "spectrum": "component class lo hi n sum_dla sum_abs_dla",
    "head_attention": (
        "component position_id previous_token first_token self induction duplicate entropy top_offset dla_to_attended"
    ),
    "runs": "run_id config model closure_residual",
}


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> fake_run.FakeRun:
    return fake_run.build(tmp_path_factory.mktemp("fake") / "fake.duckdb")


@pytest.fixture
def db(fake: fake_run.FakeRun) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(str(fake.path), read_only=True) as connection:
        yield connection


@pytest.mark.parametrize("view", SURFACE)
def test_the_sql_surface_has_its_columns(db: duckdb.DuckDBPyConnection, view: str) -> None:
    columns = db.sql(f"SELECT * FROM {view} LIMIT 0").columns
    assert set(SURFACE[view].split()) <= set(columns)


def test_everything_is_commented(db: duckdb.DuckDBPyConnection) -> None:
    bare = db.sql(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal AND comment IS NULL"
    ).fetchall()
    assert bare == []
    for function in ("duckdb_tables", "duckdb_views"):
        assert db.sql(f"SELECT count(*) FROM {function}() WHERE NOT internal AND comment IS NULL").fetchall() == [(0,)]
    assert db.sql("SELECT count(*) FROM duckdb_columns() WHERE NOT internal").fetchall()[0][0] > 200


def test_the_fake_run_fills_every_column(fake: fake_run.FakeRun, db: duckdb.DuckDBPyConnection) -> None:
    """The schema moved on if this fails: the recomputations would miss the new column."""
    rows = db.sql(
        "SELECT table_name, list(column_name) FROM duckdb_columns() JOIN duckdb_tables() USING (table_name) GROUP"
        " BY ALL"
    )
    assert {name: set(columns) for name, columns in rows.fetchall()} == {
        k: set(v.columns) for k, v in fake.tables.items()
    }


def test_comment_statements_read_both_forms() -> None:
    text = (
        'CREATE TABLE t ( -- it\'s a table\n    a INTEGER, -- first\n    "b" INTEGER[] -- last; of two\n);\n-- View:'
        " v\n-- One row per t.\n--   Told on.\n-- x: a column\n--   with more\nCREATE VIEW v AS SELECT a AS x FROM t;\n"
    )
    con = duckdb.connect()
    con.execute(text)
    for statement in comment_statements(text):
        con.execute(statement)
    rows = con.sql(
        "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal ORDER BY ALL"
    ).fetchall()
    assert rows == [("t", "a", "first"), ("t", "b", "last; of two"), ("v", "x", "a column with more")]
    assert con.sql("SELECT comment FROM duckdb_views() WHERE view_name = 'v'").fetchall() == [
        ("One row per t. Told on.",)
    ]
    assert con.sql("SELECT comment FROM duckdb_tables()").fetchall() == [("it's a table",)]


def test_comments_of_a_column_that_is_not_there_are_an_error() -> None:
    con = duckdb.connect()
    text = "-- View: v\n-- One row.\n-- y: wrong\nCREATE VIEW v AS SELECT 1 AS x;\n"
    con.execute(text)
    with pytest.raises(duckdb.Error):
        for statement in comment_statements(text):
            con.execute(statement)


def test_t975_against_scipy(db: duckdb.DuckDBPyConnection) -> None:
    found = db.sql("SELECT t975(df) FROM range(1, 400) r(df) ORDER BY df").pl().to_series().to_numpy()
    assert np.allclose(found, stats.t.ppf(0.975, np.arange(1, 400)), atol=3e-6)
    assert db.sql("SELECT t975(0)").fetchall() == [(None,)]


@pytest.mark.parametrize("axis", brute.AXES)
@pytest.mark.parametrize("component", ["L0N1", "L1H0", "L0N4", "embed", "final_bias"])
def test_breakdown(fake: fake_run.FakeRun, db: duckdb.DuckDBPyConnection, component: str, axis: str) -> None:
    found = db.sql(f"SELECT * FROM breakdown WHERE component = '{component}' AND axis = '{axis}' ORDER BY value").pl()
    brute.agree(found, brute.breakdown(fake, component, axis))
    assert found["share_abs_dla"].sum() == pytest.approx(1)
    assert found["n"].sum() == fake.ordinary.sum()


@pytest.mark.parametrize("component", ["L0N0", "L0N1", "L0N3", "L1N5", "L1H1", "pos_embed"])
def test_moments(fake: fake_run.FakeRun, db: duckdb.DuckDBPyConnection, component: str) -> None:
    found = db.sql(f"SELECT * FROM moments WHERE component = '{component}' ORDER BY class, domain").pl()
    brute.agree(found, brute.moments(fake, component))


def test_spectrum_and_density_and_strata(fake: fake_run.FakeRun, db: duckdb.DuckDBPyConnection) -> None:
    i = fake.row("L1N5")
    x, d = fake.activation[i][fake.ordinary], fake.dla[i][fake.ordinary]
    classes = brute.column(fake, "class")[fake.ordinary]
    spectrum = db.sql("SELECT * FROM spectrum WHERE component = 'L1N5'").pl()
    for row in spectrum.iter_rows(named=True):
        upward = (row["lo"] <= x) & (x < row["hi"])
        downward = (row["lo"] < x) & (x <= row["hi"])
        inside = (upward if row["lo"] > 0 else downward if row["hi"] < 0 else np.abs(x) < 2.0**-16) & (
            classes == row["class"]
        )
        assert row["n"] == inside.sum() > 0
        assert row["sum_dla"] == pytest.approx(d[inside].sum())
        assert row["sum_abs_dla"] == pytest.approx(np.abs(d[inside]).sum())
    assert spectrum["n"].sum() == fake.ordinary.sum()
    density = db.sql("SELECT * FROM density WHERE component = 'L1N5' ORDER BY bin").pl()
    assert density["n"].sum() == fake.ordinary.sum()
    strata = db.sql("SELECT stratum AS bin, n FROM strata WHERE component = 'L1N5' ORDER BY bin").pl()
    assert strata.equals(spectrum.group_by("bin").agg(pl.col("n").sum()).sort("bin"))


@pytest.mark.parametrize("view", ["samples", "extremes"])
def test_rows_have_their_values_and_contexts(fake: fake_run.FakeRun, db: duckdb.DuckDBPyConnection, view: str) -> None:
    found = db.sql(f"SELECT * FROM {view} WHERE component = 'L0N5'").pl()
    place = {p: k for k, p in enumerate(fake.positions["position_id"])}
    for row in found.iter_rows(named=True):
        assert {k: row[k] for k in brute.context(fake, row["position_id"])} == brute.context(fake, row["position_id"])
        k = place[row["position_id"]]
        assert fake.ordinary[k]
        assert row["activation"] == fake.activation[fake.row("L0N5"), k]
        assert row["dla"] == fake.dla[fake.row("L0N5"), k]


def test_contexts_are_cut_on_both_sides(fake: fake_run.FakeRun, db: duckdb.DuckDBPyConnection) -> None:
    """The fake's windows are long enough for both limits to bite: else the test above could not see them."""
    last = {w: len(ids) - 1 for w, ids in fake.tables["windows"].select("window_id", "token_ids").iter_rows()}
    found = db.sql('SELECT p."offset", window_id FROM samples JOIN positions p USING (position_id)').fetchall()
    assert any(offset > 24 for offset, _ in found)
    assert any(last[window] - offset > 8 for offset, window in found)


def test_samples_probabilities_and_quantiles(fake: fake_run.FakeRun, db: duckdb.DuckDBPyConnection) -> None:
    found = db.sql("SELECT * FROM samples WHERE component = 'L0N1'").pl()
    x = fake.activation[fake.row("L0N1")][fake.ordinary]
    n = dict(zip(*np.unique(fake_run.bin_of(x, 2), return_counts=True), strict=True))
    for row in found.iter_rows(named=True):
        assert row["inclusion_probability"] == min(8, n[row["stratum"]]) / n[row["stratum"]]
        if row["quantile"] is not None:
            exact = np.quantile(x, row["quantile"], method="inverted_cdf")
            assert row["stratum_lo"] <= exact <= row["stratum_hi"]
    assert set(found["quantile"].drop_nulls()) == set(fake.tables["quantiles"]["quantile"])
    once = db.sql(
        "SELECT count(*), count(DISTINCT position_id) FROM sample_weights WHERE component = 'L0N1'"
    ).fetchall()
    assert once[0][0] == once[0][1] == found["position_id"].n_unique()


@pytest.mark.slow
def test_a_weighted_sum_over_samples_is_unbiased(tmp_path: Path) -> None:
    """Many samplings of one run: the mean of the weighted sums is the exact sum, within its standard error."""
    fake = fake_run.build(tmp_path / "fake.duckdb")
    i, rng, estimates = fake.row("L0N5"), np.random.default_rng(1), []
    with duckdb.connect(str(fake.path)) as con:
        for _ in range(120):
            rows = fake_run.make_samples(rng, fake.activation, fake.dla, fake.positions, [i], 3)  # noqa: F841
            con.execute("DELETE FROM sample_rows")
            con.execute("INSERT INTO sample_rows BY NAME SELECT * FROM rows")
            sums = con.sql("SELECT sum(weight * dla), sum(weight) FROM sample_weights WHERE component = 'L0N5'")
            estimates.append(sums.fetchall()[0])
    (mean, n), error = np.mean(estimates, 0), np.std(estimates, 0, ddof=1)[0] / np.sqrt(len(estimates))
    plain = np.mean([fake.dla[i][fake.ordinary].mean() * n])
    assert error > 0
    assert abs(mean - plain) < 3.5 * error
    assert n == pytest.approx(fake.ordinary.sum())


def test_positions_and_values_of_single_positions(fake: fake_run.FakeRun, db: duckdb.DuckDBPyConnection) -> None:
    found = db.sql("SELECT * FROM positions ORDER BY position_id").pl()
    wanted = fake.positions.sort("position_id")
    for name in (
        "position_id",
        "doc_id",
        "pos",
        "offset",
        "token_id",
        "class",
        "next_class",
        "domain",
        "special",
        "dense",
        "loss",
    ):
        assert found[name].to_list() == wanted[name].to_list(), name
    texts = fake.tables["tokens"]["token"]
    assert found["token"].to_list() == [texts[t] for t in wanted["token_id"]]
    assert found["next_token"].to_list() == [texts[t] for t in wanted["next_token_id"]]
    total = db.sql("SELECT position_id, sum(dla) AS s FROM activations GROUP BY ALL").pl()
    logits = found.join(total, on="position_id")
    assert len(logits) == found["dense"].sum() > 0
    assert np.allclose(logits["s"], logits["target_logit"], rtol=1e-5)
    recorded = db.sql("SELECT * FROM recorded WHERE component = 'L1N1'").pl()
    assert len(recorded) == len(fake.positions)
    assert recorded["special"].drop_nulls().len() == (~fake.ordinary).sum()


def test_head_attention(fake: fake_run.FakeRun, db: duckdb.DuckDBPyConnection) -> None:
    found = db.sql("SELECT * FROM head_attention WHERE component = 'L1H0' ORDER BY position_id").pl()
    dense = brute.column(fake, "dense")
    assert found["position_id"].to_list() == sorted(brute.column(fake, "position_id")[dense])
    order = np.argsort(brute.column(fake, "position_id")[dense])
    assert np.allclose(found["dla"], fake.dla[fake.row("L1H0")][dense][order])


def test_no_error_from_one_group(tmp_path: Path) -> None:
    """With a single replicate group nothing is known of other documents: every standard error is NULL, no mean is."""
    fake = fake_run.build(tmp_path / "fake.duckdb", n_documents=6, n_dense=5, n_domains=1, n_groups=1)
    with duckdb.connect(str(fake.path), read_only=True) as con:
        rows = con.sql("SELECT activation, activation_se, share_abs_dla_se, share_abs_dla_lo FROM breakdown").pl()
        moments = con.sql("SELECT mean, mean_se, abs_dla_mean_se FROM moments").pl()
    assert rows["activation"].null_count() == moments["mean"].null_count() == 0
    for frame, names in [(rows, rows.columns[1:]), (moments, moments.columns[1:])]:
        assert all(frame[name].null_count() == len(frame) > 0 for name in names)
