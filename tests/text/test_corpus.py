"""Every form of corpus, every kind of bad input: what comes out, in which order, and what is counted as dropped."""

import json
from pathlib import Path

import polars as pl
import pytest
from corpora import read, write_lines

from profiler.errors import CorpusError
from profiler.text import stdlib

MEGABYTE = 1_000_000


ROWS = [{"id": f"doc-{i}", "text": f"text number {i}", "topic": "ab"[i % 2]} for i in range(50)]


def files_of_each_form(folder: Path) -> dict[str, Path]:
    forms = {name: folder / f"rows.{name}" for name in ("txt", "jsonl", "json", "parquet")}
    forms["txt"].write_text("\n".join(row["text"] for row in ROWS), encoding="utf-8")
    write_lines(forms["jsonl"], ROWS)
    forms["json"].write_text(json.dumps(ROWS), encoding="utf-8")
    pl.DataFrame(ROWS).write_parquet(forms["parquet"])
    return forms


@pytest.mark.parametrize("form", ["txt", "jsonl", "json", "parquet"])
def test_every_form_gives_every_document_once_with_its_id(form, tmp_path):
    found, dropped = read(files_of_each_form(tmp_path)[form])
    assert dropped == {}
    assert {d.domain for d in found} == {"rows"}
    ids = [f"rows.txt:{i}" if form == "txt" else row["id"] for i, row in enumerate(ROWS)]
    assert sorted((d.source, d.text) for d in found) == sorted((i, r["text"]) for i, r in zip(ids, ROWS, strict=True))


def test_a_text_file_with_blank_lines_is_read_in_paragraphs(tmp_path):
    file = tmp_path / "prose.txt"
    file.write_text("one\ntwo\n\nthree\n\n\nfour", encoding="utf-8")
    assert {d.text.strip() for d in read(file)[0]} == {"one\ntwo", "three", "four"}


def test_documents_are_shuffled_and_the_seed_decides_the_order(tmp_path):
    file = write_lines(tmp_path / "a.jsonl", ROWS)
    orders = [[d.source for d in read(file, seed=seed)[0]] for seed in (0, 0, 1)]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert orders[0] != [row["id"] for row in ROWS]
    assert sorted(orders[0]) == sorted(orders[2]) == sorted(row["id"] for row in ROWS)
    far = [abs(place - int(source[4:])) for place, source in enumerate(orders[0])]
    assert sum(far) / len(far) > 8  # a random order moves a document by a third of 50 places


def test_a_small_buffer_still_gives_every_document(tmp_path):
    found, _ = read(write_lines(tmp_path / "a.jsonl", ROWS), shuffle_buffer=3)
    assert sorted(d.source for d in found) == sorted(row["id"] for row in ROWS)


