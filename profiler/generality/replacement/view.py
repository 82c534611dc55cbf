"""What was measured of many components, seen from one claim: shares, nulls, guard and rows of one component and one
rule.

The guard asks whether mean ablation says how much a component does; see `replacement`. Cost: bootstrap of about 50
ratios.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from profiler.generality.replacement import shares
from profiler.generality.replacement.rows import DIRECT, GONE, Explained, Guard, Replacement
from profiler.generality.replacement.rules import Rule
from profiler.generality.replacement.run import MEASURES, Job, Measured
from profiler.generality.replacement.shares import Share
from profiler.patching.sites import Target

STAND_INS, MADE_UP = 2.0, 0.5
Places = np.ndarray | slice
ALL = slice(None)


@dataclass(frozen=True)
class Claimed:
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
        others: its null heads.
        fitted: rules as fitted.
        measured: effects of the claim's own jobs.
        beside: effects of the null heads' jobs, on a part of the text.
        rivals, without: heads that attend like it, and effects with these gone; None without rivals.
    """

    claim: Claimed
    others: tuple[Target, ...]
    fitted: Mapping[tuple[Target, str], Rule]
    measured: Measured
    beside: Measured
    rivals: tuple[Target, ...]
    without: Measured | None

    @property
    def documents(self) -> np.ndarray:
        """Document of each position."""
        return self.measured.documents

    def job(self, target: Target, direct: bool = False) -> Job:
        """The job that puts the claim's rule, as fitted for it, on a component."""
        return Job(target, self.fitted[target, self.claim.rule.name], direct)

    def share(
        self, target: Target, measure: str, at: Places, measured: Measured | None = None, direct: bool = False
    ) -> Share:
        """Share explained of a component at some positions."""
        effects, column = (measured or self.measured).effects, MEASURES.index(measure)
        replaced, ablated = effects[self.job(target, direct)], effects[Job(target, None, direct)]
        return shares.share(replaced[at, column], ablated[at, column], self.documents[at], measure)

    def other(self, target: Target, measure: str, at: Places) -> float | None:
        """Share explained of a null head at some positions of its part of the text; an estimate without an interval."""
        column, rule = MEASURES.index(measure), self.fitted[target, self.claim.rule.name]
        replaced, ablated = (self.beside.effects[Job(target, one)][at, column] for one in (rule, None))
        return shares.share(replaced, ablated, self.beside.documents[at], measure, fewest=2).explained

    def explained(self) -> Explained:
        """Everything about the claim."""
        target, everywhere = self.claim.target, ALL
        overall = {measure: self.share(target, measure, everywhere) for measure in MEASURES}
        others = {m: [self.other(t, m, everywhere) for t in self.others] for m in MEASURES}
        nulls = {m: shares.null_of(overall[m].explained, others[m]) for m in MEASURES}
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
            nulls,
            self._null_heads(),
            self._guard(),
            self._rows(),
        )

    def _null_heads(self) -> tuple[tuple[str, float], ...]:
        own = max(float(self.measured.effects[Job(self.claim.target)][:, 0].mean()), 1e-300)
        return tuple((t.label, float(self.beside.effects[Job(t)][:, 0].mean()) / own) for t in self.others)

    def _guard(self) -> Guard:
        target, effects = self.claim.target, self.measured.effects
        if self.claim.alone:
            return Guard((float("nan"), 0.0, float("inf")), (), None)
        alone = effects[Job(target)][:, 0]
        later = shares.growth(alone, effects[Job(target, None, True)][:, 0], self.documents)
        others = (
            None
            if self.without is None
            else shares.growth(self.without.effects[Job(target)][:, 0], alone, self.documents)
        )
        labels = tuple(rival.label for rival in self.rivals)
        return Guard(later, labels, others, _why(later, others, labels))

    def _rows(self) -> tuple[Replacement, ...]:
        parts = {t: shares.bins(self.beside.importance[t]) for t in self.others}
        parts[self.claim.target] = shares.bins(self.measured.importance[self.claim.target])
        return tuple(self._row(measure, i, parts) for measure in MEASURES for i in range(len(shares.EDGES)))

    def _row(self, measure: str, i: int, parts: Mapping[Target, list[tuple[float, float, np.ndarray]]]) -> Replacement:
        target = self.claim.target
        lo, hi, at = parts[target][i]
        one = self.share(target, measure, at)
        null = shares.null_of(one.explained, [self.other(t, measure, parts[t][i][2]) for t in self.others])
        return Replacement(
            target.label,
            self.claim.role,
            self.claim.rule.name,
            lo,
            hi,
            measure,
            one.d_replaced,
            one.d_ablated,
            one.explained,
            one.lo,
            one.hi,
            one.n,
            null.mean,
        )


def _why(later: tuple[float, float, float], others: tuple[float, float, float] | None, rivals: tuple[str, ...]) -> str:
    if later[2] < MADE_UP:
        return (
            f"later components make up for it: its ablation costs {later[0]:.2f} of what it costs on the direct path"
            " alone, so the denominator is not what it does; see the direct path"
        )
    if others is not None and others[1] > STAND_INS:
        return (
            f"{' and '.join(rivals)} stand in for it: with them gone its ablation costs {others[0]:.1f} times as much,"
            " so the denominator is not what it does; see the share with its stand-ins gone"
        )
    return ""
