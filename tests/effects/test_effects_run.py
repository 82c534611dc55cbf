"""A whole pass of total effects over a small run: tables, comments, queries, the card, the command, writing again."""

import re
import shutil
from pathlib import Path

import duckdb
import numpy as np
import passes
import polars as pl
import pytest
import tiny
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

import profiler
from profiler import cli
from profiler.behaviours.additions import refresh
from profiler.database import macros, query, upgrade
from profiler.effects import store
from profiler.errors import CorpusError, ProfilerError, QueryError
from profiler.pages.build import build
from profiler.recording.pipeline import record

pytestmark = pytest.mark.slow

NAMES = [n for n in query.names() if {*store.tables(), "component_effects"} & set(query.header(n).reads)]
LACKED = {
    "dense_rows": "total gate value",
    "component_importance": "n_total sum_total sum_abs_total sum_abs_direct sum_abs_through method error reliable",
    "layer_coverages": "total_coverage",
    "position_rows": "cap_slope role",
}
"""Columns that runs of earlier versions did not have."""
SMALL = {"steps": 1, "checked": 4, "checked_windows": 2, "repair": 1, "routes": 1, "integrated_tokens": 400}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """A run of a small model, without total effects."""
    folder = tmp_path_factory.mktemp("effects")
    corpus = passes.write_rows(folder / "corpus.jsonl", passes.corpus_rows())
    config = passes.settings(tiny.save("neox", folder / "model"), corpus)
    record(config, folder / "run.duckdb")
    refresh(folder / "run.duckdb")
    return folder / "run.duckdb"


@pytest.fixture(scope="module")
def made(recorded):
    """The same with total effects, and what the call gave back."""
    path = Path(shutil.copy(recorded, recorded.with_name("made.duckdb")))
    with profiler.open(path) as run:
        result = run.effects(tokens=None, reread=True, **SMALL)
    return path, result


def test_the_pass_reads_what_the_run_read(made):
    path, result = made
    with profiler.open(path) as run:
        info = run.info
        rows = {row["method"]: row for row in run.query("effect_passes").to_dicts()}
    assert rows["gradient"]["n_positions"] == info["n_positions"]
    assert rows["gradient"]["n_special"] == info["n_special"]
    assert 0 < rows["integrated"]["n_positions"] < rows["gradient"]["n_positions"]
    assert all(row["cost"] > 0 and row["note"] == "" for row in rows.values())
    assert "special positions left out" in repr(result)


def test_direct_effects_against_zero_are_the_importance_of_the_pass(made):
    """Every position was read, so that mean |direct| is what `record` summed."""
    with profiler.open(made[0]) as run:
        effects = run.sql("""SELECT component, direct_importance, direct FROM effect_totals JOIN components
            USING (component_id) WHERE method = 'gradient' AND reference = 'zero' ORDER BY component""")
        recorded = run.query("component_overview", top=0).select("component", "abs_dla", "dla").sort("component")
    np.testing.assert_allclose(effects["direct_importance"], recorded["abs_dla"], rtol=1e-5)
    np.testing.assert_allclose(effects["direct"], recorded["dla"], rtol=1e-4, atol=1e-6)


def test_total_effects_stand_beside_direct_ones(made):
    """At the positions of the uniform sample that the best method of each kind read, and in sums over all it read."""
    with profiler.open(made[0]) as run:
        rows = run.sql("""SELECT kind, method, count(*)::BIGINT AS n, count(dense_rows.total)::BIGINT AS known
            FROM dense_rows JOIN importance USING (component_id) GROUP BY kind, method""").to_dicts()
        best = run.sql("""SELECT DISTINCT kind, method, n_total FROM importance ORDER BY kind""").to_dicts()
        totals = run.sql("""SELECT component, method, importance.total_importance, effect_totals.importance
            , importance.direct_importance, effect_totals.direct_importance AS direct
            , importance.through_importance, effect_totals.through_importance AS through
            , importance.total, effect_totals.total AS mean
            FROM importance JOIN effect_totals USING (component_id, method) WHERE reference = 'zero'""")
        passes_made = {row["method"]: row for row in run.query("effect_passes").to_dicts()}
        effects = run.query("effects", reference="zero", top=0)
    assert {row["kind"] for row in best} == {"head", "neuron"}
    assert all(row["n_total"] == passes_made[row["method"]]["n_positions"] for row in best)
    for row in rows:
        assert row["known"] == row["n"] if row["method"] == "gradient" else 0 < row["known"] < row["n"]
    for mine, theirs in (
        ("total_importance", "importance"),
        ("direct_importance", "direct"),
        ("through_importance", "through"),
        ("total", "mean"),
    ):
        np.testing.assert_allclose(totals[mine], totals[theirs], rtol=1e-6, atol=1e-9)
    said = dict(effects.select("component", "method").iter_rows())
    assert said == dict(totals.select("component", "method").iter_rows())


