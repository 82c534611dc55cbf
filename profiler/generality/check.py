"""`profiler check` as a library call: test a finished circuit off the prompts that it was found on.

1. the circuit: stored in the run by `profiler patch`, or a YAML file      distributions/circuit_of_run.py
2. the run's corpus, read again, and the distributions                     distributions/corpus.py, build.py
3. STAGES: each takes the CheckSubject and returns a StageResult                faithfulness/, coverage/, edits/, ...
4. the verdict over all findings, and everything into the run              evidence/verdict.py, store.py

Cost: with the bundled model and 300k tokens some minutes on one core; a forecast is reported first.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from profiler.circuits.circuit import Circuit, check_circuit
from profiler.database.query import run as run_query
from profiler.errors import CircuitError, ComponentError, PairError
from profiler.generality import duration, role_catalogue, store
from profiler.generality.coverage import at_positions as coverage_at_positions
from profiler.generality.coverage import everywhere
from profiler.generality.distributions import build, circuit_of_run, corpus
from profiler.generality.distributions.subject import CheckSettings, CheckSubject, Report, Reread
from profiler.generality.edits import at_positions as edits_at_positions
from profiler.generality.edits import of_roles
from profiler.generality.evidence import predictions, verdict
from profiler.generality.evidence.distributions import FRESH, Distribution
from profiler.generality.evidence.finding import Finding, StageResult, joined
from profiler.generality.faithfulness import other_tasks, prompts, running_text
from profiler.generality.replacement import of_members
from profiler.generality.weights import heads
from profiler.model.load import Model
from profiler.model.steps.as_network import network_of_direct_heads
from profiler.patching import own_metric
from profiler.patching.metrics import Metric

Stage = Callable[[CheckSubject], StageResult]

STAGES: tuple[tuple[str, Stage], ...] = (
    ("prompts", prompts.findings),
    ("running text", running_text.findings),
    ("roles at their positions", coverage_at_positions.findings),
    ("edits at the positions of roles", edits_at_positions.edited),
    ("roles", everywhere.findings),
    ("other tasks", other_tasks.rows),
    ("replacement by understanding", of_members.findings),
    ("weights", heads.findings),
    ("counter-examples", of_roles.wrong_positions),
    ("edits and swaps", of_roles.edited),
)
"""Name and function of each stage, in order."""


@dataclass(frozen=True)
class Checked:
    """The outcome of a check: the verdict, the distributions, every finding, and the detail rows of all stages."""

    subject: CheckSubject
    verdict: verdict.Verdict
    findings: tuple[Finding, ...]
    details: tuple[Any, ...]

    @property
    def distributions(self) -> tuple[Distribution, ...]:
        """The distributions, nearest first."""
        return self.subject.distributions.all

    def overlap(self) -> dict[str, float]:
        """Share of the examples of each distribution that are discovery examples too, by its name."""
        used: dict[str, list[str]] = {}
        for row in self.details:
            if isinstance(row, store.UsedExample):
                used.setdefault(row.distribution, []).append(row.key)
        discovery = next(
            (used.get(distribution.name, []) for distribution in self.distributions if distribution.ordinal == 0), []
        )
        return {
            name: shared for name, keys in used.items() if (shared := predictions.overlap(discovery, keys)) is not None
        }


def check(
    run: Path,
    name: str,
    model: Model,
    settings: CheckSettings,
    report: Report = print,
    metric: Metric | None = None,
    budget: float | None = None,
) -> Checked:
    """Check a circuit, and write the outcome into the run.

    Args:
        name: of a circuit in the run, of its task, or a YAML file.
        model: the run's.
        report: told what is being done; its first line is the forecast.
        metric: what judges; None takes the circuit's own, where that is built in.
        budget: seconds to keep to, by leaving out what decides least; None leaves nothing out.

    Raises:
        CircuitError: there is no such circuit, the model lacks a member, or the budget is too small for anything.
        RunError: the file is no run, or a run of another model.
        PairError, QueryError: a distribution of the user's own cannot be used.
    """
    began = time.perf_counter()
    subject, lowered = _within(budget, name, subject_of(run, name, model, settings, report, metric), metric)
    settings = subject.settings
    expected = role_catalogue.expect(run, subject.circuit, FRESH, settings.thresholds)
    for entry in expected.known:
        report(f"catalogue: {entry}")
    result = run_stages(subject)
    details = (*result.rows, *examples(subject))
    report("verdict")
    names = [distribution.name for distribution in subject.distributions.all]
    registered = store.keys_for(run, subject.circuit.name)
    judged = verdict.judge(result.findings, names, registered, settings.thresholds)
    if lowered:
        judged = replace(
            judged, change=(*judged.change, f"Left out to keep to a budget of time: {', '.join(lowered)}.")
        )
    store.write(
        run,
        subject.circuit.name,
        circuit=subject.circuit,
        findings=result.findings,
        distributions=subject.distributions.all,
        verdict=judged,
        details=details,
        settings={name: value for name, value in asdict(settings).items() if name != "thresholds"}
        | {"metric": subject.circuit.scope.metric},
        thresholds=settings.thresholds,
        seconds=time.perf_counter() - began,
    )
    store.resolve(run, role_catalogue.ORIGIN)
    return Checked(subject, judged, result.findings, details)


def _within(
    budget: float | None, name: str, subject: CheckSubject, metric: Metric | None
) -> tuple[CheckSubject, tuple[str, ...]]:
    """The check with as little left out as the budget asks for, its forecast reported; and what is left out."""
    costs, settings, lowered = duration.unit_costs(subject), subject.settings, tuple[str, ...]()
    if budget is not None:
        settings, lowered = duration.within(budget, subject, costs)
        subject.report(f"left out to keep to {budget / 60:.3g} min: {', '.join(lowered) or 'nothing'}")
    if (settings.tokens, settings.pairs) != (subject.settings.tokens, subject.settings.pairs):
        subject = subject_of(subject.run, name, subject.model, settings, subject.report, metric)
    subject = replace(subject, settings=settings)
    subject.report(duration.forecast(subject, costs).sentence)
    return subject, lowered


def subject_of(
    run: Path,
    name: str,
    model: Model,
    settings: CheckSettings,
    report: Report = print,
    metric: Metric | None = None,
) -> CheckSubject:
    """The circuit and its distributions, ready for every stage."""
    refuse_other_model(run, model)
    chosen = refuse_unasked(run, name, settings.reread, metric)
    judges = metric_of(chosen.circuit, metric)
    circuit = replace(chosen.circuit, scope=replace(chosen.circuit.scope, metric=judges.name))
    net = network_of_direct_heads(model)
    check_circuit(circuit, net)
    report("reading the corpus")
    read = corpus.read(run, model, settings.tokens, settings.reread)
    report("the distributions")
    distributions = build.build(model, net, run, chosen.task, read, settings, circuit.scope.outside, judges)
    for sentence in build.left_out(distributions, chosen.task, settings):
        report(sentence)
    return CheckSubject(model, net, circuit, run, chosen.task, distributions, read, settings, report)


def refuse_unasked(run: Path, name: str, reread: Reread, metric: Metric | None = None) -> circuit_of_run.CircuitOfRun:
    """Return the circuit if everything that its check reads may be read.

    Raises:
        CircuitError: there is no such circuit, or its metric is a function that is not given.
        CorpusError: the run's corpus is neither named nor agreed to (text.config_of).
        PairError: the run names a file of pairs that is not agreed to.
    """
    corpus.config_of(run, reread)
    chosen = circuit_of_run.find(run, name)
    if chosen.task is not None and chosen.task.is_file and not (reread.agreed or chosen.is_named):
        raise PairError(
            f"{run} found circuit {chosen.circuit.name!r} on the pairs in {chosen.task.task}, a file that is not read"
            " on the word of a run: add --reread, or give the circuit as a .yaml"
        )
    metric_of(chosen.circuit, metric)
    return chosen


def metric_of(circuit: Circuit, given: Metric | None) -> Metric:
    """The metric that judges a circuit: the given one, else its scope's if that is built in.

    Raises:
        CircuitError: its scope names a function of somebody's own, which is never loaded on the word of a file.
    """
    chosen = given or own_metric.known(circuit.scope.metric)
    if chosen is None:
        raise CircuitError(
            f"circuit {circuit.name!r} was found by metric {circuit.scope.metric}, a function that is not loaded on the"
            " word of a run: give it again as --metric FILE.py:FUNCTION, or another metric"
        )
    return chosen


def refuse_other_model(run: Path, model: Model) -> None:
    """Check that the run is of this model.

    Raises:
        ComponentError: it is of another one, whose components are not these.
    """
    name, known = run_query(run, "SELECT model, model_hash FROM runs").row(0)
    if known != model.spec.weights_hash:
        raise ComponentError(
            f"{run} is a run of {name!r}, whose weights are not those of {model.spec.name!r}: name that model with "
            "--model, or record a run of this one"
        )


def run_stages(subject: CheckSubject) -> StageResult:
    """Findings and rows of all stages that are not left out, in order."""
    results = []
    for name, stage in STAGES:
        subject.report(name)
        results.append(StageResult() if name in subject.settings.left_out else stage(subject))
    return joined(results)


def examples(subject: CheckSubject) -> tuple[store.UsedExample, ...]:
    """One row per prompt, and per document of running text, to find what discovery and test have in common."""
    pairs = [
        store.UsedExample(asked.distribution.name, _key(pair.clean))
        for asked in subject.distributions.prompts
        if asked.setting is not None
        for pair in asked.setting.batch.pairs
    ]
    places = {w.document.doc_id: w.document.place for w in subject.text.windows}
    documents = [
        store.UsedExample(asked.distribution.name, _key(places[number]))
        for asked in subject.distributions.corpus
        for number in sorted(set(subject.text.documents[asked.chosen].tolist()))
    ]
    return (*pairs, *documents)


def _key(what: object) -> str:
    return blake2b(repr(what).encode(), digest_size=8).hexdigest()
