"""Which importance a component is described by: what it writes directly, or all that it does.

Direct importance, |DLA|, is the default: it is exact and known at every position. Total importance, |total effect|, is
an estimate, and of the positions where it was measured. A component that acts through others alone has no direct
importance to speak of, so it is described by its total one.
"""

from typing import Literal

Importance = Literal["direct", "total"]
SIZE: dict[Importance, str] = {"direct": "|DLA|", "total": "|total effect|"}
"""What a position counts by."""
OTHER: dict[Importance, Importance] = {"direct": "total", "total": "direct"}
THROUGH_OTHERS = "through others"


def importance_of(acts: str | None) -> Importance:
    """The importance of a component that acts so (column `acts` of view importance); None: no total effects are
    known."""
    return "total" if acts == THROUGH_OTHERS else "direct"
