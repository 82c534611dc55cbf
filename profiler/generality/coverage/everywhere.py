"""On which share of a member's importance its role holds: over the corpus and each domain from the run, on prompts from
a forward pass.

Why: a role is what a component does where it matters, so every position counts by |DLA|, the component's direct effect on
the logit of the token that follows. From the run come the whole corpus and each domain (queries `mixture` and
`coverage_curve`, with their document-clustered intervals); on prompts and repeated random tokens the same definitions
are applied to the clean prompts (`profiler.model.attention`), every position but the special ones.

`null` is the scrambled claim: how often it holds at positions taken without regard to importance. A role whose words
make no claim that a behaviour of the library states is refused, with what is missing. The mixture says what else the
member does.
Cost: two queries a member; one forward pass per distribution of prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from profiler.behaviours.library import MOST
from profiler.circuits.circuit import Member
from profiler.database import query
from profiler.errors import QueryError
from profiler.generality.counterexamples import find
from profiler.generality.counterexamples.rates import rate
from profiler.generality.distributions.subject import PromptDistribution, Subject
from profiler.generality.evidence import finding
from profiler.generality.evidence.claims import Claim, claim_of
from profiler.generality.evidence.distributions import CORPUS, Distribution
from profiler.generality.evidence.finding import FEWEST, Finding
from profiler.generality.faithfulness.prompts import Ratio, clusters_of, ratio, unit_of
from profiler.model import attention
from profiler.model.network import Network, Offsets, forward
from profiler.patching.setting import PairRuns
from profiler.patching.sites import parse_target
from profiler.text.token_classes import CLASS_ID

TOP = 0.05
TOP_NAME = "coverage of the top 5 %"
SHOWN = 0.01
"""Smallest share of a mixture that is kept as a row."""
Tokens = Int[Tensor, "prompt offset"]
PROMPTS_AT_ONCE = 16


def findings(subject: Subject) -> tuple[Finding, ...]:
    """Coverage of every member's role on every distribution where it can be asked, and every member's mixture."""
    rows: list[Finding] = []
    members = [m for m in subject.general.members if parse_target(m.component).site in ("head", "neuron")]
    if subject.text.batches:
        for member in members:
            subject.report(f"coverage and mixture of {member.component}")
            rows += of_run(subject.run, member)
    claimed = [(m, c) for m in members if (c := claim_of(m.role, m.component)) and c.mass in attention.MASSES]
    for one in subject.distributions.prompts:
        if claimed and one.setting is not None:
            rows += on_prompts(subject, one, claimed)
    return tuple(rows)


# --- from the run ---


def of_run(run: Path, member: Member) -> list[Finding]:
    """Coverage and mixture of one member over the corpus and each domain, from the rows that the run kept."""
    claim = claim_of(member.role, member.component)
    rows = _mixture_rows(run, member)
    if not member.role:
        return rows
    if claim is None or claim.untestable:
        why = claim.untestable if claim else "its words make no claim that is known"
        return [*rows, _refused(member, why)]
    if claim.behaviour:
        return rows + _coverage_rows(run, member, claim.behaviour)
    return rows + _claim_rows(run, member, claim)


def _refused(member: Member, why: str) -> Finding:
    return finding.refused(member.component, member.role, "coverage", CORPUS, "coverage", 0, "positions", why)


def _claim_rows(run: Path, member: Member, claim: Claim) -> list[Finding]:
    """Coverage of a claim that no behaviour of the library states, from the same rows that counter-examples come
    from."""
    facts = find.facts(run, member.component, claim).filter(pl.col("component") == member.component)
    slices = [(CORPUS, facts), *((f"domain: {name}", part) for (name,), part in sorted(facts.group_by("domain")))]
    return [_claim_row(member, distribution, part) for distribution, part in slices]


def _claim_row(member: Member, distribution: str, facts: pl.DataFrame) -> Finding:
    about, n = (member.component, member.role, "coverage", distribution, "coverage"), facts.height
    weight, held = pl.col("weight"), pl.col("should") & pl.col("acts")
    found = rate(facts, held, pl.lit(True), weight * pl.col("importance"))
    if n < FEWEST or found.lo is None or found.hi is None:
        why = f"{n} positions in the run's sample; at least {FEWEST} are needed, of several documents"
        return finding.refused(*about, n, "positions", why)
    scrambled = rate(facts, held, pl.lit(True), weight).value
    return Finding(
        *about, found.value, found.lo, found.hi, n, "positions", null=scrambled, shares=("data corpus", "run")
    )


def _mixture_rows(run: Path, member: Member) -> list[Finding]:
    """A finding per slice (corpus, domain) and behaviour; their shares add up to 1 with what is below SHOWN."""
    frame = query.run(run, "mixture", component=member.component)
    kept = frame.filter(
        pl.col("slice").is_in(["all", "domain"]), (pl.col("share") >= SHOWN) | (pl.col("behaviour") == "unexplained")
    )
    return [
        _of_row(member, "mixture", _distribution(row), f"share: {row['behaviour']}", row, "share", "n_slice")
        for row in kept.iter_rows(named=True)
    ]


def _distribution(row: dict) -> str:
    return CORPUS if row["slice"] == "all" else f"domain: {row['value']}"


def _coverage_rows(run: Path, member: Member, behaviour: str) -> list[Finding]:
    """Coverage of one behaviour: a mixture of it alone. The whole corpus also has its null and the top of
    importance."""
    try:
        alone = query.run(run, "mixture", component=member.component, behaviours=behaviour)
        curve = query.run(run, "coverage_curve", component=member.component, behaviour=behaviour)
    except QueryError as error:
        why = f"the run cannot be asked for {behaviour!r}: {error}"
        return [_refused(member, why)]
    rows = [
        _of_row(member, "coverage", _distribution(row), "coverage", row, "share", "n_slice")
        for row in _with_zeros(alone, behaviour).iter_rows(named=True)
    ]
    nulls = {round(row["top"], 6): row for row in curve.iter_rows(named=True)}
    rows = [_with_null(one, nulls.get(1.0)) if one.distribution == CORPUS else one for one in rows]
    if TOP in nulls:
        top = _of_row(member, "coverage", CORPUS, TOP_NAME, nulls[TOP], "coverage", "n")
        rows.append(_with_null(top, nulls[TOP]))
    return rows


def _with_zeros(alone: pl.DataFrame, behaviour: str) -> pl.DataFrame:
    """The behaviour's rows; where it never holds in a slice it has none, and what is unexplained is all: 0 with its
    bound."""
    slices = alone.filter(pl.col("slice").is_in(["all", "domain"]))
    held = slices.filter(pl.col("behaviour") == behaviour)
    none = slices.filter(pl.col("behaviour") == "unexplained").join(held, on=["slice", "value"], how="anti")
    turned = none.with_columns(
        share=1 - pl.col("share"), share_lo=1 - pl.col("share_hi"), share_hi=1 - pl.col("share_lo")
    )
    return pl.concat([held, turned.select(held.columns)])


def _with_null(one: Finding, row: dict | None) -> Finding:
    return one if row is None or one.value is None else replace(one, null=row["scrambled"])


def _of_row(
    member: Member, technique: str, distribution: str, statistic: str, row: dict, value: str, n: str
) -> Finding:
    """A finding from a query's row; refused where it rests on too few positions or has no interval."""
    about = (member.component, member.role, technique, distribution, statistic)
    lo, hi = row[f"{value}_lo"], row[f"{value}_hi"]
    if row[n] < FEWEST or lo is None:
        return finding.refused(
            *about, row[n], "positions", f"{row[n]} positions in the run's sample; at least {FEWEST} are needed"
        )
    return Finding(*about, row[value], lo, hi, row[n], "positions", shares=("data corpus", "run"))


