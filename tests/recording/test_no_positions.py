"""A corpus without a position to predict ends in one sentence and leaves nothing, however it is read."""

import json
from pathlib import Path

import pytest
from tiny import names

from profiler.config import ModelSettings, RunConfig
from profiler.database.pass_commits import partial_path
from profiler.database.query import run as run_query
from profiler.errors import CorpusError
from profiler.model.load import load_model
from profiler.recording.merge.merge import merge
from profiler.recording.pipeline import record
from profiler.text import documents


def written(folder: Path, texts: list[str]) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("\n".join(json.dumps({"text": text}) for text in texts) + "\n")
    return file


@pytest.fixture(scope="module")
def model(model_dirs):
    return load_model(ModelSettings(model=str(model_dirs["gpt2"])))


def settings(model_dirs, corpus: Path, **changes) -> RunConfig:
    given = {"tokens": None, "dense_positions": 10, "shuffle_buffer": 1} | changes
    return RunConfig(model=str(model_dirs["gpt2"]), corpora=(str(corpus),), **given)


@pytest.mark.slow
@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("texts", [["a"], ["a", "b", "c"] * 200, ["abc def"], ["<|endoftext|><|endoftext|>"]])
def test_it_holds_no_position(bos, texts, model_dirs, tmp_path):
    """One-token documents, and one token of a document; a BOS before them has one to predict, but is special itself."""
    tokens = 1 if texts == ["abc def"] else None
    config = settings(model_dirs, written(tmp_path, texts), tokens=tokens, prepend_bos=bos)
    for seconds in (15.0, 0.0):
        with pytest.raises(CorpusError, match=r"holds no position: .*documents read") as caught:
            record(config, tmp_path / "run.duckdb", commit_seconds=seconds)
        assert "\n" not in str(caught.value)
        assert names(tmp_path) == ["rows.jsonl"]


def test_a_stopped_pass_that_had_come_to_its_end_ends_so_too(model_dirs, model, tmp_path):
    """As a version left it that committed first."""
    config = settings(model_dirs, written(tmp_path, ["a", "b"]))

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "run.duckdb"
    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patched:
        patched.setattr("profiler.recording.pipeline.Pass.write", lambda self: (self.commit(), stop(self)))
        record(config, path, model=model)
    assert partial_path(path).exists()
    with pytest.raises(CorpusError, match="holds no position"):
        record(config, path, model=model, resume=True)
    assert names(tmp_path) == ["rows.jsonl"]


@pytest.mark.slow
def test_a_shard_without_positions_is_named_and_the_others_are_a_run(model_dirs, model, tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "BLOCK_DOCUMENTS", 2)
    config = settings(model_dirs, written(tmp_path, ["abc def", "ghi", "a", "b", "jkl mno", "pqr"]))
    for shard in ("1/3", "3/3"):
        record(config.model_copy(update={"shard": shard}), tmp_path / f"{shard[0]}.duckdb", model=model)
    with pytest.raises(CorpusError, match="holds no position in shard 2/3"):
        record(config.model_copy(update={"shard": "2/3"}), tmp_path / "2.duckdb", model=model)
    merge([tmp_path / "1.duckdb", tmp_path / "3.duckdb"], tmp_path / "merged.duckdb", incomplete=True)
    assert run_query(tmp_path / "merged.duckdb", "SELECT n_positions FROM runs").item() > 0
