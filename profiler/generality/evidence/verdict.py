"""From findings to the verdict: one word, a sentence with its numbers, and what would change it. A pure function, no
torch.

The words (in the order in which they are tried; a circuit that earns two gets the first and the sentence names both):

* over-recovers: on some distribution the faithfulness is above 1 + OVER. The circuit beats the model there, because
  leaving others out removed what held the answer back (Nainani et al. 2024 found 1.29 and 2.59 for such a circuit).
* does something else: at least half of the members whose role was tested have it refuted, or the circuit is not even
  faithful on its discovery prompts. A role that names places of prompts and holds there on the discovery prompts does
  not
  count: where it fails elsewhere, it is narrow. A role is refuted where, on some distribution, it holds on less than
    half of the component's
  importance or on no more than scrambled, or where edits made from it work no better than control edits. Importance is
  weighted in, so the component matters there and does something other than its role.
* narrows: on some distribution the faithfulness is lower than on the discovery prompts by more than MARGIN, or roles
  are refuted, and not so that the circuit does something else.
* generalises: on every distribution but the first the faithfulness is as good as on the discovery prompts (two
  one-sided tests; no correction, because all of them must hold), wherever it was taken out more than half of the effect
  was lost, and more than without random circuits on average (their 95th percentile is no bound here: taking out any
  third of a small model can cost everything), and every role that was tested holds. A circuit whose roles are claimed
  and could not be tested gets no such word.
* inconclusive: none of these; the verdict names the examples that would settle it.

What speaks against a claim is corrected by Holm over the distributions (profiler.generality.evidence.ledger). Cost:
none.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from profiler.circuits.positions import position_role
from profiler.generality.evidence import ledger as books
from profiler.generality.evidence.finding import Finding
from profiler.generality.evidence.ledger import FAITHFUL, FAITHFULNESS, HALF, MARGIN, OVER, Key, Line
from profiler.generality.evidence.verdict_needs import Need
from profiler.generality.evidence.verdict_needs import needs as needs_of
from profiler.generality.evidence.verdict_needs import sentence as sentence_of
from profiler.generality.evidence.wording import elsewhere, listed, members, percent, refuted_roles, shown

Word = Literal["generalises", "narrows", "does something else", "over-recovers", "inconclusive"]
ROLE_TESTS = ("coverage", "replacement", "edits", "swaps")
REFUTES = ("coverage", "edits")
"""What refutes a role. A failed replacement or swap may be the fault of the replacement: it only keeps a role from holding."""


@dataclass(frozen=True)
class Verdict:
    """What becomes of a circuit off the prompts it was found on.

    Attributes:
        word: one of the design's words.
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
    """The lines that decide, sorted."""

    name: str
    base: Line | None
    wide: tuple[Line, ...]
    needed: tuple[Line, ...]
    roles: dict[tuple[str, str], tuple[Line, ...]]
    claimed: int
    order: dict[str, int]
    unasked: tuple[str, ...]

    def over(self) -> list[Line]:
        both = [*([self.base] if self.base else []), *self.wide]
        return sorted((line for line in both if line.way == "over"), key=lambda line: -line.finding.value)

    def lower(self) -> list[Line]:
        return sorted((line for line in self.wide if line.way == "lower"), key=lambda line: line.finding.value)

    def refuted(self) -> dict[tuple[str, str], Line]:
        """For each refuted role the line of the widest distribution that speaks against it, coverage before edits."""
        found = {}
        for claim, lines in self.roles.items():
            bad = [one for one in lines if one.speaks == "against" and one.finding.technique in REFUTES]
            if bad:
                found[claim] = min(bad, key=self.headline)
        return found

    def wrong(self) -> dict[tuple[str, str], Line]:
        """Refuted roles but those that name places and hold there on the discovery prompts: these are narrow, not
        wrong."""
        return {claim: line for claim, line in self.refuted().items() if not self.narrow(claim)}

    def narrow(self, claim: tuple[str, str]) -> bool:
        """Whether a role names places, and where it was read off it holds, and nothing refutes it."""
        at_home = {
            one.speaks
            for one in self.roles[claim]
            if self.order.get(one.finding.distribution) == 0 and one.finding.technique in REFUTES
        }
        return position_role(claim[1]) is not None and "for" in at_home and "against" not in at_home

    def headline(self, line: Line) -> tuple[bool, int, float]:
        """Smallest for what a sentence is to say first: coverage, on the widest distribution, the lowest value."""
        one = line.finding
        return one.technique != "coverage", -self.order.get(one.distribution, -1), one.value

    def holds(self, claim: tuple[str, str]) -> bool:
        """The role is covered somewhere, against it speaks nothing, and no coverage points below half."""
        lines = self.roles[claim]
        covered = [one for one in lines if one.finding.technique == "coverage"]
        return (
            any(one.speaks == "for" for one in covered)
            and all(one.speaks != "against" for one in lines)
            and all(one.speaks == "for" or one.finding.value >= HALF for one in covered)
        )


