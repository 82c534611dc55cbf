"""`profiler predict`: claims written down before their tests."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import polars as pl
import typer

import profiler
from profiler.cli.terminal.commands import AsJson, Commands, say_next, write_json
from profiler.cli.terminal.console import asides, console, write
from profiler.cli.terminal.output import text_table
from profiler.errors import PredictionError

predict = Commands(no_args_is_help=True)
Run = Annotated[Path, typer.Argument(help="a run that `profiler record` or `profiler patch` wrote")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(predict, name="predict", help="Predictions: register them before the test, resolve and list them.")


@predict.command("register")
def register_prediction(
    *,
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
    json_: AsJson = False,
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
    is_known = '"known_before":true' in entry.content
    if json_:
        return write_json(
            {"entry": entry.entry, "registered": entry.written, "hash": entry.hash, "known_before": is_known}
        )
    console.print(f"prediction {entry.entry} registered at {entry.written}\n{entry.hash}")
    if is_known:
        console.print("note: the run already has this number, so the prediction counts as post hoc")
    asides.print(f"Keep the hash outside of this run. Its test is a check: profiler check {run} CIRCUIT")
    say_next(("predict", "resolve", run), ("predict", "list", run, "--receipt", entry.hash))


@predict.command("resolve")
def resolve_predictions(run: Run, *, json_: AsJson = False) -> None:
    """Score open predictions against what was measured after they were registered.

    Example: profiler predict resolve run.duckdb
    """
    with profiler.open(run) as opened:
        scored = opened.resolve_predictions()
    if json_:
        return write_json([asdict(score) for score in scored])
    for score in scored:
        value = "" if score.value is None else f"  {score.value:.3g}"
        value += "" if score.lo is None or score.hi is None else f" (95 % interval {score.lo:.3g} to {score.hi:.3g})"
        shared = "" if score.overlap is None else f"  {score.overlap:.0%} of the tested examples are discovery examples"
        console.print(f"{score.outcome:10} {score.statement}{value}{shared}")
    if not scored:
        console.print("no prediction is open; `profiler predict register` registers a prediction")


@predict.command("list")
def list_predictions(
    *,
    run: Run,
    receipt: Annotated[
        str | None, typer.Option(help="a hash that `register` printed: is that prediction still there, as it was?")
    ] = None,
    json_: AsJson = False,
) -> None:
    """List predictions and their outcomes, and whether they are as they were registered.

    Example: profiler predict list run.duckdb
    """
    with profiler.open(run) as opened:
        frame = opened.predictions()
    if json_:
        write_json(frame.to_dicts())
    elif frame.is_empty():
        console.print("no prediction was registered in this run")
    else:
        write(text_table(frame.drop("hash")))
    _refuse_changed(run, frame, receipt)


def _refuse_changed(run: Path, frame: pl.DataFrame, receipt: str | None) -> None:
    """Raise where the log of predictions is not as it was written.

    Raises:
        PredictionError: the prediction of `receipt` is gone, or a row was changed.
    """
    if frame.is_empty() and receipt is None:
        return
    if receipt is not None and (frame.is_empty() or not frame.filter(intact=True, hash=receipt).height):
        raise PredictionError(
            f"the prediction of receipt {receipt} is not in {run} as it was registered: it was changed or removed"
        )
    if not frame["intact"].all():
        raise PredictionError(
            "the log of predictions was changed after it was written: rows with intact false cannot be trusted"
        )
