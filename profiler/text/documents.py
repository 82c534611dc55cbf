"""Documents to tokenized documents: what number each has, which share of a run reads it, and where a pass stands.

Every number in a run (document, window, position, chunk, domain, group) is a function of the corpus and of the
settings, never of what this process has read so far. Documents are numbered in the corpus's order; a block is 256 of
them side by side, and a share of a run is a set of blocks. What identifies a corpus is a digest of the places and texts
streamed past, so a run that goes on after a stop, and runs that are to be merged, can be held against each other.

Cost: the tokenizer's, and about a nanosecond a byte for the digest. Documents of other shares are streamed past, and
tokenized only where a limit counts their tokens.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from profiler.errors import CorpusError
from profiler.text.conversation_roles import Offsets, token_roles
from profiler.text.corpus import Document
from profiler.text.sampling_keys import stable_hash
from profiler.text.shards import Share

BLOCK_DOCUMENTS = 256
CHUNK_SHIFT = 20
MOST_DOMAINS = 64
EVERYTHING = Share()


def block_of(doc_id: int) -> int:
    """The block a document belongs to."""
    return doc_id // BLOCK_DOCUMENTS


@dataclass(frozen=True)
class Passed:
    """How many documents were streamed, and the digest of their places and texts in order: what identifies a corpus."""

    n: int = 0
    digest: str = ""

    def add(self, document: Document) -> "Passed":
        """With one document more."""
        link = f"{self.digest}\x00{document.place}\x00".encode("utf-8", "surrogatepass")
        text = document.text.encode("utf-8", "surrogatepass")
        return Passed(self.n + 1, hashlib.blake2b(link + text, digest_size=16).hexdigest())


@dataclass(frozen=True)
class Cursor:
    """Where a pass stands.

    Attributes:
        chunk: number of the last chunk read; -1 where none was.
        tokens_before: tokens the run's limit had counted before that chunk's block.
        passed: the documents streamed by then.
        done: whether that chunk was the last.
    """

    chunk: int = -1
    tokens_before: int = 0
    passed: Passed = field(default_factory=Passed)
    done: bool = False

    @property
    def first_document(self) -> int:
        """The first document of the last chunk's block: documents before it need no tokenizing again."""
        return max(self.chunk >> CHUNK_SHIFT, 0) * BLOCK_DOCUMENTS


