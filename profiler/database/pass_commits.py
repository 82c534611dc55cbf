"""What a pass has committed: the folder `<out>.partial`, from which it goes on after any stop.

A commit is one transaction: rows since the last commit (Parquet) and the state of all accumulators (Arrow) are written
under new names and flushed to the disk; then the manifest that names them replaces the old one in a single step.
Whatever happens in between (kill, power, full disk), the folder holds the last commit whole, and files no manifest
names are swept away by the next. The manifest holds each file's size and checksum, so a torn or damaged file is
noticed.

Rows that no accumulator can refer to any more are left out; files of a table are joined when they are of similar size,
so their number stays small and each row is rewritten a few times at most. Cost of a commit: that of writing the state,
about half a second per 100 MB on a slow disk; the pass spaces commits so that they take a fixed small share of its
time.
"""

import io
import json
import os
import re
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from profiler.database import arrays
from profiler.errors import RunError
from profiler.folders.lock import Lock, holder, myself

MANIFEST, LOCK, TEMPORARY = "commit.json", "lock", "commit.json.new"
FORMAT = 2
LARGEST_JOIN = 5_000_000
FILE_NAME = re.compile(r"(state-\d+\.arrow|[a-z_]+-\d+\.parquet)")
OURS = ("commit.json*", "lock", "state-*.arrow", "*-[0-9]*.parquet", "run.duckdb", "run.duckdb.wal", "run.duckdb.tmp")


@dataclass(frozen=True)
class RunPart:
    """Part of a run: what was added up (`state`, named arrays), rows by table, and facts that JSON can hold."""

    facts: dict[str, Any]
    state: Mapping[str, np.ndarray]
    rows: dict[str, pl.DataFrame]

    def pack(self) -> dict[str, bytes]:
        """All fields as bytes, to send."""
        tables = {f"rows {table}": _parquet(frame) for table, frame in self.rows.items()}
        return {"facts": json.dumps(self.facts).encode(), "state": arrays.to_bytes(self.state).to_pybytes()} | tables

    @classmethod
    def unpack(cls, packed: Mapping[str, bytes]) -> "RunPart":
        """The inverse of `pack`."""
        rows = {
            n.removeprefix("rows "): pl.read_parquet(io.BytesIO(b)) for n, b in packed.items() if n.startswith("rows ")
        }
        return cls(json.loads(packed["facts"]), arrays.read(pa.py_buffer(packed["state"])), rows)


