"""A transformer as plain functions of its weights, with a place to intervene at every site. No hooks, no
TransformerLens.

Why: a patch is exact only if everything downstream is recomputed and nothing else is; with functions a forward pass can
start anywhere, run many patches in one batch, read out one position only, and be differentiated. Weights are read once
(`profiler.model.as_network`, which also checks that the logits are those of the model).

A forward pass calls `edit(site, layer, value, offsets)` at each site in this order and goes on with what it returns:

| site | shape | what |
|---|---|---|
| embed | prompt offset model | token embedding, without positions |
| resid_pre | prompt offset model | residual stream that layer reads |
| q, k, v | prompt offset head d_head | before rotation; heads that share a key have copies of their own |
| pattern | prompt head query key | attention after the softmax |
| head | prompt offset head d_head | what a head mixed, before W_O |
| attn_out, mlp_out | prompt offset model | what is added to the residual stream, biases included |
| neuron | prompt offset neuron | after the nonlinearity (gated: act(gate) * in), before W_out |
| resid_final | prompt offset model | what the final norm reads; its layer is the number of layers |

`ends` asks for the logits at one offset a prompt alone; the last layer is then computed there alone, its sites (all but
k and v) have one offset, and `offsets` says which. Cost: one forward pass; heads are not written out one by one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from profiler.model.norms import before_norm

Offsets = Int[Tensor, " prompt"] | None
Edit = Callable[[str, int, Tensor, Offsets], Tensor]
Stream = Float[Tensor, "prompt offset model"]
PerHead = Float[Tensor, "prompt offset head d_head"]
Logits = Float[Tensor, "prompt vocab"]
NONE_READ = -1e30


@dataclass(frozen=True, eq=False)
class Norm:
    """LayerNorm (`centres`) or RMSNorm; `eps` None makes it the identity, for hand-built models."""

    weight: Float[Tensor, " model"]
    bias: Float[Tensor, " model"]
    centres: bool
    eps: float | None

    def scale(self, x: Float[Tensor, "*shape model"]) -> Float[Tensor, "*shape 1"]:
        """The denominator."""
        if self.eps is None:
            return torch.ones_like(x[..., :1])
        x = x - x.mean(-1, keepdim=True) if self.centres else x
        return (x.square().mean(-1, keepdim=True) + self.eps).sqrt()

    def before(self, direction: Float[Tensor, "*shape model"]) -> Float[Tensor, "*shape model"]:
        """The direction before the norm that gives the same product as `direction` after it, but for the
        denominator."""
        return direction if self.eps is None else before_norm(direction, self.weight, centres=self.centres)

    def __call__(self, x: Float[Tensor, "*shape model"]) -> Float[Tensor, "*shape model"]:
        if self.eps is None:
            return x
        if self.centres:
            return torch.nn.functional.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
        return torch.nn.functional.rms_norm(x, x.shape[-1:], self.weight, self.eps) + self.bias


@dataclass(frozen=True, eq=False)
class Layer:
    """The weights of one layer. `w_q`, `w_k`, `w_v`: [head, model, d_head], keys and values repeated where heads share
    them."""

    norm_attn: Norm
    norm_mlp: Norm
    w_q: Float[Tensor, "head model d_head"]
    w_k: Float[Tensor, "head model d_head"]
    w_v: Float[Tensor, "head model d_head"]
    b_q: Float[Tensor, "head d_head"]
    b_k: Float[Tensor, "head d_head"]
    b_v: Float[Tensor, "head d_head"]
    w_o: Float[Tensor, "head d_head model"]
    b_o: Float[Tensor, " model"]
    w_in: Float[Tensor, "model neuron"]
    b_in: Float[Tensor, " neuron"]
    w_gate: Float[Tensor, "model neuron"] | None
    b_gate: Float[Tensor, " neuron"] | None
    w_out: Float[Tensor, "neuron model"]
    b_out: Float[Tensor, " model"]


@dataclass(frozen=True, eq=False)
class Network:
    """A whole model. `rotary` holds (cos, sin), [offset, rotated], or None; `positions` are added embeddings, or
    None."""

    layers: tuple[Layer, ...]
    embed: Float[Tensor, "vocab model"]
    positions: Float[Tensor, "offset model"] | None
    rotary: tuple[Float[Tensor, "offset rotated"], Float[Tensor, "offset rotated"]] | None
    norm_final: Norm
    unembed: Float[Tensor, "model vocab"]
    b_unembed: Float[Tensor, " vocab"]
    act: Callable[[Tensor], Tensor]
    parallel: bool
    attn_scale: float

    @property
    def n_layers(self) -> int:
        """Layers."""
        return len(self.layers)

    @property
    def n_heads(self) -> int:
        """Heads of a layer."""
        return self.layers[0].w_q.shape[0]

    @property
    def d_mlp(self) -> int:
        """Neurons of a layer."""
        return self.layers[0].w_in.shape[1]

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.embed.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embed.device


@dataclass(frozen=True, eq=False)
class Past:
    """Keys and values of the offsets before `first`, [prompt offset head d_head] per layer (empty where not run)."""

    first: int
    k: tuple[Tensor, ...]
    v: tuple[Tensor, ...]


def unchanged(_site: str, _layer: int, value: Tensor, _offsets: Offsets) -> Tensor:
    """The edit that changes nothing."""
    return value


def forward(
    net: Network,
    tokens: Int[Tensor, "prompt offset"],
    edit: Edit = unchanged,
    ends: Int[Tensor, " prompt"] | None = None,
) -> Float[Tensor, "prompt vocab"] | Float[Tensor, "prompt offset vocab"]:
    """Logits: of every offset, or of each prompt's offset in `ends`."""
    return resume(net, 0, start(net, tokens, edit), edit, ends)


