"""`profiler report`: one self-contained HTML page from a run."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command("report")(report)


def report(
    run: Annotated[Path, typer.Argument(help="The run: a .duckdb file made by profiler record.")],
    name: Annotated[str, typer.Argument(help="Name of a report, such as component or overview.")],
    component: Annotated[str | None, typer.Option(help="Label of a component, such as L2H3 or L2N117.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the page goes; beside the run if not given.")] = None,
) -> None:
    """Build an HTML report: one file that needs no network."""
    from profiler import report as reports

    text = reports.build(run, name, component=component)
    path = reports.write(out or default_path(run, name, component), text)
    typer.echo(f"{path} ({len(text.encode()) / 1e6:.1f} MB): open it in a browser")


def default_path(run: Path, name: str, component: str | None) -> Path:
    """Beside the run: <run stem>-<report>[-<component>].html."""
    parts = [run.stem, name, *([component.strip()] if component else [])]
    return run.with_name("-".join(parts) + ".html")
