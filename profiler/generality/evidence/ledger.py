"""The evidence ledger: each finding as a line that supports a claim, contradicts it, or leaves it open. No torch.

Why: a verdict must be traceable to the numbers behind it, and five numbers from the same prompts are not five
independent observations. A claim is a subject (the circuit, or a component) with its role. Each line is one finding
with its test; several distributions of one technique are tested together by Holm. Cost: none, plain data.

What each technique is tested for (every other statistic describes and decides nothing). Names in italics are fields of
profiler.generality.evidence.thresholds.Thresholds:

* faithfulness, corpus faithfulness, statistic `faithfulness`. On the discovery distribution: above *faithful*, and
  nearer to 1 than random circuits; contradicted below *faithful*, or farther below 1 than these are on average.
  Elsewhere: within *margin* of the discovery distribution (two one-sided tests, Schuirmann 1987), and nearer to 1 than
  random circuits. Contradicted if lower by more than *margin*, or above 1 + *over*, which is over-recovery. 1 is the
  best value, so a random circuit that recovers more than the whole effect is worse, not better. Each technique is
  compared with its own number on the discovery prompts: resampled values with resampled values, means with means.
* necessity: above the 95th percentile of matched random circuits. It never contradicts: removing a random circuit can
  cost more than removing the true one.
* coverage: the role holds on more than *role_share* of the component's importance, and on more than its null
  (scrambled roles, matched components). Contradicted if it holds on less than *role_share*, or fills less than
  *no_better* of the room above the null. A role that claims to hold at every position (previous token) has no scrambled
  null: scrambling it changes nothing. A role that names positions of prompts is compared with *role_share* alone: it is
  not wrong because other heads of the layer do the same.
* replacement, statistic `explained`: above the same rule on other heads and above *explained*. Contradicted if nothing
  is explained, or no more than for other heads.
* edits, swaps, statistic `success rate`: above control edits (by the finding's own paired test where it has one).
  Contradicted if within *no_better* of them.
* weights: whatever comes with a p value against null heads.

Weights of lines: two lines overlap by the Jaccard index of what they share: distribution, technique, and the names in
`Finding.shares` (data, gradients). A line weighs 1 / (1 + the sum of its overlaps with the claim's other lines), so k
lines that share everything weigh as one, and k that share nothing as k (the weighting of redundant sequences by
neighbours; Henikoff & Henikoff 1994 has its idea).

A role that names positions of prompts says nothing of other positions. Lines of its general form are tested like any
others, for what they say of the component, but the verdict does not use them: the circuit does not claim them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from math import hypot, inf
from typing import Literal

import numpy as np

from profiler.circuits.positions import position_role
from profiler.generality.evidence.claims import claim_of
from profiler.generality.evidence.finding import Finding
from profiler.generality.evidence.thresholds import DEFAULT, Thresholds
from profiler.statistics import ROUNDING, Z95, holm, normal_cdf

Speaks = Literal["for", "against", "undecided", "describes", "refused"]
Key = tuple[str, str, str]
"""Subject, statistic and distribution: what a prediction names."""

READ = {
    "faithfulness": "faithfulness",
    "corpus faithfulness": "faithfulness",
    "necessity": "necessity",
    "coverage": "coverage",
    "replacement": "explained",
    "edits": "success rate",
    "swaps": "success rate",
}
"""The statistic of each technique that is tested; of `weights`, any with a p value."""
FAITHFULNESS = ("faithfulness", "corpus faithfulness")
BASE = {"faithfulness": "faithfulness", "corpus faithfulness": "faithfulness with means"}
"""The statistic on the discovery prompts that each of them is compared with on other distributions."""


@dataclass(frozen=True)
class Line:
    """One line of the ledger.

    Attributes:
        finding: the number.
        speaks: for the claim, against it, or undecided; `describes` where it is no test, `refused` where there is no
            number.
        reason: what it was compared with, in words.
        way: how it contradicts the claim: `lower` or `over`; empty otherwise.
        p_for, p_against: one-sided p values, p_against by Holm over the lines tested with it; None where nothing is
            tested.
        weight: what it counts beside the claim's other lines, in (0, 1]; 0 where it is no test.
        registered: whether its claim was registered before the test; else it is post hoc.
    """

    finding: Finding
    speaks: Speaks
    reason: str
    way: str = ""
    p_for: float | None = None
    p_against: float | None = None
    weight: float = 0.0
    registered: bool = False

    @property
    def claim(self) -> tuple[str, str]:
        """Subject and role."""
        return self.finding.subject, self.finding.role


@dataclass(frozen=True)
class _Test:
    """One-sided p values of one finding: for the claim, against it as lower, against it as over-recovery."""

    p_for: float
    p_lower: float
    p_over: float
    reason: str


def p_above(finding: Finding, bound: float, also: float = 0.0) -> float:
    """One-sided p value of "the value is at most `bound`", from the lower arm of the 95 % interval.

    Args:
        also: standard error of `bound`, in the statistic's unit.
    """
    return _tail(bound - finding.estimate, hypot((finding.estimate - finding.lower) / Z95, also))


def p_below(finding: Finding, bound: float, also: float = 0.0) -> float:
    """One-sided p value of "the value is at least `bound`", from the upper arm of the 95 % interval."""
    return _tail(finding.estimate - bound, hypot((finding.upper - finding.estimate) / Z95, also))


def _tail(distance: float, error: float) -> float:
    """P(standard normal > -distance / error); without an error beyond rounding, 0 or 1 by the sign, 1 at 0."""
    if error > ROUNDING:
        return normal_cdf(distance / error)
    return 0.0 if distance < -ROUNDING else 1.0


def lines(
    findings: Sequence[Finding],
    distributions: Sequence[str],
    registered: Collection[Key] = (),
    thresholds: Thresholds = DEFAULT,
) -> tuple[Line, ...]:
    """The ledger of some findings, in their order.

    Args:
        findings: of one check; circuit and components together.
        distributions: names of the distributions, nearest first; the first is the discovery prompts.
        registered: (subject, statistic, distribution) of predictions registered before the test.
        thresholds: what decides.
    """
    base = {(f.subject, f.technique): f for f in findings if f.distribution == distributions[0] and _is_base(f)}
    tests = _Tests(distributions[0], thresholds)
    made = [_untested(f) or tests.of(f, base.get((f.subject, f.technique))) for f in findings]
    speaking = _decide(findings, made, tests)
    weights = weigh(speaking)
    return tuple(
        replace(line, weight=w, registered=_key(line.finding) in registered)
        for line, w in zip(speaking, weights, strict=True)
    )


def _key(finding: Finding) -> Key:
    return finding.subject, finding.statistic, finding.distribution


def _is_test(finding: Finding) -> bool:
    return finding.value is not None and READ.get(finding.technique) == finding.statistic


def _is_base(finding: Finding) -> bool:
    """Whether a finding on the discovery prompts is what the same technique elsewhere is compared with.

    Why by technique: resampled values and means give faithfulness of different size, so each is compared with its own.
    """
    return finding.value is not None and BASE.get(finding.technique) == finding.statistic


def _untested(finding: Finding) -> Line | None:
    """The line of a finding that is refused or only describes; None for one that is tested."""
    if finding.refused or finding.value is None:
        return Line(finding, "refused", finding.refused or "no number")
    has_interval = finding.lo is not None and finding.hi is not None
    if finding.technique == "weights" and finding.p is not None:
        return None
    return None if _is_test(finding) and has_interval else Line(finding, "describes", "")


@dataclass(frozen=True)
class _Tests:
    """The test of each technique, by the thresholds of a check; see the module's docstring."""

    discovery: str
    thresholds: Thresholds

    def of(self, finding: Finding, base: Finding | None) -> _Test:
        """The test of a finding; `base` is the same technique's number on the discovery prompts."""
        if finding.technique in FAITHFULNESS:
            at_home = finding.distribution == self.discovery
            return self._faithful(finding) if at_home else self._as_good(finding, base)
        if finding.technique == "weights":
            return _Test(1.0 if finding.p is None else finding.p, 1.0, 1.0, "null heads")
        if finding.technique == "necessity":
            known = finding.null is not None or finding.null_hi is not None
            return _Test(
                p_above(finding, _null_hi(finding, 0.0)) if known else 1.0, 1.0, 1.0, "matched random circuits"
            )
        if finding.technique in ("edits", "swaps"):
            lower = p_below(finding, (finding.null or 0.0) + self.thresholds.no_better)
            better = p_above(finding, _null_hi(finding, 0.0)) if finding.p is None else finding.p
            return _Test(better, lower, 1.0, "control edits")
        return self._coverage(finding) if finding.technique == "coverage" else self._replacement(finding)

    def _coverage(self, finding: Finding) -> _Test:
        """The role holds on more than its share of importance, and on more than the null."""
        finding, share = _fair(finding), self.thresholds.role_share
        room = None if finding.null is None else finding.null + self.thresholds.no_better * (1 - finding.null)
        lower = p_below(finding, share if room is None else max(share, room))
        reason = f"{100 * share:g} % of its importance, and the null"
        return _Test(p_above(finding, _null_hi(finding, share)), lower, 1.0, reason)

    def _replacement(self, finding: Finding) -> _Test:
        """More than a share of the effect is explained, and more than of other heads."""
        lower = p_below(finding, 0.0 if finding.null is None else max(0.0, finding.null))
        share = self.thresholds.explained
        reason = f"{100 * share:g} % of the effect, and other heads"
        return _Test(p_above(finding, _null_hi(finding, share)), lower, 1.0, reason)

    def _faithful(self, finding: Finding) -> _Test:
        """On the discovery prompts: whether there is something to generalise."""
        least = self.thresholds.faithful
        over = p_above(finding, 1 + self.thresholds.over)
        reason = f"{100 * least:g} % of the effect, and random circuits"
        typical = least if finding.null_distance is None else max(least, 1 - finding.null_distance)
        return _Test(max(p_above(finding, least), _p_nearer(finding)), p_below(finding, typical), over, reason)

    def _as_good(self, finding: Finding, base: Finding | None) -> _Test:
        """Elsewhere: whether it is as good as on the discovery prompts, lower, or over-recovery."""
        over, margin = p_above(finding, 1 + self.thresholds.over), self.thresholds.margin
        if base is None or base.lo is None or base.hi is None:
            return _Test(1.0, 1.0, over, "nothing measured in the same way on the discovery prompts")
        bound = base.estimate - margin
        not_lower = p_above(finding, bound, (base.hi - base.estimate) / Z95)
        not_over = p_below(finding, max(1.0, base.estimate) + margin)
        beats = _p_nearer(finding)
        lower = p_below(finding, bound, (base.estimate - base.lo) / Z95)
        reason = f"the discovery prompts' {base.estimate:.2f} less {margin:g}"
        return _Test(max(not_lower, not_over, beats), lower, over, reason)

    def line(self, finding: Finding, test: _Test, p_lower: float, p_over: float) -> Line:
        """The line of a tested finding, by its corrected p values."""
        p_against = min(p_lower, p_over)
        if p_against < self.thresholds.alpha:
            way = "over" if p_over < p_lower else "lower"
            reason = f"1 + {self.thresholds.over:g}" if way == "over" else test.reason
            return Line(finding, "against", reason, way, test.p_for, p_against)
        speaks: Speaks = "for" if test.p_for < self.thresholds.alpha else "undecided"
        return Line(finding, speaks, test.reason, "", test.p_for, p_against)