def judge(findings: Sequence[Finding], distributions: Sequence[str], registered: Collection[Key] = ()) -> Verdict:
    """The verdict on one circuit.

    Args:
        findings: everything that was measured, of the circuit and of its components.
        distributions: names of the distributions from narrow to wide; the first is the discovery prompts.
        registered: (subject, statistic, distribution) of predictions registered before the test.

    Raises:
        ValueError: there is no distribution.
    """
    if not distributions:
        raise ValueError("a verdict needs the names of the distributions, the discovery prompts first")
    lines = books.lines(findings, distributions, registered)
    case = _sort(lines, distributions)
    found = _judge(case, lines)
    return replace(found, sentence=found.sentence + elsewhere(lines, case.order))


def _judge(case: _Case, lines: tuple[Line, ...]) -> Verdict:
    for decide in (_over_recovers, _something_else, _narrows, _generalises):
        found = decide(case)
        if found is not None:
            word, sentence, numbers, change = found
            return Verdict(word, sentence, numbers, (*change, *_not_asked(lines)), (), lines)
    needs = needs_of(lines, case.base)
    sentence, numbers = _inconclusive(case, needs)
    return Verdict(
        "inconclusive",
        sentence,
        numbers,
        (*(sentence_of(one) for one in needs[1:3]), *_not_asked(lines)),
        needs,
        lines,
    )


def _sort(lines: Sequence[Line], distributions: Sequence[str]) -> _Case:
    speaking = [line for line in lines if line.speaks in ("for", "against", "undecided")]
    faithful = [line for line in speaking if line.finding.technique in FAITHFULNESS]
    base = next((line for line in faithful if line.finding.distribution == distributions[0]), None)
    roles: dict[tuple[str, str], list[Line]] = {}
    claims = [line for line in lines if line.finding.role and not line.finding.general_form_of]
    for line in (one for one in speaking if not one.finding.general_form_of):
        if line.finding.technique in ROLE_TESTS and line.finding.role:
            roles.setdefault(line.claim, []).append(line)
    name = next((line.finding.subject for line in (*faithful, *lines)), "the circuit")
    return _Case(
        name,
        base,
        tuple(line for line in faithful if line.finding.distribution != distributions[0]),
        tuple(line for line in speaking if line.finding.technique == "necessity"),
        {claim: tuple(own) for claim, own in roles.items()},
        len({line.claim for line in claims}),
        {name: i for i, name in enumerate(distributions)},
        tuple(_refusals(lines)),
    )


Decision = tuple[Word, str, tuple[Finding, ...], tuple[str, ...]] | None


def _over_recovers(case: _Case) -> Decision:
    over = case.over()
    if not over:
        return None
    worst = over[0].finding
    base = (
        f"; on the discovery prompts it is {percent(case.base.finding.value)}"
        if case.base and over[0] is not case.base
        else ""
    )
    more = _also(case)
    sentence = (
        f"{case.name} over-recovers: on {worst.distribution} it reaches {shown(worst)} of the model's own effect, more"
        f" than the whole model{base}{more}."
    )
    change = (
        (
            f"The verdict would change if what holds the answer back on {worst.distribution} were added to the circuit"
            f" and its faithfulness there fell below {percent(1 + OVER)}."
        ),
    )
    return "over-recovers", sentence, _numbers(over[0], case.base), change


