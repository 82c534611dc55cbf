"""Windows and batches: nothing lost, nothing mixed, and every position knows what it is."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import CorpusError
from profiler.text import windows as windows_module
from profiler.text.corpus import Document
from profiler.text.documents import (
    BLOCK_DOCUMENTS,
    CHUNK_SHIFT,
    MOST_DOMAINS,
    Cursor,
    Domains,
    Reading,
    Share,
    TokenizedDocument,
    tokenize,
)
from profiler.text.sampling_keys import position_keys, stable_hash
from profiler.text.token_classes import CLASS_ID
from profiler.text.windows import Layout, chunks, make_batch, windows_of

VOCABULARY = 300
SPECIAL_TOKEN = 299
CLASSES = torch.full((VOCABULARY,), CLASS_ID["word"])
CLASSES[SPECIAL_TOKEN] = CLASS_ID["special"]
CLASSES[7] = CLASS_ID["number"]
LENGTHS = st.lists(st.integers(0, 40), max_size=12)


def layout(bos_id: int | None, context_length: int = 8) -> Layout:
    return Layout(context_length, bos_id, CLASSES, seed=3, groups_per_domain=4)


def document(ids, doc_id: int = 0, place: str | None = None) -> TokenizedDocument:
    ids = np.asarray(ids, dtype=np.int32)
    return TokenizedDocument(doc_id, 0, "d", f"row {doc_id}", place or f"corpus:{doc_id}", 0, ids, 0)


def corpus(lengths: list[int]) -> list[TokenizedDocument]:
    """Documents in which every token says where it is: 1, 2, 3, ... modulo 290, document by document."""
    counter = itertools.count()
    return [document([1 + next(counter) % 290 for _ in range(n)], i) for i, n in enumerate(lengths)]


def all_windows(documents, a_layout) -> list:
    return [w for chunk in chunks(documents, a_layout) for w in chunk.windows]


BOS = pytest.mark.parametrize("bos_id", [None, 0, 5])


@BOS
@given(lengths=LENGTHS)
def test_every_token_with_a_position_stands_in_exactly_one_window(bos_id, lengths):
    documents, bos = corpus(lengths), bos_id is not None
    seen = {d.doc_id: [] for d in documents}
    for window in all_windows(documents, layout(bos_id)):
        assert not bos or window.token_ids[0] == bos_id
        assert window.start == len(seen[window.document.doc_id])
        seen[window.document.doc_id] += window.token_ids[bos:].tolist()
    for d in documents:
        got, want = seen[d.doc_id], d.token_ids.tolist()
        alone = not bos and len(want) % 8 == 1  # a last token alone in its window has nothing to predict
        assert got == (want[:-1] if alone else want)


@BOS
@given(lengths=LENGTHS)
def test_every_token_is_predicted_once(bos_id, lengths):
    """All tokens but the first of a document without BOS are the target of exactly one position."""
    documents, bos = corpus(lengths), bos_id is not None
    targets = Counter()
    for chunk in chunks(documents, layout(bos_id)):
        for batch in chunk.batches(lambda _: 5, layout(bos_id)):
            for i, w in enumerate(batch.windows):
                for offset in batch.valid[i].nonzero()[:, 0].tolist():
                    targets[w.document.doc_id, w.start + offset + 1 - bos] += 1
                    at = w.start + offset + 1 - bos
                    assert batch.targets[i, offset] == w.document.token_ids[at]
    # with a BOS, the first token of every window is predicted twice: by the token before it and by the BOS
    for d in documents:
        for at in range(len(d.token_ids)):
            first_of_window = at % layout(bos_id).stride == 0
            assert targets[d.doc_id, at] == (at > 0) + (bos and first_of_window)


@BOS
def test_last_token_of_a_window_knows_its_target_and_the_last_of_a_document_is_no_position(bos_id):
    stride = layout(bos_id).stride
    doc = document(range(1, 2 * stride + 4))
    first, second, last = windows_of(doc, layout(bos_id))
    assert [w.following for w in (first, second, last)] == [stride + 1, 2 * stride + 1, None]
    batch = make_batch([first, second, last], layout(bos_id))
    assert batch.valid.sum(1).tolist() == [8, 8, len(last.token_ids) - 1]
    assert batch.targets[0, 7] == stride + 1
    assert batch.targets[1, 7] == 2 * stride + 1
    assert not batch.valid[2, len(last.token_ids) - 1 :].any()


def test_batch_says_what_each_position_is():
    doc = document([11, SPECIAL_TOKEN, 7, 12, 13], doc_id=2, place="corpus:2")
    (window,) = windows_of(doc, layout(0))
    (short,) = windows_of(document([7, 7], doc_id=3), layout(0))
    batch = make_batch([window, short], layout(0))
    assert batch.tokens.tolist() == [[0, 11, SPECIAL_TOKEN, 7, 12, 13], [0, 7, 7, 0, 0, 0]]
    assert batch.targets[0].tolist() == [11, SPECIAL_TOKEN, 7, 12, 13, 0]
    assert batch.valid.tolist() == [[True] * 5 + [False], [True] * 2 + [False] * 4]
    assert batch.special[0].tolist() == [1, 0, 3, 0, 0, 0]
    assert batch.ordinary.tolist() == [[False, True, False, True, True, False], [False, True] + [False] * 4]
    word, number = CLASS_ID["word"], CLASS_ID["number"]
    assert batch.classes[0, :5].tolist() == [CLASS_ID["bos"], word, CLASS_ID["special"], number, word]
    assert batch.next_classes[0, :5].tolist() == [word, CLASS_ID["special"], number, word, word]
    assert batch.position_ids[0, :5].tolist() == [2 * 2**32 + offset for offset in range(5)]
    assert (batch.keys[0, :5] == position_keys(3, "corpus:2", torch.arange(5))).all()
    assert batch.groups.tolist() == [0, 0]


def test_without_a_bos_the_first_of_every_window_is_marked():
    batch = make_batch(list(windows_of(document(range(1, 20)), layout(None))), layout(None))
    assert batch.special[:, 0].tolist() == [2, 2, 2]
    assert not batch.special[:, 1:].any()
    assert batch.classes[:, 0].tolist() == [CLASS_ID["first"]] * 3


def test_bos_id_0_is_a_bos():
    """0 is falsy (anchors, trap E7)."""
    assert layout(0).stride == 7
    (window,) = windows_of(document([4, 5]), layout(0))
    assert window.token_ids.tolist() == [0, 4, 5]
    assert make_batch([window], layout(0)).special.tolist() == [[1, 0, 0]]


@BOS
def test_documents_too_short_for_a_position_have_no_window(bos_id):
    assert list(windows_of(document([]), layout(bos_id))) == []
    single = list(windows_of(document([9]), layout(bos_id)))
    assert [w.n_positions for w in single] == ([] if bos_id is None else [1])


@BOS
@given(lengths=LENGTHS)
def test_a_window_is_a_piece_of_one_document(bos_id, lengths):
    for window in all_windows(corpus(lengths), layout(bos_id)):
        own = window.token_ids[bos_id is not None :]
        assert (own == window.document.token_ids[window.start : window.start + len(own)]).all()
        assert len(window.token_ids) <= 8


@BOS
@given(lengths=LENGTHS, batch_size=st.integers(1, 9))
def test_position_ids_are_unique_and_say_where_they_are(bos_id, lengths, batch_size):
    ids = []
    for chunk in chunks(corpus(lengths), layout(bos_id)):
        for batch in chunk.batches(lambda _: batch_size, layout(bos_id)):
            ids += batch.position_ids[batch.valid].tolist()
            for i, w in enumerate(batch.windows):
                row = batch.position_ids[i][batch.valid[i]]
                assert (row >> 32 == w.document.doc_id).all()
                assert ((row & (2**32 - 1)) // 8 == w.number).all()
                assert w.window_id == w.document.doc_id * 2**20 + w.number
    assert len(ids) == len(set(ids))


def contents(chunk, batch_size: int, a_layout: Layout) -> list:
    """Every position of a chunk with all that is known about it, sorted."""
    rows = []
    for batch in chunk.batches(lambda _: batch_size, a_layout):
        at = batch.valid
        fields = (batch.position_ids, batch.keys, batch.tokens, batch.targets, batch.special, batch.classes)
        rows += zip(*(f[at].tolist() for f in fields), strict=True)
    return rows


def test_batch_size_only_cuts_chunks(monkeypatch):
    monkeypatch.setattr(windows_module, "CHUNK_WINDOWS", 7)
    documents = corpus([3, 25, 0, 8, 40, 1, 17, 9, 9, 60])
    cut = list(chunks(documents, layout(0)))
    assert [len(c.windows) for c in cut[:-1]] == [7] * (len(cut) - 1)
    assert [c.number for c in cut] == list(range(len(cut)))  # all in the first block
    for chunk in cut:
        assert contents(chunk, 1, layout(0)) == contents(chunk, 3, layout(0)) == contents(chunk, 64, layout(0))


def test_last_partial_chunk_and_batch_are_kept(monkeypatch):
    monkeypatch.setattr(windows_module, "CHUNK_WINDOWS", 4)
    documents = corpus([7] * 9)
    cut = list(chunks(documents, layout(0)))
    assert [len(c.windows) for c in cut] == [4, 4, 1]
    assert [[len(b.windows) for b in c.batches(lambda _: 3, layout(0))] for c in cut] == [[3, 1], [3, 1], [1]]
    assert [d.doc_id for c in cut for d in c.documents] == list(range(9))


def test_documents_without_a_window_are_still_reported(monkeypatch):
    monkeypatch.setattr(windows_module, "CHUNK_WINDOWS", 2)
    cut = list(chunks(corpus([0, 14, 0, 0]), layout(0)))
    assert [d.doc_id for c in cut for d in c.documents] == [0, 1, 2, 3]
    assert [len(c.windows) for c in cut] == [2, 0]
    assert list(cut[-1].batches(lambda _: 4, layout(0))) == []


def read(texts: list[str], limit: int | None = None, **options) -> tuple[list[TokenizedDocument], Counter]:
    stream = (Document("ab"[i % 2], f"row {i}", f"corpus:{i}", text) for i, text in enumerate(texts))
    got = list(tokenize(stream, lambda text: list(text.encode()), Domains(4), limit, Reading(), **options))
    return got, sum((d.dropped for d in got), Counter())


@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=10), limit=st.integers(1, 100))
def test_the_token_limit_cuts_exactly_and_counts_the_cut(lengths, limit):
    got, dropped = read(["x" * n for n in lengths], limit)
    assert sum(len(d.token_ids) for d in got) == min(limit, sum(lengths))
    read_whole = sum(lengths[: len(got)])
    assert dropped["token_limit"] == sum(d.n_dropped for d in got) == read_whole - min(limit, read_whole)
    assert all(d.n_dropped == 0 for d in got[:-1])


def test_the_token_limit_stops_reading_the_corpus():
    def endless():
        for i in itertools.count():
            assert i < 4, "read on after the limit"
            yield Document("d", f"{i}", f"{i}", "xxxxx")

    assert len(list(tokenize(endless(), lambda t: list(t.encode()), Domains(4), 20, Reading()))) == 4


def test_ids_domains_and_groups_of_documents():
    got, _ = read(["aa", "bb", "cc", ""])
    assert [d.doc_id for d in got] == [0, 1, 2, 3]
    assert [d.source for d in got] == ["row 0", "row 1", "row 2", "row 3"]
    assert [d.domain_id for d in got] == [0, 1, 0, 1]
    assert all(d.group_id // 4 == d.domain_id for d in got)


def test_copies_of_a_text_are_in_one_group_of_their_domain():
    """Copies are not independent: apart, they would hold errors down that they should not."""
    copies, _ = read(["of the first", "of the second"] * 20 + [f"document {i}" for i in range(20)])
    groups = [{d.group_id for d in copies[:40] if d.domain == domain} for domain in "ab"]
    assert [len(of_domain) for of_domain in groups] == [1, 1]
    assert len({d.group_id for d in copies}) == 8
    assert len({d.text_hash for d in copies[:40]}) == 2


def test_groups_spread_documents_evenly_and_depend_on_the_text_alone():
    domains = Domains(8)
    counts = Counter(domains.group_of(1, stable_hash(f"text {i}")) for i in range(8_000))
    assert set(counts) == set(range(8, 16))
    assert all(abs(n - 1_000) < 5 * 1_000**0.5 for n in counts.values())
    assert Domains(8).group_of(1, 5) == domains.group_of(1, 5)


def test_too_many_domains_are_refused():
    domains = Domains(4)
    ids = [domains.id_of(f"site {i}") for i in range(MOST_DOMAINS)]
    assert ids == list(range(MOST_DOMAINS))
    assert domains.id_of("site 3") == 3
    with pytest.raises(CorpusError, match="--domain-field"):
        domains.id_of("one more")


# --- blocks, shares and going on --------------------------------------------------------------------------------------

TEXTS = ["x" * (1 + i * 7 % 23) for i in range(3 * BLOCK_DOCUMENTS + 40)]


def bits(chunk) -> tuple:
    """Everything of a chunk that a run depends on."""
    documents = [
        (d.doc_id, d.domain_id, d.group_id, d.token_ids.tolist(), d.n_dropped, d.text_hash) for d in chunk.documents
    ]
    return chunk.number, documents, contents(chunk, 4, layout(0)), dict(chunk.dropped), chunk.cursor


def test_no_chunk_holds_documents_of_two_blocks(monkeypatch):
    monkeypatch.setattr(windows_module, "CHUNK_WINDOWS", 100)
    cut = list(chunks(read(TEXTS)[0], layout(0)))
    for chunk in cut:
        assert {w.document.doc_id // BLOCK_DOCUMENTS for w in chunk.windows} == {chunk.number >> CHUNK_SHIFT}
    assert [c.number for c in cut] == sorted({c.number for c in cut})
    assert sum(len(c.windows) for c in cut) == sum(-(-len(t) // 7) for t in TEXTS)


@pytest.mark.parametrize("limit", [None, 5_000])
def test_shares_together_are_the_whole_chunk_for_chunk(limit):
    whole = {c.number: bits(c) for c in chunks(read(TEXTS, limit)[0], layout(0))}
    parts = [
        {c.number: bits(c) for c in chunks(read(TEXTS, limit, share=Share.parse(s))[0], layout(0))}
        for s in ("1/3", "2+3/3")
    ]
    assert parts[0] and parts[1] and not parts[0].keys() & parts[1].keys()
    assert parts[0] | parts[1] == whole


@pytest.mark.slow
@pytest.mark.parametrize("limit", [None, 5_000])
@pytest.mark.parametrize("share", [None, "2/2"])
def test_going_on_after_any_chunk_gives_the_rest(monkeypatch, limit, share):
    monkeypatch.setattr(windows_module, "CHUNK_WINDOWS", 100)
    share = Share.parse(share)
    whole = list(chunks(read(TEXTS, limit, share=share)[0], layout(0)))
    assert len(whole) > 3
    for i, chunk in enumerate(whole):
        rest = chunks(read(TEXTS, limit, share=share, cursor=chunk.cursor)[0], layout(0), after=chunk.cursor.chunk)
        assert [bits(c) for c in rest] == [bits(c) for c in whole[i + 1 :]]


def test_what_was_dropped_on_the_way_belongs_to_the_next_document():
    reading = Reading()

    def stream():
        for i in range(3):
            reading.dropped["no_text"] += i
            yield Document("a", f"{i}", f"{i}", "xyz")
        reading.dropped["no_text"] += 10

    got = tokenize(stream(), lambda text: list(text.encode()), Domains(4), None, reading)
    assert [d.dropped["no_text"] for d in got] == [0, 1, 2]
    assert reading.dropped["no_text"] == 10


@pytest.mark.parametrize("changed", ["text", "place", "order", "missing"])
def test_a_corpus_that_has_changed_is_noticed_where_it_is_passed(changed):
    rows = [Document("a", f"{i}", f"place {i}", f"text {i}") for i in range(20)]
    reading = Reading()
    list(tokenize(rows[:10], lambda _: [1, 2], Domains(4), None, reading))
    again = list(rows)
    if changed == "order":
        again[3], again[4] = again[4], again[3]
    elif changed == "missing":
        del again[8:]
    else:
        again[3] = Document("a", "3", **{"place": "place 3", "text": "text 3"} | {changed: "another"})
    expecting = Reading(expected=reading.passed)
    with pytest.raises(CorpusError, match="has changed"):
        list(tokenize(again, lambda _: [1, 2], Domains(4), None, expecting))
        expecting.check()
    expecting = Reading(expected=reading.passed)
    assert len(list(tokenize(rows, lambda _: [1, 2], Domains(4), None, expecting))) == 20
    expecting.check()


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "a/b", "1+1/2", "1/2/3", "-1/2", "1+/2", "²/3"])
def test_a_shard_that_cannot_be_read_is_refused(text):
    with pytest.raises(CorpusError, match="1/4"):
        Share.parse(text)


def test_a_shard_is_written_as_it_is_read():
    assert [str(Share.parse(t)) for t in ("1/4", "3+1/4", None)] == ["1/4", "1+3/4", "1/1"]
    assert Cursor().first_document == 0


def test_a_document_of_more_windows_than_there_are_ids_is_refused():
    """Its ids would be those of the next document."""
    for context, most in ((4, 2**20), (2**14, 2**18)):
        shape = layout(None, context)
        with pytest.raises(CorpusError, match=f"document 'long' has {most + 1:,} windows of .* may have {most:,}"):
            next(
                windows_of(
                    replace(document(np.zeros(1, dtype=np.int32)), source="long", token_ids=many(most * context + 1)),
                    shape,
                )
            )
        first = next(windows_of(replace(document([1]), token_ids=many(most * context)), shape))
        last = replace(first, number=most - 1)
        assert (
            last.window_id
            < replace(first, document=replace(first.document, doc_id=first.document.doc_id + 1)).window_id
        )
        assert (most - 1) * context + context - 1 < 2**windows_module.POSITION_SHIFT
    with pytest.raises(CorpusError, match="a run may have 2,147,483,648 documents"):
        next(windows_of(replace(document([1, 2]), doc_id=2**31), layout(None)))
    assert next(windows_of(replace(document([1, 2]), doc_id=2**31 - 1), layout(None))).window_id > 0


def many(n: int) -> np.ndarray:
    """So many tokens, all of them 1, without the memory."""
    return np.broadcast_to(np.ones(1, dtype=np.int32), (n,))
