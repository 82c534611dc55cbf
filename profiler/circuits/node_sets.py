"""Many sets of nodes in one forward pass, where what several sets have in common is computed once.

Why: a check judges a circuit beside a hundred random ones, and random circuits are alike in their first layers: they
have as many heads in each. Sets are kept apart only from where they differ: attention of a layer is computed once for
all sets that agree on the layers before, and for none that drop all of its heads; its MLP once for all that agree on
its heads too. Positions before the first at which the two runs differ are never run (their keys and values are those of
the clean run), the last layer only where the answer is read.

Equal to `profiler.circuits.edge_mask.with_nodes` up to rounding, which tests hold it to.
Cost: about half of one forward pass per set for a hundred random circuits of a few heads.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from profiler.circuits.nodes import NodeSites, lost, nodes_by_site
from profiler.model.steps.network import Edit, Network, Offsets, PerHead, Steps, Stream, at, unchanged
from profiler.patching.sites import units_of

Given = Callable[[str, int], Float[Tensor, "prompt_or_1 position *unit"]]
Masks = dict[str, Bool[Tensor, "prompt position"]]
Drop = Bool[Tensor, "set node"]
Gone = Bool[Tensor, "row kept_or_1 unit"] | None
"""Which units each group's prompts drop, at each position that is computed or at all alike; None where none can be."""
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
        of_groups = asked.net.finish(stream, ends=rows).unflatten(0, (len(groups.representative), -1))
        of_sets: Tensor = of_groups[groups.of.to(of_groups.device)]
        return of_sets


def streams(asked: NodeSetInputs, keep: Bool[np.ndarray, "set node"]) -> Float[Tensor, "set prompt position model"]:
    """What the final norm reads, with only the kept nodes of each set live."""
    with torch.inference_mode():
        stream, groups = _run(asked, torch.from_numpy(~keep).to(asked.net.device))
        of_sets: Tensor = stream.unflatten(0, (len(groups.representative), -1))[groups.of.to(stream.device)]
        return of_sets


def _run(asked: NodeSetInputs, drop: Drop) -> tuple[Stream, _Groups]:
    """The final residual stream of each group of sets with identical state, and the groups."""
    net, ends = asked.net, asked.ends
    sites, steps = nodes_by_site(net, asked.nodes), net.begin(asked.tokens, past=net.past(asked.tokens, asked.first))
    groups = _Groups(torch.zeros(1, dtype=torch.long), torch.zeros(len(drop), dtype=torch.long))
    stream = steps.stream
    for layer in range(net.n_layers):
        narrow = ends if layer == net.n_layers - 1 and net.narrow_end else None
        step = _Layer(asked, steps, drop, sites, layer, narrow)
        stream, groups = step.mlp(*step.attention(stream, groups))
    if ends is not None and not net.narrow_end:
        stream = at(stream, ends.repeat(len(groups.representative)) - steps.first)
    return stream, groups


