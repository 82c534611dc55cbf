"""Rows and findings of the replacement of one component by one rule. No torch.

Cost: none, plain data.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

from profiler.generality.evidence.finding import NO_NULL, CausalChoices, Finding, Interval, Null, Question
from profiler.generality.replacement.shares import ExplainedShare

DIRECT, GONE = "KL on the direct path", "KL with its stand-ins gone"


@dataclass(frozen=True)
class Replacement:
    """Effects explained in one bin of importance; a row of the run file.

    Attributes:
        component, role, rule: what was replaced, what is claimed of it, by what.
        percentile_lo, percentile_hi: percentiles of the component's |DLA|.
        measure: KL, net loss or |change of loss|.
        d_replaced, d_ablated: mean effect per position, nats.
        explained, lo, hi: 1 - d_replaced / d_ablated with its 95 % interval; None where refused.
        n: positions.
        null_explained: mean share of the null heads; None where none has one.
    """

    component: str
    role: str
    rule: str
    percentile_lo: float
    percentile_hi: float
    measure: str
    d_replaced: float
    d_ablated: float
    explained: float | None
    lo: float | None
    hi: float | None
    n: int
    null_explained: float | None


@dataclass(frozen=True)
class Guard:
    """Whether mean ablation of a component says how much it does: ratios with 95 % intervals, and why not.

    Attributes:
        later: KL of its ablation over KL of its ablation on the direct path alone; low where later ones make up for it.
        rivals: heads whose attention is most like its own.
        without_rivals: KL of its ablation with the rivals gone over KL with them; high where they stand in for it. None
            without rivals.
        refused: why the share is refused; empty where it is not.
    """

    later: tuple[float, float, float]
    rivals: tuple[str, ...]
    without_rivals: tuple[float, float, float] | None
    refused: str = ""


@dataclass(frozen=True)
class Explained:
    """One component, one rule.

    Attributes:
        component, role, rule: as in Replacement.
        fallback: what stands where the rule has nothing to say.
        silent: share of positions where it has nothing to say.
        shares: per measure, over all positions; also DIRECT, and GONE where it has rivals.
        nulls: per measure, the same rule on the null heads.
        n_nulls: per measure, how many null heads have a share.
        null_heads: their labels, nearest in cost of ablation first, and the cost over the component's.
        guard: on the denominator.
        rows: by measure and percentile.
    """

    component: str
    role: str
    rule: str
    fallback: str
    silent: float
    shares: Mapping[str, ExplainedShare]
    nulls: Mapping[str, Null]
    n_nulls: Mapping[str, int]
    null_heads: tuple[tuple[str, float], ...]
    guard: Guard
    rows: tuple[Replacement, ...]

    def findings(self, question: Question) -> tuple[Finding, ...]:
        """`explained` (in KL), the same in the other measures, on the direct path, without stand-ins; and the guard."""
        shares = [self.share_finding(question, measure) for measure in self.shares]
        node = question.using("replacement", choices=self._choices(question.distribution, "node"))
        n = self.shares["KL"].n_documents
        return (*shares, *(node.finding(name, Interval(*values, n)) for name, values in self._beside().items()))

    def share_finding(self, question: Question, measure: str = "KL", statistic: str = "") -> Finding:
        """One share explained, under its own name or another."""
        name = statistic or ("explained" if measure == "KL" else f"explained, {measure}")
        share = self.shares[measure]
        why = share.refused or ("" if measure in (DIRECT, GONE) else self.guard.refused)
        if why or share.explained is None:
            return question.refused(name, share.n_documents, why)
        choices = self._choices(question.distribution, "edge" if measure == DIRECT else "node")
        measured = Interval(share.explained, share.lo, share.hi, share.n_documents)
        null = self.nulls.get(measure, NO_NULL)
        return question.using("replacement", choices=choices).finding(name, measured, null)

    def _choices(self, distribution: str, granularity: str) -> CausalChoices:
        kind = "neuron" if "N" in self.component else "head"
        return CausalChoices(granularity, kind, "mean", "ordinary", "noise", distribution)

    def _beside(self) -> dict[str, tuple[float, float | None, float | None]]:
        """Numbers beside the shares, with their intervals, where they are finite."""
        numbers: dict[str, tuple[float, float | None, float | None]] = {
            "positions without a target": (self.silent, None, None),
            "ablation over ablation on the direct path": self.guard.later,
            "KL when mean-ablated": (self.shares["KL"].d_ablated, None, None),
        }
        if self.guard.without_rivals is not None:
            numbers["ablation with stand-ins gone over with them"] = self.guard.without_rivals
        return {name: values for name, values in numbers.items() if isfinite(values[0])}
