"""Texts of the corpus on a page: visible, and never more than text."""

from html.parser import HTMLParser

import pytest

from profiler.report import evidence, numbers, text

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
    for shown in (text.span(hostile), text.token(hostile)):
        assert set(parse(str(shown)).tags) <= {"bdi", "span"}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_character_that_steers_the_page_is_left(hostile):
    shown = str(text.span(hostile))
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
    assert "".join(parse(str(text.visible(given))).text) == seen


def test_a_token_alone_shows_its_blanks():
    assert "".join(parse(str(text.token(" the"))).text) == "·the"
    assert "".join(parse(str(text.token("    "))).text) == "····"
    assert "".join(parse(str(text.token(""))).text) == "∅"
    assert "".join(parse(str(text.token(None))).text) == "none"


def test_long_texts_are_cut_and_say_so():
    shown = "".join(parse(str(text.token("x" * 5000))).text)
    assert len(shown) < 300 and shown.endswith("… 5,000 characters")
    assert text.clip("abcdef", 3, keep="end") == "…def" and text.clip("abc", 3) == "abc"


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
    shown = evidence.example(row, evidence.Reach(2.0, 2.0))
    assert (shown.following, shown.after) == ("<bdi>c</bdi>", "<bdi>d</bdi>")
    assert (shown.activation_tint, shown.dla_tint) == (-0.5, 1.0)
    assert "<i>" not in shown.where
    cut = evidence.example(row | {"context_after": None, "next_token": None}, evidence.Reach(0.0, 0.0))
    assert (cut.following, cut.after, cut.activation_tint) == ("<bdi></bdi>", "<bdi></bdi>", 0.0)


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
    assert numbers.signed(0.2) == "+0.20" and numbers.signed(-0.2) == "−0.20"
