"""Build a site beside its folder and move it there whole: what is there stays until the new site is finished.

It is made in `<out>.partial`; what a process that was killed leaves of that is used up by the next.

Order: refuse a folder that is not ours; choose the components; keep the cards that still hold; make the rest; write
the pages, the assets and site.json; swap. Where the run changed (its id, size or time) or the code, every card is made
anew.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from profiler.database import assets, query
from profiler.errors import SiteError
from profiler.folders.own_folder import OwnFolder
from profiler.pages.reader import Reader
from profiler.pages.shell import Shell
from profiler.pages.site import cards, pages

MARK = "site.json"
MADE_BY = "generality profiler site"
FORMAT = 1
CODE = (".py", ".js", ".css", ".jinja")
"""Ends of the names of files that make a page."""


@dataclass(frozen=True)
class Progress:
    """How far the cards are: done of total, and bytes written."""

    done: int
    total: int
    bytes: int


@dataclass(frozen=True)
class SiteSummary:
    """What was written: cards made and reused, bytes of both together, bytes of everything, the reports linked."""

    out: Path
    made: int
    reused: int
    card_bytes: int
    bytes: int
    reports: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """site.json: enough to know our own folder and whether its cards still hold."""

    key: str
    run_id: str
    model: str
    made_by: str = MADE_BY
    format: int = FORMAT


def build(
    run: str | Path,
    out: str | Path,
    most: int | None = 100,
    components: Sequence[str] = (),
    workers: int = 1,
    progress: Callable[[Progress], None] = lambda _now: None,
) -> SiteSummary:
    """Write the site of a finished run.

    Args:
        run: the run file.
        out: the folder; a site that is there is replaced, anything else refused.
        most: how many cards of the most important heads and neurons; None makes all.
        components: labels whose cards are made too.
        workers: processes that make cards.
        progress: called after each card.

    Raises:
        SiteError: `out` is there and no site of the profiler's, or cannot be written.
        RunError: no such run, not a finished one, or another process writes the site.
        ComponentError: the run has no such component.
    """
    run, out = Path(run).resolve(), Path(out).absolute()
    own = own_folder(out)
    own.refuse()
    with query.open_run(run) as connection:
        read = Reader(connection)
        for label in components:
            query.check_component(connection, label)
        with own.writing() as folder:
            return _write(run, out, folder, read, pages.contents(connection), (most, components, workers), progress)


def own_folder(out: Path) -> OwnFolder:
    """The folder of a site."""
    return OwnFolder(out, MARK, MADE_BY, "site", SiteError)


def manifest(folder: Path) -> Manifest | None:
    """The manifest of a site; None where the folder is none."""
    facts = own_folder(folder).facts()
    try:
        return None if facts is None else Manifest(**facts)
    except TypeError:
        return None


def key_of(run: Path, run_id: str) -> str:
    """Changes whenever a card could: with the run, its file, and the code and queries that make a card."""
    state = run.stat()
    digest = hashlib.blake2b(f"{run_id} {state.st_size} {state.st_mtime_ns}".encode(), digest_size=16)
    code = [
        *(path for path in assets.package_file("pages").rglob("*") if path.suffix in CODE),
        *assets.folder("reports").glob("*.py"),
        *assets.folder("queries").glob("*.sql"),
    ]
    for path in sorted(code):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _write(
    run: Path,
    out: Path,
    folder: Path,
    read: Reader,
    contents: pages.Contents,
    wanted: tuple[int | None, Sequence[str], int],
    progress: Callable[[Progress], None],
) -> SiteSummary:
    """Everything into `folder`."""
    most, components, workers = wanted
    row = read("run_info").frame.row(0, named=True)
    mark = Manifest(key_of(run, row["run_id"]), row["run_id"], row["model"])
    frame = pages.components_frame(read)
    reused = _keep(out, folder, mark)
    chosen = list(dict.fromkeys([*frame["component"].head(len(frame) if most is None else most), *components]))
    missing = [label for label in chosen if label not in reused]
    total = len(chosen)
    written = sum(reused.values())
    for i, (_, size) in enumerate(cards.make(run, folder / "cards", missing, contents.links(""), workers), 1):
        written += size
        progress(Progress(total - len(missing) + i, total, written))
    have = set(reused) | set(missing)
    _write_pages(run, out, folder, read, contents, frame, have)
    (folder / MARK).write_text(json.dumps(asdict(mark), indent=1) + "\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return SiteSummary(out, len(missing), len(reused), written, size, tuple(contents.reports))


def _keep(out: Path, folder: Path, mark: Manifest) -> dict[str, int]:
    """Cards of the site at `out` that the same code made of the same run, brought over; label and bytes of each."""
    (folder / "cards").mkdir()
    if manifest(out) != mark:
        return {}
    reused = {}
    for card in sorted((out / "cards").glob("*.html")):
        shutil.copy2(card, folder / "cards" / card.name)
        reused[cards.label_of(card.stem)] = card.stat().st_size
    return reused


def _write_pages(
    run: Path, out: Path, folder: Path, read: Reader, contents: pages.Contents, frame: pl.DataFrame, have: set[str]
) -> None:
    addresses = {label: f"cards/{cards.file_name(label)}.html" for label in have} | {
        name: file for name, (file, _) in contents.checks.items()
    }

    def shell(current: str) -> Shell:
        return Shell(root="", links=contents.links(current), cards=addresses)

    command = f"profiler site {run.name} --out {out.name} --components LABEL,LABEL"
    made = pages.makers(read, contents, lambda: frame, shell, run.name, f"To make more cards: {command}")
    loaded = pages.assets(lambda: frame, lambda: have)
    (folder / "assets").mkdir()
    for file, make in (made | {f"assets/{name}": make for name, make in loaded.items()}).items():
        (folder / file).write_text(make(), encoding="utf-8")
