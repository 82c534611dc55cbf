"""Models of other families than the three that all tests run on: either their parts add up, or they are refused in a
sentence."""

from pathlib import Path

import duckdb
import pytest
import tiny
from transformers import MambaConfig, MambaForCausalLM, OlmoConfig, OlmoForCausalLM, OPTConfig, OPTForCausalLM

from profiler.config import RunConfig
from profiler.errors import ModelError
from profiler.model.load import load_model
from profiler.recording.pipeline import record

SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 48}
READ = {
    "opt": lambda: OPTForCausalLM(OPTConfig(ffn_dim=24, word_embed_proj_dim=16, pad_token_id=1, **SHAPE, **tiny.SIZES)),
    "olmo": lambda: OlmoForCausalLM(OlmoConfig(intermediate_size=24, pad_token_id=1, **SHAPE, **tiny.SIZES)),
}


def saved(name: str, build, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(tiny.ARCHITECTURES, name, build)
    return str(tiny.save(name, folder / name))


@pytest.mark.parametrize("name", READ)
def test_widths_come_from_the_weights_and_norms_may_have_none(name, tmp_path, corpus_file, monkeypatch):
    """OPT's field for the width is one TransformerLens passes by (it takes four times the model's); OLMo's norms have
    no weight."""
    place = saved(name, READ[name], tmp_path, monkeypatch)
    record(RunConfig(model=place, corpora=(str(corpus_file),), tokens=300, dense_positions=20), tmp_path / "run.duckdb")
    with duckdb.connect(str(tmp_path / "run.duckdb"), read_only=True) as run:
        [(width, neurons, residual)] = run.execute(
            "SELECT d_mlp, (SELECT count(*) FROM components WHERE kind = 'neuron'), closure_residual FROM runs"
        ).fetchall()
    assert (width, neurons) == (24, 48) and residual < 1e-4


def test_a_model_without_attention_is_refused_in_a_sentence(tmp_path, monkeypatch):
    build = lambda: MambaForCausalLM(MambaConfig(hidden_size=16, num_hidden_layers=1, **tiny.SIZES))  # noqa: E731
    place = saved("mamba", build, tmp_path, monkeypatch)
    with pytest.raises(ModelError, match=r"Mamba.*attention heads and MLPs"):
        load_model(RunConfig(model=place, corpora=("none",)))
