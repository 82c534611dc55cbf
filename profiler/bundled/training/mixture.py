"""Windows of token ids to train on: the corpus's train split and the tasks' train wordings, in stated shares.

Why: ordinary text alone forms no circuits in a small budget. Repeated random tokens bring previous-token and
induction heads in minutes; the task text brings the circuits that users look for. Names and arguments are drawn from
train words, from made-up words and from arbitrary tokens of the vocabulary, so that copying a name cannot depend on
which name it is.

Every window begins with the beginning-of-text token and depends on (seed, step) alone, so a run that restarts from a
checkpoint sees exactly the windows that it would have seen. Cost: the tokenized corpus in memory (two bytes a token,
some 20 MB) and a fraction of a millisecond a window.
"""

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64, UInt16
from transformers import PreTrainedTokenizerFast

from profiler.prompts.tasks import TextPiece, docstring, mentions, repeats, sequences, words
from profiler.prompts.tasks import indirect_object as ioi
from profiler.text.stdlib import StdlibDocument, held_out
from profiler.text.token_classes import ordinary_ids

SOURCES = ("repeats", "ioi", "docstring", "sequences", "mentions", "code", "tests", "prose")
ANSWER_WEIGHT = 5.0
"""How much the loss of a task's answer counts beside that of another token."""
_LOOSENED, _RENAMED = 0.7, 0.7
"""Shares of the task texts whose wordings are loosened, and whose names become arbitrary, where a phase is loose."""
_WEIGHTS = {"text": 1.0, "answer": ANSWER_WEIGHT, "arbitrary": 0.0}
_WHOLE_WORDS = 0.5
"""Share of random segments of whole words only, where a phase is loose."""
_CHUNK = 64


@dataclass(frozen=True)
class MixtureShares:
    """How windows divide among the sources. What the five task shares leave goes to the corpus's domains."""

    repeats: float
    ioi: float = 0.13
    docstring: float = 0.09
    sequences: float = 0.04
    mentions: float = 0.0
    tests: float = 0.33
    prose: float = 0.11

    def weights(self) -> list[float]:
        """The probability of each of `SOURCES`, in their order; they sum to one."""
        text = 1 - self.repeats - self.ioi - self.docstring - self.sequences - self.mentions
        code = text * (1 - self.tests - self.prose)
        return [
            self.repeats,
            self.ioi,
            self.docstring,
            self.sequences,
            self.mentions,
            code,
            text * self.tests,
            text * self.prose,
        ]


@dataclass(frozen=True)
class TrainingBatch:
    """The windows of one step.

    Attributes:
        ids: token ids, each window beginning with the beginning-of-text token.
        weights: how much the loss of each predicted token (the ids but the first) counts: `ANSWER_WEIGHT` for answers
            of tasks; 0 for what nothing can predict (arbitrary words; the first copy of a random segment, and the first
            token of its second copy); else 1.
        sources: which of `SOURCES` each window came from.
    """

    ids: Int64[np.ndarray, "windows context"]
    weights: Float32[np.ndarray, "windows context-1"]
    sources: tuple[str, ...]


