"""Attribution patching of an experiment beside the exact patches: estimates, agreement, and which neurons to patch.

Four methods: `gradient` at the patched run, `integrated` along the path to the donor, and the two parts of AtP*,
`qk_fix` for queries and keys and `grad_drop` for all (`profiler.patching.attribution.atp_star`).
Cost: for each direction one gradient, `steps` more along the path and one per layer; then the exact patches of the
chosen neurons.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float

from profiler.patching.attribution import atp_star, reliability
from profiler.patching.attribution import gradient as attribution
from profiler.patching.batch import Tokens, Trace
from profiler.patching.setting import PairRuns
from profiler.patching.sites import Target, every
from profiler.patching.sweep_tables import Direction, PatchedPanel, change, run_both

METHODS = ("gradient", "integrated", "qk_fix", "grad_drop")
THRESHOLD = 0.02


@dataclass(frozen=True, eq=False)
class Slopes:
    """Gradients of one direction: at the patched run, and along the path to the donor.

    `sizes` are the estimates of `star.grad_dropped`, per target and pair, for the targets that were asked for.
    """

    direction: Direction
    gradient: attribution.Gradients
    path: attribution.Path
    sizes: dict[Target, Float[np.ndarray, " pair"]]

    def runs(self, setting: PairRuns) -> tuple[Trace, Trace, Tokens]:
        """The run that is patched, the run whose values are put in, and the tokens of the first."""
        if self.direction == "denoise":
            return setting.corrupted, setting.clean, setting.batch.corrupted
        return setting.clean, setting.corrupted, setting.batch.clean


def slopes(setting: PairRuns, steps: int, also: Sequence[Target] = ()) -> list[Slopes]:
    """Gradients of both directions; sizes of `also`, and of every neuron."""
    targets = list(dict.fromkeys([*every(setting.net, "neuron"), *also]))
    both_directions = []
    runs: tuple[tuple[Direction, Trace, Trace, Tokens], ...] = (
        ("denoise", setting.corrupted, setting.clean, setting.batch.corrupted),
        ("noise", setting.clean, setting.corrupted, setting.batch.clean),
    )
    for direction, base, other, tokens in runs:
        gradient, _ = attribution.gradients(setting.net, tokens, setting.batch)
        path = attribution.along(setting.net, base, other, tokens, setting.batch, steps)
        sizes = atp_star.grad_dropped(setting.net, base, other, tokens, setting.batch, targets).double().cpu().numpy()
        both_directions.append(Slopes(direction, gradient, path, dict(zip(targets, sizes, strict=True))))
    return both_directions


def estimated(
    setting: PairRuns, slope: Slopes, method: str, targets: Sequence[Target]
) -> Float[np.ndarray, "target pair"]:
    """Estimated share recovered (denoise) or lost (noise), per pair in logits.

    `qk_fix` is of queries and keys alone.
    """
    base, other, _ = slope.runs(setting)
    if method == "qk_fix":
        estimates = atp_star.qk_fixed(setting.net, base, other, slope.gradient, setting.batch, targets)
    else:
        grads = slope.path.mean if method == "integrated" else slope.gradient
        estimates = attribution.estimate(base, other, grads, setting.batch, targets)
    signed = estimates.double().cpu().numpy() * (1 if slope.direction == "denoise" else -1)
    if method != "grad_drop":
        return signed
    sizes = np.stack([slope.sizes[target] for target in targets])
    return sizes * np.where(signed.mean(-1, keepdims=True) < 0, -1, 1)


def methods_of(target: Target) -> tuple[str, ...]:
    """The methods that estimate a target."""
    return METHODS if target.site in atp_star.FIXED else tuple(name for name in METHODS if name != "qk_fix")


@dataclass(frozen=True)
class Neurons:
    """Neurons to patch exactly: the largest estimates, and a random sample of all others for the bound on misses."""

    largest: tuple[Target, ...]
    sampled: tuple[Target, ...]


def choose_neurons(setting: PairRuns, all_slopes: Sequence[Slopes], n: int, seed: int) -> Neurons:
    """Half of `n` by the largest |estimate| of any method and direction, half at random from the rest; none where the
    model's MLPs are mixtures of experts."""
    everything = every(setting.net, "neuron")
    if not everything:
        return Neurons((), ())
    methods = methods_of(everything[0])
    sizes = np.max(
        [np.abs(estimated(setting, slope, m, everything).mean(-1)) for slope in all_slopes for m in methods], axis=0
    )
    order = np.argsort(-sizes, kind="stable")
    rest = np.random.default_rng(seed).permutation(order[n // 2 :])[: n - n // 2]
    return Neurons(tuple(everything[i] for i in order[: n // 2]), tuple(everything[i] for i in sorted(rest)))


def patch_neurons(
    setting: PairRuns, chosen: Neurons, report: Callable[[int], None] | None = None
) -> list[PatchedPanel]:
    """Patch the chosen neurons exactly, both ways."""
    return run_both(setting, chosen.largest + chosen.sampled, report)


def estimate_rows(setting: PairRuns, all_slopes: Sequence[Slopes], measured: Sequence[PatchedPanel]) -> pl.DataFrame:
    """Table `patch_attribution`: estimated and exact share of each exactly patched target, by direction and method."""
    frames = []
    for slope in all_slopes:
        exact = [m for m in measured if m.direction == slope.direction and m.value == "resample"]
        base, other, _ = slope.runs(setting)
        sizes = attribution.patch_size(base, other, setting.batch, [m.target for m in exact]).double().cpu().numpy()
        for method in METHODS:
            rows = [i for i, m in enumerate(exact) if method in methods_of(m.target)]
            if rows:
                frames.append(_method_rows(setting, slope, method, [exact[i] for i in rows], sizes[rows]))
    return pl.concat(frames)


def _method_rows(
    setting: PairRuns, slope: Slopes, method: str, exact: Sequence[PatchedPanel], sizes: Float[np.ndarray, " target"]
) -> pl.DataFrame:
    """The rows of one direction and method."""
    base, other, _ = slope.runs(setting)
    targets = [m.target for m in exact]
    flags = np.array([attribution.saturated(base, other, setting.batch, target) for target in targets])
    whole = setting.whole.mean()
    truth = np.array([change(setting, m).mean() for m in exact]) / whole
    guess = estimated(setting, slope, method, targets).mean(-1) / whole
    return pl.DataFrame(
        {
            "component": [t.label for t in targets],
            "layer": [t.layer for t in targets],
            "method": method,
            "granularity": [t.granularity for t in targets],
            "component_kind": [t.site for t in targets],
            "value": "resample",
            "positions": [t.positions for t in targets],
            "direction": slope.direction,
            "pair_set": setting.name,
            "estimated": guess,
            "exact": truth,
            "patch_size": sizes,
            "size_bin": [reliability.size_bin(size) for size in sizes],
            "saturated": flags,
            "use_exact": reliability.use_exact(guess, truth, flags & (method != "qk_fix"), THRESHOLD),
        }
    )


def reliability_rows(
    setting: PairRuns, estimates: pl.DataFrame, chosen: Neurons, all_slopes: Sequence[Slopes]
) -> pl.DataFrame:
    """Table `patch_reliability`: agreement by method, direction, site, and (all, layer, size of patch).

    `bound` is the 95 % upper bound of how many neurons that were not patched exactly have an effect; NULL elsewhere.
    """
    curved = {slope.direction: slope.path.nonlinearity for slope in all_slopes}
    rows = []
    for grouping in ((), ("layer",), ("size_bin",)):
        keys = ["method", "direction", "component_kind", *grouping]
        for key, cell in estimates.group_by(keys, maintain_order=True):
            agreement = reliability.agreement(cell["estimated"].to_numpy(), cell["exact"].to_numpy(), THRESHOLD)
            named = dict(zip(keys, key, strict=True))
            rows.append(
                {
                    **named,
                    "layer": named.get("layer"),
                    "size_bin": named.get("size_bin"),
                    "granularity": cell["granularity"][0],
                    "value": "resample",
                    "positions": "each",
                    "pair_set": setting.name,
                    **vars(agreement),
                    "reliable": agreement.reliable,
                    "nonlinearity": curved[named["direction"]],
                    "bound": (
                        _bound(setting, cell, chosen) if named["component_kind"] == "neuron" and not grouping else None
                    ),
                }
            )
    frame = pl.DataFrame(
        rows, infer_schema_length=None, schema_overrides={"layer": pl.Int64, "size_bin": pl.String, "bound": pl.Float64}
    )
    return frame.with_columns(pl.col("pearson", "spearman", "sign", "slope", "false_negatives").fill_nan(None))


def _bound(setting: PairRuns, cell: pl.DataFrame, chosen: Neurons) -> float:
    labels = [target.label for target in chosen.sampled]
    sampled = cell.filter(pl.col("component").is_in(labels))
    effects = int((sampled["exact"].abs() >= THRESHOLD).sum())
    unpatched = len(every(setting.net, "neuron")) - cell.height
    return reliability.false_negative_bound(effects, sampled.height, unpatched)
