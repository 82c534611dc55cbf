"""`profiler paths`: what one component tells another along a path."""

from typing import Annotated

import polars as pl
import typer

import profiler
from profiler.cli import options
from profiler.cli.terminal.commands import say_next
from profiler.cli.terminal.console import console
from profiler.cli.terminal.libraries import quiet
from profiler.cli.terminal.progress import StepBar


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(paths)


def paths(
    *,
    run: options.PatchedRun,
    task: options.Task,
    path: Annotated[
        list[str],
        typer.Argument(
            help="L0H5:L2H1.q from a sender to a receiver, L0H5:L2H1:logits through it; several may be given"
        ),
    ],
    positions: Annotated[
        str, typer.Option(help="exchange what is sent at the positions of this role of the pairs alone")
    ] = "all",
    metric: options.Metric = "logit_diff",
    model: options.ModelOfRun = None,
    trust_remote_code: options.TrustRemoteCode = False,
    allow_pickle: options.AllowPickle = False,
    scheme: options.Scheme = None,
    pairs: Annotated[int, typer.Option(help="pairs", min=4)] = 48,
    split: options.Split = "train",
    seed: options.DrawSeed = 0,
    device: options.Device = "cpu",
) -> None:
    """Measure what one component tells another along a path, beside every other sender.

    Example: profiler paths run.duckdb ioi L0H5:L2H1.q L2H1:logits
    """
    quiet()
    rights = {"trust_remote_code": trust_remote_code, "allow_pickle": allow_pickle, "device": device}
    drawn = {"scheme": scheme, "pairs": pairs, "split": split, "seed": seed}
    with StepBar() as bar:
        frame = profiler.paths(
            run, task, path, positions=positions, metric=metric, model=model, report=bar.show, **rights, **drawn
        )
    for text in dict.fromkeys(frame["path"]):
        _print_path(text, frame.filter(path=text))
    say_next(("query", run, "paths"))


def _print_path(text: str, rows: pl.DataFrame) -> None:
    """What a path carries, and the most that another sender carries along it; its own row is the first."""
    own, controls = rows.row(0, named=True), rows[1:]
    console.print(
        f"{text}: {own['share']:.1%} [{own['share_lo']:.1%}, {own['share_hi']:.1%}] of the effect"
        f" ({own['measured_by']}) on {own['n']} pairs"
    )
    if controls.height:
        largest = controls.sort("share", descending=True).row(0, named=True)
        console.print(
            f"  {controls.height} other senders: at most {largest['share']:.1%} ({largest['sender']});"
            f" p = {own['p']:.2g}, at least {own['p_least']:.2g}"
        )
