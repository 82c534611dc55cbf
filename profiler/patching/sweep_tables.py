"""Sweeps of an experiment and the two tables they fill: effects pair by pair, shares target by target.

Every row names its six values: granularity, component kind (site), value put in, positions, direction, set of pairs.
Directions: `denoise`, clean values into the corrupted run; `noise`, other values into the clean run. Cost: the sweeps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from profiler import statistics
from profiler.patching import effects
from profiler.patching.metrics import METRICS, panel
from profiler.patching.setting import PairRuns
from profiler.patching.sites import EXPERT, OTHER_UNITS, PER_HEAD, WHOLE, Target, every
from profiler.patching.sweep import Donor, resample, sweep

Direction = Literal["denoise", "noise"]
DIRECTIONS: tuple[Direction, ...] = ("denoise", "noise")
COLUMN = {name: i for i, name in enumerate(METRICS)}
MARGIN = 0.02
FAMILY = ("component_kind", "positions", "direction", "value")
"""Targets alike in these are tested together (`statistics.flip_tests`)."""


@dataclass(frozen=True, eq=False)
class PatchedPanel:
    """The panel and the metric of every pair with one target patched."""

    target: Target
    direction: Direction
    value: str
    panel: Float[np.ndarray, "pair metric"]
    metric: Float[np.ndarray, " pair"]

    @property
    def key(self) -> tuple[Target, Direction, str]:
        """What was patched, which way, with what."""
        return self.target, self.direction, self.value

    def six(self, pair_set: str) -> dict[str, Any]:
        """The six values."""
        return {
            "granularity": self.target.granularity,
            "component_kind": self.target.site,
            "value": self.value,
            "positions": self.target.positions,
            "direction": self.direction,
            "pair_set": pair_set,
        }


@dataclass(frozen=True)
class SweepPlan:
    """One sweep: what is patched, which way, with which values."""

    targets: tuple[Target, ...]
    direction: Direction
    value: str
    donor: Donor


def plans(setting: PairRuns, donors: dict[str, Donor], *, by_role: bool) -> list[SweepPlan]:
    """All sweeps but those of neurons, and of units of other kinds.

    Args:
        donors: values for the noising direction beside resampling: zero, mean, noise.
        by_role: whether heads are patched at single roles too.
    """
    net = setting.net
    heads, mlps = every(net, "head"), every(net, "mlp_out")
    whole = [*mlps, *(t for site in WHOLE if site != "mlp_out" for t in every(net, site))]
    parts = [t for site in PER_HEAD[1:] for t in every(net, site)]
    roles = [t.during(role) for role in setting.roles for t in (*(heads if by_role else []), *every(net, "resid_pre"))]
    both = (*heads, *whole, *parts, *roles)
    sweeps = [
        SweepPlan(both, "denoise", "resample", resample(setting.clean)),
        SweepPlan(both, "noise", "resample", resample(setting.corrupted)),
    ]
    return sweeps + [SweepPlan((*heads, *mlps), "noise", name, donor) for name, donor in donors.items()]


def other_units(setting: PairRuns, n: int, seed: int) -> list[Target]:
    """Channels of mixers, units of per-layer projections, and neurons of shared and routed experts, drawn at random.

    Args:
        n: how many of each kind; of routed experts only those are drawn that some position is sent to in both runs.
    """
    drawn = []
    for number, site in enumerate(OTHER_UNITS):
        targets = [target for target in every(setting.net, site) if site != EXPERT or _is_sent(setting, target)]
        order = np.random.default_rng([seed, number]).permutation(len(targets))[:n]
        drawn += [targets[i] for i in sorted(order)]
    return drawn


def _is_sent(setting: PairRuns, target: Target) -> bool:
    """Whether both runs send some position of a pair to a target's expert."""
    clean, corrupted = (run["expert_choice"][target.layer] for run in (setting.clean, setting.corrupted))
    number = torch.tensor(target.expert)
    sent: Tensor = clean.eq(number).any(-1) & corrupted.eq(number).any(-1)
    return bool((sent & setting.batch.valid).any())


def run_both(
    setting: PairRuns, targets: Sequence[Target], report: Callable[[int], None] | None = None
) -> list[PatchedPanel]:
    """Patch targets both ways, with values of the other run."""
    if not targets:
        return []
    both = (
        SweepPlan(tuple(targets), "denoise", "resample", resample(setting.clean)),
        SweepPlan(tuple(targets), "noise", "resample", resample(setting.corrupted)),
    )
    return [result for plan in both for result in run_plan(setting, plan, report)]


