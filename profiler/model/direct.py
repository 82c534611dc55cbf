"""Direct logit attribution to the realised next token, block by block, without any [component, position, model] tensor.

For a position with next token t, the logit of t minus the mean logit is linear in what each component wrote to the
residual stream, once the denominators of norms on the way are held fixed (Elhage et al. 2021; nostalgebraist 2020):

    dla(unit) = write . g,    write: what the unit adds to the output of its block's writer
    g = (u_t - mean_v u_v) * k, pulled back through the final norm, and through the block's own norm where it has one

where u are the unembedding's rows and k what its output is multiplied by (`profiler.model.wiring` finds the way and
`profiler.model.norms` pulls back). Attributed is the logit before a soft cap. The biases of norms and of the
unembedding and the embeddings are components too; with them the sum over all components is the centred target logit,
up to rounding.

Up to the denominators, g is that of the next *token*: products with it are made for the distinct next tokens of a
batch, and gathered and scaled at each position (`profiler.model.wiring.TokenDirections`).

0. `final_norm`: the final norm's denominator, and the centred target logit read off the final residual stream.
                                                                                    cost: positions * d_model
1. `TokenDirections`: g of every block.                                             cost: tokens * d_model * norms
2. heads: z . (W_O g), so one product of g with W_O and a sum over d_head.
                                                                cost: tokens * d_model^2 + positions * d_model * d_head
3. neurons: activation * (W_out g).                             cost: tokens * d_model * d_mlp + positions * d_mlp
4. experts: the same times the router's weight, as used and held, at the positions that were sent to the expert. Their
   activations are computed again from what they read:          cost: three products of positions * d_model * d_mlp
5. embeddings and biases.                                                           cost: tokens * d_model * layers
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from profiler.axes import Activations, HeadOutputs, PerPosition, Residual, Scale, Valid
from profiler.errors import ComponentError
from profiler.model.components import BIAS_OF, Block, ComponentId, ComponentKind, ModelSpec
from profiler.model.forward import Capture, Factors, Read, Routed, Rows
from profiler.model.wiring import Direction, Directions, Sink, TokenDirections, Toward, Wiring, scaled
from profiler.model.writers import Sources, Writer, activations, down, down_biases

VOCABULARY_ROWS = 8192  # rows of the unembedding that are cast at a time


@dataclass(frozen=True)
class Part:
    """Values of a slice of components. Heads: activation is the norm of what the head adds to the residual stream.
    Neurons: the activation after the nonlinearity; channels of mixers: their value. Embeddings and biases: the norm of
    the write. DLA in logits.

    Attributes:
        present: of an expert's neurons, the positions that were sent to the expert, ascending (window * width +
            offset): values are of these alone, as if they were one window. None: every position has values.
        total: total effects, through everything after the units (profiler.model.gradients.in_pass), in logits; None
            where they are not recorded.
        factors: of gated neurons gate (before its nonlinearity) and value (profiler.model.gates); None of others.
    """

    components: slice
    activation: Activations
    dla: Activations
    present: Int[Tensor, " present"] | None = None
    total: Activations | None = None
    factors: tuple[Activations, Activations] | None = None


@dataclass(frozen=True, eq=False)
class Weights:
    """The weights that direct logit attribution reads: the network's own, cast where they are used.

    Attributes:
        wiring: the way of every writer to the logits.
        sources: writers and embeddings.
        matrices: of each block its writer's module.
        unembed: W_U, one row per token, in the model's dtype.
        unembed_mean: mean row of W_U.
        token_bias: what the final norm's bias and b_U add to each token's logit, centred over the vocabulary.
        dtype: in which attribution is computed.
    """

    wiring: Wiring
    sources: Sources
    matrices: dict[Block, nn.Module]
    unembed: Float[Tensor, "vocab model"]
    unembed_mean: Float[Tensor, " model"]
    token_bias: Float[Tensor, " vocab"]
    dtype: torch.dtype

    def matrix(self, block: Block) -> Float[Tensor, "value model"]:
        """W of a block's writer: a row for each value that it reads."""
        module, expert = self.matrices[block], self.writers[block].expert
        if expert is not None:
            return down(module, expert).to(self.dtype)
        weight: Tensor = module.get_parameter("weight").detach().to(self.dtype)
        return weight if isinstance(module, Conv1D) else weight.T

    def bias(self, block: Block) -> Float[Tensor, " model"] | None:
        """The bias of a block's writer; None where it has none, and for experts, whose biases the router weights."""
        bias = getattr(self.matrices[block], "bias", None)
        return None if bias is None else bias.detach().to(self.dtype)

    @cached_property
    def writers(self) -> dict[Block, Writer]:
        """The writer of each block."""
        return {writer.block: writer for writer in self.sources.writers}

    @cached_property
    def blocks_at(self) -> dict[str, list[Block]]:
        """The blocks of each writer, by its path: one, but for a module of experts."""
        blocks: dict[str, list[Block]] = {}
        for block, writer in self.writers.items():
            blocks.setdefault(writer.site, []).append(block)
        return blocks

    @cached_property
    def own_norm(self) -> dict[Block, Sink]:
        """Of the blocks whose output passes a norm of its own before it is added to the residual stream, that norm."""
        layer_of = {writer.site: writer.block.layer for writer in self.sources.writers}
        norms = {}
        for block, writer in self.writers.items():
            readers = self.wiring.readers[writer.site]
            sink = readers[0][0]
            if len(readers) == 1 and sink.norm and {layer_of.get(e.source) for e in sink.wires} == {block.layer}:
                norms[block] = sink
        return norms

    @cached_property
    def stream_biases(self) -> tuple[tuple[str, Float[Tensor, " model"]], ...]:
        """Of the norms of the residual stream before the final norm (of embeddings, after a sum), the name and the
        bias of those that have a bias."""
        own = {sink.name for sink in self.own_norm.values()}
        on_stream = (sink for sink in self.wiring.sinks if sink is not self.wiring.final and sink.name not in own)
        return tuple((s.name, s.norm.bias) for s in on_stream if s.norm is not None and s.norm.bias is not None)

    def has_fixed_way(self, block: Block) -> bool:
        """Whether a block's output reaches the logits through the final norm and at most a norm of its own."""
        direct = {self.wiring.sinks[0].name, *([self.wiring.final.name] if self.wiring.final else [])}
        site = self.own_norm[block].name if block in self.own_norm else self.writers[block].site
        return {sink.name for sink, _ in self.wiring.readers[site]} <= direct

    def mixes_beside(self, layer: int) -> bool:
        """Whether a layer holds more than heads and neurons."""
        return any(block.layer == layer and block.kind not in ("head", "neuron") for block in self.writers)

    @cached_property
    def grams(self) -> dict[Block, Float[Tensor, "head d_head d_head"]]:
        """W_O W_O^T of each head as its block's norm scales it: z' gram z is the squared norm of the head's write."""
        grams = {}
        for block, writer in self.writers.items():
            if writer.width > 1:
                written = self.as_added(block, self.matrix(block)).unflatten(0, (block.units, writer.width))
                grams[block] = torch.einsum("hdm,hem->hde", written, written)
        return grams

    def as_added(self, block: Block, written: Float[Tensor, "*any model"]) -> Float[Tensor, "*any model"]:
        """What a block's output adds to the residual stream, but for a gate and the denominator of its own norm."""
        wire = self.wiring.readers[self.writers[block].site][0][1]
        written = scaled(written, wire.multiplier)
        if block not in self.own_norm:
            return written
        sink = self.own_norm[block]
        assert sink.norm is not None
        return scaled(sink.norm.centred(written) * sink.norm.gain, self.wiring.readers[sink.name][0][1].multiplier)


