"""What a run lost of its corpus, said with its outcome: rows, characters and files, each with its share and what it is.

A share of rows is of all rows that were read, a share of characters is per 100 tokens. Above LOUD a line is a
warning. What the user asked for (a limit, some windows) and positions that stand apart are not losses: `profiler info`
has them. Cost: one query.
"""

from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console

from profiler.database.query import run as run_query

LOUD = 0.02
WHOLE_PERCENTS = 0.1
"""Shares above this are said in whole per cents."""
NO_DOCUMENT = ("invalid_json", "ragged_rows", "no_text", "no_template")
"""Reasons for which a row became no document."""
OF_DOCUMENTS = (*NO_DOCUMENT, "no_roles", "no_positions", "repeated_texts")
OF_CHARACTERS = ("lone_surrogates", "undecodable")
OF_FILES = ("same_file", "other_files")
SQL = "SELECT drops.*, runs.n_documents, runs.n_tokens FROM drops, runs WHERE drops.n > 0 ORDER BY drops.reason"


def say(path: Path, console: Console) -> None:
    """Print a line for each loss of the run at `path`, warnings first; nothing where nothing was lost."""
    for text, loud in sorted(lines(run_query(path, SQL)), key=lambda line: not line[1]):
        console.print(f"  {text}", style="bold red" if loud else None, markup=False)


def lines(losses: pl.DataFrame) -> list[tuple[str, bool]]:
    """What to say of each loss, and whether loudly.

    Args:
        losses: reason, n, unit, note of each, with the run's n_documents and n_tokens.
    """
    rows = losses.to_dicts()
    n_rows = sum(row["n"] for row in rows if row["reason"] in NO_DOCUMENT) + (rows[0]["n_documents"] if rows else 0)
    told = []
    for row in rows:
        if row["reason"] in OF_DOCUMENTS:
            share, of = row["n"] / max(1, n_rows), f"of {n_rows:,} rows"
        elif row["reason"] in OF_CHARACTERS:
            share, of = row["n"] / max(1, row["n_tokens"]), "per 100 tokens"
        elif row["reason"] in OF_FILES:
            share, of = 0.0, ""
        else:
            continue
        told.append((_line(row, share, of), share > LOUD))
    return told


def _line(row: dict[str, Any], share: float, of: str) -> str:
    unit = row["unit"].removesuffix("s") if row["n"] == 1 else row["unit"]
    percent = f"{100 * share:.0f}" if share > WHOLE_PERCENTS else f"{100 * share:.2g}"
    amount = "" if not of else f" ({percent} {of})" if of.startswith("per") else f" ({percent} % {of})"
    return f"{'warning: ' if share > LOUD else ''}{row['n']:,} {unit}{amount}: {row['note']}"
