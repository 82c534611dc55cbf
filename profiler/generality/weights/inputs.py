"""Inputs of a model's weights: what a token alone looks like to a layer, and what a head reads and writes of it.

Why: weights say what a head would do with a token, not with text. A token is taken as a layer sees it where nothing but
the token (and the BOS before it) stands: for layer 0 its embedding, for later ones its embedding with what layer 0 adds
(its effective embedding; McDougall et al. 2023 found raw embeddings too poor a stand-in). Norms are applied as they
are; what that leaves out on text is measured in `weights_budget`.

Scores depend on where query and key stand: with rotary positions on their distance (the rotation is applied, so nothing
is averaged over it), with added positions on both. Every score is therefore taken at offset OFFSET and at distances.
Cost: layer 0 on two tokens for every token of the vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from profiler.model.steps.plain import PlainNetwork, rotate

OFFSET = 64
AT_ONCE = 4096
DISTANCES = (2, 4, 8, 16, 32)
"""Distances that token matching is averaged over: beyond the neighbours, where positional heads look."""

PerToken = Float[Tensor, "token model"]
Matches = Float[Tensor, "query_token key_token"]


@dataclass(frozen=True, eq=False)
class Alone:
    """Every token of the vocabulary as layers see it alone, without added positions: `first` for layer 0, `later` after
    it."""

    net: PlainNetwork
    first: Float[Tensor, "vocab model"]
    later: Float[Tensor, "vocab model"]

    def at(self, layer: int) -> Float[Tensor, "vocab model"]:
        """As a layer sees it."""
        return self.later if layer else self.first


@torch.inference_mode()
def alone(net: PlainNetwork, bos: int | None = None) -> Alone:
    """Run layer 0 on every token by itself, behind `bos` where the model is used with one."""
    vocab = net.embed.shape[0]
    parts = []
    for tokens in torch.arange(vocab, device=net.device).split(AT_ONCE):
        before = [] if bos is None else [torch.full_like(tokens, bos)]
        steps = net.begin(torch.stack([*before, tokens], 1))
        stream = steps.layer(0, steps.stream)[:, -1]
        parts.append(stream if net.positions is None else stream - net.positions[len(before)])
    return Alone(net, net.embed, torch.cat(parts))


def at_offset(net: PlainNetwork, stream: Tensor, offset: int | Int[Tensor, " offset"]) -> Tensor:
    """The stream with the added position of an offset, where the model adds positions."""
    return stream if net.positions is None else stream + net.positions[offset]


def read(net: PlainNetwork, layer: int, head: int, what: str, stream: Float[Tensor, "*shape model"]) -> Tensor:
    """Queries, keys or values (`q`, `k`, `v`) of one head from a residual stream, before rotation."""
    w = net.layers[layer]
    weight, bias = getattr(w, f"w_{what}")[head], getattr(w, f"b_{what}")[head]
    made: Tensor = w.norm_attn(stream) @ weight + bias
    return made


def turned(net: PlainNetwork, x: Float[Tensor, "token d_head"], offset: int) -> Float[Tensor, "token d_head"]:
    """Queries or keys as they are at an offset."""
    offsets = torch.full((1, 1), offset, device=x.device)
    return rotate(net, x[:, None, None], offsets.expand(len(x), 1))[:, 0, 0]


def matches(
    net: PlainNetwork,
    q: Float[Tensor, "query_token d_head"],
    k: Float[Tensor, "key_token d_head"],
    offset: int,
    distance: int,
) -> Matches:
    """Attention scores of each query token at `offset` with each key token `distance` before it."""
    return turned(net, q, offset) @ turned(net, k, offset - distance).T * net.attn_scale


def offset_of(net: PlainNetwork) -> int:
    """Where scores are taken: OFFSET, or the middle of a shorter context."""
    longest = next((len(t) for t in (net.positions, net.rotary and net.rotary[0]) if t is not None), 2 * OFFSET)
    return min(OFFSET, longest // 2)


def distances_of(net: PlainNetwork) -> Sequence[int]:
    """DISTANCES that fit before the offset."""
    return [distance for distance in DISTANCES if distance <= offset_of(net)] or [1]


def unembedding(net: PlainNetwork) -> PerToken:
    """Direction of each token's centred logit in the residual stream."""
    return net.toward(torch.arange(net.n_vocab, device=net.device))


def diagonal_rank(scores: Float[Tensor, "row column"], own: Int[Tensor, " row"]) -> Float[Tensor, " row"]:
    """Share of the other columns below each row's own column, in [0, 1]; ties count half. 1: the own one is highest."""
    mine = scores.gather(1, own[:, None])
    below, equal = (scores < mine).sum(1), (scores == mine).sum(1) - 1
    return (below + equal / 2).to(torch.float64) / max(1, scores.shape[1] - 1)
