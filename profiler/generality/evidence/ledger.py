"""The evidence ledger: every finding about a claim as a line that speaks for it, against it, or not yet. No torch.

Why: a verdict must be traceable to the numbers behind it, and five numbers from the same prompts are not five
  witnesses.
A claim is a subject (the circuit, or a component) with its role. Each line is one finding with its test; several
distributions of one technique are tested together by Holm. Cost: none, plain data.

What a line is tested for, by technique (every other statistic describes and does not decide):

* faithfulness, corpus faithfulness, statistic `faithfulness`. On the discovery distribution: above FAITHFUL and above
  random circuits. Elsewhere: within MARGIN of the discovery distribution (two one-sided tests, Schuirmann 1987);
  against it if lower by more than MARGIN, or above 1 + OVER, which is over-recovery and no success. Each technique is
  held against its own number on the discovery prompts: resampled values with resampled values, means with means.
* necessity: above the 95th percentile of matched random circuits. It never speaks against: a random knock-out can hurt
  more than a true one.
* coverage: the role holds on over HALF of the component's importance, and on more than its null (scrambled roles,
  matched components); against it if on less than HALF, or if of the room that the null leaves it fills less than
  NO_BETTER. A role that claims to hold at every position (previous token) has no scrambled null: scrambling it changes
  nothing. A role that names places of prompts is held against HALF alone: that others of its layer do so too does not
  make it wrong.
* replacement, statistic `explained`: above the same rule on other heads and over HALF; against it if nothing is
  explained, or no more than for other heads.
* edits, swaps, statistic `success rate`: above control edits (by the finding's own paired test where it has one);
  against it if within NO_BETTER of them.
* weights: whatever comes with a p value against null heads.

Weights of lines: two lines overlap by the Jaccard index of what they share: distribution, technique, and the names in
`Finding.shares` (data, gradients). A line weighs 1 / (1 + the sum of its overlaps with the claim's other lines), so k
lines that share everything weigh as one, and k that share nothing as k (the weighting of redundant sequences by
neighbours; Henikoff & Henikoff 1994 has its idea).

A role that names places says nothing of other positions. Lines of its general form are tested like any others, for what
they say of the component, but apart from the circuit's claims: the verdict rests on these alone.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from math import hypot, inf
from typing import Literal

import numpy as np

from profiler.circuits.positions import position_role
from profiler.generality.evidence.claims import claim_of
from profiler.generality.evidence.finding import Finding
from profiler.statistics import ROUNDING, Z95, holm, normal_cdf

Speaks = Literal["for", "against", "undecided", "describes", "refused"]
Key = tuple[str, str, str]
"""Subject, statistic and distribution: what a prediction names."""

MARGIN = 0.2
"""Largest difference in faithfulness that still is as good: a fifth of the whole effect. Defensible choices in measuring
one circuit on one task move it by about as much (Miller et al. 2024), so a smaller one could not be told from them."""
OVER = 0.1
"""How far above 1 a circuit may lie: as far as circuits are accepted on their discovery prompts (profiler.circuits.choose)."""
FAITHFUL = 0.5
"""Least faithfulness on the discovery prompts that leaves something to generalise: half of the effect."""
HALF = 0.5
"""A role that holds on less than half of a component's importance is not what the component does."""
NO_BETTER = 0.1
"""An edit that works at most this much more often than its control, or a role that fills at most this much of the room
above its null, is no evidence that anything was understood."""
ALPHA = 0.05
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
        reason: what it was held against, in words.
        way: which way it speaks against: `lower` or `over`; empty otherwise.
        p_for, p_against: one-sided p values; p_against by Holm over the lines tested with it; None where nothing is
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
    """p values of one finding: for the claim, against it as lower, against it as over."""

    p_for: float
    p_lower: float
    p_over: float
    reason: str


def p_above(finding: Finding, bound: float, also: float = 0.0) -> float:
    """One-sided p against "the value is at most `bound`", from the lower arm of the 95 % interval.

    Args:
        also: standard error of `bound`, in the statistic's unit.
    """
    return _tail(bound - finding.value, hypot((finding.value - finding.lo) / Z95, also))


