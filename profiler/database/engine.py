"""Paths as DuckDB takes them, and its own faults in a sentence.

A path of ours is a literal: never a pattern, never a URL, never the name of an extension, never parsed for partitions.
What DuckDB cannot be given as a literal (a `?`, a backslash, bytes that are no text) is refused before any work is
done.

An internal error of DuckDB is no fault of the run or of its reader. It is told apart from other errors (`fault`), and
said together with what is safe and what to do next. Cost: none.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from profiler.errors import EngineError, RunError

FAULTS = (duckdb.InternalException, duckdb.FatalException)
_MAGIC = re.compile(r"[*?\[]")


def database_path(path: Path) -> str:
    """The absolute path of a database file, for duckdb.connect; `md:run.duckdb` and `:memory:` are files too.

    Raises:
        RunError: DuckDB has no way to take this path for what it is.
    """
    text = str(path.absolute())
    if unreadable := sorted({c for c in text if c == "?" or (c == "\\" and os.sep != "\\")}):
        raise RunError(
            f"{path} cannot be opened by DuckDB, which reads {' and '.join(unreadable)} in a path as something else:"
            " rename the file or its folder, or choose another --out"
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RunError(
            f"{text!r} holds bytes that are no UTF-8, which DuckDB cannot open: choose another name"
        ) from None
    return text


def literal(text: str) -> str:
    """Text as a string literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def pattern(path: Path) -> str:
    """The pattern that matches an absolute path and nothing else."""
    return _MAGIC.sub(r"[\g<0>]", str(path.absolute()))


def parquet(files: Iterable[Path]) -> str:
    """A table function over Parquet files, each its own path and nothing else; their columns are what is in them."""
    paths = ", ".join(literal(pattern(file)) for file in files)
    return f"read_parquet([{paths}], hive_partitioning = false)"


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
