"""Redundancy of an experiment's top components: gates, downstream tables, interactions, saturation. Fills four tables.

Cost: per ablated component one forward pass; per pair of components two; per step of a saturation order one
(remembered).
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float

from profiler import statistics
from profiler.patching.metrics import LOGIT_DIFF
from profiler.patching.redundancy import gates, self_repair
from profiler.patching.setting import PairRuns
from profiler.patching.sites import Target
from profiler.patching.sweep import Donor, intervene, resample
from profiler.patching.sweep_tables import DIRECTIONS, PatchedPanel, change

ORDERS = 6
MEAN_DRAWS = 1000
EARLIER_LAYERS_STAY = 1e-9


def gate_rows(setting: PairRuns, measured: Sequence[PatchedPanel]) -> pl.DataFrame:
    """Table `patch_gates`: both directions of every target side by side, and its label."""
    both: dict[Target, dict[str, float]] = {}
    whole = setting.whole.mean()
    for result in measured:
        if result.value == "resample":
            both.setdefault(result.target, {})[result.direction] = float(change(setting, result).mean() / whole)
    rows = [
        {
            "component": target.label,
            "layer": target.layer,
            "granularity": target.granularity,
            "component_kind": target.site,
            "value": "resample",
            "positions": target.positions,
            "direction": "both",
            "pair_set": setting.name,
            "recovered_denoise": shares["denoise"],
            "lost_noise": shares["noise"],
            "gate": gates.gate(shares["denoise"], shares["noise"]),
        }
        for target, shares in both.items()
        if shares.keys() == {"denoise", "noise"}
    ]
    return pl.DataFrame(rows)


def top_heads(measured: Sequence[PatchedPanel], setting: PairRuns, n: int) -> list[Target]:
    """The heads with the largest share in either direction; of equal ones the first of the model."""
    size: dict[Target, float] = {}
    for result in measured:
        if result.value == "resample" and result.target.site == "head" and result.target.positions == "all":
            size[result.target] = max(size.get(result.target, 0.0), abs(float(change(setting, result).mean())))
    listed = sorted(size)
    order = np.argsort(-statistics.level(np.array([size[target] for target in listed])), kind="stable")
    return [listed[i] for i in order[:n]]


def repairs(
    setting: PairRuns, targets: Sequence[Target], donors: dict[str, Donor]
) -> dict[tuple[Target, str], self_repair.Repair]:
    """Ablate each target with each kind of value; none where the heads have no direct part of the logits."""
    net, batch = setting.net, setting.batch
    if not net.heads_direct:
        return {}
    before = self_repair.run_writes(net, batch.clean, batch)
    return {
        (target, value): self_repair.repair(net, before, batch.clean, batch, target, donor)
        for target in targets
        for value, donor in donors.items()
    }


def downstream_rows(setting: PairRuns, repaired: dict[tuple[Target, str], self_repair.Repair]) -> pl.DataFrame:
    """Table `patch_downstream`: change of every component's DLA after ablating another, and the norm's part.

    Rows of components before the ablated one are left out (exactly 0). `part` is direct, head, mlp, norm or total.
    """
    names = self_repair.names(setting.net)
    rows: list[dict[str, Any]] = []
    for (target, value), repair in repaired.items():
        six = {
            "granularity": "node",
            "component_kind": target.site,
            "value": value,
            "positions": "all",
            "direction": "noise",
            "pair_set": setting.name,
        }
        for name, delta in zip(names, repair.delta.T, strict=True):
            part = "direct" if name == target.label else "mlp" if "mlp" in name else "head"
            if delta.abs().max() > EARLIER_LAYERS_STAY or part == "direct":
                rows.append({"ablated": target.label, "component": name, "part": part, **six, **_mean(delta)})
        rows.append({"ablated": target.label, "component": "final_norm", "part": "norm", **six, **_mean(repair.norm)})
        rows.append({"ablated": target.label, "component": "all", "part": "total", **six, **_mean(repair.change)})
    return pl.DataFrame(rows)


def _mean(values: torch.Tensor) -> dict[str, Any]:
    """Mean over pairs with a 95 % interval, and p by sign flips."""
    array = values.double().cpu().numpy()
    low, high = statistics.percentile_interval(statistics.bootstrap_means(array, draws=MEAN_DRAWS))
    p = float(statistics.sign_flip_p(array))
    return {
        "delta_dla": float(array.mean()),
        "delta_dla_lo": float(low),
        "delta_dla_hi": float(high),
        "p": p,
        "p_least": statistics.least_flip_p(len(array)),
        "n": len(array),
    }


def _joint(setting: PairRuns, targets: Sequence[Target], *, denoise: bool) -> Float[np.ndarray, " pair"]:
    """What is recovered or lost with the targets patched together."""
    tokens, donor = (setting.batch.corrupted, setting.clean) if denoise else (setting.batch.clean, setting.corrupted)
    logits = intervene(setting.net, tokens, setting.batch.ends, setting.batch, targets, resample(donor))
    after = setting.batch.options.values(logits)
    return np.asarray(after - setting.metric_corrupted if denoise else setting.metric_clean - after)


def _change_of(
    second: Target, repair: self_repair.Repair | None, setting: PairRuns
) -> Float[np.ndarray, " pair"] | None:
    """How another component's DLA changes after an ablation; None where it has none."""
    if repair is None:
        return None
    column = self_repair.names(setting.net).index(second.label)
    return np.asarray(repair.delta[:, column].double().cpu().numpy())


