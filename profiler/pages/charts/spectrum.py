"""From the frames of the spectrum queries to the rectangles that are drawn: folding, ranking, stacking. Draws nothing.

The bins are log-linear: each is a fixed share of its lower edge wide, so there are as many bins between 0.001 and 0.002
as between 1 and 2. A symlog axis shows them nearly equally wide down to a floor; the bins below it are folded into one
around zero. The floor is the largest power of two, at least 2^-10 of the largest value, below which at most 2 % of the
positions lie.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import polars as pl

from profiler.pages.charts.theme import REST

FOLDED_SHARE = 0.02
OCTAVES = range(5, 11)
SHOWN_CLASSES = 7
TICK_STEPS: dict[float, tuple[int, ...]] = {2: (1, 2, 5), 4: (1, 3), math.inf: (1,)}
"""Multiples of a power of ten that have a tick, by the most powers of ten that an axis may reach over for them."""
FEWEST_TICKS = 3
SUMS = ("n", "p", "expected_value", "sum_dla", "sum_abs_dla", "importance_share", "within_class")


def number_of(value: Any) -> float:
    """A number that polars computed, such as a minimum; 0 for none."""
    return 0.0 if value is None else float(value)


def ends_of(values: pl.Series) -> tuple[float, float]:
    """The least and the largest value; 0 and 0 of none."""
    return number_of(values.min()), number_of(values.max())


def finite_edges(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with the infinite edges of the overflow bins replaced by twice their finite edge."""
    lo, hi = pl.col("lo"), pl.col("hi")
    return frame.with_columns(
        pl.when(lo.is_infinite()).then(2 * hi).otherwise(lo).alias("lo"),
        pl.when(hi.is_infinite()).then(2 * lo).otherwise(hi).alias("hi"),
    )


def floor_of(frame: pl.DataFrame) -> float:
    """The value below which bins are folded into one (see above); 1 for a frame without positions."""
    edges = finite_edges(frame).filter(pl.col("n") > 0)
    if edges.is_empty():
        return 1.0
    reach = max(abs(number_of(edges["lo"].min())), abs(number_of(edges["hi"].max())))
    candidates = [2.0 ** math.floor(math.log2(reach) - octaves) for octaves in OCTAVES]
    n = number_of(edges["n"].sum())
    small = {floor: number_of(edges.filter(_inside(floor))["n"].sum()) / n for floor in candidates}
    return next((floor for floor in candidates if small[floor] <= FOLDED_SHARE), candidates[-1])


def _inside(floor: float) -> pl.Expr:
    return (pl.col("lo") >= -floor) & (pl.col("hi") <= floor)


def fold(frame: pl.DataFrame, floor: float, by: Sequence[str] = ()) -> pl.DataFrame:
    """Bins inside ±floor added up into one, per value of `by`; counts and sums add, everything else is dropped.

    The folded bin reaches to the floor on the sides where there are positions: a component that is never negative gets
    a bin from 0.
    """
    edges = finite_edges(frame).filter(pl.col("n") > 0)
    low = -floor if number_of(edges["lo"].min()) < 0 else 0.0
    high = floor if number_of(edges["hi"].max()) > 0 else 0.0
    inside = _inside(floor)
    folded = edges.with_columns(
        pl.when(inside).then(low).otherwise(pl.col("lo")).alias("lo"),
        pl.when(inside).then(high).otherwise(pl.col("hi")).alias("hi"),
    )
    sums = [pl.col(name).sum() for name in SUMS if name in frame.columns]
    return folded.group_by("lo", "hi", *by).agg(sums).sort("lo", *by)


def thinned(samples: pl.DataFrame, floor: float) -> pl.DataFrame:
    """The query spectrum_samples with one row a stratum inside ±floor, where strata are drawn as one bin, and all
    outside.

    Part of a simple random sample is a simple random sample: a row that stays also stands for the dropped rows.
    """
    inside = (pl.col("stratum_lo") >= -floor) & (pl.col("stratum_hi") <= floor)
    keys = [hashlib.md5(str(position).encode()).hexdigest() for position in samples["position_id"]]
    keyed = samples.with_columns(pl.Series("key", keys, dtype=pl.String))
    rank = pl.col("key").rank("ordinal").over("stratum")
    total = pl.col("weight").sum().over("stratum")
    weight = pl.when(inside).then(total).otherwise(pl.col("weight"))
    return keyed.with_columns(weight.alias("weight")).filter(~inside | (rank == 1)).drop("key")


def shown_classes(frame: pl.DataFrame, weight: str = "sum_abs_dla") -> list[str]:
    """The classes that get a colour of their own: those with the most `weight`, largest first."""
    totals = frame.group_by("class").agg(pl.col(weight).sum()).sort([weight, "class"], descending=[True, False])
    return totals["class"].head(SHOWN_CLASSES).to_list()


