"""`profiler report`: one self-contained HTML page from a run."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import polars as pl
import typer

from profiler.cli import options
from profiler.cli.terminal.console import console
from profiler.errors import ComponentError, ProfilerError

Theme = Literal["light", "dark"]


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command("report")(report)


def report(
    run: Annotated[Path, typer.Argument(help="The run: a .duckdb file made by profiler record.")],
    name: Annotated[str, typer.Argument(help="Name of a report, such as component or overview.")],
    component: Annotated[str | None, typer.Option(help="Label of a component, such as L2H3 or L2N117.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the page goes; beside the run if not given.")] = None,
    attention: Annotated[
        bool, typer.Option("--attention", help="run the model again: attention of a head, values at every token shown")
    ] = False,
    model: options.ModelOfRun = None,
    trust_remote_code: options.TrustRemoteCode = False,
    allow_pickle: options.AllowPickle = False,
    device: options.Device = "cpu",
    png: Annotated[Path | None, typer.Option(help="a picture of the page too, taken by Chromium or Chrome")] = None,
    size: Annotated[str, typer.Option(help="width and height of the picture")] = "1100x1000",
    theme: Annotated[Theme, typer.Option(help="of the picture")] = "light",
) -> None:
    """Build an HTML report: one file that needs no network.

    Example: profiler report run.duckdb component --component L2H3 --attention
    """
    from profiler.pages import build as reports
    from profiler.pages import picture

    shape = _shape(size)
    choice = model, trust_remote_code, allow_pickle, device
    given = _recomputed(run, name, component, choice) if attention else {}
    text = reports.build(run, name, component=component, given=given)
    path = reports.write(out or default_path(run, name, component), text)
    console.print(f"{path} ({len(text.encode()) / 1e6:.1f} MB): open it in a browser")
    if png:
        console.print(f"{picture.take(path, png, shape, theme)} ({png.stat().st_size / 1e3:.0f} kB)")


def default_path(run: Path, name: str, component: str | None) -> Path:
    """Beside the run: <run stem>-<report>[-<component>].html."""
    parts = [run.stem, name, *([component.strip()] if component else [])]
    return run.with_name("-".join(parts) + ".html")


def _shape(size: str) -> tuple[int, int]:
    """Width and height.

    Raises:
        ProfilerError: it cannot be read.
    """
    match = re.fullmatch(r"(\d{2,5})x(\d{2,5})", size)
    if match is None:
        raise ProfilerError(f"--size {size!r} cannot be read: write width and height, such as 1100x1000")
    return int(match[1]), int(match[2])


def _recomputed(
    run: Path, name: str, component: str | None, choice: tuple[str | None, bool, bool, str]
) -> Mapping[str, pl.DataFrame]:
    """The card's contexts with what the model does at each of their tokens."""
    from profiler.cli.record import quiet
    from profiler.model.of_run import Choice, load_for
    from profiler.pages import build as reports
    from profiler.recording import recompute
    from profiler.run import open as open_run

    if name != "component" or component is None:
        raise ComponentError("--attention is for the card of one component: report RUN component --component L0H0")
    quiet()
    with open_run(run) as opened:
        found = reports.find(opened.connection, component)
        frame = reports.load("component").tokens(reports.Reader(opened.connection), component)
        with console.status("loading the run's model"):
            loaded = load_for(run, Choice(*choice))
        return {"context_tokens": recompute.contexts(opened.connection, loaded, found, frame)}
