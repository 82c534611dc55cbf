"""The model's loss with a dictionary's reconstruction in the place of what it reconstructs, and with nothing there.

Only ordinary positions are changed: a BOS keeps what the model writes there, because dictionaries are rarely trained on
it and everything attends to it. Cost: one forward pass for each loss.
"""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from profiler.axes import TokenIds
from profiler.model.described.attached import Rebuild
from profiler.model.forward import Wanted

if TYPE_CHECKING:
    from profiler.model.load import Model


def losses(
    model: "Model",
    tokens: TokenIds,
    targets: Int[Tensor, "window offset"],
    ordinary: Bool[Tensor, "window offset"],
    rebuilds: list[Rebuild],
) -> Float[Tensor, "window column"]:
    """Loss of each window, summed over ordinary positions, nats, float64: of the model as it is, then for each
    reconstruction with it put in and with nothing put in; NaN where nothing can be put in.

    Args:
        rebuilds: of the same windows, in the order of the model's dictionaries that reconstruct.
    """
    columns = [_loss(model, tokens, targets, ordinary)]
    device = model.weights.unembed.device
    at = ordinary.to(device)[..., None]
    assert model.described is not None
    sites = model.described.sites
    for rebuild in rebuilds:
        place = rebuild.attached.dictionary.writes
        for put in (rebuild.rebuilt, torch.zeros_like(rebuild.whole)):
            if sites.can_be_put(place):
                with sites.putting({place: torch.where(at, put, rebuild.whole)}):
                    columns.append(_loss(model, tokens, targets, ordinary))
            else:
                columns.append(torch.full_like(columns[0], torch.nan))
    return torch.stack(columns, 1)


def _loss(
    model: "Model", tokens: TokenIds, targets: Int[Tensor, "window offset"], ordinary: Bool[Tensor, "window offset"]
) -> Float[Tensor, " window"]:
    rows = ordinary.nonzero(as_tuple=True)
    capture = model.run(tokens, Wanted(logits=(rows[0], rows[1])))
    logits = model.weights.wiring.capped(capture.logits.double())
    target = targets[rows].to(logits.device)[:, None]
    loss = torch.logsumexp(logits, -1) - logits.gather(-1, target)[:, 0]
    return torch.zeros(len(tokens), dtype=torch.float64).index_add_(0, rows[0], loss.cpu())
