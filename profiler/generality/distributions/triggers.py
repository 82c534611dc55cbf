"""Triggers of a task in running text, where its question arises by itself, and the pairs made from them.

Why: the step from templates to text that nobody wrote for the test is the one that matters. A position in the text
becomes a prompt (what stands before it), an answer and distractors (what the circuit is claimed to choose between),
and, with the tokens that the corruption scheme changes put elsewhere, a pair; so natural text is measured by the same
numbers as a template.

| task | a trigger is a token ... |
|---|---|
| ioi | after three name-like words A B B or B A B, at most 64 tokens apart, that is followed by A or B |
| docstring | `param` after which follows the argument that comes next in the signature of the function above |
| repeated-tokens | that stood before, the token before it too, and is followed by what followed then |

Name-like words are capitalised words inside a sentence (behind a word, comma or closing bracket) that are no function
word, day, month or keyword: in code most of them are names of classes. Cost: regular expressions over the text.
"""

import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
from jaxtyping import Int

from profiler.behaviours.token_properties import CALENDAR, FUNCTION_WORDS, KEYWORDS
from profiler.prompts.pairs import Pair

Span = tuple[int, int]
LOOK_BACK = 64
LONGEST = 160
FAR, CONTEXT = 400, 120
SKIPPED = {"self", "cls", "/", "*"}


@dataclass(frozen=True)
class Trigger:
    """A position where the question arises; all numbers are offsets in the ids of its passage.

    Attributes:
        start, end: first token of the prompt, and the token that the answer must follow.
        answer: id that the circuit is claimed to raise; `distractors` those it is raised against.
        follows: whether the answer is what comes next in the text.
        roles: (role, span), as in pairs.
        changes: per corruption scheme the words that it changes, and whether to the answer (swapped) or to another.
    """

    start: int
    end: int
    answer: int
    distractors: tuple[int, ...]
    follows: bool
    roles: tuple[tuple[str, Span], ...]
    changes: dict[str, tuple[tuple[Span, ...], bool]]


@dataclass(frozen=True)
class Passage:
    """Token ids with the text they spell; `begins` holds the character at which each token begins, and the end."""

    ids: Int[np.ndarray, " token"]
    text: str
    begins: list[int]

    @cached_property
    def token_at(self) -> dict[int, int]:
        """The token that begins at a character."""
        return {begin: i for i, begin in enumerate(self.begins)}

    def blank(self, index: int) -> bool:
        """Whether a token is white space alone: an answer that says nothing."""
        return self.text[self.begins[index] : self.begins[index + 1]].isspace()

    def tokens(self, span: Span) -> Span:
        """First token and one past the last that overlap the characters."""
        first = int(np.searchsorted(self.begins, span[0], "right")) - 1
        return first, max(first + 1, int(np.searchsorted(self.begins, span[1], "left")))


def passage(ids: Int[np.ndarray, " token"], texts: Sequence[str]) -> Passage:
    """A passage from ids and the texts of the vocabulary."""
    parts = [texts[i] for i in ids.tolist()]
    return Passage(ids, "".join(parts), [0, *accumulate(map(len, parts))])


Find = Callable[[Passage], list[Trigger]]


_NAME = re.compile(r"(?<=[\w,;)]) [A-Z][a-z]{2,}(?!\w)")
_PLAIN = {*FUNCTION_WORDS, *CALENDAR, *(word.lower() for word in KEYWORDS)}


def people(read: Passage) -> list[Trigger]:
    """Triggers of the indirect-object task."""
    named = [
        (name[0], read.token_at[name.start()])
        for name in _NAME.finditer(read.text)
        if name.start() in read.token_at and name.end() in read.token_at and name[0][1:].lower() not in _PLAIN
    ]
    groups = [_people_at(read, named[i - 3 : i + 1]) for i in range(3, len(named))]
    return [group for group in groups if group is not None]


