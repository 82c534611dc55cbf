"""Sign quadrants of gated neurons: how often gate and value are above 0 or not, and how much DLA each quadrant has.

Per quadrant, replicate group and component. Memory: groups * gated components * 96 bytes.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from profiler.model.direct import Part

QUADRANTS = ((True, True), (True, False), (False, True), (False, False))
"""Whether gate and value are above 0."""
QUADRANT_FIELDS = ("n", "sum_dla", "sum_abs_dla")


class GateSums:
    """The sums of components of gated blocks.

    Attributes:
        sums: float64 [field, quadrant, group, component], the fields of QUADRANT_FIELDS; no column before the first
            gated part.
    """

    def __init__(self, n_components: int, device: torch.device):
        self.n_components = n_components
        self.sums = torch.zeros(len(QUADRANT_FIELDS), len(QUADRANTS), 0, 0, dtype=torch.float64, device=device)

    def grow(self, n_groups: int) -> None:
        """Make room for replicate groups up to `n_groups`."""
        missing = n_groups - self.sums.shape[2]
        if missing > 0:
            shape = (*self.sums.shape[:2], missing, self.sums.shape[3])
            self.sums = torch.cat([self.sums, self.sums.new_zeros(shape)], 2)

    def update(self, groups: Int[Tensor, " window"], ordinary: Float[Tensor, "window offset"], part: Part) -> None:
        """Add the values of one part of a batch; nothing where it is not gated."""
        if part.factors is None:
            return
        self.widen(self.n_components)
        gate, value = (factor > 0 for factor in part.factors)
        for quadrant, (is_gate, is_value) in enumerate(QUADRANTS):
            inside = ((gate == is_gate) & (value == is_value)).to(part.dla.dtype)
            dla = part.dla * inside
            for field, values in enumerate((inside, dla, dla.abs())):
                of_windows = (ordinary[:, None] @ values)[:, 0].double()
                self.sums[field, quadrant, :, part.components].index_add_(0, groups, of_windows)

    def widen(self, n_components: int) -> None:
        """Make room for components, where there is none yet."""
        if self.sums.shape[3] < n_components:
            self.sums = self.sums.new_zeros(*self.sums.shape[:3], n_components)

    def merge(self, other: "GateSums") -> None:
        """Add the sums of another part of the corpus."""
        self.grow(other.sums.shape[2])
        self.widen(other.sums.shape[3])
        if other.sums.shape[3]:
            self.sums[:, :, : other.sums.shape[2]] += other.sums
