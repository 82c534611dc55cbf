"""A transformer as plain functions of weights that are written out: for what reads weights one by one.

The forms of GPT-2, GPT-NeoX (sequential and parallel) and Llama. Readings of weights (`profiler.generality.weights`)
and edges (`profiler.circuits.edge_mask`) need every head's queries, keys and values as matrices, and every reader its
own input; models built by hand are written so, too. `profiler.model.steps.as_network` reads them off a model and
checks that the logits are the model's. Everything else acts on the model's own modules
(`profiler.model.steps.network`).

Cost: one forward pass; heads are not written out one by one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from profiler.model.norms import before_norm
from profiler.model.steps.network import Edit, Network, Offsets, Past, PerHead, Steps, Stream, at, unchanged

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
class PlainNetwork(Network):
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

    inside_attention = True
    narrow_end = True
    heads_apart = True
    other_kinds = False

    @property
    def n_layers(self) -> int:  # type: ignore[override]
        return len(self.layers)

    @property
    def n_heads(self) -> int:  # type: ignore[override]
        return self.layers[0].w_q.shape[0]

    @property
    def d_mlp(self) -> int:  # type: ignore[override]
        return self.layers[0].w_in.shape[1]

    @property
    def d_model(self) -> int:  # type: ignore[override]
        return self.embed.shape[1]

    @property
    def n_vocab(self) -> int:  # type: ignore[override]
        return self.embed.shape[0]

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.embed.device

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        return self.embed.dtype

    @property
    def places_matter(self) -> bool:  # type: ignore[override]
        return self.positions is not None

    @property
    def plain(self) -> "PlainNetwork":
        return self

    def heads(self, layer: int) -> int:
        return self.layers[layer].w_q.shape[0]

    def neurons(self, layer: int) -> int:
        return self.layers[layer].w_in.shape[1]

    def has_mlp(self, layer: int) -> bool:  # noqa: ARG002
        return True

    def begin(
        self, tokens: Int[Tensor, "prompt offset"], edit: Edit = unchanged, past: Past | None = None
    ) -> "PlainSteps":
        first = past.first if past else 0
        stream = edit("embed", 0, self.embed[tokens[:, first:]], None)
        stream = stream if self.positions is None else stream + self.positions[first : tokens.shape[1]]
        return PlainSteps(self, stream, len(tokens), past)

    def past(self, tokens: Int[Tensor, "prompt offset"], first: int) -> Past | None:
        if not first:
            return None
        stored: dict[str, list[Tensor]] = {"k": [], "v": []}

        def keep(site: str, _layer: int, value: Tensor, _offsets: Offsets) -> Tensor:
            if site in stored:
                stored[site].append(value)
            return value

        steps = self.begin(tokens[:, :first])
        stream = steps.stream
        for layer in range(self.n_layers):
            stream = steps.layer(layer, stream, keep)
        return Past(first, (tuple(stored["k"]), tuple(stored["v"])))

    def logits(self, stream: Float[Tensor, "*shape model"]) -> Float[Tensor, "*shape vocab"]:
        return self.norm_final(stream) @ self.unembed + self.b_unembed

    def toward(self, tokens: Int[Tensor, "*position"]) -> Float[Tensor, "*position model"]:
        return self.norm_final.before(self.unembed.T[tokens] - self.unembed.mean(1))

    def toward_from(
        self,
        site: str,  # noqa: ARG002
        layer: int,  # noqa: ARG002
        tokens: Int[Tensor, "*position"],
    ) -> Float[Tensor, "*position model"]:
        return self.toward(tokens)

    def logit_bias(self, tokens: Int[Tensor, "*position"]) -> Float[Tensor, "*position"]:
        norm = self.norm_final
        bias = self.b_unembed if norm.eps is None else norm.bias @ self.unembed + self.b_unembed
        return bias[tokens] - bias.mean()

    def final_scale(self, stream: Float[Tensor, "*shape model"]) -> Float[Tensor, "*shape 1"]:
        return self.norm_final.scale(stream)

    def embedded(self, value: Float[Tensor, "*shape model"]) -> Float[Tensor, "*shape model"]:
        return value

    def w_o(self, layer: int) -> Float[Tensor, "head d_head model"]:
        return self.layers[layer].w_o

    def w_out(self, layer: int) -> Float[Tensor, "neuron model"]:
        return self.layers[layer].w_out

    def out_bias(self, site: str, layer: int) -> Float[Tensor, " model"] | None:
        return self.layers[layer].b_o if site == "attn_out" else self.layers[layer].b_out

    def own_norm(self, site: str, layer: int) -> bool:  # noqa: ARG002
        return False

    def added(
        self,
        site: str,  # noqa: ARG002
        layer: int,  # noqa: ARG002
        written: Float[Tensor, "*shape model"],
        out: Float[Tensor, "*#shape model"],  # noqa: ARG002
    ) -> Float[Tensor, "*shape model"]:
        return written

    def added_bias(self, site: str, layer: int) -> Float[Tensor, " model"] | None:  # noqa: ARG002
        return None


class PlainSteps(Steps):
    """A forward pass of weights written out."""

    def __init__(self, net: PlainNetwork, stream: Stream, n: int, past: Past | None):
        self.net: PlainNetwork
        self.net, self.stream, self._n, self._past = net, stream, n, past
        self.first = past.first if past else 0

    def _past_of(self, number: int, rows: int) -> tuple[Tensor, Tensor] | None:
        """Keys and values of a layer for the earlier offsets of all rows."""
        if self._past is None:
            return None
        k, v = (part[number].repeat(rows // self._n, 1, 1, 1) for part in self._past.stored)
        return k, v

    def layer(
        self, number: int, stream: Stream, edit: Edit = unchanged, ends: Offsets = None, *, patterns: bool = True
    ) -> Float[Tensor, "prompt computed model"]:
        stream = edit("resid_pre", number, stream, None)
        past = self._past_of(number, len(stream))
        mixed = mix_heads(self.net, number, stream, edit, ends, past, patterns=patterns)
        return self._after(number, at(stream, self._local(ends)), mixed, edit, ends)

    def _local(self, ends: Offsets) -> Offsets:
        return None if ends is None else ends - self.first

    def _after(self, number: int, read: Stream, mixed: PerHead, edit: Edit, ends: Offsets) -> Stream:
        w = self.net.layers[number]
        attended = edit("attn_out", number, mixed.flatten(-2) @ w.w_o.flatten(0, 1) + w.b_o, ends)
        return self._mlp(number, read, attended, edit, ends)

    def _mlp(self, number: int, read: Stream, attended: Stream, edit: Edit, ends: Offsets) -> Stream:
        w, middle = self.net.layers[number], read + attended
        x = w.norm_mlp(read if self.net.parallel else middle)
        post = edit("neuron", number, neurons(self.net, number, x), ends)
        return middle + edit("mlp_out", number, post @ w.w_out + w.b_out, ends)

    def heads(self, number: int, stream: Stream, edit: Edit = unchanged, *, patterns: bool = False) -> PerHead:
        past = self._past_of(number, len(stream))
        return mix_heads(self.net, number, stream, edit, None, past, patterns=patterns)

    def pattern(self, number: int, stream: Stream, edit: Edit) -> Float[Tensor, "prompt head query key"]:
        left: list[Tensor] = []

        def seen(site: str, layer: int, value: Tensor, offsets: Offsets) -> Tensor:
            value = edit(site, layer, value, offsets)
            if site == "pattern":
                left.append(value)
            return value

        self.heads(number, stream, seen, patterns=True)
        return left[0]

    def neurons(
        self, number: int, stream: Stream, heads: PerHead, ends: Offsets = None
    ) -> Float[Tensor, "prompt computed neuron"]:
        w, read = self.net.layers[number], self._narrow(stream, ends)
        attended = self._narrow(heads, ends).flatten(-2) @ w.w_o.flatten(0, 1) + w.b_o
        return neurons(self.net, number, w.norm_mlp(read if self.net.parallel else read + attended))

    def rest(
        self,
        number: int,
        stream: Stream,
        *,
        heads: PerHead | None = None,
        attn_out: Stream | None = None,
        neurons: Float[Tensor, "prompt offset neuron"] | None = None,
        mlp_out: Stream | None = None,
        others: dict[str, Tensor] | None = None,  # noqa: ARG002
        edit: Edit = unchanged,
        ends: Offsets = None,
    ) -> Float[Tensor, "prompt computed model"]:
        w, read = self.net.layers[number], self._narrow(stream, ends)
        if attn_out is None:
            assert heads is not None
            attn_out = heads.flatten(-2) @ w.w_o.flatten(0, 1) + w.b_o
        attn_out = self._narrow(attn_out, ends)
        if mlp_out is None and neurons is None:
            return self._mlp(number, read, attn_out, edit, ends)
        if mlp_out is None:
            assert neurons is not None
            mlp_out = neurons @ w.w_out + w.b_out
        return read + attn_out + self._narrow(mlp_out, ends)

    def _narrow(self, value: Tensor, ends: Offsets) -> Tensor:
        return value if ends is None or value.shape[1] == 1 else at(value, self._local(ends))


def mix_heads(
    net: PlainNetwork,
    layer: int,
    stream: Stream,
    edit: Edit,
    ends: Offsets,
    past: tuple[Tensor, Tensor] | None,
    *,
    patterns: bool,
) -> Float[Tensor, "prompt computed head d_head"]:
    """What each head mixes, from the residual stream; at `ends` alone where they are given.

    Args:
        past: keys and values of the offsets before the stream's.
    """
    w, x, first = net.layers[layer], net.layers[layer].norm_attn(stream), past[0].shape[1] if past else 0
    local = None if ends is None else ends - first
    q = edit("q", layer, project(at(x, local), w.w_q, w.b_q), ends)
    k = edit("k", layer, project(x, w.w_k, w.b_k), None)
    v = edit("v", layer, project(x, w.w_v, w.b_v), None)
    if past:
        k, v = torch.cat([past[0], k], 1), torch.cat([past[1], v], 1)
    queries = torch.arange(first, k.shape[1], device=k.device)[None] if ends is None else ends[:, None]
    if edit is unchanged or not patterns:
        mixed = fused(net, q, k, v, queries)
    else:
        mixed = mix(edit("pattern", layer, attend(net, q, k, queries), ends), v)
    return edit("head", layer, mixed, ends)


def fused(
    net: PlainNetwork,
    q: Float[Tensor, "prompt query head d_head"],
    k: Float[Tensor, "prompt key head d_head"],
    v: Float[Tensor, "prompt key head d_head"],
    queries: Int[Tensor, "prompt_or_1 query"],
) -> Float[Tensor, "prompt query head d_head"]:
    """The same as `mix(attend(...))` by PyTorch's kernel, which forms no pattern."""
    everywhere = torch.arange(k.shape[1], device=k.device)[None]
    whole = len(queries) == 1 and q.shape[1] == k.shape[1]
    seen = None if whole else (everywhere[:, None, :] <= queries[..., None])[:, None]
    q, k, v = (part.transpose(1, 2) for part in (rotate(net, q, queries), rotate(net, k, everywhere), v))
    return scaled_dot_product_attention(q, k, v, seen, is_causal=whole, scale=net.attn_scale).transpose(1, 2)