def _people_at(read: Passage, named: Sequence[tuple[str, int]]) -> Trigger | None:
    """The trigger of three names and the one that follows them, if they make one."""
    *before, (due, end) = named
    words = [word for word, _ in before]
    answers = [i for i in range(2) if words[i] != words[2]]
    if len(answers) != 1 or due not in words or end - before[0][1] > LOOK_BACK:
        return None
    single = before[answers[0]]
    spans = {"IO": single, "S1": before[1 - answers[0]], "S2": before[2]}
    roles = tuple((name, _of_word(read, word, first)) for name, (word, first) in spans.items())
    answer, wrong = int(read.ids[single[1]]), int(read.ids[before[2][1]])
    if answer == wrong or read.blank(single[1]) or roles[2][1][1] >= end:
        return None
    both = dict(roles)
    changes = {
        "abc": ((both["S2"],), False),
        "swapped": ((both["S2"],), True),
        "s_only": ((both["S1"], both["S2"]), False),
        "io_only": ((both["IO"],), False),
    }
    start = max(0, end - LOOK_BACK)
    return Trigger(start, end - 1, answer, (wrong,), due == single[0], roles, changes)


def _of_word(read: Passage, word: str, first: int) -> Span:
    return first, read.tokens((read.begins[first], read.begins[first] + len(word)))[1]


_DEF = re.compile(r"\bdef \w+\(([^()]*(?:\([^()]*\)[^()]*)*)\)")
_PARAM = re.compile(r":param (\w+)")


def code(read: Passage) -> list[Trigger]:
    """Triggers of the docstring task."""
    if ":param " not in read.text:
        return []
    functions = list(_DEF.finditer(read.text))
    occurrences = []
    for param in _PARAM.finditer(read.text):
        above = [function for function in functions if function.end() <= param.start()]
        occurrences.append(_code_at(read, above[-1], param) if above else None)
    return [trigger for trigger in occurrences if trigger is not None]


def _code_at(read: Passage, function: re.Match[str], param: re.Match[str]) -> Trigger | None:
    """The trigger before the name of `param`, if it is the argument that comes next and words fall on tokens."""
    listed = _arguments(function)
    done = [m[1] for m in _PARAM.finditer(read.text, function.end(), param.start())]
    names = [name for name, _ in listed]
    due = names.index(done[-1]) + 1 if done and done[-1] in names else 0
    if due >= len(listed) or names[due] != param[1] or len(listed) <= 1:
        return None
    end = read.token_at.get(param.start(1) - 1)
    start = read.tokens(function.span())[0]
    spans = [read.tokens(span) for _, span in listed]
    if end is None or end - start > LONGEST:
        return None
    answer, distractors = int(read.ids[end]), [int(read.ids[first]) for i, (first, _) in enumerate(spans) if i != due]
    if answer in distractors or read.blank(end):
        return None
    roles = (("A_def", spans[due]), ("param", (end - 1, end)))
    changes = {"answer": ((spans[due],), False), "arguments": (tuple(spans), False)}
    return Trigger(
        start, end - 1, answer, tuple(dict.fromkeys(distractors)), follows=True, roles=roles, changes=changes
    )


def _arguments(function: re.Match[str]) -> list[tuple[str, Span]]:
    """Names in a signature with their characters, `self` and marks left out."""
    spans, at = [], function.start(1)
    for part in re.split(r",", function[1]):
        name = re.match(r"\s*\*{0,2}(\w+)", part)
        if name and name[1] not in SKIPPED:
            spans.append((name[1], (at + name.start(1), at + name.end(1))))
        at += len(part) + 1
    return spans


def repeated(read: Passage) -> list[Trigger]:
    """Triggers of induction in text: the last two tokens stood together before, and what followed then follows now."""
    ids = read.ids
    seen: dict[tuple[int, int], int] = {}
    occurrences = []
    for i in range(1, len(ids) - 1):
        key = (int(ids[i - 1]), int(ids[i]))
        copy = seen.get(key)
        seen[key] = i
        if copy is not None and i - copy <= LOOK_BACK and ids[copy + 1] == ids[i + 1] and copy + 1 < i - 1:
            occurrences.append(_repeated_at(ids, copy, i))
    return [trigger for trigger in occurrences if trigger is not None]


