"""Checks that a condition a user gives is one true-or-false expression over known columns, before it is kept or run.

A condition becomes part of a view, so it is SQL text and not a value. It is parsed by DuckDB itself (one SELECT item, no
FROM, no subquery, no function that changes from call to call), then bound in a WHERE clause over the view it is about,
without rows, in a closed read-only connection: what does not bind, or is no boolean, never reaches a file.
"""

import json
import re
from collections.abc import Iterator

import duckdb
from duckdb import DuckDBPyConnection as Connection

from profiler import database
from profiler.behaviours.properties import PROPERTIES, Property
from profiler.errors import QueryError

NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
TOKEN_VIEW = "token_texts"
_TOKEN_COLUMNS = "SELECT 0 AS token_id, '' AS text, '' AS body, '' AS class, false AS special"


def check_name(name: str) -> str:
    """`name`, if it can name a class or behaviour.

    Raises:
        QueryError: it cannot.
    """
    if not NAME.fullmatch(name):
        raise QueryError(f"{name!r} is no name for it: use small letters, digits and _, a letter first, at most 40")
    return name


def wrapped(condition: str) -> str:
    """The condition as it is put into a statement: in brackets, a line comment at its end closed."""
    return f"({condition}\n)"


def check_condition(connection: Connection, condition: str, view: str) -> None:
    """Whether `condition` is one true-or-false expression over the columns of `view`.

    Raises:
        QueryError: it is not; one sentence with DuckDB's reason and the columns there are.
    """
    shown = condition if len(condition) <= 80 else condition[:79] + "…"
    cursor = connection.cursor()
    try:
        _check_shape(cursor, condition, shown)
        kind = _type_of(cursor, condition, view)
        if kind != "BOOLEAN":
            raise QueryError(f"the condition {shown!r} gives {kind} and not true or false: compare it with something")
    except database.FAULTS as error:
        raise database.fault_error(error, f"looking at the condition {shown!r}", "The run is as it was.") from None
    except duckdb.Error as error:
        columns = ", ".join(cursor.sql(f"SELECT * FROM {view} LIMIT 0").columns)
        raise QueryError(
            f"the condition {shown!r} cannot be used ({_reason(error)}): its columns are {columns}"
        ) from None
    finally:
        cursor.close()


def _type_of(cursor: Connection, condition: str, view: str) -> str:
    """Type of the condition where it binds as a filter (so without aggregates and windows)."""
    text = wrapped(condition)
    return str(cursor.sql(f"SELECT {text} AS holds FROM {view} WHERE {text} LIMIT 0").types[0])


def _check_shape(cursor: Connection, condition: str, shown: str) -> None:
    """One expression, no subquery, nothing that changes from call to call.

    Raises:
        QueryError: something else.
    """
    if not condition.strip():
        raise QueryError("the condition is empty: write one such as \"text ~ ' ?[0-9]+'\"")
    statements = _parsed(cursor, f"SELECT {wrapped(condition)}")
    node = statements[0]["node"] if len(statements) == 1 else {}
    if len(node.get("select_list", ())) != 1 or node["from_table"]["type"] != "EMPTY" or node.get("where_clause"):
        raise QueryError(f"the condition {shown!r} is more than one expression: give a single one")
    kinds = {(part.get("class"), str(part.get("function_name")).lower()) for part in _nodes(node)}
    if any(kind == "SUBQUERY" for kind, _ in kinds):
        raise QueryError(f"the condition {shown!r} holds a subquery: it can only use the columns of a position")
    changing = {row[0] for row in cursor.execute(_CHANGING).fetchall()} & {name for _, name in kinds}
    if changing:
        raise QueryError(f"the condition {shown!r} uses {changing.pop()}, whose value changes from call to call")
    _parsed(cursor, f"SELECT {condition}\n")  # refuses what closes the brackets that are put around it


_CHANGING = (
    "SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT' UNION SELECT 'getvariable'"
)


def _parsed(cursor: Connection, text: str) -> list[dict]:
    tree = json.loads(cursor.execute("SELECT json_serialize_sql(?)", [text]).fetchall()[0][0])
    if tree.get("error"):
        raise duckdb.ParserException(tree["error_message"])
    return tree["statements"]


def _nodes(tree: object) -> Iterator[dict]:
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
    found: list[Property] = []
    with duckdb.connect() as connection:
        connection.execute(f"CREATE VIEW {TOKEN_VIEW} AS {_TOKEN_COLUMNS}")
        for text in texts:
            name, _, condition = text.partition("=")
            check_name(name.strip())
            if name.strip() in taken | {p.name for p in found}:
                raise QueryError(f"there is a token class {name.strip()!r} already: choose another name")
            check_condition(connection, condition, TOKEN_VIEW)
            found.append(Property(name.strip(), f"one where {condition.strip()}", condition.strip()))
    return tuple(found)