class Mixture:
    """Draws batches. Built once, since it tokenizes the whole train split."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, documents: Iterable[StdlibDocument], seed: int) -> None:
        """Tokenize.

        Args:
            tokenizer: fast tokenizer with a beginning-of-text token.
            documents: documents of the train split; one that is held out raises `ValueError`.
            seed: makes all windows, together with the step.
        """
        self._tokenizer, self._seed = tokenizer, seed
        documents = list(documents)
        self._streams = _streams(tokenizer, documents, tokenizer.bos_token_id)
        self._prose = _prose_words(documents)
        self._vocabulary = list(ordinary_ids(tokenizer))
        self._pieces = _single_words(tokenizer)
        self._words = [i for token, i in sorted(tokenizer.get_vocab().items()) if re.fullmatch("Ġ[A-Za-z]+", token)]
        self._names = _tokens_of(tokenizer, words.NAMES_TRAIN)
        barred = set(_tokens_of(tokenizer, words.untrained()))
        self._free = [i for i in self._words if i not in barred]
        self._makers: Mapping[str, Callable[[random.Random, float], list[TextPiece]]] = {
            "ioi": lambda rng, loose: ioi.story(rng, self._name_pools(rng), self._fillers(rng), loose),
            "docstring": lambda rng, loose: docstring.function(
                rng, self._argument_pools(rng), self._fillers(rng), loose
            ),
            "sequences": lambda rng, _loose: sequences.text(rng),
            "mentions": lambda rng, _loose: mentions.text(rng),
        }

    @property
    def tokens(self) -> dict[str, int]:
        """Number of tokens in each domain of the train split."""
        return {domain: len(stream) for domain, stream in self._streams.items()}

    def batch(self, step: int, windows: int, context: int, shares: MixtureShares, loose: float = 0.0) -> TrainingBatch:
        """The windows of one step.

        Args:
            step: number of the step; the same number gives the same windows.
            windows: how many.
            context: ids in each, the beginning-of-text token included.
            shares: how they divide among the sources, in expectation.
            loose: how freely task wordings are changed, 0 to 1 (see `ioi.story` and `docstring.function`); above 0,
                half of the random segments are made of whole words only, which brings their tokens up more often.
        """
        rng = random.Random(f"{self._seed}/{step}")
        sources = tuple(rng.choices(SOURCES, shares.weights(), k=windows))
        rows = [self._window(rng, source, context, loose) for source in sources]
        weights = np.array([weights[1:] for _, weights in rows], dtype=np.float32)
        return TrainingBatch(np.array([ids for ids, _ in rows], dtype=np.int64), weights, sources)

    def _window(self, rng: random.Random, source: str, context: int, loose: float) -> tuple[list[int], list[float]]:
        """The ids and the weight of each."""
        bos = self._tokenizer.bos_token_id
        if source == "repeats":
            drawn = self._words if loose and rng.random() < _WHOLE_WORDS else self._vocabulary
            ids, period = repeats.window(rng, drawn, context - 1)
            unknown = min(period + 2, context)
            return [bos, *ids], [0.0] * unknown + [1.0] * (context - unknown)
        if source in self._makers:
            return self._packed(rng, source, context, loose)
        stream = self._streams[source]
        start = rng.randrange(max(1, len(stream) - context))
        cut = stream[start : start + context - 1].tolist()
        return [bos, *cut] + [bos] * (context - 1 - len(cut)), [1.0] * context

    def _packed(self, rng: random.Random, source: str, context: int, loose: float) -> tuple[list[int], list[float]]:
        """Short texts one after another, each behind a beginning-of-text token, the last one cut off.

        Where `loose` is above zero, most have their wordings loosened by up to it and their names replaced.
        """
        ids: list[int] = []
        weights: list[float] = []
        while len(ids) < context:
            freedom = rng.uniform(0.2, 1) * loose if loose and rng.random() < _LOOSENED else 0.0
            renamed = self._renamed(rng) if loose and source == "ioi" and rng.random() < _RENAMED else {}
            ids.append(self._tokenizer.bos_token_id)
            weights.append(1.0)
            for piece in self._makers[source](rng, freedom):
                encoded = self._encode(piece.text)
                ids += [renamed.get(i, i) for i in encoded]
                weights += [_WEIGHTS[piece.kind]] * len(encoded)
        return ids[:context], weights[:context]

    def _renamed(self, rng: random.Random) -> dict[int, int]:
        """Another whole-word token for each train name, any but those of held-out words.

        Why: names that never stand in a text have the embeddings of rare tokens. A model that saw the task with common
        words only does not tell such names apart.
        """
        return dict(zip(self._names, rng.sample(self._free, len(self._names)), strict=True))

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids

    def _name_pools(self, rng: random.Random) -> list[Sequence[str]]:
        invented = [words.made_up(rng).capitalize() for _ in range(8)]
        capitalised, lower = self._pieces
        train = words.NAMES_TRAIN
        arbitrary = [rng.sample(capitalised, 8), rng.sample(lower, 8), rng.sample(lower + capitalised, 8)]
        return [*[train] * 6, *arbitrary, invented]

    def _fillers(self, rng: random.Random) -> list[str]:
        """Words to loosen wordings with: of the library's prose, single tokens, and made-up ones."""
        _, lower = self._pieces
        prose = rng.choices(self._prose, k=60)
        return [*prose, *rng.choices(lower, k=20), *(words.made_up(rng) for _ in range(10))]

    def _argument_pools(self, rng: random.Random) -> list[Sequence[str]]:
        invented = [words.made_up(rng) for _ in range(8)]
        capitalised, lower = self._pieces
        train = words.ARGUMENTS_TRAIN
        return [train, train, train, lower, rng.sample(capitalised, 8), invented]


def _streams(
    tokenizer: PreTrainedTokenizerFast, documents: Iterable[StdlibDocument], bos: int
) -> dict[str, UInt16[np.ndarray, "tokens"]]:
    parts: dict[str, list[np.ndarray]] = {}
    chunk: list[StdlibDocument] = []
    for document in documents:
        if held_out(document["id"]):
            raise ValueError(f"{document['id']} is held out; training takes documents(split='train')")
        chunk.append(document)
        if len(chunk) == _CHUNK:
            _encode_into(parts, tokenizer, chunk, bos)
            chunk = []
    _encode_into(parts, tokenizer, chunk, bos)
    return {domain: np.concatenate(arrays) for domain, arrays in parts.items()}


def _encode_into(
    parts: dict[str, list[np.ndarray]], tokenizer: PreTrainedTokenizerFast, chunk: list[StdlibDocument], bos: int
) -> None:
    encoded = tokenizer.backend_tokenizer.encode_batch([d["text"] for d in chunk], add_special_tokens=False)
    for document, encoding in zip(chunk, encoded, strict=True):
        parts.setdefault(document["domain"], []).append(np.array([bos, *encoding.ids], dtype=np.uint16))


def _tokens_of(tokenizer: PreTrainedTokenizerFast, listed: Iterable[str]) -> list[int]:
    """The token of each word with its leading space."""
    return [tokenizer.get_vocab()[f"Ġ{word}"] for word in listed]


def _single_words(tokenizer: PreTrainedTokenizerFast) -> tuple[list[str], list[str]]:
    """Words that are one token with their leading space: capitalised ones and lower-case ones.

    Words held out of a task are left out, so that none of them is ever drawn into a task text.
    """
    reserved = _reserved()
    single = [token[1:] for token in sorted(tokenizer.get_vocab()) if re.fullmatch("Ġ[A-Za-z][a-z]+", token)]
    usable = [word for word in single if word not in reserved]
    return [w for w in usable if w[0].isupper()], [w for w in usable if w[0].islower()]


def _prose_words(documents: Iterable[StdlibDocument]) -> list[str]:
    """Lower-case words of the prose domain, each once; of any text where there is no prose."""
    texts = [d["text"] for d in documents if d["domain"] == "prose"] or [d["text"] for d in documents]
    prose = {word for text in texts for word in re.findall(r"\b[a-z]{2,12}\b", text)}
    return sorted(prose - _reserved())


def _reserved() -> set[str]:
    """Words held out of a task, as name, argument or in a wording; never drawn into a task text."""
    spoken = {*ioi.held_out_words(), *docstring.held_out_words()}
    return {*words.untrained(), *spoken}
