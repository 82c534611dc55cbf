"""A path is what it says, whatever is in it: no pattern, no URL, no partition; what DuckDB cannot take is refused at
once."""

from pathlib import Path

import duckdb
import polars as pl
import pytest
import tiny
from same import differing_tables

from profiler.behaviours import additions
from profiler.behaviours.compare import compare
from profiler.config import RunConfig
from profiler.database import paths, query
from profiler.database.transaction import writing
from profiler.errors import RunError
from profiler.model.load import load_model
from profiler.pages import site
from profiler.pages.build import build, write
from profiler.patching import experiment_store
from profiler.recording.merge.merge import merge
from profiler.recording.pipeline import record
from profiler.recording.write import Store
from profiler.text import documents

NAMES = (
    "a=b",
    "a'b",
    "a*b",
    "a[1]b",
    "a%20b",
    "a\nb",
    "ü😀",
    " a b ",
    '"q"',
    "a{b,c}",
    "#a",
    "~",
    "md:x",
    "s3:",
    "file:",
    "a;b",
    "--c",
    "$HOME",
    "[",
    "]x[",
    "[!a]",
    "[^a]",
    "**",
    "=",
    ":memory:",
    "{0}",
    "lr=0.1",
)
DECOYS = ("ab", "a1b", "axb", "b", "x")
"""What the patterns among NAMES would find too."""
EVERYTHING = "lr=0.1 [a]*'q' \"d\" 100% {0} --c ü\n;x"
REFUSED = {"a?b": r"reads \? in", "a\\b": r"reads \\ in", "a\udcff": "no UTF-8"}


@pytest.mark.parametrize("name", NAMES)
def test_parquet_files_are_read_one_by_one_with_their_own_columns(name, tmp_path):
    files = []
    for n, folder in enumerate((name, *DECOYS)):
        (tmp_path / folder).mkdir()
        files.append(tmp_path / folder / f"x{folder}-1.parquet")
        with files[-1].open("wb") as file:
            pl.DataFrame({"v": [n]}).write_parquet(file)
    with duckdb.connect() as connection:
        found = connection.sql(f"FROM {paths.parquet(files[:1])}")
        assert (found.columns, found.fetchall()) == (["v"], [(0,)])
        assert len(connection.sql(f"FROM {paths.parquet(files)}").fetchall()) == len(files)


@pytest.mark.parametrize("name", NAMES)
def test_a_database_is_where_it_was_put(name, tmp_path, monkeypatch):
    """Also by a relative path: `md:x` is no extension then, `:memory:` no memory, `~` no home."""
    monkeypatch.chdir(tmp_path)
    for path in (Path(name), tmp_path / f"d{name}" / name):
        path.parent.mkdir(exist_ok=True)
        with duckdb.connect(paths.database_path(path)) as connection:
            connection.execute("CREATE TABLE t AS SELECT 1 AS v")
        assert path.is_file()
        with duckdb.connect() as connection:
            connection.execute(f"ATTACH {paths.literal(paths.database_path(path))} AS other (READ_ONLY)")
            assert connection.execute("FROM other.t").fetchall() == [(1,)]


@pytest.mark.parametrize("name", REFUSED)
def test_what_duckdb_cannot_take_is_refused_before_any_work(name, tmp_path, base_config):
    said = REFUSED[name]
    for path in (tmp_path / name / "run.duckdb", tmp_path / f"{name}.duckdb"):
        for action in (
            lambda path: record(base_config.model_copy(update={"model": "none"}), path),
            Store,
            lambda path: writing(path).__enter__(),
        ):
            with pytest.raises(RunError, match=said) as caught:
                action(path)
            assert "\n" not in str(caught.value)


class Stop(Exception):
    pass


def stop_at_the_end(progress) -> None:
    if progress.stage == "writing":
        raise Stop


@pytest.mark.slow
def test_every_command_takes_any_path(base_config: RunConfig, tmp_path):
    """Recorded, stopped and gone on with, merged, asked, reported, compared, added to, patched, made a site of."""
    folder = tmp_path / EVERYTHING
    folder.mkdir()
    for decoy in ("lr=0.1", "q"):
        (tmp_path / decoy).mkdir()
    config = base_config.model_copy(update={"tokens": 600, "dense_positions": 20, "components": ()})
    model, paths = load_model(config), {name: folder / f"{name} {EVERYTHING}.duckdb" for name in "abcd"}
    plain = tmp_path / "plain.duckdb"
    record(config, plain, model=model)
    with pytest.raises(Stop):
        record(config, paths["a"], model=model, commit_seconds=0.0, report=stop_at_the_end)
    record(config, paths["a"], model=model, resume=True)
    assert differing_tables(plain, paths["a"])[1] == []
    record(config.model_copy(update={"seed": 1}), paths["b"], model=model)
    record(config.model_copy(update={"shard": "1/1"}), paths["c"], model=model)
    assert compare(paths["a"], paths["b"], top=2).frame.height
    assert query.run(paths["a"], "component_overview").height
    additions.add_class(paths["a"], "mine", "text = 'a'")
    additions.refresh(paths["a"])
    with experiment_store.ready(paths["a"], model), experiment_store.ready(paths["d"], model):
        experiment_store.write(paths["a"], "x", {})
        experiment_store.write(paths["d"], "x", {})
    assert write(folder / f"page {EVERYTHING}.html", build(paths["a"], "overview")).is_file()
    assert site.build(paths["a"], folder / f"site {EVERYTHING}", most=1).made == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([EVERYTHING, "lr=0.1", "plain.duckdb", "q"])


@pytest.mark.slow
def test_shards_merge_under_any_path(model_dirs, tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "BLOCK_DOCUMENTS", 8)
    corpus = tiny.write_corpus(tmp_path / "rows.jsonl", n_documents=20)
    folder = tmp_path / EVERYTHING
    folder.mkdir()
    config = RunConfig(
        model=str(model_dirs["gpt2"]), corpora=(str(corpus),), tokens=None, dense_positions=20, samples_per_stratum=2
    )
    model = load_model(config)
    paths = [folder / f"{i} {EVERYTHING}.duckdb" for i in (1, 2)]
    for i, path in enumerate(paths, 1):
        record(config.model_copy(update={"shard": f"{i}/2"}), path, model=model)
    merged = folder / f"merged {EVERYTHING}.duckdb"
    merge(paths, merged)
    record(config, tmp_path / "whole.duckdb", model=model)
    assert differing_tables(tmp_path / "whole.duckdb", merged, 1e-12)[1] == []
