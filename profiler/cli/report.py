"""`profiler report`: one self-contained HTML page from a run."""

import re
from pathlib import Path
from typing import Annotated

import typer

import profiler
from profiler.cli import options
from profiler.cli.terminal.commands import Open, offer
from profiler.cli.terminal.console import console
from profiler.cli.terminal.libraries import quiet
from profiler.errors import ProfilerError
from profiler.run import Theme


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("report")(report)


def report(
    *,
    run: Annotated[Path, typer.Argument(help="The run: a .duckdb file made by profiler record.")],
    name: Annotated[str, typer.Argument(help="Name of a report, such as component or overview.")],
    component: Annotated[str | None, typer.Option(help="Label of a component, such as L2H3 or L2N117.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the page goes; beside the run if not given.")] = None,
    attention: Annotated[
        bool,
        typer.Option(
            "--attention", help="run the model again, for values at every token shown and the attention of a head"
        ),
    ] = False,
    model: options.ModelOfRun = None,
    trust_remote_code: options.TrustRemoteCode = False,
    allow_pickle: options.AllowPickle = False,
    device: options.Device = "cpu",
    png: Annotated[
        Path | None, typer.Option(help="also write a picture of the page there, taken with Chromium or Chrome")
    ] = None,
    size: Annotated[str, typer.Option(help="width and height of the picture, pixels")] = "1100x1000",
    theme: Annotated[Theme, typer.Option(help="of the picture")] = "light",
    open_: Open = False,
) -> None:
    """Build an HTML report: one file that needs no network.

    Example: profiler report run.duckdb component --component L2H3 --attention
    """
    if attention:
        quiet()
    with profiler.open(run) as opened:
        made = opened.report(
            name,
            component,
            out=out,
            attention=attention,
            model=model,
            trust_remote_code=trust_remote_code,
            allow_pickle=allow_pickle,
            device=device,
            png=png,
            size=_shape(size),
            theme=theme,
        )
    offer(made.path, f" ({made.bytes / 1e6:.1f} MB)", opened=open_)
    if png:
        console.print(f"{png} ({png.stat().st_size / 1e3:.0f} kB)")


def _shape(size: str) -> tuple[int, int]:
    """Width and height.

    Raises:
        ProfilerError: it cannot be read.
    """
    match = re.fullmatch(r"(\d{2,5})x(\d{2,5})", size)
    if match is None:
        raise ProfilerError(f"--size {size!r} cannot be read: write width and height, such as 1100x1000")
    return int(match[1]), int(match[2])
