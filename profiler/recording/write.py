"""The run file. The only writer of DuckDB.

A pass writes into the folder `<out>.partial`; only a whole run is given the name `<out>`, so nothing half-written can
be taken for a run. What follows from a whole run (profiler.behaviours.views.DERIVED) is made after that: a fault there
costs neither the run nor the pass, and is mended by doing it again. Rows of positions, windows and documents are held
until the next commit (profiler.database.pass_commits); at the end the run file is written in one go from what was
committed, so that it has no holes, and tables are sorted by component, so that one component's rows lie together.

Cost: rows held take about 100 bytes a position until a commit; appending goes through Arrow, a table at a time.
"""

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import numpy as np
import polars as pl

from profiler.behaviours import additions
from profiler.behaviours import views as behaviour_views
from profiler.behaviours.library import Behaviour
from profiler.behaviours.token_properties import Property
from profiler.database import connections, faults, paths
from profiler.database.comments import comment_statements
from profiler.database.faults import first_line
from profiler.database.pass_commits import Partial, ReferredRows, RunPart, describe, flush, flush_folder
from profiler.errors import RunError
from profiler.model.direct import Closure
from profiler.text.context import NO_COPY, TokenContext
from profiler.text.documents import CHUNK_SHIFT
from profiler.text.windows import SPECIAL_CODES, Batch, Chunk

FOLDER = Path(__file__).parents[1] / "database"
WRITE_ERRORS = (
    duckdb.IOException,
    duckdb.OutOfMemoryException,
    duckdb.TransactionException,
    OSError,
)
SPECIAL_NAMES = {code: name for name, code in SPECIAL_CODES.items() if name}
UNPRUNED_POSITIONS = 2_000_000
POSITIONS: dict[str, type[pl.DataType]] = {
    "position_id": pl.Int64,
    "window_id": pl.Int64,
    "doc_id": pl.Int64,
    "pos": pl.Int64,
    "offset": pl.Int32,
    "token_id": pl.Int32,
    "next_token_id": pl.Int32,
    "class_id": pl.Int32,
    "target_logit": pl.Float64,
    "special": pl.String,
    "role": pl.String,
    "previous_token_id": pl.Int32,
    "distance": pl.Int32,
    "prefix_match": pl.Int32,
    "bracket_depth": pl.Int32,
    "in_quotes": pl.Boolean,
}
WINDOWS: dict[str, type[pl.DataType] | pl.DataType] = {
    "window_id": pl.Int64,
    "doc_id": pl.Int64,
    "start": pl.Int64,
    "token_ids": pl.List(pl.Int32),
}
COPY = {
    "documents": "INSERT INTO documents BY NAME SELECT * FROM {rows} ORDER BY doc_id",
    "closure": (
        "INSERT INTO closure BY NAME SELECT *, row_number() OVER (ORDER BY block, part) - 1 AS chunk FROM {rows} ORDER"
        " BY block, part"
    ),
    "recorded_rows": "INSERT INTO recorded_rows BY NAME SELECT * FROM {rows} ORDER BY component_id, position_id",
    "positions": "CREATE TEMP VIEW staged_positions AS SELECT * FROM {rows}",
    "windows": "CREATE TEMP VIEW staged_windows AS SELECT * FROM {rows}",
}
KEEP_REFERENCED = """
CREATE TEMP TABLE kept AS
    SELECT position_id FROM sample_rows UNION SELECT position_id FROM extreme_rows
    UNION SELECT position_id FROM dense_rows
        WHERE component_id = (SELECT component_id FROM components WHERE kind = 'final_bias')
    UNION SELECT position_id FROM recorded_rows;
INSERT INTO position_rows
    SELECT staged.position_id, staged.window_id, staged.doc_id, staged.pos, staged."offset", staged.token_id,
           staged.next_token_id, staged.class_id, staged.target_logit, outcomes.loss, outcomes.rank, outcomes.entropy,
           outcomes.cap_slope, staged.special, staged.role, staged.previous_token_id, staged.distance,
           staged.prefix_match, staged.bracket_depth, staged.in_quotes, outcomes.position_id IS NOT NULL
    FROM staged_positions AS staged SEMI JOIN kept USING (position_id) LEFT JOIN outcomes USING (position_id)
    ORDER BY staged.position_id;
INSERT INTO windows
    SELECT staged_windows.* FROM staged_windows SEMI JOIN position_rows USING (window_id) ORDER BY window_id;
DROP TABLE kept;
DROP VIEW staged_positions;
DROP VIEW staged_windows;
INSERT INTO pooled_strata
    SELECT component_id, bin, counted.n, rows.kept
    FROM (SELECT component_id, bin, sum(n) AS n FROM spectrum_counts
          WHERE class_id NOT IN (SELECT class_id FROM classes WHERE special) GROUP BY ALL) counted
    JOIN (SELECT component_id, bin, count(*) AS kept FROM (
              SELECT component_id, bin FROM dense_rows
              UNION ALL SELECT component_id, bin FROM sample_rows JOIN position_rows USING (position_id) WHERE NOT dense
          ) GROUP BY ALL) rows USING (component_id, bin)
    ORDER BY component_id, bin;
"""
REPEATED = """
INSERT INTO drops
    SELECT 'repeated_texts', count(*) - count(DISTINCT text_hash), 'documents',
           'documents whose text another document has too: read and counted each time, '
           || 'copies of a domain in one replicate group'
    FROM documents
"""
GROUPS = """
INSERT INTO replicate_groups BY NAME
    SELECT group_id, group_id // {0} AS domain_id, count(*) AS n_documents
    FROM documents GROUP BY group_id ORDER BY group_id
"""


