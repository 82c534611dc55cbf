"""A weighted share of positions with an interval clustered by document. No torch.

Why: positions of one document are not independent. The runs' documents are hashed into replicate groups of their
  domains;
the interval is profiler.statistics.share_interval, with Kish's effective number of documents. Cost: one pass over the rows.
"""

import math
from dataclasses import dataclass

import polars as pl

from profiler.statistics import share_interval


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
        rows: with doc_id, domain, group_id and n_documents, the documents of the group.
        wrong, counted: true or false for each row; wrong rows are counted ones too.
        weight: of each row, at least 0.
    """
    w = weight * counted.cast(pl.Float64)
    marked = rows.select("doc_id", "group_id", w=w, h=w * wrong.cast(pl.Float64), counted=counted)
    documents = marked.filter(pl.col("counted")).group_by("doc_id").agg(pl.col("w", "h").sum())
    total = documents["w"].sum()
    if not total:
        return Rate(math.nan, None, None, documents.height)
    value = documents["h"].sum() / total
    effective = total**2 / (documents["w"] ** 2).sum()
    groups = (
        pl.concat([marked, rows.select("domain", "n_documents")], how="horizontal")
        .group_by("group_id")
        .agg(pl.col("w", "h").sum(), pl.col("domain", "n_documents").first())
    )
    domain = groups["domain"].rank("dense").cast(pl.Int64).to_numpy()
    sums = (groups[name].cast(pl.Float64).to_numpy() for name in ("w", "h"))
    lo, hi = share_interval(value, *sums, effective, domain, groups["n_documents"].cast(pl.Float64).to_numpy())
    return Rate(value, lo, hi, documents.height)
