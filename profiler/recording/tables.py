"""Accumulators to frames: what the store writes, a block of components at a time.

Every function yields polars frames with the columns of its table in schema.sql, ordered by component, and leaves out
cells that no position fell in. Cost: one pass over each accumulator; a block of components is in memory at a time.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from profiler.config import QUANTILES
from profiler.model.attention import MEASURES
from profiler.model.components import ModelSpec
from profiler.model.described.attached import Described, has_fixed_way
from profiler.model.direct import Weights, at_unembed, logit_directions
from profiler.model.wiring import Directions
from profiler.recording.accumulators.bins import DENSITY, SPECTRUM, quantile_bins, resolved_levels
from profiler.recording.accumulators.cells import BUCKET_STARTS, EXTREMA, POWERS, CellSums, PowerSums
from profiler.recording.accumulators.dense import DenseRows
from profiler.recording.accumulators.fidelity import PUT, Fidelity
from profiler.recording.accumulators.smallest import Entries, Smallest
from profiler.recording.accumulators.spectrum import SpectrumCounts
from profiler.recording.accumulators.token_sums import TokenSums
from profiler.recording.recorder import EXTREME_KINDS
from profiler.recording.selection import Selection
from profiler.text.token_classes import CLASSES

BLOCK = 512
DICTIONARIES: dict[str, Any] = {
    "dictionary_id": pl.Int32,
    **dict.fromkeys(("units", "kind", "form", "reads", "writes"), pl.String),
    "n_units": pl.Int32,
    "names": pl.List(pl.String),
    **dict.fromkeys(("source", "digest"), pl.String),
    "n": pl.Int64,
    **dict.fromkeys(("error_squares", "whole_squares"), pl.Float64),
    "whole_sums": pl.List(pl.Float64),
    "active_units": pl.Float64,
}


def _blocks(n_components: int) -> Iterator[slice]:
    return _blocks_of(slice(0, n_components))


def _blocks_of(components: slice) -> Iterator[slice]:
    starts = range(components.start, components.stop, BLOCK)
    return (slice(start, min(start + BLOCK, components.stop)) for start in starts)


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy()


def _repeat(block: slice, times: int) -> np.ndarray:
    """Each component id of the block `times` times."""
    return np.repeat(np.arange(block.start, block.stop, dtype=np.int32), times)


def components(spec: ModelSpec, ids: np.ndarray | None = None) -> pl.DataFrame:
    """Table `components`; of all of the model, or of some ids."""
    presence = np.concatenate([np.full(ids.stop - ids.start, number) for number, ids in spec.presence_runs]).tolist()
    rows = [
        (i, c.label, c.kind, c.layer, c.group or None, c.unit, presence[i]) for i, c in enumerate(spec.components())
    ]
    frame = pl.DataFrame(
        rows,
        schema=["component_id", "component", "kind", "layer", "block_group", "unit", "presence"],
        orient="row",
        infer_schema_length=None,
    )
    return frame if ids is None else frame.filter(pl.col("component_id").is_in(pl.Series(ids).implode()))


def dictionaries(spec: ModelSpec, fidelity: Fidelity) -> pl.DataFrame:
    """Table `dictionaries`."""
    squares, sums = _numpy(fidelity.squares), _numpy(fidelity.sums)
    numbers = _numbers(spec)
    rows = []
    for number, facts in enumerate(spec.dictionaries):
        row: dict[str, Any] = {
            "dictionary_id": number,
            "units": facts.block.name,
            "kind": facts.block.kind,
            "form": facts.form,
            "reads": facts.reads,
            "writes": facts.writes,
            "n_units": facts.block.units,
            "names": list(facts.names),
            "source": facts.source,
            "digest": facts.digest,
        }
        if number in numbers:
            of = numbers[number]
            error, whole, active = squares[of].tolist()
            row |= {"n": int(fidelity.n), "error_squares": error, "whole_squares": whole, "active_units": active}
            row |= {"whole_sums": sums[of, : facts.width].tolist()}
        rows.append(row)
    return pl.DataFrame(rows, schema=DICTIONARIES)


def spliced_windows(spec: ModelSpec, fidelity: Fidelity) -> pl.DataFrame:
    """Table `spliced_windows`; dictionaries that reconstruct nothing have no row."""
    taken = fidelity.sampled()
    keys, counts, losses = (_numpy(table[taken]) for table in (fidelity.keys, fidelity.counts, fidelity.losses))
    frames = [
        pl.DataFrame(
            {
                "dictionary_id": np.full(len(keys), number, dtype=np.int32),
                "key": keys,
                "n": counts,
                "loss": losses[:, 0],
                "spliced": losses[:, 1 + len(PUT) * of],
                "ablated": losses[:, 2 + len(PUT) * of],
            }
        )
        for number, of in _numbers(spec).items()
    ]
    empty = {"dictionary_id": pl.Int32, "key": pl.Int64, "n": pl.Int64} | dict.fromkeys(
        ("loss", "spliced", "ablated"), pl.Float64
    )
    return pl.concat([pl.DataFrame(schema=empty), *frames]).with_columns(
        pl.col("loss", "spliced", "ablated").fill_nan(None)
    )


def _numbers(spec: ModelSpec) -> dict[int, int]:
    """Of each dictionary that reconstructs, its number among these."""
    rebuilding = [number for number, facts in enumerate(spec.dictionaries) if facts.rebuilds]
    return {number: of for of, number in enumerate(rebuilding)}


def classes() -> pl.DataFrame:
    """Table `classes`."""
    rows = [(i, c.name, c.description, c.special) for i, c in enumerate(CLASSES)]
    return pl.DataFrame(rows, schema=["class_id", "class", "description", "special"], orient="row")


def bins() -> pl.DataFrame:
    """Table `bins`, both resolutions."""
    frames = []
    for resolution in (SPECTRUM, DENSITY):
        edges = resolution.edges()
        frames.append(
            pl.DataFrame({"bin": np.arange(resolution.n_bins), "lo": edges[:-1], "hi": edges[1:]}).with_columns(
                resolution=pl.lit(resolution.name)
            )
        )
    return pl.concat(frames)


def position_buckets(n_buckets: int) -> pl.DataFrame:
    """Table `position_buckets`."""
    ends = [start - 1 for start in BUCKET_STARTS[1:]]
    rows = list(zip(range(n_buckets), BUCKET_STARTS, ends, strict=False))
    named = [(i, f"{lo}-{hi}" if hi > lo else f"{lo}", lo, hi) for i, lo, hi in rows]
    return pl.DataFrame(named, schema=["bucket_id", "bucket", "lo", "hi"], orient="row")


def _axis_of_cell(cells: CellSums) -> tuple[np.ndarray, np.ndarray]:
    """Axis name and value id of each cell."""
    slices = cells.axes.slices
    names = np.concatenate([np.full(s.stop - s.start, name, dtype=object) for name, s in slices.items()])
    values = np.concatenate([np.arange(s.stop - s.start, dtype=np.int32) for s in slices.values()])
    return names, values


def cell_counts(cells: CellSums) -> pl.DataFrame:
    """Table `cell_counts`."""
    names, values = _axis_of_cell(cells)
    counts = np.concatenate([_numpy(cells.counts)[None], _numpy(cells.present_counts)])
    presence, row, cell = np.nonzero(counts)
    return pl.DataFrame(
        {
            "presence": presence.astype(np.int32),
            "axis": names[cell],
            "value_id": values[cell],
            "group_id": row,
            "n": counts[presence, row, cell],
        }
    )


def cell_sums(cells: CellSums, chosen: Selection) -> Iterator[pl.DataFrame]:
    """Table `cell_sums`."""
    names, values = _axis_of_cell(cells)
    for presence, components in chosen.presence_runs:
        row, cell = np.nonzero(_numpy(cells.count_of(presence)))
        for block in _blocks_of(components):
            picked = _numpy(cells.sums[:, :, :, block])[:, row, cell].transpose(0, 2, 1)
            n = block.stop - block.start
            frame = {
                "component_id": _repeat(block, len(row)),
                "axis": np.tile(names[cell], n),
                "value_id": np.tile(values[cell], n),
                "group_id": np.tile(row, n),
            }
            yield pl.DataFrame(
                frame | dict(zip(("sum_activation", "sum_dla", "sum_abs_dla"), picked.reshape(3, -1), strict=True))
            )


def group_importance(cells: CellSums, chosen: Selection) -> pl.DataFrame:
    """Table `group_importance`; groups without a position have no row."""
    ordinary = torch.tensor([not token_class.special for token_class in CLASSES])
    of_class = cells.axes.slices["class"]
    sizes = cells.sums[2][:, of_class, : chosen.embeddings_and_biases.start].sum(-1).cpu()[:, ordinary].sum(1)
    groups = _numpy(cells.counts[:, of_class].sum(1)).nonzero()[0]
    return pl.DataFrame({"group_id": groups.astype(np.int32), "sum_abs_dla": _numpy(sizes)[groups]})


def power_sums(cells: CellSums, powers: PowerSums, chosen: Selection, groups_per_domain: int) -> Iterator[pl.DataFrame]:
    """Table `power_sums`; sums of |DLA| are the cell sums of a domain's replicate groups together."""
    of_class = cells.axes.slices["class"]
    sizes = cells.sums[2][:, of_class].unflatten(0, (-1, groups_per_domain)).sum(1)
    columns = dict(zip((*POWERS, *EXTREMA), (*powers.sums, *powers.extrema), strict=True)) | {"d_abs": sizes}
    del columns["n"]
    for presence, components in chosen.presence_runs:
        counts = _numpy(cells.count_of(presence)[:, of_class].unflatten(0, (-1, groups_per_domain)).sum(1))
        domain, token_class = np.nonzero(counts)
        for block in _blocks_of(components):
            n = block.stop - block.start
            frame = {
                "component_id": _repeat(block, len(domain)),
                "class_id": np.tile(token_class, n),
                "domain_id": np.tile(domain, n),
                "n": np.tile(counts[domain, token_class], n),
            }
            values = {
                name: _numpy(column[..., block])[domain, token_class].T.ravel().astype(np.float64)
                for name, column in columns.items()
            }
            yield pl.DataFrame(frame | values)


