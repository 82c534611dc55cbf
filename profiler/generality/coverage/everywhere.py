"""Coverage of a member's role: the share of its importance on which the role holds, on running text and on prompts.

Why: a role is what a component does where it matters, so every position counts by |DLA|, the component's direct effect
on the logit of the token that follows; where the run has total effects and the component acts through others alone, by
|total effect| (profiler.behaviours.importance). The other importance stands beside it and decides nothing. On prompts
it is |DLA| always. The whole corpus and each domain come from the run (queries `mixture` and
`coverage_curve`, with their document-clustered intervals); on prompts and repeated random tokens the same definitions
are applied to the clean prompts (`profiler.model.attention`), every position but the special ones.

`null` is the scrambled claim: how often it holds at positions taken without regard to importance. A role whose words
make no claim that a behaviour of the library states is refused, with what is missing. The mixture says what else the
member does. Cost: two queries a member; one forward pass per distribution of prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from profiler.behaviours.importance import OTHER, SIZE, Importance, importance_of
from profiler.behaviours.library import MOST
from profiler.circuits.circuit import Member
from profiler.database import query
from profiler.errors import QueryError
from profiler.generality.counterexamples import find
from profiler.generality.counterexamples.rates import rate
from profiler.generality.distributions.subject import CheckSubject, PromptDistribution
from profiler.generality.evidence.claims import Claim, claim_of
from profiler.generality.evidence.distributions import CORPUS
from profiler.generality.evidence.finding import NO_NULL, Finding, Interval, Null, Question, StageResult
from profiler.generality.faithfulness.prompts import clusters_of, ratio
from profiler.model import attention
from profiler.model.steps.network import Network, Offsets, forward
from profiler.patching.setting import PairRuns
from profiler.patching.sites import parse_target
from profiler.statistics import RULE_OF_THREE
from profiler.text.token_classes import CLASS_ID

TOP = 0.05
TOP_NAME = "coverage of the top 5 %"
BESIDE = "coverage by {}"
"""Name of the coverage by the other importance, which describes."""
ACTS = "SELECT acts FROM importance WHERE component = getvariable('component')"
SHOWN = 0.01
"""Smallest share of a mixture that is kept as a row."""
Tokens = Int[Tensor, "prompt offset"]
PROMPTS_AT_ONCE = 16


def findings(subject: CheckSubject) -> StageResult:
    """Coverage of every member's role on every distribution where it can be tested, and every member's mixture."""
    rows: list[Finding] = []
    members = [m for m in subject.general.members if parse_target(m.component).site in ("head", "neuron")]
    if subject.text.batches:
        for member in members:
            subject.report(f"coverage and mixture of {member.component}")
            rows += of_run(subject.run, corpus_question(subject, member))
    claimed = [(m, c) for m in members if (c := claim_of(m.role, m.component)) and c.mass in attention.MASSES]
    for prompts in subject.distributions.prompts:
        if claimed and prompts.setting is not None:
            rows += on_prompts(subject, prompts, claimed)
    return StageResult(tuple(rows))


# --- from the run ---


def corpus_question(subject: CheckSubject, member: Member) -> Question:
    """The coverage of a member's role over the run's sample of positions."""
    shares = ("data corpus", "run")
    return subject.question("coverage", subject.corpus, member.component, member.role, unit="positions", shares=shares)


def of_run(run: Path, question: Question) -> list[Finding]:
    """Coverage and mixture of one member over the corpus and each domain, from the rows that the run kept."""
    acts = query.run(run, ACTS, component=question.subject)["acts"]
    importance = importance_of(acts[0] if len(acts) else None)
    rows = _mixture_rows(run, question, importance)
    if not question.role:
        return rows
    claim = claim_of(question.role, question.subject)
    if claim is None or claim.untestable:
        why = claim.untestable if claim else "its words make no claim that is known"
        return [*rows, question.refused("coverage", 0, why)]
    if not claim.behaviour:
        return rows + _claim_rows(run, question, claim)
    rows += _coverage_rows(run, question, claim.behaviour, importance)
    return rows + (_beside(run, question, claim.behaviour, OTHER[importance]) if acts.drop_nulls().len() else [])


def _claim_rows(run: Path, question: Question, claim: Claim) -> list[Finding]:
    """Coverage of a claim that no behaviour of the library states, from the rows of counter-examples."""
    facts = find.facts(run, question.subject, claim, question.thresholds)
    facts = facts.filter(pl.col("component") == question.subject)
    slices = [(CORPUS, facts), *((f"domain: {name}", part) for (name,), part in sorted(facts.group_by("domain")))]
    return [_claim_row(question.on(distribution), part) for distribution, part in slices]


def _claim_row(question: Question, facts: pl.DataFrame) -> Finding:
    n, fewest, every = facts.height, question.thresholds.fewest, pl.lit(value=True)
    weight, covered = pl.col("weight"), pl.col("should") & pl.col("acts")
    share = rate(facts, covered, every, weight * pl.col("importance"))
    if n < fewest or share.lo is None or share.hi is None:
        why = f"{n} positions in the run's sample; at least {fewest} are needed, of several documents"
        return question.refused("coverage", n, why)
    scrambled = rate(facts, covered, every, weight).value
    return question.finding("coverage", Interval(share.value, share.lo, share.hi, n), Null(scrambled))


def _mixture_rows(run: Path, question: Question, importance: Importance) -> list[Finding]:
    """A finding per slice (corpus, domain) and behaviour; their shares add up to 1 with what is below SHOWN."""
    frame = query.run(run, "mixture", component=question.subject, importance=importance)
    shown = frame.filter(
        pl.col("slice").is_in(["all", "domain"]), (pl.col("share") >= SHOWN) | (pl.col("behaviour") == "unexplained")
    )
    mixture = question.using("mixture")
    return [
        _of_row(mixture.on(_distribution(row)), f"share: {row['behaviour']}", row, ("share", "n_slice"))
        for row in shown.iter_rows(named=True)
    ]


def _distribution(row: dict[str, Any]) -> str:
    return CORPUS if row["slice"] == "all" else f"domain: {row['value']}"


def _coverage_rows(run: Path, question: Question, behaviour: str, importance: Importance) -> list[Finding]:
    """Coverage of one behaviour; over the whole corpus also its null and the coverage of the top of importance."""
    try:
        asked = {"component": question.subject, "importance": importance}
        alone = query.run(run, "mixture", behaviours=behaviour, **asked)
        curve = query.run(run, "coverage_curve", behaviour=behaviour, **asked)
    except QueryError as error:
        return [question.refused("coverage", 0, f"the run cannot be asked for {behaviour!r}: {error}")]
    tops = {round(row["top"], 6): row for row in curve.iter_rows(named=True)}
    rows = []
    for row in _with_zeros(alone, behaviour).iter_rows(named=True):
        distribution = _distribution(row)
        null = _scrambled(tops.get(1.0)) if distribution == CORPUS else NO_NULL
        rows.append(_of_row(question.on(distribution), "coverage", row, ("share", "n_slice"), null))
    if TOP in tops:
        rows.append(_of_row(question, TOP_NAME, tops[TOP], ("coverage", "n"), _scrambled(tops[TOP])))
    return rows


def _beside(run: Path, question: Question, behaviour: str, importance: Importance) -> list[Finding]:
    """Coverage over the whole corpus by the importance that the role is not tested by."""
    frame = query.run(run, "mixture", component=question.subject, behaviours=behaviour, importance=importance)
    whole = _with_zeros(frame, behaviour).filter(slice="all")
    return [_of_row(question, BESIDE.format(SIZE[importance]), row, ("share", "n_slice")) for row in whole.to_dicts()]


def _with_zeros(alone: pl.DataFrame, behaviour: str) -> pl.DataFrame:
    """The behaviour's rows, and rows of 0 with their bound for slices where it never holds."""
    slices = alone.filter(pl.col("slice").is_in(["all", "domain"]))
    present = slices.filter(pl.col("behaviour") == behaviour)
    none = slices.filter(pl.col("behaviour") == "unexplained").join(present, on=["slice", "value"], how="anti")
    turned = none.with_columns(
        share=1 - pl.col("share"), share_lo=1 - pl.col("share_hi"), share_hi=1 - pl.col("share_lo")
    )
    return pl.concat([present, turned.select(present.columns)])


