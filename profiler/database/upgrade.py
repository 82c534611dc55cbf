"""A run of an earlier version is given the columns, tables and views that it lacks; nothing that was measured changes.

Columns that are new are NULL in it, and new tables empty, as in a run in which what they hold was not measured. What
makes a run (tables runs and documents) is left as it was: shards of two versions are not merged. Cost: milliseconds.
"""

import re
from functools import cache

from duckdb import DuckDBPyConnection as Connection

from profiler.database import macros
from profiler.database.assets import package_file
from profiler.database.comments import comment_statements

ADDED_TABLES = ("total_sums", "gate_sums")
"""Tables that are empty where what they hold was not measured; the last is the newest."""
LEFT = ("runs", "documents")
_TABLE = re.compile(r"^CREATE TABLE (\w+) \(.*?^\);", re.MULTILINE | re.DOTALL)
_COLUMN = re.compile(r'^    ("?\w+"?) ([A-Z]\w*(?:\[\])?)', re.MULTILINE)
_CREATED = re.compile(r"^CREATE (?:VIEW|MACRO) .*?;$", re.MULTILINE | re.DOTALL)


@cache
def _tables() -> dict[str, str]:
    """The CREATE TABLE statement of each table of schema.sql."""
    schema = package_file("database/schema.sql").read_text(encoding="utf-8")
    return {statement[1]: statement[0] for statement in _TABLE.finditer(schema)}


def is_outdated(connection: Connection) -> bool:
    """Whether a run is of an earlier version than this one."""
    with connection.cursor() as cursor:
        text = "SELECT 1 FROM system.main.duckdb_tables() WHERE table_name = ?"
        return not cursor.execute(text, [ADDED_TABLES[-1]]).fetchall()


def bring_up_to_date(connection: Connection) -> None:
    """Give a run this version's macros, and what it lacks where it is of an earlier one."""
    if _add_tables(connection):
        _renew_views(connection)
    macros.renew(connection)


def _add_tables(connection: Connection) -> bool:
    """Add the tables and columns that a run of an earlier version lacks; whether there were any."""
    text = "SELECT table_name, column_name FROM system.main.duckdb_columns() WHERE NOT internal"
    rows = connection.execute(text).fetchall()  # of this transaction, which no cursor sees
    there = {name for name, _ in rows}
    if ADDED_TABLES[-1] in there:
        return False
    changed = [table for table in ADDED_TABLES if table not in there]
    for table in changed:
        connection.execute(_tables()[table])
    for table, statement in _tables().items():
        known = {column for name, column in rows if name == table}
        lacking = [(c, kind) for c, kind in _COLUMN.findall(statement) if c.strip('"') not in known]
        if not known or not lacking or table in LEFT:
            continue
        changed.append(table)
        for column, kind in lacking:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
    for comment in comment_statements("\n".join(_tables()[table] for table in changed)):
        connection.execute(comment)
    return True


def _renew_views(connection: Connection) -> None:
    """Write this version's views of a pass into a run, with the macros that they call and those that read them."""
    for file in ("database/macros.sql", "database/views.sql"):
        text = package_file(file).read_text(encoding="utf-8")
        for statement in (*_CREATED.findall(text), *comment_statements(text)):
            connection.execute(re.sub(r"^CREATE (VIEW|MACRO)", r"CREATE OR REPLACE \1", statement))
