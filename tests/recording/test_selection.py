"""A pass over some components records of each what a pass over all does, and says what part of the logit they carry."""

from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from passes import corpus_rows, settings, write_rows
from polars.testing import assert_frame_equal
from same import differing_tables

from profiler.config import RunConfig
from profiler.errors import ComponentError, ProfilerError
from profiler.model.components import Block, ModelSpec, uniform
from profiler.model.load import load_model
from profiler.recording.forecast import forecast, state_bytes
from profiler.recording.merge.merge import merge
from profiler.recording.pipeline import record
from profiler.recording.selection import DENSE, FEW_SAMPLES, LEAST_DENSE, SAMPLES, Selection, ranges_of, sized

OF_COMPONENT = (
    "components cell_sums power_sums spectrum_counts density_counts quantiles sample_rows extreme_rows dense_rows"
    " head_attention_rows token_sums component_importance recorded_rows"
).split()
CHOICES = {
    "a layer": {"layers": "1"},
    "heads": {"kinds": ("head",)},
    "neurons of a layer": {"layers": "0", "kinds": ("neuron",)},
    "a few": {"select": ("L0N3", "L0N5", "L1H1", "L1N20")},
}
EVERYTHING = ("L1H1", "L0N3")


@pytest.fixture(scope="module")
def config(model_dirs, tmp_path_factory) -> RunConfig:
    corpus = write_rows(tmp_path_factory.mktemp("corpus") / "rows.jsonl", corpus_rows())
    return settings(model_dirs["gpt2"], corpus, components=(), dtype="float32")


@pytest.fixture(scope="module")
def model(config):
    return load_model(config)


@pytest.fixture(scope="module")
def whole(config, model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "run.duckdb"
    record(config, path, model=model)
    return path


def table(path: Path, name: str) -> pl.DataFrame:
    with duckdb.connect(str(path), read_only=True) as connection:
        return pl.from_arrow(connection.sql(f"FROM {name}").to_arrow_table())


def is_chosen(label: str, kind: str, layer: int | None, choice: dict) -> bool:
    if kind not in ("head", "neuron"):
        return True
    layers, kinds, names = (choice.get(name) for name in ("layers", "kinds", "select"))
    return (not layers or str(layer) == layers) and (not kinds or kind in kinds) and (not names or label in names)


@pytest.mark.slow
@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_rows_are_those_of_a_pass_over_all_components(choice, config, model, whole, tmp_path):
    path = tmp_path / "run.duckdb"
    outcome = record(config.model_copy(update=choice), path, model=model)
    everything = table(whole, "components")
    ids = [r["component_id"] for r in everything.to_dicts() if is_chosen(r["component"], r["kind"], r["layer"], choice)]
    assert 0 < len(ids) < everything.height
    for name in OF_COMPONENT:
        want = table(whole, name).filter(pl.col("component_id").is_in(ids))
        assert_frame_equal(table(path, name), want, check_exact=True)
    assert_frame_equal(table(path, "closure"), table(whole, "closure"), check_exact=True)
    assert outcome.closure.n == table(whole, "closure")["n"].sum(), "the residual is checked at every position"


@pytest.mark.slow
def test_the_part_of_the_logit_that_is_carried(config, model, whole, tmp_path):
    """Recomputed from dense rows at every ordinary position of a pass that keeps them all; special positions apart."""
    choice = config.model_copy(update={"layers": "1", "dense_positions": 5000})
    path = tmp_path / "run.duckdb"
    record(choice, path, model=model)
    rows, positions = table(path, "dense_rows"), table(path, "position_rows").filter(pl.col("special").is_null())
    carried = rows.group_by("position_id").agg(pl.col("dla").sum()).join(positions, on="position_id")
    logit = carried["target_logit"].to_numpy()
    want = np.array([carried["dla"].to_numpy() @ logit, logit @ logit])
    run = table(path, "runs")
    got = np.array([run["recorded_logit_sum"].item(), run["squared_logit_sum"].item()])
    special = run["n_special"].item() / (run["n_special"].item() + run["n_positions"].item())
    assert abs(got[0] / got[1] - want[0] / want[1]) < special, "special positions alone may make a difference"
    all_of_it = table(whole, "runs")
    assert all_of_it["recorded_logit_sum"].item() == pytest.approx(all_of_it["squared_logit_sum"].item(), rel=1e-5)
    assert got[1] == pytest.approx(all_of_it["squared_logit_sum"].item(), rel=1e-6)


@pytest.mark.slow
def test_shards_of_some_components_are_merged(config, model, tmp_path, small_chunks):
    some = config.model_copy(update=CHOICES["a few"])
    record(some, tmp_path / "whole.duckdb", model=model)
    for i in (1, 2):
        record(some.model_copy(update={"shard": f"{i}/2"}), tmp_path / f"{i}.duckdb", model=model)
    merge([tmp_path / "1.duckdb", tmp_path / "2.duckdb"], tmp_path / "merged.duckdb")
    assert differing_tables(tmp_path / "whole.duckdb", tmp_path / "merged.duckdb", 1e-12)[1] == []


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"layers": "2"}, r"layer 2 is not in a model of 2 layers"),
        ({"layers": "one"}, r"layers 'one' cannot be read: write numbers and ranges"),
        ({"kinds": ("mixer",)}, r"leave nothing to record"),
        ({"select": ("L0N24",)}, r"L0N24 is not in"),
        ({"kinds": ("head",), "components": ("L0N3",)}, r"--components L0N3 is not among"),
    ],
)
def test_what_is_not_there_is_refused_before_the_pass(choice, said, config, model, tmp_path):
    with pytest.raises(ProfilerError, match=said):
        record(config.model_copy(update=choice), tmp_path / "run.duckdb", model=model)
    assert not list(tmp_path.iterdir())


