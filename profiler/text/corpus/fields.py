"""Fields of a row: the text or conversation, the id, the domain; and in words what stands there where it is no text.

A field is named by its key, or by keys with dots between for one inside another (`meta.text`). Of a row only these
three are held on to: what is shuffled is text, not the images beside it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from profiler.errors import CorpusError
from profiler.text.corpus.chat import messages_of
from profiler.text.corpus.decoding import text_of_bytes
from profiler.text.corpus.formats import Row

MISSING, READ = object(), object()


@dataclass(frozen=True)
class Fields:
    """Names of the fields to read."""

    text: str
    id: str
    domain: str | None


def look_up(row: Any, name: str) -> Any:
    """The value of a field; MISSING where the row has none."""
    if not isinstance(row, Mapping):
        return MISSING
    if name in row:
        return row[name]
    first, dot, rest = name.partition(".")
    return look_up(row.get(first), rest) if dot else MISSING


def readable(value: Any) -> str | list[dict[str, Any]] | None:
    """The text, or the messages of the conversation, that a field holds; None where it holds neither."""
    if isinstance(value, bytes):
        return text_of_bytes(value)
    return value if isinstance(value, str) else messages_of(value)


def refuse_unreadable(rows: Iterable[Row | str], fields: Fields, place: str) -> None:
    """Look at rows up to the first that can be read; refuse where none can.

    Raises:
        CorpusError: no row is one, none has the text or the domain's field, or what stands in it is no text.
    """
    text: Any = None
    domain: Any = None
    reasons: Counter[str] = Counter()
    n_rows = 0
    for row in rows:
        if isinstance(row, str):
            reasons[row] += 1
            continue
        n_rows += 1
        text, domain = _better(text, row, fields.text, readable), _better(domain, row, fields.domain, str)
        if text is READ and domain is READ:
            return
    del reasons["blank_lines"]
    if reasons and not n_rows:
        bad = " and ".join(f"{n:,} {reason}" for reason, n in reasons.items())
        raise CorpusError(
            f"corpus {place!r} cannot be read: it begins with {bad} and no row that is one; check what the file holds"
        )
    for option, name, row in (("--text-field", fields.text, text), ("--domain-field", fields.domain, domain)):
        if name and isinstance(row, Mapping):
            _refuse(row, name, option, place)


def _better(known: Any, row: Row, name: str | None, read: Callable[[Any], Any]) -> Any:
    """READ where a row's field can be read, or none is asked for; else the first row that shows why not; None if it is
    empty."""
    value = None if name is None else look_up(row, name)
    if name is None or known is READ or (value is not MISSING and value is not None and read(value) is not None):
        return READ
    return row if known is None and value is not None else known


def _refuse(row: Row, name: str, option: str, place: str) -> None:
    """Say what a row holds where a field was expected.

    Raises:
        CorpusError: always.
    """
    value = look_up(row, name)
    if value is MISSING:
        shown = ", ".join(f"{field!r}{_note(of)}" for field, of in row.items())
        raise CorpusError(f"corpus {place!r} has no field {name!r}: its fields are {shown}; name one with {option}")
    raise CorpusError(f"field {name!r} of corpus {place!r} holds {described(value)}, no text: {_advice(value, name)}")


def _note(value: Any) -> str:
    """What a field holds, in brackets, where it is not a plain text or number."""
    return "" if value is None or isinstance(value, str | int | float) else f" ({described(value)})"


def described(value: Any) -> str:
    """What a value is, in words."""
    if isinstance(value, Mapping):
        return f"an object of {', '.join(map(repr, value))}"
    if messages_of(value) is not None:
        return "a conversation"
    if isinstance(value, list):
        kinds = {_kind(part) for part in value}
        return f"a list of {kinds.pop()}s" if len(kinds) == 1 else "a list"
    return "bytes that are no text" if isinstance(value, bytes) else f"a {_kind(value)}"


def _kind(value: Any) -> str:
    """A value's kind, in one word."""
    kinds = ((str, "text"), (bool, "truth value"), (int | float, "number"), (Mapping, "object"), (list, "list"))
    return next((word for kind, word in kinds if isinstance(value, kind)), type(value).__name__)


def _advice(value: Any, name: str) -> str:
    """What to do about a field that holds no text."""
    if isinstance(value, Mapping):
        return f"name a field inside it, such as --text-field {name}.{next(iter(value), 'text')}"
    if isinstance(value, list) and value and all(isinstance(part, int) for part in value):
        return "token ids cannot be compared with this model's tokenizer; give the text that they were made from"
    if isinstance(value, list):
        return "make it one text a row first (how its parts belong together is not known here)"
    return "name the field that holds the text with --text-field"