def write_likeness(weights: Weights, spec: ModelSpec, component: ComponentId) -> Iterator[tuple[ComponentId, float]]:
    """How alike the directions are that units of a kind write in: (unit, likeness) of every unit of `component`'s kind.

    Of units that write along a vector the cosine of the two, -1 to 1. Of heads, which write anywhere in the row space
    of their W_O, the cosine of W_O' W_O as matrices, 0 (orthogonal) to 1: it does not change with the basis of the
    head's values. 0 where a unit writes nothing. What is written is as it is added to the residual stream, but for a
    gate and the denominator of a norm of the block's own. Cost: a product of d_model * (values of all units).

    Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits (composition as a ratio of Frobenius
    norms); the cosine of two Gram matrices is the uncentred kernel alignment of Cristianini et al. 2001.

    Raises:
        ComponentError: it is no unit of the model's own.
    """
    block = spec.block_of(component)
    if block not in weights.writers:
        raise ComponentError(
            f"{component.label} is of a dictionary, and directions are compared of what the model's own units write:"
            " name a head or a neuron"
        )
    own = _written(weights, block)[component.unit]
    for other in (b for b in spec.blocks if b.kind == block.kind):
        rows = _written(weights, other)
        shared = torch.einsum("vm,uwm->uvw", own, rows)
        if own.shape[0] == 1 and rows.shape[1] == 1:
            sizes = own.norm() * rows[:, 0].norm(dim=-1)
            likeness = shared[:, 0, 0] / sizes
        else:
            own_size = (own @ own.T).norm()
            likeness = shared.square().sum((1, 2)) / (own_size * (rows @ rows.mT).flatten(1).norm(dim=1))
        for unit, value in enumerate(likeness.nan_to_num(0.0).tolist()):
            yield ComponentId(other.kind, other.layer, unit, other.group), value


