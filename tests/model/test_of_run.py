"""The model of a run, loaded again for the commands that need it."""

import pytest
import tiny
import torch

from profiler.config import RunConfig
from profiler.model.of_run import Choice, load_for
from profiler.recording.pipeline import record


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_a_run_in_half_precision_is_patched_in_float32_once_its_weights_are_known(model_dirs, tmp_path, dtype):
    """Weights are compared as the run read them: rounded, they are other weights than the same in float32."""
    corpus = tiny.write_corpus(tmp_path / "rows.jsonl", n_documents=6)
    config = RunConfig(
        model=str(model_dirs["gpt2"]), corpora=(str(corpus),), tokens=200, dtype=dtype, token_sums="none"
    )
    path = tmp_path / "run.duckdb"
    record(config, path)
    model = load_for(path, Choice(), full_precision=True)
    patched_in = torch.float32 if dtype == "bfloat16" else torch.float64
    assert {weight.dtype for weight in model.bridge.original_model.parameters()} == {patched_in}
    as_recorded = load_for(path, Choice())
    assert model.spec.weights_hash == as_recorded.spec.weights_hash
    assert {weight.dtype for weight in as_recorded.bridge.original_model.parameters()} == {getattr(torch, dtype)}