def run_plan(setting: PairRuns, plan: SweepPlan, report: Callable[[int], None] | None = None) -> list[PatchedPanel]:
    """Make one sweep."""
    base = setting.corrupted if plan.direction == "denoise" else setting.clean
    results: list[PatchedPanel | None] = [None] * len(plan.targets)
    for indices, logits in sweep(setting.net, base, setting.batch, plan.targets, plan.donor, report=report):
        options = setting.batch.options.rows(len(indices))
        reference = setting.clean.logits.repeat(len(indices), 1)
        with torch.inference_mode():
            panels = (
                panel(logits.flatten(0, 1), options, reference).cpu().numpy().reshape(len(indices), -1, len(METRICS))
            )
            metric = options.values(logits.flatten(0, 1)).reshape(len(indices), -1)
        for i, values, own in zip(indices, panels, metric, strict=True):
            results[i] = PatchedPanel(plan.targets[i], plan.direction, plan.value, values, own)
    return [result for result in results if result is not None]


def effect_rows(setting: PairRuns, measured: Sequence[PatchedPanel]) -> pl.DataFrame:
    """Table `patch_effects` without its experiment: a row per target, direction, value and pair."""
    n = len(setting.batch)
    panels = np.concatenate([result.panel for result in measured])
    columns: dict[str, Any] = {"component": np.repeat([result.target.label for result in measured], n)}
    columns["layer"] = np.repeat([result.target.layer for result in measured], n)
    for name in ("granularity", "component_kind", "value", "positions", "direction", "pair_set"):
        columns[name] = np.repeat([result.six(setting.name)[name] for result in measured], n)
    columns["pair"] = np.tile(np.arange(n), len(measured))
    before = {"denoise": setting.metric_corrupted, "noise": setting.metric_clean}
    columns["effect"] = np.concatenate([result.metric - before[result.direction] for result in measured])
    return pl.DataFrame(columns | {name: panels[:, i] for i, name in enumerate(METRICS)})


def change(setting: PairRuns, result: PatchedPanel) -> Float[np.ndarray, " pair"]:
    """What was recovered, or lost, of the metric."""
    after, recovers = result.metric, result.direction == "denoise"
    return np.asarray(after - setting.metric_corrupted if recovers else setting.metric_clean - after)


def share_rows(setting: PairRuns, measured: Sequence[PatchedPanel]) -> pl.DataFrame:
    """Table `patch_shares` without its experiment: a row per target, direction and value."""
    changes = np.stack([change(setting, result) for result in measured])
    share = effects.share(changes, setting.whole)
    low, high = statistics.bootstrap_ratio(changes, setting.whole)
    narrow = statistics.bootstrap_ratio(changes, setting.whole, 0.9)
    fix, broken = _fix_break(setting, measured)
    neutral = effects.neutral_level(setting.metric_clean, setting.metric_corrupted, setting.metric_of_nothing)
    frame = pl.DataFrame(
        [
            {"component": result.target.label, "layer": result.target.layer, **result.six(setting.name)}
            for result in measured
        ]
    )
    tested = changes / (setting.whole.mean() or 1.0)
    tests = statistics.flip_tests_within(tested, frame.select(FAMILY).rows())
    verdicts = [_verdict(*bounds) for bounds in zip(low, high, *narrow, strict=True)]
    return frame.with_columns(
        pl.Series("share", share.of_means),
        pl.Series("share_lo", low),
        pl.Series("share_hi", high),
        pl.Series("median", share.median),
        pl.Series("quartile_lo", share.low),
        pl.Series("quartile_hi", share.high),
        pl.lit(share.excluded).alias("excluded"),
        pl.lit(len(setting.batch)).alias("n"),
        pl.Series("p", tests.p),
        pl.Series("p_adjusted", tests.adjusted),
        pl.Series("p_least", tests.least),
        pl.Series("verdict", verdicts),
        pl.Series("neutral", np.where(frame["direction"] == "denoise", neutral, np.nan)).fill_nan(None),
        pl.Series(
            "excess", np.where(frame["direction"] == "denoise", effects.excess(share.of_means, neutral), np.nan)
        ).fill_nan(None),
        pl.Series("fix", fix),
        pl.Series("break", broken),
    )


def _verdict(low: float, high: float, narrow_low: float, narrow_high: float) -> str:
    """An effect by the 95 % interval, none by the 90 % interval inside the margin."""
    if low > 0 or high < 0:
        return "effect"
    return statistics.verdict(min(narrow_low, -1e-300), max(narrow_high, 1e-300), MARGIN)


def _fix_break(setting: PairRuns, measured: Sequence[PatchedPanel]) -> tuple[np.ndarray, np.ndarray]:
    base = {
        "denoise": panel(setting.corrupted.logits, setting.batch.options, setting.clean.logits).cpu().numpy(),
        "noise": panel(setting.clean.logits, setting.batch.options, setting.clean.logits).cpu().numpy(),
    }
    columns = [COLUMN["answer_logit"], COLUMN["distractor_logit"]]
    parts = [
        effects.fix_and_break(*result.panel[:, columns].T, *base[result.direction][:, columns].T) for result in measured
    ]
    fixes, breaks = zip(*parts, strict=True)
    return np.array(fixes), np.array(breaks)
