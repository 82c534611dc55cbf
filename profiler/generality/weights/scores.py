"""Scores of a head's weights for copying and for matching of positions and tokens: one number a head.

| score | from | range |
|---|---|---|
| OV copying | sum of eigenvalues over sum of their sizes, of the full OV circuit | -1 suppresses, 1 copies |
| OV diagonal | mean rank of a token's own logit among all, when the head attends to it | 0 to 1, 0.5 by chance |
| QK previous | attention to the token before, if every token were the average one | 0 to 1 |
| QK duplicate | mean rank of the same token among keys, over tokens and distances | 0 to 1, 0.5 by chance |
| QK induction | the same, for keys as the best earlier previous-token head writes them | 0 to 1, 0.5 by chance |

The full OV circuit is embedding - values - output - unembedding (Elhage et al. 2021, "Copying"). Tokens are taken alone
(inputs.py). The eigenvalues are those of the small matrix d_head x d_head, which are the same but for zeros.
Scores with the average token use the mean query and the mean key, which give the mean score
over all pairs of tokens exactly; weighted by how often tokens occur, where that is known. Cost: [token, vocab]
products.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from profiler.generality.weights import inputs as parts
from profiler.generality.weights.inputs import Alone
from profiler.model.steps.plain import PlainNetwork, rotate

ROWS = 1024
KEYS = 256
NEIGHBOURS = 32
SKIPPED = 8
PerHead = Float[Tensor, "layer head"]
SCORES = ("OV copying", "OV diagonal", "QK previous", "QK duplicate", "QK induction")


@dataclass(frozen=True, eq=False)
class HeadScores:
    """Every score of every head. `partner`: of each head, the previous-token head before it, (layer, head), or None."""

    values: dict[str, PerHead]
    partners: dict[int, tuple[int, int] | None]


@dataclass(frozen=True, eq=False)
class WordSample:
    """Tokens that scores are taken over.

    Attributes:
        frequency: of each token of the vocabulary, sums to 1.
        rows: tokens whose own rank is looked at.
        keys: tokens that queries and keys are matched over.
    """

    frequency: Float[Tensor, " vocab"]
    rows: Int[Tensor, " row"]
    keys: Int[Tensor, " key"]


def vocabulary(net: PlainNetwork, counts: Int[Tensor, " vocab"] | None = None, seed: int = 0) -> WordSample:
    """Tokens drawn without replacement, by how often they occur, or evenly where that is not known."""
    size = net.embed.shape[0]
    given = torch.ones(size, dtype=torch.float64) if counts is None else counts.double().cpu()
    frequency = given / given.sum()
    rng = torch.Generator().manual_seed(seed)
    drawn = torch.multinomial(frequency, min(ROWS, int((frequency > 0).sum())), generator=rng)
    parts_on_device = [part.to(net.device) for part in (frequency.to(net.embed.dtype), drawn, drawn[:KEYS])]
    return WordSample(*parts_on_device)


@torch.inference_mode()
def score(net: PlainNetwork, seen: Alone, words: WordSample) -> HeadScores:
    """All scores of all heads."""
    values = {name: torch.zeros(net.n_layers, net.n_heads, dtype=torch.float64) for name in SCORES}
    toward = parts.unembedding(net)
    for layer, head in heads(net):
        ov = value_paths(net, seen, layer, head, toward)
        values["OV copying"][layer, head] = eigen_copying(*ov)
        values["OV diagonal"][layer, head] = float(parts.diagonal_rank(ov[0][words.rows] @ ov[1], words.rows).mean())
        values["QK previous"][layer, head] = previous(net, seen, words, layer, head)
        values["QK duplicate"][layer, head] = float(token_matching(net, seen, words, layer, head).mean())
    partners = {layer: partner_of(values["QK previous"], layer) for layer in range(net.n_layers)}
    for layer, head in heads(net):
        through = partners[layer]
        if through is not None:
            values["QK induction"][layer, head] = float(induction(net, seen, words, layer, head, through).mean())
        else:
            values["QK induction"][layer, head] = 0.5
    return HeadScores(values, partners)


def heads(net: PlainNetwork) -> list[tuple[int, int]]:
    """Layer and number of every head."""
    return [(layer, head) for layer in range(net.n_layers) for head in range(net.n_heads)]


def value_paths(
    net: PlainNetwork, seen: Alone, layer: int, head: int, toward: Float[Tensor, "vocab model"]
) -> tuple[Float[Tensor, "vocab d_head"], Float[Tensor, "d_head vocab"]]:
    """The two factors of the OV circuit: values of every token (centred over tokens), and the logits that they give."""
    values = parts.read(net, layer, head, "v", seen.at(layer))
    return values - values.mean(0), net.layers[layer].w_o[head] @ toward.T


def eigen_copying(values: Float[Tensor, "vocab d_head"], logits: Float[Tensor, "d_head vocab"]) -> float:
    """Sum of eigenvalues over sum of their sizes of values @ logits, from the small matrix logits @ values; 0 for a
    zero matrix."""
    eigenvalues = torch.linalg.eigvals((logits @ values).double())
    size = eigenvalues.abs().sum()
    return float(eigenvalues.real.sum() / size) if size > 0 else 0.0


def mean_scores(net: PlainNetwork, seen: Alone, words: WordSample, layer: int, head: int, width: int) -> Tensor:
    """Mean attention scores over all pairs of tokens, [query, key] of a window of `width`; keys later than queries
    included."""
    offsets = torch.arange(width, device=net.device)
    stream = seen.at(layer)
    if net.positions is None:
        q, k = (words.frequency @ parts.read(net, layer, head, what, stream) for what in ("q", "k"))
        q, k = q.expand(width, -1), k.expand(width, -1)
    else:
        by_offset = [parts.at_offset(net, stream, int(offset)) for offset in offsets]
        q, k = (
            torch.stack([words.frequency @ parts.read(net, layer, head, what, x) for x in by_offset])
            for what in ("q", "k")
        )
    q, k = (rotate(net, x[None, :, None], offsets[None])[0, :, 0] for x in (q, k))
    return q @ k.T * net.attn_scale


def previous(net: PlainNetwork, seen: Alone, words: WordSample, layer: int, head: int) -> float:
    """Mean attention to the offset before from mean scores, over the last offsets of a window of NEIGHBOURS."""
    width = min(NEIGHBOURS, 2 * parts.offset_of(net))
    scores = mean_scores(net, seen, words, layer, head, width)
    later = torch.ones(width, width, dtype=torch.bool, device=scores.device).triu(1)
    pattern = scores.masked_fill(later, -torch.inf).softmax(-1)
    return float(pattern.diagonal(-1)[min(SKIPPED, width // 2) :].mean())


def token_matching(net: PlainNetwork, seen: Alone, words: WordSample, layer: int, head: int) -> Float[Tensor, " key"]:
    """Rank of each token's own key among all keys, mean over distances."""
    return _ranks(net, words, lambda what, offset: _tokens(net, seen, words, layer, head, what, offset))


