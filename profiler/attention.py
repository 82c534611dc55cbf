"""Where heads attend from, at the positions asked for: a few numbers per head that name its behaviour there.

Definitions follow the induction-heads paper (Olsson et al. 2022) and its predecessors: `previous` is the weight on the
token before, `duplicate` on earlier copies of the current token, `induction` on tokens that follow an earlier copy.
Cost: a handful of sums over the attention rows asked for.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

MEASURES = ("previous", "first", "self", "induction", "duplicate", "entropy", "top_offset", "top_weight")


def _copies(
    tokens: Int[Tensor, "query key_offset"], offsets: Int[Tensor, " query"]
) -> Float[Tensor, "query key_offset"]:
    """1 at earlier offsets that hold the same token as the query's."""
    places = torch.arange(tokens.shape[1], device=tokens.device)
    current = tokens.gather(1, offsets[:, None])
    return ((tokens == current) & (places < offsets[:, None])).float()


def summarise(
    pattern: Float[Tensor, "query head key_offset"],
    tokens: Int[Tensor, "query key_offset"],
    offsets: Int[Tensor, " query"],
) -> Float[Tensor, "query head measure"]:
    """The numbers of MEASURES for each head at each query position.

    Args:
        pattern: attention rows; they sum to 1.
        tokens: the tokens of the query's window.
        offsets: the query's own offset.

    Returns:
        Weights in [0, 1], entropy in nats, top_offset in tokens back from the query.
    """
    pattern = pattern.float()
    copies = _copies(tokens, offsets)
    followers = torch.nn.functional.pad(copies, (1, -1))
    one = torch.nn.functional.one_hot
    width = pattern.shape[-1]
    previous = one((offsets - 1).clamp_min(0), width) * (offsets > 0)[:, None]
    masks = torch.stack(
        [previous, one(torch.zeros_like(offsets), width), one(offsets, width), followers, copies], 1
    ).float()
    weights = torch.einsum("qhk,qmk->qhm", pattern, masks)
    entropy = torch.special.entr(pattern).sum(-1)
    top_weight, top = pattern.max(-1)
    rest = torch.stack([entropy, (offsets[:, None] - top).float(), top_weight], -1)
    return torch.cat([weights, rest], -1)


def attended(
    pattern: Float[Tensor, "query head key_offset"], tokens: Int[Tensor, "query key_offset"]
) -> Int[Tensor, "query head"]:
    """The token each head attends to most."""
    return tokens.gather(1, pattern.argmax(-1))
