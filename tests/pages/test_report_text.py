"""Texts of the corpus on a page: visible, and never more than text."""

import re
from html.parser import HTMLParser

import pytest

from profiler.pages import numbers, tables, visible_text
from profiler.pages.component import contexts

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "\"' onmouseover='x",
    "&lt;b&gt;",
    "😀👩‍👩‍👧",
    "\x00\x1b[31m",
    "\u202e\u2066abc\u2069",
    "שלום עולם",
    "مرحبا",
    "\u2028\u2029",
    "a\u0301",
    "\u0301",
    "x" * 5000,
    "<!-- --> ]]>",
    "{{ 7 * 7 }}",
    "<b>\t<i>\u202e</p>",
]


class Structure(HTMLParser):
    """Collects the elements and the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text.append(data)


def parse(html: str) -> Structure:
    structure = Structure()
    structure.feed(html)
    return structure


@pytest.mark.parametrize("hostile", HOSTILE)
def test_only_our_own_elements_appear(hostile):
    for shown in (visible_text.span(hostile), visible_text.token(hostile)):
        assert set(parse(str(shown)).tags) <= {"bdi", "span"}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_character_that_steers_the_page_is_left(hostile):
    shown = str(visible_text.span(hostile))
    assert not any(c in shown for c in "\x00\x1b\u202e\u2066\u2069\u2028\u2029\n\t")


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ("a\nb", "a⏎b"),
        ("\r\n", "⏎"),
        ("\t", "⇥"),
        ("\x00", "␀"),
        ("\u202e", "U+202E"),
        ("\x85", "U+0085"),
        ("\u0301x", "◌\u0301x"),
        ("<0xF0><0x9F><0x98><0x80>", "😀"),
        ("<0xE2><0x80>", "E2 80"),
        ("<0x0A>", "0A"),
        ("👩‍👧", "👩‍👧"),
        ("<0xZZ>", "<0xZZ>"),
    ],
)
def test_what_a_reader_sees(given, seen):
    assert "".join(parse(str(visible_text.visible(given))).text) == seen


def test_a_token_alone_shows_its_blanks():
    assert "".join(parse(str(visible_text.token(" the"))).text) == "·the"
    assert "".join(parse(str(visible_text.token("    "))).text) == "····"
    assert "".join(parse(str(visible_text.token(""))).text) == "∅"
    assert "".join(parse(str(visible_text.token(None))).text) == "none"


def test_long_texts_are_cut_and_say_so():
    shown = "".join(parse(str(visible_text.token("x" * 5000))).text)
    assert len(shown) < 300 and shown.endswith("… 5,000 characters")
    assert visible_text.clip("abcdef", 3, keep="end") == "…def" and visible_text.clip("abc", 3) == "abc"


def test_the_next_token_is_told_apart_from_what_follows():
    row = {
        "context_before": "a",
        "context_token": "b",
        "context_after": "cd",
        "next_token": "c",
        "activation": -1.0,
        "dla": 4.0,
        "domain": "<i>",
        "source": "f.py",
    }
    shown = tables.example(row, tables.Reach(2.0, 2.0))
    mark = '<mark class="act negative" style="--t:0.50">b</mark>'
    assert shown.context == f'<i>a</i>{mark}<u class="dla positive" style="--t:1.00">c</u><i>d</i>'
    assert (shown.activation_tint, shown.dla_tint) == (-0.5, 1.0)
    assert "<i>" not in shown.where
    cut = tables.example(row | {"context_after": None, "next_token": None}, tables.Reach(0.0, 0.0))
    assert cut.context.endswith('b</mark><u class="dla zero" style="--t:0.00"></u><i></i>')
    assert cut.activation_tint == 0.0


ROW = {
    "context_before": "",
    "context_token": "",
    "context_after": "",
    "next_token": " z",
    "activation": 1.0,
    "dla": -2.0,
    "domain": "d",
    "source": "s",
    "tokens": ["<s>", " b", "c"],
    "shown": 1,
    "activations": [None, 1.0, 0.25],
    "dlas": [None, -2.0, 0.5],
    "probabilities": [None, 0.125, None],
    "top_offset": 1,
    "top_weight": 0.75,
}


def test_each_token_carries_what_is_stored_of_it_and_no_more():
    shown = tables.example(ROW, tables.Reach(1.0, 2.0))
    assert re.findall(r"<(?:i|mark|u)[^>]*>", shown.context) == [
        '<i data-w="0.75">',
        '<mark class="act positive" style="--t:1.00" data-a="1" data-d="-2" data-p="0.125">',
        '<u class="dla negative" style="--t:1.00" data-a="0.25" data-d="0.5">',
    ]
    assert (shown.probability.replace("\u00a0", " "), shown.note) == ("12 %", "attends 75\u00a0% to the previous token")
    assert "".join(parse(shown.context).text) == "<s> bc"


def test_the_next_token_is_added_where_the_window_ends_and_what_is_out_of_sight_is_said():
    shown = tables.example(ROW | {"shown": 2, "top_offset": 9}, tables.Reach(1.0, 1.0))
    assert shown.context.endswith("> z</u>") and "data-w" not in shown.context
    assert shown.note.endswith("to the token 9 back, not shown")


def test_recomputed_attention_is_drawn_whole():
    shown = tables.example(ROW | {"attention": [0.5, 0.25, None]}, tables.Reach(1.0, 1.0))
    assert re.findall(r'data-w="([^"]*)"', shown.context) == ["0.5", "0.25"]


@pytest.mark.parametrize(
    ("tokens", "seen"),
    [
        (["a", "\u0301", "b"], ["a", "\u0301", "b"]),  # the mark stays on the letter of the token before
        (["\u0301", "b"], ["◌\u0301", "b"]),
        (["a", "<0xE2>", "<0x80><0xA6>", "b"], ["a", "E2", "80 A6=…", "b"]),
        (["<0xE2>", "b", "<0x80>"], ["E2", "b", "80"]),
        (["<0xF0><0x9F>", "<0x98>", "<0x80>"], ["F0 9F", "98", "80=😀"]),
        ([" ", "    ", " a", "\n\t"], [" ", "····", " a", "⏎⇥"]),
        (["", None], ["∅", "∅"]),
        (["שלום", " עולם"], ["שלום", " עולם"]),
    ],
)
def test_tokens_of_a_context_are_legible(tokens, seen):
    assert ["".join(parse(str(one)).text) for one in contexts.texts(tokens, len(tokens))] == seen


@pytest.mark.parametrize("hostile", HOSTILE)
def test_tokens_of_a_context_hold_our_own_elements_only(hostile):
    for one in contexts.texts(["x", hostile], 1):
        assert set(parse(str(one)).tags) <= {"span"}
        assert not any(c in one for c in "\x00\x1b\u202e\u2066\u2069\u2028\u2029\n\t")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.0, "0"),
        (1234.5, "1,234"),
        (0.01234, "0.0123"),
        (-0.5, "−0.500"),
        (1.5e-5, "1.50×10⁻⁵"),
        (2e8, "2.00×10⁸"),
        (None, "–"),
        (float("nan"), "–"),
        (9.999, "10.0"),
    ],
)
def test_numbers(value, written):
    assert numbers.number(value) == written


def test_shares_and_intervals():
    row = {"share": 0.123, "share_lo": 0.1, "share_hi": 0.15}
    assert numbers.share_with_interval(row, "share").replace("\u00a0", " ") == "12 % (95 % interval 10–15 %)"
    assert numbers.share_with_interval({"share": 0.5}, "share").replace("\u00a0", " ") == "50 %"
    below = {"share": -0.98, "share_lo": -1.03, "share_hi": -0.92}
    assert numbers.share_with_interval(below, "share").replace("\u00a0", " ") == "−98 % (95 % interval −103 to −92 %)"
    assert [numbers.plural(n, "head") for n in (0, 1, 1200, None)] == ["0 heads", "1 head", "1,200 heads", "– heads"]
    assert numbers.signed(0.2) == "+0.20" and numbers.signed(-0.2) == "−0.20"
