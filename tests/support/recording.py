"""A recording file layer: what a program does to two folders, and what may be left of it after a power cut at any
moment.

A disk keeps what was flushed: a file's content as it was at its last fsync, a folder's names as they were at its last.
Of what was done since, each name may show the last state, the flushed one, or any in between, each name on its own.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CALLS = ("fsync", "replace", "rename", "unlink", "remove", "mkdir", "rmdir")
USES = 1_000
Names = dict[str, int]


@dataclass(frozen=True)
class Event:
    """One call: its name, what was flushed, and the state after it: names of each folder, content of each file. Files
    and folders are numbers: an inode, and which use of it."""

    call: str
    flushed: int | None
    names: dict[Path, Names]
    content: dict[int, str]


@dataclass
class Recorder:
    """Calls in their order. `marks` are numbers of events at which something was promised."""

    folders: tuple[Path, ...]
    watched: tuple[str, ...]
    events: list[Event] = field(default_factory=list)
    data: dict[str, bytes] = field(default_factory=dict)
    marks: list[int] = field(default_factory=list)
    uses: dict[int, int] = field(default_factory=dict)
    alive: set[int] = field(default_factory=set)

    def note(self, call: str, flushed: int | None = None) -> None:
        entries = {folder: sorted(folder.iterdir()) if folder.is_dir() else [] for folder in self.folders}
        self._count_uses({f.stat().st_ino for files in entries.values() for f in files})
        names = {folder: {f.name: self._id(f.stat().st_ino) for f in files} for folder, files in entries.items()}
        content = {self._id(f.stat().st_ino): self._hash(f) for files in entries.values() for f in files if f.is_file()}
        self.events.append(Event(call, None if flushed is None else self._id(flushed), names, content))

    def _count_uses(self, now: set[int]) -> None:
        """A system gives the inode of a file that is gone to another one: count how often each was given."""
        for inode in now - self.alive:
            self.uses[inode] = self.uses.get(inode, -1) + 1
        self.alive = now

    def _id(self, inode: int) -> int:
        """A number that no two files share."""
        return inode * USES + self.uses.get(inode, 0)

    def _hash(self, file: Path) -> str:
        data = file.read_bytes()
        key = hashlib.blake2b(data, digest_size=8).hexdigest()
        if file.name in self.watched:
            self.data[key] = data
        return key

    def mark(self) -> None:
        self.marks.append(len(self.events))


@contextmanager
def recorded(folders: tuple[Path, ...], watched: tuple[str, ...]) -> Iterator[Recorder]:
    """Record while the block runs.

    Args:
        watched: names of files whose content is kept to be read again.
    """
    recorder = Recorder(folders, watched)
    recorder.note("begin")
    with pytest.MonkeyPatch.context() as patched:
        for call in CALLS:
            patched.setattr(os, call, _noting(recorder, call, getattr(os, call)))
        yield recorder


def _noting(recorder: Recorder, call: str, real):
    def noted(*args, **kwargs):
        inode = os.fstat(args[0]).st_ino if call == "fsync" else None
        result = real(*args, **kwargs)
        recorder.note(call, inode)
        return result

    return noted


@dataclass
class Disk:
    """What may be on the disk after an event."""

    possible: dict[Path, dict[str, set[int | None]]] = field(default_factory=dict)
    flushed: dict[int, str] = field(default_factory=dict)
    content: dict[int, str] = field(default_factory=dict)

    def after(self, event: Event, inodes: dict[Path, int]) -> None:
        """Take an event in; what is there when the record begins counts as flushed."""
        self.content |= event.content
        if event.call == "begin":
            self.possible = {
                folder: {name: {inode} for name, inode in names.items()} for folder, names in event.names.items()
            }
            self.flushed = dict(event.content)
        for folder, names in event.names.items():
            known = self.possible.setdefault(folder, {})
            for name in {*known, *names}:
                known.setdefault(name, {None}).add(names.get(name))
            if event.flushed is not None and event.flushed == inodes.get(folder):
                self.possible[folder] = {name: {inode} for name, inode in names.items()}
        if event.flushed is not None and event.flushed in event.content:
            self.flushed[event.flushed] = event.content[event.flushed]

    def states(self, folder: Path, name: str) -> set[int | None]:
        """Inodes that a name may have; None where it may be absent."""
        return self.possible.get(folder, {}).get(name, {None})

    def whole(self, inode: int) -> bool:
        """Whether a file's content is flushed as it is."""
        return inode in self.flushed and self.flushed[inode] == self.content.get(inode)

    def surely(self, folder: Path, name: str) -> bool:
        """Whether a file is there whole, whatever happens."""
        states = self.states(folder, name)
        return len(states) == 1 and None not in states and self.whole(*states)


def inodes_of(events: list[Event], folders: tuple[Path, ...]) -> dict[Path, int]:
    """Inodes of the folders, from the names in one another, or from the disk."""
    found = {}
    for folder in folders:
        inside = [e.names[folder.parent][folder.name] for e in events if folder.name in e.names.get(folder.parent, {})]
        found[folder] = inside[0] if inside else folder.stat().st_ino * USES
    return found
