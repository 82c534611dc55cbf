"""A model as steps that can be watched, changed, started at any layer and stopped inside it: what patching acts on.

Why: a patch is exact only if everything downstream is computed again and nothing else is. So a forward pass is taken
apart into its layers, each of which can begin from a given residual stream, with what its attention or its MLP writes
given or changed. `ModuleNetwork` (`profiler.model.steps.modules`) does that with the modules that a pass records; no
architecture is known by name. `PlainNetwork` (`profiler.model.steps.plain`) is the same for weights written out, where
these are what is read.

A layer calls `edit(site, layer, value, offsets)` at each site in this order and goes on with what it returns:

| site | shape | what |
|---|---|---|
| embed | prompt offset model | token embedding, without positions |
| resid_pre | prompt offset model | residual stream that layer reads |
| q, k, v | prompt offset head d_head | what attention multiplies; heads that share a key have copies of their own |
| pattern | prompt head query key | attention after the softmax |
| head | prompt offset head d_head | what a head mixed, before W_O |
| attn_out, mlp_out | prompt offset model | what the block's matrix writes, bias included, before a norm of the block |
| neuron | prompt offset neuron | after the nonlinearity (gated: act(gate) * in), before W_out |
| mixer, per_layer, shared | prompt offset unit | channels of a mixer, units of a per-layer projection, neurons of a
  shared expert, before their matrix |
| mixer_out, per_layer_out, shared_out, experts_out | prompt offset model | what these write |
| expert_read, expert_choice, expert_weight | prompt offset any | what routed experts are called with; only shown |
| resid_final | prompt offset model | what the final norm reads; its layer is the number of layers |

`ends` asks for the logits at one offset a prompt alone; in the last layer the MLP is then computed there alone, its
sites have one offset, and `offsets` says which. A layer without heads has values of 0 heads, one without neurons of 0
neurons.

Cost: one forward pass; beginning at a layer costs that layer and those after it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

if TYPE_CHECKING:
    from profiler.model.steps.experts import Experts
    from profiler.model.steps.plain import PlainNetwork

WRITTEN = {
    "head": "attn_out",
    "neuron": "mlp_out",
    "mixer": "mixer_out",
    "per_layer": "per_layer_out",
    "shared": "shared_out",
    "expert": "experts_out",
}
"""Of the site that a block's matrix reads, the site of what it writes."""
Offsets = Int[Tensor, " prompt"] | None
Edit = Callable[[str, int, Tensor, Offsets], Tensor]
Stream = Float[Tensor, "prompt offset model"]
PerHead = Float[Tensor, "prompt offset head d_head"]
Logits = Float[Tensor, "prompt vocab"]


def unchanged(_site: str, _layer: int, value: Tensor, _offsets: Offsets) -> Tensor:
    """The edit that changes nothing."""
    return value


def at(value: Shaped[Tensor, "prompt offset *rest"], offsets: Offsets) -> Tensor:
    """The value at one offset a prompt (the axis stays, with size 1), or all of it."""
    return value if offsets is None else value[torch.arange(len(value), device=value.device), offsets][:, None]


@dataclass(frozen=True, eq=False)
class Past:
    """Keys and values of the offsets before `first`, in whatever form a network stores them."""

    first: int
    stored: Any


