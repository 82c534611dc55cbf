"""Attribution patching: every patch estimated from one gradient, and the same along a path of inputs.

    estimate = sum over positions of (given - live) . d metric / d activation, at the run that is patched

(Nanda 2023, "Attribution patching"; Syed et al. 2023). The gradient says nothing where an activation is saturated or
two features are needed; averaging it over runs whose token embeddings lie between the two prompts' repairs much of that
(Hanna et al. 2024, EAP-IG on inputs; midpoints, so both ends are left out by the same amount). Two other repairs stand
in `star`.

Cost: one forward and one backward pass per run for all targets of all sites; `steps` of them along a path.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from profiler.model.steps.experts import ROUTED
from profiler.model.steps.network import Network, Offsets, at
from profiler.patching.batch import PairBatch, Tokens, Trace
from profiler.patching.sites import OF_MATRIX, Target

Gradients = dict[tuple[str, int], Tensor]
FULL_ATTENTION, ATTENTION_MOVED = 0.95, 0.1
"""Largest attention above which the softmax is flat, and a change of attention that is not small."""
SHUT, OPEN = 0.02, 0.1
"""Sizes of activation below which a neuron is shut, and above which it is open."""
SATURATED_PAIRS = 0.25
"""Share of pairs from which a target is flagged."""


def gradients(
    net: Network, tokens: Tokens, batch: PairBatch, embedding: Tensor | None = None, dropped: int | None = None
) -> tuple[Gradients, Tensor]:
    """Gradient of each pair's metric at every site, and the metrics.

    Args:
        embedding: token embeddings to run on instead of the tokens' own.
        dropped: a layer through which nothing flows back; the forward pass is the same.
    """
    values: dict[tuple[str, int], Tensor] = {}

    def edit(site: str, layer: int, value: Tensor, _positions: Offsets) -> Tensor:
        if site in ROUTED:
            return value
        if site == "embed":
            value = (value if embedding is None else embedding).detach().clone().requires_grad_()
        values[site, layer] = value
        return value

    with torch.enable_grad():
        steps = net.begin(tokens, edit)
        stream = steps.stream
        for layer in range(net.n_layers):
            after = steps.layer(layer, stream, edit)
            stream = stream + (after - stream).detach() if layer == dropped else after
        logits = net.finish(at(stream, batch.ends), ends=batch.ends)
        metric = batch.options.measure(logits)
        slopes = torch.autograd.grad(metric.sum(), list(values.values()), allow_unused=True)
    filled = [torch.zeros_like(v) if g is None else g for g, v in zip(slopes, values.values(), strict=True)]
    return dict(zip(values, filled, strict=True)), metric.detach()


@dataclass(frozen=True, eq=False)
class Path:
    """Gradients averaged along the path between two prompts, and how straight the metric runs along it.

    Attributes:
        mean: the averaged gradients.
        metric: mean metric at each midpoint, from the patched run to the donor.
        nonlinearity: largest |metric - straight line| over the whole difference; 0 on a linear model.
    """

    mean: Gradients
    metric: tuple[float, ...]
    nonlinearity: float


def along(net: Network, base: Trace, other: Trace, tokens: Tokens, batch: PairBatch, steps: int) -> Path:
    """Average gradients over `steps` midpoints of the embeddings between `base` and `other`."""
    total: Gradients = {}
    metric = []
    a, b = (run["embed"][0].clone() for run in (base, other))
    for step in range(steps):
        share = (step + 0.5) / steps
        slopes, values = gradients(net, tokens, batch, a + share * (b - a))
        total = {key: value / steps + total.get(key, 0) for key, value in slopes.items()}
        metric.append(values.mean().item())
    first, last = (batch.options.measure(run.logits).mean().item() for run in (base, other))
    lines = [first + (step + 0.5) / steps * (last - first) for step in range(steps)]
    off = max(abs(m - line) for m, line in zip(metric, lines, strict=True))
    return Path(total, tuple(metric), off / abs(last - first) if last != first else float("nan"))


def estimate(
    base: Trace, given: Trace, slopes: Gradients, batch: PairBatch, targets: Sequence[Target]
) -> Float[Tensor, "target pair"]:
    """Estimated change of the metric for each target patched alone."""
    products: dict[tuple[str, int, str], Float[Tensor, "unit prompt"]] = {}
    rows = []
    for target in targets:
        site, layer, positions = key = target.site, target.layer, target.positions
        if key not in products:
            product = (given[site][layer] - base[site][layer]) * slopes[site, layer]
            products[key] = (_per_unit(product, site) * batch.mask(positions)[..., None]).sum(1).T.contiguous()
        rows.append(products[key][target.unit or 0])
    return torch.stack(rows)


def _per_unit(product: Tensor, site: str) -> Float[Tensor, "prompt position unit"]:
    """A product of a site's shape, summed to one number per position and unit."""
    if site == "pattern":
        return product.sum(-1).transpose(1, 2)
    if site in ("q", "k", "v", "head"):
        return product.sum(-1)
    return product if site in ("neuron", *OF_MATRIX) else product.sum(-1, keepdim=True)


def patch_size(base: Trace, given: Trace, batch: PairBatch, targets: Iterable[Target]) -> Float[Tensor, " target"]:
    """Mean over pairs of |given - live| / |live| at the patched positions, norms over position and unit together."""
    return torch.stack([_size(base, given, batch, target) for target in targets])


def _size(base: Trace, given: Trace, batch: PairBatch, target: Target) -> Tensor:
    live, new = (_unit(run[target.site][target.layer], target) for run in (base, given))
    mask = batch.mask(target.positions)
    change, size = ((x.square().sum(-1) * mask).sum(-1).sqrt() for x in (new - live, live))
    return (change / size.clamp_min(1e-12)).mean()


def _unit(value: Tensor, target: Target) -> Float[Tensor, "prompt position width"]:
    if target.site == "pattern":
        return value[:, target.unit]
    if target.unit is None:
        return value
    return value[..., target.unit, None] if target.site in ("neuron", *OF_MATRIX) else value[:, :, target.unit]


def saturated(base: Trace, given: Trace, batch: PairBatch, target: Target) -> bool:
    """Whether the gradient at the patched run is likely to be flat where the patch is not.

    Queries, keys and patterns: the head's largest attention at the end is above 0.95 in one run and moves by more than
    0.1 to the other. Neurons: shut in the patched run (|activation| < 0.02) and open in the donor (> 0.1). Shares of
    pairs; the flag is set from a quarter on.
    """
    if target.site in ("q", "k", "pattern"):
        top = [
            at(run["pattern"][target.layer].transpose(1, 2), batch.ends)[:, 0, target.unit].amax(-1)
            for run in (base, given)
        ]
        flat = (torch.maximum(*top) > FULL_ATTENTION) & ((top[0] - top[1]).abs() > ATTENTION_MOVED)
        return flat.double().mean().item() >= SATURATED_PAIRS
    if target.site == "neuron":
        live, new = (_unit(run["neuron"][target.layer], target)[..., 0].abs() for run in (base, given))
        mask = batch.mask(target.positions)
        opened = ((live < SHUT) & (new > OPEN) & mask).any(-1)
        return opened.double().mean().item() >= SATURATED_PAIRS
    return False
