"""A query or report that comes before what it asks about says which command makes it."""

import shutil

import duckdb
import pytest
from typer.testing import CliRunner

from profiler import cli
from profiler.database import makers, query
from profiler.errors import QueryError
from profiler.pages import build
from profiler.pages.site import pages
from profiler.run import open as open_run

LATER = ("profiler patch", "profiler check", "profiler predict", "profiler effects")


def answer(run, name: str) -> str | None:
    """What a query says of its tables being absent; None where it has an answer."""
    given = {p.name: "L0H0" if p.name == "component" else "x" for p in query.header(name).parameters if p.required}
    try:
        query.run(run, name, **given)
    except QueryError as error:
        return str(error)
    return None


@pytest.mark.slow
def test_every_query_that_comes_too_early_names_the_command(unchecked):
    """Of a run that was recorded and no more; those that have an answer are about the pass."""
    with query.open_run(unchecked) as run:
        said = {name: answer(run, name) for name in query.names() if name != "compare"}
    early = {name: text for name, text in said.items() if text}
    assert len(early) == 49
    for name, text in early.items():
        assert any(f"`{command} {unchecked}" in text for command in LATER) or "predict register" in text, (name, text)
        assert "Catalog" not in text and "SQL" not in text and "\n" not in text


@pytest.mark.parametrize(("name", "command"), [("circuit", "patch"), ("generality", "check"), ("verdicts", "check")])
def test_every_report_that_comes_too_early_names_the_command(name, command, unchecked):
    with pytest.raises(QueryError, match=f"`profiler {command} .* ioi`"):
        build.build(unchecked, name)


@pytest.mark.parametrize("name", ["generality", "verdicts"])
def test_a_table_without_rows_is_no_table_yet(name, checked):
    with duckdb.connect(str(checked)) as run:
        run.execute("DELETE FROM checks")
    with pytest.raises(QueryError, match="holds no checks yet"):
        build.build(checked, name)
    with query.open_run(checked) as run:
        assert name not in pages.available(run)


def test_ones_own_sql_and_the_library_say_the_same(unchecked, monkeypatch):
    with open_run(unchecked) as run, pytest.raises(QueryError, match=r"holds no checks yet: .* `profiler check"):
        run.sql("SELECT * FROM checks")
    with open_run(unchecked) as run, pytest.raises(QueryError, match=r"profiler patch"):
        run.query("gates")
    monkeypatch.chdir(unchecked.parent)
    done = CliRunner().invoke(cli.app, ["query", str(unchecked), "-"], input="SELECT * FROM predictions")
    assert f"`profiler predict register {unchecked.name}`" in str(done.exception)


def test_a_table_that_nobody_makes_is_an_error_of_the_sql(unchecked):
    with pytest.raises(QueryError, match="the SQL failed"):
        query.run(unchecked, "SELECT * FROM nowhere")


def test_a_table_of_the_pass_that_is_not_there_is_of_an_earlier_version(unchecked, tmp_path):
    old = shutil.copy(unchecked, tmp_path / "old.duckdb")
    with duckdb.connect(str(old)) as run:
        run.execute("DROP TABLE logit_effects")
        run.execute("DROP TABLE layer_coverages")
    with pytest.raises(QueryError, match="an earlier version wrote"):
        query.run(old, "SELECT * FROM logit_effects")
    with pytest.raises(QueryError, match="profiler behaviours refresh"):  # made once a run is whole
        query.run(old, "SELECT * FROM layer_coverages")


def test_every_table_and_view_has_a_maker(checked):
    with duckdb.connect(str(checked), read_only=True) as run:
        there = {name for (name,) in run.execute("SELECT name FROM (SHOW TABLES)").fetchall()}
    assert there <= set(makers.known())
    assert makers.tables() < set(makers.known())
    assert makers.advice("nowhere") is None
