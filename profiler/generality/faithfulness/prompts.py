"""What a circuit does on each distribution of prompts: faithfulness, necessity against matched random circuits,
self-repair.

With F(S) the mean logit difference when only the nodes of S are live, M all nodes, C the circuit:

* faithfulness (F(C) - F(none)) / (F(M) - F(none)): 1 is what the model does; above 1 is over-recovery, no success
  (Nainani et al. 2024). Null: circuits with as many heads and MLPs in each layer, at the same positions.
* necessity (F(M) - F(M - C)) / (F(M) - F(none)): what is lost when the circuit alone is taken away. Null: the same.
* model effect F(M) - F(none), in logits: what there is to explain. Where it is not above 0 beyond doubt, shares of it
  are refused.
* repaired share of a member: - (change - direct) / direct, the part of its direct effect that later components make up
  for (`profiler.patching.redundancy.self_repair`); of members whose direct effect is at least REPAIRABLE of the model's
  own.

Every share is a ratio of sums; intervals resample whole documents where prompts come from documents, else prompts.
p = (1 + random circuits at least as good) / (1 + draws). Cost: two forward passes of NULL_PROMPTS prompts per random
circuit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as changed

import numpy as np
from jaxtyping import Bool, Float, Int

from profiler.circuits import circuit_tables, node_sets
from profiler.circuits.circuit import Circuit
from profiler.circuits.nodes import check_roles, masks, members_nodes, node_labels, parse_node
from profiler.circuits.scoring import scores
from profiler.circuits.scoring.evaluate import Evaluator
from profiler.errors import CircuitError
from profiler.generality.distributions.subject import PromptDistribution, Subject
from profiler.generality.evidence import finding
from profiler.generality.evidence.distributions import DISCOVERY, CrossTask, Distribution
from profiler.generality.evidence.finding import FEWEST, Finding, Technique, Unit
from profiler.generality.faithfulness import trend
from profiler.patching.batch import batch_of
from profiler.patching.metrics import logit_diff
from profiler.patching.redundancy import self_repair
from profiler.patching.setting import PairRuns
from profiler.patching.sites import parse_target
from profiler.patching.sweep import resample
from profiler.patching.values import rows_of
from profiler.statistics import ROUNDING, bootstrap_means, percentile_interval, quotient, random_set_p, sign_flip_p

Keep = Bool[np.ndarray, " node"]
REPAIRABLE = 0.05
FEWEST_DOCUMENTS = 5
INDUCTION = "repeated-tokens"
NULL_PROMPTS = 24
"""Prompts that random circuits are run on: their scatter over circuits is far larger than over prompts."""
TOKENS_AT_ONCE = 8192
"""Tokens of one pass of many circuits (circuits x prompts x offsets): more leaves a processor's cache."""


@dataclass(frozen=True)
class Ratio:
    """A ratio of sums with its 95 % interval, over `n` independent units."""

    value: float
    lo: float
    hi: float
    n: int


def clusters_of(setting: PairRuns) -> Int[np.ndarray, " pair"]:
    """The document of each pair, or a number of its own."""
    names = [pair.pair.stratum("document") or f"#{i}" for i, pair in enumerate(setting.batch.pairs)]
    return np.unique(names, return_inverse=True)[1]


def ratio(
    above: Float[np.ndarray, " unit"],
    below: Float[np.ndarray, " unit"],
    clusters: Int[np.ndarray, " unit"],
    seed: int = 0,
) -> Ratio:
    """Sum of `above` over sum of `below`; percentile interval, whole clusters resampled in both together."""
    sums = np.stack([np.bincount(clusters, weights=part) for part in (above, below)])
    sums = sums[:, np.bincount(clusters) > 0]
    n = sums.shape[1]
    drawn = quotient(bootstrap_means(sums[0], seed), bootstrap_means(sums[1], seed))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(above.sum() / below.sum())
    drawn = drawn[np.isfinite(drawn)]
    lo, hi = percentile_interval(drawn) if len(drawn) else (value, value)
    return Ratio(value, float(lo), float(hi), n)


