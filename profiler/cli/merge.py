"""`profiler merge`."""

from pathlib import Path
from typing import Annotated

import typer

from profiler.cli.terminal import losses
from profiler.cli.terminal.commands import say_next
from profiler.cli.terminal.console import console


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(merge)


def merge(
    *,
    runs: Annotated[list[Path], typer.Argument(help="run files of disjoint shards of one corpus")],
    out: Annotated[Path, typer.Option(help="the run file to write")],
    overwrite: Annotated[bool, typer.Option(help="replace the run file if it exists")] = False,
    incomplete: Annotated[bool, typer.Option(help="merge even if shards are missing; the run says which")] = False,
) -> None:
    """Merge runs over the shards of a corpus (record --shard 1/2, --shard 2/2) into the run of a single pass.

    Your own classes and behaviours are included where all runs have the same ones. Patching, checks, predictions and
    labels are not. What is left out is listed.

    Example: profiler merge a.duckdb b.duckdb --out c.duckdb
    """
    from profiler.recording.merge.merge import merge as merge_runs
    from profiler.text.shards import incomplete as lacking

    merged = merge_runs(runs, out, overwrite=overwrite, incomplete=incomplete)
    totals, added = merged.totals, merged.carried
    left = lacking(totals.config.shard) or "the whole corpus"
    console.print(
        f"{len(runs)} runs, {totals.progress.tokens:,} tokens of {totals.progress.documents:,} documents, {left}:"
        f" {out}, {out.stat().st_size / 1e6:,.1f} MB"
    )
    losses.say(out, console)
    for what, own in (("classes", added.classes), ("behaviours", added.behaviours)):
        if own:
            console.print(f"  your own {what}, the same in all runs: {', '.join(item.name for item in own)}")
    for note in added.notes:
        console.print(f"  {note}")
    say_next(("info", out))
