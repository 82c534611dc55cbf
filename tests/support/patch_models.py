"""Models and pairs for the tests of patching: tiny random ones of four forms, and hand-built gates with known
answers."""

import random
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import tiny
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
from transformers.models.llama import modeling_llama

from profiler.config import RunConfig
from profiler.model.load import Model, load_model
from profiler.model.steps.as_network import network_of
from profiler.model.steps.network import Network
from profiler.model.steps.plain import Layer, Norm, PlainNetwork
from profiler.patching.batch import PairBatch, batch_of
from profiler.prompts.pairs import Pair, TokenPair
from profiler.prompts.pairs.encode import encode

FORMS = ("gpt2", "neox", "neox_sequential", "llama")


def _rms_in_its_dtype(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Llama's norm without its rounding to float32, so that equality can be asked for in float64."""
    return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)


modeling_llama.LlamaRMSNorm.forward = _rms_in_its_dtype


def _sequential() -> GPTNeoXForCausalLM:
    config = GPTNeoXConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=48,
        use_parallel_residual=False,
        **tiny.SIZES,
    )
    return GPTNeoXForCausalLM(config)


@cache
def loaded(form: str) -> Model:
    """A random model of a form, in float64, through the product's own loading."""
    tiny.ARCHITECTURES["neox_sequential"] = _sequential
    try:
        folder = tiny.save(form, Path(mkdtemp()))
    finally:
        del tiny.ARCHITECTURES["neox_sequential"]
    return load_model(RunConfig(model=str(folder), corpora=("none",), dtype="float64"))


@cache
def network(form: str) -> Network:
    """Its weights as a network."""
    return network_of(loaded(form))


WORDS = "cat dog sun map key box pen cup hat bed".split()


def pairs(n: int = 5, seed: int = 0) -> list[Pair]:
    """Pairs of different lengths that differ in one word of three letters, with two roles."""
    rng = random.Random(seed)
    made = []
    for i in range(n):
        first, second, third = rng.sample(WORDS, 3)
        text = f"{'so ' * (i % 3)}the {first} and the {second} the "
        spans = (
            ("first", (text.index(first), text.index(first) + 3)),
            ("second", (text.rindex(second), text.rindex(second) + 3)),
        )
        made.append(Pair(f"p{i}", "toy", "swap", text, text.replace(second, third), ("a", "b"), ("x", "y", "z"), spans))
    return made


def token_pairs(n: int = 5, seed: int = 0) -> tuple[TokenPair, ...]:
    """The same in bytes."""
    return encode(pairs(n, seed), tiny.tokenizer(), 0, 48).pairs


def batch(n: int = 5, seed: int = 0) -> PairBatch:
    """The same as tensors, float64."""
    return batch_of(token_pairs(n, seed), dtype=torch.float64)


# --- hand-built models: tokens off = 0, on = 1, question = 2; the answer is token 3, the distractor token 4 ---

ON, QUESTION, ANSWER, WRONG = 1, 2, 3, 4
FAR = 1e4
D = 8  # residual dimensions: 0 on, 1 question, 2.. written by heads, 6 answer, 7 a constant 1
IDENTITY = Norm(torch.ones(D).double(), torch.zeros(D).double(), True, None)


def _head(reads: dict[int, float], writes: int) -> tuple[torch.Tensor, ...]:
    """A head that attends to the first token alone, and writes a weighted sum of what it reads there."""
    w_q, w_k, w_v, w_o = torch.zeros(D, 1), torch.zeros(D, 1), torch.zeros(D, 1), torch.zeros(1, D)
    w_q[7, 0], w_k[1, 0] = 1.0, -FAR
    for dimension, weight in reads.items():
        w_v[dimension, 0] = weight
    w_o[0, writes] = 1.0
    return w_q, w_k, w_v, w_o


def _layer(heads: list[tuple[torch.Tensor, ...]], neurons: list[tuple[dict[int, float], float, int, float]]) -> Layer:
    """Neurons are (reads, bias, writes, weight) with ReLU."""
    w_q, w_k, w_v, w_o = (torch.stack(parts).double() for parts in zip(*heads, strict=True))
    n = max(1, len(neurons))
    w_in, b_in, w_out = torch.zeros(D, n), torch.zeros(n), torch.zeros(n, D)
    for i, (reads, bias, writes, weight) in enumerate(neurons):
        for dimension, value in reads.items():
            w_in[dimension, i] = value
        b_in[i], w_out[i, writes] = bias, weight
    zeros = torch.zeros(len(heads), 1).double()
    nothing = torch.zeros(D).double()
    return Layer(
        IDENTITY,
        IDENTITY,
        w_q,
        w_k,
        w_v,
        zeros,
        zeros,
        zeros,
        w_o,
        nothing,
        w_in.double(),
        b_in.double(),
        None,
        None,
        w_out.double(),
        nothing,
    )


def hand_built(layers: list[Layer], bias: float = 0.0) -> PlainNetwork:
    """A network without norms whose logit of ANSWER is residual dimension 6, plus `bias`."""
    embed = torch.zeros(5, D).double()
    embed[:, 7], embed[ON, 0], embed[QUESTION, 1] = 1.0, 1.0, 1.0
    unembed = torch.zeros(D, 5).double()
    unembed[6, ANSWER] = 1.0
    b_unembed = torch.zeros(5).double()
    b_unembed[ANSWER] = bias
    return PlainNetwork(tuple(layers), embed, None, None, IDENTITY, unembed, b_unembed, torch.relu, False, 1.0)


NOTHING = _head({}, 5)
GATES = {
    "or": lambda: hand_built([_layer([_head({0: 1}, 2), _head({0: 1}, 3)], [({2: -1, 3: -1}, 1.0, 6, -1.0)])], 1.0),
    "and": lambda: hand_built([_layer([_head({0: 1}, 2), _head({0: 1}, 3)], [({2: 1, 3: 1}, -1.0, 6, 1.0)])]),
    "sum": lambda: hand_built([_layer([_head({0: 0.5}, 6), _head({0: 0.5}, 6)], [])]),
    "single": lambda: hand_built([_layer([_head({0: 1}, 6), NOTHING], [])]),
    # the head of layer 1 writes the answer where the head of layer 0 did not
    "serial": lambda: hand_built(
        [_layer([_head({0: 1}, 6), NOTHING], []), _layer([_head({0: 1, 6: -1}, 6), NOTHING], [])]
    ),
    # two heads of different layers write the same; a neuron passes on at most 1 of them
    "parallel": lambda: hand_built(
        [
            _layer([_head({0: 1}, 2), NOTHING], []),
            _layer([_head({0: 1}, 3), NOTHING], [({2: -1, 3: -1}, 1.0, 6, -1.0)]),
        ],
        1.0,
    ),
}


def gate_batch(n: int = 3) -> PairBatch:
    """`n` pairs: clean (on, question), corrupted (off, question); names differ, prompts are the same."""
    made = [
        TokenPair(
            Pair(f"g{i}", "gate", "off", (1, 2), (0, 2), (ANSWER,), (WRONG,)),
            (ON, QUESTION),
            (0, QUESTION),
            (ANSWER,),
            (WRONG,),
            (("end", (1,)),),
            0,
        )
        for i in range(n)
    ]
    return batch_of(made, dtype=torch.float64)
