"""`profiler serve`: the pages of a run, alive."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from profiler.cli import options
from profiler.cli.terminal.commands import Open
from profiler.cli.terminal.console import console
from profiler.cli.terminal.libraries import quiet
from profiler.config import ModelChoice


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(serve)


def serve(
    *,
    run: Annotated[Path, typer.Argument(help="a run that `profiler record` wrote")],
    port: Annotated[int, typer.Option(help="where to listen; 0 takes any that is free", min=0, max=65535)] = 0,
    open_: Open = False,
    model: options.ModelOfRun = None,
    trust_remote_code: options.TrustRemoteCode = False,
    allow_pickle: options.AllowPickle = False,
    device: options.Device = "cpu",
) -> None:
    """Give a run's pages to browsers of this machine: every card, a text box, search, two cards side by side, notes.

    The address holds a random word: who does not know it gets nothing. The model is loaded with the first text. Notes
    are kept in <run>.notes.jsonl. Ctrl-C stops it.

    Example: profiler serve run.duckdb --open
    """
    from profiler.serve.server import serve as run_server

    def ready(address: str) -> None:
        console.print(f"{address}\nopen it in a browser; Ctrl-C stops", soft_wrap=True, markup=False)
        if open_:
            webbrowser.open(address)

    quiet()
    run_server(run, ModelChoice(model, trust_remote_code, allow_pickle, device), port, ready)
