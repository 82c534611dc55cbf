"""Trend of faithfulness over the distributions: gap to the discovery prompts, test of equivalence, slope.

* gap: faithfulness on a distribution minus that on the discovery prompts; below 0 the circuit explains less there.
* as on discovery: the same difference; its p is that of two one-sided tests (Schuirmann 1987) against "differs by at
  least the margin": small means as good as on the discovery prompts. Not rejecting a difference is no evidence of
  equality.
* slope: change of faithfulness per distribution, least squares over the distributions in their order, t interval: the
  distributions vary more than the prompts of one distribution do, so their scatter makes the error.

Faithfulness is a ratio of sums; tests use its linear part per pair, u = f + (recovered - f whole) / mean whole, whose
mean is f (delta method). Where means stand outside the circuit, the prompts that these are means of were drawn too: the
variance of f over redraws of them joins that of the pairs. Cost: none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from profiler.generality.evidence.distributions import Distribution
from profiler.generality.evidence.finding import Finding, Interval, Null, Question
from profiler.generality.evidence.thresholds import DEFAULT, Thresholds
from profiler.statistics import quotient, slope_interval, tost

EVERY = "all distributions"
FEWEST_FOR_GAP, FEWEST_FOR_SLOPE = 2, 3
"""Distributions that a difference needs, and that a line with an error needs."""


@dataclass(frozen=True, eq=False)
class PairEffects:
    """A circuit's effect and the model's on one distribution, per pair, in logits.

    `again` are both with the references of means resampled, a row per redraw; None where there are none.
    """

    distribution: Distribution
    recovered: Float[np.ndarray, " pair"]
    whole: Float[np.ndarray, " pair"]
    clusters: Int[np.ndarray, " pair"]
    again: tuple[Float[np.ndarray, "redraw pair"], Float[np.ndarray, "redraw pair"]] | None = None

    @property
    def redrawn(self) -> tuple[Float[np.ndarray, " redraw"], ...]:
        """The faithfulness with other references; empty where there are none."""
        return () if self.again is None else (quotient(*(part.sum(-1) for part in self.again)),)


def findings(circuit: str, effects: Sequence[PairEffects], thresholds: Thresholds = DEFAULT) -> tuple[Finding, ...]:
    """Gap and equivalence of each distribution but the first, and the slope over all; empty for fewer than two."""
    if len(effects) < FEWEST_FOR_GAP:
        return ()
    rows = [row for later in effects[1:] for row in _gap(circuit, effects[0], later, thresholds)]
    return (*rows, *_slope(circuit, effects, thresholds))


def linear(effects: PairEffects) -> Float[np.ndarray, " unit"]:
    """Values per document or pair whose mean is the faithfulness and whose scatter is its error."""
    f = effects.recovered.sum() / effects.whole.sum()
    n_units = len(np.unique(effects.clusters))
    part = np.bincount(
        np.unique(effects.clusters, return_inverse=True)[1], weights=effects.recovered - f * effects.whole
    )
    return np.asarray(f + part * n_units / effects.whole.sum())


def _gap(circuit: str, first: PairEffects, later: PairEffects, thresholds: Thresholds) -> tuple[Finding, Finding]:
    distribution, values = later.distribution, linear(later)
    gap, lo, hi, p = tost(linear(first), values, thresholds.margin, (*first.redrawn, *later.redrawn))
    shares = (*distribution.shares, "data discovery")
    question = Question(circuit, "", "trend", distribution.name, distribution.unit, shares=shares)
    measured = Interval(gap, lo, hi, len(values))
    return (
        question.finding("gap", measured),
        question.finding("as on discovery", measured, Null(thresholds.margin, None, p)),
    )


def _slope(circuit: str, effects: Sequence[PairEffects], thresholds: Thresholds) -> tuple[Finding, ...]:
    """Least squares over the distributions."""
    if len(effects) < FEWEST_FOR_SLOPE:
        return ()
    y = np.array([of_distribution.recovered.sum() / of_distribution.whole.sum() for of_distribution in effects])
    measured = Interval(*slope_interval(y), sum(len(of_distribution.whole) for of_distribution in effects))
    return (Question(circuit, "", "trend", EVERY, "prompts", thresholds=thresholds).finding("slope", measured),)
