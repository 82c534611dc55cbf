"""False negatives of attribution patching: the largest exact effects against the largest estimates. numpy, polars.

Why: an estimate is used as a filter. Its false positives are patched exactly and dropped; its false negatives are never
looked at, so what counts is how many of the largest effects stand among the estimates that are looked at (the essay on
attribution patching: false positives are better than false negatives).

Sites that are wholly patched (heads, their inputs, MLPs, residual streams) give the recall itself, for the `top`
largest effects and for all of at least 2 %, with as many estimates looked at, or two or four times as many. Of neurons
the largest estimates and a random sample of the others are patched; the sample gives a 95 % upper bound of the effects
among the others (Clopper and Pearson 1934, one-sided), and with it a lower bound of the recall.

Cost: none.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl

from profiler.patching.attribution import reliability
from profiler.statistics import clopper_pearson

TOPS = (1, 3, 5, 10, 20)
TIMES = (1, 2, 4)
ANY = "any"


def recall_rows(
    estimates: pl.DataFrame, largest: Sequence[str], sampled: Sequence[str], n_neurons: int, threshold: float
) -> pl.DataFrame:
    """Table `patch_recall`.

    Args:
        estimates: table `patch_attribution`.
        largest: labels of the neurons patched for their estimates.
        sampled: labels of those drawn from the others.
        n_neurons: neurons of the model.
        threshold: share from which an effect counts.
    """
    rows = []
    keys = ["method", "direction", "component_kind", "granularity", "value", "pair_set"]
    whole = estimates.filter(pl.col("component_kind") != "neuron").with_columns(
        pl.col("positions").replace_strict({"all": "all"}, default="each role")
    )
    for key, cell in whole.group_by([*keys, "positions"], maintain_order=True):
        named = dict(zip([*keys, "positions"], key, strict=True))
        exact, guess = (cell[name].to_numpy() for name in ("exact", "estimated"))
        rows += [named | row for row in _wholly(guess, exact, threshold)]
    neurons = estimates.filter(component_kind="neuron", method="gradient")
    for key, cell in neurons.group_by(keys, maintain_order=True):
        named = dict(zip(keys, key, strict=True)) | {"method": ANY, "positions": "all"}
        rows.append(named | _of_neurons(cell, largest, sampled, n_neurons, threshold))
    return pl.DataFrame(rows, infer_schema_length=None, schema_overrides={"top": pl.Int64}).with_columns(
        pl.col("recall", "recall_lo").fill_nan(None)
    )


def _wholly(estimated: np.ndarray, exact: np.ndarray, threshold: float) -> Iterator[dict[str, Any]]:
    """Rows of a site of which every target was patched exactly."""
    n, effects = len(exact), int((np.abs(exact) >= threshold).sum())
    asked = [(top, top) for top in TOPS if top < n] + ([(None, effects)] if effects else [])
    for top, wanted in asked:
        for looked_at in dict.fromkeys(min(n, times * wanted) for times in TIMES):
            share = reliability.recall(estimated, exact, wanted, looked_at)
            hits = round(share * wanted)
            yield {
                "top": top,
                "looked_at": looked_at,
                "wanted": wanted,
                "hits": hits,
                "recall": share,
                "recall_lo": share,
                "false_negatives_hi": float(wanted - hits),
                "n": n,
                "unpatched": 0,
            }


def _of_neurons(
    cell: pl.DataFrame, largest: Sequence[str], sampled: Sequence[str], n_neurons: int, threshold: float
) -> dict[str, Any]:
    """The row of neurons of one direction: effects among those patched for their estimates against those left over."""
    effect = pl.col("exact").abs() >= threshold
    hits = cell.filter(effect, pl.col("component").is_in(largest)).height
    drawn = cell.filter(effect, pl.col("component").is_in(sampled)).height
    unranked = n_neurons - len(largest)
    expected, most = drawn / max(1, len(sampled)) * unranked, clopper_pearson(drawn, len(sampled), 0.90)[1] * unranked

    def share(lost: float) -> float:
        return hits / (hits + lost) if hits + lost else float("nan")

    return {
        "top": None,
        "looked_at": len(largest),
        "wanted": hits + drawn,
        "hits": hits,
        "recall": share(expected),
        "recall_lo": share(most),
        "false_negatives_hi": most,
        "n": cell.height,
        "unpatched": n_neurons - cell.height,
    }
