"""What of a row is its text: nested fields, bytes, conversations; and what is refused, in words that say what was
found."""

import json
from pathlib import Path

import polars as pl
import pytest
import tiny
from corpora import config, read, texts, write_lines

from profiler.errors import CorpusError
from profiler.text.corpus import check, hub
from profiler.text.corpus.hub import Hub

TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
    "[{{ m.role }}] {{ m.content }}\n{% endfor %}"
)


def refused(file: Path, says: str, **settings) -> None:
    """In one sentence, before the pass and in it."""
    for refuse in (lambda: check(config(file, **settings)), lambda: read(file, **settings)):
        with pytest.raises(CorpusError, match=says) as caught:
            refuse()
        assert "\n" not in str(caught.value)


# --- fields ---


def test_fields_inside_fields(tmp_path):
    rows = [
        {"meta": {"text": f"inner {i}", "of": {"id": i, "kind": "ab"[i % 2]}}, "meta.text": f"whole {i}"}
        for i in range(4)
    ]
    inner = [{"meta": row["meta"]} for row in rows]
    names = {"text_field": "meta.text", "id_field": "meta.of.id", "domain_field": "meta.of.kind"}
    pl.DataFrame(inner).write_parquet(tmp_path / "inner.parquet")
    for file in (write_lines(tmp_path / "inner.jsonl", inner), tmp_path / "inner.parquet"):
        found, _ = read(file, **names)
        assert sorted((d.source, d.domain, d.text) for d in found) == [
            (str(i), "ab"[i % 2], f"inner {i}") for i in range(4)
        ]
    assert texts(write_lines(tmp_path / "whole.jsonl", rows), **names) == [
        f"whole {i}" for i in range(4)
    ]  # a key as it stands wins


def test_bytes_that_are_text_are_read_and_others_refused(tmp_path):
    pl.DataFrame(
        {"text": ["ein ü".encode(), "zwei".encode("utf-16"), None, b"\xff\xd8\xff\xe0\x00\x10JFIF" * 3]}
    ).write_parquet(tmp_path / "a.parquet")
    found, dropped = read(tmp_path / "a.parquet")
    assert sorted(d.text for d in found) == ["ein ü", "zwei"]
    assert dropped == {"no_text": 2}
    pl.DataFrame({"text": [b"\xff\xd8\xff\xe0\x00\x10JFIF" * 3]}).write_parquet(tmp_path / "b.parquet")
    refused(tmp_path / "b.parquet", "field 'text' of corpus .*b.parquet' holds bytes that are no text")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (
            [1, 2, 3],
            "holds a list of numbers, no text: token ids cannot be compared with this model's tokenizer; give the text",
        ),
        (["one", "two"], "holds a list of texts, no text: make it one text a row first"),
        ([["a"], 1], "holds a list, no text"),
        ([], "holds a list, no text"),
        (17, "holds a number, no text: name the field"),
        (True, "holds a truth value, no text"),
        (
            {"en": "x", "de": "y"},
            r"holds an object of 'en', 'de', no text: name a field inside it, such as --text-field text\.en",
        ),
    ],
)
def test_a_field_that_holds_no_text_is_refused_with_what_it_holds(value, says, tmp_path):
    refused(write_lines(tmp_path / "a.jsonl", [{"text": value}] * 3), says)


def test_a_missing_field_names_the_others_with_what_they_hold(tmp_path):
    row = {"id": 1, "messages": TALK, "input_ids": [1, 2], "meta": {"text": "x", "url": "y"}, "tags": ["a"]}
    refused(
        write_lines(tmp_path / "a.jsonl", [row]),
        r"has no field 'text': its fields are 'id', 'messages' \(a conversation\), 'input_ids' \(a list of numbers\), "
        r"'meta' \(an object of 'text', 'url'\), 'tags' \(a list of texts\); name one with --text-field",
    )


