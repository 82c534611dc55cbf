"""Checks that a condition a user gives is one true-or-false expression over known columns, before it is kept or run.

A condition becomes part of a view, so it is SQL text and not a value. It is parsed by DuckDB itself (one SELECT item,
no FROM, no subquery, no stars, no function that changes from call to call), then bound in a WHERE clause over the view
it is about, without rows: what does not bind, or is no boolean, never reaches a file. All of this is asked of an empty
database of our own schema: a run file could bring functions of its own that answer as it likes. A condition that stands
in a run file is checked like a new one before it is used again.
"""

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection as Connection

from profiler.behaviours.token_properties import PROPERTIES, Property
from profiler.database import connections, faults
from profiler.database.assets import package_file
from profiler.errors import QueryError

NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
SHOWN = 80  # characters of a condition that a message shows
TOKEN_VIEW = "token_texts"
FACTS = {"head": ("head_facts",), "neuron": ("neuron_facts",), "both": ("head_facts", "neuron_facts")}
"""The views that a behaviour of each kind is about."""
REFUSED = {
    "SUBQUERY": "holds a subquery: it can only use the columns of a position",
    "STAR": "holds a star or COLUMNS(): name the columns one by one",
    "POSITIONAL_REFERENCE": "names a column by its number: give its name",
    "PARAMETER": "holds a parameter: write the value itself",
}
"""Parts of an expression that mean something else where it is put, by DuckDB's word for them; and what to say."""


def check_name(name: str) -> str:
    """Check that `name` can name a class or behaviour, and return it.

    Raises:
        QueryError: it cannot.
    """
    if not NAME.fullmatch(name):
        raise QueryError(f"{name!r} is no name for it: use small letters, digits and _, a letter first, at most 40")
    return name


def wrapped(condition: str) -> str:
    """The condition as it is put into a statement: in brackets, a line comment at its end closed."""
    return f"({condition}\n)"


@cache
def _empty() -> Connection:
    """A closed database in memory with the tables and views of a run, and no rows."""
    connection = connections.scratch()
    for file in ("database/schema.sql", "database/macros.sql", "database/views.sql"):
        connection.execute(package_file(file).read_text(encoding="utf-8"))
    return connection


def check_condition(condition: str, view: str, run: Connection | None = None) -> None:
    """Check that `condition` is a boolean expression over the columns of `view`.

    Args:
        run: whose view it must bind in, too: that of a run of an earlier version may lack columns.

    Raises:
        QueryError: it is not; one sentence with DuckDB's reason and the columns there are.
    """
    _check_in(_empty(), condition, view, _check_whole)
    if run is not None:
        _check_in(run, condition, view)


def _check_in(
    connection: Connection, condition: str, view: str, also: Callable[[Connection, str, str, str], None] | None = None
) -> None:
    shown = condition if len(condition) <= SHOWN else condition[: SHOWN - 1] + "…"
    cursor = connection.cursor()
    try:
        if also:
            also(cursor, condition, view, shown)
        kind = _type_of(cursor, condition, view)
        if kind != "BOOLEAN":
            raise QueryError(f"the condition {shown!r} gives {kind} and not true or false: compare it with something")
    except faults.FAULTS as error:
        raise faults.fault_error(error, f"looking at the condition {shown!r}", "The run is as it was.") from None
    except duckdb.Error as error:
        columns = ", ".join(_columns(view))
        raise QueryError(
            f"the condition {shown!r} cannot be used ({_reason(error)}): its columns are {columns}"
        ) from None
    finally:
        cursor.close()


def _type_of(cursor: Connection, condition: str, view: str) -> str:
    """Type of the condition where it binds as a filter (so without aggregates and windows)."""
    text = wrapped(condition)
    return str(cursor.sql(f"SELECT {text} AS holds FROM {view} WHERE {text} LIMIT 0").types[0])


