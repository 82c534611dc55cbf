"""What one number hides: gates, interactions, serial and parallel redundancy, saturation. numpy only.

Why: a component that is sufficient need not be necessary. In A OR B each alone recovers everything and losing
either costs nothing; in A AND B neither alone recovers anything and losing either costs everything (the essay,
"Patching clean to corrupted vs corrupted to clean"). So every component is a point in the plane of two shares, and its
label says which part of the plane it is in:

| label | recovered_denoise | lost_noise |
|---|---|---|
| sufficient and necessary | nearly all | nearly all |
| OR-like | at least twice what is lost | |
| AND-like | | at least twice what is recovered |
| partial | both, of like size, or of different signs | |
| none | both below the threshold | |

Two components together: interaction I = E(AB) - E(A) - E(B), in shares. Redundancy is serial where the later one
changes its own write to make up for the earlier one's loss, parallel where it does not and losing both costs more than
the sum.
Cost: none; the patches are made by `sweep`.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from profiler.statistics import TAIL_90, student_interval, verdict

Gate = Literal["sufficient and necessary", "OR-like", "AND-like", "partial", "none"]
Kind = Literal["serial", "parallel", "composed", "independent", "inconclusive"]
THRESHOLD = 0.05
WHOLE = 0.8
Value = float | Float[np.ndarray, "*shape"]


def gate(recovered: float, lost: float, threshold: float = THRESHOLD) -> Gate:
    """The label of a component from its two shares.

    Args:
        recovered: recovered_denoise with resampled values.
        lost: lost_noise with resampled values.
        threshold: shares below this in size are no effect.
    """
    sufficient, necessary = abs(recovered), abs(lost)
    if not max(sufficient, necessary) >= threshold:
        return "none"
    if recovered >= WHOLE and lost >= WHOLE:
        return "sufficient and necessary"
    if sufficient >= threshold and necessary >= threshold and recovered * lost < 0:
        return "partial"
    if sufficient >= 2 * necessary:
        return "OR-like"
    return "AND-like" if necessary >= 2 * sufficient else "partial"


def interaction(together: Value, first: Value, second: Value) -> Value:
    """I(A, B): below 0 the two stand in for each other (denoising) or overlap, above 0 they need each other."""
    return together - first - second


def super_additivity(together: float, alone: Sequence[float]) -> float:
    """E(S) / sum of E(s): 1 for parts that add up; NaN where the sum is 0."""
    total = sum(alone)
    return together / total if total else float("nan")


def redundancy(
    delta_dla: Float[np.ndarray, " pair"],
    interaction_lost: Float[np.ndarray, " pair"],
    whole: float,
    margin: float = THRESHOLD,
) -> Kind:
    """How a later component relates to an earlier one that is taken away.

    Args:
        delta_dla: per pair, change of the later one's direct write to the logit difference when the earlier one is
            patched with corrupted values.
        interaction_lost: per pair, what both lose together beyond the sum, in the metric's unit.
        whole: mean clean minus corrupted metric; margins are parts of it.
        margin: shares inside it are no change.

    Returns:
        serial: it makes up for the loss. composed: its write falls too. parallel: its write stays, and losing both
        costs more than the sum. independent: its write stays and the losses add up. inconclusive: an interval is
        neither inside the margin nor clear of 0.
    """
    change = verdict(*student_interval(delta_dla / whole, TAIL_90), margin)
    if change == "effect":
        return "serial" if delta_dla.mean() / whole > 0 else "composed"
    extra = interaction_lost / whole
    joint = verdict(*student_interval(extra, TAIL_90), margin)
    if change == "inconclusive" or joint == "inconclusive":
        return "inconclusive"
    return "parallel" if joint == "effect" and extra.mean() > 0 else "independent"


def orders(n: int, draws: int, seed: int = 0) -> list[list[int]]:
    """Random orders in which components are patched one after another."""
    rng = np.random.default_rng(seed)
    return [rng.permutation(n).tolist() for _ in range(draws)]


def saturation(values: Float[np.ndarray, "order size"]) -> Float[np.ndarray, " size"]:
    """Mean share recovered with 0, 1, 2 ... components patched, over random orders."""
    return np.asarray(values.mean(0))


def shapley(
    values: Float[np.ndarray, "order size"], listed: Sequence[Sequence[int]]
) -> Float[np.ndarray, " component"]:
    """Mean gain of each component over the orders (Shapley 1953); they add up to the share with all of them."""
    gains = np.diff(values, axis=1)
    total = np.zeros(gains.shape[1])
    for order, gained in zip(listed, gains, strict=True):
        total[list(order)] += gained
    return total / len(listed)


def quadrant_counts(labels: Sequence[Gate]) -> dict[str, int]:
    """How many components have each label."""
    return {label: list(labels).count(label) for label in get_args(Gate)}
