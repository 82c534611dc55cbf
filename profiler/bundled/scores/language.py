"""Loss on held-out text, per token and per byte, beside a bigram model over the same tokens.

Why: nats per token depend on the tokenizer, nats per byte do not; and only the distance from a bigram model shows
that context is used at all. Each document is cut to its first characters, tokenized, and read in windows that follow
one another without overlap, each behind the start token, so every token is predicted exactly once. The bigram model
sees the true previous token at the beginnings of windows too, which favours the baseline.

Cost: one forward pass over the texts read, about 300,000 tokens at the default sizes; fitting the bigram model
tokenizes the whole train split (seconds with a fast tokenizer).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from profiler.bundled.scores.bigram import Bigram, fit_bigram
from profiler.bundled.scores.scored_model import BATCH, ScoredModel, padded, token_losses
from profiler.text import stdlib

DOMAINS: tuple[stdlib.Domain, ...] = ("code", "prose", "tests")
CHARACTERS = 6_000
"""Characters read of each held-out document."""
DOCUMENTS = 60
"""Held-out documents read of each domain, at most."""


@dataclass(frozen=True)
class Losses:
    """Summed losses of each document.

    Attributes:
        model: nats of the model under test.
        bigram: nats of the bigram model.
        tokens: tokens predicted.
        bytes: length in UTF-8 of the text they spell.
    """

    model: Float[np.ndarray, "document"]
    bigram: Float[np.ndarray, "document"]
    tokens: Int64[np.ndarray, "document"]
    bytes: Int64[np.ndarray, "document"]


def held_out_texts(limit: int = DOCUMENTS, characters: int = CHARACTERS) -> dict[str, list[str]]:
    """The beginning of held-out documents of each domain, evenly spread over the corpus where there are too many.

    A domain that this machine's library lacks (its tests, in some distributions) has an empty list.
    """
    texts: dict[str, list[str]] = {domain: [] for domain in DOMAINS}
    for document in stdlib.documents("held_out"):
        texts[document["domain"]].append(document["text"][:characters])
    return {domain: _spread(of_domain, limit) for domain, of_domain in texts.items()}


def fit_on_train_split(subject: ScoredModel) -> Bigram:
    """A bigram model of the corpus's train split in the subject's tokens."""
    documents = ([subject.start, *subject.encode(d["text"])] for d in stdlib.documents("train"))
    return fit_bigram(documents, max(len(subject.tokenizer), subject.model.config.vocab_size))


def losses(subject: ScoredModel, bigram: Bigram, texts: Iterable[str]) -> Losses:
    """Losses of the model and of the bigram model on each text."""
    rows = [_document(subject, bigram, text) for text in texts]
    model, baseline, tokens, size = (np.array(column) for column in zip(*rows, strict=True))
    return Losses(model, baseline, tokens, size)


def _document(subject: ScoredModel, bigram: Bigram, text: str) -> tuple[float, float, int, int]:
    ids = subject.encode(text)
    total = sum(_window_nats(subject, batch) for batch in _batches(list(_windows(subject, ids))))
    return total, bigram.nats([subject.start, *ids]), len(ids), len(text.encode("utf-8", errors="replace"))


def _windows(subject: ScoredModel, ids: Sequence[int]) -> Iterator[list[int]]:
    step = subject.context - 1
    for begin in range(0, len(ids), step):
        yield [subject.start, *ids[begin : begin + step]]


def _batches(windows: list[list[int]]) -> Iterator[list[list[int]]]:
    for begin in range(0, len(windows), BATCH):
        yield windows[begin : begin + BATCH]


def _window_nats(subject: ScoredModel, windows: list[list[int]]) -> float:
    ids, lengths = padded(windows, subject.start)
    each = token_losses(subject, ids).double().numpy()
    real = np.arange(each.shape[1])[None] < (lengths - 1).numpy()[:, None]
    return float(each[real].sum())


def _spread(texts: list[str], limit: int) -> list[str]:
    if len(texts) <= limit:
        return texts
    return [texts[i] for i in np.linspace(0, len(texts) - 1, limit).round().astype(int)]
