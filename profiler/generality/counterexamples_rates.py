"""A weighted share of positions with an interval clustered by document. No torch.

Why: positions of one document are not independent. The runs' documents are hashed into replicate groups; leaving out one
group at a time gives the standard error (delete-a-group jackknife: Wolter, Introduction to Variance Estimation, chapter
4), and the interval is taken on the logit scale, as in the run's own SQL (macros share_lo and share_hi of views.sql): for
a share of 0 or 1 the rule of three with Kish's effective number of documents. Cost: one pass over the rows.
"""

import math
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import stats

NEVER = 1e-12


@dataclass(frozen=True)
class Rate:
    """A share, its 95 % interval (None where it cannot be told), and how many documents hold a position that counts."""

    value: float
    lo: float | None
    hi: float | None
    n: int


def rate(rows: pl.DataFrame, wrong: pl.Expr, counted: pl.Expr, weight: pl.Expr) -> Rate:
    """Share of the weight of `counted` rows that is on `wrong` ones.

    Args:
        rows: with doc_id and group_id.
        wrong, counted: true or false for each row; wrong rows are counted ones too.
        weight: of each row, at least 0.
    """
    w = weight * counted.cast(pl.Float64)
    marked = rows.select("doc_id", "group_id", w=w, h=w * wrong.cast(pl.Float64), counted=counted)
    marked = marked.filter(pl.col("counted"))
    documents = marked.group_by("doc_id").agg(pl.col("group_id").first(), pl.col("w", "h").sum())
    total = documents["w"].sum()
    if not total:
        return Rate(math.nan, None, None, documents.height)
    value = documents["h"].sum() / total
    effective = total**2 / (documents["w"] ** 2).sum()
    groups = documents.group_by("group_id").agg(pl.col("w", "h").sum())
    lo, hi = interval(value, groups["w"].to_numpy(), groups["h"].to_numpy(), rows["group_id"].n_unique(), effective)
    return Rate(value, lo, hi, documents.height)


def interval(
    value: float, weight: np.ndarray, held: np.ndarray, groups: int, documents: float
) -> tuple[float | None, float | None]:
    """95 % interval of a share from its sums per group.

    Args:
        weight, held: sums of each group that holds a row, of all and of the part counted.
        groups: replicate groups in all; those without a row change nothing when left out.
        documents: effective number of documents.
    """
    rest = weight.sum() - weight
    if groups < 2 or (rest <= 0).any():
        return None, None
    if value < NEVER:
        return 0.0, min(1.0, 3 / documents)
    if value > 1 - NEVER:
        return max(0.0, 1 - 3 / documents), 1.0
    left_out = (held.sum() - held) / rest
    se = math.sqrt((groups - 1) / groups * float(((left_out - value) ** 2).sum()))
    half = float(stats.t.ppf(0.975, groups - 1)) * se / (value * (1 - value))
    centre = math.log(value / (1 - value))
    return tuple(1 / (1 + math.exp(-(centre + side * half))) for side in (-1, 1))  # type: ignore[return-value]
