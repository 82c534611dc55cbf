"""`profiler patch`: a circuit from pairs of prompts, into a run."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import profiler
from profiler.circuits import yaml_files
from profiler.cli import options
from profiler.cli.terminal.commands import refuse_other, say_next
from profiler.cli.terminal.console import console
from profiler.cli.terminal.libraries import quiet
from profiler.cli.terminal.progress import StepBar

SETTINGS = (
    *("scheme", "pairs", "split", "seed", "neurons", "top", "steps", "draws"),
    *("mlps", "by_role", "outside", "edges"),
)
"""Options that are settings of an experiment."""
RIGHTS = ("trust_remote_code", "allow_pickle", "device")
"""Options that say how the model is loaded."""


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(patch)


def patch(
    *,
    run: options.PatchedRun,
    task: options.Task,
    model: options.ModelOfRun = None,
    trust_remote_code: options.TrustRemoteCode = False,
    allow_pickle: options.AllowPickle = False,
    scheme: options.Scheme = None,
    pairs: Annotated[int, typer.Option(help="pairs to find the circuit on, and as many for each test", min=4)] = 48,
    split: options.Split = "train",
    seed: options.DrawSeed = 0,
    circuit: Annotated[
        Path | None, typer.Option(help="evaluate the circuit of this .yaml file instead of finding a circuit")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="write the circuit to this .yaml file")] = None,
    neurons: Annotated[
        int, typer.Option(help="neurons to patch exactly, half chosen by attribution, half at random", min=0)
    ] = 64,
    top: Annotated[int, typer.Option(help="heads whose redundancy is measured", min=1)] = 6,
    draws: Annotated[int, typer.Option(help="number of random circuits, and of inflated circuits", min=1)] = 199,
    mlps: Annotated[
        bool, typer.Option("--mlps", help="let MLPs be members; otherwise every circuit keeps them")
    ] = False,
    by_role: Annotated[bool, typer.Option(help="also patch heads at single roles of the prompt")] = True,
    outside: Annotated[
        Literal["resample", "mean", "zero"] | None,
        typer.Option(help="what everything outside a circuit writes; default: as the circuit's file says, or resample"),
    ] = None,
    metric: options.Metric = "logit_diff",
    edges: Annotated[
        bool, typer.Option("--edges", help="choose and judge the circuit by edges (EAP-IG) rather than by nodes")
    ] = False,
    steps: Annotated[int, typer.Option(help="midpoints of integrated gradients", min=1)] = 8,
    budget: options.Budget = None,
    device: options.Device = "cpu",
    bench: Annotated[bool, typer.Option("--bench", help="only measure speed beside TransformerLens")] = False,
) -> None:
    """Find a circuit by patching in both directions, and evaluate it. Everything is written into the run.

    Example: profiler patch run.duckdb ioi --scheme swapped --save ioi.yaml
    """
    given = locals()
    quiet()
    refuse_other(save, yaml_files.read, "file of a circuit")
    settings, rights = ({name: given[name] for name in names} for names in (SETTINGS, RIGHTS))
    if bench:
        _bench(run, task, model, rights, settings)
        return
    seconds = None if budget is None else options.seconds(budget)
    with StepBar() as bar:
        done = profiler.patch(
            run,
            task,
            circuit=circuit,
            metric=metric,
            budget=seconds,
            model=model,
            report=bar.show,
            **rights,
            **settings,
        )
    if save is not None:
        done.save(save)
    console.print(str(done))
    if save is not None:
        console.print(f"circuit {save}")
    say_next(("report", run, "circuit"), ("query", run, "circuit_scores"), ("query", run, "gates"))


def _bench(run: Path, task: str, model: str | None, rights: dict[str, Any], settings: dict[str, Any]) -> None:
    from profiler import actions
    from profiler.bench.patching import compare

    for row in compare(actions.model_of(run, model, **rights), actions.patch_settings(task, **settings)):
        console.print(row)
