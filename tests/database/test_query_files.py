"""Every file of queries/: its header, its grain, its parameters, and its rows against a slow recomputation."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import brute_components
import brute_contexts
import duckdb
import fake_run
import fake_values
import pytest
from polars.testing import assert_frame_equal

from profiler.database import assets, macros, query
from profiler.generality import store as generality_store

CAUSAL = "latest_experiment"  # read by queries of patching; test_patching_queries.py has a file with their tables
CHECKS = {
    *generality_store.TABLES,
    "latest_check",
    "predictions",
    "ledger",
}  # test_generality_store.py has a file with these
TWO_RUNS = "other.behaviour_rows"  # read by the comparison of two runs; test_compare.py has two
NAMES = [n for n in query.names() if not {CAUSAL, TWO_RUNS, *CHECKS} & set(query.header(n).reads)]
RECOMPUTED = brute_components.CHECKS | brute_contexts.CHECKS
ABOUT_HEADS = ("head_attention", "head_effects", "coverage_curve", "precision_recall", "unexplained", "token_split")


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> fake_run.FakeRun:
    return fake_run.build(tmp_path_factory.mktemp("fake") / "fake.duckdb")


@pytest.fixture(scope="module")
def copy(fake: fake_run.FakeRun) -> Path:
    """The same file again: DuckDB opens a file only once in a process unless the settings are the same."""
    return Path(shutil.copy(fake.path, fake.path.with_name("copy.duckdb")))


@pytest.fixture(scope="module")
def db(fake: fake_run.FakeRun) -> Iterator[query.Connection]:
    with query.open_run(fake.path) as connection:
        yield connection


def defaults(name: str) -> dict[str, object]:
    """What the query needs: a head for head_attention, a neuron for the others."""
    required = [p.name for p in query.header(name).parameters if p.required]
    assert set(required) <= {"component", "behaviour", "token"}
    values = {
        "component": "L1H1" if name in ABOUT_HEADS else "L0N1",
        "behaviour": "previous_token",
        "token": fake_values.TOKENS["word"][0],
    }
    # the fake's heads attend anywhere too seldom to be tested, its tokens are few
    few = {"polysemantic": {"kind": "neuron"}, "components_by_behaviour": {"least": 1}}.get(name, {})
    return {parameter: values[parameter] for parameter in required} | few


SQL_FILES = sorted([*assets.folder("queries").glob("*.sql"), *assets.PACKAGE.rglob("*.sql")])
STATISTICS = {"n", "p", "q", "t", "z"}  # symbols that stand in every textbook, and that results are named by


@pytest.mark.parametrize("path", SQL_FILES, ids=lambda path: path.name)
def test_sql_is_written_for_readers(path: Path) -> None:
    """Lines of at most 100 columns, and whole words for tables and columns."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > 100] == []
    code = re.sub(r"'[^']*'", "''", "\n".join(re.sub(r"--.*", "", line) for line in lines))
    tables = re.findall(r"\b(?:FROM|JOIN)\s+[\w.]+(?:\(''\))?\s+(?:AS\s+)?([a-z]{1,2})\b(?!\s*\()", code)
    assert tables == []
    assert set(re.findall(r"\bAS (\w)\b", code)) - STATISTICS == set()
    assert set(re.findall(r"(?<![\w.])([a-z]{1,2})\.\w", code)) == set()


def test_there_are_queries() -> None:
    assert len(NAMES) >= 17


@pytest.mark.parametrize("name", NAMES)
def test_header_is_complete(name: str) -> None:
    parsed = query.header(name)
    assert parsed.question.endswith("?")
    assert parsed.grain.startswith("one row")


