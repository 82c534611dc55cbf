"""Where heads attend from, at the positions asked for: a few numbers per head that name its behaviour there.

Definitions follow the induction-heads paper (Olsson et al. 2022) and its predecessors: `previous_token` is the weight
on the token before, `first_token` on offset 0 (the attention sink), `duplicate` on earlier copies of the current token,
`induction` on tokens that follow an earlier copy: tokens before the position, as a doubled token follows its own copy
and attention to itself is `self`. `prefix_induction` asks for more than the copy: the token before it must match too (A
B ... A B -> what followed B), the fuzzier matching that strict induction leaves out. `newline` and `delimiter` are
weights on tokens of those classes. `sink` is what a row lacks of 1: weight on a learned sink of the head's own, which
is no token (gpt-oss).
Cost: a handful of sums over the attention rows asked for.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from profiler.text.token_classes import CLASS_ID, DELIMITERS

MASSES = (
    "previous_token",
    "two_back",
    "first_token",
    "self",
    "induction",
    "prefix_induction",
    "duplicate",
    "newline",
    "delimiter",
)
MEASURES = (*MASSES, "entropy", "top_offset", "top_weight", "sink")
SINK_ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
"""What a row may lack of 1 by rounding alone, by the dtype of its weights: less counts as no sink."""


def _copies(
    tokens: Int[Tensor, "query key_offset"], offsets: Int[Tensor, " query"]
) -> Float[Tensor, "query key_offset"]:
    """1 at earlier offsets that hold the same token as the query's."""
    index = torch.arange(tokens.shape[1], device=tokens.device)
    current = tokens.gather(1, offsets[:, None])
    return ((tokens == current) & (index < offsets[:, None])).float()


def _longer_copies(
    copies: Float[Tensor, "query key_offset"], tokens: Int[Tensor, "query key_offset"], offsets: Int[Tensor, " query"]
) -> Float[Tensor, "query key_offset"]:
    """Of the copies, those whose token before is the query's token before; none for a query at offset 0."""
    before = tokens.gather(1, (offsets - 1).clamp_min(0)[:, None])
    same = torch.nn.functional.pad((tokens == before)[:, :-1].float(), (1, 0))
    return copies * same * (offsets > 0)[:, None]


def _back(offsets: Int[Tensor, " query"], steps: int, width: int) -> Int[Tensor, "query key_offset"]:
    """1 at the offset `steps` before the query's, nowhere if there is none."""
    source = torch.nn.functional.one_hot((offsets - steps).clamp_min(0), width)
    return source * (offsets >= steps)[:, None]


def _of_class(classes: Int[Tensor, "query key_offset"], names: tuple[str, ...]) -> Float[Tensor, "query key_offset"]:
    ids = torch.tensor([CLASS_ID[name] for name in names], device=classes.device)
    return torch.isin(classes, ids).float()


def masks(
    tokens: Int[Tensor, "query key_offset"], classes: Int[Tensor, "query key_offset"], offsets: Int[Tensor, " query"]
) -> Float[Tensor, "query mass key_offset"]:
    """1 where attention counts towards each of MASSES.

    Args:
        tokens: the tokens of the query's window.
        classes: their classes (special ones for a BOS put before a window).
        offsets: the query's own offset.
    """
    width = tokens.shape[1]
    copies = _copies(tokens, offsets)
    longer = _longer_copies(copies, tokens, offsets)
    before = torch.arange(width, device=tokens.device) < offsets[:, None]
    follow = [torch.nn.functional.pad(sources, (1, -1)) * before for sources in (copies, longer)]
    first = _back(torch.zeros_like(offsets), 0, width)
    sources = [_back(offsets, 1, width), _back(offsets, 2, width), first, _back(offsets, 0, width), *follow, copies]
    sources += [_of_class(classes, ("newline",)), _of_class(classes, DELIMITERS)]
    return torch.stack([source.float() for source in sources], 1)


def summarise(
    pattern: Float[Tensor, "query head key_offset"],
    counted: Float[Tensor, "query mass key_offset"],
    offsets: Int[Tensor, " query"],
) -> Float[Tensor, "query head measure"]:
    """The numbers of MEASURES for each head at each query position.

    Args:
        pattern: attention rows; they sum to 1, or to less where a head has a sink.
        counted: `masks` of the queries, the same for all layers.
        offsets: the query's own offset.

    Returns:
        Weights in [0, 1], entropy in nats (of the weights on tokens), top_offset in tokens back from the query.
    """
    lacking = 1 - pattern.double().sum(-1)
    sink = lacking.where(lacking > SINK_ROUNDING[pattern.dtype], 0.0).float()
    pattern = pattern.float()
    weights = torch.einsum("qhk,qmk->qhm", pattern, counted)
    entropy = torch.special.entr(pattern).sum(-1)
    top_weight, top = pattern.max(-1)
    rest = torch.stack([entropy, (offsets[:, None] - top).float(), top_weight, sink], -1)
    return torch.cat([weights, rest], -1)


def attended(
    pattern: Float[Tensor, "query head key_offset"], tokens: Int[Tensor, "query key_offset"]
) -> Int[Tensor, "query head"]:
    """The token each head attends to most."""
    return tokens.gather(1, pattern.argmax(-1))