def p_below(finding: Finding, bound: float, also: float = 0.0) -> float:
    """One-sided p against "the value is at least `bound`", from the upper arm of the 95 % interval."""
    return _tail(finding.value - bound, hypot((finding.hi - finding.value) / Z95, also))


def _tail(distance: float, error: float) -> float:
    """P(standard normal > -distance / error); without an error beyond rounding, 0 or 1 by the sign, 1 at the bound
    itself."""
    if error > ROUNDING:
        return normal_cdf(distance / error)
    return 0.0 if distance < -ROUNDING else 1.0


def lines(
    findings: Sequence[Finding], distributions: Sequence[str], registered: Collection[Key] = (), alpha: float = ALPHA
) -> tuple[Line, ...]:
    """The ledger of some findings, in their order.

    Args:
        findings: of one check; circuit and components together.
        distributions: names of the distributions from narrow to wide; the first is the discovery prompts.
        registered: (subject, statistic, distribution) of predictions registered before the test.
        alpha: level of every test.
    """
    base = {(f.subject, f.technique): f for f in findings if f.distribution == distributions[0] and _is_base(f)}
    made = [_untested(f) or _test(f, base.get((f.subject, f.technique)), distributions[0]) for f in findings]
    speaking = _decide(findings, made, distributions[0], alpha)
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
    """Whether a finding on the discovery prompts is what the same technique elsewhere is held against.

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


def _test(finding: Finding, base: Finding | None, discovery: str) -> _Test:
    """What the finding says of its claim; see the module's docstring."""
    if finding.technique in FAITHFULNESS:
        return _faithful(finding) if finding.distribution == discovery else _as_good(finding, base)
    if finding.technique == "weights":
        return _Test(finding.p, 1.0, 1.0, "null heads")
    if finding.technique == "necessity":
        known = finding.null is not None or finding.null_hi is not None
        return _Test(p_above(finding, _null_hi(finding, 0.0)) if known else 1.0, 1.0, 1.0, "matched random circuits")
    if finding.technique in ("edits", "swaps"):
        lower = p_below(finding, (finding.null or 0.0) + NO_BETTER)
        better = p_above(finding, _null_hi(finding, 0.0)) if finding.p is None else finding.p
        return _Test(better, lower, 1.0, "control edits")
    return _of_role(finding)


def _of_role(finding: Finding) -> _Test:
    """Coverage and replacement: more than half and more than the null; against it what the module's docstring says."""
    if finding.technique == "coverage":
        finding = _fair(finding)
        bound = HALF if finding.null is None else max(HALF, finding.null + NO_BETTER * (1 - finding.null))
        return _Test(
            p_above(finding, _null_hi(finding, HALF)),
            p_below(finding, bound),
            1.0,
            "half of its importance, and the null",
        )
    lower = p_below(finding, 0.0 if finding.null is None else max(0.0, finding.null))
    return _Test(p_above(finding, _null_hi(finding, HALF)), lower, 1.0, "half of the effect, and other heads")


def _fair(finding: Finding) -> Finding:
    """Without its null where the role claims to hold everywhere, or names places: see the module's docstring."""
    claim = claim_of(finding.role, finding.subject)
    bare = position_role(finding.role) is not None or (claim is not None and claim.everywhere)
    return replace(finding, null=None, null_hi=None) if bare else finding


def _null_hi(finding: Finding, least: float) -> float:
    """What a claim must exceed: the null's 95th percentile, or its mean where that is all there is, and `least`."""
    null = finding.null_hi if finding.null_hi is not None else finding.null
    return least if null is None else max(least, null)


def _faithful(finding: Finding) -> _Test:
    """On the discovery prompts: is there something to generalise?"""
    bound = _null_hi(finding, FAITHFUL)
    over = p_above(finding, 1 + OVER)
    return _Test(p_above(finding, bound), p_below(finding, bound), over, "half of the effect, and random circuits")


