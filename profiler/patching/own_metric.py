"""Which metric is meant: a built-in name, a function of a user's own file, or a callable.

A file is executed, so its name comes from whoever gives the command and never from a run or a circuit's file: these
hold the name alone, and a name is looked up among the built-in ones only.

    def margin(logits, options):  # margin.py, asked for as --metric margin.py:margin
        "Logit of the best answer above the best distractor, one number per prompt."
        best = logits.gather(-1, options.answers).amax(-1)
        return best - logits.gather(-1, options.distractors).amax(-1)

`logits` is [prompt, vocab] at the answer's position; `options` has answers and distractors as token ids [prompt,
option], padded by repeats of the first (`answer_weight` is 0 there), and `reference`, the clean run's logits. Larger
must be better. Cost: one import.
"""

import hashlib
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from profiler.errors import PairError, ProfilerError
from profiler.model.steps.network import Logits
from profiler.patching.metrics import BUILT_IN, Metric, Options

FORM = "write a function of (logits, options) that returns one finite number per prompt, larger for better"
HASH_BYTES = 4


def find(asked: "str | Metric | Callable[..., Any]") -> Metric:
    """The metric that is asked for: a name, FILE.py:FUNCTION (the file is executed), a callable, or a metric.

    Raises:
        PairError: there is no such metric, or the file cannot be executed or lacks the function.
    """
    if isinstance(asked, Metric):
        return asked
    if not isinstance(asked, str):
        return _own(_name_of(asked), asked)
    if asked in BUILT_IN:
        return BUILT_IN[asked]
    file, colon, name = asked.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise PairError(f"metric {asked!r} is unknown: choose {', '.join(BUILT_IN)}, or name FILE.py:FUNCTION")
    return _own(f"{Path(file).name}:{name}#{_digest(_source(file))}", _function(file, name))


def known(name: str) -> Metric | None:
    """The built-in metric of a name that a run or a circuit's file holds; None for a function of somebody's own."""
    return BUILT_IN.get(name)


def _source(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise PairError(f"the metric's file {file} cannot be read ({error.strerror}): check the path") from None


def _function(file: str, name: str) -> Callable[..., Any]:
    spec = importlib.util.spec_from_file_location(f"own_metric_{Path(file).stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's file raises
        raise PairError(f"the metric's file {file} cannot be executed ({_told(error)}): correct it") from None
    function = getattr(module, name, None)
    if not callable(function):
        known = ", ".join(k for k, v in vars(module).items() if inspect.isfunction(v)) or "none"
        raise PairError(f"{file} has no function {name!r} (it has {known}): name a function of it, as {file}:margin")
    return function  # type: ignore[no-any-return]


def _name_of(function: Callable[..., Any]) -> str:
    """Module and name of a callable, with a hash of its source where that can be read."""
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__name__)}"
    try:
        return f"{name}#{_digest(inspect.getsource(function).encode())}"
    except (OSError, TypeError):
        return name


def _digest(source: bytes) -> str:
    return hashlib.blake2b(source, digest_size=HASH_BYTES).hexdigest()


def _own(name: str, function: Callable[..., Any]) -> Metric:
    def of(logits: Logits, options: Options) -> Tensor:
        try:
            values = function(logits, options)
        except ProfilerError:
            raise
        except Exception as error:  # whatever the user's function raises
            raise PairError(f"metric {name} failed ({_told(error)}): {FORM}") from None
        if not isinstance(values, Tensor) or values.shape != logits.shape[:1]:
            shape = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise PairError(f"metric {name} returned {shape} for {len(logits)} prompts: {FORM}")
        if not bool(torch.isfinite(values).all()):
            raise PairError(f"metric {name} returned a number that is not finite: {FORM}")
        return values.to(logits.dtype)

    return Metric(name, name.partition("#")[0], "its own unit", of, compares=True, is_flat=None)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
