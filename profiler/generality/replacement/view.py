"""Shares, nulls, guard and rows of one component and one rule, from what was measured of many components.

The guard asks whether mean ablation says how much a component does; see `replacement`. Cost: bootstrap of about 50
ratios.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from profiler.generality.evidence.thresholds import DEFAULT, Thresholds
from profiler.generality.replacement import shares
from profiler.generality.replacement.rows import DIRECT, GONE, Explained, Guard, Replacement
from profiler.generality.replacement.rules import Rule
from profiler.generality.replacement.run import Job, MeasuredEffects
from profiler.generality.replacement.shares import FEWEST_OF_NULL, MEASURES, ExplainedShare
from profiler.patching.sites import Target

Positions = np.ndarray | slice
ALL = slice(None)


@dataclass(frozen=True)
class ClaimedRule:
    """A component, the rule that stands for what is said of it, and the role in words.

    Attributes:
        alone: only the share itself is wanted: no null heads, no direct path, no stand-ins.
    """

    target: Target
    rule: Rule
    role: str = ""
    alone: bool = False


@dataclass(frozen=True, eq=False)
class View:
    """What was measured, seen from one claim.

    Attributes:
        claim: the component and its rule.
        peers: its null heads.
        fitted: rules as fitted.
        measured: effects of the claim's own jobs.
        beside: effects of the null heads' jobs, on a part of the text.
        rivals, without: heads that attend like it, and effects with these gone; None without rivals.
        thresholds: what decides whether a share is given.
    """

    claim: ClaimedRule
    peers: tuple[Target, ...]
    fitted: Mapping[tuple[Target, str], Rule]
    measured: MeasuredEffects
    beside: MeasuredEffects
    rivals: tuple[Target, ...]
    without: MeasuredEffects | None
    thresholds: Thresholds = DEFAULT

    @property
    def documents(self) -> np.ndarray:
        """Document of each position."""
        return self.measured.documents

    def job(self, target: Target, *, direct: bool = False) -> Job:
        """The job that puts the claim's rule, as fitted for it, on a component."""
        return Job(target, self.fitted[target, self.claim.rule.name], direct=direct)

    def share(
        self,
        target: Target,
        measure: str,
        at: Positions,
        measured: MeasuredEffects | None = None,
        *,
        direct: bool = False,
    ) -> ExplainedShare:
        """Share explained of a component at some positions."""
        effects, column = (measured or self.measured).effects, MEASURES.index(measure)
        replaced, ablated = effects[self.job(target, direct=direct)], effects[Job(target, direct=direct)]
        return shares.share(
            replaced[at, column],
            ablated[at, column],
            self.documents[at],
            measure,
            thresholds=self.thresholds,
            domains=self.measured.domains[at],
        )

    def other(self, target: Target, measure: str, at: Positions) -> float | None:
        """Share explained of a null head at some positions of its part of the text; an estimate without an interval."""
        column, rule = MEASURES.index(measure), self.fitted[target, self.claim.rule.name]
        replaced, ablated = (
            self.beside.effects[Job(target, rule_or_none)][at, column] for rule_or_none in (rule, None)
        )
        lenient = replace(self.thresholds, fewest=FEWEST_OF_NULL)
        documents, domains = self.beside.documents[at], self.beside.domains[at]
        return shares.share(replaced, ablated, documents, measure, thresholds=lenient, domains=domains).explained

    def explained(self) -> Explained:
        """Everything about the claim."""
        target, everywhere = self.claim.target, ALL
        overall = {measure: self.share(target, measure, everywhere) for measure in MEASURES}
        null_shares = {m: [self.other(t, m, everywhere) for t in self.peers] for m in MEASURES}
        nulls = {m: shares.null_of(overall[m].explained, null_shares[m]) for m in MEASURES}
        beside = {} if self.claim.alone else {DIRECT: self.share(target, "KL", everywhere, direct=True)}
        if self.without is not None:
            beside[GONE] = self.share(target, "KL", everywhere, self.without)
        rule = self.fitted[target, self.claim.rule.name]
        silent = float(1 - self.measured.said[self.job(target)].mean())
        return Explained(
            target.label,
            self.claim.role,
            rule.name,
            rule.fallback,
            silent,
            {**overall, **beside},
            {measure: null for measure, (null, _) in nulls.items()},
            {measure: n for measure, (_, n) in nulls.items()},
            self._null_heads(),
            self._guard(),
            self._rows(),
        )

    def _null_heads(self) -> tuple[tuple[str, float], ...]:
        own = max(float(self.measured.effects[Job(self.claim.target)][:, 0].mean()), 1e-300)
        return tuple((t.label, float(self.beside.effects[Job(t)][:, 0].mean()) / own) for t in self.peers)

    def _guard(self) -> Guard:
        target, effects = self.claim.target, self.measured.effects
        if self.claim.alone:
            return Guard((float("nan"), 0.0, float("inf")), (), None)
        alone = effects[Job(target)][:, 0]
        later = shares.growth(alone, effects[Job(target, direct=True)][:, 0], self.documents)
        null_loss = (
            None
            if self.without is None
            else shares.growth(self.without.effects[Job(target)][:, 0], alone, self.documents)
        )
        labels = tuple(rival.label for rival in self.rivals)
        return Guard(later, labels, null_loss, _why(later, null_loss, labels, self.thresholds))

    def _rows(self) -> tuple[Replacement, ...]:
        parts = {t: shares.bins(self.beside.importance[t]) for t in self.peers}
        parts[self.claim.target] = shares.bins(self.measured.importance[self.claim.target])
        return tuple(self._row(measure, i, parts) for measure in MEASURES for i in range(len(shares.EDGES)))

    def _row(self, measure: str, i: int, parts: Mapping[Target, list[tuple[float, float, np.ndarray]]]) -> Replacement:
        target = self.claim.target
        lo, hi, at = parts[target][i]
        share = self.share(target, measure, at)
        null, _ = shares.null_of(share.explained, [self.other(t, measure, parts[t][i][2]) for t in self.peers])
        return Replacement(
            target.label,
            self.claim.role,
            self.claim.rule.name,
            lo,
            hi,
            measure,
            share.d_replaced,
            share.d_ablated,
            share.explained,
            share.lo,
            share.hi,
            share.n,
            null.mean,
        )


def _why(
    later: tuple[float, float, float],
    null_loss: tuple[float, float, float] | None,
    rivals: tuple[str, ...],
    thresholds: Thresholds = DEFAULT,
) -> str:
    """Why the share over mean ablation is refused; empty where it is not."""
    ratio, _, upper = later
    if upper < thresholds.made_up:
        return (
            f"later components make up for it: its ablation costs {ratio:.2f} of what it costs on the direct path"
            " alone, so the denominator is not what it does; see the direct path"
        )
    times, lower, _ = null_loss or (1.0, 0.0, 0.0)
    if lower > thresholds.stand_ins:
        return (
            f"{' and '.join(rivals)} stand in for it: with them gone its ablation costs {times:.1f} times as much,"
            " so the denominator is not what it does; see the share with its stand-ins gone"
        )
    return ""
