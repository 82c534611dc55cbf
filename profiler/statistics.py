"""Every test, interval and standard error that the product states; nowhere else is one written. NumPy and SciPy only.

* Tests over pairs: sign flips, McNemar, Holm, two one-sided tests, matched random sets. The unit of independence is the
  pair; thousands of components are tested; and "no effect" is a claim of its own, which failing to find an effect does
  not prove. Every p value counts the observed value among the draws, so none is 0, and each draw-based p has a least
  value beside it: where that is not below the level, the test cannot decide, whatever the data are.
* Many components at once: a step-down of the largest statistic over joint sign flips. A p value of single components
  times their number cannot be below their number / draws; the largest statistic can be as small as 1 / draws however
  many there are.
* Intervals: bootstrap of means and ratios over units that were drawn independently (a prompt, a random sequence, a
  document; never a token), Student's t, exact and Wilson intervals of proportions.
* The jackknife over documents in fixed domains, as in the run's own SQL (profiler/database/macros.sql).

Ties: a number that comes from forward passes has its last bits from the processor, its threads and the size of the
batch. So two such numbers are never compared bit by bit: values nearer than ROUNDING are equal (`level`), in ranks,
choices and p values.

Sources: sign flips, Fisher 1935 section 21; step-down of the largest statistic, Westfall and Young 1993, algorithm 2.8;
more draws where they decide, Besag and Clifford 1991; McNemar 1947; Holm 1979; two one-sided tests, Schuirmann 1987;
Welch 1947; Wilson 1927; exact interval, Clopper and Pearson 1934; percentile bootstrap, Efron and Tibshirani 1993,
chapter 13; delete-a-group jackknife, Wolter, Introduction to Variance Estimation, chapter 4, and Rust and Rao 1996;
degrees of freedom, Satterthwaite 1946. Cost: draws x pairs.
"""

import math
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import scipy  # its `stats`, which takes a second to load, is loaded where it is first used
from jaxtyping import Bool, Float, Int, Num
from numpy.typing import NDArray

Verdict = Literal["effect", "no effect", "inconclusive"]

CONFIDENCE = 0.95
TAIL = 0.025
"""Probability beyond each end of a 95 % interval."""
TAIL_90 = 0.05
"""Probability beyond each end of a 90 % interval: inside a margin it is two one-sided tests at 5 %."""
Z95 = float(scipy.special.ndtri(1 - TAIL))
"""Standard errors from the centre to an end of a normal 95 % interval."""
DRAWS = 2000
"""Resamples of a bootstrap, and random sign flips."""
SCIPY_BATCH = 200
"""Resamples that SciPy has in memory at once."""
EXACT_PAIRS = 12
"""Up to so many pairs all 2^n sign flips are made."""
MOST_DRAWS = 10 * DRAWS
"""Random sign flips at most, drawn DRAWS at a time while some p value is too near the level to tell its side."""
DRAWS_AT_ONCE = 250
"""Sign flips of all targets that are in memory at once."""
TOLD_APART = 3.0
"""A p value's side of the level is known where it is so many Monte-Carlo standard errors away."""
LEVEL = 0.05
"""The level of a test for which nobody chose another."""
RULE_OF_THREE = 3.0
"""Not seen in n independent units: the rate is below 3 / n, with 95 % confidence."""
ROUNDING = 1e-6
"""Shares and logits nearer than this are equal: float32 logits of size 10 differ by as much from one processor to
another, and no number that is read here is read to that many digits."""
RELATIVE_ROUNDING = 1e-12
"""Float64 sums nearer than this part of their terms are equal."""


# --- ties ---


def level(values: Float[np.ndarray, " value"], rounding: float = ROUNDING) -> Float[np.ndarray, " value"]:
    """The values, largest first made equal to all that lie at most `rounding` below them: ties are ties to the bit.

    Ranks, largest values and their indices are then the same on every processor where what is ranked is the same.
    """
    levelled, top = np.array(values, dtype=np.float64), np.inf
    for index in np.argsort(-levelled, kind="stable"):
        top = top if top - levelled[index] <= rounding else levelled[index]
        levelled[index] = top
    return levelled


