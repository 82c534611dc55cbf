"""`profiler patch` and `profiler tasks`: circuits from prompt pairs, into a run."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.text import Text

import profiler
from profiler.cli import options
from profiler.cli.terminal.console import console
from profiler.cli.terminal.libraries import quiet
from profiler.cli.terminal.progress import StepBar

SHOWN_ANSWERS = 4
Split = Literal["train", "held_out"]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(patch)
    app.command()(paths)
    app.command()(tasks)


def tasks(
    name: Annotated[str | None, typer.Argument(help="show pairs of this task; without it, list all tasks")] = None,
    scheme: Annotated[str | None, typer.Option(help="corruption scheme; default: the task's first")] = None,
    split: Annotated[Split, typer.Option(help="train or held_out words and wordings")] = "train",
    n: Annotated[int, typer.Option("--pairs", help="how many pairs", min=1)] = 3,
    seed: Annotated[int, typer.Option(help="seed of the pairs", min=0, max=options.MOST_SEED)] = 0,
    out: Annotated[Path | None, typer.Option(help="write the pairs to this .jsonl file")] = None,
) -> None:
    """List the built-in tasks, or show or write pairs of a task.

    Example: profiler tasks ioi --scheme swapped --pairs 100 --out ioi.jsonl
    """
    if name is None:
        _list_tasks()
        return
    made = profiler.draw_pairs(name, scheme=scheme, split=split, pairs=n, seed=seed)
    if out is not None:
        from profiler.prompts.pairs import jsonl

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
    console.print("\nNext:\n  profiler tasks ioi\n  profiler patch run.duckdb ioi")


def _answers(answers: tuple[str | int, ...]) -> str:
    more = " ..." if len(answers) > SHOWN_ANSWERS else ""
    return ", ".join(map(repr, answers[:SHOWN_ANSWERS])) + more


def patch(
    *,
    run: Annotated[Path, typer.Argument(help="the run to write into; created if it does not exist")],
    task: Annotated[str, typer.Argument(help="a built-in task (see profiler tasks), or a .jsonl file of pairs")],
    model: options.ModelOfRun = None,
    trust_remote_code: options.TrustRemoteCode = False,
    allow_pickle: options.AllowPickle = False,
    scheme: Annotated[str | None, typer.Option(help="corruption scheme; default: the task's first")] = None,
    pairs: Annotated[int, typer.Option(help="pairs to find the circuit on, and as many for each test", min=4)] = 48,
    split: Annotated[Split, typer.Option(help="choose the circuit on train or held_out words and wordings")] = "train",
    seed: Annotated[int, typer.Option(help="seed of all random draws", min=0, max=options.MOST_SEED)] = 0,
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
    device: Annotated[str, typer.Option(help="cpu, cuda, mps")] = "cpu",
    bench: Annotated[bool, typer.Option("--bench", help="only measure speed beside TransformerLens")] = False,
) -> None:
    """Find a circuit by patching in both directions, and evaluate it. Everything is written into the run.

    Example: profiler patch run.duckdb ioi --scheme swapped --save ioi.yaml
    """
    quiet()
    settings = {
        "scheme": scheme,
        "pairs": pairs,
        "split": split,
        "seed": seed,
        "neurons": neurons,
        "top": top,
        "draws": draws,
        "mlps": mlps,
        "by_role": by_role,
        "outside": outside,
        "edges": edges,
        "steps": steps,
    }
    rights = {"trust_remote_code": trust_remote_code, "allow_pickle": allow_pickle, "device": device}
    if bench:
        _bench(run, task, model, rights, settings)
        return
    keep_to = None if budget is None else options.seconds(budget)
    with StepBar() as bar:
        done = profiler.patch(
            run,
            task,
            circuit=circuit,
            metric=metric,
            budget=keep_to,
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
    console.print(
        f"\nNext:\n  profiler report {run} circuit\n  profiler query {run} circuit_scores\n  profiler query {run} gates"
    )


def paths(
    *,
    run: Annotated[Path, typer.Argument(help="the run to write into; created if it does not exist")],
    task: Annotated[str, typer.Argument(help="a built-in task, or a .jsonl file of pairs")],
    path: Annotated[
        list[str],
        typer.Argument(
            help="L0H5:L2H1.q from a sender to a receiver, L0H5:L2H1:logits through it; several may be given"
        ),
    ],
    positions: Annotated[
        str, typer.Option(help="exchange what is sent at the positions of this role of the pairs alone")
    ] = "all",
    metric: options.Metric = "logit_diff",
    model: options.ModelOfRun = None,
    trust_remote_code: options.TrustRemoteCode = False,
    allow_pickle: options.AllowPickle = False,
    scheme: Annotated[str | None, typer.Option(help="corruption scheme; default: the task's first")] = None,
    pairs: Annotated[int, typer.Option(help="pairs", min=4)] = 48,
    split: Annotated[Split, typer.Option(help="train or held_out words and wordings")] = "train",
    seed: Annotated[int, typer.Option(help="seed of the pairs", min=0, max=options.MOST_SEED)] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps")] = "cpu",
) -> None:
    """Measure what one component tells another along a path, beside every other sender.

    Example: profiler paths run.duckdb ioi L0H5:L2H1.q L2H1:logits
    """
    quiet()
    rights = {"trust_remote_code": trust_remote_code, "allow_pickle": allow_pickle, "device": device}
    drawn = {"scheme": scheme, "pairs": pairs, "split": split, "seed": seed}
    with StepBar() as bar:
        found = profiler.paths(
            run, task, path, positions=positions, metric=metric, model=model, report=bar.show, **rights, **drawn
        )
    for text in dict.fromkeys(found["path"]):
        rows = found.filter(path=text)
        own, others = rows.row(0, named=True), rows[1:]
        console.print(
            f"{text}: {own['share']:.1%} [{own['share_lo']:.1%}, {own['share_hi']:.1%}] of the effect"
            f" ({own['measured_by']}) on {own['n']} pairs"
        )
        if others.height:
            largest = others.sort("share", descending=True).row(0, named=True)
            console.print(
                f"  {others.height} other senders: at most {largest['share']:.1%} ({largest['sender']});"
                f" p = {own['p']:.2g}, at least {own['p_least']:.2g}"
            )
    console.print(f"\nNext:\n  profiler query {run} paths")


def _bench(run: Path, task: str, model: str | None, rights: dict[str, Any], settings: dict[str, Any]) -> None:
    from profiler import actions
    from profiler.bench.patching import compare

    for row in compare(actions.model_of(run, model, **rights), actions.patch_settings(task, **settings)):
        console.print(row)
