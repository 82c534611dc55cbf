"""Mean ablation in running text: everything outside a set of nodes at its mean, one forward pass per batch and set.

Why: off the prompts there is no corrupted twin to take values from. A mean carries no information about the text, and
stays near what later layers are used to. Means are over the run's own text, of every position but the first of a
window; the first has a mean of its own, because a BOS there is an attention sink.

Cost: the mean needs one pass over a part of the text; after that a forward pass per batch and set of nodes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from profiler.circuits.nodes import lost, nodes_by_site
from profiler.errors import CorpusError
from profiler.generality.distributions.subject import RunText
from profiler.model.steps.network import Network, Offsets, forward
from profiler.patching.sites import units_of
from profiler.text.windows import Batch

MEAN_TOKENS = 40_000
SITES = ("head", "mlp_out", "neuron")


@dataclass(frozen=True, eq=False)
class PositionMeans:
    """Per site and layer the mean at the first position of a window and at all other positions, [2, ...].

    Attributes:
        n: positions that the means are over.
    """

    of: dict[tuple[str, int], Float[Tensor, "2 *rest"]]
    n: int

    def at(self, site: str, layer: int, width: int) -> Float[Tensor, "1 offset *rest"]:
        """The mean at each position of a window."""
        first, rest = self.of[site, layer]
        return torch.cat([first[None], rest.expand(width - 1, *rest.shape)])[None]


def means_of(net: Network, batches: Iterable[Batch], sites: Iterable[str] = SITES) -> PositionMeans:
    """Means over the valid positions of some batches.

    Raises:
        CorpusError: there is none.
    """
    wanted, counts = set(sites), torch.zeros(2)
    sums: dict[tuple[str, int], Tensor] = {}
    for batch in batches:
        valid = batch.valid.to(net.device)
        first = torch.arange(valid.shape[1], device=net.device) == 0
        parts = torch.stack([valid & first, valid & ~first])
        counts += parts.sum((1, 2)).cpu()

        def add(site: str, layer: int, value: Tensor, _offsets: Offsets, parts: Tensor = parts) -> Tensor:
            if site in wanted:
                flat = value.flatten(0, 1).flatten(1)
                summed = (parts.flatten(1).to(flat.dtype) @ flat).double().unflatten(1, value.shape[2:])
                sums[site, layer] = sums[site, layer] + summed if (site, layer) in sums else summed
            return value

        with torch.inference_mode():
            forward(net, batch.tokens.to(net.device), add, patterns="pattern" in wanted)
    if not counts.sum():
        raise CorpusError("there is no text to take means over: record a run with a corpus")
    per = counts.clamp_min(1).to(net.device)
    dtype = net.dtype
    of = {key: (total / per.view(2, *[1] * (total.ndim - 1))).to(dtype) for key, total in sums.items()}
    return PositionMeans(of, int(counts.sum()))


def some(text: RunText, tokens: int = MEAN_TOKENS) -> Iterator[Batch]:
    """Every k-th batch of the text, about `tokens` tokens together."""
    step = max(1, text.n_tokens // tokens)
    return iter(text.batches[::step])


def logits(
    net: Network,
    tokens: Int[Tensor, "window offset"],
    nodes: list[str],
    keep: Bool[np.ndarray, " node"],
    means: PositionMeans,
    ends: Int[Tensor, " window"] | None = None,
) -> Float[Tensor, "window offset vocab"] | Float[Tensor, "window vocab"]:
    """Logits with every node outside `keep` at its mean.

    Args:
        nodes: whole nodes (`profiler.circuits.nodes`).
        ends: the offset of each window to read alone; all by default.
    """
    sites = nodes_by_site(net, nodes)
    drop = torch.from_numpy(~keep).to(net.device)[None]

    def edit(site: str, layer: int, value: Tensor, offsets: Offsets) -> Tensor:
        if (site, layer) not in sites:
            return value
        gone = lost(sites[site, layer], drop, {}, 1, units_of(net, site, layer))[0, 0]
        if not gone.any():
            return value
        mean = means.at(site, layer, tokens.shape[1])
        given = mean if offsets is None else mean[0][offsets][:, None]
        return torch.where(gone[:, None] if site == "head" else gone, given, value)

    with torch.inference_mode():
        return forward(net, tokens, edit, ends, patterns=False)
