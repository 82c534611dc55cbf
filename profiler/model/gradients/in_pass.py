"""Total effects in the same pass that records: one forward and one backward pass a batch.

Of every unit at every position, against zero,

    total(unit, s) = a . d sum over ordinary positions t of the window of the next token's centred logit / d a

as in `profiler.effects.methods`, by the methods `gradient` and `frozen`. What a pass records is read off the same
forward pass. Loss, the mean as a reference and integrated gradients are of `profiler effects`: the loss would take the
unembedding of every position, the mean is known when a pass has ended, and integrated gradients take a forward and a
backward pass for every layer and point.

Cost: memory of what the forward pass leaves for the backward one, so batches are small (profiler.recording.batches).
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from profiler.errors import ModelError
from profiler.model.components import Block
from profiler.model.direct import Part
from profiler.model.forward import Capture, Wanted
from profiler.model.gradients.network import EffectNetwork
from profiler.model.load import Model
from profiler.text.windows import Batch

EffectTotals = dict[Block, Float[Tensor, "window offset unit"]]


class EffectPass:
    """Forward passes that leave total effects beside what is recorded.

    Attributes:
        is_frozen: attention patterns and denominators of norms are held in the backward pass.
    """

    def __init__(self, model: Model, *, is_frozen: bool):
        """Make the network.

        Raises:
            ModelError: attention is to be held and cannot be reached, or the model has dictionaries.
        """
        if model.described is not None:
            raise ModelError(
                "total effects in a pass are of the model's own units: leave --dictionary out, or leave --effects out"
                " and measure them afterwards with `profiler effects RUN`"
            )
        self.network, self.is_frozen = EffectNetwork(model, **model.watching), is_frozen
        with self._held():
            pass

    def run(self, batch: Batch, wanted: Wanted) -> tuple[Capture, EffectTotals]:
        """One pass: what `Model.run` leaves, and total effects of every unit that is not an expert's."""
        with self._held(), torch.enable_grad():
            passed = self.network.run(batch.tokens, batch.targets, wanted=wanted)
            summed = passed.logit[batch.ordinary.to(passed.logit.device)].sum()
            values = list(passed.values.values())
            slopes = torch.autograd.grad(summed, values, materialize_grads=True)
        dtype = self.network.model.weights.dtype
        totals = {
            block: (value.detach().to(dtype) * slope.to(dtype)).sum(-1)
            for block, value, slope in zip(passed.values, values, slopes, strict=True)
        }
        return detached(passed.capture), totals

    def _held(self) -> Any:
        return self.network.frozen() if self.is_frozen else nullcontext()


def with_totals(parts: Iterator[Part], totals: EffectTotals, slices: dict[Block, slice]) -> Iterator[Part]:
    """The parts of a batch, each with its units' total effects; embeddings, biases and experts have none."""
    starts = {slices[block].start: total for block, total in totals.items()}
    return (replace(part, total=starts.get(part.components.start)) for part in parts)


def detached(value: Any) -> Any:
    """Every tensor of a capture without its graph."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, dict):
        return {key: detached(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(map(detached, value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: detached(getattr(value, field.name)) for field in fields(value)})
    return value
