"""The model under test and its tokenizer, through plain `transformers`.

Why: scores must be computed the same way for the bundled model and for any other, and independently of the library
that records runs. Attention is the eager implementation, the only one that returns patterns.
Cost: loading; then one forward pass a batch, on the CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from profiler.errors import ModelError
from profiler.model import files
from profiler.model.weight_files import read_network, read_tokenizer
from profiler.text.token_classes import ordinary_ids

CONTEXT = 256
"""Longest window used for scoring, in tokens, where the model allows it."""
BATCH = 16


@dataclass(frozen=True)
class ScoredModel:
    """A causal language model under test.

    Attributes:
        name: what it was loaded from.
        model: Hugging Face causal model in evaluation mode, eager attention.
        tokenizer: its tokenizer.
        start: id put in front of every window: beginning of text, or else end of text.
        context: tokens in a window, `start` included.
    """

    name: str
    model: Any
    tokenizer: Any
    start: int
    context: int

    def encode(self, text: str) -> list[int]:
        """Token ids without any special token."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def ordinary(self) -> list[int]:
        """Ids of all tokens that are not special."""
        return list(ordinary_ids(self.tokenizer))


def load_scored_model(name: str) -> ScoredModel:
    """Load a model directory or hub name: safetensors alone, and no code that comes with it.

    Raises:
        ModelError: where it cannot be loaded, or its tokenizer has no token to begin a text with.
    """
    files.check(name)
    model, _ = read_network(name, name, torch.float32, attn_implementation="eager")
    return as_scored_model(name, model, read_tokenizer(name, name))


def as_scored_model(name: str, model: Any, tokenizer: Any) -> ScoredModel:
    """A loaded model and tokenizer as a subject.

    Raises:
        ModelError: where the tokenizer has neither a beginning nor an end of text.
    """
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if start is None:
        raise ModelError(
            f"the tokenizer of {name!r} has neither bos_token nor eos_token; windows must begin with one. "
            "Set one of them in its tokenizer_config.json."
        )
    longest = getattr(model.config, "max_position_embeddings", None) or CONTEXT
    return ScoredModel(name, model.eval(), tokenizer, start, min(CONTEXT, longest))


@torch.inference_mode()
def logits(subject: ScoredModel, ids: Int64[Tensor, "batch pos"]) -> Float[Tensor, "batch pos vocabulary"]:
    """Logits at every position, float32."""
    logits: Tensor = subject.model(input_ids=ids, use_cache=False).logits.float()
    return logits


@torch.inference_mode()
def patterns(subject: ScoredModel, ids: Int64[Tensor, "batch pos"]) -> Float[Tensor, "layer batch head query key"]:
    """Attention of every head, each row summing to one over keys."""
    given = subject.model(input_ids=ids, use_cache=False, output_attentions=True)
    return torch.stack([layer.float() for layer in given.attentions])


@torch.inference_mode()
def token_losses(subject: ScoredModel, ids: Int64[Tensor, "batch pos"]) -> Float[Tensor, "batch pos-1"]:
    """Cross-entropy of each next token in nats."""
    wanted = ids[:, 1:]
    scores = logits(subject, ids)[:, :-1]
    return torch.logsumexp(scores, -1) - scores.gather(-1, wanted[..., None])[..., 0]


def padded(rows: Sequence[Sequence[int]], filler: int) -> tuple[Int64[Tensor, "batch pos"], Int64[Tensor, "batch"]]:
    """Rows of different lengths, filled on the right (harmless under causal attention), and their lengths."""
    lengths = torch.tensor([len(row) for row in rows])
    width = int(lengths.max())
    return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows]), lengths
