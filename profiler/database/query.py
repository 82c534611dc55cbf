"""Runs of queries: find a .sql file, check and bind its parameters, run it read-only, return a polars frame.

A query is a plain SQL file that any DuckDB shell runs; parameters are DuckDB variables (`getvariable('component')`),
set as bound values and never pasted into the text. A run is opened read-only, without access to files, network,
extensions or the caller's Python variables, with its configuration locked: SQL from anyone can be run and can only
read.

Each query runs on a cursor of its own, so a variable set for one is unknown to the next. Numbers, text and lists of
them come back as they are; what else SQL can give (dates, intervals, bytes; a run holds none) as text, as DuckDB writes
it.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import duckdb
import polars as pl
from duckdb import DuckDBPyConnection as Connection
from duckdb.sqltypes import DuckDBPyType

from profiler.database import assets, connections, faults, macros, makers, upgrade
from profiler.database.connections import CLOSED as CLOSED
from profiler.database.pass_commits import describe
from profiler.database.query_header import Parameter, QueryHeader, parse_header
from profiler.errors import ComponentError, ProfilerError, QueryError, RunError

UNCHANGED = "The run is only read and is as it was; open it again to ask something else."
UNREADABLE = (duckdb.Error, RuntimeError, UnicodeDecodeError)  # the last two: names in a damaged file that are no text
PLAIN_TYPES = {
    "boolean",
    "tinyint",
    "smallint",
    "integer",
    "bigint",
    "hugeint",
    "utinyint",
    "usmallint",
    "uinteger",
    "ubigint",
    "uhugeint",
    "float",
    "double",
    "decimal",
    "varchar",
    "enum",
    "null",
}
KNOWN = "SELECT 1 FROM components WHERE component = ?"
_NAME = re.compile(r"\w+")  # of a query file, without its ending
_LABEL = re.compile(r"L(\d+)([HN])(\d+)$")
_NO_TABLE = re.compile(r'(?:Table|View) with name "?(\w+)"? does not exist')
_VARIABLE = re.compile(r"getvariable\(\s*'(\w+)'\s*\)", re.IGNORECASE)
_HAS_DEFAULT = re.compile(r"coalesce\(\s*getvariable\(\s*'(\w+)'\s*\)|SET\s+VARIABLE\s+(\w+)\s*=", re.IGNORECASE)


def names() -> list[str]:
    """Names of the query files, in alphabetical order."""
    return sorted(path.stem for path in assets.folder("queries").glob("*.sql"))


def sql_text(name: str) -> str:
    """The text of the query file `name`.

    Raises:
        QueryError: there is no such query; the message names the nearest.
    """
    file = assets.folder("queries") / f"{name}.sql"
    if not (_NAME.fullmatch(name) and file.is_file()):
        near = difflib.get_close_matches(name, names(), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "see `profiler query --list`."
        raise QueryError(f"there is no query {name!r}: {hint} A file of your own must end in .sql.")
    return file.read_text(encoding="utf-8")


def header(name: str) -> QueryHeader:
    """The header of the query file `name`."""
    parsed = parse_header(sql_text(name))
    if parsed is None:
        raise QueryError(f"query {name} has no header: see queries/README.md")
    return parsed


def find_text(query: str) -> str:
    """SQL of a name in queries/, of a path that ends in .sql, or `query` itself where it is a statement (has blanks).

    Raises:
        QueryError: no such query or file.
    """
    if re.search(r"\s", query.strip()) and not query.endswith(".sql"):
        return query
    if not query.endswith(".sql"):
        return sql_text(query)
    try:
        return Path(query).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise QueryError(f"the query file {query} cannot be read ({error}): check the path") from None


def open_run(path: str | Path) -> Connection:
    """A closed, read-only connection to a finished run.

    Raises:
        RunError: no such file, not a DuckDB file, not a run, or a run that is not finished.
    """
    path = Path(path)
    _check_file(path)
    try:
        con = connections.reading(path)
    except duckdb.ConnectionException:
        raise RunError(
            f"{path} is open in this process through duckdb.connect with other settings: close that connection first"
        ) from None
    except duckdb.Error as error:
        if "Could not set lock" in str(error) or "used by another process" in str(error):
            raise RunError(f"{path} is being written by another program: wait for it, or close it there") from None
        if faults.fault(error):
            raise faults.fault_error(error, f"opening {path}", UNCHANGED) from None
        raise RunError(f"{path} cannot be opened: {faults.first_line(error)}") from None
    try:
        _check_run(path, con)
    except ProfilerError:
        con.close()
        raise
    return con


def _check_file(path: Path) -> None:
    if not path.exists() and (unfinished := describe(path)):
        raise RunError(f"{path} is not there yet: {unfinished}")
    if not path.exists():
        raise RunError(
            f"there is no file {path}: check the path, or make a run with `profiler record` or `profiler demo`"
        )
    if path.is_dir():
        raise RunError(f"{path} is a folder: name the .duckdb file that `profiler record` wrote")
    with path.open("rb") as file:
        if file.read(12)[8:] != b"DUCK":
            raise RunError(f"{path} is not a DuckDB file: name the file that `profiler record` wrote")


def _check_run(path: Path, con: Connection) -> None:
    try:
        rows = con.cursor().execute("SELECT complete FROM runs").fetchall()
        con.cursor().execute("SELECT 1 FROM components, sample_rows LIMIT 0").fetchall()  # a view takes long to bind
    except faults.FAULTS as error:
        raise faults.fault_error(error, f"opening {path}", UNCHANGED) from None
    except UNREADABLE:
        raise RunError(
            f"{path} is a DuckDB file but no run of the profiler: name the file that `profiler record` wrote"
        ) from None
    if len(rows) != 1 or not rows[0][0]:
        raise RunError(
            f"{path} is not finished: it is being written or was interrupted; wait for it, or run "
            "`profiler record` again"
        )


def run(source: str | Path | Connection, query: str, **parameters: object) -> pl.DataFrame:
    """Rows of a query.

    Args:
        source: path of a run, or a connection to one (for many queries).
        query: name of a file in queries/, path of a .sql file, or SQL.
        parameters: values of its parameters; names as in its header.

    Raises:
        RunError: `source` is no finished run.
        QueryError: unknown query or parameter, a missing parameter, or an error in the SQL.
        ComponentError: the parameter `component` names none of the run's.
    """
    text = find_text(query)
    if isinstance(source, Connection):
        return run_text(source, text, parameters)
    con = open_run(source)
    try:
        return run_text(con, text, parameters)
    finally:
        con.close()


def run_text(con: Connection, text: str, parameters: Mapping[str, object]) -> pl.DataFrame:
    """Rows of the last statement of `text`; see `run`."""
    values = check_parameters(text, parameters)
    cursor = _cursor(con)
    try:
        label = values.get("component")
        if isinstance(label, str) and not cursor.execute(KNOWN, [label]).fetchall():
            check_component(cursor, label)
        for name, value in values.items():
            cursor.execute(f"SET VARIABLE {name} = ?", [value])
        if own := macros.temporary(text):
            cursor.execute(own)
        *before, last = _statements(cursor, text)
        for statement in before:
            if statement is not None:
                cursor.execute(statement).fetchall()
        return _frame(cursor, last)
    except faults.FAULTS as error:
        raise faults.fault_error(error, "answering a query", UNCHANGED) from None
    except UNREADABLE as error:
        raise QueryError(_outdated(con, error) or _missing(con, error) or _explain(error)) from None
    finally:
        cursor.close()


def _cursor(con: Connection) -> Connection:
    try:
        return con.cursor()
    except duckdb.ConnectionException:
        raise RunError("the run is closed: open it again with profiler.open") from None


def _statements(cursor: Connection, text: str) -> list[duckdb.Statement | None]:
    """The statements of `text`, one None where there is none.

    Raises:
        QueryError: DuckDB's client has no name for a kind of statement that its parser knows, such as UPDATE
          EXTENSIONS; or
            the text is none.
    """
    try:
        statements = cursor.extract_statements(text)
        kinds = [statement.type for statement in statements]  # asked for its kind, one without a name is a ValueError
        return [*statements] if kinds else [None]
    except ValueError as error:
        raise QueryError(f"the SQL holds a statement that cannot be asked of a run ({error}): write a SELECT") from None


def _frame(cursor: Connection, statement: duckdb.Statement | None) -> pl.DataFrame:
    if statement is None:
        raise QueryError("the query is empty: write a SELECT")
    relation = cursor.sql(statement)
    if relation is None:
        return pl.DataFrame()
    plain = [_is_plain(kind) for kind in relation.types]
    if all(plain):
        return _polars(relation)
    columns = [
        f"#{n} AS {name}" if as_it_is else f"#{n}::VARCHAR AS {name}"
        for n, (name, as_it_is) in enumerate(zip(map(_quoted, relation.columns), plain, strict=True), 1)
    ]
    return _polars(relation.project(", ".join(columns)))


def _polars(relation: duckdb.DuckDBPyRelation) -> pl.DataFrame:
    frame: pl.DataFrame = relation.pl()
    return frame


def _is_plain(kind: DuckDBPyType) -> bool:
    """Whether a frame, and every format it is written in, can hold each value of a type; not so of dates and bytes."""
    if kind.id in ("list", "array", "struct", "map"):
        return all(_is_plain(part) for _, part in kind.children if isinstance(part, DuckDBPyType))
    return kind.id in PLAIN_TYPES


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def check_parameters(text: str, given: Mapping[str, object]) -> dict[str, object]:
    """Parse the values in `given` as the types of the query's parameters.

    Raises:
        QueryError: a name that the query does not know, or a required one that is not given.
    """
    known = {p.name: p for p in declared_parameters(text)}
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known) or 'none'}."
            raise QueryError(f"the query has no parameter {name!r}: {hint}")
    missing = [p.name for p in known.values() if p.required and given.get(p.name) is None]
    if missing:
        example = "L0H0" if missing[0] == "component" else "VALUE"
        raise QueryError(f"the query needs {' and '.join(missing)}: add --set {missing[0]}={example}")
    return {name: known[name].parse(value) for name, value in given.items()}


def declared_parameters(text: str) -> tuple[Parameter, ...]:
    """Parameters of the header; without one, the variables that the text reads, required if it gives no default."""
    parsed = parse_header(text)
    if parsed is not None:
        return parsed.parameters
    optional = {a or b for a, b in _HAS_DEFAULT.findall(text)}
    variables = dict.fromkeys(_VARIABLE.findall(text))
    return tuple(Parameter(name, "" if name in optional else None) for name in variables)


def check_component(con: Connection, label: str) -> None:
    """Check that the run has the component `label`.

    Raises:
        ComponentError: it has not; the message says what it has, and the nearest label.
    """
    if not run(con, KNOWN.replace("?", "getvariable('label')"), label=label).is_empty():
        return
    labels = run(con, "SELECT component FROM components ORDER BY component_id")["component"].to_list()
    model, layers, heads, neurons = run(con, "SELECT model, n_layers, n_heads, d_mlp FROM runs").row(0)
    raise ComponentError(
        f"component {label!r} is not in this run: {model} has {layers} layers of {heads} heads and {neurons} neurons, "
        f"all counted from 0 (L0H0 is a head, L0N0 a neuron). The nearest is {_nearest(label, labels)}."
    )


def _nearest(label: str, labels: list[str]) -> str:
    """The label of the same kind with the closest layer and then unit; by spelling where `label` is none."""
    wanted = _LABEL.match(label.strip().upper())
    same = [m for known in labels if (m := _LABEL.match(known)) and wanted and m[2] == wanted[2]]
    if not wanted or not same:
        return (difflib.get_close_matches(label, labels, n=1, cutoff=0.0) or labels)[0]
    return min(same, key=lambda m: (abs(int(m[1]) - int(wanted[1])), abs(int(m[3]) - int(wanted[3]))))[0]


def _outdated(con: Connection, error: Exception) -> str | None:
    """What to do where a statement asks for what a run of an earlier version lacks; None for another error."""
    if not (isinstance(error, duckdb.BinderException | duckdb.CatalogException) and upgrade.is_outdated(con)):
        return None
    path = path_of(con)
    return f"{path} was written by an earlier version: `profiler behaviours refresh {path}` adds what it lacks"


def _missing(con: Connection, error: Exception) -> str | None:
    """The command that makes the table that a statement did not find; None for another error or another table."""
    missing = _NO_TABLE.search(str(error)) if isinstance(error, duckdb.CatalogException) else None
    return makers.advice(missing[1], path_of(con)) if missing else None


def path_of(con: Connection) -> str:
    """The path of the file that a connection has open, relative to the working folder where it lies in it."""
    with con.cursor() as cursor:
        text = "SELECT path FROM system.main.duckdb_databases() WHERE NOT internal LIMIT 1"
        path = cursor.execute(text).fetchall()[0][0]
    here = Path(path) if path else Path("RUN")
    return str(here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here)


def require(con: Connection, tables: Iterable[str]) -> None:
    """Check that a run has rows in each table.

    Raises:
        QueryError: it has none of one; the message names the command that makes them.
    """
    for table in tables:
        if not has_rows(con, table):
            raise QueryError(makers.advice(table, path_of(con)) or f"the run holds no row of {table}")


def has_rows(con: Connection, table: str) -> bool:
    """Whether a run has a table and a row in it; no run of an earlier stage has the tables of a later one."""
    with con.cursor() as cursor:
        there = "SELECT 1 FROM system.main.duckdb_tables() WHERE table_name = ?"
        return bool(
            cursor.execute(there, [table]).fetchall() and cursor.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchall()
        )


def _explain(error: Exception) -> str:
    """DuckDB's message without its line drawings; what to do next where the cause is that a run is only read."""
    message = faults.first_line(error)
    if isinstance(error, duckdb.PermissionException) or "read-only mode" in message:
        return f"{message}. A run is opened read-only and without access to files: use --out FILE to keep a result."
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return "\n".join(["the SQL failed: " + lines[0], *lines[1:]])
