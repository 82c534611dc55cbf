"""Dictionaries that SAELens saved: version 6 (`metadata` in cfg.json) and the flat form before it.

Batch-top-k and matryoshka dictionaries are saved as jumprelu. What cannot be followed is refused by name: a norm by an
average that is not in the file, a single head's input, an activation function of another kind.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from profiler.dictionaries import tensors
from profiler.dictionaries.dictionary import Dictionary, Gated, JumpRelu, Norm, Place, Relu, Rule, TopK
from profiler.dictionaries.hooks import place_of
from profiler.dictionaries.named import Named
from profiler.errors import DictionaryError

SETTINGS, WEIGHTS = "cfg.json", "sae_weights.safetensors"
MOST_SETTINGS = 2**22
"""Bytes of a file of settings: more is no file of settings."""
NORMS: dict[str, Norm] = {
    "none": "none",
    "layer_norm": "layer_norm",
    "constant_norm_rescale": "constant_norm_rescale",
}
TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
AUTOENCODERS = ("standard", "topk", "jumprelu", "gated")


def settings(file: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        DictionaryError: it is not there, or no object of a moderate size.
    """
    try:
        if file.stat().st_size > MOST_SETTINGS:
            raise ValueError(f"more than {MOST_SETTINGS:,} bytes")
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DictionaryError(f"{file} cannot be read ({error}): a JSON object is expected") from None
    if not isinstance(found, dict):
        raise DictionaryError(f"{file} is no JSON object: name the folder of a dictionary")
    return found


def read(folder: Path, reads: Place | None = None, writes: Place | None = None) -> Dictionary:
    """The dictionary in a folder that `save_model` or `save_inference_model` wrote.

    Args:
        reads, writes: in the place of what the settings say.

    Raises:
        DictionaryError: it is of a kind that cannot be followed, or damaged.
    """
    cfg = settings(folder / SETTINGS)
    facts = cfg["metadata"] if isinstance(cfg.get("metadata"), dict) else cfg
    named = Named(folder / WEIGHTS, tensors.read(folder / WEIGHTS))
    architecture = _architecture(cfg, folder)
    _refuse_unknown(cfg, facts, folder)
    is_transcoder = architecture in TRANSCODERS
    w_enc = named.matrix("W_enc")
    d_in, units = w_enc.shape
    reads = reads or place_of(_hook(facts, "hook_name", "hook_point", folder=folder))
    if writes is None:
        writes = place_of(_hook(facts, "hook_name_out", folder=folder)) if is_transcoder else reads
    w_dec = named.matrix("W_dec") if is_transcoder else named.sized("W_dec", units, d_in)
    d_out = w_dec.shape[1]
    w_dec = _scaled(named, named.sized("W_dec", units, d_out))
    w_skip = named.sized("W_skip", d_out, d_in).T.contiguous() if "skip" in architecture else None
    return Dictionary(
        "feature",
        f"SAELens {architecture}",
        reads,
        writes,
        w_enc,
        w_dec,
        named.sized("b_dec", d_out),
        _rule(architecture, cfg, named, units, w_dec),
        NORMS[str(cfg.get("normalize_activations") or "none")],
        centres=not is_transcoder and cfg.get("apply_b_dec_to_input", True) is not False,
        w_skip=w_skip,
    )


def _architecture(cfg: Mapping[str, Any], folder: Path) -> str:
    """What kind it is; of the flat form, the activation function decides where the architecture says `standard`."""
    architecture = str(cfg.get("architecture", "standard"))
    activation = str(cfg.get("activation_fn_str") or cfg.get("activation_fn") or "relu")
    if architecture == "standard" and activation == "topk":
        architecture = "topk"
    if architecture not in (*TRANSCODERS, *AUTOENCODERS) or activation not in ("relu", "topk"):
        raise DictionaryError(
            f"the dictionary in {folder} is of architecture {architecture[:40]!r} with activation {activation[:40]!r},"
            f" which cannot be read: {', '.join((*AUTOENCODERS, *TRANSCODERS))} can"
        )
    return architecture


def _refuse_unknown(cfg: Mapping[str, Any], facts: Mapping[str, Any], folder: Path) -> None:
    """Refuse what the file does not say enough of.

    Raises:
        DictionaryError: it is such a dictionary.
    """
    norm = cfg.get("normalize_activations")
    if norm == "expected_average_only_in":
        raise DictionaryError(
            f"the dictionary in {folder} was trained on activations divided by an average that its file does not hold:"
            " fold it in with SAELens (fold_activation_norm_scaling_factor) and save it again"
        )
    if str(norm or "none") not in NORMS:
        raise DictionaryError(f"the dictionary in {folder} normalises by {str(norm)[:40]!r}, which is not known")
    for name in ("hook_head_index", "hook_point_head_index"):
        if facts.get(name) is not None:
            raise DictionaryError(
                f"the dictionary in {folder} reads head {facts[name]} alone: name one that reads all heads"
            )


def _hook(facts: Mapping[str, Any], *names: str, folder: Path) -> str:
    found = next((facts[name] for name in names if isinstance(facts.get(name), str)), None)
    if found is None:
        raise DictionaryError(
            f"{folder / SETTINGS} does not say where the dictionary stands ({' or '.join(names)}): give its site, as in"
            " --dictionary L2.resid_post=FOLDER"
        )
    return str(found)


def _scaled(named: Named, w_dec: Tensor) -> Tensor:
    """W_dec with the factors that fine-tuning gave each unit, of versions before 6."""
    factors = named.optional("scaling_factor", len(w_dec))
    return w_dec if factors is None else w_dec * factors[:, None]


def _rule(architecture: str, cfg: Mapping[str, Any], named: Named, units: int, w_dec: Tensor) -> Rule:
    if architecture == "gated":
        return Gated(*(named.sized(name, units) for name in ("b_gate", "b_mag", "r_mag")))
    bias = named.sized("b_enc", units)
    if architecture.startswith("jumprelu"):
        return JumpRelu(bias, named.sized("threshold", units))
    if architecture == "topk":
        norms = w_dec.norm(dim=-1) if cfg.get("rescale_acts_by_decoder_norm") is True else None
        return TopK(bias, _k(cfg, units, named.file), norms)
    return Relu(bias)


def _k(cfg: Mapping[str, Any], units: int, file: Path) -> int:
    given = cfg.get("k")
    if given is None and isinstance(cfg.get("activation_fn_kwargs"), dict):
        given = cfg["activation_fn_kwargs"].get("k")
    if not isinstance(given, int) or not 0 < given <= units:
        raise DictionaryError(
            f"k of the dictionary in {file.parent} is {given!r}: a number from 1 to {units} is expected"
        )
    return given
