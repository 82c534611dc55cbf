"""The header of a query file: its question, grain, parameters, sources and caveats, in comment lines.

    -- Title:      Extremes of a component
    -- Parameters: component (required), top (default 0)

A line without a field name goes on with the field before. `Parameters` is `none` or a list of `name (required)` and
`name (default VALUE)`. Headers are read to check what a
user passes, to list the queries, and by the tests, which hold every file to its grain, key and parameters.
"""

import re
from dataclasses import dataclass

from profiler.errors import QueryError

FIELDS = ("Title", "Question", "Grain", "Key", "Parameters", "Reads", "Reference", "Caveat")
_FIELD = re.compile(rf"-- ({'|'.join(FIELDS)}):\s*(.*)$")
_CONTINUED = re.compile(r"--\s+(\S.*)$")
_PARAMETER = re.compile(r"(\w+) \((required|default ([^)]+))\)(?:, |$)")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a query. `default` is None where the parameter is required."""

    name: str
    default: int | float | str | None

    @property
    def required(self) -> bool:
        """Whether the query cannot run without it."""
        return self.default is None

    def parse(self, value: object) -> object:
        """`value` in the type of the default.

        Raises:
            QueryError: a number is expected and something else was given.
        """
        if value is None or isinstance(value, bool) or not isinstance(self.default, int | float):
            return value
        try:
            return type(self.default)(str(value))
        except ValueError:
            kind = "a whole number" if isinstance(self.default, int) else "a number"
            raise QueryError(
                f"parameter {self.name} must be {kind}, not {value!r}: write --set {self.name}={self.default}"
            ) from None


@dataclass(frozen=True)
class QueryHeader:
    """The fields of a query file's header."""

    title: str
    question: str
    grain: str
    key: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    reads: tuple[str, ...]
    reference: str
    caveat: str


def parse_header(text: str) -> QueryHeader | None:
    """Parse the header of a query file; None where the text has none (a user's own SQL need not).

    Raises:
        QueryError: the header begins and is incomplete, or its parameters cannot be read.
    """
    fields = _fields(text)
    if "Title" not in fields:
        return None
    missing = [name for name in FIELDS if not fields.get(name)]
    if missing:
        raise QueryError(f"the header of query {fields['Title']!r} lacks {', '.join(missing)}: see queries/README.md")
    return QueryHeader(
        title=fields["Title"],
        question=fields["Question"],
        grain=fields["Grain"],
        key=tuple(fields["Key"].split(", ")),
        parameters=_parameters(fields["Parameters"]),
        reads=tuple(fields["Reads"].split(", ")),
        reference=fields["Reference"],
        caveat=fields["Caveat"],
    )


def _fields(text: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    last = None
    for line in text.splitlines():
        if field := _FIELD.match(line):
            last = field[1]
            fields[last] = field[2].strip()
        elif last and (continued := _CONTINUED.match(line)):
            fields[last] += " " + continued[1].strip()
        else:
            break
    return fields


def _parameters(text: str) -> tuple[Parameter, ...]:
    if text == "none":
        return ()
    matches = list(_PARAMETER.finditer(text))
    if "".join(m[0] for m in matches) != text:
        raise QueryError(f"parameters {text!r} cannot be read: write `name (required)` or `name (default VALUE)`")
    return tuple(Parameter(m[1], None if m[2] == "required" else _default(m[3])) for m in matches)


def _default(text: str) -> int | float | str:
    if text.startswith("'"):
        return text.strip("'")
    try:
        return int(text) if text.lstrip("-").isdigit() else float(text)
    except ValueError:
        raise QueryError(f"default {text!r} cannot be read: write a number, or text in single quotes") from None