class Network(ABC):
    """A model as steps. The module's docstring names its sites."""

    n_layers: int
    n_heads: int
    """Heads of a layer that has heads."""
    d_mlp: int
    """Neurons of the layer with most."""
    d_model: int
    n_vocab: int
    embed: Float[Tensor, "vocab model"]
    """What the token embeddings write for each token."""
    device: torch.device
    dtype: torch.dtype
    places_matter: bool
    """Whether embeddings of positions are added to the residual stream."""
    inside_attention: bool
    """Whether attention can be changed at its queries, keys, values and patterns."""
    parallel: bool
    """Whether the attention and the MLP of a layer read the same residual stream."""
    other_kinds: bool
    """Whether blocks that are neither heads nor an MLP write to the residual stream."""
    heads_apart: bool
    """Whether what a head mixes depends on its own queries, keys and values alone (no norm over all heads)."""
    narrow_end: bool
    """Whether the last layer can be computed at one offset a prompt alone."""

    @property
    @abstractmethod
    def plain(self) -> "PlainNetwork":
        """The weights written out.

        Raises:
            ModelError: they are of no form that is known.
        """

    @abstractmethod
    def heads(self, layer: int) -> int:
        """Heads of a layer."""

    def first_head(self, layer: int) -> int:
        """The number of a layer's first head, through all layers."""
        return sum(self.heads(before) for before in range(layer))

    @abstractmethod
    def neurons(self, layer: int) -> int:
        """Neurons of a layer."""

    @abstractmethod
    def has_mlp(self, layer: int) -> bool:
        """Whether a layer has an MLP (dense or of experts)."""

    def units(self, site: str, layer: int) -> int:  # noqa: ARG002
        """Units of a layer at a site of `WRITTEN`; of experts, those of each."""
        return 0

    def experts(self, layer: int) -> "Experts | None":  # noqa: ARG002
        """The routed experts of a layer; None where it has none."""
        return None

    def n_experts(self, layer: int) -> int:
        """Routed experts of a layer."""
        experts = self.experts(layer)
        return 0 if experts is None else experts.n

    def direct(self, site: str, layer: int) -> bool:  # noqa: ARG002
        """Whether what a block writes (`attn_out` or `mlp_out`) reaches the logits through the final norm and at most a
        norm of its own, so that it has a direct part of them."""
        return True

    @property
    def heads_direct(self) -> bool:
        """Whether every layer's heads have a direct part of the logits."""
        return all(self.direct("attn_out", layer) for layer in range(self.n_layers))

    @abstractmethod
    def begin(self, tokens: Int[Tensor, "prompt offset"], edit: Edit = unchanged, past: Past | None = None) -> "Steps":
        """A forward pass before its first layer.

        Args:
            tokens: of every offset, those before `past.first` too.
            past: of `past`, for the same prompts; the pass then has the later offsets alone.
        """

    @abstractmethod
    def past(self, tokens: Int[Tensor, "prompt offset"], first: int) -> Past | None:
        """Keys and values of the offsets before `first`; None where the model cannot go on from them."""

    @abstractmethod
    def logits(self, stream: Float[Tensor, "*shape model"]) -> Float[Tensor, "*shape vocab"]:
        """The model's logits from what the final norm reads."""

    @abstractmethod
    def toward(self, tokens: Int[Tensor, "*position"]) -> Float[Tensor, "*position model"]:
        """Of each token, the direction whose product with what is added to the residual stream is its centred logit
        (before a soft cap), up to the final norm's denominator."""

    @abstractmethod
    def toward_from(self, site: str, layer: int, tokens: Int[Tensor, "*position"]) -> Float[Tensor, "*position model"]:
        """The same at what a block writes (`attn_out` or `mlp_out`), up to the denominator of the block's own norm."""

    @abstractmethod
    def logit_bias(self, tokens: Int[Tensor, "*position"]) -> Float[Tensor, "*position"]:
        """What biases of the final norm and the unembedding add to each token's centred logit."""

    @abstractmethod
    def final_scale(self, stream: Float[Tensor, "*shape model"]) -> Float[Tensor, "*shape 1"]:
        """The final norm's denominator."""

    @abstractmethod
    def embedded(self, value: Float[Tensor, "*shape model"]) -> Float[Tensor, "*shape model"]:
        """What a token embedding adds to the residual stream."""

    @abstractmethod
    def w_o(self, layer: int) -> Float[Tensor, "head d_head model"]:
        """W_O of a layer's heads."""

    @abstractmethod
    def w_out(self, layer: int) -> Float[Tensor, "neuron model"]:
        """W_out of a layer's neurons."""

    @abstractmethod
    def out_bias(self, site: str, layer: int) -> Float[Tensor, " model"] | None:
        """The bias of the matrix that writes `attn_out` or `mlp_out`."""

    @abstractmethod
    def own_norm(self, site: str, layer: int) -> bool:
        """Whether what a block writes passes a norm of its own, or is scaled, before it is added."""

    @abstractmethod
    def added(
        self,
        site: str,
        layer: int,
        written: Float[Tensor, "*shape model"],
        out: Float[Tensor, "*shape model"],
    ) -> Float[Tensor, "*shape model"]:
        """What a part of a block's write adds to the residual stream.

        Args:
            site: `attn_out` or `mlp_out`.
            written: the part: what a head, a neuron or a bias adds to what the block's matrix writes.
            out: all that the block's matrix writes there, which a norm of the block divides by.
        """

    @abstractmethod
    def added_bias(self, site: str, layer: int) -> Float[Tensor, " model"] | None:
        """The bias of a norm of the block itself, as it is added to the residual stream."""

    def finish(self, stream: Stream, edit: Edit = unchanged, ends: Offsets = None) -> Tensor:
        """Logits from the final residual stream; without the offset axis where `ends` are given, and `stream` is of
        those offsets."""
        logits = self.logits(edit("resid_final", self.n_layers, stream, ends))
        return logits if ends is None else logits[:, 0]


