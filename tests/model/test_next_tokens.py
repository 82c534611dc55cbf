"""Attribution by distinct next tokens gives what a product at every position gives, whatever the next tokens are."""

import pytest
import tiny
import torch
import zoo

from profiler.config import RunConfig
from profiler.model import wiring
from profiler.model.direct import at_unembed, by_part
from profiler.model.forward import Wanted
from profiler.model.load import model_from
from profiler.model.wiring import HEAD, Directions, Sink, TokenDirections, Wire
from profiler.model.writers import activations

N_WINDOWS, WIDTH = 3, 40
NAMES = ["gpt2", "gemma2", "olmo2", "gpt1", "granite", "cohere", "mixtral", "qwen2_moe", *zoo.MADE_UP]
"""Plain, norms after blocks, norms of the stream, multipliers, experts, a shared expert with a gate."""


def next_tokens(which: str) -> torch.Tensor:
    shape = N_WINDOWS, WIDTH
    random = torch.Generator().manual_seed(4)
    return {
        "all distinct": lambda: torch.randperm(zoo.VOCAB, generator=random)[: N_WINDOWS * WIDTH].view(shape),
        "one": lambda: torch.full(shape, 7),
        "special ones beside others": lambda: torch.randint(0, 3, shape, generator=random),
        "few, out of order": lambda: torch.tensor([200, 3, 90])[torch.randint(0, 3, shape, generator=random)],
    }[which]()


def direct_product(model, capture, targets):
    """DLA of each writer's units from a direction at every position, none of them shared."""
    weights = model.weights
    directions = Directions(weights.wiring, at_unembed(weights, targets), capture.scales)
    for block, writer in weights.writers.items():
        toward, w = directions.at(writer.site), weights.matrix(block)
        if writer.expert is None:
            values = capture.units[block].reshape(*targets.shape, -1)
            yield (values * (toward @ w.T)).unflatten(-1, (block.units, writer.width)).sum(-1)
            continue
        routed = capture.routed[writer.site]
        share = torch.where(routed.experts == writer.expert, routed.weights, 0).sum(-1, keepdim=True)
        post = activations(weights.matrices[block], writer.expert, routed.read.flatten(0, 1)).view(*targets.shape, -1)
        yield post * share * (toward @ w.T)


@pytest.fixture(scope="module", params=NAMES)
def read(request):
    """A model in float64 and what a pass over some windows leaves."""
    config = RunConfig(model=request.param, corpora=("x",), dtype="float64", context_length=WIDTH)
    model = model_from(zoo.double(zoo.build(request.param, torch.float64)), tiny.tokenizer(), config)
    tokens = torch.randint(1, zoo.VOCAB, (N_WINDOWS, WIDTH), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        return model, model.run(tokens, Wanted())


@pytest.mark.parametrize("which", ["all distinct", "one", "special ones beside others", "few, out of order"])
def test_parts_are_those_of_the_product_at_every_position(read, which):
    model, capture = read
    targets = next_tokens(which)
    with torch.inference_mode():
        parts, wanted = by_part(capture, model.weights, model.spec, targets), direct_product(model, capture, targets)
        for theirs, part in zip(wanted, parts, strict=False):
            theirs = theirs if part.present is None else theirs.flatten(0, 1)[part.present][None]
            assert part.dla.shape == theirs.shape
            if theirs.numel():
                assert float((part.dla - theirs).abs().max()) <= 1e-12 * float(theirs.abs().max())
                assert float(theirs.abs().max()) > 0


def test_positions_do_not_depend_on_what_stands_beside_them(read):
    model, capture = read
    targets = next_tokens("few, out of order")
    other = targets.clone()
    other[1:] = next_tokens("all distinct")[1:]
    with torch.inference_mode():
        both = zip(*(by_part(capture, model.weights, model.spec, t) for t in (targets, other)), strict=True)
        for mine, theirs in both:
            if mine.present is None:
                torch.testing.assert_close(mine.dla[0], theirs.dla[0], rtol=1e-12, atol=1e-13)


def test_several_ways_with_denominators_of_their_own_are_added_up():
    """What is written is read by the unembedding, and by a gated norm before it: no scale is common to both."""
    width, random = 6, torch.Generator().manual_seed(0)
    norm = wiring.norms.HeldNorm(torch.rand(width, generator=random, dtype=torch.float64), None, centres=True, eps=1e-6)
    sinks = (
        Sink(HEAD, None, (Wire("block", 2.0), Wire("norm", 1.0))),
        Sink("norm", norm, (Wire("block", 0.5, "gate"),)),
    )
    way = wiring.Wiring(sinks, ("block",), 1.0, None)
    unembed = torch.randn(9, width, generator=random, dtype=torch.float64)
    targets = torch.randint(0, 9, (2, 30), generator=random)
    held = {name: torch.rand(2, 30, 1, generator=random, dtype=torch.float64) + 0.5 for name in ("norm", "gate")}
    found = TokenDirections(way, lambda tokens: unembed[tokens], targets, held)
    u = unembed[targets]
    through = u * norm.gain
    through = (through - through.mean(-1, keepdim=True)) / held["norm"] * 0.5 * held["gate"]
    torch.testing.assert_close(found.at("block").directions(), 2 * u + through, rtol=1e-13, atol=1e-14)
    assert len(found.at("norm").of_token) == len(targets.unique())
    torch.testing.assert_close(found.at("norm").directions(), u, rtol=1e-13, atol=1e-14)
