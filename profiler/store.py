"""The run file. The only writer of DuckDB.

A pass writes into `<out>.partial` and a staging file beside it; only a finished run is renamed to `<out>`, so nothing
half-written can be taken for a run. Positions and windows are staged as they stream by; at the end those that a sample,
extreme or dense row refers to are kept. Tables are sorted by component, so that one component's rows lie together.

Cost: staging takes about 80 bytes a position until the end; appending goes through Arrow, a table at a time.
"""

import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

import duckdb
import numpy as np
import polars as pl

from profiler.attribution import Closure
from profiler.behaviours import views as behaviour_views
from profiler.behaviours.properties import Property
from profiler.context import NO_COPY, Past
from profiler.errors import RunError
from profiler.store_comments import comment_statements
from profiler.windows import SPECIAL_CODES, Batch, Chunk

STORAGE_VERSION = "v1.2.0"
FOLDER = Path(__file__).parent
WRITE_ERRORS = (
    duckdb.IOException,
    duckdb.OutOfMemoryException,
    duckdb.TransactionException,
    duckdb.FatalException,
    OSError,
)
SPECIAL_NAMES = {code: name for name, code in SPECIAL_CODES.items() if name}
STAGING = """
CREATE TABLE staging.positions (position_id BIGINT, window_id BIGINT, doc_id BIGINT, pos BIGINT, "offset" INTEGER,
    token_id INTEGER, next_token_id INTEGER, class_id INTEGER, target_logit DOUBLE, special VARCHAR,
    previous_token_id INTEGER, distance INTEGER, prefix_match INTEGER, bracket_depth INTEGER, in_quotes BOOLEAN);
CREATE TABLE staging.windows (window_id BIGINT, doc_id BIGINT, start BIGINT, token_ids INTEGER[]);
"""
KEEP_REFERENCED = """
CREATE TEMP TABLE kept AS
    SELECT position_id FROM sample_rows UNION SELECT position_id FROM extreme_rows
    UNION SELECT position_id FROM dense_rows WHERE component_id = 0 UNION SELECT position_id FROM recorded_rows;
INSERT INTO position_rows
    SELECT p.position_id, p.window_id, p.doc_id, p.pos, p."offset", p.token_id, p.next_token_id, p.class_id, p.target_logit,
           o.loss, o.rank, o.entropy, p.special, p.previous_token_id, p.distance, p.prefix_match, p.bracket_depth,
           p.in_quotes, o.position_id IS NOT NULL
    FROM staging.positions p SEMI JOIN kept USING (position_id) LEFT JOIN outcomes o USING (position_id)
    ORDER BY p.position_id;
INSERT INTO windows
    SELECT w.* FROM staging.windows w SEMI JOIN position_rows USING (window_id) ORDER BY w.window_id;
DROP TABLE kept;
INSERT INTO pooled_strata
    SELECT component_id, bin, s.n, k.kept
    FROM (SELECT component_id, bin, sum(n) AS n FROM spectrum_counts
          WHERE class_id NOT IN (SELECT class_id FROM classes WHERE special) GROUP BY ALL) s
    JOIN (SELECT component_id, bin, count(*) AS kept FROM (
              SELECT component_id, bin FROM dense_rows
              UNION ALL SELECT component_id, bin FROM sample_rows JOIN position_rows USING (position_id) WHERE NOT dense
          ) GROUP BY ALL) k USING (component_id, bin)
    ORDER BY component_id, bin;
"""


def partial_path(path: Path) -> Path:
    """Where a run is written until it is finished."""
    return path.with_name(path.name + ".partial")


