"""The pass as a whole: repeatable, independent of the batch size, and equal to a recount from the raw rows it kept."""

import hashlib
import json
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
import tiny
import torch
from polars.testing import assert_frame_equal
from transformers import PreTrainedTokenizerFast

from profiler.bins import DENSITY, SPECTRUM
from profiler.config import RunConfig
from profiler.errors import ComponentError, CorpusError, ModelError
from profiler.model import load_model
from profiler.pipeline import record

RECORDED = ("L1H1", "L0N3")
SAMPLES, EXTREMES, DENSE, GROUPS, CONTEXT = 3, 4, 30, 4, 24
NOT_REPEATED = ["created", "seconds", "tokens_per_second", "peak_memory_bytes"]
TABLES = (
    "runs components classes tokens vocabulary domains replicate_groups position_buckets bins documents windows position_rows "
    "cell_counts cell_sums group_importance power_sums spectrum_counts density_counts quantiles sample_rows extreme_rows dense_rows recorded_rows "
    "head_attention_rows logit_effects closure drops properties token_property_lists behaviours uniform_marks token_counts token_sums pooled_strata "
    "layer_coverages component_importance"
).split()


def corpus_rows() -> list[dict]:
    """Documents of 0 to 45 words in two topics, some with a special token inside, one without text."""
    rows = [
        {"id": f"doc-{i}", "text": tiny.text(100 + i, 1 + (i * 7) % 45), "topic": "ab"[i % 3 == 0]} for i in range(30)
    ]
    for i in (3, 11, 12):
        rows[i]["text"] = f"one {tiny.END} two {tiny.END}{tiny.END} three"
    rows[20]["text"] = ""
    rows[21]["text"] = "x"
    return rows


def write_rows(file: Path, rows: list[dict]) -> Path:
    file.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_rows(tmp_path_factory.mktemp("pipeline") / "rows.jsonl", corpus_rows())


def settings(model: Path, corpus: Path, **changes) -> RunConfig:
    fields = {
        "model": str(model), "corpora": (str(corpus),), "tokens": None, "domain_field": "topic", "context_length": CONTEXT,
        "batch_size": 4, "seed": 5, "dense_positions": DENSE, "samples_per_stratum": SAMPLES, "extremes": EXTREMES,
        "replicate_groups": GROUPS, "components": RECORDED, "dtype": "float64",
    }  # fmt: skip
    return RunConfig(**fields | changes)


def run(folder: Path, config: RunConfig, name: str = "run") -> "Tables":
    path = folder / f"{name}.duckdb"
    record(config, path)
    return Tables(path)


class Tables:
    """A run's tables as frames."""

    def __init__(self, path: Path):
        with duckdb.connect(str(path), read_only=True) as connection:
            self.names = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
            self.frames = {name: pl.from_arrow(connection.sql(f"FROM {name}").to_arrow_table()) for name in self.names}

    def __getitem__(self, name: str) -> pl.DataFrame:
        return self.frames[name]

    def of(self, name: str, label: str) -> pl.DataFrame:
        """Rows of one component."""
        number = self["components"].filter(pl.col("component") == label)["component_id"].item()
        return self[name].filter(pl.col("component_id") == number)

    def drops(self) -> dict[str, int]:
        return dict(self["drops"].select("reason", "n").iter_rows())


@pytest.fixture(scope="module")
def tables(model_dirs, corpus, tmp_path_factory) -> Tables:
    """One float64 run."""
    return run(tmp_path_factory.mktemp("pipeline"), settings(model_dirs["gpt2"], corpus))


def raw_rows(tables: Tables, label: str) -> pl.DataFrame:
    """Every position of a recorded component, with all its properties from the base tables."""
    next_class = tables["tokens"].select(next_token_id="token_id", next_class="class_id")
    documents = (
        tables["documents"].join(tables["domains"], on="domain").select("doc_id", "group_id", "domain_id", "source")
    )
    rows = tables.of("recorded_rows", label).join(tables["position_rows"], on="position_id", validate="1:1")
    rows = rows.join(next_class, on="next_token_id").join(documents, on="doc_id").sort("position_id")
    return rows.with_columns(ordinary=pl.col("special").is_null())


