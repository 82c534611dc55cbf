"""What goes between the writer and the workers on Ray, without Ray: pieces add up, and what is missing is said."""

from collections import Counter
from pathlib import Path

import pytest
import tiny
from same import differing_tables

from profiler import reading, windows
from profiler.config import RunConfig
from profiler.engines import ray as engines
from profiler.errors import CorpusError, RunError
from profiler.model import load_model
from profiler.partial import Piece
from profiler.pipeline import Pass, record
from profiler.reading import Passed
from profiler.store import Rows

SUMS = 1e-12
needs_ray = pytest.mark.skipif(
    engines.ray is None, reason="Ray is not installed: pip install 'generality-profiler[ray]'"
)


@pytest.fixture(scope="module", autouse=True)
def small_chunks():
    """Chunks of 8 windows in blocks of 8 documents; workers get chunks ready made."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reading, "BLOCK_DOCUMENTS", 8)
        patched.setattr(windows, "CHUNK_WINDOWS", 8)
        yield


@pytest.fixture(scope="module")
def config(model_dirs, tmp_path_factory) -> RunConfig:
    corpus = tiny.write_corpus(tmp_path_factory.mktemp("ray") / "rows.jsonl", n_documents=40)
    return RunConfig(
        model=str(model_dirs["gpt2"]), corpora=(str(corpus),), tokens=None, domain_field="topic", dense_positions=40,
        samples_per_stratum=2, extremes=3, replicate_groups=4, context_length=24, windows_per_document=2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(config):
    return load_model(config)


@pytest.fixture(scope="module")
def whole(config, model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "run.duckdb"
    record(config, path, model=model)
    return path


class HereInstead:
    """The reader and the worker without Ray between them: groups in, pieces out, as they would be sent."""

    def __init__(self, config, model, group: int = 2):
        self.worker = engines.Worker.__new__(engines.Worker)
        self.worker.run = Pass(model, config, Rows())
        self.config, self.model, self.group = config, model, group

    def sent(self, run: Pass) -> list[object]:
        source = engines.Source(
            self.config, self.model.tokenizer, run.layout, run.totals.cursor, self.group, str(Path.cwd())
        )
        return [content for table in source.groups() for content in engines._contents(self.worker(table))]

    def __call__(self, run: Pass):
        yield from engines._in_order(run, iter(self.disturbed(self.sent(run))))

    def disturbed(self, sent: list[object]) -> list[object]:
        return sent


class Twice(HereInstead):
    """Every piece comes twice, as it would from a worker that died after it had sent one."""

    def disturbed(self, sent):
        return [piece for content in sent for piece in [content] * (1 + isinstance(content, engines.Read))]


class OneLost(HereInstead):
    def disturbed(self, sent):
        return sent[:1] + sent[2:]


class CutOff(HereInstead):
    def disturbed(self, sent):
        return sent[:-1]


@pytest.mark.parametrize("kind", [HereInstead, Twice])
def test_pieces_add_up_to_the_pass(kind, config, model, whole, tmp_path):
    record(config, tmp_path / "run.duckdb", model=model, engine=kind(config, model), commit_seconds=0.0)
    assert differing_tables(whole, tmp_path / "run.duckdb", SUMS)[1] == []


@pytest.mark.parametrize("kind", [OneLost, CutOff])
def test_a_piece_that_is_missing_is_noticed(kind, config, model, whole, tmp_path):
    with pytest.raises(RunError, match="--resume"):
        record(config, tmp_path / "run.duckdb", model=model, engine=kind(config, model), commit_seconds=0.0)
    record(config, tmp_path / "run.duckdb", model=model, engine=HereInstead(config, model), resume=True)
    assert differing_tables(whole, tmp_path / "run.duckdb", SUMS)[1] == []


def test_a_mistake_in_the_corpus_reaches_the_user(config, model, tmp_path):
    config = config.model_copy(update={"text_field": "body"})
    sent = HereInstead(config, model).sent(Pass(model, config, Rows()))
    assert [type(content) for content in sent] == [CorpusError]


def test_a_piece_is_the_same_after_it_was_sent(config, model):
    run = Pass(model, config, Rows())
    run.read(next(run.chunks()))
    piece = Piece(run.totals.facts(), run.totals.arrays(), run.store.take_rows())
    again = Piece.unpack(piece.pack())
    assert again.facts == piece.facts
    assert {n: a.tobytes() for n, a in again.state.items()} == {n: a.tobytes() for n, a in piece.state.items()}
    assert all(again.rows[table].equals(rows) for table, rows in piece.rows.items())


def test_ray_that_is_not_installed_is_said(monkeypatch):
    monkeypatch.setattr(engines, "ray", None)
    with pytest.raises(RunError, match=r"generality-profiler\[ray\]"):
        engines.engine(2)


class Cluster:
    """Stands for Ray where only its resources are asked for."""

    def __init__(self, **resources: float):
        self.resources = resources

    def cluster_resources(self) -> dict[str, float]:
        return self.resources


@pytest.mark.parametrize(
    ("there", "device", "workers", "said"),
    [
        ({"CPU": 2, "memory": 1e9}, "cpu", 2, "need about 2.0 GB of memory .*, Ray has 1.0 GB"),
        ({"CPU": 2, "memory": 1e12}, "cuda", 1, "needs a GPU, Ray has none"),
        ({"CPU": 64, "GPU": 2, "memory": 1e12}, "cuda", 4, "need 4 GPUs, Ray has 2"),
        ({"memory": 1e12}, "cpu", 1, "0 CPUs"),
    ],
)
def test_what_is_missing_is_said(there, device, workers, said, config, model, monkeypatch):
    run = Pass(model, config, Rows())
    run.config = config.model_copy(update={"device": device})
    monkeypatch.setattr(engines, "ray", Cluster(**there))
    with pytest.raises(RunError, match=said):
        engines._shares(run, workers)


@pytest.mark.parametrize(("cpus", "workers"), [(1, 1), (2, 1), (2, 2), (2, 4), (64, 8)])
def test_reader_and_workers_fit_together(cpus, workers, config, model, monkeypatch):
    """Two workers of a whole CPU each on two CPUs would leave the reader none, and wait for ever."""
    monkeypatch.setattr(engines, "ray", Cluster(CPU=cpus, memory=1e12))
    shares = engines._shares(Pass(model, config, Rows()), workers)
    assert shares.worker_cpus > 0 < shares.reader_cpus != shares.worker_cpus
    assert workers * shares.worker_cpus + shares.reader_cpus <= cpus


def test_the_end_says_what_came_after_the_last_document(config, model):
    run = Pass(model, config, Rows())
    end = engines.End(-1, Counter(no_text=3), Passed(7, "x"), ("a", "b"))
    assert list(engines._in_order(run, iter([end]))) == []
    assert run.totals.dropped["no_text"] == 3
    assert (run.totals.cursor.done, run.totals.cursor.passed.n, run.totals.domains.names) == (True, 7, ["a", "b"])


@needs_ray
@pytest.mark.parametrize(
    ("address", "said"),
    [("127.0.0.1:1", "cannot be joined at"), ("here", "HOST:PORT"), ("h:99999999", "cannot be joined")],
)
def test_a_cluster_that_is_not_there_is_said(address, said):
    with pytest.raises(RunError, match=said):
        engines._connect(address)
