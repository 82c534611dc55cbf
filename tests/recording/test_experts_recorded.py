"""An expert's neurons are absent where the expert was not chosen: every table and view is of the positions where they
are present, against a slow recomputation; and a pass that stops, or computes with tensors, ends the same."""

from pathlib import Path

import brute_experts
import chunked
import numpy as np
import polars as pl
import pytest
import tiny
import torch
import zoo
from passes import Tables
from same import differing_tables

from profiler.config import RunConfig
from profiler.database import query
from profiler.model.load import Model, model_from
from profiler.pages.build import build
from profiler.recording import recompute
from profiler.recording.accumulators.bins import DENSITY, SPECTRUM
from profiler.recording.merge.merge import merge
from profiler.recording.pipeline import record
from profiler.recording.recorder import Recorder

EVERYWHERE, RECORDED = "L1S0N3", "L1E2N3"
LABELS = ("L0E0N1", RECORDED, "L2E3N23")
NEAR = {"rtol": 1e-9, "atol": 1e-12}
FLOAT32 = {"rtol": 1e-6, "atol": 1e-9}
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_chunks")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("experts")


@pytest.fixture(scope="module")
def config(folder) -> RunConfig:
    """Four experts of which two are chosen, and a shared one with a gate; every position is kept."""
    folder = folder / "model"
    zoo.build("qwen2_moe").save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    corpus = chunked.write_corpus(folder.parent / "rows.jsonl", n_documents=12)
    changes = {"context_length": 24, "dtype": "float64", "token_sums": "all", "tokens": 700}
    return chunked.settings(folder, corpus, components=(EVERYWHERE, RECORDED), **changes)


@pytest.fixture(scope="module")
def model(config) -> Model:
    """With norms that do not round to float32, as the recomputation's."""
    return model_from(zoo.double(zoo.build("qwen2_moe")), tiny.tokenizer(), config)


@pytest.fixture(scope="module")
def path(folder, config, model) -> Path:
    record(config, folder / "run.duckdb", model=model)
    return folder / "run.duckdb"


@pytest.fixture(scope="module")
def tables(path) -> Tables:
    return Tables(path)


@pytest.fixture(scope="module")
def raw(tables) -> brute_experts.RawExperts:
    return brute_experts.recomputed(zoo.double(zoo.build("qwen2_moe")), tables)


@pytest.fixture(params=LABELS)
def label(request) -> str:
    return request.param


@pytest.mark.slow
def test_an_expert_is_absent_somewhere_and_present_somewhere(raw, label):
    """What the other tests rest on."""
    activation, _ = raw.of(label)
    assert 0 < np.isnan(activation).sum() < len(activation)


def test_sums_and_counts_are_of_the_positions_where_it_is_present(tables, raw, label):
    activation, dla = raw.of(label)
    present = ~np.isnan(activation)
    number = tables["components"].filter(pl.col("component") == label)["presence"].item()
    assert number > 0
    counts = tables["cell_counts"].filter(pl.col("presence") == number)
    for axis, column in (("class", "class_id"), ("next_class", "next_class"), ("position", "bucket")):
        use = present & (raw.ordinary | (axis == "class"))
        cells = pl.DataFrame({"v": raw.rows[column], "g": raw.rows["group_id"], "a": activation, "d": dla})
        cells = cells.filter(pl.Series(use)).group_by("v", "g")
        want = {(v, g): (len(own), own["a"].sum(), own["d"].sum(), own["d"].abs().sum()) for (v, g), own in cells}
        of_axis = counts.filter(pl.col("axis") == axis)
        assert {(v, g): n for v, g, n in of_axis.select("value_id", "group_id", "n").iter_rows()} == {
            key: values[0] for key, values in want.items()
        }
        sums = tables.of("cell_sums", label).filter(pl.col("axis") == axis)
        assert sums.height == len(want)
        for _, _, value, group, *own in sums.iter_rows():
            np.testing.assert_allclose(own, want[value, group][1:], **FLOAT32)


