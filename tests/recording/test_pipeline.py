"""The pass as a whole: repeatable, independent of the batch size, and equal to a recount from the raw rows it kept."""

import numpy as np
import polars as pl
import pytest
from passes import (
    CONTEXT,
    DENSE,
    EXTREMES,
    GOLDEN,
    RECORDED,
    SAMPLES,
    U64,
    Tables,
    as_signed,
    corpus_rows,
    expected_documents,
    hash64,
    keys_by_position,
    raw_rows,
    run,
    settings,
    splitmix,
)
from polars.testing import assert_frame_equal

from profiler.recording.accumulators.bins import DENSITY, SPECTRUM

NOT_REPEATED = ["created", "seconds", "tokens_per_second", "peak_memory_bytes"]
TABLES = (
    "runs components classes tokens vocabulary domains replicate_groups position_buckets bins documents windows"
    " position_rows cell_counts cell_sums group_importance power_sums spectrum_counts density_counts quantiles"
    " sample_rows extreme_rows dense_rows recorded_rows head_attention_rows logit_effects closure drops properties"
    " token_property_lists behaviours uniform_marks token_counts token_sums pooled_strata layer_coverages"
    " component_importance"
).split()
EMPTY = ["total_sums", "gate_sums", "dictionaries", "spliced_windows"]
"""Tables of what this run does not record."""


@pytest.fixture(scope="module")
def tables(model_dirs, corpus, tmp_path_factory) -> Tables:
    """One float64 run."""
    return run(tmp_path_factory.mktemp("pipeline"), settings(model_dirs["gpt2"], corpus))


@pytest.fixture(params=RECORDED)
def label(request) -> str:
    return request.param


# --- what is read
# ------------------------------------------------------------------------------------------------------


def test_every_token_of_every_document_is_a_position_with_the_token_it_must_predict(tables):
    """Also the check against a DLA target that is off by one (anchors, trap S10)."""
    rows = raw_rows(tables, RECORDED[0])
    for source, ids in expected_documents().items():
        own = rows.filter((pl.col("source") == source) & pl.col("pos").is_not_null()).sort("pos")
        assert own["pos"].to_list() == list(range(len(ids) - 1))
        assert own["token_id"].to_list() == ids[:-1]
        assert own["next_token_id"].to_list() == ids[1:]
        stride = CONTEXT - 1
        bos = rows.filter((pl.col("source") == source) & (pl.col("special") == "bos")).sort("window_id")
        assert bos["next_token_id"].to_list() == ids[::stride]
        assert bos["token_id"].unique().to_list() == [0]
        assert bos["pos"].null_count() == bos.height


def test_documents_keep_their_ids_and_domains(tables):
    documents = {row["source"]: row for row in tables["documents"].iter_rows(named=True)}
    assert set(documents) == set(expected_documents())
    for row in corpus_rows():
        if row["text"]:
            assert documents[row["id"]]["domain"] == row["topic"]
            assert documents[row["id"]]["n_tokens"] == len(expected_documents()[row["id"]])