def matched(nodes: Sequence[str], keep: Keep, draws: int, seed: int = 0) -> Bool[np.ndarray, "draw node"]:
    """Random circuits with as many components of each kind in each layer, at the same positions; neurons stay."""
    rng = np.random.default_rng(seed)
    drawn = np.repeat(keep[None], draws, 0)
    for places in _groups(nodes):
        shapes = keep[places]
        for row in range(draws):
            drawn[row, places] = shapes[rng.permutation(len(places))]
    return drawn


def _groups(nodes: Sequence[str]) -> list[Int[np.ndarray, "component part"]]:
    """Places of the nodes of each layer and kind: a row per component, a column per position it is split into."""
    found: dict[tuple[str, int], dict[str, list[int]]] = {}
    for place, node in enumerate(nodes):
        target = parse_node(node)
        if target.site != "neuron":
            found.setdefault((target.site, target.layer), {}).setdefault(node.partition("@")[0], []).append(place)
    return [np.array(list(rows.values())) for rows in found.values()]


def findings(subject: Subject) -> tuple[Finding, ...]:
    """Findings of every distribution of prompts, and trends of faithfulness over the distributions that ask the
    circuit's own question."""
    rows, shown = [], []
    repairable = repaired_members(subject)
    for one in subject.distributions.prompts:
        subject.report(f"{one.distribution.name}: {one.distribution.n_prompts} prompts")
        made, effect = distribution_findings(subject, one)
        rows += made
        if effect is not None and own_question(subject, one):
            shown.append(effect)
        if one.setting is not None and repairable:
            before = clean_writes(one.setting)
            rows += [_repair(subject, one, label, before) for label in repairable]
    return (*rows, *trend.findings(subject.circuit.name, shown))


def own_question(subject: Subject, one: PromptDistribution) -> bool:
    """Whether a distribution asks what the circuit was found on: repeated random tokens do only of a circuit of
    induction."""
    return one.distribution.kind != "repeats" or (subject.task is not None and subject.task.name == INDUCTION)


def distribution_findings(subject: Subject, one: PromptDistribution) -> tuple[list[Finding], trend.Shown | None]:
    """Faithfulness, necessity and the model's own effect on one distribution; and the effect per pair."""
    own = own_question(subject, one)
    names = ("faithfulness", "necessity") if own else ("faithfulness on induction", "necessity for induction")
    techniques: tuple[Technique, Technique] = ("faithfulness", "necessity")
    why = one.distribution.refused or _unfit(subject.circuit, one.setting)
    if why:
        pairs = zip(techniques, names, strict=True)
        return [_refused(subject, one.distribution, technique, name, why) for technique, name in pairs], None
    evaluate = circuit_tables.evaluator(one.setting, subject.circuit, mlps=subject.mlps)
    keep = evaluate.mask(members_nodes(subject.circuit))
    whole, clusters = evaluate.model - evaluate.empty, clusters_of(one.setting)
    effect = _finding(
        subject, one.distribution, "faithfulness", "model effect", ratio(whole, np.ones_like(whole), clusters)
    )
    if not scores.explainable(evaluate):
        why = nothing_to_explain(effect)
        refusals = [
            _refused(subject, one.distribution, t, name, why) for t, name in zip(techniques, names, strict=True)
        ]
        return [effect, *refusals], None
    kept = evaluate(keep[None])[0] - evaluate.empty
    gone = evaluate.model - evaluate(~keep[None])[0]
    null = random_circuits(subject, one.setting, keep)
    return [
        effect,
        _against(
            _finding(subject, one.distribution, "faithfulness", names[0], ratio(kept, whole, clusters)),
            null.kept,
            close=True,
        ),
        _against(_finding(subject, one.distribution, "necessity", names[1], ratio(gone, whole, clusters)), null.gone),
    ], trend.Shown(one.distribution, kept, whole, clusters)


@dataclass(frozen=True, eq=False)
class Random:
    """Faithfulness and necessity of the circuit itself (first) and of random circuits, on the same prompts."""

    kept: Float[np.ndarray, " circuit"]
    gone: Float[np.ndarray, " circuit"]


