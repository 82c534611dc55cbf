"""Pairs of the greater-than, repeated-tokens and subject-verb tasks.

Why: greater-than is a task whose answer is a set and whose circuit lies in MLPs (Hanna et al. 2023, "How does GPT-2
compute greater-than?", section 2, from where the `01` corruption is); repeated tokens are what induction heads do and
nothing else (Olsson et al. 2022); subject-verb agreement is the task of Finlayson et al. 2021.

| task | scheme | corrupted |
|---|---|---|
| greater-than | 01 | the span begins in year 01 of the century: every ending is later |
| greater-than | late | the span begins late, so that the clean answers are wrong |
| repeated-tokens | first | the token to be copied is another in the first copy |
| repeated-tokens | last | the last token is another, so that there is nothing to be found |
| sva | number | the subject is plural for singular or the other way round; symmetric |

Cost: microseconds a pair.
"""

import random

from profiler.pairs.pair import Pair, spans_of
from profiler.tasks import sequences, words
from profiler.tasks.prompt import Split

GREATER_SCHEMES = ("01", "late")
GREATER_QUESTION = "which two digits end a span of years that begins in a given year?"
REPEAT_SCHEMES = ("first", "last")
REPEAT_QUESTION = "which token followed this one in the first copy of a random segment?"
VERB_SCHEMES = ("number",)
VERB_QUESTION = "is the verb singular or plural?"
SEGMENT = 12

_NOUNS = {
    "train": words.listed("key letter book box picture ring ticket drink basket flower map ball card coat cup"),
    "held_out": words.listed("lamp bone computer garden office station museum hotel"),
}
_PHRASES = {
    "train": (
        "The {noun} near the {other}",
        "We saw that the {noun} of the {other}",
        "I think the {noun} at the {other}",
    ),
    "held_out": ("Everyone said that the {noun} behind the {other}", "Today the {noun} from the {other}"),
}
_VERBS = ((" is", " are"), (" was", " were"), (" has", " have"))


def years(rng: random.Random, scheme: str, split: Split, n: int) -> list[Pair]:
    """`n` random spans of years."""
    return [_years(rng, scheme, split, f"greater-than/{scheme}/{split}/{i}") for i in range(n)]


def _years(rng: random.Random, scheme: str, split: Split, name: str) -> Pair:
    prompt = sequences.span(rng, split)
    start, century = prompt.role("start"), prompt.role("century")
    other = "01" if scheme == "01" else f"{rng.randint((int(start) + 100) // 2, 98):02d}"
    where = prompt.text.index(century + start) + len(century)
    corrupted = prompt.text[:where] + other + prompt.text[where + 2 :]
    right = tuple(f"{year:02d}" for year in range(int(start) + 1, 100))
    strata = (("century", century), ("start", f"{int(start) // 25 * 25:02d}+"))
    return Pair(
        name, "greater-than", scheme, prompt.text, corrupted, right, prompt.distractors, (("year", (where, where + 2)),),
        prompt.template, strata, split,
    )  # fmt: skip


def repeats(rng: random.Random, scheme: str, split: Split, n: int, vocabulary: tuple[int, ...] = ()) -> list[Pair]:
    """`n` random segments that occur twice, the second time cut before a random token.

    Args:
        vocabulary: token ids to draw from; the splits draw from every other one.
    """
    ids = vocabulary[split == "held_out" :: 2]
    return [_repeat(rng, scheme, split, ids, f"repeated-tokens/{scheme}/{split}/{i}") for i in range(n)]


def _repeat(rng: random.Random, scheme: str, split: Split, ids: tuple[int, ...], name: str) -> Pair:
    *segment, other = rng.sample(ids, SEGMENT + 1)
    asked = rng.randint(2, SEGMENT - 1)
    clean = (*segment, *segment[:asked])
    corrupted = list(clean)
    corrupted[asked if scheme == "first" else -1] = other
    wrong = tuple(token for i, token in enumerate(segment) if i not in (asked - 1, asked))
    last = len(clean) - 1
    roles = (("first", (asked - 1, asked)), ("copied", (asked, asked + 1)), ("second", (last, last + 1)))
    strata = (("distance", str(SEGMENT)), ("asked", "early" if asked < SEGMENT / 2 else "late"))
    return Pair(name, "repeated-tokens", scheme, clean, tuple(corrupted), (segment[asked],), wrong, roles, "random",
                strata, split)  # fmt: skip


def verbs(rng: random.Random, scheme: str, split: Split, n: int) -> list[Pair]:
    """`n` random subjects with a noun between them and the verb."""
    return [_verb(rng, scheme, split, f"sva/{scheme}/{split}/{i}") for i in range(n)]


def _verb(rng: random.Random, scheme: str, split: Split, name: str) -> Pair:
    which = rng.randrange(len(_PHRASES[split]))
    noun, other = rng.sample(_NOUNS[split], 2)
    plural, attractor = rng.random() < 0.5, rng.random() < 0.5
    verb = rng.choice(_VERBS)
    between = other + "s" * attractor
    forms = [_PHRASES[split][which].format(noun=noun + "s" * number, other=between) for number in (plural, not plural)]
    roles = spans_of(forms[0], [("subject", f" {noun}{'s' * plural}", 0), ("attractor", f" {between}", -1)])
    strata = (("subject", "plural" if plural else "singular"), ("attractor", "plural" if attractor else "singular"))
    return Pair(name, "sva", scheme, *forms, (verb[plural],), (verb[not plural],), roles, f"{split}/{which}", strata,
                split, True)  # fmt: skip
