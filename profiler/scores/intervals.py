"""Intervals of the behaviour scores: Wilson for proportions, bootstrap for means and ratios.

Why: every score is an estimate from a sample, and a threshold is reached only as far as its interval says. Resampled
is always the unit that was drawn independently: a prompt, a random sequence, a document; never a token.
Cost: some 2,000 resamples, milliseconds.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

CONFIDENCE = 0.95
RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval at `CONFIDENCE`, and the number of independent units behind it; NaN where that is 0."""

    value: float
    low: float
    high: float
    n: int


NOTHING = Estimate(math.nan, math.nan, math.nan, 0)
"""What an empty sample tells."""


def proportion(successes: Bool[np.ndarray, "units"]) -> Estimate:
    """Share of successes with Wilson's score interval (Wilson 1927), which stays inside [0, 1] at 0 and at n."""
    n, k = len(successes), int(np.sum(successes))
    if n == 0:
        return NOTHING
    low, high = proportion_confint(k, n, alpha=1 - CONFIDENCE, method="wilson")
    return Estimate(k / n, float(low), float(high), n)


def mean(values: Float[np.ndarray, "units"]) -> Estimate:
    """Mean with the percentile bootstrap interval over units."""
    return _bootstrapped(lambda x, axis: np.mean(x, axis=axis), values)


def ratio(above: Float[np.ndarray, "units"], below: Float[np.ndarray, "units"]) -> Estimate:
    """Sum of one quantity over the sum of another, both resampled together over units."""
    return _bootstrapped(lambda a, b, axis: np.sum(a, axis=axis) / np.sum(b, axis=axis), above, below)


def reduction(part: Float[np.ndarray, "units"], whole: Float[np.ndarray, "units"]) -> Estimate:
    """One minus the ratio: by which fraction the first sum lies below the second."""
    return _bootstrapped(lambda a, b, axis: 1 - np.sum(a, axis=axis) / np.sum(b, axis=axis), part, whole)


def _bootstrapped(statistic: Callable[..., np.ndarray], *samples: np.ndarray) -> Estimate:
    n = len(samples[0])
    if n == 0:
        return NOTHING
    value = float(statistic(*samples, axis=0))
    if n == 1:
        return Estimate(value, float("nan"), float("nan"), n)
    result = stats.bootstrap(
        samples,
        statistic,
        paired=len(samples) > 1,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=200,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    interval = result.confidence_interval
    return Estimate(value, float(interval.low), float(interval.high), n)
