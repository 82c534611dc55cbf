"""`profiler site`: a folder of pages about a run."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

import profiler
from profiler.cli import options
from profiler.cli.terminal.commands import Open, offer
from profiler.cli.terminal.console import asides, console
from profiler.errors import SiteError, Stopped
from profiler.pages.numbers import plural


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(site)


def site(
    *,
    run: options.RunFile,
    out: Annotated[Path, typer.Option(help="the folder to write; only an earlier site is replaced")],
    cards: Annotated[str, typer.Option(help="how many cards of the most important heads and neurons, or all")] = "100",
    components: Annotated[str, typer.Option(help="labels of more components that get a card, such as L2H3,L3N12")] = "",
    workers: Annotated[
        int | None, typer.Option(help="processes that make cards; default: the number of cores", min=1)
    ] = None,
    open_: Open = False,
) -> None:
    """Write a site of a run: overview, a table of all components, cards, circuits, queries. It needs no server.

    Example: profiler site run.duckdb --out site --cards 200
    """
    columns = (
        SpinnerColumn(),
        TextColumn("cards"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[size]}", markup=False),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=asides) as bar:
        task = bar.add_task("cards", total=None, size="")

        def show(now: Any) -> None:
            bar.update(task, completed=now.done, total=now.total, size=f"{now.bytes / 1e6:,.1f} MB")

        try:
            with profiler.open(run) as opened:
                done = opened.site(
                    out, cards=_count(cards), components=options.labels(components), workers=workers, report=show
                )
        except KeyboardInterrupt:
            raise Stopped("stopped; nothing half-written was left behind") from None
    n = done.made + done.reused
    each = f", {done.card_bytes / n / 1e3:,.0f} kB each" if n else ""
    console.print(
        f"{done.out / 'index.html'}: {plural(done.made, 'card')} made, {done.reused:,} kept{each};"
        f" {done.bytes / 1e6:,.1f} MB in all; reports: {', '.join(done.reports)}"
    )
    offer(done.out / "index.html", opened=open_)


def _count(cards: str) -> int | None:
    """The number of cards; None for all.

    Raises:
        SiteError: it is neither a number nor all.
    """
    if cards.strip().lower() == "all":
        return None
    if not cards.strip().isdecimal():
        raise SiteError(f"--cards {cards!r} is not a number of cards: write a whole number, or all")
    return int(cards)
