"""Ordered things: counting, weekdays, months, letters, and year spans that must end later than they begin.

Why: number and date sequences give a model neurons for numbers and dates, and the year span is the greater-than task
(Hanna et al. 2023, "How does GPT-2 compute greater-than?"): after "from 1743 to 17" every two-digit ending above 43
is right. Cost: microseconds a prompt.
"""

import random
import string
from collections.abc import Sequence

from profiler.prompts.tasks import words
from profiler.prompts.tasks.prompt import Prompt, Split, TextPiece

_SPANS = {
    "train": (
        "The {noun} lasted from the year {century}{start} to the year {century}",
        "The {noun} went on from {century}{start} to {century}",
        "It was a {noun} that ran from {century}{start} until {century}",
        "Between {century}{start} and {century}",
    ),
    "held_out": (
        "People remember the {noun} that began in {century}{start} and ended in {century}",
        "A {noun} took place from {century}{start} through {century}",
    ),
}
_NOUNS = {
    "train": words.listed("war project journey plan reign school campaign trial custom voyage"),
    "held_out": words.listed("siege study strike contract dispute"),
}
_EVERY = 4
"""Of so many members the last one begins held-out sequences."""
MEMBERS = {"weekday": words.WEEKDAYS, "month": words.MONTHS, "letter": string.ascii_uppercase}
"""The kinds of `succession` and their members in order."""


def span(rng: random.Random, split: Split) -> Prompt:
    """A year span to be completed by two digits; `answer` is one of the right ones, `distractors` all wrong ones."""
    which = rng.randrange(len(_SPANS[split]))
    noun, century, start = rng.choice(_NOUNS[split]), rng.randint(11, 19), rng.randint(2, 97)
    text = _SPANS[split][which].format(noun=noun, century=century, start=f"{start:02d}")
    roles = (("noun", noun), ("century", str(century)), ("start", f"{start:02d}"))
    wrong = tuple(f"{year:02d}" for year in range(start + 1))
    answer = f"{rng.randint(start + 1, 99):02d}"
    return Prompt("greater_than", text, answer, wrong, f"{split}/{which}", roles, split)


def succession(rng: random.Random, split: Split) -> Prompt:
    """Weekdays, months or letters in order; the next one is asked for. The splits begin at different members."""
    kind = rng.choice(tuple(MEMBERS))
    members = MEMBERS[kind]
    starts = [i for i in range(len(members)) if (i % _EVERY == _EVERY - 1) == (split == "held_out")]
    start, shown = rng.choice(starts), rng.randint(3, 5)
    run = [members[(start + i) % len(members)] for i in range(shown + 1)]
    distractors = tuple(f" {m}" for m in members if m != run[-1])
    roles = (("kind", kind), ("start", run[0]))
    return Prompt("succession", ", ".join(run[:-1]) + ",", f" {run[-1]}", distractors, f"{split}/{kind}", roles, split)


def text(rng: random.Random) -> list[TextPiece]:
    """Training text: one line of a random kind of sequence."""
    make = rng.choice((_span_text, _span_text, _cycle_text, _numbers, _dates))
    return [TextPiece(make(rng))]


def _span_text(rng: random.Random) -> str:
    question = span(rng, "train")
    return question.text + question.answer + "."


def _cycle_text(rng: random.Random) -> str:
    question = succession(rng, "train")
    return question.text + question.answer + rng.choice((".", ",", "\n"))


def _numbers(rng: random.Random) -> str:
    start, step = rng.randint(0, 80), rng.choice((1, 1, 1, 2, 5, 10))
    return _joined(rng, [str(start + step * i) for i in range(rng.randint(5, 12))])


def _dates(rng: random.Random) -> str:
    year, month, day = rng.randint(1900, 2029), rng.randint(1, 12), rng.randint(1, 20)
    return _joined(rng, [f"{year}-{month:02d}-{day + i:02d}" for i in range(rng.randint(3, 7))])


def _joined(rng: random.Random, members: Sequence[str]) -> str:
    return rng.choice((", ", " ", "\n")).join(members) + "\n"