@pytest.fixture(params=RECORDED)
def label(request) -> str:
    return request.param


# --- what is read ------------------------------------------------------------------------------------------------------


def expected_documents() -> dict[str, list[int]]:
    encode = tiny.tokenizer()
    return {r["id"]: encode(r["text"])["input_ids"] for r in corpus_rows() if r["text"]}


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


# --- statistics against a recount --------------------------------------------------------------------------------------

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
        assert {(v, g): n for _, v, g, n in counts.iter_rows()} == {key: group.height for key, group in want.items()}
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
            for power in (1, 2, 3, 4):
                assert_near(row[f"{letter}{power}"], (x**power).sum(), power * (np.abs(x) ** power).sum())
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
        assert row["bin"] == bins_of(SPECTRUM, pl.Series([want]))[0]


def test_extremes_are_a_sort_of_the_raw_rows(tables, label):
    raw, rows = raw_rows(tables, label).filter("ordinary"), tables.of("extreme_rows", label)
    assert rows.height == 4 * EXTREMES
    for measure in ("activation", "dla"):
        for side, sign in (("top", -1), ("bottom", 1)):
            order = np.lexsort([raw["position_id"].to_numpy(), sign * raw[measure].to_numpy()])[:EXTREMES]
            want = raw[order].select("position_id", "activation", "dla").rows()
            got = rows.filter((pl.col("measure") == measure) & (pl.col("side") == side)).sort("rank")
            assert got["rank"].to_list() == list(range(1, EXTREMES + 1))
            assert got.select("position_id", "activation", "dla").rows() == want


# --- samples against keys computed with Python's integers --------------------------------------------------------------

U64 = 2**64 - 1


