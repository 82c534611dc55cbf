"""How fast the pass is beside the model's own forward pass: same process, same batches, interleaved, medians.

The limit is the bare Hugging Face forward (SDPA attention, logits included). What is compared with it is everything
`record` does with a batch once it is tokenized: forward through TransformerLens, direct logit attribution of every head
and neuron, all statistics, samples, extremes, dense rows and staging on disk; writing the file at the end is timed apart.
Absolute times on shared machines are noise; the ratio inside one run is not.
"""

import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from profiler.config import RunConfig
from profiler.model import BUNDLED, load_model
from profiler.pipeline import Pass
from profiler.store import Store
from profiler.windows import Chunk


@dataclass(frozen=True)
class Measurement:
    """One model shape. Speeds in tokens/s (medians over rounds), memory and file in bytes."""

    shape: str
    tokens: int
    rounds: int
    forward_tokens_per_second: float
    record_tokens_per_second: float
    ratio_to_forward: float
    write_seconds: float
    run_bytes: int
    peak_memory_bytes: int
    threads: int
    machine: str


def bench_bundled(rounds: int = 5, report: Callable[[str], None] = lambda _: None) -> Measurement:
    """Measure the bundled model on the bundled corpus, a chunk of windows per round, after a chunk to warm up."""
    config = RunConfig(model="bundled", corpora=("stdlib",), tokens=None, context_length=256, windows_per_document=4)
    model = load_model(config)
    bare = AutoModelForCausalLM.from_pretrained(BUNDLED, dtype=torch.float32, attn_implementation="sdpa").eval()
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "bench.duckdb") as store:
        run = Pass(model, config, store)
        stream = run.chunks()
        forward, record, tokens = [], [], 0
        for number in range(rounds + 1):
            chunk = next(stream)
            n = sum(len(w.token_ids) for w in chunk.windows)
            seconds = _forward(bare, chunk, run), _record(run, chunk)
            report(f"round {number}: forward {n / seconds[0]:,.0f}, record {n / seconds[1]:,.0f} tokens/s")
            if number:
                forward, record, tokens = [*forward, n / seconds[0]], [*record, n / seconds[1]], tokens + n
        start = time.perf_counter()
        run.write()
        size, written = store.finish(), time.perf_counter() - start
    ratios = [r / f for r, f in zip(record, forward, strict=True)]
    return Measurement(
        shape="bundled", tokens=tokens, rounds=rounds, forward_tokens_per_second=statistics.median(forward),
        record_tokens_per_second=statistics.median(record), ratio_to_forward=statistics.median(ratios), write_seconds=written,
        run_bytes=size, peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        threads=torch.get_num_threads(), machine=f"{platform.machine()}, torch {torch.__version__}",
    )  # fmt: skip


def _forward(bare: torch.nn.Module, chunk: Chunk, run: Pass) -> float:
    batches = [batch.tokens for batch in chunk.batches(run.config.batch_size, run.layout)]
    start = time.perf_counter()
    with torch.inference_mode():
        for tokens in batches:
            bare(tokens, use_cache=False)
    return time.perf_counter() - start


def _record(run: Pass, chunk: Chunk) -> float:
    start = time.perf_counter()
    run.read(chunk)
    return time.perf_counter() - start
