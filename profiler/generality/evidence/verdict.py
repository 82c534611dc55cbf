"""From findings to the verdict: a word, sentences with its numbers, and what would change it. No torch, pure functions.

The words, in the order in which they are tried; where two apply, the first is the word and the sentences name both.
Names in italics are fields of profiler.generality.evidence.thresholds.Thresholds:

* over-recovers: on some distribution the faithfulness is above 1 + *over*. The circuit beats the model there, because
  what held the answer back was left out (Nainani et al. 2024 report 1.29 and 2.59 for such a circuit).
* does something else: at least *refuted_share* of the tested roles are refuted, or the circuit is not faithful even on
  its discovery prompts. A role is refuted where, on some distribution, it holds on less than *role_share* of the
  component's importance or on no more than its null, or where edits made from it succeed no more often than control
  edits. Importance is weighted in, so the component matters there and does something other than its role. A role that
  names positions of prompts does not count unless it is refuted on the discovery prompts themselves: where it holds
  there and fails elsewhere, it is narrow, and where it was refused or undecided there, nobody knows which of the two it
  is, and a refusal is no evidence against it.
* narrows: on some distribution the faithfulness is lower than on the discovery prompts by more than *margin*, or some
  roles are refuted, but too few for `does something else`.
* generalises: on every distribution but the first the faithfulness is as good as on the discovery prompts (two
  one-sided tests; no correction, because all of them must hold); wherever the circuit was removed, the effect dropped
  by more than *necessity*, and by more than without random circuits on average (their 95th percentile is no bound here:
  removing any third of a small model can cost everything); and every tested role holds. A circuit whose roles are
  claimed and could not be tested does not earn this word.
* inconclusive: none of these; the verdict names the examples that would settle it.

What contradicts a claim is corrected by Holm over the distributions (profiler.generality.evidence.ledger). Cost: none.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from profiler.circuits.positions import position_role
from profiler.generality.evidence import ledger as books
from profiler.generality.evidence.finding import Finding
from profiler.generality.evidence.ledger import FAITHFULNESS, Key, Line
from profiler.generality.evidence.needs import Need
from profiler.generality.evidence.needs import needs as needs_of
from profiler.generality.evidence.needs import sentence as sentence_of
from profiler.generality.evidence.thresholds import DEFAULT, Thresholds
from profiler.generality.evidence.wording import elsewhere, incomplete, listed, percent, refuted_roles, shown

Word = Literal["generalises", "narrows", "does something else", "over-recovers", "inconclusive"]
ROLE_TESTS = ("coverage", "replacement", "edits", "swaps")
REFUTES = ("coverage", "edits")
"""What refutes a role. A failed replacement or swap may be the fault of the replacement: the role then does not hold,
and is not refuted."""


@dataclass(frozen=True)
class Verdict:
    """What becomes of a circuit off the prompts it was found on.

    Attributes:
        word: one of Word.
        sentence: the word with the two or three numbers that carry it.
        numbers: the findings these numbers are from.
        change: what would change the verdict, one sentence each.
        needs: for `inconclusive`, the examples that would settle it, most first.
        ledger: every line.
    """

    word: Word
    sentence: str
    numbers: tuple[Finding, ...]
    change: tuple[str, ...]
    needs: tuple[Need, ...]
    ledger: tuple[Line, ...]


@dataclass(frozen=True)
class _Case:
    """The lines that decide, sorted.

    Attributes:
        name: of the circuit.
        base: faithfulness on the discovery prompts.
        wide: faithfulness on every other distribution.
        necessity: the drop when the circuit is removed, wherever it was measured.
        roles: lines of each tested role.
        claimed: number of roles that the circuit claims.
        order: ordinal of each distribution by name.
        not_measured: distributions on which the circuit has no faithfulness.
        thresholds: what decides.
    """

    name: str
    base: Line | None
    wide: tuple[Line, ...]
    necessity: tuple[Line, ...]
    roles: dict[tuple[str, str], tuple[Line, ...]]
    claimed: int
    order: dict[str, int]
    not_measured: tuple[str, ...]
    thresholds: Thresholds

    @property
    def at_home(self) -> float:
        """Faithfulness on the discovery prompts; lines are compared with it only where it was measured."""
        if self.base is None:
            raise ValueError(f"{self.name} has no faithfulness on its discovery prompts")
        return self.base.finding.estimate

    @property
    def worst(self) -> Line | None:
        """The lowest faithfulness off the discovery prompts; None where none was measured."""
        return min(self.wide, key=lambda line: line.finding.estimate, default=None)

    def over(self) -> list[Line]:
        """Lines of over-recovery, highest first."""
        both = [*([self.base] if self.base else []), *self.wide]
        return sorted((line for line in both if line.way == "over"), key=lambda line: -line.finding.estimate)

    def lower(self) -> list[Line]:
        """Lines that fall below the discovery prompts, lowest first."""
        return sorted((line for line in self.wide if line.way == "lower"), key=lambda line: line.finding.estimate)

    def refuted(self) -> dict[tuple[str, str], Line]:
        """For each refuted role the line that contradicts it on the widest distribution, coverage before edits."""
        against = {}
        for claim, lines in self.roles.items():
            bad = [line for line in lines if line.speaks == "against" and line.finding.technique in REFUTES]
            if bad:
                against[claim] = min(bad, key=self.headline)
        return against

    def wrong(self) -> dict[tuple[str, str], Line]:
        """Refuted roles, without those that name positions and are not refuted on the discovery prompts.

        The latter are narrow, or untested where they were read off, not wrong.
        """
        return {
            claim: line
            for claim, line in self.refuted().items()
            if position_role(claim[1]) is None or "against" in self.speaks_at_home(claim)
        }

    def untested_at_home(self) -> list[tuple[str, str]]:
        """Refuted roles that name positions, of which the discovery prompts say nothing."""
        named = [claim for claim in self.refuted() if position_role(claim[1]) is not None]
        return [claim for claim in named if not self.speaks_at_home(claim) & {"for", "against"}]

    def speaks_at_home(self, claim: tuple[str, str]) -> set[str]:
        """What the lines on the discovery prompts that can refute a role say of it; empty where all were refused."""
        return {
            line.speaks
            for line in self.roles[claim]
            if self.order.get(line.finding.distribution) == 0 and line.finding.technique in REFUTES
        }

    def headline(self, line: Line) -> tuple[bool, int, float]:
        """Smallest for what a sentence says first: coverage, on the widest distribution, the lowest value."""
        finding = line.finding
        return finding.technique != "coverage", -self.order.get(finding.distribution, -1), finding.estimate

    def holds(self, claim: tuple[str, str]) -> bool:
        """Whether coverage supports the role, nothing contradicts it, and no coverage is below its threshold.

        A role that names positions was read off the discovery prompts: that it holds there supports nothing.
        """
        lines = self.roles[claim]
        covered = [line for line in lines if line.finding.technique == "coverage"]
        read_off = position_role(claim[1]) is not None
        return (
            any(
                line.speaks == "for" and not (read_off and self.order.get(line.finding.distribution) == 0)
                for line in covered
            )
            and all(line.speaks != "against" for line in lines)
            and all(line.speaks == "for" or line.finding.estimate >= self.thresholds.role_share for line in covered)
        )

    def is_necessary(self, finding: Finding) -> bool:
        """Whether the effect drops by more than the threshold without the circuit, and more than for random ones."""
        drops = finding.lower > self.thresholds.necessity
        return drops and (finding.null is None or finding.estimate > finding.null)


def judge(
    findings: Sequence[Finding],
    distributions: Sequence[str],
    registered: Collection[Key] = (),
    thresholds: Thresholds = DEFAULT,
) -> Verdict:
    """The verdict on one circuit.

    Args:
        findings: everything that was measured, of the circuit and of its components.
        distributions: names of the distributions, nearest first; the first is the discovery prompts.
        registered: (subject, statistic, distribution) of predictions registered before the test.
        thresholds: what decides.

    Raises:
        ValueError: there is no distribution.
    """
    if not distributions:
        raise ValueError("a verdict needs the names of the distributions, the discovery prompts first")
    lines = books.lines(findings, distributions, registered, thresholds)
    case = _sort(lines, distributions, thresholds)
    verdict = _judge(case, lines)
    return replace(verdict, sentence=verdict.sentence + incomplete(lines, thresholds) + elsewhere(lines, case.order))


def _judge(case: _Case, lines: tuple[Line, ...]) -> Verdict:
    for decide in (_over_recovers, _something_else, _narrows, _generalises):
        decision = decide(case)
        if decision is not None:
            word, sentence, numbers, change = decision
            return Verdict(word, sentence, numbers, (*change, *_not_measured(lines)), (), lines)
    needs = needs_of(lines, case.base, case.thresholds)
    sentence, numbers = _inconclusive(case, needs)
    change = (*(sentence_of(need) for need in needs[1:3]), *_not_measured(lines))
    return Verdict("inconclusive", sentence, numbers, change, needs, lines)


def _sort(lines: Sequence[Line], distributions: Sequence[str], thresholds: Thresholds) -> _Case:
    tested = [line for line in lines if line.speaks in ("for", "against", "undecided")]
    faithful = [line for line in tested if line.finding.technique in FAITHFULNESS]
    base = next((line for line in faithful if line.finding.distribution == distributions[0]), None)
    claims = {line.claim for line in lines if line.finding.role and not line.finding.general_form_of}
    roles: dict[tuple[str, str], list[Line]] = {}
    for line in tested:
        if line.finding.technique in ROLE_TESTS and line.claim in claims and not line.finding.general_form_of:
            roles.setdefault(line.claim, []).append(line)
    return _Case(
        next((line.finding.subject for line in (*faithful, *lines)), "the circuit"),
        base,
        tuple(line for line in faithful if line.finding.distribution != distributions[0]),
        tuple(line for line in tested if line.finding.technique == "necessity"),
        {claim: tuple(own) for claim, own in roles.items()},
        len(claims),
        {name: i for i, name in enumerate(distributions)},
        tuple(_refusals(lines)),
        thresholds,
    )


Decision = tuple[Word, str, tuple[Finding, ...], tuple[str, ...]] | None


def _over_recovers(case: _Case) -> Decision:
    over = case.over()
    if not over:
        return None
    worst = over[0].finding
    sentence = (
        f"{case.name} over-recovers: on {worst.distribution} it reaches {shown(worst)} of the model's own effect, more"
        " than the whole model."
    )
    if case.base and over[0] is not case.base:
        sentence += f" On the discovery prompts it reaches {percent(case.at_home)}."
    if lower := case.lower():
        finding = lower[0].finding
        sentence += f" On {finding.distribution} it falls to {percent(finding.estimate)}."
    if refuted := case.refuted():
        sentence += f" {_capital(refuted_roles(len(refuted), len(case.roles)))}."
    change = (
        f"The verdict would change if the component that lowers the answer on {worst.distribution} were added to the"
        f" circuit and its faithfulness there fell below {percent(1 + case.thresholds.over)}."
    )
    return "over-recovers", sentence, _numbers(over[0], case.base), (change,)


def _something_else(case: _Case) -> Decision:
    if case.base is not None and case.base.speaks == "against":
        finding = case.base.finding
        null = "" if finding.null is None else f"; random circuits keep {percent(finding.null)}"
        sentence = (
            f"{case.name} does something else: even on its discovery prompts it keeps only {shown(finding)} of the"
            f" effect{null}."
        )
        change = (
            f"The verdict would change if the circuit kept at least {percent(case.thresholds.faithful)} of the effect"
            " on its discovery prompts, and more than random circuits."
        )
        return "does something else", sentence, (finding,), (change,)
    refuted = case.wrong()
    if not refuted or len(refuted) < case.thresholds.refuted_share * len(case.roles):
        return None
    (subject, role), worst = min(refuted.items(), key=lambda item: case.headline(item[1]))
    sentence = f"{case.name} does something else: {_role_failures(case, len(refuted), subject, role, worst.finding)}"
    change = (
        f"The verdict would change if {subject} were “{role}” on more than {percent(case.thresholds.role_share)} of its"
        f" importance on {worst.finding.distribution}. Its counter-examples and its mixture show what it does instead."
    )
    return "does something else", sentence, _numbers(worst, case.base), (change,)


def _role_failures(case: _Case, refuted: int, subject: str, role: str, worst: Finding) -> str:
    """How many roles are refuted, the worst of them in numbers, and what the circuit as a whole still does."""
    untested = case.claimed - len(case.roles)
    more = f" ({untested} more could not be tested)" if untested else ""
    return f"{refuted_roles(refuted, len(case.roles))}{more}. {_failure(subject, role, worst)}.{_whole(case)}"


def _whole(case: _Case) -> str:
    """What the circuit as a whole recovers, where its roles fail."""
    if case.worst is None:
        return ""
    finding = case.worst.finding
    return (
        f" As a whole the circuit keeps {percent(finding.estimate)} of the effect or more, the least on"
        f" {finding.distribution}."
    )


def _failure(subject: str, role: str, finding: Finding) -> str:
    null = "" if finding.null is None else f" ({_null_of(role, finding)} {percent(finding.null)})"
    if finding.technique == "coverage":
        return f"{subject} is “{role}” on {shown(finding)} of its importance on {finding.distribution}{null}"
    return f"Edits made from “{role}” of {subject} succeed in {shown(finding)} of texts on {finding.distribution}{null}"


def _null_of(role: str, finding: Finding) -> str:
    """The name of the null of a role's number."""
    if finding.technique != "coverage":
        return "control edits"
    return "other heads of its layer" if position_role(role) else "scrambled"


