"""Matrix of the run's circuits by the run's tasks: faithfulness of each circuit on each task's discovery prompts.

Why: two circuits may be one (Hanna et al. 2024, "Have faith in faithfulness", have the only public matrix of this
kind), and a circuit that does another task as well as its own is not the circuit of a task. Cost: four forward passes
over each task's pairs per circuit.
"""

from profiler.circuits import circuit_tables
from profiler.circuits.circuit import check_circuit
from profiler.circuits.nodes import check_roles
from profiler.errors import CircuitError, PairError
from profiler.generality.distributions import circuit_of_run
from profiler.generality.distributions.build import with_outside
from profiler.generality.distributions.subject import CheckSubject
from profiler.generality.evidence.distributions import CrossTask
from profiler.generality.evidence.finding import StageResult
from profiler.generality.faithfulness.prompts import cross_task
from profiler.patching import setting as settings_of
from profiler.patching.setting import PairRuns, PatchSettings


def rows(subject: CheckSubject) -> StageResult:
    """The matrix of the run's circuits (and the checked one) by their tasks; empty where there is one task alone."""
    circuits = {of_run.circuit.name: of_run for of_run in circuit_of_run.everyone(subject.run)}
    circuits[subject.circuit.name] = circuit_of_run.CircuitOfRun(subject.circuit, subject.task)
    tasks = {_name(of_run.task): of_run.task for of_run in circuits.values() if of_run.task is not None}
    if left := [] if subject.settings.reread.agreed else [name for name, task in tasks.items() if task.is_file]:
        subject.report(
            f"left out, since the run alone names their files of pairs (--reread reads them): {', '.join(left)}"
        )
        tasks = {name: task for name, task in tasks.items() if name not in left}
    if len(tasks) <= 1:
        return StageResult()
    settings = {name: made for name, task in tasks.items() if (made := _prepared(subject, task)) is not None}
    cells = (_cell(subject, of_run, name, made) for of_run in circuits.values() for name, made in settings.items())
    return StageResult(rows=tuple(cell for cell in cells if cell is not None))


def _name(task: PatchSettings) -> str:
    return f"{task.name}/{task.scheme}" if task.scheme else task.name


def _prepared(subject: CheckSubject, task: PatchSettings) -> PairRuns | None:
    """Discovery pairs of a task with both runs; None where they cannot be read any more."""
    try:
        drawn = settings_of.draw(subject.model, task, task.split, task.seed)
        return settings_of.prepare(task.name, subject.net, settings_of.encoded(subject.model, drawn))
    except PairError:
        return None


def _cell(subject: CheckSubject, of_run: circuit_of_run.CircuitOfRun, name: str, made: PairRuns) -> CrossTask | None:
    """One cell; None where the task lacks positions of members, or the model lacks members."""
    net = subject.net
    try:
        check_circuit(of_run.circuit, net)
        check_roles(of_run.circuit, made.batch)
    except CircuitError:
        return None
    thresholds = subject.settings.thresholds
    mlps = bool(of_run.task and of_run.task.mlps) or "MLPs" not in of_run.circuit.scope.intact
    evaluate = circuit_tables.evaluator(with_outside(made, of_run.circuit.scope.outside), of_run.circuit, mlps=mlps)
    keep = circuit_tables.members_kept(evaluate, of_run.circuit)
    return cross_task(evaluate, keep, of_run.circuit.name, name, thresholds)
