"""Self-repair on arbitrary text: how much of a head's direct effect comes back when the head is removed at a position.

A head is replaced by its mean at one position. Directly this takes d = (value - mean) . direct slope from the next
token's logit there, the final norm's denominator held. What the logit really loses is t. With d's sign,

    repaired = sum of sign(d) (d - t) / sum of |d|

1: all of it comes back (the essay's serial redundancy: a later head takes over); 0: nothing; below 0: later components
lose with it. The part that the final norm's denominator makes is known in closed form and told apart (Rushing and Nanda
2024, "Explorations of self-repair in language models"). Positions are drawn with probability as |d|, from all ordinary
positions of the windows, so that the mean of the drawn sign(d) (d - t) / |d| is that ratio.

Cost: a forward pass of a window for each head and position.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from profiler.effects.ablation import Ablated, AblationCase, ablate
from profiler.model.components import Block, ComponentId
from profiler.model.gradients.network import EffectNetwork
from profiler.statistics import student_interval
from profiler.text.windows import Batch, Layout, Window, make_batch

SCHEMA = {
    "component": pl.String,
    "kind": pl.String,
    "layer": pl.Int64,
    "value": pl.String,
    "n": pl.Int64,
    "direct": pl.Float64,
    "repaired": pl.Float64,
    "repaired_lo": pl.Float64,
    "repaired_hi": pl.Float64,
    "by_norm": pl.Float64,
}


@torch.no_grad()
def repair(
    net: EffectNetwork,
    layout: Layout,
    windows: Sequence[Window],
    means: dict[Block, Tensor],
    n: int,
    seed: int,
) -> pl.DataFrame:
    """Table `effect_repair`: a row per head.

    Args:
        means: of each block the mean of what its units did, [unit, width].
        n: positions drawn of each head.
    """
    batch = make_batch(list(windows), layout)
    passed = net.run(batch.tokens, batch.targets)
    generator = torch.Generator().manual_seed(seed + 2)
    rows: list[dict[str, Any]] = []
    for block, slope in net.direct_slopes(passed, batch.targets):
        if block.kind != "head":
            continue
        direct = ((passed.values[block] - means[block]) * slope).sum(-1)
        for unit in range(block.units):
            rows.append(_of_head(net, layout, batch, block, unit, direct[..., unit], means[block][unit], n, generator))
    return pl.DataFrame(rows, schema=SCHEMA)


def _of_head(
    net: EffectNetwork,
    layout: Layout,
    batch: Batch,
    block: Block,
    unit: int,
    direct: Float[Tensor, "window offset"],
    mean: Float[Tensor, " width"],
    n: int,
    generator: torch.Generator,
) -> dict[str, Any]:
    """The row of one head; without numbers where it writes nothing directly."""
    sizes = torch.where(batch.ordinary, direct.abs().double().cpu(), 0.0)
    named = {"component": ComponentId(block.kind, block.layer, unit).label, "kind": block.kind, "layer": block.layer}
    row: dict[str, Any] = named | {"value": "mean", "direct": float(sizes[batch.ordinary].mean()), "n": 0}
    if not bool((sizes > 0).any()):
        return row
    drawn = torch.multinomial(sizes.flatten(), n, replacement=True, generator=generator).tolist()
    drawn_positions = [divmod(index, sizes.shape[1]) for index in drawn]
    distinct = list(dict.fromkeys(drawn_positions))
    cases = [AblationCase(block, unit, batch.windows[window], offset, mean) for window, offset in distinct]
    real = dict(zip(distinct, ablate(net, layout, cases), strict=True))
    back, norm = (
        np.array(values) for values in zip(*(_shares(real[p], float(direct[p])) for p in drawn_positions), strict=True)
    )
    documents = np.array([batch.windows[window].document.doc_id for window, _ in drawn_positions])
    by_document = np.array([back[documents == d].mean() for d in np.unique(documents)])
    low, high = student_interval(by_document)
    finite = np.isfinite(low)
    return row | {
        "n": len(drawn_positions),
        "repaired": float(back.mean()),
        "repaired_lo": low if finite else None,
        "repaired_hi": high if finite else None,
        "by_norm": float(norm.mean()),
    }


def _shares(real: Ablated, direct: float) -> tuple[float, float]:
    """Of what was removed at a position, the share that came back, and the share that the norm brought back."""
    return (direct - real.own) / direct, -real.norm / direct
