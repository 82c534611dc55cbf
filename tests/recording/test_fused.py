"""The compiled loop against the tensor accumulators it stands for: same counts, same entries, same sums."""

import numpy as np
import pytest
import torch
from scipy import stats
from worlds import dense_bins

from profiler.model.direct import Part
from profiler.recording.accumulators import compiled
from profiler.recording.accumulators.bins import SPECTRUM
from profiler.recording.accumulators.cells import BUCKET_STARTS, N_CLASSES, Axes, CellSums, PowerSums
from profiler.recording.accumulators.smallest import Smallest
from profiler.recording.accumulators.spectrum import SpectrumCounts
from profiler.text.sampling_keys import component_keys, component_marks

CPU = torch.device("cpu")
WINDOWS, WIDTH, COMPONENTS, N_SPECIAL = 6, 40, 7, 3


class Accumulators:
    """All accumulators, empty, for components 2 to 8 of 9."""

    def __init__(self, dtype: torch.dtype):
        axes = Axes.for_context(64)
        self.cells, self.powers = CellSums(axes, 9, CPU), PowerSums(9, CPU, dtype)
        self.cells.grow(4)
        self.powers.grow(2)
        self.spectrum, self.marks = SpectrumCounts(9, CPU), component_marks(0, 9)
        self.samples = Smallest(9 * SPECTRUM.n_bins, 3, torch.int64, dtype, CPU)
        self.extremes = Smallest(9 * 4, 5, dtype, dtype, CPU)

    def state(self) -> dict[str, torch.Tensor]:
        counts, sums = dense_bins(self.spectrum, slice(0, 9))
        named = {
            "cells": self.cells.sums,
            "powers": self.powers.sums,
            "extrema": self.powers.extrema,
            "counts": counts,
            "sums": sums,
            "density": self.spectrum.density,
        }
        for name in ("samples", "extremes"):
            held = getattr(self, name)
            named |= {
                f"{name} {k}": getattr(held, k)
                for k in ("keys", "positions", "activation", "dla", "threshold", "threshold_position")
            }
        return named


