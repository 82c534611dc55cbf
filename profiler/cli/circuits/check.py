"""`profiler check`: is that what the circuit does, or only what it does on the prompts it was found on?"""

from pathlib import Path
from typing import Annotated

import typer

import profiler
from profiler.cli import options
from profiler.cli.terminal.commands import AsJson, say_next, write_json
from profiler.cli.terminal.console import console
from profiler.cli.terminal.libraries import quiet
from profiler.cli.terminal.output import text_table
from profiler.cli.terminal.progress import StepBar


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(check)


def check(
    *,
    run: Annotated[Path, typer.Argument(help="the run that has the circuit; its corpus is read again")],
    circuit: Annotated[
        str, typer.Argument(help="a circuit that `profiler patch` stored, such as ioi, or a .yaml file")
    ],
    model: options.ModelOfRun = None,
    metric: options.MetricOfCheck = None,
    corpus: options.CorpusOfRun = None,
    reread: options.Reread = False,
    tokens: options.TokensOfRun = "300k",
    distribution: Annotated[
        list[str] | None,
        typer.Option(help='a distribution of your own, NAME=FILE.jsonl or "NAME=sql:CONDITION"; may be repeated'),
    ] = None,
    pairs: Annotated[int, typer.Option(help="prompts per distribution", min=20)] = 96,
    draws: Annotated[int, typer.Option(help="random circuits to compare with", min=1)] = 99,
    seed: options.DrawSeed = 0,
    budget: options.Budget = None,
    device: options.Device = "cpu",
    trust_remote_code: options.TrustRemoteCode = False,
    allow_pickle: options.AllowPickle = False,
    json_: AsJson = False,
) -> None:
    """Check whether a circuit holds off the prompts it was found on: the verdict, and the distributions behind it.

    Example: profiler check run.duckdb ioi --distribution "quoted=sql:in_quotes"
    """
    quiet()
    with profiler.open(run) as opened, StepBar() as bar:
        done = opened.check(
            circuit,
            metric=metric,
            corpus=corpus or (),
            reread=reread,
            tokens=options.number_or_all(tokens),
            distributions=distribution or (),
            pairs=pairs,
            draws=draws,
            seed=seed,
            budget=None if budget is None else options.seconds(budget),
            model=model,
            trust_remote_code=trust_remote_code,
            allow_pickle=allow_pickle,
            device=device,
            report=bar.show,
        )
    if json_:
        return write_json(done.as_dict())
    console.print(done.word, style="bold")
    console.print(done.verdict.sentence)
    for sentence in (*done.measured, *done.verdict.change):
        console.print(f"  {sentence}")
    console.print()
    console.print(text_table(done.table))
    say_next(("report", run, "generality"), ("query", run, "ledger"))
