"""The README against the code: every command it shows exists with these options, every command is in its table."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from profiler import query, report
from profiler.cli import app

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```[a-z]*\n(.*?)```", README, re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines() if line.startswith("profiler ")]
COMMANDS = typer.main.get_command(app).commands


@pytest.mark.parametrize("line", LINES)
def test_command_line_exists(line):
    name, *arguments = shlex.split(line)[1:]
    assert name in COMMANDS
    options = {o for p in COMMANDS[name].params for o in (*p.opts, *p.secondary_opts) if o.startswith("-")}
    assert {a for a in arguments if a.startswith("--")} <= options


def test_there_are_command_lines():
    assert len(LINES) >= 5


def test_every_command_is_in_the_table():
    assert set(re.findall(r"^\| `profiler (\w+)` \|", README, re.MULTILINE)) == set(COMMANDS)


def test_every_option_has_help():
    for name, command in COMMANDS.items():
        assert command.help, name
        for parameter in getattr(command, "params", []):
            assert getattr(parameter, "help", None), f"{name} {parameter.name}"


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    missing = [link for link in links if not (Path(__file__).parents[1] / link).exists()]
    assert not missing


def test_queries_and_reports_named_here_exist():
    for block in BLOCKS:
        for name in re.findall(r"^profiler query \S+ (\w+)", block, re.MULTILINE):
            assert name in query.names()
        for name in re.findall(r"^profiler report \S+ (\w+)", block, re.MULTILINE):
            assert name in report.names()


def test_the_test_command_is_marked_for_ci():
    assert re.search(r"<!-- test command -->\n```\n(.+pytest.+)\n```", README)


def test_no_placeholder_is_left():
    assert not re.findall(r"\b[A-Z]+_OUTPUT\b", README)
