"""An evaluator of circuits whose faithfulness is a given function of the set of live nodes; no network."""

from collections.abc import Callable

import numpy as np

from profiler.circuits.scoring.evaluate import Evaluator


class FunctionEvaluator(Evaluator):
    """F of a set is a function of the set, per pair with a fixed offset; no network."""

    def __init__(self, n: int, value: Callable[[set[int]], float], pairs: int = 8) -> None:
        own = {"nodes": [f"L0H{i}" for i in range(n)], "value": value, "offset": np.linspace(-0.1, 0.1, pairs)}
        for name, given in own.items():
            object.__setattr__(self, name, given)

    def __call__(self, keep: np.ndarray) -> np.ndarray:
        return np.stack([self.value(set(np.nonzero(row)[0].tolist())) + self.offset for row in keep])
