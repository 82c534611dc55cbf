"""`profiler check`: is that what the circuit does, or only what it does on the prompts it was found on?"""

from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from profiler.cli import options
from profiler.cli.record import number, quiet
from profiler.cli.terminal.console import console
from profiler.cli.terminal.output import text_table

WIDEST_NOTE = 60


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(check)


def check(
    run: Annotated[Path, typer.Argument(help="the run that the circuit is in, and whose corpus is read again")],
    circuit: Annotated[str, typer.Argument(help="ioi or docstring as `profiler patch` stored it, or a .yaml file")],
    model: options.ModelOfRun = None,
    corpus: Annotated[
        list[str] | None, typer.Option(help="the run's corpus, as it was given to record; may be repeated")
    ] = None,
    reread: options.Reread = False,
    tokens: Annotated[
        str, typer.Option(help="tokens of the run's corpus to read again; all, or fewer windows chosen by hash")
    ] = "300k",
    distribution: Annotated[
        list[str] | None,
        typer.Option(help='a distribution of your own, NAME=FILE.jsonl or "NAME=sql:CONDITION"; may be repeated'),
    ] = None,
    pairs: Annotated[int, typer.Option(help="prompts of each distribution", min=20)] = 96,
    draws: Annotated[int, typer.Option(help="random circuits that it is compared with", min=1)] = 99,
    seed: Annotated[int, typer.Option(help="seed of every draw", min=0, max=options.MOST_SEED)] = 0,
    device: options.Device = "cpu",
    trust_remote_code: options.TrustRemoteCode = False,
    allow_pickle: options.AllowPickle = False,
) -> None:
    """Say what becomes of a circuit off the prompts it was found on: the verdict, and the distributions it rests on.

    Example: profiler check run.duckdb ioi --distribution "quoted=sql:in_quotes"
    """
    from profiler.generality import check as checks
    from profiler.generality.distributions.subject import CheckSettings, Reread
    from profiler.model.of_run import Choice, load_for

    quiet()
    limit = None if tokens == "all" else number(tokens)
    again = Reread(tuple(corpus or ()), reread, trust_remote_code)
    settings = CheckSettings(limit, pairs, draws, seed, tuple(distribution or ()), again)
    checks.refuse_unasked(run, circuit, again)  # before the model is loaded
    with console.status("loading the run's model"):
        loaded = load_for(run, Choice(model, trust_remote_code, allow_pickle, device))
    columns = (SpinnerColumn(), BarColumn(20), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    stages = {name for name, _ in checks.STAGES}
    with Progress(*columns, console=console) as progress:
        line = progress.add_task("reading", total=1 + len(stages))

        def show(text: str) -> None:
            if text.startswith(("forecast", "catalogue", "left out")):
                progress.console.print(text)
            progress.update(line, advance=text in stages, description=text if len(text) <= WIDEST_NOTE else "checking")

        done = checks.check(run, circuit, loaded, settings, show)
    say(run, done)


def say(run: Path, done: Any) -> None:
    """The verdict, the distributions, and what to do next."""
    verdict = done.verdict
    console.print(verdict.word, style="bold")
    console.print(verdict.sentence)
    for sentence in verdict.change:
        console.print(f"  {sentence}")
    console.print()
    console.print(text_table(table(done)))
    console.print(f"Next:\n  profiler report {run} generality\n  profiler query {run} ledger")


def table(done: Any) -> pl.DataFrame:
    """The distributions: a row per distribution with what was measured of the circuit there."""
    from profiler.statistics import ROUNDING

    found = {
        (one.distribution, one.technique, one.statistic): one
        for one in done.findings
        if one.subject == done.subject.circuit.name
    }

    def cell(distribution: str, *names: tuple[str, str]) -> str:
        one = next((found[distribution, *name] for name in names if (distribution, *name) in found), None)
        if one is None or one.value is None:
            return "" if one is None else "refused"
        return f"{one.value:.2f} [{one.lo:.2f}, {one.hi:.2f}]" + (
            " over" if one.statistic.startswith("faith") and one.lo > 1 + ROUNDING else ""
        )

    rows = []
    for distribution in done.distributions:
        faithful = found.get((distribution.name, "faithfulness", "faithfulness")) or found.get(
            (distribution.name, "corpus faithfulness", "KL recovered")
        )
        rows.append(
            {
                "distribution": distribution.name,
                "n": distribution.n_prompts or distribution.n_tokens,
                "of": "prompts" if distribution.n_prompts else "positions",
                "faithfulness": cell(
                    distribution.name, ("faithfulness", "faithfulness"), ("corpus faithfulness", "faithfulness")
                ),
                "necessity": cell(distribution.name, ("necessity", "necessity")),
                "KL recovered": cell(distribution.name, ("corpus faithfulness", "KL recovered")),
                "random": None if faithful is None or faithful.null is None else round(faithful.null, 2),
                "note": distribution.refused or (faithful.refused if faithful is not None else ""),
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None, schema_overrides={"random": pl.Float64})
