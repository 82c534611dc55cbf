"""What is lost of a corpus is said with the outcome, in numbers; a warning above two of a hundred."""

import json
import os
import sys
from pathlib import Path

import duckdb
import polars as pl
import pytest
import tiny
from corpora import write_lines

from profiler.cli import main
from profiler.cli.terminal import losses
from profiler.database.query import run as run_query
from profiler.recording.merge.merge import merge


@pytest.fixture
def record(model_dirs, tmp_path, monkeypatch, capsys):
    """`profiler record` of a corpus on a tiny model: exit code, output and error."""

    def run(corpus: Path, *more: object, model=None, name: str = "run") -> tuple[int, str, str]:
        arguments = [
            "record",
            model or model_dirs["gpt2"],
            "--corpus",
            corpus,
            "--out",
            tmp_path / f"{name}.duckdb",
            "--tokens",
            "all",
            "--dense-positions",
            8,
            "--overwrite",
            *more,
        ]
        monkeypatch.setattr(sys, "argv", ["profiler", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = capsys.readouterr()
        return exit_.value.code or 0, out, err

    return run


def documents(n: int) -> list[dict]:
    return [{"text": tiny.text(i, 12)} for i in range(n)]


def said(out: str) -> list[str]:
    """The lines between the sentence about the outcome and what to do next."""
    lines = out[out.index("all DLA add up") :].partition("\n")[2].partition("\nNext:")[0].splitlines()
    return [line for line in lines if line]


def test_broken_lines_are_a_warning():
    lost = {"reason": ["invalid_json"], "n": 90, "unit": "rows", "note": "no JSON", "n_documents": 10, "n_tokens": 99}
    assert losses.lines(pl.DataFrame(lost)) == [("warning: 90 rows (90 % of 100 rows): no JSON", True)]


@pytest.mark.slow
def test_small_losses_copies_and_files_are_said_warnings_first(record, tmp_path):
    """Copies are counted, not dropped, and share a group; a file is read once."""
    folder = tmp_path / "texts"
    folder.mkdir()
    first, second, *others = documents(90)
    rows = [first, first, first, second, second, *others, "{broken", {"text": None}, {"text": ""}, {"text": " "}]
    os.link(write_lines(folder / "a.jsonl", rows), folder / "b.jsonl")
    (folder / "LICENSE").write_text("x")
    code, out, _ = record(folder)
    assert code == 0
    starts = [
        "  warning: 3 documents (3.1 % of 97 rows): documents whose text field",
        "  warning: 3 documents (3.1 % of 97 rows): documents whose text another document has too",
        "  1 row (1 % of 97 rows): rows of a .json or .jsonl file",
        "  1 file: entries of a folder",
        "  1 file: files that are another one of the corpus",
    ]
    assert all(line.startswith(start) for line, start in zip(said(out), starts, strict=True)), out
    rows = run_query(
        tmp_path / "run.duckdb",
        "SELECT text_hash, count(*) AS n, count(DISTINCT group_id) AS groups FROM documents GROUP BY ALL",
    )
    assert sorted(rows["n"]) == [1] * 88 + [2, 3]
    assert set(rows["groups"]) == {1}


def test_nothing_is_said_where_nothing_is_lost_but_what_was_asked_for(record, tmp_path):
    code, out, _ = record(
        write_lines(tmp_path / "a.jsonl", documents(10)), "--windows-per-document", 1, "--context-length", 8
    )
    assert (code, said(out)) == (0, [])


def test_characters_are_said_for_every_100_tokens():
    frame = pl.DataFrame(
        {
            "reason": ["undecodable", "lone_surrogates", "bos"],
            "n": [30, 1, 9],
            "unit": ["characters"] * 2 + ["positions"],
            "note": ["x", "y", "z"],
            "n_documents": 5,
            "n_tokens": 1000,
        }
    )
    assert losses.lines(frame) == [
        ("warning: 30 characters (3 per 100 tokens): x", True),
        ("1 character (0.1 per 100 tokens): y", False),
    ]


@pytest.mark.slow
def test_shards_lose_together_what_one_pass_loses(record, tmp_path, monkeypatch, capsys):
    from profiler.text import documents as reading

    monkeypatch.setattr(reading, "BLOCK_DOCUMENTS", 4)
    one, *others = documents(14)
    corpus = write_lines(tmp_path / "a.jsonl", [one, *others, *["{broken"] * 5, {"text": ""}, one, one])
    assert record(corpus)[0] == 0
    for i in (1, 2):
        assert record(corpus, "--shard", f"{i}/2", name=f"s{i}")[0] == 0
    merge([tmp_path / "s1.duckdb", tmp_path / "s2.duckdb"], tmp_path / "merged.duckdb")
    whole, merged = (
        run_query(tmp_path / f"{name}.duckdb", "FROM drops ORDER BY reason").rows() for name in ("run", "merged")
    )
    assert whole == merged
    assert {"repeated_texts": 2, "invalid_json": 5, "no_text": 1}.items() <= {row[0]: row[1] for row in whole}.items()
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "profiler",
            "merge",
            *(str(tmp_path / f"s{i}.duckdb") for i in (1, 2)),
            "--out",
            str(tmp_path / "again.duckdb"),
        ],
    )
    with pytest.raises(SystemExit):
        main()
    assert "  warning: 5 rows (23 % of 22 rows)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("corpus", "says"),
    [
        ("missing.jsonl", "was not found"),
        ("a.docx", "no known ending"),
        ("numbers.jsonl", "holds a number"),
        ("other.jsonl", "has no field 'text'"),
        ("utf.txt", "is not in UTF-8"),
    ],
)
def test_a_corpus_is_refused_before_the_model_is_loaded(corpus, says, record, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.docx").write_text("x")
    write_lines(tmp_path / "numbers.jsonl", [{"text": 1}])
    write_lines(tmp_path / "other.jsonl", [{"body": "x"}])
    (tmp_path / "utf.txt").write_bytes(b"\xe9\xe8" * 20)
    code, _, err = record(corpus, model="no/such-model")
    assert code == 1
    assert says in err
    assert "no/such-model" not in err


@pytest.mark.slow
def test_a_conversation_is_recorded_by_the_models_own_template(record, tmp_path):
    folder = tiny.save("llama", tmp_path / "chatty")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    talk = [{"role": "user", "content": "why now"}, {"role": "assistant", "content": "so be it"}]
    code, _, err = record(
        write_lines(tmp_path / "a.jsonl", [{"messages": talk}] * 3), "--text-field", "messages", model=folder
    )
    assert (code, err) == (0, "")
    with duckdb.connect(str(tmp_path / "run.duckdb"), read_only=True) as con:
        words = con.sql(
            "SELECT list(token ORDER BY pos) FROM positions WHERE doc_id = 0 AND special IS DISTINCT FROM 'bos'"
        ).fetchall()[0][0]
    assert "".join(words) == "[user]why now[assistant]so be i"