def random_circuits(subject: Subject, setting: PairRuns, keep: Keep) -> Random:
    """The circuit and its random twins on NULL_PROMPTS of the distribution's prompts."""
    nodes = node_labels(setting.net, subject.circuit, mlps=subject.mlps)
    drawn = np.concatenate([keep[None], matched(nodes, keep, subject.settings.draws, subject.settings.seed)])
    ends = np.stack([np.ones_like(keep), np.zeros_like(keep)])
    values = on_pairs(setting, nodes, np.concatenate([ends, drawn, ~drawn])).mean(-1)
    model, empty, (kept, gone) = values[0], values[1], values[2:].reshape(2, -1)
    return Random((kept - empty) / (model - empty), (model - gone) / (model - empty))


def on_pairs(
    setting: PairRuns, nodes: list[str], keep: Bool[np.ndarray, "set node"], most: int = NULL_PROMPTS
) -> Float[np.ndarray, "set pair"]:
    """Logit difference of each set of nodes on the first `most` pairs; pairs of equal length are run together."""
    pairs = setting.batch.pairs[:most]
    values = np.empty((len(keep), len(pairs)))
    order = sorted(range(len(pairs)), key=lambda i: (len(pairs[i].clean), pairs[i].first_difference))
    size = max(1, TOKENS_AT_ONCE // (len(keep) * setting.batch.clean.shape[1]))
    for rows in (order[begin : begin + size] for begin in range(0, len(order), size)):
        batch = batch_of([pairs[i] for i in rows], setting.net.device, setting.net.embed.dtype)
        other = rows_of(setting.corrupted, rows, batch.clean.shape[1])
        asked = node_sets.NodeSetInputs(
            setting.net,
            batch.clean,
            batch.ends,
            nodes,
            lambda site, layer, other=other: other[site][layer],
            masks(batch, nodes),
            batch.first_difference,
        )
        logits = node_sets.logits(asked, keep)
        found = logit_diff(logits.flatten(0, 1), batch.options.rows(len(keep)))
        values[:, rows] = found.double().cpu().numpy().reshape(len(keep), -1)
    return values


def nothing_to_explain(effect: Finding | Ratio) -> str:
    """Why shares of an effect are not stated."""
    shown = f"the model's own effect is {effect.value:.2f} logits ({effect.lo:.2f} to {effect.hi:.2f})".replace(
        "-", "−"
    )
    if effect.hi < 0:
        return (
            f"{shown}: here it raises the distractors and not the answer, so there is nothing that a circuit could"
            " explain"
        )
    return f"{shown}: nothing that a circuit could explain"


def _unfit(circuit: Circuit, setting: PairRuns | None) -> str:
    """Why a distribution cannot be asked of a circuit whose members are at roles."""
    try:
        check_roles(circuit, setting.batch)  # type: ignore[union-attr]
    except CircuitError as error:
        return str(error)
    documents = len(np.unique(clusters_of(setting)))  # type: ignore[arg-type]
    return f"{documents} documents; at least {FEWEST_DOCUMENTS} are needed" if documents < FEWEST_DOCUMENTS else ""


def _against(one: Finding, values: Float[np.ndarray, " circuit"], close: bool = False) -> Finding:
    """The finding beside random circuits; closeness to 1 is what counts where `close`. All equal: there is no other
    circuit.

    Args:
        values: of the circuit itself first, on the prompts that the random ones were run on.
    """
    own, null = values[0], values[1:]
    if not len(null) or np.ptp(null) <= ROUNDING:
        return one
    good = (lambda value: -np.abs(1 - value)) if close else (lambda value: value)
    p = random_set_p(good(own), good(null))
    return changed(one, null=float(null.mean()), null_hi=float(np.quantile(null, 0.95)), p=p)


def _finding(subject: Subject, distribution: Distribution, technique: Technique, statistic: str, one: Ratio) -> Finding:
    return Finding(
        subject.circuit.name,
        "",
        technique,
        distribution.name,
        statistic,
        one.value,
        one.lo,
        one.hi,
        one.n,
        unit_of(distribution),
        setting=six(subject, technique, distribution.name),
        shares=shares(distribution),
    )


def _refused(subject: Subject, distribution: Distribution, technique: Technique, statistic: str, why: str) -> Finding:
    name = subject.circuit.name
    return finding.refused(
        name, "", technique, distribution.name, statistic, n_of(distribution), unit_of(distribution), why
    )


def unit_of(distribution: Distribution) -> Unit:
    """What is drawn independently."""
    return "documents" if distribution.n_documents else "prompts"


def n_of(distribution: Distribution) -> int:
    """How many of them there are."""
    return distribution.n_documents or distribution.n_prompts


def shares(distribution: Distribution) -> tuple[str, ...]:
    """Names of what findings of the distribution have in common."""
    return (f"data {distribution.name}",)


def six(subject: Subject, technique: str, pair_set: str, ablation: str = "") -> finding.Setting:
    """The six choices of a causal number; values put in as the circuit's scope says unless another ablation is
    named."""
    sites = {parse_target(label).site for label in subject.circuit.components}
    roles = any(member.positions != "all" for member in subject.circuit.members) and not ablation
    direction = "noise inside" if technique == "necessity" else "noise outside"
    return finding.Setting(
        "node",
        ", ".join(sorted(sites)),
        ablation or "resample",
        "each member's" if roles else "all",
        direction,
        pair_set,
    )


# --- self-repair ---


def repaired_members(subject: Subject) -> tuple[str, ...]:
    """Members whose direct effect on the discovery prompts is large enough to ask how much of it is made up for."""
    setting = subject.distributions.setting(DISCOVERY)
    if setting is None:
        return ()
    whole, before = abs(setting.whole.mean()), clean_writes(setting)
    found = []
    for label in subject.circuit.components:
        if parse_target(label).site != "neuron":
            direct, _ = _repaired(setting, label, before)
            if abs(direct.mean()) >= REPAIRABLE * whole and sign_flip_p(direct) < 0.05:
                found.append(label)
    return tuple(found)


def clean_writes(setting: PairRuns) -> self_repair.Writes:
    """What every component writes in the clean run."""
    return self_repair.run_writes(setting.net, setting.batch.clean, setting.batch)


def _repaired(
    setting: PairRuns, label: str, before: self_repair.Writes
) -> tuple[Float[np.ndarray, " pair"], Float[np.ndarray, " pair"]]:
    """Direct effect of taking a member away, and what is made up for, per pair, in logits."""
    donor = resample(setting.corrupted)
    one = self_repair.repair(setting.net, before, setting.batch.clean, setting.batch, parse_target(label), donor)
    return one.direct.double().cpu().numpy(), one.repaired.double().cpu().numpy()


def _repair(subject: Subject, one: PromptDistribution, label: str, before: self_repair.Writes) -> Finding:
    role = {m.component: m.role for m in subject.circuit.members}[label]
    direct, made_up = _repaired(one.setting, label, before)
    whole = abs(one.setting.whole.mean())
    if abs(direct.mean()) < REPAIRABLE * whole or sign_flip_p(direct) >= 0.05:
        why = f"its direct effect is {direct.mean():.2f} of {whole:.2f} logits: too little to ask what makes up for it"
        return finding.refused(
            label,
            role,
            "self-repair",
            one.distribution.name,
            "repaired share",
            n_of(one.distribution),
            unit_of(one.distribution),
            why,
        )
    found = ratio(-made_up, direct, clusters_of(one.setting))
    setting = finding.Setting("node", parse_target(label).site, "resample", "all", "noise", one.distribution.name)
    return Finding(
        label,
        role,
        "self-repair",
        one.distribution.name,
        "repaired share",
        found.value,
        found.lo,
        found.hi,
        found.n,
        unit_of(one.distribution),
        setting=setting,
        shares=shares(one.distribution),
    )


# --- other tasks ---


def cross_task(evaluate: Evaluator, keep: Keep, circuit: str, task: str) -> CrossTask:
    """One cell of the matrix of circuits by tasks: faithfulness of a circuit on a task's discovery prompts."""
    n = len(evaluate.batch)
    if n < FEWEST or not scores.explainable(evaluate):
        return CrossTask(circuit, task, "faithfulness", None, None, None, n)
    found = ratio(evaluate(keep[None])[0] - evaluate.empty, evaluate.model - evaluate.empty, np.arange(n))
    return CrossTask(circuit, task, "faithfulness", found.value, found.lo, found.hi, n)
