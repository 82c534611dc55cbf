"""The run file: nothing half-written looks complete, no run is lost, and any DuckDB from 1.2 on reads it."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import polars as pl
import pytest
import tiny
from same import differing_tables
from tiny import names

from profiler.config import RunConfig
from profiler.database.connections import STORAGE_VERSION
from profiler.database.pass_commits import partial_path, read_manifest
from profiler.errors import RunError
from profiler.recording import pipeline
from profiler.recording.pipeline import record
from profiler.recording.write import Store
from profiler.text import documents

HOLDER = """
import sys, time
from pathlib import Path
from profiler.recording.write import Store
with Store(Path(sys.argv[1])) as store:
    print("open", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def config(base_config: RunConfig) -> RunConfig:
    """Small and quick."""
    return base_config.model_copy(update={"tokens": 200, "dense_positions": 5, "components": ()})


# --- what is left behind
# -----------------------------------------------------------------------------------------------


def test_a_finished_run_leaves_one_file(config, tmp_path):
    outcome = record(config, tmp_path / "run.duckdb")
    assert names(tmp_path) == ["run.duckdb"]
    assert outcome.bytes == (tmp_path / "run.duckdb").stat().st_size
    with duckdb.connect(str(outcome.path), read_only=True) as connection:
        assert connection.execute("SELECT complete FROM runs").fetchall() == [(True,)]


def failing(error: BaseException, after: int):
    """A report function that fails at its call number `after`."""
    calls = []

    def report(_: object) -> None:
        calls.append(1)
        if len(calls) == after:
            raise error

    return report


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt(), MemoryError()])
def test_an_error_before_the_first_commit_leaves_nothing(error, config, tmp_path):
    with pytest.raises(type(error)):
        record(config, tmp_path / "run.duckdb", report=failing(error, 1))
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt(), MemoryError()])
def test_an_error_after_a_commit_leaves_the_commit_and_nothing_else(error, config, tmp_path):
    """The second call comes after every table was written."""
    with pytest.raises(type(error)):
        record(config, tmp_path / "run.duckdb", report=failing(error, 2))
    assert names(tmp_path) == ["run.duckdb.partial"]
    manifest = read_manifest(tmp_path / "run.duckdb.partial")
    assert names(tmp_path / "run.duckdb.partial") == sorted([*manifest.checks, "commit.json", "lock"])
    record(config, tmp_path / "run.duckdb", resume=True)
    assert names(tmp_path) == ["run.duckdb"]


def test_an_error_keeps_the_run_that_was_to_be_replaced(config, tmp_path):
    path = tmp_path / "run.duckdb"
    record(config, path)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        record(config, path, overwrite=True, report=failing(KeyboardInterrupt(), 1))
    assert path.read_bytes() == before
    assert names(tmp_path) == ["run.duckdb"]


@pytest.mark.slow
def test_overwriting_replaces_the_run(config, tmp_path):
    path = tmp_path / "run.duckdb"
    record(config, path)
    record(config.model_copy(update={"tokens": 100}), path, overwrite=True)
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.execute("SELECT n_tokens FROM runs").fetchall() == [(100,)]
    assert names(tmp_path) == ["run.duckdb"]


def test_an_error_between_the_tables_and_the_name_leaves_the_commit(config, tmp_path, monkeypatch):
    def broken(self: Store, *_: object) -> int:
        self.connection.execute("CHECKPOINT")
        raise RuntimeError("boom")

    with monkeypatch.context() as patched, pytest.raises(RuntimeError):
        patched.setattr(pipeline.Store, "finish", broken)
        record(config, tmp_path / "run.duckdb")
    assert names(tmp_path) == ["run.duckdb.partial"]
    assert "run.duckdb" not in names(tmp_path / "run.duckdb.partial")


# --- another process
# ---------------------------------------------------------------------------------------------------


