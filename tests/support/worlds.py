"""Windows of made-up documents with a value at each position, in batches and one after the other: what accumulators are
fed."""

from dataclasses import dataclass

import numpy as np
import torch

from profiler.model.direct import Part
from profiler.recording.accumulators.cells import N_CLASSES, Axes
from profiler.recording.accumulators.spectrum import N_CELLS, SpectrumCounts
from profiler.text.documents import Domains, TokenizedDocument
from profiler.text.sampling_keys import component_keys, component_marks
from profiler.text.token_classes import CLASS_ID
from profiler.text.windows import Batch, Layout, Window, make_batch, windows_of

CPU = torch.device("cpu")
CONTEXT = 8
N_COMPONENTS = 5
COMPONENTS = slice(1, 4)
VOCABULARY = 40
TOKEN_CLASSES = torch.arange(VOCABULARY) % (N_CLASSES - 3) + 3
TOKEN_CLASSES[0] = CLASS_ID["special"]
LAYOUT = Layout(CONTEXT, 0, TOKEN_CLASSES, seed=1, groups_per_domain=3)
AXES = Axes.for_context(CONTEXT)


@dataclass
class World:
    """Windows of some documents and a value for each of their positions."""

    windows: list[Window]
    shift: float = 0.0

    @classmethod
    def of(cls, lengths: list[int], seed: int = 0, shift: float = 0.0) -> "World":
        generator, domains, windows = np.random.default_rng(seed), Domains(3), []
        for i, n in enumerate(lengths):
            domain = domains.id_of("ab"[i % 2])
            ids = generator.integers(0, VOCABULARY, n).astype(np.int32)
            place = f"corpus:{i}"
            document = TokenizedDocument(i, domain, "ab"[i % 2], place, place, domains.group_of(domain, i), ids, 0)
            windows += windows_of(document, LAYOUT)
        return cls(windows, shift)

    def part(self, batch: Batch) -> Part:
        """Values fixed by the position; padding holds something large, which must not count."""
        a, d = (self._values(batch.position_ids, seed) for seed in (1, 2))
        a = a - self.shift
        padding = ~batch.valid[..., None]
        return Part(COMPONENTS, a.masked_fill(padding, 1e6), d.masked_fill(padding, -1e6))

    @staticmethod
    def _values(positions: torch.Tensor, seed: int) -> torch.Tensor:
        keys = component_keys(positions.reshape(-1) * 7919, component_marks(seed, 3))
        uniform = keys.double() / 2.0**64 + 0.5
        return torch.special.ndtri(uniform.clamp(1e-9, 1 - 1e-9)).view(*positions.shape, 3)

    def batches(self, seed: int, n_parts: int) -> list[list[Batch]]:
        """The windows in random order and batches, dealt to `n_parts` accumulators."""
        generator = np.random.default_rng(seed)
        order, parts = generator.permutation(len(self.windows)), [[] for _ in range(n_parts)]
        while len(order):
            size = generator.integers(1, 5)
            take, order = order[:size], order[size:]
            parts[generator.integers(n_parts)].append(make_batch([self.windows[i] for i in take], LAYOUT))
        return parts

    def raw(self) -> dict[str, np.ndarray]:
        """Everything about each position, one after the other, from one window at a time."""
        rows: dict[str, list] = {
            k: [] for k in ("a", "d", "class", "next", "offset", "group", "domain", "ordinary", "id")
        }
        for window in self.windows:
            batch = make_batch([window], LAYOUT)
            part, at = self.part(batch), batch.valid[0]
            n = int(at.sum())
            for name, values in (
                ("a", part.activation[0]),
                ("d", part.dla[0]),
                ("class", batch.classes[0]),
                ("next", batch.next_classes[0]),
                ("offset", torch.arange(len(at))),
                ("ordinary", batch.ordinary[0]),
                ("id", batch.position_ids[0]),
            ):
                rows[name].append(values[at].numpy())
            rows["group"].append(np.full(n, window.document.group_id))
            rows["domain"].append(np.full(n, window.document.domain_id))
        return {name: np.concatenate(values) for name, values in rows.items()}


def dense_bins(spectrum: SpectrumCounts, components: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Counts [component, class, bin] and sums [2, component, class, bin] of all cells, filled or not."""
    found, n = spectrum.entries(components), components.stop - components.start
    at = found.component * N_CELLS + found.cell
    assert (at.diff() > 0).all(), "cells of a component are ascending, and each is there once"
    counts = torch.zeros(n * N_CELLS, dtype=torch.int64).index_copy_(0, at, found.counts.long())
    sums = torch.zeros(2, n * N_CELLS, dtype=torch.float64).index_copy_(1, at, found.sums)
    return counts.view(n, N_CLASSES, -1), sums.view(2, n, N_CLASSES, -1)
