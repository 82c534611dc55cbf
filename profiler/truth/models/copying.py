"""Heads that copy words: induction, a head that does two things, and copy suppression.

| model | heads | answer |
|---|---|---|
| induction | previous token; two induction heads (+6, +3), a negative one (-2) | what followed the last word before |
| polysemantic | previous token; a head that does induction, or copies the word before where none repeats | either |
| suppression | the last word predicts two others; a head takes back the first where it was said before | the second |
"""

from collections.abc import Callable, Sequence
from functools import partial
from random import Random

from profiler.truth.circuit import DISCOVERY_PROMPTS
from profiler.truth.sketch import (
    HandModel,
    PromptDraw,
    Sketch,
    SketchHead,
    SketchLayer,
    Vector,
    at,
    attends,
    rests,
)

LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
GAINS = {letter: 0.8 + 0.2 * (i % 3) for i, letter in enumerate(LETTERS)}
"""What a letter's logit makes of its feature: 0.8, 1 or 1.2."""
POSITIONS = 26
"""Positions of the models that need any: twelve words twice, and the token in front."""
MARKER = "#"
OTHER_WORDS, LONGER = "other words", "longer"
N_WORDS, N_LONGER = (7, 9), (13, 16)
"""Fewest and most different letters of a prompt."""
PREVIOUS_ROLE, INDUCTION_ROLE = "at follower attends to source", "at end attends to follower"
STRENGTHS = {"induction": 6.0, "second": 3.0, "negative": -2.0}
BOTH = 5.0
STRONGER = 3.0
"""How much more a match weighs than the position before."""
LIKELY, UNLIKELY, TAKEN_BACK = 6.0, 5.0, 4.0
"""Logits that the last word gives its first and its second successor, and what suppression takes back."""


def letters() -> dict[str, Vector]:
    """Embeddings of the letters."""
    return {letter: {f"word:{letter}": 1.0} for letter in LETTERS}


def copies(into: str, strength: float) -> tuple[tuple[Vector, Vector], ...]:
    """Copying of letters into features of another name."""
    return tuple(({f"word:{letter}": 1.0}, {f"{into}:{letter}": strength}) for letter in LETTERS)


def before() -> tuple[tuple[Vector, Vector], ...]:
    """The score of the position before."""
    return tuple(attends({at(i): 1.0}, {at(i - 1): 1.0}) for i in range(1, POSITIONS))


def follows(weight: float = 1.0) -> tuple[tuple[Vector, Vector], ...]:
    """The score of positions whose previous word is the present one."""
    return tuple(attends({f"word:{letter}": weight}, {f"previous:{letter}": 1.0}) for letter in LETTERS)


def reading_out(*features: tuple[str, float]) -> dict[str, Vector]:
    """Unembedding: each letter reads its own features, times its gain."""
    return {letter: {f"{name}:{letter}": GAINS[letter] * size for name, size in features} for letter in LETTERS}


PREVIOUS = SketchHead("previous", before(), copies("previous", 1.0))


def followers(words: Sequence[str]) -> list[str]:
    """What followed each earlier copy of the last word."""
    return [words[i + 1] for i in range(len(words) - 1) if words[i] == words[-1]]


def repeated(
    rng: Random, pool: Sequence[str] = LETTERS[:13], n: tuple[int, int] = N_WORDS, spare: Sequence[str] = LETTERS
) -> PromptDraw:
    """Different letters, then one of them again; in the corrupted prompt its first copy is another letter."""
    words = rng.sample(pool, min(rng.randint(*n), len(pool)))
    source = rng.randrange(1, len(words) - 3)
    other = rng.choice([letter for letter in spare if letter not in words])
    distractor = rng.choice([word for word in words[:-1] if word not in (words[source], words[source + 1])])
    answer, last = words[source + 1], words[source]
    corrupted = [*words[:source], other, *words[source + 1 :], last]
    return PromptDraw((*words, last), tuple(corrupted), answer, distractor, {"source": source, "follower": source + 1})


def induction() -> HandModel:
    """Induction with two parallel heads and a negative one (as the model of known circuit, known-induction)."""
    heads = tuple(SketchHead(name, (*follows(), rests()), copies("out", size)) for name, size in STRENGTHS.items())
    current = SketchHead(
        "current", tuple(attends({at(i): 1.0}, {at(i): 1.0}) for i in range(POSITIONS)), copies("out", -1.0)
    )

    def answers(words: Sequence[str], silent: frozenset[str]) -> dict[str, float]:
        out = dict.fromkeys(LETTERS, 0.0)
        if "current" not in silent:
            out[words[-1]] -= 1.0
        seen = [] if "previous" in silent else followers(words)
        for letter in seen:
            out[letter] += sum(size for name, size in STRENGTHS.items() if name not in silent) / len(seen)
        return {letter: GAINS[letter] * value for letter, value in out.items()}

    embed = letters()
    return HandModel(
        "induction",
        Sketch(embed, (SketchLayer((PREVIOUS, current)), SketchLayer(heads)), reading_out(("out", 1.0)), POSITIONS),
        answers,
        {
            DISCOVERY_PROMPTS: repeated,
            OTHER_WORDS: partial(repeated, pool=LETTERS[13:]),
            LONGER: partial(repeated, pool=LETTERS, n=N_LONGER),
        },
        ("previous", *STRENGTHS),
        tuple(edge for name in STRENGTHS for edge in (("previous", f"{name}.k"), (name, "logits"))),
        {"previous": PREVIOUS_ROLE} | dict.fromkeys(STRENGTHS, INDUCTION_ROLE),
        "generalises",
        "what followed the earlier copy is answered at every distance and with every letter",
    )


