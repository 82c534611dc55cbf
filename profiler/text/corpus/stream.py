"""Documents of all corpora of a run, in seeded shuffled order: rows become texts, texts become documents.

Shuffling is that of `datasets`: the order of files, and a buffer of `shuffle_buffer` documents inside; a corpus smaller
than the buffer is shuffled fully. Rows that are none go through the shuffle too, so that what is lost is counted where
it stood, by whoever reads there. Cost: the buffer is filled before the first document comes.
"""

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from profiler.config import RunConfig
from profiler.text import stdlib
from profiler.text.conversation_roles import RoleSpan
from profiler.text.corpus import chat, formats, hub
from profiler.text.corpus.fields import MISSING, Fields, look_up, readable, refuse_unreadable
from profiler.text.corpus.formats import Row
from profiler.text.corpus.names import Corpus, corpora

Item = dict[str, Any]


@dataclass(frozen=True)
class Document:
    """One item of the corpus.

    Attributes:
        source: the id its corpus gives it.
        place: where it stands; unique.
        roles: the characters of each message of a conversation; None for other texts, and where they cannot be told.
    """

    domain: str
    source: str
    place: str
    text: str
    roles: tuple[RoleSpan, ...] | None = None


def check(config: RunConfig) -> None:
    """Refuse what can be seen of the corpora before a pass: names, endings, encodings, the fields of the first rows.

    Cost: the beginning of every file, and rows up to the first that can be read.

    Raises:
        CorpusError: a corpus does not exist, cannot be read, or lacks the text field.
    """
    for corpus in corpora(config.corpora):
        _check(corpus, config)


def documents(config: RunConfig, dropped: Counter[str], tokenizer: Any = None) -> Iterator[Document]:
    """All documents of the corpora of `config`, taking turns, each corpus shuffled with the run's seed.

    Args:
        dropped: counts, by reason, of what was dropped or repaired on the way; filled while iterating.
        tokenizer: its chat template makes texts of conversations; None writes `role: content`.

    Raises:
        CorpusError: a corpus does not exist, cannot be read, or lacks the text field.
    """
    corpora_read = corpora(config.corpora)
    for corpus in corpora_read:
        _check(corpus, config)
        dropped["same_file"] += corpus.n_links
        dropped["other_files"] += corpus.n_others
    streams = [_one_corpus(corpus, config, dropped, tokenizer) for corpus in corpora_read]
    turns = itertools.zip_longest(*streams)
    return (document for turn in turns for document in turn if document is not None)


def _check(corpus: Corpus, config: RunConfig) -> None:
    for file in corpus.files:
        formats.check_text(file)
    if not corpus.is_stdlib:
        rows = (row for _, row in itertools.islice(_rows(corpus, config), config.shuffle_buffer))
        refuse_unreadable(rows, _fields(config), corpus.place)


def _fields(config: RunConfig) -> Fields:
    return Fields(config.text_field, config.id_field, config.domain_field)


def _rows(corpus: Corpus, config: RunConfig) -> Iterator[tuple[str, Row | str]]:
    """Rows of a corpus with their ids, in its order."""
    if corpus.is_stdlib:
        return ((document["id"], dict(document)) for document in stdlib.documents())
    if corpus.is_hub:
        return hub.rows(corpus.place, remote_code=config.trust_remote_code)
    return _file_rows(list(corpus.files), _root(corpus))


def _root(corpus: Corpus) -> str:
    return os.path.commonpath([Path(file).parent for file in corpus.files])


def _file_rows(files: list[str], root: str) -> Iterator[tuple[str, Row | str]]:
    """Rows of files, named by their paths below `root` and their numbers."""
    for file in files:
        name = Path(file).relative_to(root).as_posix()
        for number, row in enumerate(formats.rows(file)):
            yield f"{name}:{number}", row


def _items_of_stdlib() -> Iterator[Item]:
    for document in stdlib.documents():
        yield {"source": document["id"], "text": document["text"], "part": document["domain"]}


def _items_of_hub(place: str, *, remote_code: bool, fields: Fields) -> Iterator[Item]:
    return _items(hub.rows(place, remote_code=remote_code), fields)


def _items_of_files(files: list[str], root: str, fields: Fields) -> Iterator[Item]:
    """Items of `files`; when shuffling, `datasets` passes one at a time."""
    return _items(_file_rows(files, root), fields)


def _items(rows: Iterable[tuple[str, Row | str]], fields: Fields) -> Iterator[Item]:
    """What a document is made of: text or messages, id, domain; or why there is none."""
    for source, row in rows:
        if isinstance(row, str):
            yield {"source": source, "lost": row}
            continue
        own, domain = (look_up(row, name) if name else None for name in (fields.id, fields.domain))
        yield {
            "source": source if own in (MISSING, None, "") else str(own),
            "row": source,
            "text": readable(look_up(row, fields.text)),
            "domain": None if domain in (MISSING, None) else str(domain),
        }


def _stream(corpus: Corpus, config: RunConfig) -> datasets.IterableDataset:
    """The items of a corpus as a streaming dataset, a shard a file."""
    make = datasets.IterableDataset.from_generator
    if corpus.is_stdlib:
        return make(_items_of_stdlib)
    if corpus.is_hub:
        how = {"place": corpus.place, "remote_code": config.trust_remote_code, "fields": _fields(config)}
        return make(_items_of_hub, gen_kwargs=how)
    return make(
        _items_of_files, gen_kwargs={"files": list(corpus.files), "root": _root(corpus), "fields": _fields(config)}
    )


def _one_corpus(corpus: Corpus, config: RunConfig, dropped: Counter[str], tokenizer: Any) -> Iterator[Document]:
    for item in _stream(corpus, config).shuffle(seed=config.seed, buffer_size=config.shuffle_buffer):
        if (text_and_roles := _text(item, dropped, tokenizer)) is not None:
            domain = item.get("domain") or (corpus.domain if corpus.named else item.get("part") or corpus.domain)
            place = f"{corpus.place}:{item.get('row', item['source'])}"
            yield Document(domain, item["source"], place, *text_and_roles)


def _text(item: Item, dropped: Counter[str], tokenizer: Any) -> tuple[str, tuple[RoleSpan, ...] | None] | None:
    """The text of an item with lone surrogates replaced, and its roles; None, and counted, where there is no text."""
    text, reason, roles = item.get("text"), item.get("lost", "no_text"), None
    if isinstance(text, list):
        rendered, reason = chat.conversation(text, tokenizer), "no_template"
        text, roles = (rendered.text, rendered.spans) if rendered else (None, None)
    if text is None or not text.strip():
        dropped[reason] += 1
        return None
    dropped["no_roles"] += isinstance(item["text"], list) and roles is None
    clean = text.encode("utf-8", "replace").decode("utf-8")  # a character for a character: roles stand where they stood
    dropped["lone_surrogates"] += sum(a != b for a, b in zip(text, clean, strict=True)) if clean != text else 0
    dropped["undecodable"] += clean.count("\ufffd")
    return clean, roles
