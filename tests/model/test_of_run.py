"""The model of a run, loaded again for the commands that need it."""

import pytest
import tiny
import torch

from profiler import actions
from profiler.config import ModelChoice, ModelSettings, RunConfig
from profiler.errors import ModelError
from profiler.model.load import load_model
from profiler.model.of_run import load_for
from profiler.recording.pipeline import record


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_a_run_in_half_precision_is_patched_in_float32_once_its_weights_are_known(model_dirs, tmp_path, dtype):
    """Weights are compared as the run read them: rounded, they are other weights than the same in float32."""
    corpus = tiny.write_corpus(tmp_path / "rows.jsonl", n_documents=6)
    config = RunConfig(
        model=str(model_dirs["gpt2"]), corpora=(str(corpus),), tokens=200, dtype=dtype, token_sums="none"
    )
    path = tmp_path / "run.duckdb"
    record(config, path)
    model = load_for(path, ModelChoice(), full_precision=True)
    patched_in = torch.float32 if dtype == "bfloat16" else torch.float64
    assert {weight.dtype for weight in model.bridge.original_model.parameters()} == {patched_in}
    as_recorded = load_for(path, ModelChoice())
    assert model.spec.weights_hash == as_recorded.spec.weights_hash
    assert {weight.dtype for weight in as_recorded.bridge.original_model.parameters()} == {getattr(torch, dtype)}


@pytest.mark.slow
@pytest.mark.parametrize("bos", [False, True])
def test_prompts_of_a_run_have_its_bos_whoever_loads_the_model(model_dirs, tmp_path, bos):
    corpus = tiny.write_corpus(tmp_path / "rows.jsonl", n_documents=6)
    place, path = str(model_dirs["gpt2"]), tmp_path / "run.duckdb"
    record(RunConfig(model=place, corpora=(str(corpus),), tokens=200, prepend_bos=bos, token_sums="none"), path)
    assert (actions.model_of(path).bos_id is not None) == bos
    alike, other = (load_model(ModelSettings(model=place, prepend_bos=with_bos)) for with_bos in (bos, not bos))
    assert actions.model_of(path, alike) is alike
    with pytest.raises(ModelError, match=f"prepend_bos={bos}"):
        actions.model_of(path, other)
