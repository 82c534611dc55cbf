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
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils.hub import cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from profiler.errors import ModelError
from profiler.model import files
from profiler.text.token_classes import ordinary_ids

SHOWN = 4
BLOCK = 2**20  # values looked at in one go
COMPUTED = re.compile(r"\.attn(\.attention)?\.(bias|masked_bias|causal_mask)$|\.inv_freq$")
"""Causal masks (GPT-J, GPT-Neo, CodeGen) and rotary frequencies of older checkpoints: every network computes them."""
STORED = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
WITHOUT_MEANING = {"model_type", "auto_map", "task_specific_params", "gradient_checkpointing"}
"""Names in `config.json` that are no setting of a network."""
FIELD_ERROR = re.compile(
    r"Validation error for field '(?P<key>[^']+)': (?:.*?doesn't match any type in \((?P<types>.*?)\)\. Errors)?.*"
    r"expected (?P<expected>.+?), got (?P<got>\w+) \(value: (?P<value>.*)\)"
)
"""What huggingface_hub says of a field of the wrong type."""
FIELD_TYPES = {"model_type": str, "text_config": dict, "quantization_config": dict}
"""Fields that transformers reads before it checks their types."""
TYPE_NAME = re.compile(r"(\w+)'>")
OTHER_HEADS = ("Classification", "QuestionAnswering", "MultipleChoice", "ForPreTraining", "RewardModel")
"""Ends of the names of classes whose last matrix is no unembedding."""
AT_LEAST_ONE = {
    *("vocab_size", "hidden_size", "num_attention_heads", "num_hidden_layers", "max_position_embeddings"),
    *("n_embd", "d_model", "n_head", "n_heads", "n_layer", "n_layers", "n_positions", "max_seq_len"),
}
"""Sizes that every network has which has them at all, as transformers names them and as files do."""
SIZE_FIELD = re.compile(
    r"(size|dim|inner|embd|embeddings|ctx|width|rank|positions|length|channels?|heads?|layers?|experts)$|^n_|^num_"
)
REPEATED_FIELD = re.compile(r"(heads?|layers?|experts)$")
"""Fields that say how many of something are built, one after the other."""
MOST_REPEATED, MOST_SIZE = 100_000, 2**40
"""Beyond the largest network that was ever built, by far."""
TIMES_STORED, FREE_VALUES, MOST_VALUES = 4, 10**8, 10**12
"""Values that a network may have beside those of its weight files: embeddings that are tied or padded, masks; and at
most where weights are pickled, whose sizes are not known before they are loaded."""
REASON = 300  # characters of another library's message


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
    settings = read_settings(name, place, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle)
    _attempt(name, lambda: _refuse_absurd(name, place, settings, trust_remote_code=trust_remote_code))
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
    refuse_not_finite(name, network, dtype)
    return network, _attempt(name, lambda: tuple(_notes(place, network, dtype)))


def read_settings(
    name: str, place: str, *, trust_remote_code: bool = False, allow_pickle: bool = False
) -> PreTrainedConfig:
    """The settings in a `config.json`, of a model that predicts the next token.

    Raises:
        ModelError: files are missing, there is an adapter, a field is of the wrong type, hides a method, or is out of
            range; or it is another kind of model, or quantised.
    """
    files.refuse_incomplete(place, pickle=allow_pickle)
    settings: PreTrainedConfig = _attempt(
        name, lambda: _checked_settings(name, place, trust_remote_code=trust_remote_code)
    )
    return settings


def _checked_settings(name: str, place: str, *, trust_remote_code: bool) -> PreTrainedConfig:
    _refuse_adapter(name, place)
    given = files.read_json(place, "config.json")
    nested = (part for part in given.values() if isinstance(part, dict))
    for field, kind in FIELD_TYPES.items():
        if (value := given.get(field)) is not None and not isinstance(value, kind):
            raise ModelError(
                f"config.json of model {name!r}: {field} is {value!r} ({type(value).__name__}), expected"
                f" {kind.__name__}; correct it, or take the file from where the model comes from"
            )
    hiding = [key for part in (given, *nested) for key in part if _hides(key)]
    if hiding:
        raise ModelError(
            f"config.json of model {name!r} has a field {hiding[0]!r}, which is no setting and hides a part of"
            " transformers: take it out"
        )
    for part in (given, *(part for part in given.values() if isinstance(part, dict))):
        for field in AT_LEAST_ONE & part.keys():
            if isinstance(part[field], int) and part[field] < 1:
                raise ModelError(f"config.json of model {name!r}: {field} is {part[field]}, expected 1 or more")
    try:
        settings: PreTrainedConfig = AutoConfig.from_pretrained(place, trust_remote_code=trust_remote_code)
    except Exception as error:
        if said := _wrong_type(" ".join(str(error).split())):
            raise ModelError(
                f"config.json of model {name!r}: {said}; correct it, or take the file from where the model comes from"
            ) from error
        raise
    _refuse_other_tasks(name, settings)
    _refuse_out_of_range(name, settings)
    _refuse_quantised(name, settings)
    return settings