def test_one_row_that_can_be_read_is_enough_and_the_rest_is_counted(tmp_path):
    rows = ["{broken", {"text": [1]}, {"other": "x"}, {"text": None}, {"text": "here"}]
    for order in (rows, rows[::-1]):
        found, dropped = read(write_lines(tmp_path / "a.jsonl", order))
        assert [d.text for d in found] == ["here"]
        assert dropped == {"invalid_json": 1, "no_text": 3}


def test_a_corpus_whose_texts_are_all_empty_is_counted_not_refused(tmp_path):
    assert read(write_lines(tmp_path / "a.jsonl", ["{broken", {"text": None}, {"text": None}])) == (
        [],
        {"invalid_json": 1, "no_text": 2},
    )


def test_what_is_checked_ends_with_the_shuffle_buffer(tmp_path):
    file = write_lines(tmp_path / "a.jsonl", [{"text": 1}] * 20 + [{"text": "late"}])
    refused(file, "holds a number", shuffle_buffer=20)
    assert texts(file, shuffle_buffer=21) == ["late"]


# --- conversations ---


@pytest.fixture
def tokenizer():
    chatty = tiny.tokenizer()
    chatty.chat_template = TEMPLATE
    return chatty


def test_a_conversation_is_one_document_by_the_template_without_its_bos(tokenizer, tmp_path):
    file = write_lines(tmp_path / "a.jsonl", [{"messages": TALK}, {"messages": [{"role": "tool", "content": "x"}]}])
    found, dropped = read(file, text_field="messages", tokenizer=tokenizer)
    assert [d.text for d in found] == ["[system] Be kind.\n[user] Hi\n[assistant] Hello\n"]
    assert dropped == {"no_template": 1}


def test_a_conversation_without_a_template_has_its_roles_before_it(tmp_path):
    file = write_lines(tmp_path / "a.jsonl", [{"messages": TALK}])
    for tokenizer in (None, tiny.tokenizer()):
        (only,), _ = read(file, text_field="messages", tokenizer=tokenizer)
        assert only.text == "system: Be kind.\n\nuser: Hi\n\nassistant: Hello"


