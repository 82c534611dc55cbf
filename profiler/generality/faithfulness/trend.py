"""How faithfulness changes along the distributions: the gap to the discovery prompts, the test of equivalence, the
slope.

* gap: faithfulness on a distribution minus that on the discovery prompts; below 0 the circuit explains less there.
* as on discovery: the same difference; its p is that of two one-sided tests (Schuirmann 1987) against "differs by at
  least MARGIN": small means as good as on the discovery prompts. Not rejecting a difference is no evidence of equality.
* slope: change of faithfulness per distribution, least squares over the distributions in their order, t interval: the
  distributions vary more than the prompts of one distribution do, so their scatter makes the error.

Faithfulness is a ratio of sums; tests use its linear part per pair, u = f + (kept - f whole) / mean whole, whose mean
is f (delta method). Cost: none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from profiler.generality.evidence.distributions import Distribution
from profiler.generality.evidence.finding import Finding
from profiler.generality.evidence.ledger import MARGIN
from profiler.statistics import slope_interval, tost

EVERY = "all distributions"


@dataclass(frozen=True, eq=False)
class Shown:
    """A circuit's effect on one distribution, per pair, in logits; what trends are made of."""

    distribution: Distribution
    kept: Float[np.ndarray, " pair"]
    whole: Float[np.ndarray, " pair"]
    clusters: Int[np.ndarray, " pair"]


def findings(circuit: str, shown: Sequence[Shown]) -> tuple[Finding, ...]:
    """Gap and equivalence of each distribution but the first, and the slope over all; nothing where fewer than two have
    a number."""
    if len(shown) < 2:
        return ()
    first = linear(shown[0])
    rows = [row for one in shown[1:] for row in _beside(circuit, first, one)]
    return (*rows, *_slope(circuit, shown))


def linear(one: Shown) -> Float[np.ndarray, " unit"]:
    """Values whose mean is the faithfulness and whose scatter is its error, one per independent unit (document or
    pair)."""
    f = one.kept.sum() / one.whole.sum()
    n_units = len(np.unique(one.clusters))
    part = np.bincount(np.unique(one.clusters, return_inverse=True)[1], weights=one.kept - f * one.whole)
    return f + part * n_units / one.whole.sum()


def _beside(circuit: str, first: np.ndarray, one: Shown) -> tuple[Finding, Finding]:
    values = linear(one)
    gap, lo, hi, p = tost(first, values, MARGIN)
    unit = "documents" if one.distribution.n_documents else "prompts"
    found = (circuit, "", "trend", one.distribution.name)
    shares = (f"data {one.distribution.name}", "data discovery")
    return (
        Finding(*found, "gap", gap, lo, hi, len(values), unit, shares=shares),
        Finding(*found, "as on discovery", gap, lo, hi, len(values), unit, null=MARGIN, p=p, shares=shares),
    )


def _slope(circuit: str, shown: Sequence[Shown]) -> tuple[Finding, ...]:
    """Least squares over the distributions; three at least."""
    if len(shown) < 3:
        return ()
    y = np.array([one.kept.sum() / one.whole.sum() for one in shown])
    n = sum(len(one.whole) for one in shown)
    return (Finding(circuit, "", "trend", EVERY, "slope", *slope_interval(y), n, "prompts"),)
