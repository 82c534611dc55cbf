"""What cards read of a run, for many components at a time: each table and view is asked once for all of them.

A card asks about twenty queries of a component, and each looks it up in tables of millions of rows, through views that
take longer to bind than to answer. So the rows of a chunk of components are taken out first, into tables in memory that
have the names of the run's tables and views. The queries are the same and give the same answers; what is not of a
component is looked up in the run.

Cost: what one component's rows cost in the run, and a few milliseconds for each component more.
"""

from collections.abc import Sequence
from pathlib import Path

from profiler.database import connections, macros, query

CHUNK = 32
"""Components that are taken out together."""
NOT_NARROWED = ("components", "component_importance", "layer_coverages")
"""Tables by component of which cards read every row: ranks, and what others cover."""
MADE = ("behaviour_marks", "component_facts")
"""Views whose rows are taken out as they are, because binding them takes longer than reading them."""
WHOLE = ("importance", "presence_counts", "group_counts", "jackknife_groups")
"""Views that are small and asked of every component."""
TABLES = """SELECT table_name, bool_or(column_name = 'component_id') FROM system.main.duckdb_columns()
    WHERE database_name = 'run' AND table_name IN (SELECT table_name FROM system.main.duckdb_tables()
        WHERE database_name = 'run') GROUP BY table_name ORDER BY table_name"""
REMADE = (
    *("importance", "presence_counts", "group_counts", "jackknife_groups", "group_sums", "breakdown", "strata"),
    *("sample_weights", "samples", "extremes", "spectrum", "density", "head_attention", "activations"),
)
"""Views that are read through the tables of what was taken out, each after those that it reads."""
VIEWS = """SELECT view_name, sql FROM system.main.duckdb_views() WHERE database_name = 'run' AND NOT internal"""


class Extract:
    """A database in memory that answers the queries of cards of some components.

    Attributes:
        connection: to it.
        labels: the components whose rows it holds.
    """

    def __init__(self, run: Path) -> None:
        """Open it beside a finished run, with the rows of no component yet.

        Raises:
            RunError: as `profiler.database.query.open_run`.
        """
        query.open_run(run).close()
        self.connection = connections.beside(run)
        self.labels: frozenset[str] = frozenset()
        tables = self.connection.execute(TABLES).fetchall()
        self._narrowed = [name for name, by_component in tables if by_component and name not in NOT_NARROWED]
        for name, _ in tables:
            if name not in self._narrowed:
                self._pass(name)
        for name in self._narrowed:
            self._take(name, "false")
        self._make_views()

    def _make_views(self) -> None:
        """The run's views: of cards over what was taken out, others as they are; macros are this version's."""
        texts = dict(self.connection.execute(VIEWS).fetchall())
        for name in texts.keys() - {*REMADE, *MADE}:
            self._pass(name)
        self._texts = {name: texts[name] for name in REMADE if name in texts}
        own = macros.definitions()
        for name in macros.called_in("\n".join(self._texts.values()).replace('"', "")):
            self.connection.execute(own[name])
        for name in WHOLE:
            self._make(name)

    def hold(self, labels: Sequence[str]) -> None:
        """Take out the rows of these components, in the place of those of others."""
        self.labels = frozenset(labels)
        self.connection.execute("SET VARIABLE labels = ?", [list(labels)])
        numbers = "SELECT component_id FROM components WHERE list_contains(getvariable('labels'), component)"
        self.connection.execute(f"SET VARIABLE ids = (SELECT list(component_id) FROM ({numbers}))")
        for name in self._narrowed:
            self._take(name, "list_contains(getvariable('ids'), component_id)")
        for name in MADE:
            self._take(name, "list_contains(getvariable('labels'), component)")
        for name in self._texts:
            if name not in WHOLE:
                self._make(name)

    def close(self) -> None:
        """Give its memory back."""
        self.connection.close()

    def _make(self, name: str) -> None:
        """A table of a view's rows, of what was taken out."""
        self.connection.execute(f"DROP TABLE IF EXISTS {name}")
        self.connection.execute(self._texts[name])
        self.connection.execute(f"CREATE TABLE made AS SELECT * FROM {name}")
        self.connection.execute(f"DROP VIEW {name}")
        self.connection.execute(f"ALTER TABLE made RENAME TO {name}")

    def _pass(self, name: str) -> None:
        self.connection.execute(f"CREATE VIEW {_quoted(name)} AS SELECT * FROM run.{_quoted(name)}")

    def _take(self, name: str, condition: str) -> None:
        own = _quoted(name)
        self.connection.execute(f"CREATE OR REPLACE TABLE {own} AS SELECT * FROM run.{own} WHERE {condition}")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