def polysemantic() -> HandModel:
    """A head that does induction where a word repeats, and copies the previous word where none does."""
    head = SketchHead("both", (*follows(STRONGER), *before()), copies("out", BOTH))

    def answers(words: Sequence[str], silent: frozenset[str]) -> dict[str, float]:
        if "both" in silent:
            return {}
        seen = ([] if "previous" in silent else followers(words)) or list(words[-2:-1])
        out = dict.fromkeys(LETTERS, 0.0)
        for letter in seen:
            out[letter] += BOTH / len(seen)
        return {letter: GAINS[letter] * value for letter, value in out.items()}

    embed = letters() | {MARKER: {"marker": 1.0}}
    return HandModel(
        "polysemantic",
        Sketch(embed, (SketchLayer((PREVIOUS,)), SketchLayer((head,))), reading_out(("out", 1.0)), POSITIONS),
        answers,
        {
            DISCOVERY_PROMPTS: repeated,
            OTHER_WORDS: partial(repeated, pool=LETTERS[13:]),
            "copying": _copying,
        },
        ("previous", "both"),
        (("previous", "both.k"), ("both", "logits")),
        {"previous": PREVIOUS_ROLE, "both": INDUCTION_ROLE},
        "narrows",
        "the answer is right everywhere, but before a marker its head attends to the previous word",
    )


def _copying(rng: Random) -> PromptDraw:
    """A prompt with a repeated letter, of which the word before the marker is asked."""
    inner = repeated(rng)
    asked, other = rng.sample([letter for letter in LETTERS if letter not in inner.clean + inner.corrupted], 2)
    words, corrupted = (*inner.clean, asked, MARKER), (*inner.clean, other, MARKER)
    return PromptDraw(words, corrupted, asked, inner.distractor, inner.roles)


def suppression() -> HandModel:
    """Copy suppression: what the last word predicts is taken back where it stands in the prompt."""
    after = {letter: LETTERS[(i + 1) % len(LETTERS)] for i, letter in enumerate(LETTERS)}
    second = {letter: LETTERS[(i + 2) % len(LETTERS)] for i, letter in enumerate(LETTERS)}
    embed: dict[str, Vector] = {
        letter: {f"word:{letter}": 1.0, f"likely:{after[letter]}": 1.0, f"unlikely:{second[letter]}": 1.0}
        for letter in LETTERS
    }
    look = tuple(attends({f"likely:{letter}": 1.0}, {f"word:{letter}": 1.0}) for letter in LETTERS)
    head = SketchHead("suppressor", (*look, rests()), copies("out", -TAKEN_BACK))

    def answers(words: Sequence[str], silent: frozenset[str]) -> dict[str, float]:
        last = words[-1]
        out = {after[last]: LIKELY, second[last]: UNLIKELY}
        if "suppressor" not in silent and after[last] in words:
            out[after[last]] -= TAKEN_BACK
        return {letter: GAINS[letter] * value for letter, value in out.items()}

    def drawn(rng: Random, last: Sequence[str], n: tuple[int, int] = N_WORDS) -> PromptDraw:
        end = rng.choice(last)
        fillers = [letter for letter in LETTERS if letter not in (end, after[end], second[end])]
        words = rng.sample(fillers, rng.randint(*n))
        position = rng.randrange(1, len(words))
        other = rng.choice([letter for letter in fillers if letter not in words])
        clean, corrupted = ((*words[:position], word, *words[position:], end) for word in (after[end], other))
        return PromptDraw(clean, corrupted, second[end], after[end], {"predicted": position})

    sketch = Sketch(
        embed,
        (SketchLayer(), SketchLayer((head,))),
        reading_out(("out", 1.0), ("likely", LIKELY), ("unlikely", UNLIKELY)),
    )
    return HandModel(
        "suppression",
        sketch,
        answers,
        {
            DISCOVERY_PROMPTS: partial(drawn, last=LETTERS[:13]),
            OTHER_WORDS: partial(drawn, last=LETTERS[13:]),
            LONGER: partial(drawn, last=LETTERS[:13], n=N_LONGER),
        },
        ("suppressor",),
        (("suppressor", "logits"),),
        {"suppressor": "at end attends to predicted"},
        "generalises",
        "the predicted word is taken back wherever it stands in the prompt",
    )


MODELS: dict[str, Callable[[], HandModel]] = {
    "induction": induction,
    "polysemantic": polysemantic,
    "suppression": suppression,
}