def rank(value: float, competitors: Float[np.ndarray, " competitor"]) -> int:
    """1 + the number of competitors that are larger, beyond rounding."""
    return 1 + int((competitors > value + ROUNDING).sum())


# --- tests over pairs ---


def sign_flip_p(
    values: Float[np.ndarray, "*target pair"], seed: int = 0, draws: int = DRAWS
) -> Float[np.ndarray, "*target"]:
    """Two-sided p that the mean over pairs is 0, from flipping signs: all 2^n up to 12 pairs, else random flips.

    Values within ROUNDING of 0 are 0. For one target; of many, the p values of `flip_tests` hold together.
    """
    values, n = _beyond_rounding(values), values.shape[-1]
    signs = _all_flips(n) if n <= EXACT_PAIRS else _random_flips(n, draws, np.random.default_rng(seed), first=True)
    observed = np.abs(values.mean(-1))
    flipped = np.abs(values @ signs.T / n)
    rounding = RELATIVE_ROUNDING * np.abs(values).mean(-1)  # of the sums; the observed mean may be nothing but that
    return np.asarray((flipped >= (observed - rounding)[..., None]).mean(-1))


def is_higher(first: Float[np.ndarray, " pair"], second: Float[np.ndarray, " pair"], alpha: float = LEVEL) -> bool:
    """Whether a metric is higher in the first of two runs of the same pairs, beyond rounding and chance.

    What two runs differ by is compared with the size of the metric itself, so its unit does not matter.
    """
    size, change = float(np.maximum(np.abs(first), np.abs(second)).mean()), first - second
    return bool(size > 0 and change.mean() > 0 and sign_flip_p(change / size) < alpha)


def _beyond_rounding(values: Float[np.ndarray, "*target pair"]) -> Float[np.ndarray, "*target pair"]:
    """The values, those within ROUNDING of 0 made 0: rounding has a sign, which is no effect."""
    return np.where(np.abs(values) > ROUNDING, values, 0.0)


def least_flip_p(n: int, draws: int = DRAWS) -> float:
    """Smallest p that sign flips of n pairs can give, two-sided: 2 / 2^n where all are made, else 1 / draws.

    The data and their own negative are among all flips; of random flips only the data themselves are sure to be.
    """
    return min(1.0, 2.0 ** (1 - n)) if n <= EXACT_PAIRS else 1 / draws


def fewest_pairs(alpha: float = LEVEL) -> int:
    """Fewest pairs of which sign flips can give a p below `alpha`."""
    return next((n for n in range(1, EXACT_PAIRS + 1) if least_flip_p(n) < alpha), EXACT_PAIRS + 1)


@dataclass(frozen=True)
class FlipTests:
    """Sign-flip tests of many targets at once.

    Attributes:
        p: of each target by itself.
        adjusted: the same, so that the chance of any p below the level among targets without effect is the level.
        least: the smallest value that each of them could have had.
    """

    p: Float[np.ndarray, " target"]
    adjusted: Float[np.ndarray, " target"]
    least: Float[np.ndarray, " target"]

    def clear(self, alpha: float = LEVEL) -> Bool[np.ndarray, " target"]:
        """Whether each target has an effect, family-wise."""
        return self.adjusted < alpha


