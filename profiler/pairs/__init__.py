"""Prompt pairs: clean and corrupted prompts that differ in one thing, for patching. No torch.

`TASKS` lists the built-in families; each has corruption schemes, strata, and wordings and words that are held out.
A user's own pairs are read from JSON lines (`lines`). `encode` turns pairs into tokens, `checks` says what they control.
Cost: microseconds a pair.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from profiler.errors import PairError
from profiler.pairs import code, lines, order, people
from profiler.pairs.encode import Encoded, TokenPair, encode
from profiler.pairs.factors import Factor
from profiler.pairs.pair import Pair
from profiler.tasks.prompt import Split

__all__ = ["TASKS", "Encoded", "Pair", "Task", "TokenPair", "cross", "encode", "find_task", "make", "read"]


@dataclass(frozen=True)
class Task:
    """A family of pairs: its name, the question put to the model, its corruption schemes (the first is the default).

    `factors` are its corruptions crossed (`profiler.pairs.factors`), and `cross` makes prompts in every cell of them.
    """

    name: str
    question: str
    schemes: tuple[str, ...]
    make: Callable[..., list[Pair]]
    factors: tuple[Factor, ...]
    cross: Callable[..., list[tuple[Pair, ...]]]
    of_tokens: bool = False


TASKS = (
    Task("ioi", people.QUESTION, people.SCHEMES, people.make, people.FACTORS, people.crossed),
    Task("docstring", code.QUESTION, code.SCHEMES, code.make, code.FACTORS, code.crossed),
    Task(
        "greater-than", order.GREATER_QUESTION, order.GREATER_SCHEMES, order.years, order.GREATER_FACTORS,
        order.years_crossed,
    ),
    Task(
        "repeated-tokens", order.REPEAT_QUESTION, order.REPEAT_SCHEMES, order.repeats, order.REPEAT_FACTORS,
        order.repeats_crossed, of_tokens=True,
    ),
    Task("sva", order.VERB_QUESTION, order.VERB_SCHEMES, order.verbs, order.VERB_FACTORS, order.verbs_crossed),
)  # fmt: skip


def find_task(name: str) -> Task:
    """The built-in task of a name.

    Raises:
        PairError: there is none.
    """
    for task in TASKS:
        if task.name == name:
            return task
    known = ", ".join(task.name for task in TASKS)
    raise PairError(f"there is no task {name!r}: choose {known}, or give a .jsonl file of pairs (see `profiler tasks`)")


def make(
    name: str, scheme: str | None, split: Split, n: int, seed: int = 0, vocabulary: tuple[int, ...] = ()
) -> list[Pair]:
    """`n` pairs of a built-in task.

    Args:
        name: of a task.
        scheme: corruption scheme; None takes the task's first.
        split: whose wordings and words are used.
        n: how many.
        seed: every choice follows from task, scheme, split and seed.
        vocabulary: ordinary token ids, which tasks made of tokens draw from.

    Raises:
        PairError: no such task or scheme.
    """
    task = find_task(name)
    scheme = scheme or task.schemes[0]
    if scheme not in task.schemes:
        raise PairError(f"task {name} has no corruption scheme {scheme!r}: choose {', '.join(task.schemes)}")
    rng = random.Random(f"{name}/{scheme}/{split}/{seed}")
    return task.make(rng, scheme, split, n, vocabulary) if task.of_tokens else task.make(rng, scheme, split, n)


def cross(name: str, split: Split, n: int, seed: int = 0, vocabulary: tuple[int, ...] = ()) -> list[tuple[Pair, ...]]:
    """`n` prompts of a built-in task, each with a pair for every combination of its corruptions; arguments as in `make`.

    Raises:
        PairError: no such task.
    """
    task = find_task(name)
    rng = random.Random(f"{name}/crossed/{split}/{seed}")
    return task.cross(rng, split, n, vocabulary) if task.of_tokens else task.cross(rng, split, n)


def read(path: str | Path) -> list[Pair]:
    """A user's pairs; see `profiler.pairs.lines`."""
    return lines.read(path)
