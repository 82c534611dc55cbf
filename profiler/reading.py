"""A run open for reading: polars frames and altair charts of its components.

Every method is one query (profiler.database.query) and needs no torch. DuckDB allows no second kind of connection to a
file that is open in the process, so what writes into the run asks for it with `ReadableRun.released`, which closes the
reading connection and opens a new one after.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import duckdb
import polars as pl

from profiler.behaviours.search import NamedBehaviour, match
from profiler.database import query as queries
from profiler.errors import QueryError
from profiler.results import FoundComponents, RunSummary

SPECTRUM_CHARTS = ("class_density", "class_share", "posterior", "expected_value", "importance", "mean_dla")
SAME_QUANTILE = 1e-9
"""Quantiles that differ by less are one: 0.9 is stored as a double."""
CLASSES = """SELECT property, count(token_id) AS n_tokens, "user" AS own, description, condition
FROM properties LEFT JOIN token_properties USING (property) GROUP BY ALL ORDER BY own DESC, property"""
BEHAVIOURS = """SELECT behaviour, family, kind, "user" AS own, priority, description, condition FROM behaviours
ORDER BY own DESC, behaviour_id"""


@dataclass(frozen=True)
class ComponentTable:
    """Rows of one query about one component, with the charts that draw them.

    Attributes:
        component: its label.
        frame: the rows.
        charts: names that `chart` knows.
    """

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
    """A component of an open run. A notebook shows its card; its frames are polars, its charts altair."""

    run: "ReadableRun"
    label: str

    @property
    def answer(self) -> tuple[str, ...]:
        """The sentences that open its card; every number in them is the answer of a query."""
        sentences: tuple[str, ...] = self._report().answer
        return sentences

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

    def spectrum(self) -> ComponentTable:
        """As `ReadableRun.spectrum`."""
        return self.run.spectrum(self.label)

    def density(self) -> ComponentTable:
        """As `ReadableRun.density`."""
        return self.run.density(self.label)

    def samples(self, quantile: float | None = None) -> pl.DataFrame:
        """As `ReadableRun.samples`."""
        return self.run.samples(self.label, quantile)

    def extremes(self) -> pl.DataFrame:
        """As `ReadableRun.extremes`."""
        return self.run.extremes(self.label)

    def moments(self) -> pl.DataFrame:
        """As `ReadableRun.moments`."""
        return self.run.moments(self.label)

    def page(self) -> str:
        """Its whole card as one HTML page."""
        from profiler.pages import page

        return page.render(self._report())

    def widget(self, height: int = 800) -> Any:
        """Its card alive in a notebook, to hover, brush and sort: an anywidget, for Jupyter and marimo, offline.

        Args:
            height: of its frame, pixels.

        Raises:
            ProfilerError: anywidget is not installed (pip install 'generality-profiler[notebook]').
        """
        from profiler.pages import notebook

        return notebook.widget(self._report(), height)

    def _report(self) -> Any:
        from profiler.pages import build as report

        component = report.find(self.run.connection, self.label)
        return report.load("component").build(report.Reader(self.run.connection), component)

    def _repr_html_(self) -> str:
        """Answer, spectrum and examples as a piece of HTML without scripts."""
        from profiler.pages import notebook

        return str(notebook.card(self._report()))

    def _repr_mimebundle_(self, **_wanted: Any) -> dict[str, str]:
        """The card as HTML, its answer as text: a notebook takes what it can show."""
        report = self._report()
        from profiler.pages import notebook

        return {"text/html": str(notebook.card(report)), "text/plain": "\n".join((self.label, *report.answer))}


@dataclass(eq=False)
class ReadableRun:
    """A finished run, open for reading. Use it as a context manager or call `close()`.

    Attributes:
        path: the run file.
        connection: a read-only connection to it; methods that write replace it by a new one.
    """

    path: Path
    connection: duckdb.DuckDBPyConnection

    def __enter__(self) -> "ReadableRun":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing can be asked of the run afterwards."""
        self.connection.close()

    @contextmanager
    def released(self) -> Iterator[Path]:
        """The path of the run, with the reading connection closed until the end of the block, for another to write.

        Raises:
            RunError: the run is closed, or cannot be opened again.
        """
        queries.run(self.connection, "SELECT 1")
        self.connection.close()
        try:
            yield self.path
        finally:
            self.connection = queries.open_run(self.path)

    def _repr_html_(self) -> str:
        """Model and corpus of the run and its ten most important components, for a notebook."""
        from profiler.pages.visible_text import visible

        row = self.info
        text = (
            f"{row['model']}: {row['n_positions']:,} positions of {row['n_documents']:,} documents, run {row['run_id']}"
        )
        return f"<p>{visible(text)}</p>" + self.labelled(top=10)._repr_html_()

    def labelled(self, top: int = 20) -> pl.DataFrame:
        """The most important components with what each does: component_overview and the label of its card.

        `label` is null where no label of the list holds.

        Args:
            top: how many; 0 gives all.
        """
        from profiler.pages.component import headline

        frame = self.query("component_overview", top=top)
        labelled = headline.with_labels(frame, lambda kind, n: self.query("behaviours", kind=kind, top=n))
        return labelled.select("component", "label", pl.exclude("component", "label"))

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
        """The row of table `runs` by column name: model, corpus, settings, speed, closure."""
        return self.query("run_info").row(0, named=True)

    def component(self, label: str) -> Component:
        """The component of a label, such as L2H3: its frames and charts, and in a notebook its card.

        Raises:
            ComponentError: the run has no such component; the message names the nearest.
        """
        queries.check_component(self.connection, label)
        return Component(self, label)

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
        chosen = frame.filter((pl.col("quantile") - quantile).abs() < SAME_QUANTILE)
        if chosen.is_empty():
            known = ", ".join(f"{q:g}" for q in frame["quantile"].drop_nulls().unique().sort())
            raise QueryError(f"there are no samples of quantile {quantile:g} of {component}: choose {known}")
        return chosen

    def spectrum(self, component: str) -> ComponentTable:
        """The query spectrum_by_class of one component: a row per class and bin."""
        return ComponentTable(component, self.query("spectrum_by_class", component=component), SPECTRUM_CHARTS)

    def density(self, component: str) -> ComponentTable:
        """The query density of one component: a row per fine bin."""
        return ComponentTable(component, self.query("density", component=component), ("density",))

    def predictions(self) -> pl.DataFrame:
        """Registered predictions, their outcomes, and whether each is as it was registered; no rows where there is
        none."""
        registered = self.connection.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 'prediction_log'")
        return self.query("predictions") if registered.fetchall() else pl.DataFrame()

    def summary(self) -> RunSummary:
        """What is in the run: facts, corpus, sizes of tables, what was dropped, dictionaries, what is unfinished."""
        from profiler.behaviours.additions import unfinished

        lacking = unfinished(self.path)
        sizes = pl.DataFrame() if lacking else self.query("table_sizes")  # it reads the tables that are lacking
        drops = self.query("drops").filter(pl.col("n") > 0)
        has_dictionaries = self.info.get("dictionaries") not in (None, "[]")  # a run of before has no such column
        dictionaries = self.query("dictionaries") if has_dictionaries else pl.DataFrame()
        return RunSummary(self.info, self.query("corpus"), sizes, drops, lacking, dictionaries)

    def classes(self) -> pl.DataFrame:
        """A row per token class: the library's and your own."""
        return self.sql(CLASSES)

    def behaviours(self) -> pl.DataFrame:
        """A row per behaviour: the library's and your own."""
        return self.sql(BEHAVIOURS)

    def find(self, words: str, *, kind: str = "", least: int = 20, top: int = 20) -> FoundComponents:
        """Components by what they do: those that do most of the behaviour that `words` mean, or care for it most.

        Args:
            words: a behaviour's name, or words of its description: "year", "attends to the previous token".
            kind: head or neuron; both if empty.
            least: fewest recorded positions of a component where the behaviour holds.
            top: how many; 0 gives all.

        Raises:
            QueryError: no behaviour of the run is described by these words.
        """
        known = [
            NamedBehaviour(name, description, priority if priority is not None else sys.maxsize)
            for name, description, priority in self.behaviours().select("behaviour", "description", "priority").rows()
        ]
        best, *also = match(words, known)
        frame = self.query("components_by_behaviour", behaviour=best.name, kind=kind, least=least, top=top)
        return FoundComponents(best.name, best.description, tuple(other.name for other in also), frame)

    def similar(
        self, component: str, *, measure: Literal["coactivation", "classes", "spectrum"] = "coactivation", top: int = 20
    ) -> pl.DataFrame:
        """Components of the same kind that do what `component` does: the query `similar`.

        Args:
            component: label.
            measure: what rows are ordered by.
            top: how many; 0 gives all.

        Raises:
            ComponentError: the run has no such component.
        """
        return self.query("similar", component=component, measure=measure, top=top)

    def compare(
        self,
        other: "ReadableRun | str | Path",
        *,
        kind: Literal["head", "neuron", "feature", "direction", "subspace"] = "head",
        family: str = "auto",
        top: int = 100,
        importance: Literal["direct", "total"] = "direct",
        out: str | Path | None = None,
    ) -> Any:
        """Components that do something else in another run of the same tokenizer and shape of model.

        Args:
            other: the other run, open or not.
            kind: heads or neurons.
            family: of behaviours: attention, effect, context, token, next, user; auto chooses by kind.
            top: the most important components of this run; 0 takes all.
            importance: what positions count by: direct, |DLA|, or total, |total effect|, where both runs have measured
                it.
            out: write a page of it there as well.

        Returns:
            A `profiler.behaviours.compare.Comparison`: `frame`, smallest p first, and `notes`.

        Raises:
            RunError: the runs have no components or tokens in common, or are one run.
        """
        from profiler.behaviours.compare import Comparison, notes, open_both
        from profiler.pages import build, comparison, page

        if out is not None:
            build.refuse(out)
        with ExitStack() as both:
            first = both.enter_context(self.released())
            second = both.enter_context(other.released()) if isinstance(other, ReadableRun) else Path(other)
            said = notes(first, second)
            asked = {"kind": kind, "family": family, "top": top, "importance": importance}
            with open_both(first, second) as connection:
                frame = queries.run(connection, "compare", **asked)
                if out is not None:
                    read = build.Reader(connection)
                    made = comparison.build(read, first.stem, second.stem, said, kind, family, top, importance)
                    build.write(out, page.render(made))
        return Comparison(frame, said)

    def _view(self, view: str, component: str, order: str) -> pl.DataFrame:
        text = f"SELECT * FROM {view} WHERE component = getvariable('component') ORDER BY {order}"
        return self.sql(text, component=component)