def _written(weights: Weights, block: Block) -> Float[Tensor, "unit value model"]:
    """What each value of each unit of a block adds to the residual stream per unit, float64."""
    rows = weights.as_added(block, weights.matrix(block)).double()
    by_unit: Tensor = rows.unflatten(0, (block.units, weights.writers[block].width))
    return by_unit


def weights_of(network: PreTrainedModel, wiring: Wiring, sources: Sources, dtype: torch.dtype) -> Weights:
    """What attribution reads of a network."""
    modules, head = dict(network.named_modules()), network.get_output_embeddings()
    unembed, final = head.weight.detach(), wiring.final
    bias = final.norm.bias if final is not None and final.norm is not None else None
    bias = None if bias is None else scaled(bias, wiring.sinks[0].wires[0].multiplier)
    total = torch.zeros(unembed.shape[1], dtype=dtype, device=unembed.device)
    token_bias = torch.zeros(len(unembed), dtype=dtype, device=unembed.device)
    for rows in torch.arange(len(unembed), device=unembed.device).split(VOCABULARY_ROWS):
        part = unembed[rows].to(dtype)
        total += part.sum(0)
        if bias is not None:
            token_bias[rows] = part @ bias
    if head.bias is not None:
        token_bias += head.bias.detach().to(dtype)
    token_bias = scaled(token_bias, wiring.logit_scale)
    mean = total / len(unembed)
    matrices = {writer.block: modules[writer.site] for writer in sources.writers}
    return Weights(wiring, sources, matrices, unembed, mean, token_bias - token_bias.mean(), dtype)


def at_unembed(weights: Weights, targets: Int[Tensor, "*position"]) -> Float[Tensor, "*position model"]:
    """The direction of each target's centred logit at what the unembedding reads."""
    centred = weights.unembed[targets].to(weights.dtype) - weights.unembed_mean
    return scaled(centred, weights.wiring.logit_scale)


def final_norm(capture: Capture, weights: Weights) -> tuple[Residual, Scale]:
    """The final residual stream as the final norm divides it (centred for a LayerNorm), and the denominator.

    Computed here and not by the model because some models (Llama's RMSNorm in transformers) round to float32 inside.
    """
    final, stream = weights.wiring.final, capture.residual.to(weights.dtype)
    if final is None or final.norm is None:
        return stream, torch.ones_like(stream[..., :1])
    return final.norm.centred(stream), capture.scales[final.name]


