"""Are the estimates true? Units at single positions are ablated, and the real effects held against the estimates.

The cases are drawn per block and per method, from three strata of the size of its estimates against the mean: the
largest 1 %, the next 9 %, and the rest, which half of the cases come from. Each case stands for its stratum's size over
the number drawn there. An estimate is used as a filter, so what counts is how many of the real effects stand among the
largest estimates: recall at 1 % and 10 % looked at, with bounds from the counts of each stratum (Clopper and Pearson
1934). An effect counts from a tenth of the largest that was measured of its kind and value.

Cost: a forward pass of a window for each case and value put in; the methods' own cost for `checked_windows` windows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from profiler.effects.ablation import Ablated, AblationCase, ablate
from profiler.effects.methods import References, along, estimates, slopes
from profiler.effects.settings import EffectSettings, Method
from profiler.model.components import Block, ComponentId
from profiler.model.gradients.network import EffectNetwork
from profiler.patching.attribution import reliability
from profiler.statistics import clopper_pearson
from profiler.text.windows import Batch, Layout, Window, make_batch

STRATA = (0.01, 0.1, 1.0)
"""Shares of the largest estimates at which strata end."""
PARTS = (0.25, 0.25, 0.5)
"""Part of the cases that each stratum has."""
EFFECT = 0.1
"""Share of the largest effect of a kind from which an effect counts."""
VALUES = ("zero", "mean", "resample")
RECALL_LEVEL = 0.90
"""Two-sided; each bound is 95 % one-sided."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A unit at a position that is ablated.

    Attributes:
        row: number of the window in the batch that was drawn from.
        drawn_by, stratum, weight: the method whose estimates it was drawn by, the stratum's number, and how many units
            at positions it stands for.
    """

    block: Block
    unit: int
    row: int
    offset: int
    drawn_by: Method
    stratum: int
    weight: float


@dataclass(frozen=True, eq=False)
class Estimator:
    """The slopes of every method on some windows.

    Attributes:
        live: of each block what its units did.
        slopes: of each method, reference and block the derivative of the summed logit; methods that know no reference
            have the same for all.
    """

    live: dict[Block, Tensor]
    slopes: dict[tuple[Method, str, Block], Tensor]

    def estimate(self, case: Drawn, method: Method, given: Float[Tensor, " width"], value: str) -> float:
        """Estimated effect of a case: (live - given) . slope; a resampled value takes the slope toward the mean."""
        at = (case.row, case.offset, case.unit)
        reference = "mean" if value == "resample" else value
        moved = self.live[case.block][at] - given
        return float((moved * self.slopes[method, reference, case.block][at]).sum())


def estimator(net: EffectNetwork, batch: Batch, references: References, settings: EffectSettings) -> Estimator:
    """The slopes of all methods on a batch."""
    with torch.no_grad():
        live = net.run(batch.tokens, batch.targets).values
    of_methods: dict[tuple[Method, str, Block], Tensor] = {}
    for method in settings.methods:
        at_once = slopes(net, batch, method) if method != "integrated" else {}
        for reference, given in references.items():
            for block, value in live.items():
                if not estimates(method, block):
                    continue
                own = at_once[block] if at_once else along(net, batch, block, value, given[block], settings.steps)
                of_methods[method, reference, block] = own["logit"]
    return Estimator(live, of_methods)


def draw(known: Estimator, batch: Batch, means: dict[Block, Tensor], settings: EffectSettings) -> list[Drawn]:
    """Cases of every block and method: strata of the estimate's size against the mean."""
    generator = torch.Generator().manual_seed(settings.seed)
    rows, offsets = batch.ordinary.nonzero(as_tuple=True)
    drawn = []
    for method in settings.methods:
        for block, live in known.live.items():
            if not estimates(method, block):
                continue
            sizes = ((live - means[block]) * known.slopes[method, "mean", block]).sum(-1).abs().cpu()[rows, offsets]
            for stratum, weight, chosen in _strata(sizes.flatten(), settings.checked, generator):
                for index in chosen.tolist():
                    position, unit = divmod(index, block.units)
                    at = (int(rows[position]), int(offsets[position]))
                    drawn.append(Drawn(block, unit, *at, method, stratum, weight))
    return drawn


def _strata(
    sizes: Float[Tensor, " candidate"], n: int, generator: torch.Generator
) -> Iterator[tuple[int, float, Int[Tensor, " case"]]]:
    """Number, weight and drawn candidates of each stratum, largest estimates first."""
    order, begin = sizes.argsort(descending=True, stable=True), 0
    for stratum, (share, part) in enumerate(zip(STRATA, PARTS, strict=True)):
        end = max(begin + 1, round(share * len(order)))
        members = order[begin:end]
        chosen = members[torch.randperm(len(members), generator=generator)[: max(1, round(part * n))]]
        if len(chosen):
            yield stratum, len(members) / len(chosen), chosen
        begin = end


