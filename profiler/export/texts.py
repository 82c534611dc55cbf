"""Texts of tokens as each format can hold them, and JSON that no text in it can leave.

JSON is written in ASCII: controls, marks of direction and line separators stand as escapes, so a file is harmless in a
terminal and a line of JSONL stays a line. What reads the files must still escape texts for HTML, as they are not.
"""

import json
import re
from typing import Any

from profiler.errors import ExportError

BYTE = re.compile(r"<0x([0-9A-F]{2})>")
BYTES = re.compile(r"(?:<0x[0-9A-F]{2}>)+")
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
EMPTY = "∅"


def storable(token: str) -> str:
    """A text that a Postgres column takes: not empty, without NUL and lone halves of characters, shown as escapes."""
    return UNSTORABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), token) or EMPTY


def hex_escaped(token: str) -> str:
    """A token of bytes as `\\xe2`, which circuit-tracer's page joins into characters; any other text as `storable`."""
    if BYTES.fullmatch(token):
        return BYTE.sub(lambda match: f"\\x{match[1].lower()}", token)
    return storable(token)


def to_json(value: Any, what: str) -> str:
    """JSON on a line.

    Args:
        what: whose values they are, for the message.

    Raises:
        ExportError: a number is infinite or none.
    """
    try:
        return json.dumps(value, ensure_ascii=True, allow_nan=False)
    except ValueError:
        raise ExportError(
            f"the run holds a number of {what} that is infinite or no number, which JSON cannot hold: record it again"
        ) from None
