"""Hand-built two-layer models whose heads do exactly one known thing, and texts to edit; float64, no norms.

Layer 0: H0 attends to the token before, but to no `blind` one, and writes what stands there; H1 attends to the first
token (a sink). Layer 1: H0 is an induction head (it finds what layer 0 wrote, so it is blind to the same); H1 is a
fraud: it attends to whatever follows the token FIXED, wherever it stands. Neuron L0N0 fires on the tokens of CLASS but
for `deaf` ones; neuron L0N1 on them and on `deaf` ones, too.
"""

import random
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from profiler.generality.edits.texts import EditText, Vocabulary
from profiler.model.steps.plain import Layer, Norm, PlainNetwork

V, T = 52, 48
TOKEN, PLACE, BEFORE, COPIED = 0, V, V + T, 2 * V + T
D, DH = 3 * V + T, max(V, T) + 1
FIXED = 7
CLASS = tuple(range(1, 11))
SHARP, SINK = 12.0, 6.0
IDENTITY = Norm(torch.ones(D).double(), torch.zeros(D).double(), True, None)


def _parts() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.zeros(D, DH), torch.zeros(D, DH), torch.zeros(D, DH), torch.zeros(DH, D)


def _copies(w_v: Tensor, w_o: Tensor, into: int) -> None:
    """The token read is written into a block."""
    for t in range(V):
        w_v[TOKEN + t, t], w_o[t, into + t] = 1.0, 1.0


def _rests(w_q: Tensor, w_k: Tensor, strength: float = SINK) -> None:
    """Every query finds the first token."""
    w_q[PLACE : PLACE + T, DH - 1] = 1.0
    w_k[PLACE, DH - 1] = strength


def _previous(blind: tuple[int, ...]) -> tuple[Tensor, ...]:
    w_q, w_k, w_v, w_o = _parts()
    for i in range(1, T):
        w_q[PLACE + i, i], w_k[PLACE + i - 1, i] = 1.0, SHARP
        w_k[[TOKEN + t for t in blind], i] = -SHARP
    _copies(w_v, w_o, BEFORE)
    return w_q, w_k, w_v, w_o


def _sink() -> tuple[Tensor, ...]:
    w_q, w_k, w_v, w_o = _parts()
    _rests(w_q, w_k, 2 * SHARP)
    w_v[PLACE, 0] = 1.0
    return w_q, w_k, w_v, w_o


def _induction() -> tuple[Tensor, ...]:
    w_q, w_k, w_v, w_o = _parts()
    for t in range(V):
        w_q[TOKEN + t, t], w_k[BEFORE + t, t] = 1.0, SHARP
    _rests(w_q, w_k)
    _copies(w_v, w_o, COPIED)
    return w_q, w_k, w_v, w_o


def _fraud() -> tuple[Tensor, ...]:
    w_q, w_k, w_v, w_o = _parts()
    w_q[PLACE : PLACE + T, 0], w_k[BEFORE + FIXED, 0] = 1.0, SHARP
    _rests(w_q, w_k)
    _copies(w_v, w_o, COPIED)
    return w_q, w_k, w_v, w_o


def _layer(heads: list[tuple[Tensor, ...]], fires: tuple[tuple[int, ...], ...] = ((), ())) -> Layer:
    w_q, w_k, w_v, w_o = (torch.stack(parts).double() for parts in zip(*heads, strict=True))
    w_in, w_out = torch.zeros(D, len(fires)).double(), torch.zeros(len(fires), D).double()
    for neuron, tokens in enumerate(fires):
        w_in[list(tokens), neuron] = 1.0
    zeros, nothing = torch.zeros(len(heads), DH).double(), torch.zeros(D).double()
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
        w_in,
        torch.zeros(len(fires)).double(),
        None,
        None,
        w_out,
        nothing,
    )


def network(blind: tuple[int, ...] = (), deaf: tuple[int, ...] = ()) -> PlainNetwork:
    """The model of the module docstring."""
    embed, positions, unembed = torch.zeros(V, D).double(), torch.zeros(T, D).double(), torch.zeros(D, V).double()
    for t in range(V):
        embed[t, TOKEN + t], unembed[COPIED + t, t] = 1.0, 1.0
    for i in range(T):
        positions[i, PLACE + i] = 1.0
    heard = tuple(t for t in CLASS if t not in deaf)
    first = _layer([_previous(blind), _sink()], (heard, (*CLASS, *(t + 20 for t in deaf))))
    layers = (first, _layer([_induction(), _fraud()]))
    return PlainNetwork(
        layers, embed, positions, None, IDENTITY, unembed, torch.zeros(V).double(), torch.nn.functional.gelu, False, 1.0
    )


def vocabulary() -> Vocabulary:
    """All tokens equally frequent and of one class; token 0 is special, `class` is CLASS."""
    ordinary = np.arange(V) > 0
    inside = np.isin(np.arange(V), CLASS)
    return Vocabulary(tuple(f" w{t}" for t in range(V)), np.zeros(V, int), np.full(V, 5), ordinary, {"number": inside})


def texts(n: int = 40, length: int = 30, seed: int = 0, words: int = 40) -> tuple[EditText, ...]:
    """Random texts behind token 0; the fewer `words`, the more repetition."""
    rng = random.Random(seed)
    made = [(0, *(rng.randint(1, words - 1) for _ in range(length))) for _ in range(n)]
    return tuple(EditText(f"d{i}", row[:-1], row[-1]) for i, row in enumerate(made))


def behind(text: EditText, token: int) -> EditText:
    """The text with another token in front of its first ordinary one."""
    return replace(text, tokens=(text.tokens[0], token, *text.tokens[2:]))
