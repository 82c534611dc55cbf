"""Examples without those whose text another example has already: near duplicates fill a list and say nothing new.

Two contexts are near duplicates where most of their tokens are the same, however they are ordered or shifted: copies of
a licence, of a header, windows of one passage that overlap. Cost: a comparison of bags of tokens per pair.
"""

from collections import Counter
from collections.abc import Iterable

import polars as pl

ALIKE = 0.7
"""Share of the longer context's tokens that two near duplicates have in common."""


def distinct(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows, in their order, whose context is no near duplicate of an earlier row's.

    Args:
        frame: with the column `tokens` (query context_tokens), or without it with the three pieces of a context.
    """
    bags: list[Counter[str]] = []
    chosen = []
    for number, bag in enumerate(map(_bag, frame.to_dicts())):
        if not any(are_alike(bag, other) for other in bags):
            bags.append(bag)
            chosen.append(number)
    return frame[chosen]


def are_alike(first: Counter[str], second: Counter[str]) -> bool:
    """Whether two bags of tokens are those of near duplicates."""
    return (first & second).total() >= ALIKE * max(first.total(), second.total())


def _bag(row: dict[str, object]) -> Counter[str]:
    tokens = row.get("tokens")
    if isinstance(tokens, Iterable) and not isinstance(tokens, str):
        return Counter(map(str, tokens))
    pieces = (row.get(name) for name in ("context_before", "context_token", "context_after"))
    return Counter(word for piece in pieces for word in str(piece or "").split())
