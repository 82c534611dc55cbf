"""The bundled corpus: stable, split by document, without duplicates, lazy."""

from itertools import islice
from pathlib import Path

import pytest

from profiler.text import stdlib


@pytest.fixture(scope="module")
def corpus() -> list[stdlib.StdlibDocument]:
    return list(stdlib.documents())


def test_order_and_ids_are_the_same_at_every_call(corpus):
    again = [d["id"] for d in stdlib.documents()]
    assert again == [d["id"] for d in corpus]
    assert len(set(again)) == len(again)


def test_splits_partition_the_corpus(corpus):
    train = {d["id"] for d in stdlib.documents("train")}
    kept = {d["id"] for d in stdlib.documents("held_out")}
    assert not train & kept
    assert train | kept == {d["id"] for d in corpus}
    assert all(stdlib.held_out(i) for i in kept)
    share = len(kept) / len(corpus)
    spread = (0.1 * 0.9 / len(corpus)) ** 0.5
    assert abs(share - 0.1) < 5 * spread


def test_held_out_depends_on_the_id_alone():
    assert [stdlib.held_out(f"stdlib/{i}.py") for i in range(60)].count(True) in range(1, 20)
    assert stdlib.held_out("stdlib/json/decoder.py") == stdlib.held_out("stdlib/json/decoder.py")


def test_code_and_prose_are_there_and_whole(corpus):
    by_id = {d["id"]: d for d in corpus}
    decoder = by_id["stdlib/json/decoder.py"]
    import json.decoder

    assert decoder["domain"] == "code"
    assert decoder["text"] == Path(json.decoder.__file__).read_text("utf-8")
    assert by_id["topics/assignment"]["domain"] == "prose"
    assert by_id["topics/assignment"]["text"].startswith("Assignment statements")
    assert itertools_doc() in by_id["builtin/itertools"]["text"]


def itertools_doc() -> str:
    import inspect
    import itertools

    return inspect.cleandoc(itertools.accumulate.__doc__)


def test_no_document_is_empty(corpus):
    assert all(d["text"].strip() for d in corpus)


@pytest.mark.parametrize(
    ("path", "domain"),
    [
        ("json/decoder.py", "code"),
        ("test/test_json.py", "tests"),
        ("lib2to3/tests/data/x.py", "tests"),
        ("idlelib/idle_test/test_run.py", "tests"),
        ("idlelib/README.txt", "prose"),
        ("LICENSE.txt", "prose"),
        ("lib2to3/Grammar.txt", None),
        ("test/cjkencodings/gb18030.txt", None),
        ("pydoc_data/topics.py", None),
        ("_sysconfigdata__linux_x86_64-linux-gnu.py", None),
        ("lib2to3/Grammar3.11.7.final.0.pickle", None),
    ],
)
def test_domain_of_a_file(path, domain):
    assert stdlib.domain_of(Path(path)) == domain


def test_undecodable_bytes_are_replaced(tmp_path, monkeypatch):
    (tmp_path / "latin.py").write_bytes(b"# caf\xe9\nx = 1\n")
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "other.py").write_text("y = 2\n")
    (tmp_path / "empty.py").write_text("\n")
    monkeypatch.setattr(stdlib.sysconfig, "get_path", lambda _name: str(tmp_path))
    files = [d for d in stdlib.documents() if d["id"].startswith("stdlib/")]
    assert files == [{"id": "stdlib/latin.py", "domain": "code", "text": "# caf\ufffd\nx = 1\n"}]


def test_first_document_needs_one_file_only(monkeypatch):
    read = []
    monkeypatch.setattr(stdlib, "_read", lambda path: read.append(path) or "x = 1\n")
    assert len(list(islice(stdlib.documents(), 1))) == 1
    assert len(read) == 1


def test_an_unknown_split_names_the_known_ones():
    with pytest.raises(ValueError, match=r"'test'.*'held_out'"):
        stdlib.documents("test")
