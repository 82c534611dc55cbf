"""One transaction on a finished run: all of what is written stands afterwards, or nothing. No torch.

Why: patching, checks and predictions each add to a run that others read; a second writer is told so before anything is
computed. Cost: opening the file.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from profiler.database import connections, faults
from profiler.errors import RunError

UNDONE = "Nothing was written, and the run is as it was."


@contextmanager
def writing(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """An open transaction on a run; it is undone by an error.

    Raises:
        RunError: the file is no run, or open elsewhere.
        EngineError: DuckDB failed.
    """
    try:
        connection = connections.writing(path)
    except faults.FAULTS as error:
        raise faults.fault_error(error, f"opening {path}", UNDONE) from None
    except duckdb.Error as error:
        raise RunError(
            f"{path} cannot be written: {faults.first_line(error)}. Another program or notebook has it open, or it is"
            " no DuckDB file: close it there, or name another file"
        ) from None
    try:
        connection.execute("SELECT complete FROM runs").fetchone()
    except duckdb.Error:
        connection.close()
        raise RunError(f"{path} is a DuckDB file but no run of the profiler: name another file") from None
    try:
        with faults.faults_told(f"writing {path}", UNDONE):
            connection.begin()
            yield connection
            connection.commit()
    finally:
        connection.close()
