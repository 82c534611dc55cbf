"""Chunks read on Ray: one reader streams the corpus, workers hold the model, the process that writes adds up and
commits.

    reader -> groups of chunks -> workers (forward, attribution, accumulators) -> pieces, in order -> driver (merge,
    commit)

Ray Data runs it: blocks stream with back-pressure, and a group whose worker dies is read again by another. Pieces come
in the corpus's order and say which chunk they follow, so what arrives twice is left out and what is missing is noticed:
the result is that of one process. Before anything starts, the resources are compared with what is needed, and shares of
CPUs are chosen so that reader and workers fit together on the machines there are; nothing waits for what will never
come.

Cost: a piece is the accumulators of its group, compressed (see the README for bytes); merging takes the driver a
  fraction of
a second per piece. Groups are larger the more it costs to send them.
"""

import logging
import os
import pickle
import queue
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from profiler.config import RunConfig
from profiler.database.pass_commits import RunPart
from profiler.errors import ProfilerError, RunError
from profiler.recording.pipeline import Engine, Pass, corpus_chunks
from profiler.recording.ray import resources
from profiler.recording.ray.resources import ResourceShares
from profiler.text.documents import Cursor, Domains, Passed, Reading
from profiler.text.windows import Chunk, Layout

os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # or Ray starts by itself again when a pass has failed
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a pass reports to nobody
try:
    import ray
    import ray.data
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask
except ImportError:
    ray: Any = None  # type: ignore[no-redef]
    Datasource: Any = object  # type: ignore[no-redef]

CHUNKS_PER_GROUP = 4
PATIENCE_SECONDS = 1800.0


@dataclass(frozen=True)
class ChunkSource:
    """All that a reader needs: settings, tokenizer, layout, where the pass stands, and how many chunks make a group."""

    config: RunConfig
    tokenizer: Any
    layout: Layout
    cursor: Cursor
    group: int
    folder: str

    def groups(self) -> Iterator[pa.Table]:
        """Groups of chunks as tables of one pickled row; the last says how the corpus ended."""
        os.chdir(self.folder)
        domains, reading, after = (
            Domains(self.config.replicate_groups),
            Reading(expected=self.cursor.passed),
            self.cursor,
        )
        stream = corpus_chunks(self.config, self.tokenizer, self.layout, domains, reading, self.cursor)
        try:
            while group := tuple(islice(stream, self.group)):
                yield _row(Group(after.chunk, group, tuple(domains.names)))
                after = group[-1].cursor
        except ProfilerError as error:
            yield _row(error)
            return
        yield _row(End(after.chunk, reading.dropped, reading.passed, tuple(domains.names)))


@dataclass(frozen=True)
class Group:
    """Chunks that follow chunk number `after`, and the names of the domains known by then."""

    after: int
    chunks: tuple[Chunk, ...]
    domains: tuple[str, ...]


@dataclass(frozen=True)
class End:
    """The corpus has ended after chunk number `after`; see Totals.end."""

    after: int
    dropped: Counter[str]
    passed: Passed
    domains: tuple[str, ...]


@dataclass(frozen=True)
class Read:
    """A group that has been read: the chunk it follows, its last chunk, and its piece, packed."""

    after: int
    last: int
    packed: dict[str, bytes]


def _row(content: object) -> pa.Table:
    return pa.table({"content": pa.array([pickle.dumps(content)], pa.large_binary())})


def _contents(table: pa.Table) -> Iterator[Any]:
    return (pickle.loads(cell.as_py()) for cell in table["content"])


class Worker:
    """An actor that holds the model and turns groups of chunks into pieces."""

    def __init__(self, config: RunConfig, folder: str, threads: int):
        from profiler.model.load import load_model
        from profiler.recording.write import Rows

        os.chdir(folder)
        torch.set_num_threads(threads)
        self.run = Pass(load_model(config), config, Rows())

    def __call__(self, table: pa.Table) -> pa.Table:
        """One piece for each group; the end, and errors, pass through."""
        return pa.concat_tables([_row(self._read(content)) for content in _contents(table)])

    def _read(self, content: object) -> object:
        if not isinstance(content, Group):
            return content
        from profiler.recording.totals import Totals

        run = self.run
        run.totals = Totals(run.model.spec, run.config)
        run.totals.domains.names = list(content.domains)
        try:
            for chunk in content.chunks:
                run.read(chunk)
        except ProfilerError as error:
            return error
        referred = run.totals.referred()
        rows = {t: referred[t].of(frame) if t in referred else frame for t, frame in run.store.take_rows().items()}
        piece = RunPart(run.totals.facts(), run.totals.arrays(), rows)
        return Read(content.after, content.chunks[-1].number, piece.pack())