def flip_tests(values: Float[np.ndarray, "target pair"], seed: int = 0, alpha: float = LEVEL) -> FlipTests:
    """Whether the mean of each target is 0, family-wise: a step-down of the largest |t| over joint sign flips.

    The signs of a pair flip for all targets together, so what targets have in common is in the null. The statistic is
    |sum| / sqrt(pairs x sum of squares), which rises with Student's |t|: targets of every scale count alike, and one
    that is 0 everywhere never. Values within ROUNDING of 0 are 0: a head that does nothing changes the last bits of a
    logit, always to the same side. While a p value is too near `alpha` to tell its side, more flips are drawn.

    Args:
        values: effect of each target on each pair, in logits or as a share.
        seed: of the random flips.
        alpha: the level at which it is decided.
    """
    values, n = _beyond_rounding(values), values.shape[-1]
    size = np.sqrt(n * np.square(values).sum(-1, keepdims=True))
    scaled = np.divide(values, size, out=np.zeros(values.shape), where=size > 0)
    observed = np.abs(scaled.sum(-1))
    order = np.argsort(-observed, kind="stable")
    scaled, observed = scaled[order], observed[order]
    alone, together, draws = np.zeros(len(values)), np.zeros(len(values)), 0
    for signs in _flips(n, seed):
        for begin in range(0, len(signs), DRAWS_AT_ONCE):
            flipped = np.abs(scaled @ signs[begin : begin + DRAWS_AT_ONCE].T)
            bound = (observed - RELATIVE_ROUNDING)[:, None]
            alone += (flipped >= bound).sum(-1)
            together += (np.maximum.accumulate(flipped[::-1])[::-1] >= bound).sum(-1)
        draws += len(signs)
        doubt = TOLD_APART * math.sqrt(alpha * (1 - alpha) / draws)
        if (np.abs(np.maximum.accumulate(together / draws) - alpha) > doubt).all():
            break
    p, adjusted = np.empty(len(values)), np.empty(len(values))
    p[order], adjusted[order] = alone / draws, np.maximum.accumulate(together / draws)
    return FlipTests(p, adjusted, np.full(len(values), least_flip_p(n, draws)))


def flip_tests_within(
    values: Float[np.ndarray, "target pair"], families: Sequence[Hashable], seed: int = 0, alpha: float = LEVEL
) -> FlipTests:
    """`flip_tests` of each family by itself.

    Args:
        families: of each target, the family that it is tested in.
    """
    together = FlipTests(*(np.empty(len(values)) for _ in range(3)))
    for family in dict.fromkeys(families):
        members = [i for i, own in enumerate(families) if own == family]
        own = flip_tests(values[members], seed, alpha)
        together.p[members], together.adjusted[members], together.least[members] = own.p, own.adjusted, own.least
    return together


def _all_flips(n: int) -> Float[np.ndarray, "draw pair"]:
    return 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)


def _random_flips(n: int, draws: int, rng: np.random.Generator, *, first: bool) -> Float[np.ndarray, "draw pair"]:
    """Random signs; the first draws of a test begin with the data themselves."""
    signs = rng.choice((-1.0, 1.0), size=(draws, n))
    if first:
        signs[0] = 1.0
    return signs


def _flips(n: int, seed: int) -> Iterator[Float[np.ndarray, "draw pair"]]:
    """All sign flips at once where they are few, else MOST_DRAWS random ones, DRAWS at a time."""
    if n <= EXACT_PAIRS:
        yield _all_flips(n)
        return
    rng = np.random.default_rng(seed)
    for done in range(0, MOST_DRAWS, DRAWS):
        yield _random_flips(n, DRAWS, rng, first=not done)


def mcnemar_p(first: Float[np.ndarray, " pair"], second: Float[np.ndarray, " pair"]) -> float:
    """Exact one-sided p that the first does not succeed more often than the second, on pairs (McNemar 1947)."""
    wins, losses = int((first > second).sum()), int((first < second).sum())
    return float(scipy.stats.binom.sf(wins - 1, wins + losses, 0.5)) if wins + losses else 1.0


