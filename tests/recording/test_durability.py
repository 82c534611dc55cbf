"""A power cut at any moment loses no commit: what is flushed before what, and that no flush could be left out."""

from pathlib import Path

import pytest
import tiny
from recording import USES, Disk, Recorder, inodes_of, recorded

from profiler.config import RunConfig
from profiler.database import pass_commits
from profiler.database.pass_commits import MANIFEST, TEMPORARY, Partial, partial_path
from profiler.model.load import load_model
from profiler.recording.pipeline import record
from profiler.text import documents, windows


@pytest.fixture(scope="module", params=["new", "over the commit of a stopped pass"])
def passed(request, model_dirs, tmp_path_factory) -> tuple[Recorder, Path]:
    """A pass of several commits, recorded; once with a commit of an earlier pass that it is to forget."""
    folder = tmp_path_factory.mktemp("durable")
    corpus = tiny.write_corpus(tmp_path_factory.mktemp("corpus") / "rows.jsonl", n_documents=24)
    config = RunConfig(
        model=str(model_dirs["gpt2"]),
        corpora=(str(corpus),),
        tokens=None,
        dense_positions=20,
        samples_per_stratum=1,
        extremes=1,
        replicate_groups=2,
        token_sums="none",
    )
    model, path = load_model(config), folder / "run.duckdb"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(documents, "BLOCK_DOCUMENTS", 8)
        patched.setattr(windows, "CHUNK_WINDOWS", 24)
        if request.param != "new":
            with pytest.raises(KeyboardInterrupt):
                record(config, path, model=model, commit_seconds=0.0, report=stop_in_the_third_chunk())
        with recorded((folder, partial_path(path)), (MANIFEST, TEMPORARY)) as recorder:
            commit = Partial.commit
            patched.setattr(Partial, "commit", lambda self, *args: (commit(self, *args), recorder.mark())[0])
            record(config, path, model=model, overwrite=True, commit_seconds=0.0)
    assert len(recorder.marks) > 3
    return recorder, path


def stop_in_the_third_chunk():
    calls = []

    def report(_: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    return report


def faults(recorder: Recorder, path: Path, left_out: int | None = None) -> list[str]:
    """What could be lost by a power cut after some event.

    Args:
        left_out: number of an fsync to take as if it had not been called.
    """
    events, folder = recorder.events, partial_path(path)
    inodes, disk, found, run_is_whole = inodes_of(events, recorder.folders), Disk(), [], False
    for number, event in enumerate(events):
        disk.after(event if number != left_out else event.__class__("none", None, event.names, event.content), inodes)
        if event.call == "replace" and path.name in event.names[path.parent] and not run_is_whole:
            run_is_whole = disk.whole(event.names[path.parent][path.name])
        run_is_there = run_is_whole and len(disk.states(path.parent, path.name)) == 1
        promised = sum(mark <= number for mark in recorder.marks)
        for manifest in disk.states(folder, MANIFEST):
            if manifest is None:
                found += [f"{number}: no commit and no run"] if promised and not run_is_there else []
            elif not disk.whole(manifest):
                found.append(f"{number}: a torn manifest")
            else:
                names = pass_commits._manifest(pass_commits._unsealed(recorder.data[disk.flushed[manifest]]))
                found += [f"{number}: {name} may be missing" for name in names.checks if not disk.surely(folder, name)]
                if number >= recorder.marks[0] and names.number < promised:
                    found.append(f"{number}: commit {promised} was promised, {names.number} may be there")
        if promised and not run_is_there and len(disk.states(path.parent, folder.name)) > 1:
            found.append(f"{number}: the folder may be missing")
    return found


@pytest.mark.slow
def test_nothing_promised_is_lost_by_a_power_cut(passed):
    assert faults(*passed) == []


def test_no_flush_can_be_left_out(passed):
    """The test of the test, and of the code: each fsync is needed."""
    recorder, path = passed
    flushes = [number for number, event in enumerate(recorder.events) if event.call == "fsync"]
    assert len(flushes) > 20
    if partial_path(path).name in recorder.events[0].names[path.parent]:
        flushes.pop(0)  # that of the folder's own name, which is there already
    needless = [n for n in flushes if not faults(recorder, path, left_out=n)]
    assert needless == [], [(n, recorder.events[n - 1].call, recorder.events[n].names) for n in needless]


def test_the_run_has_its_name_before_the_commits_go(passed):
    recorder, path = passed
    folder = partial_path(path)
    named = next(n for n, e in enumerate(recorder.events) if path.name in e.names[path.parent])
    gone = next(n for n, e in enumerate(recorder.events) if n > recorder.marks[-1] and MANIFEST not in e.names[folder])
    between = [e for e in recorder.events[named + 1 : gone] if e.call == "fsync"]
    assert [e.flushed for e in between] == [path.parent.stat().st_ino * USES]