@dataclass(frozen=True, eq=False)
class _Layer:
    """One layer of all groups of sets.

    Attributes:
        steps: the pass of the prompts.
        ends: the positions that are computed; None is all.
    """

    asked: NodeSetInputs
    steps: Steps
    drop: Drop
    sites: NodeSites
    layer: int
    ends: Offsets

    def attention(
        self, stream: Stream, groups: _Groups
    ) -> tuple[Finer, Float[Tensor, "row kept head d_head"], _Groups]:
        """The residual stream before attention, what each head mixes, and the groups that differ after it."""
        n = len(groups.representative)
        finer, parent = groups.split(self.drop, self._columns("head"))
        local = None if self.ends is None else self.ends.repeat(n) - self.steps.first
        gone = self._gone("head", finer)
        heads = self._put("head", self._mixed(stream, gone, parent, n), gone)
        return self._rows(at(stream, local), parent, n), heads, finer

    def _mixed(
        self, stream: Stream, gone: Gone, parent: Int[Tensor, " group"], n: int
    ) -> Float[Tensor, "row kept head d_head"]:
        """What each head mixes in each group; anything in groups that drop all heads, for which nothing is run."""
        live = torch.ones(len(parent), dtype=torch.bool)
        if gone is not None:
            live = ~gone.unflatten(0, (len(parent), -1)).flatten(1).all(1).cpu()
        run = parent[live].unique()
        if not len(run):
            return self._rows(self._given("head"), torch.zeros_like(parent), 1)
        local = None if self.ends is None else self.ends.repeat(len(run)) - self.steps.first
        heads = at(self.steps.heads(self.layer, self._rows(stream, run, n)), local)
        return self._rows(heads, torch.searchsorted(run, parent).where(live, 0), len(run))

    def mlp(self, before: Stream, heads: PerHead, groups: _Groups) -> tuple[Finer, _Groups]:
        """The residual stream after the layer."""
        n = len(groups.representative)
        finer, parent = groups.split(self.drop, [*self._columns("neuron"), *self._columns("mlp_out")])
        dropped = {site: self.sites.get((site, self.layer)) for site in ("neuron", "mlp_out")}
        if dropped["neuron"] is None:
            return self._whole_mlp(before, heads, finer, parent, n), finer
        post = self.steps.neurons(self.layer, before, heads)
        post = self._put("neuron", self._rows(post, parent, n), self._gone("neuron", finer))
        before, heads = self._rows(before, parent, n), self._rows(heads, parent, n)
        written = self._edit(finer) if dropped["mlp_out"] is not None else unchanged
        return self.steps.rest(self.layer, before, heads=heads, neurons=post, edit=written), finer

    def _whole_mlp(
        self, before: Stream, heads: PerHead, groups: _Groups, parent: Int[Tensor, " group"], n: int
    ) -> Finer:
        """The same where the MLP is live or dropped as a whole."""
        before, heads = self._rows(before, parent, n), self._rows(heads, parent, n)
        written = self._edit(groups) if (("mlp_out", self.layer) in self.sites) else unchanged
        return self.steps.rest(self.layer, before, heads=heads, edit=written)

    def _edit(self, groups: _Groups) -> Edit:
        """Replace what dropped MLPs write."""

        def edit(site: str, _layer: int, value: Tensor, _offsets: Offsets) -> Tensor:
            return self._put(site, value, self._gone(site, groups)) if site == "mlp_out" else value

        return edit

    def _columns(self, site: str) -> list[int]:
        return [column for _, column, _ in self.sites.get((site, self.layer), ())]

    def _rows(self, value: Tensor, parent: Int[Tensor, " group"], n: int) -> Tensor:
        """The rows of each group's parent."""
        if len(parent) == n and bool((parent == torch.arange(n)).all()):
            return value
        rows: Tensor = value.unflatten(0, (n, -1))[parent.to(value.device)].flatten(0, 1)
        return rows

    def _put(self, site: str, value: Tensor, gone: Gone) -> Tensor:
        """Replace each group's dropped units by the given values."""
        if gone is None or not gone.any():
            return value
        wide = gone[..., None] if site == "head" else gone
        shape = (-1, len(self.asked.tokens))
        return torch.where(wide.unflatten(0, shape), self._given(site), value.unflatten(0, shape)).flatten(0, 1)

    def _gone(self, site: str, groups: _Groups) -> Gone:
        """Which units each group's prompts drop; None where the site has no nodes in this layer."""
        here, asked = self.sites.get((site, self.layer)), self.asked
        if here is None:
            return None
        drop = self.drop[groups.representative.to(self.drop.device)]
        masks = {name: self._here(mask) for name, mask in asked.masks.items()}
        return lost(here, drop, masks, len(asked.tokens), units_of(asked.net, site, self.layer))

    def _given(self, site: str) -> Float[Tensor, "prompt kept *unit"]:
        """What dropped units write, at the positions that this layer computes."""
        given = self._here(self.asked.given(site, self.layer))
        return given.expand(len(self.asked.tokens), *given.shape[1:])

    def _here(self, value: Tensor) -> Tensor:
        """Of every prompt, the positions that this layer computes."""
        if self.ends is None:
            return value[:, self.steps.first :]
        return at(value.expand(len(self.ends), *value.shape[1:]), self.ends)
