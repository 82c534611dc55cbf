"""A run file from a stranger: whatever stands in it, no command reads or writes another file, loads a model, or runs
code for it."""

import json
import shutil
from contextlib import suppress
from pathlib import Path

import duckdb
import pytest
import tiny
from typer.testing import CliRunner

from profiler import cli
from profiler.behaviours import additions as behaviour_additions
from profiler.behaviours.compare import open_both
from profiler.behaviours.expressions import check_condition
from profiler.config import ModelChoice
from profiler.database import connections, query
from profiler.database.transaction import writing
from profiler.errors import (
    CircuitError,
    CorpusError,
    ModelError,
    PairError,
    ProfilerError,
    QueryError,
    RunError,
    SiteError,
)
from profiler.generality import check, store
from profiler.generality.distributions import corpus
from profiler.generality.distributions.subject import Reread
from profiler.generality.evidence.predictions import Prediction
from profiler.model.of_run import load_for
from profiler.pages import build, site
from profiler.recording.merge import additions as merge_additions
from profiler.recording.merge import merge
from profiler.recording.merge.read_back import Stored

STOLEN = "pwned"


def changed(path: Path, *statements: str) -> Path:
    """The run after a stranger was at it."""
    with duckdb.connect(str(path)) as run:
        for statement in statements:
            run.execute(statement)
    return path


def newer(path: Path) -> Path:
    """The run in DuckDB's storage of 2.0, which has triggers; where the run was."""
    old = path.rename(path.with_name("old.duckdb"))
    with duckdb.connect() as both:
        both.execute(f"ATTACH '{old}' AS old (READ_ONLY); ATTACH '{path}' AS new (STORAGE_VERSION 'v2.0.0')")
        both.execute("COPY FROM DATABASE old TO new")
    return path


def contents(path: Path) -> dict[str, list]:
    with duckdb.connect(str(path), read_only=True) as run:
        names = [name for (name,) in run.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        return {name: run.execute(f'SELECT * FROM "{name}" ORDER BY ALL').fetchall() for name in names}


PREDICTION = Prediction("it holds", "circuit", "faithfulness", ">", 0.8, "corpus")
WRITERS = {
    "classes add": lambda path: behaviour_additions.add_class(path, "mine", "text = 'a'"),
    "behaviours add": lambda path: behaviour_additions.add_behaviour(path, "mine", "token = 'a'"),
    "behaviours refresh": behaviour_additions.refresh,
    "predict register": lambda path: store.register(path, [PREDICTION]),
}


# --- conditions that stand in the file ---

CONDITIONS = [
    "true); COPY (SELECT 'pwned') TO '{out}'; SELECT (true",
    "true); COPY (SELECT 'pwned') TO '{out}'; --",
    "(SELECT count(*) FROM read_text('/etc/hostname')) > 0",
    "exists(SELECT 1 FROM read_csv('{out}'))",
    "COLUMNS(*) IS NOT NULL",
    "getvariable('x') = 1",
    "mine_too(token)",
]


@pytest.mark.parametrize("writer", ["classes add", "behaviours add", "behaviours refresh"])
@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_stored_condition_is_checked_before_it_is_used(condition, writer, unchecked, tmp_path):
    out = tmp_path / STOLEN
    bad = condition.format(out=out).replace("'", "''")
    changed(
        unchecked,
        "CREATE MACRO mine_too(x) AS true",
        f"UPDATE behaviours SET condition = '{bad}' WHERE behaviour = 'first_token'",
        "UPDATE behaviours SET kind = 'both' WHERE behaviour = 'first_token'",
    )
    before = contents(unchecked)
    with pytest.raises(QueryError, match="the condition"):
        WRITERS[writer](unchecked)
    assert contents(unchecked) == before
    assert not out.exists()


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE behaviours ALTER behaviour_id TYPE VARCHAR",
        "UPDATE behaviours SET kind = 'head'') UNION ALL SELECT (1' WHERE behaviour_id = 0",
        "UPDATE behaviours SET condition = NULL WHERE behaviour_id = 0",
    ],
)
def test_numbers_and_kinds_of_stored_behaviours_are_checked_too(change, unchecked):
    changed(unchecked, "DROP TABLE layer_coverages", change)
    with pytest.raises(ProfilerError):
        behaviour_additions.refresh(unchecked)


def test_a_condition_that_all_merged_runs_share_is_checked(unchecked, tmp_path):
    """By our own empty database: a function of the run's own is none there."""
    row = "(999, 'odd', 'user', 'head', 'mine_too(token)', 'd', 1, true)"
    changed(unchecked, "CREATE MACRO mine_too(x) AS true", f"INSERT INTO behaviours VALUES {row}")
    runs = [Stored.__new__(Stored) for _ in range(2)]
    for run in runs:
        run.path, run.connection = unchecked, query.open_run(unchecked)
    with pytest.raises(QueryError, match="mine_too"):
        merge_additions.carried(runs, [])
    for run in runs:
        run.close()