def _fair(finding: Finding) -> Finding:
    """Without its null where the role claims to hold everywhere, or names positions: see the module's docstring."""
    claim = claim_of(finding.role, finding.subject)
    bare = position_role(finding.role) is not None or (claim is not None and claim.everywhere)
    return replace(finding, null=None, null_hi=None) if bare else finding


def _null_hi(finding: Finding, least: float) -> float:
    """What a claim must exceed: the null's 95th percentile, or its mean where that is all there is, and `least`."""
    null = finding.null_hi if finding.null_hi is not None else finding.null
    return least if null is None else max(least, null)


def _p_nearer(finding: Finding) -> float:
    """One-sided p of "the value is no nearer to 1 than the nearest 5 % of the null"; 0 without a null.

    The value must lie between 1 - d and 1 + d, d being their distance.
    """
    if finding.null_near is not None:
        return max(p_above(finding, 1 - finding.null_near), p_below(finding, 1 + finding.null_near))
    return p_above(finding, _null_hi(finding, 0.0)) if finding.null is not None else 0.0


def _decide(findings: Sequence[Finding], made: Sequence[Line | _Test], tests: _Tests) -> list[Line]:
    """Lines with their verdict. What contradicts is corrected by Holm over all lines of the technique's family."""
    family = {i: _family(findings[i], tests.discovery) for i, test in enumerate(made) if isinstance(test, _Test)}
    against: dict[int, tuple[float, float]] = {}
    for name in set(family.values()):
        own = [i for i in family if family[i] == name]
        lower, over = (holm(np.array([getattr(made[i], way) for i in own])) for way in ("p_lower", "p_over"))
        against |= {i: (float(lower[k]), float(over[k])) for k, i in enumerate(own)}
    return [
        tests.line(findings[i], test, *against[i]) if isinstance(test, _Test) else test for i, test in enumerate(made)
    ]