def centred_logit(
    stream: Residual, scale: Scale, weights: Weights, targets: Int[Tensor, "window offset"]
) -> PerPosition:
    """The target's logit minus the mean logit, before a soft cap, from the final residual stream, float64."""
    direction = at_unembed(weights, targets)
    final = weights.wiring.final
    if final is not None and final.norm is not None:
        direction = scaled(direction, weights.wiring.sinks[0].wires[0].multiplier) * final.norm.gain
    return ((stream * direction).sum(-1) / scale[..., 0] + weights.token_bias[targets]).double()


@dataclass(frozen=True, eq=False)
class Attribution:
    """Direct logit attribution of a batch, one writer after the other, in any order.

    Attributes:
        scales: of each norm on the way its denominator, of each gate its sigmoid.
        directions: of the batch's next tokens.
    """

    weights: Weights
    spec: ModelSpec
    targets: Int[Tensor, "window offset"]
    scales: dict[str, Scale]
    directions: TokenDirections

    @classmethod
    def of(
        cls, capture: Capture, weights: Weights, spec: ModelSpec, targets: Int[Tensor, "window offset"]
    ) -> "Attribution":
        """Of the pass that left `capture`."""
        directions = TokenDirections(weights.wiring, partial(at_unembed, weights), targets, capture.scales)
        return cls(weights, spec, targets, capture.scales, directions)

    def at(self, site: str, read: Read, factors: Factors | None = None) -> Iterator[Part]:
        """The parts of a writer: one, or one for each of its experts.

        Args:
            site: the writer's path.
            read: what it read.
            factors: gate and value of its neurons, where they are gated.
        """
        weights, toward, blocks = self.weights, self.directions.at(site), self.weights.blocks_at[site]
        components = [self.spec.slices[block] for block in blocks]
        if isinstance(read, Routed):
            sent = _sent(read, blocks[0], weights)
            for block, rows, ids in zip(blocks, sent, components, strict=True):
                yield _expert(read, rows, weights, block, toward, ids)
        elif weights.writers[blocks[0]].width > 1:
            norm = weights.own_norm.get(blocks[0])
            denominator = None if norm is None else self.scales[norm.name]
            yield _heads(read, weights, blocks[0], toward, components[0], denominator)
        else:
            yield replace(_neurons(read, weights.matrix(blocks[0]), toward, components[0]), factors=factors)

    def constants(self, capture: Capture, routed: dict[str, Routed]) -> Part:
        """Embeddings and biases.

        Args:
            capture: what embeddings wrote.
            routed: of each module of experts what it was called with; what it read is not needed.
        """
        sources = self.weights.sources
        embeds: list[tuple[ComponentKind, Residual, str]] = [("embed", capture.embed, sources.embed)]
        if capture.pos_embed is not None:
            embeds.append(("pos_embed", capture.pos_embed, sources.pos_embeds[0]))
        return _constants(embeds, self.weights, self.spec, self.targets, self.directions, routed)


