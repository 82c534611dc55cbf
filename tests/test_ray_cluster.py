"""Ray itself: the same run as one process makes, also when a worker is killed on the way."""

import signal

import pytest
import tiny
from same import differing_tables

from profiler.config import RunConfig
from profiler.engines import ray as engines
from profiler.model import load_model
from profiler.pipeline import record

pytestmark = [
    pytest.mark.skipif(engines.ray is None, reason="Ray is not installed: pip install 'generality-profiler[ray]'"),
    pytest.mark.filterwarnings("ignore"),
]
SUMS = 1e-12


@pytest.fixture(scope="module")
def config(model_dirs, tmp_path_factory) -> RunConfig:
    """Six blocks of documents, a chunk each."""
    corpus = tiny.write_corpus(tmp_path_factory.mktemp("ray") / "rows.jsonl", n_documents=1500)
    return RunConfig(
        model=str(model_dirs["gpt2"]), corpora=(str(corpus),), tokens=None, domain_field="topic", dense_positions=40,
        samples_per_stratum=2, extremes=3, replicate_groups=4, context_length=8, windows_per_document=1,
    )  # fmt: skip


def test_two_workers_one_of_them_killed(config, tmp_path, monkeypatch):
    """The worker is killed once the first piece has come; nothing is lost and nothing counted twice."""
    monkeypatch.setenv("RAY_worker_niceness", "0")  # Ray gives way to everything else, and a busy machine would wait
    model, killed = load_model(config), []

    def report(progress) -> None:
        if not killed and progress.stage == "recording":
            killed.append(kill_a_worker())

    record(config, tmp_path / "whole.duckdb", model=model)
    record(config, tmp_path / "run.duckdb", model=model, engine=engines.engine(2, group=1), report=report)
    assert killed[0] is not None
    assert not engines.ray.is_initialized()
    assert differing_tables(tmp_path / "whole.duckdb", tmp_path / "run.duckdb", SUMS)[1] == []


def kill_a_worker() -> int | None:
    """`kill -9` for one process that holds a model."""
    import psutil

    for process in psutil.Process().children(recursive=True):
        if "MapWorker" in " ".join(process.cmdline()):
            process.send_signal(signal.SIGKILL)
            return process.pid
    return None
