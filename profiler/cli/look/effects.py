"""`profiler effects`: what components do through everything after them, beside what they write directly."""

from pathlib import Path
from typing import Annotated

import typer

import profiler
from profiler.cli import options
from profiler.cli.terminal.commands import say_next
from profiler.cli.terminal.console import console
from profiler.cli.terminal.libraries import quiet
from profiler.cli.terminal.progress import StepBar


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(effects)


def effects(
    *,
    run: Annotated[Path, typer.Argument(help="the run to add total effects to; its corpus is read again")],
    model: options.ModelOfRun = None,
    corpus: options.CorpusOfRun = None,
    reread: options.Reread = False,
    methods: Annotated[
        str,
        typer.Option(
            help=(
                "gradient, frozen (attention patterns and norms held), integrated (averaged over the way of a layer's"
                " heads from their mean), with commas between"
            )
        ),
    ] = "gradient,integrated",
    tokens: options.TokensOfRun = "20k",
    integrated_tokens: Annotated[str, typer.Option(help="the same for the method integrated")] = "4k",
    steps: Annotated[int, typer.Option(help="points along the way of the method integrated", min=1)] = 8,
    checked: Annotated[
        int, typer.Option(help="ablations that estimates of each layer, kind and method are held against", min=0)
    ] = 24,
    checked_windows: Annotated[int, typer.Option(help="windows that these are drawn from", min=2)] = 12,
    repair: Annotated[int, typer.Option(help="positions of each head at which self-repair is measured", min=0)] = 16,
    routes: Annotated[int, typer.Option(help="heads whose effect is split over what reads them", min=0)] = 8,
    seed: options.DrawSeed = 0,
    device: options.Device = "cpu",
    trust_remote_code: options.TrustRemoteCode = False,
    allow_pickle: options.AllowPickle = False,
) -> None:
    """Measure total effects: what each component does to the next tokens through everything after it.

    Example: profiler effects run.duckdb --tokens 50k
    """
    quiet()
    with profiler.open(run) as opened, StepBar() as bar:
        done = opened.effects(
            corpus=corpus or (),
            reread=reread,
            methods=options.labels(methods),
            tokens=options.number_or_all(tokens),
            integrated_tokens=options.number(integrated_tokens),
            steps=steps,
            checked=checked,
            checked_windows=checked_windows,
            repair=repair,
            routes=routes,
            seed=seed,
            model=model,
            trust_remote_code=trust_remote_code,
            allow_pickle=allow_pickle,
            device=device,
            report=bar.show,
        )
    console.print(str(done))
    say_next(
        ("query", run, "effects", "--set", "kind=head"),
        ("query", run, "effect_reliability"),
        ("query", run, "effect_routes"),
    )
