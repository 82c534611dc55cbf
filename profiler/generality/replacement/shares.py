"""Shares explained, from effects at single positions: bins by importance, intervals over documents, refused ratios.

    explained = 1 - D_replaced / D_mean-ablated

with D the mean over positions of KL (nats), of the change of loss (nats, signed: net), or of its absolute value. 1: the
rule does all that matters of what the component does; 0: it does no better than the component's mean; below 0: it does
harm.
McDougall et al. 2023 found 77 % in KL, 82 % in net loss and 45 % in |change of loss| for one head and one rule, so all
three are given.

A ratio is refused where its denominator is too small: mean ablation moves the answer by less than a threshold
(`least_ablation_kl`, `least_ablation_loss`, `least_ablation_change`, nats a position), or by less than `clear_of_zero`
standard errors, which are a jackknife over documents within domains. Intervals: percentile bootstrap, documents
resampled, numerator and denominator together. Cost: draws x documents.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from profiler.generality.evidence.finding import NO_NULL, Null
from profiler.generality.evidence.thresholds import DEFAULT, Thresholds
from profiler.statistics import bootstrap_means, percentile_interval, quotient, random_set_p, ratio_error

EDGES = (0.0, 50.0, 75.0, 90.0, 95.0, 99.0, 100.0)
"""Percentiles of |DLA| that bins lie between; rows of all positions come first."""
MEASURES = ("KL", "net loss", "|change of loss|")
WORST = -1.0
"""Shares of null heads count as this at least: a rule can do any harm, and one head must not make the mean."""
FEWEST_OF_NULL = 2
"""Documents that a null head's share needs: it is an estimate without an interval."""


@dataclass(frozen=True)
class ExplainedShare:
    """One share explained.

    Attributes:
        d_replaced, d_ablated: mean effect per position, nats.
        explained, lo, hi: the share and its 95 % interval; None where refused.
        n: positions.
        n_documents: documents that they are of.
        refused: why there is no share.
    """

    d_replaced: float
    d_ablated: float
    explained: float | None
    lo: float | None
    hi: float | None
    n: int
    n_documents: int
    refused: str = ""


def share(
    replaced: Float[np.ndarray, " position"],
    ablated: Float[np.ndarray, " position"],
    documents: Int[np.ndarray, " position"],
    measure: str,
    seed: int = 0,
    thresholds: Thresholds = DEFAULT,
    domains: Int[np.ndarray, " position"] | None = None,
) -> ExplainedShare:
    """The share of some positions' effects that a rule explains.

    Args:
        measure: one of MEASURES.
        thresholds: what decides whether it is refused.
        domains: number of the domain of each position; one domain by default.
    """
    n = len(ablated)
    if not n:
        return ExplainedShare(0.0, 0.0, None, None, None, 0, 0, "no positions")
    sums = document_sums(np.stack([replaced, ablated, np.ones(n)], -1), documents)
    d_replaced, d_ablated = (sums[:, :2].sum(0) / n).tolist()
    domain = np.zeros(len(sums), int) if domains is None else domains[np.unique(documents, return_index=True)[1]]
    why = _refusal(sums, domain, measure, thresholds)
    if why:
        return ExplainedShare(d_replaced, d_ablated, None, None, None, n, len(sums), why)
    lo, hi = percentile_interval(1 - quotient(*bootstrap_means(sums[:, :2].T, seed)))
    return ExplainedShare(d_replaced, d_ablated, 1 - d_replaced / d_ablated, float(lo), float(hi), n, len(sums))


def document_sums(
    values: Float[np.ndarray, "position column"], documents: Int[np.ndarray, " position"]
) -> Float[np.ndarray, "document column"]:
    """Sums over the positions of each document."""
    _, row = np.unique(documents, return_inverse=True)
    total = np.zeros((int(row.max()) + 1, values.shape[1]))
    np.add.at(total, row, values)
    return total


def _refusal(
    sums: Float[np.ndarray, "document 3"], domain: Int[np.ndarray, " document"], measure: str, thresholds: Thresholds
) -> str:
    if len(sums) < thresholds.fewest:
        return f"{len(sums)} documents, at least {thresholds.fewest} are needed"
    d_ablated = sums[:, 1].sum() / sums[:, 2].sum()
    least = (thresholds.least_ablation_kl, thresholds.least_ablation_loss, thresholds.least_ablation_change)
    moves = f"mean ablation moves the answer by {d_ablated:.1e}"
    if d_ablated < dict(zip(MEASURES, least, strict=True))[measure]:
        return f"{moves} nats a position: too little to divide by"
    error = ratio_error(sums[:, 1], sums[:, 2], domain)
    if error is None:
        return f"{moves} nats a position, in one document alone"
    if d_ablated < thresholds.clear_of_zero * error.se:
        return f"{moves} ± {error.se:.0e} nats a position: not clear of 0"
    return ""


def bins(importance: Float[np.ndarray, " position"]) -> list[tuple[float, float, Int[np.ndarray, " member"]]]:
    """All positions, then those between each two of EDGES by rank of importance, split exactly.

    Positions that tie (a component that writes nothing there) come in an order drawn once, which says nothing of the
    text.
    """
    n = len(importance)
    order = np.lexsort((np.random.default_rng(0).permutation(n), importance))
    ends = [round(n * edge / 100) for edge in EDGES]
    parts = [(lo, hi, order[a:b]) for lo, hi, a, b in zip(EDGES, EDGES[1:], ends, ends[1:], strict=False)]
    return [(0.0, 100.0, order), *parts]


def null_of(value: float | None, null_values: Sequence[float | None]) -> tuple[Null, int]:
    """The null of a share from those of other heads, each counted as WORST at least, and how many have one.

    p counts the share among them, and is 1 / (1 + n) at least.
    """
    known = np.maximum(WORST, [other for other in null_values if other is not None])
    if not len(known):
        return NO_NULL, 0
    p = None if value is None else random_set_p(value, known)
    return Null(float(known.mean()), float(np.quantile(known, 0.95)), p), len(known)


def growth(
    first: Float[np.ndarray, " position"],
    second: Float[np.ndarray, " position"],
    documents: Int[np.ndarray, " position"],
) -> tuple[float, float, float]:
    """sum(first) / sum(second) with its 95 % interval over documents; (NaN, 0, inf) where the second sum is 0."""
    sums = document_sums(np.stack([first, second], -1), documents)
    total = sums.sum(0)
    if not total[1] > 0:
        return float("nan"), 0.0, float("inf")
    lo, hi = percentile_interval(quotient(*bootstrap_means(sums.T)))
    return float(total[0] / total[1]), float(lo), float(hi)