def holm(p: Float[np.ndarray, " target"]) -> Float[np.ndarray, " target"]:
    """Holm-adjusted p values (Holm 1979).

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
    below = scipy.stats.binom.cdf(np.ceil(wins), n, 0.5 + margin)
    above = scipy.stats.binom.sf(np.floor(wins) - 1, n, 0.5 - margin)
    return float(max(below, above))


def tost(
    first: Float[np.ndarray, " unit"],
    second: Float[np.ndarray, " other"],
    margin: float,
    again: Sequence[Float[np.ndarray, " redraw"]] = (),
) -> tuple[float, float, float, float]:
    """Difference of means (second minus first), its 95 % interval (Welch), and p of two one-sided tests at +- margin.

    Without scatter beyond ROUNDING the difference is exact, and p 0 or 1.

    Args:
        again: either mean with what its units are measured against drawn anew, where that was drawn too: its variance
            joins that of the units.
    """
    difference = float(second.mean() - first.mean())
    if max(np.ptp(values) for values in (first, second, *again)) <= ROUNDING:
        return difference, difference, difference, float(abs(difference) >= margin - ROUNDING)
    parts = [(values.var(ddof=1) / len(values), len(values) - 1) for values in (first, second)]
    parts += [(drawn.var(ddof=1), len(drawn) - 1) for drawn in again]
    variance = sum(part for part, _ in parts)
    df, error = variance**2 / sum(part**2 / free for part, free in parts), math.sqrt(variance)
    half = float(scipy.stats.t.ppf(1 - TAIL, df)) * error
    p = max(scipy.stats.t.sf((difference + margin) / error, df), scipy.stats.t.cdf((difference - margin) / error, df))
    return difference, difference - half, difference + half, float(p)


def random_set_p(observed: float, drawn: Float[np.ndarray, " draw"]) -> float:
    """p that a random set does as well: (1 + draws at least as good) / (1 + draws), ties within rounding counted."""
    return float((1 + np.sum(drawn >= observed - ROUNDING)) / (1 + len(drawn)))


def largest_random_p(
    observed: Float[np.ndarray, " target"], drawn: Float[np.ndarray, "draw target"]
) -> Float[np.ndarray, " target"]:
    """p that the largest of as many random values does as well, family-wise: a step-down (Westfall and Young 1993).

    The largest target is compared with the largest of each draw, the next with the largest of one value less, and so
    on. The least p is 1 / (1 + draws), however many targets there are.

    Args:
        drawn: in each draw as many random values as there are targets, in no order.
    """
    order = np.argsort(-level(observed), kind="stable")
    most = np.maximum.accumulate(drawn[:, ::-1], 1)[:, ::-1]
    steps = [random_set_p(float(observed[target]), most[:, step]) for step, target in enumerate(order)]
    adjusted = np.empty(len(observed))
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted


def least_random_p(draws: int) -> float:
    """Smallest p that comparing with so many random sets can give: 1 / (1 + draws)."""
    return 1 / (1 + draws)


def normal_shares(edges: Float[np.ndarray, " edge"]) -> Float[np.ndarray, " bin"]:
    """Share of standard normal values between each two edges."""
    shares: np.ndarray = np.diff(scipy.special.ndtr(edges))
    return shares


def normal_cdf(z: float) -> float:
    """P(standard normal <= z)."""
    return float(scipy.special.ndtr(z))


# --- correlations ---


def pearson(x: Float[np.ndarray, " target"], y: Float[np.ndarray, " target"]) -> float:
    """Pearson's correlation; NaN where either is constant up to rounding."""
    return math.nan if _constant(x) or _constant(y) else float(scipy.stats.pearsonr(x, y).statistic)


def _constant(values: Float[np.ndarray, " target"]) -> bool:
    """Whether all values are equal up to ROUNDING, or that part of their size where they are large."""
    return float(np.ptp(values)) <= ROUNDING * max(1.0, float(np.abs(values).max()))


def spearman(x: Float[np.ndarray, " target"], y: Float[np.ndarray, " target"]) -> float:
    """Spearman's rank correlation; NaN where either is constant."""
    return float(spearman_of_rows(x[None], y[None])[0])


def spearman_of_rows(
    x: Float[np.ndarray, "draw target"], y: Float[np.ndarray, "draw target"]
) -> Float[np.ndarray, " draw"]:
    """Spearman's rank correlation of each row of two tables; NaN where either row is constant."""
    ranks = [scipy.stats.rankdata(values, axis=-1) for values in (x, y)]
    a, b = (rank - rank.mean(-1, keepdims=True) for rank in ranks)
    return quotient((a * b).sum(-1), np.sqrt((a * a).sum(-1) * (b * b).sum(-1)))


