"""Token classes are a partition, and every token is shown as text, on byte-level and sentencepiece vocabularies."""

import itertools
import json
import random
import re
from collections import Counter
from pathlib import Path

import duckdb
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from profiler.config import RunConfig
from profiler.database.macros import temporary
from profiler.generality.distributions.build import vocabulary_of
from profiler.model.load import load_model
from profiler.patching.setting import vocabulary
from profiler.recording.pipeline import record
from profiler.text.token_classes import (
    CLASS_ID,
    CLASSES,
    class_of,
    join_texts,
    legible,
    ordinary_ids,
    special_ids,
    token_classes,
    token_texts,
)

SHARED = Path(__file__).parents[3] / "shared"
STATIC = [c.name for c in CLASSES if not c.special]
EXAMPLES = {
    "byte_fragment": ["<0xE2>", "<0x80><0x99>"],
    "newline": ["\n", "\n\n", " \n", "\r\n"],
    "indentation": ["  ", "\t", "\t\t", "    "],
    "space": [" ", "\u00a0", "\r"],
    "number": ["7", " 1984", "007"],
    "bracket_open": ["(", " [", "({"],
    "bracket_close": [")", "]", " })"],
    "quote": ['"', " '", "``", "’"],
    "punctuation": [".", ",", " ...", "?!"],
    "operator": ["=", " +", "==", "->"],
    "symbols": ["§", '."', " $", "_", ").", "€"],
    "non_latin": ["я", " мир", "日本", "α"],
    "all_caps": ["NASA", " USA", "ÉTÉ"],
    "capitalised": ["Anna", " The", "I", "Ü"],
    "word": [" the", " straße"],
    "word_piece": ["ing", "é"],
    "identifier": ["x1", " foo_bar", "camelCase", "iPhone"],
    "other": ["<unused 7>", "don't", "\x00", "a b", ""],
}


@pytest.mark.parametrize("name", STATIC)
def test_each_class_has_the_examples_that_name_it(name):
    assert {text: class_of(text) for text in EXAMPLES[name]} == dict.fromkeys(EXAMPLES[name], name)


def test_examples_cover_every_static_class_and_special_classes_hold_no_text():
    assert set(EXAMPLES) == set(STATIC)
    assert [c.name for c in CLASSES if c.special] == ["bos", "first", "special"]
    texts = [text for examples in EXAMPLES.values() for text in examples]
    assert not any(c.fits(text) for c in CLASSES if c.special for text in texts)


@given(st.text())
def test_any_text_has_exactly_one_class(text):
    assert class_of(text) in STATIC


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """BPE with byte fallback and the blank sign ▁, as Llama's."""
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        "▁the",
        "cat",
        "▁▁",
        "é",
        "▁Anna",
    ]
    made = Tokenizer(
        models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], unk_token="<unk>", byte_fallback=True)
    )
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def test_sentencepiece_texts_and_classes():
    tokenizer = sentencepiece_like()
    texts = token_texts(tokenizer, len(tokenizer))
    assert texts[:3] == ["<unk>", "<s>", "</s>"]
    assert texts[3 + 0x41] == "A"
    assert texts[3 + 0x0A] == "\n"
    assert texts[3 + 0xE2] == "<0xE2>"
    assert texts[-6:] == [" ", " the", "cat", "  ", "é", " Anna"]
    classes = [CLASSES[i].name for i in token_classes(texts, special_ids(tokenizer))]
    assert classes[:3] == ["special"] * 3
    assert classes[3 + 0xE2] == "byte_fragment"
    assert classes[-6:] == ["space", "word", "word_piece", "indentation", "word_piece", "capitalised"]


def test_byte_level_texts_show_bytes_that_are_no_text_alone():
    tokenizer = tiny.tokenizer()
    texts = token_texts(tokenizer, 257)
    assert texts[0] == tiny.END
    by_token = dict(zip(tokenizer.convert_ids_to_tokens(list(range(257))), texts, strict=True))
    assert by_token["Ġ"] == " "
    assert by_token["Ċ"] == "\n"
    assert by_token["a"] == "a"
    ids = tokenizer("“é")["input_ids"]
    assert [texts[i] for i in ids] == ["<0xE2>", "<0x80>", "<0x9C>", "<0xC3>", "<0xA9>"]
    assert len({*texts}) == 257


def test_ids_without_a_token_are_spelt_and_classed():
    texts = token_texts(tiny.tokenizer(), 260)
    assert texts[257:] == ["<unused 257>", "<unused 258>", "<unused 259>"]
    assert token_classes(texts, {0})[257:] == [CLASS_ID["other"]] * 3


