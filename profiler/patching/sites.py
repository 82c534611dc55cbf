"""What can be patched: a site of a layer, one unit of it, at some positions. Labels and errors; no tensors.

A head's own output is written L2H3, its query, key, value or pattern L2H3.q, L2H3.k, L2H3.v, L2H3.pattern; a neuron
L2N17, of a shared expert L2S0N17, of expert 5 L2E5N17; a channel of a mixer L2M17, a unit of a per-layer projection
L2P17; whole layers L2_mlp_out, L2_attn_out, L2_mixer_out, L2_resid_pre.

A neuron of a routed expert exists at positions that the router sends to its expert. It is patched at those that both
the run under way and the run whose values are put in send there; elsewhere there is nothing to replace, or nothing to
put in, and nothing changes. Cost: none.
"""

import re
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from profiler.errors import PatchError

PER_HEAD = ("head", "q", "k", "v", "pattern")
WHOLE = ("resid_pre", "attn_out", "mlp_out", "mixer_out")
OF_MATRIX = ("mixer", "per_layer", "shared")
"""Sites of units that are neither heads nor the MLP's neurons: what a matrix of the layer reads."""
EXPERT = "expert"
OTHER_UNITS = (*OF_MATRIX, EXPERT)
ALL_SITES = (*PER_HEAD, "neuron", *OTHER_UNITS, *WHOLE)
_FORM = {"neuron": "N", "shared": "S0N", "mixer": "M", "per_layer": "P"}
_SITE = {form: site for site, form in _FORM.items()}
_LABEL = re.compile(
    r"L(\d+)(?:H(\d+)(?:\.(q|k|v|pattern))?|(N|S0N|M|P)(\d+)|E(\d+)N(\d+)|_(resid_pre|attn_out|mlp_out|mixer_out))$"
)


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

    def units(self, site: str, layer: int) -> int:
        """Units of a layer at one of OTHER_UNITS; of experts, those of each."""

    def n_experts(self, layer: int) -> int:
        """Routed experts of a layer."""


@dataclass(frozen=True, order=True)
class Target:
    """One thing to patch. `unit` is None for whole layers; `positions` is `all` or a role of the pairs; `expert` is the
    number of a neuron's routed expert."""

    site: str
    layer: int
    unit: int | None = None
    positions: str = "all"
    expert: int | None = None

    @property
    def label(self) -> str:
        """The name shown to people."""
        if self.unit is None:
            return f"L{self.layer}_{self.site}"
        if self.site == EXPERT:
            return f"L{self.layer}E{self.expert}N{self.unit}"
        if self.site in _FORM:
            return f"L{self.layer}{_FORM[self.site]}{self.unit}"
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
        raise PatchError(
            f"{label!r} names nothing that can be patched: write L2H3, L2H3.q, L2N17, L2E5N17 or L2_mlp_out"
        )
    layer, head, part, form, unit, expert, neuron, whole = match.groups()
    if whole:
        return Target(whole, int(layer), None, positions)
    if expert:
        return Target(EXPERT, int(layer), int(neuron), positions, int(expert))
    return Target(_SITE[form] if form else part or "head", int(layer), int(unit or head), positions)


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
    if there and target.site == EXPERT:
        inside &= target.expert is not None and 0 <= target.expert < net.n_experts(target.layer)
    if not there or not inside or not units:
        raise PatchError(
            f"the patch of {target.label} would never fire: the model has {net.n_layers} layers of {net.n_heads} heads"
            f" and {net.d_mlp} neurons, all counted from 0"
        )


def every(net: ModelSizes, site: str, positions: str = "all") -> list[Target]:
    """All targets of a site, in order of layer, expert and unit."""
    targets = []
    for layer in range(net.n_layers):
        n, experts = units_of(net, site, layer), range(net.n_experts(layer)) if site == EXPERT else (None,)
        for expert in experts:
            targets += [Target(site, layer, None if site in WHOLE else unit, positions, expert) for unit in range(n)]
    return targets


def units_of(net: ModelSizes, site: str, layer: int) -> int:
    """How many units of a layer can be patched at a site (of each expert, for experts); 1 or 0 for a whole layer."""
    if site in OTHER_UNITS:
        return net.units(site, layer)
    if site == "neuron":
        return net.neurons(layer)
    if site == "mlp_out":
        return int(net.has_mlp(layer))
    if site == "mixer_out":
        return int(net.units("mixer", layer) > 0)
    if site == "attn_out":
        return int(net.heads(layer) > 0)
    return 1 if site == "resid_pre" else net.heads(layer)
