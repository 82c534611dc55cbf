"""Pairs of the docstring task, in four corruption schemes, and all of them crossed.

Why: the docstring circuit is the essay's example of one task that needs several corruptions (Heimersheim and Janiak
2023, "A circuit for Python docstrings", section "Choosing metric and corrupted prompts"). The function lists arguments;
its docstring has described some; asked is the next one:

| scheme | changed | isolates |
|---|---|---|
| answer | the answer's name in the list of arguments | that the answer is there to be copied |
| described | the names in the docstring's lines | how far the docstring has come |
| arguments | every name in the list of arguments | the list as a whole |
| next | the answer and the argument after it change places; symmetric | which argument comes next |

Cost: microseconds a pair.
"""

import random
from collections.abc import Callable, Collection, Sequence

from profiler.prompts.pairs import crossed as factors
from profiler.prompts.pairs.crossed import Factor
from profiler.prompts.pairs.pair import Pair, Roles
from profiler.prompts.tasks import docstring, words
from profiler.prompts.tasks.prompt import Prompt, Split

SCHEMES = ("answer", "described", "arguments", "next")
FACTORS = (Factor(("described",)), Factor(("next",)), Factor(("answer", "arguments")))
QUESTION = "which argument comes after the next :param?"


def make(rng: random.Random, scheme: str, split: Split, n: int, template: str | None = None) -> list[Pair]:
    """`n` random pairs, of random wordings or of `template`."""
    return [_pair(rng, scheme, split, f"docstring/{scheme}/{split}/{i}", template) for i in range(n)]


def _pair(rng: random.Random, scheme: str, split: Split, name: str, template: str | None) -> Pair:
    draw = lambda: docstring.prompt(rng, split, template=template)  # noqa: E731
    return pair_of(rng, scheme, draw, words.arguments(split), name)


def crossed(rng: random.Random, split: Split, n: int) -> list[tuple[Pair, ...]]:
    """`n` random prompts, each in every cell of FACTORS; a new name is the same in the list and in the docstring."""
    return [_crossed(rng, split, f"docstring/crossed/{split}/{i}") for i in range(n)]


def _crossed(rng: random.Random, split: Split, name: str) -> tuple[Pair, ...]:
    prompt = _with_next(lambda: docstring.prompt(rng, split))
    listed, described = _arguments(prompt), int(prompt.role("described"))
    fresh = rng.sample([word for word in words.arguments(split) if word not in listed], len(listed))

    def corrupt(made: Collection[str]) -> str:
        return _rewrite(prompt.text, listed, described, made, fresh, fresh[described])

    return factors.crossed(_pair_with(prompt, corrupt({"answer"}), "answer", name), FACTORS, corrupt)


def pair_of(rng: random.Random, scheme: str, draw: Callable[[], Prompt], pool: Sequence[str], name: str) -> Pair:
    """The pair of the first drawn prompt that the scheme can change; fresh argument names come from `pool`."""
    prompt = _with_next(draw) if scheme == "next" else draw()
    listed, described = _arguments(prompt), int(prompt.role("described"))
    fresh = rng.sample([word for word in pool if word not in listed], len(listed))
    return _pair_with(prompt, _rewrite(prompt.text, listed, described, {scheme}, fresh, fresh[0]), scheme, name)


def _with_next(draw: Callable[[], Prompt]) -> Prompt:
    """The first drawn prompt whose answer is not the last argument."""
    prompt = draw()
    while int(prompt.role("described")) + 1 == len(_arguments(prompt)):
        prompt = draw()
    return prompt


def _pair_with(prompt: Prompt, corrupted: str, scheme: str, name: str) -> Pair:
    listed, described = _arguments(prompt), int(prompt.role("described"))
    strata = (("arguments", str(len(listed))), ("described", str(described)))
    return Pair(
        name,
        "docstring",
        scheme,
        prompt.text,
        corrupted,
        (prompt.answer,),
        prompt.distractors,
        _roles(prompt.text, listed, described),
        prompt.template,
        strata,
        prompt.split,
        scheme == "next",
    )


def _arguments(prompt: Prompt) -> list[str]:
    return [filler for role, filler in prompt.roles if role.startswith("argument_")]


def _rewrite(text: str, listed: list[str], described: int, made: Collection[str], fresh: list[str], answer: str) -> str:
    """The text with its arguments, or the names in its docstring, changed; `answer` is the answer's new name."""
    signature = ", ".join(listed)
    new = list(listed)
    if "described" in made:
        for old, other in zip(listed[:described], fresh, strict=False):
            text = text.replace(f":param {old}:", f":param {other}:")
    if "answer" in made:
        new[described] = answer
    if "arguments" in made:
        new = list(fresh)
    if "next" in made:
        new[described], new[described + 1] = new[described + 1], new[described]
    return text.replace(signature, ", ".join(new), 1)


def _roles(text: str, listed: list[str], described: int) -> Roles:
    """The answer in the list, the argument before it there, and that argument and its `:param` in the docstring."""
    start = text.index(", ".join(listed))
    marks = [start + len(", ".join([*listed[:i], ""])) for i in range(len(listed))]
    before = listed[described - 1]
    line = text.index(f":param {before}:")
    at = line + len(":param")
    return (
        ("A_def", (marks[described] - 1, marks[described] + len(listed[described]))),
        ("B_def", (marks[described - 1] - 1, marks[described - 1] + len(before))),
        ("B_doc", (at, at + 1 + len(before))),
        ("param", (line, at)),
    )
