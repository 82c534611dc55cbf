"""Every test, interval and standard error that the product states; nowhere else is one written. NumPy and SciPy only.

* Tests over pairs: sign flips, Holm, two one-sided tests, matched random sets. The unit of independence is the pair;
  thousands of components are looked at; and "no effect" is a claim of its own, which failing to find an effect does not
  prove. Every p value counts the observed value among the draws, so none is 0.
* Intervals: bootstrap of shares, means and ratios over units that were drawn independently (a prompt, a random
  sequence, a document; never a token), exact and Wilson intervals of proportions.
* The jackknife over documents in fixed domains, as in the run's own SQL (profiler/database/views.sql).

Ties: a number that comes from forward passes has its last bits from the processor, its threads and the size of the
  batch. So
two such numbers are never compared bit by bit: values nearer than ROUNDING are equal (`level`), in ranks, choices and p
values.

Sources: sign flips, Fisher 1935 section 21; Holm 1979; two one-sided tests, Schuirmann 1987; Welch 1947; Wilson 1927;
  exact
interval, Clopper and Pearson 1934; delete-a-group jackknife, Wolter, Introduction to Variance Estimation, chapter 4,
and Rust and Rao 1996; degrees of freedom, Satterthwaite 1946. Cost: draws x pairs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from math import floor, sqrt
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

DRAWS = 2000
EXACT = 12
ROUNDING = 1e-6
"""Shares and logits nearer than this are equal: float32 logits of size 10 differ by as much from one processor to another,
and no number that is read here is read to that many digits."""
Verdict = Literal["effect", "no effect", "inconclusive"]


def level(values: Float[np.ndarray, " value"], rounding: float = ROUNDING) -> Float[np.ndarray, " value"]:
    """The values, largest first made equal to all that lie at most `rounding` below them: ties are ties to the bit.

    Ranks, largest values and their places are then the same on every processor where what is ranked is the same.
    """
    found, top = np.array(values, dtype=np.float64), np.inf
    for place in np.argsort(-found, kind="stable"):
        top = top if top - found[place] <= rounding else found[place]
        found[place] = top
    return found


def rank(value: float, others: Float[np.ndarray, " other"]) -> int:
    """1 + how many are larger, beyond rounding."""
    return 1 + int((others > value + ROUNDING).sum())


def sign_flip_p(
    values: Float[np.ndarray, "*target pair"], seed: int = 0, draws: int = DRAWS
) -> Float[np.ndarray, "*target"]:
    """Two-sided p that the mean over pairs is 0, from flipping signs: all 2^n up to 12 pairs, else random ones."""
    n = values.shape[-1]
    if n <= EXACT:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(draws, n))
        signs[0] = 1.0
    observed = np.abs(values.mean(-1))
    flipped = np.abs(values @ signs.T / n)
    rounding = 1e-12 * np.abs(values).mean(-1)  # of the sums; the observed mean itself may be nothing but that
    return np.asarray((flipped >= (observed - rounding)[..., None]).mean(-1))


def bootstrap_weights(n: int, seed: int = 0, draws: int = DRAWS) -> Float[np.ndarray, "draw pair"]:
    """How often each pair is drawn in each resample, divided by n."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws) / n


def bootstrap_share(
    change: Float[np.ndarray, "*target pair"], whole: Float[np.ndarray, " pair"], level: float = 0.95, seed: int = 0
) -> tuple[Float[np.ndarray, "*target"], Float[np.ndarray, "*target"]]:
    """Percentile interval of the ratio of means, pairs resampled together in numerator and denominator."""
    weights = bootstrap_weights(len(whole), seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (change @ weights.T) / (weights @ whole)
    tail = (1 - level) / 2
    low, high = np.nanquantile(ratios, (tail, 1 - tail), axis=-1)
    return low, high


def holm(p: Float[np.ndarray, " target"]) -> Float[np.ndarray, " target"]:
    """p values corrected for all of them (Holm 1979).

    statsmodels has it too, but collects garbage on every call: a second each, once a model is loaded.
    """
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]))
    return corrected


def verdict(low: float, high: float, margin: float) -> Verdict:
    """What an interval says: an effect if it leaves out 0, none if it lies inside the margin, else inconclusive.

    Equivalence is claimed only with a 90 % interval inside the margin (two one-sided tests at 5 %); pass that interval.
    """
    if -margin < low and high < margin:
        return "no effect"
    return "effect" if low > 0 or high < 0 else "inconclusive"


