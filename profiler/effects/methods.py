"""Total effects of every unit at every position of a batch, from gradients.

For a unit with value a at position s of a window, and a reference r,

    total(unit, s) = (a - r) . d sum over positions t of the window of the next token's centred logit / d a

(Nanda 2023, "Attribution patching"; Kramar et al. 2024, AtP*). What it does at later positions belongs to the position
where the unit wrote; so a sum over units is no logit: what a unit does through another is counted for both. Of the loss
the same with -ln p. The sum is over ordinary positions t; signs differ between them, so effects on some may cancel
those on others.

The methods differ in the gradient (`profiler.effects.settings.EffectSettings`): `gradient` and `frozen` take it where
the model is; `integrated` averages it over points between the reference and the model's values, all units of a block
and all positions together, the rest of the model computed anew: then the sum over a block's units and positions is the
real effect of the whole block, up to the number of steps (completeness: Sundararajan et al. 2017). That is of heads
alone: all neurons of a layer at once are far from what one of them does (measured: `profiler.effects.checks`).

Cost: gradient, frozen: a forward and two backward passes. integrated: steps * blocks of heads * references times that.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from profiler.effects.settings import Method, Reference
from profiler.model.components import Block
from profiler.model.gradients.network import EffectNetwork, Values, WatchedPass, unchanged
from profiler.text.windows import Batch

Measure = str
MEASURES: tuple[Measure, ...] = ("logit", "loss")
Slopes = dict[Measure, Values]
PerUnit = Float[Tensor, "window offset unit"]
References = dict[Reference, dict[Block, Tensor]]
"""Of each reference the value of every block's units, [unit, width]."""


@dataclass(frozen=True, eq=False)
class BlockEffects:
    """What the units of a block do at each position of a batch, in logits and nats.

    Attributes:
        total: through everything after it, by measure: logit or loss.
        direct: the part of the logit's that is written directly: (a - r) . direct slope.
    """

    block: Block
    reference: Reference
    total: dict[Measure, PerUnit]
    direct: PerUnit


def estimates(method: Method, block: Block) -> bool:
    """Whether a method is of a block's units."""
    return method != "integrated" or block.kind == "head"


def effects(
    net: EffectNetwork, batch: Batch, method: Method, references: References, steps: int
) -> Iterator[BlockEffects]:
    """Effects of every block of a batch, against every reference."""
    with torch.no_grad():
        live = net.run(batch.tokens, batch.targets)
        direct = dict(net.direct_slopes(live, batch.targets))
    at_once = slopes(net, batch, method) if method != "integrated" else {}
    for block, value in live.values.items():
        if not estimates(method, block):
            continue
        for reference, given in references.items():
            own = at_once[block] if at_once else along(net, batch, block, value, given[block], steps)
            moved = value - given[block]
            totals = {measure: (moved * slope).sum(-1) for measure, slope in own.items()}
            yield BlockEffects(block, reference, totals, (moved * direct[block]).sum(-1))


def slopes(net: EffectNetwork, batch: Batch, method: Method = "gradient") -> dict[Block, dict[Measure, Tensor]]:
    """Derivatives of the summed logits and losses by what every block's matrix reads."""
    if method == "frozen":
        with net.frozen():
            return slopes(net, batch)
    with torch.enable_grad():
        passed = net.run(batch.tokens, batch.targets, loss_at=batch.ordinary)
        derivatives = _derivatives(passed, batch, list(passed.values.values()))
    return {
        block: dict(zip(MEASURES, pair, strict=True)) for block, pair in zip(passed.values, derivatives, strict=True)
    }


def along(
    net: EffectNetwork,
    batch: Batch,
    block: Block,
    live: Values,
    reference: Float[Tensor, "unit width"],
    steps: int,
) -> Slopes:
    """Derivatives by what one block's matrix reads, averaged over midpoints between the reference and what it read."""
    total: Slopes = {}
    for step in range(steps):
        given = reference + (step + 0.5) / steps * (live - reference)
        given = given.detach().requires_grad_()

        def edit(changed: Block, value: Values, given: Values = given) -> Values:
            return given if changed == block else value

        with torch.enable_grad():
            passed = net.run(batch.tokens, batch.targets, edit, loss_at=batch.ordinary)
            ((logit, loss),) = _derivatives(passed, batch, [given])
        for measure, slope in zip(MEASURES, (logit, loss), strict=True):
            total[measure] = total.get(measure, torch.zeros_like(slope)) + slope / steps
    return total


def _derivatives(passed: WatchedPass, batch: Batch, values: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Of each value the derivatives of the logits and of the losses, summed over ordinary positions."""
    summed = passed.logit[batch.ordinary.to(passed.logit.device)].sum()
    by_logit = torch.autograd.grad(summed, values, retain_graph=True, materialize_grads=True)
    by_loss = torch.autograd.grad(passed.loss.sum(), values, materialize_grads=True)
    return list(zip(by_logit, by_loss, strict=True))


def means(net: EffectNetwork, batches: tuple[Batch, ...]) -> dict[Block, Tensor]:
    """Mean of what each block reads, [unit, width], over ordinary positions, in the model's dtype."""
    sums = {b: torch.zeros(b.units, w.width, dtype=torch.float64, device=net.device) for b, w in net.writers.items()}
    n = 0
    for batch in batches:
        ordinary = batch.ordinary.to(net.device)
        with torch.no_grad():
            passed = net.run(batch.tokens, batch.targets, unchanged)
        n += int(ordinary.sum())
        for block, value in passed.values.items():
            sums[block] += value[ordinary].sum(0, dtype=torch.float64)
    return {block: (total / max(1, n)).to(net.model.weights.unembed.dtype) for block, total in sums.items()}


def references(net: EffectNetwork, batches: tuple[Batch, ...]) -> References:
    """Zero, and the mean over the text."""
    mean = means(net, batches)
    return {"zero": {block: torch.zeros_like(value) for block, value in mean.items()}, "mean": mean}
