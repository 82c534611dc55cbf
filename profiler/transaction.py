"""One transaction on a finished run: all of what is written stands afterwards, or nothing. No torch.

Why: patching, checks and predictions each add to a run that others read; a second writer is told so before anything is
computed. Cost: opening the file.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from profiler import database
from profiler.errors import RunError


@contextmanager
def writing(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """An open transaction on a run; it is undone by an error.

    Raises:
        RunError: the file is no run, or open elsewhere.
    """
    try:
        connection = database.writing(path)
    except duckdb.Error as error:
        raise RunError(f"{path} cannot be written: {_reason(error)}. Another program or notebook has it open, or it is no "
                       "DuckDB file: close it there, or name another file") from None  # fmt: skip
    try:
        connection.execute("SELECT complete FROM runs").fetchone()
    except duckdb.Error:
        connection.close()
        raise RunError(f"{path} is a DuckDB file but no run of the profiler: name another file") from None
    try:
        connection.begin()
        yield connection
        connection.commit()
    finally:
        connection.close()


def _reason(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200].rstrip(".")