def test_how_reliable_they_are_is_said_of_each_component(made):
    with profiler.open(made[0]) as run:
        said = run.sql("""SELECT importance.error, agreement.error AS measured, importance.reliable
            , agreement.reliable AS agreed, agrees
            FROM importance JOIN effect_reliability AS agreement
                ON agreement.kind = importance.kind AND agreement.layer = importance.layer
                    AND agreement.method = importance.method AND agreement.value = 'zero'""")
    assert said.height > 0 and said["error"].equals(said["measured"]) and said["reliable"].equals(said["agreed"])
    assert {*said["agrees"]} <= {"reliable", "unreliable"}


def test_other_components_are_compared_by_total_effects_too(made):
    with profiler.open(made[0]) as run:
        frame = run.query("behaviours", importance="total", family="")
    assert frame["random"].drop_nulls().len() > 0 and frame["total_coverage"].drop_nulls().len() > 0


def test_a_run_that_was_recorded_with_total_effects_keeps_them(made, tmp_path):
    """A second pass says how reliable they are, and replaces none of them."""
    folder = tmp_path / "recorded"
    folder.mkdir()
    corpus = passes.write_rows(folder / "corpus.jsonl", passes.corpus_rows())
    config = passes.settings(tiny.save("neox", folder / "model"), corpus, effects="total", effect_method="frozen")
    record(config, folder / "run.duckdb")
    text = "SELECT component_id, position_id, total FROM dense_rows ORDER BY ALL"
    before = query.run(folder / "run.duckdb", text)
    with profiler.open(folder / "run.duckdb") as run:
        run.effects(tokens=None, reread=True, methods=("frozen", "gradient"), **SMALL)
    assert query.run(folder / "run.duckdb", text).equals(before) and before["total"].drop_nulls().len() > 0
    importance = query.run(folder / "run.duckdb", "SELECT method, error FROM importance")
    assert set(importance["method"]) == {"frozen"} and importance["error"].null_count() == 0


def test_a_run_of_an_earlier_version_is_brought_up_to_date(recorded, made, tmp_path):
    """Columns, tables and views are taken away that it lacked; `refresh` and `effects` add them."""
    old = Path(shutil.copy(recorded, tmp_path / "old.duckdb"))
    with duckdb.connect(str(old)) as connection:
        for table, columns in LACKED.items():
            for column in columns.split():
                connection.execute(f'ALTER TABLE {table} DROP COLUMN "{column}"')
        for table in upgrade.ADDED_TABLES:
            connection.execute(f"DROP TABLE {table}")
    with pytest.raises(QueryError, match=r"earlier version: `profiler behaviours refresh .*old.duckdb`"):
        query.run(old, "behaviours")
    again = Path(shutil.copy(old, tmp_path / "again.duckdb"))
    refresh(old)
    frames = [query.run(path, "behaviours", family="") for path in (old, recorded)]
    assert_frame_equal(*frames, rel_tol=1e-9)
    with profiler.open(again) as run:
        run.effects(tokens=None, reread=True, **SMALL)
    text = "SELECT component, agrees, acts, method FROM importance ORDER BY component_id"
    assert query.run(again, text).equals(query.run(made[0], text))


