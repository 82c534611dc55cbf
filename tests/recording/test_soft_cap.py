"""The slope of a soft cap stands beside the logit that is attributed, which is the logit before the cap."""

import chunked
import pytest
import tiny
import torch
import zoo

from profiler.database import query
from profiler.recording.pipeline import record

pytestmark = pytest.mark.slow

ROWS = """SELECT token_ids, p."offset", p.next_token_id, p.cap_slope, p.dense FROM positions p
    JOIN windows USING (window_id)"""


def recorded(name: str, folder) -> tuple:
    zoo.build(name).save_pretrained(folder / "model")
    tiny.tokenizer().save_pretrained(folder / "model")
    corpus = chunked.write_corpus(folder / "rows.jsonl", n_documents=8)
    record(chunked.settings(folder / "model", corpus, context_length=24, dtype="float64"), folder / "run.duckdb")
    return query.run(folder / "run.duckdb", ROWS).rows()


def test_the_slope_is_the_derivative_of_the_models_own_logit(tmp_path) -> None:
    network, rows = zoo.build("gemma2"), recorded("gemma2", tmp_path)
    cap = network.config.final_logit_softcapping
    slopes = []
    for ids, offset, target, slope, dense in rows:
        assert (slope is not None) == dense
        if dense:
            with torch.no_grad():
                capped = network(torch.tensor([ids]), use_cache=False).logits[0, offset, target]
            before = (cap * torch.atanh(capped / cap)).requires_grad_()
            (cap * torch.tanh(before / cap)).backward()
            assert slope == pytest.approx(float(before.grad), rel=1e-6)
            slopes.append(slope)
    assert min(slopes) < max(slopes) < 1


def test_a_model_without_a_cap_has_no_slope(tmp_path) -> None:
    assert {slope for *_, slope, _ in recorded("llama2", tmp_path)} == {None}