def test_layers_are_numbers_and_ranges():
    assert [n for layers in ranges_of("0, 4,10-12", "layers") for n in layers] == [0, 4, 10, 11, 12]
    with pytest.raises(ComponentError, match="cannot be read"):
        list(ranges_of("1-", "layers"))


def spec_of(blocks: tuple[Block, ...], n_layers: int) -> ModelSpec:
    return ModelSpec("m", "A", n_layers, 16, 50, 32, "", "", blocks)


@pytest.mark.parametrize(
    ("n", "dense", "samples"),
    [
        (9_000, DENSE, SAMPLES),
        (12_000, 512, FEW_SAMPLES),
        (40_000, 256, FEW_SAMPLES),
        (400_000, LEAST_DENSE, FEW_SAMPLES),
    ],
)
def test_what_is_kept_of_each_component_follows_their_number(n, dense, samples):
    config = RunConfig(model="m", corpora=("c",))
    found = sized(config, spec_of(uniform(1, 0, n), 1))
    assert (found.dense_positions, found.samples_per_stratum) == (dense, samples)
    given = config.model_copy(update={"dense_positions": 7, "samples_per_stratum": 9})
    assert sized(given, spec_of(uniform(1, 0, n), 1)) == given
    narrow = config.model_copy(update={"kinds": ("head",)})
    assert sized(narrow, spec_of(uniform(1, 3, n), 1)).dense_positions == DENSE, "of those that are recorded"


def test_state_and_forecast_are_of_what_is_recorded():
    config, spec = RunConfig(model="m", corpora=("c",), dense_positions=8), spec_of(uniform(4, 0, 2_000), 4)
    half = config.model_copy(update={"layers": "1-2"})
    n = [len(Selection.of(spec, c).ids) for c in (config, half)]
    assert n[0] - n[1] == 4_000
    assert state_bytes(half, spec) < 0.52 * state_bytes(config, spec)
    assert forecast(half, spec).bytes < forecast(config, spec).bytes
