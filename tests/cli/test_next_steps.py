"""What a command says to do next works when it is pasted, whatever the path; -q, --json and --open; what is refused
before any work."""

import json
import shlex
import webbrowser
from pathlib import Path

import chunked
import patch_models
import pytest
from typer.testing import CliRunner

import profiler
from profiler.cli import app, options, record
from profiler.cli.terminal import commands
from profiler.cli.terminal.console import asides
from profiler.errors import PredictionError, ProfilerError
from profiler.pages import build, page
from profiler.prompts.pairs import jsonl

runner = CliRunner()


@pytest.fixture(autouse=True)
def talkative(monkeypatch) -> None:
    """No test leaves another quiet."""
    monkeypatch.setattr(asides, "quiet", False)


def run(*words: object) -> str:
    """What a command prints."""
    done = runner.invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output + str(done.exception)
    return done.output


def next_lines(printed: str) -> list[list[str]]:
    """The commands under Next, split as a shell splits them."""
    assert "\nNext:\n" in printed, printed
    lines = printed.partition("\nNext:\n")[2].splitlines()
    assert lines and all(line.startswith("  profiler ") for line in lines)
    return [shlex.split(line)[1:] for line in lines]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder whose name a shell would split."""
    path = tmp_path / "my runs $HOME; 'x'"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


@pytest.mark.slow
def test_every_next_line_works_when_it_is_pasted(folder, corpus_file, monkeypatch):
    chunked.shrink(monkeypatch)  # so that little text has two shards
    model = str(patch_models.loaded("gpt2").spec.name)
    out, toy = folder / "a run.duckdb", folder / "my toy.jsonl"
    jsonl.write(toy, patch_models.pairs(24))
    small = ("--dense-positions", 30, "--context-length", 48)
    said = [run("record", model, "--corpus", corpus_file, "--out", out, "--tokens", 900, *small)]
    for i in (1, 2):
        run("record", model, "--corpus", corpus_file, "--out", folder / f"{i}.duckdb", *small, "--shard", f"{i}/2")
    said += [run("merge", folder / "1.duckdb", folder / "2.duckdb", "--out", folder / "both of.duckdb")]
    quick = ("--neurons", 2, "--top", 2, "--draws", 5, "--no-by-role", "--model", model)
    said += [run("patch", out, toy, *quick), run("paths", out, toy, "L0H0:L1H1.q", "--model", model)]
    with profiler.open(out) as opened:
        name = opened.query("SELECT circuit FROM circuits")["circuit"][0]
    tested = ("--pairs", 20, "--draws", 1, "--tokens", 400, "--reread", "--model", model)
    said += [run("check", out, name, *tested)]
    measured = ("--tokens", 300, "--integrated-tokens", 200, "--checked", 1, "--repair", 1, "--routes", 1)
    said += [run("effects", out, *measured, "--reread", "--model", model)]
    said += [run("classes", "add", out, "long", "len(body) > 5")]
    said += [run("behaviours", "add", out, "far", "distance > 4", "--on", on) for on in ("head",)]
    said += [run("behaviours", "add", out, "big", "activation > 0.1", "--on", "neuron")]
    claim = ("--statement", "x", "--subject", "L0H0", "--statistic", "coverage", "--threshold", 0.5)
    said += [run("predict", "register", out, *claim)]
    said += [run("circuits", "list"), run("tasks")]
    for printed in said:
        for command in next_lines(printed):
            run(*command)


def test_a_path_is_quoted_for_the_shell(folder, capsys):
    commands.say_next(("info", folder / "a run.duckdb"))
    assert next_lines(capsys.readouterr().out) == [["info", str(folder / "a run.duckdb")]]


def test_a_pass_that_ended_at_its_tokens_says_how_to_go_on(run_path, base_config, capsys):
    with profiler.open(run_path) as opened:
        read = opened.info["n_tokens"]
    record._say_more(base_config.model_copy(update={"tokens": read}), run_path)
    assert f"The pass ended at --tokens. {10 * read:,} tokens" in capsys.readouterr().out
    for tokens in (None, read + 1):
        record._say_more(base_config.model_copy(update={"tokens": tokens}), run_path)
    assert capsys.readouterr().out == ""
    assert options.number(record.DEFAULT_TOKENS) == 100_000


def test_every_command_takes_quiet():
    groups = ("behaviours", "classes", "predict", "circuits", "models")
    for name in (
        "record",
        "merge",
        "query",
        "info",
        "report",
        "try",
        "find",
        "patch",
        "check",
        "site",
        "export",
        *groups,
    ):
        inner = [] if name not in groups else ["list" if name not in ("models",) else "score"]
        assert "--quiet" in run(name, *inner, "--help"), name


def test_lists_as_json_hold_the_tables_rows(unchecked):
    with profiler.open(unchecked) as opened:
        behaviours, classes = opened.behaviours().to_dicts(), opened.classes().to_dicts()
    assert json.loads(run("behaviours", "list", unchecked, "--json")) == behaviours
    assert json.loads(run("classes", "list", unchecked, "--json")) == classes


def test_predictions_as_json_and_in_quiet(unchecked):
    assert json.loads(run("predict", "list", unchecked, "--json")) == []
    with pytest.raises(PredictionError):
        raise runner.invoke(app, ["predict", "list", str(unchecked), "--receipt", "x"]).exception
    claim = ("--statement", "x", "--subject", "L0H0", "--statistic", "coverage", "--threshold", 0.5)
    said = run("predict", "register", unchecked, *claim)
    assert "Next:" in said and "Next:" not in run("predict", "register", unchecked, *claim, "-q")
    registered = json.loads(run("predict", "register", unchecked, *claim, "--json"))
    *_, listed = json.loads(run("predict", "list", unchecked, "--json"))
    assert listed["hash"] == registered["hash"] and registered["known_before"] is False
    *_, scored = json.loads(run("predict", "resolve", unchecked, "--json"))
    assert (scored["statement"], scored["outcome"], scored["value"]) == ("x", "open", None)


def test_no_number_is_null_in_json(capsys):
    commands.write_json({"a": [float("nan"), 1.5], "b": (float("inf"),), "c": Path("x")})
    assert json.loads(capsys.readouterr().out) == {"a": [None, 1.5], "b": [None], "c": "x"}


def test_pages_are_opened_where_it_is_asked_for(tmp_path, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(webbrowser, "open", seen.append)
    commands.offer(tmp_path / "a b.html", opened=False)
    assert seen == [] and "open it in a browser" in capsys.readouterr().out
    commands.offer(tmp_path / "a b.html", opened=True)
    assert seen == [(tmp_path / "a b.html").as_uri()]
    for name in ("report", "site", "compare", "try", "demo", "serve"):
        assert "--open" in run(name, "--help"), name


NOWHERE = ("--model", "/no/such/model")
TAKEN = {
    "report": ("report", "{run}", "component", "--component", "L0H0", "--attention", *NOWHERE, "--out", "{file}"),
    "try": ("try", "{run}", "a text", *NOWHERE, "--out", "{file}"),
    "compare": ("compare", "{run}", "{run}", "--out", "{file}"),
    "patch": ("patch", "{run}", "ioi", *NOWHERE, "--save", "{file}"),
    "tasks": ("tasks", "ioi", "--out", "{file}"),
    "site": ("site", "{run}", "--out", "{file}"),
    "export": ("export", "{run}", "--format", "jsonl", "--recompute", *NOWHERE, "--out", "{file}"),
    "record": ("record", "/no/such/model", "--corpus", "stdlib", "--out", "{file}"),
    "demo": ("demo", "--out", "{file}"),
    "merge": ("merge", "{run}", "{other}", "--out", "{file}"),
}


@pytest.mark.parametrize("command", TAKEN)
@pytest.mark.parametrize("file", ["thesis.tex", "no/such/folder/x"])
def test_what_is_there_is_refused_before_the_model_loads(run_path, unchecked_run, tmp_path, command, file):
    (tmp_path / "thesis.tex").write_text("years of work")
    words = [word.format(run=run_path, other=unchecked_run, file=tmp_path / file) for word in TAKEN[command]]
    done = runner.invoke(app, words)
    assert isinstance(done.exception, ProfilerError), done.output
    named = str(tmp_path / file if file == "thesis.tex" else tmp_path / "no/such/folder")
    assert named in str(done.exception)
    assert (tmp_path / "thesis.tex").read_text() == "years of work" and len(list(tmp_path.iterdir())) == 1


def test_an_earlier_page_is_replaced(tmp_path):
    head = '<meta name="generator" content="{}">'
    assert head.format("{{ made_by }}") in page.asset("frame.html.jinja")
    for _ in range(2):
        build.refuse(tmp_path / "page.html")
        build.write(tmp_path / "page.html", head.format(page.MADE_BY))
    with pytest.raises(ProfilerError, match="is no page of the profiler"):
        build.write(tmp_path / "page.html", "<p>mine")
        build.refuse(tmp_path / "page.html")
