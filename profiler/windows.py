"""Documents to windows to batches: what the model reads, and what each position is.

A window is a piece of one document and of no other, so no document's tokens attend to another's. Each token of a
document stands in exactly one window; the last of a window still knows the token it must predict. Windows are padded on
the right, where a causal model cannot look, so padding needs no attention mask. They come in chunks of a fixed size,
sorted by length inside a chunk; the batch size only says how a chunk is cut. Cost: the tokenizer's, and padding of a few
per cent.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from profiler.axes import TokenIds, Valid
from profiler.corpus import Document
from profiler.errors import CorpusError
from profiler.keys import position_keys, stable_hash
from profiler.tokens import CLASS_ID

CHUNK_WINDOWS = 256
POSITION_SHIFT, WINDOW_SHIFT = 32, 20
MOST_DOMAINS = 64
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
class TokenizedDocument:
    """A document as the pass knows it.

    Attributes:
        token_ids: its tokens, up to where the run's limit cuts it.
        n_dropped: tokens that are not read: beyond the limit, or in windows that were not chosen.
        numbers: the windows that are read; None for all.
        n_read: tokens that are read.
    """

    doc_id: int
    domain_id: int
    domain: str
    source: str
    place: str
    group_id: int
    token_ids: np.ndarray
    n_dropped: int
    numbers: frozenset[int] | None = None
    n_read: int = 0

    def reads_end(self, stride: int) -> bool:
        """Whether its last token, which has nothing to predict, is read."""
        n = len(self.token_ids)
        return n > 0 and (self.numbers is None or (n - 1) // stride in self.numbers)


@dataclass(frozen=True)
class Window:
    """One window: `token_ids` with the BOS, the token after its last one (or None), and where it stands."""

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


@dataclass
class Domains:
    """Ids of domains and of the replicate groups inside them, given in order of appearance."""

    groups_per_domain: int
    names: list[str] = field(default_factory=list)

    def id_of(self, name: str) -> int:
        """The id of a domain, new where the name is.

        Raises:
            CorpusError: there are more domains than a run can keep statistics for.
        """
        if name not in self.names:
            if len(self.names) == MOST_DOMAINS:
                raise CorpusError(
                    f"the corpus has more than {MOST_DOMAINS} domains ({', '.join(self.names[:3])}, ...): statistics are "
                    "kept for each; name a field with fewer values with --domain-field"
                )
            self.names.append(name)
        return self.names.index(name)

    def group_of(self, domain_id: int, place: str) -> int:
        """The replicate group of a document: its hash, inside its domain."""
        return domain_id * self.groups_per_domain + stable_hash(f"group {place}") % self.groups_per_domain


def tokenize(
    documents: Iterable[Document],
    encode: Callable[[str], list[int]],
    domains: Domains,
    limit: int | None,
    dropped: Counter[str],
    choose: Callable[[str, int], np.ndarray] | None = None,
    stride: int = 1,
) -> Iterator[TokenizedDocument]:
    """Number and tokenize documents until `limit` tokens are read; the last one is cut there, and the cut counted.

    Args:
        choose: numbers of the windows to read of a document, from its place and its number of tokens; None reads all.
        stride: document tokens per window, which `choose` counts in.
    """
    left = limit
    for doc_id, document in enumerate(documents):
        ids = np.asarray(encode(document.text), dtype=np.int32)
        numbers = None if choose is None else choose(document.place, len(ids))
        read = (
            np.arange(len(ids)) if numbers is None else np.flatnonzero(np.isin(np.arange(len(ids)) // stride, numbers))
        )
        kept = read if left is None else read[:left]
        dropped["token_limit"] += len(read) - len(kept)
        dropped["windows_not_chosen"] += len(ids) - len(read)
        end = len(ids) if len(kept) == len(read) else int(kept[-1]) + 1
        domain_id = domains.id_of(document.domain)
        group = domains.group_of(domain_id, document.place)
        yield TokenizedDocument(
            doc_id, domain_id, document.domain, document.source, document.place, group, ids[:end],
            len(ids) - len(kept), None if numbers is None else frozenset(numbers.tolist()), len(kept),
        )  # fmt: skip
        if left is not None and (left := left - len(kept)) <= 0:
            return


def random_windows(layout: Layout, k: int) -> Callable[[str, int], np.ndarray]:
    """A choice of `k` random windows of each document, fixed by the run's seed and the document's place."""

    def choose(place: str, n_tokens: int) -> np.ndarray:
        keys = position_keys(layout.seed, f"windows of {place}", torch.arange(-(-n_tokens // layout.stride)))
        return keys.argsort()[:k].sort().values.numpy()

    return choose


def windows_of(document: TokenizedDocument, layout: Layout) -> Iterator[Window]:
    """The windows of a document in order; a window without any position is left out (an empty document has none)."""
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
        keys: sampling keys (profiler.keys).
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


def _places(window: Window, layout: Layout) -> np.ndarray:
    return window.number * layout.context_length + np.arange(window.n_positions)


def make_batch(windows: list[Window], layout: Layout) -> Batch:
    """Pad windows to the longest and say what each position is."""
    width = max(len(w.token_ids) for w in windows)
    tokens = _padded([w.token_ids for w in windows], width)
    targets = _padded(
        [np.append(w.token_ids[1:], w.following if w.following is not None else []) for w in windows], width
    )
    valid = _padded([np.ones(w.n_positions) for w in windows], width).bool()
    places = [_places(w, layout) for w in windows]
    keys = [
        position_keys(layout.seed, w.document.place, torch.from_numpy(p)).numpy()
        for w, p in zip(windows, places, strict=True)
    ]
    ids = [(w.document.doc_id << POSITION_SHIFT) + p for w, p in zip(windows, places, strict=True)]
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
    """A numbered, fixed unit of work: the documents that begin to be read in it, and up to CHUNK_WINDOWS windows."""

    number: int
    documents: tuple[TokenizedDocument, ...]
    windows: tuple[Window, ...]

    def batches(self, batch_size: int, layout: Layout) -> Iterator[Batch]:
        """The windows by length, longest first, in batches."""
        ordered = sorted(self.windows, key=lambda w: (-len(w.token_ids), w.window_id))
        for start in range(0, len(ordered), batch_size):
            yield make_batch(ordered[start : start + batch_size], layout)


def chunks(documents: Iterable[TokenizedDocument], layout: Layout) -> Iterator[Chunk]:
    """Cut the stream of windows into chunks; the last may be smaller, and is kept."""
    number, read, held = 0, [], []
    for document in documents:
        read.append(document)
        for window in windows_of(document, layout):
            held.append(window)
            if len(held) == CHUNK_WINDOWS:
                yield Chunk(number, tuple(read), tuple(held))
                number, read, held = number + 1, [], []
    if read or held:
        yield Chunk(number, tuple(read), tuple(held))
