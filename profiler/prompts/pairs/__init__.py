"""Prompt pairs: clean and corrupted prompts that differ in one thing, for patching. No torch.

`TASKS` lists the built-in families; each has corruption schemes, strata, and wordings and words that are held out.
A user's own pairs are read from JSON lines (`lines`). `encode` turns pairs into tokens, `checks` says what they
control.
Cost: microseconds a pair.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from profiler.errors import PairError
from profiler.prompts.pairs import docstring, foreign, indirect_object, jsonl, sequences
from profiler.prompts.pairs.crossed import Factor
from profiler.prompts.pairs.encode import Encoded, TokenPair, encode
from profiler.prompts.pairs.pair import Pair
from profiler.prompts.tasks.prompt import Split

FILES = (".jsonl", ".csv")
"""Endings of files of pairs."""
__all__ = ["FILES", "TASKS", "Encoded", "Pair", "Task", "TokenPair", "cross", "encode", "find_task", "make", "read"]


@dataclass(frozen=True)
class Task:
    """A family of pairs: its name, the question put to the model, its corruption schemes (the first is the default).

    `factors` are its corruptions crossed (`profiler.prompts.pairs.crossed`), and `cross` makes prompts in every cell of
    them. Of a task that `has_templates`, so many that few pairs share one, pairs of one template can be made.
    """

    name: str
    question: str
    schemes: tuple[str, ...]
    make: Callable[..., list[Pair]]
    factors: tuple[Factor, ...]
    cross: Callable[..., list[tuple[Pair, ...]]]
    of_tokens: bool = False
    has_templates: bool = False


TASKS = (
    Task(
        "ioi",
        indirect_object.QUESTION,
        indirect_object.SCHEMES,
        indirect_object.make,
        indirect_object.FACTORS,
        indirect_object.crossed,
        has_templates=True,
    ),
    Task(
        "docstring",
        docstring.QUESTION,
        docstring.SCHEMES,
        docstring.make,
        docstring.FACTORS,
        docstring.crossed,
        has_templates=True,
    ),
    Task(
        "greater-than",
        sequences.GREATER_QUESTION,
        sequences.GREATER_SCHEMES,
        sequences.years,
        sequences.GREATER_FACTORS,
        sequences.years_crossed,
    ),
    Task(
        "repeated-tokens",
        sequences.REPEAT_QUESTION,
        sequences.REPEAT_SCHEMES,
        sequences.repeats,
        sequences.REPEAT_FACTORS,
        sequences.repeats_crossed,
        of_tokens=True,
    ),
    Task(
        "sva",
        sequences.VERB_QUESTION,
        sequences.VERB_SCHEMES,
        sequences.verbs,
        sequences.VERB_FACTORS,
        sequences.verbs_crossed,
    ),
)


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
    name: str,
    scheme: str | None,
    split: Split,
    n: int,
    seed: int = 0,
    vocabulary: tuple[int, ...] = (),
    template: str | None = None,
) -> list[Pair]:
    """`n` pairs of a built-in task.

    Args:
        name: of a task.
        scheme: corruption scheme; None takes the task's first.
        split: whose wordings and words are used.
        n: how many.
        seed: every choice follows from task, scheme, split and seed.
        vocabulary: ordinary token ids, which tasks made of tokens draw from.
        template: the wording, of a task that has_templates; at random by default.

    Raises:
        PairError: no such task or scheme.
    """
    task = find_task(name)
    scheme = scheme or task.schemes[0]
    if scheme not in task.schemes:
        raise PairError(f"task {name} has no corruption scheme {scheme!r}: choose {', '.join(task.schemes)}")
    rng = random.Random(f"{name}/{scheme}/{split}/{seed}")
    if template is not None:
        return task.make(rng, scheme, split, n, template)
    return task.make(rng, scheme, split, n, vocabulary) if task.of_tokens else task.make(rng, scheme, split, n)


def cross(name: str, split: Split, n: int, seed: int = 0, vocabulary: tuple[int, ...] = ()) -> list[tuple[Pair, ...]]:
    """`n` prompts of a built-in task, each with a pair for every combination of corruptions; arguments as `make`.

    Raises:
        PairError: no such task.
    """
    task = find_task(name)
    rng = random.Random(f"{name}/crossed/{split}/{seed}")
    return task.cross(rng, split, n, vocabulary) if task.of_tokens else task.cross(rng, split, n)


def read(path: str | Path) -> list[Pair]:
    """A user's pairs: a .jsonl (see `profiler.prompts.pairs.jsonl`), or a .csv of EAP-IG (see `foreign`).

    Raises:
        PairError: the file cannot be read, or a pair is wrong; the line is named.
    """
    return foreign.read_eap(path) if Path(path).suffix == ".csv" else jsonl.read(path)
