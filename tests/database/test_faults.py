"""Faults of DuckDB itself: nothing that was read is lost, and a sentence says what is safe and what to do."""

import duckdb
import pytest
from same import differing_tables
from tiny import names

from profiler.behaviours import additions, views
from profiler.behaviours.compare import open_both
from profiler.cli import main
from profiler.config import RunConfig
from profiler.database import faults, query
from profiler.database.pass_commits import partial_path, read_manifest
from profiler.database.transaction import writing
from profiler.errors import EngineError, RunError
from profiler.pages.build import build
from profiler.recording.merge.read_back import Stored
from profiler.recording.pipeline import record
from profiler.recording.write import Store

FAULT = duckdb.InternalException("INTERNAL Error: a column changed identity\n\nStack Trace:\n0x1\n0x2")
DERIVED_QUERIES = ("behaviours", "mixture", "polysemantic", "precision_recall", "rarity", "unexplained")


def fail(*_: object, **__: object) -> None:
    raise FAULT


def sentence(error: BaseException) -> str:
    """What is said: one line, that names DuckDB's version and its reason."""
    said = str(error)
    assert "\n" not in said and "Stack Trace" not in said
    assert f"DuckDB {duckdb.__version__} failed inside itself" in said and "changed identity" in said
    return said


@pytest.fixture(scope="module")
def small(base_config: RunConfig) -> RunConfig:
    """Quick, with behaviours that hold."""
    return base_config.model_copy(update={"tokens": 400, "dense_positions": 40, "components": ()})


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    """The run of a pass that nothing happened to."""
    path = tmp_path_factory.mktemp("whole") / "run.duckdb"
    record(small, path)
    return path


@pytest.fixture
def underived(small, tmp_path, monkeypatch):
    """A run whose derived step failed."""
    path = tmp_path / "run.duckdb"
    with monkeypatch.context() as patched, pytest.raises(EngineError) as caught:
        patched.setattr(views, "refresh", fail)
        record(small, path)
    assert f"{path} is whole" in sentence(caught.value)
    assert f"profiler behaviours refresh {path}" in str(caught.value)
    assert names(tmp_path) == ["run.duckdb"]
    return path


@pytest.mark.slow
def test_a_run_whose_derived_step_failed_is_whole_and_says_what_it_lacks(underived, whole, monkeypatch, capsys):
    assert query.run(underived, "component_overview").equals(query.run(whole, "component_overview"))
    for name in DERIVED_QUERIES:
        given = {"component": "L0H0"} if "component" in {p.name for p in query.header(name).parameters} else {}
        given |= {"behaviour": "induction"} if name == "precision_recall" else {}
        with pytest.raises(query.QueryError, match="profiler behaviours refresh"):
            query.run(underived, name, **given)
    for view in ("component_facts", "head_facts", "neuron_facts", "uniform_rows", "pooled_rows"):
        with pytest.raises(query.QueryError, match="profiler behaviours refresh"):
            query.run(underived, f"SELECT * FROM {view}")
    with pytest.raises(query.QueryError, match="profiler behaviours refresh"):
        build(underived, "component", "L0H0")
    monkeypatch.setattr("sys.argv", ["profiler", "info", str(underived)])
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().out
    assert "not in this run yet" in said and f"profiler behaviours refresh {underived}" in said.replace("\n", " ")


@pytest.mark.slow
def test_refresh_completes_it(underived, whole):
    additions.refresh(underived)
    assert differing_tables(underived, whole)[1] == []
    assert query.run(underived, "behaviours", component="L0H0").equals(query.run(whole, "behaviours", component="L0H0"))


def test_resume_completes_it(underived, whole, small):
    assert record(small, underived, resume=True).before
    assert differing_tables(underived, whole)[1] == []