def _reading_tasks() -> type:
    """The data source, a class of Ray's; made when it is needed, so that this module can be imported without Ray."""

    class Chunks(Datasource):
        """One read task: the corpus is one stream."""

        def __init__(self, source: ChunkSource):
            self.source = source

        def estimate_inmemory_data_size(self) -> None:
            """Not known."""

        def get_read_tasks(self, *_: Any, **__: Any) -> list[Any]:
            """The stream of groups."""
            nothing_known = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
            return [ReadTask(self.source.groups, nothing_known)]

    return Chunks


def engine(
    workers: int, address: str | None = None, group: int = CHUNKS_PER_GROUP, patience: float = PATIENCE_SECONDS
) -> Engine:
    """An engine of so many workers, on a Ray of its own or on the cluster at `address`.

    Args:
        group: chunks a worker reads before it sends what it has added up.
        patience: seconds without any piece after which the pass stops and says what Ray has.

    Raises:
        RunError: Ray is not installed or cannot be reached.
    """
    if ray is None:
        raise RunError("--engine ray needs Ray: pip install 'generality-profiler[ray]'")

    def pieces(run: Pass) -> Iterator[RunPart]:
        started = _connect(address)
        try:
            shares = resources.shares(ray, run, workers)
            yield from _in_order(run, _stream(run, workers, group, shares, patience))
        finally:
            if started:
                ray.shutdown()

    return pieces


def _connect(address: str | None) -> bool:
    """Join or start Ray; whether it is ours to end.

    Raises:
        RunError: there is no cluster at that address, or none can be started.
    """
    if ray.is_initialized():
        return False
    if address:
        _reach(address)
    try:
        # "local": or Ray joins any cluster that it finds on this machine, which would count as ours to end
        options: dict[str, Any] = {"address": address} if address else {"address": "local", "include_dashboard": False}
        ray.init(log_to_driver=False, logging_level=logging.ERROR, configure_logging=False, **options)
    except Exception as error:
        where = f"joined at {address}" if address else "started here"
        raise RunError(f"Ray cannot be {where}: {str(error).splitlines()[0]}") from None
    ray.data.DataContext.get_current().enable_progress_bars = False
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return True


def _reach(address: str) -> None:
    """Whether anything listens there: Ray itself would end the process.

    Raises:
        RunError: nothing does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        raise RunError(f"--address {address!r} is none: write it as HOST:PORT, as `ray start --head` prints it")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise RunError(f"Ray cannot be joined at {address}: {error}; start it with `ray start --head`") from None


def _stream(run: Pass, workers: int, group: int, shares: ResourceShares, patience: float) -> Iterator[Read | End]:
    """What workers send, in the corpus's order; waits no longer than `patience` seconds for the next.

    Raises:
        RunError: nothing came for too long, or Ray failed.
    """
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.target_max_block_size = (
        1  # a block is one group: Ray would join small ones, and give them all to one worker
    )
    source = ChunkSource(run.config, run.model.tokenizer, run.layout, run.totals.cursor, group, str(Path.cwd()))
    data = ray.data.read_datasource(_reading_tasks()(source), num_cpus=shares.reader_cpus, override_num_blocks=1)
    data = data.map_batches(
        Worker,
        fn_constructor_args=(run.config, source.folder, shares.threads),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=shares.worker_cpus,
        num_gpus=shares.worker_gpus or None,
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
    )
    free: Callable[[], object] = ray.available_resources
    whole: Callable[[], object] = ray.cluster_resources
    arrived: queue.Queue[Any] = queue.Queue(maxsize=2)
    threading.Thread(target=_collect, args=(data, arrived), daemon=True).start()
    while True:
        try:
            content = arrived.get(timeout=patience)
        except queue.Empty:
            raise RunError(
                f"no worker has sent anything for {patience:,.0f} s; Ray has {free()} free of {whole()}: see"
                " `ray status`"
            ) from None
        if content is None:
            return
        if isinstance(content, ProfilerError):
            raise content
        if isinstance(content, Exception):
            raise RunError(f"Ray stopped: {str(content).strip().splitlines()[-1][:300]}") from content
        yield content


def _collect(data: Any, arrived: "queue.Queue[Any]") -> None:
    """Pass on what arrives, then None; an error as it is."""
    try:
        for table in data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
            for content in _contents(table):
                arrived.put(content)
        arrived.put(None)
    except Exception as error:
        arrived.put(error)


def _in_order(run: Pass, stream: Iterator[Read | End]) -> Iterator[RunPart]:
    """Pieces, each after the chunk it follows; what was counted already is left out.

    Raises:
        RunError: a group is missing.
    """
    last = run.totals.cursor.chunk
    for content in stream:
        if isinstance(content, Read) and content.last <= last:
            continue
        if content.after != last:
            raise RunError(f"chunks after {last} did not arrive: give the same command with --resume")
        if isinstance(content, End):
            run.totals.domains.names = list(content.domains)
            run.totals.end(content.dropped, content.passed)
            return
        last = content.last
        yield RunPart.unpack(content.packed)
    raise RunError("the stream of chunks ended before the corpus: give the same command with --resume")