def test_moments_spectrum_and_density_count_no_absent_position(tables, raw, label):
    activation, dla = raw.of(label)
    present = ~np.isnan(activation)
    cells = raw.rows.select("class_id", "domain").with_columns(a=activation, d=dla).filter(pl.Series(present))
    domains = dict(tables["domains"].select("domain", "domain_id").iter_rows())
    moments = {(row["class_id"], row["domain_id"]): row for row in tables.of("power_sums", label).to_dicts()}
    for (token_class, domain), own in cells.group_by("class_id", "domain"):
        row, a, d = moments.pop((token_class, domains[domain])), own["a"].to_numpy(), own["d"].to_numpy()
        got = [row[name] for name in ("n", "a_mean", "a_m2", "a_abs", "a_min", "a_max", "d_mean", "d_m2", "d_abs")]
        wanted = [len(a), a.mean(), a.var() * len(a), abs(a).sum(), a.min(), a.max(), d.mean(), d.var() * len(d)]
        np.testing.assert_allclose(got, [*wanted, abs(d).sum()], **NEAR)
    assert not moments
    bins = SPECTRUM.index(torch.from_numpy(activation[present])).numpy()
    keys, n = np.unique(np.stack([raw.rows["class_id"].to_numpy()[present], bins]), axis=1, return_counts=True)
    spectrum = tables.of("spectrum_counts", label).sort("class_id", "bin")
    assert spectrum.select("class_id", "bin", "n").rows() == list(zip(*keys.tolist(), n.tolist(), strict=True))
    fine = DENSITY.index(torch.from_numpy(activation[present & raw.ordinary])).numpy()
    assert tables.of("density_counts", label).select("bin", "n").rows() == [
        (int(b), int(k)) for b, k in zip(*np.unique(fine, return_counts=True), strict=True)
    ]
    middle = tables.of("quantiles", label).filter(pl.col("quantile") == 0.5)["value"].item()
    assert abs(middle - np.quantile(activation[present & raw.ordinary], 0.5, method="inverted_cdf")) <= 1 / 32 * abs(
        middle
    )


def test_rows_are_of_positions_where_it_is_present(tables, raw, label):
    activation, dla = raw.of(label)
    at = {position: i for i, position in enumerate(raw.rows["position_id"].to_list())}
    for name in ("sample_rows", "extreme_rows", "dense_rows"):
        rows = tables.of(name, label)
        places = [at[position] for position in rows["position_id"]]
        np.testing.assert_allclose(rows["activation"].to_numpy(), activation[places], **FLOAT32)
        np.testing.assert_allclose(rows["dla"].to_numpy(), dla[places], **FLOAT32)
    present = ~np.isnan(activation)
    dense = raw.rows.filter(pl.col("dense") & pl.Series(present))["position_id"].to_list()
    assert tables.of("dense_rows", label)["position_id"].to_list() == dense
    kept = np.where(present & raw.ordinary, activation, -np.inf)
    top = tables.of("extreme_rows", label).filter(measure="activation", side="top").sort("rank")
    np.testing.assert_allclose(top["activation"].to_numpy(), np.sort(kept)[::-1][: len(top)], **FLOAT32)
    bins = SPECTRUM.index(torch.from_numpy(activation[present & raw.ordinary])).numpy()
    sampled = dict(tables.of("sample_rows", label).group_by("bin").len().iter_rows())
    assert sampled == {int(b): min(2, int(n)) for b, n in zip(*np.unique(bins, return_counts=True), strict=True)}


def test_a_recorded_expert_has_a_row_where_it_is_present(tables, raw):
    activation, _ = raw.of(RECORDED)
    rows = tables.of("recorded_rows", RECORDED)
    assert rows["position_id"].to_list() == raw.rows.filter(pl.Series(~np.isnan(activation)))["position_id"].to_list()
    np.testing.assert_allclose(rows["activation"].to_numpy(), activation[~np.isnan(activation)], **FLOAT32)
    assert tables.of("recorded_rows", EVERYWHERE).height == len(activation)


