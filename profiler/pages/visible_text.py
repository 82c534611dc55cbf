"""Text of the corpus made visible and harmless: white space, control characters, bytes and bidirectional marks.

Everything here returns `Markup` that holds nothing of the input unescaped. A character that would be invisible or would
steer the page (a control character, a right-to-left override) is shown as a small sign in its place; the text around it
is kept in <bdi>, so that a script written from right to left cannot reorder the rest of the line.
"""

import re
import unicodedata

from markupsafe import Markup, escape

SIGNS = {"\n": "⏎", "\r\n": "⏎", "\t": "⇥"}
JOINERS = "\u200c\u200d"
BYTES = r"(?:<0x[0-9A-F]{2}>)+"
CONTROL = "\r\n|[\x00-\x1f\x7f-\x9f\u2028\u2029]"
FORMAT = "[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
PIECES = re.compile(f"(?P<bytes>{BYTES})|(?P<sign>{CONTROL}|{FORMAT})")
STEERS = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]|{FORMAT}")
LONGEST = 240
FIRST_PRINTABLE, DELETE = 0x20, 0x7F
"""The space, below which are the control characters of ASCII, and the one control character above it."""
PICTURES = 0x2400
"""The first of the control pictures of Unicode, which are in the order of the control characters."""


def _sign(character: str) -> str:
    """The sign that stands for a control or format character."""
    if character in SIGNS:
        return SIGNS[character]
    code = ord(character)
    return chr(PICTURES + code) if code < FIRST_PRINTABLE else "␡" if code == DELETE else f"U+{code:04X}"


def _bytes(spelled: str) -> Markup:
    """Bytes spelled <0xF0><0x9F>…: the character they are together, or their hexadecimal numbers."""
    numbers = re.findall(r"<0x([0-9A-F]{2})>", spelled)
    try:
        shown = bytes.fromhex("".join(numbers)).decode("utf-8")
    except UnicodeDecodeError:
        shown = " ".join(numbers)
    legible = shown if shown.isprintable() and shown.strip() else " ".join(numbers)
    return Markup('<span class="byte" title="bytes {}">{}</span>').format(" ".join(numbers), legible)


def plain(value: object) -> object:
    """A text for any other spot of a page, with signs as in `visible` but for ends of lines and tabs; what is no bare
    text as it is."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return STEERS.sub(lambda match: _sign(match[0]), value)


def _piece(match: re.Match[str]) -> Markup:
    if match["bytes"]:
        return _bytes(match["bytes"])
    return Markup('<span class="sign">{}</span>').format(_sign(match["sign"]))


def visible(text: str) -> Markup:
    """`text` escaped, with a sign in the place of every character that could not be seen or could steer the page."""
    parts, end = [], 0
    if text and unicodedata.category(text[0]).startswith("M"):
        parts.append(Markup("◌"))
    for match in PIECES.finditer(text):
        parts += [escape(text[end : match.start()]), _piece(match)]
        end = match.end()
    return Markup("").join([*parts, escape(text[end:])])


def clip(text: str, longest: int = LONGEST, keep: str = "start") -> str:
    """`text` cut to `longest` characters, the start or the end kept, with … where it was cut."""
    if len(text) <= longest:
        return text
    return text[:longest] + "…" if keep == "start" else "…" + text[-longest:]


def token(text: str | None) -> Markup:
    """A token alone: blanks at its ends shown as ·, an empty one as ∅, a long one cut with its length told."""
    if text is None:
        return Markup('<span class="sign">none</span>')
    if text == "":
        return Markup('<span class="sign">∅</span>')
    body = text.strip(" ")
    lead = len(text) - len(text.lstrip(" ")) if body else len(text)
    trail = len(text) - len(text.rstrip(" ")) if body else 0
    blank = Markup('<span class="sign">{}</span>')
    length = blank.format(f" {len(text):,} characters") if len(body) > LONGEST else ""
    inner = Markup("").join(
        [
            blank.format("·" * min(lead, LONGEST)) if lead else "",
            visible(clip(body)),
            length,
            blank.format("·" * min(trail, LONGEST)) if trail else "",
        ]
    )
    return Markup('<bdi class="token">{}</bdi>').format(inner)


def span(text: str | None, keep: str = "start") -> Markup:
    """A piece of context: visible, cut where it is long, kept apart from the direction of the text around it."""
    return Markup("<bdi>{}</bdi>").format(visible(clip(text or "", keep=keep)))
