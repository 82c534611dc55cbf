"""A corpus of many small chunks, conversations among its texts, and settings to read it: for what stops and goes on, is
split into shards and merged, and is read by several workers."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny

from profiler.config import RunConfig
from profiler.text import documents, windows

CHUNK = 8
EVERY = 5
ROLES = ("system", "user", "assistant", "user")


def shrink(patched: pytest.MonkeyPatch) -> None:
    """Chunks of CHUNK windows in blocks of as many documents, so that a small corpus has many."""
    patched.setattr(documents, "BLOCK_DOCUMENTS", CHUNK)
    patched.setattr(windows, "CHUNK_WINDOWS", CHUNK)


def write_corpus(file: Path, n_documents: int) -> Path:
    """The corpus of `tiny.write_corpus`; every fifth of its texts is cut into the turns of a conversation."""
    rows = [json.loads(line) for line in tiny.write_corpus(file, n_documents).read_text().splitlines()]
    for row in rows[::EVERY]:
        words = row["text"].split()
        row["text"] = [{"role": role, "content": " ".join(words[i::4])} for i, role in enumerate(ROLES)]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return file


def settings(model: Path, corpus: Path, **changes: Any) -> RunConfig:
    """Everything is read, and few rows of each kind are kept."""
    fields = {
        "tokens": None,
        "domain_field": "topic",
        "dense_positions": 40,
        "samples_per_stratum": 2,
        "extremes": 3,
        "replicate_groups": 4,
    }
    return RunConfig(model=str(model), corpora=(str(corpus),), **fields | changes)
