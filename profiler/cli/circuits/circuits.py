"""`profiler circuits`: published circuits to test, and models of known circuit that test patch and check themselves."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from profiler.cli import options
from profiler.cli.terminal.commands import Commands, say_next
from profiler.cli.terminal.console import console, write
from profiler.cli.terminal.libraries import quiet
from profiler.cli.terminal.output import text_table
from profiler.pages.numbers import plural

circuits = Commands(no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(
        circuits,
        name="circuits",
        help="Published circuits: list and show them. Models of known circuit: what patch and check say of them.",
    )


@circuits.command("list")
def list_circuits() -> None:
    """List the published circuits that come with the package, with what was published about them.

    Example: profiler circuits list
    """
    from profiler.generality.evidence import published

    for circuit in published.circuits():
        roles = dict.fromkeys(member.role for member in circuit.members)
        what = f"  {circuit.model}, {plural(len(circuit.members), 'head')}: {', '.join(roles)}"
        console.print(Text.assemble((circuit.name, "bold"), what))
        for number in published.numbers(circuit.name):
            console.print(f"    {number.value:g} {number.unit}  {number.what} ({number.source})")
    console.print("\nOn a run of its model: profiler check RUN NAME")
    say_next(("circuits", "show", published.names()[0]))


@circuits.command()
def show(name: Annotated[str, typer.Argument(help="a published circuit")]) -> None:
    """Write a published circuit as YAML.

    Example: profiler circuits show ioi-gpt2 > ioi.yaml
    """
    from profiler.errors import CircuitError
    from profiler.generality.evidence import published

    path = published.path_of(name)
    if path is None:
        raise CircuitError(f"there is no published circuit {name!r}: choose {', '.join(published.names())}")
    write(path.read_text(encoding="utf-8"))


@circuits.command()
def truth(
    *,
    models: Annotated[str, typer.Option(help="models by name, as and,or; all if not given")] = "",
    sizes: Annotated[str, typer.Option(help="small (8 heads), medium (56), large (144), with commas")] = "small",
    seeds: Annotated[int, typer.Option(help="seeds of each: other weights, tokens and pairs", min=1)] = 1,
    pairs: Annotated[int, typer.Option(help="pairs of the discovery file; of others half", min=4)] = 40,
    draws: Annotated[int, typer.Option(help="random circuits of a check", min=1)] = 20,
    tokens: Annotated[int, typer.Option(help="tokens of each model's corpus to record first; 0 for none", min=0)] = 0,
    given: Annotated[
        bool, typer.Option("--given", help="check the true circuits instead of those that patch finds")
    ] = False,
    whole: Annotated[
        bool, typer.Option("--whole", help="run patch and check as a user would, not only what decides words")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="keep models, pairs and runs in this folder")] = None,
    answers: Annotated[
        Path | None, typer.Option(help=".jsonl of answers: those in it are not asked again, new ones are added")
    ] = None,
    processes: Annotated[int, typer.Option(help="processes that share the models", min=1)] = 1,
    markdown: Annotated[bool, typer.Option("--markdown", help="print the tables as Markdown")] = False,
) -> None:
    """Patch and check models whose circuits are known exactly, and print the true words beside the printed ones.

    Example: profiler circuits truth --models and,or,induction --seeds 3
    """
    from profiler.truth.evaluate import TruthSettings, ask

    quiet()
    settings = TruthSettings(
        options.labels(models),
        options.labels(sizes),
        seeds,
        pairs,
        check_draws=draws,
        tokens=tokens,
        given=given,
        whole=whole,
    )
    result = ask(settings, out, _said, answers, processes)
    if markdown:
        write(result.markdown())
        return
    for table in (result.by_model, result.words, result.totals):
        console.print()
        write(text_table(table))


def _said(row: dict[str, Any]) -> None:
    """One line as soon as a model is done."""
    members = "circuit given" if row["chosen"] is None else " ".join(row["chosen"])
    console.print(
        f"{row['model']} {row['size']} {row['seed']}: {row['word']} (true: {row['true_word']});"
        f" {members} (true: {' '.join(row['members'])})"
    )
