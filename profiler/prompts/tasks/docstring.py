"""The docstring task: which argument comes after the next `:param`?

Why: a circuit task in code (Heimersheim and Janiak 2023, "A circuit for Python docstrings in a 4-layer
attention-only transformer"). A function lists its arguments; its docstring describes them in the same order; after
`:param` stands the next argument that was not yet described. The other arguments are the distractors.

A template is a way to open the function and a way to describe an argument. The splits share no opening, no
description, no function name and no argument name. Cost: microseconds a prompt.
"""

import random
import re
from collections.abc import Mapping, Sequence

from profiler.prompts.tasks import words
from profiler.prompts.tasks.prompt import Prompt, Split, TextPiece

OPENINGS_TRAIN = (
    'def {function}(self, {arguments}):\n    """{summary}.\n\n',
    'def {function}(self, {arguments}):\n    """\n    {summary}.\n\n',
    'async def {function}(self, {arguments}):\n    """{summary}.\n\n',
    '    def {function}(self, {arguments}):\n        """{summary}.\n\n',
    'def {function}(cls, {arguments}):\n    """{summary}.\n',
    'def {function}(self, {arguments}) -> None:\n    """{summary}.\n\n',
)
OPENINGS_HELD_OUT = (
    '@staticmethod\ndef {function}(parser, {arguments}):\n    """{summary}.\n\n',
    'def {function}(self, {arguments}) -> dict:\n    """{summary} at once.\n\n',
)
DESCRIPTIONS_TRAIN = (
    "the {word}",
    "{word} of the {other}",
    "a {word} to use",
    "{word}",
    "which {word} to take",
    "the {word} for this {other}, if any",
    "number of {word}s",
    "(optional) {word} {other}",
)
DESCRIPTIONS_HELD_OUT = ("tells whether a {word} is wanted", "any {word} that has no {other}", "holds one {word}")
_FUNCTIONS = {
    "train": words.listed("run load_all make update read_part check build merge find_next apply send parse"),
    "held_out": words.listed("convert lookup draw_all split_up refresh measure"),
}
_SUMMARIES = {
    "train": ("Do the work", "Return the result", "Make a new object", "Read what is there", "Set up the parts"),
    "held_out": ("Turn one thing into another", "Give back every entry", "Prepare a report"),
}
_ANNOTATED, _DECORATED = 0.4, 0.3
"""Shares of loosened functions with a return annotation, and with a decorator."""
_TOPICS = words.listed("name text thing part word unit entry point place set kind list")


def templates(split: Split) -> list[str]:
    """Ids of all wordings of a split, such as `train/3/7` (opening 3, description 7)."""
    openings, descriptions = _parts(split)
    return [f"{split}/{o}/{d}" for o in range(len(openings)) for d in range(len(descriptions))]


def held_out_words() -> set[str]:
    """Words of the held-out wordings that no train wording has; never drawn as fillers."""
    names = {}
    for split in ("train", "held_out"):
        parts = (*sum(_parts(split), ()), *_FUNCTIONS[split], *_SUMMARIES[split])
        names[split] = set(re.findall("[a-z]+", " ".join(parts).lower()))
    return names["held_out"] - names["train"]


def render(template: str, roles: Mapping[str, str]) -> str:
    """The prompt text of a template id, up to and with the `:param` that asks.

    Args:
        template: one of `templates`.
        roles: `argument_0`, `argument_1` ... (the function's arguments), `described` (how many of them are
            described, as a number), `function`, `summary`, and `word_0`, `other_0` ... (the description of each).
    """
    split, opening, description = template.split("/")
    openings, descriptions = _parts(split)
    listed = [roles[f"argument_{i}"] for i in range(sum(role.startswith("argument_") for role in roles))]
    text = openings[int(opening)].format(arguments=", ".join(listed), **roles)
    for i, name in enumerate(listed[: int(roles["described"])]):
        line = descriptions[int(description)].format(word=roles[f"word_{i}"], other=roles[f"other_{i}"])
        text += f"{_margin(template)}:param {name}: {line}\n"
    return f"{text}{_margin(template)}:param"


