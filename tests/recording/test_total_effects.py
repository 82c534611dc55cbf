"""A pass that records total effects: what it records, held against the gradients of single units and other orders."""

import chunked
import effect_models
import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from same import differing_tables
from test_resume import stopped

import profiler
from profiler.database import query
from profiler.effects import methods
from profiler.model.forward import Wanted
from profiler.model.gradients import in_pass
from profiler.model.gradients.network import EffectNetwork
from profiler.recording.batches import TOKENS, BatchSizes
from profiler.recording.merge.merge import merge
from profiler.recording.pipeline import Pass, record
from profiler.recording.write import Rows

pytestmark = pytest.mark.usefixtures("small_chunks")
SUMS = 1e-12
STEP = 1e-4


@pytest.fixture(scope="module")
def config(model_dirs, tmp_path_factory):
    corpus = chunked.write_corpus(tmp_path_factory.mktemp("totals") / "rows.jsonl", n_documents=40)
    return chunked.settings(model_dirs["gpt2"], corpus, context_length=24, windows_per_document=2, effects="total")


@pytest.fixture(scope="module")
def whole(config, model, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "run.duckdb"
    record(config, path, model=model)
    return path


@pytest.mark.parametrize("method", ["gradient", "frozen"])
def test_a_batch_has_the_effects_of_the_second_pass(method):
    model = effect_models.loaded("neox")
    net, _, batch = effect_models.batch_of(model, effect_models.random_ids(3, 12))
    capture, totals = in_pass.EffectPass(model, is_frozen=method == "frozen").run(batch, Wanted())
    own = [
        f for f in methods.effects(net, batch, method, methods.references(net, (batch,)), 1) if f.reference == "zero"
    ]
    assert len(own) == len(totals) == 4
    for found in own:
        at = batch.ordinary
        torch.testing.assert_close(totals[found.block][at], found.total["logit"][at], rtol=1e-9, atol=1e-11)
    assert not any(value.requires_grad for value in capture.units.values())


def test_effects_are_finite_differences():
    """The derivative by a factor on a unit's value at a position is value * slope: its effect against zero."""
    model = effect_models.loaded("gpt2")
    net, _, batch = effect_models.batch_of(model, effect_models.random_ids(2, 10))
    _, totals = in_pass.EffectPass(model, is_frozen=False).run(batch, Wanted())

    def summed(block, row, offset, unit, factor):
        def edit(own, value):
            if own != block:
                return value
            value = value.clone()
            value[row, offset, unit] *= factor
            return value

        with torch.no_grad():
            return float(net.run(batch.tokens, batch.targets, edit).logit[batch.ordinary].sum())

    for block, total in totals.items():
        at = (1, 4, block.units - 1)
        expected = (summed(block, *at, 1 + STEP) - summed(block, *at, 1 - STEP)) / (2 * STEP)
        assert float(total[at]) == pytest.approx(expected, rel=1e-5, abs=1e-8)


def test_the_sums_are_those_of_every_position(config, model, whole):
    """Recomputed batch by batch, from the effects at each position and its replicate group."""
    read = Pass(model, config, Rows())
    expected: dict[tuple[int, int], np.ndarray] = {}
    net = EffectNetwork(model)
    for chunk in read.chunks():
        for batch in chunk.batches(lambda _width: 3, read.layout):
            of_batch = methods.effects(net, batch, "gradient", {"zero": methods.references(net, (batch,))["zero"]}, 1)
            for found in of_batch:
                first = model.spec.slices[found.block].start
                total, direct = found.total["logit"], found.direct
                fields = torch.stack([total, total.abs(), direct.abs(), (total - direct).abs()])
                for row, offset in batch.ordinary.nonzero().tolist():
                    for unit in range(found.block.units):
                        key = (first + unit, int(batch.groups[row]))
                        expected[key] = expected.get(key, 0) + fields[:, row, offset, unit].double().numpy()
    rows = query.run(whole, "FROM total_sums ORDER BY component_id, group_id")
    assert {(row["component_id"], row["group_id"]) for row in rows.to_dicts()} == set(expected)
    for row in rows.to_dicts():
        own = [row[name] for name in ("sum_total", "sum_abs_total", "sum_abs_direct", "sum_abs_through")]
        np.testing.assert_allclose(own, expected[row["component_id"], row["group_id"]], rtol=2e-4, atol=1e-5)
    n = query.run(whole, "SELECT sum(n)::BIGINT AS n FROM total_sums GROUP BY component_id")["n"].unique().to_list()
    assert n == query.run(whole, "SELECT n_positions FROM runs")["n_positions"].to_list()


@pytest.mark.slow
def test_everything_else_is_recorded_as_without_them(config, model, whole, tmp_path):
    """The same positions, and the same values but for what a fused kernel rounds otherwise where gradients are kept."""
    record(config.model_copy(update={"effects": "none"}), tmp_path / "plain.duckdb", model=model)
    for table, keys in (
        ("dense_rows", "component_id, position_id"),
        ("sample_rows", "component_id, position_id"),
        ("cell_sums", "component_id, axis, value_id, group_id"),
        ("head_attention_rows", "component_id, position_id"),
        ("position_rows", "position_id"),
    ):
        columns = "*" if table not in ("dense_rows",) else "* EXCLUDE (total)"
        text = f"SELECT {columns} FROM {table} ORDER BY {keys}"
        with_them, without = (query.run(path, text) for path in (whole, tmp_path / "plain.duckdb"))
        assert_frame_equal(with_them, without, rel_tol=1e-4, abs_tol=1e-4)
    plain = query.run(tmp_path / "plain.duckdb", "SELECT * FROM importance WHERE n_total IS NOT NULL")
    assert plain.is_empty() and query.run(tmp_path / "plain.duckdb", "FROM total_sums").is_empty()


def test_every_unit_has_an_effect_at_every_uniform_position(whole):
    frame = query.run(
        whole,
        "SELECT unit IS NULL AS is_bias, total IS NULL AS absent FROM dense_rows JOIN components USING (component_id)",
    )
    assert frame.height > 0 and (frame["is_bias"] == frame["absent"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 7])
def test_batches_do_not_matter(batch_size, config, model, whole, tmp_path):
    record(config.model_copy(update={"batch_size": batch_size}), tmp_path / "run.duckdb", model=model)
    text = "SELECT component_id, position_id, total FROM dense_rows ORDER BY ALL"
    assert_frame_equal(query.run(whole, text), query.run(tmp_path / "run.duckdb", text), rel_tol=1e-3, abs_tol=1e-4)
    text = "FROM total_sums ORDER BY component_id, group_id"
    assert_frame_equal(query.run(whole, text), query.run(tmp_path / "run.duckdb", text), rel_tol=1e-4, abs_tol=1e-4)


@pytest.mark.slow
def test_stopped_and_gone_on_with_equals_the_whole(config, model, whole, tmp_path):
    stopped(config, model, tmp_path / "run.duckdb", 2)
    record(config, tmp_path / "run.duckdb", model=model, resume=True)
    assert differing_tables(whole, tmp_path / "run.duckdb")[1] == []


@pytest.mark.slow
def test_shards_merged_are_the_whole(config, model, whole, tmp_path):
    paths = []
    for i in (1, 2):
        paths.append(tmp_path / f"{i}.duckdb")
        record(config.model_copy(update={"shard": f"{i}/2"}), paths[-1], model=model)
    merge(paths, tmp_path / "merged.duckdb")
    assert differing_tables(whole, tmp_path / "merged.duckdb", SUMS)[1] == []


@pytest.mark.slow
def test_some_components_alone_are_recorded_with_theirs(config, model, whole, tmp_path):
    record(config.model_copy(update={"layers": "1", "kinds": ("head",)}), tmp_path / "run.duckdb", model=model)
    text = """SELECT component, total_importance, acts FROM importance
        WHERE kind = 'head' AND layer = 1 ORDER BY component"""
    assert_frame_equal(query.run(tmp_path / "run.duckdb", text), query.run(whole, text), rel_tol=1e-6)
    assert query.run(tmp_path / "run.duckdb", "SELECT count(*)::BIGINT AS n FROM importance")["n"].item() == 2


def test_queries_count_by_either_importance(whole):
    """Coverage of a claim about the position alone, recomputed from the uniform sample."""
    with profiler.open(whole) as run:
        by_total = run.query("behaviours", importance="total", component="L0H1", family="", top=0)
        by_direct = run.query("behaviours", component="L0H1", family="", top=0)
        rows = run.sql("""SELECT behaviour, holds, dla, total, weight FROM behaviour_rows
            WHERE component = 'L0H1' AND holds IS NOT NULL""")
    for name, frame, column in (("total", by_total, "coverage"), ("dla", by_direct, "coverage")):
        expected = rows.group_by("behaviour").agg(
            (pl.col(name).abs() * pl.col("holds")).sum() / pl.col(name).abs().sum()
        )
        both = frame.join(expected, on="behaviour")
        np.testing.assert_allclose(both[column], both[name], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(both[column], both[f"{'direct' if name == 'dla' else 'total'}_coverage"], rtol=1e-9)
    assert by_total["coverage"].to_list() != by_direct["coverage"].to_list()


def test_a_batch_is_small_enough_for_its_backward_pass(config, model):
    large = config.model_copy(update={"batch_size": 10_000})
    width = model.spec.context_length
    assert BatchSizes.of(large, model.spec).fitting(width) == TOKENS // width
    assert BatchSizes.of(large.model_copy(update={"effects": "none"}), model.spec).fitting(width) > TOKENS // width
    small = BatchSizes.of(large.model_copy(update={"batch_memory": 1000}), model.spec)
    assert small.holds(width) and small.fitting(width) == 1
