"""The only way to the terminal: everything that is printed goes through here, and is cleaned.

What a run, a corpus or a model says may hold characters that a terminal obeys: they move the cursor, set the title or
the clipboard, hide text or turn it around. They are shown as Python writes them (`\\x1b`, `\\u202e`), wherever they
come from: `console` prints words, tables and progress, `errors` the same on standard error, `write` data. Colours and
cursor movements of our own are kept, because rich makes them from styles and not from text; markup in square brackets
and links are text. Data that goes to a file or a pipe is left as it is: a program reads it, and it must not be altered.
"""

import logging
import sys
import traceback
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

NO_BREAK = "\u00a0"
"""The blank of "22 %": it is seen as a blank, and steers nothing."""
PRINTED = f"\n\t{NO_BREAK}"


PIPED = 1000
"""Characters of a line where the output is no terminal."""


def clean(text: str) -> str:
    """`text` with every character that is not seen, but for ends of lines and tabs, as Python writes it."""
    return text if text.isprintable() else "".join(c if c.isprintable() or c in PRINTED else _shown(c) for c in text)


def readable(text: str) -> str:
    """The same on one line: ends of lines and tabs too."""
    return "".join(c if c.isprintable() or c == NO_BREAK else _shown(c) for c in text)


def _shown(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class Clean(Console):
    """A console that takes text as text: no markup, no emoji codes, no links, no character that a terminal obeys."""

    def __init__(self, **options: Any) -> None:
        """As rich's, with these settings where `options` does not say otherwise."""
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, "soft_wrap": True} | options)

    @property  # type: ignore[misc]  # rich's can be set, which nothing does
    def size(self) -> ConsoleDimensions:
        """The terminal's; where there is none, wide enough that a program reads whole lines."""
        known = super().size
        return known if self.is_terminal or self._width is not None else ConsoleDimensions(PIPED, known.height)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of anything that is printed, cleaned."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else _cleaned(segment)

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as rich's text, cleaned before its width is measured."""
        return super().render_str(clean(text), **options)

    def status(self, status: RenderableType, **options: Any) -> Any:
        """A spinner beside a text."""
        return super().status(Text(status) if isinstance(status, str) else status, **options)


def _cleaned(segment: Segment) -> Segment:
    style = segment.style.update_link(None) if segment.style and segment.style.link else segment.style
    return Segment(clean(segment.text), style)


console = Clean()
asides = Clean()
"""For what is no result: progress, notes, next steps; `-q` silences it."""
errors = Clean(stderr=True)


def write(data: str | bytes) -> None:
    """Data to standard output: as it is to a file or a pipe, cleaned on a terminal."""
    raw = data if isinstance(data, bytes) else data.encode("utf-8", "backslashreplace")
    if sys.stdout.isatty():
        sys.stdout.write(clean(raw.decode("utf-8", "backslashreplace")))
        sys.stdout.flush()
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(raw)
    sys.stdout.buffer.flush()


def guard() -> None:
    """Have what other libraries log, and the text of an error that nobody expected, cleaned too."""
    made = logging.getLogRecordFactory()

    def record(*args: Any, **named: Any) -> logging.LogRecord:
        entry = made(*args, **named)
        try:
            entry.msg, entry.args = clean(entry.getMessage()), None
        except (TypeError, ValueError, KeyError):
            entry.msg, entry.args = clean(str(entry.msg)), None
        return entry

    logging.setLogRecordFactory(record)
    sys.excepthook = _unexpected


def _unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(clean("".join(traceback.format_exception(kind, error, trace))))
