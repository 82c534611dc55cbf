"""Faithfulness, necessity and self-repair of a circuit on each distribution of prompts, beside matched random circuits.

With F(S) the mean metric (the logit difference unless asked otherwise) when only the nodes of S are live, M all nodes,
C the circuit:

* faithfulness (F(C) - F(none)) / (F(M) - F(none)): 1 is what the model does; above 1 is over-recovery, no success
  (Nainani et al. 2024). Null: other circuits with as many heads and MLPs in each layer, at the same positions; all of
  them where they are few. A circuit is better than these where it is nearer to 1, not where it is higher, and a random
  one is as good where it is as near and as necessary (`circuits.scoring.null.shortfall`).
* necessity (F(M) - F(M - C)) / (F(M) - F(none)): the drop when the circuit alone is removed. Null: the same, with at
  most the whole effect lost: to lose more than all is no better.
* incompleteness |F(C - K) - F(M - K)| / (F(M) - F(none)): the largest over K each member, and all of them: what stands
  in for members in the model and is not in the circuit. On the discovery prompts the node that makes up for most of it
  is named, `restores`. It describes and decides nothing.
* model effect F(M) - F(none), in the metric's unit: what there is to explain. Where it is not above 0 beyond doubt,
  shares of it are refused.
* repaired share of a member: - (change - direct) / direct, the part of its direct effect that later components make up
  for (`profiler.patching.redundancy.self_repair`); of members whose direct effect is large enough (threshold
  `repairable`).

Every share is a ratio of sums; intervals resample whole documents where prompts come from documents, else prompts; and
where means stand outside the circuit, the prompts that these are means of (`patching.values`).
p = (1 + random circuits at least as good) / (1 + draws). Cost: two forward passes of NULL_PROMPTS prompts per random
circuit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from profiler.circuits import circuit_tables, node_sets
from profiler.circuits.by_edges import edge_sets
from profiler.circuits.circuit import Circuit
from profiler.circuits.nodes import check_roles, masks, members_nodes, node_labels, parse_node
from profiler.circuits.scoring import scores
from profiler.circuits.scoring.evaluate import Evaluator
from profiler.circuits.scoring.null import other_circuits, shortfall
from profiler.errors import CircuitError
from profiler.generality.distributions.subject import CheckSubject, PromptDistribution
from profiler.generality.evidence.distributions import DISCOVERY, CrossTask
from profiler.generality.evidence.finding import NO_NULL, CausalChoices, Finding, Interval, Null, Question, StageResult
from profiler.generality.evidence.thresholds import DEFAULT, Thresholds
from profiler.generality.faithfulness import trend
from profiler.patching.batch import Trace, batch_of
from profiler.patching.metrics import LOGIT_DIFF
from profiler.patching.redundancy import self_repair
from profiler.patching.setting import PairRuns
from profiler.patching.sites import parse_target
from profiler.patching.sweep import resample
from profiler.patching.values import rows_of
from profiler.statistics import (
    TAIL_90,
    bootstrap_ratio_redrawn,
    fewest_pairs,
    least_random_p,
    level,
    percentile_interval,
    random_set_p,
    sign_flip_p,
)

Keep = Bool[np.ndarray, " node"]
INDUCTION = "repeated-tokens"
NULL_PROMPTS = 24
"""Prompts that random circuits are run on: their scatter over circuits is far larger than over prompts."""
MOST_EDGE_DRAWS = 39
"""Random sets of edges: each is a whole pass of the prompts."""
TOKENS_AT_ONCE = 8192
"""Tokens of one pass of many circuits (circuits x prompts x offsets): more leaves a processor's cache."""


def clusters_of(setting: PairRuns) -> Int[np.ndarray, " pair"]:
    """The document of each pair, or a number of its own."""
    names = [pair.pair.stratum("document") or f"#{i}" for i, pair in enumerate(setting.batch.pairs)]
    return np.unique(names, return_inverse=True)[1]


