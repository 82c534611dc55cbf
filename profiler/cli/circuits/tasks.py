"""`profiler tasks`: the built-in tasks and their pairs of prompts."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

import profiler
from profiler.cli import options
from profiler.cli.terminal.commands import refuse_other, say_next
from profiler.cli.terminal.console import console

SHOWN_ANSWERS = 4


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(tasks)


def tasks(
    name: Annotated[str | None, typer.Argument(help="show pairs of this task; without it, list all tasks")] = None,
    scheme: options.Scheme = None,
    split: options.Split = "train",
    n: Annotated[int, typer.Option("--pairs", help="how many pairs", min=1)] = 3,
    seed: options.DrawSeed = 0,
    out: Annotated[Path | None, typer.Option(help="write the pairs to this .jsonl file")] = None,
) -> None:
    """List the built-in tasks, or show or write pairs of a task.

    Example: profiler tasks ioi --scheme swapped --pairs 100 --out ioi.jsonl
    """
    if name is None:
        _list_tasks()
        return
    from profiler.prompts.pairs import jsonl

    refuse_other(out, jsonl.read, "file of pairs")
    made = profiler.draw_pairs(name, scheme=scheme, split=split, pairs=n, seed=seed)
    if out is not None:
        jsonl.write(out, made)
        console.print(f"{out}: {len(made)} pairs")
        return
    for pair in made:
        console.print(f"{pair.name}  answer {_answers(pair.answers)}, not {_answers(pair.distractors)}")
        console.print(f"  clean     {pair.clean}\n  corrupted {pair.corrupted}")


def _list_tasks() -> None:
    from profiler.prompts.pairs import TASKS

    for task in TASKS:
        what = f"  {task.question}\n    corruption schemes: {', '.join(task.schemes)}"
        console.print(Text.assemble((task.name, "bold"), what))
    console.print("\nOn a run: profiler patch RUN NAME")
    say_next(("tasks", TASKS[0].name), ("tasks", TASKS[0].name, "--pairs", 100, "--out", f"{TASKS[0].name}.jsonl"))


def _answers(answers: tuple[str | int, ...]) -> str:
    more = " ..." if len(answers) > SHOWN_ANSWERS else ""
    return ", ".join(map(repr, answers[:SHOWN_ANSWERS])) + more
