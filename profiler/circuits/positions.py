"""Roles that name positions of the prompts, such as `at end attends to S2 (97%)`. No torch.

Why: a circuit is found at positions of prompts (END, the second subject), and what is read off them is a claim about
these positions. Off the prompts it can be asked wherever a text has the same ones; elsewhere it claims nothing.
Cost: none, plain data.
"""

import re
from dataclasses import dataclass

ITSELF, BEFORE, FIRST = "itself", "the token before", "the first token"
"""Positions that every prompt has, beside the roles of its pairs."""
_WORDS = re.compile(r"at (\S+) attends to (\S+|the token before|the first token)(?: \(\d+ ?%\))?")


@dataclass(frozen=True)
class PositionRole:
    """The claim that a head, at one position, attends to another.

    Attributes:
        at: a role of the pairs; `end` is the last token.
        to: a role of the pairs, or ITSELF, BEFORE or FIRST.
    """

    at: str
    to: str

    def words(self, mass: float) -> str:
        """The role in words, with the share of attention that goes there."""
        return f"at {self.at} attends to {self.to} ({mass:.0%})"


def position_role(role: str) -> PositionRole | None:
    """The positions that a role's words name; None where they name none, and claim something of every position."""
    match = _WORDS.fullmatch(role.strip())
    return PositionRole(match[1], match[2]) if match else None
