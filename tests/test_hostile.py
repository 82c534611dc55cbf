"""Hostile input of every kind: it is data or it is refused in a sentence; nothing crashes, nothing hangs, nothing is
run.

Every function here may answer or raise a ProfilerError; anything else (another error, a process that dies, a file
written elsewhere) fails. Examples are few, to stay quick; `HYPOTHESIS_PROFILE=fuzz` runs a hundred times as many, or as
many as FUZZ_TIMES says.
"""

import json
import random
import subprocess
import sys
from collections import Counter
from contextlib import suppress

import duckdb
import numpy as np
import pytest
import tiny
import torch
from fuzzing import ANYTHING, EVIL, MORE, NESTED, examples
from hypothesis import given
from hypothesis import strategies as st

from profiler.behaviours.expressions import own_classes
from profiler.circuits import yaml_files as circuit_files
from profiler.config import RunConfig
from profiler.database import query
from profiler.database.pass_commits import MANIFEST, CommitManifest, read_manifest, sealed
from profiler.errors import ProfilerError, QueryError, RunError
from profiler.pages.build import build
from profiler.recording.merge.read_back import Stored
from profiler.text.corpus import documents
from profiler.text.documents import Domains, Reading, tokenize
from profiler.text.token_classes import CLASSES
from profiler.text.windows import Layout, chunks

# --- text and corpus files
# ---------------------------------------------------------------------------------------------

LIMIT = 200


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


@examples(40)
@given(texts=st.lists(ANYTHING, min_size=1, max_size=5), topic=NESTED, own=NESTED)
def test_any_document_is_windows_or_is_counted(texts, topic, own, tokenizer, tmp_path):
    file = tmp_path / "rows.jsonl"
    rows = [{"text": "plain", "topic": "a"}, *({"text": t, "topic": topic, "id": own} for t in texts)]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    config, reading = RunConfig(model="m", corpora=(str(file),), domain_field="topic"), Reading()
    encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    layout = Layout(8, 0, torch.full((257,), len(CLASSES) - 1), 0, 4)
    tokenized = tokenize(documents(config, reading.dropped), encode, Domains(4), LIMIT, reading)
    found = list(chunks(tokenized, layout))
    read = [d for c in found for d in c.documents]
    seen = len(read) + reading.dropped["no_text"] + sum(c.dropped["no_text"] for c in found)
    tokens = sum(d.n_read for d in read)
    assert len(read) >= 1 and tokens <= LIMIT
    assert seen == 1 + len(texts) if tokens < LIMIT else seen <= 1 + len(texts)  # nothing is read beyond the limit
    for chunk in found:
        for batch in chunk.batches(lambda _: 3, layout):
            assert batch.valid.sum() == sum(w.n_positions for w in batch.windows)


@examples(30)
@given(data=st.binary(max_size=300), ending=st.sampled_from(["txt", "jsonl", "json", "parquet"]))
def test_any_bytes_are_a_corpus_or_are_refused(data, ending, tmp_path):
    file = tmp_path / f"rows.{ending}"
    file.write_bytes(data)
    with suppress(ProfilerError):
        for document in documents(RunConfig(model="m", corpora=(str(file),)), Counter()):
            document.text.encode("utf-8")


