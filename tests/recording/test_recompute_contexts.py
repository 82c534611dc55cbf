"""Contexts computed again with the model: the stored numbers come back, and every token has one."""

import polars as pl
import pytest
import torch

from profiler.errors import ModelError, ProfilerError
from profiler.model.components import parse_label
from profiler.model.load import load_model
from profiler.pages import build
from profiler.recording import recompute
from profiler.run import open as open_run


@pytest.fixture(scope="module")
def model(base_config):
    return load_model(base_config)


@pytest.fixture(scope="module")
def run(run_path):
    with open_run(run_path) as opened:
        yield opened


def both(run, model, label: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The stored contexts of a component, and the recomputed ones."""
    stored = build.load("component").tokens(build.Reader(run.connection), label)
    return stored, recompute.contexts(run.connection, model, parse_label(label), stored)


@pytest.mark.parametrize("label", ["L1H1", "L0N3", "L1N2", "L0H0"])
def test_every_stored_value_comes_back_and_none_is_missing(run, model, label):
    stored, again = both(run, model, label)
    assert len(again) == len(stored) > 10 and again["tokens"].equals(stored["tokens"])
    compared = 0
    for old, new in zip(stored.to_dicts(), again.to_dicts(), strict=True):
        assert None not in new["activations"] and None not in new["dlas"][:-1]
        for name in ("activations", "dlas", "probabilities"):
            pairs = [(a, b) for a, b in zip(old[name], new[name], strict=True) if a is not None]
            compared += len(pairs)
            assert [b for _, b in pairs] == pytest.approx([a for a, _ in pairs], rel=1e-5, abs=1e-6)
        if old["top_offset"] is not None:
            assert (old["top_offset"], old["top_weight"]) == (
                new["top_offset"],
                pytest.approx(new["top_weight"], abs=1e-6),
            )
    assert compared > 50


def test_attention_is_the_bridges_own_pattern(run, model):
    """Against TransformerLens' cache of patterns, window by window."""
    _, again = both(run, model, "L1H1")
    rows = run.sql(recompute.WINDOWS, positions=",".join(map(str, again["position_id"]))).to_dicts()
    places = {row["position_id"]: row for row in rows}
    for row in again.sample(6, seed=0).to_dicts():
        place = places[row["position_id"]]
        with torch.inference_mode():
            _, cache = model.bridge.run_with_cache(torch.tensor([place["token_ids"]]))
        pattern = cache["blocks.1.attn.hook_pattern"][0, 1, place["offset"]].double()
        start = place["offset"] - row["shown"]
        expected = pattern[start : start + len(row["tokens"])].tolist()
        assert row["attention"] == pytest.approx(expected, abs=1e-6)
        assert row["top_weight"] == pytest.approx(float(pattern.max()), abs=1e-6)


def test_neurons_have_no_attention(run, model):
    _, again = both(run, model, "L0N3")
    assert again["attention"].null_count() == len(again)


def test_another_model_is_refused(run, model, base_config, model_dirs):
    other = (
        load_model(base_config.model_copy(update={"model": str(model_dirs["gptneox"])}))
        if "gptneox" in model_dirs
        else None
    )
    other = other or load_model(
        base_config.model_copy(update={"model": next(str(p) for n, p in model_dirs.items() if n != "gpt2")})
    )
    with pytest.raises(ModelError, match="other weights"):
        both(run, other, "L1H1")


@pytest.mark.slow
def test_the_card_shows_a_value_at_every_token_and_the_attention_over_them(run_path, tmp_path):
    with open_run(run_path) as opened:
        html = opened.report("component", "L0H1", attention=True, out=tmp_path / "card.html").path.read_text("utf-8")
        plain = build.build(run_path, "component", component="L0H1")
        assert html.count(" data-a=") > 3 * plain.count(" data-a=") and html.count(" data-w=") > 100
        with pytest.raises(ProfilerError, match="one component"):
            opened.report("overview", attention=True)
