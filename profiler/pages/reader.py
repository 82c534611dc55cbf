"""Runs the queries of a report and remembers what was asked, so that a page can show it.

A report reads a run through files of `queries/` alone. Each answer comes as a `Result`: the frame, and the text that
gives the same frame in any DuckDB shell, parameters set in its first lines.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import polars as pl

from profiler.database import query
from profiler.pages.blocks import Source


@dataclass(frozen=True, eq=False)
class Result:
    """The answer to one query."""

    source: Source
    frame: pl.DataFrame


class Reader:
    """Answers queries on one run, each only once.

    `given` holds answers by query name that were made elsewhere; `settings` are parameters of every query that has
    them, such as the experiment that a page is about.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        given: Mapping[str, pl.DataFrame] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._connection = connection
        self._given = dict(given or {})
        self._always = dict(settings or {})
        self._answers: dict[Source, Result] = {}

    def __call__(self, name: str, **parameters: Any) -> Result:
        """The answer to the query file `name` with these parameters."""
        text = query.sql_text(name)
        known = {parameter.name for parameter in query.declared_parameters(text)} if self._always else set()
        parameters = {k: v for k, v in self._always.items() if k in known} | parameters
        settings = _assignments(parameters)
        source = Source(name, settings + text, settings)
        if source not in self._answers:
            given = self._given.get(name)
            frame = query.run(self._connection, name, **parameters) if given is None else given
            self._answers[source] = Result(source, frame)
        return self._answers[source]

    def has(self, table: str) -> bool:
        """Whether the run has this table; one written by an earlier version may lack it."""
        counted = self._connection.execute(
            "SELECT count(*) FROM duckdb_tables() WHERE table_name = ?", [table]
        ).fetchone()
        return bool(counted and counted[0])

    def about(self, **settings: Any) -> "Reader":
        """A reader of the same run that sets these parameters of every query that has them."""
        return Reader(self._connection, self._given, settings)

    def forget(self, parameter: str) -> None:
        """Drops the answers that were asked with this parameter, so that a reader can go through many components."""
        self._answers = {s: r for s, r in self._answers.items() if f"SET VARIABLE {parameter} = " not in s.settings}


def _assignments(parameters: dict[str, Any]) -> str:
    """SET VARIABLE lines that give a query its parameters in a shell."""
    return "".join(f"SET VARIABLE {name} = {_literal(value)};\n" for name, value in parameters.items())


def _literal(value: Any) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)
