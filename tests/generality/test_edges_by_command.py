"""Circuits chosen by edges, patched and checked by command on models whose truth is known, to the report's page."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import profiler
from profiler.cli import app
from profiler.truth.circuit import DISCOVERY_PROMPTS, SIZES
from profiler.truth.directory import HandBuilt, build
from profiler.truth.models import hand_models

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
SMALL = ("--draws", "39", "--neurons", "2", "--top", "2", "--steps", "4")


def command(*arguments: object) -> str:
    """What a command prints; it ends well."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def checked(built: HandBuilt, run: Path) -> str:
    """The model's circuit by edges, found and checked by command; what `check` prints."""
    model = ("--model", built.folder)
    command("patch", run, built.pairs_file(DISCOVERY_PROMPTS), *model, "--edges", *SMALL)
    wider = [prompts.name for prompts in built.prompts if prompts.name != DISCOVERY_PROMPTS]
    asked = [part for name in wider for part in ("--distribution", f"{name}={built.pairs_file(name)}")]
    few = ("--tokens", "1", "--pairs", "20", "--draws", "39")
    return command("check", run, "discovery-own-edges", *model, "--reread", *few, *asked)


@pytest.mark.parametrize(
    "name", ["one-template", *(pytest.param(name, marks=pytest.mark.monthly) for name in ("sum", "over-recovers"))]
)
def test_a_circuit_by_edges_gets_the_true_word(name: str, tmp_path: Path) -> None:
    (model,) = hand_models([name])
    built, run = build(model, tmp_path / name, SIZES[0], 0, 48), tmp_path / "run.duckdb"
    assert model.word in checked(built, run).splitlines()
    with profiler.open(run) as opened:
        circuit = yaml.safe_load(opened.sql("SELECT yaml FROM circuits")["yaml"][0])
        rows = opened.sql(
            "SELECT distribution, statistic, value, null_n, granularity FROM check_findings"
            " WHERE statistic IN ('faithfulness', 'necessity') AND refused = ''"
        )
    heads = {edge["writer"] for edge in circuit["edges"] if "H" in edge["writer"]}
    assert circuit["scope"]["granularity"] == "edge" and heads == set(built.truth.members)
    assert set(rows["granularity"]) == {"edge"} and set(rows["distribution"]) >= {p.name for p in built.prompts}
    assert all(n >= 20 for n in rows["null_n"])
    few = ["check", run, "discovery-own-edges", "--model", built.folder, "--reread", "--tokens", "1", "--budget", "1s"]
    refused = CliRunner().invoke(app, [str(argument) for argument in few])
    assert refused.exit_code == 1 and "the budget is 0.0 min" in str(refused.exception)
    command("report", run, "generality", "--out", tmp_path / "page.html")
    assert model.word in (tmp_path / "page.html").read_text(encoding="utf-8")
