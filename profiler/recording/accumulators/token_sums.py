"""Sums of activation, DLA and |DLA| per component and token id, so that any class of tokens can be split exactly later.

A class of tokens is a set of token ids, so its sums are sums of these: a class defined after the run gives the same
numbers as one defined before. Kept for heads and --components, or for every component (`--token-sums all`). Only
ordinary positions count. No replicate groups: an interval of a split comes from the sampled rows, not from here.

A batch costs one index_add of its values. Memory: vocabulary * components * 24 bytes, in float64.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class TokenSums:
    """The sums.

    Attributes:
        components: ids of the components kept, ascending.
        counts: int64 [vocab], once for all components that are present everywhere.
        presences: numbers of the presences of components kept that are absent at some positions, ascending.
        present_counts: int64 [presence, vocab], of these.
        sums: float64 [quantity, vocab, kept component]; quantities are activation, DLA, |DLA|.
    """

    def __init__(self, components: list[int], n_vocab: int, device: torch.device, presences: tuple[int, ...] = ()):
        self.components = torch.tensor(sorted(set(components)), dtype=torch.int64, device=device)
        self.counts = torch.zeros(n_vocab, dtype=torch.int64, device=device)
        self.presences = torch.tensor(presences, dtype=torch.int64)
        self.present_counts = torch.zeros(len(presences), n_vocab, dtype=torch.int64, device=device)
        self.sums = torch.zeros(3, n_vocab, len(self.components), dtype=torch.float64, device=device)

    def count(self, tokens: Int[Tensor, " ordinary"]) -> None:
        """Count a batch's ordinary positions, once for all its parts."""
        self.counts += torch.bincount(tokens, minlength=len(self.counts))

    def count_present(self, presence: int, tokens: Int[Tensor, " ordinary"]) -> None:
        """Count the ordinary positions of a batch that the components of a presence are present at."""
        row = int(torch.searchsorted(self.presences, presence))
        self.present_counts[row] += torch.bincount(tokens, minlength=len(self.counts))

    def _kept(self, components: slice) -> Bool[Tensor, " kept"]:
        chosen: Tensor = (self.components >= components.start) & (self.components < components.stop)
        return chosen

    def keeps(self, components: slice) -> bool:
        """Whether sums are kept for any of these components."""
        return bool(self._kept(components).any())

    def update(
        self,
        components: slice,
        tokens: Int[Tensor, " ordinary"],
        activation: Float[Tensor, "ordinary component"],
        dla: Float[Tensor, "ordinary component"],
    ) -> None:
        """Add the values of one part's ordinary positions, where any of its components is kept."""
        chosen = self._kept(components)
        columns = self.components[chosen] - components.start
        first, last = int(chosen.nonzero()[0]), int(chosen.nonzero()[-1]) + 1
        for target, values in zip(self.sums, (activation, dla, dla.abs()), strict=True):
            target[:, first:last].index_add_(0, tokens, values[:, columns].double())

    def merge(self, other: "TokenSums") -> None:
        """Add the sums of another part of the corpus."""
        self.counts += other.counts
        self.present_counts += other.present_counts
        self.sums += other.sums

    def of_component(self) -> Iterator[tuple[int, Float[Tensor, "quantity vocab"]]]:
        """The sums of one kept component after another."""
        return ((int(component), self.sums[:, :, i]) for i, component in enumerate(self.components))
