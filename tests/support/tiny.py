"""Tiny random models of three architectures, a byte tokenizer, and a small corpus: everything the tests run on,
offline."""

import json
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

END = "<|endoftext|>"
SIZES = {"bos_token_id": 0, "eos_token_id": 0, "vocab_size": 257}
WORDS = (
    "the cat sat on a mat and 12 dogs ran (fast) to Rome in 1984 , then Anna said : `` no ! '' x = y + 3 ; NASA".split()
)


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level, one token a byte, END as id 0."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {END: 0} | {c: i + 1 for i, c in enumerate(alphabet)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token=END, eos_token=END)


def _gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=16, n_positions=48, n_inner=24, **SIZES))


def _neox() -> PreTrainedModel:
    config = GPTNeoXConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=48,
        use_parallel_residual=True,
        **SIZES,
    )
    return GPTNeoXForCausalLM(config)


def _llama() -> PreTrainedModel:
    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=48,
        **SIZES,
    )
    return LlamaForCausalLM(config)


ARCHITECTURES = {"gpt2": _gpt2, "neox": _neox, "llama": _llama}


def network(name: str) -> PreTrainedModel:
    """A random model whose every parameter (biases and norms too) is far from its initial value."""
    torch.manual_seed(0)
    made = ARCHITECTURES[name]().eval()
    for parameter in made.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return made


def save(name: str, folder: Path) -> Path:
    """A model directory as a user would have it."""
    network(name).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def text(seed: int, n_words: int) -> str:
    """Some words."""
    chosen = random.Random(seed)
    return " ".join(chosen.choice(WORDS) for _ in range(n_words))


def write_corpus(file: Path, n_documents: int = 40, seed: int = 0) -> Path:
    """A .jsonl with ids and two topics; documents of 1 to 60 words."""
    sizes = random.Random(seed)
    rows = [
        {"id": f"doc-{i}", "text": text(seed + i, sizes.randint(1, 60)), "topic": "ab"[i % 2]}
        for i in range(n_documents)
    ]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return file


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())
