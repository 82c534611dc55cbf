"""`profiler record` and `profiler demo`."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from profiler.config import RunConfig
from profiler.errors import ProfilerError, Stopped

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
DEMO_TOKENS = 300_000
DEMO_CONTEXT, DEMO_WINDOWS = 256, 4  # a few windows of many documents: intervals rest on documents
console = Console(soft_wrap=True, highlight=False)


def number(text: str) -> int:
    """A count such as 300000, 300k, 1.5M or 2GB.

    Raises:
        ProfilerError: it is none.
    """
    match = re.fullmatch(r"([0-9_.]+)\s*([kmgt]?)b?", text.strip().lower())
    try:
        return int(float(match[1]) * UNITS[match[2]]) if match else int("")
    except ValueError:
        raise ProfilerError(f"{text!r} is no count: write it as 300000, 300k, 1.5M or 2GB") from None


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(demo)
    app.command()(record)


def record(
    model: Annotated[str, typer.Argument(help="bundled, a Hugging Face name, or a local directory")],
    corpus: Annotated[
        list[str],
        typer.Option(
            help="stdlib, files (.txt .jsonl .json .parquet, globs too) or hf:name[:config][:split]; name=... names the domain; may be repeated"
        ),
    ],
    out: Annotated[Path, typer.Option(help="the run file to write")],
    tokens: Annotated[str, typer.Option(help="stop after this many tokens (300k, 1M); all reads everything")] = "1M",
    text_field: Annotated[str, typer.Option(help="field that holds the text")] = "text",
    id_field: Annotated[str, typer.Option(help="field that holds the document's id")] = "id",
    domain_field: Annotated[str | None, typer.Option(help="field that names the document's domain")] = None,
    components: Annotated[str, typer.Option(help="heads and neurons to record at every position, as L2H3,L0N17")] = "",
    seed: Annotated[int, typer.Option(help="seed of the order of documents and of the samples")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps")] = "cpu",
    dtype: Annotated[
        Literal["float32", "float64", "bfloat16", "float16"], typer.Option(help="dtype the model runs in")
    ] = "float32",
    context_length: Annotated[
        int | None, typer.Option(help="tokens per window, BOS included; default: the model's, at most 1024")
    ] = None,
    windows_per_document: Annotated[
        int | None, typer.Option(help="read this many random windows of each document instead of all")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="windows per forward pass")] = 16,
    disk_budget: Annotated[
        str | None, typer.Option(help="largest run file (500MB); sampled rows are lowered to meet it")
    ] = None,
    dense_positions: Annotated[int, typer.Option(help="random positions at which every component is kept")] = 1024,
    samples: Annotated[int, typer.Option(help="random examples kept per component and stratum of activation")] = 4,
    extremes: Annotated[int, typer.Option(help="extremes kept per component, measure and side")] = 10,
    token_sums: Annotated[
        Literal["heads", "all", "none"],
        typer.Option(
            help="components with sums per token id, for exact splits by any class (with those of --components)"
        ),
    ] = "heads",
    class_: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="NAME=CONDITION",
            help="a token class of your own, SQL over text, body, token_id and class; may be repeated",
        ),
    ] = None,
    replicate_groups: Annotated[int, typer.Option(help="groups of documents per domain, for standard errors")] = 8,
    bos: Annotated[
        bool | None,
        typer.Option("--bos/--no-bos", help="put a BOS before every window; default: where the tokenizer has one"),
    ] = None,
    shuffle_buffer: Annotated[int, typer.Option(help="documents held to shuffle")] = 10_000,
    trust_remote_code: Annotated[bool, typer.Option(help="run code that comes with the model or the dataset")] = False,
    allow_pickle: Annotated[
        bool, typer.Option(help="load weights that are not safetensors (they can run code)")
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="replace the run file if it exists")] = False,
) -> None:
    """Stream a corpus through a model once; leave every neuron's and head's activation and DLA statistics in a run file.

    Example: profiler record bundled --corpus stdlib --tokens 300k --out run.duckdb
    """
    config = RunConfig(
        model=model, corpora=tuple(corpus), tokens=None if tokens == "all" else number(tokens), text_field=text_field, id_field=id_field,
        domain_field=domain_field, components=tuple(c.strip() for c in components.split(",") if c.strip()), seed=seed, device=device,
        dtype=dtype, context_length=context_length, windows_per_document=windows_per_document, batch_size=batch_size, disk_budget=number(disk_budget) if disk_budget else None,
        dense_positions=dense_positions, samples_per_stratum=samples, extremes=extremes, replicate_groups=replicate_groups,
        token_sums=token_sums, classes=tuple(class_ or ()), prepend_bos=bos, shuffle_buffer=shuffle_buffer, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle,
    )  # fmt: skip
    run_pass(config, out, overwrite)
    console.print(
        f"\nNext:\n  profiler info {out}\n  profiler query {out} component_overview\n  profiler report {out} overview"
    )


def demo(
    out: Annotated[Path, typer.Option(help="the run file to write")] = Path("demo.duckdb"),
    tokens: Annotated[str, typer.Option(help="how many tokens of the bundled corpus to read")] = str(DEMO_TOKENS),
) -> None:
    """Record the bundled model over the bundled corpus, and make the overview page. No network is used.

    Example: profiler demo
    """
    from profiler.query import run as run_query
    from profiler.report import build, write

    config = RunConfig(
        model="bundled",
        corpora=("stdlib",),
        tokens=number(tokens),
        context_length=DEMO_CONTEXT,
        windows_per_document=DEMO_WINDOWS,
    )
    run_pass(config, out, overwrite=True)
    page = write(out.with_name(f"{out.stem}-overview.html"), build(out, "overview"))
    best = run_query(out, "component_overview", kind="head", top=1)["component"][0]
    console.print(f"run     {out}\nreport  {page}\n\nNext:")
    console.print(
        f"  profiler report {out} component --component {best}\n  profiler query {out} quantile_samples --set component={best}\n  profiler info {out}"
    )


def run_pass(config: RunConfig, out: Path, overwrite: bool) -> None:
    """Load, forecast, record with a progress bar, and say what was written."""
    from profiler.forecast import forecast, trial, within_budget
    from profiler.model import load_model
    from profiler.pipeline import record as record_run
    from profiler.store import refuse_bad_place

    quiet()
    refuse_bad_place(out, overwrite)
    with console.status(f"loading {config.model}"):
        loaded = load_model(config)
        config, lowered = within_budget(config, loaded.spec)
        ahead = forecast(config, loaded.spec, trial(loaded, config))
    spec = loaded.spec
    console.print(
        f"{config.model}: {spec.n_layers} layers of {spec.n_heads} heads and {spec.d_mlp:,} neurons, {spec.n_components:,} components"
    )
    console.print(
        f"forecast: about {ahead.bytes / 1e6:,.0f} MB and {ahead.seconds / 60:.1f} min for {config.tokens or 'all'} tokens"
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

        try:
            outcome = record_run(config, out, model=loaded, overwrite=overwrite, report=show)
        except KeyboardInterrupt:
            raise Stopped("stopped; nothing half-written was left behind") from None
    done = outcome.progress
    console.print(
        f"{done.tokens:,} tokens of {done.documents:,} documents in {done.seconds:.0f} s, {done.tokens / done.seconds:,.0f} tokens/s; "
        f"{outcome.bytes / 1e6:,.1f} MB; parts add up to the logits within {outcome.closure.residual:.1e} of {outcome.closure.scale:.1f}"
    )


def bar() -> Progress:
    """A progress bar with tokens/s and time left."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} tokens"),
        TextColumn("{task.fields[rate]}"),
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
