"""The tables of a pass of total effects, from its sums. Intervals: delete-a-group jackknife over documents in fixed
domains (profiler.statistics). Cost: a few seconds for a hundred thousand units."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from jaxtyping import Float

from profiler.effects.final_norm import Shift
from profiler.effects.sums import FIELDS, Counts, EffectSums, units_of
from profiler.model.components import Block, ComponentId, ModelSpec
from profiler.statistics import bootstrap_ratio, mean_halves

MEANS = {
    "total": "total",
    "importance": "abs_total",
    "direct": "direct",
    "direct_importance": "abs_direct",
    "through_importance": "abs_through",
    "loss": "loss",
    "loss_importance": "abs_loss",
}
"""Columns of `effect_totals`, and the field that each is the mean of."""


def totals(sums: EffectSums, groups_per_domain: int) -> pl.DataFrame:
    """Table `effect_totals`: a row per unit, method and reference."""
    frames = [_totals(sums, method, reference, groups_per_domain) for method, reference in sums.pairs()]
    return pl.concat(frames)


def _totals(sums: EffectSums, method: str, reference: str, groups_per_domain: int) -> pl.DataFrame:
    counts, spec = sums.counts[method], sums.spec
    groups = sorted(counts.positions)
    measured = measured_units(sums, method)
    none = np.zeros((units_of(spec), len(FIELDS)))
    by_group = np.stack([sums.values.get((method, reference, group), none)[measured] for group in groups])
    n, domain, size = shape_of(counts, groups_per_domain)
    columns: dict[str, object] = {"component_id": measured, "method": method, "reference": reference}
    for column, field in MEANS.items():
        values = by_group[:, :, FIELDS.index(field)]
        half = mean_halves(values, n, domain, size)
        mean = values.sum(0) / n.sum()
        low = mean - half
        columns |= {column: mean, f"{column}_lo": low if column in SIGNED else np.maximum(0, low)}
        columns |= {f"{column}_hi": mean + half}
    special = sum(counts.special.values())
    columns["special_importance"] = by_group[:, :, FIELDS.index("special")].sum(0) / special if special else np.nan
    frame = pl.DataFrame(columns, schema_overrides={"component_id": pl.Int32})
    return frame.with_columns(pl.col(pl.Float64).fill_nan(None))


def group_sums(sums: EffectSums) -> pl.DataFrame:
    """Table `total_sums` by every method: a row per unit and replicate group, against zero."""
    columns = {"sum_total": "total", "sum_abs_total": "abs_total", "sum_abs_direct": "abs_direct"}
    columns["sum_abs_through"] = "abs_through"
    frames = []
    for (method, reference, group), values in sums.values.items():
        if reference != "zero":
            continue
        measured = measured_units(sums, method)
        own = {name: values[measured, FIELDS.index(field)] for name, field in columns.items()}
        n = sums.counts[method].positions[group]
        ids = {"component_id": measured.astype(np.int32), "group_id": group, "n": n, "method": method}
        frames.append(pl.DataFrame(ids | own))
    return pl.concat(frames)


SIGNED = ("total", "direct", "loss")
"""Means that may be below 0."""


def measured_units(sums: EffectSums, method: str) -> np.ndarray:
    """Ids of the units that a method has sums of."""
    ids = [
        np.arange(units.start, units.stop)
        for block, units in sums.spec.slices.items()
        if not block.is_routed and (method != "integrated" or block.kind == "head")
    ]
    return np.concatenate(ids) if ids else np.zeros(0, int)


def shape_of(
    counts: Counts, groups_per_domain: int
) -> tuple[Float[np.ndarray, " group"], np.ndarray, Float[np.ndarray, " group"]]:
    """Positions, domain and documents of each replicate group, by its number."""
    groups = sorted(counts.positions)
    group_of_documents = list(counts.documents.values())
    n, size = (
        [float(x) for x in values] for values in (counts.positions.values(), map(group_of_documents.count, groups))
    )
    n = [float(counts.positions[group]) for group in groups]
    return np.array(n), np.array([group // groups_per_domain for group in groups]), np.array(size)


def norms(
    spec: ModelSpec, sums: dict[int, Float[np.ndarray, "unit field"]], counts: Counts, groups_per_domain: int
) -> pl.DataFrame:
    """Table `effect_norms`, without entropy and margin: a row per unit.

    Args:
        sums: by replicate group, of each unit the sum of the change and of its size.
    """
    groups = sorted(counts.positions)
    n, domain, size = shape_of(counts, groups_per_domain)
    by_group = np.stack([sums[group] for group in groups])
    columns: dict[str, object] = {"component_id": np.arange(units_of(spec))}
    for field, column in enumerate(("scale", "scale_size")):
        values = by_group[:, :, field]
        half, mean = mean_halves(values, n, domain, size), values.sum(0) / n.sum()
        columns |= {column: mean, f"{column}_lo": mean - half, f"{column}_hi": mean + half}
    frame = pl.DataFrame(columns, schema_overrides={"component_id": pl.Int32})
    return frame.with_columns(pl.col(pl.Float64).fill_nan(None))


def shifts(spec: ModelSpec, units: Sequence[tuple[Block, int]], measured: Sequence[Shift]) -> pl.DataFrame:
    """Columns of `effect_norms` on entropy and margin, of the units that they were measured of."""
    rows = []
    for (block, unit), shift in zip(units, measured, strict=True):
        own: dict[str, object] = {"component_id": spec.slices[block].start + unit, "n_shift": len(shift.entropy)}
        for name, values in (("entropy", shift.entropy), ("margin", shift.margin)):
            low, high = _over_documents(values, shift.documents)
            own |= {name: float(values.mean()), f"{name}_lo": low, f"{name}_hi": high}
        rows.append(own)
    names = ("entropy", "entropy_lo", "entropy_hi", "margin", "margin_lo", "margin_hi")
    schema = {"component_id": pl.Int32, "n_shift": pl.Int64} | dict.fromkeys(names, pl.Float64)
    return pl.DataFrame(rows, schema=schema)


def _over_documents(
    values: Float[np.ndarray, " position"], documents: tuple[int, ...]
) -> tuple[float | None, float | None]:
    """95 % interval of a mean over positions, documents resampled; None of a single document."""
    distinct = list(dict.fromkeys(documents))
    if len(distinct) == 1:
        return None, None
    numbers = np.array([distinct.index(document) for document in documents])
    above, below = (np.bincount(numbers, weights) for weights in (values, np.ones(len(values))))
    low, high = bootstrap_ratio(above, below)
    return float(low), float(high)


def label(block: Block, unit: int) -> str:
    """The label of a unit."""
    return ComponentId(block.kind, block.layer, unit, block.group).label
