"""Many sets of nodes in one forward pass, where what several sets have in common is computed once.

Why: a check judges a circuit beside a hundred random ones, and random circuits are alike in their first layers: they
have as many heads in each. Sets are kept apart only from where they differ: attention of a layer is computed once for
all sets that agree on the layers before, its MLP once for all that agree on its heads too. Positions before the first
at which the two runs differ are never run (their keys and values are the clean run's), the last layer only where the
answer is read.

Equal to `profiler.circuits.edge_mask.with_nodes` up to rounding, which tests hold it to.
Cost: about half of one forward pass per set for a hundred random circuits of a few heads.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from profiler.circuits.nodes import NodeSites, lost, nodes_by_site
from profiler.model.network import (
    Network,
    Offsets,
    Past,
    Stream,
    at,
    finish,
    layer_step,
    neurons,
    project,
    rotate,
    start,
    unchanged,
)

Given = Callable[[str, int], Float[Tensor, "prompt_or_1 position *unit"]]
Masks = dict[str, Bool[Tensor, "prompt position"]]
Drop = Bool[Tensor, "set node"]
Finer = Float[Tensor, "row kept model"]
"""A residual stream of more groups than the one it came from, or of fewer positions."""


@dataclass(frozen=True, eq=False)
class NodeSetInputs:
    """What sets of nodes are run on.

    Attributes:
        tokens: the prompts.
        ends: the position of each prompt that is read; None reads all.
        nodes: labels (`profiler.circuits.nodes`).
        given: what dropped nodes write at a site, for every prompt or the same for all.
        masks: positions of each role, where nodes are at roles.
        first: before this position what is given is what the prompts themselves do.
    """

    net: Network
    tokens: Int[Tensor, "prompt position"]
    ends: Offsets
    nodes: list[str]
    given: Given
    masks: Masks
    first: int = 0


@dataclass(frozen=True, eq=False)
class _Groups:
    """Groups node sets with identical state; keeps one representative each.

    Attributes:
        representative: number of one set of each group.
        of: group of each set.
    """

    representative: Int[Tensor, " group"]
    of: Int[Tensor, " set"]

    def split(self, drop: Drop, columns: list[int]) -> tuple["_Groups", Int[Tensor, " group"]]:
        """Split into groups that also agree on these nodes; the new groups, and the old group of each."""
        if not columns:
            return self, torch.arange(len(self.representative))
        keys = np.concatenate([self.of[:, None].numpy(), drop[:, columns].cpu().numpy()], 1)
        _, first, row = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        finer = _Groups(torch.from_numpy(first), torch.from_numpy(row.reshape(-1)))
        return finer, self.of[finer.representative]


def logits(asked: NodeSetInputs, keep: Bool[np.ndarray, "set node"]) -> Float[Tensor, "set prompt *position vocab"]:
    """Logits with only the kept nodes of each set live: at `ends`, or at every position."""
    with torch.inference_mode():
        stream, groups = _run(asked, torch.from_numpy(~keep).to(asked.net.device))
        rows = None if asked.ends is None else asked.ends.repeat(len(groups.representative))
        of_groups = finish(asked.net, stream, unchanged, rows).unflatten(0, (len(groups.representative), -1))
        return of_groups[groups.of.to(of_groups.device)]


def streams(asked: NodeSetInputs, keep: Bool[np.ndarray, "set node"]) -> Float[Tensor, "set prompt position model"]:
    """What the final norm reads, with only the kept nodes of each set live."""
    with torch.inference_mode():
        stream, groups = _run(asked, torch.from_numpy(~keep).to(asked.net.device))
        return stream.unflatten(0, (len(groups.representative), -1))[groups.of.to(stream.device)]


def _run(asked: NodeSetInputs, drop: Drop) -> tuple[Stream, _Groups]:
    """The final residual stream of each group of sets with identical state, and the groups."""
    net = asked.net
    sites, past = nodes_by_site(net, asked.nodes), _past(asked)
    groups = _Groups(torch.zeros(1, dtype=torch.long), torch.zeros(len(drop), dtype=torch.long))
    stream = start(net, asked.tokens)[:, asked.first :]
    for layer in range(net.n_layers):
        ends = asked.ends if layer == net.n_layers - 1 else None
        step = _Layer(asked, drop, sites, layer, ends, past)
        stream, groups = step.mlp(*step.attention(stream, groups))
    return stream, groups


def _past(asked: NodeSetInputs) -> Past | None:
    """Keys and values of the positions before the first that differs, one row a prompt."""
    if not asked.first:
        return None
    stored: dict[str, list[Tensor]] = {"k": [], "v": []}

    def keep(site: str, _layer: int, value: Tensor, _positions: Offsets) -> Tensor:
        if site in stored:
            stored[site].append(value)
        return value

    stream = start(asked.net, asked.tokens[:, : asked.first])
    for layer in range(asked.net.n_layers):
        stream = layer_step(asked.net, layer, stream, keep)
    return Past(asked.first, tuple(stored["k"]), tuple(stored["v"]))


@dataclass(frozen=True, eq=False)
class _Layer:
    """One layer of all groups of sets."""

    asked: NodeSetInputs
    drop: Drop
    sites: NodeSites
    layer: int
    ends: Offsets
    past: Past | None

    def attention(self, stream: Stream, groups: _Groups) -> tuple[Finer, Finer, _Groups]:
        """The residual stream before attention, what attention adds to it, and the groups that differ after it."""
        w, n = self.asked.net.layers[self.layer], len(groups.representative)
        finer, parent = groups.split(self.drop, self._columns("head"))
        ends = None if self.ends is None else self.ends.repeat(n)
        heads = self._rows(self._mixed(w.norm_attn(stream), ends, self._past(n)), parent, n)
        attended = self._put("head", heads, finer).flatten(-2) @ w.w_o.flatten(0, 1) + w.b_o
        read = at(stream, None if ends is None else ends - self.asked.first)
        return self._rows(read, parent, n), attended, finer

    def _mixed(self, x: Stream, ends: Offsets, past: Past | None) -> Float[Tensor, "prompt query head d_head"]:
        """What each head mixes; patterns are not kept, so the fused kernel does it."""
        net, w, first = self.asked.net, self.asked.net.layers[self.layer], self.asked.first
        q = project(at(x, None if ends is None else ends - first), w.w_q, w.b_q)
        k, v = project(x, w.w_k, w.b_k), project(x, w.w_v, w.b_v)
        if past is not None:
            k, v = torch.cat([past.k[self.layer], k], 1), torch.cat([past.v[self.layer], v], 1)
        positions = torch.arange(k.shape[1], device=k.device)[None]
        queries = positions[:, first:] if ends is None else ends[:, None]
        parts = (rotate(net, q, queries), rotate(net, k, positions), v)
        seen = None if ends is None and not first else (positions[:, None, :] <= queries[..., None])[:, None]
        q, k, v = (part.transpose(1, 2) for part in parts)
        mixed = scaled_dot_product_attention(q, k, v, seen, is_causal=seen is None, scale=net.attn_scale)
        return mixed.transpose(1, 2)

    def mlp(self, before: Stream, attended: Stream, groups: _Groups) -> tuple[Finer, _Groups]:
        """The residual stream after the layer."""
        net, w = self.asked.net, self.asked.net.layers[self.layer]
        middle = before + attended
        post = neurons(net, self.layer, w.norm_mlp(before if net.parallel else middle))
        n = len(groups.representative)
        finer, parent = groups.split(self.drop, [*self._columns("neuron"), *self._columns("mlp_out")])
        post = self._put("neuron", self._rows(post, parent, n), finer)
        written = self._put("mlp_out", post @ w.w_out + w.b_out, finer)
        return self._rows(middle, parent, n) + written, finer

    def _columns(self, site: str) -> list[int]:
        return [column for _, column, _ in self.sites.get((site, self.layer), ())]

    def _past(self, times: int) -> Past | None:
        if self.past is None:
            return None
        k, v = (
            tuple(x.repeat(times, 1, 1, 1) if i == self.layer else x[:0] for i, x in enumerate(part))
            for part in (self.past.k, self.past.v)
        )
        return Past(self.past.first, k, v)

    def _rows(self, value: Tensor, parent: Int[Tensor, " group"], n: int) -> Tensor:
        """The rows of each group's parent."""
        if len(parent) == n and bool((parent == torch.arange(n)).all()):
            return value
        return value.unflatten(0, (n, -1))[parent.to(value.device)].flatten(0, 1)

    def _put(self, site: str, value: Tensor, groups: _Groups) -> Tensor:
        """Replace each group's dropped units by the given values."""
        here = self.sites.get((site, self.layer))
        if here is None:
            return value
        asked, drop = self.asked, self.drop[groups.representative.to(self.drop.device)]
        masks = {name: self._here(mask) for name, mask in asked.masks.items()}
        gone = lost(
            here, drop, masks, len(asked.tokens), {"head": asked.net.n_heads, "mlp_out": 1}.get(site, asked.net.d_mlp)
        )
        if not gone.any():
            return value
        given = self._here(asked.given(site, self.layer)).expand(len(asked.tokens), *value.shape[1:])
        wide = gone[..., None] if site == "head" else gone
        shape = (len(drop), len(asked.tokens))
        return torch.where(wide.unflatten(0, shape), given[None], value.unflatten(0, shape)).flatten(0, 1)

    def _here(self, value: Tensor) -> Tensor:
        """Of every prompt, the positions that this layer computes."""
        if self.ends is None:
            return value[:, self.asked.first :]
        return at(value.expand(len(self.ends), *value.shape[1:]), self.ends)
