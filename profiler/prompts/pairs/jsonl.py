"""Pairs as JSON lines: one object a line, so that a user's own pairs can be read and ours be looked at.

    {"clean": "When Mary and John ... John gave a drink to", "corrupted": "... Mary gave a drink to",
     "answer": " Mary", "distractors": [" John"], "roles": {"S2": [43, 47]}}

`answer` may be a list; `roles` map a name to characters [first, last + 1] of the clean prompt, or to a word of it.
Prompts and continuations may be token ids. Everything else (`name`, `task`, `scheme`, `template`, `strata`, `split`,
`symmetric`) is optional. Cost: none.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from profiler.errors import PairError
from profiler.prompts.pairs import foreign
from profiler.prompts.pairs.pair import Pair, Prompt, Roles, spans_of

REQUIRED = ("clean", "corrupted", "answer", "distractors")
OPTIONAL = ("name", "task", "scheme", "roles", "template", "strata", "split", "symmetric")


def read(path: str | Path) -> list[Pair]:
    """The pairs of a file.

    Raises:
        PairError: the file cannot be read, or a line is no pair; the line and what is missing are named.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PairError(f"the pair file {path} cannot be read ({error}): give a .jsonl with one pair a line") from None
    pairs = [pair_of(_object(line, f"{path.name}:{i}"), f"{path.name}:{i}") for i, line in _filled(lines)]
    if not pairs:
        raise PairError(f"the pair file {path} holds no pair: write one JSON object a line with {', '.join(REQUIRED)}")
    return pairs


def write(path: str | Path, pairs: Iterable[Pair]) -> None:
    """Write pairs, one a line."""
    text = "".join(json.dumps(object_of(pair), ensure_ascii=False) + "\n" for pair in pairs)
    Path(path).write_text(text, encoding="utf-8")


def object_of(pair: Pair) -> dict[str, Any]:
    """The JSON object of a pair."""
    answer = pair.answers[0] if len(pair.answers) == 1 else pair.answers
    return {
        "name": pair.name,
        "task": pair.task,
        "scheme": pair.scheme,
        "clean": pair.clean,
        "corrupted": pair.corrupted,
        "answer": answer,
        "distractors": pair.distractors,
        "roles": dict(pair.roles),
        "template": pair.template,
        "strata": dict(pair.strata),
        "split": pair.split,
        "symmetric": pair.symmetric,
    }


def pair_of(value: dict[str, Any], name: str) -> Pair:
    """The pair of a JSON object, ours or of feature-circuits; `name` is used in errors and where it has no name.

    Raises:
        PairError: a field is missing, unknown, or of the wrong type.
    """
    if foreign.is_feature_circuits(value):
        return foreign.of_feature_circuits(value, name)
    missing = [field for field in REQUIRED if field not in value]
    unknown = [field for field in value if field not in REQUIRED + OPTIONAL]
    if missing or unknown:
        fault = f"lacks {', '.join(missing)}" if missing else f"has unknown {', '.join(unknown)}"
        raise PairError(
            f"pair {value.get('name', name)!r} {fault}: a pair has {', '.join(REQUIRED)} and may have "
            f"{', '.join(OPTIONAL)}"
        )
    name = str(value.get("name", name))
    clean = _prompt(value["clean"], name)
    answer = value["answer"] if isinstance(value["answer"], list) else [value["answer"]]
    return Pair(
        name=name,
        task=str(value.get("task", "own")),
        scheme=str(value.get("scheme", "own")),
        clean=clean,
        corrupted=_prompt(value["corrupted"], name),
        answers=_options(answer, name),
        distractors=_options(value["distractors"], name),
        roles=_roles(value.get("roles", {}), clean, name),
        template=str(value.get("template", "")),
        strata=tuple((str(k), str(v)) for k, v in _mapping(value.get("strata", {}), name).items()),
        split=value.get("split", "train"),
        symmetric=bool(value.get("symmetric", False)),
    )


def _filled(lines: list[str]) -> Iterator[tuple[int, str]]:
    return ((i, line) for i, line in enumerate(lines, 1) if line.strip())


def _object(line: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise PairError(f"{name} is no JSON ({error.msg}): write one object a line") from None
    return _mapping(value, name)


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PairError(f"pair {name!r}: {value!r} is no JSON object: write names and values in braces")
    return value


def _prompt(value: Any, name: str) -> Prompt:
    if isinstance(value, list) and all(isinstance(i, int) for i in value):
        return tuple(value)
    if not isinstance(value, str) or not value:
        raise PairError(f"pair {name!r}: prompt {value!r} is neither a text nor a list of token ids: give one of them")
    return value


def _options(values: Any, name: str) -> tuple[str | int, ...]:
    if not isinstance(values, list) or not values or not all(isinstance(v, str | int) for v in values):
        raise PairError(f"pair {name!r}: {values!r} is no list of continuations: give texts or token ids")
    return tuple(values)


def _roles(value: Any, clean: Prompt, name: str) -> Roles:
    """Spans, given as [first, last + 1] or, in a text, as a word that stands in it."""
    roles: list[tuple[str, tuple[int, int]]] = []
    for role, span in _mapping(value, name).items():
        match span:
            case str() if isinstance(clean, str):
                if span not in clean or not span:
                    raise PairError(
                        f"pair {name!r}: role {role!r} is {span!r}, which does not stand in its clean prompt: correct"
                        " it"
                    )
                roles += spans_of(clean, [(role, span, 0)])
            case [int(first), int(after)]:
                roles.append((role, (first, after)))
            case _:
                raise PairError(
                    f"pair {name!r}: role {role!r} is {span!r}: give [first, last + 1] or a word of the prompt"
                )
    return tuple(roles)
