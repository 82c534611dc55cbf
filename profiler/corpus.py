"""Documents from a corpus, streaming, in seeded shuffled order, with their ids kept. The only user of `datasets`.

A corpus is named `stdlib` (the bundled one), by local files (.txt, .jsonl, .json, .parquet; globs too) or as a hub
dataset `hf:name[:config][:split]`, each optionally with a name of its own before it (`plays=shakespeare.txt`). Several
corpora take turns, document by document, and each is a domain unless --domain-field says otherwise.

Shuffling is that of `datasets`: the order of files, and a buffer of `shuffle_buffer` documents inside; a corpus smaller
than the buffer is shuffled fully. Cost: the buffer is filled before the first document comes.
"""

import glob
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from profiler import stdlib
from profiler.config import RunConfig
from profiler.errors import CorpusError

BUILDERS = {".txt": "text", ".jsonl": "jsonl", ".json": "json", ".parquet": "parquet"}
PROBE_CHARACTERS = 65_536


@dataclass(frozen=True)
class Document:
    """One item of the corpus. `source` is the id its corpus gives it; `place`, where it stands, is unique."""

    domain: str
    source: str
    place: str
    text: str


@dataclass(frozen=True)
class CorpusName:
    """A corpus as the user wrote it: `[name=]stdlib | files | hf:name[:config][:split]`."""

    name: str | None
    place: str

    @classmethod
    def parse(cls, text: str) -> "CorpusName":
        """Split off the name of its own, where there is one."""
        name, equals, place = text.partition("=")
        return cls(name, place) if equals and name.isidentifier() else cls(None, text)


def documents(config: RunConfig, dropped: Counter[str]) -> Iterator[Document]:
    """All documents of the corpora of `config`, taking turns, each corpus shuffled with the run's seed.

    Args:
        dropped: counts, by reason, of what was dropped or repaired on the way; filled while iterating.

    Raises:
        CorpusError: a corpus does not exist, cannot be read, or lacks the text field.
    """
    corpora = [CorpusName.parse(text) for text in config.corpora]
    for corpus in corpora:
        if sum(corpus.place == other.place for other in corpora) > 1:
            raise CorpusError(f"corpus {corpus.place!r} is given twice: its documents would count twice; give it once")
    streams = [_one_corpus(corpus, config, dropped) for corpus in corpora]
    turns = itertools.zip_longest(*streams)
    return (document for turn in turns for document in turn if document is not None)


def _one_corpus(corpus: CorpusName, config: RunConfig, dropped: Counter[str]) -> Iterator[Document]:
    rows = _rows(corpus, config)
    shuffled = rows.shuffle(seed=config.seed, buffer_size=config.shuffle_buffer)
    return _documents(_readable(shuffled, corpus.place), corpus, config, dropped)


def _rows(corpus: CorpusName, config: RunConfig) -> datasets.IterableDataset:
    """The corpus as a streaming dataset with columns `source`, `row` and, for `stdlib`, `domain`."""
    if corpus.place == "stdlib":
        return datasets.IterableDataset.from_generator(_stdlib_rows)
    if corpus.place.startswith("hf:"):
        return datasets.IterableDataset.from_generator(
            _hub_rows, gen_kwargs={"place": corpus.place, "remote_code": config.trust_remote_code}
        )
    files = _files(corpus.place)
    root = os.path.commonpath([Path(file).parent for file in files])
    return datasets.IterableDataset.from_generator(_file_rows, gen_kwargs={"files": files, "root": root})


def _stdlib_rows() -> Iterator[dict[str, Any]]:
    for document in stdlib.documents():
        yield {"source": document["id"], "domain": document["domain"], "row": {"text": document["text"]}}


def _hub_rows(place: str, remote_code: bool) -> Iterator[dict[str, Any]]:
    name, config, split = (*place.removeprefix("hf:").split(":"), None, None)[:3]
    code = {"trust_remote_code": True} if remote_code else {}
    rows = datasets.load_dataset(name, config, split=split or "train", streaming=True, **code)
    for number, row in enumerate(rows):
        yield {"source": f"{name}:{number}", "row": row}


def _files(place: str) -> list[str]:
    found = glob.glob(place, recursive=True)  # noqa: PTH207 (a glob may be absolute)
    files = sorted(file for file in found if Path(file).is_file())
    if not files:
        raise CorpusError(
            f"corpus {place!r} was not found: give stdlib, a file or glob ending in {', '.join(BUILDERS)}, "
            "or a hub dataset as hf:name[:config][:split]"
        )
    unknown = [file for file in files if Path(file).suffix not in BUILDERS]
    if unknown:
        raise CorpusError(
            f"corpus file {unknown[0]!r} has no known ending: rename text or JSON lines to one of {', '.join(BUILDERS)}; "
            "convert other formats, such as a table of .csv to .parquet, first"
        )
    return files


