"""Text and networks for the tests of total effects: documents of given ids, models that are linear, known induction."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import patch_models
import tiny
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from profiler.config import ModelSettings
from profiler.generality.distributions.corpus import layout_of
from profiler.model.gradients.network import EffectNetwork
from profiler.model.load import Model, load_model
from profiler.text.documents import TokenizedDocument
from profiler.text.windows import Batch, Layout, Window, make_batch, windows_of

KNOWN = Path(__file__).parents[3] / "shared" / "data" / "models" / "known-induction"
GROUPS = 2


def settings(folder: Path, **changes: object) -> ModelSettings:
    return ModelSettings(model=str(folder), dtype="float64", **changes)


loaded = patch_models.loaded
"""A random model of a form, in float64 throughout."""


@cache
def linear() -> Model:
    """A model whose logits are linear in what its blocks write: huge denominators, even attention, no nonlinearity."""
    torch.manual_seed(1)
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 48, "n_inner": 8}
    config = GPT2Config(**sizes, layer_norm_epsilon=1e16, activation_function="linear", **tiny.SIZES)
    network = GPT2LMHeadModel(config).eval()
    for name, parameter in network.named_parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
        if "ln_" in name and name.endswith("weight"):
            parameter.data.mul_(1e8)  # what the denominator takes away
        if name.endswith("c_attn.weight"):
            parameter.data[:, :32] *= 0  # queries and keys say nothing
    folder = Path(mkdtemp())
    network.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return load_model(settings(folder))


@cache
def known() -> Model:
    """The induction model of known weights, with a BOS."""
    return load_model(settings(KNOWN, prepend_bos=True))


def windows(model: Model, ids: Sequence[Sequence[int]]) -> tuple[Layout, list[Window]]:
    """Windows of documents of these ids, in two domains by turns."""
    layout = layout_of(model, None)
    documents = [
        TokenizedDocument(i, i % 2, "ab"[i % 2], "s", f"p{i}", GROUPS * (i % 2) + (i // 2) % GROUPS, _ids(row), 0)
        for i, row in enumerate(ids)
    ]
    return layout, [window for document in documents for window in windows_of(document, layout)]


def _ids(row: Sequence[int]) -> np.ndarray:
    return np.asarray(row, dtype=np.int32)


def batch_of(model: Model, ids: Sequence[Sequence[int]]) -> tuple[EffectNetwork, Layout, Batch]:
    """A network, a layout and the batch of some documents."""
    layout, made = windows(model, ids)
    return EffectNetwork(model), layout, make_batch(made, layout)


def random_ids(n: int, length: int, n_vocab: int = 256, seed: int = 0) -> list[list[int]]:
    """Documents of random tokens, of lengths that differ."""
    generator = np.random.default_rng(seed)
    return [generator.integers(1, n_vocab, length - 2 * (i % 3)).tolist() for i in range(n)]


def repeated_ids(n: int, half: int = 12, seed: int = 0) -> list[list[int]]:
    """Documents of different letters that stand twice."""
    generator = np.random.default_rng(seed)
    firsts = [(generator.permutation(26)[:half] + 1).tolist() for _ in range(n)]
    return [first + first for first in firsts]
