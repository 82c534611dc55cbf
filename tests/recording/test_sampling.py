"""Samples are fair: uniform in each stratum, different for each component, and unbiased once weighted."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats

from profiler.recording.accumulators.bins import SPECTRUM
from profiler.recording.accumulators.smallest import Smallest
from profiler.text.sampling_keys import component_keys, component_marks, position_keys

CPU = torch.device("cpu")
N_PLACES, N_SEEDS, K = 200, 1_500, 8


def chosen_places(seed: int, component: int, order: torch.Tensor, in_stratum: torch.Tensor) -> list[int]:
    """Places of the sample of stratum 1, positions offered in `order`."""
    keys = component_keys(position_keys(seed, "doc", order), component_marks(seed, component + 1)[-1:])
    keep = Smallest(2, K, torch.int64, torch.float32, CPU)
    value = torch.zeros(len(order), 1)
    keep.offer(in_stratum[order].long()[:, None], keys, order, value, value, 0)
    entries = keep.entries()
    return entries.positions[entries.cells == 1].tolist()


def uniformity(choose: Callable[[int], list[int]], stratum: list[int]) -> float:
    """p of a chi-square test that every member of a stratum is chosen equally often over many seeds."""
    counts = np.zeros(N_PLACES)
    for seed in range(N_SEEDS):
        places = choose(seed)
        assert set(places) <= set(stratum)
        assert len(places) == K
        counts[places] += 1
    n = len(stratum)
    # each seed draws K of n without replacement: counts vary less than multinomial ones, by (n - K) / (n - 1)
    statistic = ((counts[stratum] - N_SEEDS * K / n) ** 2 / (N_SEEDS * K / n)).sum() * (n - 1) / (n - K)
    return stats.chi2.sf(statistic, n - 1)


IN_STRATUM = torch.arange(N_PLACES) % 3 == 0
STRATUM = IN_STRATUM.nonzero()[:, 0].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("component", [0, 17])
@pytest.mark.parametrize("order", ["forward", "backward"])
def test_samples_are_uniform_in_their_stratum(component, order):
    places = torch.arange(N_PLACES)
    places = places if order == "forward" else places.flip(0)
    p = uniformity(lambda seed: chosen_places(seed, component, places, IN_STRATUM), STRATUM)
    assert 1e-3 < p < 1 - 1e-6


def test_the_uniformity_test_fails_on_a_biased_sampler():
    """A running band that the first rows fill more often, and the first K always."""

    def mostly_first(seed: int) -> list[int]:
        generator = np.random.default_rng(seed)
        weight = 1.5 - np.arange(len(STRATUM)) / len(STRATUM)
        return generator.choice(STRATUM, K, replace=False, p=weight / weight.sum()).tolist()

    assert uniformity(mostly_first, STRATUM) < 1e-6
    assert uniformity(lambda _: STRATUM[:K], STRATUM) < 1e-6


@pytest.mark.slow
def test_two_components_sample_different_positions():
    places = torch.arange(N_PLACES)
    shared = [
        len({*chosen_places(s, 0, places, IN_STRATUM)} & {*chosen_places(s, 1, places, IN_STRATUM)}) for s in range(500)
    ]
    expected = stats.hypergeom(len(STRATUM), K, K)
    assert np.mean(shared) == pytest.approx(expected.mean(), abs=5 * expected.std() / 500**0.5)


def test_a_mean_reweighted_by_inclusion_probabilities_is_unbiased_and_an_unweighted_one_is_not():
    """The rarest stratum is sampled as densely as the commonest: without weights its values would count too much."""
    generator = np.random.default_rng(0)
    values = generator.standard_normal(3_000) ** 3
    strata = SPECTRUM.index(torch.from_numpy(values))
    sizes = torch.bincount(strata.long(), minlength=SPECTRUM.n_bins).double()
    weighted, plain = [], []
    places, one = torch.arange(3_000), torch.from_numpy(values)[:, None]
    for seed in range(120):
        keep = Smallest(SPECTRUM.n_bins, K, torch.int64, torch.float64, CPU)
        keys = component_keys(position_keys(seed, "doc", places), component_marks(seed, 1))
        keep.offer(strata.long()[:, None], keys, places, one, one, 0)
        entries = keep.entries()
        inclusion = torch.bincount(entries.cells, minlength=SPECTRUM.n_bins).double() / sizes
        assert (inclusion[sizes > 0] == torch.clamp(K / sizes[sizes > 0], max=1)).all()
        weights = 1 / inclusion[entries.cells]
        weighted.append(((weights * entries.activation.abs()).sum() / weights.sum()).item())
        plain.append(entries.activation.abs().mean().item())
    exact, se = np.abs(values).mean(), np.std(weighted) / 120**0.5
    assert abs(np.mean(weighted) - exact) < 4 * se
    assert abs(np.mean(plain) - exact) > 20 * np.std(plain) / 120**0.5
