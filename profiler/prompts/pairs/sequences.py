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

Crossed, years take the century as a second factor and verbs the number of the noun in between (`attractor`).

Cost: microseconds a pair.
"""

import random
from collections.abc import Collection

from profiler.errors import PairError
from profiler.prompts.pairs import crossed
from profiler.prompts.pairs.crossed import Factor
from profiler.prompts.pairs.pair import Pair, spans_of
from profiler.prompts.tasks import sequences, words
from profiler.prompts.tasks.prompt import Prompt, Split

GREATER_SCHEMES = ("01", "late")
GREATER_FACTORS = (Factor(("century",)), Factor(("01", "late")))
GREATER_QUESTION = "which two digits end a span of years that begins in a given year?"
REPEAT_SCHEMES = ("first", "last")
REPEAT_FACTORS = (Factor(("first",)), Factor(("last",)))
REPEAT_QUESTION = "which token followed this one in the first copy of a random segment?"
VERB_SCHEMES = ("number",)
VERB_FACTORS = (Factor(("number",)), Factor(("attractor",)))
VERB_QUESTION = "is the verb singular or plural?"
SEGMENT = 12
PLURAL = 0.5
"""Share of subjects, and of the nouns between, that are plural."""

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
    other = "01" if scheme == "01" else _late(rng, prompt)
    return _year_pair(prompt, scheme, _with_start(prompt, other), name)


def _late(rng: random.Random, prompt: Prompt) -> str:
    """A start in the upper half of what the prompt's own start leaves."""
    return f"{rng.randint((int(prompt.role('start')) + 100) // 2, 98):02d}"


def _where(prompt: Prompt) -> int:
    """The character at which the year of the start stands, without its century."""
    return prompt.text.index(prompt.role("century") + prompt.role("start")) + len(prompt.role("century"))


def _with_start(prompt: Prompt, start: str) -> str:
    where = _where(prompt)
    return prompt.text[:where] + start + prompt.text[where + 2 :]


def _year_pair(prompt: Prompt, scheme: str, corrupted: str, name: str) -> Pair:
    start, century, where = prompt.role("start"), prompt.role("century"), _where(prompt)
    right = tuple(f"{year:02d}" for year in range(int(start) + 1, 100))
    strata = (("century", century), ("start", f"{int(start) // 25 * 25:02d}+"))
    return Pair(
        name,
        "greater-than",
        scheme,
        prompt.text,
        corrupted,
        right,
        prompt.distractors,
        (("year", (where, where + 2)),),
        prompt.template,
        strata,
        prompt.split,
    )


def years_crossed(rng: random.Random, split: Split, n: int) -> list[tuple[Pair, ...]]:
    """`n` random spans, each in every cell of GREATER_FACTORS; the other century stands in both positions."""
    return [_years_crossed(rng, split, f"greater-than/crossed/{split}/{i}") for i in range(n)]


def _years_crossed(rng: random.Random, split: Split, name: str) -> tuple[Pair, ...]:
    prompt = sequences.span(rng, split)
    late, century = _late(rng, prompt), prompt.role("century")
    other = str(rng.choice([c for c in range(11, 20) if str(c) != century]))

    def corrupt(made: Collection[str]) -> str:
        text = _with_start(prompt, "01" if "01" in made else late if "late" in made else prompt.role("start"))
        if "century" not in made:
            return text
        where = _where(prompt) - len(century)
        return text[:where] + other + text[where + len(century) : -len(century)] + other

    return crossed.crossed(_year_pair(prompt, "01", prompt.text, name), GREATER_FACTORS, corrupt)


def repeats(rng: random.Random, scheme: str, split: Split, n: int, vocabulary: tuple[int, ...] = ()) -> list[Pair]:
    """`n` random segments that occur twice, the second time cut before a random token.

    Args:
        vocabulary: token ids to draw from; the splits draw from every other one.

    Raises:
        PairError: they are too few.
    """
    ids = _enough(vocabulary[split == "held_out" :: 2])
    return [_repeat(rng, scheme, split, ids, f"repeated-tokens/{scheme}/{split}/{i}") for i in range(n)]