# --- from a forward pass ---


def on_prompts(subject: Subject, one: PromptDistribution, claimed: Sequence[tuple[Member, Claim]]) -> list[Finding]:
    """Coverage of claims about attention over the clean prompts of a distribution."""
    measured = seen(subject, one.setting)  # type: ignore[arg-type]
    rows = []
    for member, claim in claimed:
        target = parse_target(member.component)
        head = target.layer * subject.net.n_heads + (target.unit or 0)
        holds = measured.masses[:, head, attention.MASSES.index(claim.mass)] >= MOST
        weight = np.abs(measured.dla[:, head])
        found = ratio(weight * holds, weight, measured.clusters)
        rows.append(_covered(member, one.distribution, found, float(holds.mean())))
    return rows


def _covered(member: Member, distribution: Distribution, found: Ratio, scrambled: float) -> Finding:
    return Finding(
        member.component,
        member.role,
        "coverage",
        distribution.name,
        "coverage",
        found.value,
        *bounded(found),
        found.n,
        unit_of(distribution),
        null=scrambled,
        shares=(f"data {distribution.name}",),
    )


def bounded(found: Ratio) -> tuple[float, float]:
    """The interval; of 0 and 1, which no resampling moves, the rule of three over the independent units."""
    far = min(1.0, 3 / found.n)
    lo = 1 - far if found.value == 1 else found.lo
    return lo, far if found.value == 0 else found.hi


@dataclass(frozen=True, eq=False)
class Seen:
    """Ordinary positions of some prompts: attention masses and DLA of every head, and the unit that each belongs to."""

    masses: Float[np.ndarray, "position head mass"]
    dla: Float[np.ndarray, "position head"]
    clusters: Int[np.ndarray, " position"]


def seen(subject: Subject, setting: PairRuns) -> Seen:
    """What every head does at every position of the clean prompts that has a token to predict."""
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
    return Seen(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _run(
    subject: Subject, tokens: Tokens, chosen: Bool[Tensor, "prompt offset"]
) -> tuple[Float[np.ndarray, "position head mass"], Float[np.ndarray, "position head"]]:
    """Masses and DLA of every head at the chosen positions; as `profiler.model.direct` defines them, from the network's
    weights."""
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
    heads: list[Tensor] = []
    final: list[Tensor] = []

    def keep(site: str, layer: int, value: Tensor, offsets: Offsets) -> Tensor:
        if site == "pattern":
            patterns.append(value[rows[0], :, rows[1]])
        elif site == "head":
            heads.append(value[rows])
        elif site == "resid_final":
            final.append(value[rows])
        return value

    with torch.inference_mode():
        forward(net, tokens, keep)
        way = toward(net, targets, final[0])
        dla = [torch.einsum("phd,hdm,pm->ph", z, w.w_o, way) for z, w in zip(heads, net.layers, strict=True)]
    return patterns, torch.cat(dla, -1)


def toward(
    net: Network, targets: Int[Tensor, " position"], stream: Float[Tensor, "position model"]
) -> Float[Tensor, "position model"]:
    """Direction whose product with a write is its DLA: the target's centred logit, the final norm's denominator
    frozen."""
    way = net.unembed.T[targets] - net.unembed.mean(1)
    if net.norm_final.eps is None:
        return way
    way = way * net.norm_final.weight
    way = way - way.mean(-1, keepdim=True) if net.norm_final.centres else way
    return way / net.norm_final.scale(stream)


def _classes(subject: Subject, tokens: Tokens) -> Tokens:
    classes = subject.text.layout.token_classes.to(tokens.device)[tokens]
    if subject.text.layout.bos_id is not None:
        classes[:, 0] = CLASS_ID["bos"]
    return classes
