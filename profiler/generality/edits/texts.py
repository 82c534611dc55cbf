"""Natural texts to edit, and tokens to put in: what counterfactual edits and swaps are made from. No torch.

Why: an edit says something about a component only beside a control edit that changes as much of the text. A token is
replaced by one of the same frequency band (factors of two of the count in the corpus; in prompts, of the count in the
prompts, and only their tokens: a name of theirs may not stand in the corpus at all) and, where there is one, the same
token class, and by none that the text holds already, so that an edit makes no repetition by accident.
Cost: one pass over the vocabulary; the texts of a run are one query.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from duckdb import DuckDBPyConnection as Connection
from jaxtyping import Bool, Int

from profiler.database import query
from profiler.text.token_classes import DELIMITERS

LONGEST = 128
BANDS_APART = (0, 1, 3, 99)
"""Distances of frequency bands that are tried in turn; the last is any."""


@dataclass(frozen=True)
class EditText:
    """The tokens up to and including the one where the component is read, and the token that follows there.

    Attributes:
        document: the unit that is drawn independently; two texts of one document are not.
        domain: of the document; documents are drawn within it.
    """

    document: str
    tokens: tuple[int, ...]
    next_token: int
    domain: str = ""

    @property
    def end(self) -> int:
        """Offset where the component is read."""
        return len(self.tokens) - 1

    def upto(self, end: int) -> "EditText":
        """The text cut after an earlier offset."""
        return replace(self, tokens=self.tokens[: end + 1], next_token=self.tokens[end + 1])


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Tokens that may be put in, and what each may replace.

    Attributes:
        texts: of each token id.
        class_ids: class of each token (profiler.text.token_classes).
        bands: frequency band of each: floor(log2(count + 1)).
        ordinary: false for special tokens, which are never put in and never replaced, and tokens never seen.
        properties: which tokens have a property (profiler.behaviours.token_properties).
        special: tokens that are no text; none where not given.
    """

    texts: tuple[str, ...]
    class_ids: Int[np.ndarray, " vocab"]
    bands: Int[np.ndarray, " vocab"]
    ordinary: Bool[np.ndarray, " vocab"]
    properties: Mapping[str, Bool[np.ndarray, " vocab"]]
    special: Bool[np.ndarray, " vocab"] | None = None

    def of_texts(self, texts: Sequence[EditText]) -> "Vocabulary":
        """The vocabulary of texts outside the corpus: only their tokens are put in, by their frequency there."""
        counts = counts_of(texts, len(self.texts))
        seen = counts > 0 if self.special is None else (counts > 0) & ~self.special
        return replace(self, bands=bands_of(counts), ordinary=seen)

    def with_property(self, name: str) -> Bool[np.ndarray, " vocab"]:
        """Which tokens have it; none where the vocabulary does not know it."""
        return self.properties.get(name, np.zeros(len(self.texts), dtype=bool))

    def like(
        self,
        rng: np.random.Generator,
        token: int,
        avoid: Collection[int],
        inside: Bool[np.ndarray, " vocab"] | None = None,
    ) -> int | None:
        """A random token as frequent as `token` and of its class; else as frequent; else nearly so; else None.

        Args:
            avoid: tokens that may not come out.
            inside: the only tokens that may come out; their class then does not matter.
        """
        allowed = self.ordinary.copy() if inside is None else self.ordinary & inside
        allowed[[*avoid, token]] = False
        band = np.abs(self.bands - self.bands[token])
        same = self.class_ids == self.class_ids[token]
        alike = [] if inside is not None else [allowed & same & (band == 0)]
        for pool in [*alike, *(allowed & (band <= width) for width in BANDS_APART)]:
            if pool.any():
                return int(rng.choice(np.nonzero(pool)[0]))
        return None


def counts_of(texts: Sequence[EditText], n_vocab: int) -> Int[np.ndarray, " vocab"]:
    """How often each token stands in the texts, or follows them."""
    return np.bincount(np.concatenate([(*text.tokens, text.next_token) for text in texts]), minlength=n_vocab)[:n_vocab]


def bands_of(counts: Int[np.ndarray, " vocab"]) -> Int[np.ndarray, " vocab"]:
    """Frequency bands: floor(log2(count + 1))."""
    return np.asarray(np.floor(np.log2(counts + 1)).astype(int))


def vocabulary_of(source: str | Path | Connection) -> Vocabulary:
    """The vocabulary of a run, with its counts and properties, those of the user too.

    Raises:
        RunError: no finished run.
    """
    frame = query.run(source, _VOCABULARY)
    names = sorted({name for row in frame["properties"].to_list() for name in row or ()})
    has = [set(row or ()) for row in frame["properties"].to_list()]
    properties = {name: np.array([name in row for row in has]) for name in names}
    properties["delimiter"] = np.isin(frame["class"].to_numpy(), DELIMITERS)
    n, special = frame["n"].to_numpy().astype(np.int64), frame["special"].to_numpy()
    return Vocabulary(
        tuple(frame["token"].to_list()),
        frame["class_id"].to_numpy(),
        bands_of(n),
        ~special & (n > 0),
        properties,
        special,
    )


_VOCABULARY = """SELECT token_id, tokens.token, tokens.class_id, classes.class, classes.special
        , coalesce(counted.n, 0) AS n, lists.properties
    FROM tokens JOIN classes USING (class_id) LEFT JOIN (
        SELECT token_id, n FROM token_counts WHERE presence = 0
    ) counted USING (token_id)
    LEFT JOIN token_property_lists AS lists USING (token_id) ORDER BY token_id"""


def texts_of(source: str | Path | Connection, n: int = 96, longest: int = LONGEST) -> tuple[EditText, ...]:
    """Beginnings of windows that the run kept, one a document, documents by hash: the same ones every time.

    Args:
        n: how many documents.
        longest: tokens of a text, the one to predict not counted.

    Raises:
        RunError: no finished run.
    """
    frame = query.run(source, _TEXTS, n=n, longest=longest + 1)
    return tuple(EditText(source, tuple(ids[:-1]), ids[-1], domain) for source, domain, ids in frame.iter_rows())


_TEXTS = """SELECT source, domain, list_slice(token_ids, 1, getvariable('longest')::BIGINT) AS token_ids FROM (
        SELECT *, row_number() OVER (PARTITION BY doc_id ORDER BY md5(window_id::VARCHAR)) AS nth
        FROM windows WHERE len(token_ids) >= 16
    ) numbered JOIN documents USING (doc_id) WHERE nth = 1
    ORDER BY md5(concat('edit', doc_id)) LIMIT getvariable('n')::BIGINT"""
