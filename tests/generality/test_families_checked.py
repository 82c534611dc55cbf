"""Record, patch and check of tiny models of unlike families, from the model's folder to a page."""

import patch_models
import pytest
import tiny
import torch
import zoo
from typer.testing import CliRunner

import profiler
from profiler.cli import app
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
    """By the commands."""
    model = tmp_path / "model"
    zoo.build(name, torch.float32).save_pretrained(model)
    tiny.tokenizer().save_pretrained(model)
    corpus = tiny.write_corpus(tmp_path / "corpus.jsonl", n_documents=40)
    pairs, out, circuit = tmp_path / "toy.jsonl", tmp_path / "run.duckdb", tmp_path / "toy.yaml"
    jsonl.write(pairs, patch_models.pairs(24))
    said = command("record", model, "--corpus", corpus, "--tokens", 1000, "--context-length", 48, "--out", out)
    assert "a batch is 16 windows of 48 tokens" in said
    draws = ("--draws", 19, "--neurons", 4, "--top", 2, "--steps", 2, "--no-by-role", "--save", circuit)
    command("patch", out, pairs, *draws)
    said = command("check", out, circuit, "--reread", "--tokens", 1000, "--draws", 9, "--pairs", 24)
    assert WORDS & {*said.splitlines()}, said
    page = tmp_path / "page.html"
    command("report", out, "generality", "--out", page)
    with profiler.open(out) as run:
        sinks = run.query("head_attention", component="L1H1").filter(measure="sink")["mean"].to_list()
        assert (len(sinks) == 1 and 0 < sinks[0] < 1) if name == "gpt_oss" else not sinks
        kinds = {*run.sql("SELECT DISTINCT component_kind FROM patch_effects")["component_kind"]}
        assert ("expert" in kinds, "mixer" in kinds) == (name in zoo.EXPERTS, name == "lfm2")
        (checked,) = run.sql("SELECT DISTINCT circuit FROM checks")["circuit"]
    assert checked in page.read_text(encoding="utf-8")


def command(*arguments: object) -> str:
    """What a command prints; it ends well."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, (arguments, done.exception, done.output)
    return done.output
