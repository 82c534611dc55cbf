"""`profiler check`: is that what the circuit does, or only what it does on the prompts it was found on?"""

from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from profiler.cli.options import MOST_SEED
from profiler.cli.output import text_table
from profiler.cli.record import console, number, quiet

WIDEST_NOTE = 60


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(check)


def check(
    run: Annotated[Path, typer.Argument(help="the run that the circuit is in, and whose corpus is read again")],
    circuit: Annotated[str, typer.Argument(help="ioi or docstring as `profiler patch` stored it, or a .yaml file")],
    model: Annotated[
        str | None, typer.Option(help="bundled, a Hugging Face name, or a directory; default: the run's")
    ] = None,
    tokens: Annotated[
        str, typer.Option(help="tokens of the run's corpus to read again; all, or fewer windows chosen by hash")
    ] = "300k",
    rung: Annotated[
        list[str] | None,
        typer.Option(help='a distribution of your own, NAME=FILE.jsonl or "NAME=sql:CONDITION"; may be repeated'),
    ] = None,
    pairs: Annotated[int, typer.Option(help="prompts of each rung", min=20)] = 96,
    draws: Annotated[int, typer.Option(help="random circuits that it is compared with", min=1)] = 99,
    seed: Annotated[int, typer.Option(help="seed of every draw", min=0, max=MOST_SEED)] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps")] = "cpu",
) -> None:
    """Say what becomes of a circuit off the prompts it was found on: the verdict, and the ladder it rests on.

    Example: profiler check run.duckdb ioi --rung "quoted=sql:in_quotes"
    """
    from profiler.generality import check as checks
    from profiler.generality.subject import CheckSettings

    quiet()
    limit = None if tokens == "all" else number(tokens)
    settings = CheckSettings(limit, pairs, draws, seed, tuple(rung or ()))
    loaded = _load(run, model, device)
    columns = (SpinnerColumn(), BarColumn(20), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    stages = {name for name, _ in checks.STAGES}
    with Progress(*columns, console=console) as progress:
        line = progress.add_task("reading", total=1 + len(stages))

        def show(text: str) -> None:
            if text.startswith(("forecast", "catalogue")):
                progress.console.print(text, markup=False)
            progress.update(line, advance=text in stages, description=text if len(text) <= WIDEST_NOTE else "checking")

        done = checks.check(run, circuit, loaded, settings, show)
    say(run, done)


def _load(run: Path, name: str | None, device: str) -> Any:
    """The run's model with the run's context length."""
    from profiler.config import RunConfig
    from profiler.generality.text import config_of
    from profiler.model import load_model
    from profiler.query import run as run_query

    config, _ = config_of(run)
    known = run_query(run, "SELECT model FROM runs")["model"][0]
    settings = config or RunConfig(model=known, corpora=("none",))
    wanted = settings.model_copy(update={"model": name or known, "device": device})
    with console.status(f"loading {wanted.model}"):
        return load_model(wanted)


def say(run: Path, done: Any) -> None:
    """The verdict, the ladder, and what to do next."""
    verdict = done.verdict
    console.print(f"[bold]{verdict.word}[/]")
    console.print(verdict.sentence, markup=False)
    for sentence in verdict.change:
        console.print(f"  {sentence}", markup=False)
    console.print()
    console.print(text_table(table(done)), markup=False)
    console.print(f"Next:\n  profiler report {run} generality\n  profiler query {run} ledger", markup=False)


def table(done: Any) -> pl.DataFrame:
    """The ladder: a row per rung with what was measured of the circuit there."""
    from profiler.patching.statistics import ROUNDING

    found = {
        (one.rung, one.technique, one.statistic): one
        for one in done.findings
        if one.subject == done.subject.circuit.name
    }

    def cell(rung: str, *names: tuple[str, str]) -> str:
        one = next((found[rung, *name] for name in names if (rung, *name) in found), None)
        if one is None or one.value is None:
            return "" if one is None else "refused"
        return f"{one.value:.2f} [{one.lo:.2f}, {one.hi:.2f}]" + (
            " over" if one.statistic.startswith("faith") and one.lo > 1 + ROUNDING else ""
        )

    rows = []
    for rung in done.rungs:
        faithful = found.get((rung.name, "faithfulness", "faithfulness")) or found.get(
            (rung.name, "corpus faithfulness", "kept KL")
        )
        rows.append({
            "rung": rung.name, "n": rung.n_prompts or rung.n_tokens, "of": "prompts" if rung.n_prompts else "positions",
            "faithful": cell(rung.name, ("faithfulness", "faithfulness"), ("corpus faithfulness", "faithfulness")),
            "needed": cell(rung.name, ("necessity", "necessity")), "kept KL": cell(rung.name, ("corpus faithfulness", "kept KL")),
            "random": None if faithful is None or faithful.null is None else round(faithful.null, 2),
            "note": rung.refused or (faithful.refused if faithful is not None else ""),
        })  # fmt: skip
    return pl.DataFrame(rows, infer_schema_length=None, schema_overrides={"random": pl.Float64})
