"""Shares explained from effects position by position: bins by importance, intervals over documents, refused ratios.

    explained = 1 - D_replaced / D_mean-ablated

with D the mean over positions of KL (nats), of the change of loss (nats, signed: net), or of its absolute value. 1: the
rule does all that matters of what the component does; 0: it does no better than the component's mean; below 0: it does
harm.
McDougall et al. 2023 found 77 % in KL, 82 % in net loss and 45 % in |change of loss| for one head and one rule, so all
three are given.

A ratio is refused where its denominator is nothing to divide by: mean ablation moves the answer by less than SMALL nats
a position, or by less than SURE standard errors. Intervals: percentile bootstrap, documents resampled, numerator and
denominator together. Cost: draws x documents.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from profiler import statistics
from profiler.generality.evidence.finding import FEWEST
from profiler.statistics import bootstrap_means, percentile_interval, quotient, random_set_p

EDGES = (0.0, 50.0, 75.0, 90.0, 95.0, 99.0, 100.0)
"""Percentiles of |DLA| that bins lie between; rows of all positions come first."""
SMALL = {"KL": 1e-5, "net loss": 1e-5, "|change of loss|": 1e-4}
SURE = 3.0
WORST = -1.0
"""Shares of null heads below this count as this: a rule can do any amount of harm, and the mean should not be one head's."""


@dataclass(frozen=True)
class Share:
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
    fewest: int = FEWEST,
) -> Share:
    """The share of some positions' effects that a rule explains.

    Args:
        fewest: documents below which it is refused.
    """
    n = len(ablated)
    if not n:
        return Share(0.0, 0.0, None, None, None, 0, 0, "no positions")
    sums = document_sums(np.stack([replaced, ablated, np.ones(n)], -1), documents)
    d_replaced, d_ablated = (sums[:, :2].sum(0) / n).tolist()
    why = _refusal(sums, d_ablated, measure, fewest)
    if why:
        return Share(d_replaced, d_ablated, None, None, None, n, len(sums), why)
    lo, hi = percentile_interval(1 - quotient(*bootstrap_means(sums[:, :2].T, seed)))
    return Share(d_replaced, d_ablated, 1 - d_replaced / d_ablated, float(lo), float(hi), n, len(sums))


def document_sums(
    values: Float[np.ndarray, "position column"], documents: Int[np.ndarray, " position"]
) -> Float[np.ndarray, "document column"]:
    """Sums over the positions of each document."""
    _, row = np.unique(documents, return_inverse=True)
    total = np.zeros((int(row.max()) + 1, values.shape[1]))
    np.add.at(total, row, values)
    return total


def _refusal(sums: Float[np.ndarray, "document 3"], d_ablated: float, measure: str, fewest: int) -> str:
    if len(sums) < fewest:
        return f"{len(sums)} documents, at least {fewest} are needed"
    error = error_over_documents(sums[:, 1], sums[:, 2])
    if d_ablated < SMALL[measure]:
        return f"mean ablation moves the answer by {d_ablated:.1e} nats a position: too little to divide by"
    if d_ablated < SURE * error:
        return f"mean ablation moves the answer by {d_ablated:.1e} ± {error:.0e} nats a position: not clear of 0"
    return ""


def error_over_documents(above: Float[np.ndarray, " document"], below: Float[np.ndarray, " document"]) -> float:
    """Standard error of sum(above) / sum(below), jackknife over documents; infinite where one document holds all."""
    error = statistics.ratio_error(above, below, np.zeros(len(above), int))
    return math.inf if error is None else error.se


def bins(importance: Float[np.ndarray, " position"]) -> list[tuple[float, float, Int[np.ndarray, " member"]]]:
    """All positions, then those between each two of EDGES by rank of importance, split exactly.

    Positions that tie (a component that writes nothing there) come in an order drawn once, which says nothing of the
    text.
    """
    n = len(importance)
    order = np.lexsort((np.random.default_rng(0).permutation(n), importance))
    places = [round(n * edge / 100) for edge in EDGES]
    parts = [(lo, hi, order[a:b]) for lo, hi, a, b in zip(EDGES, EDGES[1:], places, places[1:], strict=False)]
    return [(0.0, 100.0, order), *parts]


@dataclass(frozen=True)
class Null:
    """Shares that the same rule explains of other heads: mean (none counted below WORST), 95th percentile, p, how
    many."""

    mean: float | None
    hi: float | None
    p: float | None
    n: int


def null_of(value: float | None, others: Sequence[float | None]) -> Null:
    """The null of a share from those of other heads; p counts the share among them, and is 1 / (1 + n) at least."""
    known = np.maximum(WORST, [other for other in others if other is not None])
    if not len(known):
        return Null(None, None, None, 0)
    p = None if value is None else random_set_p(value, known)
    return Null(float(known.mean()), float(np.quantile(known, 0.95)), p, len(known))


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
