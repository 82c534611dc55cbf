"""Dictionaries as their makers released them: Gemma Scope, circuit-tracer's transcoders, cross-layer transcoders.

| form | names |
|---|---|
| Gemma Scope | W_enc [d_in, unit], W_dec, b_enc, b_dec, threshold; of Gemma Scope 2 in small letters, with
  affine_skip_connection [d_in, d_out] and a config.json that says where it stands |
| circuit-tracer | W_enc [unit, d_in]: transposed; activation_function.threshold; k; W_skip [d_out, d_in] |
| cross-layer transcoder | files W_enc_i (W_enc_i [unit, d_in], b_enc_i, b_dec_i, threshold_i) and W_dec_i
  ([unit, layers from i on, d_out]) |

Which way round W_enc stands follows from b_enc. A cross-layer transcoder's units of one layer write all later layers
too; what it reconstructs is the sum over units of all earlier layers, so of one layer alone no error is measured.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
import yaml
from torch import Tensor

from profiler.dictionaries import saelens, tensors
from profiler.dictionaries.dictionary import Dictionary, JumpRelu, Place, Relu, Rule, TopK
from profiler.dictionaries.hooks import place_of
from profiler.dictionaries.named import Named
from profiler.errors import DictionaryError

SPELLINGS = {"w_enc": "W_enc", "w_dec": "W_dec", "activation_function.threshold": "threshold"}
AFFINE, K = "affine_skip_connection", "k"


def read(
    file: Path, found: Mapping[str, Tensor], layer: int, reads: Place | None = None, writes: Place | None = None
) -> Dictionary:
    """The dictionary in one file, Gemma Scope's or circuit-tracer's.

    Args:
        found: the file's tensors.
        layer: the layer that was asked for, where the file does not say it.
        reads, writes: where it stands, in the place of what is beside the file.

    Raises:
        DictionaryError: it is of another form, or nothing says where it stands.
    """
    named = Named(file, {SPELLINGS.get(name, name): value for name, value in found.items()})
    units, d_out = named.matrix("W_dec").shape
    w_enc = named.matrix("W_enc")
    is_turned = _is_turned(named, units, square=file.suffix == ".safetensors" and "W_enc" in found)
    w_enc = w_enc.T.contiguous() if is_turned else w_enc
    if reads is None:
        reads, beside = _beside(file, layer)
        writes = writes or beside
    writes = writes or reads
    return Dictionary(
        "feature",
        "circuit-tracer transcoder" if is_turned else "Gemma Scope",
        reads,
        writes,
        w_enc,
        named.sized("W_dec", units, d_out),
        named.sized("b_dec", d_out),
        _rule(named, units),
        w_skip=_skip(named, w_enc.shape[0], d_out),
    )


def _is_turned(named: Named, units: int, *, square: bool) -> bool:
    """Whether the file holds W_enc as [unit, d_in].

    Args:
        square: whether it does where both sides are the number of units.

    Raises:
        DictionaryError: neither of its sides is the number of units.
    """
    w_enc = named.matrix("W_enc")
    fitting = [axis for axis in (0, 1) if w_enc.shape[axis] == units]
    if not fitting:
        raise DictionaryError(
            f"'W_enc' of {named.file} has shape {list(w_enc.shape)}, and the decoder has {units} units: take a copy"
            " that is whole"
        )
    return square if len(fitting) == w_enc.dim() else fitting == [0]


def _rule(named: Named, units: int) -> Rule:
    bias = named.sized("b_enc", units)
    if K in named.tensors:
        k = int(named.tensors[K].flatten()[0])
        if not 0 < k <= units:
            raise DictionaryError(f"k of {named.file} is {k}: a number from 1 to {units} is expected")
        return TopK(bias, k)
    threshold = named.tensors.get("threshold")
    if threshold is None:
        return Relu(bias)
    return JumpRelu(bias, Named(named.file, {"threshold": threshold.flatten()}).sized("threshold", units))


def _skip(named: Named, d_in: int, d_out: int) -> Tensor | None:
    """The skip connection as [d_in, d_out]."""
    affine = named.optional(AFFINE, d_in, d_out)
    if affine is not None:
        return affine
    skip = named.optional("W_skip", d_out, d_in)
    return None if skip is None else skip.T.contiguous()


def _beside(file: Path, layer: int) -> tuple[Place, Place | None]:
    """Where a dictionary stands, from Gemma Scope 2's config.json or circuit-tracer's config.yaml beside its file.

    Raises:
        DictionaryError: neither says it.
    """
    if (file.parent / "config.json").is_file():
        config = saelens.settings(file.parent / "config.json")
        if isinstance(config.get("hf_hook_point_in"), str):
            writes = config.get("hf_hook_point_out")
            return place_of(config["hf_hook_point_in"]), place_of(writes) if isinstance(writes, str) else None
    if (file.parent / "config.yaml").is_file():
        hooks = _hooks_of_yaml(file.parent / "config.yaml")
        if hooks is not None:
            reads, writes = (place_of(f"blocks.{layer}.{hook}") for hook in hooks)
            return reads, writes
    raise DictionaryError(
        f"nothing beside {file} says where the dictionary stands: give its site, as in --dictionary"
        f" L{layer}.resid_post={file}, or of a transcoder --dictionary L{layer}.mlp_in:mlp_out={file}"
    )


def _hooks_of_yaml(file: Path) -> tuple[str, str] | None:
    """`feature_input_hook` and `feature_output_hook` of circuit-tracer's settings; None where they do not say them."""
    try:
        if file.stat().st_size > saelens.MOST_SETTINGS:
            raise ValueError("it is too large")
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise DictionaryError(f"{file} cannot be read ({str(error).splitlines()[0]})") from None
    names = ("feature_input_hook", "feature_output_hook")
    found = [config.get(name) for name in names] if isinstance(config, dict) else [None]
    return (str(found[0]), str(found[1])) if all(isinstance(hook, str) for hook in found) else None


