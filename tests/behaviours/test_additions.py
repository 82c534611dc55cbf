"""Classes and behaviours of a user's own: added after a run they equal those of before it; bad ones change nothing."""

import shutil

import duckdb
import fake_run
import pytest
from duckdb import DuckDBPyConnection

from profiler.behaviours import additions
from profiler.cli import app
from profiler.database import query
from profiler.errors import ProfilerError, QueryError, RunError
from profiler.recording.pipeline import record

YEAR = "text ~ '^ ?(19|20)[0-9]{2}$'"
OWN_TABLES = {"properties", "token_property_lists", "behaviours", "uniform_marks", "layer_coverages"}


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    return fake_run.build(tmp_path_factory.mktemp("additions") / "fake.duckdb")


@pytest.fixture
def path(fake, tmp_path):
    return shutil.copy(fake.path, tmp_path / "run.duckdb")


def contents(path, leave_out=frozenset()) -> dict[str, list]:
    """Every table's rows, in an order of their own."""
    with duckdb.connect(str(path), read_only=True) as con:
        names = [r[0] for r in con.execute("SELECT table_name FROM duckdb_tables() WHERE NOT internal").fetchall()]
        return {n: con.execute(f"SELECT * FROM {n} ORDER BY ALL").fetchall() for n in names if n not in leave_out}


def views(path) -> list:
    with duckdb.connect(str(path), read_only=True) as con:
        return con.execute("SELECT view_name, sql FROM duckdb_views() WHERE NOT internal ORDER BY 1").fetchall()


def test_a_class_splits_exactly_and_touches_no_measured_table(fake, path):
    measured = contents(path, OWN_TABLES)
    assert additions.add_class(path, "my_year", YEAR) == 2
    assert contents(path, OWN_TABLES) == measured
    i, use = fake.row("L1H0"), fake.ordinary
    years = fake.positions["token_id"].is_in([3, 2]).to_numpy()
    row = query.run(path, "token_split", component="L1H0", property="my_year").row(0, named=True)
    assert row["of_user"]
    assert row["n"] == (use & years).sum() > 5
    assert row["dla"] == pytest.approx(fake.dla[i][use & years].mean(), rel=1e-12)
    found = query.run(path, "behaviours", component="L1H0", family="token", behaviour="on_my_year")
    assert found["n_held"][0] == (years & fake.positions["dense"].to_numpy()).sum() > 0


def test_special_tokens_are_in_no_class(path):
    """Not even in the class of everything."""
    listed = (
        "SELECT count(*) AS n FROM token_property_lists JOIN token_texts USING (token_id) WHERE special AND"
        " len(properties) > 0"
    )
    assert query.run(path, listed).item() == 0
    ordinary = query.run(path, "SELECT count(*) AS n FROM token_texts WHERE NOT special").item()
    every = query.run(path, "SELECT count(*) AS n FROM token_texts").item()
    assert additions.add_class(path, "anything", "true") == ordinary < every


@pytest.mark.slow
def test_a_class_defined_after_the_run_equals_one_defined_before(base_config, tmp_path):
    condition = "text ~ '^[0-9]$' OR class = 'operator' OR length(text) > 2"  # the special tokens' texts, too
    before, after = tmp_path / "before.duckdb", tmp_path / "after.duckdb"
    record(base_config.model_copy(update={"classes": (f"mine={condition}",)}), before)
    record(base_config, after)
    assert additions.add_class(after, "mine", condition) > 10
    flags = """SELECT component, behaviour, position_id, weight, holds FROM behaviour_rows
        WHERE behaviour IN ('on_mine', 'before_mine') ORDER BY ALL"""
    splits = "SELECT * FROM token_splits WHERE property = 'mine' ORDER BY ALL"
    for text in (flags, splits, "SELECT token_id, list_sort(properties) AS p FROM token_property_lists ORDER BY ALL"):
        first, second = (query.run(run, text) for run in (before, after))
        assert first.height > 8
        assert first.equals(second)
    assert query.run(before, flags)["holds"].sum() > 50


@pytest.mark.parametrize(
    ("condition", "part"),
    [
        ("colour = 'red'", 'column "colour" not found'),
        ("class", "gives VARCHAR and not true or false"),
        ("class ~ '['", "cannot be used"),
        ("true) OR (SELECT true", "holds a subquery"),
        ("true) FROM runs WHERE (true", "more than one expression"),
        ("(SELECT true)", "holds a subquery"),
        ("random() < 0.5", "changes from call to call"),
        ("true, true", "not true or false"),
        ("true; DROP TABLE runs", "cannot be used"),
        ("sum(length(class)) > 1", "aggregates"),
        ("", "is empty"),
    ],
)
def test_a_bad_condition_is_one_sentence_and_changes_nothing(path, condition, part):
    before = contents(path), views(path), path.read_bytes()
    for add in (additions.add_class, additions.add_behaviour):
        with pytest.raises(QueryError) as error:
            add(path, "bad", condition)
        assert part in str(error.value)
        assert "\n" not in str(error.value)
    assert (contents(path), views(path), path.read_bytes()) == before


