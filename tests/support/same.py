"""Whether two runs are the same: every table row for row, floats to the bit or within a bound on sums."""

import re
from pathlib import Path

import duckdb
import numpy as np
import polars as pl

NOT_REPEATED = ["created", "seconds", "tokens_per_second", "peak_memory_bytes", "versions"]
ROUNDED, FLOAT = ("sum_activation", "sum_dla", "sum_abs_dla"), 4 * 2.0**-24
"""Sums that a run keeps as FLOAT, and the bound on what rounding each of a few parts makes of them."""
OF_ROUNDED = ("d_abs", "sum_abs_dla")
"""Sums in float64 that are made from these."""
OF_DICTIONARIES = ("error_squares", "whole_squares", "active_units", "loss", "spliced", "ablated")
"""Sums over positions of a dictionary's table and of its sampled windows."""
SIZES = {
    "sum_activation": 1.0,
    "sum_dla": "sum_abs_dla",
    "a_mean": "a_abs",
    "d_mean": "d_abs",
    "recorded_logit_sum": "squared_logit_sum",
}


def tables(path: Path) -> dict[str, pl.DataFrame]:
    """Every table of a run, without what no two runs share."""
    with duckdb.connect(str(path), read_only=True) as connection:
        names = [name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        frames = {name: pl.from_arrow(connection.sql(f"FROM {name}").to_arrow_table()) for name in names}
    frames["runs"] = frames["runs"].drop(NOT_REPEATED)
    if (
        coverages := frames.get("layer_coverages")
    ) is not None:  # behaviours that were added later stand after the others
        frames["layer_coverages"] = coverages.sort("component_id", "behaviour_id")
    return frames


def differing_tables(one: Path, other: Path, relative: float = 0.0) -> tuple[int, list[str]]:
    """How many tables there are, and which are not the same, each with its first columns that differ.

    Args:
        relative: bound on the difference of float64 columns that are sums, relative to the sum of sizes; everything
          else
            (counts, ids, samples, extremes, rows) must be the same to the bit, but for attention summaries and logit
            effects, which may be rounded otherwise in float32 (they are computed for all dense positions of a batch
            together, and at a mean that is a sum), and residuals, which are rounding errors themselves.
    """
    first, second = tables(one), tables(other)
    found = [f"{name}: only in one" for name in sorted(first.keys() ^ second.keys())]
    for name in sorted(first.keys() & second.keys()):
        a, b = first[name], second[name]
        if a.shape != b.shape or a.columns != b.columns:
            found.append(f"{name}: {a.shape} and {b.shape}")
            continue
        columns = [c for c in a.columns if not same(a, b, c, relative)]
        found += [f"{name}: {', '.join(columns)}"] if columns else []
    return len(first), found


def same(a: pl.DataFrame, b: pl.DataFrame, column: str, relative: float) -> bool:
    """Whether a column of two tables is the same."""
    if a[column].equals(b[column], null_equal=True):
        return True
    if relative and a[column].dtype == pl.List(pl.Float64):  # sums of each block
        x, y = (table[column].explode().fill_null(0).to_numpy() for table in (a, b))
        return len(x) == len(y) and bool(np.allclose(x, y, rtol=relative, atol=0))
    if not relative or a[column].dtype not in (pl.Float64, pl.Float32) or not _nulls_are_same(a, b, column):
        return False
    a, b = (table.filter(pl.col(column).is_not_null()) for table in (a, b))
    x, y = a[column].to_numpy().astype(np.float64), b[column].to_numpy().astype(np.float64)
    if column in ROUNDED and a[column].dtype == pl.Float32:  # each of the sums that were added was rounded
        size = a["sum_abs_dla"].to_numpy() if column != "sum_activation" else largest_of_component(a)
        return bool((np.abs(x - y) <= FLOAT * size).all())
    if a[column].dtype == pl.Float32:
        summary = "top_weight" in a.columns
        return (summary or column == "effect") and bool(np.allclose(x, y, rtol=1e-5, atol=2e-6 if summary else 0))
    if column.endswith("residual"):
        return bool((np.abs(x - y) <= 0.5 * np.maximum(x, y) + 1e-12).all())
    if re.fullmatch("[ad]_m[234]", column):
        return bool((np.abs(x - y) <= relative * size_of_moment(a, column)).all())
    if column in OF_ROUNDED:
        relative = max(relative, FLOAT)
    size = SIZES.get(column, column)
    bound = np.maximum(np.abs(x), 1.0) if size == 1.0 else size_of(a, size)
    sizes = ("sum_abs_dla", "a_abs", "d_abs", "norm_scale_sum", "squared_logit_sum", *OF_DICTIONARIES)
    return column in {*SIZES, *sizes} and bool((np.abs(x - y) <= relative * bound).all())


def _nulls_are_same(a: pl.DataFrame, b: pl.DataFrame, column: str) -> bool:
    return (a.height == b.height) and a[column].is_null().equals(b[column].is_null())


def largest_of_component(a: pl.DataFrame) -> np.ndarray:
    """The largest sum of activations of each row's component, at least 1: sums of a cell cancel, and each part of them
    was rounded at its own size."""
    largest = a.select(pl.col("sum_activation").abs().max().over("component_id"))["sum_activation"]
    return np.maximum(largest.to_numpy(), 1.0)


def size_of_moment(a: pl.DataFrame, column: str) -> np.ndarray:
    """n times a power of the values' spread, and of a little of their size: the means that are joined are rounded,
    too."""
    n, size, fourth = (a[name].to_numpy() for name in ("n", f"{column[0]}_abs", f"{column[0]}_m4"))
    return n * ((fourth.clip(0) / n) ** 0.25 + 1e-4 * size / n) ** int(column[-1])


def size_of(a: pl.DataFrame, columns: str) -> np.ndarray:
    """The sum of sizes that a sum is held against."""
    sizes = [np.abs(a[column].to_numpy()) for column in columns.split()]
    return np.prod(sizes, axis=0) ** (1 / len(sizes))
