"""A model shape, all rivals and our pass, round by round on the same windows, after a round to warm up."""

import platform
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch

from profiler.bench.peak_memory import footprint
from profiler.bench.rivals import NO_NNSIGHT, Rival, rivals
from profiler.bench.shapes import SHAPES
from profiler.bench.stages import Stages, clock
from profiler.recording.pipeline import Pass
from profiler.recording.write import Rows
from profiler.text.windows import Chunk

LIBRARIES = ("torch", "transformers", "transformer-lens", "numba", "duckdb")


@dataclass(frozen=True)
class Measurement:
    """Speeds, shares of time and sizes of a model shape.

    Attributes:
        tokens: read by each in a round. Speeds are tokens/s, medians over rounds.
        ratio_to_forward: our speed over that of the bare forward, median over rounds; of the others beside it.
        speedup_over_script: our speed over that of the straightforward script.
        stages: shares of our time.
        peak_memory_bytes, run_bytes: of a pass over one round's tokens in a process of its own; None where left out.
    """

    shape: str
    device: str
    dtype: str
    tokens: int
    rounds: int
    tokens_per_second: dict[str, float]
    ratio_to_forward: float
    ratios_to_forward: dict[str, float]
    speedup_over_script: float
    stages: dict[str, float]
    peak_memory_bytes: int | None
    run_bytes: int | None
    threads: int
    machine: str
    versions: dict[str, str]
    notes: tuple[str, ...]


def measure(
    shape: str,
    rounds: int = 5,
    tokens: int = 8192,
    device: str = "cpu",
    dtype: str = "float32",
    report: Callable[[str], None] = lambda _: None,
    *,
    memory: bool = True,
) -> Measurement:
    """Measure `rounds` rounds of about `tokens` tokens."""
    config = SHAPES[shape].config(None, device, dtype)
    run = Pass(SHAPES[shape].load(config), config, Rows())
    rival_passes = rivals(SHAPES[shape].network(config), run.model, run.class_ids)
    seconds: dict[str, list[float]] = {name: [] for name in ("record", *rival_passes)}
    counts, pieces = [], _pieces(run, tokens)
    with Stages(run) as stages:
        for number in range(rounds + 1):
            piece = next(pieces)
            if number == 1:
                stages.seconds.clear()
            taken = _round(run, rival_passes, piece)
            n = sum(len(w.token_ids) for w in piece.windows)
            report(f"round {number}: " + ", ".join(f"{name} {n / s:,.0f}" for name, s in taken.items()) + " tokens/s")
            if number:
                counts.append(n)
                for name, value in taken.items():
                    seconds[name].append(value)
    foot = footprint(shape, sum(counts), device, dtype) if memory else None
    speeds = {name: [n / s for n, s in zip(counts, own, strict=True)] for name, own in seconds.items()}
    against = {name: _ratio(own, speeds["forward"]) for name, own in speeds.items()}
    return Measurement(
        shape=shape,
        device=device,
        dtype=dtype,
        tokens=sum(counts) // rounds,
        rounds=rounds,
        tokens_per_second={name: statistics.median(own) for name, own in speeds.items()},
        ratio_to_forward=against["record"],
        ratios_to_forward=against,
        speedup_over_script=_ratio(speeds["record"], speeds["script"]),
        stages=stages.shares(sum(seconds["record"])),
        peak_memory_bytes=foot.peak_memory_bytes if foot else None,
        run_bytes=foot.run_bytes if foot else None,
        threads=torch.get_num_threads(),
        machine=_machine(device),
        versions={name: version(name) for name in LIBRARIES},
        notes=() if "nnsight" in rival_passes else (NO_NNSIGHT,),
    )


def _ratio(mine: list[float], theirs: list[float]) -> float:
    return statistics.median(m / t for m, t in zip(mine, theirs, strict=True))


def _pieces(run: Pass, tokens: int) -> Iterator[Chunk]:
    """The corpus in pieces of about `tokens` tokens, whole batches each."""
    for chunk in run.chunks():
        ordered = sorted(chunk.windows, key=lambda w: -len(w.token_ids))
        longest = len(ordered[0].token_ids) if ordered else 1
        size = max(1, round(tokens / (longest * run.config.batch_size))) * run.config.batch_size
        for start in range(0, len(ordered) - size + 1, size):
            yield replace(chunk, windows=tuple(ordered[start : start + size]), documents=())


def _round(run: Pass, rival_passes: dict[str, Rival], piece: Chunk) -> dict[str, float]:
    """Seconds of each on the same windows; ours first in one half of the rounds would change nothing but the noise."""
    device = run.config.device
    batches = [batch.tokens.to(device) for batch in piece.batches(run.sizes.fitting, run.layout)]
    start, taken = clock(device), {}
    run.read(piece)
    taken["record"] = clock(device) - start
    run.store.rows.clear()
    for name, rival in rival_passes.items():
        start = clock(device)
        for tokens in batches:
            rival(tokens)
        taken[name] = clock(device) - start
    return taken


def _machine(device: str) -> str:
    own = torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor()
    return f"{own}, {platform.machine()}"


def _processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown processor"
