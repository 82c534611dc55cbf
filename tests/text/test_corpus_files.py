"""Which files a corpus is, whatever they are called; each read once, unpacked, decoded, by what stands in it."""

import bz2
import gzip
import json
import lzma
import os
from collections import Counter
from pathlib import Path

import datasets
import polars as pl
import pyarrow as pa
import pytest
import tiny
import torch
from corpora import config, read, texts, write_lines

from profiler.errors import CorpusError
from profiler.recording.pipeline import corpus_chunks
from profiler.text import documents as reading
from profiler.text.corpus import check
from profiler.text.corpus.decoding import NUL_SHARE, WRONG_SHARE
from profiler.text.corpus.formats import PROBE_CHARACTERS
from profiler.text.documents import Cursor, Domains, Reading
from profiler.text.windows import Chunk, Layout

CORPORA = Path(__file__).parents[3] / "shared" / "data" / "corpora"
NAMES = [
    "notes[1].txt",
    "notes1.txt",
    "a*b.txt",
    "what?.txt",
    "lr=0.1.txt",
    "plays=x.txt",
    "x::y.txt",
    "zip:x::y.txt",
    "a#b.txt",
    "a&b=c.txt",
    "with blanks.txt",
    " .txt",
    "ünï 文.txt",
    "hf:notes.txt",
    "hf:a:b:train.txt",
    "UPPER.TXT",
    "-dash.txt",
    "{x}.txt",
    "~home.txt",
    "%20.txt",
    "file:x.txt",
    "new\nline.txt",
    "split=train.txt",
]
"""Names that some library would take for a pattern, an address, a key or another file."""
LINES = ["the first line", "the second line", "ein drittes mit ü", "четвёртая строка", "第五行"]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The folder that names are looked for in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(folder: Path, *names: str) -> list[str]:
    """Files of these names, each with one line that says its name."""
    for name in names:
        (folder / name).write_text(f"text of {name!r}", encoding="utf-8")
    return sorted(f"text of {name!r}" for name in names)


# --- names ---


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_a_literal(name, here):
    """All the others stand beside it: a pattern would find more, an address nothing."""
    written(here, *NAMES)
    for place in (name, f"./{name}", here / name, f"mine={name}", f"my-own=./{name}"):
        found, dropped = read(place)
        assert ([d.text for d in found], dropped) == ([f"text of {name!r}"], {})
        own = str(place).partition("=")[0] if str(place).startswith("m") else None
        assert {d.domain for d in found} == {own or Path(name).stem}


def test_a_name_of_ones_own_may_hold_a_hyphen_and_a_file_of_the_whole_name_wins(here):
    written(here, "x.txt", "news-en=x.txt", "n2=x.txt")
    assert [(d.domain, d.text) for d in read("my-news=x.txt")[0]] == [("my-news", "text of 'x.txt'")]
    assert [(d.domain, d.text) for d in read("news-en=x.txt")[0]] == [("news-en=x", "text of 'news-en=x.txt'")]
    assert [d.text for d in read("n2=?.txt")[0]] == ["text of 'n2=x.txt'"]
    with pytest.raises(CorpusError, match=r"'nothing=y\.txt' was not found"):
        read("nothing=y.txt")


@pytest.mark.parametrize("place", ["*", "./*", ".", "**", "./[!q]*"])
def test_a_glob_and_a_folder_read_every_file_of_whatever_name(place, here):
    want = written(here, *NAMES)
    assert texts(place) == want
    assert texts(here / place) == want


def test_a_pattern_is_still_one(here):
    written(here, *NAMES)
    assert texts("notes*.txt") == ["text of 'notes1.txt'", "text of 'notes[1].txt'"]
    assert texts("note[a-z]1.txt") == ["text of 'notes1.txt'"]


