"""The state of accumulators as named arrays: to the bit, so that a pass goes on where it stopped.

An accumulator's state is its tensors; everything else about it follows from the run's settings. Cost: none on the CPU,
where the arrays are views; a copy on other devices.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def arrays(accumulators: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Every tensor of every accumulator, by `accumulator.tensor`; on the CPU they are views, not copies."""
    return {
        f"{name}.{field}": value.cpu().numpy()
        for name, accumulator in accumulators.items()
        for field, value in vars(accumulator).items()
        if isinstance(value, Tensor)
    }


def restore(accumulators: Mapping[str, Any], state: Mapping[str, np.ndarray]) -> None:
    """Give accumulators made for the same settings the tensors of `state`, on the devices they are on.

    Raises:
        KeyError: a tensor is missing.
    """
    for name, accumulator in accumulators.items():
        for field, value in vars(accumulator).items():
            if isinstance(value, Tensor):
                setattr(accumulator, field, torch.from_numpy(state[f"{name}.{field}"].copy()).to(value.device))