@pytest.mark.parametrize("name", NAMES)
def test_every_query_has_rows_its_key_and_its_header(made, name):
    header = query.header(name)
    with query.open_run(made[0]) as connection:
        frame = query.run(connection, name)
        known = connection.sql("SELECT table_name FROM duckdb_tables() UNION SELECT view_name FROM duckdb_views()")
        relations = {row[0] for row in known.fetchall()}
    assert frame.height > 0 and header.question.endswith("?") and header.grain.startswith("one row")
    assert frame.select(header.key).is_duplicated().sum() == 0
    text = "\n".join([query.sql_text(name), *(macros.definitions()[m] for m in macros.called_in(query.sql_text(name)))])
    code = re.sub(r"--.*", "", text)
    used = {r for r in relations if re.search(rf"(?:FROM|JOIN)\s+{r}\b", code) and f"{r} AS (" not in code}
    assert used == set(header.reads)


def test_every_column_is_explained(made):
    with query.open_run(made[0]) as connection:
        bare = connection.sql("""SELECT table_name, column_name FROM duckdb_columns()
            WHERE (table_name LIKE 'effect%' OR table_name = 'component_effects') AND comment IS NULL""").fetchall()
    assert bare == []


def test_words_say_how_a_component_acts(made):
    sizes = [(1, 0.1, 1), (0.1, 1, 1), (1, 1, 1.5), (1, 0.9, 0.2), (0, 0, 0)]
    with profiler.open(made[0]) as run:
        said = [run.sql("SELECT effect_words(" + ", ".join(map(str, s)) + ")").item() for s in sizes]
        acts = run.query("effects", top=0)
    assert said == ["direct only", "through others", "both", "they cancel", "nothing"]
    assert {*acts["acts"]} <= {*said}
    best = acts.filter(kind="head")["method"].unique().to_list()
    assert acts.filter(kind="neuron")["method"].unique().to_list() == ["gradient"] and len(best) == 1


def test_intervals_hold_their_means(made):
    frame = made[1].frames["effect_totals"].drop_nulls("importance_lo")
    for name in ("total", "importance", "direct", "loss", "through_importance"):
        assert (frame[f"{name}_lo"] <= frame[name]).all() and (frame[name] <= frame[f"{name}_hi"]).all()


def test_a_second_pass_replaces_the_first(made, tmp_path):
    path = Path(shutil.copy(made[0], tmp_path / "again.duckdb"))
    with profiler.open(path) as run:
        run.effects(
            reread=True, methods=("frozen",), tokens=300, checked=0, repair=0, routes=0, steps=1, integrated_tokens=1
        )
        assert run.query("effect_passes")["method"].to_list() == ["frozen"]
        assert run.query("effect_reliability").is_empty()
        assert {*run.query("effects", top=0)["reliable"]} == {None}
        assert "windows chosen by hash" in run.query("effect_passes")["note"].item()


def test_the_card_has_a_section(made, recorded):
    page = build(made[0], "component", "L0H1")
    assert "Everything it does" in page and "rank" in page
    assert "Everything it does" not in build(recorded, "component", "L0H1")


def test_a_run_without_a_pass_says_which_command_makes_it(recorded):
    with profiler.open(recorded) as run, pytest.raises(QueryError, match="`profiler effects"):
        run.query("effects")


def test_a_corpus_is_not_read_on_the_word_of_the_file(recorded):
    with profiler.open(recorded) as run, pytest.raises(CorpusError, match=r"--corpus, or add --reread"):
        run.effects()


def test_bad_settings_are_refused_before_anything_is_read(recorded):
    with profiler.open(recorded) as run:
        with pytest.raises(ProfilerError, match="'slope' cannot be used: choose among gradient"):
            run.effects(methods=("slope",), reread=True)
        with pytest.raises(ProfilerError, match="steps 0 is too few: give 1 or more"):
            run.effects(steps=0, reread=True)


def test_the_command(recorded, tmp_path):
    path = Path(shutil.copy(recorded, tmp_path / "run.duckdb"))
    options = "--methods gradient --tokens 300 --checked 0 --repair 0 --routes 0 --reread".split()
    done = CliRunner().invoke(cli.app, ["effects", str(path), *options])
    assert done.exit_code == 0, done.output
    assert "gradient:" in done.output and "profiler query" in done.output
    with profiler.open(path) as run:
        assert isinstance(run.query("effects"), pl.DataFrame)
