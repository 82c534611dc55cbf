"""The pass on other documents, other models and bad input."""

from copy import deepcopy
from pathlib import Path

import polars as pl
import pytest
import tiny
import torch
from passes import CONTEXT, corpus_rows, expected_documents, raw_rows, run, settings, write_rows
from polars.testing import assert_frame_equal
from transformers import PreTrainedTokenizerFast

from profiler.errors import ComponentError, CorpusError, ModelError
from profiler.model.load import load_model
from profiler.recording.pipeline import record

# --- documents do not see one another
# ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_other_documents_change_nothing(model_dirs, corpus, tmp_path):
    """No attention across documents, no state from batch to batch (anchors, trap S17)."""
    rows = corpus_rows()
    changed = [r if i in (4, 5) else r | {"text": tiny.text(900 + i, 20)} for i, r in enumerate(rows)]
    first = run(tmp_path, settings(model_dirs["gpt2"], write_rows(tmp_path / "rows.jsonl", rows)), "first")
    second = run(tmp_path, settings(model_dirs["gpt2"], write_rows(tmp_path / "rows.jsonl", changed)), "second")
    for source in ("doc-4", "doc-5"):
        one, two = (
            raw_rows(t, "L1H1").filter(pl.col("source") == source).sort("pos", "window_id") for t in (first, second)
        )
        assert one.height > 20
        columns = ["activation", "dla", "target_logit", "token_id"]
        assert_frame_equal(one.select(columns), two.select(columns), rel_tol=1e-6, abs_tol=1e-9)


# --- other models
# ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_llama_with_a_context_shorter_than_its_documents(model_dirs, corpus, tmp_path):
    tables = run(tmp_path, settings(model_dirs["llama"], corpus, context_length=8, tokens=600))
    assert tables["documents"]["n_tokens"].sum() == 600
    assert tables["runs"]["n_tokens"].item() == 600
    rows = raw_rows(tables, "L1H1")
    assert rows["offset"].max() == 7
    assert rows.filter(pl.col("pos").is_not_null()).height == 600 - tables.drops()["last_tokens"]
    sizes = tables["windows"].with_columns(pl.col("token_ids").list.len())["token_ids"]
    assert sizes.max() == 8
    assert (tables["windows"]["start"] % 7 == 0).all()


@pytest.fixture(scope="module")
def no_bos_dir(tmp_path_factory) -> Path:
    """A model whose tokenizer has no BOS."""
    folder = tmp_path_factory.mktemp("no-bos")
    tiny.network("neox").save_pretrained(folder)
    tokenizer = tiny.tokenizer()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token=tiny.END).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_models_without_a_bos_mark_the_first_position_of_a_window(no_bos_dir, corpus, tmp_path):
    tables = run(tmp_path, settings(no_bos_dir, corpus))
    drops, ids = tables.drops(), expected_documents()
    rows = raw_rows(tables, "L0N3")
    assert drops["bos"] == 0
    assert drops["first"] == sum(len(range(0, len(i) - 1, CONTEXT)) for i in ids.values())
    assert rows.filter(pl.col("offset") == 0)["special"].unique().to_list() == ["first"]
    assert not rows.filter(pl.col("offset") > 0)["special"].eq("first").any()
    assert drops["last_tokens"] == len(ids)
    assert rows.height == sum(len(i) - 1 for i in ids.values())
    assert drops["no_positions"] == sum(len(i) == 1 for i in ids.values()) > 0
    for source, own in rows.group_by("source"):
        assert own.sort("pos")["next_token_id"].to_list() == ids[source[0]][1:]


def test_a_bos_that_does_not_exist_is_refused(no_bos_dir, corpus):
    with pytest.raises(ModelError, match="no BOS token"):
        load_model(settings(no_bos_dir, corpus, prepend_bos=True))


@pytest.mark.slow
def test_a_bos_can_be_left_out(model_dirs, corpus, tmp_path):
    tables = run(tmp_path, settings(model_dirs["gpt2"], corpus, prepend_bos=False, tokens=300))
    assert tables.drops()["bos"] == 0 < tables.drops()["first"]


# --- bad input
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"components": ("L9H0",)}, ComponentError),
        ({"components": ("embed",)}, ComponentError),
        ({"text_field": "nope"}, CorpusError),
    ],
)
def test_a_users_mistake_leaves_nothing_behind(changes, error, model_dirs, corpus, tmp_path):
    with pytest.raises(error):
        run(tmp_path, settings(model_dirs["gpt2"], corpus, **changes))
    assert list(tmp_path.iterdir()) == []


def test_a_corpus_without_text_is_refused(model_dirs, tmp_path):
    empty = write_rows(tmp_path / "rows.jsonl", [{"text": ""}, {"text": " "}])
    with pytest.raises(CorpusError, match="holds no text"):
        run(tmp_path, settings(model_dirs["gpt2"], empty, domain_field=None))
    assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]


def test_components_named_twice_are_recorded_once(model_dirs, corpus, tmp_path):
    tables = run(tmp_path, settings(model_dirs["gpt2"], corpus, components=("L0N3", "L0N3"), tokens=200))
    assert tables["recorded_rows"].select("component_id", "position_id").is_unique().all()


def test_a_model_that_does_not_add_up_is_refused(model_dirs, corpus, tmp_path):
    model = load_model(settings(model_dirs["gpt2"], corpus))
    block = next(block for block in model.spec.blocks if block.kind == "neuron")
    other = deepcopy(model.weights.matrices[block])
    other.weight.data = other.weight.data.roll(1, 0)
    model.weights.matrices[block] = other
    with pytest.raises(ModelError, match="do not add up"):
        record(settings(model_dirs["gpt2"], corpus), tmp_path / "run.duckdb", model=model)
    assert list(tmp_path.iterdir()) == []


def test_nan_is_refused(model_dirs, corpus, tmp_path):
    model = load_model(settings(model_dirs["gpt2"], corpus, dtype="float32"))
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter[0] = torch.nan
    with pytest.raises(ModelError, match="do not add up"):
        record(settings(model_dirs["gpt2"], corpus, dtype="float32"), tmp_path / "run.duckdb", model=model)
    assert list(tmp_path.iterdir()) == []