def is_cross_layer(folder: Path, layer: int) -> bool:
    """Whether a folder holds the files of a cross-layer transcoder for a layer."""
    return all((folder / f"{name}_{layer}.safetensors").is_file() for name in ("W_enc", "W_dec"))


def read_cross_layer(folder: Path, layer: int, reads: Place | None = None, writes: Place | None = None) -> Dictionary:
    """A layer's units of a cross-layer transcoder.

    Args:
        reads, writes: where its first encoder and decoder stand; None: `resid_mid` and `mlp_out`, as circuit-tracer
            takes them where no config.yaml says otherwise.

    Raises:
        DictionaryError: a file is damaged, or its sizes do not fit.
    """
    encoder, decoder = (folder / f"{name}_{layer}.safetensors" for name in ("W_enc", "W_dec"))
    named = Named(encoder, tensors.read(encoder))
    turned = named.matrix(f"W_enc_{layer}")
    units = len(turned)
    rows = Named(decoder, tensors.read(decoder)).tensors.get(f"W_dec_{layer}")
    if rows is None or rows.dim() != len(("unit", "layer", "d_out")) or len(rows) != units:
        raise DictionaryError(
            f"{decoder} has no 'W_dec_{layer}' of [{units}, layers, width]: take a copy that is whole"
        )
    hooks = _hooks_of_yaml(folder / "config.yaml") if (folder / "config.yaml").is_file() else None
    of_hooks = [place_of(f"blocks.{layer}.{hook}") for hook in hooks or ("hook_resid_mid", "hook_mlp_out")]
    reads, writes = reads or of_hooks[0], writes or of_hooks[1]
    bias = named.sized(f"b_enc_{layer}", units)
    threshold = named.optional(f"threshold_{layer}", units)
    later = tuple((replace(writes, layer=layer + i), rows[:, i].contiguous()) for i in range(1, rows.shape[1]))
    return Dictionary(
        "feature",
        "cross-layer transcoder",
        reads,
        writes,
        turned.T.contiguous(),
        rows[:, 0].contiguous(),
        torch.zeros(rows.shape[2], dtype=rows.dtype),
        Relu(bias) if threshold is None else JumpRelu(bias, threshold),
        beyond=later,
        rebuilds=False,
    )
