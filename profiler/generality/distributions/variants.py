"""Distributions of prompts written from templates: other names, other wordings, and harder forms of the question.

Why: the nearest steps away from the discovery prompts say most about why a circuit stops working. DoubleIO and TripleIO
(one and two more mentions of the answer) are those of Nainani et al. 2024, "Adaptive circuit behavior and
generalization in mechanistic interpretability", where a circuit recovers more than all of the model: 1.29 and 2.59.

A variant changes one thing against the discovery prompts; wordings and names stay those of the discovery split, and the
corruption scheme stays the circuit's own. Docstring variants are the analogous changes in code.
Cost: microseconds a pair.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from profiler.errors import PairError
from profiler.patching.setting import PatchSettings
from profiler.prompts.pairs import Pair, find_task, make
from profiler.prompts.pairs import docstring as pair_docstring
from profiler.prompts.pairs import indirect_object as pair_indirect_object
from profiler.prompts.pairs.pair import Roles
from profiler.prompts.tasks import docstring as task_docstring
from profiler.prompts.tasks import indirect_object as task_indirect_object
from profiler.prompts.tasks import words
from profiler.prompts.tasks.prompt import Prompt, Split

Draw = Callable[[random.Random, str], Pair]
"""One random pair, from a source of choices and a name."""
HELD_OUT: Split = "held_out"
SPARE = 4
"""Pairs drawn per pair wanted where words may be cut into different numbers of tokens."""


@dataclass(frozen=True)
class Variant:
    """A distribution of prompts: its name, what it is in a sentence, and its pairs."""

    name: str
    description: str
    pairs: tuple[Pair, ...]


def variants(settings: PatchSettings, n: int, vocabulary: tuple[int, ...]) -> list[Variant]:
    """All distributions of a built-in task beyond its discovery prompts, nearest first; `n` pairs each to encode."""
    task = find_task(settings.task)
    scheme = settings.scheme or task.schemes[0]
    fresh = Variant(
        "fresh prompts",
        "new prompts of the discovery wordings and words",
        tuple(make(task.name, scheme, settings.split, n, settings.seed + 1, vocabulary)),
    )
    other = _other(settings.split)
    families = {"ioi": _people(scheme, settings.split, other), "docstring": _code(scheme, settings.split, other)}
    if task.name not in families:
        drawn = tuple(make(task.name, scheme, other, n, settings.seed + 1, vocabulary))
        return [fresh, Variant("held-out words and templates", "wordings and words that discovery did not use", drawn)]
    return [fresh, *(_drawn(settings, name, text, draw, n) for name, (text, draw) in families[task.name].items())]


def repeats(settings_seed: int, n: int, vocabulary: tuple[int, ...]) -> tuple[Pair, ...]:
    """Pairs of repeated random tokens: the question of induction, whatever the circuit's own task is; none where the
    vocabulary is too small for them."""
    task = find_task("repeated-tokens")
    try:
        return tuple(make(task.name, task.schemes[0], "train", n, settings_seed + 1, vocabulary))
    except PairError:
        return ()


def _other(split: Split) -> Split:
    """The split whose wordings and words count as held out."""
    return HELD_OUT if split != HELD_OUT else "train"


def _drawn(settings: PatchSettings, name: str, text: str, draw: Draw, n: int) -> Variant:
    rng = random.Random(f"{settings.task}/{settings.scheme}/{settings.split}/{name}/{settings.seed}")
    many = n * SPARE if name.startswith(("lower", "capital")) else n
    return Variant(name, text, tuple(draw(rng, f"{name}/{i}") for i in range(many)))


# --- the indirect-object task ---

GAP = (
    "it was a long and quiet day with rain in the morning and sun in the afternoon, and nothing much was said about"
    " it, and"
)


def _people(scheme: str, split: Split, other: Split) -> dict[str, tuple[str, Draw]]:
    """Variants of the indirect-object task."""

    def plain(templates: Split, names: Split) -> Draw:
        return lambda rng, name: _person(rng, scheme, templates, words.names(names), name)

    def between(clause: str, *, extra: bool = False) -> Draw:
        return lambda rng, name: _person(rng, scheme, split, words.names(split), name, clause, extra=extra)

    def changed(change: Callable[[str, Mapping[str, str]], str]) -> Draw:
        return lambda rng, name: _person(rng, scheme, split, words.names(split), name, change=change)

    return {
        "held-out names": ("names that discovery did not use, in its wordings", plain(split, other)),
        "held-out templates": ("wordings that discovery did not use, with its names", plain(other, split)),
        "extra mention": (
            "the answer named once more before the question (DoubleIO)",
            between("{indirect_object} was glad, and"),
        ),
        "two extra mentions": (
            "the answer named twice more (TripleIO)",
            between("{indirect_object} was glad, {indirect_object} smiled, and"),
        ),
        "distractor": ("a third person named before the question", between("{extra} was glad, and", extra=True)),
        "longer gap": ("two dozen words without a name before the question", between(GAP)),
        "word order": ("the question in the passive: a drink was given by B to", changed(_passive)),
        "lower case": (
            "the whole prompt in small letters, names too",
            lambda rng, name: _lower(_person(rng, scheme, split, words.names(split), name)),
        ),
    }


def _person(
    rng: random.Random,
    scheme: str,
    split: Split,
    names: tuple[str, ...],
    name: str,
    clause: str = "",
    change: Callable[[str, Mapping[str, str]], str] | None = None,
    *,
    extra: bool = False,
) -> Pair:
    """One pair: a prompt with a clause before the question, or changed as a text."""
    order: task_indirect_object.Order = rng.choice(("ABBA", "BABA"))
    prompt = task_indirect_object.prompt(rng, split, names=names, order=order)
    known = (prompt.role("indirect_object"), prompt.role("subject"))
    third, fourth = rng.sample([other for other in names if other not in known], 2)

    def render(filled: Mapping[str, str]) -> str:
        text = task_indirect_object.render(prompt.template, dict(filled))
        if clause:
            text = _before_question(text, clause.format(**filled, extra=fourth), filled)
        return change(text, filled) if change else text

    pair = pair_indirect_object.pair_of(prompt, scheme, third, name, render)
    pair = replace(pair, roles=(*pair.roles, *_extra(pair, known[:1] if "{indirect" in clause else (fourth,))))
    return replace(pair, distractors=(*pair.distractors, f" {fourth}")) if extra else pair


def _extra(pair: Pair, names: Sequence[str]) -> Roles:
    """Roles of the mentions that a clause put in: `extra`, `extra2`."""
    taken = {span for _, span in pair.roles}
    spans = [mention.span() for name in names for mention in re.finditer(rf" {name}\b", str(pair.clean))]
    added = [span for span in spans if span not in taken]
    return tuple((f"extra{i or ''}", span) for i, span in zip((0, 2), added, strict=False))


def _before_question(text: str, clause: str, filled: Mapping[str, str]) -> str:
    """The clause put in front of the last sentence, which begins with the subject."""
    at = text.rindex(f" {filled['subject']}")
    first = clause[0].upper() if text[at - 1] == "." else clause[0]
    return f"{text[:at]} {first}{clause[1:]}{text[at:]}"


def _passive(text: str, filled: Mapping[str, str]) -> str:
    at = text.rindex(f" {filled['subject']}")
    return f"{text[:at]} a {filled['object']} was given by {filled['subject']} to"


def _lower(pair: Pair) -> Pair:
    """All text in small letters; roles stay where they were."""

    def low(options: Sequence[str | int]) -> tuple[str, ...]:
        return tuple(str(option).lower() for option in options)

    return replace(
        pair,
        clean=str(pair.clean).lower(),
        corrupted=str(pair.corrupted).lower(),
        answers=low(pair.answers),
        distractors=low(pair.distractors),
    )


# --- the docstring task ---

DOC_GAP = "It does so step by step, and says so in the log.\nNothing is changed where nothing has to be changed.\n"
_SIGNATURE = re.compile(r"\((\w+), (.*?)\)( ->|:)")


def _code(scheme: str, split: Split, other: Split) -> dict[str, tuple[str, Draw]]:
    """Variants of the docstring task."""

    def plain(templates: Split, names: Split) -> Draw:
        return lambda rng, name: _function(rng, scheme, templates, names, name)

    def changed(change: Callable[[str, int], str]) -> Draw:
        return lambda rng, name: _changed(_function(rng, scheme, split, split, name), change)

    return {
        "held-out names": ("argument names that discovery did not use, in its wordings", plain(split, other)),
        "held-out templates": ("wordings that discovery did not use, with its argument names", plain(other, split)),
        "extra mention": ("the answer named in the summary too", changed(lambda text, i: _mention(text, i))),
        "distractor": (
            "the argument after the answer (or the one before it) named in the summary",
            changed(_mention_other),
        ),
        "longer gap": ("two more lines between summary and arguments", changed(_longer)),
        "annotations": ("a type and a default value after each argument in the signature", changed(_annotated)),
        "word order": (
            "described with @param in place of :param",
            changed(lambda text, _: text.replace(":param", "@param")),
        ),
        "capital letters": (
            "argument names begin with a capital",
            lambda rng, name: _capitals(_function(rng, scheme, split, split, name)),
        ),
    }


def _function(rng: random.Random, scheme: str, templates: Split, names: Split, name: str) -> Pair:
    pool = words.arguments(names)
    draw: Callable[[], Prompt] = lambda: task_docstring.prompt(rng, templates, arguments=pool)  # noqa: E731
    return pair_docstring.pair_of(rng, scheme, draw, pool, name)


def _changed(pair: Pair, change: Callable[[str, int], str]) -> Pair:
    """Both prompts changed alike; `change` gets a text and the place of the asked argument in the signature."""
    asked = int(pair.stratum("described") or 0)
    clean, corrupted = (change(str(text), asked) for text in (pair.clean, pair.corrupted))
    return replace(pair, clean=clean, corrupted=corrupted, roles=_roles(clean, asked))


def _roles(text: str, asked: int) -> Roles:
    """The roles of docstring pairs (`profiler.prompts.pairs.docstring`), found in a changed text."""
    matches = [re.search(rf"[ (]{name}\b", text) for name in _listed(text)[asked - 1 : asked + 1]]
    before, answer = ((match.start(), match.end()) for match in matches if match)
    line = [match.span() for match in re.finditer(r"[:@]param", text)][-2]
    name = re.compile(r" \w+").match(text, line[1])
    spans = {"A_def": answer, "B_def": before, "B_doc": name.span() if name else line, "param": line}
    return tuple(spans.items())


def _listed(text: str) -> list[str]:
    """Argument names in the signature, the first (self) left out."""
    return re.findall(r"(\w+)(?:: int = 0)?(?:, |$)", _SIGNATURE.search(text)[2])  # type: ignore[index]


def _mention(text: str, which: int) -> str:
    """The summary says `Uses X.`, X being an argument of the text's own signature."""
    at = text.index(".\n", text.index('"""'))
    return f"{text[:at]}. Uses {_listed(text)[which]}{text[at:]}"


