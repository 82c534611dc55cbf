"""Rows and findings of replacement by understanding: what is kept of one component and one rule. No torch.

Cost: none, plain data.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

from profiler.generality.evidence.finding import Finding, Setting, refused
from profiler.generality.replacement.shares import Null, Share

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
        others: KL of its ablation with the rivals gone over KL with them; high where they stand in for it. None without
          rivals.
        refused: why the share is refused; empty where it is not.
    """

    later: tuple[float, float, float]
    rivals: tuple[str, ...]
    others: tuple[float, float, float] | None
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
        null_heads: their labels, nearest in cost of ablation first, and the cost over the component's.
        guard: on the denominator.
        rows: by measure and percentile.
    """

    component: str
    role: str
    rule: str
    fallback: str
    silent: float
    shares: Mapping[str, Share]
    nulls: Mapping[str, Null]
    null_heads: tuple[tuple[str, float], ...]
    guard: Guard
    rows: tuple[Replacement, ...]

    def findings(self, distribution: str = "corpus") -> tuple[Finding, ...]:
        """`explained` (in KL), the same in the other measures, on the direct path, without stand-ins; and the guard."""
        found = [self._finding(distribution, measure, one) for measure, one in self.shares.items()]
        return (*found, *self._beside(distribution))

    def _finding(self, distribution: str, measure: str, one: Share) -> Finding:
        name = "explained" if measure == "KL" else f"explained, {measure}"
        why = one.refused or ("" if measure in (DIRECT, GONE) else self.guard.refused)
        if why:
            return refused(
                self.component, self.role, "replacement", distribution, name, one.n_documents, "documents", why
            )
        null = self.nulls.get(measure, Null(None, None, None, 0))
        return Finding(
            self.component,
            self.role,
            "replacement",
            distribution,
            name,
            one.explained,
            one.lo,
            one.hi,
            one.n_documents,
            "documents",
            null.mean,
            null.hi,
            null.p,
            self._setting(distribution, "edge" if measure == DIRECT else "node"),
            ("data corpus",),
        )

    def _setting(self, distribution: str, granularity: str) -> Setting:
        return Setting(
            granularity, "neuron" if "N" in self.component else "head", "mean", "ordinary", "noise", distribution
        )

    def _beside(self, distribution: str) -> list[Finding]:
        n, kl = self.shares["KL"].n_documents, self.shares["KL"]
        numbers = {
            "positions without a target": (self.silent, None, None),
            "ablation over ablation on the direct path": self.guard.later,
            "KL when mean-ablated": (kl.d_ablated, None, None),
        }
        if self.guard.others is not None:
            numbers["ablation with stand-ins gone over with them"] = self.guard.others
        setting = self._setting(distribution, "node")
        return [
            Finding(
                self.component,
                self.role,
                "replacement",
                distribution,
                name,
                *values,
                n,
                "documents",
                setting=setting,
                shares=("data corpus",),
            )
            for name, values in numbers.items()
            if isfinite(values[0])
        ]
