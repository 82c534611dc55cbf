"""How well dictionaries reconstruct what the model writes: variance explained, active units, and loss with it put in.

Squares are summed over all ordinary positions. Losses come from a random sample of windows, those of the smallest keys,
as the dense rows' positions do: the model runs them again with a reconstruction, or nothing, in the place of the write.
So the sample does not depend on batches, order or shards, and merging takes the smaller keys. Cost of a window of the
sample: two forward passes a dictionary and one more; memory: windows * dictionaries * 16 bytes.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from profiler.text.windows import Batch

WINDOWS = 64
"""Windows of the sample."""
SQUARES = ("error", "whole", "active")
PUT = ("spliced", "ablated")
"""What stands in the place of a write: its reconstruction, or nothing."""


class Fidelity:
    """The sums.

    Attributes:
        n: int64 [1], ordinary positions.
        squares: float64 [dictionary, 3]: of the error, of what is reconstructed, and active units.
        sums: float64 [dictionary, width]: of what is reconstructed; widths below the largest leave the rest 0.
        keys, counts: int64 [window]: sampled windows' keys, and how many ordinary positions each has.
        losses: float64 [window, 1 + 2 * dictionary]: summed over its positions, nats: of the model as it is, then with
            each reconstruction and without each write.
    """

    def __init__(self, n_dictionaries: int, width: int, device: torch.device):
        k = WINDOWS if n_dictionaries else 0
        self.n = torch.zeros(1, dtype=torch.int64)
        self.squares = torch.zeros(n_dictionaries, len(SQUARES), dtype=torch.float64, device=device)
        self.sums = torch.zeros(n_dictionaries, width, dtype=torch.float64, device=device)
        self.keys = torch.full((k,), torch.iinfo(torch.int64).max)
        self.counts = torch.zeros(k, dtype=torch.int64)
        self.losses = torch.zeros(k, 1 + len(PUT) * n_dictionaries, dtype=torch.float64)

    def update(
        self,
        number: int,
        whole: Float[Tensor, "token width"],
        rebuilt: Float[Tensor, "token width"],
        values: Float[Tensor, "token unit"],
    ) -> None:
        """Add ordinary positions of one dictionary."""
        sizes = ((whole - rebuilt).double().square().sum(), whole.double().square().sum(), (values != 0).sum().double())
        self.squares[number] += torch.stack(sizes)
        self.sums[number, : whole.shape[1]] += whole.double().sum(0)

    def entering(self, batch: Batch) -> Int[Tensor, " window"]:
        """Windows of a batch that enter the sample; those without an ordinary position never do."""
        has = batch.ordinary.any(1).nonzero()[:, 0]
        keys = torch.cat([self.keys, batch.keys[has, 0]])
        chosen = torch.argsort(keys, stable=True)[: len(self.keys)]
        return has[chosen[chosen >= len(self.keys)] - len(self.keys)]

    def take(
        self, keys: Int[Tensor, " window"], counts: Int[Tensor, " window"], losses: Float[Tensor, "window column"]
    ) -> None:
        """Let windows into the sample where their keys are small enough."""
        held = torch.cat([self.keys, keys]), torch.cat([self.counts, counts]), torch.cat([self.losses, losses.cpu()])
        chosen = torch.argsort(held[0], stable=True)[: len(self.keys)]
        self.keys, self.counts, self.losses = (table[chosen] for table in held)

    def sampled(self) -> Bool[Tensor, " window"]:
        """Which places of the sample are taken."""
        return self.counts > 0

    def merge(self, other: "Fidelity") -> None:
        """Add another part of the corpus."""
        self.n += other.n
        self.squares += other.squares
        self.sums += other.sums
        self.take(other.keys, other.counts, other.losses)