def test_names_are_checked_and_taken_ones_refused(path):
    before = contents(path)
    for name in ("Year", "1st", "a b", "x'); DROP TABLE runs; --", "", "a" * 41):
        with pytest.raises(QueryError, match="is no name"):
            additions.add_class(path, name, YEAR)
    with pytest.raises(QueryError, match="already"):
        additions.add_class(path, "year", YEAR)
    with pytest.raises(QueryError, match="already"):
        additions.add_behaviour(path, "induction", "induction > 0.1", "head")
    with pytest.raises(QueryError, match="no property that a user added"):
        additions.remove_class(path, "year")
    with pytest.raises(QueryError, match="no behaviour that a user added"):
        additions.remove_behaviour(path, "induction")
    assert contents(path) == before


@pytest.mark.slow
def test_adding_and_removing_leaves_the_run_as_it_was(path):
    before = contents(path), views(path)
    additions.add_class(path, "mine", "contains(text, '--')")
    additions.add_behaviour(path, "far", "distance > 5 AND domain = 'code' -- a comment", "both")
    additions.add_behaviour(path, "looks", "induction + duplicate > 0.4", "head")
    found = query.run(path, "behaviours", component="L1H0", family="user")
    assert set(found["behaviour"]) == {"far", "looks"}
    assert "far" in set(query.run(path, "mixture", component="L1H0")["behaviour"])
    with pytest.raises(QueryError, match="no behaviour that a user added"):
        additions.remove_behaviour(path, "on_mine")
    additions.remove_class(path, "mine")
    additions.remove_behaviour(path, "far")
    additions.remove_behaviour(path, "looks")
    assert (contents(path), views(path)) == before


def test_a_behaviour_of_heads_only_cannot_be_asked_of_neurons(path):
    with pytest.raises(QueryError, match="induction"):
        additions.add_behaviour(path, "looks", "induction > 0.4", "neuron")
    additions.add_behaviour(path, "looks", "induction > 0.4", "head")
    assert query.run(path, "behaviours", component="L0N1", behaviour="looks", family="").is_empty()


def test_an_error_in_the_middle_undoes_everything(path, monkeypatch):
    before = contents(path), views(path)

    def broken(_: DuckDBPyConnection) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(additions.views, "refresh", broken)
    with pytest.raises(RuntimeError):
        additions.add_class(path, "mine", YEAR)
    assert (contents(path), views(path)) == before


def test_no_run_no_addition(tmp_path):
    with pytest.raises(RunError, match="there is no file"):
        additions.add_class(tmp_path / "none.duckdb", "mine", YEAR)
    assert list(tmp_path.iterdir()) == []


def test_a_class_of_the_command_line_is_checked_before_the_model_is_loaded(base_config, tmp_path):
    config = base_config.model_copy(update={"classes": ("mine=txt = 'x'",), "model": "does/not/exist"})
    with pytest.raises(ProfilerError, match="cannot be used"):
        record(config, tmp_path / "run.duckdb")
    assert list(tmp_path.iterdir()) == []


def command(capsys: pytest.CaptureFixture, *words: str) -> str:
    app(list(words), standalone_mode=False)
    return capsys.readouterr().out


@pytest.mark.slow
def test_the_commands(path, capsys):
    assert "2 tokens" in command(capsys, "classes", "add", str(path), "mine", YEAR)
    assert "0 tokens of the vocabulary. The condition is matched against single tokens" in command(
        capsys, "classes", "add", str(path), "none", "text = 'qq'"
    )
    assert command(capsys, "classes", "list", str(path)).splitlines()[2].startswith("mine")
    command(capsys, "behaviours", "add", str(path), "looks", "induction > 0.4", "--on", "head")
    listed = command(capsys, "behaviours", "list", str(path))
    assert [line.split()[0] for line in listed.splitlines()[2:7]] == [
        "on_mine",
        "before_mine",
        "on_none",
        "before_none",
        "looks",
    ]
    for words in (("classes", "remove", str(path), "mine"), ("behaviours", "remove", str(path), "looks")):
        assert "removed" in command(capsys, *words)
    with pytest.raises(QueryError, match="no behaviour that a user added"):
        command(capsys, "behaviours", "remove", str(path), "looks")
