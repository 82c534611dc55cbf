"""What can be patched: a site of a layer, one unit of it, at some positions. Labels and errors; no tensors.

A head's own output is written L2H3, its query, key, value or pattern L2H3.q, L2H3.k, L2H3.v, L2H3.pattern; a neuron
L2N17; whole layers L2_mlp_out, L2_attn_out, L2_resid_pre. Cost: none.
"""

import re
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from profiler.errors import PatchError

PER_HEAD = ("head", "q", "k", "v", "pattern")
WHOLE = ("resid_pre", "attn_out", "mlp_out")
ALL_SITES = (*PER_HEAD, "neuron", *WHOLE)
_LABEL = re.compile(r"L(\d+)(?:H(\d+)(?:\.(q|k|v|pattern))?|N(\d+)|_(resid_pre|attn_out|mlp_out))$")


@runtime_checkable
class ModelSizes(Protocol):
    """How many layers, heads and neurons a model has (`profiler.model.steps.network.Network`)."""

    n_layers: int
    n_heads: int
    d_mlp: int

    def heads(self, layer: int) -> int:
        """Heads of a layer."""

    def neurons(self, layer: int) -> int:
        """Neurons of a layer."""

    def has_mlp(self, layer: int) -> bool:
        """Whether a layer has an MLP."""


@dataclass(frozen=True, order=True)
class Target:
    """One thing to patch. `unit` is None for whole layers; `positions` is `all` or a role of the pairs."""

    site: str
    layer: int
    unit: int | None = None
    positions: str = "all"

    @property
    def label(self) -> str:
        """The name shown to people."""
        if self.unit is None:
            return f"L{self.layer}_{self.site}"
        if self.site == "neuron":
            return f"L{self.layer}N{self.unit}"
        return f"L{self.layer}H{self.unit}" + ("" if self.site == "head" else f".{self.site}")

    @property
    def granularity(self) -> str:
        """First of the six values every number carries: `node`, or `edge group` for one input of a head."""
        return "edge group" if self.site in ("q", "k", "v", "pattern") else "node"

    def during(self, positions: str) -> "Target":
        """The same at other positions."""
        return replace(self, positions=positions)


def parse_target(label: str, positions: str = "all") -> Target:
    """The target that a label names.

    Raises:
        PatchError: the label cannot be read.
    """
    match = _LABEL.match(label.strip())
    if match is None:
        raise PatchError(f"{label!r} names nothing that can be patched: write L2H3, L2H3.q, L2N17 or L2_mlp_out")
    layer, head, part, neuron, whole = match.groups()
    if whole:
        return Target(whole, int(layer), None, positions)
    return Target("neuron" if neuron else part or "head", int(layer), int(neuron or head), positions)


def check_target(net: ModelSizes, target: Target) -> None:
    """Whether the network has it.

    Raises:
        PatchError: it has not, so the patch would never fire.
    """
    if target.site not in ALL_SITES:
        raise PatchError(f"there is no site {target.site!r}: choose {', '.join(ALL_SITES)}")
    there = 0 <= target.layer < net.n_layers
    units = units_of(net, target.site, target.layer) if there else 0
    inside = target.unit is None if target.site in WHOLE else target.unit is not None and 0 <= target.unit < units
    if not there or not inside or not units:
        raise PatchError(
            f"the patch of {target.label} would never fire: the model has {net.n_layers} layers of {net.n_heads} heads"
            f" and {net.d_mlp} neurons, all counted from 0"
        )


def every(net: ModelSizes, site: str, positions: str = "all") -> list[Target]:
    """All targets of a site, in order of layer and unit."""
    targets = []
    for layer in range(net.n_layers):
        n = units_of(net, site, layer)
        targets += [Target(site, layer, None if site in WHOLE else unit, positions) for unit in range(n)]
    return targets


def units_of(net: ModelSizes, site: str, layer: int) -> int:
    """How many units of a layer can be patched at a site; 1 or 0 for a whole layer."""
    if site == "neuron":
        return net.neurons(layer)
    if site == "mlp_out":
        return int(net.has_mlp(layer))
    if site == "attn_out":
        return int(net.heads(layer) > 0)
    return 1 if site == "resid_pre" else net.heads(layer)
