"""Choose a circuit by edges: the best of a ranking by EAP-IG, as few as are faithful, connected.

1. All edges are ranked by |EAP-IG| on the discovery pairs (`profiler.circuits.edges.edge_scores`).
2. The size is doubled until the circuit of the best edges is faithful to within `tolerance`, then halved in between:
   the smallest size that was found. Faithfulness is not monotone in size, so a smaller one may exist.
3. Edges that no path joins to both the input and the logits are dropped: with resampled values they carry nothing.

Cost: about twice the logarithm of the number of edges in passes over the pairs.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

from profiler.circuits.by_edges.edge_sets import EdgeEvaluator
from profiler.circuits.circuit import INPUT, OUTPUT, Edge
from profiler.statistics import level

Keep = Bool[np.ndarray, " edge"]
TOLERANCE = 0.1


def ranking(scores: Float[np.ndarray, " edge"]) -> list[int]:
    """Edges by |score|, largest first; of equal ones the first of the model."""
    return list(np.argsort(-level(np.abs(scores)), kind="stable").tolist())


def best(listed: list[int], size: int, n: int) -> Keep:
    """The set of the first `size` of a ranking."""
    keep = np.zeros(n, dtype=bool)
    keep[listed[:size]] = True
    return keep


def choose(evaluate: EdgeEvaluator, scores: Float[np.ndarray, " edge"], tolerance: float = TOLERANCE) -> Keep:
    """The circuit's edges."""
    listed, n = ranking(scores), len(evaluate.nodes)

    def is_faithful(size: int) -> bool:
        return bool(abs(1 - evaluate.faithfulness(best(listed, size, n)[None])[0]) <= tolerance)

    return connected(evaluate.edges, best(listed, smallest(is_faithful, n), n))


def smallest(holds: Callable[[int], bool], most: int) -> int:
    """The smallest size at which `holds` was found true: by doubling, then by halving in between; `most` if none."""
    low, high = 0, 1
    while high < most and not holds(high):
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def connected(edges: list[Edge], keep: Keep) -> Keep:
    """The edges of a set that lie on some path of its edges from the input to the logits."""
    live = [edge for edge, is_live in zip(edges, keep, strict=True) if is_live]
    fed, heard = {INPUT}, {OUTPUT}
    grows = True
    while grows:
        size = len(fed) + len(heard)
        fed |= {edge.reader.split(".")[0] for edge in live if edge.writer in fed}
        heard |= {edge.writer for edge in live if edge.reader.split(".")[0] in heard}
        grows = len(fed) + len(heard) > size
    return np.array(
        [
            bool(is_live) and edge.writer in fed and edge.reader.split(".")[0] in heard
            for edge, is_live in zip(edges, keep, strict=True)
        ],
        dtype=bool,
    )
