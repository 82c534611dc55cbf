"""How good a circuit is: faithful, complete, minimal, stable, and at which size. One definition each.

M all nodes, C the circuit, F(S) the mean metric with only S live (`evaluate`), w = F(M) - F(none) the whole effect:

* faithfulness: gap |F(M) - F(C)|; ratio F(C) / F(M); normalised (F(C) - F(none)) / w, as ratio of means with a
  bootstrap interval (over pairs, and over the references where means stand outside), and per pair as median and
  quartiles (tiny denominators left out and counted). Above 1 is
  over-recovery: the circuit left out what holds the answer back; it is no success.
* incompleteness of K: |F(C - K) - F(M - K)| / w, for random K (each member with probability 1/2), K a class of members,
  and K grown greedily to make it large (Wang et al. 2022, section 4.1). Beside it, the same for a control: the better
  half of C. Random K cannot tell a good circuit from a naive one; greedy K can.
* minimality of v: max over K of |F(C - K - v) - F(C - K)| / w, K from the same sets. Its null: circuits inflated by
  random nodes, each of which is taken away again (Shi et al. 2024), with the largest over the same K. The member that
  costs most is compared with the most that as many random nodes cost, and so on (`statistics.largest_random_p`): one
  random node among a dozen costs more than most single ones. The null is this model's other nodes, not models at large.

Cost: one forward pass of the batch per set; `evaluate` remembers sets.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from profiler import statistics
from profiler.circuits.scoring.evaluate import Evaluator
from profiler.patching.effects import EffectShare, share

Keep = Bool[np.ndarray, " node"]
RANDOM_SETS = 20
GREEDY_RUNS = 3
GREEDY_STEPS = 6
GREEDY_TRIED = 6
PER_MEMBER = 40
"""Null effects for each member: the least family-wise p is then half of 5 %, however many members there are."""
DROPPED = 0.5
"""Probability that a random set K holds a member."""


@dataclass(frozen=True)
class Faithfulness:
    """See the module docstring; `interval` is of the normalised faithfulness, 95 %."""

    model: float
    circuit: float
    empty: float
    gap: float
    ratio: float
    normalised: float
    interval: tuple[float, float]
    per_pair: EffectShare

    @property
    def over_recovery(self) -> bool:
        """Whether the circuit does more than the model, beyond doubt and rounding."""
        return self.interval[0] > 1 + statistics.ROUNDING


def faithfulness(
    evaluate: Evaluator, keep: Keep, again: Float[np.ndarray, "redraw 2 pair"] | None = None
) -> Faithfulness:
    """Faithfulness of a circuit on the evaluator's pairs.

    Args:
        again: F of the circuit and of the empty one with the references of the means outside resampled, for the
            interval; None where these are no means.
    """
    circuit, model, empty = evaluate(keep[None])[0], evaluate.model, evaluate.empty
    done = share(circuit - empty, model - empty)
    inside, outside = (circuit[None], empty[None]) if again is None else again.swapaxes(0, 1)
    drawn = statistics.bootstrap_ratio_redrawn(inside - outside, model - outside)
    low, high = statistics.percentile_interval(drawn)
    means = float(model.mean()), float(circuit.mean()), float(empty.mean())
    ratio = means[1] / means[0] if means[0] else float("nan")
    interval = float(low), float(high)
    return Faithfulness(*means, abs(means[0] - means[1]), ratio, float(done.of_means), interval, done)


@dataclass(frozen=True)
class Incompleteness:
    """Gaps over sets K, as parts of w: for random K, per class, and greedy; `sets` are the K found greedily."""

    random: Float[np.ndarray, " set"]
    classes: dict[str, float]
    greedy: Float[np.ndarray, " run"]
    sets: tuple[Keep, ...]


def whole(evaluate: Evaluator) -> float:
    """w: F(M) - F(none)."""
    return float(evaluate.model.mean() - evaluate.empty.mean())


def explainable(evaluate: Evaluator, alpha: float = 0.05) -> bool:
    """Whether the model's metric is significantly above the empty circuit's; otherwise shares of w mean nothing."""
    return statistics.is_higher(evaluate.model, evaluate.empty, alpha)


def gaps(evaluate: Evaluator, keep: Keep, removed: Bool[np.ndarray, "set node"]) -> Float[np.ndarray, " set"]:
    """|F(C - K) - F(M - K)| / w for each K."""
    both = evaluate(np.concatenate([keep & ~removed, ~removed])).mean(-1).reshape(2, -1)
    return np.asarray(np.abs(both[0] - both[1]) / abs(whole(evaluate)))


def incompleteness(
    evaluate: Evaluator, keep: Keep, classes: Mapping[str, Sequence[str]], seed: int = 0, greedy_runs: int = GREEDY_RUNS
) -> Incompleteness:
    """Incompleteness of a circuit.

    Args:
        classes: name of a class to labels of its members.
        seed: of random sets and of what the greedy search tries.
    """
    rng = np.random.default_rng(seed)
    drawn = keep & (rng.random((RANDOM_SETS, len(keep))) < DROPPED)
    of_class = {name: keep & evaluate.mask(labels) for name, labels in classes.items()}
    by_class = (
        dict(zip(of_class, gaps(evaluate, keep, np.stack(list(of_class.values()))), strict=True)) if of_class else {}
    )
    greedy_sets = [greedy_set(evaluate, keep, rng) for _ in range(greedy_runs)]
    greedy = gaps(evaluate, keep, np.stack(greedy_sets)) if greedy_sets else np.zeros(0)
    return Incompleteness(
        gaps(evaluate, keep, drawn), {k: float(v) for k, v in by_class.items()}, greedy, tuple(greedy_sets)
    )


def greedy_set(evaluate: Evaluator, keep: Keep, rng: np.random.Generator, steps: int = GREEDY_STEPS) -> Keep:
    """A set K grown one member at a time, the best of a few random ones, as long as the gap grows."""
    removed, best = np.zeros_like(keep), 0.0
    for _ in range(min(steps, int(keep.sum()))):
        left = np.nonzero(keep & ~removed)[0]
        tried = rng.permutation(left)[:GREEDY_TRIED]
        grown = np.repeat(removed[None], len(tried), 0)
        grown[np.arange(len(tried)), tried] = True
        reached = gaps(evaluate, keep, grown)
        if reached.max() <= best + statistics.ROUNDING:
            break
        removed, best = grown[statistics.level(reached).argmax()], float(reached.max())
    return removed


def control(keep: Keep, ranking: Sequence[int]) -> Keep:
    """The naive circuit that scores are compared with: the better half of the members."""
    members = [node for node in ranking if keep[node]]
    half = np.zeros_like(keep)
    half[members[: max(1, len(members) // 2)]] = True
    return half


@dataclass(frozen=True)
class Minimality:
    """Per member: the largest cost of removing it, p against random members of inflated circuits, alone and together.

    `p_adjusted` is family-wise, by the largest of as many random members; `p_least` is the smallest that the null can
    give any member.
    """

    effect: Float[np.ndarray, " member"]
    p: Float[np.ndarray, " member"]
    p_adjusted: Float[np.ndarray, " member"]
    p_least: float
    null: Float[np.ndarray, " draw"]

    def share(self, alpha: float = statistics.LEVEL) -> float:
        """Share of members that cost more than random ones; NaN where the null is too small to tell."""
        return float((self.p_adjusted < alpha).mean()) if self.p_least < alpha else float("nan")


def minimality(
    evaluate: Evaluator,
    keep: Keep,
    sets: Sequence[Keep],
    draws: int = 199,
    seed: int = 0,
    members: Sequence[Keep] | None = None,
) -> Minimality:
    """Minimality of each member: the largest cost of removing it, against a null.

    Args:
        sets: the K to take away before (the empty one is always tried).
        draws: members of inflated circuits in the null, at least; PER_MEMBER of them for each member, at most `draws`.
        members: the nodes of each member, where one may be split by position; by default each node is one.
    """
    rng = np.random.default_rng(seed)
    tried = list({removed.tobytes(): removed for removed in (np.zeros_like(keep), *sets)}.values())
    effect = np.array(
        [removal_cost(evaluate, keep, member, tried) for member in members or np.eye(len(keep), dtype=bool)[keep]]
    )
    null = inflated_null(evaluate, keep, max(draws, min(draws, PER_MEMBER) * len(effect)), rng, tried)
    p = np.array([statistics.random_set_p(value, null) for value in effect])
    together = null[: len(null) // len(effect) * len(effect)].reshape(-1, len(effect))
    adjusted = statistics.largest_random_p(effect, together)
    return Minimality(effect, p, adjusted, statistics.least_random_p(len(together)), null)


def removal_cost(evaluate: Evaluator, keep: Keep, member: int | Keep, sets: Sequence[Keep]) -> float:
    """Largest cost of removing a member: max over K without it of |F(C - K - v) - F(C - K)| / w.

    Args:
        member: a node, or the mask of its nodes.
        sets: the K.
    """
    own = np.arange(len(keep)) == member if isinstance(member, int) else member
    usable = np.stack([keep & ~removed for removed in sets if not (removed & own).any()])
    both = evaluate(np.concatenate([usable & ~own, usable])).mean(-1).reshape(2, -1)
    return float(np.abs(both[0] - both[1]).max() / abs(whole(evaluate)))


def inflated_null(
    evaluate: Evaluator, keep: Keep, draws: int, rng: np.random.Generator, sets: Sequence[Keep]
) -> Float[np.ndarray, " draw"]:
    """Effects of taking random added nodes away from circuits inflated by half their size; empty without others.

    Each added node of each inflated circuit is taken away alone, after each of `sets`; the largest effect counts. Nodes
    of one inflated circuit stand beside each other. No circuit is inflated twice by the same nodes; where
    there are fewer ways than `draws`, circuits are inflated by more nodes, and where that does not do there are fewer
    effects.
    """
    outside = np.nonzero(~keep)[0]
    if not len(outside):
        return np.zeros(0)
    n = len(outside)
    sizes = range(min(n, max(1, int(keep.sum()) // 2)), n + 1)
    most = max(sizes, key=lambda size: size * math.comb(n, size))
    size = next((size for size in sizes if size * math.comb(n, size) >= draws), most)
    wanted = min(-(-draws // size), math.comb(n, size))
    added: dict[tuple[int, ...], None] = {}
    while len(added) < wanted:
        added.setdefault(tuple(sorted(rng.choice(outside, size, replace=False).tolist())))
    inflated = np.repeat(keep[None], wanted, 0)
    inflated[np.arange(wanted)[:, None], np.array(list(added))] = True
    without = np.repeat(inflated, size, 0)
    without[np.arange(len(without)), np.array(list(added)).flatten()] = False
    costs = []
    for removed in sets:
        values = evaluate(np.concatenate([inflated, without]) & ~removed).mean(-1)
        costs.append(np.abs(values[wanted:] - np.repeat(values[:wanted], size)))
    return np.asarray(np.max(costs, 0) / abs(whole(evaluate)))
