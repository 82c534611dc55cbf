"""`profiler check` as a library call: a finished circuit, and what becomes of it off the prompts it was found on.

1. the circuit: stored in the run by `profiler patch`, or a YAML file          distributions/circuit_of_run.py
2. the run's corpus, read again, and the distributions                         distributions/corpus.py, build.py
3. STAGES: each takes the Subject and returns rows: Findings, and its own      faithfulness/, coverage/, edits/,
replacement/ ...
4. the verdict over all findings, and everything into the run                  evidence/verdict.py, store.py

Cost: with the bundled model and 300k tokens some minutes on one core; a forecast is reported first.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from profiler.circuits.circuit import Circuit, check_circuit
from profiler.circuits.positions import position_role
from profiler.database.query import run as run_query
from profiler.errors import ComponentError, PairError
from profiler.generality import forecast, roles, store
from profiler.generality.coverage import at_places as coverage_at_places
from profiler.generality.coverage import everywhere
from profiler.generality.distributions import build, circuit_of_run, corpus
from profiler.generality.distributions.subject import CheckSettings, Report, Reread, Subject
from profiler.generality.edits import at_places as edit_at_places
from profiler.generality.edits import stage as edit_stage
from profiler.generality.evidence import verdict
from profiler.generality.evidence.distributions import FRESH, Distribution
from profiler.generality.evidence.finding import Finding
from profiler.generality.faithfulness import other_tasks, running_text
from profiler.generality.faithfulness import prompts as measure
from profiler.generality.replacement import stage as replacement_stage
from profiler.generality.weights import heads
from profiler.model.as_network import network_of
from profiler.model.load import Model

Stage = Callable[[Subject], tuple[Any, ...]]

STAGES: tuple[tuple[str, Stage], ...] = (
    ("prompts", measure.findings),
    ("running text", running_text.findings),
    ("roles at their places", coverage_at_places.findings),
    ("edits at the places of roles", edit_at_places.edited),
    ("roles", everywhere.findings),
    ("other tasks", other_tasks.rows),
    ("replacement by understanding", replacement_stage.findings),
    ("weights", heads.findings),
    ("counter-examples", edit_stage.wrong_places),
    ("edits and swaps", edit_stage.edited),
)
"""Name and function of each stage, in order. A stage returns Findings, and frozen dataclasses of its own for detail rows."""


@dataclass(frozen=True)
class Checked:
    """What a check found: the verdict, the distributions, every finding, and the detail rows of all stages."""

    subject: Subject
    verdict: verdict.Verdict
    findings: tuple[Finding, ...]
    details: tuple[Any, ...]

    @property
    def distributions(self) -> tuple[Distribution, ...]:
        """The distributions."""
        return self.subject.distributions.all


def check(run: Path, name: str, model: Model, settings: CheckSettings, report: Report = print) -> Checked:
    """Check a circuit, and write what was found into the run.

    Args:
        name: of a circuit in the run, of its task, or a YAML file.
        model: the run's.
        report: told what is being done; its first line is the forecast.

    Raises:
        CircuitError: there is no such circuit, or the model lacks a member.
        RunError: the file is no run, or a run of another model.
        PairError, QueryError: a distribution of the user's own cannot be used.
    """
    began = time.perf_counter()
    subject = subject_of(run, name, model, settings, report)
    report(forecast.forecast(subject).sentence)
    expected = roles.expect(run, subject.circuit, FRESH)
    for one in expected.known:
        report(f"catalogue: {one}")
    rows = run_stages(subject)
    findings = tuple(row for row in rows if isinstance(row, Finding))
    details = tuple(row for row in rows if not isinstance(row, Finding)) + examples(subject)
    report("verdict")
    names = [distribution.name for distribution in subject.distributions.all]
    judged = verdict.judge(findings, names, store.keys_for(run, subject.circuit.name))
    store.write(
        run,
        subject.circuit.name,
        circuit=subject.circuit,
        findings=findings,
        distributions=subject.distributions.all,
        verdict=judged,
        details=details,
        settings=asdict(settings),
        seconds=time.perf_counter() - began,
    )
    store.resolve(run, roles.ORIGIN)
    return Checked(subject, judged, findings, details)


def subject_of(run: Path, name: str, model: Model, settings: CheckSettings, report: Report = print) -> Subject:
    """The circuit and its distributions, ready for every stage."""
    refuse_other_model(run, model)
    found = refuse_unasked(run, name, settings.reread)
    net = network_of(model)
    check_circuit(found.circuit, net.n_layers, net.n_heads, net.d_mlp)
    report("reading the corpus")
    read = corpus.read(run, model, settings.tokens, settings.reread)
    report("the distributions")
    distributions = build.build(model, net, run, found.task, read, settings)
    return Subject(model, net, found.circuit, run, found.task, distributions, read, settings, report)


def refuse_unasked(run: Path, name: str, reread: Reread) -> circuit_of_run.Found:
    """The circuit, if everything that its check reads may be read.

    Raises:
        CircuitError: there is no such circuit.
        CorpusError: the run's corpus is neither named nor agreed to (text.config_of).
        PairError: the run names a file of pairs that is not agreed to.
    """
    corpus.config_of(run, reread)
    found = circuit_of_run.find(run, name)
    if found.task is not None and found.task.is_file and not reread.agreed:
        raise PairError(
            f"{run} found circuit {found.circuit.name!r} on the pairs in {found.task.task}, a file that is not read on"
            " the word of a run: add --reread, or give the circuit as a .yaml"
        )
    return found


def refuse_other_model(run: Path, model: Model) -> None:
    """Whether the run is of this model.

    Raises:
        ComponentError: it is of another one, whose components have nothing to do with these.
    """
    name, known = run_query(run, "SELECT model, model_hash FROM runs").row(0)
    if known != model.spec.weights_hash:
        raise ComponentError(
            f"{run} is a run of {name!r}, whose weights are not those of {model.spec.name!r}: name that model with "
            "--model, or record a run of this one"
        )


def run_stages(subject: Subject) -> tuple[Any, ...]:
    """Rows of all stages, in order."""
    rows: list[Any] = []
    for name, stage in STAGES:
        subject.report(name)
        rows += (marked(row, subject.circuit) for row in stage(subject))
    return tuple(rows)


def marked(row: Any, circuit: Circuit) -> Any:
    """A finding about the general form of a role that names places, with that role beside; any other row as it is."""
    if not isinstance(row, Finding) or not row.role:
        return row
    own = next((member.role for member in circuit.members if member.component == row.subject), "")
    return replace(row, general_form_of=own) if position_role(own) and row.role != own else row


def examples(subject: Subject) -> tuple[store.Example, ...]:
    """One row per prompt, and per document of running text: what discovery and test must not have in common."""
    prompts = [
        store.Example(one.distribution.name, _key(pair.clean))
        for one in subject.distributions.prompts
        if one.setting is not None
        for pair in one.setting.batch.pairs
    ]
    places = {w.document.doc_id: w.document.place for w in subject.text.windows}
    documents = [
        store.Example(one.distribution.name, _key(places[number]))
        for one in subject.distributions.corpus
        for number in sorted(set(subject.text.documents[one.chosen].tolist()))
    ]
    return (*prompts, *documents)


def _key(what: object) -> str:
    return blake2b(repr(what).encode(), digest_size=8).hexdigest()