def test_everything_dropped_or_special_is_counted(tables):
    drops, ids = tables.drops(), expected_documents()
    n_windows = sum(-(-len(i) // (CONTEXT - 1)) for i in ids.values())
    inside = sum(sum(token == 0 for token in i[:-1]) for i in ids.values())
    assert drops["no_text"] == 1
    assert drops["last_tokens"] == len(ids)
    assert drops["bos"] == n_windows
    assert drops["special"] == inside > 0
    assert drops["first"] == drops["token_limit"] == drops["no_positions"] == 0
    (row,) = tables["runs"].iter_rows(named=True)
    assert row["n_documents"] == len(ids)
    assert row["n_tokens"] == sum(map(len, ids.values()))
    assert row["n_special"] == n_windows + inside
    assert row["n_positions"] == sum(map(len, ids.values())) - len(ids) - inside
    assert row["complete"]


# --- statistics against a recount
# --------------------------------------------------------------------------------------

NEAR = 3e-7  # rows are kept in float32


def assert_near(got, want, size) -> None:
    """Within float32 rounding of the terms."""
    assert abs(got - want) <= NEAR * size + 1e-12


def test_cell_sums_and_counts_are_those_of_the_raw_rows(tables, label):
    raw = raw_rows(tables, label)
    buckets = tables["position_buckets"]
    bucket = pl.Series(np.searchsorted(buckets["lo"].to_numpy(), raw["offset"].to_numpy(), side="right") - 1)
    raw = raw.with_columns(bucket=bucket)
    for axis, column, rows in (
        ("class", "class_id", raw),
        ("next_class", "next_class", raw.filter("ordinary")),
        ("position", "bucket", raw.filter("ordinary")),
    ):
        want = dict(rows.group_by(column, "group_id"))
        counts = tables["cell_counts"].filter(pl.col("axis") == axis)
        assert {(v, g): n for _, _, v, g, n in counts.iter_rows()} == {key: group.height for key, group in want.items()}
        sums = tables.of("cell_sums", label).filter(pl.col("axis") == axis)
        assert sums.height == len(want)
        for row in sums.iter_rows(named=True):
            group = want[row["value_id"], row["group_id"]]
            a, d = (group[name].to_numpy().astype(np.float64) for name in ("activation", "dla"))
            assert_near(row["sum_activation"], a.sum(), np.abs(a).sum())
            assert_near(row["sum_dla"], d.sum(), np.abs(d).sum())
            assert_near(row["sum_abs_dla"], np.abs(d).sum(), np.abs(d).sum())


def test_power_sums_and_extremes_are_those_of_the_raw_rows(tables, label):
    want = dict(raw_rows(tables, label).group_by("class_id", "domain_id"))
    rows = tables.of("power_sums", label)
    assert rows.height == len(want)
    for row in rows.iter_rows(named=True):
        group = want[row["class_id"], row["domain_id"]]
        assert row["n"] == group.height
        for letter, name in (("a", "activation"), ("d", "dla")):
            x = group[name].to_numpy().astype(np.float64)
            assert_near(row[f"{letter}_mean"], x.mean(), np.abs(x).mean())
            away = x - x.mean()
            for power in (2, 3, 4):  # a value's rounding counts by its size, not by its distance from the mean
                size = power * (np.abs(away) ** (power - 1) * (np.abs(x) + abs(x.mean()))).sum()
                assert_near(row[f"{letter}_m{power}"], (away**power).sum(), size)
            assert_near(row[f"{letter}_abs"], np.abs(x).sum(), np.abs(x).sum())
            assert (np.float32(row[f"{letter}_min"]), np.float32(row[f"{letter}_max"])) == (x.min(), x.max())


def bins_of(resolution, values: pl.Series) -> np.ndarray:
    edges, x = resolution.edges(), values.to_numpy()
    return np.where(x < 0, np.searchsorted(edges, x, "left"), np.searchsorted(edges, x, "right")) - 1


def test_spectrum_and_density_are_those_of_the_raw_rows(tables, label):
    raw = raw_rows(tables, label)
    raw = raw.with_columns(
        bin=pl.Series(bins_of(SPECTRUM, raw["activation"])), fine=pl.Series(bins_of(DENSITY, raw["activation"]))
    )
    want = dict(raw.group_by("class_id", "bin"))
    spectrum = tables.of("spectrum_counts", label)
    assert spectrum.height == len(want)
    for row in spectrum.iter_rows(named=True):
        dla = want[row["class_id"], row["bin"]]["dla"].to_numpy().astype(np.float64)
        assert row["n"] == len(dla)
        assert_near(row["sum_dla"], dla.sum(), np.abs(dla).sum())
        assert_near(row["sum_abs_dla"], np.abs(dla).sum(), np.abs(dla).sum())
    fine = raw.filter("ordinary").group_by("fine").len().sort("fine")
    assert tables.of("density_counts", label).sort("bin").select("bin", "n").rows() == fine.rows()


def test_quantiles_are_within_the_stated_error_of_those_of_the_raw_rows(tables, label):
    values = raw_rows(tables, label).filter("ordinary")["activation"].to_numpy().astype(np.float64)
    rows = tables.of("quantiles", label)
    assert rows.height == 11
    for row in rows.iter_rows(named=True):
        want = np.quantile(values, row["quantile"], method="inverted_cdf")
        assert abs(row["value"] - want) <= abs(want) / 32 + 2.0**-16
        assert values.min() <= row["value"] <= values.max()
        assert row["bin"] == bins_of(SPECTRUM, pl.Series([want]))[0]


def test_extremes_are_a_sort_of_the_raw_rows(tables, label):
    """Rows are kept in float32 and ranked in float64: of those that are equal as kept, either may stand first."""
    raw, rows = raw_rows(tables, label).filter("ordinary"), tables.of("extreme_rows", label)
    assert rows.height == 4 * EXTREMES
    for measure in ("activation", "dla"):
        for side, sign in (("top", -1), ("bottom", 1)):
            want = sign * np.sort(sign * raw[measure].to_numpy())[:EXTREMES]
            got = rows.filter((pl.col("measure") == measure) & (pl.col("side") == side)).sort("rank")
            assert got["rank"].to_list() == list(range(1, EXTREMES + 1))
            assert got[measure].to_list() == want.tolist()
            columns = ["position_id", "activation", "dla"]
            assert len(set(got["position_id"]) & set(raw["position_id"])) == EXTREMES
            assert set(got.select(columns).rows()) <= set(raw.select(columns).rows())
            assert got.sort("key", "position_id")["rank"].to_list() == got["rank"].to_list()


# --- samples against keys computed with Python's integers
# --------------------------------------------------------------


def test_samples_are_the_smallest_keys_of_each_stratum(tables, label, corpus):
    raw, rows = raw_rows(tables, label).filter("ordinary"), tables.of("sample_rows", label)
    number = tables["components"].filter(pl.col("component") == label)["component_id"].item()
    mark = splitmix((number + 1) * GOLDEN + hash64("components 5") & U64)
    keys = {p: as_signed((key ^ mark) * GOLDEN) for p, key in keys_by_position(raw, corpus).items()}
    raw = raw.with_columns(bin=pl.Series(bins_of(SPECTRUM, raw["activation"])))
    assert rows["bin"].n_unique() == raw["bin"].n_unique() > 3
    for (stratum,), group in raw.group_by("bin"):
        want = sorted(group["position_id"], key=keys.get)[:SAMPLES]
        got = rows.filter(pl.col("bin") == stratum)
        assert got["position_id"].to_list() == want
        assert_frame_equal(
            got.select("position_id", "activation", "dla").sort("position_id"),
            group.filter(pl.col("position_id").is_in(want))
            .select("position_id", "activation", "dla")
            .sort("position_id"),
        )


def test_dense_rows_are_the_smallest_keys_of_all_ordinary_positions(tables, label, corpus):
    raw, rows = raw_rows(tables, label).filter("ordinary"), tables.of("dense_rows", label)
    keys = {p: as_signed(key) for p, key in keys_by_position(raw, corpus).items()}
    assert rows["position_id"].to_list() == sorted(sorted(keys, key=keys.get)[:DENSE])
    want = raw.filter(pl.col("position_id").is_in(rows["position_id"].to_list()))
    assert_frame_equal(rows.select("activation", "dla"), want.select("activation", "dla"))
    flagged = tables["position_rows"].filter("dense")["position_id"]
    assert sorted(flagged) == rows["position_id"].to_list()


def test_special_positions_are_in_no_sample_extreme_density_or_dense_row(tables):
    special = tables["position_rows"].filter(pl.col("special").is_not_null())["position_id"]
    assert special.len() > 50
    for name in ("sample_rows", "extreme_rows", "dense_rows", "head_attention_rows"):
        assert not tables[name]["position_id"].is_in(special.to_list()).any()
    (row,) = tables["runs"].iter_rows(named=True)
    per_component = tables["density_counts"].group_by("component_id").agg(pl.col("n").sum())["n"].unique()
    assert per_component.to_list() == [row["n_positions"]]
    special_classes = tables["classes"].filter("special")["class_id"].to_list()
    ordinary = tables["spectrum_counts"].filter(~pl.col("class_id").is_in(special_classes))
    assert ordinary.group_by("component_id").agg(pl.col("n").sum())["n"].unique().to_list() == [row["n_positions"]]


def test_every_component_is_in_every_table_of_statistics(tables):
    n = tables["components"].height
    for name in (
        "cell_sums",
        "power_sums",
        "spectrum_counts",
        "density_counts",
        "quantiles",
        "sample_rows",
        "extreme_rows",
        "dense_rows",
    ):
        assert tables[name]["component_id"].n_unique() == n, name


def test_tables_are_sorted_by_component(tables):
    for name in (
        "cell_sums",
        "power_sums",
        "spectrum_counts",
        "density_counts",
        "quantiles",
        "sample_rows",
        "extreme_rows",
        "dense_rows",
        "head_attention_rows",
        "logit_effects",
    ):
        assert tables[name]["component_id"].is_sorted(), name


def test_kept_positions_and_windows_are_those_referred_to(tables):
    positions = tables["position_rows"]
    assert positions["position_id"].is_unique().all()
    assert set(positions["window_id"]) == set(tables["windows"]["window_id"])
    for name in ("sample_rows", "extreme_rows", "dense_rows", "recorded_rows", "head_attention_rows"):
        assert tables[name]["position_id"].is_in(positions["position_id"].to_list()).all()


# --- repeatable, and independent of the batch size
# ---------------------------------------------------------------------


@pytest.mark.slow
def test_two_runs_are_identical_row_for_row(tables, model_dirs, corpus, tmp_path):
    again = run(tmp_path, settings(model_dirs["gpt2"], corpus))
    assert tables.names == again.names == {*TABLES, *EMPTY}
    assert not any(run[name].height for run in (tables, again) for name in EMPTY)
    for name in TABLES:
        first, second = tables[name], again[name]
        if name == "runs":
            first, second = first.drop(NOT_REPEATED), second.drop(NOT_REPEATED)
        assert first.height > 0, name
        assert_frame_equal(first, second, check_exact=True)


@pytest.mark.slow
def test_another_seed_samples_other_positions_of_the_same_statistics(tables, model_dirs, corpus, tmp_path):
    other = run(tmp_path, settings(model_dirs["gpt2"], corpus, seed=6))
    assert tables["runs"]["run_id"].item() != other["runs"]["run_id"].item()
    sources = [t["documents"].sort("doc_id")["source"].to_list() for t in (tables, other)]
    assert sources[0] != sources[1]
    assert sorted(sources[0]) == sorted(sources[1])
    total = [
        t["spectrum_counts"].group_by("component_id", "bin").agg(pl.col("n").sum()).sort("component_id", "bin")
        for t in (tables, other)
    ]
    assert_frame_equal(*total)
    kept = [
        set(
            t["dense_rows"]
            .join(t["position_rows"], on="position_id")
            .join(t["documents"], on="doc_id")
            .select("source", "pos")
            .rows()
        )
        for t in (tables, other)
    ]
    assert len(kept[0] & kept[1]) < DENSE / 2


@pytest.fixture(scope="module")
def by_batch_size(model_dirs, corpus, tmp_path_factory) -> list[Tables]:
    """Float32 runs of batch sizes 1, 4 and 64."""
    folder, config = tmp_path_factory.mktemp("batches"), settings(model_dirs["gpt2"], corpus, dtype="float32")
    return [run(folder, config.model_copy(update={"batch_size": size}), str(size)) for size in (1, 4, 64)]


@pytest.mark.slow
@pytest.mark.parametrize("other", [1, 2])
class TestBatchSize:
    """Another batch size may round differently, and do nothing else."""

    def test_documents_positions_and_counts_are_the_same(self, by_batch_size, other):
        first, second = by_batch_size[0], by_batch_size[other]
        for name in ("documents", "windows", "cell_counts", "replicate_groups", "drops", "domains"):
            assert_frame_equal(first[name], second[name], check_exact=True)
        exact = [
            "position_id",
            "window_id",
            "doc_id",
            "pos",
            "offset",
            "token_id",
            "next_token_id",
            "class_id",
            "special",
            "dense",
        ]
        assert_frame_equal(first["position_rows"].select(exact), second["position_rows"].select(exact))
        assert_frame_equal(
            first["recorded_rows"].select("component_id", "position_id").sort(pl.all()),
            second["recorded_rows"].select("component_id", "position_id").sort(pl.all()),
        )
        assert first["runs"]["run_id"].item() == second["runs"]["run_id"].item()

    def test_sums_differ_by_rounding(self, by_batch_size, other):
        first, second = by_batch_size[0], by_batch_size[other]
        keys = ["component_id", "axis", "value_id", "group_id"]
        both = first["cell_sums"].join(second["cell_sums"], on=keys, suffix="_other", validate="1:1")
        assert both.height == first["cell_sums"].height == second["cell_sums"].height
        size = both["sum_abs_dla"].to_numpy()
        for name in ("sum_dla", "sum_abs_dla"):
            assert (np.abs(both[name] - both[f"{name}_other"]) <= 1e-5 * size + 1e-6).all()
        keys = ["component_id", "class_id", "domain_id"]
        both = first["power_sums"].join(second["power_sums"], on=keys, suffix="_other", validate="1:1")
        size = both["a_abs"].to_numpy()
        assert (both["n"] == both["n_other"]).all()
        assert (np.abs(both["a_mean"] - both["a_mean_other"]) <= (1e-5 * size + 1e-9) / both["n"]).all()
        assert (np.abs(both["a_max"] - both["a_max_other"]) <= 1e-5 * size + 1e-9).all()

    @pytest.mark.parametrize("name", ["spectrum_counts", "density_counts"])
    def test_at_most_one_count_in_10_000_moves_to_a_neighbouring_bin(self, by_batch_size, other, name):
        first, second = by_batch_size[0][name], by_batch_size[other][name]
        keys = ["component_id", "class_id", "bin"] if name == "spectrum_counts" else ["component_id", "bin"]
        both = first.join(second, on=keys, how="full", coalesce=True, suffix="_other").with_columns(
            pl.col("n", "n_other").fill_null(0)
        )
        moved = (both["n"] - both["n_other"]).abs().sum() / 2
        assert moved <= 1e-4 * both["n"].sum()
        assert both["n"].sum() == both["n_other"].sum()

    def test_samples_extremes_and_dense_rows_have_the_same_members(self, by_batch_size, other):
        first, second = by_batch_size[0], by_batch_size[other]
        keys = ["component_id", "position_id"]
        assert_frame_equal(first["dense_rows"].select(keys), second["dense_rows"].select(keys))
        samples = [set(t["sample_rows"].select(["bin", *keys]).iter_rows()) for t in (first, second)]
        assert len(samples[0] ^ samples[1]) <= 1e-3 * len(samples[0])
        order = ["component_id", "measure", "side", "rank"]
        both = first["extreme_rows"].join(second["extreme_rows"], on=order, suffix="_other", validate="1:1")
        for measure in ("activation", "dla"):
            own = both.filter(pl.col("measure") == measure)
            np.testing.assert_allclose(own[measure], own[f"{measure}_other"], rtol=1e-4, atol=1e-6)
        # equal contexts in different documents tie but for rounding: then either may stand in a rank, with the same
        # value
        assert (both["position_id"] == both["position_id_other"]).mean() > 0.95