@pytest.fixture
def holder(tmp_path):
    """A process that writes `run.duckdb`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run.duckdb")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "open\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.slow
def test_a_run_being_written_by_another_process_is_refused_and_left_alone(holder, tmp_path):
    before = names(tmp_path)
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(RunError, match=f"is being written by process {holder.pid} on") as caught:
            Store(tmp_path / "run.duckdb", **options)
        assert "\n" not in str(caught.value)
    assert names(tmp_path) == before
    assert holder.poll() is None


@pytest.mark.slow
def test_what_a_killed_pass_left_without_a_commit_is_cleaned_up(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert partial_path(tmp_path / "run.duckdb").name in names(tmp_path)
    with Store(tmp_path / "run.duckdb") as store:
        assert store.connection.execute("SELECT count(*) FROM runs").fetchall() == [(0,)]
    assert names(tmp_path) == []


def test_a_file_in_the_place_of_the_folder_is_refused_and_kept(tmp_path):
    (tmp_path / "run.duckdb.partial").write_text("something of the user's")
    with pytest.raises(RunError, match="must be moved away"):
        Store(tmp_path / "run.duckdb")
    assert names(tmp_path) == ["run.duckdb.partial"]


def test_files_of_the_user_in_the_folder_are_kept(tmp_path):
    with Store(tmp_path / "run.duckdb", overwrite=True) as store:
        (store.partial.folder / "notes.txt").write_text("mine")
        store.insert("runs", pl.DataFrame({"complete": [True]}))
        store.finish()
    assert names(tmp_path / "run.duckdb.partial") == ["notes.txt"]


def test_the_same_run_twice_in_one_process_is_refused(tmp_path):
    with Store(tmp_path / "run.duckdb") as first:
        with pytest.raises(RunError, match="is being written by process"):
            Store(tmp_path / "run.duckdb")
        assert first.connection.execute("SELECT count(*) FROM runs").fetchall() == [(0,)]


# --- a full disk
# -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True)
    if not done or done.returncode:
        pytest.skip("no small disk could be mounted: this needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_leaves_nothing_without_a_commit(small_disk, config):
    large = config.model_copy(
        update={"tokens": None, "dense_positions": 20_000, "extremes": 2000, "samples_per_stratum": 300}
    )
    with pytest.raises(RunError, match="Free disk space") as caught:
        record(large, small_disk / "run.duckdb")
    assert "\n" not in str(caught.value)
    assert names(small_disk) == []


@pytest.mark.slow
def test_a_disk_that_fills_up_keeps_the_last_commit(small_disk, config, tmp_path, monkeypatch):
    """The file that fills the disk is not ours; when it goes, the pass goes on and the run is the one it would have
    been."""
    monkeypatch.setattr(documents, "BLOCK_DOCUMENTS", 8)
    path, filler = small_disk / "run.duckdb", small_disk / "filler"
    many = tiny.write_corpus(tmp_path / "many.jsonl", n_documents=60)
    config = config.model_copy(update={"tokens": None, "corpora": (str(many),)})
    calls = []

    def fill(_: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            with filler.open("wb") as file, pytest.raises(OSError):
                for _ in range(300):
                    file.write(bytes(100_000))
                    file.flush()

    with pytest.raises(RunError, match=r"Free disk space .*the last commit \(.*--resume"):
        record(config, path, report=fill, commit_seconds=0.0)
    manifest = read_manifest(partial_path(path))
    assert manifest.number == 2
    assert names(partial_path(path)) == sorted([*manifest.checks, "commit.json", "lock"])
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=30m", small_disk], check=True)
    record(config, path, resume=True)
    record(config, tmp_path / "whole.duckdb")
    assert differing_tables(path, tmp_path / "whole.duckdb")[1] == []


# --- the file
# ----------------------------------------------------------------------------------------------------------


def test_the_file_has_the_storage_version_of_duckdb_1_2(run_path):
    """Bytes 8 to 15 of the first header, after the magic: the storage version number that DuckDB 1.2 writes is 65."""
    with run_path.open("rb") as file:
        header = file.read(4096)
    assert header[8:12] == b"DUCK"
    assert int.from_bytes(header[12:20], "little") <= 65
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{run_path}' AS run (READ_ONLY)")
        tags = connection.execute("SELECT tags FROM duckdb_databases() WHERE database_name = 'run'").fetchone()[0]
    assert STORAGE_VERSION in tags["storage_version"]


def test_the_released_shell_reads_the_file(run_path):
    shell = shutil.which("duckdb", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if shell is None:
        pytest.skip("the duckdb shell is not installed (pip install duckdb-cli)")
    sql = "SELECT count(*) > 0 FROM samples WHERE quantile = 0.5"
    done = subprocess.run([shell, "-readonly", "-csv", "-noheader", run_path, sql], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("true", "")


def test_every_table_view_and_column_has_a_comment(run_db):
    for function, column in (
        ("duckdb_tables", "table_name"),
        ("duckdb_views", "view_name"),
        ("duckdb_columns", "table_name || '.' || column_name"),
    ):
        rows = run_db.execute(f"SELECT {column}, comment FROM {function}() WHERE NOT internal").fetchall()
        assert rows
        assert [name for name, comment in rows if not comment] == []


def test_frames_are_inserted_by_column_name(tmp_path):
    with Store(tmp_path / "run.duckdb") as store:
        store.insert("domains", pl.DataFrame({"domain": ["x"], "domain_id": [3]}))
        store.insert(
            "domains", iter([pl.DataFrame({"domain_id": [4], "domain": ["'; DROP TABLE domains; --"]}), pl.DataFrame()])
        )
        assert store.connection.execute("FROM domains").fetchall() == [(3, "x"), (4, "'; DROP TABLE domains; --")]


def test_a_path_with_quotes_is_a_path(tmp_path):
    path = tmp_path / 'it\'s a "run".duckdb'
    with Store(path) as store:
        store.insert("runs", pl.DataFrame({"complete": [True]}))
        store.finish()
    assert names(tmp_path) == [path.name]
