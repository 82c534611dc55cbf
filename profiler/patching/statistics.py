"""Tests over pairs: sign flips, bootstrap, Holm, equivalence, matched random sets. numpy and scipy only.

Why: the unit of independence is the pair; thousands of components are looked at; and "no effect" is a claim of its own,
which failing to find an effect does not prove. Every p value counts the observed value among the draws, so none is 0.

Ties: a number that comes from forward passes has its last bits from the processor, its threads and the size of the batch. So
two such numbers are never compared bit by bit: values nearer than ROUNDING are equal (`level`), in ranks, choices and p values.

Sources: sign flips, Fisher 1935 section 21; Holm 1979; two one-sided tests, Schuirmann 1987. Cost: draws x pairs.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float
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
    """(1 + draws at least as good) / (1 + draws): how often a random set does as well; equal but for rounding is as good."""
    return float((1 + np.sum(drawn >= observed - ROUNDING)) / (1 + len(drawn)))


def clopper_pearson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of a rate of k in n; (0, 1) where n is 0."""
    if not n:
        return 0.0, 1.0
    interval = stats.binomtest(k, n).proportion_ci(level, method="exact")
    return float(interval.low), float(interval.high)
