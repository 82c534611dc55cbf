"""Paths as DuckDB takes them.

A path of ours is a literal: never a pattern, never a URL, never the name of an extension, never parsed for partitions.
What DuckDB cannot be given as a literal (a `?`, a backslash, bytes that are no text) is refused before any work is
done. Cost: none.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from profiler.errors import RunError

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
