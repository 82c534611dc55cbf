"""`profiler patch` and `profiler tasks`: circuits from prompt pairs, into a run."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from profiler.cli import options
from profiler.cli.record import quiet
from profiler.cli.terminal.console import console
from profiler.errors import PairError

WHERE = {"discovery": "on its own pairs", "test": "on fresh pairs", "held_out": "on held-out words and wordings"}


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(patch)
    app.command()(tasks)


def tasks(
    name: Annotated[str | None, typer.Argument(help="show pairs of this task; without it, list all tasks")] = None,
    scheme: Annotated[str | None, typer.Option(help="corruption scheme; default: the task's first")] = None,
    split: Annotated[str, typer.Option(help="train or held_out words and wordings")] = "train",
    n: Annotated[int, typer.Option("--pairs", help="how many pairs", min=1)] = 3,
    seed: Annotated[int, typer.Option(help="seed of the pairs", min=0, max=options.MOST_SEED)] = 0,
    out: Annotated[Path | None, typer.Option(help="write the pairs there, as .jsonl")] = None,
) -> None:
    """List the built-in tasks, or show or write pairs of one.

    Example: profiler tasks ioi --scheme swapped --pairs 100 --out ioi.jsonl
    """
    from profiler.prompts import pairs

    if name is None:
        for task in pairs.TASKS:
            what = f"  {task.question}\n    corruption schemes: {', '.join(task.schemes)}"
            console.print(Text.assemble((task.name, "bold"), what))
        console.print("\nNext:\n  profiler tasks ioi\n  profiler patch run.duckdb ioi")
        return
    if split not in ("train", "held_out"):
        raise PairError(f"--split {split!r}: choose train or held_out")
    made = pairs.make(name, scheme, split, n, seed, _vocabulary() if pairs.find_task(name).of_tokens else ())
    if out is not None:
        pairs.jsonl.write(out, made)
        console.print(f"{out}: {len(made)} pairs")
        return
    for pair in made:
        console.print(f"{pair.name}  answer {_options(pair.answers)}, not {_options(pair.distractors)}")
        console.print(f"  clean     {pair.clean}\n  corrupted {pair.corrupted}")


def _options(options: tuple[Any, ...], shown: int = 4) -> str:
    return ", ".join(repr(option) for option in options[:shown]) + (" ..." if len(options) > shown else "")


def _vocabulary() -> tuple[int, ...]:
    """Ordinary tokens of the bundled model."""
    from transformers import AutoTokenizer

    from profiler.model.load import BUNDLED
    from profiler.text.token_classes import ordinary_ids

    return ordinary_ids(AutoTokenizer.from_pretrained(BUNDLED))


def patch(
    run: Annotated[Path, typer.Argument(help="the run to write into; made if it is not there")],
    task: Annotated[str, typer.Argument(help="a built-in task (see profiler tasks), or a .jsonl file of pairs")],
    model: options.ModelOfRun = None,
    trust_remote_code: options.TrustRemoteCode = False,
    allow_pickle: options.AllowPickle = False,
    scheme: Annotated[str | None, typer.Option(help="corruption scheme; default: the task's first")] = None,
    pairs: Annotated[int, typer.Option(help="pairs to find the circuit on, and again for each test", min=4)] = 48,
    split: Annotated[str, typer.Option(help="find the circuit on train or held_out words and wordings")] = "train",
    seed: Annotated[int, typer.Option(help="seed of every draw", min=0, max=options.MOST_SEED)] = 0,
    circuit: Annotated[Path | None, typer.Option(help="judge the circuit of this .yaml instead of finding one")] = None,
    save: Annotated[Path | None, typer.Option(help="write the circuit there, as .yaml")] = None,
    neurons: Annotated[
        int, typer.Option(help="neurons to patch exactly, half by attribution, half at random", min=0)
    ] = 64,
    top: Annotated[int, typer.Option(help="heads whose redundancy is looked at", min=1)] = 6,
    draws: Annotated[int, typer.Option(help="random circuits, and inflated circuits", min=1)] = 199,
    mlps: Annotated[bool, typer.Option("--mlps", help="let MLPs be members; otherwise they are always kept")] = False,
    by_role: Annotated[bool, typer.Option(help="patch heads at single roles too")] = True,
    outside: Annotated[
        Literal["resample", "mean", "zero"] | None,
        typer.Option(
            help="what everything outside a circuit writes; default: as the circuit's file says, else resample"
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps")] = "cpu",
    bench: Annotated[bool, typer.Option("--bench", help="only measure speed beside TransformerLens")] = False,
) -> None:
    """Patch in both directions, find a circuit, and say how good it is; everything goes into the run.

    Example: profiler patch run.duckdb ioi --scheme swapped --save ioi.yaml
    """
    from profiler.circuits import experiment, yaml_files
    from profiler.circuits.duration import stages
    from profiler.model.of_run import Choice
    from profiler.patching.setting import PatchSettings

    quiet()
    if split not in ("train", "held_out"):
        raise PairError(f"--split {split!r}: choose train or held_out")
    settings = PatchSettings(
        task, scheme, pairs, split, seed, neurons, top, draws=draws, mlps=mlps, by_role=by_role, outside=outside
    )
    given = yaml_files.read(circuit) if circuit is not None else None
    loaded = _load(run, Choice(model, trust_remote_code, allow_pickle, device))
    if bench:
        _bench(loaded, settings)
        return
    with _bar() as progress:
        total = stages(settings, given=given is not None)
        line = progress.add_task("pairs", total=total)

        def show(stage: str) -> None:
            if stage.startswith("forecast"):
                progress.console.print(stage)
            else:
                progress.update(line, advance=1, description=stage)

        outcome = experiment.patch(loaded, settings, run, show, given)
        progress.update(line, completed=total, description="written")
    if save is not None:
        yaml_files.write(save, outcome.circuit)
    _say(run, outcome, save)


def _load(run: Path, choice: Any) -> Any:
    """The model of a run that is there; for a new one the model that is named, else the bundled one."""
    from profiler.model.load import load_model
    from profiler.model.of_run import config_for, load_for

    with console.status(f"loading {choice.model or 'the model'}"):
        if run.exists():
            return load_for(run, choice, as_recorded=False)
        return load_model(config_for(choice.model or "bundled", choice))


def _bar() -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console)


def _say(run: Path, outcome: Any, save: Path | None) -> None:
    """The answer in a few lines, and what to do next."""
    circuit, scores = outcome.circuit, outcome.frames["circuit_scores"]
    console.print(f"{outcome.experiment}: {len(circuit.members)} member{'s' * (len(circuit.members) != 1)}")
    for member in circuit.members:
        at = "" if member.positions == "all" else f" at {member.positions}"
        console.print(f"  {member.component}{at}  {member.gate}  {member.role}")
    for pair_set in scores["pair_set"].unique(maintain_order=True):
        console.print(f"{WHERE.get(pair_set, pair_set)}: {judged(scores.filter(pair_set=pair_set))}")
    if save is not None:
        console.print(f"circuit {save}")
    console.print(
        f"\nNext:\n  profiler report {run} circuit\n  profiler query {run} circuit_scores\n  profiler query {run} gates"
    )


def judged(scores: Any) -> str:
    """How good the circuit is on one set of pairs. `scores` is its part of the table circuit_scores."""
    found = {row["metric"]: row for row in scores.to_dicts()}
    if "faithfulness" not in found:
        return "the model shows no effect here that a circuit could explain"
    one, chance = found["faithfulness"], found.get("random_p")
    parts = [f"keeps {one['score']:.1%} [{one['low']:.1%}, {one['high']:.1%}] of the effect"]
    if chance is not None:
        close = round(chance["score"] * (1 + chance["n"])) - 1
        parts.append(
            f"{close or 'none'} of {chance['n']} random circuits came as close to 100 % (p = {chance['score']:.2g})"
        )
    parts.append(f"incomplete by up to {found['incompleteness_greedy']['score']:.1%}")
    if "minimality" in found:
        parts.append(f"least important member: removing it costs {found['minimality']['score']:.1%}")
    if "stability_jaccard" in found:
        parts.append(f"{found['stability_jaccard']['score']:.0%} alike (Jaccard) when pairs are resampled")
    return "; ".join(parts)


def _bench(loaded: Any, settings: Any) -> None:
    from profiler.bench.patching import compare

    for row in compare(loaded, settings):
        console.print(row)
