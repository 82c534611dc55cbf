"""What can be profiled: heads, neurons, embeddings and biases, their labels and their dense ids. No torch here.

Ids are dense and ordered so that the heads of a layer, then its neurons, lie side by side: one layer's values are one
slice of every accumulator. Embeddings (of tokens, of positions) and biases come last; with them the direct
logit attributions of all components add up to the centred target logit (design, section 1).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from profiler.errors import ComponentError

ComponentKind = Literal["head", "neuron", "embed", "pos_embed", "attn_bias", "mlp_bias", "final_bias"]
LABEL = re.compile(r"L(?P<layer>\d+)(?P<letter>[HN])(?P<unit>\d+)$")
KIND_OF_LETTER: dict[str, ComponentKind] = {"H": "head", "N": "neuron"}


@dataclass(frozen=True, order=True)
class ComponentId:
    """One component. `layer` is None for embed, pos_embed and final_bias; `unit` is None for embeddings and biases."""

    kind: ComponentKind
    layer: int | None = None
    unit: int | None = None

    @property
    def label(self) -> str:
        """The name shown to people: L5H3, L5N1024, L5_attn_bias, embed."""
        if self.kind in ("head", "neuron"):
            return f"L{self.layer}{'H' if self.kind == 'head' else 'N'}{self.unit}"
        return self.kind if self.layer is None else f"L{self.layer}_{self.kind}"


def parse_label(label: str) -> ComponentId:
    """The head or neuron that `label` names.

    Raises:
        ComponentError: the label is not of the form L5H3 or L5N1024.
    """
    match = LABEL.match(label.strip())
    if match is None:
        raise ComponentError(f"component {label!r} cannot be read: write L5H3 for a head or L5N1024 for a neuron")
    return ComponentId(KIND_OF_LETTER[match["letter"]], int(match["layer"]), int(match["unit"]))


@dataclass(frozen=True)
class ModelSpec:
    """The sizes and identity of a model: what a run needs to name its components and to be repeated."""

    name: str
    architecture: str
    n_layers: int
    n_heads: int
    d_mlp: int
    d_model: int
    n_vocab: int
    context_length: int
    weights_hash: str
    tokenizer_hash: str
    card: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def n_components(self) -> int:
        """Heads, neurons, embeddings and biases together."""
        return self.first_embedding_or_bias + 2 * self.n_layers + 3

    @property
    def first_embedding_or_bias(self) -> int:
        """Id of the first embedding or bias."""
        return self.n_layers * (self.n_heads + self.d_mlp)

    def heads(self, layer: int) -> slice:
        """Ids of the heads of `layer`."""
        start = layer * (self.n_heads + self.d_mlp)
        return slice(start, start + self.n_heads)

    def neurons(self, layer: int) -> slice:
        """Ids of the neurons of `layer`."""
        start = layer * (self.n_heads + self.d_mlp) + self.n_heads
        return slice(start, start + self.d_mlp)

    @property
    def embeddings_and_biases(self) -> slice:
        """Ids of the embeddings and biases, in the order of `components`."""
        return slice(self.first_embedding_or_bias, self.n_components)

    def components(self) -> Iterator[ComponentId]:
        """Every component in the order of its id."""
        for layer in range(self.n_layers):
            yield from (ComponentId("head", layer, unit) for unit in range(self.n_heads))
            yield from (ComponentId("neuron", layer, unit) for unit in range(self.d_mlp))
        yield ComponentId("embed")
        yield ComponentId("pos_embed")
        for layer in range(self.n_layers):
            yield ComponentId("attn_bias", layer)
            yield ComponentId("mlp_bias", layer)
        yield ComponentId("final_bias")

    def id_of(self, component: ComponentId) -> int:
        """The dense id of a head or neuron.

        Raises:
            ComponentError: the model has no such layer, head or neuron.
        """
        units = self.n_heads if component.kind == "head" else self.d_mlp
        if component.layer is None or component.unit is None:
            raise ComponentError(f"{component.label} is an embedding or a bias: name a head or a neuron")
        if component.layer >= self.n_layers or component.unit >= units:
            raise ComponentError(
                f"{component.label} is not in {self.name}, which has {self.n_layers} layers of {self.n_heads} heads "
                f"and {self.d_mlp} neurons, all counted from 0"
            )
        block = self.heads(component.layer) if component.kind == "head" else self.neurons(component.layer)
        return block.start + component.unit