def _as_good(finding: Finding, base: Finding | None) -> _Test:
    """Elsewhere: is it as good as on the discovery prompts, is it lower, is it over-recovery?"""
    over = p_above(finding, 1 + OVER)
    if base is None or base.lo is None or base.hi is None:
        return _Test(1.0, 1.0, over, "nothing measured in the same way on the discovery prompts")
    bound = base.value - MARGIN
    not_lower = p_above(finding, bound, (base.hi - base.value) / Z95)
    not_over = p_below(finding, max(1.0, base.value) + MARGIN)
    beats = p_above(finding, _null_hi(finding, 0.0))
    lower = p_below(finding, bound, (base.value - base.lo) / Z95)
    return _Test(
        max(not_lower, not_over, beats), lower, over, f"the discovery prompts' {base.value:.2f} less {MARGIN:g}"
    )


def _decide(findings: Sequence[Finding], made: Sequence[Line | _Test], discovery: str, alpha: float) -> list[Line]:
    """Lines with their verdict. What speaks against is corrected by Holm over all lines of the technique's family."""
    tested = [i for i, one in enumerate(made) if isinstance(one, _Test)]
    family = {i: _family(findings[i], discovery) for i in tested}
    against: dict[int, tuple[float, float]] = {}
    for name in set(family.values()):
        own = [i for i in tested if family[i] == name]
        lower, over = (holm(np.array([getattr(made[i], way) for i in own])) for way in ("p_lower", "p_over"))
        against |= {i: (float(lower[k]), float(over[k])) for k, i in enumerate(own)}
    return [
        _line(findings[i], one, *against[i], alpha) if isinstance(one, _Test) else one for i, one in enumerate(made)
    ]


def _family(finding: Finding, discovery: str) -> str:
    """Lines that are corrected together. The discovery prompts are asked first and alone: whether there is anything to
    test."""
    if finding.technique in FAITHFULNESS:
        return "base" if finding.distribution == discovery else "faithfulness"
    return f"{finding.technique} of general forms" if finding.general_form_of else finding.technique


def _line(finding: Finding, test: _Test, p_lower: float, p_over: float, alpha: float) -> Line:
    p_against = min(p_lower, p_over)
    if p_against < alpha:
        way = "over" if p_over < p_lower else "lower"
        return Line(finding, "against", f"1 + {OVER:g}" if way == "over" else test.reason, way, test.p_for, p_against)
    return Line(finding, "for" if test.p_for < alpha else "undecided", test.reason, "", test.p_for, p_against)


def weigh(ledger: Sequence[Line]) -> list[float]:
    """The weight of each line beside the others of its claim; 0 for lines that test nothing. See the module's
    docstring."""
    owns = [_shared(line) for line in ledger]
    tests = [line.speaks in ("for", "against", "undecided") for line in ledger]
    return [
        (
            1
            / (
                1
                + sum(
                    _jaccard(owns[i], owns[j])
                    for j in range(len(ledger))
                    if j != i and tests[j] and ledger[j].claim == line.claim
                )
            )
            if tests[i]
            else 0.0
        )
        for i, line in enumerate(ledger)
    ]


def _shared(line: Line) -> frozenset[str]:
    one = line.finding
    return frozenset({f"distribution {one.distribution}", f"technique {one.technique}", *one.shares})


def _jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    return len(first & second) / len(first | second)


def tally(ledger: Sequence[Line]) -> dict[str, float]:
    """Weights of the lines that speak for, against, and not yet."""
    sums: Counter[str] = Counter()
    for line in ledger:
        if line.weight:
            sums[line.speaks] += line.weight
    return {name: sums[name] for name in ("for", "against", "undecided")}


def n_needed(finding: Finding, bound: float, also: float = 0.0) -> float:
    """Examples at which the 95 % interval would leave out `bound`, if the estimate stayed where it is; inf if it is
    there.

    The interval's width falls as 1 / sqrt(n).

    Args:
        also: standard error of `bound`; it is taken to fall with n too, both being measured on more.
    """
    distance = abs(finding.value - bound)
    arm = finding.hi - finding.value if finding.value < bound else finding.value - finding.lo
    return finding.n * (hypot(arm, Z95 * also) / distance) ** 2 if distance > ROUNDING else inf
