"""`profiler models`: score a model's behaviours, train the bundled one, write its card.

Why: the bundled model is made, measured and described by commands that a user can run again, and the same scores
can be asked of any other model. Cost: `score` one to two minutes for a small model; `train` as long as it is told.
"""

import dataclasses
import json
import sys
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markdown import Markdown
from rich.table import Table

from profiler.cli.terminal.commands import Commands
from profiler.cli.terminal.console import Clean, console, errors, write
from profiler.errors import ModelError

app = Commands(no_args_is_help=True, help="Score, train and describe models.")

BUNDLED = Path(__file__).parents[1] / "bundled"


class Format(StrEnum):
    """How scores are shown."""

    table = "table"
    json = "json"


ModelArgument = Annotated[str, typer.Argument(help="'bundled', a model directory, or a hub name")]


@app.command()
def score(
    model: ModelArgument = "bundled",
    format: Annotated[Format, typer.Option(help="a table to read, or JSON")] = Format.table,
    out: Annotated[Path | None, typer.Option(help="write there instead of to the screen")] = None,
) -> None:
    """Score the behaviours of a model: induction, previous token, indirect object, docstring, language."""
    from profiler.bundled.scores.card import as_record

    rows = _measure(model)
    if format is Format.json:
        text = json.dumps([as_record(row) for row in rows], indent=1)
        out.write_text(text + "\n") if out else write(text + "\n")
        return
    with out.open("w") if out else nullcontext(sys.stdout) as file:
        Clean(file=file, width=150 if out else None, soft_wrap=False).print(_table(model, rows))


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="folder for checkpoint, log and tokenizer")],
    minutes: Annotated[float, typer.Option(help="minutes of wall time of this call", min=0)] = 60.0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads")] = 1,
    plan: Annotated[str, typer.Option(help="'bundled', or 'tiny' to try the command")] = "bundled",
    steps: Annotated[int | None, typer.Option(min=1, help="steps in all, instead of the plan's")] = None,
    export: Annotated[Path | None, typer.Option(help="also write a model directory there")] = None,
) -> None:
    """Train the bundled model, or continue training it from its checkpoint."""
    import torch

    from profiler.bundled.training.curriculum import PLANS
    from profiler.bundled.training.export import export as write_model
    from profiler.bundled.training.train import train as run

    if plan not in PLANS:
        raise ModelError(f"there is no plan {plan!r}: choose {' or '.join(sorted(PLANS))}")
    torch.set_num_threads(threads)
    chosen = dataclasses.replace(PLANS[plan], steps=steps) if steps else PLANS[plan]
    trainer = run(out, chosen, minutes)
    console.print(f"{trainer.step} of {chosen.steps} steps, {trainer.tokens:,} tokens, {trainer.seconds:.0f} s in all")
    if export:
        write_model(out, export, chosen)
        console.print(f"model written to {export}")


@app.command()
def card(
    *,
    model: ModelArgument = "bundled",
    write: Annotated[bool, typer.Option("--write", help="measure again and write the card first")] = False,
) -> None:
    """Show a model's card; with --write, measure the model and write the card into its directory."""
    from profiler.bundled.scores.card import write_card

    folder = BUNDLED if model == "bundled" else Path(model)
    if write:
        if not (folder / "config.json").exists():
            raise ModelError(f"{folder} is not a model directory: it has no config.json")
        write_card(folder, _measure(model))
    if not (folder / "card.md").exists():
        raise ModelError(f"{folder} has no card.md; measure one with: profiler models card {model} --write")
    text = (folder / "card.md").read_text(encoding="utf-8")
    console.print(Markdown(text, hyperlinks=False), soft_wrap=False)


def _measure(model: str) -> list[Any]:
    from profiler.bundled.scores import load_scored_model
    from profiler.bundled.scores import score as measure

    subject = load_scored_model(str(BUNDLED) if model == "bundled" else model)
    return measure(subject, progress=lambda part: errors.print(f"measuring {part} ..."))


def _table(model: str, rows: list[Any]) -> Table:
    from profiler.bundled.scores.card import cells

    table = Table(
        "behaviour", "measure", "value", "95 % interval", "n", "target", "reached", title=f"Scores of {model}"
    )
    for row in rows:
        table.add_row(*cells(row))
    return table
