"""What a position's past looks like: repetition, brackets and quotes, from the tokens of its window alone.

Context predicates ("inside brackets", "repeated, two tokens match") are SQL over these columns. They are counted in the
window, because that is all the model sees; text before it does not count. Brackets and quotes are counted in the tokens'
text without a parser: an apostrophe is no quote, a bracket inside a string is a bracket.

Cost: eight comparisons of [window, offset, offset] booleans a batch, small beside a forward pass.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from profiler.axes import TokenIds
from profiler.tokens import BRACKETS_CLOSE, BRACKETS_OPEN

LONGEST_PREFIX = 8
NO_COPY = 0


@dataclass(frozen=True)
class Marks:
    """Of each token of the vocabulary: brackets opened minus closed in its text, and `"` marks in it."""

    brackets: Int[Tensor, " vocab"]
    quotes: Int[Tensor, " vocab"]

    @classmethod
    def of(cls, texts: list[str]) -> "Marks":
        """Counted in the tokens' texts."""
        brackets = [sum((c in BRACKETS_OPEN) - (c in BRACKETS_CLOSE) for c in text) for text in texts]
        return cls(torch.tensor(brackets), torch.tensor([text.count('"') for text in texts]))


@dataclass(frozen=True)
class Past:
    """Columns of position_rows with the same names; `distance` is NO_COPY where the token is new in the window."""

    distance: Int[Tensor, "window offset"]
    prefix_match: Int[Tensor, "window offset"]
    bracket_depth: Int[Tensor, "window offset"]
    in_quotes: Bool[Tensor, "window offset"]


def past_of(tokens: TokenIds, marks: Marks) -> Past:
    """The past of every offset; padding on the right changes nothing to its left."""
    distance, prefix = _repetition(tokens)
    return Past(distance, prefix, _depth(marks.brackets[tokens]), _odd_before(marks.quotes[tokens]))


def _repetition(tokens: TokenIds) -> tuple[Int[Tensor, "window offset"], Int[Tensor, "window offset"]]:
    """Distance to the last copy, and the length of the longest stretch ending here that ends earlier, too."""
    width = tokens.shape[1]
    same = (tokens[:, :, None] == tokens[:, None, :]).tril(-1)
    back = torch.arange(width)[:, None] - torch.arange(width)
    distance = torch.where(same, back, width).amin(-1)
    matching, length = same, same.any(-1).long()
    for _ in range(LONGEST_PREFIX - 1):
        matching = same & torch.nn.functional.pad(matching[:, :-1, :-1], (1, 0, 1, 0))
        length += matching.any(-1)
    return torch.where(distance == width, NO_COPY, distance), length


def _depth(change: Int[Tensor, "window offset"]) -> Int[Tensor, "window offset"]:
    """Running sum that starts again from 0 wherever it would fall below."""
    total = change.cumsum(1)
    return total - total.cummin(1).values.clamp_max(0)


def _odd_before(count: Int[Tensor, "window offset"]) -> Bool[Tensor, "window offset"]:
    return (count.cumsum(1) - count) % 2 == 1