def batch(seed: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Random positions and values: many exact zeros (ties), special classes, both signs, a wide range."""
    g = torch.Generator().manual_seed(seed)
    shape = (WINDOWS, WIDTH)
    valid = torch.rand(shape, generator=g) < 0.9
    classes = torch.randint(0, N_CLASSES, shape, generator=g)
    activation = torch.randn(*shape, COMPONENTS, generator=g, dtype=dtype) * 10.0 ** torch.randint(
        -6, 3, (*shape, COMPONENTS), generator=g
    )
    activation *= torch.rand(*shape, COMPONENTS, generator=g) < 0.7
    return {
        "groups": torch.randint(0, 4, (WINDOWS,), generator=g),
        "valid": valid,
        "classes": classes,
        "next_classes": torch.randint(0, N_CLASSES, shape, generator=g),
        "ordinary": valid & (classes >= N_SPECIAL),
        "keys": torch.randint(-(2**63), 2**63 - 1, shape, generator=g),
        "positions": torch.randperm(WINDOWS * WIDTH, generator=g).view(shape),
        "activation": activation,
        "dla": torch.randn(*shape, COMPONENTS, generator=g, dtype=dtype),
    }


def with_tensors(held: Accumulators, b: dict[str, torch.Tensor], components: slice) -> None:
    """What the recorder does where there is no compiled loop."""
    part, buckets = (
        Part(components, b["activation"], b["dla"]),
        torch.searchsorted(torch.tensor(BUCKET_STARTS), torch.arange(WIDTH), right=True) - 1,
    )
    hot = torch.zeros(WINDOWS, held.cells.axes.n_cells, WIDTH, dtype=b["dla"].dtype)
    hot.scatter_(1, b["classes"][:, None], b["valid"][:, None].to(hot.dtype))
    for cell in (N_CLASSES + b["next_classes"], 2 * N_CLASSES + buckets.expand(WINDOWS, WIDTH)):
        hot.scatter_(1, cell[:, None], b["ordinary"][:, None].to(hot.dtype))
    held.cells.update(b["groups"], hot, part)
    held.powers.update(b["groups"] // 2, hot[:, :N_CLASSES], part)
    valid, ordinary = b["valid"], b["ordinary"]
    domain = (b["groups"] // 2)[:, None].expand_as(valid)
    held.powers.update_extrema(
        (domain * N_CLASSES + b["classes"])[valid], components, b["activation"][valid], b["dla"][valid]
    )
    rows = ordinary[valid].nonzero()[:, 0]
    held.spectrum.update(components, b["activation"][valid], b["dla"][valid], b["classes"][valid], rows)
    a, d, positions = b["activation"][ordinary], b["dla"][ordinary], b["positions"][ordinary]
    strata = torch.arange(components.start, components.stop) * SPECTRUM.n_bins + SPECTRUM.index(a)
    held.samples.offer(strata, component_keys(b["keys"][ordinary], held.marks[components]), positions, a, d, 0)
    for kind, values in enumerate((-a, a, -d, d)):
        held.extremes.offer(torch.arange(components.start, components.stop) * 4 + kind, values, positions, a, d, 0)


def with_loop(held: Accumulators, b: dict[str, torch.Tensor], components: slice) -> None:
    valid = b["valid"]
    groups = b["groups"][:, None].expand_as(valid)
    buckets = (torch.searchsorted(torch.tensor(BUCKET_STARTS), torch.arange(WIDTH), right=True) - 1).expand_as(valid)
    per_token = [
        t[valid]
        for t in (
            groups,
            groups // 2,
            b["classes"],
            b["ordinary"],
            b["next_classes"],
            buckets,
            b["keys"],
            b["positions"],
        )
    ]
    order = compiled.make_order(torch.arange(int(valid.sum())), *per_token)
    compiled.add(
        held.cells,
        held.powers,
        held.spectrum,
        held.samples,
        held.extremes,
        held.marks,
        order,
        components,
        b["activation"][valid],
        b["dla"][valid],
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loop_equals_tensors(dtype):
    components, tensors, loop = slice(2, 9), Accumulators(dtype), Accumulators(dtype)
    for seed in range(5):
        b = batch(seed, dtype)
        with_tensors(tensors, b, components)
        with_loop(loop, b, components)
    got, want = loop.state(), tensors.state()
    for name, value in want.items():
        if value.dtype == torch.int64 or "samples" in name or "extremes" in name or name == "extrema":
            assert torch.equal(got[name], value), name
        else:
            scale = value.abs().max()
            torch.testing.assert_close(got[name], value, rtol=2e-6, atol=2e-7 * scale.item(), msg=name)
    assert want["counts"].sum() > 0
    assert (want["extremes positions"][8:] >= 0).any()


@pytest.mark.parametrize(("feed", "within"), [(with_tensors, 1e-4), (with_loop, 1e-9)])
def test_moments_are_those_of_numpy_where_the_mean_is_far_from_zero(feed, within):
    """Mean 10,000 and deviation 1 in float32, one component constant: skew and kurtosis of raw powers were noise."""
    held, batches = Accumulators(torch.float32), [batch(seed, torch.float32) for seed in range(4)]
    for b in batches:
        b["activation"] = 1e4 + torch.randn(b["dla"].shape, generator=torch.Generator().manual_seed(1)).exp()
        b["activation"][..., -1] = 4096.5
        feed(held, b, slice(2, 9))
    domain = torch.stack([(b["groups"] // 2)[:, None].expand_as(b["valid"]) for b in batches])
    classes, valid, values = (torch.stack([b[name] for b in batches]) for name in ("classes", "valid", "activation"))
    for cell in ((0, 4), (1, 7)):
        x = values[valid & (domain == cell[0]) & (classes == cell[1])].double().numpy()
        n, mean, m2, m3, m4 = held.powers.sums[:5, cell[0], cell[1], 2:].numpy()
        assert (n == len(x)).all() and len(x) > 8
        np.testing.assert_allclose(mean, x.mean(0), rtol=1e-7)
        assert (mean[-1], m2[-1], m3[-1], m4[-1]) == (4096.5, 0.0, 0.0, 0.0)
        n, m2, m3, m4, x = n[:-1], m2[:-1], m3[:-1], m4[:-1], x[:, :-1]
        got = np.sqrt(m2 / n), m3 / n / (m2 / n) ** 1.5, m4 / n / (m2 / n) ** 2
        for ours, theirs in zip(got, (x.std(0), stats.skew(x), stats.kurtosis(x, fisher=False)), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=within)


def refuse_first(blocks: np.ndarray) -> None:
    if blocks[0] == 0:
        raise KeyError("no 0")


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_each_block_is_done_once_however_many_threads_there_are(threads):
    starts, before, done = np.arange(0, 640, compiled.LANES), torch.get_num_threads(), []
    torch.set_num_threads(threads)
    try:
        compiled._in_threads(starts, lambda blocks: done.extend(blocks.tolist()))
        with pytest.raises(KeyError, match="no 0"):
            compiled._in_threads(starts, refuse_first)
    finally:
        torch.set_num_threads(before)
    assert sorted(done) == starts.tolist()