def test_token_sums_count_their_own_positions(path, tables, raw, label):
    activation, dla = raw.of(label)
    use = raw.ordinary & ~np.isnan(activation)
    own = pl.DataFrame({"t": raw.rows["token_id"], "a": activation, "d": dla}).filter(pl.Series(use))
    want = own.group_by("t").agg(pl.col("a").sum(), pl.col("d").sum()).sort("t")
    got = tables.of("token_sums", label).sort("token_id")
    assert got["token_id"].to_list() == want["t"].to_list()
    np.testing.assert_allclose(got["sum_activation"].to_numpy(), want["a"].to_numpy(), **NEAR)
    np.testing.assert_allclose(got["sum_dla"].to_numpy(), want["d"].to_numpy(), **NEAR)
    split = query.run(
        path, f"SELECT DISTINCT sum(n) AS n FROM token_splits WHERE component = '{label}' GROUP BY property"
    )
    assert split["n"].to_list() == [int(use.sum())]


def test_means_are_per_position_present_and_shares_of_all(path, raw, label):
    """With standard errors that leave out every group of documents, those where it is absent too."""
    activation, dla = raw.of(label)
    present = ~np.isnan(activation)
    a, d = np.where(present, activation, 0), np.where(present, dla, 0)
    use = raw.ordinary & present
    overview = query.run(path, "component_overview", top=0).filter(component=label).row(0, named=True)
    place = query.run(path, "component_rank", component=label).row(0, named=True)
    for row in (overview, place):
        assert row["n"] == use.sum()
        np.testing.assert_allclose(row["abs_dla"], abs(d)[use].mean(), **FLOAT32)
    np.testing.assert_allclose(overview["activation"], a[use].mean(), **FLOAT32)
    np.testing.assert_allclose(overview["activation_se"], raw.error(a, present), rtol=1e-6)
    np.testing.assert_allclose(overview["activation_sd"], a[use].std(), rtol=1e-6)
    total = query.run(path, "SELECT sum(sum_abs_dla) AS s FROM group_importance")["s"].item()
    for row in (overview, place):
        np.testing.assert_allclose(row["share_abs_dla"], abs(d)[use].sum() / total, **FLOAT32)
    for axis, column in (("class", "class_id"), ("domain", "domain")):
        for row in query.run(
            path, f"FROM breakdown WHERE component = '{label}' AND axis = '{axis}' ORDER BY value_id"
        ).to_dicts():
            cell = raw.rows[column].to_numpy() == (row["value_id"] if axis == "class" else row["value"])
            assert row["n"] == (use & cell).sum()
            np.testing.assert_allclose(row["dla"], d[use & cell].mean(), **FLOAT32)
            np.testing.assert_allclose(row["share_abs_dla"], abs(d)[use & cell].sum() / abs(d)[use].sum(), **FLOAT32)
            for name, (above, below) in {
                "dla_se": (d * cell, present * cell),
                "share_abs_dla_se": (abs(d) * cell, abs(d)),
            }.items():
                with np.errstate(invalid="ignore", divide="ignore"):
                    want = raw.error(above, below)
                assert (row[name] is None) == (want is None)
                if want is not None:
                    np.testing.assert_allclose(row[name], want, rtol=1e-6, atol=1e-12)


def test_weighted_samples_estimate_sums_over_the_positions_where_it_is_present(path, raw, label):
    activation, _ = raw.of(label)
    n = (raw.ordinary & ~np.isnan(activation)).sum()
    text = f"SELECT sum(weight) AS n FROM {{}} WHERE component = '{label}'"
    for view in ("sample_weights", "pooled_rows", "neuron_facts"):
        assert query.run(path, text.format(view))["n"].item() == pytest.approx(n)