class Store:
    """A run being written. Use as a context manager: leaving it by an error removes what was written."""

    def __init__(self, path: Path, overwrite: bool = False):
        """Create the file.

        Raises:
            RunError: the run exists, the folder does not or cannot be written, or another process writes this run.
        """
        self.path, self.partial = path, partial_path(path)
        self.staging = path.with_name(path.name + ".staging.partial")
        refuse_bad_place(path, overwrite)
        self.connection: duckdb.DuckDBPyConnection | None = None
        try:
            self.connection = self._connect()
            self.connection.execute(f"ATTACH '{str(self.staging).replace(chr(39), chr(39) * 2)}' AS staging")
            self.connection.execute((FOLDER / "schema.sql").read_text(encoding="utf-8"))
            self.connection.execute(STAGING)
        except RunError:  # another pass may be writing there: its files stay
            raise
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise

    def _connect(self) -> duckdb.DuckDBPyConnection:
        try:
            for file in (self.partial, self.staging):
                _remove_unlocked(file)
            return duckdb.connect(str(self.partial), config={"storage_compatibility_version": STORAGE_VERSION})
        except duckdb.InterruptException:
            raise KeyboardInterrupt from None
        except (duckdb.Error, OSError) as error:
            raise RunError(
                f"{self.partial} cannot be written: {_first_line(error)}. Another pass may be writing it, or the folder is read-only: choose another --out"
            ) from error

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(duckdb.Error):  # closing writes to the disk, which may be full
            if self.connection is not None:
                self.connection.close()
        self._remove()
        if isinstance(error, duckdb.Error) and (
            isinstance(error, duckdb.InterruptException) or "KeyboardInterrupt" in str(error)
        ):  # what Ctrl-C becomes inside DuckDB
            raise KeyboardInterrupt from None
        if isinstance(error, WRITE_ERRORS):
            raise RunError(
                f"writing {self.path} failed: {_first_line(error)}. Nothing was left behind: free disk space or choose another --out, then run again"
            ) from error

    def _remove(self) -> None:
        """Remove what is not a finished run."""
        for file in (self.partial, self.staging):
            for name in (file, file.with_name(file.name + ".wal")):
                name.unlink(missing_ok=True)

    def insert(self, table: str, frames: pl.DataFrame | Iterable[pl.DataFrame]) -> None:
        """Append frames to a table, by column name."""
        for frame in [frames] if isinstance(frames, pl.DataFrame) else frames:
            if not frame.height:
                continue
            self.connection.register("frame", frame.to_arrow())
            self.connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM frame")
            self.connection.unregister("frame")

    def add_chunk(self, chunk: Chunk, closure: Closure) -> None:
        """Write a chunk's documents, stage its windows, and note its closure."""
        self.insert("documents", _document_rows(chunk))
        windows = [(w.window_id, w.document.doc_id, w.start, w.token_ids.tolist()) for w in chunk.windows]
        schema = {"window_id": pl.Int64, "doc_id": pl.Int64, "start": pl.Int64, "token_ids": pl.List(pl.Int32)}
        self.insert("staging.windows", pl.DataFrame(windows, schema=schema, orient="row"))
        self.insert("closure", pl.DataFrame([{"chunk": chunk.number, **asdict(closure)}]))

    def stage_positions(self, batch: Batch, target_logit: np.ndarray, past: Past) -> None:
        """Stage every position of a batch."""
        window, offset = (index.numpy() for index in batch.valid.nonzero(as_tuple=True))
        at = (window, offset)
        window_ids = np.array([w.window_id for w in batch.windows])
        doc_ids = np.array([w.document.doc_id for w in batch.windows])
        starts = np.array([w.start for w in batch.windows])
        special = batch.special.numpy()[at]
        has_bos = batch.special.numpy()[window, 0] == SPECIAL_CODES["bos"]
        pos = starts[window] + offset - has_bos
        frame = pl.DataFrame(
            {"position_id": batch.position_ids.numpy()[at], "window_id": window_ids[window], "doc_id": doc_ids[window],
             "pos": pos, "offset": offset, "token_id": batch.tokens.numpy()[at], "next_token_id": batch.targets.numpy()[at],
             "class_id": batch.classes.numpy()[at], "target_logit": target_logit[at], "code": special}
            | _past_columns(batch, past, at)
        )  # fmt: skip
        names = pl.col("code").replace_strict(SPECIAL_NAMES, default=None, return_dtype=pl.String)
        pos = pl.when(pl.col("code") == SPECIAL_CODES["bos"]).then(None).otherwise(pl.col("pos"))
        self.insert("staging.positions", frame.with_columns(special=names, pos=pos).drop("code"))

    def keep_referenced(self, outcomes: pl.DataFrame) -> None:
        """Keep the staged positions and windows that some row refers to; `outcomes` belong to the dense ones."""
        self.connection.register("outcomes", outcomes.to_arrow())
        self.connection.execute(KEEP_REFERENCED)
        self.connection.unregister("outcomes")

    def finish(self, own: tuple[Property, ...] = ()) -> int:
        """Add views, properties, behaviours and comments, close, and give the run its name; its size in bytes.

        Args:
            own: token classes of the user's own.
        """
        self.connection.execute("DETACH staging")
        for file in ("schema.sql", "views.sql"):
            text = (FOLDER / file).read_text(encoding="utf-8")
            if file == "views.sql":
                self.connection.execute(text)
            for statement in comment_statements(text):
                self.connection.execute(statement)
        behaviour_views.install(self.connection, own)
        self.connection.execute("CHECKPOINT")
        self.connection.close()
        self.partial.replace(self.path)
        return self.path.stat().st_size


def _past_columns(batch: Batch, past: Past, at: tuple[np.ndarray, np.ndarray]) -> dict[str, pl.Series | np.ndarray]:
    """Columns of position_rows about what came before, of the positions `at`."""
    columns = {name: table.numpy()[at] for name, table in vars(past).items()}
    window, offset = at
    before = pl.Series(batch.tokens.numpy()[window, np.maximum(offset - 1, 0)])
    new = pl.Series(columns["distance"])
    return columns | {
        "previous_token_id": before.set(pl.Series(offset == 0), None),
        "distance": new.set(new == NO_COPY, None),
    }


def _document_rows(chunk: Chunk) -> pl.DataFrame:
    rows = [(d.doc_id, d.domain, d.source, d.group_id, d.n_read, d.n_dropped) for d in chunk.documents]
    names = ["doc_id", "domain", "source", "group_id", "n_tokens", "n_dropped"]
    return pl.DataFrame(rows, schema=names, orient="row")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300].rstrip(".")


def refuse_bad_place(path: Path, overwrite: bool) -> None:
    """Say before any work is done that a run cannot be written there.

    Raises:
        RunError: the place is a folder, in no folder, or taken.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise RunError(f"--out {path} is not a place for a file: its folder must exist; give a path such as run.duckdb")
    if path.exists() and not overwrite:
        raise RunError(f"{path} exists already: choose another --out, or pass --overwrite to replace it")


def _remove_unlocked(file: Path) -> None:
    """Remove what an interrupted pass left, whole or cut off, unless somebody still writes it.

    Raises:
        duckdb.Error: this process or another one has it open.
    """
    if file.exists():
        try:
            duckdb.connect(str(file)).close()
        except duckdb.ConnectionException:
            raise
        except duckdb.Error as error:
            if "Could not set lock" in str(error) or "being used by another process" in str(error):
                raise
        file.unlink()
    file.with_name(file.name + ".wal").unlink(missing_ok=True)