@pytest.mark.slow
def test_a_derived_step_that_fails_half_way_leaves_nothing_of_itself(small, whole, tmp_path, monkeypatch):
    """A true error of DuckDB after the first of the tables is filled; then the same again, and then the end."""
    (tmp_path / "broken.sql").write_text("INSERT INTO layer_coverages VALUES (1, 1, 1.0, NULL); SELECT error('boom');")
    path = tmp_path / "run.duckdb"
    with monkeypatch.context() as patched:
        patched.setattr(views, "COVERAGES", tmp_path / "broken.sql")
        with pytest.raises(RunError, match=r"is whole.*boom.*profiler behaviours refresh"):
            record(small, path)
        with pytest.raises(RunError, match=r"boom"):
            record(small, path, resume=True)
    with duckdb.connect(str(path), read_only=True) as run:
        made = {name for (name,) in run.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
        assert not made & set(views.DERIVED)
        assert not views.is_derived(run)
    assert names(tmp_path) == ["broken.sql", "run.duckdb"]
    record(small, path, resume=True)
    assert differing_tables(path, whole)[1] == []


@pytest.mark.slow
@pytest.mark.parametrize("where", ["insert", "assemble", "limit_memory"])
def test_a_fault_while_the_file_is_written_keeps_the_pass(where, small, whole, tmp_path, monkeypatch):
    path = tmp_path / "run.duckdb"
    with monkeypatch.context() as patched, pytest.raises(EngineError) as caught:
        patched.setattr(Store, where, fail)
        record(small, path)
    assert "What was read is safe" in sentence(caught.value) and "--resume" in str(caught.value)
    assert names(tmp_path) == ["run.duckdb.partial"]
    assert read_manifest(partial_path(path)).facts["cursor"]["done"]
    record(small, path, resume=True)
    assert differing_tables(path, whole)[1] == []


def test_a_fault_is_one_sentence_wherever_a_run_is_opened_asked_or_written(whole, tmp_path, monkeypatch):
    copy = tmp_path / "copy.duckdb"
    copy.write_bytes(whole.read_bytes())
    before = copy.read_bytes()

    def said(action) -> str:
        with pytest.raises(EngineError) as caught:
            action()
        return sentence(caught.value)

    stored = Stored(copy)
    with monkeypatch.context() as patched:
        patched.setattr(query, "_frame", fail)
        assert "as it was" in said(lambda: query.run(copy, "SELECT 1"))
    with monkeypatch.context() as patched:
        patched.setattr("profiler.recording.merge.read_back.pl.DataFrame", fail)
        assert "as it was" in said(lambda: stored.rows("FROM runs"))
    stored.close()
    with monkeypatch.context() as patched:
        patched.setattr(views, "refresh", fail)
        assert "as it was" in said(lambda: additions.refresh(copy))
        assert "as it was" in said(lambda: additions.add_behaviour(copy, "far", "distance > 2"))
    with monkeypatch.context() as patched:
        patched.setattr("profiler.behaviours.expressions._check_shape", fail)
        said(lambda: additions.add_behaviour(copy, "far", "distance > 2"))

    def write() -> None:
        with writing(copy) as run:
            run.execute("UPDATE runs SET model = 'x'")
            fail()

    assert "as it was" in said(write)
    with monkeypatch.context() as patched:
        patched.setattr(duckdb, "connect", fail)
        for open_it in (
            query.open_run,
            Stored,
            additions.refresh,
            lambda path: writing(path).__enter__(),
            lambda path: open_both(path, whole).__enter__(),
        ):
            assert "as it was" in said(lambda open_it=open_it: open_it(copy))
    assert copy.read_bytes() == before


def test_the_command_line_says_it_too(whole, monkeypatch, capsys):
    monkeypatch.setattr("profiler.cli.query.queries.find_text", fail)
    monkeypatch.setattr("sys.argv", ["profiler", "query", str(whole), "corpus"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    err = capsys.readouterr().err
    assert "failed inside itself" in err and "Traceback" not in err


def test_a_fault_is_told_from_other_errors():
    assert faults.fault(FAULT) and faults.fault(duckdb.FatalException("x"))
    assert not faults.fault(duckdb.BinderException("x")) and not faults.fault(OSError("x"))
