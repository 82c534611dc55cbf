"""Direct logit attribution to the realised next token, layer by layer, without any [component, position, model] tensor.

For a position with final norm denominator s and next token t, the logit of t minus the mean logit is linear in what
each component wrote to the residual stream, once s is held fixed (Elhage et al. 2021; nostalgebraist 2020):

    dla(write) = write . g,   g = centre(gamma * (u_t - mean_v u_v)) / s

where gamma is the final norm's weight, u the unembedding's rows, and centre() subtracts the mean for a LayerNorm and
does nothing for an RMSNorm (that the norm centres its input is moved onto g). The norm's bias, the unembedding's bias
and the embeddings are components of their own; with them the sum over all components is the centred target logit, up to rounding.

0. `final_norm`: s, and the centred target logit read off the final residual stream. cost: positions * d_model
1. `directions`: g for every position, one gather.                                  cost: positions * d_model
2. heads: z . (W_O g), so one product of g with W_O and a sum over d_head.          cost: positions * d_model^2
3. neurons: activation * (W_out g).                                                 cost: positions * d_model * d_mlp
4. embeddings and biases.                                                            cost: positions * d_model * layers
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from profiler.axes import Activations, HeadOutputs, PerPosition, Residual, Scale, Valid
from profiler.model.components import ModelSpec
from profiler.model.forward import Capture, Rows
from profiler.model.load import Weights


@dataclass(frozen=True)
class Part:
    """Values of a slice of components. Heads: activation is the norm of what the head writes. Neurons: the activation
    after the nonlinearity. Embeddings and biases: the norm of the write. DLA in logits."""

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
    capture: Capture,
    weights: Weights,
    spec: ModelSpec,
    targets: Int[Tensor, "window offset"],
    scale: Scale,
    rows: Int[Tensor, " token"] | None = None,
) -> Iterator[Part]:
    """Heads and neurons of each layer in turn, then embeddings and biases; one layer is in memory at a time.

    Args:
        rows: positions (window * width + offset) to take, in this order, as if they were one window; None takes all.
    """
    take = (lambda table: table) if rows is None else (lambda table: table.flatten(0, 1).index_select(0, rows)[None])
    targets = take(targets)
    toward = directions(weights, targets, take(scale))
    for layer in range(spec.n_layers):
        w_o, gram = weights.head_out[layer], weights.head_gram[layer]
        yield _heads(take(capture.heads[layer]), w_o, gram, toward, spec.heads(layer))
        if spec.d_mlp:
            yield _neurons(take(capture.neurons[layer]), weights.neuron_out[layer], toward, spec.neurons(layer))
    embeds = [capture.embed, torch.zeros_like(capture.embed) if capture.pos_embed is None else capture.pos_embed]
    yield _embeddings_and_biases([take(write) for write in embeds], weights, toward, targets, spec)


def add_up(total: PerPosition, part: Part, rows: Int[Tensor, " token"] | None) -> None:
    """Add a part's DLA to the float64 total of every position (of `rows`, as `by_part` took them)."""
    summed = part.dla.sum(-1).double()
    if rows is None:
        total += summed
    else:
        total.view(-1).index_add_(0, rows, summed[0])


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
    """Laid out component by component in memory, as the compiled loop reads it; the product becomes the DLA in
    place."""
    activation = post.to(toward.dtype).flatten(0, 1).T.contiguous()
    dla = (w_out @ toward.flatten(0, 1).T).mul_(activation)
    in_windows = lambda values: values.unflatten(1, post.shape[:2]).movedim(0, -1)  # noqa: E731
    return Part(components, in_windows(activation), in_windows(dla))


def _embeddings_and_biases(
    writes: list[Residual], weights: Weights, toward: Residual, targets: Int[Tensor, "window offset"], spec: ModelSpec
) -> Part:
    terms = [(w.to(toward.dtype).norm(dim=-1), (w.to(toward.dtype) * toward).sum(-1)) for w in writes]
    for layer in range(spec.n_layers):
        terms += [
            (bias.norm().expand(targets.shape), toward @ bias)
            for bias in (weights.attn_bias[layer], weights.mlp_bias[layer])
        ]
    final = weights.token_bias[targets]
    terms.append((torch.ones_like(final), final))
    activation, dla = (torch.stack(values, -1) for values in zip(*terms, strict=True))
    return Part(spec.embeddings_and_biases, activation, dla)


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
        logit_residual: largest |centred target logit of the final residual stream - the model's own|, of the last
            position of every window.
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


def closure(
    total: PerPosition, logits: PerPosition, valid: Valid, model_logits: Float[Tensor, " row"], rows: Rows
) -> Closure:
    """Compare the sum of all DLA with the logit at valid positions, and the logit with the model's own at some of
    them."""
    if not valid.any():
        return Closure()
    residual = (total - logits)[valid].abs().max().item()
    logit_residual = (logits[rows] - model_logits).abs().max().item()
    return Closure(int(valid.sum()), residual, logit_residual, logits[valid].abs().max().item())
