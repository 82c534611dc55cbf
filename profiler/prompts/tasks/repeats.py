"""Repeated segments of random tokens: the test of induction that no knowledge of text can solve.

Why: in a random segment that occurs twice, the only way to predict the second copy is to find the token's first
occurrence and copy what followed (Olsson et al. 2022, "In-context Learning and Induction Heads", "prefix matching").
Works on token ids, so it fits any tokenizer. Cost: microseconds a window.
"""

import random
from collections.abc import Sequence


def twice(rng: random.Random, vocabulary: Sequence[int], length: int) -> list[int]:
    """A segment of `length` different random tokens, then the same segment again: 2 x `length` ids.

    Raises:
        ValueError: where the vocabulary has fewer than `length` tokens.
    """
    segment = rng.sample(vocabulary, length)
    return segment + segment


WITH_GAP = 0.25
"""Share of windows with other tokens between the copies."""


def window(rng: random.Random, vocabulary: Sequence[int], length: int) -> tuple[list[int], int]:
    """Training ids: a random segment over and over until `length` ids are full, sometimes with others between.

    Returns:
        The ids, and after how many of them they repeat; the ids before that cannot be predicted from anything.
    """
    segment = rng.choices(vocabulary, k=rng.randint(5, max(5, length // 2 - 1)))
    gap = rng.choices(vocabulary, k=rng.randint(1, 8)) if rng.random() < WITH_GAP else []
    ids: list[int] = []
    while len(ids) < length:
        ids += segment + gap
    return ids[:length], len(segment) + len(gap)