@examples(30)
@given(rows=st.lists(NESTED, min_size=1, max_size=4))
def test_any_json_lines_are_a_corpus_or_are_refused(rows, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    with suppress(ProfilerError):
        assert len(list(documents(RunConfig(model="m", corpora=(str(file),)), Counter()))) <= len(rows)


@examples(40)
@given(name=ANYTHING)
def test_any_name_of_a_corpus_is_refused_or_found(name, tmp_path_factory):
    with suppress(ProfilerError):
        if not name.startswith(("hf:", "stdlib")) and "=stdlib" not in name and "=hf:" not in name:
            list(documents(RunConfig(model="m", corpora=(f"{tmp_path_factory.getbasetemp()}/none/{name}",)), Counter()))


# --- parameters of queries
# ---------------------------------------------------------------------------------------------


@examples(25)
@given(value=EVIL)
def test_a_parameter_is_a_value_and_comes_back_as_it_was(value, run_path):
    con = query.open_run(run_path)
    try:
        frame = query.run_text(con, "SELECT getvariable('x') AS v, 1 AS one", {"x": value})
    except ProfilerError:
        assert any(0xD800 <= ord(c) < 0xE000 for c in value)  # no Unicode text
    else:
        assert frame.to_dicts() == [{"v": value, "one": 1}]
    finally:
        con.close()


@examples(8)
@given(value=EVIL, name=st.sampled_from(["component_overview", "spectrum_by_class", "extremes", "quantile_samples"]))
def test_a_parameter_never_changes_what_a_query_gives(value, name, run_path):
    columns = set(query.run(run_path, name, **({"component": "L0H0"} if name != "component_overview" else {})).columns)
    con, (parameter, *_) = query.open_run(run_path), query.declared_parameters(query.sql_text(name))
    try:
        assert set(query.run_text(con, query.sql_text(name), {parameter.name: value}).columns) == columns
    except ProfilerError as error:
        assert "Traceback" not in str(error)
    finally:
        assert con.execute("SELECT count(*) FROM runs").fetchall() == [(1,)]
        con.close()


@examples(20)
@given(name=ANYTHING)
def test_a_name_that_the_query_does_not_have_is_refused(name, run_path):
    with pytest.raises(QueryError):
        query.check_parameters("SELECT getvariable('x')", {name + "!": "1"})


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "COPY runs TO '{out}/stolen.csv'",
        "ATTACH '{out}/new.duckdb' AS x",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SELECT * FROM glob('/*')",
        "EXPORT DATABASE '{out}/all'",
        "CREATE TABLE t AS SELECT 1",
        "DELETE FROM runs",
        "DROP TABLE runs",
        "PRAGMA database_list; COPY (SELECT 1) TO '{out}/x'",
        "SELECT getenv('HOME')",
        "SELECT content FROM read_text('/etc/hostname')",
        "IMPORT DATABASE '{out}'",
    ],
)
def test_sql_can_only_read_the_run(sql, run_path, tmp_path):
    before = run_path.read_bytes()
    with suppress(QueryError):
        assert "/root" not in str(query.run(run_path, sql.format(out=tmp_path) + " "))
    assert list(tmp_path.iterdir()) == []
    assert run_path.read_bytes() == before


# --- circuit and class files
# -------------------------------------------------------------------------------------------


@examples(60)
@given(
    value=NESTED
    | st.fixed_dictionaries({"members": NESTED}, optional={"edges": NESTED, "name": NESTED, "scope": NESTED})
)
def test_any_yaml_is_a_circuit_or_is_refused(value, tmp_path):
    file = tmp_path / "circuit.yaml"
    file.write_text(json.dumps(value), encoding="utf-8")
    with suppress(ProfilerError):
        circuit_files.read(file)


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch {out}/run']",
        "a: &a [*a]",
        "&a [*a, *a]",
        "- " * 500,
        "\x00",
        "?",
        "1: 2",
        "name: 2001-13-40",
        "members: " + "9" * 5000,
        "members: [L0H" + "9" * 5000 + "]",
        "members: [{{component: L0H0, role: [a]}}]",
    ],
)
def test_yaml_runs_nothing(text, tmp_path):
    file = tmp_path / "circuit.yaml"
    file.write_text(text.format(out=tmp_path), encoding="utf-8")
    with pytest.raises(ProfilerError):
        circuit_files.read(file)
    assert [p.name for p in tmp_path.iterdir()] == ["circuit.yaml"]


