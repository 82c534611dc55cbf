"""One writer at a time: a lock that the system takes back from a process that dies, and a name for who holds it.

The name stands in the locked file itself, so that it can be no other process's. filelock has locks of the same kind and
no names, and it empties the file whenever another process tries the lock.
"""

import os
import socket
import sys
from pathlib import Path
from typing import IO

from profiler.errors import RunError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


class Lock:
    """An exclusive lock on a file, held until `release` or the end of the process, whichever way that comes."""

    def __init__(self, file: Path, what: str):
        """Take the lock.

        Args:
            what: the path that is written, for the message.

        Raises:
            RunError: another process, or this one, holds it.
            OSError: the file cannot be made.
        """
        self.file, handle = file, file.open("a+", encoding="utf-8")
        try:
            _exclusive(handle)
        except OSError:
            handle.seek(0)
            who = handle.read(200).strip() or "another process"
            handle.close()
            raise RunError(
                f"{what} is being written by {who}: wait for it or stop it, or choose another --out"
            ) from None
        try:
            handle.truncate(0)
            handle.write(myself())
            handle.flush()
        except BaseException:
            handle.close()  # stopped or failed: a lock without a name would be another process's
            raise
        self.handle = handle

    def release(self) -> None:
        """Give the lock back."""
        self.handle.close()

    close = release


def myself() -> str:
    """The name of this process in a lock."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def holder(file: Path) -> str | None:
    """Who holds the lock on `file`; None where nobody does."""
    try:
        with file.open("r+", encoding="utf-8") as handle:
            try:
                _exclusive(handle)
            except OSError:
                return handle.read(200).strip() or "another process"
    except OSError:
        return None
    return None


def _exclusive(handle: IO[str]) -> None:
    """Lock an open file.

    Raises:
        OSError: somebody else has it locked.
    """
    if sys.platform == "win32":
        handle.seek(0)
        msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