def logits_summary(
    logits: Float[Tensor, "row vocab"], targets: Int[Tensor, " row"], wiring: Wiring
) -> Float[Tensor, "row 5"]:
    """The centred target logit of some rows before a soft cap; and the loss (nats), rank and entropy (nats) of the
    model's own logits, which are capped, with the slope of the cap at the target's logit; float64."""
    target = targets.to(logits.device)[:, None]
    centred = logits.gather(-1, target)[:, 0].double() - logits.mean(-1, dtype=torch.float64)
    rows = logits.float() if logits.dtype != torch.float64 else logits
    rows = wiring.capped(rows)
    log_p = rows.log_softmax(-1)
    loss = -log_p.gather(-1, target)[:, 0]
    rank = (rows > rows.gather(-1, target)).sum(-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    slope = wiring.cap_slope(rows.gather(-1, target)[:, 0])
    return torch.stack([value.double() for value in (centred, loss, rank, entropy, slope)], -1)


def by_part(
    capture: Capture, weights: Weights, spec: ModelSpec, targets: Int[Tensor, "window offset"]
) -> Iterator[Part]:
    """Each block in turn, then embeddings and biases, of a pass that holds what its writers read; the values of one
    block are in memory at a time."""
    attribution = Attribution.of(capture, weights, spec, targets)
    for site, blocks in weights.blocks_at.items():
        read = capture.routed[site] if site in capture.routed else capture.units[blocks[0]]
        yield from attribution.at(site, read, capture.factors.get(blocks[0]))
    yield attribution.constants(capture, capture.routed)


def add_up(total: PerPosition, part: Part) -> None:
    """Add a part's DLA to the float64 total of every position."""
    summed = part.dla.sum(-1).double()
    if part.present is None:
        total += summed
    else:
        total.view(-1).index_add_(0, part.present, summed[0])


def _heads(
    z: HeadOutputs, weights: Weights, block: Block, toward: Toward, components: slice, denominator: Scale | None
) -> Part:
    z = z.to(toward.scale.dtype)
    seen = (toward.of_token @ weights.matrix(block).T).unflatten(1, z.shape[-2:])
    squared = (torch.einsum("wohd,hde->wohe", z, weights.grams[block]) * z).sum(-1)
    written = squared.clamp_min_(0).sqrt_()
    dla = (z * seen[toward.number]).sum(-1) * toward.scale[..., None]
    return Part(components, written if denominator is None else written / denominator, dla)


def _neurons(
    post: Float[Tensor, "window offset neuron"],
    w_out: Float[Tensor, "neuron model"],
    toward: Toward,
    components: slice,
) -> Part:
    activation = post.to(toward.scale.dtype)
    return Part(components, activation, gathered(activation, toward.of_token @ w_out.T, toward))


def gathered(
    activation: Float[Tensor, "window offset neuron"], per_unit: Float[Tensor, "token neuron"], toward: Toward
) -> Float[Tensor, "window offset neuron"]:
    """DLA from that of a unit of activation towards each token: activation * per_unit[token] * scale."""
    return per_unit[toward.number].mul_(activation).mul_(toward.scale[..., None])


Sent = tuple[Int[Tensor, " present"], Int[Tensor, " present"]]
"""Positions that were sent to an expert, ascending, and as which of their choices."""


def _sent(routed: Routed, block: Block, weights: Weights) -> list[Sent]:
    """What was sent to each expert of a module."""
    experts = routed.experts.flatten()
    order = experts.argsort(stable=True)
    counts = experts.bincount(minlength=len(weights.matrices[block].get_parameter("down_proj")))
    n_choices = routed.experts.shape[-1]
    return [(rows // n_choices, rows % n_choices) for rows in order.split(counts.tolist())]


def _expert(routed: Routed, sent: Sent, weights: Weights, block: Block, toward: Toward, components: slice) -> Part:
    """The positions that were sent to one expert."""
    rows, choices = sent
    expert = weights.writers[block].expert
    assert expert is not None
    read = routed.read.flatten(0, 1)[rows]
    activation = activations(weights.matrices[block], expert, read).to(weights.dtype)
    router = routed.weights.flatten(0, 1)[rows, choices].to(weights.dtype)
    dla = (toward.rows(rows) @ weights.matrix(block).T).mul_(activation).mul_(router[:, None])
    return Part(components, activation[None], dla[None], rows)


def _routed_bias(routed: Routed, block: Block, weights: Weights) -> Residual | None:
    """What the biases of a module of experts add to its output; None where it has none."""
    biases = down_biases(weights.matrices[block])
    if biases is None:
        return None
    choices = zip(routed.experts.unbind(-1), routed.weights.unbind(-1), strict=True)
    parts = [biases[experts].to(weights.dtype) * weight[..., None].to(weights.dtype) for experts, weight in choices]
    return torch.stack(parts).sum(0)


def _constants(
    embeds: list[tuple[ComponentKind, Residual, str]],
    weights: Weights,
    spec: ModelSpec,
    targets: Int[Tensor, "window offset"],
    directions: TokenDirections,
    routed: dict[str, Routed],
) -> Part:
    """Embeddings and biases.

    Args:
        embeds: kind, what was written, and the module that wrote it.
        routed: of each module of experts what it was called with, at the same positions.
    """
    zero = torch.zeros(targets.shape, dtype=weights.dtype, device=targets.device)
    terms: dict[ComponentId, tuple[Tensor, Tensor]] = dict.fromkeys(spec.constants, (zero, zero))
    for kind, write, site in embeds:
        terms[ComponentId(kind)] = _embedding(write, site, weights, directions)
    for block, writer in weights.writers.items():
        if writer.expert:  # the first stands for all experts of its module
            continue
        bias = weights.bias(block) if writer.expert is None else _routed_bias(routed[writer.site], block, weights)
        write, dla = _bias(block, bias, weights, directions, zero)
        component = ComponentId(BIAS_OF[block.kind], block.layer)
        size, before = terms[component]
        terms[component] = (size + write, before + dla)
    final = weights.token_bias[targets]
    for site, bias in weights.stream_biases:
        final = final + directions.at(site).along(bias)
    terms[ComponentId("final_bias")] = (torch.ones_like(final), final)
    activation, dla = (torch.stack(values, -1) for values in zip(*terms.values(), strict=True))
    return Part(spec.embeddings_and_biases, activation, dla)


def _embedding(write: Residual, site: str, weights: Weights, directions: TokenDirections) -> tuple[Tensor, Tensor]:
    write = write.to(weights.dtype)
    multiplier = weights.wiring.readers[site][0][1].multiplier
    return scaled(write, multiplier).norm(dim=-1), directions.at(site).along(write)


def _bias(
    block: Block,
    bias: Float[Tensor, "*any model"] | None,
    weights: Weights,
    directions: TokenDirections,
    zero: PerPosition,
) -> tuple[Tensor, Tensor]:
    """The norm of what the biases of a block and of its own norm add, and their DLA.

    Args:
        bias: of the block's writer, the same at every position or of each.
        zero: 0 at every position.
    """
    site, sink = weights.writers[block].site, weights.own_norm.get(block)
    writes, dla = [], zero
    if bias is not None:
        added, gate = weights.as_added(block, bias), weights.wiring.readers[site][0][1].gate
        added = added if gate is None else added * directions.scales[gate].to(added.dtype)
        writes.append(added if sink is None else added / directions.scales[sink.name])
        dla = dla + directions.at(site).along(bias)
    if sink is not None and sink.norm is not None and sink.norm.bias is not None and sink.wires[0].source == site:
        writes.append(scaled(sink.norm.bias, weights.wiring.readers[sink.name][0][1].multiplier))
        dla = dla + directions.at(sink.name).along(sink.norm.bias)
    return (sum(writes[1:], writes[0]).norm(dim=-1).expand(zero.shape) if writes else zero), dla


def attended_dla(
    z: Float[Tensor, "query head d_head"],
    block: Block,
    weights: Weights,
    attended: Int[Tensor, "query head"],
    scales: dict[str, Float[Tensor, "query 1"]],
) -> Float[Tensor, "query head"]:
    """Logit, centred, that each head adds directly to the token it attends to: > 0 copies it, < 0 suppresses it."""
    at_queries = {name: value[:, None] for name, value in scales.items()}
    toward = Directions(weights.wiring, at_unembed(weights, attended), at_queries).at(weights.writers[block].site)
    w_o = weights.matrix(block).unflatten(0, z.shape[-2:])
    return torch.einsum("qhd,hdm,qhm->qh", z.to(toward.dtype), w_o, toward)


def logit_directions(weights: Weights, block: Block, tokens: Int[Tensor, " token"]) -> Float[Tensor, "token model"]:
    """The direction of tokens' centred logits at a block's output, where all denominators and gates are 1."""
    unit = torch.ones(1, 1, dtype=weights.dtype, device=weights.unembed.device)
    scales = dict.fromkeys((*weights.wiring.path_norms, *weights.wiring.gates), unit)
    direction: Direction = Directions(weights.wiring, at_unembed(weights, tokens), scales).at(
        weights.writers[block].site
    )
    return direction


def block_denominators(capture: Capture, weights: Weights) -> dict[int, Scale]:
    """By the block's number, the denominator of the norm of its own; blocks without such a norm have none."""
    numbered = enumerate(weights.writers)
    return {i: capture.scales[weights.own_norm[block].name] for i, block in numbered if block in weights.own_norm}


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
