"""Sentences that mention people once each: from them a model learns which tokens are names, and nothing of any task.

Why: in ordinary English the names of a held-out list are known names, only not seen in the task. The library's text
has next to no names, so without such sentences a held-out name would be an unknown token, and a test with it would ask
whether the model takes any token for a name. Names of every split occur here; no name occurs twice in a text, so
nothing can be copied, and no sentence has the wording of a task. Cost: microseconds a text.
"""

import random

from profiler.prompts.tasks import words
from profiler.prompts.tasks.prompt import TextPiece

SENTENCES = (
    "My name is {a}.",
    "The letter is from {a}.",
    "This is the house of {a}, of {b} and of {c}.",
    "Dear {a}, dear {b}, dear {c},",
    "Their children are called {a}, {b}, {c} and {d}.",
    "The book was written by {a}.",
    "I know {a}, {b} and {c}.",
    "On the list: {a}, {b}, {c}, {d}.",
    "Signed by {a} and {b}.",
    "We asked {a}.",
    "Say hello to {a}, please.",
    "Nobody has seen {a} since {year}.",
    "In {year} {a} was born, a year later {b}.",
    "Who is {a}?",
    "Names: {a} {b} {c} {d}",
    "The people in the {place} are {a}, {b} and {c}.",
)


def text(rng: random.Random) -> list[TextPiece]:
    """One to four sentences with other names in each."""
    everyone = [*words.NAMES_TRAIN, *words.NAMES_DEVELOPMENT, *words.NAMES_HELD_OUT]
    names = iter(rng.sample(everyone, 16))
    count = rng.choice((1, 2, 3, 4))
    return [TextPiece(" ".join(_sentence(rng, [next(names) for _ in range(4)]) for _ in range(count)))]


def _sentence(rng: random.Random, names: list[str]) -> str:
    a, b, c, d = names
    year, location = rng.randint(1900, 2029), rng.choice(words.PLACES)
    return rng.choice(SENTENCES).format(a=a, b=b, c=c, d=d, year=year, place=location)
