"""How alike two units write, against the definition in plain NumPy."""

import numpy as np
import pytest
import torch

from profiler.config import RunConfig
from profiler.errors import ComponentError
from profiler.model.components import ComponentId
from profiler.model.direct import write_likeness
from profiler.model.load import load_model


@pytest.fixture(scope="module")
def model(model_dirs):
    return load_model(RunConfig(model=str(model_dirs["gpt2"]), corpora=("none",), dtype="float64"))


def rows_of(model, component: ComponentId) -> np.ndarray:
    """W of a unit's values, read off the network of transformers."""
    block = model.network.transformer.h[component.layer]
    if component.kind == "neuron":
        return block.mlp.c_proj.weight.detach().double().numpy()[component.unit][None]
    whole = block.attn.c_proj.weight.detach().double().numpy()
    width = len(whole) // model.network.config.n_head
    return whole[component.unit * width : (component.unit + 1) * width]


@pytest.mark.parametrize("asked", [ComponentId("head", 1, 1), ComponentId("neuron", 0, 3)], ids=lambda c: c.label)
def test_it_is_the_cosine_of_what_is_written(model, asked):
    own = rows_of(model, asked)
    found = dict(write_likeness(model.weights, model.spec, asked))
    assert found[asked] == pytest.approx(1)
    assert {component.kind for component in found} == {asked.kind} and len(found) > 2
    for component, value in found.items():
        other = rows_of(model, component)
        a, b = (own, other) if asked.kind == "neuron" else (own.T @ own, other.T @ other)
        assert value == pytest.approx((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-9)


def test_heads_do_not_change_with_the_basis_of_their_values(model):
    asked = ComponentId("head", 1, 1)
    before = dict(write_likeness(model.weights, model.spec, asked))
    weight = model.network.transformer.h[1].attn.c_proj.weight
    width = len(weight) // model.network.config.n_head
    turn, _ = torch.linalg.qr(
        torch.randn(width, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    )
    original = weight.detach().clone()
    with torch.no_grad():
        weight[width : 2 * width] = (turn @ weight[width : 2 * width].double()).to(weight.dtype)
    try:
        after = dict(write_likeness(model.weights, model.spec, asked))
    finally:
        with torch.no_grad():
            weight.copy_(original)
    assert after == pytest.approx(before, abs=1e-6)


def test_an_embedding_has_no_unit(model):
    with pytest.raises(ComponentError):
        list(write_likeness(model.weights, model.spec, ComponentId("embed")))
