"""Where a run may be written: places that are refused, and folders that are closed to whoever writes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import names

from profiler.database.pass_commits import Partial
from profiler.errors import RunError
from profiler.recording.write import Store, refuse_bad_place

NOBODY = """
import os
from contextlib import contextmanager
from pathlib import Path
import numpy as np
from profiler.errors import RunError
from profiler.recording.write import Store

def give_up_root():
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)

@contextmanager
def said():
    try:
        yield
    except RunError as error:
        print(f"RunError: {error}")

"""
CLOSED_BETWEEN_COMMITS = """
if os.getuid() == 0:
    os.chown(".", 65534, 65534)
give_up_root()
facts = {"committed": "noon", "tokens": 5, "documents": 1}
with said(), Store(Path("run.duckdb")) as store:
    store.commit({}, facts, {"x": np.ones(1)}, {})
    store.partial.folder.chmod(0o500)
    store.commit({}, facts, {"x": np.zeros(1)}, {})
"""


def test_a_folder_is_no_place_for_a_run(tmp_path):
    with pytest.raises(RunError, match="not a place for a file"):
        Store(tmp_path)


def test_the_folder_must_exist(tmp_path):
    with pytest.raises(RunError, match="folder must exist"):
        Store(tmp_path / "none" / "run.duckdb")
    assert names(tmp_path) == []


def test_an_existing_file_is_kept_unless_overwriting_is_asked_for(tmp_path):
    path = tmp_path / "run.duckdb"
    path.write_text("something of the user's")
    with pytest.raises(RunError, match="--overwrite"):
        Store(path)
    assert path.read_text() == "something of the user's"
    assert names(tmp_path) == ["run.duckdb"]
    refuse_bad_place(path, overwrite=True)


def as_nobody(program: str, folder: Path) -> subprocess.CompletedProcess:
    """Run `program` in `folder` by a process that may write nowhere else: everything is imported, then root is given
    up."""
    command = [sys.executable, "-c", NOBODY + program]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)


def test_a_read_only_folder_is_refused(tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0o555)
    ways = (
        "for given in ({}, {'overwrite': True}, {'resume': True}):\n    with said():\n        Store(Path('run.duckdb'),"
        " **given)\n"
    )
    done = as_nobody("give_up_root()\n" + ways, folder)
    assert (done.returncode, done.stderr) == (0, "")
    message = "--out run.duckdb cannot be written: choose another --out, or make its folder writable"
    assert done.stdout.splitlines() == [f"RunError: {message}"] * 3
    assert names(folder) == []


def test_a_folder_that_may_not_be_entered_is_refused(tmp_path):
    (tmp_path / "closed" / "inner").mkdir(parents=True)
    (tmp_path / "closed").chmod(0o600)
    done = as_nobody("give_up_root()\nwith said():\n    Store(Path('closed/inner/run.duckdb'))\n", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(
        "RunError: --out closed/inner/run.duckdb cannot be reached (Permission denied): choose"
    )


def test_a_folder_that_is_closed_during_a_pass_keeps_the_last_commit(tmp_path):
    """The second commit cannot be written; the message says how to go on, and the first is read back."""
    folder = tmp_path / "open"
    folder.mkdir()
    done = as_nobody(CLOSED_BETWEEN_COMMITS, folder)
    partial = folder / "run.duckdb.partial"
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(
        r"RunError: writing run.duckdb failed: .*Permission denied.*\. Free disk space or make the folder writable,"
        r" then run the "
        r"same command again\. What was read is safe; the last commit \(noon\) holds 5 tokens of 1 documents: give the"
        r" same command with --resume to go on .*\n",
        done.stdout,
    )
    assert names(partial) == ["commit.json", "lock", "state-1.arrow"]
    partial.chmod(0o755)
    again = Partial(folder / "run.duckdb")
    assert again.state()["x"].tolist() == [1.0]
    again.close()