@pytest.mark.parametrize(
    "condition", ["COLUMNS(*) = 'x'", "#1 = 'x'", "text = $1", "text = ?", "CURRENT_DATE > DATE '2000-01-01'"]
)
def test_what_means_something_else_where_it_is_put_is_no_condition(condition):
    with pytest.raises(QueryError):
        check_condition(condition, "token_texts")


@pytest.mark.parametrize(
    "condition", ["token_id + 1 > 2", "list_contains(list_filter(['x'], lambda t: t = text), 'x')", "text = 'a' -- so"]
)
def test_ordinary_conditions_still_are(condition):
    check_condition(condition, "token_texts")


# --- views, macros and triggers of the file's own ---

READS = "SELECT content AS complete FROM read_text('/etc/hostname')"
FOREIGN = {
    "macro in place of a function": ["CREATE MACRO abs(x) AS 666"],
    "macro that answers our parser": ["CREATE MACRO json_serialize_sql(x) AS '{{}}'"],
    "macro that hides functions": ["CREATE MACRO duckdb_functions() AS TABLE SELECT 'none' AS function_name"],
    "view in place of a table": [
        "ALTER TABLE runs RENAME TO runs_",
        "CREATE VIEW runs AS SELECT * FROM runs_ WHERE (SELECT count(*) FROM range(1000000000000000)) > 0",
    ],
}
OPENERS = {
    "query": lambda path: query.run(path, "run_info"),
    "report": lambda path: build.build(path, "overview"),
    "site": lambda path: site.build(path, path.with_name("site"), 1),
    "merge": lambda path: merge.merge([path, path.with_name("second.duckdb")], path.with_name("merged.duckdb")),
    **WRITERS,
}


@pytest.mark.parametrize("how", OPENERS)
@pytest.mark.parametrize("what", FOREIGN)
def test_a_file_that_replaces_what_a_run_rests_on_is_not_opened(what, how, unchecked):
    changed(unchecked, *FOREIGN[what])
    shutil.copy(unchecked, unchecked.with_name("second.duckdb"))
    with pytest.raises(RunError, match=r"in place of .* is not opened"):
        OPENERS[how](unchecked)


@pytest.mark.parametrize("how", WRITERS)
def test_a_file_that_does_something_when_it_is_written_to_is_not_written(how, unchecked):
    table, column = ("prediction_log", "hash") if how == "predict register" else ("behaviours", "behaviour")
    if table == "prediction_log":
        store.register(unchecked, [PREDICTION])
    changed(
        newer(unchecked),
        "CREATE TABLE loot (x VARCHAR)",
        f"CREATE TRIGGER t AFTER INSERT ON {table} FOR EACH ROW INSERT INTO loot SELECT concat(NEW.{column}, content)"
        " FROM read_text('/etc/hostname')",
    )
    with pytest.raises(RunError, match="a trigger 't'"):
        WRITERS[how](unchecked)
    assert contents(unchecked)["loot"] == []


@pytest.mark.parametrize("how", WRITERS)
@pytest.mark.parametrize("view", ["position_facts", "token_texts", "predictions", "samples"])
def test_a_view_that_reads_another_file_reads_nothing(how, view, unchecked):
    """Not in a connection that writes either: whatever ends, ends in a sentence, and the file holds nothing of the
    other."""
    if view == "predictions":
        store.register(unchecked, [PREDICTION])
    changed(
        unchecked,
        f"CREATE OR REPLACE VIEW {view} AS SELECT p.*, t.content FROM read_text('/etc/hostname') t, (FROM"
        f" {'prediction_log' if view == 'predictions' else 'tokens'}) p",
    )
    name = Path("/etc/hostname").read_text().strip()
    with suppress(ProfilerError):
        WRITERS[how](unchecked)
    assert not any(name in str(rows) for rows in contents(unchecked).values() if len(name) > 3)


def test_connections_that_write_are_closed(unchecked, tmp_path):
    for opened in (writing(unchecked), open_both(unchecked, shutil.copy(unchecked, tmp_path / "b.duckdb"))):
        with suppress(RunError), opened as run:
            for sql in (
                f"COPY (SELECT 1) TO '{tmp_path / STOLEN}'",
                f"ATTACH '{tmp_path / STOLEN}' AS x",
                "LOAD httpfs",
                "FROM '/etc/hostname'",
                "SET enable_external_access = true",
                "SET lock_configuration = false",
                "SELECT * FROM sql",
                f"CALL enable_logging(storage = 'file', storage_path = '{tmp_path / STOLEN}')",
            ):
                with pytest.raises(duckdb.Error):
                    run.cursor().execute(sql).fetchall()
    assert not (tmp_path / STOLEN).exists()


