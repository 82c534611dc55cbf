"""Gate and value of gated neurons, in models that hold them in two matrices, in one, or have none."""

import pytest
import tiny
import torch
import zoo
from torch.nn.functional import gelu, silu

from profiler.config import ModelSettings
from profiler.model.forward import Wanted
from profiler.model.load import model_from

PAIRED, HALVES, NONE = ("llama2", "gemma2"), ("phi3",), ("gpt2", "opt")


def capture_of(form):
    model = model_from(zoo.build(form), tiny.tokenizer(), ModelSettings(model=form, dtype="float64"))
    tokens = torch.randint(1, 60, (2, 9), generator=torch.Generator().manual_seed(0))
    return model, model.run(tokens, Wanted())


@pytest.mark.parametrize("form", [*PAIRED, *HALVES])
def test_the_activation_is_the_gate_after_its_nonlinearity_times_the_value(form):
    model, capture = capture_of(form)
    neurons = [block for block in model.spec.blocks if block.kind == "neuron"]
    assert neurons and list(capture.factors) == neurons
    for block in neurons:
        gate, value = capture.factors[block]
        products = [silu(gate) * value, gelu(gate) * value, gelu(gate, approximate="tanh") * value]
        distances = [float((product - capture.units[block]).abs().max()) for product in products]
        assert min(distances) < 1e-9 and (gate < 0).any() and (value < 0).any()
        assert float((silu(value) * gate - capture.units[block]).abs().max()) > 1e-3


@pytest.mark.parametrize("form", NONE)
def test_a_plain_mlp_has_no_gate(form):
    assert capture_of(form)[1].factors == {}