@pytest.mark.parametrize("field", ["members", "name", "edges", "scope", "members: [L0H0]\nmodel"])
def test_a_few_lines_of_yaml_that_stand_for_a_billion_are_refused_at_once(field, tmp_path):
    laughs = ["&a0 [x]", *(f"&a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40))]
    file = tmp_path / "circuit.yaml"
    file.write_text(f"{field}:\n" + "\n".join(f"  - {line}" for line in laughs), encoding="utf-8")
    with pytest.raises(ProfilerError) as caught:
        circuit_files.read(file)
    assert len(str(caught.value)) < 400 + len(str(file))


@examples(40)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_circuit_or_are_refused(data, tmp_path):
    file = tmp_path / "circuit.yaml"
    file.write_bytes(data)
    with suppress(ProfilerError):
        circuit_files.read(file)


CONDITIONS = (
    st.sampled_from(
        [
            "text = 'x'); DROP TABLE runs; --",
            "(SELECT true)",
            "text ~ '('",
            "1",
            "true; true",
            "random() > 0.5",
            "text = text --",
            "exists(SELECT 1 FROM read_csv('/etc/passwd'))",
            "/* ",
            "true) OR (true",
            "getenv('HOME') = ''",
        ]
    )
    | ANYTHING
)


@examples(40)
@given(condition=CONDITIONS, name=st.sampled_from(["mine", "Mine", "a b", ""]) | ANYTHING)
def test_any_class_is_one_condition_or_is_refused(condition, name):
    with suppress(ProfilerError):
        (made,) = own_classes((f"{name}={condition}",))
        assert made.condition == f"{name}={condition}".partition("=")[2].strip()
        assert condition.strip() != "true) OR (true"


# --- damaged files
# -----------------------------------------------------------------------------------------------------

READ = """
import sys, faulthandler
from pathlib import Path
from profiler.database import query
from profiler.errors import ProfilerError
from profiler.pages.build import build
from profiler.recording.merge.read_back import Stored

def totals(path):
    run = Stored(Path(path))
    try:
        run.totals()
    finally:
        run.close()

WAYS = [lambda path, n=n, given=given: query.run(path, n, **given) for n, given in (
    ("run_info", {}), ("component_overview", {}), ("quantile_samples", {"component": "L0H0"}), ("corpus", {}))]
PAGES = [lambda path: build(path, "component", component="L0H0")] if sys.argv[1] == "pages" else []
for path in sys.argv[2:]:
    faulthandler.dump_traceback_later(60, exit=True)
    for way in (*WAYS, totals, *PAGES):
        try:
            way(path)
        except ProfilerError as error:
            print("refused:", str(error).splitlines()[0][:100])
print("end")
"""
FILES_AT_A_TIME = 12
HEADERS, BLOCK = 3 * 4096, 262_144


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(MORE))
def test_a_run_with_flipped_bytes_is_read_or_refused(seed, run_path, tmp_path):
    """A process of its own for a few files: a library that dies or hangs is seen. Reading is by query and for a
    merge."""
    whole, chance, paths = run_path.read_bytes(), random.Random(seed), []
    for i in range(FILES_AT_A_TIME):
        data = bytearray(whole)
        for _ in range(1 + i % 40):
            data[chance.randrange(12 if i % 2 else 4096, len(data))] ^= 1 << chance.randrange(8)
        paths.append(tmp_path / f"{i}.duckdb")
        paths[-1].write_bytes(data if i % 5 else data[: chance.randrange(len(data))])
    also = "pages" if MORE > 1 else "no pages"
    done = subprocess.run(
        [sys.executable, "-c", READ, also, *map(str, paths)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "end"
    assert "refused:" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", [b"peak_memory_bytes", b"corpus_digest", b"norm_scale_sum", b"source"])
def test_a_name_that_is_no_text_behind_a_right_checksum_is_refused(name, run_path, tmp_path):
    """Each block of a DuckDB file (after three headers) begins with a checksum of the rest."""
    data, path = run_path.read_bytes().replace(name, b"\xff" * len(name)), tmp_path / "run.duckdb"
    blocks = [data[at : at + BLOCK] for at in range(HEADERS, len(data), BLOCK)]
    path.write_bytes(data[:HEADERS] + b"".join(checksum(block) + block[8:] for block in blocks))
    with suppress(ProfilerError):
        query.run(path, "run_info")
    with pytest.raises(ProfilerError):
        Stored(path).rows("FROM documents")
    with suppress(ProfilerError):
        build(path, "overview")


def checksum(block: bytes) -> bytes:
    """DuckDB's, of a block's words after the first."""
    words = np.frombuffer(block[8:], dtype="<u8") * np.uint64(0xBF58476D1CE4E5B9)
    return (int(np.bitwise_xor.reduce(words)) ^ 5381).to_bytes(8, "little")


@examples(40)
@given(data=st.binary(max_size=60))
def test_any_bytes_are_a_manifest_or_are_refused(data, tmp_path):
    (tmp_path / MANIFEST).write_bytes(data)
    with pytest.raises(RunError, match="cannot be read"):
        read_manifest(tmp_path)


@examples(60)
@given(found=NESTED | st.builds(dict, number=NESTED, files=NESTED, checks=NESTED, format=st.just(1), state=NESTED))
def test_any_manifest_is_read_or_refused(found, tmp_path):
    (tmp_path / MANIFEST).write_bytes(sealed(found))
    with suppress(RunError):
        assert isinstance(read_manifest(tmp_path), CommitManifest)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/b", ".."])
def test_a_manifest_names_no_file_elsewhere(name, tmp_path):
    for manifest in (
        CommitManifest(state=name, checks={name: (1, 1)}),
        CommitManifest(files={"positions": [(name, 1)]}, state="s"),
    ):
        (tmp_path / MANIFEST).write_bytes(sealed(vars(manifest)))
        with pytest.raises(RunError, match="no part of it"):
            read_manifest(tmp_path)


def test_a_database_that_only_looks_like_a_run_is_refused(tmp_path):
    path = tmp_path / "run.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE runs AS SELECT true AS complete")
        connection.execute("CREATE VIEW components AS SELECT * FROM read_csv('/etc/passwd')")
        connection.execute("CREATE VIEW samples AS SELECT 1")
    with pytest.raises(RunError):
        query.open_run(path)
