"""A LoRA adapter merged into the weights of its base model: W + scale * B A, as peft's `merge_and_unload` does.

An adapter's directory (peft's layout: `adapter_config.json`, `adapter_model.safetensors`) holds for some matrices of
another model two thin ones, A [rank, in] and B [out, rank] (Hu et al. 2021); scale is lora_alpha / rank, or
lora_alpha / sqrt(rank) with `use_rslora`. What was trained whole (`modules_to_save`) is put in the place of the base's.
Which model the base is says the user: what the adapter's settings name is never followed. Variants that are no such sum
(DoRA, adapters of some positions only, initial weights that were taken off the base) are refused by name, and so is
every tensor of the file that would not be used.

Cost: reading the adapter; a product of B and A for each matrix.
"""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from profiler.errors import ModelError
from profiler.model import files

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What peft puts before the path of a module of the base."""
THIN = re.compile(r"(?P<site>.+)\.lora_(?P<of>embedding_)?(?P<side>[AB])(\.default)?(\.weight)?")
UNLIKE = ("use_dora", "layer_replication", "alora_invocation_tokens", "arrow_config", "use_qalora")
"""Settings of variants whose result is no sum of W and a product at every position."""
PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")
"""Values of `init_lora_weights` that leave the base as it is; others (PiSSA, OLoRA) change it before training."""
PLAIN_NAME = re.compile(r"[\w.]+")


@dataclass
class _Thin:
    """A and B of one matrix, as they are found."""

    sides: dict[str, Tensor] = field(default_factory=dict)
    of_embedding: bool = False


def merge(network: PreTrainedModel, place: str, name: str) -> str:
    """Merge the adapter at `place` into its base, in place; the sentence that says so.

    Raises:
        ModelError: it is no plain LoRA adapter, or not one of this base.
    """
    settings = files.read_json(place, files.ADAPTER)
    _refuse_unlike(settings, name)
    thin, whole = _read(place, name)
    modules = dict(network.named_modules())
    tied = getattr(network.config.get_text_config(), "tie_word_embeddings", False)
    ends = {id(part) for part in (network.get_input_embeddings(), network.get_output_embeddings())}
    for site, pair in thin.items():
        weight = getattr(modules.get(site), "weight", None)
        if weight is None or weight.dim() != len(("out", "in")):
            raise ModelError(
                f"the adapter {name!r} changes {site!r}, which is no matrix of {type(network).__name__}: name its own"
                " base with --base"
            )
        if tied and id(modules[site]) in ends:
            raise ModelError(
                f"the adapter {name!r} changes {site!r}, whose weights are both the embedding and the unembedding:"
                " merge it with peft, save the result, and name that"
            )
        weight.data.add_(_product(modules[site], pair, _scale(settings, site, pair, name), site, name))
    for path, value in whole.items():
        _replace(network, path, value, name)
    count = f"{len(thin)} matrices" + (f", {len(whole)} more replaced" if whole else "")
    return f"a LoRA adapter merged into its base: {count}"


def _refuse_unlike(settings: dict[str, Any], name: str) -> None:
    """Refuse what is no sum of W and a product.

    Raises:
        ModelError: it is another kind of adapter, or a variant.
    """
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise ModelError(f"the adapter {name!r} is of type {kind!r}: LORA alone can be merged; merge it with peft")
    variants = [key for key in UNLIKE if settings.get(key)]
    if settings.get("init_lora_weights", True) not in PLAIN_STARTS:
        variants.append("init_lora_weights")
    if variants:
        raise ModelError(
            f"the adapter {name!r} is a variant of LoRA ({variants[0]}: {settings[variants[0]]!r}) that is not W + B A:"
            " merge it with peft, save the result, and name that"
        )


def _read(place: str, name: str) -> tuple[dict[str, _Thin], dict[str, Tensor]]:
    """Thin matrices by the path of their module, and tensors that were trained whole by their own path.

    Raises:
        ModelError: there are none, or one that is neither.
    """
    file = files.file_of(place, WEIGHTS)
    if file is None:
        raise ModelError(f"the adapter {name!r} has no {WEIGHTS}: save it as safetensors, as peft does by default")
    files.stored_tensors([Path(file)], place)
    thin: dict[str, _Thin] = {}
    whole: dict[str, Tensor] = {}
    for key, value in load_file(file).items():
        path = key.removeprefix(PREFIX)
        if match := THIN.fullmatch(path):
            pair = thin.setdefault(match["site"], _Thin(of_embedding=bool(match["of"])))
            pair.sides[match["side"]] = value
        elif path != key and "lora_" not in path:
            whole[path] = value
        else:
            raise ModelError(f"the adapter {name!r} holds {key!r}, which is no part of a LoRA: merge it with peft")
    if not thin:
        raise ModelError(f"the adapter {name!r} holds no A and B: take a copy that is whole")
    return thin, whole


def _scale(settings: dict[str, Any], site: str, pair: _Thin, name: str) -> float:
    """lora_alpha, of this matrix where it has one of its own, over the rank or its root.

    Raises:
        ModelError: a setting is no number, or a pattern and no name.
    """
    own = settings.get("alpha_pattern") or {}
    alpha = settings.get("lora_alpha")
    for key, value in own.items() if isinstance(own, dict) else ():
        if not PLAIN_NAME.fullmatch(key):
            raise ModelError(
                f"adapter_config.json of {name!r}: alpha_pattern has {key!r}, expected names of modules: merge it with"
                " peft, save the result, and name that"
            )
        alpha = value if f".{site}".endswith(f".{key}") else alpha
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise ModelError(
            f"adapter_config.json of {name!r}: lora_alpha is {alpha!r}, expected a number: take a whole copy"
        )
    rank = max(1, len(pair.sides["A"]) if "A" in pair.sides else 1)
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _product(module: nn.Module, pair: _Thin, scale: float, site: str, name: str) -> Float[Tensor, "row column"]:
    """scale * B A as the module stores its weight.

    Raises:
        ModelError: A or B is missing, or their shapes are not those of the weight.
    """
    weight = module.get_parameter("weight")
    shapes = {side: tuple(value.shape) for side, value in sorted(pair.sides.items())}
    turned = pair.of_embedding or isinstance(module, Conv1D)
    n_in, n_out = weight.shape if turned else weight.shape[::-1]
    rank = next(iter(shapes.get("A", (0,))), 0)
    if shapes != {"A": (rank, n_in), "B": (n_out, rank)}:
        raise ModelError(
            f"the adapter {name!r} has {shapes} for {site!r}, whose weight is {tuple(weight.shape)}: name its own base"
            " with --base"
        )
    work = torch.promote_types(weight.dtype, torch.float32)
    a, b = (pair.sides[side].to(weight.device, work) for side in "AB")
    product = scale * (b @ a)
    return (product.T if turned else product).to(weight.dtype)


def _replace(network: PreTrainedModel, path: str, value: Tensor, name: str) -> None:
    """Put a tensor that was trained whole in the place of the base's.

    Raises:
        ModelError: the base has none of this name and shape.
    """
    own = dict(network.named_parameters(remove_duplicate=False)).get(path)
    if own is None or own.shape != value.shape:
        there = "nothing of that name" if own is None else f"{tuple(own.shape)}"
        raise ModelError(
            f"the adapter {name!r} holds {path!r} {tuple(value.shape)}, its base {there}: name its own base with --base"
        )
    own.data.copy_(value)
