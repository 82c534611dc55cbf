"""Pairs in tokens: ids of equal length, one token an answer, roles as positions.

Why: patching needs the same length on both sides, and compares logits of single tokens. Pairs that cannot be encoded
alike, a user's own too, are left out and counted with the reason; the first of them is named.
Cost: one tokenizer call a text; no torch.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from profiler.errors import PairError
from profiler.prompts.pairs.pair import Pair, Prompt

DROPS = {
    "length": "clean and corrupted prompt have different numbers of tokens",
    "answer": "an answer begins with the same token as a distractor",
    "long": "the prompt does not fit the model's window",
    "same": "clean and corrupted prompt are the same tokens",
    "repeated": "the same tokens as an earlier pair",
}


@dataclass(frozen=True)
class TokenPair:
    """A pair as a model reads it.

    Attributes:
        pair: where it comes from.
        clean, corrupted: token ids of equal length, a BOS in front where the model has one.
        answers, distractors: first token of each continuation, without repeats.
        roles: (role, positions); `end` is the last position, where the answer is asked for.
        first_difference: first position at which the two prompts differ.
    """

    pair: Pair
    clean: tuple[int, ...]
    corrupted: tuple[int, ...]
    answers: tuple[int, ...]
    distractors: tuple[int, ...]
    roles: tuple[tuple[str, tuple[int, ...]], ...]
    first_difference: int

    @property
    def role_names(self) -> tuple[str, ...]:
        """Names of the roles in order."""
        return tuple(name for name, _ in self.roles)


@dataclass(frozen=True)
class Encoded:
    """The pairs that a model can be asked, and how many were dropped for which reason (keys of DROPS).

    `example` says of the first dropped pair what is wrong with it; empty where none was dropped.
    """

    pairs: tuple[TokenPair, ...]
    dropped: tuple[tuple[str, int], ...]
    example: str = ""

    @property
    def n_dropped(self) -> int:
        """All dropped pairs together."""
        return sum(n for _, n in self.dropped)

    def left_out(self, source: str) -> str:
        """How many pairs of a source were left out and why, in a sentence; empty where none was."""
        if not self.dropped:
            return ""
        return (
            f"left out: {self.n_dropped} of {self.n_dropped + len(self.pairs)} pairs of {source}"
            f" ({_reasons(self.dropped)}); {self.example}"
        )


def _reasons(dropped: Iterable[tuple[str, int]]) -> str:
    return "; ".join(f"{n} because {DROPS[reason]}" for reason, n in dropped)


def encode(pairs: Sequence[Pair], tokenizer: Any, bos: int | None, context: int) -> Encoded:
    """Token pairs in the order of `pairs`; what cannot be asked is dropped and counted.

    Args:
        pairs: made by a generator or read from a file.
        tokenizer: a Hugging Face fast tokenizer.
        bos: id to put in front of every prompt, or None.
        context: longest window of the model, in tokens, BOS included.

    Raises:
        PairError: no pair is left.
    """
    encode_pair = encoder(tokenizer, bos)
    dropped: Counter[str] = Counter()
    example = ""
    usable: dict[tuple[Any, ...], TokenPair] = {}
    for pair in pairs:
        made = encode_pair(pair)
        reason = drop_reason(made, context) or ("repeated" if (made.clean, made.corrupted) in usable else None)
        if reason is None:
            usable[made.clean, made.corrupted] = made
        else:
            dropped[reason] += 1
            example = example or complaint(made, reason)
    if not usable:
        reasons = _reasons(dropped.items()) or "none was given"
        raise PairError(
            f"no pair is left of {len(pairs)}: {reasons}. Give pairs that this tokenizer encodes alike"
            + (f"; {example}" if example else "")
        )
    return Encoded(tuple(usable.values()), tuple(sorted(dropped.items())), example)


def encoder(tokenizer: Any, bos: int | None) -> Callable[[Pair], TokenPair]:
    """Pair to tokens, for one tokenizer; checks nothing."""
    front = () if bos is None else (bos,)

    def ids(prompt: Prompt) -> tuple[int, ...]:
        return front + (prompt if isinstance(prompt, tuple) else tuple(_encode(tokenizer, prompt)))

    def firsts(options: Sequence[str | int]) -> tuple[int, ...]:
        tokens = [o if isinstance(o, int) else next(iter(_encode(tokenizer, o)), -1) for o in options]
        return tuple(dict.fromkeys(tokens))

    def encode_pair(pair: Pair) -> TokenPair:
        clean, corrupted = ids(pair.clean), ids(pair.corrupted)
        differ = [i for i, (a, b) in enumerate(zip(clean, corrupted, strict=False)) if a != b]
        roles = (*_positions(pair, tokenizer, len(front)), ("end", (len(clean) - 1,)))
        first = differ[0] if differ else len(clean)
        return TokenPair(pair, clean, corrupted, firsts(pair.answers), firsts(pair.distractors), roles, first)

    return encode_pair


def drop_reason(made: TokenPair, context: int) -> str | None:
    """Why a pair cannot be asked (a key of DROPS), or None."""
    if len(made.clean) != len(made.corrupted):
        return "length"
    if made.clean == made.corrupted:
        return "same"
    if len(made.clean) > context:
        return "long"
    if set(made.answers) & set(made.distractors) or not made.answers or not made.distractors:
        return "answer"
    return None


def complaint(made: TokenPair, reason: str) -> str:
    """What is wrong with a pair, and what to do."""
    name, sizes = made.pair.name, (len(made.clean), len(made.corrupted))
    if (reason == "length" and made.clean[1:] == made.corrupted) or made.clean == made.corrupted[1:]:
        return f"pair {name!r}: the prompts differ in a token put in front alone (BOS): give both or neither"
    if reason == "length":
        return f"pair {name!r}: clean has {sizes[0]} tokens and corrupted {sizes[1]}: reword it until both are equal"
    if reason == "same":
        return f"pair {name!r}: clean and corrupted are the same tokens, so nothing can be patched: change one of them"
    if reason == "long":
        return f"pair {name!r} has {sizes[0]} tokens, more than the model's window: shorten it"
    if reason == "repeated":
        return f"pair {name!r} is an earlier one again: leave it out"
    return (
        f"pair {name!r}: answers {made.pair.answers} and distractors {made.pair.distractors} must be there and begin "
        "with different tokens: choose others"
    )


def _encode(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _positions(pair: Pair, tokenizer: Any, shift: int) -> list[tuple[str, tuple[int, ...]]]:
    """Each role's token positions: every token that overlaps its characters."""
    if isinstance(pair.clean, tuple):
        return [(role, tuple(range(first + shift, last + shift))) for role, (first, last) in pair.roles]
    made = tokenizer(pair.clean, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    spans = made["offset_mapping"]
    positions = []
    for role, (first, last) in pair.roles:
        touched = tuple(i + shift for i, (a, b) in enumerate(spans) if a < last and b > first)
        if not touched:
            raise PairError(f"pair {pair.name!r}: role {role!r} {first, last} covers no token: correct its span")
        positions.append((role, touched))
    return positions