def _scrambled(row: dict[str, Any] | None) -> Null:
    return NO_NULL if row is None else Null(row["scrambled"])


def _of_row(
    question: Question, statistic: str, row: dict[str, Any], columns: tuple[str, str], null: Null = NO_NULL
) -> Finding:
    """A finding from a query's row; refused where it rests on too few positions or has no interval.

    Args:
        columns: names of the value (its bounds have the endings _lo and _hi) and of the number of positions.
    """
    value, (n, fewest) = columns[0], (row[columns[1]], question.thresholds.fewest)
    lo, hi = row[f"{value}_lo"], row[f"{value}_hi"]
    if n < fewest or lo is None:
        return question.refused(statistic, n, f"{n} positions in the run's sample; at least {fewest} are needed")
    return question.finding(statistic, Interval(row[value], lo, hi, n), null)


# --- from a forward pass ---


def on_prompts(
    subject: CheckSubject, prompts: PromptDistribution, claimed: Sequence[tuple[Member, Claim]]
) -> list[Finding]:
    """Coverage of claims about attention over the clean prompts of a distribution."""
    measured = heads_on_prompts(subject, prompts.setting)  # type: ignore[arg-type]
    rows = []
    for member, claim in claimed:
        target = parse_target(member.component)
        head = subject.net.first_head(target.layer) + (target.unit or 0)
        holds = measured.masses[:, head, attention.MASSES.index(claim.mass)] >= MOST
        weight = np.abs(measured.dla[:, head])
        covered = bounded(ratio(weight * holds, weight, measured.clusters))
        question = subject.question("coverage", prompts.distribution, member.component, member.role)
        rows.append(question.finding("coverage", covered, Null(float(holds.mean()))))
    return rows


