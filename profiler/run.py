"""A run and everything that can be done with it: `profiler.open("run.duckdb")`.

    with profiler.open("run.duckdb") as run:
        run.query("component_overview", top=20)
        run.component("L2N117")                          # its card, in a notebook
        run.spectrum("L2N117").chart().properties(width=600)   # an altair chart, to restyle
        run.sql("SELECT context, activation FROM samples WHERE component = getvariable('c')", c="L2N117")
        run.patch("ioi")                                 # a circuit, written into the run
        run.check("ioi")                                 # its verdict, written into the run

What is read is in `profiler.reading`. Here are pages, classes and behaviours of a user's own, and what runs the model:
that imports `profiler.actions`, and with it torch, when it is called.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from profiler.database import query as queries
from profiler.errors import ComponentError
from profiler.generality.evidence.predictions import Entry
from profiler.generality.store import ScoredPrediction
from profiler.reading import ReadableRun
from profiler.results import CheckResult, EffectsResult, PatchResult, Report, ReportFile, TextResult, silent

if TYPE_CHECKING:
    from profiler.export.write import Exported

PICTURE_SIZE = (1100, 1000)
Theme = Literal["light", "dark"]


class Run(ReadableRun):
    """A finished run: read it, write pages of it, add classes and behaviours, patch and check its model.

    Use it as a context manager or call `close()`.
    """

    def __enter__(self) -> "Run":
        return self

    def add_class(self, name: str, condition: str, description: str = "") -> int:
        """Define a token class of your own and its behaviours on_NAME and before_NAME.

        Args:
            name: small letters, digits and _.
            condition: SQL over text, body, token_id and class.

        Returns:
            How many tokens of the vocabulary belong to it.

        Raises:
            QueryError: the name or the condition cannot be used; the run is unchanged.
        """
        from profiler.behaviours import additions

        with self.released() as path:
            return additions.add_class(path, name, condition, description)

    def remove_class(self, name: str) -> None:
        """Remove a token class of your own and its behaviours.

        Raises:
            QueryError: there is no such class, or it is the library's.
        """
        from profiler.behaviours import additions

        with self.released() as path:
            additions.remove_class(path, name)

    def add_behaviour(
        self, name: str, condition: str, kind: Literal["head", "neuron", "both"] = "both", description: str = ""
    ) -> None:
        """Define a behaviour of your own: true or false at each recorded position.

        Args:
            condition: SQL over the columns of head_facts or neuron_facts.
            kind: the components that it can be asked of.

        Raises:
            QueryError: the name or the condition cannot be used; the run is unchanged.
        """
        from profiler.behaviours import additions

        with self.released() as path:
            additions.add_behaviour(path, name, condition, kind, description)

    def remove_behaviour(self, name: str) -> None:
        """Remove a behaviour of your own.

        Raises:
            QueryError: there is no such behaviour, or it is the library's, or a token class's.
        """
        from profiler.behaviours import additions

        with self.released() as path:
            additions.remove_behaviour(path, name)

    def refresh_behaviours(self) -> None:
        """Compute again what the run stores of behaviours, for a run of an earlier version or an unfinished one."""
        from profiler.behaviours import additions

        with self.released() as path:
            additions.refresh(path)

    def predict(
        self,
        statement: str,
        subject: str,
        statistic: str,
        threshold: float,
        *,
        direction: str = ">",
        distribution: str = "corpus",
        role: str = "",
        circuit: str = "",
    ) -> Entry:
        """Register a prediction before its test, hashed with its time and with the previous prediction.

        Args:
            statement: the prediction in words.
            subject: label of a component, name of a circuit, or `circuit` for whichever is checked.
            statistic: faithfulness, necessity, coverage, explained, ...
            threshold: in the statistic's unit; shares are 0 to 1.
            direction: > or <.
            distribution: as a check names it, or NAME=FILE.jsonl.
            role: what is claimed of the component; any where empty.
            circuit: only in the check of this circuit.

        Raises:
            PredictionError: it cannot be scored, names what the run lacks, or the log is no longer intact.
        """
        from profiler.generality import store
        from profiler.generality.evidence.predictions import Prediction

        with self.released() as path:
            asked = store.distribution_of(path, distribution)
            wanted = Prediction(statement, subject, statistic, direction, threshold, asked, role, circuit)
            (entry,) = store.register(path, [wanted])
        return entry

    def resolve_predictions(self) -> tuple[ScoredPrediction, ...]:
        """Score open predictions against what was measured after they were registered.

        Raises:
            PredictionError: the log is no longer intact.
        """
        from profiler.generality import store

        with self.released() as path:
            return store.resolve(path)

    def report(
        self,
        name: str,
        component: str | None = None,
        *,
        out: str | Path | None = None,
        attention: bool = False,
        model: Any = None,
        trust_remote_code: bool = False,
        allow_pickle: bool = False,
        device: str = "cpu",
        png: str | Path | None = None,
        size: tuple[int, int] = PICTURE_SIZE,
        theme: Theme = "light",
    ) -> ReportFile:
        """Write a report as one HTML page that needs no network.

        Args:
            name: overview, component, behaviours, circuit, generality, or a file of your own in reports/.
            component: label, for reports about one component.
            out: where the page goes; beside the run if not given.
            attention: run the model again, for attention rows and values at every token shown.
            model: the model to run for `attention`, as for `patch`.
            trust_remote_code: as for `patch`.
            allow_pickle: as for `patch`.
            device: as for `patch`.
            png: also take a picture of the page, of this `size` (pixels) and theme, with Chromium or Chrome.

        Raises:
            ProfilerError: there is no such report or component, or the run lacks the tables it needs.
        """
        from profiler.pages import build, picture

        path = Path(out or build.default_path(self.path, name, component))
        build.refuse(path)
        given: Mapping[str, pl.DataFrame] = {}
        if attention and (name != "component" or component is None):
            raise ComponentError("--attention is for the card of one component: report RUN component --component L0H0")
        if attention and component is not None:
            from profiler import actions

            given = actions.context_tokens(
                self.path,
                self.connection,
                component,
                model=model,
                trust_remote_code=trust_remote_code,
                allow_pickle=allow_pickle,
                device=device,
            )
        text = build.build_open(self.connection, name, component, given)
        build.write(path, text)
        taken = picture.take(path, Path(png), size, theme) if png is not None else None
        return ReportFile(path, len(text.encode()), taken)

    def site(
        self,
        out: str | Path,
        *,
        cards: int | None = 100,
        components: Sequence[str] = (),
        workers: int | None = None,
        report: Callable[[Any], None] = silent,
    ) -> Any:
        """Write a folder of pages: overview, a table of all components, cards, reports, queries.

        Args:
            out: the folder; a site that is there is replaced, anything else refused.
            cards: cards of the most important heads and neurons; None makes all.
            components: labels whose cards are made too.
            workers: processes that make cards; None takes as many as there are cores.
            report: told after each card how many are done.

        Returns:
            A `profiler.pages.site.SiteSummary`.

        Raises:
            SiteError: `out` is something else than a site, or cannot be written.
            ComponentError: the run has no such component.
        """
        from profiler.pages import site as sites

        return sites.build(self.path, out, cards, components, workers or _cores(), report)

    def similar_writes(
        self,
        component: str,
        *,
        top: int = 20,
        model: Any = None,
        trust_remote_code: bool = False,
        allow_pickle: bool = False,
        device: str = "cpu",
    ) -> pl.DataFrame:
        """Components of the same kind that write in a direction like that of `component`, read off the weights.

        Args:
            component: label of a head or another unit.
            top: how many; 0 gives all.
            model: as for `patch`.
            trust_remote_code: as for `patch`.
            allow_pickle: as for `patch`.
            device: as for `patch`.

        Returns:
            component; direction: cosine of the two directions, or of heads that of the matrices W_O' W_O, largest size
            first; direction_median: of its size over all components of the kind.

        Raises:
            ComponentError: the run has no such component, or it is an embedding or a bias.
            ModelError: as for `patch`.
        """
        from profiler import actions

        return actions.similar_writes(
            self.path,
            self.connection,
            component,
            top=top,
            model=model,
            trust_remote_code=trust_remote_code,
            allow_pickle=allow_pickle,
            device=device,
        )

    def export(
        self,
        out: str | Path,
        *,
        format: Literal["neuronpedia", "circuit-tracer", "parquet", "jsonl"],
        components: Sequence[str] = (),
        per_stratum: int = 5,
        recompute: bool = False,
        model: Any = None,
        trust_remote_code: bool = False,
        allow_pickle: bool = False,
        device: str = "cpu",
        report: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> "Exported":
        """Write components with their examples for other programs.

        Args:
            out: the folder; an earlier export is replaced, anything else refused.
            format: what reads it.
            components: labels; all of the run where none is given.
            per_stratum: most random samples of each stratum that holds a quantile.
            recompute: run the model for the activations of tokens that the run does not hold.
            model: the model to run for `recompute`, as for `patch`.
            trust_remote_code: as for `patch`.
            allow_pickle: as for `patch`.
            device: as for `patch`.
            report: told after each component how many are done, of how many.

        Raises:
            ExportError: `out` is something else than an export or cannot be written, or the format is unknown.
            ComponentError: the run lacks a component.
            ModelError: as for `patch`.
        """
        from profiler.export import write

        write.refuse(out, format)
        fill = None
        if recompute:
            from profiler import actions

            fill = actions.recomputed(
                self.path,
                self.connection,
                model=model,
                trust_remote_code=trust_remote_code,
                allow_pickle=allow_pickle,
                device=device,
            )
        return write.export(self.connection, out, format, components, per_stratum, fill, report)

    def try_text(
        self,
        text: str,
        component: str | None = None,
        *,
        remove: Sequence[str] = (),
        scale: Sequence[str] = (),
        set_to: Sequence[str] = (),
        after: str | None = None,
        most: int = 5,
        out: str | Path | None = None,
        model: Any = None,
        trust_remote_code: bool = False,
        allow_pickle: bool = False,
        device: str = "cpu",
    ) -> TextResult:
        """What the model does on a text, each value beside the component's spectrum in the corpus.

        Args:
            text: the text; what does not fit into the model's window is left out, and the result says so.
            component: label of the component that is asked about; None shows those of the largest |DLA| at each token.
            remove: labels of components that are removed in the pass.
            scale: components that are multiplied, as L2H1=0.5.
            set_to: neurons and channels whose activation is set, as L1N3=5.
            after: a token that DLA is taken toward at the last token; None takes the model's most probable.
            most: components at each token where none is named, and next tokens.
            out: write a page there, too.
            model: as for `patch`.
            trust_remote_code: as for `patch`.
            allow_pickle: as for `patch`.
            device: as for `patch`.

        Raises:
            ComponentError: the run lacks a component, or it cannot be changed.
            CorpusError: the text holds no token, or `after` is no single token.
            ModelError: as for `patch`.
        """
        from profiler.sentence import ask

        return ask.try_text(
            self.path,
            self.connection,
            text,
            component,
            remove=remove,
            scale=scale,
            set_to=set_to,
            after=after,
            most=most,
            model=model,
            trust_remote_code=trust_remote_code,
            allow_pickle=allow_pickle,
            device=device,
            out=out,
        )

    def patch(
        self,
        task: Any,
        *,
        scheme: str | None = None,
        pairs: int = 48,
        split: Literal["train", "held_out"] = "train",
        seed: int = 0,
        circuit: Any = None,
        neurons: int = 64,
        top: int = 6,
        draws: int = 199,
        mlps: bool = False,
        by_role: bool = True,
        outside: Literal["resample", "mean", "zero"] | None = None,
        edges: bool = False,
        steps: int = 8,
        metric: Any = "logit_diff",
        budget: float | None = None,
        model: Any = None,
        trust_remote_code: bool = False,
        allow_pickle: bool = False,
        device: str = "cpu",
        report: Report = silent,
    ) -> PatchResult:
        """Patch a task's pairs in both directions, choose a circuit and judge it; all of it is written into the run.

        The reading connection is closed meanwhile and opened again after.

        Args:
            task: a built-in task (ioi, docstring, greater-than, repeated-tokens, sva), a .jsonl file of pairs, or a
                list of pairs (`profiler.draw_pairs`), which is written beside the run.
            scheme: corruption scheme; None takes the task's first.
            pairs: pairs to choose the circuit on, and again for each test.
            split: choose the circuit on train or held_out words and wordings.
            seed: of every draw.
            circuit: judge this circuit, or the one of this .yaml file, instead of choosing one.
            neurons: neurons to patch exactly, half by attribution, half at random.
            top: heads whose redundancy is measured.
            draws: random circuits, and inflated circuits.
            mlps: let MLPs be members; otherwise circuits always keep them.
            by_role: patch heads at single roles too.
            outside: what everything outside a circuit writes; None takes what the circuit says, else resample.
            edges: choose and judge the circuit by edges (EAP-IG) rather than by nodes.
            steps: midpoints of integrated gradients.
            metric: what selects and judges: logit_diff, prob_diff, kl, accuracy, FILE.py:FUNCTION, or a function of
                (logits, options) that returns a number per prompt, larger for better.
            budget: seconds to keep to: settings that decide least are lowered, and what was lowered is reported.
            model: bundled, a hub name, a directory, or a loaded model; None takes the run's, where that is safe.
            trust_remote_code: run code that comes with a model that you name.
            allow_pickle: load weights of a model that you name that are not safetensors.
            device: cpu, cuda, mps.
            report: told each stage as it begins.

        Raises:
            PairError: the task, a setting or a pair cannot be used.
            ModelError: the run's model may not be loaded unasked, cannot be loaded, or is another one.
            CircuitError: the circuit cannot be read, or the model lacks a member.
        """
        from profiler import actions

        with self.released() as path:
            return actions.patch(
                path,
                task,
                circuit=circuit,
                model=model,
                trust_remote_code=trust_remote_code,
                allow_pickle=allow_pickle,
                device=device,
                report=report,
                scheme=scheme,
                pairs=pairs,
                split=split,
                seed=seed,
                neurons=neurons,
                top=top,
                draws=draws,
                mlps=mlps,
                by_role=by_role,
                outside=outside,
                edges=edges,
                steps=steps,
                metric=metric,
                budget=budget,
            )

    def paths(
        self,
        task: Any,
        asked: str | Sequence[str],
        *,
        positions: str = "all",
        scheme: str | None = None,
        pairs: int = 48,
        split: Literal["train", "held_out"] = "train",
        seed: int = 0,
        metric: Any = "logit_diff",
        model: Any = None,
        trust_remote_code: bool = False,
        allow_pickle: bool = False,
        device: str = "cpu",
        report: Report = silent,
    ) -> pl.DataFrame:
        """Measure what one component tells another along paths, beside other senders; it is written into the run.

        The reading connection is closed meanwhile and opened again after.

        Args:
            task: as for `patch`.
            asked: a path or several: `L0H5:L2H1.q` from a sender to a receiver, `L0H5:L2H1:logits` through it.
            positions: all, or a role of the pairs, at which the senders' messages are exchanged.
            scheme: as for `patch`.
            pairs: as for `patch`.
            split: as for `patch`.
            seed: as for `patch`.
            metric: as for `patch`.
            model: as for `patch`.
            trust_remote_code: as for `patch`.
            allow_pickle: as for `patch`.
            device: as for `patch`.
            report: told each stage as it begins.

        Returns:
            A row per path and sender: the path's own with share, interval and p, then its controls.

        Raises:
            CircuitError: a text is no path of the model.
            PairError, ModelError: as for `patch`.
        """
        from profiler import actions

        with self.released() as path:
            return actions.paths(
                path,
                task,
                asked,
                positions=positions,
                metric=metric,
                model=model,
                trust_remote_code=trust_remote_code,
                allow_pickle=allow_pickle,
                device=device,
                report=report,
                scheme=scheme,
                pairs=pairs,
                split=split,
                seed=seed,
            )

    def check(
        self,
        circuit: Any,
        *,
        metric: Any = None,
        corpus: Sequence[str] = (),
        reread: bool = False,
        tokens: int | None = 300_000,
        distributions: Sequence[str] = (),
        pairs: int = 96,
        draws: int = 99,
        seed: int = 0,
        budget: float | None = None,
        model: Any = None,
        trust_remote_code: bool = False,
        allow_pickle: bool = False,
        device: str = "cpu",
        report: Report = silent,
    ) -> CheckResult:
        """Check whether a circuit holds on other prompts and on running text; the verdict is written into the run.

        The reading connection is closed meanwhile and opened again after.

        Args:
            circuit: a task or circuit that `patch` stored in the run, a published circuit, a .yaml file, or a circuit.
            metric: what judges, as for `patch`; None takes the circuit's own, where that is a built-in one.
            corpus: the run's corpora as they were given to `record`, in the place of those that the run names.
            reread: read the files and hub datasets that the run names; otherwise the bundled corpus and `corpus` alone.
            tokens: most tokens of the run's corpus to read again; None reads what the run read.
            distributions: distributions of your own, NAME=FILE.jsonl or NAME=sql:CONDITION.
            pairs: prompts of each distribution.
            draws: random circuits that it is compared with.
            seed: of every draw.
            budget: seconds to keep to, as for `patch`.
            model: as for `patch`.
            trust_remote_code: as for `patch`.
            allow_pickle: as for `patch`.
            device: as for `patch`.
            report: as for `patch`.

        Raises:
            CircuitError: there is no such circuit, or the model lacks a member.
            CorpusError, PairError: something would have to be read that the call does not name.
            ModelError: as for `patch`.
        """
        from profiler import actions

        with self.released() as path:
            return actions.check(
                path,
                circuit,
                metric=metric,
                corpus=corpus,
                reread=reread,
                tokens=tokens,
                distributions=distributions,
                pairs=pairs,
                draws=draws,
                seed=seed,
                budget=budget,
                model=model,
                trust_remote_code=trust_remote_code,
                allow_pickle=allow_pickle,
                device=device,
                report=report,
            )

    def effects(
        self,
        *,
        corpus: Sequence[str] = (),
        reread: bool = False,
        methods: Sequence[str] = ("gradient", "integrated"),
        tokens: int | None = 20_000,
        integrated_tokens: int = 4_000,
        steps: int = 8,
        checked: int = 24,
        checked_windows: int = 12,
        repair: int = 16,
        routes: int = 8,
        seed: int = 0,
        model: Any = None,
        trust_remote_code: bool = False,
        allow_pickle: bool = False,
        device: str = "cpu",
        report: Report = silent,
    ) -> EffectsResult:
        """Measure total effects: what components do to the next tokens through everything after them. Written into the
        run, in the place of an earlier pass.

        The reading connection is closed meanwhile and opened again after.

        Args:
            corpus: as for `check`.
            reread: as for `check`.
            methods: gradient, at what the model did; frozen, with attention patterns and denominators of norms held;
                integrated, averaged between the mean and what a layer's heads did, of heads alone.
            tokens: tokens of the run's text to read, in windows chosen by hash; None reads what the run read.
            integrated_tokens: the same for `integrated`.
            steps: points along the way of `integrated`.
            checked: ablations of each layer, kind and method that the estimates are held against; 0 makes none.
            checked_windows: windows that these are drawn from.
            repair: positions of each head at which self-repair is measured; 0 measures none.
            routes: heads whose effect is split over what reads them; 0 splits none.
            seed: of every draw.
            model: as for `patch`.
            trust_remote_code: as for `patch`.
            allow_pickle: as for `patch`.
            device: as for `patch`.
            report: as for `patch`.

        Raises:
            ProfilerError: a setting is out of range.
            CorpusError: something would have to be read that the call does not name, or the run has no text.
            ModelError: as for `patch`.
        """
        from profiler import actions

        with self.released() as path:
            return actions.effects(
                path,
                corpus=corpus,
                reread=reread,
                methods=tuple(methods),
                tokens=tokens,
                integrated_tokens=integrated_tokens,
                steps=steps,
                checked=checked,
                checked_windows=checked_windows,
                repair=repair,
                routes=routes,
                seed=seed,
                model=model,
                trust_remote_code=trust_remote_code,
                allow_pickle=allow_pickle,
                device=device,
                report=report,
            )


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open(path: str | Path) -> Run:
    """Open a finished run for reading.

    Raises:
        RunError: no such file, not a DuckDB file, not a run, or a run that is not finished.
    """
    return Run(Path(path), queries.open_run(path))
