"""`profiler label`: blind labels in the terminal, kept beside the run, scored with an interval."""

from typing import Annotated, Any

import typer

from profiler.cli import options
from profiler.cli.terminal.console import console, readable, write
from profiler.cli.terminal.output import text_table

KEYS = {"y": True, "n": False}


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(label)


def label(
    *,
    run: options.RunFile,
    component: Annotated[str, typer.Option(help="head or neuron, such as L2N117")],
    hypothesis: Annotated[str, typer.Option(help="what you believe, in words: 'the token is a year'")] = "it fits",
    per_band: Annotated[int, typer.Option(help="examples from each band of activation", min=1)] = 10,
    score: Annotated[bool, typer.Option("--score", help="only show the score of the labels so far")] = False,
) -> None:
    """Label random examples by whether they fit a hypothesis, blind to the activation, and score the labels.

    Example: profiler label run.duckdb --component L2N117 --hypothesis "the token is a number"
    """
    from profiler.behaviours import labels

    session = labels.begin(run, component, hypothesis, per_band)
    given = list(session.given)
    for i, row in enumerate([] if score else session.left.to_dicts()):
        answer = _ask(row, hypothesis, f"{i + 1} of {session.left.height}")
        if answer is None:
            break
        given.append(labels.Label(session.run_id, component, hypothesis, row["position_id"], row["band"], answer))
        labels.write(labels.labels_path(run, component), given[-1])
    write(text_table(labels.score(tuple(given))))
    console.print(
        "band: quantile of activation at which it begins; share: examples that fit, 95 % Clopper-Pearson interval"
    )


def _ask(row: dict[str, Any], hypothesis: str, progress: str) -> bool | None:
    """y or n for one example; None to stop."""
    console.print(
        f"\n[{progress}]"
        f" {readable(row['context_before'])}«{readable(row['context_token'])}»{readable(row['context_after'])}"
    )
    while (key := typer.prompt(f"{readable(hypothesis)}? y, n, or q to stop").strip().lower()[:1]) not in (*KEYS, "q"):
        console.print("answer y, n or q")
    return KEYS.get(key)
