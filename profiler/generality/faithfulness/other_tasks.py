"""Every circuit of the run on the discovery prompts of every task of the run.

Why: two circuits may be one (circuits.md, section 2.2: the only public matrix of this kind is by Hanna et al. 2024,
  "Have faith in
faithfulness"), and a circuit that does another task as well as its own is not the circuit of a task. Cost: four forward
passes over each task's pairs per circuit.
"""

from profiler.circuits import circuit_tables
from profiler.circuits.circuit import check_circuit
from profiler.circuits.nodes import check_roles, members_nodes
from profiler.errors import CircuitError, PairError
from profiler.generality.distributions import circuit_of_run
from profiler.generality.distributions.subject import Subject
from profiler.generality.evidence.distributions import CrossTask
from profiler.generality.faithfulness.prompts import cross_task
from profiler.patching import setting as settings_of
from profiler.patching.setting import PairRuns, PatchSettings


def rows(subject: Subject) -> tuple[CrossTask, ...]:
    """The matrix of the run's circuits (and the one that is checked) by their tasks; nothing where there is one task
    alone."""
    found = {one.circuit.name: one for one in circuit_of_run.everyone(subject.run)}
    found[subject.circuit.name] = circuit_of_run.Found(subject.circuit, subject.task)
    tasks = {_name(one.task): one.task for one in found.values() if one.task is not None}
    if left := [] if subject.settings.reread.agreed else [name for name, task in tasks.items() if task.is_file]:
        subject.report(
            f"left out, since the run alone names their files of pairs (--reread reads them): {', '.join(left)}"
        )
        tasks = {name: task for name, task in tasks.items() if name not in left}
    if len(tasks) < 2:
        return ()
    settings = {name: made for name, task in tasks.items() if (made := _prepared(subject, task)) is not None}
    return tuple(
        cell for one in found.values() for name, made in settings.items() if (cell := _cell(subject, one, name, made))
    )


def _name(task: PatchSettings) -> str:
    return f"{task.name}/{task.scheme}" if task.scheme else task.name


def _prepared(subject: Subject, task: PatchSettings) -> PairRuns | None:
    """Discovery pairs of a task with both runs; None where they cannot be read any more."""
    try:
        drawn = settings_of.draw(subject.model, task, task.split, task.seed)
        return settings_of.prepare(task.name, subject.net, settings_of.encoded(subject.model, task, drawn))
    except PairError:
        return None


def _cell(subject: Subject, one: circuit_of_run.Found, name: str, made: PairRuns) -> CrossTask | None:
    """One cell; None where the circuit's members stand at roles that the task does not have, or are not in the
    model."""
    net = subject.net
    try:
        check_circuit(one.circuit, net.n_layers, net.n_heads, net.d_mlp)
        check_roles(one.circuit, made.batch)
    except CircuitError:
        return None
    mlps = bool(one.task and one.task.mlps) or "MLPs" not in one.circuit.scope.intact
    evaluate = circuit_tables.evaluator(made, one.circuit, mlps=mlps)
    return cross_task(evaluate, evaluate.mask(members_nodes(one.circuit)), one.circuit.name, name)