def _wrong_type(said: str) -> str | None:
    """Which field has which value and what was expected, of huggingface_hub's message; None where it says no such
    thing."""
    if (field := FIELD_ERROR.search(said)) is None:
        return None
    expected = " or ".join(TYPE_NAME.findall(field["types"] or "")) or field["expected"]
    return f"{field['key']} is {field['value']} ({field['got']}), expected {expected}"


def _hides(key: str) -> bool:
    return key.startswith("__") or callable(getattr(PreTrainedConfig, key, None))


def _refuse_other_tasks(name: str, settings: PreTrainedConfig) -> None:
    """Refuse what is no causal language model, by what its settings call it.

    Raises:
        ModelError: it is another kind of model.
    """
    architectures = getattr(settings, "architectures", None)
    named = (
        [class_name for class_name in architectures if isinstance(class_name, str)]
        if isinstance(architectures, list)
        else []
    )
    what = f"{name!r} ({', '.join(named) or type(settings).__name__})"
    if getattr(settings, "is_encoder_decoder", False):
        raise ModelError(f"{what} is an encoder-decoder: name a decoder (a causal language model)")
    if any("MaskedLM" in class_name for class_name in named):
        raise ModelError(f"{what} is a masked language model: it predicts what stands at a position; name a decoder")
    if other := next((class_name for class_name in named if class_name.endswith(OTHER_HEADS)), None):
        raise ModelError(
            f"{what} was saved with another head than an unembedding ({other}): name a causal language model"
        )
    known = type(settings) in MODEL_FOR_CAUSAL_LM_MAPPING or hasattr(settings, "auto_map")
    if not known:
        raise ModelError(
            f"{what} is no causal language model that transformers knows (model_type {settings.model_type!r}): name one"
        )


def _refuse_out_of_range(name: str, settings: PreTrainedConfig) -> None:
    """Refuse sizes that no network has.

    Raises:
        ModelError: a size is negative, or past all reason.
    """
    text = settings.get_text_config()
    for part in (settings, text):
        for field, value in vars(part).items():
            if isinstance(value, bool) or not isinstance(value, int) or not SIZE_FIELD.search(field):
                continue
            most = MOST_REPEATED if REPEATED_FIELD.search(field) else MOST_SIZE
            if not 0 <= value <= most:
                raise ModelError(
                    f"config.json of model {name!r}: {field} is {value:,}, expected 0 to {most:,}; no network is built"
                )


def _refuse_absurd(name: str, place: str, settings: PreTrainedConfig, *, trust_remote_code: bool) -> None:
    """Refuse settings that ask for a network that cannot be built, or for many times the weights there are.

    The network is built without memory for its weights first, and held against the headers of the weight files.

    Raises:
        ModelError: it cannot be built, or asks for more; or a weight file is missing, cut off or none.
    """
    stored = files.stored_tensors(map(Path, _weight_files(place)), place)
    layers = getattr(settings.get_text_config(), "num_hidden_layers", None)
    if stored and isinstance(layers, int) and layers > len(stored):
        raise ModelError(
            f"config.json of model {name!r} asks for {layers:,} layers, and its weight files hold {len(stored):,}"
            " tensors: one of them belongs to another model"
        )
    try:
        planned = _planned(settings, trust_remote_code=trust_remote_code)
    except Exception as error:
        key = _guilty(settings, files.read_json(place, "config.json"), trust_remote_code=trust_remote_code)
        at_fault = f" its field {key!r} is at fault;" if key else ""
        raise ModelError(
            f"config.json of model {name!r} asks for a network that cannot be built"
            f" ({_reason(error)}):{at_fault} correct it, or take the file from where the model comes from"
        ) from error
    narrow = {key: stored[key].dtype for key, value in planned.named_parameters() if key in stored}
    if packed := [f"{key} ({dtype})" for key, dtype in narrow.items() if dtype not in STORED]:
        raise ModelError(
            f"the weights of {name!r} are quantised or packed: {_listed(packed)} are no floating-point numbers of 16"
            " bits or more; name the checkpoint that was not quantised, or dequantise and save it"
        )
    asked = sum(value.numel() for value in (*planned.parameters(), *planned.buffers()))
    there = sum(tensor.size for tensor in stored.values())
    if asked > (TIMES_STORED * there + FREE_VALUES if stored else MOST_VALUES):
        shapes = {key: tuple(value.shape) for key, value in planned.state_dict().items()}
        other = [
            f"{key} ({list(shapes[key])} asked for, {list(tensor.shape)} stored)"
            for key, tensor in stored.items()
            if shapes.get(key, tensor.shape) != tensor.shape
        ]
        raise ModelError(
            f"config.json of model {name!r} asks for {asked:,} weights, its weight files hold {there:,}: one of them"
            f" belongs to another model{': ' + _listed(other) if other else ''}"
        )


