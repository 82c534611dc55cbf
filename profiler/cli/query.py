"""`profiler query` and `profiler info`: what is in a run."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
import typer
from rich.table import Table
from rich.text import Text

import profiler
from profiler.cli import options
from profiler.cli.terminal.commands import AsJson, write_json
from profiler.cli.terminal.console import console, readable, write
from profiler.cli.terminal.output import to_bytes
from profiler.database import query as queries
from profiler.database.query_header import parse_header
from profiler.errors import QueryError
from profiler.pages.method import sizes_of
from profiler.results import RunSummary
from profiler.text.shards import incomplete_run

DICTIONARY_COLUMNS = (
    "units",
    "form",
    "n_recorded",
    "dead",
    "variance_explained",
    "active_units",
    "error_share",
    "loss",
    "loss_added",
    "loss_recovered",
    "n_spliced",
)
"""What `profiler info` shows of query dictionaries."""
Format = Literal["table", "csv", "json", "parquet"]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(query)
    app.command()(info)


def query(
    *,
    run: Annotated[Path | None, typer.Argument(help="a run that `profiler record` wrote")] = None,
    name: Annotated[
        str | None,
        typer.Argument(help="a query of --list, a .sql file of your own, SQL in quotes, or - for standard input"),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="K=V", help="value of a parameter; may be repeated")
    ] = None,
    format: Annotated[Format | None, typer.Option(help="default: by the ending of --out, else table")] = None,
    out: Annotated[Path | None, typer.Option(help="file to write instead of standard output")] = None,
    sql: Annotated[bool, typer.Option("--sql", help="print the SQL instead of running it")] = False,
    list_: Annotated[bool, typer.Option("--list", help="print the queries that come with the profiler")] = False,
) -> None:
    """Run a query on a run.

    Example: profiler query run.duckdb extremes --set component=L2H3 --format csv
    """
    if list_:
        return _print_list()
    if run is None or name is None:
        raise QueryError(
            "a run and a query are needed, such as profiler query run.duckdb component_overview; profiler query --list"
            " lists the queries"
        )
    text = _text(name)
    if sql:
        return write(text.rstrip() + "\n")
    chosen = format or _format_of(out)
    if chosen == "parquet" and out is None and sys.stdout.isatty():
        raise QueryError("parquet is not text: add --out FILE")
    with profiler.open(run) as opened:
        frame = opened.sql(text, **_settings(set_ or [], typed=parse_header(text) is not None))
    _write(to_bytes(frame, chosen), out)


def _text(name: str) -> str:
    if name == "-":
        return sys.stdin.read()
    spelled = "_".join(name.split())
    return queries.find_text(spelled if spelled in queries.names() else name.strip())


def _settings(pairs: list[str], *, typed: bool) -> dict[str, object]:
    """Values of --set. SQL with a header says which are numbers (`typed`); otherwise what reads as a number is one."""
    settings: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip().isidentifier():
            raise QueryError(f"--set {pair!r} cannot be read: write --set name=value, such as --set component=L2H3")
        settings[name.strip()] = value if typed else _number_or_text(value)
    return settings


def _number_or_text(value: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def _format_of(out: Path | None) -> Format:
    endings: dict[str, Format] = {".csv": "csv", ".json": "json", ".parquet": "parquet"}
    return endings.get(out.suffix.lower(), "table") if out else "table"


def _write(data: bytes, out: Path | None) -> None:
    if out is None:
        return write(data)
    try:
        out.write_bytes(data)
    except OSError as error:
        raise QueryError(f"{out} cannot be written ({error.strerror}): give another --out") from None


def _print_list() -> None:
    table = Table("query", "question", "parameters", box=None, pad_edge=False)
    for name in queries.names():
        header = queries.header(name)
        parameters = ", ".join(p.name if p.required else f"[{p.name}]" for p in header.parameters)
        table.add_row(Text(name), Text(header.question), Text(parameters))
    console.print(table, soft_wrap=False)
    console.print("Parameters in brackets are optional. Set them with --set name=value.")


def info(
    *,
    run: options.RunFile,
    json_: AsJson = False,
) -> None:
    """Show what is in a run: model, corpus, speed, closure, sizes, and what was dropped.

    Example: profiler info run.duckdb
    """
    with profiler.open(run) as opened:
        summary = opened.summary()
    if json_:
        return write_json(_whole(summary))
    console.print(_facts(run, summary.facts), soft_wrap=False)
    if summary.unfinished:
        console.print(f"\nBehaviours are not in this run yet: {summary.unfinished}")
    _print_frame("Corpus", summary.corpus)
    if len(summary.dictionaries):
        _print_frame("Dictionaries", summary.dictionaries.select(DICTIONARY_COLUMNS))
    if not summary.unfinished:
        _print_frame("Tables", summary.sizes)
    _print_frame("Dropped, cut or left out", summary.drops)


def _whole(summary: RunSummary) -> dict[str, Any]:
    """Everything that is shown."""
    frames = {"corpus": summary.corpus, "tables": summary.sizes, "dropped": summary.drops}
    frames["dictionaries"] = summary.dictionaries
    rows = {name: frame.to_dicts() for name, frame in frames.items()}
    return {"run": dict(summary.facts), "unfinished": summary.unfinished or None} | rows


def _print_frame(title: str, frame: pl.DataFrame) -> None:
    console.print(f"\n{title}", style="bold")
    console.print(_table(frame) if len(frame) else "nothing", soft_wrap=False)


def _facts(run: Path, row: Mapping[str, Any]) -> Table:
    residuals, scale = (row["closure_residual"], row["logit_residual"]), row["closure_scale"]
    relative = f", {max(residuals) / scale:.1e} of it" if None not in residuals and scale else ""
    facts = {
        "run": f"{run}  {run.stat().st_size / 1e6:,.1f} MB, id {row['run_id']}, made {row['created']}",
        "model": (
            f"{row['model']}  {row['architecture']}, {sizes_of(row)}, width {row['d_model']:,}, vocabulary"
            f" {row['n_vocab']:,}"
        ),
        "model card": _card_summary(row["model_card"]),
        "note": "; ".join(row.get("model_notes") or ()),
        "tokens": f"{row['n_tokens']:,} of {row['n_documents']:,} documents",
        "shard": incomplete_run(row["config"]),
        "positions": f"{row['n_positions']:,} counted, {row['n_special']:,} special left out",
        "speed": (
            f"{row['tokens_per_second']:,.0f} tokens/s, {row['seconds']:,.1f} s, peak memory "
            f"{(row['peak_memory_bytes'] or 0) / 1e9:,.2f} GB"
        ),
        "closure": (
            f"largest residual {_number(residuals[0])} logits for the sum of all DLA, {_number(residuals[1])} against "
            f"the model's own logit; largest target logit {_number(scale)}{relative}"
        ),
    }
    table = Table.grid(padding=(0, 2))
    for name, text in facts.items():
        if text:
            table.add_row(Text(name, "bold"), Text(readable(text)))
    return table


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"


def _card_summary(card: str | None) -> str:
    """The card's first paragraph that is no heading and no front matter."""
    body = (card or "").split("---\n", 2)[-1] if (card or "").startswith("---\n") else card or ""
    paragraphs = [p.strip().replace("\n", " ") for p in body.split("\n\n")]
    return next((p for p in paragraphs if p and not p.startswith(("#", "|", "```"))), "")[:400]


def _table(frame: pl.DataFrame) -> Table:
    table = Table(box=None, pad_edge=False)
    for name, dtype in frame.schema.items():
        table.add_column(name, justify="right" if dtype.is_numeric() else "left", overflow="fold")
    for row in frame.iter_rows():
        table.add_row(*[Text(f"{v:,}" if isinstance(v, int) else readable(str(v))) for v in row])
    return table
