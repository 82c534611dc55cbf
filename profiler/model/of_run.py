"""The model of a run, loaded for every command that runs it again. What is loaded and what may run is the caller's word
alone.

A run file is a stranger's: the name of the model that stands in it is a wish. It is followed without asking only where
that can do no harm: the bundled model; a hub name, or a local directory that holds the very weights and tokenizer that
the run was recorded from; safetensors, no code that comes with the model. Anything else is named by whoever gives the
command (`Choice`). Settings that only change numbers (dtype, length of windows, BOS) are the run's.

Cost: that of loading a model.
"""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from profiler.config import ModelSettings
from profiler.database import query
from profiler.errors import DictionaryError, ModelError
from profiler.model import files
from profiler.model.load import Model, describe, load_model

HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
NUMBERS = ("dtype", "context_length", "prepend_bos")
"""Settings of a run that its model is loaded with again."""
HALF = ("bfloat16", "float16")
FACTS = "SELECT model, model_hash, tokenizer_hash, config FROM runs"


@dataclass(frozen=True)
class Choice:
    """What a command was told of the model to load.

    Attributes:
        model: bundled, a hub name or a directory; None takes the run's, if that is safe.
        trust_remote_code: code that comes with the model may be run.
        allow_pickle: weights that are not safetensors may be loaded; they can run code.
        device: cpu, cuda, mps.
    """

    model: str | None = None
    trust_remote_code: bool = False
    allow_pickle: bool = False
    device: str = "cpu"


def load_for(run: Path, choice: Choice, *, full_precision: bool = False) -> Model:
    """The model of a run, with the run's dtype, length of windows and BOS, checked to be the one it was recorded from.

    Args:
        full_precision: of a run in half precision the same checkpoint in float32, for patching: differences between
            forward passes drown in the rounding of half precision. Its hash is that of the run's weights.

    Raises:
        RunError: no finished run.
        ModelError: the run's model may not be loaded unasked, cannot be loaded, or is another one than the run's.
    """
    row = query.run(run, FACTS).row(0, named=True)
    place = named(run, row["model"], choice)
    numbers = numbers_of(row["config"]) | base_of(run, row["config"], place)
    model = load_model(config_for(place, choice, **numbers))
    _refuse_other(run, row, model)
    if not full_precision or numbers.get("dtype") not in HALF:
        return model
    exact = load_model(config_for(place, choice, **numbers | {"dtype": "float32"}))
    return replace(exact, spec=replace(exact.spec, weights_hash=model.spec.weights_hash))


def with_dictionaries_of(run: Path, model: Model) -> Model:
    """A model with the dictionaries of a run, read where the run says that they lie; nothing of them can run.

    Raises:
        DictionaryError: one is not there, or holds something else than when the run was recorded.
    """
    row = query.run(run, "SELECT config, dictionaries FROM runs").row(0, named=True)
    try:
        asked = json.loads(row["config"])["dictionaries"]
        digests = [facts["digest"] for facts in json.loads(row["dictionaries"])]
        texts = tuple(text for text in asked if isinstance(text, str))
    except (ValueError, TypeError, KeyError):
        raise DictionaryError(f"{run} does not say which dictionaries it was recorded with: record it again") from None
    if any("=\\\\" in text or "=//" in text for text in texts):
        raise DictionaryError(f"{run} names dictionaries on another machine: copy them here and record it again")
    described = describe(model, texts)
    if [facts.digest for facts in described.spec.dictionaries] != digests:
        raise DictionaryError(
            f"a dictionary of {run} holds something else than when the run was recorded: put its files back"
        )
    return described


def refuse_other_bos(run: Path, model: Model) -> None:
    """Refuse a loaded model that puts a BOS in front where the run did not, or the other way round.

    Raises:
        ModelError: it does; the message says how to load it.
    """
    asked = numbers_of(query.run(run, FACTS).row(0, named=True)["config"]).get("prepend_bos")
    recorded = asked if asked is not None else model.tokenizer.bos_token_id is not None
    if recorded != (model.bos_id is not None):
        raise ModelError(
            f"{run} was recorded {'with' if recorded else 'without'} a BOS, and the model that was given puts"
            f" {'none' if recorded else 'one'} in front of prompts: load it with prepend_bos={recorded}, or name it"
        )


def config_for(place: str, choice: Choice, **numbers: Any) -> ModelSettings:
    """Settings that load the model at `place` with the rights of `choice`; they name no corpus."""
    return ModelSettings(
        model=place,
        device=choice.device,
        trust_remote_code=choice.trust_remote_code,
        allow_pickle=choice.allow_pickle,
        **numbers,
    )


def named(run: Path, known: str, choice: Choice) -> str:
    """What to load: what the caller names, or what the run names where that is safe.

    Raises:
        ModelError: neither; the message says what to add.
    """
    if choice.model is not None:
        return choice.model
    if choice.trust_remote_code or choice.allow_pickle:
        raise ModelError(
            f"--trust-remote-code and --allow-pickle are for a model that you name: {run} names {known!r}; if that is"
            " the one, give it with --model"
        )
    remote = known.startswith(("\\\\", "//"))
    if known == "bundled" or (known and not remote and (Path(known).is_dir() or HUB_NAME.fullmatch(known))):
        return known
    raise ModelError(
        f"{run} was recorded from {known!r}, which is no directory here and no hub name: say where the model is with"
        " --model"
    )


def numbers_of(config: str) -> dict[str, Any]:
    """Of a run's settings, those that its model is loaded with again; none where the run holds no settings."""
    try:
        given = json.loads(config)
        numbers = {name: given[name] for name in NUMBERS if name in given}
        ModelSettings(model="", **numbers)
    except (ValueError, TypeError, ValidationError):
        return {}
    return numbers


def base_of(run: Path, config: str, place: str) -> dict[str, Any]:
    """Of a run of a LoRA adapter the model that it was merged into, where loading that unasked is safe.

    Raises:
        ModelError: it is not.
    """
    try:
        base = json.loads(config).get("base")
    except (ValueError, AttributeError):
        return {}
    if not isinstance(base, str) or not files.is_adapter(place):
        return {}
    return {"base": named(run, base, Choice())}


def _refuse_other(run: Path, row: dict[str, Any], model: Model) -> None:
    if model.spec.weights_hash != row["model_hash"]:
        raise ModelError(
            f"model {model.spec.name!r} has other weights than {row['model']!r}, which {run} was recorded from: its"
            " weights are not those of the run; name the same one with --model"
        )
    if model.spec.tokenizer_hash != row["tokenizer_hash"]:
        raise ModelError(
            f"model {model.spec.name!r} has another tokenizer than {row['model']!r}, which {run} was recorded from:"
            " name the same one with --model"
        )
