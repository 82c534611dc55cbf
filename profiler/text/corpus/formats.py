"""Rows of a corpus file, one after another, by the ending of its name.

The profiler opens every file itself: a path is never a pattern, an address or a `key=value` here. `.json` and `.jsonl`
are read alike, by what stands in them: an object a line (a bad line costs only itself), an array of objects, or objects
over several lines. A row is a mapping, or the reason why it is none. Memory: a row, or a paragraph of text; a row group
of a .parquet file.
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from profiler.errors import CorpusError
from profiler.text.corpus.decoding import UNPACK, open_text

PROBE_CHARACTERS = 65_536
BLOCK_CHARACTERS = 10 << 20
BATCH_ROWS = 512
SPACE = re.compile(r"[ \t\r\n]*")
BLANK = object()
Row = dict[str, Any]
Rows = Iterator[Row | str]
"""Rows; a text stands for a row that is none, and is the reason."""


def form_of(file: str) -> str:
    """Ending that says how a file is read, in lower case, without that of its packing; empty if unknown."""
    path = Path(file)
    packed = path.suffix.lower() in UNPACK
    ending = (Path(path.stem) if packed else path).suffix.lower()
    return ending if ending in BUILT and not (packed and ending in TABLES) else ""


def stem_of(file: str) -> str:
    """A file's name without the endings that say how it is read."""
    path = Path(file)
    return Path(path.stem).stem if path.suffix.lower() in UNPACK else path.stem


def rows(file: str) -> Rows:
    """The rows of a file.

    Raises:
        CorpusError: it cannot be read; the file is named.
    """
    with _named(file):
        if Path(file).stat().st_size:
            yield from BUILT[form_of(file)](file)


def check_text(file: str) -> None:
    """Refuse a file whose text cannot be unpacked or decoded.

    Raises:
        CorpusError: it cannot.
    """
    if form_of(file) not in TABLES:
        with _named(file):
            open_text(file).close()


@contextmanager
def _named(file: str) -> Iterator[None]:
    """Turn every failure of the reading libraries into one sentence that names the file."""
    try:
        yield
    except CorpusError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CorpusError(
            f"corpus file {file!r} cannot be read: {reason[0][:300]}. Check that it is whole and what its name says"
        ) from error


# --- text ---


def _text(file: str) -> Rows:
    """Paragraphs where blank lines part them, else lines."""
    with open_text(file) as stream:
        paragraphs = "\n\n" in stream.read(PROBE_CHARACTERS)
    with open_text(file) as stream:
        for text in _paragraphs(stream) if paragraphs else stream:
            text = text if paragraphs else text.removesuffix("\n")
            yield {"text": text} if text.strip() else "blank_lines"


def _paragraphs(stream: io.TextIOBase) -> Iterator[str]:
    rest = ""
    while block := stream.read(BLOCK_CHARACTERS):
        *whole, rest = (rest + block).split("\n\n")
        yield from filter(None, whole)
    if rest:
        yield rest


def _table_of_text(file: str) -> Rows:
    """Rows of a .csv or .tsv file, whose first line names the fields."""
    csv.field_size_limit(BLOCK_CHARACTERS)  # beyond it, a quotation mark was never closed
    with open_text(file, newline="") as stream:
        table = csv.DictReader(stream, delimiter="\t" if form_of(file) == ".tsv" else ",", strict=True)
        for row in table:
            yield row if None not in row else "ragged_rows"


# --- JSON ---


def _json(file: str) -> Rows:
    with open_text(file) as stream:
        layout = _layout(stream.read(PROBE_CHARACTERS))
    with open_text(file) as stream:
        values = _lines(stream) if layout == "lines" else _values(stream, file, array=layout == "array")
        for value in values:
            yield value if isinstance(value, dict) else "blank_lines" if value is BLANK else "invalid_json"


def _lines(stream: io.TextIOBase) -> Iterator[Any]:
    """The value of each line; None where it is no JSON. Blank lines have none."""
    for line in stream:
        try:
            yield json.loads(line) if line.strip() else BLANK
        except (ValueError, RecursionError):
            yield None


def _layout(head: str) -> str:
    """How the values stand in a JSON file that begins so: lines, array or values."""
    start = head.lstrip()
    first, _, rest = start.partition("\n")
    try:
        array = isinstance(json.loads(first), list) and not rest.strip() and len(head) < PROBE_CHARACTERS
        return "array" if array else "lines"
    except (ValueError, RecursionError):
        if start.startswith("["):
            return "array"
    try:
        json.JSONDecoder().raw_decode(start)
    except (ValueError, RecursionError):
        return "lines"
    return "values" if start.startswith("{") else "lines"


def _values(stream: io.TextIOBase, file: str, *, array: bool) -> Iterator[Any]:
    """JSON values one after another, or those of an array, as they come.

    Raises:
        CorpusError: the text ends or breaks inside a value; nothing after that could be found again.
    """
    window, number = _Window(stream), 0
    if array:
        window.skip("[")
    try:
        while window.peek() not in ("", "]"):
            yield window.value()
            window.skip(",")
            number += 1
        if array and not window.peek():
            raise ValueError("it ends inside its array")
    except (ValueError, RecursionError) as error:
        raise CorpusError(
            f"corpus file {file!r} cannot be read: its JSON is broken after {number:,} rows ({error}). Check that it is"
            " whole"
        ) from None


@dataclass
class _Window:
    """What has been read of a text and not yet been taken: `text` from `at` on."""

    stream: io.TextIOBase
    text: str = ""
    at: int = 0

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            if blank := SPACE.match(self.text, self.at):
                self.at = blank.end()
            if self.at < len(self.text) or not self.more():
                return self.text[self.at : self.at + 1]

    def skip(self, mark: str) -> None:
        """Take `mark`, if it is what comes next."""
        if self.peek() == mark:
            self.at += 1

    def value(self) -> Any:
        """The next JSON value.

        Raises:
            ValueError, RecursionError: there is none.
        """
        while True:
            try:
                value, end = json.JSONDecoder().raw_decode(self.text, self.at)
            except ValueError:
                if not self.more():
                    raise
                continue
            if end < len(self.text) or not self.more():
                self.at = end
                return value

    def more(self) -> bool:
        """Read on; False at the end. What is left doubles each time, so that a long value is not parsed often."""
        left = len(self.text) - self.at
        if block := self.stream.read(max(PROBE_CHARACTERS, left)):
            self.text, self.at = self.text[self.at :] + block, 0
        return bool(block)


# --- tables ---


def _parquet(file: str) -> Rows:
    with Path(file).open("rb") as stream, pa.parquet.ParquetFile(stream) as table:
        for batch in table.iter_batches(batch_size=BATCH_ROWS):
            yield from batch.to_pylist()


def _arrow(file: str) -> Rows:
    """Rows of an Arrow stream or file, as `datasets` and others save them."""
    with pa.memory_map(file) as source:
        try:
            batches = iter(pa.ipc.open_stream(source))
        except pa.ArrowInvalid:
            reader = pa.ipc.open_file(source)
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        for batch in batches:
            for start in range(0, batch.num_rows, BATCH_ROWS):
                yield from batch.slice(start, BATCH_ROWS).to_pylist()


BUILT = {
    ".txt": _text,
    ".jsonl": _json,
    ".ndjson": _json,
    ".json": _json,
    ".csv": _table_of_text,
    ".tsv": _table_of_text,
    ".parquet": _parquet,
    ".arrow": _arrow,
}
"""Endings, and what reads such a file."""
TABLES = (".parquet", ".arrow")
"""Endings of files that are no text: they have their own packing."""
