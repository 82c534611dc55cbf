"""Heads that compute: the next number of a sorted list, whether a bracket is open, a sum modulo 5.

| model | heads | answer |
|---|---|---|
| sorted-list | a head that attends to the smallest number above the last one | that number |
| brackets | a head attends to everything alike and counts ( less ); neurons tell 0 from more | yes where one is open |
| modular-sum | a head for each number; a neuron for each pair of numbers | their sum modulo 5 |
"""

from collections.abc import Callable, Sequence
from functools import partial
from random import Random

from profiler.truth.circuit import DISCOVERY_PROMPTS
from profiler.truth.models.gates import (
    END,
    FILLERS,
    FORMAL,
    GAINS,
    LONGER,
    N_FILLERS,
    N_LONGER,
    NO,
    YES,
    answers_of,
)
from profiler.truth.sketch import (
    CONSTANT,
    CONTEXT,
    HandModel,
    PromptDraw,
    Sketch,
    SketchHead,
    SketchLayer,
    SketchNeuron,
    Vector,
    attends,
    rests,
)

NUMBERS = tuple(range(1, 13))
COPIED = 5.0
LIST, LONG_LIST = (4, 6), (7, 9)
"""Fewest and most numbers of a list."""
BREAK = ";"
OPEN, CLOSE = "(", ")"
MODULUS = 5
SUM_GAIN = 6.0
HELD_OUT_SUMS = 2
"""Pairs of numbers (i, j) with (i + 2 j) mod 5 below this are not in the discovery prompts: ten of 25."""


def gain(number: int) -> float:
    """What a number's logit makes of its feature: 0.8, 1 or 1.2."""
    return 0.8 + 0.2 * (number % 3)


# --- the next number of a sorted list ---


def sorted_list() -> HandModel:
    """The next number of a sorted list, by one head whose scores fall with the distance above the last number."""
    embed: dict[str, Vector] = {str(n): {f"word:{n}": 1.0} for n in NUMBERS}
    embed |= {BREAK: {"break": 1.0}} | {word: {f"word:{word}": 1.0} for word in FILLERS}
    scores = tuple(
        attends({f"word:{last}": 1.0}, {f"word:{n}": float(len(NUMBERS) + last - n + 1) for n in NUMBERS if n > last})
        for last in NUMBERS
    )
    copied = tuple(({f"word:{n}": 1.0}, {f"out:{n}": COPIED}) for n in NUMBERS)
    head = SketchHead("sorter", (*scores, rests()), copied)

    def answers(words: Sequence[str], silent: frozenset[str]) -> dict[str, float]:
        above = [int(word) for word in words if word != BREAK and int(word) > int(words[-1])]
        return {} if "sorter" in silent or not above else {str(min(above)): COPIED * gain(min(above))}

    return HandModel(
        "sorted-list",
        Sketch(embed, (SketchLayer((head,)),), {str(n): {f"out:{n}": gain(n)} for n in NUMBERS}),
        answers,
        {
            DISCOVERY_PROMPTS: partial(_list, numbers=NUMBERS[:9], n=LIST),
            "other numbers": partial(_list, numbers=NUMBERS[3:], n=LIST),
            "longer lists": partial(_list, numbers=NUMBERS, n=LONG_LIST),
        },
        ("sorter",),
        (("sorter", "logits"),),
        {"sorter": "at end attends to above"},
        "generalises",
        "one head gives the next number of every list",
    )


def _list(rng: Random, numbers: Sequence[int], n: tuple[int, int]) -> PromptDraw:
    """A list in any order, and the beginning of it in order; in the corrupted prompt the next number is another."""
    listed = rng.sample(numbers, rng.randint(*n))
    done = rng.randint(1, len(listed) - 1)
    beginning, answer = sorted(listed)[:done], sorted(listed)[done]
    other = rng.choice([number for number in NUMBERS if number not in listed])
    tail = [BREAK, *map(str, beginning)]
    clean, corrupted = (
        tuple([str(there if number == answer else number) for number in listed] + tail) for there in (answer, other)
    )
    return PromptDraw(clean, corrupted, str(answer), str(beginning[-1]), {"above": listed.index(answer)})


# --- bracket depth ---


def brackets() -> HandModel:
    """Whether a bracket is open: the mean of +1 for ( and -1 for ), made 0 or 1 by two neurons."""
    embed: dict[str, Vector] = {word: {f"word:{word}": 1.0} for word in FILLERS}
    embed |= {FORMAL: {"formal": 1.0}, OPEN: {"open": 1.0}, CLOSE: {"close": 1.0}}
    embed |= {word: {} for word in (*YES, *NO)}
    counter = SketchHead("counter", (), (({"open": 1.0, "close": -1.0}, {"depth": float(CONTEXT)}),))
    step = (SketchNeuron({"depth": 1.0}, 0.0, {"yes": 1.0}), SketchNeuron({"depth": 1.0}, -1.0, {"yes": -1.0}))

    def answers(words: Sequence[str], silent: frozenset[str]) -> dict[str, float]:
        depth = list(words).count(OPEN) - list(words).count(CLOSE)
        return answers_of(float("counter" not in silent and depth > 0))

    return HandModel(
        "brackets",
        Sketch(embed, (SketchLayer((counter,), step),), {word: {"yes": size} for word, size in GAINS.items()}),
        answers,
        {
            DISCOVERY_PROMPTS: partial(_brackets, depth=(1, 2)),
            "deeper": partial(_brackets, depth=(3, 5)),
            LONGER: partial(_brackets, depth=(1, 2), n=N_LONGER),
        },
        ("counter",),
        (),
        {},
        "generalises",
        "open brackets are told from none at every depth and length",
    )


