"""The induction model whose weights were written by hand: what each head does is known exactly."""

import effect_models
import pytest
import torch

from profiler.effects import methods, routes
from profiler.effects.ablation import AblationCase, ablate
from profiler.model.components import Block

pytestmark = pytest.mark.skipif(
    not effect_models.KNOWN.is_dir(), reason="the folder ../shared/data/models is not there"
)
HALF = 12
LOGIT = 7 * 26 / 27
"""6 + 3 - 2 on one of 27 tokens, centred; attention leaves 0.1 at other tokens."""


@pytest.fixture(scope="module")
def text():
    net, layout, batch = effect_models.batch_of(effect_models.known(), effect_models.repeated_ids(3, HALF))
    return net, layout, batch, methods.references(net, (batch,))


def by_block(text, method, reference="zero"):
    net, _, batch, references = text
    found = methods.effects(net, batch, method, references, steps=16)
    return {effect.block.name: effect for effect in found if effect.reference == reference}


def test_the_previous_token_head_acts_wholly_through_others(text):
    """Where the first copy's next token stands, its write is what the second copy's question finds."""
    found = by_block(text, "integrated")["L0H"]
    middle = slice(2, HALF + 1)  # after the BOS and the first token, which nothing precedes
    assert found.total["logit"][:, middle, 0].numpy() == pytest.approx(LOGIT, abs=0.05)
    assert found.direct[..., 0].abs().max() < 1e-6
    assert (found.total["loss"][:, middle, 0] < -2).all()


def test_a_plain_gradient_does_not_see_it(text):
    """Its attention downstream is saturated: an estimate that the ablation contradicts."""
    found = by_block(text, "gradient")["L0H"]
    assert found.total["logit"][..., 0].abs().max() < 0.01
    net, layout, batch, _ = text
    case = AblationCase(Block(0, "head", 4), 0, batch.windows[0], 4, torch.zeros(37, dtype=torch.float64))
    (real,) = ablate(net, layout, [case])
    assert real.logit == pytest.approx(LOGIT, abs=0.05)
    assert abs(real.own) < 1e-5


@pytest.mark.parametrize("method", ["gradient", "integrated"])
def test_heads_that_write_to_the_logits_act_directly(text, method):
    found = by_block(text, method)["L1H"]
    second = slice(HALF + 1, 2 * HALF)  # questions that have an answer
    for head, logit in ((0, 6), (1, 3), (2, -2)):
        effects = found.total["logit"][:, second, head]
        assert effects.numpy() == pytest.approx(logit * 26 / 27, abs=0.05)
        torch.testing.assert_close(effects, found.direct[:, second, head], rtol=2e-3, atol=2e-3)


def test_inert_heads_do_nothing(text):
    for method in ("gradient", "integrated"):
        found = by_block(text, method, "mean")
        inert = [found["L0H"].total["logit"][..., 1:3], found["L1H"].total["logit"][..., 3]]
        assert max(float(effect.abs().max()) for effect in inert) < 0.02
        assert float(found["L0H"].total["logit"][..., 0].abs().max()) > (6 if method == "integrated" else 0)


def test_it_acts_through_the_keys_of_the_induction_heads(text):
    """6 : 3 : -2, and through nothing else."""
    net, _, batch, references = text
    frame = routes.routes(net.model, [batch], [(Block(0, "head", 4), 0)], references, 16)
    ways = {(row["through"], row["input"]): row["effect"] for row in frame.to_dicts()}
    largest = sorted(ways, key=lambda way: -abs(ways[way]))[:3]
    assert largest == [("L1H0", "k"), ("L1H1", "k"), ("L1H2", "k")]
    whole = sum(ways.values())
    assert [ways[way] / whole for way in largest] == pytest.approx([6 / 7, 3 / 7, -2 / 7], abs=0.01)
    assert sum(abs(ways[way]) for way in ways if way not in largest) < 0.01 * whole
