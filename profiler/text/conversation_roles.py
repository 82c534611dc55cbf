"""Roles of a conversation's tokens: whose message each belongs to, from the characters that it covers.

The roles are those of the corpus (`system`, `user`, `assistant`, `tool` ...); what the chat template writes around the
messages is `template`. Text that is no conversation has no roles.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

TEMPLATE = "template"
Offsets = Sequence[tuple[int, int]]
"""First character of each token, and the one after its last."""


@dataclass(frozen=True)
class RoleSpan:
    """Characters `start` to `end` (exclusive) of a conversation's text, and the role of the message they belong to."""

    start: int
    end: int
    role: str


def token_roles(spans: Sequence[RoleSpan], offsets: Offsets) -> tuple[str, ...]:
    """Role of each token: that of the first message it holds a character of; TEMPLATE where it holds none.

    So a token that joins a marker's last character to a message's first belongs to the message. A token without
    characters of its own (such as a piece of a byte) counts as the character it stands at.

    Args:
        spans: ascending and disjoint.
        offsets: of the tokens, in characters of the same text.
    """
    ends = [span.end for span in spans]
    roles = []
    for start, end in offsets:
        at = bisect_right(ends, start)
        inside = at < len(spans) and spans[at].start < max(end, start + 1)
        roles.append(spans[at].role if inside else TEMPLATE)
    return tuple(roles)
