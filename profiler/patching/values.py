"""What is put in: values of the other run, zeros, means of reference prompts, or noise.

Why: the value decides what a patch means, and rankings of components differ between them (circuits.md section 11, T11,
T12). Resampled values stay close to what the model produces; zeros do not. Means are taken over reference prompts that
are in no test, of the pair's own template and length, position by position; where a template has too few, over all
positions of all reference prompts. Noise is Gaussian around the run's own values, with three times their standard
deviation. Optimal ablation (the constant that costs least, learned for each component: Li and Janson 2024) is not
offered: it takes a training run per component.

Cost: one forward pass over the reference prompts.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from profiler.model.steps.network import Network
from profiler.patching.batch import SITES, PairBatch, Trace, trace
from profiler.patching.sweep import Donor
from profiler.prompts.pairs import TokenPair

NOISE = 3.0
FEWEST = 2
MOST = 50
"""References of each template and length: with six, other references moved the faithfulness of one circuit by a third
of the effect."""


def zero(base: Trace) -> Donor:
    """Zeros."""
    return lambda site, layer: torch.zeros_like(base[site][layer])


def zeros(base: Trace) -> Trace:
    """Zeros at every site, as a run that can stand in for one; its logits are those of `base`."""
    return Trace({name: [torch.zeros_like(value) for value in base[name]] for name in SITES}, base.logits)


def rows_of(run: Trace, rows: Sequence[int] | np.ndarray, width: int) -> Trace:
    """Some prompts of a run, cut to their first `width` positions."""
    wanted = torch.as_tensor(rows, device=run.logits.device)

    def cut(site: str, value: Tensor) -> Tensor:
        return value[wanted][:, :, :width, :width] if site == "pattern" else value[wanted][:, :width]

    return Trace({name: [cut(name, value) for value in run[name]] for name in SITES}, run.logits[wanted])


def noise(base: Trace, batch: PairBatch, seed: int = 0) -> Donor:
    """The run's own values plus Gaussian noise; the same for every call of a site and layer."""

    def donor(site: str, layer: int) -> Tensor:
        value = base[site][layer]
        rng = torch.Generator(device=value.device).manual_seed(hash((seed, SITES.index(site), layer)) % 2**31)
        size = value[batch.valid].std() if value.shape[1] == batch.valid.shape[1] else value.std()
        drawn = torch.randn(value.shape, generator=rng, dtype=value.dtype, device=value.device)
        return value + NOISE * size * drawn

    return donor


@dataclass(frozen=True, eq=False)
class ReferenceMeans:
    """Mean activations for each pair. `by_template` is the share of pairs whose own template had enough references."""

    trace: Trace
    by_template: float

    def donor(self) -> Donor:
        """The means as values to put in."""
        return lambda site, layer: self.trace[site][layer]


def means(net: Network, base: Trace, batch: PairBatch, references: Sequence[TokenPair]) -> ReferenceMeans:
    """Means over the corrupted prompts of `references`, for the pairs of `batch`."""
    groups: dict[tuple[str, int], list[TokenPair]] = defaultdict(list)
    for pair in references:
        group = groups[pair.pair.template, len(pair.corrupted)]
        if len(group) < MOST:
            group.append(pair)
    wanted: dict[tuple[str, int], list[int]] = defaultdict(list)
    for row, pair in enumerate(batch.pairs):
        wanted[pair.pair.template, len(pair.clean)].append(row)
    by_group = {key: _mean(net, groups[key]) for key in wanted if len(groups[key]) >= FEWEST}
    elsewhere = (
        []
        if len(by_group) == len(wanted)
        else [_mean(net, group) for group in list(filter(None, groups.values()))[:MOST]]
    )
    overall = _overall(elsewhere)
    sites = {name: [torch.zeros_like(value) for value in base[name]] for name in SITES}
    for key, rows in wanted.items():
        _fill(sites, rows, key[1], by_group.get(key), overall)
    covered = sum(len(rows) for key, rows in wanted.items() if key in by_group)
    return ReferenceMeans(Trace(sites, base.logits), covered / len(batch))


def _mean(net: Network, group: Sequence[TokenPair]) -> dict[str, list[Tensor]]:
    tokens = torch.tensor([pair.corrupted for pair in group], device=net.device)
    run = trace(net, tokens, torch.full((len(group),), tokens.shape[1] - 1, device=net.device))
    return {name: [value.mean(0) for value in run[name]] for name in SITES}


def _overall(groups: Sequence[dict[str, list[Tensor]]]) -> dict[str, list[Tensor]]:
    """Mean over all positions of all groups; patterns have none."""
    if not groups:
        return {}
    return {
        name: [torch.cat(parts).mean(0) for parts in zip(*(group[name] for group in groups), strict=True)]
        for name in SITES
        if name != "pattern"
    }


def _fill(
    sites: dict[str, list[Tensor]],
    rows: list[int],
    length: int,
    own: dict[str, list[Tensor]] | None,
    overall: dict[str, list[Tensor]],
) -> None:
    for name in SITES:
        for layer, value in enumerate(sites[name]):
            if own is not None and name == "pattern":
                value[rows, :, :length, :length] = own[name][layer]
            elif own is not None:
                value[rows, :length] = own[name][layer]
            elif name in overall:
                value[rows] = overall[name][layer]
