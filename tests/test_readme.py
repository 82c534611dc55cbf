"""The README and docs/ against the code: every command they show exists with these options, every command is in the
table."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

import profiler
from profiler.cli import app
from profiler.database import query
from profiler.pages import build

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    block for page in PAGES for block in re.findall(r"```[a-z]*\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
]
LINES = [line for block in BLOCKS for line in block.splitlines() if line.startswith("profiler ")]
COMMANDS = typer.main.get_command(app).commands


@pytest.mark.parametrize("line", LINES)
def test_command_line_exists(line):
    name, *arguments = shlex.split(line)[1:]
    assert name in COMMANDS
    command = COMMANDS[name]
    command = getattr(command, "commands", {}).get(arguments[0] if arguments else "", command)
    options = {o for p in command.params for o in (*p.opts, *p.secondary_opts) if o.startswith("-")}
    assert {a for a in arguments if a.startswith("--")} <= options


def test_there_are_command_lines():
    assert len(LINES) >= 5


def test_every_command_is_in_the_table():
    assert set(re.findall(r"^\| .+ \| `profiler (\w+)`", README, re.MULTILINE)) == set(COMMANDS)


def test_every_option_has_help():
    for name, command in COMMANDS.items():
        assert command.help, name
        for parameter in getattr(command, "params", []):
            assert getattr(parameter, "help", None), f"{name} {parameter.name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
    made = {"reference/commands.md", "reference/queries.md", "reference/schema.md", "reference/python.md"}
    assert not [link for link in links if link not in made and not (page.parent / link).exists()]


@pytest.mark.slow
def test_the_pages_of_docs_become_a_site(tmp_path):
    """`mkdocs build --strict`, with a reference of every command, query, table and public name."""
    pytest.importorskip("mkdocs", reason="MkDocs is not installed (pip install 'generality-profiler[test]')")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = {
        name: (tmp_path / "reference" / name / "index.html").read_text()
        for name in ("commands", "queries", "schema", "python")
    }
    assert all(f">profiler {name}<" in shown["commands"] for name in COMMANDS)
    assert all(f">{name}<" in shown["queries"] for name in query.names())
    assert ">component_facts<" in shown["schema"]
    assert all(f"profiler.{name}" in shown["python"] or f".{name}" in shown["python"] for name in profiler.PUBLIC)


def test_queries_and_reports_named_here_exist():
    for block in BLOCKS:
        for name in re.findall(r"^profiler query \S+ (\w+)", block, re.MULTILINE):
            assert name in query.names()
        for name in re.findall(r"^profiler report \S+ (\w+)", block, re.MULTILINE):
            assert name in build.names()


def test_the_test_command_is_marked_for_ci():
    assert re.search(r"<!-- test command -->\n```\n(.+pytest.+)\n```", README)


def test_no_placeholder_is_left():
    assert not re.findall(r"\b[A-Z]+_OUTPUT\b", README)
