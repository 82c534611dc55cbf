"""A folder of files that appears whole, and that replaces an earlier folder of the same making and nothing else.

It is written in `<out>.partial` and moved to its name once it is finished; a process that is stopped leaves nothing at
`out`, and what a killed process left is used up by the next. A file in the folder, the mark, says who made it.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.errors import ProfilerError
from profiler.folders.lock import Lock

LOCK, NEW, OLD = "lock", "new", "old"
"""What may be in the folder in which the new one is made."""


@dataclass(frozen=True)
class OwnFolder:
    """A folder of ours.

    Attributes:
        out: where it is to be.
        mark: name of the file that says who made it.
        made_by: what that file says under `made_by`.
        what: the folder in words, such as "site".
        error: class of the errors.
    """

    out: Path
    mark: str
    made_by: str
    what: str
    error: type[ProfilerError]

    def facts(self) -> Mapping[str, Any] | None:
        """What the mark of the folder that is there says; None where there is none of ours."""
        try:
            facts = json.loads((self.out / self.mark).read_text(encoding="utf-8"))
            return facts if facts["made_by"] == self.made_by else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def refuse(self) -> None:
        """Raise unless `out` is free, empty, or a folder of ours.

        Raises:
            ProfilerError: it is something else, or the folder around it is missing.
        """
        out = self.out
        if not out.parent.is_dir():
            raise self.error(f"there is no folder {out.parent}: make it, or choose another --out")
        if not out.exists() and not out.is_symlink():
            return
        if out.is_dir() and not out.is_symlink() and (not any(out.iterdir()) or self.facts() is not None):
            return
        raise self.error(
            f"{out} is there and is no {self.what} of the profiler (it has no {self.mark} of such a folder): choose"
            " another --out"
        )

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """An empty folder to write into; it becomes `out` at the end of the block, and goes if the block fails.

        Raises:
            ProfilerError: it cannot be written, or somebody else's files are in it.
            RunError: another process writes it.
        """
        with self._workplace() as folder:
            yield folder
            self._swap(folder)

    @contextmanager
    def _workplace(self) -> Iterator[Path]:
        folder = self.out.with_name(self.out.name + ".partial")
        try:
            folder.mkdir(exist_ok=True)
            lock = Lock(folder / LOCK, str(self.out))
        except OSError as error:
            raise self.error(f"{self.out} cannot be written ({error.strerror}): choose another --out") from None
        try:
            if theirs := sorted({path.name for path in folder.iterdir()} - {LOCK, NEW, OLD}):
                raise self.error(
                    f"{folder} holds {theirs[0]}, which no {self.what} made: move it away, or choose another --out"
                )
            if (folder / OLD).exists() and not self.out.exists():
                (folder / OLD).rename(self.out)
            _clear(folder)
            (folder / NEW).mkdir()
            yield folder / NEW
        finally:
            _clear(folder)
            with suppress(OSError):
                (folder / LOCK).unlink()
                folder.rmdir()
            lock.release()

    def _swap(self, folder: Path) -> None:
        """Moves the finished folder to `out`; what was there goes first, and comes back if the move fails."""
        self.refuse()  # another program may have put something there in the meantime
        if not self.out.exists():
            folder.rename(self.out)
            return
        old = folder.with_name(OLD)
        self.out.rename(old)
        try:
            folder.rename(self.out)
        except BaseException:
            old.rename(self.out)
            raise


def _clear(folder: Path) -> None:
    for name in (NEW, OLD):
        shutil.rmtree(folder / name, ignore_errors=True)
