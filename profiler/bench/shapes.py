"""The models of the benchmark: the bundled one, and a random one of the shape of GPT-2 small.

Random weights cost what trained ones cost. The second keeps the bundled tokenizer (its ids are the first few thousand
of 50,257), so that nothing is downloaded; its unembedding, context and memory are those of GPT-2 small.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from profiler.config import RunConfig
from profiler.model.load import BUNDLED, DTYPES, Model, model_from


@dataclass(frozen=True)
class BenchModel:
    """A model to measure: how its network is made, its context, and windows in a batch (about 4,000 positions each)."""

    name: str
    make: Callable[[torch.dtype], PreTrainedModel]
    context: int
    batch: int

    def config(self, tokens: int | None, device: str, dtype: str) -> RunConfig:
        """The settings of its pass: everything on, as by default."""
        settings = {
            "model": f"{self.name}-shape",
            "corpora": ("stdlib",),
            "tokens": tokens,
            "context_length": self.context,
            "windows_per_document": 4,
            "batch_size": self.batch,
            "device": device,
            "dtype": dtype,
        }
        return RunConfig.model_validate(settings)

    def network(self, config: RunConfig) -> PreTrainedModel:
        """A plain network on the device of `config`, with PyTorch's fused attention."""
        network: Any = self.make(DTYPES[config.dtype]).eval()
        return cast(PreTrainedModel, network.to(config.device))

    def load(self, config: RunConfig) -> Model:
        """The same as the pass wants it."""
        return model_from(self.network(config), tokenizer(), config)


def tokenizer() -> Any:
    """The bundled tokenizer."""
    return AutoTokenizer.from_pretrained(BUNDLED)


def _bundled(dtype: torch.dtype) -> PreTrainedModel:
    network: PreTrainedModel = AutoModelForCausalLM.from_pretrained(BUNDLED, dtype=dtype, attn_implementation="sdpa")
    return network


def _random(**sizes: int) -> Callable[[torch.dtype], PreTrainedModel]:
    settings: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 0, "attn_implementation": "sdpa", **sizes}

    def make(dtype: torch.dtype) -> PreTrainedModel:
        torch.manual_seed(0)
        network: Any = GPT2LMHeadModel(GPT2Config(**settings))
        return cast(PreTrainedModel, network.to(dtype))

    return make


SHAPES = {
    "bundled": BenchModel("bundled", _bundled, 256, 16),
    "gpt2-small": BenchModel(
        "gpt2-small", _random(n_layer=12, n_head=12, n_embd=768, vocab_size=50257, n_positions=1024), 1024, 4
    ),
    "tiny": BenchModel("tiny", _random(n_layer=2, n_head=2, n_embd=16, vocab_size=4096, n_positions=32), 32, 8),
}
"""By name; `tiny` is for trying the command itself."""
