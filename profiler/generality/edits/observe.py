"""Attention, writes and activation of one component at the last token of many texts: one forward pass, no hooks.

Why: edits and swaps ask the same few things of a head or neuron, at one offset a text, for texts of different lengths.
Texts are padded on the right, which a causal model does not see. Cost: the layers up to the component's own, all of
them where the final residual stream is asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from profiler.model.steps.network import Network, Offsets, at
from profiler.patching.batch import filled_up
from profiler.patching.sites import Target

BATCH = 32


@dataclass(frozen=True, eq=False)
class ComponentState:
    """A component at the last token of each text.

    Attributes:
        attention: of the head, from the last token; empty for a neuron.
        values: what the head reads of each offset before mixing; empty for a neuron.
        mixed: what the head mixed, before W_O; of a neuron its activation alone.
        norm: norm of what the head writes; a neuron's activation.
        out: all that its block writes there.
        residual: the final residual stream; empty where it was not asked for.
    """

    attention: Float[Tensor, "text offset"]
    values: Float[Tensor, "text offset d_head"]
    mixed: Float[Tensor, "text width"]
    norm: Float[Tensor, " text"]
    out: Float[Tensor, "text d_model"]
    residual: Float[Tensor, "text model"]


def padded(
    rows: Sequence[Sequence[int]], device: torch.device
) -> tuple[Int[Tensor, "text offset"], Int[Tensor, " text"]]:
    """Texts as one tensor, and the offset of the last token of each."""
    return filled_up(rows, device), torch.tensor([len(row) - 1 for row in rows], device=device)


def see(
    net: Network, target: Target, rows: Sequence[Sequence[int]], *, residual: bool = True, batch: int = BATCH
) -> ComponentState:
    """The component on each text; offsets beyond a text have attention 0."""
    width = max(map(len, rows))
    parts = []
    with torch.inference_mode():
        for begin in range(0, len(rows), batch):
            tokens, ends = padded(rows[begin : begin + batch], net.device)
            parts.append(_widened(see_once(net, target, tokens, ends, residual=residual), width))
    return ComponentState(
        *(torch.cat([getattr(part, name) for part in parts]) for name in ComponentState.__dataclass_fields__)
    )


def _widened(seen: ComponentState, width: int) -> ComponentState:
    missing = width - seen.attention.shape[1]
    if not missing or not seen.attention.shape[1]:
        return seen
    pad = torch.nn.functional.pad
    return ComponentState(
        pad(seen.attention, (0, missing)),
        pad(seen.values, (0, 0, 0, missing)),
        seen.mixed,
        seen.norm,
        seen.out,
        seen.residual,
    )


def see_once(
    net: Network,
    target: Target,
    tokens: Int[Tensor, "text offset"],
    ends: Int[Tensor, " text"],
    embedding: Tensor | None = None,
    *,
    residual: bool = True,
) -> ComponentState:
    """The component on one batch; gradients flow to `embedding`, the token embeddings to run on, where one is given."""
    seen: dict[str, tuple[Tensor, Offsets]] = {}

    def edit(site: str, layer: int, value: Tensor, offsets: Offsets) -> Tensor:
        if site == "embed" and embedding is not None:
            return embedding
        if layer == target.layer:
            seen[site] = (value, offsets)
        return value

    last = net.n_layers - 1 if residual else target.layer
    steps = net.begin(tokens, edit)
    stream = steps.stream
    for layer in range(last + 1):
        stream = steps.layer(layer, stream, edit, ends if layer == last else None)
    final = stream[:, 0] if residual else stream[:, 0, :0]
    if target.site == "neuron":
        activation = _last(*seen["neuron"], ends)[:, target.unit]
        nothing = activation.new_zeros(len(tokens), 0)
        out = _last(*seen["mlp_out"], ends)
        return ComponentState(nothing, nothing[..., None], activation[:, None], activation, out, final)
    pattern, offsets = seen["pattern"]
    attention = _last(pattern.transpose(1, 2), offsets, ends)[:, target.unit]
    mixed = _last(*seen["head"], ends)[:, target.unit]
    out = _last(*seen["attn_out"], ends)
    written = net.added("attn_out", target.layer, mixed @ net.w_o(target.layer)[target.unit].to(mixed.dtype), out)
    return ComponentState(attention, seen["v"][0][:, :, target.unit], mixed, written.norm(dim=-1), out, final)


def _last(value: Tensor, offsets: Offsets, ends: Int[Tensor, " text"]) -> Tensor:
    """The value at the last token of each text; it has only that where `offsets` says so."""
    return value[:, 0] if offsets is not None else at(value, ends)[:, 0]


def logit_written(
    net: Network, target: Target, seen: ComponentState, tokens: Int[Tensor, " text"]
) -> Float[Tensor, " text"]:
    """Direct logit attribution of a head or neuron to one token a text, centred over the vocabulary, logits.

    The final norm's denominator is the text's own.
    """
    added = added_by(net, target, seen.mixed if target.site == "head" else seen.mixed[:, 0], seen.out)
    return (added * net.toward(tokens)).sum(-1) / net.final_scale(seen.residual)[:, 0]


def added_by(
    net: Network, target: Target, value: Tensor, out: Float[Tensor, "*shape model"]
) -> Float[Tensor, "*shape model"]:
    """What a head or neuron adds to the residual stream.

    Args:
        value: what the head mixed, [*shape d_head], or the neuron's activation, [*shape].
        out: all that its block writes there.
    """
    if target.site == "head":
        weight = net.w_o(target.layer)[target.unit].to(value.dtype)
        return net.added("attn_out", target.layer, value @ weight, out)
    weight = net.w_out(target.layer)[target.unit].to(value.dtype)
    return net.added("mlp_out", target.layer, value[..., None] * weight, out)


def mass(attention: Float[Tensor, "text offset"], offsets: Sequence[Sequence[int]]) -> Float[Tensor, " text"]:
    """Attention to some offsets of each text."""
    return (attention * mask(offsets, attention.shape[1], attention.device)).sum(-1)


def mask(offsets: Sequence[Sequence[int]], width: int, device: torch.device) -> Bool[Tensor, "text offset"]:
    """True at some offsets of each text."""
    marked = torch.zeros(len(offsets), width, dtype=torch.bool, device=device)
    for row, listed in enumerate(offsets):
        marked[row, list(listed)] = True
    return marked