def check(
    net: EffectNetwork, layout: Layout, windows: Sequence[Window], references: References, settings: EffectSettings
) -> pl.DataFrame:
    """Table `effect_checks`: estimates of every method beside the real effect, case by case."""
    batch = make_batch(list(windows), layout)
    known = estimator(net, batch, references, settings)
    drawn = draw(known, batch, references["mean"], settings)
    other = _others(batch, len(drawn), settings.seed)
    rows: list[dict[str, Any]] = []
    for value in VALUES:
        given = [_given(known, references, case, value, at) for case, at in zip(drawn, other, strict=True)]
        cases = [
            AblationCase(case.block, case.unit, batch.windows[case.row], case.offset, put)
            for case, put in zip(drawn, given, strict=True)
        ]
        for case, put, real in zip(drawn, given, ablate(net, layout, cases), strict=True):
            own = [method for method in settings.methods if estimates(method, case.block)]
            rows += [_row(known, batch, case, value, put, method, real) for method in own]
    return pl.DataFrame(rows)


def _others(batch: Batch, n: int, seed: int) -> list[tuple[int, int]]:
    """Ordinary positions that resampled values come from."""
    rows, offsets = batch.ordinary.nonzero(as_tuple=True)
    picked = torch.randint(len(rows), (n,), generator=torch.Generator().manual_seed(seed + 1))
    return list(zip(rows[picked].tolist(), offsets[picked].tolist(), strict=True))


def _given(
    known: Estimator, references: References, case: Drawn, value: str, other: tuple[int, int]
) -> Float[Tensor, " width"]:
    if value == "resample":
        return known.live[case.block][(*other, case.unit)]
    return references["zero" if value == "zero" else "mean"][case.block][case.unit]


def _row(
    known: Estimator,
    batch: Batch,
    case: Drawn,
    value: str,
    given: Float[Tensor, " width"],
    method: Method,
    real: Ablated,
) -> dict[str, Any]:
    block = case.block
    return {
        "component": ComponentId(block.kind, block.layer, case.unit, block.group).label,
        "kind": block.kind,
        "layer": block.layer,
        "position_id": int(batch.position_ids[case.row, case.offset]),
        "value": value,
        "method": method,
        "drawn_by": case.drawn_by,
        "stratum": case.stratum,
        "weight": case.weight,
        "estimated": known.estimate(case, method, given, value),
        "exact": real.logit,
    }


def reliability_rows(checks: pl.DataFrame) -> pl.DataFrame:
    """Table `effect_reliability`: agreement by method, value put in, kind, and layer (NULL for all)."""
    rows = []
    for grouping in ([], ["layer"]):
        keys = ["method", "value", "kind", *grouping]
        for key, cell in checks.group_by(keys, maintain_order=True):
            named = dict(zip(keys, key, strict=True))
            threshold = _threshold(checks, named)
            agreement = reliability.agreement(cell["estimated"].to_numpy(), cell["exact"].to_numpy(), threshold)
            rows.append(
                {**named, "layer": named.get("layer"), "threshold": threshold}
                | vars(agreement)
                | {"reliable": agreement.reliable}
            )
    frame = pl.DataFrame(rows, infer_schema_length=None, schema_overrides={"layer": pl.Int64})
    return frame.with_columns(pl.col("pearson", "spearman", "sign", "slope", "false_negatives").fill_nan(None))


def _threshold(checks: pl.DataFrame, named: dict[str, Any]) -> float:
    """Size from which an effect of a kind counts."""
    of_kind = checks.filter(kind=named["kind"], value=named["value"])
    return EFFECT * float(of_kind["exact"].abs().max() or 0.0)  # type: ignore[arg-type]


def recall_rows(checks: pl.DataFrame) -> pl.DataFrame:
    """Table `effect_recall`: how many of the real effects stand among the largest estimates, by share looked at."""
    rows = []
    own = checks.filter(pl.col("drawn_by") == pl.col("method"))
    for key, cell in own.group_by(["method", "value", "kind"], maintain_order=True):
        named = dict(zip(("method", "value", "kind"), key, strict=True))
        threshold = _threshold(checks, named)
        rows += [named | {"threshold": threshold} | row for row in _curve(cell, threshold)]
    return pl.DataFrame(rows, infer_schema_length=None).with_columns(pl.col("recall", "recall_lo").fill_nan(None))


def _curve(cell: pl.DataFrame, threshold: float) -> Iterator[dict[str, Any]]:
    """A row for each share looked at, of the cases that one method drew."""
    low: list[float] = []
    most: list[float] = []
    best: list[float] = []
    for stratum in range(len(STRATA)):
        members = cell.filter(stratum=stratum)
        size, n = float(members["weight"].sum()), members.height
        hits = int((members["exact"].abs() >= threshold).sum()) if threshold > 0 else 0
        bounds = clopper_pearson(hits, n, RECALL_LEVEL)
        best.append(hits / max(1, n) * size)
        low.append(bounds[0] * size)
        most.append(bounds[1] * size)
    for looked_at, share in enumerate(STRATA[:-1], 1):
        seen, unseen = sum(best[:looked_at]), sum(best[looked_at:])
        sure, lost = sum(low[:looked_at]), sum(most[looked_at:])
        yield {
            "looked_at": share,
            "hits": seen,
            "false_negatives": unseen,
            "false_negatives_hi": lost,
            "recall": seen / (seen + unseen) if seen + unseen else np.nan,
            "recall_lo": sure / (sure + lost) if sure + lost else np.nan,
            "n": cell.height,
        }