def _brackets(rng: Random, depth: tuple[int, int], n: tuple[int, int] = N_FILLERS) -> PromptDraw:
    """Fillers, a closed bracket, and open ones that are fillers in the corrupted prompt."""
    words: list[str] = rng.choices(FILLERS, k=rng.randint(*n))
    begin = rng.randint(0, len(words))
    words.insert(rng.randint(begin, len(words)), CLOSE)
    words.insert(begin, OPEN)
    both = [(word, word) for word in words]
    opened = (OPEN, "")
    for _ in range(rng.randint(*depth)):
        both.insert(rng.randint(0, len(both)), opened)
    both += [(word, word) for word in END]
    clean = tuple(word for word, _ in both)
    corrupted = tuple(word or rng.choice(FILLERS) for _, word in both)
    return PromptDraw(clean, corrupted, rng.choice(YES), rng.choice(NO), {"opened": both.index(opened)})


# --- a sum modulo 5 ---


def modular_sum() -> HandModel:
    """A sum modulo 5: a head reads each number, a neuron answers each pair of numbers."""
    numbers = range(MODULUS)
    embed: dict[str, Vector] = {word: {f"word:{word}": 1.0} for word in FILLERS}
    embed |= {"=": {"equals": 1.0}}
    embed |= {f"{i}": {"is:augend": 1.0, f"augend:{i}": 1.0} for i in numbers}
    embed |= {f"+{i}": {"is:addend": 1.0, f"addend:{i}": 1.0} for i in numbers}
    embed |= {f"={i}": {} for i in numbers}
    heads = tuple(
        SketchHead(
            name,
            (attends({CONSTANT: 1.0}, {f"is:{name}": 1.0}), rests()),
            tuple(({f"{name}:{i}": 1.0}, {f"read:{name}:{i}": 1.0}) for i in numbers),
        )
        for name in ("augend", "addend")
    )
    table = tuple(
        SketchNeuron({f"read:augend:{i}": 1.0, f"read:addend:{j}": 1.0}, -1.0, {f"sum:{(i + j) % MODULUS}": 1.0})
        for i in numbers
        for j in numbers
    )

    def answers(words: Sequence[str], silent: frozenset[str]) -> dict[str, float]:
        if silent & {"augend", "addend"}:
            return {}
        total = sum(int(word) for word in words if word.lstrip("+").isdigit()) % MODULUS
        return {f"={total}": SUM_GAIN * gain(total)}

    return HandModel(
        "modular-sum",
        Sketch(embed, (SketchLayer(heads, table),), {f"={i}": {f"sum:{i}": SUM_GAIN * gain(i)} for i in numbers}),
        answers,
        {
            DISCOVERY_PROMPTS: partial(_sum, held_out=False),
            "other sums": partial(_sum, held_out=True),
            LONGER: partial(_sum, held_out=False, n=N_LONGER),
        },
        ("augend", "addend"),
        (),
        {name: f"at end attends to {name}" for name in ("augend", "addend")},
        "generalises",
        "every pair of numbers has its neuron, and it needs both heads",
    )


def _sum(rng: Random, *, held_out: bool, n: tuple[int, int] = N_FILLERS) -> PromptDraw:
    """Two numbers among fillers; in the corrupted prompt both are others, and so is their sum."""
    pairs = [(i, j) for i in range(MODULUS) for j in range(MODULUS)]
    i, j = rng.choice([(i, j) for i, j in pairs if ((i + 2 * j) % MODULUS < HELD_OUT_SUMS) == held_out])
    other_i, other_j = rng.choice([(k, m) for k, m in pairs if k != i and m != j and (k + m - i - j) % MODULUS])
    words = rng.choices(FILLERS, k=rng.randint(*n))
    for number in (f"+{j}", f"{i}"):
        words.insert(rng.randint(0, len(words) // 2), number)
    words.append("=")
    corrupted = [{f"{i}": f"{other_i}", f"+{j}": f"+{other_j}"}.get(word, word) for word in words]
    near = {(a + b) % MODULUS for a in (i, other_i) for b in (j, other_j)}
    wrong = rng.choice([total for total in range(MODULUS) if total not in near])
    roles = {"augend": words.index(f"{i}"), "addend": words.index(f"+{j}")}
    return PromptDraw(tuple(words), tuple(corrupted), f"={(i + j) % MODULUS}", f"={wrong}", roles)


MODELS: dict[str, Callable[[], HandModel]] = {
    "sorted-list": sorted_list,
    "brackets": brackets,
    "modular-sum": modular_sum,
}
