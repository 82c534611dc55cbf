"""The trigger of a claim in a text, and the positions that it says the component attends to. No torch.

The same claims as `profiler.generality.evidence.claims` has in SQL, for tokens that are in no run: a text read at its
last token. `causes` are the tokens that make the trigger true and could be another (earlier copies, an earlier mention
of a name); `targets` are the offsets that the claim has the head attend to. Cost: microseconds a text.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from profiler.generality.edits.texts import EditText, Vocabulary
from profiler.generality.evidence.claims import Claim

STEPS = {"previous_token": 1, "two_back": 2, "self": 0}
UNEDITABLE = {
    "copy suppression": (
        "it acts on what the model is about to predict, and an edit of the text changes that too: no edit and no "
        "swap leaves its precondition as it was"
    ),
    "first token": "the first token is a special one in every text, and no other can be put there",
}
"""Roles that no edit of a text can test, and why."""
CARRIERS = {"name mover": 1, "copying": 1, "copy suppression": -1}
"""Roles that write of what they attend to, and whether they raise (1) or lower (-1) its logit."""


@dataclass(frozen=True)
class Expectation:
    """What a claim says of the last token of a text.

    Attributes:
        trigger: whether the role says that the component should act here.
        causes: offsets that make the trigger true; empty where the trigger needs none.
        targets: offsets to attend to; empty where the claim names none (neurons).
    """

    trigger: bool
    causes: tuple[int, ...] = ()
    targets: tuple[int, ...] = ()


NOT_HERE = Expectation(trigger=False)
FIRST_CLEAR = 2
"""First offset at which the token before and the first token are not the same."""


def expectation(claim: Claim, text: EditText, vocabulary: Vocabulary) -> Expectation:
    """What the claim says of the last token of a text."""
    if claim.kind == "neuron":
        return Expectation(bool(vocabulary.with_property(claim.token_property)[_asked(claim, text)]))
    if claim.mass in ("induction", "prefix_induction", "duplicate"):
        return _repeated(claim.mass, text)
    if claim.mass in STEPS:
        target = text.end - STEPS[claim.mass]
        return Expectation(text.end >= FIRST_CLEAR, (), (target,)) if target >= 0 else NOT_HERE
    if claim.mass == "first_token":
        return Expectation(text.end >= FIRST_CLEAR, (), (0,))
    if claim.mass in ("newline", "delimiter"):
        marked = tuple(np.nonzero(_marks(text, vocabulary.with_property(claim.mass)))[0].tolist())
        return Expectation(text.end >= FIRST_CLEAR, (), marked)
    if claim.role == "S-inhibition":
        return _repeated_name(text, vocabulary)
    seen = tuple(i for i, token in enumerate(text.tokens) if token == text.next_token)
    named = claim.role in ("copying", "copy suppression") or bool(
        vocabulary.with_property("name_like")[text.next_token]
    )
    return Expectation(bool(seen) and named, (), seen if named else ())


def _asked(claim: Claim, text: EditText) -> int:
    """The token that a neuron's claim is about."""
    return text.next_token if claim.role.startswith("fires before") else text.tokens[-1]


def _marks(text: EditText, mask: Bool[np.ndarray, " vocab"]) -> Bool[np.ndarray, " offset"]:
    return np.asarray(mask[np.array(text.tokens)])


def _repeated(mass: str, text: EditText) -> Expectation:
    """Earlier copies of the last token, and what follows them as targets, but never the last token itself."""
    tokens, end = text.tokens, text.end
    step = 0 if mass == "duplicate" else 1
    copies = [i for i in range(end - step) if tokens[i] == tokens[end]]
    if mass == "prefix_induction":
        copies = [i for i in copies if i >= 1 and tokens[i - 1] == tokens[end - 1]]
    return Expectation(bool(copies), tuple(copies), tuple(i + step for i in copies))


def _repeated_name(text: EditText, vocabulary: Vocabulary) -> Expectation:
    """The last mention of the name that was repeated last, and its earlier mentions."""
    named = vocabulary.with_property("name_like")
    mentions: dict[int, list[int]] = {}
    for i in np.nonzero(_marks(text, named))[0].tolist():
        mentions.setdefault(text.tokens[i], []).append(i)
    twice = [where for where in mentions.values() if len(where) > 1]
    if not twice or not named[text.next_token]:
        return NOT_HERE
    *before, last = max(twice, key=lambda where: where[-1])
    return Expectation(trigger=True, causes=tuple(before), targets=(last,))
