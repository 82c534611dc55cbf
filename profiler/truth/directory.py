"""A model written by hand as files: what `profiler patch` and any other tool can read.

    config.json, generation_config.json, model.safetensors, tokenizer.json, tokenizer_config.json
    discovery.jsonl, and a .jsonl of pairs for each wider distribution
    corpus.txt      prompts with their answers, a document a line
    truth.json      the circuit, the word, and the exact logit differences of every pair with heads silenced

Cost: milliseconds, and the size of the weights (0.5 MB for 8 heads, 150 MB for 144 with positions).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from safetensors.torch import save_file

from profiler.prompts.pairs import Pair, jsonl
from profiler.truth.circuit import DISCOVERY_PROMPTS, ModelSize, PromptSet, Silencing, TrueCircuit
from profiler.truth.sketch import HandModel, PromptDraw
from profiler.truth.weights import EPSILON, FRONT, HandWeights, weights_of

SILENCED_TOGETHER = (1, 2)
"""Heads that are silenced together, besides all members and all heads that have a name."""
TRIES = 50
"""Draws per pair wanted, before a distribution is said to have too few different ones."""


@dataclass(frozen=True)
class HandBuilt:
    """A model of known circuit on disk.

    Attributes:
        folder: the model directory.
        truth: its circuit and word.
        size: its size.
        seed: of its weights and pairs.
        heads: heads of the whole model.
        prompts: discovery first, then the wider distributions; each stands in `folder` as NAME.jsonl.
    """

    folder: Path
    truth: TrueCircuit
    size: ModelSize
    seed: int
    heads: int
    prompts: tuple[PromptSet, ...]

    def pairs_file(self, name: str) -> Path:
        """The file of the pairs of a distribution."""
        return self.folder / f"{name.replace(' ', '-')}.jsonl"

    @property
    def corpus(self) -> Path:
        """The corpus: a document a line."""
        return self.folder / "corpus.txt"


def build(model: HandModel, folder: Path, size: ModelSize, seed: int = 0, pairs: int = 24) -> HandBuilt:
    """Write a model with its tokenizer, pairs, corpus and truth into a folder.

    Args:
        folder: made if it is not there.
        size: how much inert is put around the circuit.
        seed: of the weights, the ids of words and the pairs.
        pairs: of the discovery file, of which `patch` keeps half for testing; each wider distribution has half as many.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = weights_of(model.sketch, size, seed)
    _write_model(folder, weights, model.sketch.context)
    truth = _truth(model, weights.labels)
    sets = tuple(
        _prompt_set(model, weights.labels, name, seed, pairs if name == DISCOVERY_PROMPTS else -(-pairs // 2))
        for name in model.prompts
    )
    made = HandBuilt(folder, truth, size, seed, weights.heads * weights.layers, sets)
    for prompts in sets:
        jsonl.write(made.pairs_file(prompts.name), prompts.pairs)
    made.corpus.write_text(_corpus(sets), encoding="utf-8")
    record = asdict(truth) | {"silencings": {prompts.name: _silencings(prompts) for prompts in sets}}
    (folder / "truth.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return made


def _silencings(prompts: PromptSet) -> dict[str, Any]:
    """Mean logit differences of a prompt set, for whoever reads the file."""
    silenced = {" ".join(silencing.heads) or "nothing": fmean(silencing.clean) for silencing in prompts.silencings}
    return {"corrupted": fmean(prompts.corrupted), "clean, without": silenced}


def _truth(model: HandModel, labels: dict[str, str]) -> TrueCircuit:
    """The circuit with heads by label instead of by name."""

    def end(name: str) -> str:
        head, dot, inputs = name.partition(".")
        return labels.get(head, head) + dot + inputs

    return TrueCircuit(
        model.name,
        tuple(labels[name] for name in model.members),
        tuple((end(writer), end(reader)) for writer, reader in model.edges),
        tuple((labels[name], role) for name, role in model.roles.items()),
        model.word,
        model.why,
        tuple((labels[name], role) for name, role in model.claimed.items()),
    )


# --- pairs and their exact logit differences ---


def _prompt_set(model: HandModel, labels: dict[str, str], name: str, seed: int, n: int) -> PromptSet:
    """Different pairs of one distribution, and what the model answers to them."""
    rng = Random(f"{model.name} {name} {seed}")
    drawn: dict[tuple[tuple[str, ...], tuple[str, ...]], PromptDraw] = {}
    for _ in range(TRIES * n):
        draw = model.prompts[name](rng)
        drawn.setdefault((draw.clean, draw.corrupted), draw)
        if len(drawn) == n:
            break
    draws = tuple(drawn.values())
    together = [names for size in (0, *SILENCED_TOGETHER) for names in combinations(labels, size)]
    silenced = dict.fromkeys((*together, model.members, tuple(labels)))
    return PromptSet(
        name,
        tuple(_pair(model.name, name, i, draw) for i, draw in enumerate(draws)),
        tuple(_difference(model, draw.corrupted, draw, ()) for draw in draws),
        tuple(
            Silencing(
                tuple(labels[head] for head in names),
                tuple(_difference(model, draw.clean, draw, names) for draw in draws),
            )
            for names in silenced
        ),
    )


def _difference(model: HandModel, words: Sequence[str], draw: PromptDraw, silent: Sequence[str]) -> float:
    answers = model.answers(words, frozenset(silent))
    return float(answers.get(draw.answer, 0.0) - answers.get(draw.distractor, 0.0))


def _pair(task: str, name: str, number: int, draw: PromptDraw) -> Pair:
    """The pair as texts, with roles in characters of the clean prompt."""
    starts = [len(" ".join(draw.clean[:i])) + (i > 0) for i in range(len(draw.clean))]
    roles = tuple((role, (starts[i], starts[i] + len(draw.clean[i]))) for role, i in draw.roles.items())
    return Pair(
        f"{name}/{number}",
        task,
        name,
        " ".join(draw.clean),
        " ".join(draw.corrupted),
        (draw.answer,),
        (draw.distractor,),
        roles,
        template=name,
    )


def _corpus(sets: Sequence[PromptSet]) -> str:
    """Clean and corrupted prompts of every distribution, clean ones with their answers."""
    lines = [f"{pair.clean} {pair.answers[0]}\n{pair.corrupted}\n" for prompts in sets for pair in prompts.pairs]
    return "".join(lines)


# --- the model directory ---


def _write_model(folder: Path, weights: HandWeights, context: int) -> None:
    """Configuration, weights and tokenizer."""
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "relu",
        "dtype": "float64",
        "vocab_size": len(weights.vocabulary),
        "n_positions": context,
        "n_embd": weights.width,
        "n_layer": weights.layers,
        "n_head": weights.heads,
        "n_inner": weights.neurons,
        "layer_norm_epsilon": EPSILON,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 0,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
    }
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 0})
    save_file(weights.tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "tokenizer.json", _tokenizer(weights.vocabulary))
    named = dict.fromkeys(("bos_token", "eos_token", "unk_token"), FRONT)
    _write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"} | named)


def _tokenizer(vocabulary: Sequence[str]) -> dict[str, Any]:
    """A tokenizer of whole words between blanks."""
    front = {"id": 0, "content": FRONT, "special": True, "normalized": False}
    return {
        "version": "1.0",
        "added_tokens": [front | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {
            "type": "WordLevel",
            "vocab": {word: number for number, word in enumerate(vocabulary)},
            "unk_token": FRONT,
        },
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
