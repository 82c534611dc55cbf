"""Composition of heads by their weights: the part of an earlier head's write that a later head's Q, K or V reads.

    Q: |W_OV W_Q R W_K^T| / (|W_OV| |W_Q R W_K^T|)
    K: |W_OV W_K R^T W_Q^T| / ...
    V: |W_OV W_OV'| / (|W_OV| |W_OV'|)

Frobenius norms (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Composition scores"), rows as
vectors, the later layer's norm weight and centring folded into what reads. A pair of unrelated matrices has a score
above 0: if either is turned by a random rotation of the residual stream, the mean of the squared score is exactly 1 /
d_model, so the corrected score is the score minus 1 / sqrt(d_model). R turns queries against keys by their distance,
where positions are rotary: the score is the mean over distances.

Norms of products come from Gram matrices of d_head x d_head. Cost: heads squared times d_head cubed.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from profiler.generality.weights import inputs as parts
from profiler.model.steps.plain import PlainNetwork

Kind = Literal["Q", "K", "V"]


@dataclass(frozen=True)
class Composition:
    """How much a later head reads of an earlier one; a row of the run file.

    Attributes:
        writer, reader: labels of the heads.
        kind: Q, K or V: what of the reader is meant.
        value: Elhage's score, between 0 and 1.
        baseline: what a random rotation between the two would give.
        corrected: value minus baseline.
    """

    writer: str
    reader: str
    kind: Kind
    value: float
    baseline: float
    corrected: float


def folded(net: PlainNetwork, layer: int, weight: Float[Tensor, "model d_head"]) -> Float[Tensor, "model d_head"]:
    """What a head reads from the residual stream itself: the norm's weight and centring in the matrix, its denominator
    left out."""
    norm = net.layers[layer].norm_attn
    if norm.eps is None:
        return weight
    weight = norm.weight[:, None] * weight
    return weight - weight.mean(0) if norm.centres else weight


def product_norm(
    left: Float[Tensor, "rows inner"], middle: Float[Tensor, "inner other"], right: Float[Tensor, "other columns"]
) -> float:
    """Frobenius norm of left @ middle @ right, from the Gram matrices of the outer two."""
    inner = (left.T @ left) @ middle @ (right @ right.T)
    return float((inner * middle).sum().clamp_min(0).sqrt())


def turn(net: PlainNetwork, x: Float[Tensor, "model d_head"], distance: int) -> Float[Tensor, "model d_head"]:
    """Rows of a query matrix turned as a query `distance` after its key."""
    offset = parts.offset_of(net)
    return x if net.rotary is None else parts.turned(net, x, min(distance, offset))


def score(net: PlainNetwork, writer: tuple[int, int], reader: tuple[int, int], kind: Kind) -> float:
    """The composition score of two heads; the writer's layer comes first."""
    (before, a), (after, b) = writer, reader
    w, v = net.layers[after], net.layers[before]
    v_a, o_a = folded(net, before, v.w_v[a]).double(), v.w_o[a].double()
    eye = torch.eye(o_a.shape[0], dtype=torch.float64, device=o_a.device)
    size_a = product_norm(v_a, eye, o_a)
    if kind == "V":
        v_b, o_b = folded(net, after, w.w_v[b]).double(), w.w_o[b].double()
        return _ratio(product_norm(v_a, o_a @ v_b, o_b), size_a * product_norm(v_b, eye, o_b))
    q, k = folded(net, after, w.w_q[b]).double(), folded(net, after, w.w_k[b]).double()
    scores = []
    for distance in (1, *parts.distances_of(net)) if net.rotary is not None else (1,):
        turned = turn(net, q, distance)
        read, other = (turned, k) if kind == "Q" else (k, turned)
        scores.append(_ratio(product_norm(v_a, o_a @ read, other.T), size_a * product_norm(read, eye, other.T)))
    return sum(scores) / len(scores)


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else 0.0


def baseline(net: PlainNetwork) -> float:
    """Root mean square of the score under a random rotation of the residual stream between the two."""
    return float(net.d_model**-0.5)


def compositions(net: PlainNetwork, pairs: list[tuple[tuple[int, int], tuple[int, int]]]) -> tuple[Composition, ...]:
    """All three scores of some pairs of heads, earlier one first."""
    rows, chance = [], baseline(net)
    for writer, reader in pairs:
        for kind in ("Q", "K", "V"):
            value = score(net, writer, reader, kind)
            rows.append(Composition(_label(writer), _label(reader), kind, value, chance, value - chance))
    return tuple(rows)


def _label(head: tuple[int, int]) -> str:
    return f"L{head[0]}H{head[1]}"
