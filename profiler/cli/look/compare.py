"""`profiler compare`: components that do something else in another run."""

from pathlib import Path
from typing import Annotated, Literal

import typer

import profiler
from profiler.cli import options
from profiler.cli.terminal.commands import Open, offer
from profiler.cli.terminal.console import console, write
from profiler.cli.terminal.output import text_table


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(compare)


def compare(
    *,
    first: options.RunFile,
    second: Annotated[Path, typer.Argument(help="another run, of the same tokenizer and shape of model")],
    kind: Annotated[
        Literal["head", "neuron", "feature", "direction", "subspace"], typer.Option(help="what is compared")
    ] = "head",
    family: Annotated[
        str, typer.Option(help="attention, effect, context, token, next, user; auto: by kind, with the user's own")
    ] = "auto",
    importance: Annotated[
        Literal["direct", "total"],
        typer.Option(help="count by |DLA|, or by |total effect|, where both runs have measured it"),
    ] = "direct",
    top: Annotated[int, typer.Option(help="the most important components of the first run; 0 takes all", min=0)] = 100,
    rows: Annotated[int, typer.Option(help="rows to print, smallest p first; 0 prints all", min=0)] = 30,
    out: Annotated[Path | None, typer.Option(help="write the comparison to this .html page instead")] = None,
    open_: Open = False,
) -> None:
    """Find components that do something else in another run; q is the Benjamini-Hochberg adjusted p-value.

    Example: profiler compare web.duckdb code.duckdb --out compared.html
    """
    with profiler.open(first) as run:
        result = run.compare(second, kind=kind, family=family, top=top, importance=importance, out=out)
    if out is not None:
        offer(out, opened=open_)
        return
    write(text_table(result.frame.head(rows) if rows else result.frame))
    for note in result.notes:
        console.print(f"note: {note}")
