"""Hand-built models whose heads and neurons do exactly what a rule says, and readings of random tokens for them.

Residual dimensions: one per token (what stands here), one per offset (where), then one per token again (what heads
write). Logits read what heads write. Nothing is normed, so every claim about them is exact.
"""

import patch_models
import torch

from profiler.generality.replacement import explain
from profiler.generality.replacement.run import TextBatch, means_of, seen_of
from profiler.generality.replacement.text import Texts
from profiler.generality.replacement.view import ClaimedRule
from profiler.model.steps.plain import Layer, Norm, PlainNetwork
from profiler.patching.sites import parse_target

VOCAB, LENGTH, FAR = 7, 12, 400.0
WIDTH = VOCAB + LENGTH + VOCAB
HERE, WHERE, OUT = slice(0, VOCAB), slice(VOCAB, VOCAB + LENGTH), slice(VOCAB + LENGTH, WIDTH)
NO_NORM = Norm(torch.ones(WIDTH).double(), torch.zeros(WIDTH).double(), False, None)


def _blank() -> tuple[torch.Tensor, ...]:
    d_head = max(VOCAB, LENGTH)
    return (*tuple(torch.zeros(WIDTH, d_head).double() for _ in range(3)), torch.zeros(d_head, WIDTH).double())


def _copies(w_v: torch.Tensor, w_o: torch.Tensor, weight: float) -> None:
    w_v[HERE, :VOCAB] = torch.eye(VOCAB).double()
    w_o[:VOCAB, OUT] = weight * torch.eye(VOCAB).double()


def previous_head(weight: float = 1.5) -> tuple[torch.Tensor, ...]:
    """Attends to the offset before (the first to itself), by positions; raises the token there."""
    w_q, w_k, w_v, w_o = _blank()
    for offset in range(LENGTH):
        w_q[WHERE.start + offset, max(0, offset - 1)] = FAR
        w_k[WHERE.start + offset, offset] = 1.0
    _copies(w_v, w_o, weight)
    return w_q, w_k, w_v, w_o


def first_head(weight: float = 1.5) -> tuple[torch.Tensor, ...]:
    """Attends to the first offset; raises the token there."""
    w_q, w_k, w_v, w_o = _blank()
    w_q[WHERE, 0], w_k[WHERE.start, 0] = FAR, 1.0
    _copies(w_v, w_o, weight)
    return w_q, w_k, w_v, w_o


def diffuse_head(weight: float = 1.5, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Attends to tokens of one kind or another, by random weights that no rule knows."""
    w_q, w_k, w_v, w_o = _blank()
    rng = torch.Generator().manual_seed(seed)
    w_q[HERE, :] = 3 * torch.randn(VOCAB, w_q.shape[1], generator=rng).double()
    w_k[HERE, :] = torch.randn(VOCAB, w_k.shape[1], generator=rng).double()
    _copies(w_v, w_o, weight)
    return w_q, w_k, w_v, w_o


def layer(heads: list[tuple[torch.Tensor, ...]], neurons: int = 1, by_token: bool = False) -> Layer:
    """A layer of these heads; neurons fire by the token (`by_token`) and raise one token each, or do nothing."""
    w_q, w_k, w_v, w_o = (torch.stack(parts) for parts in zip(*heads, strict=True))
    rng = torch.Generator().manual_seed(1)
    w_in, w_out = torch.zeros(WIDTH, neurons).double(), torch.zeros(neurons, WIDTH).double()
    if by_token:
        w_in[HERE] = torch.randn(VOCAB, neurons, generator=rng).double()
        w_out[torch.arange(neurons), OUT.start + torch.arange(neurons) % VOCAB] = 2.0
    zeros = torch.zeros(len(heads), w_q.shape[-1]).double()
    nothing = torch.zeros(WIDTH).double()
    return Layer(
        NO_NORM,
        NO_NORM,
        w_q,
        w_k,
        w_v,
        zeros,
        zeros,
        zeros,
        w_o,
        nothing,
        w_in,
        torch.zeros(neurons).double(),
        None,
        None,
        w_out,
        nothing,
    )


def model(layers: list[Layer]) -> PlainNetwork:
    """A model of these layers without norms: logits are the dimensions OUT."""
    embed = torch.zeros(VOCAB, WIDTH).double()
    embed[:, HERE] = torch.eye(VOCAB).double()
    positions = torch.zeros(LENGTH, WIDTH).double()
    positions[:, WHERE] = torch.eye(LENGTH).double()
    unembed = torch.zeros(WIDTH, VOCAB).double()
    unembed[OUT] = torch.eye(VOCAB).double()
    return PlainNetwork(
        tuple(layers), embed, positions, None, NO_NORM, unembed, torch.zeros(VOCAB).double(), torch.relu, False, 1.0
    )


def reading(seed: int, n: int = 40, n_classes: int = 3) -> TextBatch:
    """Random windows, one a document; the class of a token is its id modulo `n_classes`; offset 0 is not counted.

    What comes next is the token before or the first token: a head that raises one of these lowers the loss.
    """
    rng = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, VOCAB, (n, LENGTH), generator=rng)
    choices = torch.stack([tokens.roll(1, 1), tokens[:, :1].expand_as(tokens)])
    targets = choices.gather(0, torch.randint(0, 2, (1, n, LENGTH), generator=rng))[0]
    counted = torch.ones(n, LENGTH, dtype=torch.bool)
    counted[:, 0] = False
    return TextBatch(tokens, tokens % n_classes, targets, counted, torch.arange(n) + 1000 * seed)


def texts(n: int = 40) -> Texts:
    """Readings to fit and to test on."""
    testing = (reading(1, n), reading(2, n))
    return Texts((reading(0, n),), testing, 2 * n, 2 * n * (LENGTH - 1), 0)


def explained(net, component, rule, given=None, nulls=2):
    """What one rule explains of one component, on random tokens or given texts."""
    target = parse_target(component)
    claim = ClaimedRule(target, explain.rule_named(rule, target), str(rule))
    return explain.examine(net, given or texts(), [claim], nulls)[0]


def network_and_seen(form="neox"):
    """A small random network, a reading of random tokens, and means over it."""
    net = patch_models.network(form)
    tokens = torch.randint(1, 257, (4, 20), generator=torch.Generator().manual_seed(0))
    counted = torch.ones_like(tokens, dtype=torch.bool)
    reading = TextBatch(tokens, tokens % 5, tokens.roll(-1, 1), counted, torch.arange(4))
    return net, reading, means_of(net, [reading])


def write(net, base, target, rule, mean):
    """What a rule has a component write."""
    value, _ = rule.value(seen_of(base, target, mean))
    return value