def test_the_bundled_corpus_is_meant_by_its_name_and_a_folder_of_that_name_by_its_path(here):
    (here / "stdlib").mkdir()
    written(here / "stdlib", "a.txt")
    assert texts("./stdlib") == ["text of 'a.txt'"]
    assert len(read("stdlib")[0]) > 100


# --- one file, many names ---


def test_a_file_in_two_corpora_is_refused_by_what_it_is(here):
    written(here, "a.txt", "b.txt")
    (here / "soft.txt").symlink_to("a.txt")
    os.link(here / "a.txt", here / "hard.txt")
    (here / "d").symlink_to(".")
    for other in ("./a.txt", here / "a.txt", "d/a.txt", "soft.txt", "hard.txt", "name=a.txt", "[a].txt", "*.txt", "."):
        with pytest.raises(CorpusError, match=r"is given twice.*count twice; give it once"):
            read("a.txt", other)
        with pytest.raises(CorpusError, match="is given twice"):
            check(config(other, "a.txt"))
    assert len(read("a.txt", "b.txt")[0]) == 2


def test_a_file_under_several_names_of_one_corpus_is_read_once_and_that_is_counted(here):
    written(here, "a.txt", "b.txt")
    (here / "soft.txt").symlink_to("a.txt")
    os.link(here / "a.txt", here / "hard.txt")
    (here / "folder").mkdir()
    (here / "folder" / "up").symlink_to("..")
    want = ["text of 'a.txt'", "text of 'b.txt'"]
    for place in ("*.txt", "."):
        found, dropped = read(place)
        assert sorted(d.text for d in found) == want
        assert {d.source for d in found} == {"a.txt:0", "b.txt:0"}
        assert dropped == {"same_file": 2}


def test_what_a_folder_holds_besides_is_counted(here):
    written(here, "a.txt", "README.md", "picture.png", ".hidden.txt")
    (here / "gone.txt").symlink_to("nowhere")
    found, dropped = read(".")
    assert ([d.text for d in found], dropped) == (["text of 'a.txt'"], {"other_files": 3})
    with pytest.raises(CorpusError, match=r"README\.md.*no known ending"):
        read("*")
    (here / "a.txt").unlink()
    with pytest.raises(CorpusError, match="no known ending"):
        read(".")


# --- encodings ---


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]
)
@pytest.mark.parametrize("ending", ["txt", "jsonl", "json", "csv"])
def test_text_is_decoded_by_its_mark_or_by_where_its_nul_bytes_stand(encoding, ending, tmp_path):
    write = {
        "txt": "\n".join(LINES),
        "jsonl": "\n".join(json.dumps({"text": line}, ensure_ascii=False) for line in LINES),
        "json": json.dumps([{"text": line} for line in LINES], ensure_ascii=False),
        "csv": "text\n" + "\n".join(LINES),
    }
    file = tmp_path / f"a.{ending}"
    file.write_bytes(write[ending].encode(encoding))
    found, dropped = read(file)
    assert sorted(d.text for d in found) == sorted(LINES)
    assert dropped == {}