def _enough(ids: tuple[int, ...]) -> tuple[int, ...]:
    """The ids, if a segment and two new tokens can be drawn from them."""
    fewest = SEGMENT + 2
    if len(ids) < fewest:
        raise PairError(
            f"repeated-tokens draws {fewest} different tokens from half of the ordinary tokens of a tokenizer, and this"
            f" half has {len(ids)}: choose another task"
        )
    return ids


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
    return Pair(
        name,
        "repeated-tokens",
        scheme,
        clean,
        tuple(corrupted),
        (segment[asked],),
        wrong,
        roles,
        "random",
        strata,
        split,
    )


def repeats_crossed(
    rng: random.Random, split: Split, n: int, vocabulary: tuple[int, ...] = ()
) -> list[tuple[Pair, ...]]:
    """`n` random segments, each in every cell of REPEAT_FACTORS; both new tokens occur nowhere else."""
    ids = _enough(vocabulary[split == "held_out" :: 2])
    return [_repeat_crossed(rng, split, ids, f"repeated-tokens/crossed/{split}/{i}") for i in range(n)]


def _repeat_crossed(rng: random.Random, split: Split, ids: tuple[int, ...], name: str) -> tuple[Pair, ...]:
    pair = _repeat(rng, "first", split, ids, name)
    clean = tuple(map(int, pair.clean))
    copied, copy = len(clean) - SEGMENT, int(pair.corrupted[len(clean) - SEGMENT])
    last = rng.choice([i for i in ids if i not in {*clean, copy}])

    def corrupt(made: Collection[str]) -> tuple[int, ...]:
        new = list(clean)
        new[copied] = copy if "first" in made else clean[copied]
        new[-1] = last if "last" in made else clean[-1]
        return tuple(new)

    return crossed.crossed(pair, REPEAT_FACTORS, corrupt)


def verbs(rng: random.Random, scheme: str, split: Split, n: int) -> list[Pair]:
    """`n` random subjects with a noun between them and the verb."""
    return [_verb(rng, scheme, split, f"sva/{scheme}/{split}/{i}") for i in range(n)]


def _verb(rng: random.Random, scheme: str, split: Split, name: str) -> Pair:
    which = rng.randrange(len(_PHRASES[split]))
    noun, other = rng.sample(_NOUNS[split], 2)
    plural, attractor = rng.random() < PLURAL, rng.random() < PLURAL
    verb = rng.choice(_VERBS)
    between = other + "s" * attractor
    clean, corrupted = (
        _PHRASES[split][which].format(noun=noun + "s" * number, other=between) for number in (plural, not plural)
    )
    roles = spans_of(clean, [("subject", f" {noun}{'s' * plural}", 0), ("attractor", f" {between}", -1)])
    strata = (("subject", "plural" if plural else "singular"), ("attractor", "plural" if attractor else "singular"))
    return Pair(
        name=name,
        task="sva",
        scheme=scheme,
        clean=clean,
        corrupted=corrupted,
        answers=(verb[plural],),
        distractors=(verb[not plural],),
        roles=roles,
        template=f"{split}/{which}",
        strata=strata,
        split=split,
        symmetric=True,
    )


def verbs_crossed(rng: random.Random, split: Split, n: int) -> list[tuple[Pair, ...]]:
    """`n` random subjects, each in every cell of VERB_FACTORS."""
    return [_verb_crossed(rng, split, f"sva/crossed/{split}/{i}") for i in range(n)]


def _verb_crossed(rng: random.Random, split: Split, name: str) -> tuple[Pair, ...]:
    pair = _verb(rng, "number", split, name)
    between = str(pair.clean)[slice(*dict(pair.roles)["attractor"])]
    other = between.removesuffix("s") if pair.stratum("attractor") == "plural" else between + "s"

    def corrupt(made: Collection[str]) -> str:
        text = str(pair.corrupted if "number" in made else pair.clean)
        return text.removesuffix(between) + other if "attractor" in made else text

    return crossed.crossed(pair, VERB_FACTORS, corrupt)