def interaction_rows(
    setting: PairRuns,
    targets: Sequence[Target],
    measured: Sequence[PatchedPanel],
    repaired: dict[tuple[Target, str], self_repair.Repair],
) -> pl.DataFrame:
    """Table `patch_interactions`: every two targets alone and together, in both directions, and their relation."""
    alone = {
        result.key: change(setting, result)
        for result in measured
        if result.value == "resample" and result.target in targets
    }
    whole = float(setting.whole.mean())
    per_logit = whole / float(setting.judged_by(LOGIT_DIFF).whole.mean())  # writes are in logits
    rows = []
    for first, second in combinations(sorted(targets), 2):
        joint = {way: _joint(setting, [first, second], denoise=way == "denoise") for way in DIRECTIONS}
        extra = {
            way: np.asarray(gates.interaction(joint[way], *(alone[t, way, "resample"] for t in (first, second))))
            for way in DIRECTIONS
        }
        delta = _change_of(second, repaired.get((first, "resample")), setting)
        kind = "inconclusive" if delta is None else gates.redundancy(delta * per_logit, extra["noise"], whole)
        for way in DIRECTIONS:
            singles = [float(alone[t, way, "resample"].mean()) / whole for t in (first, second)]
            together = float(joint[way].mean()) / whole
            rows.append(
                {
                    "first": first.label,
                    "second": second.label,
                    "granularity": "node",
                    "component_kind": "head",
                    "value": "resample",
                    "positions": "all",
                    "direction": way,
                    "pair_set": setting.name,
                    "share_first": singles[0],
                    "share_second": singles[1],
                    "share_together": together,
                    "interaction": float(extra[way].mean()) / whole,
                    "super_additivity": gates.super_additivity(together, singles),
                    "p": float(statistics.sign_flip_p(extra[way])),
                    "p_least": statistics.least_flip_p(len(extra[way])),
                    "delta_dla": None if delta is None else float(delta.mean()),
                    "relation": kind,
                }
            )
    return pl.DataFrame(rows, schema_overrides={"delta_dla": pl.Float64})


def saturation_rows(setting: PairRuns, targets: Sequence[Target]) -> pl.DataFrame:
    """Table `patch_saturation`: share recovered by size of the set over random orders, and Shapley values."""
    listed = gates.orders(len(targets), ORDERS)
    whole = float(setting.whole.mean())
    known: dict[frozenset[int], float] = {frozenset(): 0.0}
    curves = np.zeros((len(listed), len(targets) + 1))
    for row, order in enumerate(listed):
        for size in range(1, len(order) + 1):
            chosen = frozenset(order[:size])
            if chosen not in known:
                known[chosen] = float(_joint(setting, [targets[i] for i in chosen], denoise=True).mean()) / whole
            curves[row, size] = known[chosen]
    values = gates.shapley(curves, listed)
    sizes = gates.saturation(curves)
    six = {
        "granularity": "node",
        "component_kind": "head",
        "value": "resample",
        "positions": "all",
        "direction": "denoise",
        "pair_set": setting.name,
    }
    rows = [
        {
            "size": size,
            "share": float(sizes[size]),
            "lowest": float(curves[:, size].min()),
            "highest": float(curves[:, size].max()),
            "component": targets[size - 1].label if size else None,
            "shapley": float(values[size - 1]) if size else None,
            "orders": len(listed),
            **six,
        }
        for size in range(len(targets) + 1)
    ]
    return pl.DataFrame(rows, schema_overrides={"component": pl.String, "shapley": pl.Float64})