def _also(case: _Case) -> str:
    """What else was found against the circuit, where the word is another one."""
    lower, refuted = case.lower(), case.refuted()
    texts = [f"on {lower[0].finding.distribution} it falls to {percent(lower[0].finding.value)}"] if lower else []
    texts += [refuted_roles(len(refuted), len(case.roles))] if refuted else []
    return "".join(f"; {text}" for text in texts)


def _something_else(case: _Case) -> Decision:
    if case.base is not None and case.base.speaks == "against":
        one = case.base.finding
        null = "" if one.null is None else f", random circuits {percent(one.null)}"
        sentence = (
            f"{case.name} does something else: even on its discovery prompts it keeps {shown(one)} of the effect{null}."
        )
        change = (
            f"It would need to keep at least {percent(FAITHFUL)} on its discovery prompts, and more than random"
            " circuits."
        )
        return "does something else", sentence, (one,), (change,)
    refuted = case.wrong()
    if not refuted or 2 * len(refuted) < len(case.roles):
        return None
    (subject, role), worst = min(refuted.items(), key=lambda item: case.headline(item[1]))
    sentence = (
        f"{case.name} does something else: {_lost(case, len(refuted))};"
        f" {_failure(subject, role, worst.finding)}{_kept(case)}."
    )
    change = (
        f"{subject} would have to be “{role}” on more than {percent(HALF)} of its importance on"
        f" {worst.finding.distribution}; counter-examples and the mixture say what it does instead."
    )
    return "does something else", sentence, _numbers(worst, case.base), (change,)


def _kept(case: _Case) -> str:
    """What the circuit as a whole keeps, where its roles fail."""
    if not case.wide:
        return ""
    worst = min((line.finding for line in case.wide), key=lambda one: one.value)
    return f"; as a circuit it keeps {percent(worst.value)} at worst, on {worst.distribution}"


def _lost(case: _Case, refuted: int) -> str:
    """How many roles do not hold, of how many that were tested, and how many were not."""
    verb = "does not keep its role" if len(case.roles) == 1 else "do not keep their role"
    untested = case.claimed - len(case.roles)
    more = f" ({untested} more could not be tested)" if untested else ""
    return f"{members(refuted, len(case.roles))}{more} {verb}"


def _failure(subject: str, role: str, one: Finding) -> str:
    null = "" if one.null is None else f" ({_null_of(role, one)} {percent(one.null)})"
    if one.technique == "coverage":
        return f"{subject} is “{role}” on {shown(one)} of its importance on {one.distribution}{null}"
    return f"edits made from “{role}” of {subject} work in {shown(one)} on {one.distribution}{null}"


def _null_of(role: str, one: Finding) -> str:
    """What the null of a role's number is, in words."""
    if one.technique != "coverage":
        return "control edits"
    return "other heads of its layer" if position_role(role) else "scrambled"


def _narrows(case: _Case) -> Decision:
    lower, refuted = case.lower(), case.refuted()
    if lower:
        worst, good = lower[0].finding, [line.finding.distribution for line in case.wide if line.speaks == "for"]
        sentence = (
            f"{case.name} narrows: its faithfulness falls from {shown(case.base.finding)} on the discovery prompts to"
            f" {shown(worst)} on {worst.distribution}"
            f"{f'; it is as good on {listed(good)}' if good else ''}{f'; {refuted_roles(len(refuted), len(case.roles))}' if refuted else ''}."
        )
        change = (
            f"On {worst.distribution} ({worst.n:,} {worst.unit}) it would have to keep at least"
            f" {percent(case.base.finding.value - MARGIN)}; until then the claim is about"
            f" {listed(['the discovery prompts', *good])}."
        )
        return "narrows", sentence, _numbers(lower[0], case.base), (change,)
    if refuted:
        (subject, role), worst = min(refuted.items(), key=lambda item: case.headline(item[1]))
        sentence = (
            f"{case.name} narrows: {_lost(case, len(refuted))}; {_failure(subject, role, worst.finding)}{_kept(case)}."
        )
        change = (
            f"Without {listed([claim[0] for claim in refuted])}, or with another role for"
            f" {'it' if len(refuted) == 1 else 'them'}, the claim could generalise."
        )
        return "narrows", sentence, _numbers(worst, case.base), (change,)
    return None