def chat_tokenizer(folder):
    """As chat models have them: markers that only tokenizer.json calls special, and added tokens that it does not."""
    tokenizer = tiny.tokenizer()
    markers = [AddedToken("<|im_start|>", special=True), AddedToken("<｜fim▁begin｜>", special=True)]
    words = [AddedToken("<think>", special=False), AddedToken("née Ünal", special=False)]
    tokenizer.add_tokens([*markers, *words])
    tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def test_markers_that_only_the_tokenizer_file_calls_special_are_special(tmp_path):
    tokenizer = chat_tokenizer(tmp_path)
    assert tokenizer.all_special_ids == [0]
    assert special_ids(tokenizer) == {0, 257, 258}
    assert ordinary_ids(tokenizer) == (*range(1, 257), 259, 260)
    texts = token_texts(tokenizer, len(tokenizer))
    assert texts[257:] == ["<|im_start|>", "<｜fim▁begin｜>", "<think>", "née Ünal"]
    classes = [CLASSES[i].name for i in token_classes(texts, special_ids(tokenizer))]
    assert classes[257:] == ["special", "special", "other", "other"]


def test_added_tokens_of_a_sentencepiece_vocabulary_are_spelt_as_written():
    tokenizer = sentencepiece_like()
    tokenizer.add_tokens([AddedToken("<｜tool▁call｜>", special=False)])
    assert token_texts(tokenizer, len(tokenizer))[-1] == "<｜tool▁call｜>"


def test_chat_markers_stand_apart_in_a_run_and_in_tasks(tmp_path, monkeypatch):
    tokenizer = chat_tokenizer(tmp_path / "tokenizer")
    monkeypatch.setattr(tiny, "SIZES", tiny.SIZES | {"vocab_size": len(tokenizer)})
    monkeypatch.setattr(tiny, "tokenizer", lambda: tokenizer)
    folder = tiny.save("gpt2", tmp_path / "model")
    text = "<|im_start|>user\n<think>no" * 4
    (tmp_path / "chat.jsonl").write_text(json.dumps({"text": text}) + "\n")
    config = RunConfig(model=str(folder), corpora=(str(tmp_path / "chat.jsonl"),), dense_positions=20)
    record(config, tmp_path / "run.duckdb")
    counts = (
        "SELECT class, sum(n) FROM cell_counts JOIN classes ON class_id = value_id WHERE axis = 'class' GROUP BY class"
    )
    with duckdb.connect(str(tmp_path / "run.duckdb"), read_only=True) as run:
        of = dict(run.execute(counts).fetchall())
        assert run.execute(
            "SELECT count(*) FROM positions WHERE token = '<|im_start|>' AND special IS NULL"
        ).fetchone() == (0,)
    assert of["special"] == 4 and of["other"] == 4
    model = load_model(config)
    assert not {257, 258} & {*vocabulary(model), *vocabulary_of(model)}
    assert {259, 260} < {*vocabulary(model), *vocabulary_of(model)}


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
def test_byte_level_spelling_gives_the_text_back(text):
    """Bytes of all tokens together are the bytes of the text: nothing is lost in the spelling."""
    tokenizer = tiny.tokenizer()
    texts = token_texts(tokenizer, 257)
    spelt = [texts[i] for i in tokenizer(text)["input_ids"]]
    raw = b"".join(bytes([int(t[3:5], 16)]) if len(t) == 6 else t.encode() for t in spelt)
    assert raw.decode() == text


@given(
    st.text(st.sampled_from('aé日本語🙂 \n<0x41>"«»'), max_size=9),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(1, 4),
)
def test_bytes_of_neighbours_are_joined_and_what_is_cut_off_stays_visible(text, start, end, size):
    """Whatever tokens the bytes of a text fall into; a run that is cut in the middle of a character begins with its
    bytes."""
    raw = text.encode()
    raw = raw[start : len(raw) - end]
    pieces = [legible(raw[i : i + size]) for i in range(0, len(raw), size)]
    lead = next((i for i, byte in enumerate(raw) if byte & 0xC0 != 0x80), len(raw))
    body = raw[lead:].decode(errors="ignore")
    tail = raw[lead + len(body.encode()) :]
    spelled = ["".join(f"<0x{byte:02X}>" for byte in some) for some in (raw[:lead], tail)]
    assert join_texts(pieces) == spelled[0] + body + spelled[1]


@pytest.fixture(scope="module")
def macros():
    """A database with the macros of macros.sql that spell texts."""
    connection = duckdb.connect()
    connection.execute(temporary("join_texts()"))
    yield connection
    connection.close()


def test_sql_joins_bytes_as_python_does(macros):
    rng = random.Random(0)
    rows = []
    for _ in range(400):
        raw = "".join(rng.choice('aé日本🙂 \n<0x41>"«') for _ in range(rng.randint(0, 12))).encode()
        raw = rng.randbytes(8) if rng.random() < 0.3 else raw[rng.randint(0, 2) : len(raw) - rng.randint(0, 2)]
        cuts = sorted({0, len(raw), *(rng.randint(0, len(raw)) for _ in range(5))})
        rows.append([legible(raw[a:b]) for a, b in itertools.pairwise(cuts)])
    found = [macros.execute("SELECT join_texts(?::VARCHAR[])", [row]).fetchone()[0] for row in rows]
    assert found == [join_texts(row) for row in rows]
    assert any("<0x" in text for text in found) and any("日" in text for text in found)