def _narrows(case: _Case) -> Decision:
    lower, refuted = case.lower(), case.refuted()
    if lower and case.base is not None:
        worst = lower[0].finding
        good = [line.finding.distribution for line in case.wide if line.speaks == "for"]
        sentence = (
            f"{case.name} narrows: its faithfulness falls from {shown(case.base.finding)} on the discovery prompts to"
            f" {shown(worst)} on {worst.distribution}."
        )
        sentence += f" It is as good on {listed(good)}." if good else ""
        sentence += f" {_capital(refuted_roles(len(refuted), len(case.roles)))}." if refuted else ""
        change = (
            f"The verdict would change if it kept at least {percent(case.at_home - case.thresholds.margin)} on"
            f" {worst.distribution} ({worst.n:,} {worst.unit}). Until then the claim is about"
            f" {listed(['the discovery prompts', *good])}."
        )
        return "narrows", sentence, _numbers(lower[0], case.base), (change,)
    if refuted:
        (subject, role), line = min(refuted.items(), key=lambda item: case.headline(item[1]))
        sentence = f"{case.name} narrows: {_role_failures(case, len(refuted), subject, role, line.finding)}"
        if unknown := case.untested_at_home():
            sentence += (
                f" The discovery prompts decide nothing on {len(unknown)} of {'it' if len(refuted) == 1 else 'them'}:"
                " too few, or undecided."
            )
        pronoun = "it" if len(refuted) == 1 else "them"
        change = (
            f"Without {listed([claim[0] for claim in refuted])}, or with another role for {pronoun}, the claim could"
            " generalise."
        )
        return "narrows", sentence, _numbers(line, case.base), (change,)
    return None


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _generalises(case: _Case) -> Decision:
    as_good = case.base is not None and case.base.speaks == "for" and all(line.speaks == "for" for line in case.wide)
    tested = bool(case.wide) and as_good if (case.base or case.wide) else bool(case.roles)
    roles_hold = bool(case.roles) == bool(case.claimed) and all(case.holds(claim) for claim in case.roles)
    necessary = all(case.is_necessary(line.finding) for line in case.necessity)
    if not (tested and roles_hold and necessary):
        return None
    parts: list[str] = []
    numbers: list[Finding] = []
    change = "the role fell below half of the importance on some distribution"
    if case.worst is not None and case.base is not None:
        worst = case.worst.finding
        numbers += [case.base.finding, worst]
        parts.append(
            f"it keeps {percent(case.at_home)} of the effect on the discovery prompts and {shown(worst)} on"
            f" {worst.distribution}, the lowest of {len(case.wide)} wider distributions"
        )
        change = f"a distribution fell below {percent(case.at_home - case.thresholds.margin)}"
        if case.base.finding.null_n and (case.base.finding.p_least or 0.0) >= case.thresholds.alpha:
            few = case.base.finding.null_n
            parts.append(
                f"it is nearer to the model than {f'each of the {few} other circuits' if few > 1 else 'the other one'}"
                f" of its shape, as chance alone would make it with p = {case.base.finding.p_least:.2g}"
            )
    covered = [line.finding for lines in case.roles.values() for line in lines if line.finding.technique == "coverage"]
    if covered:
        least = min(covered, key=lambda finding: finding.estimate)
        numbers.append(least)
        parts.append(
            f"every tested role holds, the least on {shown(least)} of the importance ({least.subject},"
            f" {least.distribution})"
        )
    silent = f" No faithfulness could be measured on {listed(case.not_measured)}." if case.not_measured else ""
    return (
        "generalises",
        f"{case.name} generalises: {'; '.join(parts)}.{silent}",
        tuple(numbers),
        (f"The verdict would change if {change}. Distributions that were not tried may do so.",),
    )