@pytest.mark.slow
def test_the_compiled_loop_and_the_tensors_agree(path, tables, config, model, tmp_path, monkeypatch):
    monkeypatch.setattr(Recorder, "_order", lambda *_: None)
    record(config, tmp_path / "run.duckdb", model=model)
    other, ranged = Tables(tmp_path / "run.duckdb"), ("extreme_rows", "power_sums", "quantiles")
    differing = differing_tables(path, tmp_path / "run.duckdb", 1e-9)[1]
    assert [name for name in differing if not name.startswith(ranged)] == [], differing
    for name, columns in zip(ranged, (("key",), ("a_min", "a_max", "d_min", "d_max"), ("value",)), strict=True):
        for column in columns:  # single values, whose last bit depends on which rows were multiplied together
            np.testing.assert_allclose(tables[name][column].to_numpy(), other[name][column].to_numpy(), **NEAR)


@pytest.mark.slow
def test_a_stopped_pass_goes_on_to_the_same_run(path, config, model, tmp_path):
    chunks = []

    def stop(_: object) -> None:
        chunks.append(1)
        if len(chunks) == 2:
            raise KeyboardInterrupt

    other = tmp_path / "run.duckdb"
    with pytest.raises(KeyboardInterrupt):
        record(config, other, model=model, commit_seconds=0.0, report=stop)
    record(config, other, model=model, resume=True)
    assert differing_tables(path, other)[1] == []


@pytest.mark.slow
def test_shards_merged_are_the_whole(path, config, model, tmp_path):
    shards = [tmp_path / "0.duckdb", tmp_path / "1.duckdb"]
    whole = config.model_copy(update={"tokens": None})
    for i, shard in enumerate(shards):
        record(whole.model_copy(update={"shard": f"{i + 1}/2"}), shard, model=model)
    merge(shards, tmp_path / "merged.duckdb")
    record(whole, tmp_path / "whole.duckdb", model=model)
    assert differing_tables(tmp_path / "whole.duckdb", tmp_path / "merged.duckdb", 1e-9)[1] == []


def test_an_experts_neuron_has_a_page(path, raw):
    activation, _ = raw.of(RECORDED)
    page = build(path, "component", RECORDED)
    n = (raw.ordinary & ~np.isnan(activation)).sum()
    assert "Neuron 3 of expert 2 in layer 1" in page
    assert f"means and samples here are of the {n:,}." in page
    assert "of 360 heads and neurons" in page


def test_contexts_have_no_value_where_it_is_absent(path, model, raw):
    frame = query.run(path, "context_tokens", component=RECORDED)
    activation, _ = raw.of(RECORDED)
    absent = {*raw.rows.filter(pl.Series(np.isnan(activation)))["position_id"].to_list()}
    with query.open_run(path) as connection:
        full = recompute.contexts(
            connection, model, next(c for c in model.spec.components() if c.label == RECORDED), frame
        )
    row = full.row(0, named=True)
    start = row["position_id"] - row["shown"]
    known = raw.rows["position_id"].to_list()
    for i, value in enumerate(row["activations"]):
        if start + i in known:
            assert (value is None) == (start + i in absent)


@pytest.mark.slow
def test_an_expert_that_was_never_chosen_has_a_page(config, tmp_path):
    network = zoo.build("gpt_oss")
    network.model.layers[0].mlp.router.bias.data[1] = -1e3
    network.save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    changes = {"model": str(tmp_path / "model"), "components": (), "tokens": 200, "token_sums": "heads"}
    record(config.model_copy(update=changes), tmp_path / "run.duckdb")
    components = query.run(tmp_path / "run.duckdb", "component_overview", top=0)["component"].to_list()
    assert "L0E1N0" not in components and "L0E0N0" in components
    assert "L0E1N0 is of an expert that was chosen at no position" in build(
        tmp_path / "run.duckdb", "component", "L0E1N0"
    )
