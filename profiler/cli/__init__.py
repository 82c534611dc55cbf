"""The command line: arguments in, exit code out. Every command is a library call; a mistake ends in a sentence."""

import os
import sys
import warnings
from typing import Annotated, NoReturn

import duckdb
import typer
from pydantic import ValidationError
from rich.text import Text

import profiler
from profiler.cli import behaviours, bench, label, merge, models, query, record, report, site
from profiler.cli.circuits import check, circuits, patch, paths, predict, tasks
from profiler.cli.look import compare, effects, export, find, serve, try_text
from profiler.cli.terminal.commands import Commands
from profiler.cli.terminal.console import console, errors, guard
from profiler.database import faults
from profiler.errors import ProfilerError


def _version(asked: bool) -> bool:  # noqa: FBT001, typer calls it so
    """Whether the version was asked for; if so it is printed, and nothing else happens."""
    if asked:
        console.print(f"profiler {profiler.__version__}")
        raise typer.Exit
    return asked


app = Commands(
    name="profiler",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def program(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="print the version and leave", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Is that what this head or neuron does, or only what it does on the prompts you looked at?"""


for commands in (
    record,
    merge,
    query,
    report,
    try_text,
    find,
    compare,
    behaviours,
    label,
    bench,
    patch,
    paths,
    tasks,
    effects,
    check,
    predict,
    circuits,
    site,
    export,
    serve,
):
    commands.register(app)
app.add_typer(models.app, name="models", help="The bundled model: train it, score it, read its card.")


def main() -> None:
    """Run the command line; a user's mistake, a damaged file and a full disk are one sentence and exit with 1, Ctrl-C
    with 130."""
    warnings.filterwarnings("ignore")
    guard()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except ProfilerError as error:
        _say(str(error), error.exit_code)
    except ValidationError as error:
        first = error.errors()[0]
        name = "--" + str(first["loc"][0]).replace("_", "-")
        _say(f"{name} {first['input']!r}: {first['msg']}", 1)
    except faults.FAULTS as error:
        _say(str(faults.fault_error(error, "running the command", "No run was changed by it.")), 1)
    except duckdb.Error as error:
        reason = str(error).strip().splitlines()[0]
        _say(f"a run file cannot be read or written ({reason}): use an intact copy, or record the run again", 1)
    except OSError as error:
        what, why = error.filename or "a file", error.strerror or error
        _say(f"{what} cannot be read or written ({why}): check the path and its permissions", 1)


def _say(message: str, code: int) -> NoReturn:
    errors.print(Text.assemble(("profiler:", "bold red"), " ", message))
    sys.exit(code)
