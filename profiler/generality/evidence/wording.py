"""How a verdict's sentence writes its numbers. Cost: none."""

from collections.abc import Sequence

from profiler.generality.evidence.distributions import CORPUS
from profiler.generality.evidence.finding import Finding
from profiler.generality.evidence.ledger import Line

BLANK = "\u00a0"


def percent(value: float) -> str:
    """A share in whole per cents."""
    return f"{100 * value:.0f}{BLANK}%".replace("-", "−")


def shown(finding: Finding) -> str:
    """A share with its 95 % interval."""
    interval = f"{100 * finding.lo:.0f} to {100 * finding.hi:.0f}{BLANK}%"
    return f"{percent(finding.value)} (95{BLANK}% interval {interval})".replace("-", "−")


def listed(words: Sequence[str]) -> str:
    """Words with commas, and before the last one."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def members(some: int, of: int) -> str:
    """How many of the components tested; in words where there is only one."""
    return "the only component tested" if of == 1 else f"{some} of {of} components tested"


def refuted_roles(some: int, of: int) -> str:
    """How many of the roles tested are refuted."""
    return (
        "the only tested role is refuted"
        if of == 1
        else f"{some} of {of} tested roles {'is' if some == 1 else 'are'} refuted"
    )


def elsewhere(lines: Sequence[Line], order: dict[str, int]) -> str:
    """What the members do at all positions of the widest text, where their roles name places; empty where none was
    asked."""
    asked = [
        x
        for x in lines
        if x.finding.general_form_of and x.finding.statistic == "coverage" and x.speaks not in ("refused", "describes")
    ]
    if not asked:
        return ""
    widest = max((line.finding.distribution for line in asked), key=lambda distribution: order.get(distribution, -1))
    there = sorted(
        (line for line in asked if line.finding.distribution == widest),
        key=lambda line: (-line.finding.value, line.claim),
    )
    held = sum(line.speaks == "for" for line in there)
    first, last = there[0].finding, there[-1].finding
    text = f" Asked of every position of {'the corpus' if widest == CORPUS else widest}, not only at"
    if len(there) == 1:
        verb = "holds" if held else "does not hold"
        return f"{text} its place, the one role {verb}: {first.subject} is {_on(first)} of its importance."
    which = f"all {held}" if held == len(there) else f"{held or 'none'} of {len(there)}"
    verb = "holds" if held == 1 else "hold"
    return (
        f"{text} their places, {which} roles {verb}: most {first.subject}, {_on(first)} of its importance, least"
        f" {last.subject}, {_on(last)}."
    )


def _on(finding: Finding) -> str:
    return f"“{finding.role}” on {percent(finding.value)}"
