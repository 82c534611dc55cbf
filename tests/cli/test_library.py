"""The library is the product: calls make, patch, check, compare and report runs, and results print well."""

import ast
import shutil
from pathlib import Path

import fake_check
import patch_models
import polars as pl
import pytest
import torch

import profiler
from profiler import cli
from profiler.circuits.circuit import Circuit, Member, Scope
from profiler.errors import CircuitError, ComponentError, ModelError, PairError, ProfilerError, QueryError, RunError
from profiler.model.load import load_model
from profiler.results import CheckResult, PatchResult, Step

COMMANDS = sorted(Path(cli.__file__).parent.glob("*.py"))
SMALL = {"neurons": 2, "top": 2, "draws": 3}
DRAWING = {"polars", "rich", "typer"}
"""What a command may import at its head, besides the standard library: what it prints with."""


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> tuple[PatchResult, list[Step]]:
    """Pairs of our own on a tiny model, in a run that is made for them; with the steps that were reported."""
    steps: list[Step] = []
    path = tmp_path_factory.mktemp("library") / "own.duckdb"
    pairs = patch_models.pairs(8, seed=3)
    done = profiler.patch(path, pairs, model=patch_models.loaded("gpt2"), report=steps.append, **SMALL)
    return done, steps


@pytest.mark.slow
def test_pairs_are_patched_into_a_run_of_their_own(patched: tuple) -> None:
    done, steps = patched
    assert done.run.exists() and done.members.columns == ["component", "positions", "gate", "role"]
    beside = list(done.run.parent.glob("own-pairs-*.jsonl"))
    assert len(beside) == 1 and beside[0].stem in done.experiment
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert steps[-1].done == steps[-1].total and [step.text[:8] for step in steps if step.is_note] == [
        "warning:"
    ] * 2 + ["forecast"]
    with profiler.open(done.run) as run:
        stored = run.sql("SELECT count(*) AS n FROM circuit_scores")["n"].item()
    assert stored == done.scores.height > 0


def test_a_patch_prints_its_circuit_and_how_good_it_is(patched: tuple, tmp_path: Path) -> None:
    done = patched[0]
    text = str(done)
    assert text.startswith(done.experiment) and all(member.component in text for member in done.circuit.members)
    assert all(sentence in text for sentence in done.sentences())
    assert "\x1b" not in text and "<table" in done._repr_html_()
    assert done.save(tmp_path / "c.yaml").read_text(encoding="utf-8").startswith("name: ")


@pytest.mark.slow
def test_an_open_run_is_patched_and_can_be_read_again(patched: tuple, tmp_path: Path) -> None:
    copy = Path(shutil.copy(patched[0].run, tmp_path / "run.duckdb"))
    with profiler.open(copy) as run:
        before = run.sql("SELECT count(*) AS n FROM patch_experiments")["n"].item()
        pairs = patch_models.pairs(8, seed=3)
        again = run.patch(
            pairs, model=patch_models.loaded("gpt2"), circuit=patched[0].circuit, seed=1, by_role=False, **SMALL
        )
        assert run.sql("SELECT count(*) AS n FROM patch_experiments")["n"].item() == before + 1
        assert again.circuit.members == patched[0].circuit.members


@pytest.mark.slow
def test_mistakes_leave_the_run_open_and_as_it_was(run_path: Path, base_config, tmp_path: Path) -> None:
    copy = Path(shutil.copy(run_path, tmp_path / "run.duckdb"))
    before = copy.read_bytes()
    with profiler.open(copy) as run:
        for error, call in (
            (PairError, lambda: run.patch("no task")),
            (PairError, lambda: run.patch("ioi", pairs=1)),
            (PairError, lambda: run.patch("ioi", seed=-1)),
            (PairError, lambda: run.check("ioi", draws=0)),
            (ModelError, lambda: run.patch("ioi", trust_remote_code=True)),
            (ModelError, lambda: run.patch("ioi", model="bundled")),
            (ProfilerError, lambda: run.check("ioi")),
            (CircuitError, lambda: run.check("ioi", reread=True)),
            (QueryError, lambda: run.add_class("Bad Name", "true")),
            (RunError, lambda: run.compare(copy)),
            (ComponentError, lambda: run.report("overview", attention=True)),
            (ProfilerError, lambda: run.report("componant")),
        ):
            with pytest.raises(error):
                call()
            assert run.info["n_tokens"] > 0
    assert copy.read_bytes() == before
    with pytest.raises(RunError, match="is closed: open it again"):
        run.patch("ioi")


def test_two_open_runs_are_compared_and_stay_open(run_path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(run_path, tmp_path / "copy.duckdb"))
    with profiler.open(run_path) as run, profiler.open(copy) as other:
        result = run.compare(other, top=2, out=tmp_path / "page.html")
        assert result.frame.height > 0 and "documents" in result.notes[0]
        assert run.components().equals(other.components())
    assert "<!DOCTYPE html>" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_classes_and_behaviours_are_added_to_an_open_run(unchecked: Path) -> None:
    with profiler.open(unchecked) as run:
        assert run.add_class("with_a", "text LIKE '%a%'") == run.classes().filter(property="with_a")["n_tokens"].item()
        run.add_behaviour("far", "distance > 64", "head")
        assert {"far", "on_with_a"} <= set(run.behaviours().filter(pl.col("own"))["behaviour"])
        run.remove_behaviour("far")
        run.remove_class("with_a")
        assert not run.behaviours()["own"].any() and not run.classes()["own"].any()


