"""Choose a circuit from patches in both directions.

1. A node is a candidate if patching it alone has an effect in at least one direction: sign flips over pairs,
   family-wise over all nodes and both directions (`statistics.flip_tests`, whose least p does not grow with the number
   of nodes), and a share of at least `threshold`. Sufficient but not necessary nodes (OR) and necessary but not
   sufficient ones (AND) both get in; a sweep in one direction would lose one kind.
2. Candidates are ranked by their larger share, and taken from the top until the circuit is faithful to within
   `tolerance`.
3. The member whose removal moves faithfulness least is dropped, again and again, as long as it stays within.
4. What stands in for members is added: as long as the model does more than the circuit without some member, or without
   the whole circuit, by more than `tolerance`, the node that makes up for most of it joins, if the circuit stays
   faithful. Faithfulness alone keeps one head of an OR and drops the backup of a head that it keeps.

Cost: one forward pass of the batch per candidate, and half the square of the members in step 3; in step 4 one for each
of TRIED nodes that are no members, where something is missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from profiler.circuits.scoring.evaluate import Evaluator, sizes
from profiler.circuits.scoring.scores import explainable, gaps
from profiler.patching.redundancy.gates import THRESHOLD
from profiler.statistics import LEVEL, ROUNDING, FlipTests, fewest_pairs, flip_tests, level

TOLERANCE = 0.1
ALPHA = LEVEL
TRIED = 300
"""Nodes, best first, that are tried as stand-ins: in a model of thousands the others do next to nothing alone."""


@dataclass(frozen=True)
class Effects:
    """Effects of every node, in the metric's unit.

    Attributes:
        recovered: what denoising each node recovers.
        lost: what noising it loses.
        whole: clean minus corrupted metric.
    """

    recovered: Float[np.ndarray, "node pair"]
    lost: Float[np.ndarray, "node pair"]
    whole: Float[np.ndarray, " pair"]

    def drawn(self, pairs: Sequence[int] | np.ndarray) -> "Effects":
        """The effects on some pairs, with repeats."""
        return Effects(self.recovered[:, pairs], self.lost[:, pairs], self.whole[pairs])

    @property
    def score(self) -> Float[np.ndarray, " node"]:
        """The larger of both shares, in size."""
        shares = np.stack([self.recovered.mean(-1), self.lost.mean(-1)]) / self.whole.mean()
        return np.asarray(np.abs(shares).max(0))


def ranking(effects: Effects) -> list[int]:
    """All nodes by score, best first; of equal ones the first of the model."""
    return [int(node) for node in np.argsort(-level(effects.score), kind="stable")]


def tests(effects: Effects) -> FlipTests:
    """Whether each node recovers anything, then whether each loses anything: all of them together."""
    return flip_tests(np.concatenate([effects.recovered, effects.lost]) / effects.whole.mean(), alpha=ALPHA)


def candidates(effects: Effects, threshold: float = THRESHOLD) -> list[int]:
    """Nodes with an effect in some direction, best first; the first node alone where none has."""
    shares = np.abs(np.concatenate([effects.recovered.mean(-1), effects.lost.mean(-1)]) / effects.whole.mean())
    clear = (tests(effects).clear(ALPHA) & (shares >= threshold)).reshape(2, -1).any(0)
    listed = ranking(effects)
    return [node for node in listed if clear[node]] or listed[:1]


def choose(
    evaluate: Evaluator, effects: Effects, threshold: float = THRESHOLD, tolerance: float = TOLERANCE
) -> Bool[np.ndarray, " node"]:
    """The circuit: grown from the ranking until faithful, then pruned, then completed.

    Nodes that are no candidates are added, best first, only where all candidates together are not faithful. Where the
    model shows no effect that a circuit could explain, the first candidate alone: there is nothing to be faithful to.
    """
    first = candidates(effects, threshold)
    if len(effects.whole) >= fewest_pairs(ALPHA) and not explainable(evaluate):
        return np.asarray(np.arange(len(evaluate.nodes)) == first[0])
    listed = [*first, *(node for node in ranking(effects) if node not in first)]
    pruned = prune(evaluate, grow(evaluate, listed, tolerance), tolerance)
    return complete(evaluate, pruned, listed, tolerance, threshold)


def grow(evaluate: Evaluator, listed: Sequence[int], tolerance: float) -> Bool[np.ndarray, " node"]:
    """The smallest top of the ranking that is faithful to within `tolerance`; everything if none is."""
    tops = sizes(listed, len(evaluate.nodes))[1:]
    close = (abs(1 - evaluate.faithfulness(keep[None])[0]) <= tolerance for keep in tops)
    return np.asarray(tops[next((size for size, enough in enumerate(close) if enough), -1)])


def prune(evaluate: Evaluator, keep: Bool[np.ndarray, " node"], tolerance: float) -> Bool[np.ndarray, " node"]:
    """Drop the member whose removal moves faithfulness least, until every removal leaves the tolerance."""
    while keep.sum() > 1:
        members = np.nonzero(keep)[0]
        without = np.repeat(keep[None], len(members), 0)
        without[np.arange(len(members)), members] = False
        distance = np.abs(1 - evaluate.faithfulness(without))
        best = int(level(-distance).argmax())
        if distance[best] > tolerance:
            break
        keep = without[best]
    return keep


def complete(
    evaluate: Evaluator,
    keep: Bool[np.ndarray, " node"],
    listed: Sequence[int],
    tolerance: float = TOLERANCE,
    threshold: float = THRESHOLD,
) -> Bool[np.ndarray, " node"]:
    """Add what stands in for members, the node that makes up for most first, as long as the circuit stays faithful.

    Args:
        listed: the nodes by their effects; the best TRIED of those that are no members are tried.
        tolerance: largest gap between model and circuit, with the same members taken out of both, that needs no node.
        threshold: least share that a node must make up for.
    """
    while not keep.all():
        removed, gap = largest_gap(evaluate, keep)
        if gap <= tolerance:
            break
        outsiders = np.array([node for node in listed if not keep[node]][:TRIED])
        grown = np.repeat(keep[None], len(outsiders), 0)
        grown[np.arange(len(outsiders)), outsiders] = True
        whole = evaluate.model.mean() - evaluate.empty.mean()
        left = evaluate(~removed[None])[0].mean()
        filled = level(gap - np.abs(evaluate(grown & ~removed).mean(-1) - left) / abs(whole))
        order = [i for i in np.argsort(-filled, kind="stable") if filled[i] >= threshold]
        faithful = (i for i in order if abs(1 - evaluate.faithfulness(grown[i][None])[0]) <= tolerance + ROUNDING)
        best = next(faithful, None)
        if best is None:
            break
        keep = grown[best]
    return keep


def largest_gap(evaluate: Evaluator, keep: Bool[np.ndarray, " node"]) -> tuple[Bool[np.ndarray, " node"], float]:
    """The single member, or all of them, without which model and circuit differ most; and by which share."""
    members = np.nonzero(keep)[0]
    removed = np.concatenate([np.eye(len(keep), dtype=bool)[members], keep[None]])
    sizes = gaps(evaluate, keep, removed)
    worst = int(level(sizes).argmax())
    return removed[worst], float(sizes[worst])
