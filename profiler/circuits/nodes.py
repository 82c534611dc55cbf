"""The nodes that a circuit is judged among: heads, MLPs and neurons, whole or at the positions that play a role.

Why: a published circuit says more than which heads: a head belongs to it at one position, a neuron without the rest of
its MLP. A node is therefore a label (`L2H3`), or a label at the positions of a role (`L2H3@S2`):

* every head is a node, and every MLP where MLPs are not kept; an MLP or neuron that the circuit lists always is one;
* an MLP whose neurons are nodes stands for the rest of its neurons;
* where some member is at a role, every node is split into one for each such role and one for all `elsewhere`, so that
  random circuits can be drawn at the same positions. Where roles share a position, it is live if either node is.

Everything that is no node stays as it is. Cost: none, labels and masks.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from profiler.circuits.circuit import Circuit, Member
from profiler.errors import CircuitError
from profiler.model.steps.network import Network
from profiler.patching.batch import PairBatch
from profiler.patching.sites import Target, every, parse_target

ELSEWHERE = "elsewhere"
NodeSites = dict[tuple[str, int], list[tuple[list[int], int, str]]]
Mask = Bool[Tensor, "prompt position"]


def parse_node(node: str) -> Target:
    """The target of a node; its positions are `all`, a role, or `elsewhere`."""
    label, _, positions = node.partition("@")
    return parse_target(label, positions or "all")


def node_of(member: Member) -> str:
    """The node of a member at its positions."""
    return member.component if member.positions == "all" else f"{member.component}@{member.positions}"


def members_nodes(circuit: Circuit) -> list[str]:
    """The nodes that a circuit keeps, to be given to `Evaluator.mask`: a label alone keeps all parts of it."""
    return [node_of(member) for member in circuit.members]


def node_labels(net: Network, circuit: Circuit | None = None, *, mlps: bool) -> list[str]:
    """All nodes in order of layer: heads, MLPs if asked for, and what the circuit lists or splits."""
    listed = [] if circuit is None else [parse_target(label) for label in circuit.components]
    roles = roles_of(circuit)
    labels = []
    for layer in range(net.n_layers):
        labels += [t.label for t in every(net, "head") if t.layer == layer]
        named = {t.label for t in listed if t.layer == layer and t.site == "mlp_out"}
        labels += [f"L{layer}_mlp_out"] if named or (mlps and net.has_mlp(layer)) else []
        labels += sorted({t.label for t in listed if t.layer == layer and t.site == "neuron"}, key=_unit)
    return [f"{label}@{part}" for label in labels for part in (*roles, ELSEWHERE)] if roles else labels


def _unit(label: str) -> int:
    return parse_target(label).unit or 0


def roles_of(circuit: Circuit | None) -> tuple[str, ...]:
    """Roles that some member is at, in order."""
    members = () if circuit is None else circuit.members
    return tuple(dict.fromkeys(m.positions for m in members if m.positions != "all"))


def check_roles(circuit: Circuit, batch: PairBatch) -> None:
    """Whether the pairs have every role that a member is at.

    Raises:
        CircuitError: naming the first member whose role no pair has.
    """
    for member in circuit.members:
        if member.positions != "all" and (member.positions not in batch.roles or member.positions == ELSEWHERE):
            raise CircuitError(
                f"circuit {circuit.name!r}: {member.component} is listed at {member.positions!r}, a role that no pair"
                f" has: the roles are all, {', '.join(batch.roles)}"
            )


def masks(batch: PairBatch, nodes: Iterable[str]) -> dict[str, Mask]:
    """The positions of every part that some node is of; `all` where nodes are whole.

    Raises:
        PairError: no pair has such a role.
    """
    parts = dict.fromkeys(parse_node(node).positions for node in nodes)
    by_part = {part: batch.mask(part) for part in parts if part != ELSEWHERE}
    if ELSEWHERE in parts:
        taken = torch.stack([mask for part, mask in by_part.items() if part != "all"]).any(0)
        by_part[ELSEWHERE] = batch.valid & ~taken
    return by_part


def nodes_by_site(net: Network, nodes: Sequence[str]) -> NodeSites:
    """Per site and layer: the units of each node there, its column, and its positions.

    MLPs whose neurons are nodes are taken apart: they stand under site `neuron`, with all units that are no nodes.
    """
    targets = [parse_node(node) for node in nodes]
    apart: dict[int, set[int]] = {}
    for target in targets:
        if target.site == "neuron":
            apart.setdefault(target.layer, set()).add(target.unit or 0)
    sites: NodeSites = {}
    for column, target in enumerate(targets):
        site, units = target.site, [target.unit or 0]
        if site == "mlp_out" and target.layer in apart:
            site, units = "neuron", [i for i in range(net.neurons(target.layer)) if i not in apart[target.layer]]
        sites.setdefault((site, target.layer), []).append((units, column, target.positions))
    return sites


def lost(
    here: list[tuple[list[int], int, str]],
    drop: Bool[Tensor, "set node"],
    at: dict[str, Mask],
    n_prompts: int,
    n_units: int,
) -> Bool[Tensor, "row kept unit"]:
    """Which units each row (set x prompt) loses at which position; one position, for all, where no node is split.

    Args:
        here: of `nodes_by_site`, one site and layer.
        drop: which nodes each set silences.
        at: masks of the parts, at the positions that are computed; not needed for `all`.
    """
    device = drop.device
    is_node = torch.zeros(n_units, dtype=torch.bool, device=device)
    live = torch.zeros(len(drop), 1, 1, n_units, dtype=torch.bool, device=device)
    for part in dict.fromkeys(part for _, _, part in here):
        units, columns = zip(*((unit, column) for some, column, of in here if of == part for unit in some), strict=True)
        alive = torch.zeros(len(drop), n_units, dtype=torch.bool, device=device)
        alive[:, units], is_node[list(units)] = ~drop[:, columns], True
        alive = alive[:, None, None, :]
        live = live | (alive if part == "all" else alive & at[part][None, :, :, None])
    return (~live & is_node).expand(len(drop), n_prompts, -1, -1).flatten(0, 1)
