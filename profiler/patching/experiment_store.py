"""Experiments and circuits into a run file, or into a file of their own.

Why: the causal side lives beside the corpus statistics, so that one query can ask both. An experiment is written in one
transaction: a run is never left with half of one. Without a corpus run, a run file without documents is made, so that
the same commands open it. Cost: the size of the tables; a second writer is told so at once, before anything is
computed.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from duckdb import DuckDBPyConnection

from profiler.database import connections, faults
from profiler.database.assets import PACKAGE
from profiler.database.comments import comment_statements
from profiler.database.transaction import writing
from profiler.errors import RunError
from profiler.model.load import Model
from profiler.recording import tables
from profiler.recording.write import Store
from profiler.text.token_classes import special_ids, token_classes, token_texts

TABLES = (
    "patch_experiments",
    "patch_pairs",
    "patch_checks",
    "patch_effects",
    "patch_shares",
    "patch_gates",
    "patch_downstream",
    "patch_interactions",
    "patch_saturation",
    "patch_attribution",
    "patch_reliability",
    "patch_recall",
    "patch_cells",
    "patch_factors",
    "patch_paths",
    "circuits",
    "circuit_members",
    "circuit_edges",
    "circuit_scores",
    "circuit_curve",
    "circuit_fractions",
    "circuit_random",
)
BESIDE = ("patch_paths",)
"""Tables that are not of one experiment alone: what it writes again leaves them."""


def text() -> str:
    """causal.sql with the six columns, which it names once, in every table that says SIX."""
    sql = (PACKAGE / "database" / "causal.sql").read_text(encoding="utf-8")
    six = "\n".join(f"    {line}" for line in re.findall(r"^--\| (.+)$", sql, re.MULTILINE))
    return sql.replace("\n    SIX\n", f"\n{six}\n")


ADDED = {
    "patch_experiments": ("metric", "metric_words", "metric_unit", "selected_by"),
    "circuits": ("granularity",),
}
"""Columns that earlier versions did not write, all text."""


def causal_sql() -> str:
    """The statements that add tables, columns and views where they are missing."""
    tables, views = _statements().split("-- View: patches\n", 1)
    added = "".join(
        f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {column} VARCHAR;\n"
        for table, columns in ADDED.items()
        for column in columns
    )
    return f"{tables}{added}-- View: patches\n{views}"


def _statements() -> str:
    return (
        text()
        .replace("CREATE MACRO", "CREATE OR REPLACE MACRO")
        .replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS")
        .replace("CREATE VIEW", "CREATE OR REPLACE VIEW")
    )


@contextmanager
def ready(path: Path, model: Model) -> Iterator[None]:
    """Prepare `path` for results: create it if it is not there, and check that it is a run of this model.

    A file that was created is removed again if nothing comes to be written.

    Raises:
        RunError: the path cannot be written, another process writes it, it is no run, or a run of another model.
    """
    created = not path.exists()
    if created:
        _create(path, model)
    try:
        _check_model(path, model)
        yield
    except BaseException:
        if created:
            path.unlink(missing_ok=True)
        raise


def _check_model(path: Path, model: Model) -> None:
    with writing(path) as connection:
        row = connection.execute("SELECT model, model_hash FROM runs").fetchone()
    if row is None or row[1] != model.spec.weights_hash:
        was = row[0] if row else "nothing"
        raise RunError(
            f"{path} is a run of {was!r}, whose weights are not those of {model.spec.name!r}: name that model with "
            "--model, or write to another file"
        )


def write(path: Path, experiment: str, frames: dict[str, pl.DataFrame]) -> None:
    """Write an experiment's tables, replacing what it wrote before.

    Raises:
        RunError: see `writing`.
    """
    with writing(path) as connection:
        _ready_tables(connection)
        for table in TABLES:
            if table not in BESIDE:
                connection.execute(f"DELETE FROM {table} WHERE experiment = ?", [experiment])
        for table, frame in frames.items():
            _insert(connection, table, experiment, frame)
    with faults.faults_told(f"closing {path}", "What was written is in it."), connections.writing(path) as connection:
        connection.execute("CHECKPOINT")


def write_paths(path: Path, experiment: str, frame: pl.DataFrame) -> None:
    """Write rows of `patch_paths`, replacing the same paths of the same settings.

    Raises:
        RunError: see `writing`.
    """
    with writing(path) as connection:
        _ready_tables(connection)
        for name, positions, metric in frame.select("path", "positions", "measured_by").unique().rows():
            connection.execute(
                "DELETE FROM patch_paths WHERE experiment = ? AND path = ? AND positions = ? AND measured_by = ?",
                [experiment, name, positions, metric],
            )
        _insert(connection, "patch_paths", experiment, frame)


def _ready_tables(connection: DuckDBPyConnection) -> None:
    """Tables and views with their comments, where they are missing."""
    connection.execute(causal_sql())
    for statement in comment_statements(text()):
        connection.execute(statement)


def _insert(connection: DuckDBPyConnection, table: str, experiment: str, frame: pl.DataFrame) -> None:
    if not frame.height:
        return
    connection.register("rows_to_write", frame.with_columns(pl.lit(experiment).alias("experiment")).to_arrow())
    connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM rows_to_write")
    connection.unregister("rows_to_write")


def _create(path: Path, model: Model) -> None:
    """A run file of the model without documents."""
    spec = model.spec
    row = {
        "run_id": f"patching-{spec.weights_hash[:8]}",
        "created": now(),
        "model": spec.name,
        "model_hash": spec.weights_hash,
        "tokenizer_hash": spec.tokenizer_hash,
        "architecture": spec.architecture,
        "n_layers": spec.n_layers,
        "n_heads": spec.n_heads,
        "d_mlp": spec.d_mlp,
        "d_model": spec.d_model,
        "n_vocab": spec.n_vocab,
        "config": json.dumps({"model": spec.name, "corpora": []}),
        "versions": "{}",
        "model_card": spec.card,
        "model_notes": list(spec.notes),
        "n_documents": 0,
        "n_tokens": 0,
        "n_positions": 0,
        "n_special": 0,
        "seconds": 0.0,
        "tokens_per_second": 0.0,
        "closure_residual": 0.0,
        "closure_scale": 0.0,
        "logit_residual": 0.0,
        "peak_memory_bytes": 0,
        "complete": True,
    }
    with Store(path) as store:
        store.insert("components", tables.components(spec))
        store.insert("classes", tables.classes())
        store.insert("bins", tables.bins())
        store.insert("tokens", _tokens(model))
        store.insert("vocabulary", pl.DataFrame({"tokens": [_tokens(model)["token"].to_list()]}))
        store.insert("runs", pl.DataFrame([row]))
        store.finish()


def _tokens(model: Model) -> pl.DataFrame:
    texts = token_texts(model.tokenizer, model.spec.n_vocab)
    classes = token_classes(texts, special_ids(model.tokenizer))
    return pl.DataFrame({"token_id": range(len(texts)), "token": texts, "class_id": classes})


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
