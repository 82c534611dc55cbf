"""AtP*: two repairs of attribution patching (Kramar et al. 2024, sections 3.1.1 and 3.1.2).

* QK fix: where attention is saturated the gradient of a query or key is flat though the patch is not small. The softmax
  is computed anew with the patched query or key, and only what comes after the pattern is taken as linear:

      estimate = sum over queries and keys of (pattern with the patch - pattern) . d metric / d pattern

* GradDrop: a direct and an indirect effect of opposite sign cancel in one gradient, and a small error of either decides
  the sum. The gradient is taken once for each layer, with nothing flowing back through that layer, and sizes are
  averaged:

      size = 1 / (L - 1) . sum over layers of |estimate with that layer dropped|

L - 1, because a component's own layer dropped leaves 0. It is a size, for ranking: paths are left out of it, so it is
not the effect's value; it is given the sign of the plain estimate.

Cost: QK fix one layer's attention for all its heads; GradDrop a forward and a backward pass per layer.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from profiler.model.steps.network import Edit, Network, Offsets
from profiler.patching.attribution.gradient import Gradients, estimate, gradients
from profiler.patching.batch import PairBatch, Tokens, Trace
from profiler.patching.sites import Target

FIXED = ("q", "k")


def qk_fixed(
    net: Network, base: Trace, given: Trace, slopes: Gradients, batch: PairBatch, targets: Sequence[Target]
) -> Float[Tensor, "target pair"]:
    """Estimated change of the metric for queries and keys patched alone, the softmax computed anew.

    Args:
        base: the run that is patched.
        given: the run whose queries or keys are put in.
        slopes: gradients at `base`, of the patterns.
        targets: of sites q and k.
    """
    if not targets:
        return base.logits.new_zeros(0, len(batch))
    assert base.tokens is not None
    steps = net.begin(base.tokens)
    changes: dict[tuple[str, int, str], Float[Tensor, "prompt head"]] = {}
    rows = []
    for target in targets:
        site, layer, positions = key = target.site, target.layer, target.positions
        if key not in changes:
            edit = put_in(site, given[site][layer], batch.mask(positions))
            pattern = steps.pattern(layer, base["resid_pre"][layer], edit)
            change = (pattern - base["pattern"][layer]) * slopes["pattern", layer]
            changes[key] = change.sum((2, 3))
        rows.append(changes[key][:, target.unit])
    return torch.stack(rows)


def put_in(site: str, given: Tensor, mask: Bool[Tensor, "prompt position"]) -> Edit:
    """The edit that gives every head of a layer its queries or keys of another run."""

    def edit(name: str, _layer: int, value: Tensor, _positions: Offsets) -> Tensor:
        return torch.where(mask[..., None, None], given, value) if name == site else value

    return edit


def grad_dropped(
    net: Network, base: Trace, given: Trace, tokens: Tokens, batch: PairBatch, targets: Sequence[Target]
) -> Float[Tensor, "target pair"]:
    """Mean size of the estimates with one layer after another dropped from the backward pass, at least 0.

    Args:
        base, given: the run that is patched, and the one whose values are put in.
        tokens: of `base`.
    """
    total = torch.zeros(len(targets), len(batch), dtype=base.logits.dtype, device=net.device)
    for layer in range(net.n_layers):
        slopes, _ = gradients(net, tokens, batch, dropped=layer)
        total += estimate(base, given, slopes, batch, targets).abs()
    return total / max(1, net.n_layers - 1)
