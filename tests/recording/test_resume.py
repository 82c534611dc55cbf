"""Going on after a stop: the run is the one it would have been, and nothing else is gone on with."""

import json
import subprocess
import sys
from pathlib import Path

import chunked
import polars as pl
import pytest
import tiny
import torch
from same import differing_tables, same

from profiler.config import RunConfig
from profiler.database.pass_commits import MANIFEST, Partial, ReferredRows, RunPart, partial_path, read_manifest
from profiler.errors import CorpusError, RunError
from profiler.model.load import load_model
from profiler.recording import pipeline
from profiler.recording.accumulators import state
from profiler.recording.pipeline import Pace, record
from profiler.recording.totals import Totals

DOCUMENTS = 40
pytestmark = pytest.mark.usefixtures("small_chunks")


@pytest.fixture(scope="module")
def config(model_dirs, tmp_path_factory) -> RunConfig:
    """Five blocks of documents, more chunks, float32."""
    corpus = chunked.write_corpus(tmp_path_factory.mktemp("resume") / "rows.jsonl", n_documents=DOCUMENTS)
    return chunked.settings(model_dirs["gpt2"], corpus, tokens=3_000)


@pytest.fixture(scope="module")
def whole(config, model, tmp_path_factory) -> Path:
    """The run that was never stopped."""
    path = tmp_path_factory.mktemp("whole") / "run.duckdb"
    record(config, path, model=model)
    return path


class Stop(Exception):
    """Stands for anything that ends a pass."""


def stop_after(chunks: int):
    """A report that ends the pass after so many chunks; each was committed but the last."""
    calls = []

    def report(_: object) -> None:
        calls.append(1)
        if len(calls) == chunks:
            raise Stop

    return report


def stopped(config, model, path: Path, chunks: int, **options) -> Path:
    """A pass stopped after some chunks."""
    with pytest.raises(Stop):
        record(config, path, model=model, commit_seconds=0.0, report=stop_after(chunks), **options)
    return path


@pytest.mark.slow
def test_stopped_three_times_and_gone_on_with_equals_the_whole(config, model, whole, tmp_path):
    path = stopped(config, model, tmp_path / "run.duckdb", 3)
    stopped(config, model, path, 2, resume=True)
    stopped(config, model, path, 1, resume=True)
    assert read_manifest(partial_path(path)).number == 3
    record(config, path, model=model, resume=True)
    assert differing_tables(whole, path)[1] == []
    assert [p.name for p in tmp_path.iterdir()] == ["run.duckdb"]


def test_the_comparison_sees_a_difference(whole):
    frame = pl.DataFrame({"sum_dla": [1.0, 2.0], "sum_abs_dla": [1.0, 2.0], "n": [1, 2]})
    near = frame.with_columns(sum_dla=pl.col("sum_dla") + 1e-13, n=pl.col("n") + 1)
    assert not same(frame, near, "sum_dla", 0.0)
    assert same(frame, near, "sum_dla", 1e-12)
    assert not same(frame, near, "sum_dla", 1e-14)
    assert not same(frame, near, "n", 1.0)
    assert differing_tables(whole, whole)[1] == []


@pytest.mark.slow
def test_killed_again_and_again():
    """A few kills here; tests/kill.py takes any number."""
    script = [
        sys.executable,
        Path(__file__).parents[1] / "support" / "kill.py",
        "--kills",
        "6",
        "--least",
        "1",
        "--documents",
        "90",
        "--chunk",
        "8",
    ]
    done = subprocess.run(script, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] >= 1
    assert found["differing"] == []


@pytest.mark.slow
def test_recorded_components_and_every_position_survive(config, model, tmp_path):
    config = config.model_copy(update={"components": ("L1H1", "L0N3"), "tokens": 1_500})
    record(config, tmp_path / "whole.duckdb", model=model)
    path = stopped(config, model, tmp_path / "run.duckdb", 2)
    record(config, path, model=model, resume=True)
    assert differing_tables(tmp_path / "whole.duckdb", path)[1] == []


# --- what is refused
# ---------------------------------------------------------------------------------------------------


def test_another_pass_is_refused_and_the_difference_named(config, model, tmp_path):
    path = stopped(config, model, tmp_path / "run.duckdb", 3)
    before = (partial_path(path) / MANIFEST).read_bytes()
    for changes, said in (
        ({"seed": 1}, "seed 1 here, 0 there"),
        ({"tokens": None}, "tokens none here, 3000 there"),
        ({"corpora": ("other.jsonl",)}, "corpora other.jsonl here"),
        ({"batch_size": 3}, "batch_size 3 here, 16 there"),
    ):
        with pytest.raises(RunError, match=said):
            record(config.model_copy(update=changes), path, model=model, resume=True)
    assert (partial_path(path) / MANIFEST).read_bytes() == before


def test_other_weights_are_refused(config, model, model_dirs, tmp_path):
    path = stopped(config, model, tmp_path / "run.duckdb", 3)
    folder = tiny.save("gpt2", tmp_path / "other")
    network = tiny.network("gpt2")
    with torch.no_grad():
        network.transformer.h[0].mlp.c_fc.bias[0] += 1e-3
    network.save_pretrained(folder)
    other = load_model(config.model_copy(update={"model": str(folder)}))
    with pytest.raises(RunError, match=r"weights .* here, .* there"):
        record(config, path, model=other, resume=True)


