"""A checkpoint read whole or refused by name: what transformers only warns about is an error here, or a note of the
run.

A tensor that a checkpoint lacks is random after loading, another each time, and all numbers of a run follow from it. So
the loading report is read for every model: missing, unexpected and misshapen tensors are refused with their names, and
so are adapters, quantised weights, NaN and infinity. Tied tensors are not missing, and causal masks and other buffers
that old checkpoints hold are not unexpected: the network computes them. What may be meant, or was asked for, is noted:
weights stored in a wider dtype than the one they are read in, fields of `config.json` that nothing declares, embeddings
that are tied by the settings and not by the weights.

Cost: the loading itself, one look at each value, and the headers of the weight files.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.utils.hub import cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from profiler.errors import ModelError
from profiler.text.token_classes import ordinary_ids

SHOWN = 4
COMPUTED = re.compile(r"\.attn(\.attention)?\.(bias|masked_bias|causal_mask)$|\.inv_freq$")
"""Causal masks (GPT-J, GPT-Neo, CodeGen) and rotary frequencies of older checkpoints: every network computes them."""
STORED = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
WITHOUT_MEANING = {"model_type", "auto_map", "task_specific_params", "gradient_checkpointing"}
"""Names in `config.json` that are no setting of a network."""


def read_network(
    name: str,
    place: str,
    dtype: torch.dtype,
    *,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    **options: Any,
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """The network of a checkpoint, every tensor of it from there, and what is to be said of it.

    Args:
        name: what the user calls it.
        place: a directory or a name on the hub.
        dtype: what the weights are read in.
        options: what else `from_pretrained` takes.

    Raises:
        ModelError: it cannot be loaded, or not whole: the tensors are named.
    """
    _refuse_adapter(name, place)
    settings = _attempt(name, lambda: AutoConfig.from_pretrained(place, trust_remote_code=trust_remote_code))
    _refuse_quantised(name, settings)
    format_ = {} if allow_pickle else {"use_safetensors": True}
    network, report = _attempt(
        name,
        lambda: AutoModelForCausalLM.from_pretrained(
            place,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **format_,
            **options,
        ),
    )
    _refuse_partial(name, network, report)
    _refuse_not_finite(name, network, dtype)
    return network, _attempt(name, lambda: tuple(_notes(place, network, dtype)))


def read_tokenizer(name: str, place: str, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a checkpoint.

    Raises:
        ModelError: there is none, or it knows no token of a text.
    """
    tokenizer = _attempt(name, lambda: AutoTokenizer.from_pretrained(place, trust_remote_code=trust_remote_code))
    if not _attempt(name, lambda: ordinary_ids(tokenizer)):
        raise ModelError(
            f"the tokenizer of {name!r} has no tokens but its special ones: its files are missing, and transformers"
            " made an empty tokenizer from config.json; put tokenizer.json and tokenizer_config.json beside the"
            " weights"
        )
    return tokenizer


def _attempt(name: str, load: Callable[[], Any]) -> Any:
    """What `load` gives, its many failures turned into one sentence."""
    try:
        return load()
    except ModelError:
        raise
    except BaseException as error:  # whatever a library says of a stranger's files, and a panic of the tokenizers' Rust
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"model {name!r} cannot be loaded: {reason} Give `bundled`, a Hugging Face name, or a local directory "
            "with config.json, model.safetensors and tokenizer files"
        ) from error


def _refuse_adapter(name: str, place: str) -> None:
    found = _attempt(name, lambda: find_adapter_config_file(place))
    if found is not None:
        base = _attempt(name, lambda: json.loads(Path(found).read_text(encoding="utf-8"))["base_model_name_or_path"])
        raise ModelError(
            f"model {name!r} holds an adapter (adapter_config.json) for {base!r}, which would be left out or put on top"
            " without a word: merge it into the weights (peft: `merge_and_unload`), save the result, and name that; or"
            " name the model without it"
        )


def _refuse_quantised(name: str, settings: PreTrainedConfig) -> None:
    parts = (settings, settings.get_text_config())
    given = next((q for part in parts if (q := getattr(part, "quantization_config", None))), None)
    if given is not None:
        how = given if isinstance(given, dict) else given.to_dict()
        raise ModelError(
            f"the weights of {name!r} are quantised ({how.get('quant_method', 'method unknown')}): they are no matrices"
            " that can be read; name the checkpoint that was not quantised, or dequantise and save it"
        )


