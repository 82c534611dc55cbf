"""The only module that opens DuckDB files: no connection reaches other files, the network, extensions or Python.

A run file is a stranger's: the views, macros, triggers and defaults in it are SQL that whoever wrote the file chose,
and it runs when the file is read or written. So it runs in a connection that can reach nothing but the file: `reading`,
`writing`, `comparing`. What a closed connection cannot prevent is refused when the file is opened: a macro that stands
for a function of DuckDB's own (so that `abs`, or a function that our checks rest on, means something else), a view
where a run has a table, and, for writing, a trigger. The pass writes a file of its own making (`begin`), which can read
the folder of the pass; `scratch` is a database in memory, for what must not be asked of a stranger's file.

Cost: 15 ms to look at the functions of a file.
"""

from collections.abc import Iterable
from pathlib import Path

import duckdb
from duckdb import DuckDBPyConnection as Connection

from profiler.database import makers, paths
from profiler.errors import RunError

STORAGE_VERSION = "v1.2.0"
Settings = dict[str, str | bool | int | float | list[str]]
SHUT: Settings = {
    "enable_external_access": "false",
    "python_enable_replacements": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "lock_configuration": "true",
}
"""What makes a connection closed; `lock_configuration` comes last where they are set one by one."""
CLOSED: Settings = SHUT | {
    "threads": "1",  # float sums of several threads differ in their last bits from run to run
    "disabled_optimizers": (
        "common_subplan"
    ),  # it joins a whole table once where two parts of a query want one component of it
}
OTHER = "ATTACH {} AS other (READ_ONLY)"
BESIDE = "ATTACH {} AS run (READ_ONLY)"
FUNCTIONS = "SELECT database_name, function_name, internal FROM system.main.duckdb_functions()"
VIEWS = "SELECT database_name, view_name FROM system.main.duckdb_views() WHERE NOT internal"
TRIGGERS = "SELECT database_name, trigger_name FROM system.main.duckdb_triggers()"


def reading(path: Path) -> Connection:
    """A closed, read-only connection to a file.

    Raises:
        RunError: the file replaces what a run rests on.
        duckdb.Error: it cannot be opened.
    """
    return _checked(duckdb.connect(paths.database_path(path), read_only=True, config=CLOSED), path)


def writing(path: Path, memory: int | None = None) -> Connection:
    """A closed connection to a file, for changing it.

    Args:
        memory: bytes that DuckDB may use; None leaves it the choice.

    Raises:
        RunError: the file replaces what a run rests on, or does something by itself when it is written to.
        duckdb.Error: it cannot be opened.
    """
    limit: Settings = {} if memory is None else {"memory_limit": f"{memory}B"}
    return _checked(duckdb.connect(paths.database_path(path), config=limit | SHUT), path, may_write=True)


def comparing(first: Path, second: Path) -> Connection:
    """A closed, read-only connection to two files: the first as it is, the second as `other`.

    Raises:
        RunError: a file replaces what a run rests on.
        duckdb.Error: one cannot be opened.
    """
    connection = duckdb.connect(
        paths.database_path(first), read_only=True
    )  # nothing of the file has run before it is closed, below
    try:
        connection.execute(OTHER.replace("{}", paths.literal(paths.database_path(second))))
        _set(connection, CLOSED)
    except duckdb.Error:
        connection.close()
        raise
    return _checked(connection, first, second)


def beside(path: Path) -> Connection:
    """A closed database in memory that can read a file as `run`, to hold what is taken out of it.

    Raises:
        RunError: the file replaces what a run rests on.
        duckdb.Error: it cannot be opened.
    """
    connection = duckdb.connect()  # nothing of the file has run before it is closed, below
    try:
        connection.execute(BESIDE.replace("{}", paths.literal(paths.database_path(path))))
        _set(connection, CLOSED)
    except duckdb.Error:
        connection.close()
        raise
    return _checked(connection, path)


def begin(file: Path, folder: Path) -> Connection:
    """A connection to a new file of ours, which can read `folder` too and nothing else."""
    connection = duckdb.connect(paths.database_path(file), config={"storage_compatibility_version": STORAGE_VERSION})
    spellings = {str(folder.absolute()), str(folder.resolve()), paths.pattern(folder)}  # as DuckDB may look at it
    folders = ", ".join(map(paths.literal, sorted(spellings)))
    connection.execute(f"SET allowed_directories = [{folders}]")
    _set(connection, {name: value for name, value in SHUT.items() if name != "lock_configuration"})
    return connection


def scratch() -> Connection:
    """A closed database in memory, with nothing in it."""
    return duckdb.connect(config=SHUT)


def _set(connection: Connection, settings: Settings) -> None:
    for name, value in sorted(settings.items(), key=lambda item: item[0] == "lock_configuration"):
        connection.execute(f"SET {name} = '{value}'")


def _checked(connection: Connection, *paths: Path, may_write: bool = False) -> Connection:
    """The connection, if what stands in the file leaves the words of SQL, and the tables of a run, what they are.

    Raises:
        RunError: it does not; the first such thing is named.
    """
    try:
        for what, names in _foreign(connection, may_write=may_write):
            if name := next(iter(sorted(names)), None):
                raise RunError(
                    f"{' or '.join(map(str, paths))} has {what} {name!r}, which no run of the profiler has, and is not"
                    " opened: get the file from whom you trust, or record the run yourself"
                )
    except (duckdb.Error, RuntimeError, UnicodeDecodeError):
        connection.close()  # a damaged file: whoever reads it next says so
        raise
    except RunError:
        connection.close()
        raise
    return connection


def _foreign(connection: Connection, *, may_write: bool) -> Iterable[tuple[str, set[str]]]:
    """Kinds of things that no run has, in words, each with the names of those in the file.

    The text of these statements calls no function that the file could define.
    """
    cursor = connection.cursor()
    functions = cursor.execute(FUNCTIONS).fetchall()
    own = {name.lower() for _, name, internal in functions if internal}
    yield (
        "a macro of its own in place of DuckDB's function",
        {name.lower() for _, name, internal in functions if not internal} & own,
    )
    yield "a view in place of the table", {name for _, name in cursor.execute(VIEWS).fetchall()} & makers.tables()
    if may_write:
        yield "a trigger", {name for _, name in cursor.execute(TRIGGERS).fetchall()}
