"""How a verdict's sentence writes its numbers. Cost: none."""

from collections.abc import Sequence

from profiler.generality.finding import Finding

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