class Steps(ABC):
    """A forward pass of some prompts, layer by layer.

    The rows of a residual stream given to it are these prompts, as often as there are rows for.
    """

    net: Network
    stream: Stream
    """What the first layer reads."""
    first: int
    """The offset of the stream's first."""

    @abstractmethod
    def layer(
        self, number: int, stream: Stream, edit: Edit = unchanged, ends: Offsets = None, *, patterns: bool = True
    ) -> Float[Tensor, "prompt computed model"]:
        """What one layer makes of the residual stream; at `ends` alone where they are given.

        Args:
            patterns: whether `edit` is to see attention patterns; without them attention is faster.
        """

    @abstractmethod
    def heads(self, number: int, stream: Stream, edit: Edit = unchanged, *, patterns: bool = False) -> PerHead:
        """What each head of a layer mixes."""

    @abstractmethod
    def pattern(self, number: int, stream: Stream, edit: Edit) -> Float[Tensor, "prompt head query key"]:
        """The attention of a layer's heads, with queries and keys as `edit` returns them."""

    @abstractmethod
    def neurons(
        self, number: int, stream: Stream, heads: PerHead, ends: Offsets = None
    ) -> Float[Tensor, "prompt computed neuron"]:
        """Activations of a layer's neurons, given what its heads mixed."""

    @abstractmethod
    def rest(
        self,
        number: int,
        stream: Stream,
        *,
        heads: PerHead | None = None,
        attn_out: Stream | None = None,
        neurons: Float[Tensor, "prompt offset neuron"] | None = None,
        mlp_out: Stream | None = None,
        others: dict[str, Tensor] | None = None,
        edit: Edit = unchanged,
        ends: Offsets = None,
    ) -> Float[Tensor, "prompt computed model"]:
        """What a layer makes of the residual stream, with what its heads mixed (or its attention wrote) given, and what
        its neurons do (or its MLP wrote), where that is given too.

        Args:
            others: values of other sites, by their names.
        """

    def to_end(
        self, number: int, stream: Stream, edit: Edit = unchanged, ends: Offsets = None, *, patterns: bool = True
    ) -> Tensor:
        """Logits from the residual stream that a layer reads; the layer may be the number of layers.

        Args:
            ends: offsets counted from 0, whatever the stream's first is.
        """
        n = self.net.n_layers
        if number == n and ends is not None and stream.shape[1] > 1:
            stream = at(stream, ends - self.first)
        for layer in range(number, n):
            stream = self.layer(layer, stream, edit, ends if layer == n - 1 else None, patterns=patterns)
        return self.net.finish(stream, edit, ends)


def forward(
    net: Network,
    tokens: Int[Tensor, "prompt offset"],
    edit: Edit = unchanged,
    ends: Int[Tensor, " prompt"] | None = None,
    *,
    patterns: bool = True,
) -> Float[Tensor, "prompt vocab"] | Float[Tensor, "prompt offset vocab"]:
    """Logits: of every offset, or of each prompt's offset in `ends`."""
    steps = net.begin(tokens, edit)
    return steps.to_end(0, steps.stream, edit, ends, patterns=patterns)