def resume(
    net: Network, layer: int, stream: Stream, edit: Edit = unchanged, ends: Offsets = None, past: Past | None = None
) -> Tensor:
    """Logits from the residual stream that `layer` reads; `layer` may be the number of layers.

    Args:
        past: keys and values of the offsets before those in `stream`, where these are known; `ends` count from 0.
    """
    local = None if ends is None else ends - (past.first if past else 0)
    if layer == net.n_layers and ends is not None and stream.shape[1] > 1:
        stream = at(stream, local)
    for number in range(layer, net.n_layers):
        stream = layer_step(net, number, stream, edit, ends if number == net.n_layers - 1 else None, past)
    return finish(net, stream, edit, ends)


def token_directions(net: Network, tokens: Int[Tensor, "*position"]) -> Float[Tensor, "*position model"]:
    """Of each token, the direction whose product with a write is its centred logit, up to the final norm's
    denominator."""
    return net.norm_final.before(net.unembed.T[tokens] - net.unembed.mean(1))


def start(net: Network, tokens: Int[Tensor, "prompt offset"], edit: Edit = unchanged) -> Stream:
    """The residual stream that the first layer reads."""
    stream = edit("embed", 0, net.embed[tokens], None)
    return stream if net.positions is None else stream + net.positions[: tokens.shape[1]]


def finish(net: Network, stream: Stream, edit: Edit, ends: Offsets) -> Tensor:
    """Logits from the final residual stream; without the offset axis where `ends` are given."""
    stream = edit("resid_final", net.n_layers, stream, ends)
    logits = net.norm_final(stream) @ net.unembed + net.b_unembed
    return logits if ends is None else logits[:, 0]


def layer_step(
    net: Network, layer: int, stream: Stream, edit: Edit, ends: Offsets = None, past: Past | None = None
) -> Float[Tensor, "prompt kept model"]:
    """What one layer makes of the residual stream; at `ends` alone where they are given."""
    stream = edit("resid_pre", layer, stream, None)
    normed = net.layers[layer].norm_attn(stream)
    attended = edit("attn_out", layer, attention(net, layer, normed, edit, ends, past), ends)
    kept = at(stream, None if ends is None else ends - (past.first if past else 0))
    middle = kept + attended
    written = edit("mlp_out", layer, mlp(net, layer, kept if net.parallel else middle, edit, ends), ends)
    return middle + written


