"""Corpora to read: files written for a test, and what comes of them."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from profiler.config import RunConfig
from profiler.text.corpus import Document, documents


def config(*corpora: Path | str, **settings: Any) -> RunConfig:
    """Settings that read these corpora."""
    return RunConfig(model="any", corpora=tuple(map(str, corpora)), **settings)


def read(*corpora: Path | str, tokenizer: Any = None, **settings: Any) -> tuple[list[Document], dict[str, int]]:
    """Documents, and the counts of `dropped` that are not 0."""
    dropped: Counter[str] = Counter()
    found = list(documents(config(*corpora, **settings), dropped, tokenizer))
    return found, {reason: n for reason, n in dropped.items() if n}


def texts(*corpora: Path | str, **settings: Any) -> list[str]:
    """The texts of the documents, sorted."""
    return sorted(document.text for document in read(*corpora, **settings)[0])


def write_lines(file: Path, rows: list) -> Path:
    """A .jsonl; strings are written as they are."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file
