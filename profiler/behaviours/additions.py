"""A user's own token classes and behaviours in a finished run: added or removed whole, or not at all.

They stand in the tables properties, token_property_lists and behaviours, and in the views and tables generated from
them; nothing that was measured is written. Everything is checked on a closed, read-only connection first, and then
written in one transaction: a program that stops in between leaves the run as it was. Cost: one pass over the
vocabulary, and over the kept rows of the components that others are compared with (seconds for 37,000 components).
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import duckdb
from duckdb import DuckDBPyConnection as Connection

from profiler.behaviours import views
from profiler.behaviours.expressions import FACTS, TOKEN_VIEW, check_condition, check_name, wrapped
from profiler.behaviours.library import USER_PRIORITY, Behaviour, Kind, of_property
from profiler.database import connections, faults, query
from profiler.errors import ProfilerError, QueryError, RunError

ONCE_MORE = "`profiler behaviours refresh {}` makes it; everything else in the run can be asked"


def add_class(path: Path, name: str, condition: str, description: str = "") -> int:
    """Add a token class (a property of the user's own) and the behaviours on_NAME and before_NAME.

    Returns:
        How many tokens of the vocabulary have it.

    Raises:
        RunError: no finished run, or it cannot be written.
        QueryError: the name or the condition cannot be used, or the name is taken; the run is as it was.
    """
    check_name(name)
    described = description or f"one where {condition.strip()}"
    behaviours = of_property(name, described, USER_PRIORITY)
    with query.open_run(path) as run:
        _refuse_taken(run, "properties", "property", name)
        for behaviour in behaviours:
            _refuse_taken(run, "behaviours", "behaviour", behaviour.name)
        check_condition(condition, TOKEN_VIEW, run)
    with _writing(path) as run:
        run.execute("INSERT INTO properties VALUES (?, ?, ?, true)", [name, described, condition.strip()])
        run.execute(
            f"""UPDATE token_property_lists SET properties = list_append(properties, ?) WHERE token_id IN (
                SELECT token_id FROM {TOKEN_VIEW} WHERE NOT special AND {wrapped(condition)})""",
            [name],
        )
        views.insert(run, behaviours, user=True)
        views.refresh(run)
        return _size(run, name)


def _size(run: Connection, name: str) -> int:
    text = "SELECT count(*) FROM token_property_lists WHERE list_contains(properties, ?)"
    return int(run.execute(text, [name]).fetchall()[0][0])


def remove_class(path: Path, name: str) -> None:
    """Remove a class of the user's own, with its two behaviours.

    Raises:
        QueryError: there is no such class, or it is the library's.
    """
    with query.open_run(path) as run:
        _refuse_not_users(run, "properties", "property", name)
    with _writing(path) as run:
        run.execute("DELETE FROM properties WHERE property = ?", [name])
        run.execute(
            """UPDATE token_property_lists SET properties = list_filter(properties, lambda p: p <> $1)
               WHERE list_contains(properties, $1)""",
            [name],
        )
        run.execute('DELETE FROM behaviours WHERE "user" AND behaviour IN (?, ?)', [f"on_{name}", f"before_{name}"])
        views.refresh(run)


def add_behaviour(path: Path, name: str, condition: str, kind: Kind = "both", description: str = "") -> None:
    """Add a behaviour: a condition over the columns of head_facts or neuron_facts (or of both).

    Raises:
        RunError: no finished run, or it cannot be written.
        QueryError: the name or the condition cannot be used, or the name is taken; the run is as it was.
    """
    check_name(name)
    with query.open_run(path) as run:
        _refuse_taken(run, "behaviours", "behaviour", name)
        for view in FACTS[kind]:
            check_condition(condition, view, run)
    behaviour = Behaviour(
        name, "user", kind, condition.strip(), description or f"{condition.strip()} holds", USER_PRIORITY
    )
    with _writing(path) as run:
        views.insert(run, (behaviour,), user=True)
        views.refresh(run)


def remove_behaviour(path: Path, name: str) -> None:
    """Remove a behaviour of the user's own.

    Raises:
        QueryError: there is no such behaviour, or it is the library's, or a token class's.
    """
    with query.open_run(path) as run:
        _refuse_not_users(run, "behaviours", "behaviour", name, "AND family = 'user'")
    with _writing(path) as run:
        run.execute("DELETE FROM behaviours WHERE behaviour = ?", [name])
        views.refresh(run)


def refresh(path: Path, memory: int | None = None) -> None:
    """Rebuild the tables and views that are derived from a run's rows and behaviours, and its macros.

    For a run whose pass could not make them, or of an earlier version.

    Args:
        memory: bytes that DuckDB may take, beyond which it writes beside the run; None leaves that to DuckDB.

    Raises:
        RunError: no finished run, or it cannot be written.
        EngineError: DuckDB failed; the run is as it was.
    """
    query.open_run(path).close()
    with _writing(path, memory) as run:
        views.refresh(run)


def complete(path: Path, memory: int | None = None) -> None:
    """Build the derived tables and views of a finished run that lacks them.

    Raises:
        RunError, EngineError: as `refresh`; the message says how to do it again.
    """
    with closing(query.open_run(path)) as run:
        if views.is_derived(run):
            return
    try:
        refresh(path, memory)
    except ProfilerError as error:
        raise type(error)(
            f"{path} is whole, but what is known of behaviours is not in it yet: {error}. {ONCE_MORE.format(path)}"
        ) from error


def unfinished(path: Path) -> str | None:
    """The command that makes what a finished run still lacks; None where it lacks nothing or is no run."""
    try:
        with closing(query.open_run(path)) as run:
            return None if views.is_derived(run) else ONCE_MORE.format(path)
    except ProfilerError:
        return None


def _refuse_taken(run: Connection, table: str, column: str, name: str) -> None:
    if run.execute(f"SELECT 1 FROM {table} WHERE {column} = ?", [name]).fetchall():
        raise QueryError(f"there is a {column} {name!r} in this run already: choose another name, or remove it first")


def _refuse_not_users(run: Connection, table: str, column: str, name: str, also: str = "") -> None:
    text = f'SELECT {column} FROM {table} WHERE "user" {also} ORDER BY 1'
    own = [row[0] for row in run.execute(text).fetchall()]
    if name not in own:
        raise QueryError(f"{name!r} is no {column} that a user added: there are {', '.join(own) or 'none'}")


@contextmanager
def _writing(path: Path, memory: int | None = None) -> Iterator[Connection]:
    """A connection to the run inside one transaction, undone by any error.

    Raises:
        RunError: the file cannot be written.
        EngineError: DuckDB failed.
    """
    try:
        with (
            faults.faults_told(f"writing {path}", "The run is as it was."),
            connections.writing(path, memory) as run,
        ):
            run.execute("BEGIN")
            yield run
            run.execute("COMMIT")
    except duckdb.Error as error:
        raise RunError(
            f"{path} cannot be written ({faults.first_line(error)}): close what reads it, then try again"
        ) from None
