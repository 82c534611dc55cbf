"""When a gradient is called blind: the flag of saturated attention and of shut neurons, threshold by threshold."""

import patch_models
import pytest
import torch

from profiler.patching import batch as batches
from profiler.patching.attribution import gradient
from profiler.patching.sites import Target

QUERY, NEURON = Target("q", 0, 0), Target("neuron", 0, 0)


def runs(site: str, base: torch.Tensor, other: torch.Tensor) -> tuple[batches.PairBatch, batches.Trace, batches.Trace]:
    """Eight pairs whose two runs have these values at one site, per pair; everything else is nothing."""
    batch = patch_models.batch(8)
    n, offsets = batch.clean.shape
    made = []
    for value in (base, other):
        shape = (n, 1, offsets, offsets) if site == "pattern" else (n, offsets, 1)
        made.append(batches.Trace({site: [value.view(n, *[1] * (len(shape) - 1)).expand(shape)]}, torch.zeros(n, 2)))
    return batch, *made


def of_pairs(k: int, yes: float, no: float) -> torch.Tensor:
    return torch.tensor([yes] * k + [no] * (8 - k))


@pytest.mark.parametrize(("k", "flagged"), [(1, False), (2, True), (8, True)])
def test_a_quarter_of_the_pairs_is_enough(k: int, flagged: bool) -> None:
    """Of eight pairs two: attention that was all and moves, neurons that were shut and open; one pair is not enough."""
    batch, base, other = runs("pattern", of_pairs(k, 0.99, 0.5), torch.full((8,), 0.5))
    assert gradient.saturated(base, other, batch, QUERY) is flagged
    assert gradient.saturated(other, base, batch, QUERY) is flagged
    batch, base, other = runs("neuron", torch.zeros(8), of_pairs(k, -0.5, 0.0))
    assert gradient.saturated(base, other, batch, NEURON) is flagged
    assert gradient.saturated(other, base, batch, NEURON) is False


@pytest.mark.parametrize(
    ("base", "other", "flagged"),
    [(0.96, 0.8, True), (0.94, 0.8, False), (0.96, 0.87, False), (0.8, 0.96, True), (0.96, 0.96, False)],
)
def test_attention_is_saturated_above_095_and_where_it_moves_by_more_than_a_tenth(
    base: float, other: float, flagged: bool
) -> None:
    batch, first, second = runs("pattern", torch.full((8,), base), torch.full((8,), other))
    assert gradient.saturated(first, second, batch, QUERY) is flagged


@pytest.mark.parametrize(
    ("base", "other", "flagged"),
    [(0.019, 0.11, True), (-0.019, -0.11, True), (0.021, 0.11, False), (0.019, 0.09, False)],
)
def test_a_neuron_is_shut_below_002_and_open_above_a_tenth(base: float, other: float, flagged: bool) -> None:
    batch, first, second = runs("neuron", torch.full((8,), base), torch.full((8,), other))
    assert gradient.saturated(first, second, batch, NEURON) is flagged


def test_other_sites_are_never_called_saturated() -> None:
    batch, first, second = runs("neuron", torch.zeros(8), torch.ones(8))
    assert gradient.saturated(first, second, batch, Target("mlp_out", 0)) is False
