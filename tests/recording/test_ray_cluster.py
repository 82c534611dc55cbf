"""Ray itself: the same run as one process makes, also when a worker is killed on the way, and on several machines."""

import _socket
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import chunked
import pytest
from same import differing_tables
from test_ray import HereInstead

from profiler.config import RunConfig
from profiler.errors import RunError
from profiler.recording.pipeline import record
from profiler.recording.ray import engine as engines

pytestmark = [
    pytest.mark.skipif(engines.ray is None, reason="Ray is not installed: pip install 'generality-profiler[ray]'"),
    pytest.mark.slow,
    # of Ray's own defaults, which it sets itself
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]
SUMS = 1e-12
PATIENCE_SECONDS = 120.0


@pytest.fixture(scope="module")
def config(model_dirs, tmp_path_factory) -> RunConfig:
    """Six blocks of documents, a chunk each."""
    corpus = chunked.write_corpus(tmp_path_factory.mktemp("ray") / "rows.jsonl", n_documents=1500)
    return chunked.settings(model_dirs["gpt2"], corpus, context_length=8, windows_per_document=1)


@pytest.fixture(scope="module")
def whole(config, model, tmp_path_factory) -> Path:
    """The run of one process, without Ray."""
    path = tmp_path_factory.mktemp("whole") / "run.duckdb"
    record(config, path, model=model)
    return path


@pytest.fixture(scope="module", autouse=True)
def ray_by_itself() -> Iterator[None]:
    """Ray in a folder of its own, which goes at the end: it meets no other Ray of this machine and leaves nothing
    behind.

    Its workers give way to nobody, or a busy machine would wait; and none is killed because others have filled the
    memory.
    """
    folder = tempfile.mkdtemp(prefix="ray")  # not pytest's: sockets in it may have paths of 107 characters at most
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_TMPDIR", folder)
        patched.setenv("RAY_worker_niceness", "0")
        patched.setenv("RAY_memory_monitor_refresh_ms", "0")
        yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(monkeypatch):
    """A cluster whose first machine has no CPUs to give, as the one that schedules often has none."""
    from ray.cluster_utils import Cluster

    monkeypatch.setattr(socket.socket, "connect", _socket.socket.connect)  # Ray calls this machine by its own address
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield made
    engines.ray.shutdown()
    made.shutdown()


def test_two_workers_one_of_them_killed(config, model, whole, tmp_path):
    """The worker is killed once the first piece has come; nothing is lost and nothing counted twice."""
    killed = []

    def report(progress) -> None:
        if not killed and progress.stage == "recording":
            killed.append(kill_a_worker())

    engine = engines.engine(2, group=1, patience=PATIENCE_SECONDS)
    record(config, tmp_path / "run.duckdb", model=model, engine=engine, report=report)
    assert killed[0] is not None
    assert not engines.ray.is_initialized()
    assert differing_tables(whole, tmp_path / "run.duckdb", SUMS)[1] == []


def test_a_cluster_of_several_machines(config, model, whole, cluster, tmp_path):
    """Joined by its address; without CPUs it is refused, and on two machines of one CPU each there is a worker on both.
    The run is to the bit the one that the same pieces give without Ray."""
    engine, machines = engines.engine(2, cluster.address, group=1, patience=PATIENCE_SECONDS), set()

    def report(progress) -> None:
        actors = engines.ray._private.state.actors().values() if engines.ray.is_initialized() else ()
        machines.update(a["Address"]["NodeID"] for a in actors if a["ActorClassName"].startswith("MapWorker"))

    with pytest.raises(RunError, match="--workers 2 with 0 CPUs on Ray"):
        record(config, tmp_path / "run.duckdb", model=model, engine=engine)
    assert list(tmp_path.iterdir()) == []
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    record(config, tmp_path / "run.duckdb", model=model, engine=engine, report=report)
    assert len(machines) == 2
    assert not engines.ray.is_initialized()
    assert differing_tables(whole, tmp_path / "run.duckdb", SUMS)[1] == []
    record(config, tmp_path / "here.duckdb", model=model, engine=HereInstead(config, model, group=1))
    assert differing_tables(tmp_path / "here.duckdb", tmp_path / "run.duckdb")[1] == []


def kill_a_worker() -> int | None:
    """`kill -9` for one process that holds a model."""
    import psutil

    for process in psutil.Process().children(recursive=True):
        if "MapWorker" in " ".join(process.cmdline()):
            process.send_signal(signal.SIGKILL)
            return process.pid
    return None
