"""Parameters are values, a run is closed to writing, and every mistake ends in one sentence and exit code 1."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import fake_run
import fake_values
import polars as pl
import pytest
import typer
from typer.testing import CliRunner

from profiler.cli import query as commands
from profiler.cli.terminal.output import readable, text_table
from profiler.database import query
from profiler.database.query_header import Parameter, parse_header
from profiler.effects import store as effects_store
from profiler.errors import ComponentError, ProfilerError, QueryError, RunError

OVERVIEW = "component_overview"
HEADER = """-- Title:      T
-- Question:   Q?
-- Grain:      one row per thing
-- Key:        a, b
-- Parameters: component (required), top (default 10), below (default 0.5), kind (default '')
-- Reads:      x, y
-- Reference:  R
-- Caveat:     first
--             second
SELECT 1;
"""


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> fake_run.FakeRun:
    return fake_run.build(tmp_path_factory.mktemp("fake") / "fake.duckdb")


@pytest.fixture
def unfinished(fake: fake_run.FakeRun, tmp_path: Path) -> Path:
    path = Path(shutil.copy(fake.path, tmp_path / "unfinished.duckdb"))
    with duckdb.connect(str(path)) as con:
        con.execute("UPDATE runs SET complete = false")
    return path


def call(*arguments: object, stdin: str | bytes | None = None) -> tuple[int, str, bytes]:
    """Exit code, standard error and standard output of a command line; as the package's main, errors are printed
    once."""
    app = typer.Typer(pretty_exceptions_enable=False)
    commands.register(app)
    result = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)
    if isinstance(result.exception, ProfilerError):
        return 1, str(result.exception), result.stdout_bytes
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stderr, result.stdout_bytes


def rows(*arguments: object, **options: str) -> list[dict]:
    """Rows that a command printed as JSON."""
    code, error, out = call(*arguments, "--format", "json", **options)
    assert code == 0, error
    return json.loads(out)


def test_header_is_read() -> None:
    header = parse_header(HEADER)
    assert header is not None
    assert header.key == ("a", "b")
    assert header.caveat == "first second"
    wanted = [("component", None), ("top", 10), ("below", 0.5), ("kind", "")]
    assert header.parameters == tuple(Parameter(name, default) for name, default in wanted)
    assert parse_header("SELECT 1 -- Title: no") is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("-- Grain:      one row per thing\n", "", "lacks Grain"),
        ("(required)", "required", "cannot be read"),
        ("0.5", "many", "cannot be read"),
    ],
)
def test_a_broken_header_is_refused(old: str, new: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        parse_header(HEADER.replace(old, new))


HOSTILE = ["L0N0'; DROP TABLE runs; --", "' OR 1=1 --", "$$", "\x00", "getvariable('x')", "日本"]


@pytest.mark.parametrize("value", HOSTILE)
def test_parameters_are_values(fake: fake_run.FakeRun, value: str) -> None:
    found = query.run(fake.path, "SELECT getvariable('x') AS x, count(*) AS n FROM runs", x=value)
    assert found.to_dicts() == [{"x": value, "n": 1}]


WRITES = [
    "INSERT INTO drops VALUES ('a', 1, 'b', 'c')",
    "UPDATE runs SET complete = false",
    "DROP VIEW samples",
    "CREATE TABLE mine (a INTEGER)",
    "DELETE FROM runs",
    "VACUUM",
    "CREATE OR REPLACE MACRO t975(x) AS 1",
]
OUTSIDE = [
    "COPY runs TO '{folder}/stolen.csv'",
    "EXPORT DATABASE '{folder}/stolen'",
    "ATTACH '{folder}/stolen.db'",
    "SELECT * FROM read_text('{folder}/secret')",
    "SELECT * FROM '{folder}/secret.csv'",
    "SELECT * FROM glob('{folder}/*')",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "INSTALL httpfs",
    "LOAD httpfs",
    "UPDATE EXTENSIONS",
    "SELECT 1; UPDATE EXTENSIONS",
    "SELECT * FROM secret_frame",
    "COPY (SELECT 1) TO '/dev/stdout'",
    "PRAGMA enable_profiling = 'json'",
]


@pytest.mark.parametrize("statement", [*WRITES, *OUTSIDE])
def test_sql_can_only_read_the_run(fake: fake_run.FakeRun, tmp_path: Path, statement: str) -> None:
    secret_frame = pl.DataFrame({"a": [1]})
    (tmp_path / "secret").write_text("1")
    (tmp_path / "secret.csv").write_text("a\n1\n")
    before = fake.path.read_bytes()
    with query.open_run(fake.path) as con:
        if statement != "VACUUM":
            with pytest.raises(QueryError):
                query.run_text(con, statement.format(folder=tmp_path), {})
        else:
            query.run_text(con, statement, {})
        assert query.run(con, "SELECT count(*) AS n FROM runs").item() == len(secret_frame)
    assert fake.path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["secret", "secret.csv"]


def test_several_statements_and_none(fake: fake_run.FakeRun) -> None:
    with query.open_run(fake.path) as con:
        found = query.run_text(con, "CREATE TEMP TABLE t AS SELECT 1 AS a; SELECT a + 1 AS b FROM t;", {})
        assert found.to_dicts() == [{"b": 2}]
        assert query.run_text(con, "SET VARIABLE a = 1", {}).is_empty()
        with pytest.raises(QueryError, match="empty"):
            query.run_text(con, "-- nothing\n", {})


def test_a_variable_does_not_outlive_its_query(fake: fake_run.FakeRun) -> None:
    with query.open_run(fake.path) as con:
        assert len(query.run(con, OVERVIEW, top=2)) == 2
        assert len(query.run(con, OVERVIEW)) == 16


def test_your_own_file_declares_its_parameters_by_reading_them(fake: fake_run.FakeRun, tmp_path: Path) -> None:
    path = tmp_path / "mine.sql"
    path.write_text(
        "SET VARIABLE n = coalesce(getvariable('n')::INTEGER, 2);\n"
        "SELECT component FROM components WHERE kind = getvariable('kind') ORDER BY ALL LIMIT getvariable('n');"
    )
    assert len(query.run(fake.path, str(path), kind="head")) == 2
    assert len(query.run(fake.path, str(path), kind="neuron", n="3")) == 3
    for given, message in [
        ({}, "needs kind: add --set kind=VALUE"),
        ({"kindd": 1}, "did you mean kind"),
        ({"kind": "a", "zz": 1}, "it has n, kind"),
    ]:
        with pytest.raises(QueryError, match=message):
            query.run(fake.path, str(path), **given)


def test_command_line_formats(fake: fake_run.FakeRun, tmp_path: Path) -> None:
    frame = query.run(fake.path, OVERVIEW, top=4)
    assert rows("query", fake.path, OVERVIEW, "--set", "top=4") == frame.to_dicts()
    code, _, out = call("query", fake.path, OVERVIEW, "--set", "top=4", "--format", "csv")
    assert code == 0
    unknown = [column.name for column in frame if column.is_null().all()]  # of no type in a CSV
    read = pl.read_csv(io.BytesIO(out))
    assert read.drop(unknown).equals(frame.drop(unknown).with_columns(pl.col("layer", "n").cast(pl.Int64)))
    assert read.select(unknown).null_count().equals(frame.select(unknown).null_count())
    for ending, read in [("parquet", pl.read_parquet), ("csv", pl.read_csv), ("json", pl.read_json)]:
        path = tmp_path / f"out.{ending}"
        assert call("query", fake.path, OVERVIEW, "--set", "top=4", "--out", path)[0] == 0
        assert read(path)["component"].to_list() == frame["component"].to_list()
    code, _, table = call("query", fake.path, OVERVIEW, "--set", "top=4")
    assert table.decode().splitlines()[0].split() == frame.columns
    assert table.decode().splitlines()[-1] == "(4 rows)"


def test_nested_and_infinite_values_can_be_written(fake: fake_run.FakeRun, tmp_path: Path) -> None:
    text = "SELECT window_id, token_ids, 'inf'::DOUBLE AS x FROM windows ORDER BY window_id LIMIT 1"
    first = fake.tables["windows"]["token_ids"][0].to_list()
    code, error, out = call("query", fake.path, "-", "--format", "csv", stdin=text)
    assert (code, error) == (0, "")
    assert json.loads(pl.read_csv(io.BytesIO(out))["token_ids"][0]) == first
    assert rows("query", fake.path, "-", stdin=text)[0]["token_ids"] == first


def test_list_and_sql_and_standard_input(fake: fake_run.FakeRun) -> None:
    _, _, listing = call("query", "--list")
    assert all(name in listing.decode() for name in query.names())
    code, _, out = call("query", fake.path, "extremes", "--sql")
    assert code == 0
    assert out.decode() == query.sql_text("extremes")
    assert rows("query", fake.path, "-", "--set", "component=L0N1", stdin="SELECT getvariable('component') AS c") == [
        {"c": "L0N1"}
    ]


def test_info_shows_the_run(fake: fake_run.FakeRun) -> None:
    code, _, out = call("info", fake.path)
    text = " ".join(out.decode().split())
    assert code == 0
    info = fake.tables["runs"].row(0, named=True)
    for shown in [
        "fake FakeForCausalLM",
        f"{info['n_tokens']:,} of {info['n_documents']} documents",
        f"{info['n_positions']:,} counted, {info['n_special']} special",
        "3e-06 logits for the sum of all DLA, 5e-06 against",
        "sample_rows",
        "window cut 5 tokens",
        "Random values that no model made",
        "code 40",
        "tokens/s",
    ]:
        assert shown in text, shown


def test_text_of_the_corpus_cannot_steer_the_terminal() -> None:
    frame = pl.DataFrame({"context": ["[red]a[/]\x1b[31m\n\u202eb«\t»" + "x" * 99], "n": [1.0]})
    table = text_table(frame)
    assert table.count("\n") == 4
    assert "[red]a[/]\\x1b[31m\\n\\u202eb«\\t»x" in table
    assert "x…" in table
    assert readable("日本 é 😀") == "日本 é 😀"


def bad_inputs(fake: fake_run.FakeRun, tmp_path: Path, unfinished: Path) -> list[tuple[list[object], str]]:
    text, other = tmp_path / "text.duckdb", tmp_path / "other.duckdb"
    text.write_text("no database")
    (tmp_path / "empty.duckdb").write_bytes(b"")
    (tmp_path / "garbage.duckdb").write_bytes(fake.path.read_bytes()[:4096] + b"x" * 5000)
    with duckdb.connect(str(other)) as con:
        con.execute("CREATE TABLE runs (complete BOOLEAN)")
    run = fake.path
    return [
        (["query", tmp_path / "none.duckdb", OVERVIEW], "there is no file"),
        (["info", tmp_path / "none.duckdb"], "there is no file"),
        (["query", tmp_path, OVERVIEW], "is a folder"),
        (["query", text, OVERVIEW], "is not a DuckDB file"),
        (["query", tmp_path / "empty.duckdb", OVERVIEW], "is not a DuckDB file"),
        (["query", tmp_path / "garbage.duckdb", OVERVIEW], "cannot be opened"),
        (["query", other, OVERVIEW], "no run of the profiler"),
        (["query", unfinished, OVERVIEW], "is being written or was interrupted"),
        (["query", run, "component_overveiw"], "did you mean component_overview?"),
        (["query", run, "zzzz"], "profiler query --list"),
        (["query", run, tmp_path / "none.sql"], "cannot be read"),
        (["query", run], "a run and a query are needed"),
        (["query", run, "extremes"], "needs component: add --set component=L0H0"),
        (
            ["query", run, "extremes", "--set", "component=L0N0", "--set", "tpo=3"],
            "no parameter 'tpo': did you mean top?",
        ),
        (["query", run, "drops", "--set", "x=3"], "it has none"),
        (
            ["query", run, "extremes", "--set", "component=L0N0", "--set", "top=few"],
            "must be a whole number, not 'few'",
        ),
        (["query", run, "extremes", "--set", "component"], "write --set name=value"),
        (["query", run, "extremes", "--set", "component=L9N3"], "The nearest is L1N3"),
        (["query", run, "extremes", "--set", "component=l0h7"], "The nearest is L0H1"),
        (["query", run, "extremes", "--set", "component=embedding"], "The nearest is embed"),
        (["query", run, "-"], "the query is empty"),
        (["query", run, OVERVIEW, "--out", tmp_path / "no" / "folder.csv"], "cannot be written"),
    ]


def test_bad_input_ends_in_a_sentence(fake: fake_run.FakeRun, tmp_path: Path, unfinished: Path) -> None:
    cases = bad_inputs(fake, tmp_path, unfinished)
    assert len(cases) > 20
    for arguments, sentence in cases:
        code, error, out = call(*arguments, stdin="")
        assert (code, out) == (1, b""), arguments
        assert sentence in error, (arguments, error)
        assert "Traceback" not in error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SELECT * FROM sample", "did you mean|Did you mean"),
        ("SELEC 1", "syntax error"),
        ("SELECT 1 / 'a'", "Could not convert"),
        ("SELECT nope FROM runs", "nope"),
    ],
)
def test_an_error_in_the_sql_says_what_duckdb_says(fake: fake_run.FakeRun, text: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        query.run(fake.path, text)


def test_library_raises_the_named_errors(fake: fake_run.FakeRun, unfinished: Path) -> None:
    with pytest.raises(RunError, match="interrupted"):
        query.open_run(unfinished)
    with pytest.raises(ComponentError, match="2 layers of 2 heads and 6 neurons"):
        query.run(fake.path, "density", component="L2H0")
    with duckdb.connect(str(unfinished)), pytest.raises(RunError, match="open in this process"):
        query.open_run(unfinished)


def test_a_run_being_written_by_another_process_is_named(fake: fake_run.FakeRun, tmp_path: Path) -> None:
    path = Path(shutil.copy(fake.path, tmp_path / "held.duckdb"))
    script = f"import duckdb; c = duckdb.connect({str(path)!r}); print('open', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(RunError, match="is being written by another program"):
            query.open_run(path)
        holder.communicate(b"\n")


def test_reading_a_run_needs_no_torch() -> None:
    """Neither the library nor its commands may load what is heavy; the check is shown to see a module that is
    loaded."""
    heavy = "torch transformer_lens transformers datasets".split()
    script = (
        "import sys, profiler.database.query, profiler.run, profiler.cli.query; print([m for m in sys.argv[1:] if m in"
        " sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script, *heavy, "polars"], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "['polars']"


ELSEWHERE = {
    *("latest_experiment", "latest_check", "ledger", "predictions", "published_numbers", "role_catalogue"),
    *("component_effects", *effects_store.tables()),
}
"""What an experiment, a check or a pass of total effects writes; queries that read it, or a second run, are tried on
runs that have it."""


def asks_only_a_run(name: str) -> bool:
    """Whether a query reads what every run has."""
    reads = query.header(name).reads
    return not ELSEWHERE & set(reads) and not any(table.startswith("other.") for table in reads)


@pytest.mark.parametrize("name", [name for name in query.names() if asks_only_a_run(name)])
def test_runs_in_the_released_shell(fake: fake_run.FakeRun, name: str) -> None:
    shell = shutil.which("duckdb") or shutil.which("duckdb", path=str(Path(sys.executable).parent))
    if shell is None:
        pytest.skip("no `duckdb` shell: `pip install duckdb-cli` to run the queries in it")
    head = {"head_attention", "coverage_curve", "precision_recall", "head_effects"}
    values = {"component": "L1H1" if name in head else "L0N1", "behaviour": "induction", "property": "number"}
    values["token"] = fake_values.TOKENS["word"][0]
    wanted = {p.name: values[p.name] for p in query.header(name).parameters if p.required}
    settings = " ".join(f"SET VARIABLE {key} = '{value}';" for key, value in wanted.items())
    command = [shell, "-readonly", "-json", str(fake.path), "-c", settings]
    command += ["-f", str(query.assets.folder("queries") / f"{name}.sql")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(done.stdout.replace("Infinity", "0"))) == len(query.run(fake.path, name, **wanted))
