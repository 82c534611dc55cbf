"""Faults of DuckDB in a sentence.

An internal error of DuckDB is no fault of the run or of its reader. It is told apart from other errors (`fault`), and
said together with what is safe and what to do next. Cost: none.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from profiler.errors import EngineError

FAULTS = (duckdb.InternalException, duckdb.FatalException)


def fault(error: BaseException) -> bool:
    """Whether an error is DuckDB's own, and nobody's mistake."""
    return isinstance(error, FAULTS)


def fault_error(error: BaseException, doing: str, safe: str) -> EngineError:
    """A fault of DuckDB in words: what failed, what is safe, what to do.

    Args:
        doing: what was being done, such as `asking run.duckdb`.
        safe: a sentence on what is as it was.
    """
    return EngineError(
        f"DuckDB {duckdb.__version__} failed inside itself while {doing} ({first_line(error)}). {safe} Try another"
        " version of DuckDB (pip install -U duckdb); where the file may be damaged, a copy that is whole"
    )


@contextmanager
def faults_told(doing: str, safe: str) -> Iterator[None]:
    """Faults of DuckDB in a block as `fault_error`.

    Raises:
        EngineError: there was one.
    """
    try:
        yield
    except FAULTS as error:
        raise fault_error(error, doing, safe) from error


def first_line(error: BaseException) -> str:
    """The first line of an error's text, at most 300 characters; its kind where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300].rstrip(".")