def hash64(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def splitmix(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & U64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & U64
    return value ^ (value >> 31)


def as_signed(value: int) -> int:
    value &= U64
    return value - 2**64 if value >= 2**63 else value


GOLDEN = 0x9E3779B97F4A7C15


def keys_by_position(rows: pl.DataFrame, corpus: Path) -> dict[int, int]:
    """The unsigned key of each position."""
    keys = {}
    for position, source in rows.select("position_id", "source").iter_rows():
        start = hash64(f"5\x00{corpus}:rows.jsonl:{source.removeprefix('doc-')}")
        keys[position] = splitmix(((position & (2**32 - 1)) + 1) * GOLDEN + start & U64)
    return keys


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
    for name in ("cell_sums", "power_sums", "spectrum_counts", "density_counts", "quantiles", "sample_rows", "extreme_rows", "dense_rows"):  # fmt: skip
        assert tables[name]["component_id"].n_unique() == n, name


def test_tables_are_sorted_by_component(tables):
    for name in ("cell_sums", "power_sums", "spectrum_counts", "density_counts", "quantiles", "sample_rows", "extreme_rows", "dense_rows", "head_attention_rows", "logit_effects"):  # fmt: skip
        assert tables[name]["component_id"].is_sorted(), name


def test_kept_positions_and_windows_are_those_referred_to(tables):
    positions = tables["position_rows"]
    assert positions["position_id"].is_unique().all()
    assert set(positions["window_id"]) == set(tables["windows"]["window_id"])
    for name in ("sample_rows", "extreme_rows", "dense_rows", "recorded_rows", "head_attention_rows"):
        assert tables[name]["position_id"].is_in(positions["position_id"].to_list()).all()


# --- repeatable, and independent of the batch size ---------------------------------------------------------------------


def test_two_runs_are_identical_row_for_row(tables, model_dirs, corpus, tmp_path):
    again = run(tmp_path, settings(model_dirs["gpt2"], corpus))
    assert tables.names == again.names == set(TABLES)
    for name in TABLES:
        first, second = tables[name], again[name]
        if name == "runs":
            first, second = first.drop(NOT_REPEATED), second.drop(NOT_REPEATED)
        assert first.height > 0, name
        assert_frame_equal(first, second, check_exact=True)


def test_another_seed_samples_other_positions_of_the_same_statistics(tables, model_dirs, corpus, tmp_path):
    other = run(tmp_path, settings(model_dirs["gpt2"], corpus, seed=6))
    assert tables["runs"]["run_id"].item() != other["runs"]["run_id"].item()
    sources = [t["documents"].sort("doc_id")["source"].to_list() for t in (tables, other)]
    assert sources[0] != sources[1]
    assert sorted(sources[0]) == sorted(sources[1])
    total = [t["spectrum_counts"].group_by("component_id", "bin").agg(pl.col("n").sum()).sort("component_id", "bin") for t in (tables, other)]  # fmt: skip
    assert_frame_equal(*total)
    kept = [set(t["dense_rows"].join(t["position_rows"], on="position_id").join(t["documents"], on="doc_id").select("source", "pos").rows()) for t in (tables, other)]  # fmt: skip
    assert len(kept[0] & kept[1]) < DENSE / 2


@pytest.fixture(scope="module")
def by_batch_size(model_dirs, corpus, tmp_path_factory) -> list[Tables]:
    """Float32 runs of batch sizes 1, 4 and 64."""
    folder, config = tmp_path_factory.mktemp("batches"), settings(model_dirs["gpt2"], corpus, dtype="float32")
    return [run(folder, config.model_copy(update={"batch_size": size}), str(size)) for size in (1, 4, 64)]


@pytest.mark.parametrize("other", [1, 2])
class TestBatchSize:
    """Another batch size may round differently, and do nothing else."""

    def test_documents_positions_and_counts_are_the_same(self, by_batch_size, other):
        first, second = by_batch_size[0], by_batch_size[other]
        for name in ("documents", "windows", "cell_counts", "replicate_groups", "drops", "domains"):
            assert_frame_equal(first[name], second[name], check_exact=True)
        exact = ["position_id", "window_id", "doc_id", "pos", "offset", "token_id", "next_token_id", "class_id", "special", "dense"]  # fmt: skip
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
        assert (np.abs(both["a1"] - both["a1_other"]) <= 1e-5 * size + 1e-9).all()
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
        # equal contexts in different documents tie but for rounding: then either may stand in a rank, with the same value
        assert (both["position_id"] == both["position_id_other"]).mean() > 0.95


# --- documents do not see one another ----------------------------------------------------------------------------------


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


# --- other models ------------------------------------------------------------------------------------------------------


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


def test_a_bos_can_be_left_out(model_dirs, corpus, tmp_path):
    tables = run(tmp_path, settings(model_dirs["gpt2"], corpus, prepend_bos=False, tokens=300))
    assert tables.drops()["bos"] == 0 < tables.drops()["first"]


# --- bad input ---------------------------------------------------------------------------------------------------------


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
    with pytest.raises(CorpusError, match="no text"):
        run(tmp_path, settings(model_dirs["gpt2"], empty, domain_field=None))
    assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]


def test_components_named_twice_are_recorded_once(model_dirs, corpus, tmp_path):
    tables = run(tmp_path, settings(model_dirs["gpt2"], corpus, components=("L0N3", "L0N3"), tokens=200))
    assert tables["recorded_rows"].select("component_id", "position_id").is_unique().all()


def test_a_model_that_does_not_add_up_is_refused(model_dirs, corpus, tmp_path):
    model = load_model(settings(model_dirs["gpt2"], corpus))
    model.weights.neuron_out[0] = model.weights.neuron_out[0].roll(1, 0)
    with pytest.raises(ModelError, match="do not add up"):
        record(settings(model_dirs["gpt2"], corpus), tmp_path / "run.duckdb", model=model)
    assert list(tmp_path.iterdir()) == []


def test_nan_is_refused(model_dirs, corpus, tmp_path):
    model = load_model(settings(model_dirs["gpt2"], corpus, dtype="float32"))
    with torch.no_grad():
        model.bridge.W_U[:, 7] = torch.nan
        for parameter in model.bridge.original_model.parameters():
            parameter[0] = torch.nan
    with pytest.raises(ModelError, match="do not add up"):
        record(settings(model_dirs["gpt2"], corpus, dtype="float32"), tmp_path / "run.duckdb", model=model)
    assert list(tmp_path.iterdir()) == []