def _file_rows(files: list[str], root: str) -> Iterator[dict[str, Any]]:
    """Rows of `files` (when shuffling, `datasets` passes one at a time), named by their paths below `root`."""
    for file in files:
        if not Path(file).stat().st_size:
            continue
        builder, name = BUILDERS[Path(file).suffix], Path(file).relative_to(root).as_posix()
        for number, row in enumerate(_load(file, builder)):
            yield {"source": f"{name}:{number}", "row": _parse_line(row) if builder == "jsonl" else row}


def _load(file: str, builder: str) -> Iterable[dict[str, Any]]:
    """Rows of one file. JSON lines are read as text and parsed one by one, so that a bad line costs only itself."""
    if builder in ("text", "jsonl"):
        unit = "line" if builder == "jsonl" else _text_unit(Path(file))
        options = {"sample_by": unit, "encoding_errors": "replace"}
    else:
        options = {}
    name = "text" if builder == "jsonl" else builder
    return datasets.load_dataset(name, data_files=file, split="train", streaming=True, **options)


def _text_unit(file: Path) -> str:
    """What is one document of a .txt file: a paragraph where blank lines part them, else a line."""
    with file.open(encoding="utf-8", errors="replace") as text:
        return "paragraph" if "\n\n" in text.read(PROBE_CHARACTERS) else "line"


def _parse_line(row: dict[str, Any]) -> dict[str, Any] | None:
    """The object of a JSON line; None where it is no JSON object."""
    try:
        parsed = json.loads(row["text"])
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None


def _readable(rows: Iterable[dict[str, Any]], place: str) -> Iterator[dict[str, Any]]:
    """`rows`, with every failure of the reading libraries turned into one sentence."""
    try:
        yield from rows
    except CorpusError:
        raise
    except Exception as error:
        reason = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
        raise CorpusError(
            f"corpus {place!r} cannot be read: {reason[0][:300]}. Check the name, the file and the network"
        ) from error


def _documents(
    rows: Iterable[dict[str, Any]], corpus: CorpusName, config: RunConfig, dropped: Counter[str]
) -> Iterator[Document]:
    first = True
    for item in rows:
        row = item["row"]
        if row is None:
            dropped["invalid_json"] += 1
            continue
        if first:
            _require_fields(row, corpus, config)
            first = False
        text = _text(row.get(config.text_field), dropped)
        if text is not None:
            own = row.get(config.id_field)
            source = item["source"] if own is None or own == "" else str(own)
            yield Document(_domain(item, row, corpus, config), source, f"{corpus.place}:{item['source']}", text)


def _require_fields(row: dict[str, Any], corpus: CorpusName, config: RunConfig) -> None:
    """Refuse a corpus whose first row lacks a field; a later row that lacks it costs only itself."""
    for option, field in (("--text-field", config.text_field), ("--domain-field", config.domain_field)):
        if field and field not in row:
            raise CorpusError(
                f"corpus {corpus.place!r} has no field {field!r}: its fields are {', '.join(map(repr, row))}; name one with {option}"
            )


def _text(text: Any, dropped: Counter[str]) -> str | None:
    """The text with lone surrogates replaced; None, and counted, where there is none."""
    if not isinstance(text, str) or not text.strip():
        dropped["no_text"] += 1
        return None
    clean = text.encode("utf-8", "replace").decode("utf-8")
    dropped["lone_surrogates"] += sum(a != b for a, b in zip(text, clean, strict=True)) if clean != text else 0
    dropped["undecodable"] += clean.count("\ufffd")
    return clean


def _domain(item: dict[str, Any], row: dict[str, Any], corpus: CorpusName, config: RunConfig) -> str:
    if config.domain_field and row.get(config.domain_field) is not None:
        return str(row[config.domain_field])
    if corpus.name:
        return corpus.name
    return item.get("domain") or _default_domain(corpus.place)


def _default_domain(place: str) -> str:
    """A name for a corpus without one: the dataset's, or the file's stem (the folder's for a glob)."""
    if place.startswith("hf:"):
        return place.removeprefix("hf:")
    path = Path(place)
    return path.parent.name or "corpus" if glob.has_magic(path.name) else path.stem