def spectrum_counts(spectrum: SpectrumCounts) -> Iterator[pl.DataFrame]:
    """Table `spectrum_counts`."""
    for filled, first in zip(spectrum.blocks, spectrum.firsts, strict=True):
        for block in _blocks(len(filled.lengths)):
            entries = filled.entries(block)
            token_class, number = np.divmod(_numpy(entries.cell).astype(np.int32), SPECTRUM.n_bins)
            yield pl.DataFrame(
                {
                    "component_id": _numpy(entries.component).astype(np.int32) + first,
                    "class_id": token_class,
                    "bin": number,
                    "n": _numpy(entries.counts),
                    "sum_dla": _numpy(entries.sums[0]),
                    "sum_abs_dla": _numpy(entries.sums[1]),
                }
            )


def density_counts(spectrum: SpectrumCounts) -> Iterator[pl.DataFrame]:
    """Table `density_counts`."""
    for block in _blocks(len(spectrum.density)):
        component, number = (_numpy(index).astype(np.int32) for index in spectrum.density[block].nonzero(as_tuple=True))
        yield pl.DataFrame(
            {
                "component_id": component + block.start,
                "bin": number,
                "n": _numpy(spectrum.density[block])[component, number],
            }
        )


def _ordinary_range(powers: PowerSums) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest activation of each component over ordinary positions."""
    ordinary = torch.tensor([not token_class.special for token_class in CLASSES], device=powers.extrema.device)
    low, high = (_numpy(t[:, ordinary].flatten(0, 1).double()) for t in powers.extrema[:2])
    return low.min(0, initial=np.inf), high.max(0, initial=-np.inf)


def quantiles(spectrum: SpectrumCounts, powers: PowerSums) -> Iterator[pl.DataFrame]:
    """Table `quantiles`: token-level quantiles of each component's activation.

    A value is the middle of the fine bin, never beyond the values seen; beside it the spectrum bin that holds it, and
    the level that bands begin at.
    """
    low, high = _ordinary_range(powers)
    for block in _blocks(len(spectrum.density)):
        density = spectrum.density[block].cpu()
        middles = DENSITY.middles()[_numpy(quantile_bins(density, QUANTILES))]
        coarse = _numpy(SPECTRUM.index(torch.from_numpy(middles)))
        level, reached = resolved_levels(density, QUANTILES, DENSITY)
        frame = pl.DataFrame(
            {
                "component_id": _repeat(block, len(QUANTILES)),
                "quantile": np.tile(QUANTILES, len(density)),
                "value": np.clip(middles, low[block, None], high[block, None]).ravel(),
                "bin": coarse.ravel(),
                "level": level.ravel(),
                "reached": reached.ravel(),
            }
        ).with_columns(pl.col("level", "reached").fill_nan(None))
        counted = _numpy(density.sum(1)) > 0
        yield frame.filter(pl.Series(np.repeat(counted, len(QUANTILES))))


def _entry_columns(entries: Entries) -> dict[str, np.ndarray]:
    values = {"activation": entries.activation, "dla": entries.dla}
    return {"position_id": _numpy(entries.positions)} | {k: _numpy(v).astype(np.float32) for k, v in values.items()}


def sample_rows(samples: Smallest) -> pl.DataFrame:
    """Table `sample_rows`, ordered by component, bin and key."""
    entries = samples.entries()
    component, number = np.divmod(_numpy(entries.cells), SPECTRUM.n_bins)
    return pl.DataFrame(
        {"component_id": component.astype(np.int32), "bin": number.astype(np.int32)} | _entry_columns(entries)
    )


def extreme_rows(extremes: Smallest) -> pl.DataFrame:
    """Table `extreme_rows`; rank counts from 1 in each cell.

    `key` is what entries are ordered by: the value, negated at the top.
    """
    entries = extremes.entries()
    cells = _numpy(entries.cells)
    component, kind = np.divmod(cells, len(EXTREME_KINDS))
    measure, side = np.array(EXTREME_KINDS, dtype=object).T
    first = np.searchsorted(cells, cells)
    frame = {
        "component_id": component.astype(np.int32),
        "measure": measure[kind],
        "side": side[kind],
        "rank": np.arange(len(cells)) - first + 1,
    }
    key = pl.Series(_numpy(entries.keys), dtype=pl.Float64)
    exact = key if entries.activation.dtype == torch.float64 else pl.Series([None] * len(cells), dtype=pl.Float64)
    return pl.DataFrame(frame | _entry_columns(entries) | {"key": exact})


def token_counts(tokens: TokenSums) -> pl.DataFrame:
    """Table `token_counts`."""
    numbered = [(0, tokens.counts), *zip(tokens.presences.tolist(), tokens.present_counts, strict=True)]
    frames = []
    for presence, counts in numbered:
        at = _numpy(counts).nonzero()[0]
        n = _numpy(counts)[at]
        frames.append(
            pl.DataFrame({"presence": np.full(len(at), presence, np.int32), "token_id": at.astype(np.int32), "n": n})
        )
    return pl.concat(frames)


def token_sums(tokens: TokenSums, chosen: Selection) -> Iterator[pl.DataFrame]:
    """Table `token_sums`, tokens that occur."""
    counts = {0: tokens.counts} | dict(zip(tokens.presences.tolist(), tokens.present_counts, strict=True))
    occurring = {presence: _numpy(count).nonzero()[0] for presence, count in counts.items()}
    starts = np.array([rows.start for _, rows in chosen.presence_runs])
    for component, sums in tokens.of_component():
        at = occurring[chosen.presence_runs[int(np.searchsorted(starts, component, side="right")) - 1][0]]
        activation, dla, size = _numpy(sums)[:, at]
        yield pl.DataFrame(
            {
                "component_id": np.full(len(at), component, dtype=np.int32),
                "token_id": at.astype(np.int32),
                "sum_activation": activation,
                "sum_dla": dla,
                "sum_abs_dla": size,
            }
        )


def _filled(dense: DenseRows) -> tuple[np.ndarray, np.ndarray]:
    """Slots in use in order of position id, and those ids."""
    positions = _numpy(dense.positions)
    slots = np.argsort(positions)[(positions < 0).sum() :]
    return slots, positions[slots]


def dense_rows(dense: DenseRows) -> Iterator[pl.DataFrame]:
    """Table `dense_rows`."""
    slots, positions = _filled(dense)
    for block in _blocks(dense.activation.shape[1]):
        values = {
            name: _numpy(table[:, block])[slots].T.ravel()
            for name, table in (("activation", dense.activation), ("dla", dense.dla))
        }
        bins = _numpy(SPECTRUM.index(torch.from_numpy(values["activation"]))).astype(np.int16)
        frame = pl.DataFrame(
            {"component_id": _repeat(block, len(slots)), "position_id": np.tile(positions, block.stop - block.start)}
            | values
            | {"bin": bins}
        )
        yield frame.filter(pl.col("activation").is_not_nan()) if np.isnan(values["activation"]).any() else frame


def head_attention_rows(dense: DenseRows, chosen: Selection) -> pl.DataFrame:
    """Table `head_attention_rows`; without heads whose attention weights cannot be read."""
    slots, positions = _filled(dense)
    slices = [chosen.blocks[block] for block in chosen.head_rows]
    ids = np.concatenate([np.arange(0), *(np.arange(s.start, s.stop) for s in slices)]).astype(np.int32)
    table = _numpy(dense.attention)[slots].transpose(1, 0, 2).reshape(-1, len(MEASURES) + 1)
    columns = dict(zip((*MEASURES, "dla_to_attended"), table.T, strict=True))
    frame = pl.DataFrame(
        {"component_id": np.repeat(ids, len(slots)), "position_id": np.tile(positions, len(ids))} | columns
    )
    read = frame.filter(pl.col("entropy").is_not_nan())
    return read.with_columns(pl.col("top_offset").cast(pl.Int32))


def dense_outcomes(dense: DenseRows) -> pl.DataFrame:
    """Loss, rank, entropy and slope of the soft cap (NULL without a cap) of the dense positions."""
    slots, positions = _filled(dense)
    loss, rank, entropy, slope = _numpy(dense.outcome)[slots].T
    columns = {"position_id": positions, "loss": loss, "rank": rank.astype(np.int32), "entropy": entropy}
    return pl.DataFrame(columns | {"cap_slope": slope}).with_columns(pl.col("cap_slope").fill_nan(None))


def recorded_rows(component: int, positions: list[Tensor], activation: list[Tensor], dla: list[Tensor]) -> pl.DataFrame:
    """Rows of table `recorded_rows` for one component, of the positions where it is present."""
    values = {
        "position_id": torch.cat(positions),
        "activation": torch.cat(activation).float(),
        "dla": torch.cat(dla).float(),
    }
    rows = pl.DataFrame({"component_id": component} | {name: _numpy(v) for name, v in values.items()})
    return rows.filter(pl.col("activation").is_not_nan())


def strongest(
    products: Float[Tensor, "neuron vocab"], k: int
) -> Iterator[tuple[str, Int[Tensor, "neuron k"], Float[Tensor, "neuron k"]]]:
    """Of each row, the k largest and the k smallest products: side, tokens, products."""
    for side, sign in (("boosted", 1), ("suppressed", -1)):
        values, tokens = (sign * products).topk(min(k, products.shape[1]), dim=1)
        yield side, tokens, sign * values


def logit_effects(weights: Weights, chosen: Selection, scales: list[float], k: int) -> Iterator[pl.DataFrame]:
    """Table `logit_effects`, of neurons recorded: centred logit per unit of activation, the strongest k tokens a side.

    Without neurons of blocks whose output reaches the logits through norms of the residual stream.

    Args:
        scales: of each block, the denominator that effects are stated at.
    """
    toward: Tensor | None = None
    spec = chosen.spec
    for block in (b for b in chosen.blocks if b.kind == "neuron"):
        if not weights.has_fixed_way(block):
            continue
        if toward is None or block in weights.own_norm:
            toward = logit_directions(weights, block)
        w_out = weights.matrix(block)
        for rows in torch.from_numpy(chosen.units(block)).to(w_out.device).split(1024):
            ids = _numpy(rows).astype(np.int32) + spec.slices[block].start
            sides = [_effect_rows(ids, *side) for side in strongest(w_out[rows] @ toward.T, k)]
            yield at_scale(pl.concat(sides).sort("component_id", maintain_order=True), spec, scales)


def described_effects(described: Described, chosen: Selection, scales: list[float], k: int) -> Iterator[pl.DataFrame]:
    """The same of units of dictionaries, per unit of their value, where what they write passes the final norm alone.

    Without subspaces, which have no one direction, and cross-layer units.
    """
    spec, weights = chosen.spec, described.sites.weights
    for each in described.attached:
        (cut, rows), *later = each.writes
        if later or each.block.kind == "subspace" or each.block not in chosen.blocks or not has_fixed_way(cut):
            continue
        unit = torch.ones(1, 1, dtype=weights.dtype, device=weights.unembed.device)
        free = dict.fromkeys((*cut.wiring.path_norms, *cut.wiring.gates), unit)
        tokens = torch.arange(len(weights.unembed), device=weights.unembed.device)
        toward = Directions(cut.wiring, at_unembed(weights, tokens), free).at(cut.source)
        for units in torch.from_numpy(chosen.units(each.block)).to(rows.device).split(1024):
            ids = _numpy(units).astype(np.int32) + spec.slices[each.block].start
            sides = [_effect_rows(ids, *side) for side in strongest(rows[units] @ toward.T, k)]
            yield at_scale(pl.concat(sides).sort("component_id", maintain_order=True), spec, scales)


def at_scale(effects: pl.DataFrame, spec: ModelSpec, scales: list[float]) -> pl.DataFrame:
    """Rows of `logit_effects` with their products at each block's mean denominator."""
    starts = np.array([ids.start for ids in spec.slices.values()])
    of_row = np.array(scales)[np.searchsorted(starts, effects["component_id"].to_numpy(), side="right") - 1]
    return effects.with_columns(effect=(pl.col("product") / pl.Series(of_row)).cast(pl.Float32))


def _effect_rows(
    ids: np.ndarray, side: str, tokens: Int[Tensor, "neuron k"], values: Float[Tensor, "neuron k"]
) -> pl.DataFrame:
    n = tokens.shape[1]
    return pl.DataFrame(
        {
            "component_id": np.repeat(ids, n),
            "side": side,
            "rank": np.tile(np.arange(1, n + 1), len(ids)),
            "token_id": _numpy(tokens).ravel(),
            "product": _numpy(values).ravel().astype(np.float64),
        }
    )
