"""Frames as bytes to print or to write: an aligned table for people, CSV, JSON and Parquet for programs.

A table is for people, and every cell and name in it is one line that can be seen (profiler.cli.terminal.console); CSV,
JSON and Parquet hold the values as they are.
"""

import io
import json

import polars as pl

from profiler.cli.terminal.console import readable

WIDEST = 60


def to_bytes(frame: pl.DataFrame, format: str) -> bytes:
    """The rows of `frame` as table, csv, json or parquet."""
    if format == "csv":
        return _flat(frame).write_csv().encode()
    if format == "json":
        return (frame.write_json() + "\n").encode()
    if format == "parquet":
        buffer = io.BytesIO()
        frame.write_parquet(buffer)
        return buffer.getvalue()
    return text_table(frame).encode()


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Lists and structs as JSON, which CSV cannot hold."""
    nested = [name for name, dtype in frame.schema.items() if dtype.is_nested()]
    columns = [
        pl.Series(
            name, [None if v is None else json.dumps(v, ensure_ascii=False, default=str) for v in frame[name].to_list()]
        )
        for name in nested
    ]
    return frame.with_columns(columns)


def text_table(frame: pl.DataFrame) -> str:
    """An aligned table; a cell longer than WIDEST characters is cut and ends in `…`, contexts keep both ends in
    sight."""
    if frame.width == 0:
        return "(no columns)\n"
    cells = [[_cell(value, name) for value in frame[name].to_list()] for name in frame.columns]
    names = [readable(name) for name in frame.columns]
    widths = [max([len(name), *map(len, column)]) for name, column in zip(names, cells, strict=True)]
    right = [dtype.is_numeric() for dtype in frame.dtypes]

    def line(values: list[str]) -> str:
        pairs = zip(values, widths, right, strict=True)
        return "  ".join(v.rjust(w) if r else v.ljust(w) for v, w, r in pairs).rstrip()

    lines = [
        line(names),
        line(["-" * w for w in widths]),
        *map(line, (list(row) for row in zip(*cells, strict=True))),
    ]
    count = f"({len(frame):,} row{'' if len(frame) == 1 else 's'})"
    return "\n".join([*lines, count]) + "\n"


def _cell(value: object, name: str) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = readable(str(value))
    if len(text) <= WIDEST:
        return text
    if name == "context_before":
        return "…" + text[1 - WIDEST :]
    return _around_mark(text) if "«" in text and name == "context" else text[: WIDEST - 1] + "…"


def _around_mark(text: str) -> str:
    start = max(0, text.index("«") - WIDEST // 2)
    piece = text[start : start + WIDEST]
    return ("…" if start else "") + piece + ("…" if start + WIDEST < len(text) else "")
