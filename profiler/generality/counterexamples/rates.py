"""A weighted share of positions with an interval clustered by document. No torch.

Why: positions of one document are not independent. The runs' documents are hashed into replicate groups of their
domains; the standard error is that of profiler.statistics, and the interval is taken on the logit scale, as in the
run's own SQL (macros share_lo and share_hi of macros.sql): for a share of 0 or 1 it ends 3 / n from there (rule of
three), n being Kish's effective number of documents. Cost: one pass over the rows.
"""

import math

import polars as pl

from profiler.generality.evidence.finding import Interval
from profiler.statistics import share_interval


def rate(rows: pl.DataFrame, wrong: pl.Expr, counted: pl.Expr, weight: pl.Expr) -> Interval:
    """Share of the weight of `counted` rows that is on `wrong` ones, over documents with a counted row.

    The value is NaN, without an interval, where no row is counted.

    Args:
        rows: with doc_id, domain, group_id and n_documents, the documents of the group.
        wrong, counted: true or false for each row; wrong rows are counted ones too.
        weight: of each row, at least 0.
    """
    w = weight * counted.cast(pl.Float64)
    marked = rows.select("doc_id", "group_id", w=w, h=w * wrong.cast(pl.Float64), counted=counted)
    documents = marked.filter(pl.col("counted")).group_by("doc_id").agg(pl.col("w", "h").sum())
    total = float(documents["w"].sum())
    if not total:
        return Interval(math.nan, None, None, documents.height)
    value = float(documents["h"].sum()) / total
    effective = total**2 / float((documents["w"] ** 2).sum())
    groups = (
        pl.concat([marked, rows.select("domain", "n_documents")], how="horizontal")
        .group_by("group_id")
        .agg(pl.col("w", "h").sum(), pl.col("domain", "n_documents").first())
    )
    domain = groups["domain"].rank("dense").cast(pl.Int64).to_numpy()
    all_of, part, size = (groups[name].cast(pl.Float64).to_numpy() for name in ("w", "h", "n_documents"))
    lo, hi = share_interval(value, all_of, part, effective, domain, size)
    return Interval(value, lo, hi, documents.height)
