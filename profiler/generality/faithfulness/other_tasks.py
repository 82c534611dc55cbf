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
    circuits = {one.circuit.name: one for one in circuit_of_run.everyone(subject.run)}
    circuits[subject.circuit.name] = circuit_of_run.CircuitOfRun(subject.circuit, subject.task)
    tasks = {_name(one.task): one.task for one in circuits.values() if one.task is not None}
    if left := [] if subject.settings.reread.agreed else [name for name, task in tasks.items() if task.is_file]:
        subject.report(
            f"left out, since the run alone names their files of pairs (--reread reads them): {', '.join(left)}"
        )
        tasks = {name: task for name, task in tasks.items() if name not in left}
    if len(tasks) <= 1:
        return StageResult()
    settings = {name: made for name, task in tasks.items() if (made := _prepared(subject, task)) is not None}
    cells = (_cell(subject, one, name, made) for one in circuits.values() for name, made in settings.items())
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


def _cell(subject: CheckSubject, one: circuit_of_run.CircuitOfRun, name: str, made: PairRuns) -> CrossTask | None:
    """One cell; None where the task lacks positions of members, or the model lacks members."""
    net = subject.net
    try:
        check_circuit(one.circuit, net)
        check_roles(one.circuit, made.batch)
    except CircuitError:
        return None
    thresholds = subject.settings.thresholds
    mlps = bool(one.task and one.task.mlps) or "MLPs" not in one.circuit.scope.intact
    evaluate = circuit_tables.evaluator(with_outside(made, one.circuit.scope.outside), one.circuit, mlps=mlps)
    keep = circuit_tables.members_kept(evaluate, one.circuit)
    return cross_task(evaluate, keep, one.circuit.name, name, thresholds)
