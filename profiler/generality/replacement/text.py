"""The text that replacements are tested on: windows of documents as tensors, fitting and testing documents apart.

Why: means and fitted rules must not have seen the positions that they are tested on, and documents, not tokens, are
drawn independently. Every document is for fitting or for testing, by a hash of its place, a quarter of them for
fitting; of each, as many windows are read as the number of tokens asked for allows, in turns, so that there are many
documents.
Cost: the tokenizer's.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from profiler.generality.replacement.run import TextBatch
from profiler.model.load import Model
from profiler.text.documents import TokenizedDocument
from profiler.text.sampling_keys import stable_hash
from profiler.text.token_classes import special_ids, token_classes, token_texts
from profiler.text.windows import Batch, Layout, Window, make_batch, windows_of

FIT_IN = 4
"""One document in this many is for fitting."""
AT_ONCE = 2_000_000
"""Numbers of logits in one batch, at most: more leaves a processor's cache."""


@dataclass(frozen=True, eq=False)
class Texts:
    """Readings for fitting and for testing, with the counts of documents and of windows that were left out."""

    fitting: tuple[TextBatch, ...]
    testing: tuple[TextBatch, ...]
    n_documents: int
    n_positions: int
    n_left_out: int


def of_documents(model: Model, documents: Iterable[str], tokens: int = 50_000, fit_tokens: int = 12_000) -> Texts:
    """Texts of plain strings, one a document.

    Args:
        tokens: tokens to test on, at most; the rest is left out and counted.
        fit_tokens: tokens to fit on, at most.
    """
    classes = token_classes(token_texts(model.tokenizer, model.spec.n_vocab), special_ids(model.tokenizer))
    layout = Layout(model.spec.context_length, model.bos_id, torch.tensor(classes), 0, 1)
    windows = [
        window
        for number, text in enumerate(documents)
        for window in windows_of(_tokenized(model, number, text), layout)
    ]
    return of_windows(model, windows, layout, tokens, fit_tokens)


def _tokenized(model: Model, number: int, text: str) -> TokenizedDocument:
    ids = np.asarray(model.encode(text), dtype=np.int32)
    return TokenizedDocument(number, 0, "text", str(number), f"text:{number}", 0, ids, 0)


def of_windows(
    model: Model, windows: Sequence[Window], layout: Layout, tokens: int = 50_000, fit_tokens: int = 12_000
) -> Texts:
    """Texts of windows that are there already; see `of_documents`."""
    parts: dict[bool, list[Window]] = {True: [], False: []}
    for window in windows:
        parts[_is_fitting(window)].append(window)
    chosen = {True: _in_turns(parts[True], fit_tokens), False: _in_turns(parts[False], tokens)}
    testing = _readings(model, chosen[False], layout)
    documents = {window.document.doc_id for window in chosen[False]}
    n_positions = sum(int(reading.counted.sum()) for reading in testing)
    left_out = len(windows) - len(chosen[True]) - len(chosen[False])
    return Texts(_readings(model, chosen[True], layout), testing, len(documents), n_positions, left_out)


def _is_fitting(window: Window) -> bool:
    return stable_hash(f"fit {window.document.place}") % FIT_IN == 0


def _in_turns(windows: Sequence[Window], tokens: int) -> list[Window]:
    """First every document's first window, then every second, and so on, documents by the hash of their place."""
    queues: dict[int, list[Window]] = defaultdict(list)
    for window in windows:
        queues[window.document.doc_id].append(window)
    turn = {w.window_id: i for queue in queues.values() for i, w in enumerate(sorted(queue, key=lambda w: w.number))}
    ordered = sorted(windows, key=lambda w: (turn[w.window_id], stable_hash(w.document.place)))
    chosen: list[Window] = []
    total = 0
    for window in ordered:
        total += len(window.token_ids)
        if total > tokens and chosen:
            break
        chosen.append(window)
    return chosen


def _readings(model: Model, windows: Sequence[Window], layout: Layout) -> tuple[TextBatch, ...]:
    size = max(1, AT_ONCE // (layout.context_length * model.spec.n_vocab))
    ordered = sorted(windows, key=lambda w: (-len(w.token_ids), w.window_id))
    return tuple(
        reading_of(make_batch(ordered[begin : begin + size], layout), model.weights.unembed.device)
        for begin in range(0, len(ordered), size)
    )


def reading_of(batch: Batch, device: torch.device | str = "cpu") -> TextBatch:
    """A batch of the recording pass as a reading: ordinary positions are counted."""
    documents = torch.tensor([window.document.doc_id for window in batch.windows])
    parts = (batch.tokens, batch.classes, batch.targets, batch.ordinary, documents, batch.domains)
    return TextBatch(*(part.to(device) for part in parts))
