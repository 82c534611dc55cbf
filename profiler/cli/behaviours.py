"""`profiler classes` and `profiler behaviours`: a user's own token classes and behaviours, added to a finished run."""

from typing import Annotated, Literal

import typer

import profiler
from profiler.cli import options
from profiler.cli.terminal.commands import AsJson, Commands, say_next, write_json
from profiler.cli.terminal.console import console, write
from profiler.cli.terminal.output import text_table

classes = Commands(no_args_is_help=True)
behaviours = Commands(no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="small letters, digits and _")]
Described = Annotated[str, typer.Option(help="what it means, in words")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(
        classes, name="classes", help="Token classes: list them, add your own to a finished run, remove them."
    )
    app.add_typer(
        behaviours, name="behaviours", help="Behaviours: list them, add your own to a finished run, remove them."
    )


@classes.command("add")
def add_class(
    run: options.RunFile,
    name: Name,
    condition: Annotated[str, typer.Argument(help="SQL over text, body, token_id and class")],
    description: Described = "",
) -> None:
    """Define a token class after the run. Every split by it is exact; measured tables are not changed.

    Example: profiler classes add run.duckdb year4 "text ~ '^ ?(19|20)[0-9]{2}$'"
    """
    with profiler.open(run) as opened:
        n = opened.add_class(name, condition, description)
        first = opened.query("component_overview", top=1)["component"][0]
    note = (
        "" if n else " The condition is matched against single tokens; the tokenizer may split such texts into several."
    )
    console.print(f"{name}: {n:,} tokens of the vocabulary.{note}")
    say_next(("query", run, "token_split", "--set", f"component={first}", "--set", f"property={name}"))


@classes.command("remove")
def remove_class(run: options.RunFile, name: Name) -> None:
    """Remove a class of your own from the run, with its behaviours."""
    with profiler.open(run) as opened:
        opened.remove_class(name)
    console.print(f"{name} removed")


@classes.command("list")
def list_classes(run: options.RunFile, *, json_: AsJson = False) -> None:
    """List the token classes of a run, the library's and your own."""
    with profiler.open(run) as opened:
        frame = opened.classes()
    write_json(frame.to_dicts()) if json_ else write(text_table(frame))


@behaviours.command("add")
def add_behaviour(
    run: options.RunFile,
    name: Name,
    condition: Annotated[str, typer.Argument(help="SQL over the columns of head_facts or neuron_facts")],
    on: Annotated[Literal["head", "neuron", "both"], typer.Option(help="which components it can be about")] = "both",
    description: Described = "",
) -> None:
    """Define a behaviour after the run: true or false at each recorded position.

    Example: profiler behaviours add run.duckdb far_induction "induction > 0.5 AND distance > 64" --on head
    """
    with profiler.open(run) as opened:
        opened.add_behaviour(name, condition, on, description)
    console.print(f"{name} added")
    kind = "neuron" if on == "neuron" else "head"
    settings = (f"behaviour={name}", "family=user", f"kind={kind}")
    say_next(("query", run, "behaviours", *(part for setting in settings for part in ("--set", setting))))


@behaviours.command("remove")
def remove_behaviour(run: options.RunFile, name: Name) -> None:
    """Remove a behaviour of your own from the run."""
    with profiler.open(run) as opened:
        opened.remove_behaviour(name)
    console.print(f"{name} removed")


@behaviours.command("refresh")
def refresh_behaviours(run: options.RunFile) -> None:
    """Recompute what a run stores of behaviours, for a run whose pass could not, or of an earlier version."""
    with profiler.open(run) as opened:
        opened.refresh_behaviours()
    console.print(f"{run}: behaviours are up to date")


@behaviours.command("list")
def list_behaviours(run: options.RunFile, *, json_: AsJson = False) -> None:
    """List the behaviours of a run, the library's and your own."""
    with profiler.open(run) as opened:
        frame = opened.behaviours()
    write_json(frame.to_dicts()) if json_ else write(text_table(frame))
