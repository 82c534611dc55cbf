"""Direct logit attribution to the realised next token, layer by layer, without any [component, position, model] tensor.

For a position with final norm denominator s and next token t, the logit of t minus the mean logit is linear in what each
component wrote to the residual stream, once s is held fixed (Elhage et al. 2021; nostalgebraist 2020):

    dla(write) = write . g,   g = centre(gamma * (u_t - mean_v u_v)) / s

where gamma is the final norm's weight, u the unembedding's rows, and centre() subtracts the mean for a LayerNorm and
does nothing for an RMSNorm (that the norm centres its input is moved onto g). The norm's bias, the unembedding's bias and
the embeddings are closing terms; with them the sum over all components is the centred target logit, up to rounding.

0. `final_norm`: s, and the centred target logit read off the final residual stream. cost: positions * d_model
1. `directions`: g for every position, one gather.                                  cost: positions * d_model
2. heads: z . (W_O g), so one product of g with W_O and a sum over d_head.          cost: positions * d_model^2
3. neurons: activation * (W_out g).                                                 cost: positions * d_model * d_mlp
4. closing terms: embeddings, biases.                                               cost: positions * d_model * layers
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from profiler.axes import Activations, HeadOutputs, PerPosition, Residual, Scale, Valid
from profiler.components import ModelSpec
from profiler.model import Capture, Weights


@dataclass(frozen=True)
class Part:
    """Values of a slice of components. Heads: activation is the norm of what the head writes. Neurons: the activation
    after the nonlinearity. Closing terms: the norm of the write. DLA in logits."""

    components: slice
    activation: Activations
    dla: Activations


def directions(
    weights: Weights, targets: Int[Tensor, "*shape"], scale: Float[Tensor, "*shape 1"]
) -> Float[Tensor, "*shape model"]:
    """g of the module docstring for each target and norm denominator, in the dtype of the weights."""
    centred = (weights.unembed[targets] - weights.unembed_mean) * weights.norm_scale
    if weights.centres:
        centred = centred - centred.mean(-1, keepdim=True)
    return centred / scale.to(centred.dtype)


def final_norm(residual: Residual, weights: Weights) -> tuple[Residual, Scale]:
    """The final residual stream as the final norm divides it (centred for a LayerNorm), and the denominator.

    Computed here and not by the model because some models (Llama's RMSNorm in transformers) round to float32 inside.
    """
    stream = residual.to(weights.unembed.dtype)
    if weights.centres:
        stream = stream - stream.mean(-1, keepdim=True)
    return stream, (stream.square().mean(-1, keepdim=True) + weights.eps).sqrt()


def centred_logit(
    stream: Residual, scale: Scale, weights: Weights, targets: Int[Tensor, "window offset"]
) -> PerPosition:
    """The target's logit minus the mean logit, from the final residual stream, float64."""
    direction = (weights.unembed[targets] - weights.unembed_mean) * weights.norm_scale
    return ((stream * direction).sum(-1) / scale[..., 0] + weights.token_bias[targets]).double()


def by_part(
    capture: Capture, weights: Weights, spec: ModelSpec, targets: Int[Tensor, "window offset"], scale: Scale
) -> Iterator[Part]:
    """Heads and neurons of each layer in turn, then the closing terms; one layer is in memory at a time."""
    toward = directions(weights, targets, scale)
    for layer in range(spec.n_layers):
        yield _heads(capture.heads[layer], weights.head_out[layer], weights.head_gram[layer], toward, spec.heads(layer))
        if spec.d_mlp:
            yield _neurons(capture.neurons[layer], weights.neuron_out[layer], toward, spec.neurons(layer))
    yield _closing(capture, weights, toward, targets, spec)


def _heads(
    z: HeadOutputs,
    w_o: Float[Tensor, "head d_head model"],
    gram: Float[Tensor, "head d_head d_head"],
    toward: Residual,
    components: slice,
) -> Part:
    z = z.to(toward.dtype)
    seen = torch.einsum("wom,hdm->wohd", toward, w_o)
    squared = (torch.einsum("wohd,hde->wohe", z, gram) * z).sum(-1)
    return Part(components, squared.clamp_min_(0).sqrt_(), (z * seen).sum(-1))


def _neurons(
    post: Float[Tensor, "window offset neuron"],
    w_out: Float[Tensor, "neuron model"],
    toward: Residual,
    components: slice,
) -> Part:
    post = post.to(toward.dtype)
    return Part(components, post, post * (toward @ w_out.T))


def _closing(
    capture: Capture, weights: Weights, toward: Residual, targets: Int[Tensor, "window offset"], spec: ModelSpec
) -> Part:
    writes = [capture.embed, torch.zeros_like(capture.embed) if capture.pos_embed is None else capture.pos_embed]
    terms = [(w.to(toward.dtype).norm(dim=-1), (w.to(toward.dtype) * toward).sum(-1)) for w in writes]
    for layer in range(spec.n_layers):
        terms += [
            (bias.norm().expand(targets.shape), toward @ bias)
            for bias in (weights.attn_bias[layer], weights.mlp_bias[layer])
        ]
    final = weights.token_bias[targets]
    terms.append((torch.ones_like(final), final))
    activation, dla = (torch.stack(values, -1) for values in zip(*terms, strict=True))
    return Part(spec.closing, activation, dla)


def attended_dla(
    z: Float[Tensor, "query head d_head"],
    w_o: Float[Tensor, "head d_head model"],
    weights: Weights,
    attended: Int[Tensor, "query head"],
    scale: Float[Tensor, "query 1"],
) -> Float[Tensor, "query head"]:
    """Logit, centred, that each head adds directly to the token it attends to: > 0 copies it, < 0 suppresses it."""
    toward = directions(weights, attended, scale[:, None].expand(*attended.shape, 1))
    return torch.einsum("qhd,hdm,qhm->qh", z.to(toward.dtype), w_o, toward)


@dataclass(frozen=True)
class Closure:
    """How well things add up, over `n` positions, in logits.

    Attributes:
        residual: largest |sum of all DLA - centred target logit of the final residual stream|.
        logit_residual: largest |centred target logit of the final residual stream - the model's own|.
        scale: largest |centred target logit|, which both are judged against.
    """

    n: int = 0
    residual: float = 0.0
    logit_residual: float = 0.0
    scale: float = 0.0

    def merge(self, other: "Closure") -> "Closure":
        """Both together; a NaN stays."""
        larger = [torch.tensor(pair).max().item() for pair in zip(self.values(), other.values(), strict=True)]
        return Closure(self.n + other.n, *larger)

    def values(self) -> tuple[float, float, float]:
        """The three maxima."""
        return self.residual, self.logit_residual, self.scale


def closure(total: PerPosition, logits: PerPosition, model_logits: PerPosition, valid: Valid) -> Closure:
    """Compare, over valid positions, the sum of all DLA with the logit, and the logit with the model's own."""
    if not valid.any():
        return Closure()
    pairs = ((total, logits), (logits, model_logits))
    residual, logit_residual = ((a - b)[valid].abs().max().item() for a, b in pairs)
    return Closure(int(valid.sum()), residual, logit_residual, logits[valid].abs().max().item())
