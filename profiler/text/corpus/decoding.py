"""Bytes of a corpus file to text: unpacked by the ending of the file's name, decoded by its byte-order mark.

Without a mark a text is UTF-8, or UTF-16 or UTF-32 where its NUL bytes stand as those encodings put them. What cannot
be decoded becomes U+FFFD and is counted; a file that begins with more of it than WRONG_SHARE was written in another
encoding and is refused: replaced characters all through a text would be what the numbers are about. Cost of a check:
HEAD_BYTES read.
"""

import bz2
import codecs
import gzip
import io
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from profiler.errors import CorpusError

HEAD_BYTES = 65_536
WRONG_SHARE = 0.05
"""Share of the first characters that may be undecodable: text in Latin-1 has less only where accents are rare."""
NUL_SHARE = 0.01
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte-order marks and the codecs that read and remove them; UTF-32 first: its mark begins with that of UTF-16."""
WITHOUT_MARK = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")


def _unpack_zstd(file: str) -> io.BufferedIOBase:
    return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(file), "zstd"))


UNPACK: dict[str, Callable[[str], io.BufferedIOBase]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _unpack_zstd,
}
"""Endings of packed files, and what opens them."""


def open_bytes(file: str) -> io.BufferedIOBase:
    """The bytes of a file, unpacked. The path is a literal."""
    unpack = UNPACK.get(Path(file).suffix.lower())
    return unpack(file) if unpack else Path(file).open("rb")


def open_text(file: str, newline: str | None = None) -> io.TextIOBase:
    """The text of a file; bytes that are none become U+FFFD.

    Args:
        newline: as of `open`; None turns every line end into a line feed.

    Raises:
        CorpusError: the file is no text in an encoding that is known.
        OSError, EOFError: the file cannot be read.
    """
    with open_bytes(file) as head:
        encoding = encoding_of(head.read(HEAD_BYTES), file)
    stream: Any = open_bytes(file)  # TextIOWrapper is typed for raw streams that are always readable
    return io.TextIOWrapper(stream, encoding=encoding, errors="replace", newline=newline)


def encoding_of(head: bytes, file: str) -> str:
    """The codec of a file that begins with `head`.

    Raises:
        CorpusError: more than WRONG_SHARE of its characters cannot be decoded, or it holds NUL bytes as no text does.
    """
    marked = next((codec for mark, codec in MARKS if head.startswith(mark)), None)
    encoding = marked or _by_nul_bytes(head) or "utf-8"
    if not marked and encoding == "utf-8" and _nul_share(head) > NUL_SHARE:
        raise CorpusError(
            f"corpus file {file!r} is no text: {_nul_share(head):.0%} of its first {len(head):,} bytes are NUL, and it"
            " is neither UTF-16 nor UTF-32; give its text, in UTF-8"
        )
    text = _decoded(head, encoding)
    wrong = (text.count("\ufffd") - _written(head, encoding)) / max(1, len(text))
    if wrong > WRONG_SHARE:
        raise CorpusError(
            f"corpus file {file!r} is not in {encoding.upper().removesuffix('-SIG')}: {wrong:.1%} of its first"
            f" {len(text):,} characters cannot be decoded (more than {WRONG_SHARE:.0%}); convert it to UTF-8 first, as"
            " with iconv -f LATIN1 -t UTF-8"
        )
    return encoding


def text_of_bytes(value: bytes) -> str | None:
    """The text of a field that holds bytes; None where they are no text."""
    try:
        return _decoded(value, encoding_of(value[:HEAD_BYTES], "field"), final=True)
    except CorpusError:
        return None


def _decoded(data: bytes, encoding: str, *, final: bool = False) -> str:
    """`data` as text; unless `final`, bytes of a character that is cut off at its end are left out."""
    return codecs.getincrementaldecoder(encoding)("replace").decode(data, final)


def _written(head: bytes, encoding: str) -> int:
    """How many U+FFFD the file itself holds."""
    return head.count("\ufffd".encode()) if encoding.startswith("utf-8") else 0


def _nul_share(head: bytes) -> float:
    return head.count(0) / max(1, len(head))


def _by_nul_bytes(head: bytes) -> str | None:
    """The UTF-16 or UTF-32 without a mark in which `head` is text: no NUL, and the most blanks; None where there is
    none."""
    if _nul_share(head) <= NUL_SHARE:
        return None
    blanks = {codec: _blanks(head, codec) for codec in WITHOUT_MARK}
    best = max(blanks, key=lambda codec: blanks[codec])
    return best if blanks[best] else None


def _blanks(head: bytes, encoding: str) -> int:
    """Blanks and letters of ASCII in `head`, read as `encoding`; 0 where it is no text in it."""
    decoder: Any = codecs.getincrementaldecoder(encoding)("strict")
    try:
        text = decoder.decode(head)
    except UnicodeDecodeError:
        return 0
    return 0 if "\0" in text else sum(c in " \n\t" or (c.isascii() and c.isalnum()) for c in text)
