"""The past of a position, properties of tokens, and sums per token, each against something slower or by hand."""

import fake_values
import numpy as np
import pytest
import torch
from fake_run import FakeRun, build

from profiler.behaviours.token_properties import PROPERTIES
from profiler.database import query
from profiler.recording.accumulators.token_sums import TokenSums
from profiler.text.context import DOCUMENTS_KEPT, Marks, past_of
from profiler.text.documents import TokenizedDocument
from profiler.text.windows import Layout, make_batch, windows_of


@pytest.fixture(scope="module")
def fake(tmp_path_factory) -> FakeRun:
    return build(tmp_path_factory.mktemp("context") / "fake.duckdb")


@pytest.mark.slow
def test_past_against_looking(fake):
    marks = Marks.of([text for text, _ in fake_values.VOCABULARY])
    seen = set()
    for ids in fake.tables["windows"]["token_ids"].to_list():
        got = past_of(torch.tensor([ids]), marks)
        for offset in range(len(ids)):
            want = fake_values.past_of(ids, offset)
            assert got.distance[0, offset].item() == (want["distance"] or 0)
            for name in ("prefix_match", "bracket_depth", "in_quotes"):
                assert getattr(got, name)[0, offset].item() == want[name]
                seen.add((name, want[name]))
    assert {("prefix_match", 0), ("prefix_match", 1), ("prefix_match", 2), ("bracket_depth", 2)} <= seen
    assert {("in_quotes", True), ("in_quotes", False)} <= seen


def test_long_repeats_stop_at_eight_and_padding_changes_nothing():
    marks = Marks.of([""] * 30)
    ids = [*range(1, 13), *range(1, 13)]
    got = past_of(torch.tensor([ids + [0] * 5, [0] * 29]), marks)
    assert got.prefix_match[0, 12:24].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8, 8]
    assert got.distance[0, 11:24].tolist() == [0] + [12] * 12


def test_a_closing_bracket_without_an_opening_one_is_forgotten():
    marks = Marks.of(["x", "(", ")", "](", "((", '"', '"""'])
    got = past_of(torch.tensor([[2, 2, 1, 0, 4, 3, 2, 2, 2, 1], [0, 5, 0, 5, 0, 5, 0, 0, 0, 0]]), marks)
    assert got.bracket_depth[0].tolist() == [0, 0, 1, 1, 3, 3, 2, 1, 0, 1]
    assert got.in_quotes[1].tolist() == [False, False, True, True, False, False, True, True, True, True]


def signs(text: str) -> tuple[list[int], list[bool]]:
    """Of single characters as tokens."""
    alphabet = sorted(set(text))
    depth, quoted = Marks.of(alphabet).signs(np.array([alphabet.index(c) for c in text]))
    return depth.tolist(), quoted.tolist()


def test_marks_that_never_close_do_not_last_for_ever():
    assert signs("(a\nb\n\nc")[0] == [1, 1, 1, 1, 1, 0, 0]
    assert signs("(a\n \nc")[0][-1] == 0
    assert signs('x"a\nb')[1] == [False, False, True, True, False]
    assert signs('""""""x""x')[1][-1] is False
    long = signs('"""a\n\n"b"""c')[1]
    assert long == [False] * 3 + [True] * 8 + [False]


PIECES = ["(", ")", "[]", '"', '""', '"""', "a", " b", "\n", " \n", "\n\n", "x(", '")', "'", "<0xE2>"]


@pytest.mark.parametrize("seed", range(6))
def test_marks_against_reading_character_by_character(seed):
    ids = np.random.default_rng(seed).integers(0, len(PIECES), 120)
    depth, quoted = Marks.of(PIECES).signs(ids)
    for i in range(len(ids)):
        before, here = "".join(PIECES[t] for t in ids[:i]), PIECES[ids[i]]
        assert depth[i] == fake_values.open_marks(before + here)[0]
        assert quoted[i] == fake_values.open_marks(before.rstrip('"') if here[0] == '"' else before)[1]
    assert depth.max() > 0
    assert quoted.any()
    assert not quoted.all()


