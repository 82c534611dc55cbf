"""`profiler check` as a library call: a finished circuit, and what becomes of it off the prompts it was found on.

1. the circuit: stored in the run by `profiler patch`, or a YAML file                     circuits.py
2. the run's corpus, read again, and the ladder of distributions                          text.py, ladder.py
3. STAGES: each takes the Subject and returns rows: Findings, and records of its own      measure.py, kept.py, coverage.py ...
4. the verdict over all findings, and everything into the run                             verdict.py, store.py

Cost: with the bundled model and 300k tokens some minutes on one core; a forecast is reported first.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from profiler.circuits.circuit import Circuit, check_circuit
from profiler.circuits.places import place_of
from profiler.errors import ComponentError, PairError
from profiler.generality import (
    circuits,
    counterexamples_stage,
    coverage,
    cross,
    forecast,
    kept,
    ladder,
    measure,
    placed,
    placed_edits,
    replacement_stage,
    roles,
    store,
    text,
    verdict,
    weights,
)
from profiler.generality.finding import Finding
from profiler.generality.rungs import FRESH, Rung
from profiler.generality.subject import CheckSettings, Report, Reread, Subject
from profiler.model import Model
from profiler.patching.bridge import network_of
from profiler.query import run as run_query

Stage = Callable[[Subject], tuple[Any, ...]]

STAGES: tuple[tuple[str, Stage], ...] = (
    ("prompts", measure.findings),
    ("running text", kept.findings),
    ("roles at their places", placed.findings),
    ("edits at the places of roles", placed_edits.edited),
    ("roles", coverage.findings),
    ("other tasks", cross.rows),
    ("replacement by understanding", replacement_stage.findings),
    ("weights", weights.findings),
    ("counter-examples", counterexamples_stage.wrong_places),
    ("edits and swaps", counterexamples_stage.edited),
)
"""Name and function of each stage, in order. A stage returns Findings, and frozen dataclasses of its own for detail rows."""


@dataclass(frozen=True)
class Checked:
    """What a check found: the verdict, the ladder, every finding, and the detail rows of all stages."""

    subject: Subject
    verdict: verdict.Verdict
    findings: tuple[Finding, ...]
    details: tuple[Any, ...]

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """The ladder."""
        return self.subject.ladder.rungs


def check(run: Path, name: str, model: Model, settings: CheckSettings, report: Report = print) -> Checked:
    """Check a circuit, and write what was found into the run.

    Args:
        name: of a circuit in the run, of its task, or a YAML file.
        model: the run's.
        report: told what is being done; its first line is the forecast.

    Raises:
        CircuitError: there is no such circuit, or the model lacks a member.
        RunError: the file is no run, or a run of another model.
        PairError, QueryError: a rung of the user's own cannot be used.
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
    names = [rung.name for rung in subject.ladder.rungs]
    judged = verdict.judge(findings, names, store.keys_for(run, subject.circuit.name))
    store.write(
        run, subject.circuit.name, circuit=subject.circuit, findings=findings, rungs=subject.ladder.rungs, verdict=judged,
        details=details, settings=asdict(settings), seconds=time.perf_counter() - began,
    )  # fmt: skip
    store.resolve(run, roles.ORIGIN)
    return Checked(subject, judged, findings, details)


def subject_of(run: Path, name: str, model: Model, settings: CheckSettings, report: Report = print) -> Subject:
    """The circuit and its ladder, ready for every stage."""
    refuse_other_model(run, model)
    found = refuse_unasked(run, name, settings.reread)
    net = network_of(model)
    check_circuit(found.circuit, net.n_layers, net.n_heads, net.d_mlp)
    report("reading the corpus")
    read = text.read(run, model, settings.tokens, settings.reread)
    report("the ladder")
    rungs = ladder.build(model, net, run, found.task, read, settings)
    return Subject(model, net, found.circuit, run, found.task, rungs, read, settings, report)


def refuse_unasked(run: Path, name: str, reread: Reread) -> circuits.Found:
    """The circuit, if everything that its check reads may be read.

    Raises:
        CircuitError: there is no such circuit.
        CorpusError: the run's corpus is neither named nor agreed to (text.config_of).
        PairError: the run names a file of pairs that is not agreed to.
    """
    text.config_of(run, reread)
    found = circuits.find(run, name)
    if found.task is not None and found.task.is_file and not reread.agreed:
        raise PairError(f"{run} found circuit {found.circuit.name!r} on the pairs in {found.task.task}, a file that is not read on the "
                        "word of a run: add --reread, or give the circuit as a .yaml")  # fmt: skip
    return found


def refuse_other_model(run: Path, model: Model) -> None:
    """Whether the run is of this model.

    Raises:
        ComponentError: it is of another one, whose components have nothing to do with these.
    """
    name, known = run_query(run, "SELECT model, model_hash FROM runs").row(0)
    if known != model.spec.weights_hash:
        raise ComponentError(f"{run} is a run of {name!r}, whose weights are not those of {model.spec.name!r}: name that model with "
                             "--model, or record a run of this one")  # fmt: skip


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
    return replace(row, general_form_of=own) if place_of(own) and row.role != own else row


def examples(subject: Subject) -> tuple[store.Example, ...]:
    """One row per prompt, and per document of running text: what discovery and test must not have in common."""
    prompts = [
        store.Example(one.rung.name, _key(pair.clean))
        for one in subject.ladder.prompts if one.setting is not None for pair in one.setting.batch.pairs
    ]  # fmt: skip
    places = {w.document.doc_id: w.document.place for w in subject.text.windows}
    documents = [
        store.Example(one.rung.name, _key(places[number]))
        for one in subject.ladder.corpus for number in sorted(set(subject.text.documents[one.chosen].tolist()))
    ]  # fmt: skip
    return (*prompts, *documents)


def _key(what: object) -> str:
    return blake2b(repr(what).encode(), digest_size=8).hexdigest()
