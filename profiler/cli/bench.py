"""`profiler bench`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from profiler.cli import options
from profiler.cli.terminal.console import console, write
from profiler.cli.terminal.libraries import quiet

SHAPES = ("bundled", "gpt2-small")


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(bench)


def bench(
    *,
    shape: Annotated[
        Literal["bundled", "gpt2-small", "tiny", "all"], typer.Option(help="which model; all: bundled and gpt2-small")
    ] = "all",
    rounds: Annotated[int, typer.Option(help="measured rounds, after a warm-up round", min=1)] = 5,
    tokens: Annotated[int, typer.Option(help="tokens per round, about", min=1)] = 16384,
    device: options.Device = "cpu",
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], typer.Option(help="of weights and activations")
    ] = "float32",
    memory: Annotated[
        bool, typer.Option(help="also run a pass in its own process, for peak memory and file size")
    ] = True,
    curve: Annotated[
        str, typer.Option(help="measure only the peak memory of passes over these numbers of tokens, such as 60k,600k")
    ] = "",
    queries: Annotated[
        Path | None, typer.Option(help="time only the queries of a head's and a neuron's card on this run")
    ] = None,
    format: Annotated[Literal["table", "json"], typer.Option(help="how to print the result")] = "table",
) -> None:
    """Measure record beside the bare forward pass, TransformerLens, nnsight and a plain script, interleaved in one
    process.

    Example: profiler bench --shape bundled --rounds 5 --format json
    """
    from profiler.bench import measure

    quiet()
    if queries:
        _queries(queries, rounds, format)
        return
    if curve:
        _curve(
            "bundled" if shape == "all" else shape,
            [options.number(part) for part in curve.split(",")],
            device,
            dtype,
            format,
        )
        return
    report = console.print if format == "table" else lambda _: None
    chosen = SHAPES if shape == "all" else (shape,)
    results = [asdict(measure(name, rounds, tokens, device, dtype, report, memory=memory)) for name in chosen]
    if format == "json":
        write(json.dumps(results if shape == "all" else results[0], indent=1) + "\n")
        return
    for result in results:
        _show(result)


def _queries(run: Path, rounds: int, format: str) -> None:
    """Each query of a card, slowest first."""
    from profiler.bench.queries import card_timings

    timings = card_timings(run, rounds=rounds)
    if format == "json":
        write(json.dumps([asdict(timing) for timing in timings], indent=1) + "\n")
        return
    table = Table("component", "query", "ms", "CPU ms", "rows", title=f"warm, medians of {rounds}")
    for timing in timings:
        times = f"{timing.milliseconds:.0f}", f"{timing.cpu_milliseconds:.0f}"
        table.add_row(timing.component, timing.query, *times, f"{timing.rows:,}")
    console.print(table)


def _curve(shape: str, tokens: list[int], device: str, dtype: str, format: str) -> None:
    """Peak memory by tokens read, each pass in a process of its own."""
    from profiler.bench.peak_memory import curve

    footprints = list(curve(shape, tokens, device, dtype))
    if format == "json":
        write(json.dumps([asdict(footprint) for footprint in footprints], indent=1) + "\n")
        return
    table = Table("tokens", "peak memory", "of the first", "run file", title=f"{shape}, {device}, {dtype}")
    for footprint in footprints:
        of_first = footprint.peak_memory_bytes / footprints[0].peak_memory_bytes
        table.add_row(
            f"{footprint.tokens:,}",
            f"{footprint.peak_memory_bytes / 1e9:.2f} GB",
            f"{of_first:.3f}",
            f"{footprint.run_bytes / 1e6:.0f} MB",
        )
    console.print(table)


def _show(result: dict[str, Any]) -> None:
    table = Table(
        "", "tokens/s", "of the bare forward", title=f"{result['shape']}, {result['device']}, {result['dtype']}"
    )
    for name, speed in result["tokens_per_second"].items():
        table.add_row(name, f"{speed:,.0f}", f"{result['ratios_to_forward'][name]:.2f}")
    console.print(table)
    console.print("record's time: " + ", ".join(f"{name} {share:.0%}" for name, share in result["stages"].items()))
    if result["run_bytes"] is not None:
        console.print(
            f"peak memory {result['peak_memory_bytes'] / 1e9:.2f} GB, run file {result['run_bytes'] / 1e6:.0f} MB"
        )
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    console.print(f"{result['machine']}, {result['threads']} threads; {versions}")
    for note in result["notes"]:
        console.print(note)
