"""`profiler find`: components by what they do, by likeness to another, by a token."""

from typing import Annotated, Literal

import typer

import profiler
from profiler.cli import options
from profiler.cli.terminal.console import console, write
from profiler.cli.terminal.libraries import quiet
from profiler.cli.terminal.output import to_bytes
from profiler.errors import QueryError

Measure = Literal["coactivation", "classes", "spectrum", "direction"]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(find)


def find(
    *,
    run: options.RunFile,
    words: Annotated[str, typer.Argument(help="what the components are to do: year, 'the previous token'")] = "",
    like: Annotated[str | None, typer.Option(help="components like this one instead")] = None,
    by: Annotated[
        Measure, typer.Option(help="with --like: what is compared; direction: of what they write, from the weights")
    ] = "coactivation",
    token: Annotated[str | None, typer.Option(help="components that matter at a token, such as ' Paris'")] = None,
    kind: Annotated[str, typer.Option(help="head or neuron; both if not given")] = "",
    least: Annotated[int, typer.Option(help="fewest positions where the behaviour or the token is seen", min=1)] = 20,
    top: Annotated[int, typer.Option(help="how many; 0 shows all", min=0)] = 20,
    format: Annotated[Literal["table", "csv", "json"], typer.Option(help="how the rows are printed")] = "table",
    model: options.ModelOfRun = None,
    trust_remote_code: options.TrustRemoteCode = False,
    allow_pickle: options.AllowPickle = False,
    device: options.Device = "cpu",
) -> None:
    """Find components by what they do, by likeness to another, or by a token.

    Example: profiler find run.duckdb year --kind neuron
    """
    asked = [name for name, given in (("words", words), ("--like", like), ("--token", token)) if given]
    if len(asked) != 1:
        raise QueryError(
            "say one of three: words (profiler find RUN year), --like L2H1, or --token ' Paris'"
            f"{'' if not asked else '; given were ' + ' and '.join(asked)}"
        )
    with profiler.open(run) as opened:
        if like is not None and by == "direction":
            quiet()
            rights = {"trust_remote_code": trust_remote_code, "allow_pickle": allow_pickle, "device": device}
            said, frame = "", opened.similar_writes(like, top=top, model=model, **rights)
        elif like is not None:
            said, frame = "", opened.similar(like, measure=by, top=top)
        elif token is not None:
            said, frame = "", opened.query("components_by_token", token=token, least=least, top=top)
        else:
            result = opened.find(words, kind=kind, least=least, top=top)
            said, frame = result.described, result.frame
    if format == "table" and said:
        console.print(said)
        console.print()
    write(to_bytes(frame, format))