def prompt(
    rng: random.Random, split: Split, *, arguments: Sequence[str] | None = None, template: str | None = None
) -> Prompt:
    """One random prompt: four to six arguments, one to three described, the next one asked for.

    Args:
        rng: source of every choice.
        split: whose wordings (and argument names) are used.
        arguments: other names to draw from instead of the split's own; at least six different ones.
        template: the wording; one of the split's at random by default.
    """
    listed = rng.sample(arguments or words.arguments(split), rng.choice((4, 5, 6)))
    described = rng.randint(1, 3)
    template = template or rng.choice(templates(split))
    roles = _roles(rng, split, listed, described)
    answer = listed[described]
    distractors = tuple(f" {name}" for name in listed if name != answer)
    return Prompt(
        "docstring", render(template, roles), f" {answer}", distractors, template, tuple(roles.items()), split
    )


def function(
    rng: random.Random, pools: Sequence[Sequence[str]], fillers: Sequence[str] = (), loose: float = 0.0
) -> list[TextPiece]:
    """Training text: a function in the train wordings that describes all its arguments.

    Args:
        rng: source of every choice.
        pools: name pools; each argument is drawn from one pool chosen at random.
        fillers: words to describe functions and arguments with.
        loose: above zero, all words but the arguments are fillers; by default the train wordings are used.
    """
    wanted = rng.randint(3, 6)
    listed: list[str] = []
    while len(listed) < wanted:
        name = rng.choice(rng.choice(pools))
        if name not in listed:
            listed.append(name)
    template = rng.choice(templates("train"))
    end = f'"""\n{_margin(template)}return {rng.choice(_TOPICS)}\n'
    if loose:
        return _loose(rng, listed, fillers, _margin(template), end)
    return [TextPiece(render(template, _roles(rng, "train", listed, len(listed))).removesuffix(":param") + end)]


def _loose(rng: random.Random, listed: Sequence[str], fillers: Sequence[str], margin: str, end: str) -> list[TextPiece]:
    """A function whose words, all but its arguments, are arbitrary."""

    def some(least: int, most: int) -> str:
        return " ".join(rng.choice(fillers) for _ in range(rng.randint(least, most)))

    receiver = rng.choice((f"{rng.choice(fillers)}, ", "self, ", ""))
    result = f" -> {rng.choice(fillers)}" if rng.random() < _ANNOTATED else ""
    mark = f"{margin[4:]}@{rng.choice(fillers)}\n" if rng.random() < _DECORATED else ""
    head = f"{mark}{margin[4:]}def {rng.choice(fillers)}({receiver}{', '.join(listed)}){result}:\n"
    summary = f'{margin}"""{some(1, 6).capitalize()}.{rng.choice((chr(10), chr(10) * 2))}'
    most = rng.choice((2, 8))
    between = [f"{head}{summary}{margin}:param", *(f": {some(1, most)}\n{margin}:param" for _ in listed[1:])]
    pairs = zip(between, listed, strict=True)
    pieces = [
        piece for text, name in pairs for piece in (TextPiece(text, "arbitrary"), TextPiece(f" {name}", "answer"))
    ]
    return [*pieces, TextPiece(f": {some(1, most)}\n{margin}{end}", "arbitrary")]


def _roles(rng: random.Random, split: Split, listed: Sequence[str], described: int) -> dict[str, str]:
    roles = {f"argument_{i}": name for i, name in enumerate(listed)}
    roles |= {"described": str(described), "function": rng.choice(_FUNCTIONS[split])}
    roles["summary"] = rng.choice(_SUMMARIES[split])
    for i in range(described):
        roles |= {f"word_{i}": rng.choice(_TOPICS), f"other_{i}": rng.choice(_TOPICS)}
    return roles


def _margin(template: str) -> str:
    split, opening, _ = template.split("/")
    return " " * (8 if _parts(split)[0][int(opening)].startswith("    def") else 4)


def _parts(split: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if split == "train":
        return OPENINGS_TRAIN, DESCRIPTIONS_TRAIN
    return OPENINGS_HELD_OUT, DESCRIPTIONS_HELD_OUT