def tost_sign_p(first: Float[np.ndarray, " pair"], second: Float[np.ndarray, " pair"], margin: float) -> float:
    """p against "`first` beats `second` on a share of pairs that is at least `margin` away from one half".

    Small p: the two are equivalent in that sense. Ties count half to each side. Replaces the test of Shi et al. 2024,
    whose null is equivalence, so that not rejecting it was taken for support.
    """
    wins = np.sum(first > second) + 0.5 * np.sum(first == second)
    n = len(first)
    below = stats.binom.cdf(np.ceil(wins), n, 0.5 + margin)
    above = stats.binom.sf(np.floor(wins) - 1, n, 0.5 - margin)
    return float(max(below, above))


def random_set_p(observed: float, drawn: Float[np.ndarray, " draw"]) -> float:
    """(1 + draws at least as good) / (1 + draws): how often a random set does as well; equal but for rounding is as
    good."""
    return float((1 + np.sum(drawn >= observed - ROUNDING)) / (1 + len(drawn)))


def clopper_pearson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of a rate of k in n; (0, 1) where n is 0."""
    if not n:
        return 0.0, 1.0
    interval = stats.binomtest(k, n).proportion_ci(level, method="exact")
    return float(interval.low), float(interval.high)


def tost(
    first: Float[np.ndarray, " unit"], second: Float[np.ndarray, " other"], margin: float
) -> tuple[float, float, float, float]:
    """Difference of means (second minus first), its 95 % interval (Welch), and p of two one-sided tests at +- margin.

    Without any scatter the difference is exact, and p 0 or 1.
    """
    if np.ptp(first) + np.ptp(second) < 1e-12:
        difference = float(second.mean() - first.mean())
        return difference, difference, difference, float(abs(difference) >= margin)
    interval = stats.ttest_ind(second, first, equal_var=False).confidence_interval(CONFIDENCE)
    above = stats.ttest_ind(second + margin, first, equal_var=False, alternative="greater").pvalue
    below = stats.ttest_ind(second - margin, first, equal_var=False, alternative="less").pvalue
    return float(second.mean() - first.mean()), float(interval.low), float(interval.high), float(max(above, below))


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
    interval = stats.binomtest(k, n).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(k / n, float(interval.low), float(interval.high), n)


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


@dataclass(frozen=True)
class Error:
    """A standard error and its degrees of freedom (Satterthwaite 1946)."""

    se: float
    df: float

    @property
    def half(self) -> float:
        """Half of a 95 % interval."""
        return float(stats.t.ppf(0.975, floor(self.df + 1e-6))) * self.se


def ratio_error(
    above: Float[np.ndarray, " unit"],
    below: Float[np.ndarray, " unit"],
    domain: Int[np.ndarray, " unit"],
    size: Float[np.ndarray, " unit"] | None = None,
) -> Error | None:
    """The error of sum(above) / sum(below) over units, or None where one unit holds all that is divided by.

    Args:
        above, below: sums of each unit; units that hold nothing belong there too, with 0.
        domain: number of each unit's domain.
        size: documents in each unit; none is 1 each.
    """
    value = above.sum() / below.sum()
    left = [_without(sums, domain, np.ones(len(sums)) if size is None else size) for sums in (above, below)]
    if (left[1] <= 1e-12 * below.sum()).any():
        return None
    change = left[0] / left[1] - value
    return _combine([change[domain == d] for d in np.unique(domain)])


def _without(
    sums: Float[np.ndarray, " unit"], domain: Int[np.ndarray, " unit"], size: Float[np.ndarray, " unit"]
) -> Float[np.ndarray, " unit"]:
    """The total when each unit is left out, its domain's others weighted up to the domain's documents."""
    of_domain, documents, units = (
        np.bincount(domain, x, domain.max() + 1)[domain] for x in (sums, size, np.ones(len(sums)))
    )
    part = np.where(units > 1, size / documents, 0.0)
    return sums.sum() - of_domain + (of_domain - sums) / (1 - part)


def _combine(changes: list[np.ndarray]) -> Error:
    """From the changes of the estimate, domain by domain; one unit alone in its domain is held against the estimate
    itself."""
    variances = np.array([(n - 1) * x.var() if (n := len(x)) > 1 else x[0] ** 2 for x in changes])
    free = np.array([max(1, len(x) - 1) for x in changes])
    spread = (variances**2 / free).sum()
    return Error(sqrt(variances.sum()), float(variances.sum() ** 2 / spread if spread else free.sum()))
