"""Replacement by understanding: the share of a component's effect on running text that a rule explains.

    explained = explain(model, "L2H3", "induction", documents)
    explained.shares["KL"].explained, explained.nulls["KL"].mean

The share explained is 1 - D_replaced / D_mean-ablated (shares.py), in KL, net loss and |change of loss|, over all
positions and by percentile of the component's |DLA|, with intervals over documents. Beside it:

* the same rule put on matched null heads: of the heads of its layer and of the nearest ones, those whose own mean
  ablation costs most nearly the same (of a neuron: neurons of its layer). A rule that explains them as well says
  nothing of this one (McDougall et al. 2023, where the rule for one head recovered more than half of many others).
  There are NULLS of them, so that p = (1 + null heads explained at least as well) / (1 + NULLS) can be below 0.05; they
  are measured on a part of the text, because heads differ more than documents do;
* a guard on the denominator. Where others make up for the component, its ablation costs little, and any rule looks good
  or bad by chance. `later`: cost of its ablation over the cost on the direct path alone, where nobody can make up for
  it; `others`: cost of its ablation with the two heads gone whose attention is most like its own, over the cost with
  them. Below the threshold `made_up` or above `stand_ins` the share is refused; the share on the direct path, and with
  the others gone, stand.

Cost: per component about 8 passes of the text over the layers after it; per rule 2 NULLS passes of NULL_TOKENS. Some 5
seconds a component for 10,000 tokens and the bundled model on one core.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch

from profiler.errors import PatchError
from profiler.generality.evidence.thresholds import DEFAULT, Thresholds
from profiler.generality.replacement.copy_rules import BUILT_IN
from profiler.generality.replacement.rows import Explained
from profiler.generality.replacement.rules import Rule, of_function
from profiler.generality.replacement.run import ComponentMeans, Job, TextBatch, alike, check, fit, means_of, run
from profiler.generality.replacement.text import Texts, of_documents
from profiler.generality.replacement.view import ClaimedRule, View
from profiler.model.load import Model
from profiler.model.steps.as_network import network_of_direct_heads
from profiler.model.steps.network import Network
from profiler.patching.sites import Target, parse_target

NULLS = 20
"""Fewest null heads of which p can be below 0.05."""
CANDIDATES = 32
"""Heads or neurons that null ones are chosen from."""
NULL_TOKENS, MATCHING_TOKENS = 2_000, 1_000
"""Tokens that null heads are measured on, and tokens that they are chosen on."""
MOST_RIVALS = 2
"""Heads that may stand in for another, at most."""
Say = Callable[[str], None]


def rule_named(rule: str | Rule | Callable[[torch.Tensor], torch.Tensor], target: Target) -> Rule:
    """The rule of a name, a function of tokens, or a rule.

    Raises:
        PatchError: there is no rule of this name, or it is about attention and the component is a neuron.
    """
    if isinstance(rule, str) and rule not in BUILT_IN:
        raise PatchError(f"there is no rule {rule!r}: choose {', '.join(BUILT_IN)}, or give a function of tokens")
    known = BUILT_IN[rule] if isinstance(rule, str) else rule if isinstance(rule, Rule) else of_function(rule, target)
    if target.site == "neuron" and known.gives != "live":
        raise PatchError(
            f"the rule {known.name!r} is about attention and {target.label} is a neuron: take class_mean or token_mean"
        )
    return known


def explain(
    model: Model,
    component: str,
    rule: str | Rule | Callable[[torch.Tensor], torch.Tensor],
    documents: Iterable[str],
    role: str = "",
    tokens: int = 50_000,
    nulls: int = NULLS,
) -> Explained:
    """How much of a component's effect on running text a rule explains.

    Args:
        component: a head (L2H3) or a neuron (L2N17).
        rule: a name of `copy_rules.BUILT_IN`; a function from tokens [window, offset] to attention [window, query,
            key] or to activations [window, offset]; or a `Rule`.
        documents: texts. A quarter of them, by hash, are for means and fits, the others for the test.
        role: what is claimed of it, in words.
        tokens: tokens to test on, at most.
        nulls: null heads.

    Raises:
        PatchError: no such component or rule, or too little text.
    """
    texts = of_documents(model, documents, tokens)
    target = parse_target(component)
    return examine(
        network_of_direct_heads(model), texts, [ClaimedRule(target, rule_named(rule, target), role or str(rule))], nulls
    )[0]


def examine(
    net: Network,
    texts: Texts,
    claims: Sequence[ClaimedRule],
    nulls: int = NULLS,
    seed: int = 0,
    say: Say = lambda _: None,
    thresholds: Thresholds = DEFAULT,
) -> tuple[Explained, ...]:
    """Every claim on the same text.

    Raises:
        PatchError: the model lacks a component, or there is no text to fit or to test on.
    """
    check(net, [claim.target for claim in claims])
    if not texts.testing or not texts.fitting or not texts.n_positions:
        raise PatchError("replacement needs documents to fit on and documents to test on: give more text")
    means = means_of(net, texts.fitting)
    matched = _matched(net, texts, means, claims, nulls, seed)
    pairs = [
        (t, claim.rule) for claim, null_heads in zip(claims, matched, strict=True) for t in (claim.target, *null_heads)
    ]
    fitted = fit(net, texts.fitting, means, pairs)
    what = f"replacing {len({claim.target for claim in claims})} components"
    measured = run(net, texts.testing, means, _jobs(claims, fitted), say=lambda done: say(f"{what}: {done}"))
    null_jobs = _null_jobs(claims, matched, fitted)
    other = f"replacing {len({job.target for job in null_jobs})} null heads"
    part = part_of(texts.testing, NULL_TOKENS)
    beside = run(net, part, means, null_jobs, say=lambda done: say(f"{other}: {done}"))
    rivals = _rivals(net, texts, claims, thresholds.least_alike)
    say("replacing components without their stand-ins")
    without = {
        group: run(
            net,
            texts.testing,
            means,
            _alone([c for c, r in zip(claims, rivals, strict=True) if r == group], fitted),
            group,
        )
        for group in dict.fromkeys(rivals)
        if group
    }
    views = [
        View(claim, null_heads, fitted, measured, beside, group, without.get(group), thresholds)
        for claim, null_heads, group in zip(claims, matched, rivals, strict=True)
    ]
    return tuple(view.explained() for view in views)


def _matched(
    net: Network, texts: Texts, means: ComponentMeans, claims: Sequence[ClaimedRule], nulls: int, seed: int
) -> list[tuple[Target, ...]]:
    """For each claim, others whose ablation costs most nearly the same on a part of the fitting documents."""
    candidates = [[] if claim.alone else _candidates(net, claims, claim, seed) for claim in claims]
    every = dict.fromkeys(t for claim, part in zip(claims, candidates, strict=True) for t in (claim.target, *part))
    measured = run(net, part_of(texts.fitting, MATCHING_TOKENS), means, [Job(target) for target in every])
    cost = {target: max(1e-12, float(measured.effects[Job(target)][:, 0].mean())) for target in every}
    return [
        tuple(sorted(part, key=lambda t: abs(np.log(cost[t] / cost[claim.target])))[:nulls])
        for claim, part in zip(claims, candidates, strict=True)
    ]


def part_of(readings: Sequence[TextBatch], tokens: int) -> tuple[TextBatch, ...]:
    """Every k-th reading, about `tokens` tokens together, at least one."""
    total = sum(int(reading.counted.sum()) for reading in readings)
    return tuple(readings[:: max(1, min(len(readings), total // tokens))])


def _candidates(net: Network, claims: Sequence[ClaimedRule], claim: ClaimedRule, seed: int) -> list[Target]:
    """Heads of the nearest layers of which the same is not claimed; for a neuron, random neurons of its layer."""
    same = {other.target for other in claims if other.rule.name == claim.rule.name}
    site, layer = claim.target.site, claim.target.layer
    if site == "neuron":
        units = np.random.default_rng((seed, layer)).permutation(net.neurons(layer))[: 1 + CANDIDATES].tolist()
        return [target for unit in units if (target := Target(site, layer, unit)) not in same][:CANDIDATES]
    heads = [Target(site, i, unit) for i in range(net.n_layers) for unit in range(net.heads(i))]
    near = sorted(heads, key=lambda head: (abs(head.layer - layer), head.layer, head.unit))
    return [head for head in near if head not in same][:CANDIDATES]


def _rivals(net: Network, texts: Texts, claims: Sequence[ClaimedRule], least_alike: float) -> list[tuple[Target, ...]]:
    """Of each head, the heads that attend most like it; none where only the share itself is wanted."""
    likeness = alike(net, texts.fitting, [c.target for c in claims if c.target.site == "head" and not c.alone])
    rivals = []
    for claim in claims:
        nobody = torch.zeros(net.n_layers, net.n_heads)
        overlap = (nobody if claim.alone else likeness.get(claim.target, nobody)).flatten()
        best = overlap.argsort(descending=True)[:MOST_RIVALS].tolist()
        near = [divmod(i, net.n_heads) for i in best if overlap[i] >= least_alike]
        rivals.append(tuple(sorted(Target("head", layer, head) for layer, head in near)))
    return rivals


def _jobs(claims: Sequence[ClaimedRule], fitted: Mapping[tuple[Target, str], Rule]) -> list[Job]:
    jobs: list[Job] = []
    for claim in claims:
        rule = fitted[claim.target, claim.rule.name]
        jobs += [Job(claim.target), Job(claim.target, rule)]
        jobs += [] if claim.alone else [Job(claim.target, direct=True), Job(claim.target, rule, direct=True)]
    return list(dict.fromkeys(jobs))


def _null_jobs(
    claims: Sequence[ClaimedRule], matched: Sequence[tuple[Target, ...]], fitted: Mapping[tuple[Target, str], Rule]
) -> list[Job]:
    pairs = [
        (target, claim.rule.name)
        for claim, null_targets in zip(claims, matched, strict=True)
        for target in null_targets
    ]
    return list(dict.fromkeys(job for pair in pairs for job in (Job(pair[0]), Job(pair[0], fitted[pair]))))


def _alone(claims: Sequence[ClaimedRule], fitted: Mapping[tuple[Target, str], Rule]) -> list[Job]:
    jobs = [Job(c.target, rule) for c in claims for rule in (None, fitted[c.target, c.rule.name])]
    return list(dict.fromkeys(jobs))
