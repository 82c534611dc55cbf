"""How many examples would settle what a check leaves undecided. Cost: none."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isfinite

from profiler.generality.evidence import ledger as books
from profiler.generality.evidence.ledger import FAITHFULNESS, Line
from profiler.generality.evidence.thresholds import DEFAULT, Thresholds
from profiler.statistics import Z95

MOST_NEEDED = 10_000_000
"""More examples than this are not asked for: the estimate lies on the bound."""


@dataclass(frozen=True)
class Need:
    """How many examples would settle one line, if its estimate stayed where it is."""

    subject: str
    distribution: str
    statistic: str
    n: int
    needed: int
    unit: str


def needs(lines: Sequence[Line], base: Line | None, thresholds: Thresholds = DEFAULT) -> tuple[Need, ...]:
    """Examples that would settle each line that is undecided or has too few, most first.

    Lines that no text can settle have none.

    Args:
        base: the line of the faithfulness on the discovery prompts.
        thresholds: what decides.
    """
    made = []
    for line in lines:
        finding, needed = line.finding, 0
        is_test = books.READ.get(finding.technique) == finding.statistic
        if line.speaks == "refused" and is_test and 0 < finding.n < thresholds.fewest:
            needed = thresholds.fewest
        elif line.speaks == "undecided" and finding.lo is not None and finding.hi is not None:
            needed = _needed(line, base, thresholds)
        if needed and not finding.general_form_of:
            made.append(Need(finding.subject, finding.distribution, finding.statistic, finding.n, needed, finding.unit))
    return tuple(sorted(made, key=lambda need: -need.needed))


def _needed(line: Line, base: Line | None, thresholds: Thresholds) -> int:
    """The largest n at which the line's interval would leave out every bound that it now straddles."""
    finding = line.finding
    null = finding.null_hi if finding.null_hi is not None else finding.null
    if finding.null_near is not None:
        null = 1 - finding.null_near
    bounds = [] if null is None else [(null, 0.0)]
    if finding.technique in FAITHFULNESS:
        bounds += [(1 + thresholds.over, 0.0), _low_bound(line, base, thresholds)]
    elif finding.technique == "coverage":
        bounds.append((thresholds.role_share, 0.0))
    elif finding.technique == "replacement":
        bounds.append((thresholds.explained, 0.0))
    most = max([books.n_needed(finding, bound, error) for bound, error in bounds], default=0.0)
    return MOST_NEEDED if not isfinite(most) or most > MOST_NEEDED else max(ceil(most), finding.n + 1)


def _low_bound(line: Line, base: Line | None, thresholds: Thresholds) -> tuple[float, float]:
    """What the faithfulness must not fall below, and that bound's standard error."""
    if base is None or line is base:
        return thresholds.faithful, 0.0
    finding = base.finding
    return finding.estimate - thresholds.margin, (finding.upper - finding.estimate) / Z95


def sentence(need: Need) -> str:
    """One need in words."""
    number = f"{need.subject}, {need.statistic} on {need.distribution}"
    if need.needed >= MOST_NEEDED:
        return f"{number}: the estimate lies on the bound, so no affordable number of {need.unit} would decide it."
    return (
        f"{number}: about {need.needed:,} {need.unit} would decide it if the estimate stays the same; there are"
        f" {need.n:,}."
    )