def test_the_file_of_a_pass_reads_its_own_folder_alone(tmp_path):
    folder = tmp_path / "lr=0.1 [x]'s"
    folder.mkdir()
    (folder / "a.csv").write_text("a\n1\n")
    (tmp_path / "b.csv").write_text("a\n2\n")
    (folder / "link.csv").symlink_to(tmp_path / "b.csv")
    quoted = str(folder).replace("'", "''")
    with connections.begin(folder / "run.duckdb", folder) as run:
        assert run.execute(f"SELECT content FROM read_text(['{quoted}/a.csv'])").fetchall() == [("a\n1\n",)]
        for other in (f"{tmp_path}/b.csv", f"{quoted}/../b.csv", f"{quoted}/link.csv", "/etc/hostname"):
            with pytest.raises(duckdb.Error):
                run.execute(f"SELECT content FROM read_text('{other}')").fetchall()


def test_a_label_that_is_a_path_makes_no_file(unchecked, tmp_path):
    out = tmp_path / "deep" / "site"
    out.parent.mkdir()
    changed(unchecked, "UPDATE components SET component = '../../../pwned' WHERE component = 'L0H0'")
    with pytest.raises(SiteError, match="neither a label nor a file name"):
        site.build(unchecked, out, None)
    assert not list(tmp_path.rglob("pwned*"))


@pytest.mark.parametrize("config", ["", "3", "[]", "{", '{"model": 3}', '{"model": "m", "corpora": []}'])
def test_settings_that_are_none_are_one_sentence(config, stranger):
    changed(stranger, f"UPDATE runs SET config = '{config}'")
    with pytest.raises(RunError, match="no finished run that can be merged"):
        Stored(stranger)
    assert corpus.config_of(stranger, Reread()) == (None, 0)
    with pytest.raises(ModelError):
        load_for(changed(stranger, "UPDATE runs SET model = 'none'"), ModelChoice())


@pytest.mark.parametrize("number", [-1, 257, 2_000_000_000])
def test_tokens_that_the_model_does_not_know_are_one_sentence(number, stranger):
    changed(stranger, f"UPDATE windows SET token_ids = list_transform(token_ids, lambda t: {number})")
    done = CliRunner().invoke(cli.app, ["report", str(stranger), "component", "--component", "L1H1", "--attention"])
    assert isinstance(done.exception, RunError) and "token ids" in str(done.exception)


# --- what the file names: a model, a corpus, pairs ---


def settings(run: Path, **wishes) -> Path:
    """The run with other settings in it."""
    with duckdb.connect(str(run)) as con:
        given = json.loads(con.execute("SELECT config FROM runs").fetchone()[0]) | wishes
        con.execute("UPDATE runs SET config = ?, model = ?", [json.dumps(given), given["model"]])
    return run


@pytest.fixture
def stranger(run_path, tmp_path) -> Path:
    """A run that wants code to be run."""
    return Path(shutil.copy(run_path, tmp_path / "stranger.duckdb"))


@pytest.fixture
def code(tmp_path, model_dirs) -> tuple[Path, Path]:
    """A directory whose tokenizer and model are code of its own, and the file that the code leaves."""
    folder, mark = tmp_path / "code", tmp_path / STOLEN
    shutil.copytree(model_dirs["gpt2"], folder)
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w').write('x')\nclass Evil: pass\n")
    own = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil", "AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    for name in ("config.json", "tokenizer_config.json"):
        found = json.loads((folder / name).read_text())
        changes = {"auto_map": own} | ({"model_type": "evil"} if name == "config.json" else {"tokenizer_class": "Evil"})
        (folder / name).write_text(json.dumps(found | changes))
    return folder, mark


COMMANDS = {
    "report": ["report", "{run}", "component", "--component", "L1H1", "--attention"],
    "patch": ["patch", "{run}", "ioi"],
    "check": ["check", "{run}", "ioi", "--reread"],
}


