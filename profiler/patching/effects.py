"""From metrics of the clean, corrupted and patched run to shares: what a patch recovered, what it lost. numpy only.

Definitions (circuits.md section 3, 1 to 4; m a metric, c clean, k corrupted, p patched):

* recovered_denoise = (m_p - m_k) / (m_c - m_k): clean values into the corrupted run; sufficiency.
* lost_noise = (m_c - m_p) / (m_c - m_k): corrupted (or zero, mean, noisy) values into the clean run; necessity.
* neutral level r0 = (m_0 - m_k) / (m_c - m_k), m_0 the metric of an output that knows nothing (0 for a logit
  difference): what destroying the answer alone recovers, 1/2 where the corruption is symmetric. excess r* = (r - r0) /
  (1 - r0).
* fix = change of the answer's centred logit, break = minus the change of the distractors': the change of the logit
  difference is their sum. A denoising patch with much break and no fix only stopped the wrong answer.

Shares are formed twice: from means over the pairs, and pair by pair as median and quartiles; the two differ, and pairs
whose denominator is tiny are left out of the second and counted (circuits.md section 11, T3). Cost: none.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

PerPair = Float[np.ndarray, "*target pair"]
TINY = 0.05


@dataclass(frozen=True)
class EffectShare:
    """A share over pairs, in both averaging orders.

    Attributes:
        of_means: ratio of the means over pairs.
        median, low, high: median and quartiles of the ratios of single pairs.
        excluded: pairs left out of these because their denominator is tiny.
    """

    of_means: Float[np.ndarray, "*target"]
    median: Float[np.ndarray, "*target"]
    low: Float[np.ndarray, "*target"]
    high: Float[np.ndarray, "*target"]
    excluded: int


def share(change: PerPair, whole: Float[np.ndarray, " pair"], tiny: float = TINY) -> EffectShare:
    """`change` over `whole`.

    Args:
        change: per target and pair.
        whole: per pair, clean minus corrupted metric.
        tiny: a pair is left out of the median where |whole| is below this part of the mean |whole|.
    """
    size = np.abs(whole).mean()
    clear = np.abs(whole) >= tiny * size if size else np.zeros(len(whole), dtype=bool)
    ratios = change[..., clear] / whole[clear]
    empty = np.full(change.shape[:-1], np.nan)
    low, median, high = np.quantile(ratios, (0.25, 0.5, 0.75), axis=-1) if clear.any() else (empty, empty, empty)
    mean = whole.mean()
    of_means = change.mean(-1) / mean if mean else empty
    excluded = int((~clear).sum())
    return EffectShare(np.asarray(of_means), np.asarray(median), np.asarray(low), np.asarray(high), excluded)


def recovered_denoise(
    patched: PerPair, clean: Float[np.ndarray, " pair"], corrupted: Float[np.ndarray, " pair"]
) -> EffectShare:
    """Share of the clean metric that clean values bring back into the corrupted run."""
    return share(patched - corrupted, clean - corrupted)


def lost_noise(
    patched: PerPair, clean: Float[np.ndarray, " pair"], corrupted: Float[np.ndarray, " pair"]
) -> EffectShare:
    """Share of the clean metric that is lost when other values are put into the clean run."""
    return share(clean - patched, clean - corrupted)


def neutral_level(
    clean: Float[np.ndarray, " pair"], corrupted: Float[np.ndarray, " pair"], nothing: float | np.ndarray = 0.0
) -> float:
    """r0: what is recovered by an output that knows nothing, whose metric is `nothing`; NaN without a difference."""
    whole = (clean - corrupted).mean()
    return float((np.mean(nothing) - corrupted.mean()) / whole) if whole else float("nan")


def excess(recovered: Float[np.ndarray, "*target"], neutral: float) -> Float[np.ndarray, "*target"]:
    """r*: what is recovered beyond the neutral level, 1 at full recovery; NaN where the neutral level is 1."""
    return np.asarray((recovered - neutral) / (1 - neutral) if neutral != 1 else np.full_like(recovered, np.nan))


def fix_and_break(
    answer: PerPair,
    distractor: PerPair,
    answer_before: Float[np.ndarray, " pair"],
    distractor_before: Float[np.ndarray, " pair"],
) -> tuple[Float[np.ndarray, "*target"], Float[np.ndarray, "*target"]]:
    """Mean change of the answer's centred logit, and minus that of the distractors'."""
    return np.asarray((answer - answer_before).mean(-1)), np.asarray((distractor_before - distractor).mean(-1))
