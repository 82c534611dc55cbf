"""`profiler bench`."""

import json
from dataclasses import asdict
from typing import Annotated, Literal

import typer
from rich.console import Console

console = Console(soft_wrap=True, highlight=False)


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(bench)


def bench(
    rounds: Annotated[int, typer.Option(help="chunks of 256 windows to measure, after one to warm up", min=1)] = 5,
    format: Annotated[Literal["table", "json"], typer.Option(help="how to print the result")] = "table",
) -> None:
    """Measure record beside the model's bare forward pass, interleaved in one process.

    Example: profiler bench --rounds 5 --format json
    """
    from profiler.bench import bench_bundled
    from profiler.cli.record import quiet

    quiet()
    measured = asdict(bench_bundled(rounds, console.print if format == "table" else lambda _: None))
    if format == "json":
        print(json.dumps(measured, indent=1))
        return
    for name, value in measured.items():
        console.print(f"{name:28} {value:,.3g}" if isinstance(value, float) else f"{name:28} {value}")
