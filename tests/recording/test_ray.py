"""What goes between the writer and the workers on Ray, without Ray: pieces add up, and what is missing is said."""

from collections import Counter
from itertools import product
from pathlib import Path

import chunked
import pytest
from same import differing_tables

from profiler.config import RunConfig
from profiler.database.pass_commits import RunPart
from profiler.errors import CorpusError, RunError
from profiler.recording.pipeline import Pass, record
from profiler.recording.ray import engine as engines
from profiler.recording.ray import resources
from profiler.recording.write import Rows
from profiler.text.documents import Passed

SUMS = 1e-12
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("small_chunks"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),  # Ray's own, of its own default
]
needs_ray = pytest.mark.skipif(
    engines.ray is None, reason="Ray is not installed: pip install 'generality-profiler[ray]'"
)


@pytest.fixture(scope="module")
def config(model_dirs, tmp_path_factory) -> RunConfig:
    corpus = chunked.write_corpus(tmp_path_factory.mktemp("ray") / "rows.jsonl", n_documents=40)
    return chunked.settings(model_dirs["gpt2"], corpus, context_length=24, windows_per_document=2)


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
        source = engines.ChunkSource(
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


@pytest.mark.slow
@pytest.mark.parametrize("kind", [HereInstead, Twice])
def test_pieces_add_up_to_the_pass(kind, config, model, whole, tmp_path):
    record(config, tmp_path / "run.duckdb", model=model, engine=kind(config, model), commit_seconds=0.0)
    assert differing_tables(whole, tmp_path / "run.duckdb", SUMS)[1] == []


@pytest.mark.slow
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
    piece = RunPart(run.totals.facts(), run.totals.arrays(), run.store.take_rows())
    again = RunPart.unpack(piece.pack())
    assert again.facts == piece.facts
    assert {n: a.tobytes() for n, a in again.state.items()} == {n: a.tobytes() for n, a in piece.state.items()}
    assert all(again.rows[table].equals(rows) for table, rows in piece.rows.items())


def test_ray_that_is_not_installed_is_said(monkeypatch):
    monkeypatch.setattr(engines, "ray", None)
    with pytest.raises(RunError, match=r"generality-profiler\[ray\]"):
        engines.engine(2)


class Cluster:
    """Stands for Ray where only its resources are asked for: those of each machine, what others use, and memory."""

    def __init__(self, *machines: dict[str, float], used: float = 0.0, memory: float = 1e12):
        self.machines = [{name: float(n) for name, n in machine.items()} for machine in machines]  # as Ray says it
        self.used, self.memory = used, memory

    def nodes(self) -> list[dict]:
        return [{"Alive": True, "Resources": m} for m in self.machines] + [{"Alive": False, "Resources": {"CPU": 99.0}}]

    def cluster_resources(self) -> dict[str, float]:
        total = Counter({"memory": self.memory})
        for machine in self.machines:
            total.update(machine)
        return dict(total)

    def available_resources(self) -> dict[str, float]:
        return {"CPU": self.cluster_resources().get("CPU", 0.0) - self.used}


@pytest.mark.parametrize(
    ("machines", "memory", "device", "workers", "said"),
    [
        ([{"CPU": 2}], 1e9, "cpu", 2, "need about 2.0 GB of memory .*, Ray has 1.0 GB"),
        ([{"CPU": 2}], 1e12, "cuda", 1, "needs a GPU, Ray has none"),
        ([{"CPU": 64, "GPU": 2}], 1e12, "cuda", 4, "need 4 GPUs, Ray has 2"),
        ([{"CPU": 8, "GPU": 1}, {"GPU": 3}], 1e12, "cuda", 4, "GPUs are on machines without CPUs"),
        ([{}], 1e12, "cpu", 1, "0 CPUs"),
    ],
)
def test_what_is_missing_is_said(machines, memory, device, workers, said, config, model):
    run = Pass(model, config, Rows())
    run.config = config.model_copy(update={"device": device})
    with pytest.raises(RunError, match=said):
        resources.shares(Cluster(*machines, memory=memory), run, workers)


def test_cpus_that_others_use_are_said(config, model, monkeypatch):
    monkeypatch.setattr(resources, "SECONDS_TO_FREE", 0.0)
    with pytest.raises(RunError, match=r"Ray has 0.5 of 2 CPUs free, others use the rest, and .* are needed"):
        resources.shares(Cluster({"CPU": 2}, used=1.5), Pass(model, config, Rows()), 2)


@pytest.mark.parametrize(
    ("cpus", "workers"),
    [((1,), 1), ((2,), 1), ((2,), 2), ((2,), 4), ((64,), 8), ((1, 1), 2), ((4, 1, 0), 5), ((3, 2), 7)],
)
def test_reader_and_workers_fit_together_wherever_they_are_put(cpus, workers, config, model):
    """Two workers of a whole CPU each on two CPUs would leave the reader none, and wait for ever; so would shares that
    fill two machines together, where none has room for the reader."""
    cluster = Cluster(*({"CPU": n} for n in cpus))
    shares = resources.shares(cluster, Pass(model, config, Rows()), workers)
    assert shares.worker_cpus > 0 < shares.reader_cpus != shares.worker_cpus
    for placed in product(*(range(int(n / shares.worker_cpus + 1e-9) + 1) for n in cpus)):
        if sum(placed) <= workers:  # any state that Ray can come to: the reader has room, and another worker beside it
            left = [n - k * shares.worker_cpus for n, k in zip(cpus, placed, strict=True)]
            assert max(left) >= shares.reader_cpus - 1e-9
            for at in [i for i, n in enumerate(left) if n >= shares.reader_cpus - 1e-9]:
                beside = [n - shares.reader_cpus * (i == at) for i, n in enumerate(left)]
                assert sum(placed) == workers or max(beside) >= shares.worker_cpus - 1e-9


@pytest.mark.parametrize(("machines", "workers"), [([{"CPU": 8, "GPU": 1}, {"CPU": 1, "GPU": 2}], 3)])
def test_workers_with_gpus_are_beside_them(machines, workers, config, model):
    run = Pass(model, config, Rows())
    run.config = config.model_copy(update={"device": "cuda"})
    shares = resources.shares(Cluster(*machines), run, workers)
    assert shares.worker_gpus == 1
    assert 2 * shares.worker_cpus + shares.reader_cpus <= 1


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


@needs_ray
def test_without_an_address_a_ray_of_its_own_is_started(monkeypatch):
    """Also where another one runs on this machine: by itself Ray would join that."""
    asked = {}
    monkeypatch.setattr(engines.ray, "init", lambda **options: asked.update(options))
    assert engines._connect(None)
    assert (asked["address"], asked["include_dashboard"]) == ("local", False)
    assert engines.os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