def test_globs_read_every_file_and_keep_ids_apart(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.txt").write_text(f"of {folder}\nalso of {folder}", encoding="utf-8")
    found, _ = read(tmp_path / "*" / "same.txt", seed=1)
    assert sorted(d.source for d in found) == ["x/same.txt:0", "x/same.txt:1", "y/same.txt:0", "y/same.txt:1"]
    assert len({d.place for d in found}) == 4  # the sampling keys are of the place


def test_a_glob_in_one_folder_is_named_after_it(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(name, encoding="utf-8")
    found, _ = read(tmp_path / "*.txt")
    assert sorted((d.domain, d.source) for d in found) == [(tmp_path.name, "a.txt:0"), (tmp_path.name, "b.txt:0")]


def test_several_corpora_take_turns_and_are_domains(tmp_path):
    one = write_lines(tmp_path / "one.jsonl", ROWS[:3])
    two = write_lines(tmp_path / "two.jsonl", ROWS[3:10])
    found, _ = read(one, f"second={two}")
    assert [d.domain for d in found] == ["one", "second"] * 3 + ["second"] * 4
    assert len({d.place for d in found}) == 10


def test_a_corpus_given_twice_is_refused(tmp_path):
    file = write_lines(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(CorpusError, match="given twice"):
        read(file, f"again={file}")


def test_domain_field(tmp_path):
    file = write_lines(tmp_path / "rest.jsonl", [*ROWS, {"text": "none here", "id": "last"}])
    found, _ = read(file, domain_field="topic", seed=2)
    of = {d.source: d.domain for d in found}
    assert {of[row["id"]] == row["topic"] for row in ROWS} == {True}
    assert of["last"] == "rest"


def test_other_fields_by_name(tmp_path):
    file = write_lines(tmp_path / "a.jsonl", [{"body": "x", "key": 0}, {"body": "y", "key": 7}])
    found, _ = read(file, text_field="body", id_field="key")
    assert sorted((d.source, d.text) for d in found) == [("0", "x"), ("7", "y")]  # id 0 is an id


def test_documents_without_an_id_are_named_by_file_and_row(tmp_path):
    file = write_lines(tmp_path / "a.jsonl", [{"text": "x"}, {"text": "y", "id": None}, {"text": "z", "id": ""}])
    assert sorted((d.source, d.text) for d in read(file)[0]) == [
        ("a.jsonl:0", "x"),
        ("a.jsonl:1", "y"),
        ("a.jsonl:2", "z"),
    ]


def test_stdlib_has_domains_and_ids():
    found, dropped = read("stdlib")
    want = list(stdlib.documents())
    assert sorted(d.source for d in found) == sorted(document["id"] for document in want)
    assert {d.domain for d in found} == {document["domain"] for document in want}
    assert dropped.get("invalid_json", 0) == 0


@pytest.mark.parametrize(
    ("corpus", "says"),
    [
        ("no/such/file.txt", "was not found"),
        ("no/such/*.jsonl", "was not found"),
        ("hf:no-such-user/no-such-dataset", "cannot be read"),
        ("nonsense", "was not found"),
    ],
)
def test_unknown_corpora_are_refused_in_one_sentence(corpus, says):
    with pytest.raises(CorpusError, match=says) as caught:
        read(corpus)
    assert "\n" not in str(caught.value)


def test_an_unknown_ending_is_refused(tmp_path):
    file = tmp_path / "a.docx"
    file.write_text("text\nx", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"a\.docx.*no known ending.*\.parquet"):
        read(file)


@pytest.mark.parametrize("option", ["text_field", "domain_field"])
def test_a_missing_field_is_refused_and_the_fields_are_named(option, tmp_path):
    with pytest.raises(CorpusError, match=f"'nope'.*'id', 'text', 'topic'.*--{option.replace('_', '-')}"):
        read(write_lines(tmp_path / "a.jsonl", ROWS), **{option: "nope"})


def test_bad_json_lines_cost_only_themselves_and_are_counted(tmp_path):
    bad = ['{"text": "cut', "[1, 2]", "17", "not json"]
    found, dropped = read(write_lines(tmp_path / "a.jsonl", [*bad, *ROWS]))
    assert len(found) == len(ROWS)
    assert dropped == {"invalid_json": len(bad)}


def test_rows_without_text_are_counted(tmp_path):
    none = [{"text": text} for text in ("", "  \n ", None, 17, ["x"])]
    found, dropped = read(write_lines(tmp_path / "a.jsonl", [*none, *ROWS]))
    assert len(found) == len(ROWS)
    assert dropped == {"no_text": len(none)}


def test_a_later_row_without_the_field_costs_only_itself(tmp_path):
    found, dropped = read(write_lines(tmp_path / "a.jsonl", [*ROWS, {"id": "x"}]), shuffle_buffer=1)
    assert len(found) == len(ROWS)
    assert dropped == {"no_text": 1}


def test_strange_characters_pass_through(tmp_path):
    texts = ["nul \x00 byte", "<script>alert('x')</script>", "a\u2028b\x0cc", "🙂 e\u0301", "tab\tcr\rend"]
    found, dropped = read(write_lines(tmp_path / "a.jsonl", [{"text": t} for t in texts]))
    assert sorted(d.text for d in found) == sorted(texts)
    assert dropped == {}


def test_lone_surrogates_are_replaced_and_counted(tmp_path):
    found, dropped = read(
        write_lines(tmp_path / "a.jsonl", [r'{"text": "a\ud800b\udfffc"}', r'{"text": "\ud83d\ude42"}'])
    )
    assert sorted(d.text for d in found) == ["a?b?c", "🙂"]
    assert dropped == {"lone_surrogates": 2}


def test_bytes_that_are_no_utf8_are_replaced_and_counted(tmp_path):
    file = tmp_path / "latin.txt"
    file.write_bytes(b"caf\xe9\n" + b"plain words\n" * 3)
    found, dropped = read(file)
    assert sorted(d.text for d in found) == ["caf\ufffd", *["plain words"] * 3]
    assert dropped == {"undecodable": 1}


@pytest.mark.parametrize("form", ["txt", "jsonl"])
def test_a_megabyte_in_one_line_is_one_document(form, tmp_path):
    text = "word " * (MEGABYTE // 5)
    file = tmp_path / f"a.{form}"
    file.write_text(text if form == "txt" else json.dumps({"text": text}), encoding="utf-8")
    (only,), _ = read(file)
    assert len(only.text) == len(text)


@pytest.mark.parametrize("form", ["txt", "jsonl", "json", "parquet"])
def test_an_empty_file_holds_no_document(form, tmp_path):
    (tmp_path / f"a.{form}").write_bytes(b"")
    assert read(tmp_path / f"a.{form}") == ([], {})


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_a_broken_file_is_refused_in_one_sentence(form, tmp_path):
    file = tmp_path / f"a.{form}"
    file.write_text('{"text": ', encoding="utf-8")
    with pytest.raises(CorpusError, match="cannot be read") as caught:
        read(file)
    assert "\n" not in str(caught.value)


def test_equal_documents_at_different_places_stay_two(tmp_path):
    found, _ = read(write_lines(tmp_path / "a.jsonl", [{"id": "same", "text": "x"}] * 2))
    assert [d.source for d in found] == ["same", "same"]
    assert len({d.place for d in found}) == 2