def _generalises(case: _Case) -> Decision:
    as_good = case.base is not None and case.base.speaks == "for" and all(line.speaks == "for" for line in case.wide)
    tested = bool(case.wide) and as_good if (case.base or case.wide) else bool(case.roles)
    roles_hold = bool(case.roles) == bool(case.claimed) and all(case.holds(claim) for claim in case.roles)
    needed = all(_is_needed(line.finding) for line in case.needed)
    if not (tested and roles_hold and needed):
        return None
    parts, numbers = [], []
    if case.wide:
        worst = min(case.wide, key=lambda line: line.finding.value).finding
        numbers += [case.base.finding, worst]
        parts.append(
            f"it keeps {percent(case.base.finding.value)} of the effect on the discovery prompts and {shown(worst)} on"
            f" {worst.distribution}, the lowest of {len(case.wide)} wider distributions"
        )
    covered = [line.finding for lines in case.roles.values() for line in lines if line.finding.technique == "coverage"]
    if covered:
        least = min(covered, key=lambda one: one.value)
        numbers.append(least)
        parts.append(
            f"every tested role holds, at least on {shown(least)} of the importance ({least.subject},"
            f" {least.distribution})"
        )
    bound = (
        f"It would change if a distribution fell below {percent(case.base.finding.value - MARGIN)}"
        if case.wide
        else "It would change if the role fell below half of the importance on some distribution"
    )
    silent = f"; {listed(case.unasked)} could not be asked" if case.unasked else ""
    return (
        "generalises",
        f"{case.name} generalises: {'; '.join(parts)}{silent}.",
        tuple(numbers),
        (f"{bound}: distributions that were not tried may.",),
    )


def _is_needed(one: Finding) -> bool:
    """More than half of the effect is lost without the circuit, and more than without random ones."""
    return one.lo > HALF and (one.null is None or one.value > one.null)


def _refusals(lines: Sequence[Line]) -> dict[str, str]:
    """The distributions on which the circuit could not be asked, and why; of several reasons the first, which the
    distributions shows too."""
    found: dict[str, str] = {}
    for one in (line.finding for line in lines if line.speaks == "refused"):
        if one.technique in FAITHFULNESS and one.statistic == "faithfulness":
            found.setdefault(one.distribution, one.refused)
    return found


def _not_asked(lines: Sequence[Line]) -> tuple[str, ...]:
    """The same in a sentence: the verdict says nothing of them."""
    refused = _refusals(lines)
    return (
        (f"Not asked: {listed([f'{distribution} ({why})' for distribution, why in refused.items()])}.",)
        if refused
        else ()
    )


def _inconclusive(case: _Case, needs: Sequence[Need]) -> tuple[str, tuple[Finding, ...]]:
    numbers = _numbers(case.base, min(case.wide, key=lambda line: line.finding.value, default=None))
    seen = [f"{shown(one)} on {one.distribution} ({one.n:,} {one.unit})" for one in numbers]
    if case.claimed and not case.roles:
        seen.append("no role could be tested")
    what = f": {'; '.join(seen)}" if seen else ": nothing that decides could be measured"
    need = f". {sentence_of(needs[0])}" if needs else "."
    return f"{case.name} is inconclusive{what}{need}", numbers


def _numbers(*lines: Line | None) -> tuple[Finding, ...]:
    return tuple(line.finding for line in lines if line is not None)
