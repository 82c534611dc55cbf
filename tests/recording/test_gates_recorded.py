"""Sign quadrants of gated neurons in a pass: against every position, in shards, after a stop, of some components."""

import chunked
import numpy as np
import pytest
from polars.testing import assert_frame_equal
from same import differing_tables
from test_resume import stopped

from profiler.database import query
from profiler.model.direct import by_part
from profiler.model.forward import Wanted
from profiler.pages.build import build
from profiler.recording.merge.merge import merge
from profiler.recording.pipeline import Pass, record
from profiler.recording.write import Rows

pytestmark = pytest.mark.usefixtures("small_chunks")
QUADRANTS = """SELECT component, gate, value, sum(n)::BIGINT AS n, sum(sum_abs_dla) AS size
    FROM gate_sums JOIN components USING (component_id) GROUP BY ALL ORDER BY ALL"""


@pytest.fixture(scope="module")
def config(model_dirs, tmp_path_factory):
    corpus = chunked.write_corpus(tmp_path_factory.mktemp("gates") / "rows.jsonl", n_documents=24)
    return chunked.settings(model_dirs["llama"], corpus, context_length=24, windows_per_document=2)


@pytest.fixture(scope="module")
def whole(config, model, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "run.duckdb"
    record(config, path, model=model)
    return path


def test_quadrants_and_factors_are_those_of_every_position(config, model, whole):
    read, expected, seen = Pass(model, config, Rows()), {}, {}
    for chunk in read.chunks():
        for batch in chunk.batches(lambda _width: 5, read.layout):
            capture = model.run(batch.tokens, Wanted())
            parts = {p.components.start: p.dla for p in by_part(capture, model.weights, model.spec, batch.targets)}
            for block, (gate, value) in capture.factors.items():
                first = model.spec.slices[block].start
                for row, offset in batch.ordinary.nonzero().tolist():
                    for unit in range(block.units):
                        g, v = float(gate[row, offset, unit]), float(value[row, offset, unit])
                        cell = expected.setdefault((first + unit, g > 0, v > 0), np.zeros(2))
                        cell += [1, abs(float(parts[first][row, offset, unit]))]
                        seen[first + unit, int(batch.position_ids[row, offset])] = (g, v)
    rows = query.run(
        whole,
        "SELECT component_id, gate, value, sum(n)::BIGINT AS n, sum(sum_abs_dla) AS size FROM gate_sums GROUP BY ALL",
    ).to_dicts()
    assert {(row["component_id"], row["gate"], row["value"]) for row in rows} == set(expected)
    for row in rows:
        n, size = expected[row["component_id"], row["gate"], row["value"]]
        assert row["n"] == n and row["size"] == pytest.approx(size, rel=1e-4, abs=1e-5)
    dense = query.run(whole, "SELECT component_id, position_id, gate, value FROM dense_rows WHERE gate IS NOT NULL")
    assert dense.height == 40 * sum(block.units for block in model.spec.blocks if block.kind == "neuron")
    for row in dense.to_dicts():
        assert (row["gate"], row["value"]) == pytest.approx(seen[row["component_id"], row["position_id"]], abs=1e-5)


@pytest.mark.slow
def test_shards_and_stops_do_not_matter(config, model, whole, tmp_path):
    paths = []
    for i in (1, 2):
        paths.append(tmp_path / f"{i}.duckdb")
        record(config.model_copy(update={"shard": f"{i}/2"}), paths[-1], model=model)
    merge(paths, tmp_path / "merged.duckdb")
    assert differing_tables(whole, tmp_path / "merged.duckdb", 1e-12)[1] == []
    stopped(config, model, tmp_path / "run.duckdb", 2)
    record(config, tmp_path / "run.duckdb", model=model, resume=True)
    assert differing_tables(whole, tmp_path / "run.duckdb")[1] == []


@pytest.mark.slow
def test_some_components_alone_and_the_card(config, model, whole, tmp_path):
    record(config.model_copy(update={"select": ("L0N3", "L1N5", "L1H0")}), tmp_path / "run.duckdb", model=model)
    some, every = query.run(tmp_path / "run.duckdb", QUADRANTS), query.run(whole, QUADRANTS)
    assert set(some["component"]) == {"L0N3", "L1N5"}
    assert_frame_equal(some, every.join(some.select("component").unique(), on="component", maintain_order="left"))
    page = build(whole, "component", "L0N3")
    assert "Gate and value" in page and "gate &gt; 0, value &lt;= 0" in page
    assert "Gate and value" not in build(whole, "component", "L0H1")
