"""Through whom a head acts: its total effect, split over the components that read what it wrote.

One level: a head's write goes into the residual stream, and each later head reads it by its query, key and value, each
later MLP by its neurons, and the final norm. With Δ what the head adds to the residual stream beyond its reference, and
g the derivative of the summed logits by what component d reads or computes (q, k, v; its neurons),

    route(head -> d) = g . J_d Δ

where J_d is the derivative of that by the residual stream that d's layer reads, past every component between: so each
way is counted once, under the first component that reads it. Direct: Δ . direct slope; final_norm: what the
denominator's derivative adds; other: what is left (blocks of other kinds, a norm of the block itself). Together they
are the head's total effect by the same gradients. These are averaged over points between the reference and what the
layer's heads did, as in `integrated`: at the point itself a saturated softmax shows no key or query at all.

Cost: steps * layers after it * (3 heads + 1) short backward passes through one layer's norm and projections.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from profiler.effects.methods import References
from profiler.model.components import Block, ComponentId
from profiler.model.load import Model
from profiler.model.steps.as_network import network_of_direct_heads
from profiler.model.steps.network import Network, Offsets, PerHead, Steps, Stream
from profiler.text.windows import Batch

INPUTS = ("q", "k", "v")
DIRECT, NORM, OTHER = "logits", "final_norm", "other"
Way = tuple[str, str]
"""Through which component, and by which of its inputs."""


@dataclass(frozen=True, eq=False)
class _Point:
    """What one point between the reference and the model's values gives.

    Attributes:
        streams: what every layer read.
        values: by site and layer, what heads and neurons read there.
        slopes: derivatives of the summed logits by these; and by the heads' values of the layer that is split.
        written: what the matrix of that layer's heads wrote.
        final: what the final norm read, and the derivative by it.
        steps: the prompts' layers, to be called again.
    """

    streams: list[Stream]
    values: dict[tuple[str, int], Tensor]
    slopes: dict[tuple[str, int], Tensor]
    head_slope: PerHead
    written: Stream
    final: tuple[Stream, Stream]
    steps: Steps


@dataclass
class _Ways:
    """Effects of some heads of one layer by every way, at each position, summed over points."""

    by_way: dict[Way, Float[Tensor, "window offset head"]] = field(default_factory=dict)
    total: Float[Tensor, "window offset head"] | None = None

    def add(self, way: Way, effect: Float[Tensor, "window offset head"]) -> None:
        """Add a point's effect."""
        self.by_way[way] = self.by_way[way] + effect if way in self.by_way else effect


def routes(
    model: Model, batches: Sequence[Batch], heads: Sequence[tuple[Block, int]], references: References, steps: int
) -> pl.DataFrame:
    """Table `effect_routes` of some heads, against their means.

    Raises:
        ModelError: the model's attention cannot be reached.
    """
    net, rows = network_of_direct_heads(model), []
    for block in dict.fromkeys(block for block, _ in heads):
        units = [unit for own, unit in heads if own == block]
        parts = [_of_layer(net, batch, block, references["mean"][block], steps) for batch in batches]
        for unit in units:
            rows += list(_rows(block, unit, parts, batches))
    schema = {"component": pl.String, "through": pl.String, "input": pl.String}
    return pl.DataFrame(rows, schema=schema | {"effect": pl.Float64, "size": pl.Float64, "n": pl.Int64})


def _rows(block: Block, unit: int, parts: Sequence[_Ways], batches: Sequence[Batch]) -> Iterator[dict[str, object]]:
    label = ComponentId(block.kind, block.layer, unit).label
    for way in parts[0].by_way:
        at = [part.by_way[way][..., unit][batch.ordinary] for part, batch in zip(parts, batches, strict=True)]
        values = torch.cat(at).double()
        yield {
            "component": label,
            "through": way[0],
            "input": way[1],
            "effect": float(values.mean()),
            "size": float(values.abs().mean()),
            "n": len(values),
        }


def _of_layer(net: Network, batch: Batch, block: Block, mean: Float[Tensor, "head d_head"], steps: int) -> _Ways:
    """Effects of all heads of a layer by every way, against their means."""
    layer, ways = block.layer, _Ways()
    live = _live(net, batch, layer)
    for step in range(steps):
        given = mean + (step + 0.5) / steps * (live - mean)
        point = _point(net, batch, layer, given)
        moved = live - mean
        written = torch.einsum("wohd,hdm->wohm", moved, net.w_o(layer).to(moved.dtype))
        delta = net.added("attn_out", layer, written, point.written[:, :, None]) / steps
        total = (moved * point.head_slope).sum(-1) / steps
        listed = [(way, effect) for way, effect in _ways(net, batch, layer, point, delta, written / steps)]
        for way, effect in listed:
            ways.add(way, effect.cpu())
        rest = total - torch.stack([effect for _, effect in listed]).sum(0)
        ways.add((OTHER, ""), rest.cpu())
    return ways


