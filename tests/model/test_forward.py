"""The watched forward pass leaves what TransformerLens leaves, and is the model's own."""

import pytest
import tiny
import torch

from profiler.config import RunConfig
from profiler.errors import ModelError
from profiler.model import forward
from profiler.model.forward import Wanted, attention_rows
from profiler.model.load import load_model


def loaded(folder, **changes):
    return load_model(RunConfig(model=str(folder), corpora=("x",), **{"dtype": "float64"} | changes))


def through_transformer_lens(model, tokens, wanted):
    """By TransformerLens' names, what a pass through it leaves."""
    with torch.inference_mode():
        logits, cache = model.bridge.run_with_cache(tokens)
    return logits[wanted.logits], cache


@pytest.mark.parametrize("name", list(tiny.ARCHITECTURES))
def test_transformer_lens_leaves_the_same(name, model_dirs):
    model = loaded(model_dirs[name])
    assert model.attention == "sdpa"
    g = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 257, (3, 40), generator=g)
    wanted = Wanted(
        logits=(torch.tensor([2, 0]), torch.tensor([39, 5])),
        attention=(torch.tensor([1, 1, 0, 2]), torch.tensor([7, 0, 39, 20])),
    )
    capture = model.run(tokens, wanted)
    logits, cache = through_transformer_lens(model, tokens, wanted)
    near = 1e-6 if name == "llama" else 1e-10  # Llama's eager softmax is in float32, whatever the dtype
    pairs = [
        (capture.logits, logits),
        (capture.residual, cache["ln_final.hook_in"]),
        (capture.embed, cache["hook_embed"]),
    ]
    if name == "gpt2":
        pairs.append((capture.pos_embed, cache["pos_embed.hook_out"]))
    names = {"head": "attn.hook_z", "neuron": "mlp.out.hook_in"}
    pairs += [(values, cache[f"blocks.{b.layer}.{names[b.kind]}"]) for b, values in capture.units.items()]
    windows, offsets = wanted.attention
    for block, rows in capture.attention.items():
        pairs.append((rows, cache[f"blocks.{block.layer}.attn.hook_pattern"][windows, :, offsets]))
    assert len(pairs) == 3 + (name == "gpt2") + 3 * model.spec.n_layers
    for got, want in pairs:
        torch.testing.assert_close(got, want, rtol=near, atol=near)


def test_nothing_asked_for_nothing_computed(model_dirs):
    capture = loaded(model_dirs["gpt2"]).run(torch.arange(8)[None], Wanted())
    assert capture.attention == {}
    assert capture.logits.shape == (0, 257)


def test_an_attention_that_computes_something_else_when_watched_is_refused(model_dirs, monkeypatch):
    def other(*args, **options):
        return forward.sdpa_attention_forward(*args, **options)[0] * 1.001, None

    monkeypatch.setitem(forward.AttentionInterface._global_mapping, forward.FUSED, other)
    with pytest.raises(ModelError, match="computes other logits when it is watched"):
        loaded(model_dirs["neox"], dtype="float64")


def test_rows_that_do_not_mix_to_what_the_kernel_wrote_are_not_given(model_dirs, monkeypatch):
    """A score that the rows leave out, as a bias on distance, would be stored as if it were attention."""
    monkeypatch.setattr(forward, "attention_rows", lambda *args: attention_rows(*args).roll(1, -1))
    model = loaded(model_dirs["neox"])
    assert "attention weights cannot be read" in " ".join(model.spec.notes)
    rows = (torch.tensor([0]), torch.tensor([6]))
    assert model.run(torch.arange(8)[None], Wanted(rows, rows)).attention == {}


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