def kendall(x: Float[np.ndarray, " target"], y: Float[np.ndarray, " target"]) -> float:
    """Kendall's tau-b; NaN where either is constant."""
    return float(scipy.stats.kendalltau(x, y).statistic)


# --- bootstrap ---


def bootstrap_means(
    values: Float[np.ndarray, "*target unit"], seed: int = 0, draws: int = DRAWS
) -> Float[np.ndarray, "*target draw"]:
    """Means over units in each resample; all targets see the same resamples, and so do two calls with one seed."""
    return np.asarray(values @ _seeded_weights(values.shape[-1], seed, draws).T)


@lru_cache(maxsize=4)
def _seeded_weights(n: int, seed: int, draws: int) -> Float[np.ndarray, "draw unit"]:
    """`resampling_weights` by a seed: a check asks for the same ones hundreds of times."""
    weights = resampling_weights(n, np.random.default_rng(seed), draws)
    weights.flags.writeable = False
    return weights


def resampling_weights(n: int, rng: np.random.Generator, draws: int = DRAWS) -> Float[np.ndarray, "draw unit"]:
    """How much each of n units counts in the mean over each resample; rows sum to 1."""
    return rng.multinomial(n, np.full(n, 1 / n), size=draws) / n


def resampled_units(n: int, draws: int, rng: np.random.Generator) -> Iterator[Int[np.ndarray, " unit"]]:
    """Numbers of the units in each resample of n units, for statistics that are not made of means."""
    yield from rng.integers(0, n, (draws, n))


def quotient(
    above: Float[np.ndarray, "*target draw"], below: Float[np.ndarray, "*draw"]
) -> Float[np.ndarray, "*target draw"]:
    """`above / below`, draw by draw; without warning infinite or NaN where a draw divides by 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(above / below)


def percentile_interval(
    drawn: Float[np.ndarray, "*target draw"], tail: float = TAIL
) -> tuple[Float[np.ndarray, "*target"], Float[np.ndarray, "*target"]]:
    """Quantiles of the draws that leave out `tail` at each end; NaN draws are left out, NaN where all are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all draws are NaN
        low, high = np.nanquantile(drawn, (tail, 1 - tail), axis=-1)
    return np.asarray(low), np.asarray(high)