def merge_rest(frame: pl.DataFrame, shown: Sequence[str]) -> pl.DataFrame:
    """The classes that are not shown as one class."""
    return frame.with_columns(
        pl.when(pl.col("class").is_in(list(shown))).then(pl.col("class")).otherwise(pl.lit(REST)).alias("class")
    )


def stacked(frame: pl.DataFrame, value: str, order: Sequence[str]) -> pl.DataFrame:
    """The frame with `start` and `end`: `value` stacked in each bin, classes in this order from the axis outwards."""
    rank = {name: number for number, name in enumerate(order)}
    ordered = frame.with_columns(pl.col("class").replace_strict(rank, return_dtype=pl.Int64).alias("order"))
    end = pl.col(value).cum_sum().over("lo")
    return ordered.sort("lo", "order").with_columns(end.alias("end"), (end - pl.col(value)).alias("start"))


def class_bins(frame: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """spectrum_by_class folded and merged, with `class_share` recomputed; and the order of the classes.

    Columns: lo, hi, class, n, expected_value, sum_dla, sum_abs_dla, importance_share, class_share (n / n of the bin).
    """
    shown = shown_classes(frame)
    bins = fold(merge_rest(frame, shown), floor_of(frame), ["class"])
    order = shown + [REST] * (REST in bins["class"].to_list())
    return bins.with_columns((pl.col("n") / pl.col("n").sum().over("lo")).alias("class_share")), order


def quantile_marks(density: pl.DataFrame, levels: Sequence[float]) -> pl.DataFrame:
    """The middle of the bin that holds each level, from the cumulative share; where the frame has a column `middle`
    (query density, never beyond the values seen) it is that. Columns: quantile, label, activation, and row: 0 or 1,
    alternating, so that neighbouring labels do not collide.
    """
    filled = finite_edges(density).filter(pl.col("n") > 0).sort("lo")
    rows: list[dict[str, Any]] = []
    for level in levels if not filled.is_empty() else ():
        bin_of = filled.filter(pl.col("cumulative") >= level * (1 - 1e-12)).head(1)
        row = (bin_of if not bin_of.is_empty() else filled.tail(1)).row(0, named=True)
        middle = row.get("middle", (row["lo"] + row["hi"]) / 2)
        rows.append({"quantile": level, "label": f"{100 * level:g} %", "activation": middle, "row": len(rows) % 2})
    schema = {"quantile": pl.Float64, "label": pl.String, "activation": pl.Float64, "row": pl.Int64}
    return pl.DataFrame(rows, schema=schema)


def ticks(low: float, high: float, floor: float) -> list[float]:
    """Tick values of a symlog axis: zero and powers of ten, with their doubles and fives where there is room."""
    reach = max(abs(low), abs(high))
    exponents = range(math.floor(math.log10(floor)), math.ceil(math.log10(reach)) + 1)
    steps = next(steps for most, steps in TICK_STEPS.items() if len(exponents) <= most)
    sizes = [step * 10.0**exponent for exponent in exponents for step in steps]
    values = [0.0, *(size for size in sizes if size >= floor), *(-size for size in sizes if size >= floor)]
    inside = {value for value in values if low <= value <= high}
    return sorted(inside if len(inside) >= FEWEST_TICKS else inside | {low, (low + high) / 2, high})


def decades(low: float, high: float) -> list[float]:
    """Powers of ten from `low` to `high`; with their doubles and fives where there are fewer than three."""
    powers = [10.0**e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    inside = [power for power in powers if low <= power <= high]
    finer = [step * power for power in powers for step in (1, 2, 5) if low <= step * power <= high]
    return inside if len(inside) >= FEWEST_TICKS else finer


def folded_share(frame: pl.DataFrame, floor: float) -> float:
    """Share of the positions in the bins that are folded into one."""
    return number_of(frame.filter(_inside(floor))["n"].sum()) / max(1.0, number_of(frame["n"].sum()))


def merged_marks(marks: pl.DataFrame, floor: float, nearest: float = 0.02) -> pl.DataFrame:
    """Marks, merged where they would be drawn on each other; `nearest` is a share of the axis, a label lists all."""
    at = [math.copysign(math.log1p(abs(value) / floor), value) for value in marks["activation"]]
    width = max(at, default=0.0) - min(0.0, min(at, default=0.0)) or 1.0
    groups: list[list[int]] = []
    for i, x in enumerate(at):
        if groups and abs(x - at[groups[-1][0]]) < nearest * width:
            groups[-1].append(i)
        else:
            groups.append([i])
    rows = [marks.row(group[0], named=True) | {"label": _joined(marks["quantile"], group)} for group in groups]
    return pl.DataFrame([row | {"row": i % 2} for i, row in enumerate(rows)], schema=marks.schema)


def _joined(levels: pl.Series, group: list[int]) -> str:
    return ", ".join(f"{100 * levels[i]:g}" for i in group) + " %"