def test_a_corpus_that_has_changed_is_refused(config, model, tmp_path):
    file = tiny.write_corpus(tmp_path / "rows.jsonl", n_documents=DOCUMENTS)
    config = config.model_copy(update={"corpora": (str(file),)})
    path = stopped(config, model, tmp_path / "run.duckdb", 3)
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines).replace("cat", "cow") + "\n")
    with pytest.raises(CorpusError, match=r"corpus has changed .*documents"):
        record(config, path, model=model, resume=True)
    file.write_text("\n".join(lines) + "\n")
    record(config, path, model=model, resume=True)


def test_a_stopped_pass_is_not_lost_by_accident(config, model, tmp_path):
    path = stopped(config, model, tmp_path / "run.duckdb", 3)
    with pytest.raises(RunError, match=r"was stopped; the last commit .*--resume"):
        record(config, path, model=model)
    with pytest.raises(Stop):
        record(config, path, model=model, overwrite=True, report=stop_after(1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_that_appeared_in_between_is_kept(config, model, whole, tmp_path):
    path = stopped(config, model, tmp_path / "run.duckdb", 3)
    path.write_bytes(whole.read_bytes())
    record(config, path, model=model, resume=True)  # the same run
    other = config.model_copy(update={"seed": 4, "tokens": 1_200})
    path = stopped(other, model, tmp_path / "other.duckdb", 2)
    path.write_bytes(whole.read_bytes())
    with pytest.raises(RunError, match="seed 4 here, 0 there"):
        record(other, path, model=model, resume=True)
    assert path.read_bytes() == whole.read_bytes()


def test_a_finished_run_is_given_back_without_its_corpus(config, tmp_path):
    corpus = chunked.write_corpus(tmp_path / "rows.jsonl", n_documents=6)
    config = config.model_copy(update={"corpora": (str(corpus),), "dense_positions": 5})
    record(config, tmp_path / "run.duckdb")
    corpus.unlink()
    assert record(config, tmp_path / "run.duckdb", resume=True).before
    with pytest.raises(CorpusError):
        record(config, tmp_path / "other.duckdb", resume=True)


# --- a commit
# ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["state", "rows", "manifest", "missing", "short"])
def test_a_damaged_commit_is_one_sentence(damage, config, model, tmp_path):
    path = stopped(config, model, tmp_path / "run.duckdb", 3)
    folder = partial_path(path)
    manifest = read_manifest(folder)
    rows = next(name for name in manifest.checks if name.startswith("positions"))
    file = folder / {"state": manifest.state, "manifest": MANIFEST, "short": manifest.state}.get(damage, rows)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 8
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(data[: -1 if damage == "short" else None])
    with pytest.raises(RunError, match=r"cannot be read.*--overwrite") as caught:
        record(config, path, model=model, resume=True)
    assert "\n" not in str(caught.value)


def piece(n: int, ids: list[int]) -> RunPart:
    return RunPart(
        {"n": n}, {"x": torch.full((3,), float(n)).numpy()}, {"positions": pl.DataFrame({"position_id": ids})}
    )


@pytest.fixture
def partial(tmp_path):
    """A folder with one commit."""
    made = Partial(tmp_path / "run.duckdb")
    made.commit({}, piece(1, [1, 2, 3]), {})
    yield made
    made.close()


@pytest.mark.parametrize("broken", ["_write", "arrays.write", "replace"])
def test_a_commit_that_fails_leaves_the_last_one(broken, partial, monkeypatch):
    """An error at each place where a commit writes."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    target = {
        "_write": "profiler.database.pass_commits._write",
        "arrays.write": "profiler.database.arrays.write",
        "replace": "pathlib.Path.replace",
    }
    with monkeypatch.context() as patched, pytest.raises(OSError):
        patched.setattr(target[broken], full)
        partial.commit({}, piece(2, [4]), {})
    assert {f.name for f in partial.folder.iterdir()} == {*partial.manifest.checks, MANIFEST, "lock"}
    assert (partial.state()["x"] == 1).all()
    partial.commit({}, piece(3, [5]), {})
    assert (partial.state()["x"] == 3).all()
    assert held(partial) == [1, 2, 3, 5]


def held(partial: Partial) -> list[int]:
    """Ids of the rows committed."""
    return sorted(i for f in partial.parquet("positions") for i in pl.read_parquet(f)["position_id"])


def test_files_are_joined_and_rows_that_nothing_refers_to_go(partial):
    for n in range(2, 40):
        kept = ReferredRows("position_id", torch.arange(10 * n - 15, 10 * n).numpy())
        partial.commit({}, piece(n, list(range(10 * n - 10, 10 * n))), {"positions": kept})
    assert len(partial.parquet("positions")) <= 8
    assert set(range(375, 390)) <= set(held(partial))
    assert len(held(partial)) < 150


def test_state_goes_through_arrow_to_the_bit(config, model, tmp_path):
    path = stopped(config, model, tmp_path / "run.duckdb", 3)
    with pytest.raises(KeyError):
        state.restore(Totals(model.spec, config).recorder.accumulators(), {})
    partial = Partial(path)
    totals, arrays = Totals(model.spec, config), partial.state()
    totals.restore(partial.manifest.facts, arrays)
    again = totals.arrays()
    partial.close()
    assert again.keys() == arrays.keys()
    assert len(arrays) > 20
    for name, array in arrays.items():
        assert array.tobytes() == again[name].tobytes(), name
    assert totals.facts()["closure"] == partial.manifest.facts["closure"]


def test_commits_are_spaced_by_what_they_cost(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(pipeline.time, "perf_counter", lambda: now[0])
    pace = Pace(10.0)
    now[0] = 9.0
    assert not pace.due()
    now[0] = 10.0
    assert pace.due()
    pace.time(lambda: now.__setitem__(0, now[0] + 3.0))
    now[0] += 99.0
    assert not pace.due()
    now[0] += 2.0
    assert pace.due()
