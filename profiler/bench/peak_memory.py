"""Peak memory and file size of a pass, each measured in a process of its own; of several, the memory curve.

The curve shows that memory does not grow with the corpus: accumulators are claimed at the start, rows are committed or
let go, and the run file is written within a fixed share of them. Cost: the passes, one after the other.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from profiler.bench.shapes import SHAPES
from profiler.recording.memory import peak_resident
from profiler.recording.pipeline import record


@dataclass(frozen=True)
class Footprint:
    """Of one whole pass: its tokens, peak resident bytes, bytes of the run, seconds with start and writing."""

    tokens: int
    peak_memory_bytes: int
    run_bytes: int
    seconds: float


def footprint(shape: str, tokens: int, device: str = "cpu", dtype: str = "float32") -> Footprint:
    """Record `tokens` tokens in a new process."""
    program = "import sys; from profiler.bench.peak_memory import main; main(*sys.argv[1:])"
    command = [sys.executable, "-c", program, shape, str(tokens), device, dtype]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Footprint(**json.loads(done.stdout.splitlines()[-1]))


def curve(shape: str, tokens: Iterable[int], device: str = "cpu", dtype: str = "float32") -> Iterator[Footprint]:
    """The footprint of a pass over each number of tokens."""
    return (footprint(shape, n, device, dtype) for n in tokens)


def main(shape: str, tokens: str, device: str, dtype: str) -> None:
    """What the new process does: record, and print the Footprint as JSON."""
    config = SHAPES[shape].config(int(tokens), device, dtype)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        outcome = record(config, Path(folder) / "run.duckdb", model=SHAPES[shape].load(config))
    seconds = time.perf_counter() - start
    print(json.dumps(asdict(Footprint(outcome.progress.tokens, peak_resident(), outcome.bytes, seconds))))