def _planned(settings: PreTrainedConfig, *, trust_remote_code: bool) -> PreTrainedModel:
    """The network that settings ask for, without memory for its weights."""
    with torch.device("meta"):
        planned: PreTrainedModel = AutoModelForCausalLM.from_config(
            deepcopy(settings), trust_remote_code=trust_remote_code
        )
    return planned


def _guilty(settings: PreTrainedConfig, given: Mapping[str, Any], *, trust_remote_code: bool) -> str | None:
    """The field of a `config.json` whose default in its stead lets the network be built; None where no field alone
    does."""
    defaults = type(settings)()
    for key in given:
        if key in WITHOUT_MEANING:
            continue
        mended = deepcopy(settings)
        with suppress(Exception):  # whatever is wrong with another field
            setattr(mended, key, getattr(defaults, key))
            _planned(mended, trust_remote_code=trust_remote_code)
            return key
    return None


def read_tokenizer(name: str, place: str, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a checkpoint.

    Raises:
        ModelError: there is none, or it knows no token of a text.
    """
    try:
        tokenizer = _attempt(name, lambda: AutoTokenizer.from_pretrained(place, trust_remote_code=trust_remote_code))
    except ModelError as error:
        if Path(place).is_dir() and not (Path(place) / "tokenizer.json").exists():
            raise ModelError(
                f"model {name!r} has no tokenizer that can be read: put tokenizer.json and tokenizer_config.json beside"
                " the weights"
            ) from error
        raise
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
        raise ModelError(
            f"model {name!r} cannot be loaded: {_reason(error)}. Give `bundled`, a Hugging Face name, or a local"
            " directory with config.json, model.safetensors and tokenizer files"
        ) from error


def _reason(error: BaseException) -> str:
    """What another library says, on one line; the error's name where that alone is no sentence."""
    said = " ".join(str(error).split())[:REASON].rstrip(".")
    return said if " " in said else f"{type(error).__name__}: {said}"


def _refuse_adapter(name: str, place: str) -> None:
    """Refuse the weights of an adapter, which are differences to those of another model.

    Raises:
        ModelError: it is one; the model that it belongs to is named.
    """
    config_file = _attempt(name, lambda: find_adapter_config_file(place))
    if config_file is not None:
        given = files.read_json(place, "adapter_config.json")
        kind, base = given.get("peft_type"), given.get("base_model_name_or_path")
        what = "a LoRA adapter" if kind == "LORA" else f"an adapter ({kind or 'adapter_config.json'})"
        raise ModelError(
            f"model {name!r} is {what} of {base!r}, differences and no whole weights: give that model with --base (LoRA"
            " as safetensors), or merge it into that model (peft: `merge_and_unload`), save the result, and name that"
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
    partial = [
        f"{len(names)} {'is' if len(names) == 1 else 'are'} {what}: {_listed(names)}"
        for names, what in (
            (missing, "missing from the checkpoint"),
            (unexpected, f"in the checkpoint and not in {type(network).__name__}"),
            (shapes, "of another shape"),
        )
        if names
    ]
    if partial:
        raise ModelError(
            f"model {name!r} is not read whole: of the {len(network.state_dict())} tensors of {type(network).__name__},"
            f" {'; '.join(partial)}. {_advice([*missing, *shapes], unexpected)}"
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


def refuse_not_finite(name: str, network: PreTrainedModel, dtype: torch.dtype) -> None:
    bad = {key: _not_finite(value) for key, value in network.named_parameters() if not is_finite(value)}
    if bad:
        narrow = dtype in (torch.float16, torch.bfloat16)
        wider = f", or values are too large for {_short(dtype)}: try --dtype float32" if narrow else ""
        raise ModelError(
            f"the weights of {name!r} hold NaN or infinity: {sum(bad.values()):,} values in {len(bad)} of its tensors,"
            f" {_listed([f'{key} ({n:,})' for key, n in bad.items()])}: the file is damaged or its training"
            f" diverged{wider}"
        )


def is_finite(value: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity: one pass, and no copy of it."""
    return not value.numel() or all(bool(end.isfinite()) for end in value.detach().aminmax())


def _not_finite(value: Tensor) -> int:
    """How many values are NaN or infinite."""
    return sum(int((~rows.isfinite()).sum()) for rows in value.detach().reshape(-1).split(BLOCK))


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
    stored = files.stored_tensors(map(Path, _weight_files(place)), place).values()
    return {STORED[tensor.dtype] for tensor in stored if tensor.dtype in STORED}


def _weight_files(place: str) -> Iterable[str]:

    def find(file: str) -> str | None:
        path: str | None = cached_file(place, file, _raise_exceptions_for_missing_entries=False)
        return path

    if whole := find("model.safetensors"):
        return [whole]
    if index := find("model.safetensors.index.json"):
        shards = set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values())
        return [str(Path(index).parent / shard) for shard in sorted(shards)]
    return []