def _family(finding: Finding, discovery: str) -> str:
    """The group of lines that are corrected together; the discovery prompts are tested first and alone."""
    if finding.technique in FAITHFULNESS:
        return "base" if finding.distribution == discovery else "faithfulness"
    return f"{finding.technique} of general forms" if finding.general_form_of else finding.technique


def weigh(ledger: Sequence[Line]) -> list[float]:
    """The weight of each line beside the other tests of its claim; 0 for lines that test nothing."""
    shared = [_shared(line) for line in ledger]
    tests = [line.speaks in ("for", "against", "undecided") for line in ledger]

    def overlap(i: int) -> float:
        rest = (j for j in range(len(ledger)) if j != i and tests[j] and ledger[j].claim == ledger[i].claim)
        return sum((_jaccard(shared[i], shared[j]) for j in rest), 0.0)

    return [1 / (1 + overlap(i)) if tests[i] else 0.0 for i in range(len(ledger))]


def _shared(line: Line) -> frozenset[str]:
    finding = line.finding
    return frozenset({f"distribution {finding.distribution}", f"technique {finding.technique}", *finding.shares})


def _jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    return len(first & second) / len(first | second)


def n_needed(finding: Finding, bound: float, also: float = 0.0) -> float:
    """Examples at which the 95 % interval would leave out `bound`, if the estimate stayed where it is.

    The interval's width falls as 1 / sqrt(n). Infinite where the estimate lies on the bound.

    Args:
        also: standard error of `bound`; it is taken to fall with n too, both being measured on more.
    """
    distance = abs(finding.estimate - bound)
    below = finding.estimate < bound
    arm = finding.upper - finding.estimate if below else finding.estimate - finding.lower
    return finding.n * (hypot(arm, Z95 * also) / distance) ** 2 if distance > ROUNDING else inf