def induction(
    net: PlainNetwork, seen: Alone, words: WordSample, layer: int, head: int, through: tuple[int, int]
) -> Float[Tensor, " key"]:
    """The same where a key holds what the earlier head `through` writes when it attends to the token."""
    keys = written_keys(net, seen, layer, head, through)[words.keys]
    return _ranks(
        net, words, lambda what, offset: _tokens(net, seen, words, layer, head, what, offset) if what == "q" else keys
    )


def written_keys(
    net: PlainNetwork, seen: Alone, layer: int, head: int, through: tuple[int, int]
) -> Float[Tensor, "vocab d_head"]:
    """Keys made of one earlier head's write of each token; the norm's denominator, one number for all, is left out."""
    write = parts.read(net, *through, "v", seen.at(through[0])) @ net.layers[through[0]].w_o[through[1]]
    norm = net.layers[layer].norm_attn
    if norm.eps is not None:
        write = (write - write.mean(-1, keepdim=True) if norm.centres else write) * norm.weight
    return write @ net.layers[layer].w_k[head]


def _tokens(net: PlainNetwork, seen: Alone, words: WordSample, layer: int, head: int, what: str, offset: int) -> Tensor:
    return parts.read(net, layer, head, what, parts.at_offset(net, seen.at(layer)[words.keys], offset))


def _ranks(net: PlainNetwork, words: WordSample, side: Callable[[str, int], Tensor]) -> Float[Tensor, " key"]:
    offset = parts.offset_of(net)
    own = torch.arange(len(words.keys), device=net.device)
    ranks = [
        parts.diagonal_rank(parts.matches(net, side("q", offset), side("k", offset - distance), offset, distance), own)
        for distance in parts.distances_of(net)
    ]
    return torch.stack(ranks).mean(0)


def partner_of(previous_scores: PerHead, layer: int) -> tuple[int, int] | None:
    """The head before a layer that is most a previous-token head by its weights; None for the first layer."""
    if not layer:
        return None
    before = previous_scores[:layer]
    return divmod(int(before.argmax()), before.shape[1])
