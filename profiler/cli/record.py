"""`profiler record` and `profiler demo`."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

import profiler
from profiler.cli import options
from profiler.cli.terminal import losses
from profiler.cli.terminal.commands import Open, offer, say_next
from profiler.cli.terminal.console import asides, console
from profiler.cli.terminal.libraries import quiet
from profiler.cli.terminal.progress import token_bar
from profiler.config import RunConfig
from profiler.errors import Stopped

RENAMED = {
    "corpus": "corpora",
    "samples": "samples_per_stratum",
    "bos": "prepend_bos",
    "class_": "classes",
    "dictionary": "dictionaries",
}
NO_SETTINGS = (
    "out",
    "overwrite",
    "resume",
    "commit_every",
    "engine",
    "workers",
    "address",
    "chunks_per_piece",
)
DEFAULT_TOKENS = "100k"
"""Of `record`: minutes on a processor, and enough for the commonest behaviours."""
LONGER = 10
"""How many times as long the pass is that is offered next."""
DEMO_RUN = Path("demo.duckdb")
DEMO_TOKENS = 300_000
DEMO_CONTEXT, DEMO_WINDOWS = 256, 4  # a few windows of many documents: intervals rest on documents


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(demo)
    app.command()(record)


def record(
    *,
    model: options.ModelName,
    base: options.Base = None,
    corpus: options.Corpora,
    out: options.Out,
    tokens: options.Tokens = DEFAULT_TOKENS,
    text_field: options.TextField = "text",
    id_field: options.IdField = "id",
    domain_field: options.DomainField = None,
    components: options.Components = "",
    layers: options.Layers = None,
    kinds: options.Kinds = "",
    select: options.Select = None,
    dictionary: options.Dictionaries = None,
    features: options.Features = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    device_map: options.DeviceMap = None,
    dtype: options.DType = "float32",
    context_length: options.ContextLength = None,
    windows_per_document: options.WindowsPerDocument = None,
    batch_size: options.BatchSize = 16,
    batch_memory: options.BatchMemory = None,
    disk_budget: options.DiskBudget = None,
    memory_limit: options.MemoryLimit = None,
    dense_positions: options.DensePositions = None,
    samples: options.Samples = None,
    extremes: options.Extremes = 10,
    token_sums: options.TokenSums = "heads",
    effects: options.Effects = "none",
    effect_method: options.EffectMethod = "gradient",
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
    """Record activation and DLA statistics of every head and neuron over a corpus, in a single pass, into a run file.

    Example: profiler record bundled --corpus stdlib --tokens 300k --out run.duckdb
    """
    config = config_of(locals())
    run_pass(
        config,
        out,
        overwrite=overwrite,
        resume=resume,
        commit_seconds=commit_every,
        engine=engine,
        workers=workers,
        address=address,
        chunks_per_piece=chunks_per_piece,
    )
    _say_more(config, out)
    say_next(("info", out), ("query", out, "component_overview"), ("report", out, "overview"))


def _say_more(config: RunConfig, out: Path) -> None:
    """Where the pass ended at --tokens, how a longer one is made and about how long it takes."""
    with profiler.open(out) as run:
        read, seconds = run.info["n_tokens"], run.info["seconds"]
    if config.tokens is None or read < config.tokens:
        return
    longer = LONGER * config.tokens
    asides.print(
        f"The pass ended at --tokens. {longer:,} tokens, for narrower intervals, would take about"
        f" {seconds / read * longer / 60:.0f} min: the same command with --tokens {longer} and another --out."
    )


def config_of(given: dict[str, Any]) -> RunConfig:
    """The configuration of `record`'s options, under the names of RunConfig and with counts read."""
    given = {RENAMED.get(name, name): value for name, value in given.items() if name not in NO_SETTINGS}
    given["tokens"] = options.number_or_all(given["tokens"])
    for name in ("batch_memory", "disk_budget", "memory_limit"):
        given[name] = options.number(given[name]) if given[name] else None
    for name in ("components", "kinds"):
        given[name] = options.labels(given[name])
    given["select"] = options.labels_of_file(given["select"])
    for name in ("classes", "dictionaries"):
        given[name] = tuple(given[name] or ())
    return RunConfig(**given)


