"""The plain forward pass leaves what TransformerLens leaves; where it would not, the pass goes through
TransformerLens."""

import pytest
import tiny
import torch

from profiler.config import RunConfig
from profiler.model import forward
from profiler.model import load as models
from profiler.model.forward import Wanted, attention_rows
from profiler.model.load import load_model


def loaded(folder, **changes):
    return load_model(RunConfig(model=str(folder), corpora=("x",), **{"dtype": "float64"} | changes))


@pytest.mark.parametrize("name", list(tiny.ARCHITECTURES))
def test_both_ways_leave_the_same(name, model_dirs):
    model = loaded(model_dirs[name])
    assert model.attention == "fused"
    g = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 257, (3, 40), generator=g)
    wanted = Wanted(
        logits=(torch.tensor([2, 0]), torch.tensor([39, 5])),
        attention=(torch.tensor([1, 1, 0, 2]), torch.tensor([7, 0, 39, 20])),
    )
    fused = model.run(tokens, wanted)
    with torch.inference_mode():
        eager = models._through_bridge(model.bridge, model.spec)(tokens, wanted)
    pairs = list(zip(models._tensors(fused), models._tensors(eager), strict=True))
    assert len(pairs) == 3 + (name == "gpt2") + 3 * model.spec.n_layers
    for got, want in pairs:
        near = 1e-6 if name == "llama" else 1e-10  # Llama's eager softmax is in float32, whatever the dtype
        torch.testing.assert_close(got, want, rtol=near, atol=near)
    assert fused.attention[0].sum(-1).allclose(torch.ones(1, dtype=torch.float64))
    assert (fused.attention[0][0, :, 8:] == 0).all()


def test_nothing_asked_for_nothing_computed(model_dirs):
    capture = loaded(model_dirs["gpt2"]).run(torch.arange(8)[None], Wanted())
    assert capture.attention == []
    assert capture.logits.shape == (0, 257)


def test_a_plain_attention_that_computes_something_else_is_not_used(model_dirs, monkeypatch):
    twice = lambda *args, **options: (forward.sdpa_attention_forward(*args, **options)[0] * 1.001, None)  # noqa: E731
    monkeypatch.setitem(forward.AttentionInterface._global_mapping, forward.WATCHED, twice)
    model = loaded(model_dirs["neox"], dtype="float32")
    assert model.attention == "eager"
    rows = (torch.tensor([0]), torch.tensor([6]))
    capture = model.run(torch.arange(8)[None], Wanted(rows, rows))
    assert capture.logits.shape == (1, 257)
    assert capture.attention[0].shape == (1, 2, 8)


@pytest.mark.parametrize("additive", [False, True])
def test_rows_obey_a_mask_and_share_keys(additive):
    """Grouped keys and a sliding window of 3, against the whole pattern."""
    g = torch.Generator().manual_seed(1)
    query, key = (torch.randn(2, heads, 9, 4, generator=g, dtype=torch.float64) for heads in (4, 2))
    places = torch.arange(9)
    back = places[:, None] - places
    allowed = ((back >= 0) & (back < 3))[None, None]
    mask = torch.zeros(1, 1, 9, 9, dtype=torch.float64).masked_fill(~allowed, -torch.inf) if additive else allowed
    rows = (torch.tensor([1, 0, 1]), torch.tensor([8, 2, 0]))
    whole = (query @ key.repeat_interleave(2, 1).mT * 0.5).masked_fill(~allowed, -torch.inf).softmax(-1)
    torch.testing.assert_close(attention_rows(query, key, mask, 0.5, rows), whole[rows[0], :, rows[1]])
