"""Behaviours by words: the claim of the library that a few words mean.

Words are compared with names and descriptions of a run's behaviours. Cost: none.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from profiler.errors import QueryError

UNINFORMATIVE = frozenset(
    "a an and at by does do fires fire heads head in is it its neuron neurons of on or that the "
    "their they this to what where which with".split()
)
STEM = 5
"""Letters that two words share to count as forms of one: attend, attends, attention."""
NAME_WEIGHT = 3
"""How much more a word of the name says than a word of the description."""


@dataclass(frozen=True)
class NamedBehaviour:
    """A behaviour of a run: its name, what it says in words, and its rank among equals (less comes first)."""

    name: str
    description: str
    priority: int = 0


def match(words: str, behaviours: Iterable[NamedBehaviour]) -> tuple[NamedBehaviour, ...]:
    """The behaviours that `words` mean, the best first; its equals and near ones after it.

    Raises:
        QueryError: none holds any of the words; the message says what there is.
    """
    known = tuple(behaviours)
    wanted = words.strip().lower().replace(" ", "_")
    exact = [b for name in (wanted, f"on_{wanted}") for b in known if b.name == name]
    asked = _words(words)
    scored = [(_score(asked, b), b) for b in known]
    matching = sorted(
        (pair for pair in scored if pair[0] > 0), key=lambda pair: (-pair[0], pair[1].priority, pair[1].name)
    )
    if not (exact or matching):
        names = ", ".join(sorted({b.name for b in known}))
        raise QueryError(
            f"no behaviour of this run has to do with {words!r}; there are {names}. `profiler behaviours add` adds one"
            " of your own"
        )
    best = matching[0][0] if matching else 0
    near = [b for score, b in matching if score > best / 2 and b not in exact]
    return (*exact, *near)


def _words(text: str) -> list[str]:
    """The words of a text that say something, without their endings: copies and copy are the same."""
    said = [word for word in re.findall("[a-z0-9]+", text.lower()) if word not in UNINFORMATIVE]
    return [re.sub(r"(?<=\w{3})(s|ed|ing)$", "", re.sub(r"ie[sd]$", "y", word)) for word in said]


def _score(asked: list[str], behaviour: NamedBehaviour) -> float:
    """How many of the words are in the name and the description, a word of a long text for less."""
    name, description = _words(behaviour.name.replace("_", " ")), _words(behaviour.description)
    in_name = sum(any(_same(word, other) for other in name) for word in asked)
    in_description = sum(any(_same(word, other) for other in description) for word in asked)
    unasked = sum(not any(_same(word, other) for word in asked) for other in name)
    return NAME_WEIGHT * in_name + in_description - unasked / max(1, len(name)) if in_name + in_description else 0.0


def _same(first: str, second: str) -> bool:
    return first == second or (min(len(first), len(second)) >= STEM and first[:STEM] == second[:STEM])
