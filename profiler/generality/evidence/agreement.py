"""Agreement between techniques on the same claims, beside how often they could have disagreed. No torch.

Why: techniques that always say the same may share what they look at; agreement counts where disagreement was possible.
Cost: none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from profiler.generality.evidence.ledger import Line


@dataclass(frozen=True)
class TechniqueAgreement:
    """How often two techniques say the same of a claim, and how often they could have disagreed.

    Attributes:
        n: claims of which both say something, for or against.
        agree: of these, claims of which they say the same.
        expected: agreement by chance, from how often each says `for`.
        could_disagree: n (1 - expected): claims in which disagreement was to be expected had they nothing to do with
            each other. 0 means that their agreement says nothing.
        kappa: Cohen's kappa; None where they could not have disagreed.
    """

    first: str
    second: str
    n: int
    agree: int
    expected: float
    could_disagree: float
    kappa: float | None


def agreement(ledger: Sequence[Line]) -> tuple[TechniqueAgreement, ...]:
    """Agreement of every two techniques that both judged some claim (Cohen 1960)."""
    said: dict[str, dict[tuple[str, str], str]] = {}
    for line in ledger:
        if line.speaks in ("for", "against"):
            claims = said.setdefault(line.finding.technique, {})
            claims[line.claim] = "against" if "against" in (line.speaks, claims.get(line.claim)) else "for"
    pairs = (_agree(a, b, said[a], said[b]) for a, b in combinations(said, 2))
    return tuple(pair for pair in pairs if pair.n)


def _agree(
    first: str, second: str, said_first: dict[tuple[str, str], str], said_second: dict[tuple[str, str], str]
) -> TechniqueAgreement:
    both = [claim for claim in said_first if claim in said_second]
    n = len(both)
    if not n:
        return TechniqueAgreement(first, second, 0, 0, 1.0, 0.0, None)
    agree = sum(said_first[claim] == said_second[claim] for claim in both)
    yes = [sum(table[claim] == "for" for claim in both) / n for table in (said_first, said_second)]
    expected = yes[0] * yes[1] + (1 - yes[0]) * (1 - yes[1])
    kappa = None if expected >= 1 else (agree / n - expected) / (1 - expected)
    return TechniqueAgreement(first, second, n, agree, expected, n * (1 - expected), kappa)
