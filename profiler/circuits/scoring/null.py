"""What a circuit is compared with: random circuits of its size, and itself chosen from other pairs.

* random: other circuits with as many nodes of each kind at the same positions, drawn uniformly, each once and never the
  circuit itself, so that few are all there are (neurons that the circuit lists stay: no other neurons are nodes). A
  random circuit is as good where it is as near to the model and as necessary (`shortfall`): one of two heads that stand
  in for each other is as faithful as both, and nothing is lost without it. p = (1 + random ones as good) / (1 + draws),
  never below 1 / (1 + draws): with fewer than 20 alternatives it cannot be below 5 %. `patch` and `check` ask the same.
* stability: the pairs are resampled and the circuit is chosen anew, by the same steps, and compared with C: Jaccard
  index, and how often each node is chosen. Two halves of the pairs are compared with each other in the same way. Of a
  circuit that was given nothing was chosen, so nothing is compared. Kendall's tau of the ranking needs no circuit.

Cost: one forward pass of the batch per random circuit, and another for each that is as near to the model; of stability
one for each set of nodes that no earlier search came by, few where the pairs agree.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from profiler import statistics
from profiler.circuits.choose import Effects
from profiler.circuits.scoring.evaluate import Evaluator

Keep = Bool[np.ndarray, " node"]
DRAWS = 200
"""Resamples of the ranking."""
CHOSEN_AGAIN = 20
"""Resamples on which the circuit is chosen anew."""


@dataclass(frozen=True)
class RandomCircuits:
    """Faithfulness of random circuits, and p that one is as good as the circuit.

    `alternatives` counts all other circuits of this shape, None where it was not counted; `p_least` is the smallest p
    that the draws can give.
    """

    faithfulness: Float[np.ndarray, " draw"]
    observed: float
    p: float
    p_least: float
    alternatives: int | None


def random_circuits(evaluate: Evaluator, keep: Keep, draws: int = 199, seed: int = 0) -> RandomCircuits:
    """Compare with random circuits that have as many heads and as many MLPs."""
    return beside(evaluate, keep, *other_circuits(keep, _parts(evaluate.nodes), draws, seed))


def beside(
    evaluate: Evaluator, keep: Keep, others: Bool[np.ndarray, "draw node"], alternatives: int | None = None
) -> RandomCircuits:
    """Compare a circuit with others; what is lost without them is asked only of those that are as near to the model."""
    sets = np.concatenate([keep[None], others])
    faithfulness, necessity = evaluate.faithfulness(sets), np.full(len(sets), np.nan)
    near = np.abs(1 - faithfulness) <= abs(1 - faithfulness[0]) + statistics.ROUNDING
    necessity[near] = evaluate.necessity(sets[near])
    short = shortfall(faithfulness, necessity)
    p, least = statistics.random_set_p(-short[0], -short[1:]), statistics.least_random_p(len(others))
    return RandomCircuits(faithfulness[1:], float(faithfulness[0]), p, least, alternatives)


def shortfall(
    faithfulness: Float[np.ndarray, " circuit"], necessity: Float[np.ndarray, " circuit"]
) -> Float[np.ndarray, " circuit"]:
    """By how much each circuit falls short of the first, 0 the best: the larger of two.

    Its distance from the model, |1 - f|, so that over-recovery does not win; and what its necessity is less than the
    first one's, where to lose more than the whole effect is no better.

    Args:
        necessity: NaN where it was not measured, and does not count.
    """
    lost = np.minimum(necessity, 1.0)
    return np.asarray(np.fmax(np.abs(1 - faithfulness), lost[0] - lost))


def other_circuits(
    keep: Keep, groups: Sequence[Int[np.ndarray, "_ _"]], draws: int, seed: int = 0
) -> tuple[Bool[np.ndarray, "draw node"], int]:
    """Random circuits that have what the circuit has in each group, in other components of the group.

    Each is drawn once, the circuit itself never; all of them where there are no more than `draws`.

    Args:
        groups: columns of the nodes that may stand for each other: a row per component, a column per position.
        draws: how many are wanted.

    Returns:
        The circuits, and how many there are in all. What is in no group stays as in the circuit.
    """
    rng = np.random.default_rng(seed)
    alternatives = math.prod(_arrangements(keep[columns]) for columns in groups) - 1
    drawn: dict[bytes, Keep] = {}
    while len(drawn) < min(draws, alternatives):
        other = keep.copy()
        for columns in groups:
            other[columns] = keep[columns][rng.permutation(len(columns))]
        if (other != keep).any():
            drawn.setdefault(other.tobytes(), other)
    return np.array(list(drawn.values()), dtype=bool).reshape(len(drawn), len(keep)), alternatives


def _arrangements(shapes: Bool[np.ndarray, "component part"]) -> int:
    """In how many ways the components of a group can be told apart by what of them is live."""
    _, equal = np.unique(shapes, axis=0, return_counts=True)
    return math.factorial(len(shapes)) // math.prod(math.factorial(n) for n in equal.tolist())


def _parts(nodes: Sequence[str]) -> list[Int[np.ndarray, "component part"]]:
    """Columns of the heads' nodes and of the MLPs': a row per component, a column per position it is split into."""
    parts = []
    for mark in ("H", "_mlp_out"):
        rows: dict[str, list[int]] = {}
        for column, node in enumerate(nodes):
            if mark in node:
                rows.setdefault(node.partition("@")[0], []).append(column)
        if rows:
            parts.append(np.array(list(rows.values())))
    return parts


@dataclass(frozen=True)
class Stability:
    """Jaccard index with circuits chosen anew, how often each node is chosen, Kendall's tau, halves with each other.

    Without a search `jaccard` is empty, and `frequency` and `halves` are NaN.
    """

    jaccard: Float[np.ndarray, " draw"]
    frequency: Float[np.ndarray, " node"]
    tau: float
    halves: float


def stability(
    effects: Effects,
    keep: Keep,
    choose: Callable[[Effects, np.ndarray], Keep] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Stability:
    """How much of a circuit comes back when the pairs are others.

    Args:
        choose: the search that found the circuit, given the effects on some of the pairs and their numbers; None
            where the circuit was given.
        draws: of the ranking; on the first CHOSEN_AGAIN of them the circuit is chosen anew.
    """
    rng = np.random.default_rng(seed)
    n = len(effects.whole)
    resamples = list(statistics.resampled_units(n, draws, rng))
    tau = float(np.nanmean([statistics.kendall(effects.score, effects.drawn(pairs).score) for pairs in resamples]))
    if choose is None:
        return Stability(np.zeros(0), np.full(len(keep), np.nan), tau, float("nan"))
    chosen = np.stack([choose(effects.drawn(pairs), pairs) for pairs in resamples[:CHOSEN_AGAIN]])
    order = rng.permutation(n)
    halves = [choose(effects.drawn(part), part) for part in (order[: n // 2], order[n // 2 :])]
    return Stability(np.array([jaccard(keep, row) for row in chosen]), chosen.mean(0), tau, jaccard(*halves))


def jaccard(first: Keep, second: Keep) -> float:
    """Shared members over all members; 1 for two empty sets."""
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 1.0