@pytest.fixture
def toy(tmp_path) -> str:
    """A circuit of the tiny model."""
    path = tmp_path / "toy.yaml"
    path.write_text("name: toy\nmodel: toy\nmembers: [L0H0]\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_runs_code_that_a_run_asks_for(command, stranger, code, toy):
    folder, mark = code
    settings(stranger, model=str(folder), trust_remote_code=True, allow_pickle=True)
    arguments = [
        word.format(run=stranger).replace("ioi", toy if command == "check" else "ioi") for word in COMMANDS[command]
    ]
    done = CliRunner().invoke(cli.app, arguments)
    assert isinstance(done.exception, ModelError), done.output
    assert not mark.exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_loads_pickled_weights_that_a_run_asks_for(command, stranger, model_dirs, tmp_path, toy):
    folder, mark = tmp_path / "pickled", tmp_path / STOLEN
    shutil.copytree(model_dirs["gpt2"], folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch " + str(mark).encode() + b"'\ntR.")
    settings(stranger, model=str(folder), allow_pickle=True)
    arguments = [
        word.format(run=stranger).replace("ioi", toy if command == "check" else "ioi") for word in COMMANDS[command]
    ]
    done = CliRunner().invoke(cli.app, arguments)
    assert isinstance(done.exception, ModelError), done.output
    assert not mark.exists()


def test_a_runs_model_is_used_unasked_where_it_is_the_same(stranger, model_dirs, tmp_path):
    assert load_for(stranger, ModelChoice()).spec.n_layers == 2
    other = tmp_path / "other"
    shutil.copytree(model_dirs["gpt2"], other)
    tiny.torch.manual_seed(3)
    tiny.ARCHITECTURES["gpt2"]().save_pretrained(other)
    with pytest.raises(ModelError, match="other weights"):
        load_for(settings(stranger, model=str(other)), ModelChoice())
    assert load_for(stranger, ModelChoice(str(model_dirs["gpt2"]))).spec.n_layers == 2


@pytest.mark.parametrize(
    "name", ["/no/such/folder", "../up", "\\\\host\\share", "//host/share", "~/model", "a b", "hf:x", "x/y/z", ""]
)
def test_a_name_that_is_no_place_here_and_no_hub_name_must_be_given(name, stranger):
    with pytest.raises(ModelError, match="--model"):
        load_for(settings(stranger, model=name), ModelChoice())


def test_rights_are_given_to_a_model_that_is_named(stranger):
    for choice in (ModelChoice(trust_remote_code=True), ModelChoice(allow_pickle=True)):
        with pytest.raises(ModelError, match="give it with --model"):
            load_for(stranger, choice)


@pytest.mark.parametrize("corpora", [["/etc/passwd"], ["a=/etc/*"], ["stdlib", "hf:evil/data"], ["mine=hf:evil/data"]])
def test_a_runs_corpus_is_read_where_the_user_says_so(corpora, stranger, toy):
    settings(stranger, corpora=corpora, trust_remote_code=True)
    with pytest.raises(CorpusError, match=r"--corpus.*--reread"):
        corpus.config_of(stranger, Reread())
    done = CliRunner().invoke(cli.app, ["check", str(stranger), toy])
    assert isinstance(done.exception, CorpusError)
    config, _ = corpus.config_of(stranger, Reread(("mine.txt",)))
    assert config.corpora == ("mine.txt",) and not config.trust_remote_code and not config.allow_pickle
    agreed, _ = corpus.config_of(stranger, Reread(agreed=True))
    assert agreed.corpora == tuple(corpora) and not agreed.trust_remote_code


def test_the_bundled_corpus_is_read_unasked(stranger):
    for corpora in (["stdlib"], ["own=stdlib"]):
        assert corpus.config_of(settings(stranger, corpora=corpora), Reread())[0].corpora == tuple(corpora)


@pytest.mark.slow
def test_a_file_of_pairs_that_a_run_names_is_not_read(checked, monkeypatch):
    circuits = check.circuit_of_run
    found = circuits.CircuitOfRun(files_circuit(), check.circuit_of_run.PatchSettings("/etc/pairs.jsonl"))
    monkeypatch.setattr(circuits, "find", lambda *_: found)
    settings(checked, corpora=["stdlib"], model="m")
    with pytest.raises(PairError, match="--reread"):
        check.refuse_unasked(checked, "toy", Reread())
    assert check.refuse_unasked(checked, "toy", Reread(agreed=True)) is found


@pytest.mark.parametrize(
    ("yaml", "settings_"),
    [
        ("!!python/object/apply:os.system ['touch pwned']", '{"task": "ioi"}'),
        ("a: [", '{"task": "ioi"}'),
        ("members: [L0H0]", "3"),
        ("members: [L0H0]", "{"),
        ("members: [L0H0]", '{"task": 5}'),
        ("members: [L0H0]", '{"task": "ioi", "pairs": "x"}'),
    ],
)
def test_a_circuit_that_stands_in_a_run_is_read_like_a_file(yaml, settings_):
    with pytest.raises(CircuitError):
        check.circuit_of_run._found({"yaml": yaml, "settings": settings_, "circuit": "toy"})


def files_circuit():
    from profiler.circuits.circuit import Circuit, Member, Scope

    return Circuit("toy", "toy", (Member("L0H0"),), Scope("own", "none", ()))