class Rows:
    """Rows of a pass on their way: held until they are committed, or sent to whoever commits them."""

    def __init__(self) -> None:
        self.rows: dict[str, list[pl.DataFrame]] = {}
        self.staged = 0

    def hold(self, table: str, frame: pl.DataFrame) -> None:
        """Hold rows of documents, closure, positions, windows or recorded_rows until they are committed or taken."""
        if frame.height:
            self.rows.setdefault(table, []).append(frame)
            self.staged += frame.height if table == "positions" else 0

    def add_chunk(self, chunk: Chunk, closure: Closure) -> None:
        """Hold a chunk's documents, windows and closure."""
        self.hold("documents", _document_rows(chunk))
        windows = [(w.window_id, w.document.doc_id, w.start, w.token_ids.tolist()) for w in chunk.windows]
        self.hold("windows", pl.DataFrame(windows, schema=WINDOWS, orient="row"))
        if closure.n:
            block, part = chunk.number >> CHUNK_SHIFT, chunk.number & (2**CHUNK_SHIFT - 1)
            self.hold("closure", pl.DataFrame([{"block": block, "part": part, **asdict(closure)}]))

    def stage_positions(self, batch: Batch, target_logit: np.ndarray, past: TokenContext) -> None:
        """Hold every position of a batch."""
        window, offset = (index.numpy() for index in batch.valid.nonzero(as_tuple=True))
        at = (window, offset)
        window_ids = np.array([w.window_id for w in batch.windows])
        doc_ids = np.array([w.document.doc_id for w in batch.windows])
        starts = np.array([w.start for w in batch.windows])
        special = batch.special.numpy()[at]
        has_bos = batch.special.numpy()[window, 0] == SPECIAL_CODES["bos"]
        pos = starts[window] + offset - has_bos
        frame = pl.DataFrame(
            {
                "position_id": batch.position_ids.numpy()[at],
                "window_id": window_ids[window],
                "doc_id": doc_ids[window],
                "pos": pos,
                "offset": offset,
                "token_id": batch.tokens.numpy()[at],
                "next_token_id": batch.targets.numpy()[at],
                "class_id": batch.classes.numpy()[at],
                "target_logit": target_logit[at],
                "code": special,
                "role": pl.Series(batch.roles, dtype=pl.String),
            }
            | _past_columns(batch, past, at)
        )
        names = pl.col("code").replace_strict(SPECIAL_NAMES, default=None, return_dtype=pl.String)
        pos = pl.when(pl.col("code") == SPECIAL_CODES["bos"]).then(None).otherwise(pl.col("pos"))
        self.hold(
            "positions", frame.with_columns(special=names, pos=pos).select(*POSITIONS).cast(dict(POSITIONS.items()))
        )

    def take_rows(self) -> dict[str, pl.DataFrame]:
        """The rows held, which are held no longer."""
        taken = {table: pl.concat(frames) for table, frames in self.rows.items()}
        self.rows, self.staged = {}, 0
        return taken

    def prune(self, referred: dict[str, ReferredRows]) -> None:
        """Drop rows that no sample refers to."""
        for table, rows in self.take_rows().items():
            self.hold(table, referred[table].of(rows) if table in referred else rows)


