"""The state of accumulators as named arrays: to the bit, so that a pass goes on where it stopped.

An accumulator's state is its tensors; everything else about it follows from the run's settings. Cost: none on the CPU,
where the arrays are views; a copy on other devices.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def _tensors(accumulators: Mapping[str, Any]) -> Iterator[tuple[str, Any, str, Tensor]]:
    """Every tensor with its name, whose it is and under which name; those of an accumulator's `blocks`, too."""
    for name, accumulator in accumulators.items():
        for field, value in vars(accumulator).items():
            if isinstance(value, Tensor):
                yield f"{name}.{field}", accumulator, field, value
        yield from _tensors({f"{name}.{i}": block for i, block in enumerate(getattr(accumulator, "blocks", ()))})


def arrays(accumulators: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Every tensor of every accumulator, by `accumulator.tensor`; on the CPU they are views, not copies."""
    return {name: value.cpu().numpy() for name, _, _, value in _tensors(accumulators)}


def n_bytes(accumulators: Mapping[str, Any]) -> int:
    """Bytes of all tensors."""
    return sum(value.nbytes for *_, value in _tensors(accumulators))


def restore(accumulators: Mapping[str, Any], state: Mapping[str, np.ndarray]) -> None:
    """Give accumulators made for the same settings the tensors of `state`, on the devices they are on.

    Raises:
        KeyError: a tensor is missing.
    """
    for name, owner, field, value in list(_tensors(accumulators)):
        setattr(owner, field, torch.from_numpy(state[name].copy()).to(value.device))