def ratio(
    above: Float[np.ndarray, " unit"],
    below: Float[np.ndarray, " unit"],
    clusters: Int[np.ndarray, " unit"],
    seed: int = 0,
    again: tuple[Float[np.ndarray, "redraw unit"], Float[np.ndarray, "redraw unit"]] | None = None,
) -> Interval:
    """Sum of `above` over sum of `below`, with its percentile interval: whole clusters resampled in both together.

    Args:
        again: both with the references of means resampled, for the interval; None where there are no such references.
    """
    there = np.bincount(clusters) > 0
    parts = (above[None], below[None]) if again is None else again
    sums = [np.stack([np.bincount(clusters, weights=row)[there] for row in part]) for part in parts]
    n = int(there.sum())
    drawn = bootstrap_ratio_redrawn(sums[0], sums[1], seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(above.sum() / below.sum())
    drawn = drawn[np.isfinite(drawn)]
    lo, hi = percentile_interval(drawn) if len(drawn) else (value, value)
    return Interval(value, float(lo), float(hi), n)


def matched(nodes: Sequence[str], keep: Keep, draws: int, seed: int = 0) -> Bool[np.ndarray, "draw node"]:
    """Other circuits with as many components of each kind in each layer, at the same positions; neurons stay.

    Each is drawn once, the circuit itself never; where there are no more than `draws`, these are all
    (`circuits.scoring.null.other_circuits`).
    """
    return other_circuits(keep, _groups(nodes), draws, seed)[0]


def _groups(nodes: Sequence[str]) -> list[Int[np.ndarray, "component part"]]:
    """Places of the nodes of each layer and kind: a row per component, a column per position it is split into."""
    groups: dict[tuple[str, int], dict[str, list[int]]] = {}
    for index, node in enumerate(nodes):
        target = parse_node(node)
        if target.site != "neuron":
            groups.setdefault((target.site, target.layer), {}).setdefault(node.partition("@")[0], []).append(index)
    return [np.array(list(rows.values())) for rows in groups.values()]


def findings(subject: CheckSubject) -> StageResult:
    """Every distribution of prompts, and the trend of faithfulness over those that ask the circuit's own question."""
    rows: list[Finding] = []
    effects = []
    repairable = repaired_members(subject)
    for prompts in subject.distributions.prompts:
        subject.report(f"{prompts.distribution.name}: {prompts.distribution.n_prompts} prompts")
        made, effect = of_distribution(subject, prompts, repairable)
        rows += made
        if effect is not None and own_question(subject, prompts):
            effects.append(effect)
    return StageResult((*rows, *trend.findings(subject.circuit.name, effects, subject.settings.thresholds)))


def of_distribution(
    subject: CheckSubject, prompts: PromptDistribution, repairable: Sequence[str]
) -> tuple[list[Finding], trend.PairEffects | None]:
    """Everything of one distribution: `distribution_findings`, and self-repair of the members that it is asked of."""
    made, effect = distribution_findings(subject, prompts)
    if prompts.setting is not None and repairable:
        before = clean_writes(prompts.setting)
        made = [*made, *(_repair(subject, prompts, label, before) for label in repairable)]
    return made, effect


def own_question(subject: CheckSubject, prompts: PromptDistribution) -> bool:
    """Whether a distribution asks what the circuit was found on; repeated random tokens do so for induction alone."""
    return prompts.distribution.kind != "repeats" or (subject.task is not None and subject.task.name == INDUCTION)


def distribution_findings(
    subject: CheckSubject, prompts: PromptDistribution
) -> tuple[list[Finding], trend.PairEffects | None]:
    """Faithfulness, necessity and the model's own effect on one distribution; and the effect per pair."""
    distribution, own = prompts.distribution, own_question(subject, prompts)
    names = ("faithfulness", "necessity") if own else ("faithfulness on induction", "necessity for induction")
    keeps, drops = (_question(subject, prompts, name) for name in ("faithfulness", "necessity"))

    def refusals(why: str) -> list[Finding]:
        return [q.refused(name, distribution.n_units, why) for q, name in zip((keeps, drops), names, strict=True)]

    why = distribution.refused or _unfit(subject, prompts.setting)
    if why or prompts.setting is None:
        return refusals(why), None
    evaluate = circuit_tables.evaluator(prompts.setting, subject.circuit, mlps=subject.mlps)
    keep = circuit_tables.members_kept(evaluate, subject.circuit)
    whole, clusters = evaluate.model - evaluate.empty, clusters_of(prompts.setting)
    if len(whole) < (fewest := fewest_pairs(subject.settings.thresholds.alpha)):
        return refusals(f"{len(whole)} prompts: no test can decide on fewer than {fewest}"), None
    effect = keeps.finding("model effect", ratio(whole, np.ones_like(whole), clusters))
    if not scores.explainable(evaluate):
        return [effect, *refusals(nothing_to_explain(effect, prompts.setting.metric.unit))], None
    removed = _removed(evaluate, subject.circuit, keep)
    evaluate(np.concatenate([[keep, ~keep], keep & ~removed, ~removed]))  # together: what sets share is run once
    recovered = evaluate(keep[None])[0] - evaluate.empty
    gone = evaluate.model - evaluate(~keep[None])[0]
    random = random_circuits(subject, prompts.setting, keep)
    kept_again, gone_again = redrawn_parts(subject, prompts.setting, keep, evaluate.model)
    faithful = keeps.finding(
        names[0], ratio(recovered, whole, clusters, again=kept_again), closeness_null(random.faithful, random.necessity)
    )
    necessary = drops.finding(
        names[1], ratio(gone, whole, clusters, again=gone_again), null_of(random.necessity, random.necessity)
    )
    gaps = completeness(subject, prompts, evaluate, (keep, removed), keeps)
    return [effect, faithful, necessary, *gaps], trend.PairEffects(distribution, recovered, whole, clusters, kept_again)


Redrawn = tuple[Float[np.ndarray, "redraw pair"], Float[np.ndarray, "redraw pair"]] | None
"""Numerator and denominator of a share with the references of means resampled; None where there are no references."""


def redrawn_parts(
    subject: CheckSubject, setting: PairRuns, keep: Keep, model: Float[np.ndarray, " pair"]
) -> tuple[Redrawn, Redrawn]:
    """What the circuit keeps, and what is lost without it, over the whole, with the references resampled."""
    sets = np.stack([keep, ~keep, np.zeros_like(keep)])
    again = circuit_tables.redrawn_values(setting, subject.circuit, sets, mlps=subject.mlps)
    if again is None:
        return None, None
    with_circuit, without, empty = again.swapaxes(0, 1)
    return (with_circuit - empty, model - empty), (model - without, model - empty)


def _removed(evaluate: Evaluator, circuit: Circuit, keep: Keep) -> Bool[np.ndarray, "set node"]:
    """Each member, and all of them: what is taken out of circuit and model to see whether anything stands in for it."""
    members = np.stack([evaluate.mask([node]) for node in members_nodes(circuit)] or [keep])
    return np.concatenate([members, keep[None]])


def completeness(
    subject: CheckSubject,
    prompts: PromptDistribution,
    evaluate: Evaluator,
    sets: tuple[Keep, Bool[np.ndarray, "set node"]],
    question: Question,
) -> list[Finding]:
    """The largest incompleteness, and on the discovery prompts the node that makes up for most of it.

    Args:
        sets: the circuit, and what is taken out of it and of the model.
    """
    keep, tried = sets
    setting: PairRuns = prompts.setting  # type: ignore[assignment]
    clusters, whole = clusters_of(setting), evaluate.model - evaluate.empty
    removed = tried[level(scores.gaps(evaluate, keep, tried)).argmax()]
    inside, left = evaluate(np.stack([keep & ~removed, ~removed]))
    sign = np.sign((left - inside).mean()) or 1.0
    made = [question.finding("incompleteness", ratio(sign * (left - inside), whole, clusters))]
    outsiders = np.nonzero(~keep)[0]
    is_found_on = prompts.distribution.name == DISCOVERY and not subject.circuit.by_edges
    if not is_found_on or not len(outsiders) or made[0].lower <= subject.settings.thresholds.margin:
        return made
    grown = np.repeat((keep & ~removed)[None], len(outsiders), 0)
    grown[np.arange(len(outsiders)), outsiders] = True
    filled = sign * (evaluate(grown) - inside)
    best = int(level(filled.mean(-1)).argmax())
    label = evaluate.nodes[outsiders[best]]
    estimate = ratio(filled[best], whole, clusters)
    return [*made, replace(question, subject=label).finding("restores", estimate)] if (estimate.lo or 0.0) > 0 else made


def _question(
    subject: CheckSubject, prompts: PromptDistribution, technique: Literal["faithfulness", "necessity"]
) -> Question:
    distribution = prompts.distribution
    return subject.question(technique, distribution, choices=choices(subject, technique, distribution.name))


@dataclass(frozen=True, eq=False)
class NullFaithfulness:
    """Faithfulness and necessity of the circuit itself (first) and of random circuits, on the same prompts."""

    faithful: Float[np.ndarray, " circuit"]
    gone: Float[np.ndarray, " circuit"]

    @property
    def necessity(self) -> Float[np.ndarray, " circuit"]:
        """Necessity, at most the whole effect: to lose more than all is no better."""
        return np.asarray(np.minimum(self.gone, 1.0))


def random_circuits(subject: CheckSubject, setting: PairRuns, keep: Keep) -> NullFaithfulness:
    """The circuit and its random twins on NULL_PROMPTS of the distribution's prompts."""
    if subject.circuit.by_edges:
        return _random_edges(subject, setting, keep)
    nodes = node_labels(setting.net, subject.circuit, mlps=subject.mlps)
    drawn = np.concatenate([keep[None], matched(nodes, keep, subject.settings.draws, subject.settings.seed)])
    ends = np.stack([np.ones_like(keep), np.zeros_like(keep)])
    return _shares(on_pairs(setting, nodes, np.concatenate([ends, drawn, ~drawn])).mean(-1))


def _random_edges(subject: CheckSubject, setting: PairRuns, keep: Keep) -> NullFaithfulness:
    """The same for a circuit by edges, beside random sets of as many edges."""
    random_sets = edge_sets.other_edges(keep, min(subject.settings.draws, MOST_EDGE_DRAWS), subject.settings.seed)
    drawn = np.concatenate([keep[None], random_sets])
    ends = np.stack([np.ones_like(keep), np.zeros_like(keep)])
    evaluate = edge_sets.first_pairs(setting, NULL_PROMPTS)
    return _shares(evaluate(np.concatenate([ends, drawn, ~drawn])).mean(-1))


def _shares(values: Float[np.ndarray, " set"]) -> NullFaithfulness:
    """Faithfulness and necessity from the metric of the model, of nothing, of circuits, and without these."""
    model, empty, (with_circuit, gone) = values[0], values[1], values[2:].reshape(2, -1)
    return NullFaithfulness((with_circuit - empty) / (model - empty), (model - gone) / (model - empty))


def on_pairs(
    setting: PairRuns, nodes: list[str], keep: Bool[np.ndarray, "set node"], most: int = NULL_PROMPTS
) -> Float[np.ndarray, "set pair"]:
    """The metric of each set of nodes on the first `most` pairs; pairs of equal length are run together."""
    pairs = setting.batch.pairs[:most]
    values = np.empty((len(keep), len(pairs)))
    order = sorted(range(len(pairs)), key=lambda i: (len(pairs[i].clean), pairs[i].first_difference))
    size = max(1, TOKENS_AT_ONCE // (len(keep) * setting.batch.clean.shape[1]))
    for rows in (order[begin : begin + size] for begin in range(0, len(order), size)):
        batch = batch_of([pairs[i] for i in rows], setting.net.device, setting.net.dtype)
        other = rows_of(setting.outside or setting.corrupted, rows, batch.clean.shape[1])
        asked = node_sets.NodeSetInputs(
            setting.net,
            batch.clean,
            batch.ends,
            nodes,
            _values(other),
            masks(batch, nodes),
            batch.first_difference if setting.outside is None else 0,
        )
        logits = node_sets.logits(asked, keep)
        measured = setting.batch.options.of(rows).rows(len(keep)).values(logits.flatten(0, 1))
        values[:, rows] = measured.reshape(len(keep), -1)
    return values


def _values(run: Trace) -> node_sets.Given:
    """What a run's nodes write."""
    return lambda site, layer: run[site][layer]


def nothing_to_explain(effect: Finding | Interval, unit: str = LOGIT_DIFF.unit) -> str:
    """The reason why shares of an effect are not given."""
    bounds = f"({effect.lo:.2f} to {effect.hi:.2f})"
    shown = f"the model's own effect is {effect.value:.2f} {unit} {bounds}".replace("-", "−")
    if effect.hi is not None and effect.hi < 0:
        return f"{shown}: here the model raises the distractors, not the answer, so there is nothing to explain"
    return f"{shown}: there is nothing to explain"


def _unfit(subject: CheckSubject, setting: PairRuns | None) -> str:
    """Why a distribution cannot be asked of the circuit: it lacks positions of members, or has too few documents."""
    if setting is None:
        return "there are no prompts"
    try:
        check_roles(subject.circuit, setting.batch)
    except CircuitError as error:
        return str(error)
    documents, fewest = len(np.unique(clusters_of(setting))), subject.settings.thresholds.fewest_documents
    return f"{documents} documents; at least {fewest} are needed" if documents < fewest else ""


def null_of(good: Float[np.ndarray, " circuit"], values: Float[np.ndarray, " circuit"]) -> Null:
    """The null of random circuits; none where there is no other circuit.

    Args:
        good: how good each circuit is; the circuit itself first, on the prompts that the random ones were run on.
        values: the number itself, in the same order.
    """
    drawn = values[1:]
    if not len(drawn):
        return NO_NULL
    p, least = random_set_p(good[0], good[1:]), least_random_p(len(drawn))
    return Null(float(drawn.mean()), float(np.quantile(drawn, 1 - TAIL_90)), p, least, n=len(drawn))


def closeness_null(
    values: Float[np.ndarray, " circuit"], necessity: Float[np.ndarray, " circuit"] | None = None
) -> Null:
    """The null of random circuits for a faithfulness, which is best at 1.

    A random circuit falls short of the circuit by its distance from 1 or by what its necessity is less, the larger.

    Args:
        values: faithfulness of the circuit itself first, and of the random ones.
        necessity: of the same; None where it was not measured.
    """
    distance = np.abs(1 - values)
    short = shortfall(values, np.full(len(values), np.nan) if necessity is None else necessity)
    null = null_of(-short, values)
    if null.n is None:
        return null
    near = float(np.quantile(short[1:], TAIL_90, method="lower"))
    return replace(null, near=near, distance=float(distance[1:].mean()))


def choices(subject: CheckSubject, technique: str, pair_set: str, ablation: str = "") -> CausalChoices:
    """The six choices of a causal number; ablated as the circuit's scope says unless another ablation is named."""
    sites = {parse_target(label).site for label in subject.circuit.components}
    roles = any(member.positions != "all" for member in subject.circuit.members) and not ablation
    return CausalChoices(
        subject.circuit.scope.granularity,
        ", ".join(sorted(sites)),
        ablation or subject.circuit.scope.outside,
        "each member's" if roles else "all",
        "noise inside" if technique == "necessity" else "noise outside",
        pair_set,
    )


# --- self-repair ---


def repaired_members(subject: CheckSubject) -> tuple[str, ...]:
    """Members whose direct effect on the discovery prompts is large enough to ask how much of it is made up for."""
    setting = subject.distributions.setting(DISCOVERY)
    if setting is None:
        return ()
    before = clean_writes(setting)
    labels = [label for label in subject.circuit.components if parse_target(label).site != "neuron"]
    thresholds, whole = subject.settings.thresholds, setting.judged_by(LOGIT_DIFF).whole
    return tuple(label for label in labels if is_repairable(_repaired(setting, label, before)[0], whole, thresholds))


def is_repairable(
    direct: Float[np.ndarray, " pair"], whole: Float[np.ndarray, " pair"], thresholds: Thresholds
) -> bool:
    """Whether a direct effect is clear of 0 and large enough, beside the model's, to ask what makes up for it."""
    large = abs(direct.mean()) >= thresholds.repairable * abs(whole.mean())
    return bool(large and sign_flip_p(direct) < thresholds.alpha)


def clean_writes(setting: PairRuns) -> self_repair.Writes:
    """What every component writes in the clean run."""
    return self_repair.run_writes(setting.net, setting.batch.clean, setting.batch)


def _repaired(
    setting: PairRuns, label: str, before: self_repair.Writes
) -> tuple[Float[np.ndarray, " pair"], Float[np.ndarray, " pair"]]:
    """Direct effect of taking a member away, and what is made up for, per pair, in logits."""
    donor = resample(setting.corrupted)
    repaired = self_repair.repair(setting.net, before, setting.batch.clean, setting.batch, parse_target(label), donor)
    return repaired.direct.double().cpu().numpy(), repaired.repaired.double().cpu().numpy()


def _repair(subject: CheckSubject, prompts: PromptDistribution, label: str, before: self_repair.Writes) -> Finding:
    setting: PairRuns = prompts.setting  # type: ignore[assignment]
    role = {m.component: m.role for m in subject.circuit.members}[label]
    made_from = CausalChoices("node", parse_target(label).site, "resample", "all", "noise", prompts.distribution.name)
    question = subject.question("self-repair", prompts.distribution, label, role, choices=made_from)
    direct, made_up = _repaired(setting, label, before)
    whole = setting.judged_by(LOGIT_DIFF).whole
    if not is_repairable(direct, whole, subject.settings.thresholds):
        effect = f"{direct.mean():.2f} of {abs(whole.mean()):.2f} logits"
        why = f"its direct effect is {effect}: too little to ask what makes up for it"
        return question.refused("repaired share", prompts.distribution.n_units, why)
    return question.finding("repaired share", ratio(-made_up, direct, clusters_of(setting)))


# --- other tasks ---


def cross_task(evaluate: Evaluator, keep: Keep, circuit: str, task: str, thresholds: Thresholds = DEFAULT) -> CrossTask:
    """One cell of the matrix of circuits by tasks: faithfulness of a circuit on a task's discovery prompts."""
    n = len(evaluate.batch)
    if n < thresholds.fewest or not scores.explainable(evaluate):
        return CrossTask(circuit, task, "faithfulness", None, None, None, n)
    recovered = ratio(evaluate(keep[None])[0] - evaluate.empty, evaluate.model - evaluate.empty, np.arange(n))
    return CrossTask(circuit, task, "faithfulness", recovered.value, recovered.lo, recovered.hi, n)