@pytest.mark.parametrize("bos", [False, True])
def test_windows_of_a_document_carry_its_marks_on(bos):
    """Whoever computes a window alone, with an empty memory, has the values that the whole document gives."""
    ids = np.random.default_rng(8).integers(1, len(PIECES), 90).astype(np.int32)
    layout = Layout(17, 0 if bos else None, torch.zeros(len(PIECES), dtype=torch.long), 1, 4)
    document = TokenizedDocument(7, 0, "d", "s", "p", 0, ids, 0, n_read=len(ids))
    whole, windows = Marks.of(PIECES).signs(ids), list(windows_of(document, layout))
    together = past_of(make_batch(windows, layout).tokens, Marks.of(PIECES), windows, bos=bos)
    assert len(windows) == -(-len(ids) // layout.stride)
    for row, window in enumerate(windows):
        alone = past_of(make_batch([window], layout).tokens, Marks.of(PIECES), [window], bos=bos)
        size = len(window.token_ids)
        for got, at in ((alone, 0), (together, row)):
            assert (
                got.bracket_depth[at, bos:size].tolist() == whole[0][window.start : window.start + size - bos].tolist()
            )
            assert got.in_quotes[at, bos:size].tolist() == whole[1][window.start : window.start + size - bos].tolist()
    assert (together.bracket_depth[1:, int(bos)] > 0).any()
    assert together.in_quotes[1:, int(bos)].any()


def test_only_the_last_documents_are_remembered():
    marks = Marks.of(PIECES)
    for number in range(DOCUMENTS_KEPT + 3):
        marks.of_document(TokenizedDocument(number, 0, "d", "s", "p", 0, np.array([0, 1]), 0))
    assert len(marks.known) == DOCUMENTS_KEPT
    assert 0 not in marks.known


EXAMPLES = {
    " 1999": "year number leading_space",
    "2024": "year number",
    "3,5": "number",
    " 3rd": "ordinal leading_space",
    " third": "ordinal lower_word leading_space",
    " Monday": "calendar capitalised leading_space",
    " may": "function_word lower_word leading_space",
    " May": "calendar capitalised function_word leading_space",
    " Mary": "name_like capitalised leading_space",
    " The": "function_word capitalised leading_space",
    " None": "code_keyword capitalised leading_space",
    "self": "code_keyword word_piece",
    " self": "code_keyword lower_word leading_space",
    "NASA": "all_caps",
    "X": "single_letter",
    "my_name": "identifier",
    "\n": "newline white_space",
    ":\n": "newline",
    "    ": "indentation white_space",
    " .": "sentence_end leading_space",
    "--": "operator",
    "'": "quote",
    "\\": "operator",
    "((": "bracket_open",
    ")]": "bracket_close",
    " Это": "non_latin capitalised leading_space name_like",
    "日本": "non_latin",
    "é": "single_letter word_piece",
    "<0xE2><0x80>": "byte_fragment",
    "twelve": "number_word word_piece",
    ",": "comma",
    ";": "colon",
    "\u202e": "",
}


def test_properties_of_tokens_by_hand():
    con = query.duckdb.connect()
    con.execute("CREATE TABLE t AS SELECT unnest(?) AS text", [list(EXAMPLES)])
    con.execute("CREATE VIEW v AS SELECT *, trim(text, ' ') AS body, 0 AS token_id, 'x' AS class FROM t")
    for text, wanted in EXAMPLES.items():
        found = {
            p.name
            for p in PROPERTIES
            if con.execute(f"SELECT ({p.condition}) FROM v WHERE text = ?", [text]).fetchall()[0][0]
        }
        assert found == set(wanted.split()), text
    assert {name for names in EXAMPLES.values() for name in names.split()} == {p.name for p in PROPERTIES}


def test_special_tokens_have_no_properties(fake):
    rows = fake.tables["token_property_lists"].join(fake.tables["tokens"], on="token_id")
    special = [i for i, (name, _, is_special) in enumerate(fake_values.CLASSES) if is_special]
    assert rows.filter(query.pl.col("class_id").is_in(special))["properties"].list.len().sum() == 0
    assert rows["properties"].list.len().sum() > 40


def test_sums_per_token_against_a_loop_and_merged():
    rng = np.random.default_rng(0)
    tokens = torch.tensor(rng.integers(0, 7, 40))
    a, d = (torch.tensor(rng.normal(size=(40, 5))) for _ in range(2))
    whole, halves = (
        TokenSums([6, 3, 4], 9, torch.device("cpu")),
        [TokenSums([3, 4, 6], 9, torch.device("cpu")) for _ in range(2)],
    )
    for sums, rows in [(whole, slice(0, 40)), (halves[0], slice(0, 13)), (halves[1], slice(13, 40))]:
        sums.count(tokens[rows])
        sums.update(slice(2, 7), tokens[rows], a[rows], d[rows])
        assert sums.keeps(slice(2, 7))
        assert not sums.keeps(slice(7, 9))
    halves[0].merge(halves[1])
    for component, got in whole.of_component():
        for token in range(9):
            at = (tokens == token).numpy()
            want = [v.numpy()[at, component - 2].sum() for v in (a, d, d.abs())]
            np.testing.assert_allclose(got[:, token], want, atol=1e-12)
    assert whole.counts.tolist() == np.bincount(tokens, minlength=9).tolist() == halves[0].counts.tolist()
    torch.testing.assert_close(whole.sums, halves[0].sums, rtol=0, atol=1e-12)
    assert [component for component, _ in whole.of_component()] == [3, 4, 6]
