"""Performance by size: how faithful the best k nodes are, and the areas that are quoted for it. numpy only.

Definitions (circuits.md section 3.9): f(k) the normalised faithfulness of the k best nodes, piecewise linear; CPR the
area under f; CMD the area of |1 - f|, exact also where f crosses 1. Both over the share of nodes, and over its
logarithm; both from the same ranking, so that CPR + CMD is at least the width of the domain, and equal to it where f
never exceeds 1 (benchmarks take them from two different rankings, and the absolute value before the trapezoids). Cost:
none.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Areas:
    """Areas over the share of nodes (`cpr`, `cmd`, divided by nothing) and over ln of it (divided by its width)."""

    cpr: float
    cmd: float
    cpr_log: float
    cmd_log: float


def areas(share: Float[np.ndarray, " size"], faithfulness: Float[np.ndarray, " size"]) -> Areas:
    """Areas of a curve; `share` rises, and its zeros are left out of the logarithmic ones."""
    positive = share > 0
    width = np.log(share[positive][-1]) - np.log(share[positive][0])
    logs = [
        area(np.log(share[positive]), faithfulness[positive]),
        distance(np.log(share[positive]), faithfulness[positive]),
    ]
    logs = [value / width if width else float("nan") for value in logs]
    return Areas(area(share, faithfulness), distance(share, faithfulness), *logs)


def area(x: Float[np.ndarray, " size"], y: Float[np.ndarray, " size"]) -> float:
    """Area under a piecewise linear curve."""
    return float(np.trapezoid(y, x))


def distance(x: Float[np.ndarray, " size"], y: Float[np.ndarray, " size"]) -> float:
    """Area of |1 - y|, exact where a piece crosses 1."""
    total = 0.0
    for width, a, b in zip(np.diff(x), 1 - y[:-1], 1 - y[1:], strict=True):
        crosses = a * b < 0
        total += width * ((a * a + b * b) / (2 * (abs(a) + abs(b))) if crosses else (abs(a) + abs(b)) / 2)
    return float(total)


def smallest(faithfulness: Float[np.ndarray, " size"], level: float = 0.9) -> int | None:
    """The smallest size from which on faithfulness never falls below `level`; None where it ends below."""
    below = np.nonzero(faithfulness < level)[0]
    first = 0 if not len(below) else int(below[-1]) + 1
    return first if first < len(faithfulness) else None
