"""A transformer as named features, heads and neurons: what a person writes, before it has a basis or a size.

A feature is a direction of the residual stream with a name; a vector is a mapping of features to coefficients. Layer
norms change nothing (see weights.py). A head's score of a key is the sum over `match` of (query . first)(key . second),
and it adds, for each entry of `copy`, (attended value . first) times second. A neuron is a ReLU of a sum.
Cost: none, plain data, no torch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from profiler.generality.evidence.verdict import Word

Vector = Mapping[str, float]
Answers = Callable[[Sequence[str], frozenset[str]], Mapping[str, float]]
"""Logits at the last word of a prompt, by word (0 where not listed), while the named heads write nothing."""
CONSTANT, BOS = "constant", "bos"
"""A feature of every token, and of the token in front of every prompt alone."""
SHARP = 80.0
"""Score by which a head prefers what it attends to; resting on BOS takes half of it, and exp(-40) is below rounding."""
CONTEXT = 32
"""Positions that a model without positional features knows."""


@dataclass(frozen=True)
class SketchHead:
    """A head by name: how it scores keys, and what it copies from where to where."""

    name: str
    match: tuple[tuple[Vector, Vector], ...]
    copy: tuple[tuple[Vector, Vector], ...]


@dataclass(frozen=True)
class SketchNeuron:
    """ReLU of what it reads plus `bias`, written as `writes`."""

    reads: Vector
    bias: float
    writes: Vector


@dataclass(frozen=True)
class SketchLayer:
    """Heads, then neurons that read what the heads wrote."""

    heads: tuple[SketchHead, ...] = ()
    neurons: tuple[SketchNeuron, ...] = ()


@dataclass(frozen=True)
class Sketch:
    """A whole model.

    Attributes:
        embed: features of each word; every token has CONSTANT besides, the token in front CONSTANT and BOS.
        layers: what it computes.
        unembed: features that each word's logit reads; words without any have logit 0.
        positions: positions with a feature of their own, `at:0` (the token in front) and on; 0 for a model without.
        least_heads: heads of every layer, at least.
    """

    embed: Mapping[str, Vector]
    layers: tuple[SketchLayer, ...]
    unembed: Mapping[str, Vector]
    positions: int = 0
    least_heads: int = 1

    @property
    def context(self) -> int:
        """Longest prompt, the token in front included."""
        return self.positions or CONTEXT


@dataclass(frozen=True)
class PromptDraw:
    """One pair in words; `roles` are the positions of words of the clean prompt."""

    clean: tuple[str, ...]
    corrupted: tuple[str, ...]
    answer: str
    distractor: str
    roles: Mapping[str, int]


@dataclass(frozen=True)
class HandModel:
    """A model written by hand: sketch, prompts, and its truth by the names of its heads.

    Attributes:
        name: of the model.
        sketch: its weights by features.
        answers: what it answers.
        prompts: draws one pair of each distribution, discovery first.
        members, edges, roles, word, why: as in TrueCircuit, by names of heads.
        claimed: role of each head of a claimed circuit, as in TrueCircuit.
    """

    name: str
    sketch: Sketch
    answers: Answers
    prompts: Mapping[str, Callable[[Random], PromptDraw]]
    members: tuple[str, ...]
    edges: tuple[tuple[str, str], ...]
    roles: Mapping[str, str]
    word: Word
    why: str
    claimed: Mapping[str, str] = field(default_factory=dict)


def at(position: int) -> str:
    """The feature of a position; 0 is the token in front."""
    return f"at:{position}"


def rests() -> tuple[Vector, Vector]:
    """The score of the token in front: a head attends there where nothing else is to be attended to."""
    return {CONSTANT: SHARP / 2}, {BOS: 1.0}


def attends(query: Vector, key: Vector) -> tuple[Vector, Vector]:
    """The score of keys that a query looks for."""
    return {feature: SHARP * value for feature, value in query.items()}, key
