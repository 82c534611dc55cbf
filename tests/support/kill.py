"""`kill -9` at random moments of one pass, each time going on from the last commit; the run must equal an undisturbed
one.

    python tests/kill.py --kills 50

A parent that has everything loaded forks a child for each attempt, so that a kill costs no start of Python. Prints one
JSON line: kills, in which stage they struck, commits, and tables compared.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import duckdb
import tiny
import torch
from same import differing_tables

from profiler.config import RunConfig
from profiler.database.pass_commits import partial_path, read_manifest
from profiler.model.load import load_model
from profiler.recording.pipeline import record
from profiler.text import documents as reading
from profiler.text import windows

torch.set_num_threads(1)


def settings(folder: Path, documents: int) -> RunConfig:
    """A tiny model, a corpus of many chunks, and everything a run can hold."""
    model = tiny.save("gpt2", folder / "model")
    corpus = tiny.write_corpus(folder / "corpus.jsonl", n_documents=documents)
    return RunConfig(
        model=str(model),
        corpora=(str(corpus),),
        tokens=None,
        domain_field="topic",
        batch_size=16,
        dense_positions=60,
        samples_per_stratum=3,
        extremes=4,
        replicate_groups=4,
    )


def child(config: RunConfig, path: Path, model: object) -> int:
    """Start a pass in a process of its own."""
    pid = os.fork()
    if pid == 0:
        try:
            record(config, path, model=model, resume=True, commit_seconds=0.0)
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    return pid


def ended(pid: int, seconds: float) -> bool:
    """Wait; whether the child has ended by itself, well.

    Raises:
        RuntimeError: it failed.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            if status:
                raise RuntimeError(f"the pass ended with status {status}")
            return True
        time.sleep(0.002)
    return False


def stage(path: Path) -> str:
    """What the pass that was killed was doing."""
    manifest = read_manifest(partial_path(path))
    if manifest is None:
        return "before the first commit"
    if any(partial_path(path).glob("*.new")) or stray(path, set(manifest.checks)):
        return "during a commit"
    return "writing the file" if manifest.facts["cursor"]["done"] else "reading"


def stray(path: Path, named: set[str]) -> bool:
    """Whether files lie there that no manifest names."""
    files = {f.name for pattern in ("state-*.arrow", "*.parquet") for f in partial_path(path).glob(pattern)}
    return bool(files - named)


def undisturbed(config: RunConfig, path: Path, model: object) -> tuple[float, float]:
    """Seconds that a whole pass takes, and seconds until its first commit."""
    start, first, pid = time.monotonic(), 0.0, child(config, path, model)
    while not ended(pid, 0.01):
        if not first and (partial_path(path) / "commit.json").exists():
            first = time.monotonic() - start
    return time.monotonic() - start, first


def kill_often(
    config: RunConfig, path: Path, model: object, kills: int, seconds: float, tokens: int, seed: int
) -> tuple[Counter[str], int]:
    """Kill passes at random moments until `kills` are done or the run is finished; stages struck, and commits seen.

    Each comes within `seconds`, fewer where the run is nearer its end than its kills are, more where it is not.
    """
    chance, struck, manifest = random.Random(seed), Counter(), None
    for number in range(1, kills + 1):
        pid = child(config, path, model)
        if ended(pid, chance.uniform(0, seconds)):
            return struck, manifest.number if manifest else 0
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        struck[stage(path)] += 1
        manifest = read_manifest(partial_path(path))
        read = manifest.facts["tokens"] / tokens if manifest else 0.0
        seconds *= 0.7 if read > 0.95 * number / kills else 1.1
    if not ended(child(config, path, model), 600):
        raise RuntimeError("the pass does not end")
    return struck, manifest.number if manifest else 0


def tokens_of(path: Path) -> int:
    """Tokens of a run."""
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute("SELECT n_tokens FROM runs").fetchall()[0][0]


def main() -> None:
    """Run the test; exit with 1 where a table differs or too few kills struck."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=50)
    options.add_argument("--least", type=int, help="how many must strike before the run is finished; default: all")
    options.add_argument("--documents", type=int, default=6000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--chunk", type=int, default=256, help="windows per chunk, and documents per block")
    given = options.parse_args()
    reading.BLOCK_DOCUMENTS = windows.CHUNK_WINDOWS = given.chunk
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = settings(folder, given.documents)
        model = load_model(config)
        undisturbed(config, folder / "first.duckdb", model)  # compiles, and tests that two passes are the same
        whole, first = undisturbed(config, folder / "whole.duckdb", model)
        seconds, tokens = first + whole / given.kills, tokens_of(folder / "whole.duckdb")
        struck, commits = kill_often(config, folder / "killed.duckdb", model, given.kills, seconds, tokens, given.seed)
        tables, differing = differing_tables(folder / "whole.duckdb", folder / "killed.duckdb")
        differing += differing_tables(folder / "whole.duckdb", folder / "first.duckdb")[1]
        left = sorted(f.name for f in folder.iterdir() if f.name.startswith("killed"))
    print(
        json.dumps(
            {
                "kills": sum(struck.values()),
                "struck": struck,
                "commits": commits,
                "tables": tables,
                "differing": differing,
                "left": left,
                "seconds_undisturbed": round(whole, 1),
            }
        )
    )
    sys.exit(
        0 if not differing and left == ["killed.duckdb"] and sum(struck.values()) >= (given.least or given.kills) else 1
    )


if __name__ == "__main__":
    main()
