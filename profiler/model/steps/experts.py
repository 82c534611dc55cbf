"""The neurons of a layer's experts as patching sees them: values where the router sends a position, none elsewhere.

A neuron of an expert that a position is not sent to has no activation there: its value is NaN, never 0. What a changed
activation adds to what the experts write is the change times the router's weight times the neuron's row of W_down; what
the router chose and its weights are those of the pass under way.

Cost: the first product of every expert for the positions sent to it, two thirds of what the experts cost.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from profiler.model.writers import activations, down

ROUTED = ("expert_read", "expert_choice", "expert_weight")
"""Sites of what a layer's experts read, which are chosen, and what their outputs are multiplied by."""
Activations = Float[Tensor, "prompt offset expert neuron"]


@dataclass(frozen=True, eq=False)
class Experts:
    """The experts of a layer.

    Attributes:
        module: what computes them.
        n: how many there are.
        neurons: of each.
    """

    module: nn.Module
    n: int
    neurons: int

    def activations(
        self, read: Float[Tensor, "prompt offset model"], chosen: Int[Tensor, "prompt offset choice"]
    ) -> Activations:
        """Activations of all neurons from what the experts read; NaN at positions that are not sent to the expert."""
        values = read.new_full((*read.shape[:2], self.n, self.neurons), torch.nan)
        for expert in chosen.unique().tolist():
            sent = (chosen == expert).any(-1)
            values[..., expert, :][sent] = activations(self.module, expert, read[sent])
        return values

    def written(
        self,
        expert: int,
        neuron: int,
        change: Float[Tensor, "prompt offset"],
        chosen: Int[Tensor, "prompt offset choice"],
        weights: Float[Tensor, "prompt offset choice"],
    ) -> Float[Tensor, "prompt offset model"]:
        """What a changed activation of a neuron adds to what the experts write."""
        routed = (weights * (chosen == expert)).sum(-1)
        return (change * routed)[..., None] * down(self.module, expert)[neuron].to(change.dtype)


class ByLayer(Sequence[Activations]):
    """Activations of every layer's experts, worked out where a layer is asked for; of a layer without experts none.

    Args:
        experts: of each layer; None where it has none.
        read, chosen: of each layer, where it has experts.
    """

    def __init__(self, experts: Sequence[Experts | None], read: Sequence[Tensor], chosen: Sequence[Tensor]):
        self._experts, self._read, self._chosen = experts, read, chosen

    def __len__(self) -> int:
        return len(self._experts)

    def __iter__(self) -> Iterator[Activations]:
        return (self[layer] for layer in range(len(self)))

    @overload
    def __getitem__(self, layer: int) -> Activations: ...

    @overload
    def __getitem__(self, layer: slice) -> Sequence[Activations]: ...

    def __getitem__(self, layer: int | slice) -> Activations | Sequence[Activations]:
        if isinstance(layer, slice):
            return [self[number] for number in range(*layer.indices(len(self)))]
        experts = self._experts[layer]
        read, chosen = self._read[layer], self._chosen[layer]
        return read[..., None] if experts is None else experts.activations(read, chosen)
