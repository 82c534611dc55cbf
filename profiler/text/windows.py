"""Documents to windows to batches: what the model reads, and what each position is.

A window is a piece of one document and of no other, so no document's tokens attend to another's. Each token of a
document stands in exactly one window; the last of a window still knows the token it must predict. Windows are padded on
the right, where a causal model cannot look, so padding needs no attention mask. They come in chunks of a fixed size,
sorted by length inside a chunk; the size of batches only says how a chunk is cut.

A chunk is the unit of work, and its bits do not depend on who computes it: it is cut inside a block of documents
(profiler.text.documents), so whether other blocks were read, here or on another machine, changes nothing in it. Cost:
padding of a few per cent.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from profiler.axes import TokenIds, Valid
from profiler.errors import CorpusError
from profiler.text.documents import CHUNK_SHIFT, Cursor, TokenizedDocument, block_of
from profiler.text.sampling_keys import position_keys
from profiler.text.token_classes import CLASS_ID

CHUNK_WINDOWS = 256
POSITION_SHIFT, WINDOW_SHIFT = 32, 20
SPECIAL_CODES = {None: 0, "bos": 1, "first": 2, "special": 3}


@dataclass(frozen=True)
class Layout:
    """What shapes a window: sizes, the BOS put before it, the classes of the vocabulary, the run's seed and groups."""

    context_length: int
    bos_id: int | None
    token_classes: Int[Tensor, " vocab"]
    seed: int
    groups_per_domain: int

    @property
    def stride(self) -> int:
        """Document tokens per window."""
        return self.context_length - (self.bos_id is not None)


@dataclass(frozen=True)
class Window:
    """A window of a document.

    Attributes:
        number: of the window in its document.
        start: index in the document of its first token that is not the BOS put before it.
        token_ids: what the model reads, with that BOS.
        following: the token after its last one; None at the document's end.
    """

    document: TokenizedDocument
    number: int
    start: int
    token_ids: np.ndarray
    following: int | None

    @property
    def window_id(self) -> int:
        """doc_id * 2^20 + number."""
        return (self.document.doc_id << WINDOW_SHIFT) + self.number

    @property
    def n_positions(self) -> int:
        """Offsets that have a token to predict."""
        return len(self.token_ids) - (self.following is None)

    def roles(self, n_before: int) -> list[str | None]:
        """Role of the token at each position, None where it has none.

        Args:
            n_before: tokens put before the window (a BOS), which have no role.
        """
        if self.document.roles is None:
            return [None] * self.n_positions
        return [None] * n_before + list(self.document.roles[self.start : self.start + self.n_positions - n_before])


