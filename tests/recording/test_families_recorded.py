"""Models of unlike layers from pass to page: run files hold what the blocks are, merge, and answer queries."""

from pathlib import Path

import chunked
import pytest
import tiny
import zoo
from same import differing_tables

from profiler.config import RunConfig
from profiler.database import query
from profiler.model.components import WORDS
from profiler.model.load import load_model
from profiler.pages import numbers
from profiler.pages.build import build
from profiler.pages.charts import theme
from profiler.recording.merge.merge import merge
from profiler.recording.pipeline import record

UNLIKE = {
    "gemma2": {"head", "neuron"},  # norms after blocks, a soft cap
    "gpt1": {"head", "neuron"},  # norms of the stream after each sum: few neurons with a fixed way
    "bamba": {"head", "neuron", "mixer"},
    "gemma4": {"head", "neuron", "per_layer"},
    "mamba": {"mixer"},
    "falcon": {"head", "neuron"},  # attention rows that cannot be read
}
WITHOUT_ROWS = {"mamba", "falcon"}
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_chunks")]


MONTHLY = {"gpt1", "gemma4", "falcon"}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.monthly if name in MONTHLY else ()) for name in UNLIKE],
)
def made(request, tmp_path_factory) -> tuple[str, RunConfig, Path]:
    """A family, its settings, and a run of all of a small corpus."""
    folder = tmp_path_factory.mktemp(request.param)
    zoo.build(request.param).save_pretrained(folder / "model")
    tiny.tokenizer().save_pretrained(folder / "model")
    corpus = chunked.write_corpus(folder / "rows.jsonl", n_documents=24)
    config = chunked.settings(folder / "model", corpus, context_length=24, dtype="float64")
    record(config, folder / "run.duckdb")
    return request.param, config, folder / "run.duckdb"


def test_the_run_file_holds_the_blocks(made):
    name, config, path = made
    spec = load_model(config).spec
    components = query.run(
        path, "SELECT component, kind, layer, block_group, unit FROM components ORDER BY component_id"
    )
    assert components["component"].to_list() == [component.label for component in spec.components()]
    assert {*components.filter(components["unit"].is_not_null())["kind"]} == UNLIKE[name]
    rows = query.run(path, "SELECT count(*) AS n FROM head_attention_rows")["n"].item()
    assert (rows == 0) == (name in WITHOUT_ROWS)


def test_shards_merged_are_the_whole(made, tmp_path):
    _, config, path = made
    shards = [tmp_path / "0.duckdb", tmp_path / "1.duckdb"]
    for i, shard in enumerate(shards):
        record(config.model_copy(update={"shard": f"{i + 1}/2"}), shard)
    merge(shards, tmp_path / "merged.duckdb")
    assert differing_tables(path, tmp_path / "merged.duckdb", 1e-9)[1] == []


def test_every_unit_has_its_rows_and_its_page(made):
    name, _, path = made
    overview = query.run(path, "component_overview", top=1000)
    assert {*overview["kind"]} == UNLIKE[name]
    for kind in UNLIKE[name]:
        component = overview.filter(overview["kind"] == kind)["component"][0]
        for question in ("by_class", "by_domain", "spectrum_by_class", "quantile_samples", "extremes"):
            assert query.run(path, question, component=component).height, (question, component)
        page = build(path, "component", component)
        assert f"{WORDS[kind].capitalize()} " in page
        assert f" of {overview.height:,} " in page
    overview_page = build(path, "overview")
    for kind in UNLIKE[name]:
        assert f"from {numbers.plural((overview['kind'] == kind).sum(), WORDS[kind])}" in overview_page
        assert theme.KIND_COLOURS[kind] in overview_page