def at(value: Shaped[Tensor, "prompt offset *rest"], offsets: Offsets) -> Tensor:
    """The value at one offset a prompt (the axis stays, with size 1), or all of it."""
    return value if offsets is None else value[torch.arange(len(value), device=value.device), offsets][:, None]


def attention(
    net: Network, layer: int, x: Stream, edit: Edit, ends: Offsets, past: Past | None = None
) -> Float[Tensor, "prompt query model"]:
    """attn_out of one layer from the normed residual stream."""
    w, first = net.layers[layer], past.first if past else 0
    local = None if ends is None else ends - first
    q = edit("q", layer, project(at(x, local), w.w_q, w.b_q), ends)
    k = edit("k", layer, project(x, w.w_k, w.b_k), None)
    v = edit("v", layer, project(x, w.w_v, w.b_v), None)
    if past:
        k, v = torch.cat([past.k[layer], k], 1), torch.cat([past.v[layer], v], 1)
    queries = torch.arange(first, k.shape[1], device=k.device)[None] if ends is None else ends[:, None]
    pattern = edit("pattern", layer, attend(net, q, k, queries), ends)
    mixed = edit("head", layer, mix(pattern, v), ends)
    return mixed.flatten(-2) @ w.w_o.flatten(0, 1) + w.b_o


def project(x: Stream, weight: Float[Tensor, "head model d_head"], bias: Float[Tensor, "head d_head"]) -> PerHead:
    """Queries, keys or values of all heads."""
    flat = weight.permute(1, 0, 2).reshape(weight.shape[1], -1)
    by_head: Tensor = (x @ flat).unflatten(-1, bias.shape)
    return by_head + bias


def attend(
    net: Network,
    q: Float[Tensor, "prompt query head d_head"],
    k: Float[Tensor, "prompt key head d_head"],
    queries: Int[Tensor, "prompt_or_1 query"],
) -> Float[Tensor, "prompt head query key"]:
    """Attention patterns: rotation, scores, causal mask, softmax. `queries` are the offsets of q; keys begin at 0."""
    everywhere = torch.arange(k.shape[1], device=k.device)
    scores = torch.einsum("pqhd,pkhd->phqk", rotate(net, q, queries), rotate(net, k, everywhere[None]))
    later = everywhere[None, None, :] > queries[..., None]
    return (scores * net.attn_scale).masked_fill(later[:, None], NONE_READ).softmax(-1)


def mix(
    pattern: Float[Tensor, "prompt head query key"], v: Float[Tensor, "prompt key head d_head"]
) -> Float[Tensor, "prompt query head d_head"]:
    """Values mixed by the pattern, [prompt query head d_head]."""
    return torch.einsum("phqk,pkhd->pqhd", pattern, v)


def rotate(net: Network, x: PerHead, offsets: Int[Tensor, "prompt_or_1 offset"]) -> PerHead:
    """Rotary position embedding of the first dimensions, halves as pairs (Su et al. 2021, in the GPT-NeoX layout)."""
    if net.rotary is None:
        return x
    cos, sin = (table[offsets][:, :, None] for table in net.rotary)
    size = cos.shape[-1]
    turned, rest = x[..., :size], x[..., size:]
    first, second = turned.chunk(2, -1)
    return torch.cat([turned * cos + torch.cat([-second, first], -1) * sin, rest], -1)


def mlp(net: Network, layer: int, stream: Stream, edit: Edit, ends: Offsets) -> Stream:
    """mlp_out of one layer from the residual stream before its norm."""
    w = net.layers[layer]
    return edit("neuron", layer, neurons(net, layer, w.norm_mlp(stream)), ends) @ w.w_out + w.b_out


def neurons(net: Network, layer: int, x: Float[Tensor, "*shape model"]) -> Float[Tensor, "*shape neuron"]:
    """Activations after the nonlinearity from the normed residual stream."""
    w = net.layers[layer]
    read = x @ w.w_in + w.b_in
    if w.w_gate is None or w.b_gate is None:
        return net.act(read)
    return net.act(x @ w.w_gate + w.b_gate) * read