@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le"])
@pytest.mark.parametrize("line", ["Всё смешалось в доме", "Όλα τα ζώα", "plain words"])
def test_text_of_another_script_without_a_mark_is_found_out(line, encoding, tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes("\n".join([line] * 20).encode(encoding))
    assert texts(file) == [line] * 20


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (
            "é è à: a café, très très près\n".encode("latin-1") * 9,
            rf"is not in UTF-8: \d+\.\d% of its first 270 characters.*more than {WRONG_SHARE:.0%}.*iconv",
        ),
        ("第五行の文字".encode("shift-jis") * 9, "is not in UTF-8"),
        ("第五行".encode("utf-16-le") * 99, "is not in UTF-8"),
        (b"\xff\xfe" + b"\x00\xd8" * 99, "is not in UTF-16"),
        (bytes(range(1, 128)) + bytes(9), "is no text: 7% of its first 136 bytes are NUL"),
    ],
)
def test_a_file_of_another_encoding_is_refused_with_the_share(data, says, tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(data)
    for refuse in (read, lambda place: check(config(place))):
        with pytest.raises(CorpusError, match=f"a.txt' {says}"):
            refuse(file)


def test_every_file_of_a_folder_is_looked_at_before_a_pass(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.txt").write_bytes(b"plain\n")
    (tmp_path / "x.txt").write_bytes("déjà vu\n".encode("latin-1"))
    with pytest.raises(CorpusError, match=r"x\.txt' is not in UTF-8"):
        check(config(tmp_path))


def test_a_few_bytes_that_are_no_text_are_replaced_and_counted(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"plain \xe9\n" * 1 + b"plain words \0\n" + b"plain words\n" * int(1 / NUL_SHARE))
    found, dropped = read(file)
    assert dropped == {"undecodable": 1}
    assert sum("\0" in d.text for d in found) == 1


@pytest.mark.slow
def test_a_character_across_the_end_of_what_is_looked_at_is_not_held_against_a_file(tmp_path):
    for n in range(4):
        (tmp_path / f"{n}.txt").write_text("x" * n + "文\n" * 30_000, encoding="utf-8")
    assert read(tmp_path)[1] == {}


# --- packed files ---


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz", "zst", "GZ"])
@pytest.mark.parametrize("form", ["txt", "jsonl", "JSON", "csv"])
def test_packed_files_are_read_like_the_files_in_them(form, ending, tmp_path):
    pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd}[ending.lower()]
    data = {
        "txt": "\n".join(LINES),
        "csv": "text\n" + "\n".join(LINES),
        "jsonl": "\n".join(json.dumps({"text": line}) for line in LINES),
        "JSON": json.dumps([{"text": line} for line in LINES]),
    }[form]
    plain, packed = tmp_path / f"a.{form}", tmp_path / f"a.{form}.{ending}"
    plain.write_text(data, encoding="utf-8")
    packed.write_bytes(
        pack(data[:20].encode()) + pack(data[20:].encode())
    )  # of two parts, as tools write them that append
    of_plain, of_packed = (read(file)[0] for file in (plain, packed))
    assert [(d.domain, d.text) for d in of_packed] == [(d.domain, d.text) for d in of_plain]
    assert len(of_plain) == len(LINES)


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz", "zst"])
def test_a_packed_file_that_is_cut_or_none_is_refused_by_name(ending, tmp_path):
    pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd}[ending]
    for name, data in (("cut", pack(os.urandom(9_000).hex().encode())[:-3_000]), ("none", b"plain text" * 9)):
        file = tmp_path / f"{name}.txt.{ending}"
        file.write_bytes(data)
        with pytest.raises(CorpusError, match=rf"{name}\.txt\.{ending}' cannot be read") as caught:
            read(file)
        assert "\n" not in str(caught.value)


def test_a_packed_file_without_an_ending_inside_is_refused(tmp_path):
    for name in ("a.gz", "a.tar.gz", "a.parquet.gz"):
        (tmp_path / name).write_bytes(gzip.compress(b"x"))
        with pytest.raises(CorpusError, match=r"no known ending.*\.jsonl\.gz"):
            read(tmp_path / name)


# --- JSON ---

OBJECTS = [{"id": f"doc-{i}", "text": f'text {i} with ]}}, "[{{" and ü'} for i in range(30)]
LAYOUTS = {
    "lines": "\n".join(map(json.dumps, OBJECTS)),
    "lines with Windows ends": "\r\n".join(map(json.dumps, OBJECTS)) + "\r\n",
    "an array": json.dumps(OBJECTS),
    "an array over lines": json.dumps(OBJECTS, indent=2),
    "an array of an object a line": "[\n" + ",\n".join(map(json.dumps, OBJECTS)) + "\n]\n",
    "objects over lines": "\n".join(json.dumps(one, indent=1) for one in OBJECTS),
}