def _refusals(lines: Sequence[Line]) -> dict[str, str]:
    """The distributions on which the circuit has no faithfulness, and the first reason for each."""
    reasons: dict[str, str] = {}
    for finding in (line.finding for line in lines if line.speaks == "refused"):
        if finding.technique in FAITHFULNESS and finding.statistic == "faithfulness":
            reasons.setdefault(finding.distribution, finding.refused)
    return reasons


def _not_measured(lines: Sequence[Line]) -> tuple[str, ...]:
    """The same in a sentence: the verdict says nothing of them."""
    refused = _refusals(lines)
    if not refused:
        return ()
    return (f"Not tested: {listed([f'{distribution} ({why})' for distribution, why in refused.items()])}.",)


def _inconclusive(case: _Case, needs: Sequence[Need]) -> tuple[str, tuple[Finding, ...]]:
    numbers = _numbers(case.base, case.worst)
    parts = [f"{shown(finding)} on {finding.distribution} ({finding.n:,} {finding.unit})" for finding in numbers]
    if case.claimed and not case.roles:
        parts.append("no role could be tested")
    what = f": {'; '.join(parts)}" if parts else ": nothing that decides could be measured"
    need = f". {sentence_of(needs[0])}" if needs else "."
    return f"{case.name} is inconclusive{what}{need}", numbers


def _numbers(*lines: Line | None) -> tuple[Finding, ...]:
    return tuple(line.finding for line in lines if line is not None)
