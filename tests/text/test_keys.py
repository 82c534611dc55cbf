"""Sampling keys: uniform, different between components, seeds and documents, and a function of the place alone."""

import numpy as np
import pytest
import torch
from scipy import stats

from profiler.text.sampling_keys import (
    _shift_right,
    component_keys,
    component_marks,
    mix,
    position_keys,
    signed,
    stable_hash,
)

N = 20_000
P_TOO_SMALL = 1e-4  # seeds are fixed: a sound generator passes for ever


def keys_of(seed: int = 0, document: str = "corpus:row 1", n: int = N) -> torch.Tensor:
    return position_keys(seed, document, torch.arange(n))


def unit(keys: torch.Tensor) -> np.ndarray:
    """Keys as numbers in [0, 1)."""
    return keys.numpy().astype(np.float64) / 2**64 + 0.5


def assert_uniform(keys: torch.Tensor) -> None:
    assert stats.kstest(unit(keys), "uniform").pvalue > P_TOO_SMALL


@pytest.mark.parametrize("document", ["a", "b", "corpus.jsonl:7", "stdlib:json/decoder.py"])
def test_keys_are_uniform_over_the_places_of_a_document(document):
    assert_uniform(keys_of(document=document))


def test_keys_of_the_first_place_are_uniform_over_documents():
    assert_uniform(torch.cat([keys_of(document=f"corpus:{i}", n=1) for i in range(5_000)]))


@pytest.mark.parametrize("component", [0, 1, 2, 37, 999])
def test_component_keys_are_uniform_over_places(component):
    keys = component_keys(keys_of(), component_marks(0, 1_000))[:, component]
    assert_uniform(keys)
    assert_uniform(keys[::7])


def test_uniformity_check_fails_on_places_used_as_keys():
    """The test of the test."""
    assert stats.kstest(unit(torch.arange(N) << 47), "uniform").pvalue < P_TOO_SMALL


def smallest(keys: torch.Tensor, k: int) -> set[int]:
    return set(keys.argsort()[:k].tolist())


@pytest.mark.parametrize("k", [50, 1_000, 5_000])
def test_two_components_share_as_many_of_their_smallest_keys_as_random_sets_do(k):
    """Overlap of two random k-subsets of N is hypergeometric (anchors, trap S6: streams that repeat)."""
    keys = component_keys(keys_of(), component_marks(0, 60))
    sets = [smallest(keys[:, c], k) for c in range(60)]
    overlaps = np.array([len(a & b) for i, a in enumerate(sets) for b in sets[i + 1 :]])
    expected = stats.hypergeom(N, k, k)
    se = expected.std() / np.sqrt(len(overlaps))
    assert abs(overlaps.mean() - expected.mean()) < 5 * se
    assert overlaps.var() == pytest.approx(expected.var(), rel=0.35)
    assert expected.cdf(overlaps.max()) < 1 - 1e-9
    assert expected.cdf(overlaps.min()) > 1e-9 or overlaps.min() == 0


def test_components_rank_places_independently():
    """Correlation of the whole order, not of the smallest keys alone."""
    keys = unit(component_keys(keys_of(), component_marks(3, 40)))
    correlations = np.corrcoef(keys.T)[np.triu_indices(40, 1)]
    assert np.abs(correlations).max() < 5.5 / np.sqrt(N)


def test_marks_of_components_differ_and_depend_on_the_seed():
    marks = component_marks(0, 100_000)
    assert len(marks.unique()) == 100_000
    assert not (marks == component_marks(1, 100_000)).any()
    assert (marks[:10] == component_marks(0, 10)).all()


def test_seeds_and_documents_give_other_keys():
    keys = [keys_of(0, "a"), keys_of(1, "a"), keys_of(0, "b"), keys_of(0, "a\x00")]
    for i, first in enumerate(keys):
        for second in keys[i + 1 :]:
            assert not (first == second).any()
            assert abs(np.corrcoef(unit(first), unit(second))[0, 1]) < 5 / np.sqrt(N)


def test_a_key_depends_on_its_place_alone():
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    assert (position_keys(5, "a", order) == position_keys(5, "a", torch.arange(N))[order]).all()
    single = torch.cat([position_keys(5, "a", torch.tensor([place])) for place in range(50)])
    assert (single == position_keys(5, "a", torch.arange(50))).all()


def splitmix64(value: int) -> int:
    """The published finaliser on Python integers, unsigned."""
    mask = 2**64 - 1
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return value ^ (value >> 31)


def test_mix_is_the_published_finaliser():
    values = [0, 1, 2**63, 2**64 - 1, 0x123456789ABCDEF0, *(stable_hash(str(i)) for i in range(200))]
    got = mix(torch.tensor([signed(v) for v in values]))
    assert [v % 2**64 for v in got.tolist()] == [splitmix64(v % 2**64) for v in values]


def test_mix_is_a_bijection_on_a_sample_and_flips_half_of_the_bits():
    values = torch.arange(-100_000, 100_000)
    assert len(mix(values).unique()) == len(values)
    flipped = mix(values) ^ mix(values ^ 1)
    ones = np.unpackbits(flipped.numpy().view(np.uint8)).sum() / len(values)
    assert ones == pytest.approx(32, abs=0.1)


def test_shift_is_logical():
    assert _shift_right(torch.tensor([-1]), 60).item() == 15


def test_component_keys_permute_places():
    keys = component_keys(keys_of(), component_marks(0, 3))
    assert [len(column.unique()) for column in keys.T] == [N] * 3


def test_stable_hash_is_known():
    """The value stored runs rely on: the same in every process and on every machine."""
    assert stable_hash("a") == stable_hash("a")
    assert stable_hash("group corpus:1") == int.from_bytes(
        __import__("hashlib").blake2b(b"group corpus:1", digest_size=8).digest(), "little", signed=True
    )