@dataclass(frozen=True)
class TokenizedDocument:
    """A document as the pass knows it.

    Attributes:
        token_ids: its tokens, up to where the run's limit cuts it.
        roles: role of each of these tokens (profiler.text.conversation_roles); None for text that is no
            conversation, and where roles cannot be told.
        n_dropped: tokens that are not read: beyond the limit, or in windows that were not chosen.
        numbers: the windows that are read; None for all.
        n_read: tokens that are read.
        text_hash: hash of its text, to know it again.
        dropped: what was dropped of it and on the way to it, by reason.
        tokens_before: tokens the run's limit had counted before its block.
        passed: what was streamed up to it, itself included.
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
    text_hash: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    tokens_before: int = 0
    passed: Passed = field(default_factory=Passed)
    roles: tuple[str, ...] | None = None

    def reads_end(self, stride: int) -> bool:
        """Whether its last token, which has nothing to predict, is read."""
        n = len(self.token_ids)
        return n > 0 and (self.numbers is None or (n - 1) // stride in self.numbers)


@dataclass
class Reading:
    """What a stream has come by so far; `dropped` is filled by the corpus and emptied into the next document.

    `expected` is what an earlier stream over the same corpus had passed: it is checked on the way.
    """

    expected: Passed = field(default_factory=Passed)
    dropped: Counter[str] = field(default_factory=Counter)
    passed: Passed = field(default_factory=Passed)

    def take(self, document: Document) -> Counter[str]:
        """Pass a document; what was dropped on the way to it.

        Raises:
            CorpusError: the documents up to here are not those that were expected.
        """
        self.passed, on_the_way = self.passed.add(document), Counter(self.dropped)
        self.dropped.clear()
        if self.passed.n == self.expected.n:
            self.check()
        return on_the_way

    def check(self) -> None:
        """Whether the expected documents, or more, were passed.

        Raises:
            CorpusError: they were not.
        """
        if self.passed.n < self.expected.n or (self.passed.n == self.expected.n and self.passed != self.expected):
            raise CorpusError(
                f"the corpus has changed since the pass began: its first {self.expected.n:,} documents are not those"
                f" that were read then (digest {self.passed.digest or 'of nothing'}, was {self.expected.digest}); bring"
                " the old files back, or begin anew with --overwrite"
            )


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
                    f"the corpus has more than {MOST_DOMAINS} domains ({', '.join(self.names[:3])}, ...): statistics"
                    " are kept for each; name a field with fewer values with --domain-field"
                )
            self.names.append(name)
        return self.names.index(name)

    def group_of(self, domain_id: int, text_hash: int) -> int:
        """Replicate group of a document inside its domain, by the hash of its text.

        So copies are never held against each other as if they were independent.
        """
        return domain_id * self.groups_per_domain + stable_hash(f"group {text_hash}") % self.groups_per_domain


def tokenize(
    documents: Iterable[Document],
    encode: Callable[[str], list[int]],
    domains: Domains,
    limit: int | None,
    reading: Reading,
    choose: Callable[[str, int], np.ndarray] | None = None,
    stride: int = 1,
    share: Share = EVERYTHING,
    cursor: Cursor = Cursor(),
    offsets: Callable[[str], Offsets | None] = lambda _: None,
) -> Iterator[TokenizedDocument]:
    """Number and tokenize the documents of a share until `limit` tokens are read; the last is cut there.

    Args:
        limit: counts the tokens of every share, so that the shares together are what one pass would read.
        reading: what the corpus drops is given to the next document; what is left in it at the end came after the last.
        choose: numbers of the windows to read of a document, from its place and its number of tokens; None reads all.
        stride: document tokens per window, which `choose` counts in.
        cursor: documents before its block are passed by.
        offsets: the characters of each token that `encode` gives, asked of conversations alone; None where the
            tokenizer does not tell them, and roles are not known.
    """
    left = None if limit is None else limit - cursor.tokens_before
    before, block = cursor.tokens_before, -1
    for doc_id, document in enumerate(documents):
        on_the_way, domain_id = reading.take(document), domains.id_of(document.domain)
        if doc_id < cursor.first_document or (left is None and not share.owns(block_of(doc_id))):
            continue
        if block_of(doc_id) != block:
            block, before = block_of(doc_id), 0 if limit is None or left is None else limit - left
        tokenized = _tokenized(doc_id, domain_id, document, domains, encode, choose, stride, left, offsets)
        if share.owns(block_of(doc_id)):
            counted = on_the_way + tokenized.dropped
            yield replace(tokenized, dropped=counted, tokens_before=before, passed=reading.passed)
        if left is not None and (left := left - tokenized.n_read) <= 0:
            return


def _tokenized(
    doc_id: int,
    domain_id: int,
    document: Document,
    domains: Domains,
    encode: Callable[[str], list[int]],
    choose: Callable[[str, int], np.ndarray] | None,
    stride: int,
    left: int | None,
    offsets: Callable[[str], Offsets | None],
) -> TokenizedDocument:
    """One document, cut to the `left` tokens that may still be read."""
    ids = np.asarray(encode(document.text), dtype=np.int32)
    numbers = None if choose is None else choose(document.place, len(ids))
    read = np.arange(len(ids)) if numbers is None else np.flatnonzero(np.isin(np.arange(len(ids)) // stride, numbers))
    taken = read if left is None else read[:left]
    dropped = Counter(token_limit=len(read) - len(taken), windows_not_chosen=len(ids) - len(read))
    roles = _token_roles(document, offsets)
    dropped["no_roles"] += document.roles is not None and roles is None
    end = len(ids) if len(taken) == len(read) else int(taken[-1]) + 1
    text_hash = stable_hash(document.text)
    return TokenizedDocument(
        doc_id,
        domain_id,
        document.domain,
        document.source,
        document.place,
        domains.group_of(domain_id, text_hash),
        ids[:end],
        len(ids) - len(taken),
        None if numbers is None else frozenset(numbers.tolist()),
        len(taken),
        text_hash,
        dropped,
        roles=None if roles is None else roles[:end],
    )


def _token_roles(document: Document, offsets: Callable[[str], Offsets | None]) -> tuple[str, ...] | None:
    """Role of each token of a conversation; None where nothing tells them."""
    if document.roles is None:
        return None
    characters = offsets(document.text)
    return None if characters is None else token_roles(document.roles, characters)
