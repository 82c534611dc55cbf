"""Static token classes: a partition of any tokenizer's vocabulary, and the text of each token.

Every token has exactly one class, a function of its text alone; classes are tried in the order of CLASSES and the first
that fits is taken. A leading space belongs to the token and is ignored by most classes (` the` is a word, `the` a word
piece). Positions that are special for the model rather than for the reader (a BOS put before a window, the first of a
window without one, special tokens inside the text) have classes of their own, so that they can be left out of the
numerator and of the denominator alike.

Cost: once per vocabulary, about a second for 50,000 tokens.
"""

import codecs
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

BRACKETS_OPEN, BRACKETS_CLOSE, QUOTES = "([{", ")]}", "\"'`“”‘’«»"
PUNCTUATION, OPERATORS = ".,;:!?…", "=+-*/%<>&|^~@\\"
BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
BYTE_TEXT = re.compile(r"(<0x[0-9A-F]{2}>)+")


@dataclass(frozen=True)
class TokenClass:
    """One static class. `fits` sees the text with its leading space, never an empty text."""

    name: str
    description: str
    fits: Callable[[str], bool]
    special: bool = False


def _never(_: str) -> bool:
    return False


def _only(characters: str) -> Callable[[str], bool]:
    """Whether a text, leading space aside, is made of these characters alone."""
    return lambda text: bool(body := text.strip(" ")) and all(c in characters for c in body)


def _matches(pattern: str) -> Callable[[str], bool]:
    """Whether a text matches `pattern` from end to end."""
    return lambda text: re.fullmatch(pattern, text) is not None


def _non_latin(text: str) -> bool:
    letters = [c for c in text if c.isalpha()]
    return bool(letters) and not all(unicodedata.name(c, "").startswith("LATIN") for c in letters)


def _symbols(text: str) -> bool:
    return all(unicodedata.category(c)[0] in "PSZ" or c.isspace() for c in text)


CLASSES: tuple[TokenClass, ...] = (
    TokenClass("bos", "a BOS put before a window", _never, special=True),
    TokenClass("first", "first position of a window without a BOS", _never, special=True),
    TokenClass("special", "special token inside the text: a marker such as <|im_start|>", _never, special=True),
    TokenClass("byte_fragment", "bytes that are no UTF-8 text alone", _matches(BYTE_TEXT.pattern)),
    TokenClass("newline", "white space with a line break", lambda text: text.isspace() and "\n" in text),
    TokenClass("indentation", "two or more blanks or tabs", _matches(r"[ \t]{2,}|\t")),
    TokenClass("space", "a single blank or other white space", str.isspace),
    TokenClass("number", "digits", _matches(r" ?\d+")),
    TokenClass("bracket_open", "only opening brackets", _only(BRACKETS_OPEN)),
    TokenClass("bracket_close", "only closing brackets", _only(BRACKETS_CLOSE)),
    TokenClass("quote", "only quotation marks", _only(QUOTES)),
    TokenClass("punctuation", "only . , ; : ! ?", _only(PUNCTUATION)),
    TokenClass("operator", "only operators such as = + - * / < >", _only(OPERATORS)),
    TokenClass("symbols", "other or mixed punctuation and symbols", _symbols),
    TokenClass("non_latin", "letters of a script that is not Latin", _non_latin),
    TokenClass(
        "all_caps", "two or more capitals", lambda t: t.isupper() and t.strip().isalpha() and len(t.strip()) > 1
    ),
    TokenClass("capitalised", "a capital, then lower case", lambda t: t.strip().isalpha() and t.strip().istitle()),
    TokenClass("word", "lower-case letters after a blank", lambda t: t[0] == " " and t[1:].isalpha() and t.islower()),
    TokenClass("word_piece", "lower-case letters without a blank", lambda t: t.isalpha() and t.islower()),
    TokenClass("identifier", "letters mixed with digits, underscores or capitals", _matches(r"\s?\w+")),
    TokenClass("other", "anything else", lambda _: True),
)
CLASS_ID = {token_class.name: number for number, token_class in enumerate(CLASSES)}
DELIMITERS = ("punctuation", "bracket_open", "bracket_close", "quote", "operator")


