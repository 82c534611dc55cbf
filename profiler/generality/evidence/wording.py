"""How a verdict's sentences write numbers, shares and lists. Cost: none."""

from collections.abc import Sequence

from profiler.generality.evidence.distributions import CORPUS
from profiler.generality.evidence.finding import Finding
from profiler.generality.evidence.ledger import Line
from profiler.generality.evidence.thresholds import Thresholds

BLANK = "\u00a0"


def percent(value: float) -> str:
    """A share in whole per cents."""
    return f"{100 * value:.0f}{BLANK}%".replace("-", "−")


def shown(finding: Finding) -> str:
    """A share with its 95 % interval."""
    interval = f"{100 * finding.lower:.0f} to {100 * finding.upper:.0f}{BLANK}%"
    return f"{percent(finding.estimate)} (95{BLANK}% interval {interval})".replace("-", "−")


def listed(words: Sequence[str]) -> str:
    """Words with commas, and `and` before the last."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def refuted_roles(refuted: int, tested: int) -> str:
    """How many of the tested roles are refuted."""
    if tested == 1:
        return "the only tested role is refuted"
    return f"{refuted} of {tested} tested roles {'is' if refuted == 1 else 'are'} refuted"


def incomplete(lines: Sequence[Line], thresholds: Thresholds) -> str:
    """A sentence on what stands in for members outside the circuit; empty where nothing clearly does.

    It decides nothing: the circuit may be all that is needed and not all that there is.
    """
    findings = [line.finding for line in lines if line.speaks == "describes"]
    gaps = [
        finding
        for finding in findings
        if finding.statistic == "incompleteness" and (finding.lo or 0.0) > thresholds.margin
    ]
    if not gaps:
        return ""
    worst = max(gaps, key=lambda finding: finding.estimate)
    names = [finding.subject for finding in findings if finding.statistic == "restores"]
    who = f"; {listed(names)}, outside it, makes up for most" if names else ""
    share = percent(worst.estimate)
    return (
        f" It is incomplete: with the same members taken out of both, model and circuit differ by {share} of the effect"
        f" on {worst.distribution}{who}."
    )


def elsewhere(lines: Sequence[Line], order: dict[str, int]) -> str:
    """A sentence on how far roles that name positions hold at all positions of the widest text.

    Empty where none was tested so. It decides nothing: the circuit does not claim it.
    """
    tested = [
        line
        for line in lines
        if line.finding.general_form_of
        and line.finding.statistic == "coverage"
        and line.speaks not in ("refused", "describes")
    ]
    if not tested:
        return ""
    widest = max((line.finding.distribution for line in tested), key=lambda distribution: order.get(distribution, -1))
    there = sorted(
        (line for line in tested if line.finding.distribution == widest),
        key=lambda line: (-line.finding.estimate, line.claim),
    )
    holding = sum(line.speaks == "for" for line in there)
    highest, lowest = there[0].finding, there[-1].finding
    text = f" At every position of {'the corpus' if widest == CORPUS else widest}"
    if len(there) == 1:
        verb = "holds" if holding else "does not hold"
        return f"{text}, which the circuit does not claim, the role {verb}: {_on(highest)} of its importance."
    which = f"all {holding}" if holding == len(there) else f"{holding or 'none'} of {len(there)}"
    verb = "holds" if holding == 1 else "hold"
    return (
        f"{text}, which the circuit does not claim, {which} roles {verb}: highest {_on(highest)} of its importance,"
        f" lowest {_on(lowest)}."
    )


def _on(finding: Finding) -> str:
    return f"{finding.subject}, “{finding.role}” on {percent(finding.estimate)}"
