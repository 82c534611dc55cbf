"""How many examples would settle what a check leaves undecided. Cost: none."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isfinite

from profiler.generality.evidence import ledger as books
from profiler.generality.evidence.finding import FEWEST
from profiler.generality.evidence.ledger import FAITHFUL, FAITHFULNESS, HALF, MARGIN, OVER, Line

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


def needs(lines: Sequence[Line], base: Line | None) -> tuple[Need, ...]:
    """Examples that would settle each line that is undecided, or refused for want of some; none where no text can show
    it."""
    found = []
    for line in lines:
        one = line.finding
        if one.general_form_of:
            continue
        if line.speaks == "refused" and 0 < one.n < FEWEST and books.READ.get(one.technique) == one.statistic:
            found.append(Need(one.subject, one.distribution, one.statistic, one.n, FEWEST, one.unit))
        elif line.speaks == "undecided" and one.lo is not None and one.hi is not None:
            found.append(Need(one.subject, one.distribution, one.statistic, one.n, _needed(line, base), one.unit))
    return tuple(sorted(found, key=lambda need: -need.needed))


def _needed(line: Line, base: Line | None) -> int:
    """The largest n at which the line's interval would leave out every bound that it now straddles."""
    one = line.finding
    null = one.null_hi if one.null_hi is not None else one.null
    bounds = [] if null is None else [(null, 0.0)]
    if one.technique in FAITHFULNESS:
        bounds += [(1 + OVER, 0.0), _low_bound(line, base)]
    elif one.technique in ("coverage", "replacement"):
        bounds.append((HALF, 0.0))
    most = max([books.n_needed(one, bound, error) for bound, error in bounds], default=0.0)
    return MOST_NEEDED if not isfinite(most) or most > MOST_NEEDED else max(ceil(most), one.n + 1)


def _low_bound(line: Line, base: Line | None) -> tuple[float, float]:
    """What the faithfulness must not fall below, and that bound's standard error."""
    if base is None or line is base:
        return FAITHFUL, 0.0
    one = base.finding
    return one.value - MARGIN, (one.hi - one.value) / books.Z95


def sentence(need: Need) -> str:
    """In words."""
    if need.needed >= MOST_NEEDED:
        return (
            f"{need.subject}, {need.statistic} on {need.distribution}: the estimate lies on the bound, and no number of"
            f" {need.unit} that could be read would settle it."
        )
    return (
        f"{need.subject}, {need.statistic} on {need.distribution}: about {need.needed:,} {need.unit} would settle it,"
        f" if the estimate stays where it is; there are {need.n:,}."
    )
