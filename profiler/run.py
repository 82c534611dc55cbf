"""A run opened for reading: `profiler.open("run.duckdb")`, then polars frames and altair charts.

    with profiler.open("run.duckdb") as run:
        run.query("component_overview", top=20)
        run.component("L2N117")                          # its card, in a notebook
        run.spectrum("L2N117").chart().properties(width=600)   # an altair chart, to restyle
        run.sql("SELECT context, activation FROM samples WHERE component = getvariable('c')", c="L2N117")

Every method is one query (profiler.database.query): a file of queries/ or a view of the design's SQL surface. No torch.
"""

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import polars as pl

from profiler.database import query as queries
from profiler.errors import QueryError

SPECTRUM_CHARTS = ("class_density", "class_share", "posterior", "expected_value", "importance", "mean_dla")


@dataclass(frozen=True)
class Table:
    """Rows of one question about one component. `frame` holds them, `chart()` draws them; `charts` names the
    drawings."""

    component: str
    frame: pl.DataFrame
    charts: tuple[str, ...]

    def chart(self, name: str | None = None) -> Any:
        """An altair chart of the rows, as the component's report draws it; the first of `charts` if no name is given.

        Raises:
            QueryError: there is no such drawing of these rows.
        """
        from profiler.pages.charts import component as charts

        chosen = name or self.charts[0]
        if chosen not in self.charts:
            raise QueryError(f"there is no chart {chosen!r} of these rows: choose {', '.join(self.charts)}")
        return getattr(charts, chosen)(self.frame)

    def _repr_html_(self) -> str:
        """The first chart above the rows, for a notebook."""
        from profiler.pages import notebook

        return str(notebook.table(self.chart(), self.frame._repr_html_()))


@dataclass(frozen=True)
class Component:
    """One component of an open run. A notebook shows its card; its frames are polars, its charts altair."""

    run: "Run"
    label: str

    @property
    def answer(self) -> tuple[str, ...]:
        """The sentences that open its card; each number in them is looked up in a query's answer."""
        return self._report().answer

    @property
    def charts(self) -> tuple[str, ...]:
        """Names that `chart` knows."""
        return ("density", *SPECTRUM_CHARTS)

    def chart(self, name: str = "density") -> Any:
        """An altair chart by name, as the card draws it.

        Raises:
            QueryError: there is no such chart.
        """
        table = self.density() if name == "density" else self.spectrum()
        return table.chart(name)

    def spectrum(self) -> Table:
        """As `Run.spectrum`."""
        return self.run.spectrum(self.label)

    def density(self) -> Table:
        """As `Run.density`."""
        return self.run.density(self.label)

    def samples(self, quantile: float | None = None) -> pl.DataFrame:
        """As `Run.samples`."""
        return self.run.samples(self.label, quantile)

    def extremes(self) -> pl.DataFrame:
        """As `Run.extremes`."""
        return self.run.extremes(self.label)

    def moments(self) -> pl.DataFrame:
        """As `Run.moments`."""
        return self.run.moments(self.label)

    def page(self) -> str:
        """Its whole card, a page that is one file."""
        from profiler.pages import page

        return page.render(self._report())

    def _report(self) -> Any:
        from profiler.pages import build as report

        component = report.find(self.run.connection, self.label)
        return report.load("component").build(report.Reader(self.run.connection), component)

    def _repr_html_(self) -> str:
        """Answer, spectrum and examples as a piece of HTML without scripts."""
        from profiler.pages import notebook

        return str(notebook.card(self._report()))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """The card as HTML, its answer as text: a notebook takes what it can show."""
        report = self._report()
        from profiler.pages import notebook

        return {"text/html": str(notebook.card(report)), "text/plain": "\n".join((self.label, *report.answer))}


@dataclass(frozen=True)
class Run:
    """A finished run, open for reading. Use it as a context manager or call `close()`."""

    path: Path
    connection: duckdb.DuckDBPyConnection

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the run cannot be asked anything afterwards."""
        self.connection.close()

    def query(self, name: str, **parameters: object) -> pl.DataFrame:
        """Rows of a query of queries/ or of a .sql file.

        Raises:
            QueryError: unknown query or parameter, a missing parameter, or an error in the SQL.
            ComponentError: the run has no such component.
        """
        return queries.run(self.connection, name, **parameters)

    def sql(self, text: str, **parameters: object) -> pl.DataFrame:
        """Rows of SQL; `parameters` are what it reads by getvariable('name'). Raises as `query`."""
        return queries.run_text(self.connection, text, parameters)

    @property
    def info(self) -> dict[str, Any]:
        """What the run is: the row of table `runs` by column name."""
        return self.query("run_info").row(0, named=True)

    def component(self, label: str) -> Component:
        """One component, such as L2H3: its frames and charts, and in a notebook its card.

        Raises:
            ComponentError: the run has no such component; the message names the nearest.
        """
        queries.check_component(self.connection, label)
        return Component(self, label)

    def _repr_html_(self) -> str:
        """What the run is and its ten most important components, for a notebook."""
        from profiler.pages.visible_text import visible

        row = self.info
        text = (
            f"{row['model']}: {row['n_positions']:,} positions of {row['n_documents']:,} documents, run {row['run_id']}"
        )
        return f"<p>{visible(text)}</p>" + self.query("component_overview", top=10)._repr_html_()

    def components(self) -> pl.DataFrame:
        """component_id, component, kind, layer, unit of every component."""
        return self.sql("SELECT * FROM components ORDER BY component_id")

    def moments(self, component: str) -> pl.DataFrame:
        """The view `moments` of one component: a row per class and domain."""
        return self._view("moments", component, "class, domain")

    def extremes(self, component: str) -> pl.DataFrame:
        """The view `extremes` of one component: a row per measure, side and rank, with its context."""
        return self._view("extremes", component, 'measure, side, "rank"')

    def samples(self, component: str, quantile: float | None = None) -> pl.DataFrame:
        """The view `samples` of one component, with contexts; of one quantile's stratum if `quantile` is given.

        A sample appears once per quantile that its stratum holds; aggregate from the view sample_weights instead.

        Raises:
            QueryError: the run has no such quantile.
            ComponentError: the run has no such component.
        """
        frame = self._view("samples", component, "stratum, quantile, position_id")
        if quantile is None:
            return frame
        chosen = frame.filter((pl.col("quantile") - quantile).abs() < 1e-9)
        if chosen.is_empty():
            known = ", ".join(f"{q:g}" for q in frame["quantile"].drop_nulls().unique().sort())
            raise QueryError(f"there are no samples of quantile {quantile:g} of {component}: choose {known}")
        return chosen

    def spectrum(self, component: str) -> Table:
        """The query spectrum_by_class of one component: a row per class and bin."""
        return Table(component, self.query("spectrum_by_class", component=component), SPECTRUM_CHARTS)

    def density(self, component: str) -> Table:
        """The query density of one component: a row per fine bin."""
        return Table(component, self.query("density", component=component), ("density",))

    def _view(self, view: str, component: str, order: str) -> pl.DataFrame:
        text = f"SELECT * FROM {view} WHERE component = getvariable('component') ORDER BY {order}"
        return self.sql(text, component=component)


def open(path: str | Path) -> Run:
    """The finished run at `path`.

    Raises:
        RunError: no such file, not a DuckDB file, not a run, or a run that is not finished.
    """
    return Run(Path(path), queries.open_run(path))
