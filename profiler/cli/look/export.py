"""`profiler export`: components with their examples, for other programs."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

import profiler
from profiler.cli import options
from profiler.cli.terminal.console import asides, console
from profiler.cli.terminal.libraries import quiet


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(export)


def export(
    *,
    run: options.RunFile,
    format: Annotated[
        Literal["neuronpedia", "circuit-tracer", "parquet", "jsonl"], typer.Option(help="what is to read it")
    ],
    out: Annotated[Path, typer.Option(help="the folder to write; only an earlier export is replaced")],
    components: Annotated[str, typer.Option(help="labels, such as L2H3,L3N12; all if not given")] = "",
    samples: Annotated[int, typer.Option(help="most random examples around each quantile of a component", min=0)] = 5,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="run the model for the activations of tokens that the run lacks")
    ] = False,
    model: options.ModelOfRun = None,
    trust_remote_code: options.TrustRemoteCode = False,
    allow_pickle: options.AllowPickle = False,
    device: options.Device = "cpu",
) -> None:
    """Write components with spectra, tokens and examples for Neuronpedia, circuit-tracer or your own programs.

    Example: profiler export run.duckdb --format neuronpedia --out upload --components L2H3,L3N12
    """
    if recompute:
        quiet()
    columns = (SpinnerColumn(), TextColumn("components"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with profiler.open(run) as opened, Progress(*columns, console=asides) as bar:
        task = bar.add_task("components", total=None)
        done = opened.export(
            out,
            format=format,
            components=options.labels(components),
            per_stratum=samples,
            recompute=recompute,
            model=model,
            trust_remote_code=trust_remote_code,
            allow_pickle=allow_pickle,
            device=device,
            report=lambda made, total: bar.update(task, completed=made, total=total),
        )
    console.print(f"{out}: {done.sentences[0]}")
    for sentence in done.sentences[1:]:
        console.print(f"  {sentence}")