def demo(
    *,
    out: Annotated[Path, typer.Option(help="the run file to write")] = DEMO_RUN,
    tokens: Annotated[str, typer.Option(help="how many tokens of the bundled corpus to read")] = str(DEMO_TOKENS),
    overwrite: Annotated[bool, typer.Option(help="replace a run at --out (demo.duckdb is always replaced)")] = False,
    open_: Open = False,
) -> None:
    """Record the bundled model over the bundled corpus, and make the overview page. No network is used.

    Example: profiler demo
    """
    config = RunConfig(
        model="bundled",
        corpora=("stdlib",),
        tokens=options.number_or_all(tokens),
        context_length=DEMO_CONTEXT,
        windows_per_document=DEMO_WINDOWS,
    )
    run_pass(config, out, overwrite=overwrite or out == DEMO_RUN)
    with profiler.open(out) as run:
        page = run.report("overview").path
        best = run.query("component_overview", kind="head", top=1)["component"][0]
    console.print(f"run     {out}")
    offer(page, opened=open_)
    say_next(
        ("report", out, "component", "--component", best),
        ("query", out, "quantile_samples", "--set", f"component={best}"),
        ("info", out),
    )


def run_pass(config: RunConfig, out: Path, **options_of_pass: Any) -> None:
    """Record with a forecast and a progress bar, and print what was written.

    Args:
        options_of_pass: as of `profiler.record`.
    """
    quiet()
    loading, progress = asides.status(f"loading {config.model}"), token_bar()
    task = progress.add_task("recording", total=config.tokens, rate="")

    def announce(ahead: Any) -> None:
        loading.stop()
        _print_forecast(ahead)
        progress.start()

    def show(now: Any) -> None:
        rate = f"{now.tokens / max(now.seconds, 1e-9):,.0f} tokens/s"
        progress.update(task, completed=now.tokens, description=now.stage, rate=rate)

    loading.start()
    try:
        with stoppable(out):
            outcome = profiler.record(config, out, announce=announce, report=show, **options_of_pass)
    finally:
        loading.stop()
        progress.stop()
    if outcome.before:
        console.print(f"{out} is finished: nothing was left to do")
    done = outcome.progress
    console.print(
        f"{done.tokens:,} tokens of {done.documents:,} documents in {done.seconds:.0f} s,"
        f" {done.tokens / done.seconds:,.0f} tokens/s; {outcome.bytes / 1e6:,.1f} MB; all DLA add up to the logits"
        f" within {outcome.closure.residual:.1e} (largest logit {outcome.closure.scale:.1f})"
    )
    if config.layers or config.kinds or config.select:
        console.print(f"the recorded components carry {outcome.carried:.1%} of the centred logit of the next token")
    losses.say(out, console)


def _print_forecast(ahead: Any) -> None:
    """The model, what the pass will take, and what a disk budget lowered."""
    spec, forecast, config = ahead.spec, ahead.forecast, ahead.config
    which = "" if ahead.n_recorded == spec.n_components else f", of which {ahead.n_recorded:,} are recorded"
    asides.print(f"{config.model}: {spec.described()}, {spec.n_components:,} components{which}")
    asides.print(
        f"  kept of each component: its values at {config.dense_positions:,} positions,"
        f" {config.samples_per_stratum} samples a stratum"
    )
    for note in spec.notes:
        asides.print(f"  note: {note}", markup=False)
    asides.print(
        f"forecast: about {forecast.bytes / 1e6:,.0f} MB, {forecast.seconds / 60:.1f} min and"
        f" {forecast.memory / 1e9:,.1f} GB of memory for {f'{config.tokens:,}' if config.tokens else 'all'} tokens"
    )
    console.print(f"  {forecast.batch.sentence}")
    if ahead.spec.dictionaries:
        share = forecast.time["dictionaries"] / (forecast.seconds or 1.0)
        console.print(
            f"  of that time {share:.0%} is for the encoders and decoders of dictionaries, whichever units are kept"
        )
    if config.token_sums == "all":
        asides.print(
            f"  sums per token of every component: {forecast.token_memory / 1e9:,.2f} GB of memory during the pass"
        )
    for change in ahead.lowered:
        asides.print(f"  to stay within the budget of disk or memory: {change}")


@contextmanager
def stoppable(out: Path) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into a sentence that says what is kept and how to go on.

    Whatever error a library makes of the interruption (DuckDB, when it is asked while it runs, an error of its own), it
    is the interruption that ended the work.

    Raises:
        Stopped: one of them came.
    """
    received: list[int] = []

    def stop(number: int, _: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except BaseException as error:
        if not received and not isinstance(error, KeyboardInterrupt):
            raise
        raise Stopped(f"stopped; {_left(out)}", 128 + (received or [signal.SIGINT])[0]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: it was set outside of Python


def _left(out: Path) -> str:
    """What there is of a run whose pass was stopped."""
    from profiler.behaviours.additions import unfinished
    from profiler.database.pass_commits import abandon, describe

    if commit := describe(out, ending=True):
        return commit
    abandon(out)
    lacking = out.exists() and unfinished(out)
    return f"{out} is whole; {lacking}" if lacking else "nothing was committed yet, and nothing is left behind"
