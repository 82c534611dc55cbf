"""SQL macros of this version: what queries repeat is defined once, in the .sql files of this package.

A run holds the macros of the version that wrote it, so that any DuckDB shell can use them and the run's views. The
profiler asks a run with its own: those that a query calls are made anew as temporary macros of the query's cursor, and
come before what the file holds. So a query means the same in a run of any version, and a file cannot bring a macro that
answers as it likes. `renew` writes them into an older run, for shells.

Cost: less than 1 ms for each macro that a query calls.
"""

import re
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from duckdb import DuckDBPyConnection as Connection

from profiler.database.assets import package_file

NEEDS = {
    "database/macros.sql": "importance",
    "database/views.sql": "importance",
    "database/causal.sql": "latest_experiment",
    "database/generality.sql": "latest_check",
    "database/effects.sql": "component_effects",
}
"""The files that define macros, and the view that a run has once a file's statements were executed in it."""
_MACRO = re.compile(r"^CREATE MACRO (\w+)\(.*?;$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"--.*")
_CALL = re.compile(r"\b([a-z]\w*)\s*\(")


@cache
def definitions() -> Mapping[str, str]:
    """The CREATE MACRO statement of every macro, by name, each after those that it calls."""
    return MappingProxyType({name: text for file in NEEDS for name, text in _of_file(file).items()})


@cache
def _of_file(file: str) -> Mapping[str, str]:
    text = package_file(file).read_text(encoding="utf-8")
    return MappingProxyType({macro[1]: macro[0] for macro in _MACRO.finditer(text)})


def called_in(text: str) -> list[str]:
    """Names of the macros that a text of SQL calls, itself or through other macros, in the order of `definitions`."""
    known, waiting, called = definitions(), [text], set[str]()
    while waiting:
        names = set(_CALL.findall(_COMMENT.sub("", waiting.pop()))) & known.keys()
        waiting += [known[name] for name in names - called]
        called |= names
    return [name for name in known if name in called]


def temporary(text: str) -> str:
    """The statements that make the macros which a text of SQL calls, for one cursor; empty where it calls none."""
    known = definitions()
    return "\n".join(known[name].replace("CREATE", "CREATE OR REPLACE TEMP", 1) for name in called_in(text))


def renew(connection: Connection) -> None:
    """Write the macros of this version into a run, in place of its own."""
    views = {name for (name,) in connection.execute("SELECT view_name FROM system.main.duckdb_views()").fetchall()}
    for file, view in NEEDS.items():
        if view in views:
            for statement in _of_file(file).values():
                connection.execute(statement.replace("CREATE", "CREATE OR REPLACE", 1))
