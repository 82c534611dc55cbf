"""`profiler record` and `profiler demo`."""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from profiler.cli import options
from profiler.cli.terminal import losses
from profiler.cli.terminal.console import console
from profiler.config import RunConfig
from profiler.errors import ProfilerError, Stopped

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
RENAMED = {"corpus": "corpora", "samples": "samples_per_stratum", "bos": "prepend_bos", "class_": "classes"}
NO_SETTINGS = (
    "out",
    "overwrite",
    "resume",
    "commit_every",
    "engine",
    "workers",
    "address",
    "chunks_per_piece",
    "chosen",
)
DEMO_RUN = Path("demo.duckdb")
DEMO_TOKENS = 300_000
DEMO_CONTEXT, DEMO_WINDOWS = 256, 4  # a few windows of many documents: intervals rest on documents


def number(text: str) -> int:
    """A count such as 300000, 300k, 1.5M or 2GB.

    Raises:
        ProfilerError: it is none.
    """
    match = re.fullmatch(r"([0-9_.]+)\s*([kmgt]?)b?", text.strip().lower())
    try:
        return int(float(match[1]) * UNITS[match[2]]) if match else int("")
    except (ValueError, OverflowError):
        raise ProfilerError(f"{text!r} is no count: write it as 300000, 300k, 1.5M or 2GB") from None


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(demo)
    app.command()(record)


