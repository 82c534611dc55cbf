"""Cards in bulk: a chunk of components at a time, whose rows are taken out of the run together, by one process or
several, each with its own read-only connection and what its cards share asked once."""

import multiprocessing
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import ModuleType

from profiler.errors import SiteError
from profiler.pages import build, page
from profiler.pages.reader import Reader
from profiler.pages.shell import Link, Shell
from profiler.pages.site.extract import CHUNK, Extract

FILE_NAME = re.compile(r"\w{1,64}|L\d{1,6}\.\w{1,64}-D\w{1,20}", re.ASCII)
_state: list["_Maker"] = []  # of a worker process


def file_name(label: str) -> str:
    """The name of a card's file without its ending; no file system takes L2.mlp_out:D3 as it is."""
    return label.replace(":", "-")


def label_of(name: str) -> str:
    """The label whose card has this file name; no label holds a hyphen."""
    return name.replace("-", ":")


class _Maker:
    """What one process needs to make cards: what it has taken out of the run, a reader, the report."""

    def __init__(self, run: Path, folder: Path, links: tuple[Link, ...]) -> None:
        self.extract = Extract(run)
        self.read = Reader(self.extract.connection)
        self.module: ModuleType = build.load("component")
        self.folder, self.links = folder, links

    def make(self, labels: Sequence[str]) -> Iterator[int]:
        """Write the cards of components; their bytes."""
        self.extract.hold(labels)
        for label in labels:
            component = build.find(self.extract.connection, label)
            with page.unchecked():
                shell = Shell(root="../", links=self.links)
                text = page.render(self.module.build(self.read, component), shell).encode()
            (self.folder / f"{file_name(label)}.html").write_bytes(text)
            self.read.forget("component")
            yield len(text)


def _begin(run: Path, folder: Path, links: tuple[Link, ...]) -> None:
    _state.append(_Maker(run, folder, links))


def _make(labels: Sequence[str]) -> list[int]:
    return list(_state[0].make(labels))


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
    size = max(1, min(CHUNK, -(-len(labels) // max(1, workers))))
    chunks = [labels[start : start + size] for start in range(0, len(labels), size)]
    if workers <= 1 or len(chunks) <= 1:
        if labels:
            maker = _Maker(run, folder, links)
            for chunk in chunks:
                yield from zip(chunk, maker.make(chunk), strict=True)
            maker.extract.close()
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        min(workers, len(chunks)), mp_context=context, initializer=_begin, initargs=(run, folder, links)
    )
    try:
        for chunk, sizes in zip(chunks, pool.map(_make, chunks), strict=True):
            yield from zip(chunk, sizes, strict=True)
    finally:
        pool.shutdown(cancel_futures=True)