def _mention_other(text: str, asked: int) -> str:
    return _mention(text, asked + 1 if asked + 1 < len(_listed(text)) else asked - 1)


def _longer(text: str, _asked: int) -> str:
    """Lines after the summary, at the docstring's own margin."""
    margin = re.search(r"\n( *):param", text)[1]  # type: ignore[index]
    at = text.index(".\n", text.index('"""')) + 2
    return text[:at] + "".join(f"{margin}{line}\n" for line in DOC_GAP.splitlines()) + text[at:]


def _annotated(text: str, _asked: int) -> str:
    match = _SIGNATURE.search(text)
    listed = ", ".join(f"{name}: int = 0" for name in _listed(text))
    return f"{text[: match.start(2)]}{listed}{text[match.end(2) :]}"  # type: ignore[union-attr]


def _capitals(pair: Pair) -> Pair:
    """Every argument of both signatures with a capital, wherever it stands as an argument."""
    both = [_capital_text(str(text)) for text in (pair.clean, pair.corrupted)]

    def up(options: Sequence[str | int]) -> tuple[str, ...]:
        return tuple(f" {str(option).strip().capitalize()}" for option in options)

    roles = _roles(both[0], int(pair.stratum("described") or 0))
    return replace(
        pair, clean=both[0], corrupted=both[1], answers=up(pair.answers), distractors=up(pair.distractors), roles=roles
    )


def _capital_text(text: str) -> str:
    match = _SIGNATURE.search(text)
    listed = ", ".join(name.capitalize() for name in _listed(text))
    text = f"{text[: match.start(2)]}{listed}{text[match.end(2) :]}"  # type: ignore[union-attr]
    return re.sub(r":param (\w+):", lambda param: f":param {param[1].capitalize()}:", text)