def bounded(share: Interval) -> Interval:
    """The share with a wider interval where it is 0 or 1, which no resampling moves: 3 / n from there."""
    far = min(1.0, RULE_OF_THREE / share.n)
    lo, hi = (1 - far if share.value == 1 else share.lo), (far if share.value == 0 else share.hi)
    return Interval(share.value, lo, hi, share.n)


@dataclass(frozen=True, eq=False)
class HeadsOnPrompts:
    """Attention masses and DLA of every head at the ordinary positions of prompts, and the unit of each position."""

    masses: Float[np.ndarray, "position head mass"]
    dla: Float[np.ndarray, "position head"]
    clusters: Int[np.ndarray, " position"]


def heads_on_prompts(subject: CheckSubject, setting: PairRuns) -> HeadsOnPrompts:
    """Masses and DLA at every position of the clean prompts that has a token to predict."""
    batch = setting.batch
    has_next = batch.valid.clone()
    has_next[torch.arange(len(batch)), batch.ends] = False
    has_next[:, 0] = False
    clusters = clusters_of(setting)
    parts = []
    for begin in range(0, len(batch), PROMPTS_AT_ONCE):
        rows = slice(begin, begin + PROMPTS_AT_ONCE)
        own = torch.from_numpy(clusters[rows, None] + np.zeros_like(has_next[rows].cpu(), dtype=int))
        parts.append((*_run(subject, batch.clean[rows], has_next[rows]), own[has_next[rows].cpu()].numpy()))
    return HeadsOnPrompts(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _run(
    subject: CheckSubject, tokens: Tokens, chosen: Bool[Tensor, "prompt offset"]
) -> tuple[Float[np.ndarray, "position head mass"], Float[np.ndarray, "position head"]]:
    """Masses and DLA of every head at the chosen positions, as `profiler.model.direct` defines them."""
    net, rows = subject.net, chosen.nonzero(as_tuple=True)
    patterns, dla = heads_at(net, tokens, rows, tokens[rows[0], rows[1] + 1])
    counted = attention.masks(tokens[rows[0]], _classes(subject, tokens)[rows[0]], rows[1])
    masses = [torch.einsum("qhk,qmk->qhm", pattern, counted.to(pattern.dtype)) for pattern in patterns]
    return torch.cat(masses, 1).double().cpu().numpy(), dla.double().cpu().numpy()


def heads_at(
    net: Network, tokens: Tokens, rows: tuple[Int[Tensor, " position"], ...], targets: Int[Tensor, " position"]
) -> tuple[list[Float[Tensor, "position head key"]], Float[Tensor, "position heads"]]:
    """Attention of each layer's heads, and DLA of all heads to a token, at some positions; one forward pass.

    Args:
        rows: prompt and offset of each position.
        targets: the token that each position's DLA is to.
    """
    patterns: list[Tensor] = []
    sites: dict[tuple[str, int], Tensor] = {}

    def keep(site: str, layer: int, value: Tensor, _offsets: Offsets) -> Tensor:
        if site == "pattern":
            patterns.append(value[rows[0], :, rows[1]])
        elif site in ("head", "attn_out", "resid_final"):
            sites[site, layer] = value[rows]
        return value

    with torch.inference_mode():
        forward(net, tokens, keep)
        way = toward(net, targets, sites["resid_final", net.n_layers])
        dla = [
            head_attribution(net, layer, sites["head", layer], sites["attn_out", layer], way)
            for layer in range(net.n_layers)
            if net.heads(layer)
        ]
    return patterns, torch.cat(dla, -1)


def head_attribution(
    net: Network,
    layer: int,
    mixed: Float[Tensor, "position head d_head"],
    out: Float[Tensor, "position model"],
    way: Float[Tensor, "position model"],
) -> Float[Tensor, "position head"]:
    """What each head of a layer adds along a direction.

    Args:
        out: what the layer's attention writes.
    """
    if not net.own_norm("attn_out", layer):
        return torch.einsum("phd,hdm,pm->ph", mixed, net.w_o(layer).to(way.dtype), way)
    written = torch.einsum("phd,hdm->phm", mixed, net.w_o(layer).to(mixed.dtype))
    return (net.added("attn_out", layer, written, out[:, None]) * way[:, None]).sum(-1)


def toward(
    net: Network, targets: Int[Tensor, " position"], stream: Float[Tensor, "position model"]
) -> Float[Tensor, "position model"]:
    """Direction whose product with a write is its DLA: the target's centred logit, the final norm frozen."""
    return net.toward(targets) / net.final_scale(stream)


def _classes(subject: CheckSubject, tokens: Tokens) -> Tokens:
    classes = subject.text.layout.token_classes.to(tokens.device)[tokens]
    if subject.text.layout.bos_id is not None:
        classes[:, 0] = CLASS_ID["bos"]
    return classes
