"""What a unit does by changing the final norm's denominator alone: exact for one unit removed, all else as it was.

Direct attribution holds that denominator, so it is blind to entropy and confidence neurons by construction (Stolfo et
al. 2024, "Confidence Regulation Neurons"). With x what the final norm reads, w what a unit added to it, and s(x) the
denominator,

    change = s(x - w) / s(x) - 1

of every unit at every position; and for the units of the largest |change| the entropy of the predicted distribution and
the margin (logit of the next token minus the largest other logit) of (x - w) / s(x - w), less those of (x - w) / s(x).
Later components are left as they were: it is what the unit does through the norm, not all that it does.

Cost: of the change, that of direct attribution; of entropy and margin two products with the unembedding a unit and
position.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from profiler.model.components import Block
from profiler.model.direct import final_norm
from profiler.model.gradients.network import EffectNetwork, Values, WatchedPass
from profiler.model.norms import HeldNorm
from profiler.model.wiring import scaled
from profiler.text.windows import Batch

POSITIONS = 64
"""Positions of a batch at which entropy and margin are measured."""


@dataclass(frozen=True, eq=False)
class Shift:
    """Change of entropy (nats) and margin (logits) by the denominator alone when a unit is removed, by position."""

    entropy: Float[np.ndarray, " position"]
    margin: Float[np.ndarray, " position"]
    documents: tuple[int, ...]


def norm_of(net: EffectNetwork) -> HeldNorm | None:
    """The final norm; None where the model has none, and nothing can be done through it."""
    final = net.model.weights.wiring.final
    return None if final is None else final.norm


def changes(net: EffectNetwork, passed: WatchedPass) -> Iterator[tuple[Block, Float[Tensor, "window offset unit"]]]:
    """s(x - w) / s(x) - 1 of every unit of each block."""
    norm = norm_of(net)
    if norm is None:
        return
    stream, scale = final_norm(passed.capture, net.model.weights)
    for block, value in passed.values.items():
        rows = norm.centred(as_written(net, block))
        factor = _factor(net, block, passed)
        if value.shape[-1] == 1:
            along, squared = stream @ rows.T, rows.square().sum(-1)
            moved = value[..., 0].to(stream.dtype) * factor
            left = -2 * moved * along + moved.square() * squared
        else:
            written = _by_head(value.to(stream.dtype), rows) * factor[..., None]
            left = -2 * (written * stream[:, :, None]).sum(-1) + written.square().sum(-1)
        after = scale.square() + left / stream.shape[-1]
        yield block, after.clamp_min(norm.eps).sqrt() / scale - 1


def as_written(net: EffectNetwork, block: Block) -> Float[Tensor, "value model"]:
    """What each value of a block adds to the residual stream, but for a gate and the denominator of its own norm."""
    weights = net.model.weights
    return weights.as_added(block, weights.matrix(block))


def _factor(net: EffectNetwork, block: Block, passed: WatchedPass) -> Float[Tensor, "window offset #one"]:
    """The gate over the denominator of the block's own norm, where it has these."""
    weights, scales = net.model.weights, passed.capture.scales
    wire = weights.wiring.readers[weights.writers[block].site][0][1]
    factor = torch.ones_like(final_norm(passed.capture, weights)[1])
    if wire.gate is not None:
        factor = factor * scales[wire.gate]
    return factor / scales[weights.own_norm[block].name] if block in weights.own_norm else factor


def _by_head(value: Values, rows: Float[Tensor, "value model"]) -> Float[Tensor, "window offset unit model"]:
    return torch.einsum("wohd,hdm->wohm", value, rows.unflatten(0, value.shape[-2:]))


def shifts(net: EffectNetwork, batch: Batch, passed: WatchedPass, units: Sequence[tuple[Block, int]]) -> list[Shift]:
    """Changes of entropy and margin for some units, at the first ordinary positions of a batch."""
    norm, weights = norm_of(net), net.model.weights
    if norm is None:
        return []
    rows, offsets = (index[:POSITIONS].to(net.device) for index in batch.ordinary.nonzero(as_tuple=True))
    stream, scale = (value[rows, offsets] for value in final_norm(passed.capture, weights))
    targets = batch.targets.to(net.device)[rows, offsets]
    documents = tuple(batch.windows[row].document.doc_id for row in rows.tolist())
    made = []
    for block, unit in units:
        value = passed.values[block][rows, offsets, unit].to(stream.dtype)
        own = norm.centred(as_written(net, block)).unflatten(0, (block.units, -1))[unit]
        left = stream - (value @ own) * _factor(net, block, passed)[rows, offsets]
        after = (left.square().mean(-1, keepdim=True) + norm.eps).sqrt()
        fixed, moved = (_panel(net, left / by, targets) for by in (scale, after))
        entropy, margin = ((b - a).double().cpu().numpy() for a, b in zip(fixed, moved, strict=True))
        made.append(Shift(entropy, margin, documents))
    return made


def _panel(
    net: EffectNetwork, normed: Float[Tensor, "position model"], targets: Tensor
) -> tuple[Float[Tensor, " position"], Float[Tensor, " position"]]:
    """Entropy and margin of the predicted distribution."""
    weights, norm = net.model.weights, norm_of(net)
    assert norm is not None
    read = scaled(normed * norm.gain, weights.wiring.sinks[0].wires[0].multiplier)
    logits = scaled(read @ weights.unembed.to(read.dtype).T, weights.wiring.logit_scale) + weights.token_bias
    logits = weights.wiring.capped(logits)
    log_p = logits.log_softmax(-1)
    own = logits.gather(-1, targets[:, None])
    rivals = logits.scatter(-1, targets[:, None], -torch.inf).amax(-1)
    return -(log_p.exp() * log_p).sum(-1), own[:, 0] - rivals