def record(
    model: options.ModelName,
    corpus: options.Corpora,
    out: options.Out,
    tokens: options.Tokens = "1M",
    text_field: options.TextField = "text",
    id_field: options.IdField = "id",
    domain_field: options.DomainField = None,
    components: options.Components = "",
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    dtype: options.DType = "float32",
    context_length: options.ContextLength = None,
    windows_per_document: options.WindowsPerDocument = None,
    batch_size: options.BatchSize = 16,
    disk_budget: options.DiskBudget = None,
    dense_positions: options.DensePositions = 1024,
    samples: options.Samples = 4,
    extremes: options.Extremes = 10,
    token_sums: options.TokenSums = "heads",
    class_: options.OwnClass = None,
    replicate_groups: options.ReplicateGroups = 8,
    bos: options.Bos = None,
    shuffle_buffer: options.ShuffleBuffer = 10000,
    trust_remote_code: options.TrustRemoteCode = False,
    allow_pickle: options.AllowPickle = False,
    shard: options.Shard = None,
    engine: options.Engine = "local",
    workers: options.Workers = 1,
    address: options.Address = None,
    chunks_per_piece: options.ChunksPerPiece = 4,
    commit_every: options.CommitEvery = 15.0,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Stream a corpus through a model once; leave every neuron's and head's activation and DLA statistics in a run
    file.

    Example: profiler record bundled --corpus stdlib --tokens 300k --out run.duckdb
    """
    chosen = engine_of(engine, workers, address, chunks_per_piece)
    run_pass(config_of(locals()), out, overwrite, resume=resume, commit_seconds=commit_every, engine=chosen)
    console.print(
        f"\nNext:\n  profiler info {out}\n  profiler query {out} component_overview\n  profiler report {out} overview"
    )


def config_of(given: dict[str, Any]) -> RunConfig:
    """The configuration of `record`'s options, under the names of RunConfig and with counts read."""
    given = {RENAMED.get(name, name): value for name, value in given.items() if name not in NO_SETTINGS}
    given["tokens"] = None if given["tokens"] == "all" else number(given["tokens"])
    given["disk_budget"] = number(given["disk_budget"]) if given["disk_budget"] else None
    given["components"] = tuple(label.strip() for label in given["components"].split(",") if label.strip())
    given["classes"] = tuple(given["classes"] or ())
    return RunConfig(**given)


def engine_of(name: str, workers: int, address: str | None, chunks_per_piece: int) -> Any:
    """What reads the chunks; None for this process.

    Raises:
        ProfilerError: workers are asked for without Ray, or Ray is not installed.
    """
    if name == "ray":
        from profiler.recording.ray.engine import engine

        return engine(workers, address, chunks_per_piece)
    if workers > 1 or address:
        raise ProfilerError("--workers and --address belong to --engine ray: add it")
    return None


def demo(
    out: Annotated[Path, typer.Option(help="the run file to write")] = DEMO_RUN,
    tokens: Annotated[str, typer.Option(help="how many tokens of the bundled corpus to read")] = str(DEMO_TOKENS),
    overwrite: Annotated[bool, typer.Option(help="replace a run at --out (demo.duckdb is always replaced)")] = False,
) -> None:
    """Record the bundled model over the bundled corpus, and make the overview page. No network is used.

    Example: profiler demo
    """
    from profiler.database.query import run as run_query
    from profiler.pages.build import build, write

    config = RunConfig(
        model="bundled",
        corpora=("stdlib",),
        tokens=number(tokens),
        context_length=DEMO_CONTEXT,
        windows_per_document=DEMO_WINDOWS,
    )
    run_pass(config, out, overwrite or out == DEMO_RUN)
    page = write(out.with_name(f"{out.stem}-overview.html"), build(out, "overview"))
    best = run_query(out, "component_overview", kind="head", top=1)["component"][0]
    console.print(f"run     {out}\nreport  {page}\n\nNext:")
    console.print(
        f"  profiler report {out} component --component {best}\n  profiler query {out} quantile_samples --set"
        f" component={best}\n  profiler info {out}"
    )


def run_pass(config: RunConfig, out: Path, overwrite: bool, resume: bool = False, **how: Any) -> None:
    """Load, forecast, record with a progress bar, and say what was written.

    Args:
        how: what else profiler.recording.pipeline.record takes.
    """
    from profiler.model.load import load_model
    from profiler.recording.forecast import forecast, trial, within_budget
    from profiler.recording.pipeline import record as record_run
    from profiler.recording.write import refuse_bad_place
    from profiler.text.corpus import check

    quiet()
    refuse_bad_place(out, overwrite=overwrite, resume=resume)
    check(config)
    with console.status(f"loading {config.model}"):
        loaded = load_model(config)
        config, lowered = within_budget(config, loaded.spec)
        ahead = forecast(config, loaded.spec, trial(loaded, config))
    spec = loaded.spec
    console.print(
        f"{config.model}: {spec.n_layers} layers of {spec.n_heads} heads and {spec.d_mlp:,} neurons,"
        f" {spec.n_components:,} components"
    )
    for note in spec.notes:
        console.print(f"  note: {note}", markup=False)
    console.print(
        f"forecast: about {ahead.bytes / 1e6:,.0f} MB and {ahead.seconds / 60:.1f} min for {config.tokens or 'all'}"
        " tokens"
    )
    if config.token_sums == "all":
        console.print(
            f"  sums per token of every component: {ahead.token_memory / 1e9:,.2f} GB of memory during the pass"
        )
    for change in lowered:
        console.print(f"  to stay within the disk budget: {change}")
    with bar() as progress:
        task = progress.add_task("recording", total=config.tokens, rate="")

        def show(now: Any) -> None:
            rate = f"{now.tokens / max(now.seconds, 1e-9):,.0f} tokens/s"
            progress.update(task, completed=now.tokens, description=now.stage, rate=rate)

        with stoppable(out):
            outcome = record_run(config, out, model=loaded, overwrite=overwrite, resume=resume, report=show, **how)
    if outcome.before:
        console.print(f"{out} is finished already: nothing was left to do")
    done = outcome.progress
    console.print(
        f"{done.tokens:,} tokens of {done.documents:,} documents in {done.seconds:.0f} s,"
        f" {done.tokens / done.seconds:,.0f} tokens/s; {outcome.bytes / 1e6:,.1f} MB; parts add up to the logits within"
        f" {outcome.closure.residual:.1e} of {outcome.closure.scale:.1f}"
    )
    losses.say(out, console)


@contextmanager
def stoppable(out: Path) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into a sentence that says what is kept and how to go on.

    Whatever error a library makes of the interruption (DuckDB, when it is asked while it runs, an error of its own), it
    is the interruption that ended the work.

    Raises:
        Stopped: one of them came.
    """
    came: list[int] = []

    def stop(number: int, _: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except BaseException as error:
        if not came and not isinstance(error, KeyboardInterrupt):
            raise
        raise Stopped(f"stopped; {_left(out)}", 128 + (came or [signal.SIGINT])[0]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: it was set outside of Python


def _left(out: Path) -> str:
    """What there is of a run whose pass was stopped."""
    from profiler.behaviours.additions import unfinished
    from profiler.database.commits import describe

    if kept := describe(out, ending=True):
        return kept
    lacking = out.exists() and unfinished(out)
    return f"{out} is whole; {lacking}" if lacking else "nothing was committed yet and nothing is left behind"


def bar() -> Progress:
    """A progress bar with tokens/s and time left."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:,.0f} tokens"),
        TextColumn("{task.fields[rate]}", markup=False),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console)


def quiet() -> None:
    """Keep the libraries' own progress bars and advice off the screen."""
    import logging

    import datasets
    import transformers

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("transformer_lens").setLevel(logging.ERROR)
