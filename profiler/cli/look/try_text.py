"""`profiler try`: what a component does on a text of one's own."""

from pathlib import Path
from typing import Annotated, Any

import typer

import profiler
from profiler.cli import options
from profiler.cli.terminal.commands import AsJson, Open, offer, write_json
from profiler.cli.terminal.console import console
from profiler.cli.terminal.libraries import quiet
from profiler.cli.terminal.output import text_table
from profiler.results import TextResult


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("try")(try_text)


def try_text(
    *,
    run: options.RunFile,
    text: Annotated[str, typer.Argument(help="the text, in quotes")],
    component: Annotated[
        str | None, typer.Option(help="label of a component; without it the largest at each token are shown")
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option(metavar="LABEL", help="remove a component from the pass; may be repeated")
    ] = None,
    scale: Annotated[
        list[str] | None, typer.Option(metavar="LABEL=X", help="multiply a component; may be repeated")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="LABEL=X", help="set a neuron's activation; may be repeated"),
    ] = None,
    after: Annotated[
        str | None, typer.Option(help="a token that DLA is taken toward at the end, such as ' the'")
    ] = None,
    top: Annotated[int, typer.Option(help="next tokens, and components at each token", min=1)] = 5,
    out: Annotated[Path | None, typer.Option(help="write a page too")] = None,
    open_: Open = False,
    json_: AsJson = False,
    model: options.ModelOfRun = None,
    trust_remote_code: options.TrustRemoteCode = False,
    allow_pickle: options.AllowPickle = False,
    device: options.Device = "cpu",
) -> None:
    """Run a text through a run's model: what components do there, beside what they do in the whole corpus.

    Example: profiler try run.duckdb "The year 1987 was" --component L1N986 --remove L2H1
    """
    quiet()
    with profiler.open(run) as opened:
        result = opened.try_text(
            text,
            component,
            remove=remove or (),
            scale=scale or (),
            set_to=set_ or (),
            after=after,
            most=top,
            out=out,
            model=model,
            trust_remote_code=trust_remote_code,
            allow_pickle=allow_pickle,
            device=device,
        )
    if json_:
        return write_json(_whole(result))
    for sentence in result.sentences:
        console.print(sentence)
    console.print()
    console.print(text_table(result.table))
    console.print(text_table(result.next_tokens.drop("token_id")))
    if out is not None:
        offer(out, opened=open_)


def _whole(result: TextResult) -> dict[str, Any]:
    """The frames and sentences of a result."""
    frames = {name: getattr(result, name) for name in ("tokens", "components", "next_tokens", "attention")}
    rows = {name: None if frame is None else frame.to_dicts() for name, frame in frames.items()}
    told = {"text": result.text, "component": result.component, "changes": result.changes}
    return told | {"sentences": result.sentences} | rows
