"""Record, patch and check of tiny models of unlike families, from the model's folder to a page."""

import patch_models
import pytest
import tiny
import torch
import zoo

import profiler
from profiler.config import RunConfig
from profiler.prompts.pairs import jsonl

pytestmark = pytest.mark.slow
WHOLE = (
    *("gemma2", "gemma3", "qwen3", "olmo2", "llama3", "mixtral", "qwen3_moe", "gpt_oss"),
    *("deepseek_v3_experts", "lfm2"),
)
"""Norms after blocks, norms of queries and keys, experts, attention sinks, latent attention, layers without heads."""
MONTHLY = {"gemma3", "olmo2", "llama3", "qwen3_moe", "gpt_oss"}
"""Half a minute each; the others stand for them in the slow tests."""
WORDS = {"generalises", "narrows", "does something else", "over-recovers", "inconclusive"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.monthly if name in MONTHLY else ()) for name in WHOLE]
)
def test_a_family_is_recorded_patched_and_checked(name, tmp_path) -> None:
    model = tmp_path / "model"
    zoo.build(name, torch.float32).save_pretrained(model)
    tiny.tokenizer().save_pretrained(model)
    corpus = tiny.write_corpus(tmp_path / "corpus.jsonl", n_documents=40)
    pairs = tmp_path / "toy.jsonl"
    jsonl.write(pairs, patch_models.pairs(24))
    out = tmp_path / "run.duckdb"
    profiler.record(RunConfig(model=str(model), corpora=(str(corpus),), tokens=1000, context_length=48), out)
    with profiler.open(out) as run:
        sinks = run.query("head_attention", component="L1H1").filter(measure="sink")["mean"].to_list()
        assert (len(sinks) == 1 and 0 < sinks[0] < 1) if name == "gpt_oss" else not sinks
        patched = run.patch(pairs, draws=19, neurons=4, top=2, steps=2, by_role=False)
        kinds = {*run.sql("SELECT DISTINCT component_kind FROM patch_effects")["component_kind"]}
        assert ("expert" in kinds, "mixer" in kinds) == (name in zoo.EXPERTS, name == "lfm2")
        checked = run.check(patched.circuit, reread=True, tokens=1000, draws=9, pairs=24)
        assert checked.word in WORDS
        page = run.report("generality", out=tmp_path / "page.html")
    assert patched.circuit.name in page.path.read_text(encoding="utf-8")