def test_text_that_looks_like_bytes_stays_text(macros):
    """A document may hold `<0x41>`: its tokens are no bytes, whatever they spell together."""
    pieces = ["<", "0x", "41", ">", "<0xE6>", "<0x97>", "<0xA5>"]
    assert join_texts(pieces) == "<0x41>日" == macros.execute("SELECT join_texts(?::VARCHAR[])", [pieces]).fetchone()[0]


def test_contexts_of_other_scripts_are_legible(tmp_path):
    """A byte a token: the text before and after is whole characters but for the two that the position and the window
    cut."""
    text = "すべての人間は、生まれながらにして自由であり、Все люди рождаются"
    (tmp_path / "text.jsonl").write_text(json.dumps({"text": text}) + "\n")
    config = RunConfig(
        model=str(tiny.save("gpt2", tmp_path / "model")), corpora=(str(tmp_path / "text.jsonl"),), dense_positions=50
    )
    record(config, tmp_path / "run.duckdb")
    with duckdb.connect(str(tmp_path / "run.duckdb"), read_only=True) as run:
        samples = run.execute("SELECT DISTINCT context_before, context_token, context_after FROM samples").fetchall()
    assert len(samples) > 20
    for before, token, after in samples:
        for part in (before, after):
            middle = re.fullmatch(
                r"(?:<0x[89AB][0-9A-F]>){0,3}(.*?)(?:<0x[C-F89AB][0-9A-F]>){0,3}", part.removeprefix(tiny.END)
            )
            assert middle and middle[1] in text
        assert re.fullmatch("<0x[0-9A-F]{2}>", token) or token in text


@pytest.mark.parametrize("name", ["tokenizers/gpt2", "models/stories260K"])
def test_every_script_of_the_declaration_of_human_rights_is_spelled_back(name):
    folder, corpus = SHARED / "data" / name, SHARED / "data/corpora/udhr.jsonl"
    if not folder.is_dir() or not corpus.is_file():
        pytest.skip(f"not there: {folder} or {corpus}")
    if name.endswith("gpt2"):
        made = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>")
    else:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = token_texts(tokenizer, len(tokenizer))
    rows = [json.loads(line) for line in corpus.read_text(encoding="utf-8").splitlines()]
    assert len({row["language"] for row in rows}) == 12
    for row in rows:
        text = row["text"][:2000]
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert join_texts(texts[i] for i in ids).strip() == text.strip(), row["language"]


def test_legible():
    assert legible("día".encode()) == "día"
    assert legible(b"\xe2\x80") == "<0xE2><0x80>"
    assert legible(b"a\xff") == "<0x61><0xFF>"


@pytest.fixture(scope="module")
def gpt2_texts():
    """GPT-2's own vocabulary."""
    folder = SHARED / "data/tokenizers/gpt2"
    if not folder.is_dir():
        pytest.skip(f"GPT-2's vocabulary is not there: {folder}")
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>", bos_token="<|endoftext|>")
    texts = token_texts(tokenizer, 50_257)
    return texts, [CLASSES[i].name for i in token_classes(texts, special_ids(tokenizer))]


@pytest.mark.slow
def test_gpt2_vocabulary_fills_every_static_class(gpt2_texts):
    texts, classes = gpt2_texts
    counts = Counter(classes)
    assert set(counts) == {*STATIC, "special"}
    assert counts["special"] == 1
    assert len(texts) == len(classes) == 50_257
    assert counts["other"] < 0.02 * 50_257
    of = dict(zip(texts, classes, strict=True))
    assert [of[t] for t in (" the", "ing", " London", "USA", " 2019", "\n\n", " (", "я")] == [
        "word",
        "word_piece",
        "capitalised",
        "all_caps",
        "number",
        "newline",
        "bracket_open",
        "non_latin",
    ]


def test_gpt2_tokens_of_split_characters_are_byte_fragments(gpt2_texts):
    texts, classes = gpt2_texts
    fragments = [t for t, c in zip(texts, classes, strict=True) if c == "byte_fragment"]
    assert "<0xE2><0x80>" in fragments
    assert all("<0x" in t for t in fragments)
    # U+FFFD itself is a character of the vocabulary; as a sign for bytes that could not be decoded it never appears
    assert not any("\ufffd" in t for t, c in zip(texts, classes, strict=True) if c == "byte_fragment")
    assert 0 < sum("\ufffd" in t for t in texts) < 10


def test_a_sentencepiece_model_of_others_is_read():
    folder = SHARED / "data/models/stories260K"
    if not folder.is_dir():
        pytest.skip(f"stories260K is not there: {folder}")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = token_texts(tokenizer, len(tokenizer))
    classes = [CLASSES[i].name for i in token_classes(texts, special_ids(tokenizer))]
    assert {"word", "word_piece", "capitalised", "punctuation", "special", "byte_fragment"} <= set(classes)
    assert not any("▁" in t for t in texts)
    story = "Once upon a time, there was a girl."
    ids = tokenizer(story, add_special_tokens=False)["input_ids"]
    assert "".join(texts[i] for i in ids).strip() == story
