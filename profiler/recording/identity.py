"""What makes two pieces of work parts of one run: settings, weights, tokenizer, version; and how two of them differ."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from profiler.config import FREE, OF_FILES, RunConfig
from profiler.model.components import ModelSpec
from profiler.recording.selection import sized

Identity = dict[str, Any]


def settings(config: RunConfig, spec: ModelSpec) -> RunConfig:
    """The settings as a run keeps them: with the context length that the model gave, and the numbers of rows that
    follow from its components."""
    return sized(config, spec).model_copy(update={"context_length": spec.context_length})


def of_config(config: RunConfig, spec: ModelSpec) -> Identity:
    """The identity of a pass that is to be made."""
    of_model = {
        "weights": spec.weights_hash,
        "tokenizer": spec.tokenizer_hash,
        "dictionary files": [facts.digest for facts in spec.dictionaries],
    }
    return _identity(settings(config, spec).model_dump(mode="json"), of_model, version("generality-profiler"))


def of_run(row: Mapping[str, Any]) -> Identity:
    """The identity of a finished run, from its row of table `runs`.

    Raises:
        ValueError, KeyError: the row holds no settings.
    """
    of_model = {
        "weights": row["model_hash"],
        "tokenizer": row["tokenizer_hash"],
        "dictionary files": [facts["digest"] for facts in json.loads(row["dictionaries"] or "[]")],
    }
    given = RunConfig(**json.loads(row["config"])).model_dump(mode="json")
    return _identity(given, of_model, json.loads(row["versions"]).get("profiler"))


def _identity(given: dict[str, Any], of_model: dict[str, Any], profiler: str | None) -> Identity:
    # where dictionaries lie changes nothing: their digests are compared
    return (
        {name: value for name, value in given.items() if name not in (*FREE, *OF_FILES)}
        | of_model
        | {"profiler": profiler}
    )


def differences(first: Identity, other: Identity, leave_out: tuple[str, ...] = ()) -> list[str]:
    """Each setting in which they differ, as a phrase: `dtype float32 here, float64 there`."""
    names = [name for name in {**first, **other} if name not in leave_out and first.get(name) != other.get(name)]
    return [f"{name} {_shown(first.get(name))} here, {_shown(other.get(name))} there" for name in names]


def _shown(value: Any) -> str:
    return "none" if value is None else " ".join(map(str, value)) if isinstance(value, list) else str(value)