def _check_whole(cursor: Connection, condition: str, view: str, shown: str) -> None:
    """Check a condition's shape, then evaluate it on a row of NULLs: a pattern that cannot be read is seen only then.

    Raises:
        QueryError, duckdb.Error: it cannot be used.
    """
    _check_shape(cursor, condition, view, shown)
    row = ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in _columns(view).items())
    cursor.execute(f"SELECT {wrapped(condition)} FROM (SELECT {row}) AS {view}").fetchall()


@cache
def _columns(view: str) -> dict[str, str]:
    """Columns of a view of ours, and their types."""
    relation = _empty().cursor().sql(f"SELECT * FROM {view} LIMIT 0")
    return dict(zip(relation.columns, map(str, relation.types), strict=True))


@cache
def _changing() -> frozenset[str]:
    """Names of functions whose value changes from call to call."""
    return frozenset(name for (name,) in _empty().cursor().execute(_CHANGING).fetchall())


def _check_shape(cursor: Connection, condition: str, view: str, shown: str) -> None:
    """One expression, nothing of REFUSED, nothing that changes from call to call.

    Raises:
        QueryError: something else.
    """
    if not condition.strip():
        raise QueryError("the condition is empty: write one such as \"text ~ ' ?[0-9]+'\"")
    statements = _parsed(cursor, f"SELECT {wrapped(condition)}")
    node = statements[0]["node"] if len(statements) == 1 else {}
    if len(node.get("select_list", ())) != 1 or node["from_table"]["type"] != "EMPTY" or node.get("where_clause"):
        raise QueryError(f"the condition {shown!r} is more than one expression: give a single one")
    parts = list(_nodes(node))
    if why := next((REFUSED[part["class"]] for part in parts if part.get("class") in REFUSED), ""):
        raise QueryError(f"the condition {shown!r} {why}")
    changing = _changing() & _called(parts, view)
    if changing:
        raise QueryError(f"the condition {shown!r} uses {min(changing)}, whose value changes from call to call")
    _parsed(cursor, f"SELECT {condition}\n")  # refuses what closes the brackets that are put around it


_CHANGING = """SELECT function_name FROM duckdb_functions() GROUP BY function_name
    HAVING bool_and(stability <> 'CONSISTENT') OR function_name IN ('getvariable', 'age')"""
"""Names of which no variant is the same from call to call (`+` has one for times with a zone), and two that hide such a
name."""


def _called(parts: list[dict[str, Any]], view: str) -> set[str]:
    """Names of functions, and of what stands like a column and is none (CURRENT_DATE)."""
    columns = {name.lower() for name in _columns(view)}
    bare = {str(part["column_names"][-1]).lower() for part in parts if part.get("column_names")}
    return {str(part.get("function_name")).lower() for part in parts} | (bare - columns)


def _parsed(cursor: Connection, text: str) -> list[dict[str, Any]]:
    tree = json.loads(cursor.execute("SELECT json_serialize_sql(?)", [text]).fetchall()[0][0])
    if tree.get("error"):
        raise duckdb.ParserException(tree["error_message"])
    statements: list[dict[str, Any]] = tree["statements"]
    return statements


def _nodes(tree: object) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
    for part in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _nodes(part)


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0].split("Error: ", 1)[-1].rstrip(".!")


def own_classes(texts: tuple[str, ...]) -> tuple[Property, ...]:
    """Token classes given as NAME=CONDITION, checked without a run.

    Raises:
        QueryError: a name or a condition cannot be used, or a name is taken.
    """
    taken = {p.name for p in PROPERTIES}
    classes: list[Property] = []
    for text in texts:
        name, _, condition = text.partition("=")
        check_name(name.strip())
        if name.strip() in taken | {p.name for p in classes}:
            raise QueryError(f"there is a token class {name.strip()!r} already: choose another name")
        check_condition(condition, TOKEN_VIEW)
        classes.append(Property(name.strip(), f"one where {condition.strip()}", condition.strip()))
    return tuple(classes)
