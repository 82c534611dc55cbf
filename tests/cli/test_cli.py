"""The command line as a user meets it: what works, and that every mistake ends in one sentence and a non-zero exit."""

import inspect
import json
import signal
import subprocess
import sys
import time
import typing
from pathlib import Path

import pytest
import tiny

from profiler.cli import app, main, options
from profiler.cli.record import _left
from profiler.config import RunConfig
from profiler.database.pass_commits import Partial, partial_path, read_manifest
from profiler.folders import lock
from profiler.recording import pipeline
from profiler.recording.write import Store
from profiler.text import documents


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run a command line; its exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["profiler", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = capsys.readouterr()
        return exit_.value.code or 0, out, err

    return run


@pytest.fixture
def record(cli, model_dirs, corpus_file, tmp_path):
    """`profiler record` with good arguments, some replaced; the exit code, output, error and run path."""

    def run(model=None, corpus=None, *more, out=tmp_path / "run.duckdb"):
        corpora = [part for c in [corpus or corpus_file] for part in ("--corpus", c)]
        model = model or model_dirs["gpt2"]
        return (
            *cli("record", model, *corpora, "--out", out, "--dense-positions", 8, "--tokens", 400, *more),
            Path(out),
        )

    return run


def refused(result, *words: str) -> None:
    """One sentence with all these words on standard error, no traceback, no run."""
    code, out, err, *path = result
    assert code == 1
    assert err.startswith("profiler: ")
    assert "Traceback" not in err + out
    for word in words:
        assert word in err.replace("\n", " ")
    assert not path or not (path[0].exists() or partial_path(path[0]).exists())


def test_record_info_query_report(record, cli, tmp_path):
    code, out, err, path = record()
    assert (code, err) == (0, "")
    assert "forecast: about" in out
    assert "all DLA add up to the logits within" in out
    code, out, _ = cli("info", path)
    assert code == 0
    assert "GPT2LMHeadModel" in out
    code, out, _ = cli("query", path, "component_overview", "--set", "kind=head", "--format", "json")
    assert code == 0
    assert {row["component"] for row in json.loads(out)} == {"L0H0", "L0H1", "L1H0", "L1H1"}
    page = tmp_path / "card.html"
    code, out, _ = cli("report", path, "component", "--component", "L1N3", "--out", page)
    assert code == 0
    assert "L1N3" in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_several_corpora_are_domains_that_take_turns(record, cli, corpus_file, tmp_path):
    other = tiny.write_corpus(tmp_path / "other.jsonl", seed=7)
    code, _, err, path = record(None, f"first={corpus_file}", "--corpus", f"second={other}")
    assert (code, err) == (0, "")
    sql = tmp_path / "domains.sql"
    sql.write_text("SELECT domain, count(*) AS n FROM documents GROUP BY domain ORDER BY domain")
    _, out, _ = cli("query", path, sql, "--format", "csv")
    rows = dict(line.split(",") for line in out.split()[1:])
    assert set(rows) == {"first", "second"}
    assert abs(int(rows["first"]) - int(rows["second"])) <= 1


def test_unknown_model(record):
    refused(record("no/such-model"), "no/such-model", "cannot be loaded", "local directory")


@pytest.mark.slow
def test_weights_that_are_not_safetensors_are_refused_unless_allowed(record, tmp_path):
    import torch

    folder = tiny.save("gpt2", tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    torch.save(tiny.network("gpt2").state_dict(), folder / "pytorch_model.bin")
    refused(record(folder), "are pickled", "safetensors", "--allow-pickle")
    assert record(folder, None, "--allow-pickle")[0] == 0


def test_tokenizer_of_another_model(record, tmp_path):
    folder = tiny.save("gpt2", tmp_path / "mixed")
    larger = tiny.tokenizer()
    larger.add_tokens(["<one more>"])
    larger.save_pretrained(folder)
    refused(record(folder), "do not belong together", "257")


def test_unknown_corpus(record):
    refused(record(None, "missing.jsonl"), "missing.jsonl", "hf:name")


def test_missing_text_field(record):
    refused(record(None, None, "--text-field", "body"), "'body'", "'text'", "--text-field")


def test_empty_corpus(record, tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    refused(record(None, empty), "empty.jsonl")
    empty.write_text(json.dumps({"text": "  "}) + "\n")
    refused(record(None, empty), "holds no text")


@pytest.mark.parametrize("component", ["L9H0", "L0H7", "L0N99", "banana", "embed"])
def test_component_that_does_not_exist(record, component):
    refused(record(None, None, "--components", component), component)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--tokens", "many"),
        ("--tokens", "0"),
        ("--batch-size", "0"),
        ("--context-length", "1"),
        ("--disk-budget", "1,000"),
        ("--seed", "-1"),
        ("--seed", str(2**63)),
        ("--tokens", "9" * 400),
        ("--disk-budget", "-1"),
        ("--dense-positions", "-1"),
        ("--dense-positions", str(10**30)),
        ("--samples", "0"),
        ("--samples", str(10**30)),
        ("--extremes", str(10**30)),
        ("--replicate-groups", "1"),
        ("--replicate-groups", str(10**30)),
        ("--windows-per-document", "0"),
        ("--shuffle-buffer", "0"),
    ],
)
def test_bad_values(record, option, value):
    refused(record(None, None, option, value.replace(",", "")), value)


def numeric_options():
    """Every option of every command that takes a number: command, name, and what is said of it."""
    commands = [
        *app.registered_commands,
        *(c for group in app.registered_groups for c in group.typer_instance.registered_commands),
    ]
    for command in commands:
        for name, parameter in inspect.signature(command.callback).parameters.items():
            kinds = typing.get_args(parameter.annotation)
            if {int, float} & {kinds[0], *typing.get_args(kinds[0])}:
                yield command.callback.__name__, name, kinds[1]


def test_every_number_has_a_least(record):
    """Those of `record` are checked with the other settings; a threshold is any finite number."""
    found = list(numeric_options())
    assert len(found) > 20
    free = {("record", name) for name in options.__dict__.keys() | RunConfig.model_fields.keys() | {"samples"}}
    without = [(command, name) for command, name, option in found if option.min is None and (command, name) not in free]
    assert without == [("register_prediction", "threshold")]


def test_device_that_torch_does_not_have(record):
    refused(record(None, None, "--device", "cuda:99"), "--device cuda:99")


@pytest.mark.slow
def test_existing_run_is_kept(record):
    assert record()[0] == 0
    code, _, err, path = record()
    before = path.read_bytes()
    assert code == 1
    assert "--overwrite" in err
    assert path.read_bytes() == before
    assert record(None, None, "--overwrite")[0] == 0


def test_demo_does_not_replace_a_run_of_the_user(cli, tmp_path):
    path = tmp_path / "run.duckdb"
    path.write_bytes(b"a run")
    before = path.read_bytes()
    code, _, err = cli("demo", "--out", path, "--tokens", 1000)
    assert code == 1
    assert "--overwrite" in err
    assert path.read_bytes() == before


def test_folder_that_does_not_exist(record, tmp_path):
    refused(record(out=tmp_path / "no" / "run.duckdb"), "folder must exist")


def test_not_a_run(cli, tmp_path):
    text = tmp_path / "text.duckdb"
    text.write_text("hello")
    refused(cli("info", text), "text.duckdb")
    refused(cli("info", tmp_path / "missing.duckdb"), "missing.duckdb")


def test_a_run_that_is_not_there_yet(cli, tmp_path, base_config):
    path = tmp_path / "run.duckdb"
    with Store(path):
        refused(cli("query", path, "component_overview"), "being written by process", "nothing is committed")
    stop_after_a_commit(base_config, path)
    refused(cli("query", path, "component_overview"), "the last commit", "tokens of 40 documents", "--resume")
    with Store(path, resume=True):
        refused(cli("query", path, "component_overview"), "being written by process", "the last commit")


@pytest.mark.slow
def test_shards_and_merge(record, cli, tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "BLOCK_DOCUMENTS", 2)
    paths = [record(None, None, "--shard", f"{i}/2", out=tmp_path / f"{i}.duckdb")[3] for i in (1, 2)]
    code, out, err = cli("merge", *paths, "--out", tmp_path / "all.duckdb")
    assert (code, err) == (0, "")
    assert "400 tokens" in out and "the whole corpus" in out
    code, out, err = cli("info", paths[0])
    assert "shard 1/2 of the corpus alone: 2/2 is missing" in " ".join(out.split())
    assert "missing" not in cli("info", tmp_path / "all.duckdb")[1]
    refused(cli("merge", paths[0], "--out", tmp_path / "x.duckdb"), "two runs or more")
    refused(
        cli("merge", paths[0], tmp_path / "all.duckdb", "--out", tmp_path / "x.duckdb"), "shard 1/2 here, 1/1 there"
    )
    refused(record(None, None, "--shard", "5", out=tmp_path / "x.duckdb"), "'5'", "1/4")
    refused(record(None, None, "--workers", "2", out=tmp_path / "x.duckdb"), "--engine ray")


@pytest.mark.slow
def test_wrong_queries_and_reports(record, cli):
    path = record()[3]
    refused(cli("query", path, "component_overveiw"), "component_overview")
    refused(cli("query", path, "spectrum_by_class"), "component")
    refused(cli("query", path, "spectrum_by_class", "--set", "component=L7H7"), "L7H7")
    refused(cli("query", path, "component_overview", "--set", "colour=red"), "colour")
    refused(cli("report", path, "componnet", "--component", "L0H0"), "component")
    refused(cli("report", path, "component"), "--component")
    refused(cli("report", path, "component", "--component", "L7H7"), "L7H7")


def test_damaged_files_and_closed_folders_are_one_sentence(cli, run_path, tmp_path):
    damaged, data = tmp_path / "damaged.duckdb", bytearray(run_path.read_bytes())
    for at in range(20_000, len(data), 5_000):
        data[at] ^= 1
    damaged.write_bytes(data)
    for words in (
        ("info",),
        ("report", "component", "--component", "L0H0"),
        ("behaviours", "list"),
        ("classes", "list"),
    ):
        before = words if words[-1] == "list" else words[:1]
        refused(cli(*before, damaged, *words[len(before) :]), "Corrupt database file")
    refused(cli("merge", run_path, damaged, "--out", tmp_path / "merged.duckdb"), f"{damaged} cannot be", "Corrupt")
    (tmp_path / "page.html").mkdir()
    refused(cli("report", run_path, "overview", "--out", tmp_path / "page.html"), "page.html")


def stop_after_a_commit(config, path) -> None:
    """What a pass leaves that was stopped while it wrote the file."""

    def report(progress):
        if progress.stage == "writing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.record(config, path, report=report)


@pytest.mark.slow
def test_stopped_at_a_signal_and_resumed(model_dirs, tmp_path, cli):
    """Ctrl-C before the first commit, SIGTERM after one; then the same command with --resume, twice."""
    corpus = tiny.write_corpus(tmp_path / "long.jsonl", n_documents=900)
    out = tmp_path / "run.duckdb"
    command = [
        "record",
        model_dirs["gpt2"],
        "--corpus",
        corpus,
        "--tokens",
        "all",
        "--out",
        out,
        "--context-length",
        16,
        "--windows-per-document",
        1,
        "--dense-positions",
        8,
        "--commit-every",
        0,
    ]
    code, err = stopped(command, signal.SIGINT, out.with_name("run.duckdb.partial").exists)
    assert (code, "stopped" in err, "nothing is left behind" in err) == (130, True, True), err
    assert {p.name for p in tmp_path.iterdir()} == {"long.jsonl"}
    code, err = stopped(command, signal.SIGTERM, (partial_path(out) / "commit.json").exists)
    assert code == 143, err
    assert "the last commit" in err and "--resume" in err
    assert "Traceback" not in err
    committed = read_manifest(partial_path(out)).facts["tokens"]
    assert committed > 0
    refused(cli(*command), "was stopped", f"{committed:,} tokens", "--resume", "--overwrite")
    refused(
        cli(*command, "--resume", "--seed", 1, "--samples", 2),
        "seed 1 here, 0 there",
        "samples_per_stratum 2 here, 4 there",
    )
    code, text, err = cli(*command, "--resume")
    assert (code, err) == (0, "")
    assert {p.name for p in tmp_path.iterdir()} == {"long.jsonl", "run.duckdb"}
    code, text, err = cli(*command, "--resume")
    assert (code, err) == (0, "")
    assert "is finished: nothing was left to do" in text
    refused(cli(*command, "--resume", "--seed", 1)[:3], "another one", "seed 1 here, 0 there")


def stopped(command: list, sent: signal.Signals, moment) -> tuple[int, str]:
    """Exit code and error of a command that is sent a signal once `moment()` holds."""
    with subprocess.Popen(
        [sys.executable, "-m", "profiler", *map(str, command)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        wait_for(lambda: moment() or process.poll() is not None)
        process.send_signal(sent)
        _, err = process.communicate(timeout=120)
    return process.returncode, err


def wait_for(condition, seconds: float = 120) -> None:
    """Poll until `condition()` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


@pytest.mark.parametrize("reached", ["folder", "unnamed lock", "lock", "file begun"])
def test_a_pass_stopped_as_its_folder_is_made_leaves_none(tmp_path, monkeypatch, reached):
    """A signal before anyone would close the folder: the message said that nothing is left, and the folder was."""
    out = tmp_path / "run.duckdb"
    if reached == "folder":
        partial_path(out).mkdir()
    elif reached == "unnamed lock":
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(lock, "myself", interrupted)
            Partial(out)
    else:
        lost = Partial(out)
        if reached == "file begun":
            (lost.folder / "run.duckdb").write_bytes(b"begun")
    assert "nothing is left behind" in _left(out)
    assert list(tmp_path.iterdir()) == []
    if reached in ("lock", "file begun"):
        lost.lock.release()


def interrupted() -> str:
    """Ctrl-C while it runs."""
    raise KeyboardInterrupt


def test_what_another_process_writes_is_left_to_it(tmp_path):
    """A stop of this process never takes the folder of another."""
    folder = partial_path(tmp_path / "run.duckdb")
    folder.mkdir()
    script = f"""
import pathlib, sys
from profiler.folders.lock import Lock
lock = Lock(pathlib.Path({str(folder / "lock")!r}), "run")
print("locked", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"locked\n"
        assert f"process {other.pid}" in _left(tmp_path / "run.duckdb")
        other.stdin.close()
    assert folder.exists()