@torch.no_grad()
def _live(net: Network, batch: Batch, layer: int) -> PerHead:
    """What the heads of a layer mix."""
    steps = net.begin(batch.tokens.to(net.device))
    stream = steps.stream
    for number in range(layer):
        stream = steps.layer(number, stream)
    return steps.heads(layer, stream)


def _point(net: Network, batch: Batch, layer: int, given: PerHead) -> _Point:
    """A run with the values of a layer's heads given, and the derivatives of the summed logits."""
    given = given.detach().requires_grad_()
    values: dict[tuple[str, int], Tensor] = {}
    written: list[Tensor] = []
    streams: list[Stream] = []

    def edit(site: str, number: int, value: Tensor, _offsets: Offsets) -> Tensor:
        if site == "head" and number == layer:
            return given
        if site == "attn_out" and number == layer:
            written.append(value.detach())
        if (site in INPUTS and number > layer) or (site == "neuron" and number >= layer):
            values[site, number] = value
        return value

    with torch.enable_grad():
        steps = net.begin(batch.tokens.to(net.device))
        stream = steps.stream
        for number in range(net.n_layers):
            streams.append(stream.detach())
            stream = steps.layer(number, stream, edit, patterns=False)
        logit = (stream * net.toward(batch.targets.to(net.device))).sum(-1) / net.final_scale(stream)[..., 0]
        summed = logit[batch.ordinary.to(net.device)].sum()
        values = {site_of_value: value for site_of_value, value in values.items() if value.requires_grad}
        wanted = [given, stream, *values.values()]
        head, final, *slopes = torch.autograd.grad(summed, wanted, allow_unused=True, materialize_grads=True)
    by_site = dict(zip(values, slopes, strict=True))
    return _Point(streams, values, by_site, head, written[0], (stream.detach(), final), steps)


def _ways(
    net: Network,
    batch: Batch,
    layer: int,
    point: _Point,
    delta: Float[Tensor, "window offset head model"],
    written: Float[Tensor, "window offset head model"],
) -> Iterator[tuple[Way, Float[Tensor, "window offset head"]]]:
    """Effect by every way.

    Args:
        delta: what each head adds to the residual stream, beyond its reference.
        written: the same before a norm of the block itself.
    """
    final, slope = point.final
    direct = net.toward(batch.targets.to(net.device)) / net.final_scale(final)
    direct = torch.where(batch.ordinary.to(net.device)[..., None], direct, 0)
    yield (DIRECT, ""), torch.einsum("wohm,wom->woh", delta, direct)
    yield (NORM, ""), torch.einsum("wohm,wom->woh", delta, slope - direct)
    for number in range(layer, net.n_layers):
        for way, pulled in _pulled(net, layer, number, point):
            yield way, torch.einsum("wohm,wom->woh", written if number == layer else delta, pulled)


def _pulled(net: Network, layer: int, number: int, point: _Point) -> Iterator[tuple[Way, Stream]]:
    """Of each component of a layer the derivative, through it alone, by what it reads: for the layer that is split, by
    what its attention wrote; for later ones by the residual stream."""
    taken: dict[str, Tensor] = {}
    leaf: list[Tensor] = []

    def edit(site: str, _number: int, value: Tensor, _offsets: Offsets) -> Tensor:
        if site == "attn_out":  # what attention does is no part of what the MLP reads directly
            value = (point.written if number == layer else value).detach().clone()
            if number == layer:
                leaf.append(value.requires_grad_())
        if site in INPUTS or site == "neuron":
            taken[site] = value
        return value

    with torch.enable_grad():
        stream = point.streams[number].clone().requires_grad_()
        point.steps.layer(number, stream, edit, patterns=False)
        by = leaf[0] if number == layer else stream
        if ("neuron", number) in point.slopes and taken["neuron"].requires_grad:
            yield (f"L{number}_mlp_out", ""), _pull(taken["neuron"], point.slopes["neuron", number], by)
        if number == layer:
            return
        for site in INPUTS:
            if (site, number) not in point.slopes:
                continue
            for head in range(net.heads(number)):
                value, slope = taken[site][:, :, head], point.slopes[site, number][:, :, head]
                yield (f"L{number}H{head}", site), _pull(value, slope, by)


def _pull(value: Tensor, slope: Tensor, by: Tensor) -> Stream:
    (pulled,) = torch.autograd.grad(
        (value * slope).sum(), [by], retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return pulled
