"""`profiler predict`: claims written down before their tests."""

from pathlib import Path
from typing import Annotated

import typer

import profiler
from profiler.cli.terminal.console import console, write
from profiler.cli.terminal.output import text_table
from profiler.errors import PredictionError

predict = typer.Typer(no_args_is_help=True)
Run = Annotated[Path, typer.Argument(help="a run that `profiler record` or `profiler patch` wrote")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(predict, name="predict", help="Predictions: register them before the test, resolve and list them.")


@predict.command("register")
def register_prediction(
    run: Run,
    statement: Annotated[str, typer.Option(help="the prediction in words")],
    subject: Annotated[
        str, typer.Option(help="a component (L2H3), a circuit's name, or circuit for whichever is checked")
    ],
    statistic: Annotated[
        str, typer.Option(help="name of the statistic: faithfulness, necessity, coverage, explained, ...")
    ],
    threshold: Annotated[float, typer.Option(help="in the statistic's unit; shares are 0 to 1")],
    direction: Annotated[str, typer.Option(help="> or <, in quotes")] = ">",
    distribution: Annotated[
        str,
        typer.Option(
            help="distribution: discovery, held-out names, corpus, ... as a check names it; or NAME=FILE.jsonl"
        ),
    ] = "corpus",
    role: Annotated[str, typer.Option(help="role claimed of the component; default: any")] = "",
    circuit: Annotated[str, typer.Option(help="only in the check of this circuit")] = "",
) -> None:
    """Register a prediction before its test, hashed with its time and with the previous prediction.

    Example: profiler predict register run.duckdb --statement "it survives other names" --subject circuit --statistic
      faithfulness --threshold 0.8 --distribution "held-out names"
    """
    with profiler.open(run) as opened:
        entry = opened.predict(
            statement,
            subject,
            statistic,
            threshold,
            direction=direction,
            distribution=distribution,
            role=role,
            circuit=circuit,
        )
    console.print(f"prediction {entry.entry} registered at {entry.written}\n{entry.hash}")
    if '"known_before":true' in entry.content:
        console.print("note: the run already has this number, so the prediction counts as post hoc")
    console.print(
        f"Keep the hash outside of this run. Next:\n  profiler check {run} CIRCUIT\n  profiler predict resolve {run}",
    )


@predict.command("resolve")
def resolve_predictions(run: Run) -> None:
    """Score open predictions against what was measured after they were registered.

    Example: profiler predict resolve run.duckdb
    """
    with profiler.open(run) as opened:
        scored = opened.resolve_predictions()
    for score in scored:
        value = "" if score.value is None else f"  {score.value:.3g}"
        value += "" if score.lo is None or score.hi is None else f" (95 % interval {score.lo:.3g} to {score.hi:.3g})"
        shared = "" if score.overlap is None else f"  {score.overlap:.0%} of the tested examples are discovery examples"
        console.print(f"{score.outcome:10} {score.statement}{value}{shared}")
    if not scored:
        console.print("no prediction is open; `profiler predict register` registers a prediction")


@predict.command("list")
def list_predictions(
    run: Run,
    receipt: Annotated[
        str | None, typer.Option(help="a hash that `register` printed: is that prediction still there, as it was?")
    ] = None,
) -> None:
    """List predictions and their outcomes, and whether they are as they were registered.

    Example: profiler predict list run.duckdb
    """
    with profiler.open(run) as opened:
        frame = opened.predictions()
    if frame.is_empty():
        console.print("no prediction was registered in this run")
        return
    write(text_table(frame.drop("hash")))
    if receipt is not None and not frame.filter(intact=True, hash=receipt).height:
        raise PredictionError(
            f"the prediction of receipt {receipt} is not in {run} as it was registered: it was changed or removed"
        )
    if not frame["intact"].all():
        raise PredictionError(
            "the log of predictions was changed after it was written: rows with intact false cannot be trusted"
        )
