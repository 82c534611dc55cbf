"""A pass over a small corpus, and what it should find there: settings, tables as frames, raw rows of what is
recorded."""

import hashlib
import json
from pathlib import Path

import duckdb
import polars as pl
import tiny

from profiler.config import RunConfig
from profiler.recording.pipeline import record

RECORDED = ("L1H1", "L0N3")
SAMPLES, EXTREMES, DENSE, GROUPS, CONTEXT = 3, 4, 30, 4, 24


def corpus_rows() -> list[dict]:
    """Documents of 0 to 45 words in two topics, some with a special token inside, one without text."""
    rows = [
        {"id": f"doc-{i}", "text": tiny.text(100 + i, 1 + (i * 7) % 45), "topic": "ab"[i % 3 == 0]} for i in range(30)
    ]
    for i in (3, 11, 12):
        rows[i]["text"] = f"one {tiny.END} two {tiny.END}{tiny.END} three"
    rows[20]["text"] = ""
    rows[21]["text"] = "x"
    return rows


def write_rows(file: Path, rows: list[dict]) -> Path:
    file.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return file


def settings(model: Path, corpus: Path, **changes) -> RunConfig:
    fields = {
        "model": str(model),
        "corpora": (str(corpus),),
        "tokens": None,
        "domain_field": "topic",
        "context_length": CONTEXT,
        "batch_size": 4,
        "seed": 5,
        "dense_positions": DENSE,
        "samples_per_stratum": SAMPLES,
        "extremes": EXTREMES,
        "replicate_groups": GROUPS,
        "components": RECORDED,
        "dtype": "float64",
    }
    return RunConfig(**fields | changes)


def run(folder: Path, config: RunConfig, name: str = "run") -> "Tables":
    path = folder / f"{name}.duckdb"
    record(config, path)
    return Tables(path)


class Tables:
    """A run's tables as frames."""

    def __init__(self, path: Path):
        with duckdb.connect(str(path), read_only=True) as connection:
            self.names = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
            self.frames = {name: pl.from_arrow(connection.sql(f"FROM {name}").to_arrow_table()) for name in self.names}

    def __getitem__(self, name: str) -> pl.DataFrame:
        return self.frames[name]

    def of(self, name: str, label: str) -> pl.DataFrame:
        """Rows of one component."""
        number = self["components"].filter(pl.col("component") == label)["component_id"].item()
        return self[name].filter(pl.col("component_id") == number)

    def drops(self) -> dict[str, int]:
        return dict(self["drops"].select("reason", "n").iter_rows())


def raw_rows(tables: Tables, label: str) -> pl.DataFrame:
    """Every position of a recorded component, with all its properties from the base tables."""
    next_class = tables["tokens"].select(next_token_id="token_id", next_class="class_id")
    documents = (
        tables["documents"].join(tables["domains"], on="domain").select("doc_id", "group_id", "domain_id", "source")
    )
    rows = tables.of("recorded_rows", label).join(tables["position_rows"], on="position_id", validate="1:1")
    rows = rows.join(next_class, on="next_token_id").join(documents, on="doc_id").sort("position_id")
    return rows.with_columns(ordinary=pl.col("special").is_null())


def expected_documents() -> dict[str, list[int]]:
    encode = tiny.tokenizer()
    return {r["id"]: encode(r["text"])["input_ids"] for r in corpus_rows() if r["text"]}


# sampling keys, computed with Python's integers
U64 = 2**64 - 1


def hash64(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def splitmix(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & U64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & U64
    return value ^ (value >> 31)


def as_signed(value: int) -> int:
    value &= U64
    return value - 2**64 if value >= 2**63 else value


GOLDEN = 0x9E3779B97F4A7C15


def keys_by_position(rows: pl.DataFrame, corpus: Path) -> dict[int, int]:
    """The unsigned key of each position."""
    keys = {}
    for position, source in rows.select("position_id", "source").iter_rows():
        start = hash64(f"5\x00{corpus}:rows.jsonl:{source.removeprefix('doc-')}")
        keys[position] = splitmix(((position & (2**32 - 1)) + 1) * GOLDEN + start & U64)
    return keys
