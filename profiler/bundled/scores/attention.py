"""Induction and previous-token scores: where heads look, and whether the model copies.

Why: these are the two heads that most circuits are built from (Olsson et al. 2022, "In-context Learning and Induction
Heads"; Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Induction heads"). The best head is
chosen on one half of the sequences or documents and measured on the other half, so that choosing does not raise the
score. Cost: one forward pass with attention patterns for some hundred windows, seconds for a small model.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from profiler import statistics
from profiler.bundled.scores.scored_model import BATCH, ScoredModel, padded, patterns, token_losses
from profiler.prompts.tasks import repeats
from profiler.statistics import Estimate


@dataclass(frozen=True, slots=True)
class HeadScore:
    """The best head, such as `L2H5`, and its score on data that did not choose it."""

    head: str
    estimate: Estimate


def repeated_sequences(subject: ScoredModel, n: int, length: int, seed: int) -> Int64[Tensor, "{n} 1+2*{length}"]:
    """Random segments that occur twice, each behind the start token."""
    rng = random.Random(seed)
    vocabulary = subject.ordinary()
    return torch.tensor([[subject.start, *repeats.twice(rng, vocabulary, length)] for _ in range(n)])


def induction_attention(
    pattern: Float[Tensor, "layer batch head query key"], length: int
) -> Float[Tensor, "batch layer head"]:
    """Mean attention from each token of the second copy to the token after its first occurrence.

    Args:
        pattern: of windows made of a start token and two copies of a segment.
        length: tokens in the segment.
    """
    lines = pattern.diagonal(1 - length, dim1=-2, dim2=-1)
    return lines[..., 2:].mean(-1).movedim(1, 0)


def previous_attention(
    pattern: Float[Tensor, "layer batch head query key"], lengths: Int64[Tensor, "batch"]
) -> tuple[Float[Tensor, "batch layer head"], Int64[Tensor, "batch"]]:
    """Summed attention to the previous position, and the number of positions summed.

    Left out are the start token and the first token after it, for which "previous" and "start" are the same, and
    everything behind a window's length.
    """
    lines = pattern.diagonal(-1, dim1=-2, dim2=-1)[..., 1:]
    counted = torch.arange(lines.shape[-1])[None] < (lengths - 2)[:, None]
    sums = (lines * counted[None, :, None]).sum(-1)
    return sums.movedim(1, 0), counted.sum(-1)


def induction_head(subject: ScoredModel, n: int = 64, length: int = 50, seed: int = 0) -> HeadScore:
    """Induction attention of the best head; one unit is one random sequence.

    Args:
        subject: the model.
        n: sequences in all, half of them to choose the head.
        length: tokens in a segment; shortened where two copies would not fit.
        seed: of the random tokens.
    """
    length = min(length, (subject.context - 1) // 2)
    ids = repeated_sequences(subject, n, length, seed)
    parts = [induction_attention(patterns(subject, batch), length) for batch in ids.split(BATCH)]
    scores = torch.cat(parts).double().numpy()
    return _best(scores, np.ones(len(scores)))


def copy_ratio(subject: ScoredModel, n: int = 64, length: int = 50, seed: int = 1) -> Estimate:
    """Loss on the second copy over loss on the first, the first token of each copy left out; one unit a sequence."""
    length = min(length, (subject.context - 1) // 2)
    ids = repeated_sequences(subject, n, length, seed)
    losses = torch.cat([token_losses(subject, batch) for batch in ids.split(BATCH)]).double().numpy()
    return statistics.ratio(losses[:, length + 1 :].sum(1), losses[:, 1:length].sum(1))


def previous_token_head(subject: ScoredModel, documents: Iterable[Sequence[int]]) -> HeadScore:
    """Attention to the previous position of the best head on text; one unit is one document's first window.

    Args:
        subject: the model.
        documents: token ids of each document, without special tokens.
    """
    rows = [[subject.start, *ids[: subject.context - 1]] for ids in documents if len(ids) > 1]
    sums, counts = [], []
    for begin in range(0, len(rows), BATCH):
        ids, lengths = padded(rows[begin : begin + BATCH], subject.start)
        summed, counted = previous_attention(patterns(subject, ids), lengths)
        sums.append(summed)
        counts.append(counted)
    return _best(torch.cat(sums).double().numpy(), torch.cat(counts).double().numpy())


def _best(sums: Float[np.ndarray, "unit layer head"], counts: Float[np.ndarray, "unit"]) -> HeadScore:
    chosen, measured = slice(0, None, 2), slice(1, None, 2)
    means = sums[chosen].sum(0) / counts[chosen].sum()
    layer, head = np.unravel_index(int(means.argmax()), means.shape)
    return HeadScore(f"L{layer}H{head}", statistics.ratio(sums[measured, layer, head], counts[measured]))
