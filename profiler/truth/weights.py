"""A sketch as the weights of a GPT-2: a random basis, random numbers of heads and words, and inert components.

Features are orthonormal directions that sum to zero, so that centring changes nothing. The epsilon of every layer norm
is 2^40 and its gain 2^20: the variance of the stream (below 10^3) vanishes beside it, the norm is the identity to
10^-9, and no answer depends on how much inert components write. Attention is exact to exp(-40).

A seed decides the basis, the ids of words, which head of its layer does what, and the inert weights. Inert heads and
neurons read what tokens and positions embed and write to directions that nothing reads.
Cost: milliseconds for 8 heads, a second for 144.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, sqrt
from random import Random

import torch
from jaxtyping import Float
from torch import Tensor

from profiler.truth.circuit import ModelSize
from profiler.truth.sketch import BOS, CONSTANT, Sketch, SketchHead, SketchLayer, SketchNeuron, Vector, at

EPSILON = 2.0**40
GAIN = 2.0**20
DEAD = 8
"""Directions that inert components write to and nothing reads."""
INERT_SLOTS = 4
"""Ranks of the attention and of the values of an inert head."""
INERT_SCORE, INERT_WRITE = 0.5, 2.0
"""Size of an inert head's scores, in logits a token, and of its writes beside a circuit's, which are about 1."""
FRONT = "<bos>"
"""The token in front of every prompt; its id is 0."""


@dataclass(frozen=True)
class HandWeights:
    """Weights of a sketch at one size and seed.

    Attributes:
        tensors: by the names of a GPT-2 of Hugging Face, float64.
        vocabulary: token of each id, FRONT first.
        labels: label of each named head, such as L0H3.
        heads, layers, neurons, width: the sizes of the model.
    """

    tensors: dict[str, Tensor]
    vocabulary: tuple[str, ...]
    labels: dict[str, str]
    heads: int
    layers: int
    neurons: int
    width: int


def weights_of(sketch: Sketch, size: ModelSize, seed: int) -> HandWeights:
    """The weights of a sketch, with inert components up to a size."""
    rng = Random(f"weights {seed}")
    layers = [*sketch.layers, *(SketchLayer() for _ in range(size.layers - len(sketch.layers)))]
    heads = max(size.heads, sketch.least_heads, *(len(layer.heads) for layer in layers))
    neurons = max(len(layer.neurons) for layer in layers) + size.neurons
    basis = _Basis(sketch, size.spare, heads, seed)
    words = rng.sample(sorted(sketch.embed), len(sketch.embed))
    vocabulary = (FRONT, *words)
    tensors = _outside_layers(sketch, basis, vocabulary)
    labels: dict[str, str] = {}
    for number, layer in enumerate(layers):
        columns = rng.sample(range(heads), heads)
        labels |= {head.name: f"L{number}H{column}" for head, column in zip(layer.heads, columns, strict=False)}
        inert = [_inert_head(basis, rng) for _ in range(heads - len(layer.heads))]
        tensors |= _attention(basis, f"transformer.h.{number}", dict(zip(columns, (*layer.heads, *inert), strict=True)))
        silent = [_inert_neuron(basis, rng) for _ in range(neurons - len(layer.neurons))]
        tensors |= _mlp(basis, f"transformer.h.{number}", (*layer.neurons, *silent))
    return HandWeights(tensors, vocabulary, labels, heads, len(layers), neurons, basis.width)


class _Basis:
    """Directions of the features of a sketch, [feature, width]; they sum to zero and are orthonormal."""

    def __init__(self, sketch: Sketch, spare: int, heads: int, seed: int) -> None:
        self.read = _distinct([*sketch.embed.values(), {CONSTANT: 1.0, BOS: 1.0}, *_positions(sketch).values()])
        self.dead = [f"dead:{i}" for i in range(DEAD + spare)]
        named = _distinct([*_vectors(sketch), dict.fromkeys(self.dead, 1.0)])
        self.features = {name: row for row, name in enumerate(dict.fromkeys((*self.read, *named)))}
        slots = max([INERT_SLOTS, *(_slots(head) for layer in sketch.layers for head in layer.heads)])
        d_head = max(slots, ceil((len(self.features) + 1) / heads))
        self.d_head = d_head + d_head % 2  # an even width, whatever the number of heads
        self.heads, self.width = heads, heads * self.d_head
        start = torch.randn(self.width, len(self.features) + 1, generator=_generator(seed), dtype=torch.float64)
        start[:, 0] = 1.0
        self.directions: Float[Tensor, "feature width"] = torch.linalg.qr(start)[0][:, 1:].T.contiguous()

    def stack(self, vectors: Iterable[Vector]) -> Float[Tensor, "vector width"]:
        """Vectors in the residual stream; [0, width] for none."""
        rows = [[vector.get(feature, 0.0) for feature in self.features] for vector in vectors]
        return torch.tensor(rows, dtype=torch.float64).reshape(-1, len(self.features)) @ self.directions


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _distinct(vectors: Iterable[Vector]) -> list[str]:
    return list(dict.fromkeys(feature for vector in vectors for feature in vector))


def _vectors(sketch: Sketch) -> Iterable[Vector]:
    """Every vector of the layers and the unembedding."""
    for layer in sketch.layers:
        for head in layer.heads:
            for first, second in (*head.match, *head.copy):
                yield from (first, second)
        for neuron in layer.neurons:
            yield from (neuron.reads, neuron.writes)
    yield from sketch.unembed.values()


def _slots(head: SketchHead) -> int:
    return max(len(head.match), len(head.copy))


def _positions(sketch: Sketch) -> dict[int, Vector]:
    return {position: {at(position): 1.0} for position in range(sketch.positions)}


def _outside_layers(sketch: Sketch, basis: _Basis, vocabulary: tuple[str, ...]) -> dict[str, Tensor]:
    """Embeddings, the final norm and the unembedding."""
    embedded = [{CONSTANT: 1.0, BOS: 1.0}, *({CONSTANT: 1.0} | dict(sketch.embed[word]) for word in vocabulary[1:])]
    known = _positions(sketch)
    return {
        "transformer.wte.weight": basis.stack(embedded),
        "transformer.wpe.weight": basis.stack(known.get(position, {}) for position in range(sketch.context)),
        "lm_head.weight": basis.stack(sketch.unembed.get(word, {}) for word in vocabulary),
        **_norm("transformer.ln_f", basis.width),
    }


def _norm(name: str, width: int) -> dict[str, Tensor]:
    """A layer norm that is the identity on vectors that sum to zero."""
    return {
        f"{name}.weight": torch.full((width,), GAIN, dtype=torch.float64),
        f"{name}.bias": torch.zeros(width, dtype=torch.float64),
    }


def _attention(basis: _Basis, block: str, heads: dict[int, SketchHead]) -> dict[str, Tensor]:
    """Attention of one layer, and the norm before it; heads by their number."""
    width, d_head = basis.width, basis.d_head
    read = torch.zeros(width, 3, basis.heads, d_head, dtype=torch.float64)
    write = torch.zeros(basis.heads, d_head, width, dtype=torch.float64)
    for number, head in heads.items():
        scores, copied = len(head.match), len(head.copy)
        read[:, 0, number, :scores] = sqrt(d_head) * basis.stack(query for query, _ in head.match).T
        read[:, 1, number, :scores] = basis.stack(key for _, key in head.match).T
        read[:, 2, number, :copied] = basis.stack(value for value, _ in head.copy).T
        write[number, :copied] = basis.stack(written for _, written in head.copy)
    return {
        f"{block}.attn.c_attn.weight": read.reshape(width, 3 * width),
        f"{block}.attn.c_attn.bias": torch.zeros(3 * width, dtype=torch.float64),
        f"{block}.attn.c_proj.weight": write.reshape(width, width),
        f"{block}.attn.c_proj.bias": torch.zeros(width, dtype=torch.float64),
        **_norm(f"{block}.ln_1", width),
    }


def _mlp(basis: _Basis, block: str, neurons: tuple[SketchNeuron, ...]) -> dict[str, Tensor]:
    """Neurons of one layer, and the norm before them."""
    return {
        f"{block}.mlp.c_fc.weight": basis.stack(neuron.reads for neuron in neurons).T.contiguous(),
        f"{block}.mlp.c_fc.bias": torch.tensor([neuron.bias for neuron in neurons], dtype=torch.float64),
        f"{block}.mlp.c_proj.weight": basis.stack(neuron.writes for neuron in neurons),
        f"{block}.mlp.c_proj.bias": torch.zeros(basis.width, dtype=torch.float64),
        **_norm(f"{block}.ln_2", basis.width),
    }


def _inert_head(basis: _Basis, rng: Random) -> SketchHead:
    """A head that attends by random scores and writes where nobody reads."""
    match = tuple(
        (_random(basis.read, INERT_SCORE, rng), _random(basis.read, INERT_SCORE, rng)) for _ in range(INERT_SLOTS)
    )
    copy = tuple((_random(basis.read, 1.0, rng), _random(basis.dead, INERT_WRITE, rng)) for _ in range(INERT_SLOTS))
    return SketchHead("", match, copy)


def _inert_neuron(basis: _Basis, rng: Random) -> SketchNeuron:
    """A neuron that fires on random tokens and writes where nobody reads."""
    return SketchNeuron(_random(basis.read, 1.0, rng), 0.0, _random(basis.dead, INERT_WRITE, rng))


def _random(features: list[str], size: float, rng: Random) -> Vector:
    return {feature: rng.gauss(0.0, size) for feature in features}
