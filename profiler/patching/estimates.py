"""Attribution patching of an experiment beside the exact patches: estimates, agreement, and which neurons to patch.

Cost: for each direction one gradient and `steps` more along the path; then the exact patches of the chosen neurons.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float

from profiler.patching import attribution, reliability
from profiler.patching.measure import Direction, Measured, Plan, change, run_plan
from profiler.patching.setting import Setting
from profiler.patching.sites import Target, every
from profiler.patching.sweep import resample

METHODS = ("gradient", "integrated")
THRESHOLD = 0.02


@dataclass(frozen=True, eq=False)
class Slopes:
    """Gradients of one direction: at the patched run, and along the path to the donor."""

    direction: Direction
    gradient: attribution.Gradients
    path: attribution.Path

    def of(self, method: str) -> attribution.Gradients:
        """The gradients of a method."""
        return self.gradient if method == "gradient" else self.path.mean


def slopes(setting: Setting, steps: int) -> list[Slopes]:
    """Gradients of both directions."""
    found = []
    for direction, base, other, tokens in (
        ("denoise", setting.corrupted, setting.clean, setting.batch.corrupted),
        ("noise", setting.clean, setting.corrupted, setting.batch.clean),
    ):
        gradient, _ = attribution.gradients(setting.net, tokens, setting.batch)
        path = attribution.along(setting.net, base, other, tokens, setting.batch, steps)
        found.append(Slopes(direction, gradient, path))
    return found


def estimated(
    setting: Setting, one: Slopes, method: str, targets: Sequence[Target]
) -> Float[np.ndarray, "target pair"]:
    """Estimated share recovered (denoise) or lost (noise), per pair in logits."""
    base, other = (
        (setting.corrupted, setting.clean) if one.direction == "denoise" else (setting.clean, setting.corrupted)
    )
    found = attribution.estimate(base, other, one.of(method), setting.batch, targets).double().cpu().numpy()
    return found if one.direction == "denoise" else -found


@dataclass(frozen=True)
class Neurons:
    """Neurons to patch exactly: the largest estimates, and a random sample of all others for the bound on misses."""

    largest: tuple[Target, ...]
    sampled: tuple[Target, ...]


def choose_neurons(setting: Setting, found: Sequence[Slopes], n: int, seed: int) -> Neurons:
    """Half of `n` by the largest |estimate| of any method and direction, half at random from the rest."""
    everything = every(setting.net, "neuron")
    sizes = np.max([np.abs(estimated(setting, one, m, everything).mean(-1)) for one in found for m in METHODS], axis=0)
    order = np.argsort(-sizes, kind="stable")
    rest = np.random.default_rng(seed).permutation(order[n // 2 :])[: n - n // 2]
    return Neurons(tuple(everything[i] for i in order[: n // 2]), tuple(everything[i] for i in sorted(rest)))


def patch_neurons(setting: Setting, chosen: Neurons, report: Callable[[int], None] | None = None) -> list[Measured]:
    """Patch the chosen neurons exactly, both ways."""
    targets = chosen.largest + chosen.sampled
    if not targets:
        return []
    both = (
        Plan(targets, "denoise", "resample", resample(setting.clean)),
        Plan(targets, "noise", "resample", resample(setting.corrupted)),
    )
    return [one for plan in both for one in run_plan(setting, plan, report)]


def estimate_rows(setting: Setting, found: Sequence[Slopes], measured: Sequence[Measured]) -> pl.DataFrame:
    """Table `patch_attribution`: estimated and exact share of each exactly patched target, both directions and methods."""
    frames = []
    for one in found:
        exact = [m for m in measured if m.direction == one.direction and m.value == "resample"]
        targets = [m.target for m in exact]
        base, other = (
            (setting.corrupted, setting.clean) if one.direction == "denoise" else (setting.clean, setting.corrupted)
        )
        sizes = attribution.patch_size(base, other, setting.batch, targets).double().cpu().numpy()
        flags = np.array([attribution.saturated(base, other, setting.batch, target) for target in targets])
        truth = np.array([change(setting, m).mean() for m in exact]) / setting.whole.mean()
        for method in METHODS:
            guess = estimated(setting, one, method, targets).mean(-1) / setting.whole.mean()
            frames.append(pl.DataFrame({
                "component": [t.label for t in targets], "layer": [t.layer for t in targets], "method": method,
                "granularity": [t.granularity for t in targets], "component_kind": [t.site for t in targets],
                "value": "resample", "positions": [t.positions for t in targets], "direction": one.direction,
                "pair_set": setting.name, "estimated": guess, "exact": truth, "patch_size": sizes,
                "size_bin": [reliability.size_bin(size) for size in sizes], "saturated": flags,
                "use_exact": reliability.use_exact(guess, truth, flags, THRESHOLD),
            }))  # fmt: skip
    return pl.concat(frames)


def reliability_rows(
    setting: Setting, estimates: pl.DataFrame, chosen: Neurons, found: Sequence[Slopes]
) -> pl.DataFrame:
    """Table `patch_reliability`: agreement by method, direction, site, and (all, layer, size of patch).

    `bound` is the 95 % upper bound of how many neurons that were not patched exactly have an effect; NULL elsewhere.
    """
    curved = {one.direction: one.path.nonlinearity for one in found}
    rows = []
    for grouping in ((), ("layer",), ("size_bin",)):
        keys = ["method", "direction", "component_kind", *grouping]
        for key, cell in estimates.group_by(keys, maintain_order=True):
            one = reliability.agreement(cell["estimated"].to_numpy(), cell["exact"].to_numpy(), THRESHOLD)
            named = dict(zip(keys, key, strict=True))
            rows.append({
                **named, "layer": named.get("layer"), "size_bin": named.get("size_bin"),
                "granularity": cell["granularity"][0], "value": "resample", "positions": "each", "pair_set": setting.name,
                **vars(one), "reliable": one.reliable, "nonlinearity": curved[named["direction"]],
                "bound": _bound(setting, cell, chosen) if named["component_kind"] == "neuron" and not grouping else None,
            })  # fmt: skip
    frame = pl.DataFrame(
        rows, infer_schema_length=None, schema_overrides={"layer": pl.Int64, "size_bin": pl.String, "bound": pl.Float64}
    )
    return frame.with_columns(pl.col("pearson", "spearman", "sign", "slope", "missed").fill_nan(None))


def _bound(setting: Setting, cell: pl.DataFrame, chosen: Neurons) -> float:
    labels = [target.label for target in chosen.sampled]
    sampled = cell.filter(pl.col("component").is_in(labels))
    effects = int((sampled["exact"].abs() >= THRESHOLD).sum())
    unpatched = setting.net.n_layers * setting.net.d_mlp - cell.height
    return reliability.false_negative_bound(effects, sampled.height, unpatched)
