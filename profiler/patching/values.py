"""What is put in: values of the other run, zeros, means of reference prompts, or noise.

Why: the value decides what a patch means, and rankings of components differ between them (circuits.md section 11, T11,
T12). Resampled values stay close to what the model produces; zeros do not. Means are taken over reference prompts that
are in no test, of the pair's own template and length, position by position; where a template has too few, over all
positions of all reference prompts. The references are a sample: `ReferenceMeans.redrawn` gives the means of the same
references resampled, for intervals that know it. Noise is Gaussian around the run's own values, with three times their
standard deviation. Optimal ablation (the constant that costs least, learned for each component: Li and Janson 2024) is
not offered: it takes a training run per component.

Cost: one forward pass over the reference prompts.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from profiler.model.steps.network import Network
from profiler.patching.batch import SITES, PairBatch, Trace, trace
from profiler.patching.sweep import Donor
from profiler.prompts.pairs import TokenPair
from profiler.statistics import resampling_weights

NOISE = 3.0
FEWEST = 2
MOST = 50
"""References of each template and length: with six, other references moved the faithfulness of one circuit by a third
of the effect."""
REDRAWS = 25
"""Times that the references are resampled for an interval."""
NODES = ("head", "mlp_out", "neuron")
"""Sites whose values stand in for what is outside a circuit."""
Redrawn = Callable[[], Iterator[Trace]]
"""Runs that stand in for what is outside a circuit, a run for each redraw of what they are means of."""


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
    """Mean activations for each pair.

    Attributes:
        trace: the means.
        by_template: share of the pairs whose own template had enough references.
        redrawn: the means at NODES of references resampled, REDRAWS times; they are made one by one.
    """

    trace: Trace
    by_template: float
    redrawn: Redrawn

    def donor(self) -> Donor:
        """The means as values to put in."""
        return lambda site, layer: self.trace[site][layer]


GroupMeans = dict[str, list[Tensor]]
"""Means of one template and length, by site and layer, a row for each draw of the references; the first as drawn."""


def means(
    net: Network, base: Trace, batch: PairBatch, references: Sequence[TokenPair], seed: int = 0
) -> ReferenceMeans:
    """Means over the corrupted prompts of `references`, for the pairs of `batch`.

    Args:
        seed: of the redraws.
    """
    groups: dict[tuple[str, int], list[TokenPair]] = defaultdict(list)
    for pair in references:
        group = groups[pair.pair.template, len(pair.corrupted)]
        if len(group) < MOST:
            group.append(pair)
    wanted: dict[tuple[str, int], list[int]] = defaultdict(list)
    for row, pair in enumerate(batch.pairs):
        wanted[pair.pair.template, len(pair.clean)].append(row)
    rng = np.random.default_rng(seed)
    by_group = {key: _means(net, groups[key], rng) for key in wanted if len(groups[key]) >= FEWEST}
    elsewhere = (
        []
        if len(by_group) == len(wanted)
        else [_means(net, group, rng) for group in list(filter(None, groups.values()))[:MOST]]
    )
    overall = _overall(elsewhere)

    def drawn(names: Sequence[str], draw: int) -> Trace:
        sites = {name: [torch.zeros_like(value) for value in base[name]] if name in names else [] for name in SITES}
        for key, rows in wanted.items():
            _fill(sites, rows, key[1], by_group.get(key), overall, draw)
        return Trace(sites, base.logits)

    covered = sum(len(rows) for key, rows in wanted.items() if key in by_group)
    redrawn = lambda: (drawn(NODES, draw) for draw in range(1, 1 + REDRAWS))  # noqa: E731
    return ReferenceMeans(drawn(SITES, 0), covered / len(batch), redrawn)


def _means(net: Network, group: Sequence[TokenPair], rng: np.random.Generator) -> GroupMeans:
    """Means over a group of references as they are, and at NODES also over the same ones resampled."""
    tokens = torch.tensor([pair.corrupted for pair in group], device=net.device)
    run = trace(net, tokens, torch.full((len(group),), tokens.shape[1] - 1, device=net.device))
    n = len(group)
    weights = torch.from_numpy(np.vstack([np.full(n, 1 / n), resampling_weights(n, rng, REDRAWS)]))

    def of(name: str, value: Tensor) -> Tensor:
        rows = weights if name in NODES else weights[:1]
        mean: Tensor = torch.tensordot(rows.to(value), value, 1)
        return mean

    return {name: [of(name, value) for value in run[name]] for name in SITES}


def _overall(groups: Sequence[GroupMeans]) -> GroupMeans:
    """Mean over all positions of all groups; patterns have none."""
    if not groups:
        return {}
    return {
        name: [torch.cat(parts, 1).mean(1) for parts in zip(*(group[name] for group in groups), strict=True)]
        for name in SITES
        if name != "pattern"
    }


def _fill(
    sites: dict[str, list[Tensor]],
    rows: list[int],
    length: int,
    own: GroupMeans | None,
    overall: GroupMeans,
    draw: int,
) -> None:
    for name in SITES:
        for layer, value in enumerate(sites[name]):
            if own is not None and name == "pattern":
                value[rows, :, :length, :length] = own[name][layer][draw]
            elif own is not None:
                value[rows, :length] = own[name][layer][draw]
            elif name in overall:
                value[rows] = overall[name][layer][draw]