def test_a_report_is_written_beside_the_run(unchecked: Path) -> None:
    with profiler.open(unchecked) as run:
        made = run.report("component", "L0H1")
    assert made.path.parent == unchecked.parent and made.path.stat().st_size == made.bytes


def test_a_summary_is_what_info_prints(run_path: Path) -> None:
    with profiler.open(run_path) as run:
        summary = run.summary()
    assert summary.facts["architecture"] == "GPT2LMHeadModel" and summary.unfinished is None
    assert summary.corpus.height and summary.sizes.height and (summary.drops["n"] > 0).all()


def test_pairs_can_be_drawn_looked_at_and_are_those_of_the_command() -> None:
    pairs = profiler.draw_pairs("ioi", pairs=5)
    assert len(pairs) == 5 and pairs == profiler.draw_pairs("ioi", pairs=7)[:5]
    assert all(isinstance(pair.clean, str) and pair.clean != pair.corrupted for pair in pairs)
    with pytest.raises(PairError, match="train or held_out"):
        profiler.draw_pairs("ioi", split="development")


@pytest.mark.slow
def test_a_finished_run_is_resumed_without_its_corpus(base_config, run_path: Path, tmp_path: Path) -> None:
    corpus = Path(shutil.copy(base_config.corpora[0], tmp_path / "corpus.jsonl"))
    config = base_config.model_copy(update={"corpora": (str(corpus),), "tokens": 300, "components": ()})
    model = load_model(config)
    first = profiler.record(config, tmp_path / "run.duckdb", model=model)
    corpus.unlink()
    again = profiler.record(config, tmp_path / "run.duckdb", model=model, resume=True)
    assert again.before and again.progress.tokens == first.progress.tokens
    assert torch.get_num_threads() == 1, "the pass left torch more threads than it was given"


def test_a_pass_says_beforehand_what_a_disk_budget_lowered(base_config, tmp_path: Path) -> None:
    said = []
    config = base_config.model_copy(
        update={"tokens": 300, "components": (), "disk_budget": 9_400_000, "samples_per_stratum": 8}
    )
    done = profiler.record(config, tmp_path / "run.duckdb", announce=said.append)
    assert len(said) == 1 and said[0].lowered and said[0].config.samples_per_stratum < config.samples_per_stratum
    assert said[0].forecast.bytes <= config.disk_budget and done.progress.tokens >= 300
    with pytest.raises(ProfilerError, match="--engine ray"):
        profiler.record(config, tmp_path / "other.duckdb", workers=2)


@pytest.mark.slow
def test_an_open_run_is_checked_and_the_verdict_prints_as_it_is_stored(run_path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(run_path, tmp_path / "run.duckdb"))
    circuit = Circuit("tiny", "tiny", (Member("L1H0", "previous token"), Member("L0H1")), Scope("own", "none", ()))
    with profiler.open(copy) as run:
        done = run.check(circuit, pairs=20, draws=5, tokens=None, reread=True)
        stored = run.sql("SELECT word, sentence FROM checks").row(0)
    assert (done.word, done.verdict.sentence) == stored
    assert str(done).startswith(f"tiny: {done.word}\n{done.verdict.sentence}")


def test_a_check_prints_its_verdict_and_the_distributions() -> None:
    circuit = fake_check.circuit("planted", [("L0H1", "")])

    findings = tuple(fake_check.findings(fake_check.planted.generalises, "planted", [("L0H1", "")]))
    names = [distribution.name for distribution in fake_check.DISTRIBUTIONS]
    judged, overlap = fake_check.judge(findings, names), {names[1]: 0.25}
    done = CheckResult(Path("r"), circuit, judged, fake_check.DISTRIBUTIONS, findings, overlap)
    table = done.table
    assert table["distribution"].to_list() == names
    assert table.columns == [
        *("distribution", "n", "of", "found on", "faithfulness", "necessity", "KL recovered", "random", "note")
    ]
    assert dict(table.select("distribution", "found on").rows())[names[1]] == "25%"
    assert table.filter(distribution="discovery")["necessity"].item() == "0.80 [0.70, 0.90]"
    assert table.filter(distribution="lower case")["note"].item() == "3 prompts; 20 are needed"
    assert str(done).startswith(f"planted: {done.word}\n{done.verdict.sentence}\n")
    assert all(name in str(done) for name in names) and "<table" in done._repr_html_()


@pytest.mark.parametrize("file", COMMANDS, ids=lambda file: file.stem)
def test_a_command_imports_no_model_library_of_its_own(file: Path) -> None:
    """Only the library knows how models are loaded; `models` trains and measures them."""
    imported = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    rooms = {name for name in imported if name.startswith(("profiler.model", "profiler.patching", "profiler.circuits"))}
    assert not rooms
    assert "torch" not in imported or file.stem == "models"