def _refuse_partial(name: str, network: PreTrainedModel, report: Mapping[str, Collection[Any]]) -> None:
    """Refuse what was not read from the checkpoint, and what in it was not read.

    Args:
        report: transformers' loading report: missing_keys, unexpected_keys, mismatched_keys.
    """
    buffers = [f".{key}" for key, _ in network.named_buffers()]

    def computed(key: str) -> bool:
        return bool(COMPUTED.search(key)) or any(buffer.endswith(f".{key}") for buffer in buffers)

    unexpected = sorted(key for key in report["unexpected_keys"] if not computed(key))
    missing = sorted(report["missing_keys"])
    shapes = [
        f"{key} ({list(stored)} in the checkpoint, {list(wanted)} in the model)"
        for key, stored, wanted in sorted(report["mismatched_keys"])
    ]
    found = [
        f"{len(names)} {'is' if len(names) == 1 else 'are'} {what}: {_listed(names)}"
        for names, what in (
            (missing, "missing from the checkpoint"),
            (unexpected, f"in the checkpoint and not in {type(network).__name__}"),
            (shapes, "of another shape"),
        )
        if names
    ]
    if found:
        raise ModelError(
            f"model {name!r} is not read whole: of the {len(network.state_dict())} tensors of {type(network).__name__},"
            f" {'; '.join(found)}. {_advice([*missing, *shapes], unexpected)}"
        )


def _listed(names: Collection[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join([*list(names)[:SHOWN], *([f"and {more} more"] if more > 0 else [])])


def _advice(missing: list[str], unexpected: list[str]) -> str:
    """What to do about tensors that are not there, and others that are."""
    prefixes = [other.removesuffix(key) for other in unexpected for key in missing if other.endswith(key)]
    prefix = min(prefixes, key=len, default="")
    if prefix and all(key.startswith(prefix) for key in unexpected):
        return (
            f"What is missing is there with {prefix!r} before its name: take that off all names, and save the file"
            " again"
        )
    if unexpected and not missing:
        return (
            "Take the unexpected tensors out of the file if the model is meant without them, or name the code that"
            " reads them"
        )
    return (
        "These would be random, and all numbers with them: save the model again with `save_pretrained`, or name a whole"
        " checkpoint"
    )


def _refuse_not_finite(name: str, network: PreTrainedModel, dtype: torch.dtype) -> None:
    bad = {key: n for key, value in network.named_parameters() if (n := int((~value.isfinite()).sum()))}
    if bad:
        narrow = dtype in (torch.float16, torch.bfloat16)
        wider = f", or values are too large for {_short(dtype)}: try --dtype float32" if narrow else ""
        raise ModelError(
            f"the weights of {name!r} hold NaN or infinity: {sum(bad.values()):,} values in {len(bad)} of its tensors,"
            f" {_listed([f'{key} ({n:,})' for key, n in bad.items()])}: the file is damaged or its training"
            f" diverged{wider}"
        )


def _notes(place: str, network: PreTrainedModel, dtype: torch.dtype) -> Iterator[str]:
    """Sentences about what transformers passes over."""
    stored: set[Any] = {*stored_dtypes(place)} or {network.config.dtype}
    lost = sorted(_short(d) for d in stored if d is not None and torch.promote_types(d, dtype) != dtype)
    if lost:
        yield (
            f"weights stored as {' and '.join(lost)} are rounded to {_short(dtype)}; --dtype {lost[-1]} keeps them as"
            " they are"
        )
    if unknown := unknown_fields(network.config):
        yield (
            f"fields of config.json that {type(network.config).__name__} does not declare: {_listed(unknown)}; a"
            " misspelt one changes nothing"
        )
    inside, outside = network.get_input_embeddings(), network.get_output_embeddings()
    tied = getattr(network.config.get_text_config(), "tie_word_embeddings", False)
    if (
        tied
        and inside is not None
        and outside is not None
        and inside.get_parameter("weight").data_ptr() != outside.get_parameter("weight").data_ptr()
    ):
        yield (
            "config.json ties the embeddings to the unembedding, the checkpoint holds two different matrices: they are"
            " read as stored"
        )


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def unknown_fields(settings: PreTrainedConfig) -> list[str]:
    """Fields of a `config.json` that the class of its settings does not declare; none where that cannot be told."""
    if not dataclasses.is_dataclass(settings):
        return []
    try:
        set_by_code = set(vars(type(settings)()))
    except (TypeError, ValueError):
        set_by_code = set()
    declared = {field.name for field in dataclasses.fields(settings)} | set(settings.attribute_map)
    known = declared | set_by_code | WITHOUT_MEANING
    return sorted(key for key in vars(settings) if key not in known and not key.startswith("_"))


def stored_dtypes(place: str) -> set[torch.dtype]:
    """Floating dtypes of the tensors in the weight files of a directory or a hub name; empty where they are no
    safetensors."""
    found = set()
    for file in _weight_files(place):
        with safe_open(file, framework="pt") as tensors:
            found |= {tensors.get_slice(key).get_dtype() for key in tensors.keys()}  # noqa: SIM118 (no mapping)
    return {STORED[dtype] for dtype in found if dtype in STORED}


def _weight_files(place: str) -> Iterable[str]:

    def find(file: str) -> str | None:
        found: str | None = cached_file(place, file, _raise_exceptions_for_missing_entries=False)
        return found

    if whole := find("model.safetensors"):
        return [whole]
    if index := find("model.safetensors.index.json"):
        shards = set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values())
        return [str(Path(index).parent / shard) for shard in sorted(shards)]
    return []