def class_of(text: str) -> str:
    """The class of a token that spells `text`; an empty text is `other`."""
    return next(c.name for c in CLASSES if c.fits(text)) if text else "other"


def _byte_of_character() -> dict[str, int]:
    """The byte each character stands for in byte-level BPE vocabularies (GPT-2 and its heirs)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + n): byte for n, byte in enumerate(hidden)}


def legible(raw: bytes) -> str:
    """UTF-8 text, or every byte as <0xE2> where the bytes are no text alone."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(f"<0x{byte:02X}>" for byte in raw)


def join_texts(texts: Iterable[str]) -> str:
    """Text of tokens' texts, bytes joined before they are read as UTF-8 (as macro join_texts of macros.sql does).

    Bytes that are no character even then, one cut off at an end, stay spelled <0xE2>.
    """
    parts = []
    for are_bytes, run in groupby(texts, key=lambda text: BYTE_TEXT.fullmatch(text) is not None):
        spelled = "".join(run)
        parts.append(spell_bytes(bytes.fromhex(re.sub("<0x|>", "", spelled))) if are_bytes else spelled)
    return "".join(parts)


def spell_bytes(raw: bytes) -> str:
    """Every character that bytes hold, and the bytes between them as <0xE2>."""
    return raw.decode("utf-8", "spell_bytes")


def _spelled(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    wrong = error.object[error.start : error.end]
    return "".join(f"<0x{byte:02X}>" for byte in wrong), error.end


codecs.register_error("spell_bytes", _spelled)


def _byte_level_text(piece: str, bytes_of: dict[str, int]) -> str:
    return legible(bytes(bytes_of[c] for c in piece)) if all(c in bytes_of for c in piece) else piece


def _sentencepiece_text(piece: str) -> str:
    match = BYTE_PIECE.fullmatch(piece)
    return legible(bytes([int(match[1], 16)])) if match else piece.replace("▁", " ")


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Ids of markers: tokens of the special-token map, and added tokens marked special in `tokenizer.json`.

    An added token that is not marked special (`<think>`, a tool's marker) is text: the tokenizer says so, and keeps it
    where markers are skipped.
    """
    added = tokenizer.added_tokens_decoder.items()
    return frozenset({*tokenizer.all_special_ids, *(number for number, token in added if token.special)})


def ordinary_ids(tokenizer: Any) -> tuple[int, ...]:
    """Ids of all tokens that are no markers, ascending: what tasks made of tokens draw from."""
    special = special_ids(tokenizer)
    return tuple(i for i in range(len(tokenizer)) if i not in special)


def token_texts(tokenizer: Any, n_vocab: int) -> list[str]:
    """The text of each id of a Hugging Face tokenizer, leading space kept; ids without a token spell <unused N>.

    Added tokens stand in a tokenizer as they are written, the others in its code for spaces and bytes.
    """
    bytes_of = _byte_of_character()
    byte_level = '"ByteLevel"' in tokenizer.backend_tokenizer.to_str()
    written = special_ids(tokenizer) | set(tokenizer.added_tokens_decoder)
    pieces = tokenizer.convert_ids_to_tokens(list(range(min(n_vocab, len(tokenizer)))))
    spell = (lambda piece: _byte_level_text(piece, bytes_of)) if byte_level else _sentencepiece_text
    texts = [f"<unused {i}>" if p is None else p if i in written else spell(p) for i, p in enumerate(pieces)]
    return texts + [f"<unused {i}>" for i in range(len(texts), n_vocab)]


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text, without any token put before or after."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def token_offsets(tokenizer: Any, text: str) -> list[tuple[int, int]] | None:
    """Characters of each token that `encode` gives, first and one after the last; None where the tokenizer is slow."""
    if not tokenizer.is_fast:
        return None
    told = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    offsets: list[tuple[int, int]] = told["offset_mapping"]
    return offsets


def token_classes(texts: list[str], markers: Collection[int]) -> list[int]:
    """The class id of each token; `markers` (`special_ids` of the tokenizer) are `special`."""
    return [CLASS_ID["special" if i in markers else class_of(text)] for i, text in enumerate(texts)]