def _repeated_at(ids: Int[np.ndarray, " token"], copy: int, end: int) -> Trigger | None:
    between = dict.fromkeys(int(i) for i in ids[copy + 2 : end - 1] if i != ids[end + 1])
    if not between:
        return None
    roles = (("first", (copy, copy + 1)), ("copied", (copy + 1, copy + 2)), ("second", (end, end + 1)))
    changes: dict[str, tuple[tuple[tuple[int, int], ...], bool]] = {
        "first": (((copy, copy + 1),), False),
        "second": (((end, end + 1),), False),
    }
    start = max(0, copy - 1)
    return Trigger(start, end, int(ids[end + 1]), tuple(between), follows=True, roles=roles, changes=changes)


FINDERS: dict[str, Find] = {"ioi": people, "docstring": code, "repeated-tokens": repeated}
"""Per task, how its triggers are found; a task that is not here has no distribution of natural text."""


def pieces(task: str, text: str) -> Iterator[str]:
    """Parts of a document worth cutting into tokens: each ends in a place that may follow a trigger."""
    if task == "docstring":
        yield from (text,) if ":param " in text else ()
    elif task == "ioi":
        named = [name for name in _NAME.finditer(text) if name[0][1:].lower() not in _PLAIN]
        for i in range(3, len(named)):
            first, words = named[i - 3], [name[0] for name in named[i - 3 : i]]
            near = named[i].start() - first.start() < FAR
            if (
                near
                and len(set(words)) == len(words) - 1
                and words[0] != words[1]
                and words[2] in words[:2]
                and named[i][0] in words
            ):
                yield text[max(0, first.start() - CONTEXT) : named[i].end() + 1]
    else:
        yield text[:FAR]


Pool = dict[int, list[tuple[int, ...]]]
"""Words to put in, by their number of tokens."""


def pool_of(words: Iterable[tuple[int, ...]]) -> Pool:
    """A pool of words given as ids."""
    pool: Pool = {}
    for word in dict.fromkeys(words):
        pool.setdefault(len(word), []).append(word)
    return pool


def pair_of(
    trigger: Trigger,
    ids: Int[np.ndarray, " token"],
    task: str,
    scheme: str,
    pool: Pool,
    rng: random.Random,
    document: str,
) -> Pair | None:
    """The pair of a trigger; None where the scheme has no change that this text can be given at the same length.

    Args:
        pool: words to put in.
        document: where the ids come from: the unit of intervals.
    """
    spans, to_answer = trigger.changes.get(scheme, ((), False))
    corrupted = ids.copy()
    drawn: dict[tuple[int, ...], tuple[int, ...]] = {}
    for first, last in spans:
        word = tuple(ids[first:last].tolist())
        new = drawn.get(word) or _other_word(trigger, ids, word, pool, rng, to_answer=to_answer)
        if new is None:
            return None
        drawn[word] = new
        corrupted[first:last] = new
    if not spans:
        return None
    roles = tuple(
        (role, (a - trigger.start, b - trigger.start)) for role, (a, b) in trigger.roles if a >= trigger.start
    )
    clean, changed = (tuple(row[trigger.start : trigger.end + 1].tolist()) for row in (ids, corrupted))
    strata = (("document", document), ("follows", "answer" if trigger.follows else "distractor"))
    return Pair(
        f"{document}:{trigger.end}",
        task,
        scheme,
        clean,
        changed,
        (trigger.answer,),
        trigger.distractors,
        roles,
        "natural",
        strata,
        "train",
        to_answer,
    )


def _other_word(
    trigger: Trigger, ids: np.ndarray, word: tuple[int, ...], pool: Pool, rng: random.Random, *, to_answer: bool
) -> tuple[int, ...] | None:
    """The answer's own word, or one of the pool that begins like neither answer nor distractor; of the same length."""
    if to_answer:
        first, last = dict(trigger.roles)["IO"]
        return tuple(ids[first:last].tolist()) if last - first == len(word) else None
    own = {trigger.answer, *trigger.distractors}
    words = [other for other in pool.get(len(word), ()) if other[0] not in own and other != word]
    return rng.choice(words) if words else None