@dataclass(frozen=True)
class ReferredRows:
    """Rows of a table that are still referred to: those whose `column` is among `ids`."""

    column: str
    ids: np.ndarray

    def of(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows of a frame that are still referred to."""
        return frame.filter(pl.col(self.column).is_in(pl.Series(self.ids).implode()))


@dataclass
class CommitManifest:
    """What the last commit holds. `files` of each table, and `state`, by name; `checks` are their sizes and CRC-32."""

    number: int = 0
    identity: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    state: str = ""
    files: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    checks: dict[str, tuple[int, int]] = field(default_factory=dict)
    format: int = FORMAT


def partial_path(path: Path) -> Path:
    """The folder in which a run is written until it is finished."""
    return path.with_name(path.name + ".partial")


class Partial:
    """The folder of an unfinished run, locked for one writer."""

    def __init__(self, path: Path, *, fresh: bool = False):
        """Make or open the folder of the run `path`.

        Args:
            fresh: forget what an earlier pass committed.

        Raises:
            RunError: another pass writes it, it cannot be written, or its last commit cannot be read.
        """
        self.path, self.folder = path, partial_path(path)
        try:
            self.folder.mkdir(exist_ok=True)
            flush_folder(self.folder.parent)
            self.lock = Lock(self.folder / LOCK, str(path))
        except OSError as error:
            raise RunError(
                f"{self.folder} cannot be written ({error.strerror or error}): choose another --out, or make its folder"
                " writable; a file of that name must be moved away"
            ) from None
        try:
            if fresh:
                self.clear()
            self.manifest = read_manifest(self.folder)
        except RunError:
            self.lock.release()
            raise

    @property
    def committed(self) -> bool:
        """Whether there is a commit to resume from."""
        return self.manifest is not None

    def commit(self, identity: dict[str, Any], part: RunPart, referenced: Mapping[str, ReferredRows]) -> None:
        """Add rows, replace the state and the facts, all or nothing.

        Args:
            identity: what a later pass must equal to go on.
            referenced: tables whose rows may go, and which stay.

        Raises:
            OSError: the disk is full or cannot be written; the last commit is what it was.
        """
        old = self.manifest or CommitManifest()
        new = CommitManifest(old.number + 1, identity, part.facts, f"state-{old.number + 1}.arrow")
        try:
            for table in sorted({*old.files, *part.rows}):
                self._append(new, table, old.files.get(table, []), part.rows.get(table), referenced.get(table))
            self._write_state(new, part.state)
            named = {new.state, *(name for files in new.files.values() for name, _ in files)}
            new.checks = {name: new.checks.get(name) or old.checks[name] for name in sorted(named)}
            _write(self.folder / TEMPORARY, sealed(vars(new)))
            flush_folder(self.folder)  # the new names last before the manifest says them
            (self.folder / TEMPORARY).replace(self.folder / MANIFEST)
        except OSError:
            self._sweep(old)
            raise
        flush_folder(self.folder)  # and the manifest lasts before the old names go
        self.manifest = new
        self._sweep(new)

    def _append(
        self,
        new: CommitManifest,
        table: str,
        files: list[tuple[str, int]],
        rows: pl.DataFrame | None,
        referenced: ReferredRows | None,
    ) -> None:
        """Write new rows of a table, together with those of its last files where these are not much larger."""
        files = list(files)
        if rows is not None and rows.height:
            rows = rows if referenced is None else referenced.of(rows)
            while files and files[-1][1] <= min(2 * rows.height, LARGEST_JOIN):
                joined = pl.concat([pl.read_parquet(self.folder / files.pop()[0], glob=False), rows])
                rows = joined if referenced is None else referenced.of(joined)
            if rows.height:
                name = f"{table}-{new.number}.parquet"
                new.checks[name] = _write(self.folder / name, _parquet(rows))
                files.append((name, rows.height))
        new.files[table] = files

    def _write_state(self, new: CommitManifest, state: Mapping[str, np.ndarray]) -> None:
        file = self.folder / new.state
        arrays.write(file, state)
        flush(file)
        new.checks[new.state] = _check_of(file)

    def _sweep(self, manifest: CommitManifest) -> None:
        """Remove files that the manifest does not name."""
        for pattern in ("state-*.arrow", "*-[0-9]*.parquet", TEMPORARY):
            for file in self.folder.glob(pattern):
                if file.name not in manifest.checks:
                    with suppress(OSError):
                        file.unlink()

    def state(self) -> dict[str, np.ndarray]:
        """Read the accumulators' arrays of the last commit.

        Raises:
            RunError: a file of the last commit is damaged.
        """
        if self.manifest is None:
            raise _damaged(self.folder, f"there is no {MANIFEST}")
        for name, check in self.manifest.checks.items():
            if _check_of(self.folder / name) != check:
                raise _damaged(self.folder, f"{name} is not what was committed")
        return arrays.read(self.folder / self.manifest.state)

    def parquet(self, table: str) -> list[Path]:
        """The files of a table."""
        files = self.manifest.files.get(table, []) if self.manifest else []
        return [self.folder / name for name, _ in files]

    def clear(self) -> None:
        """Delete what was committed, the manifest first: none may be left that names deleted files."""
        self.manifest = None
        _clear(self.folder)

    def close(self) -> None:
        """Give the folder back; without a commit it goes, and only files of ours with it."""
        if not self.committed:
            _remove(self.folder)
        self.lock.release()


def abandon(path: Path) -> None:
    """Remove `<path>.partial` where it holds no commit and no other process writes it.

    A pass can be stopped between the folder's making and whoever would close it.

    Raises:
        RunError: a commit is there, and cannot be read.
    """
    folder = partial_path(path)
    if folder.is_dir() and read_manifest(folder) is None and holder(folder / LOCK) in (None, myself()):
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove our files of a folder, and the folder where nothing else is in it."""
    with suppress(OSError):
        _clear(folder)
        (folder / LOCK).unlink(missing_ok=True)
        folder.rmdir()


def _clear(folder: Path) -> None:
    """Delete our files of a folder, all but the lock, the manifest first."""
    if (folder / MANIFEST).exists():
        (folder / MANIFEST).unlink()
        flush_folder(folder)
    for pattern in OURS:
        for file in folder.glob(pattern):
            if file.name != LOCK:
                file.unlink()


def read_manifest(folder: Path) -> CommitManifest | None:
    """Read the manifest of the last commit; None where there is none.

    Raises:
        RunError: it cannot be read.
    """
    try:
        manifest = _manifest(_unsealed((folder / MANIFEST).read_bytes()))
        files = [name for table in manifest.files.values() for name, _ in table]
        named = {manifest.state, *files, *manifest.checks}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise _damaged(folder, f"{MANIFEST}: {error}") from None
    if manifest.format != FORMAT:
        raise _damaged(folder, f"its format is {manifest.format}, this version of the profiler reads {FORMAT}")
    if not all(isinstance(name, str) and FILE_NAME.fullmatch(name) for name in named):
        raise _damaged(folder, "it names files that are no part of it")
    return manifest


def sealed(manifest: Any) -> bytes:
    """A manifest as JSON, after a line with its CRC-32."""
    text = json.dumps(manifest).encode()
    return f"{zlib.crc32(text):08x}\n".encode() + text


def _unsealed(data: bytes) -> Any:
    """What `sealed` was given.

    Raises:
        ValueError: it is damaged.
    """
    crc, _, text = data.partition(b"\n")
    if int(crc, 16) != zlib.crc32(text):
        raise ValueError("its checksum is another")
    return json.loads(text)


def _manifest(stored: Any) -> CommitManifest:
    """A manifest from JSON, which has lists where it has pairs.

    Raises:
        TypeError, ValueError, AttributeError: it is none.
    """
    files = {str(table): [(str(name), int(n)) for name, n in rows] for table, rows in stored.pop("files").items()}
    checks = {str(name): (int(size), int(crc)) for name, (size, crc) in stored.pop("checks").items()}
    return CommitManifest(**stored, files=files, checks=checks)


def describe(path: Path, *, ending: bool = False) -> str | None:
    """Who writes `<path>.partial`, what its last commit holds, and how to go on; None where it holds nothing.

    Args:
        ending: this process is about to end, and what it may still have locked with it.

    Raises:
        RunError: the last commit cannot be read.
    """
    folder = partial_path(path)
    if not folder.exists():
        return None
    manifest, who = read_manifest(folder), holder(folder / LOCK)
    who = None if ending and who == myself() else who
    if manifest is None:
        return f"{path} is being written by {who}; nothing is committed yet" if who else None
    facts = manifest.facts
    last = (
        f"the last commit ({facts['committed']}) holds {facts['tokens']:,} tokens of {facts['documents']:,} documents"
    )
    if who:
        return f"{path} is being written by {who}; {last}"
    return f"{last}: give the same command with --resume to go on ({folder.name}), or with --overwrite to begin anew"


def _damaged(folder: Path, what: str) -> RunError:
    return RunError(f"the commit in {folder} cannot be read: {what}; begin anew with --overwrite")


def _parquet(rows: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    rows.write_parquet(buffer, compression="zstd", compression_level=1)
    return buffer.getvalue()


def _write(file: Path, data: bytes | memoryview) -> tuple[int, int]:
    """Write and flush a file; its size and CRC-32."""
    with file.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    return len(data), zlib.crc32(data)


def _check_of(file: Path) -> tuple[int, int]:
    """Size and CRC-32 of a file; (-1, 0) where there is none."""
    crc = 0
    try:
        with file.open("rb") as handle:
            while block := handle.read(1 << 22):
                crc = zlib.crc32(block, crc)
            return handle.tell(), crc
    except OSError:
        return -1, 0


def flush(file: Path) -> None:
    """Flush a file to the disk."""
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


def flush_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
