"""What decides the members and the word of a circuit, without the rest of `patch` and `check`, and without a run file.

The steps are those of the commands: heads are patched in both directions and a circuit is chosen from them
(circuits/choose.py), its members' roles are read off where they act, faithfulness, necessity and roles are asked of
every distribution of prompts, and the verdict is judged. Left out is what says more of a circuit and changes neither
(attribution, neurons, edges, redundancy, random circuits of `patch`, minimality, stability), and the database. A test
holds members, roles and words to those of the commands.
Cost: a fifth of the commands'; see docs/truth.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from profiler.circuits import choose, circuit_tables
from profiler.circuits.circuit import Circuit, Scope
from profiler.generality.coverage import at_positions
from profiler.generality.distributions import build, corpus
from profiler.generality.distributions.subject import CheckSettings, CheckSubject, RunText
from profiler.generality.evidence import verdict
from profiler.generality.evidence.finding import joined
from profiler.generality.faithfulness import prompts
from profiler.model.load import Model
from profiler.model.steps.network import Network
from profiler.patching import setting
from profiler.patching.setting import PairRuns, PatchSettings
from profiler.patching.sites import parse_target
from profiler.patching.sweep import resample
from profiler.patching.sweep_tables import PatchedPanel, SweepPlan, run_plan


@dataclass(frozen=True)
class DecidedCircuit:
    """A circuit, and the score of every node that it was chosen by: (label, share of the effect)."""

    circuit: Circuit
    scores: tuple[tuple[str, float], ...]


def decide_circuit(model: Model, net: Network, settings: PatchSettings, given: Circuit | None = None) -> DecidedCircuit:
    """The circuit that `profiler patch` finds on the pairs of the settings; the given one where there is one.

    Raises:
        PairError: the pairs cannot be used.
    """
    pairs = setting.encoded(model, setting.draw(model, settings, settings.split, settings.seed))
    main = setting.prepare("discovery", net, pairs)
    evaluate = circuit_tables.evaluator(main, mlps=settings.mlps)
    effects = circuit_tables.effects_of(main, (), evaluate.nodes)
    circuit = given
    if circuit is None:
        labels = evaluate.labels(choose.choose(evaluate, effects))
        roles = circuit_tables.reads(main, _at_roles(main, labels), labels)
        scope = Scope(
            settings.name,
            f"{len(main.batch)} pairs, {settings.split}, seed {settings.seed}",
            ("own",),
            intact="embedding, biases, MLPs",
        )
        circuit = circuit_tables.record(f"{settings.name}-own", model.spec.name, labels, {}, roles, {}, scope)
    return DecidedCircuit(circuit, tuple(zip(evaluate.nodes, effects.score.tolist(), strict=True)))


def _at_roles(main: PairRuns, labels: Sequence[str]) -> list[PatchedPanel]:
    """The members patched at every role, in both directions."""
    heads = [parse_target(label) for label in labels]
    targets = tuple(head.during(role) for role in main.roles for head in heads)
    both = (
        SweepPlan(targets, "denoise", "resample", resample(main.clean)),
        SweepPlan(targets, "noise", "resample", resample(main.corrupted)),
    )
    return [result for plan in both for result in run_plan(main, plan)]


def decide_word(
    model: Model, net: Network, circuit: Circuit, task: PatchSettings, settings: CheckSettings, run: Path
) -> verdict.Verdict:
    """The verdict of `profiler check` on distributions of prompts.

    Args:
        task: the settings that the circuit's pairs are drawn by.
        run: the run that a check would write into. It is read where a built-in task's question is looked for in its
            corpus; for pairs of a file it need not be there.

    Raises:
        PairError: a distribution cannot be used.
    """
    text = RunText((), corpus.layout_of(model, None), (), 0, 0, "no corpus is read")
    distributions = build.build(model, net, run, task, text, settings, circuit.scope.outside)
    subject = CheckSubject(model, net, circuit, run, task, distributions, text, settings, lambda _: None)
    result = joined([prompts.findings(subject), at_positions.findings(subject)])
    return verdict.judge(
        result.findings, [distribution.name for distribution in distributions.all], (), settings.thresholds
    )