def test_conversations_as_others_write_them(tokenizer, tmp_path):
    shared = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    parts = [
        {"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "image"}, {"type": "text", "text": "i"}]},
        {"role": "assistant", "content": "Hello", "name": None},
    ]
    want = "[user] Hi\n[assistant] Hello\n"
    file = write_lines(tmp_path / "a.jsonl", [{"talk": shared}, {"talk": parts}])
    assert texts(file, text_field="talk", tokenizer=tokenizer) == [want, want]
    pl.DataFrame([{"talk": shared}]).write_parquet(tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet", text_field="talk", tokenizer=tokenizer) == [want]


def test_a_list_of_something_else_is_no_conversation(tmp_path):
    file = write_lines(tmp_path / "a.jsonl", [{"text": [{"role": "user"}]}])
    refused(file, "holds a list of objects, no text")


# --- datasets of the hub, by a folder that datasets reads in the same way ---


@pytest.fixture
def dataset(tmp_path, monkeypatch) -> str:
    """The folder of a dataset with two configurations of two splits, where the test stands."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "things"
    folder.mkdir()
    card = ["---", "configs:"]
    for name in ("en", "de"):
        card += [f"- config_name: {name}", "  data_files:"]
        for split, n in (("train", 20), ("test", 5)):
            write_lines(folder / f"{name}-{split}.jsonl", [{"text": f"{name} {split} {i}"} for i in range(n)])
            card.append(f"  - {{split: {split}, path: {name}-{split}.jsonl}}")
    (folder / "README.md").write_text("\n".join([*card, "---", ""]))
    return "hf:./things"


@pytest.mark.parametrize(
    ("rest", "want"),
    [
        (":en", [f"en train {i}" for i in range(20)]),
        (":de:test", [f"de test {i}" for i in range(5)]),
        (":en:train[:3]", ["en train 0", "en train 1", "en train 2"]),
        (":en:train[18:]", ["en train 18", "en train 19"]),
        (":en:train[5:7]+test[4:]", ["en train 5", "en train 6", "en test 4"]),
        (":de:train+test", [f"de train {i}" for i in range(20)] + [f"de test {i}" for i in range(5)]),
    ],
)
def test_splits_and_parts_of_them(dataset, rest, want):
    found, dropped = read(dataset + rest)
    assert (sorted(d.text for d in found), dropped) == (sorted(want), {})
    assert len({d.place for d in found}) == len(want)
    assert {d.domain for d in found} == {(dataset + rest).removeprefix("hf:")}
    assert all(
        d.source.rpartition(":")[2] == d.text.rpartition(" ")[2] for d in found
    )  # a row's number is that in its split


@pytest.mark.parametrize(
    ("rest", "says"),
    [
        ("", "it has several configurations; give one of en, de as hf:./things:en"),
        (":fr", "it has no configuration 'fr'; give one of en, de"),
        (":train", "it has no configuration 'train'; give one of en, de .*::split for a split alone"),
        (":en:dev", r"Bad split: dev. Available splits: \['train', 'test'\]"),
        (":en:train[:10%]", "asks for a share of 'train', and how many rows .* is not known: give rows, as train"),
        (":en:train[-3:]", "asks for a share of 'train'"),
        (":en:train[", "cannot be read"),
    ],
)
def test_a_dataset_that_cannot_be_read_so_names_the_choices(dataset, rest, says):
    with pytest.raises(CorpusError, match=says) as caught:
        read(dataset + rest)
    assert "\n" not in str(caught.value)


def test_a_folder_where_a_name_of_the_hub_would_look_is_refused(dataset):
    with pytest.raises(CorpusError, match=r"is also a folder or file here.*hf:\./things"):
        read("hf:things:en")


@pytest.mark.parametrize(
    ("place", "want"),
    [
        ("hf:user/name", ("user/name", None, "train")),
        ("hf:name:config", ("name", "config", "train")),
        ("hf:name:config:test", ("name", "config", "test")),
        ("hf:name::test", ("name", None, "test")),
        ("hf:name:train[:1000]", ("name", None, "train[:1000]")),
        ("hf:name:c.d-1:train[10:20]", ("name", "c.d-1", "train[10:20]")),
        ("hf:name:train+test", ("name", None, "train+test")),
    ],
)
def test_names_of_the_hub_are_taken_apart(place, want):
    found = Hub.parse(place)
    assert (found.name, found.config, found.split) == want


def test_a_share_is_taken_where_the_number_of_rows_is_known(dataset, monkeypatch):
    real = hub.datasets.load_dataset_builder

    def told(*arguments, **options):
        builder = real(*arguments, **options)
        sizes = {"train": 20, "test": 5}
        builder.info.splits = hub.datasets.SplitDict(
            {name: hub.datasets.SplitInfo(name, num_examples=n) for name, n in sizes.items()}
        )
        return builder

    monkeypatch.setattr(hub.datasets, "load_dataset_builder", told)
    assert texts(f"{dataset}:en:train[:10%]") == ["en train 0", "en train 1"]
    assert texts(f"{dataset}:en:test[-1:]") == ["en test 4"]
    assert len(texts(f"{dataset}:en:test[:9]")) == 5


def test_a_row_is_lighter_than_what_stands_beside_its_text(tmp_path):
    """What waits in the shuffle buffer is the text, the id and the domain."""
    from profiler.text.corpus import stream
    from profiler.text.corpus.names import corpus_of

    file = write_lines(tmp_path / "a.jsonl", [json.loads(json.dumps({"text": "x", "image": "y" * 1000}))])
    (item,) = stream._stream(corpus_of(str(file)), config(file))
    assert set(item) == {"source", "row", "text", "domain"}