def bootstrap_ratio(
    above: Float[np.ndarray, "*target pair"],
    below: Float[np.ndarray, " pair"],
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> tuple[Float[np.ndarray, "*target"], Float[np.ndarray, "*target"]]:
    """Percentile interval of the ratio of means, pairs resampled together in numerator and denominator."""
    drawn = quotient(bootstrap_means(above, seed), bootstrap_means(below, seed))
    return percentile_interval(drawn, (1 - confidence) / 2)


def bootstrap_ratio_redrawn(
    above: Float[np.ndarray, "redraw unit"], below: Float[np.ndarray, "redraw unit"], seed: int = 0
) -> Float[np.ndarray, " draw"]:
    """Ratio of means in each resample of the units, measured against one redraw after the other.

    What all units are measured against was drawn too (reference prompts, whose means stand in for what is silenced).
    Units drawn anew against the same references say how much the ratio scatters for these references alone; here both
    are drawn. With one redraw it is the bootstrap of a ratio of means.

    Args:
        above, below: of each unit, with the references resampled, a row per redraw.
    """
    weights, drawn = _seeded_weights(above.shape[-1], seed, DRAWS), np.empty(DRAWS)
    for number, parts in enumerate(zip(above, below, strict=True)):
        own = slice(number, None, len(above))
        drawn[own] = quotient(*(weights[own] @ part for part in parts))
    return drawn


# --- estimates with intervals ---


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval at `CONFIDENCE`, and the number of independent units behind it; NaN where that is 0."""

    value: float
    low: float
    high: float
    n: int


EMPTY = Estimate(math.nan, math.nan, math.nan, 0)
"""The estimate from no units."""


def proportion(successes: Bool[np.ndarray, " unit"]) -> Estimate:
    """Share of successes with Wilson's score interval (Wilson 1927), which stays inside [0, 1] at 0 and at n."""
    n, k = len(successes), int(np.sum(successes))
    if n == 0:
        return EMPTY
    interval = scipy.stats.binomtest(k, n).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(k / n, float(interval.low), float(interval.high), n)


def mean(values: Num[np.ndarray, " unit"]) -> Estimate:
    """Mean with the percentile bootstrap interval over units."""
    return _bootstrapped(lambda x, axis: np.mean(x, axis=axis), values)


def ratio(above: Num[np.ndarray, " unit"], below: Num[np.ndarray, " unit"]) -> Estimate:
    """Sum of one quantity over the sum of another, both resampled together over units."""
    return _bootstrapped(lambda a, b, axis: np.sum(a, axis=axis) / np.sum(b, axis=axis), above, below)


def reduction(part: Num[np.ndarray, " unit"], whole: Num[np.ndarray, " unit"]) -> Estimate:
    """One minus the ratio: by which fraction the first sum lies below the second."""
    return _bootstrapped(lambda a, b, axis: 1 - np.sum(a, axis=axis) / np.sum(b, axis=axis), part, whole)


def _bootstrapped(statistic: Callable[..., Any], *samples: NDArray[Any]) -> Estimate:
    n = len(samples[0])
    if n == 0:
        return EMPTY
    value = float(statistic(*samples, axis=0))
    if n == 1:
        return Estimate(value, math.nan, math.nan, n)
    result = scipy.stats.bootstrap(
        samples,
        statistic,
        paired=len(samples) > 1,
        vectorized=True,
        n_resamples=DRAWS,
        batch=SCIPY_BATCH,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    interval = result.confidence_interval
    return Estimate(value, float(interval.low), float(interval.high), n)


def clopper_pearson(k: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Exact interval of a rate of k in n; (0, 1) where n is 0."""
    if not n:
        return 0.0, 1.0
    interval = scipy.stats.binomtest(k, n).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)


def student_interval(values: Float[np.ndarray, " unit"], tail: float = TAIL) -> tuple[float, float]:
    """Interval of the mean from Student's t; infinite for fewer than two units."""
    n, centre = len(values), float(values.mean())
    if n <= 1:
        return -math.inf, math.inf
    half = float(scipy.stats.t.ppf(1 - tail, n - 1)) * float(values.std(ddof=1)) / math.sqrt(n)
    return centre - half, centre + half


def slope_interval(values: Float[np.ndarray, " step"]) -> tuple[float, float, float]:
    """Change per step by least squares, and its 95 % interval from Student's t; three values at least."""
    fit = scipy.stats.linregress(np.arange(len(values)), values)
    half = scipy.stats.t.ppf(1 - TAIL, len(values) - 2) * fit.stderr
    slope = float(fit.slope)
    return slope, slope - half, slope + half


# --- jackknife over documents ---


@dataclass(frozen=True)
class Error:
    """A standard error and its degrees of freedom (Satterthwaite 1946)."""

    se: float
    df: float

    @property
    def half(self) -> float:
        """Half of a 95 % interval."""
        return float(_jackknife_half(np.float64(self.se), np.float64(self.df)))


def ratio_error(
    above: Float[np.ndarray, " unit"],
    below: Float[np.ndarray, " unit"],
    domain: Int[np.ndarray, " unit"],
    size: Float[np.ndarray, " unit"] | None = None,
) -> Error | None:
    """Jackknife error of sum(above) / sum(below) over units; None where one unit holds all that is divided by.

    Args:
        above, below: sums of each unit; units that hold nothing belong there too, with 0.
        domain: number of each unit's domain.
        size: documents in each unit; none is 1 each.
    """
    value = above.sum() / below.sum()
    left = [_without(sums, domain, np.ones(len(sums)) if size is None else size) for sums in (above, below)]
    if (left[1] <= RELATIVE_ROUNDING * below.sum()).any():
        return None
    change = left[0] / left[1] - value
    return _combine([change[domain == d] for d in np.unique(domain)])


def mean_halves(
    above: Float[np.ndarray, "unit target"],
    below: Float[np.ndarray, " unit"],
    domain: Int[np.ndarray, " unit"],
    size: Float[np.ndarray, " unit"],
) -> Float[np.ndarray, " target"]:
    """Half of the 95 % interval of each sum(above) / sum(below), as `ratio_error` gives it; NaN where that is None."""
    left = _without(below, domain, size)
    if (left <= RELATIVE_ROUNDING * below.sum()).any():
        return np.full(above.shape[1], np.nan)
    change = _without(above, domain, size) / left[:, None] - above.sum(0) / below.sum()
    variance, df = _variance([change[domain == d] for d in np.unique(domain)])
    return np.asarray(_jackknife_half(np.sqrt(variance), df))


def share_interval(
    value: float,
    whole: Float[np.ndarray, " unit"],
    part: Float[np.ndarray, " unit"],
    documents: float,
    domain: Int[np.ndarray, " unit"] | None = None,
    size: Float[np.ndarray, " unit"] | None = None,
) -> tuple[float, float] | tuple[None, None]:
    """95 % interval of a share on the logit scale, from the jackknife; None where one unit holds everything.

    As macros share_lo and share_hi of macros.sql. A share of 0 or 1 has the rule of three over the documents.

    Args:
        value: the share, sum(part) / sum(whole).
        whole, part: sums of each unit (a replicate group, or a document); units that hold nothing too, with 0.
        documents: effective number of documents.
        domain: number of each unit's domain; none is one domain.
        size: documents in each unit; none is 1 each.
    """
    error = ratio_error(part, whole, np.zeros(len(whole), int) if domain is None else domain, size)
    if error is None:
        return None, None
    if value < RELATIVE_ROUNDING:
        return 0.0, min(1.0, RULE_OF_THREE / documents)
    if value > 1 - RELATIVE_ROUNDING:
        return max(0.0, 1 - RULE_OF_THREE / documents), 1.0
    half = error.half / (value * (1 - value))
    centre = math.log(value / (1 - value))
    low, high = (1 / (1 + math.exp(-(centre + side * half))) for side in (-1, 1))
    return low, high


def _jackknife_half(se: Any, df: Any) -> Any:
    """Half of a 95 % interval from Student's t, of one error or of many."""
    return scipy.stats.t.ppf(1 - TAIL, np.floor(df + ROUNDING)) * se


def _without(
    sums: Float[np.ndarray, "unit *target"], domain: Int[np.ndarray, " unit"], size: Float[np.ndarray, " unit"]
) -> Float[np.ndarray, "unit *target"]:
    """The total when each unit is left out, the rest of its domain weighted up to the domain's documents."""
    documents, units = (_of_domain(x, domain) for x in (size, np.ones(len(sums))))
    part = np.where(units > 1, size / documents, 0.0).reshape(-1, *[1] * (sums.ndim - 1))
    of_domain = _of_domain(sums, domain)
    return np.asarray(sums.sum(0) - of_domain + (of_domain - sums) / (1 - part))


def _of_domain(
    sums: Float[np.ndarray, "unit *target"], domain: Int[np.ndarray, " unit"]
) -> Float[np.ndarray, "unit *target"]:
    """Of each unit, the sum over its domain."""
    totals = np.zeros((domain.max() + 1, *sums.shape[1:]))
    np.add.at(totals, domain, sums)
    return np.asarray(totals[domain])


def _combine(changes: Sequence[NDArray[Any]]) -> Error:
    """The error from the changes of the estimate, domain by domain; a domain of one unit counts its change squared."""
    variance, df = _variance(changes)
    return Error(math.sqrt(variance), float(df))


def _variance(changes: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The variance, and its degrees of freedom, from changes of one estimate or of many, units first."""
    variances = np.array([(n - 1) * x.var(0) if (n := len(x)) > 1 else x[0] ** 2 for x in changes])
    free = np.array([max(1, len(x) - 1) for x in changes])
    total = variances.sum(0)
    spread = (variances**2 / free.reshape(-1, *[1] * (variances.ndim - 1))).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(total), np.where(spread > 0, total**2 / spread, free.sum())
