"""What makes the command line pleasant: version, SQL in quotes, JSON, whole lines in a pipe."""

import json
from importlib.metadata import version
from io import StringIO

import pytest
from rich.table import Table
from typer.testing import CliRunner

import profiler
from profiler.cli import app
from profiler.cli.terminal.console import Clean

runner = CliRunner()


def test_the_version_is_the_packages():
    done = runner.invoke(app, ["--version"])
    assert (done.exit_code, done.output) == (0, f"profiler {version('generality-profiler')}\n")


def test_sql_in_quotes_is_a_query(run_path):
    done = runner.invoke(app, ["query", str(run_path), "SELECT count(*) AS n FROM components", "--format", "json"])
    with profiler.open(run_path) as run:
        assert json.loads(done.output) == [{"n": len(run.components())}]


@pytest.mark.parametrize("name", ["run_info", "run info", " run  info "])
def test_a_querys_name_may_have_blanks(run_path, name):
    assert runner.invoke(app, ["query", str(run_path), name, "--format", "json"]).exit_code == 0


def test_a_name_that_is_none_is_still_no_sql(run_path):
    done = runner.invoke(app, ["query", str(run_path), "run_inf"])
    assert done.exit_code == 1 and "did you mean run_info?" in str(done.exception)


def test_info_as_json_holds_what_info_shows(run_path):
    told = json.loads(runner.invoke(app, ["info", str(run_path), "--json"]).output)
    with profiler.open(run_path) as run:
        summary = run.summary()
    assert told["run"]["run_id"] == summary.facts["run_id"]
    assert told["corpus"] == summary.corpus.to_dicts()
    assert [row["reason"] for row in told["dropped"]] == summary.drops["reason"].to_list()
    assert told["unfinished"] is None


def test_lines_are_whole_where_the_output_is_no_terminal(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    table, text = Table.grid(), "word " * 100
    table.add_row(text)
    Clean(file=(out := StringIO())).print(table, soft_wrap=False)
    assert out.getvalue().rstrip() == text.rstrip()
    assert Clean(file=StringIO(), width=40).size.width == 40
    monkeypatch.setenv("COLUMNS", "60")
    assert Clean(file=StringIO()).size.width == 60
