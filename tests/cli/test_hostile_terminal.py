"""What a run, a corpus or a model says never steers the terminal: tried on a real one, command by command."""

import ast
import csv
import io
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import polars as pl
import pytest
from rich.markdown import Markdown
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from profiler.cli.terminal import console
from profiler.cli.terminal.output import text_table
from profiler.pages import build
from profiler.pages.visible_text import plain

ROOT = Path(__file__).parents[2]
EVIL = (
    "\x1b]52;c;ZXZpbA==\x07\x1b]0;title\x1b\\\x9b2J\x9d0;t\x9c\x1b[2J\x1b[?1049h\x1b[8m\x1bc\x08\r\x0b\x0c\x7f\x00\x85"
    "\u202eevil\u2066\u200f\u061c\u2028\U000e0041 [bold]x[/] \\[red]y[/red] [link=http://evil]z[/link] :smile:"
)
STORED = EVIL.replace("\x00", "")
OURS = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\x1b\[[0-9]*[AK]|\x1b\[2K|\r")
"""Colours, the cursor's shape and the movements of a progress bar: what rich makes from styles and never from text."""
RUN_ALL = """
import json, sys
from profiler import cli
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["profiler", *arguments]
    try:
        cli.main()
    except SystemExit:
        pass
"""


def steers(text: str) -> list[str]:
    """Characters of `text` that a terminal obeys, but for those of our own."""
    return sorted({c for c in OURS.sub("", text) if not c.isprintable() and c not in "\n\t\r"})


@pytest.fixture
def hostile(checked) -> Path:
    """A run in which every text is hostile, but for those that a query must find."""
    kept = {
        "component",
        "kind",
        "statistic",
        "technique",
        "distribution",
        "check_id",
        "family",
        "measure",
        "side",
        "axis",
        "unit",
        "config",
        "versions",
        "settings",
        "created",
        "written",
        "origin",
        "direction",
        "content",
        "hash",
        "name",
    }
    with duckdb.connect(str(checked)) as run:
        columns = run.execute(
            "SELECT c.table_name, c.column_name FROM duckdb_columns() c JOIN duckdb_tables() t USING (table_name) WHERE"
            " data_type = 'VARCHAR'"
        ).fetchall()
        keys = {"behaviours": "condition", "classes": "class", "properties": "property", "component_importance": ""}
        for table, column in columns:
            if column not in kept and table not in keys:
                run.execute(f'UPDATE {table} SET "{column}" = concat(?, "{column}")', [STORED])
        for table in ("behaviours", "properties"):
            run.execute(f"UPDATE {table} SET description = concat(?, description)", [STORED])
    return checked


def on_a_terminal(*commands: list[str], cwd: Path) -> str:
    """Standard output and error of commands, in one process on a terminal of its own."""
    pty = pytest.importorskip("pty", reason="no pseudo-terminals on this system")
    ours, theirs = pty.openpty()
    script = [sys.executable, "-c", RUN_ALL, json.dumps(commands)]
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "200", "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(script, stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, env=environment)
    os.close(theirs)
    parts = []
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(ours)
    child.wait(timeout=60)
    return b"".join(parts).decode("utf-8", "replace").replace("\r\n", "\n")


@pytest.mark.slow
def test_no_command_lets_a_run_steer_the_terminal(hostile):
    run = hostile.name
    texts = (
        'SELECT model, model AS "\x1b]0;t\x07" FROM runs',
        "SELECT error(model) FROM runs",
        "SELECT model::INTEGER FROM runs",
    )
    files = [hostile.with_name(f"{i}.sql") for i in range(len(texts))]
    for file, sql in zip(files, texts, strict=True):
        file.write_text(sql, encoding="utf-8")
    whole, raised, cast = (file.name for file in files)
    commands = [
        ["info", run],
        *(["query", run, whole, "--format", form] for form in ("table", "csv", "json")),
        ["query", run, raised],
        ["query", run, cast],
        ["query", run, whole, "--sql"],
        ["query", run, "corpus"],
        ["query", run, "component_overview", "--set", "component=L9H9"],
        ["query", run, "extremes", "--set", "component=L9H9"],
        ["query", run, "checks"],
        ["query", run, "ledger", "--format", "csv"],
        ["query", run, "predictions"],
        ["query", run, "extremes", "--set", "component=L0H0", "--format", "csv"],
        ["classes", "list", run],
        ["behaviours", "list", run],
        ["behaviours", "remove", run, "none"],
        ["predict", "list", run],
        ["predict", "resolve", run],
        ["report", run, "component", "--component", "L9H9"],
        ["report", run, "component", "--component", "L0H0", "--attention"],
        ["check", run, "ioi"],
        ["patch", run, "ioi"],
        ["compare", run, run],
        ["merge", run, run, "--out", "c.duckdb"],
        ["label", run, "--component", "L0H0", "--score"],
    ]
    shown = on_a_terminal(*commands, cwd=hostile.parent)
    assert steers(shown) == []
    assert shown.count(r"\x1b]52;c;ZXZpbA==\x07") > 20
    assert r"\[red]y[/red]" in shown and "[bold]x[/]" in shown and ":smile:" in shown
    assert "Traceback" not in shown


@pytest.mark.slow
def test_data_in_a_file_or_a_pipe_is_as_it_was(hostile, tmp_path):
    sql = tmp_path / "model.sql"
    sql.write_text("SELECT model FROM runs")
    for form in ("csv", "json"):
        command = [sys.executable, "-m", "profiler", "query", str(hostile), str(sql), "--format", form]
        piped = subprocess.run(command, capture_output=True, cwd=ROOT, check=True).stdout
        file = tmp_path / f"out.{form}"
        subprocess.run([*command, "--out", str(file)], capture_output=True, cwd=ROOT, check=True)
        assert piped == file.read_bytes()
        text = piped.decode("utf-8")
        rows = list(csv.DictReader(io.StringIO(text, newline=""))) if form == "csv" else json.loads(text)
        assert rows[0]["model"].startswith(STORED)


# --- each way to the terminal ---


def test_whatever_is_printed_is_cleaned():
    """Strings, rich's texts, tables, Markdown, progress bars and spinners."""
    file = io.StringIO()
    made = console.Clean(file=file, force_terminal=True, width=100)
    table = Table(EVIL, title=EVIL)
    table.add_row(EVIL)
    spoken = f"[l]({EVIL[:12]}) **b** `{EVIL}` <http://x/{EVIL[:9]}>"
    for one in (
        EVIL,
        Text(EVIL),
        Text.assemble(("profiler:", "bold red"), EVIL),
        table,
        Markdown(spoken),
        Markdown(spoken, hyperlinks=False),
    ):
        made.print(one)
    with Progress(TextColumn("{task.description}", markup=False), console=made) as progress:
        progress.add_task(EVIL)
        progress.console.print(EVIL)
    with made.status(EVIL):
        pass
    shown = file.getvalue()
    assert steers(shown) == []
    assert "\x1b]8;" not in shown and "\x1b[1;31mprofiler:" in shown
    assert shown.count("[bold]x[/]") > 5


def test_names_of_columns_are_cleaned_too():
    assert steers(text_table(pl.DataFrame({EVIL: [EVIL]}))) == []


@pytest.mark.parametrize("text", ["plain", "Ünïcødé 中文 עברית", "a\nb\tc", "on 22\u00a0% of it"])
def test_text_that_steers_nothing_is_as_it_was(text):
    assert console.clean(text) == text
    assert console.readable(text.replace("\n", " ").replace("\t", " ")) == text.replace("\n", " ").replace("\t", " ")


def test_what_a_library_logs_and_an_unexpected_error_are_cleaned(capsys, monkeypatch):
    made = logging.getLogRecordFactory()
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    try:
        console.guard()
        record = logging.getLogRecordFactory()("n", 30, "p", 1, "say %s", (EVIL,), None)
        assert steers(record.getMessage()) == [] and "say" in record.getMessage()
        bad = logging.getLogRecordFactory()("n", 30, "p", 1, "say %d", ("x" + EVIL,), None)
        assert steers(bad.getMessage()) == []
        sys.excepthook(ValueError, ValueError(EVIL), None)
    finally:
        logging.setLogRecordFactory(made)
    shown = capsys.readouterr().err
    assert steers(shown) == [] and "ValueError" in shown


def test_one_module_prints():
    """Nothing else of the command line prints, writes to the standard streams, or makes a console of rich."""
    for file in sorted((ROOT / "profiler" / "cli").glob("*.py")):
        if file.name == "console.py":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert called not in ("print", "Console", "typer.echo", "typer.secho", "click.echo"), (
                file.name,
                node.lineno,
            )
            assert not called.startswith(("sys.stdout.", "sys.stderr.")) or called == "sys.stdout.isatty", (
                file.name,
                node.lineno,
            )
            if called == "TextColumn" and re.search("{task.(fields|description)", ast.unparse(node)):
                assert "markup=False" in ast.unparse(node), (file.name, node.lineno)


# --- pages ---


@pytest.mark.slow
def test_no_page_holds_a_character_that_steers_it(hostile):
    for name, component in (("overview", None), ("component", "L0H0"), ("generality", None), ("verdicts", None)):
        html = build.build(hostile, name, component=component)
        outside = re.sub(r"<script.*?</script>|<style.*?</style>", "", html, flags=re.DOTALL)
        assert [c for c in steers(outside) if ord(c) not in (0xA0, 0x3000)] == []
        assert "<script>alert" not in outside


def test_a_bare_text_of_a_page_is_shown_with_signs():
    assert plain("a\x1b\u202e\nb\t") == "a␛U+202E\nb\t"
    assert plain(3) == 3
