"""Factorial analysis of corruptions: main effects and interactions of every component's effect.

Every cell of a crossed design (`profiler.prompts.pairs.crossed`) gives a corrupted run; each component's values from
there are put into the clean run, and the loss of logit difference is its response y. Orthogonal contrasts take the
responses apart (Fisher 1935, chapter 6; Yates 1937):

* main effect of a change: y with it minus y without it, mean over all levels of the other factors. Where a factor has
  several changes, each is compared with the mean of the levels before it (Helmert contrasts).
* interaction of two changes of different factors: how much the effect of one differs with the other; 0 where they add
  up.
* part: the square of the contrast over its weights' squares, over the sum of squares of all cells around their mean.
  The parts of all contrasts add up to 1; those beyond two changes are given together, as `higher`. The parts of the
  main effects together are the R squared of an additive fit.

The row `model` is the same for the whole model, which then runs on the corrupted prompt itself.
Cost: per cell one run of the prompts and one sweep of heads and MLPs.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from jaxtyping import Float

from profiler import statistics
from profiler.model.load import Model
from profiler.model.steps.as_network import longest
from profiler.model.steps.network import Network
from profiler.patching.batch import batch_of, trace
from profiler.patching.metrics import logit_diff
from profiler.patching.setting import PatchSettings, vocabulary
from profiler.patching.sites import Target, every
from profiler.patching.sweep import resample, sweep
from profiler.prompts.pairs import Pair, TokenPair, cross, find_task
from profiler.prompts.pairs.crossed import Factor, cell_name, cells
from profiler.prompts.pairs.encode import DROPS, drop_reason, encoder
from profiler.prompts.pairs.lint import Check

MODEL, HIGHER = "model", "higher"
SET = "crossed"
PROMPTS, LEAST = 16, 8
TOLD_APART = 2
"""Changes at most of a contrast with rows of its own; the rest are given together, as HIGHER."""


@dataclass(frozen=True)
class Contrast:
    """A question to the cells: `name` says of which changes, `order` how many, `weights` how cells are added up."""

    name: str
    order: int
    weights: Float[np.ndarray, " cell"]


def contrasts(factors: Sequence[Factor]) -> list[Contrast]:
    """All contrasts of a design, one fewer than it has cells: main effects, then pairs, then the others."""
    axes = [[("", np.full(len(f.levels), 1 / len(f.levels))), *_helmert(f)] for f in factors]
    listed = []
    for parts in itertools.product(*axes):
        named = [name for name, _ in parts if name]
        weights = np.ones(1)
        for _, part in parts:
            weights = np.kron(weights, part)
        listed.append(Contrast(" x ".join(named), len(named), weights))
    return sorted(listed[1:], key=lambda contrast: contrast.order)


def _helmert(factor: Factor) -> list[tuple[str, Float[np.ndarray, " level"]]]:
    """Each change against the mean of the levels before it."""
    named = []
    for number, name in enumerate(factor.changes, 1):
        weights = np.zeros(len(factor.levels))
        weights[:number], weights[number] = -1 / number, 1.0
        named.append((name, weights))
    return named


def frames(model: Model, net: Network, settings: PatchSettings) -> tuple[dict[str, pl.DataFrame], list[Check]]:
    """Tables `patch_cells` and `patch_factors` of the settings' task, and what the pair linter says of the prompts.

    No table where the task is a user's file, whose pairs hold one corruption each, or where too few prompts can be
    asked in every combination.
    """
    if settings.is_file:
        return {}, []
    task = find_task(settings.task)
    ids = vocabulary(model) if task.of_tokens else ()
    prompts, dropped = usable(cross(task.name, settings.split, PROMPTS, settings.seed, ids), model)
    said = _check(task.factors, len(prompts), dropped)
    if len(prompts) < LEAST:
        return {}, [said]
    measured = responses(net, task.factors, prompts, sum(dropped.values()))
    return {"patch_cells": cell_rows(measured), "patch_factors": factor_rows(measured, settings.seed)}, [said]


def _check(factors: Sequence[Factor], usable: int, dropped: Counter[str]) -> Check:
    reasons = "; ".join(f"{n}: {DROPS[reason]}" for reason, n in dropped.items())
    words = f"{usable} of {usable + dropped.total()} prompts in {len(cells(factors))} combinations"
    short = "" if usable >= LEAST else f"; fewer than {LEAST}, so nothing was measured"
    return Check(
        "corruptions crossed",
        words + (f" ({reasons})" if reasons else "") + short,
        float(usable),
        "ok" if usable >= LEAST else "note",
    )


@dataclass(frozen=True, eq=False)
class Responses:
    """Logits of the logit difference that are lost.

    Attributes:
        factors: of the design.
        components: heads, MLPs, and MODEL.
        layers: of the components; None for the model.
        lost: per component, cell (in the order of `cells`; the first is 0) and prompt.
        n_dropped: prompts left out because some cell of theirs cannot be asked.
    """

    factors: tuple[Factor, ...]
    components: tuple[str, ...]
    layers: tuple[int | None, ...]
    lost: Float[np.ndarray, "component cell prompt"]
    n_dropped: int


def responses(
    net: Network, factors: Sequence[Factor], prompts: Sequence[Sequence[TokenPair]], n_dropped: int = 0
) -> Responses:
    """Patch every head and MLP of the clean runs with its value in each cell.

    Args:
        prompts: for each prompt a pair per cell but the first.
    """
    targets = [target for site in ("head", "mlp_out") for target in every(net, site)]
    lost = [np.zeros((len(targets) + 1, len(prompts)))]
    base = batch_of([pairs[0] for pairs in prompts], net.device, net.dtype)
    clean = trace(net, base.clean, base.ends)
    before = logit_diff(clean.logits, base.options).double()
    for cell in range(len(prompts[0])):
        other = trace(net, batch_of([p[cell] for p in prompts], net.device).corrupted, base.ends)
        after = torch.zeros(len(targets) + 1, len(prompts), dtype=torch.float64, device=net.device)
        for indices, logits in sweep(net, clean, base, targets, resample(other)):
            options = base.options.rows(len(indices))
            after[indices] = logit_diff(logits.flatten(0, 1), options).double().reshape(len(indices), -1)
        after[-1] = logit_diff(other.logits, base.options).double()
        lost.append((before - after).cpu().numpy())
    return Responses(
        tuple(factors), (*(t.label for t in targets), MODEL), (*_layers(targets), None), np.stack(lost, 1), n_dropped
    )


def _layers(targets: Sequence[Target]) -> tuple[int, ...]:
    return tuple(target.layer for target in targets)


def usable(prompts: Sequence[Sequence[Pair]], model: Model) -> tuple[list[list[TokenPair]], Counter[str]]:
    """Prompts whose every cell can be asked, in tokens, and the number dropped for each reason (a key of DROPS)."""
    encode, most = encoder(model.tokenizer, model.bos_id), longest(model)
    complete, dropped = [], Counter[str]()
    for pairs in prompts:
        made = [encode(pair) for pair in pairs]
        reason = next(filter(None, (drop_reason(pair, most) for pair in made)), None)
        if reason is None:
            complete.append(made)
        else:
            dropped[reason] += 1
    return complete, dropped


def cell_rows(measured: Responses) -> pl.DataFrame:
    """Table `patch_cells`: mean response of each component in each cell."""
    names = [cell_name(cell) for cell in cells(measured.factors)]
    n = len(names)
    return _described(
        measured,
        pl.DataFrame(
            {
                "component": np.repeat(measured.components, n),
                "layer": [layer for layer in measured.layers for _ in range(n)],
                "cell": names * len(measured.components),
                "lost": measured.lost.mean(-1).flatten(),
            },
            schema_overrides={"layer": pl.Int64},
        ),
    )


def factor_rows(measured: Responses, seed: int = 0) -> pl.DataFrame:
    """Table `patch_factors`: effect, interval, part and p (family-wise too) of each component and contrast."""
    listed = contrasts(measured.factors)
    mean = measured.lost.mean(-1)
    whole = np.square(mean - mean.mean(1, keepdims=True)).sum(1)
    frames, rest = [], np.zeros(len(mean))
    for contrast in listed:
        each = np.einsum("ktp,t->kp", measured.lost, contrast.weights)
        squares = each.mean(-1) ** 2 / np.square(contrast.weights).sum()
        part = np.divide(squares, whole, out=np.zeros_like(squares), where=whole > 0)
        if contrast.order > TOLD_APART:
            rest += part
            continue
        frames.append(_effects(measured, contrast, each, part, seed))
    if any(contrast.order > TOLD_APART for contrast in listed):
        frames.append(_named(measured, HIGHER, TOLD_APART + 1).with_columns(pl.Series("part", rest)))
    return _described(measured, pl.concat(frames, how="diagonal_relaxed"))


def _effects(measured: Responses, contrast: Contrast, each: np.ndarray, part: np.ndarray, seed: int) -> pl.DataFrame:
    """Rows of one contrast. `each`: per component and prompt."""
    low, high = statistics.percentile_interval(statistics.bootstrap_means(each, seed))
    tests = statistics.flip_tests_within(each, [component == MODEL for component in measured.components], seed)
    return _named(measured, contrast.name, contrast.order).with_columns(
        pl.Series("effect", each.mean(-1)),
        pl.Series("effect_lo", low),
        pl.Series("effect_hi", high),
        pl.Series("part", part),
        pl.Series("p", tests.p),
        pl.Series("p_adjusted", tests.adjusted),
        pl.Series("p_least", tests.least),
    )


def _named(measured: Responses, axis: str, order: int) -> pl.DataFrame:
    return pl.DataFrame(
        {"component": measured.components, "layer": measured.layers, "axis": axis, "changes": order},
        schema_overrides={"layer": pl.Int64, "changes": pl.Int64},
    )


def _described(measured: Responses, frame: pl.DataFrame) -> pl.DataFrame:
    """With prompts counted, and the six values."""
    model, head = pl.col("component") == MODEL, pl.col("component").str.contains("H")
    kind = pl.when(model).then(pl.lit(MODEL)).when(head).then(pl.lit("head")).otherwise(pl.lit("mlp_out"))
    return frame.with_columns(
        pl.lit(measured.lost.shape[-1]).alias("n"),
        pl.lit(measured.n_dropped).alias("n_dropped"),
        kind.alias("component_kind"),
        granularity=pl.lit("node"),
        value=pl.lit("resample"),
        positions=pl.lit("all"),
        direction=pl.lit("noise"),
        pair_set=pl.lit(SET),
    )
