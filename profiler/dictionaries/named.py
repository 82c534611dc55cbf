"""The tensors of a dictionary's file by name, each held to the size that the others ask for."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from profiler.errors import DictionaryError


@dataclass(frozen=True, eq=False)
class Named:
    """Tensors of a file.

    Attributes:
        file: where they come from, for messages.
        tensors: by name.
    """

    file: Path
    tensors: Mapping[str, Tensor]

    def matrix(self, name: str) -> Tensor:
        """A matrix.

        Raises:
            DictionaryError: it is not there, or of other than two axes.
        """
        return self._of_axes(name, len(("row", "column")))

    def sized(self, name: str, *shape: int) -> Tensor:
        """A tensor of a shape.

        Raises:
            DictionaryError: it is not there, or of another shape.
        """
        found = self._of_axes(name, len(shape))
        if tuple(found.shape) != shape:
            raise DictionaryError(
                f"{name!r} of {self.file} has shape {list(found.shape)}, and the other weights ask for {list(shape)}:"
                " take a copy that is whole"
            )
        return found

    def optional(self, name: str, *shape: int) -> Tensor | None:
        """The same; None where it is not there."""
        return self.sized(name, *shape) if name in self.tensors else None

    def _of_axes(self, name: str, axes: int) -> Tensor:
        found = self.tensors.get(name)
        if found is None:
            raise DictionaryError(
                f"{self.file} has no tensor {name!r} but {', '.join(sorted(self.tensors)[:12])}: name a dictionary of a"
                " form that can be read"
            )
        if found.dim() != axes:
            raise DictionaryError(f"{name!r} of {self.file} has {found.dim()} axes, and {axes} are expected")
        return found if found.is_floating_point() else found.to(torch.float32)