class Store(Rows):
    """A run being written. Use as a context manager: leaving it by an error keeps the last commit and nothing else."""

    def __init__(self, path: Path, *, overwrite: bool = False, resume: bool = False):
        """Take the folder.

        Args:
            resume: go on from what an earlier pass committed; `overwrite` forgets it.

        Raises:
            RunError: the run exists, its folder does not or cannot be written, another pass writes it, or a stopped
              pass
                could go on and neither is asked for.
        """
        super().__init__()
        refuse_bad_place(path, overwrite=overwrite, resume=resume)
        self.path, self.partial = path, Partial(path, fresh=overwrite and not resume)
        self.file = self.partial.folder / "run.duckdb"
        self._connection: duckdb.DuckDBPyConnection | None = None
        self.memory: int | None = None

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The run file, begun when it is first asked for."""
        if self._connection is None:
            for name in (self.file, self.file.with_name("run.duckdb.wal")):
                name.unlink(missing_ok=True)
            self._connection = connections.begin(self.file, self.partial.folder)
            self._connection.execute((FOLDER / "schema.sql").read_text(encoding="utf-8"))
        return self._connection

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _undisturbed(going_on=error is None):
            left = self._put_in_order()
        if isinstance(error, duckdb.Error) and (
            isinstance(error, duckdb.InterruptException) or "KeyboardInterrupt" in str(error)
        ):  # what Ctrl-C becomes inside DuckDB
            raise KeyboardInterrupt from None
        safe = f"What was read is safe; {describe(self.path)}." if left else "Nothing was left behind."
        if isinstance(error, WRITE_ERRORS):
            raise RunError(
                f"writing {self.path} failed: {first_line(error)}. Free disk space or make the folder writable, then"
                f" run the same command again. {safe}"
            ) from error
        if isinstance(error, duckdb.Error):  # whatever else DuckDB says here, no input can be blamed for it
            raise faults.fault_error(error, f"writing {self.path}", safe) from error

    def _put_in_order(self) -> bool:
        """Close everything, leave the last commit and nothing else; whether there is one."""
        with suppress(duckdb.Error):  # closing writes to the disk, which may be full
            if self._connection is not None:
                self._connection.close()
        with suppress(OSError):
            for file in self.partial.folder.glob("run.duckdb*"):
                file.unlink()
        left = self.partial.committed
        self.partial.close()
        return left

    def limit_memory(self, n_bytes: int) -> None:
        """Have DuckDB hold no more than this of the run file in memory; beyond it, it writes into the folder."""
        self.memory = n_bytes
        self.connection.execute(f"SET memory_limit = '{n_bytes}B'")

    def insert(self, table: str, frames: pl.DataFrame | Iterable[pl.DataFrame]) -> None:
        """Append frames to a table of the run file, by column name."""
        for frame in [frames] if isinstance(frames, pl.DataFrame) else frames:
            if not frame.height:
                continue
            self.connection.register("frame", frame.to_arrow())
            self.connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM frame")
            self.connection.unregister("frame")

    def commit(
        self, identity: dict[str, Any], facts: dict[str, Any], arrays: dict[str, Any], referred: dict[str, ReferredRows]
    ) -> None:
        """Commit the rows held and the state of the pass, all or nothing."""
        self.partial.commit(identity, RunPart(facts, arrays, self.take_rows()), referred)

    def assemble(self, outcomes: pl.DataFrame, groups_per_domain: int) -> None:
        """Copy the rows committed into the run file, positions and windows where some row refers to them.

        Args:
            outcomes: loss, rank, entropy and slope of the soft cap of the dense positions.
        """
        for table, sql in COPY.items():
            if files := self.partial.parquet(table):
                self.connection.execute(sql.replace("{rows}", paths.parquet(files)))
        self.connection.register("outcomes", outcomes.to_arrow())
        self.connection.execute(KEEP_REFERENCED)
        self.connection.unregister("outcomes")
        self.connection.execute(GROUPS.format(groups_per_domain))
        self.connection.execute(REPEATED)

    def finish(self, own: tuple[Property, ...] = (), behaviours: tuple[Behaviour, ...] = ()) -> int:
        """Finish the run file and give it its name; return its size in bytes.

        Views, properties, behaviours and comments are added before, what follows from the run after it has its name.

        Args:
            own: token classes of the user's own, checked.
            behaviours: behaviours of the user's own, checked.

        Raises:
            EngineError, RunError: what follows from the run could not be made; the run is whole and in its place.
        """
        schema, macros, views = (
            (FOLDER / file).read_text(encoding="utf-8") for file in ("schema.sql", "macros.sql", "views.sql")
        )
        for statement in (macros, views, *comment_statements(schema), *comment_statements(views)):
            self.connection.execute(statement)
        behaviour_views.install(self.connection, own)
        behaviour_views.insert(self.connection, behaviours, user=True)
        behaviour_views.leave_out_derived(self.connection)
        self.connection.execute("CHECKPOINT")
        self.connection.close()
        self._connection = None
        flush(self.file)
        self.file.replace(self.path)
        flush_folder(self.path.parent)  # the run's name lasts before the commits go
        self.partial.clear()
        additions.complete(self.path, self.memory)
        return self.path.stat().st_size


def _past_columns(
    batch: Batch, past: TokenContext, at: tuple[np.ndarray, np.ndarray]
) -> dict[str, pl.Series | np.ndarray]:
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
    rows = [
        (d.doc_id, d.domain, d.source, d.place, d.text_hash, d.group_id, d.n_read, d.n_dropped) for d in chunk.documents
    ]
    names = ["doc_id", "domain", "source", "place", "text_hash", "group_id", "n_tokens", "n_dropped"]
    return pl.DataFrame(rows, schema=names, orient="row")


@contextmanager
def _undisturbed(*, going_on: bool) -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the block ends: a second one must not break off what the first one began.

    Args:
        going_on: work goes on afterwards, and a signal that came is given then; else an error ends it in any case.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda n, _: received.append(n)) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: it was set outside of Python
    if received and going_on:
        signal.raise_signal(received[0])


def refuse_bad_place(path: Path, *, overwrite: bool, resume: bool = False) -> None:
    """Say before any work is done that a run cannot be written there.

    Raises:
        RunError: the place is a folder, in no folder or in one that cannot be written, taken, or a stopped pass could
          go on
            there, or DuckDB cannot be given its path.
    """
    paths.database_path(path)
    try:
        fits = path.parent.is_dir() and not path.is_dir()
    except OSError as error:  # a folder on the way may not be entered, a name is too long
        raise RunError(f"--out {path} cannot be reached ({error.strerror}): choose another --out") from None
    if not fits:
        raise RunError(f"--out {path} is not a place for a file: its folder must exist; give a path such as run.duckdb")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise RunError(f"--out {path} cannot be written: choose another --out, or make its folder writable")
    if resume or overwrite:
        return
    if path.exists():
        raise RunError(f"{path} exists already: choose another --out, or pass --overwrite to replace it")
    if stopped := describe(path):
        raise RunError(f"a pass to {path} was stopped; {stopped}" if "--resume" in stopped else stopped)