@pytest.mark.parametrize("name", NAMES)
def test_runs_with_its_defaults_and_has_its_key(db: query.Connection, name: str) -> None:
    frame = query.run(db, name, **defaults(name))
    assert len(frame) > 0
    key = list(query.header(name).key)
    assert frame.select(key).is_duplicated().sum() == 0
    assert frame.select(key).null_count().sum_horizontal().item() == 0
    # sums of floats are taken in the order of the threads: the last bits may differ, the rows and their order not
    assert_frame_equal(frame, query.run(db, name, **defaults(name)), rel_tol=1e-11, abs_tol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_runs_alone_in_another_connection(db: query.Connection, copy: Path, name: str) -> None:
    """As in a shell: variables set beforehand, then the whole file."""
    with duckdb.connect(str(copy), read_only=True) as shell:
        for parameter, value in defaults(name).items():
            shell.execute(f"SET VARIABLE {parameter} = '{value}'")
        columns = [c[0] for c in shell.execute(query.sql_text(name)).description]
        rows = shell.fetchall()
    frame = query.run(db, name, **defaults(name))
    assert columns == frame.columns
    assert len(rows) == len(frame)


@pytest.mark.parametrize("name", NAMES)
def test_a_required_parameter_is_asked_for_in_a_shell(copy: Path, name: str) -> None:
    with duckdb.connect(str(copy), read_only=True) as shell:
        if any(p.required for p in query.header(name).parameters):
            with pytest.raises(duckdb.Error, match=r"set the (component|behaviour|token) first"):
                shell.execute(query.sql_text(name))
        else:
            shell.execute(query.sql_text(name))


@pytest.mark.parametrize("name", NAMES)
def test_declares_the_parameters_that_it_reads_and_no_others(name: str) -> None:
    text = query.sql_text(name)
    declared = {p.name for p in query.header(name).parameters}
    own = set(
        re.findall(r"SET VARIABLE (\w+) =\s*(?:chosen_components)?\(", text)
    )  # lists that the file makes for itself
    assert (
        declared
        == set(re.findall(r"getvariable\('(\w+)'\)", text)) - own
        == set(re.findall(r"SET VARIABLE (\w+) = (?:coalesce|required)\(", text))
    )


def test_every_default_in_a_header_is_the_one_in_the_sql() -> None:
    seen = 0
    for name in NAMES:
        for parameter in query.header(name).parameters:
            pattern = rf"coalesce\(getvariable\('{parameter.name}'\)::\w+, ([^)]*)\);"
            written = re.search(pattern, query.sql_text(name))
            if not parameter.required:
                assert written is not None
                assert written[1] == repr(parameter.default)
                seen += 1
    assert seen >= 7


@pytest.mark.parametrize("name", NAMES)
def test_reads_what_it_says(db: query.Connection, name: str) -> None:
    text = query.sql_text(name)
    text = re.sub(r"--.*", "", "\n".join([text, *(macros.definitions()[macro] for macro in macros.called_in(text))]))
    relations = {
        r[0]
        for r in db.cursor()
        .execute("SELECT table_name FROM duckdb_tables() UNION SELECT view_name FROM duckdb_views() WHERE NOT internal")
        .fetchall()
    }
    used = {
        r
        for r in relations
        if re.search(rf"(?:FROM|JOIN)\s+{r}\b", text) and not re.search(rf"\b{r} AS (?:NOT MATERIALIZED )?\(", text)
    }
    said = {r for r in query.header(name).reads if not r.endswith("()")}
    assert said == used


def test_the_index_lists_every_query_and_no_other() -> None:
    lines = (Path(query.assets.folder("queries")) / "README.md").read_text(encoding="utf-8").splitlines()
    rows = {m[1]: line for line in lines if (m := re.match(r"\| \[(\w+)\]\(\1\.sql\)", line))}
    assert sorted(rows) == query.names()
    for name, line in rows.items():
        parsed = query.header(name)
        shown = [f"**{p.name}**" if p.required else f"{p.name} = {p.default!r}" for p in parsed.parameters]
        assert line == f"| [{name}]({name}.sql) | {parsed.question} | {parsed.grain} | {', '.join(shown) or '–'} |"


def test_no_section_of_the_index_is_empty() -> None:
    text = (Path(query.assets.folder("queries")) / "README.md").read_text(encoding="utf-8")
    sections = text.split("## Your own SQL")[0].split("### ")[1:]
    assert len(sections) > 5 and [s.splitlines()[0] for s in sections if "| [" not in s] == []


@pytest.mark.parametrize("name", NAMES)
def test_equals_a_slow_recomputation(fake: fake_run.FakeRun, db: query.Connection, name: str) -> None:
    RECOMPUTED[name](fake, db)
