"""Notes on pages of a run, in a file beside it: <run>.notes.jsonl, a line for each note and each removal.

Lines are only ever added, each in one write that is synced before the call returns, so that two servers of one run lose
nothing of each other's.
"""

import json
import os
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from profiler.errors import ProfilerError

LONGEST = 4000
"""Characters of a note."""


@dataclass(frozen=True)
class PageNote:
    """A note: its id, when it was made (UTC, ISO 8601), the page that it is about, its text.

    Attributes:
        page: way of the page from the site's folder, with what was asked of it.
    """

    id: str
    created: str
    page: str
    text: str


class Notes:
    """The notes in one file; the file is made with the first note."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @classmethod
    def beside(cls, run: Path) -> "Notes":
        """Those of a run."""
        return cls(run.with_name(f"{run.name}.notes.jsonl"))

    def all(self) -> tuple[PageNote, ...]:
        """Every note that is not removed, the oldest first.

        Raises:
            ProfilerError: the file cannot be read, or a line of it is no note.
        """
        there: dict[str, PageNote] = {}
        for number, line in enumerate(self._lines(), 1):
            try:
                row = json.loads(line)
                if "removed" in row:
                    there.pop(row["removed"], None)
                    continue
                note = PageNote(**row)
                if not all(isinstance(value, str) for value in asdict(note).values()):
                    raise TypeError
            except (ValueError, TypeError):
                raise ProfilerError(
                    f"line {number} of {self.file} is no note: mend that line, or move the file away to begin anew"
                ) from None
            there[note.id] = note
        return tuple(there.values())

    def add(self, page: str, text: str) -> PageNote:
        """Keep a note.

        Raises:
            ProfilerError: it is empty or too long, or the file cannot be written.
        """
        text = text.strip().replace("\r\n", "\n")
        if not text or len(text) > LONGEST:
            raise ProfilerError(f"a note has 1 to {LONGEST:,} characters; this has {len(text):,}")
        note = PageNote(secrets.token_hex(6), datetime.now(UTC).isoformat(timespec="seconds"), page, text)
        self._append(asdict(note))
        return note

    def remove(self, note: str) -> None:
        """Leave out the note of this id from now on; its line stays in the file.

        Raises:
            ProfilerError: there is none, or the file cannot be written.
        """
        if note not in {one.id for one in self.all()}:
            raise ProfilerError(f"there is no note {note!r}: it may have been removed")
        self._append({"removed": note})

    def exported(self) -> str:
        """The notes as JSON lines."""
        return "".join(json.dumps(asdict(note), ensure_ascii=False) + "\n" for note in self.all())

    def _lines(self) -> list[str]:
        try:
            return self.file.read_text(encoding="utf-8").splitlines() if self.file.exists() else []
        except (OSError, UnicodeDecodeError) as error:
            raise ProfilerError(f"the notes in {self.file} cannot be read ({error}): move the file away") from None

    def _append(self, row: dict[str, str]) -> None:
        line = (json.dumps(row, ensure_ascii=False) + "\n").encode()
        try:
            number = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o644)
            try:
                os.write(number, line)
                os.fsync(number)
            finally:
                os.close(number)
        except OSError as error:
            raise ProfilerError(
                f"the note cannot be written to {self.file} ({error.strerror}): make its folder writable"
            ) from None
