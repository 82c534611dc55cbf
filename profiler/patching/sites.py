"""What can be patched: a site of a layer, one unit of it, at some positions. Labels and errors; no tensors.

A head's own output is written L2H3, its query, key, value or pattern L2H3.q, L2H3.k, L2H3.v, L2H3.pattern; a neuron
L2N17; whole layers L2_mlp_out, L2_attn_out, L2_resid_pre. Cost: none.
"""

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from profiler.errors import PatchError

if TYPE_CHECKING:
    from profiler.model.network import Network

PER_HEAD = ("head", "q", "k", "v", "pattern")
WHOLE = ("resid_pre", "attn_out", "mlp_out")
ALL_SITES = (*PER_HEAD, "neuron", *WHOLE)
_LABEL = re.compile(r"L(\d+)(?:H(\d+)(?:\.(q|k|v|pattern))?|N(\d+)|_(resid_pre|attn_out|mlp_out))$")


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


def check_target(net: "Network", target: Target) -> None:
    """Whether the network has it.

    Raises:
        PatchError: it has not, so the patch would never fire.
    """
    if target.site not in ALL_SITES:
        raise PatchError(f"there is no site {target.site!r}: choose {', '.join(ALL_SITES)}")
    units = None if target.site in WHOLE else net.d_mlp if target.site == "neuron" else net.n_heads
    inside = target.unit is None if units is None else target.unit is not None and 0 <= target.unit < units
    if not 0 <= target.layer < net.n_layers or not inside:
        raise PatchError(
            f"the patch of {target.label} would never fire: the model has {net.n_layers} layers of {net.n_heads} heads"
            f" and {net.d_mlp} neurons, all counted from 0"
        )


def every(net: "Network", site: str, positions: str = "all") -> list[Target]:
    """All targets of a site, in order of layer and unit."""
    units = [None] if site in WHOLE else range(net.d_mlp if site == "neuron" else net.n_heads)
    return [Target(site, layer, unit, positions) for layer in range(net.n_layers) for unit in units]