def project(x: Stream, weight: Float[Tensor, "head model d_head"], bias: Float[Tensor, "head d_head"]) -> PerHead:
    """Queries, keys or values of all heads."""
    flat = weight.permute(1, 0, 2).reshape(weight.shape[1], -1)
    by_head: Tensor = (x @ flat).unflatten(-1, bias.shape)
    return by_head + bias


def attend(
    net: PlainNetwork,
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


def rotate(net: PlainNetwork, x: PerHead, offsets: Int[Tensor, "prompt_or_1 offset"]) -> PerHead:
    """Rotary position embedding of the first dimensions, halves as pairs (Su et al. 2021, in the GPT-NeoX layout)."""
    if net.rotary is None:
        return x
    cos, sin = (table[offsets][:, :, None] for table in net.rotary)
    size = cos.shape[-1]
    turned, rest = x[..., :size], x[..., size:]
    first, second = turned.chunk(2, -1)
    return torch.cat([turned * cos + torch.cat([-second, first], -1) * sin, rest], -1)


def neurons(net: PlainNetwork, layer: int, x: Float[Tensor, "*shape model"]) -> Float[Tensor, "*shape neuron"]:
    """Activations after the nonlinearity from the normed residual stream."""
    w = net.layers[layer]
    read = x @ w.w_in + w.b_in
    if w.w_gate is None or w.b_gate is None:
        return net.act(read)
    return net.act(x @ w.w_gate + w.b_gate) * read
