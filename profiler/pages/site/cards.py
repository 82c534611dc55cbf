"""Cards in bulk: one process or several, each with its own read-only connection and what its cards share asked once."""

import multiprocessing
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import ModuleType

from profiler.database import query
from profiler.errors import SiteError
from profiler.pages import build, page
from profiler.pages.reader import Reader
from profiler.pages.shell import Link, Shell

FILE_NAME = re.compile(r"\w{1,64}|L\d{1,6}\.\w{1,64}-D\w{1,20}", re.ASCII)
_state: list["_Maker"] = []  # of a worker process


def file_name(label: str) -> str:
    """The name of a card's file without its ending; no file system takes L2.mlp_out:D3 as it is."""
    return label.replace(":", "-")


def label_of(name: str) -> str:
    """The label whose card has this file name; no label holds a hyphen."""
    return name.replace("-", ":")


class _Maker:
    """What one process needs to make cards: a connection, a reader, the report."""

    def __init__(self, run: Path, folder: Path, links: tuple[Link, ...]) -> None:
        self.connection = query.open_run(run)
        self.read = Reader(self.connection)
        self.module: ModuleType = build.load("component")
        self.folder, self.links = folder, links

    def make(self, label: str) -> int:
        """Write the card of a component; its bytes."""
        component = build.find(self.connection, label)
        with page.unchecked():
            text = page.render(self.module.build(self.read, component), Shell(root="../", links=self.links)).encode()
        (self.folder / f"{file_name(label)}.html").write_bytes(text)
        self.read.forget("component")
        return len(text)


def _begin(run: Path, folder: Path, links: tuple[Link, ...]) -> None:
    _state.append(_Maker(run, folder, links))


def _make(label: str) -> int:
    return _state[0].make(label)


def make(
    run: Path, folder: Path, labels: Sequence[str], links: tuple[Link, ...], workers: int
) -> Iterator[tuple[str, int]]:
    """Write cards/LABEL.html of each component; yields (label, bytes) as they are done, in order.

    Processes are started afresh, not forked: a forked DuckDB would share locks with its parent.

    Raises:
        SiteError: a label of the run would lead out of the folder.
    """
    if strange := next((label for label in labels if not FILE_NAME.fullmatch(file_name(label))), None):
        raise SiteError(f"{run} has a component {strange!r}, which is neither a label nor a file name: no site is made")
    if workers <= 1 or len(labels) <= 1:
        if labels:
            maker = _Maker(run, folder, links)
            yield from ((label, maker.make(label)) for label in labels)
            maker.connection.close()
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        min(workers, len(labels)), mp_context=context, initializer=_begin, initargs=(run, folder, links)
    )
    try:
        yield from zip(labels, pool.map(_make, labels, chunksize=4), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)
