"""Pairs of the indirect-object task, in four corruption schemes, and all of them crossed.

Why: one scheme shows one part of a circuit (Zhang and Nanda 2024, "Towards best practices of activation patching",
section 4; the essay's advice to have several kinds of corruption). With A the indirect object, B the subject, C
another:

| scheme | clean ... ends in | corrupted | isolates |
|---|---|---|---|
| abc | A B ... B | A B ... C | that the subject was named before |
| swapped | A B ... B | A B ... A | which of the two was named before; symmetric: the answer turns into the distractor |
| s_only | A B ... B | A C ... C | who the subject is, the duplication kept |
| io_only | A B ... B | C B ... B | who the indirect object is |

Crossed, a fifth change joins them: `order`, the two first mentions change places, and the answer stays. Swapped names
alone move both what tells the subject, its name and its place; the interaction of `swapped` and `order` is the place's.

Cost: microseconds a pair.
"""

import random
from collections.abc import Callable, Collection, Sequence

from profiler.prompts.pairs import crossed as factors
from profiler.prompts.pairs.crossed import Factor
from profiler.prompts.pairs.pair import Pair, spans_of
from profiler.prompts.tasks import indirect_object, words
from profiler.prompts.tasks.prompt import Prompt, Split

SCHEMES = ("abc", "swapped", "s_only", "io_only")
QUESTION = "who receives what the subject gives?"
FACTORS = (Factor(("s_only",)), Factor(("io_only",)), Factor(("order",)), Factor(("swapped", "abc")))


def make(rng: random.Random, scheme: str, split: Split, n: int, template: str | None = None) -> list[Pair]:
    """`n` random pairs, half ABBA and half BABA, of random wordings or of `template`."""
    orders: tuple[indirect_object.Order, ...] = ("ABBA", "BABA")
    return [_pair(rng, scheme, split, orders[i % 2], f"ioi/{scheme}/{split}/{i}", template) for i in range(n)]


def _pair(
    rng: random.Random, scheme: str, split: Split, order: indirect_object.Order, name: str, template: str | None
) -> Pair:
    prompt = indirect_object.prompt(rng, split, order=order, template=template)
    a, b = prompt.role("indirect_object"), prompt.role("subject")
    c = rng.choice([other for other in words.names(split) if other not in (a, b)])
    return pair_of(prompt, scheme, c, name)


def pair_of(
    prompt: Prompt, scheme: str, other: str, name: str, render: Callable[[dict[str, str]], str] | None = None
) -> Pair:
    """The pair of a prompt.

    Args:
        other: the third name.
        render: the text with roles filled in (`subject` acts again); by default that of the prompt's own template.
    """
    render = render or (lambda filled: indirect_object.render(prompt.template, filled))
    a, b = prompt.role("indirect_object"), prompt.role("subject")
    text = render(dict(prompt.roles))
    roles = spans_of(text, [("IO", f" {a}", 0), ("S1", f" {b}", 0), ("S2", f" {b}", -1)])
    return Pair(
        name,
        "ioi",
        scheme,
        text,
        render(changed_roles(prompt, scheme, other)),
        (f" {a}",),
        (f" {b}",),
        roles,
        prompt.template,
        (("order", prompt.role("order")),),
        prompt.split,
        scheme == "swapped",
    )


def changed_roles(prompt: Prompt, scheme: str, other: str) -> dict[str, str]:
    """The prompt's roles with the names that the scheme changes."""
    return with_changes(prompt, {scheme}, (other, other, other))


def with_changes(prompt: Prompt, made: Collection[str], fresh: Sequence[str]) -> dict[str, str]:
    """The prompt's roles with any of the changes made: schemes, or `order`.

    Args:
        fresh: the new names of the indirect object, of the subject, and of whoever acts again (abc).
    """
    a, b = prompt.role("indirect_object"), prompt.role("subject")
    named = {a: fresh[0] if "io_only" in made else a, b: fresh[1] if "s_only" in made else b}
    filled = dict(prompt.roles)
    mentions = [named[filled["first"]], named[filled["second"]]]
    first, second = reversed(mentions) if "order" in made else mentions
    again = fresh[2] if "abc" in made else named[a if "swapped" in made else b]
    return filled | {"first": first, "second": second, "subject": again, "indirect_object": named[a]}


def crossed(rng: random.Random, split: Split, n: int) -> list[tuple[Pair, ...]]:
    """`n` random prompts, half ABBA and half BABA, each in every cell of FACTORS."""
    return [_crossed(rng, split, ("ABBA", "BABA")[i % 2], f"ioi/crossed/{split}/{i}") for i in range(n)]


def _crossed(rng: random.Random, split: Split, order: indirect_object.Order, name: str) -> tuple[Pair, ...]:
    prompt = indirect_object.prompt(rng, split, order=order)
    known = (prompt.role("indirect_object"), prompt.role("subject"))
    fresh = rng.sample([other for other in words.names(split) if other not in known], 3)

    def corrupt(made: Collection[str]) -> str:
        return indirect_object.render(prompt.template, with_changes(prompt, made, fresh))

    return factors.crossed(pair_of(prompt, "abc", fresh[2], name), FACTORS, corrupt)