@pytest.mark.parametrize("ending", ["json", "jsonl", "ndjson"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_json_is_read_by_what_stands_in_it_whatever_its_ending(layout, ending, tmp_path):
    file = tmp_path / f"a.{ending}"
    file.write_text(LAYOUTS[layout], encoding="utf-8", newline="")
    found, dropped = read(file)
    assert sorted((d.source, d.text) for d in found) == sorted((one["id"], one["text"]) for one in OBJECTS)
    assert dropped == {}


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_bad_lines_cost_only_themselves_in_both(ending, tmp_path):
    rows = ['{"text": "cut', *OBJECTS, "[1, 2]", "17", '"text"', "null", "", "not json", "[" * 100_000]
    found, dropped = read(write_lines(tmp_path / f"a.{ending}", rows))
    assert len(found) == len(OBJECTS)
    assert dropped == {"invalid_json": 7, "blank_lines": 1}


def test_values_longer_than_what_is_read_at_a_time_are_whole(tmp_path):
    long = [{"text": letter * (3 * PROBE_CHARACTERS)} for letter in "abc"]
    for name, text in (
        ("array", json.dumps(long)),
        ("over lines", json.dumps(long, indent=1)),
        ("one", json.dumps(long[:1])),
    ):
        (tmp_path / f"{name}.json").write_text(text, encoding="utf-8")
        found, _ = read(tmp_path / f"{name}.json")
        assert {(d.text[0], len(d.text)) for d in found} == {(t["text"][0], len(t["text"])) for t in long[: len(found)]}
        assert len(found) == (1 if name == "one" else 3)


def test_an_array_that_breaks_off_is_refused_and_says_where(tmp_path):
    for name, cut in (("cut", -40), ("open", -1)):
        (tmp_path / f"{name}.json").write_text(json.dumps(OBJECTS)[:cut], encoding="utf-8")
        with pytest.raises(
            CorpusError, match=rf"{name}\.json' cannot be read: its JSON is broken after {29 + (cut == -1)} rows"
        ):
            read(tmp_path / f"{name}.json")


def test_a_file_without_any_row_is_refused_before_the_pass(tmp_path):
    file = write_lines(tmp_path / "a.jsonl", ["{broken"] * 5)
    with pytest.raises(CorpusError, match=r"a\.jsonl' cannot be read: it begins with 5 invalid_json and no row"):
        check(config(file))


# --- tables and folders of tables ---


@pytest.mark.parametrize(("ending", "separator"), [("csv", ","), ("TSV", "\t")])
def test_tables_of_text(ending, separator, tmp_path):
    rows = [("1", 'quoted "words", and more'), ("2", "over\nlines"), ("3", "plain")]
    cell = lambda value: '"' + value.replace('"', '""') + '"'  # noqa: E731
    lines = [separator.join(("id", "text")), *(separator.join((i, cell(text))) for i, text in rows)]
    file = tmp_path / f"a.{ending}"
    file.write_text("\n".join([*lines, separator.join(("4", "with", "more")), ""]), encoding="utf-8")
    found, dropped = read(file)
    assert sorted((d.source, d.text) for d in found) == rows
    assert dropped == {"ragged_rows": 1}


def test_a_quotation_mark_that_is_never_closed_is_refused(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text('text\nplain\n"open and the rest\nis swallowed\n', encoding="utf-8")
    with pytest.raises(CorpusError, match=r"a\.csv' cannot be read: unexpected end of data"):
        read(file)


def test_datasets_saved_to_disk(tmp_path):
    rows = [{"text": f"text {i}", "id": str(i)} for i in range(40)]
    one = datasets.Dataset.from_list(rows)
    one.select(range(39, -1, -1)).save_to_disk(tmp_path / "one", num_shards=3)
    datasets.DatasetDict({"train": one, "test": one.select(range(4))}).save_to_disk(tmp_path / "splits")
    datasets.DatasetDict({"train": one}).save_to_disk(tmp_path / "single")
    want = sorted((row["id"], row["text"]) for row in rows)
    for place in ("one", "splits/train", "single"):
        found, dropped = read(tmp_path / place)
        assert (sorted((d.source, d.text) for d in found), dropped) == (want, {})
        assert {d.domain for d in found} == {Path(place).name}
    assert len(read(tmp_path / "splits" / "test")[0]) == 4
    with pytest.raises(CorpusError, match=r"2 splits \(train, test\): give the folder of one, such as .*splits/train"):
        read(tmp_path / "splits")
    assert len(read(next((tmp_path / "one").glob("*.arrow")))[0]) in (13, 14)
    (tmp_path / "one" / "state.json").write_text("{}")
    with pytest.raises(CorpusError, match="list of files cannot be read"):
        read(tmp_path / "one")


def test_arrow_files_of_both_kinds(tmp_path):
    frame = pl.DataFrame({"text": LINES})
    frame.write_ipc(tmp_path / "file.arrow")
    frame.write_ipc_stream(tmp_path / "stream.arrow")
    assert texts(tmp_path / "file.arrow") == texts(tmp_path / "stream.arrow") == sorted(LINES)


# --- going on, and shards ---


def test_packed_files_links_and_broken_rows_come_alike_after_a_stop_and_in_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "BLOCK_DOCUMENTS", 8)
    rows = [json.dumps({"text": tiny.text(i, 9)}) if i % 5 else "{broken" for i in range(100)]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress("\n".join(rows[:50]).encode()))
    os.link(write_lines(tmp_path / "b[1].json", rows[50:]), tmp_path / "c.json")
    layout, tokenizer = Layout(16, 0, torch.zeros(300, dtype=torch.long), 0, 8), tiny.tokenizer()

    def chunks(cursor: Cursor, shard: str | None = None) -> list[Chunk]:
        settings = config(tmp_path, tokens=None, shard=shard, shuffle_buffer=20, seed=1)
        return list(corpus_chunks(settings, tokenizer, layout, Domains(8), Reading(expected=cursor.passed), cursor))

    def shown(found: list[Chunk]) -> list:
        documents = [[(d.doc_id, d.text_hash, d.group_id, d.token_ids.tolist()) for d in c.documents] for c in found]
        return sorted((c.number, of, sorted((+c.dropped).items())) for c, of in zip(found, documents, strict=True))

    whole = chunks(Cursor())
    assert len(whole) == 10
    assert +sum((c.dropped for c in whole), Counter()) == {"invalid_json": 20, "same_file": 1}
    for number, chunk in enumerate(whole):
        assert shown(chunks(chunk.cursor)) == shown(whole[number + 1 :])
    assert shown(chunks(Cursor(), "1/2") + chunks(Cursor(), "2/2")) == shown(whole)


# --- real text ---


@pytest.mark.slow
@pytest.mark.skipif(not CORPORA.is_dir(), reason="the folder ../shared/data/corpora is not there")
def test_real_corpora_are_whole_in_every_packing(tmp_path):
    stories = (CORPORA / "tinystories.jsonl").read_bytes()
    packed = {"a.jsonl": stories, "b.json": stories, "c.jsonl.gz": gzip.compress(stories), "d.jsonl.zst": zstd(stories)}
    rows = [json.loads(line) for line in stories.splitlines()]
    packed["e.json"] = json.dumps(rows).encode()
    for name, data in packed.items():
        (tmp_path / name).write_bytes(data)
        assert texts(tmp_path / name) == sorted(row["text"] for row in rows)
    files = [file for file in CORPORA.iterdir() if file.suffix in (".txt", ".jsonl")]
    found, dropped = read(CORPORA)
    assert {d.place.removeprefix(f"{CORPORA}:").rpartition(":")[0] for d in found} == {file.name for file in files}
    assert set(dropped) <= {"blank_lines", "undecodable"}