def random_windows(layout: Layout, k: int) -> Callable[[str, int], np.ndarray]:
    """A choice of `k` random windows of each document, fixed by the run's seed and the document's place."""

    def choose(place: str, n_tokens: int) -> np.ndarray:
        keys = position_keys(layout.seed, f"windows of {place}", torch.arange(-(-n_tokens // layout.stride)))
        return keys.argsort()[:k].sort().values.numpy()

    return choose


def refuse_unnumbered(document: TokenizedDocument, layout: Layout) -> None:
    """Each window and each position has a number of its own: refuse what there are no numbers for.

    Raises:
        CorpusError: a document of more windows than the ids of its windows and positions hold, or one document too
          many.
    """
    n, most = (
        -(-len(document.token_ids) // layout.stride),
        min(2**WINDOW_SHIFT, 2**POSITION_SHIFT // layout.context_length),
    )
    if n > most:
        raise CorpusError(
            f"document {document.source!r} has {n:,} windows of {layout.stride:,} tokens, and a document may have"
            f" {most:,}: cut it into several, or raise --context-length"
        )
    if document.doc_id >= 2 ** (63 - POSITION_SHIFT):
        raise CorpusError(
            f"a run may have {2 ** (63 - POSITION_SHIFT):,} documents: set --tokens, or join short documents"
        )


def windows_of(document: TokenizedDocument, layout: Layout) -> Iterator[Window]:
    """The windows of a document in order; a window without any position is left out (an empty document has none).

    Raises:
        CorpusError: see `refuse_unnumbered`.
    """
    refuse_unnumbered(document, layout)
    ids, before = document.token_ids, [] if layout.bos_id is None else [layout.bos_id]
    for number, start in enumerate(range(0, len(ids), layout.stride)):
        if document.numbers is not None and number not in document.numbers:
            continue
        end = min(start + layout.stride, len(ids))
        following = int(ids[end]) if end < len(ids) else None
        window = Window(document, number, start, np.concatenate([before, ids[start:end]]).astype(np.int32), following)
        if window.n_positions:
            yield window


@dataclass(frozen=True)
class Batch:
    """What the model reads and what each position is; every tensor is on the CPU.

    Attributes:
        windows: the windows, in order.
        tokens: token ids, padded with 0.
        valid: true where a position is: a token with a token to predict.
        targets: the token to predict, 0 where there is none.
        special: SPECIAL_CODES, 0 for ordinary positions.
        classes: class id of the token, or its special class.
        next_classes: class id of the token to predict.
        position_ids: doc_id * 2^32 + window number * context length + offset.
        keys: sampling keys (profiler.text.sampling_keys).
    """

    windows: tuple[Window, ...]
    tokens: TokenIds
    valid: Valid
    targets: TokenIds
    special: TokenIds
    classes: TokenIds
    next_classes: TokenIds
    position_ids: TokenIds
    keys: TokenIds

    @property
    def ordinary(self) -> Valid:
        """Positions that are counted by default: valid and not special."""
        return self.valid & (self.special == 0)

    @property
    def ends(self) -> tuple[Int[Tensor, " window"], Int[Tensor, " window"]]:
        """Window and offset of the last position of each window."""
        return torch.arange(len(self.windows)), self.valid.sum(1) - 1

    @property
    def roles(self) -> list[str | None]:
        """Role of the token at each valid position, windows one after the other.

        None for text that is no conversation, and for a BOS put before a window.
        """
        n_before = (self.special[:, 0] == SPECIAL_CODES["bos"]).tolist()
        return [role for window, n in zip(self.windows, n_before, strict=True) for role in window.roles(n)]

    @property
    def groups(self) -> Int[Tensor, " window"]:
        """Replicate group of each window."""
        return torch.tensor([w.document.group_id for w in self.windows])

    @property
    def domains(self) -> Int[Tensor, " window"]:
        """Domain id of each window."""
        return torch.tensor([w.document.domain_id for w in self.windows])


def _padded(rows: list[np.ndarray], width: int) -> Int[Tensor, "window offset"]:
    table = np.zeros((len(rows), width), dtype=np.int64)
    for row, values in zip(table, rows, strict=True):
        row[: len(values)] = values
    return torch.from_numpy(table)


def _special_codes(tokens: TokenIds, layout: Layout) -> TokenIds:
    codes = torch.where(layout.token_classes[tokens] == CLASS_ID["special"], SPECIAL_CODES["special"], 0)
    codes[:, 0] = SPECIAL_CODES["first" if layout.bos_id is None else "bos"]
    return codes


def _offsets(window: Window, layout: Layout) -> np.ndarray:
    return window.number * layout.context_length + np.arange(window.n_positions)


def make_batch(windows: list[Window], layout: Layout) -> Batch:
    """Pad windows to the longest and say what each position is."""
    width = max(len(w.token_ids) for w in windows)
    tokens = _padded([w.token_ids for w in windows], width)
    targets = _padded(
        [np.append(w.token_ids[1:], w.following if w.following is not None else []) for w in windows], width
    )
    valid = _padded([np.ones(w.n_positions) for w in windows], width).bool()
    offsets = [_offsets(w, layout) for w in windows]
    keys = [
        position_keys(layout.seed, w.document.place, torch.from_numpy(p)).numpy()
        for w, p in zip(windows, offsets, strict=True)
    ]
    ids = [(w.document.doc_id << POSITION_SHIFT) + p for w, p in zip(windows, offsets, strict=True)]
    special = _special_codes(tokens, layout)
    special_class = torch.tensor([-1, CLASS_ID["bos"], CLASS_ID["first"], CLASS_ID["special"]])[special]
    classes = torch.where(special == 0, layout.token_classes[tokens], special_class)
    return Batch(
        tuple(windows),
        tokens,
        valid,
        targets,
        special,
        classes,
        layout.token_classes[targets],
        _padded(ids, width),
        _padded(keys, width),
    )


@dataclass(frozen=True)
class Chunk:
    """A numbered, fixed unit of work: the documents that begin to be read in it, and up to CHUNK_WINDOWS windows.

    Attributes:
        number: block of documents * 2^20 + number in the block.
        dropped: what was dropped of its documents and on the way to them.
        cursor: where a pass stands that has read it.
    """

    number: int
    documents: tuple[TokenizedDocument, ...]
    windows: tuple[Window, ...]
    dropped: Counter[str]
    cursor: Cursor

    def batches(self, fitting: Callable[[int], int], layout: Layout) -> Iterator[Batch]:
        """The windows by length, longest first, in batches.

        Args:
            fitting: windows of a batch whose longest has so many tokens.
        """
        ordered = sorted(self.windows, key=lambda w: (-len(w.token_ids), w.window_id))
        start = 0
        while start < len(ordered):
            end = start + fitting(len(ordered[start].token_ids))
            yield make_batch(ordered[start:end], layout)
            start = end


def _chunk(number: int, last: TokenizedDocument, read: list[TokenizedDocument], windows: list[Window]) -> Chunk:
    dropped = sum((d.dropped for d in read), Counter())
    return Chunk(number, tuple(read), tuple(windows), dropped, Cursor(number, last.tokens_before, last.passed))


def chunks(documents: Iterable[TokenizedDocument], layout: Layout, after: int = -1) -> Iterator[Chunk]:
    """Cut the stream of windows into chunks, none across blocks; the last of a block may be smaller, and is kept.

    Args:
        after: number of a chunk; it and those before it are left out.
    """
    for block, members in itertools.groupby(documents, lambda d: block_of(d.doc_id)):
        yield from (c for c in _chunks_of_block(block << CHUNK_SHIFT, members, layout) if c.number > after)


def _chunks_of_block(number: int, documents: Iterable[TokenizedDocument], layout: Layout) -> Iterator[Chunk]:
    read, windows = [], []
    for document in documents:
        read.append(document)
        for window in windows_of(document, layout):
            windows.append(window)
            if len(windows) == CHUNK_WINDOWS:
                yield _chunk(number, document, read, windows)
                number, read, windows = number + 1, [], []
    if read or windows:
        yield _chunk(number, document, read, windows)
