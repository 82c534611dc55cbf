"""What a user wrote as a corpus, and which files that is.

A path that exists is taken as it is written, whatever characters it holds; where there is none, it is a pattern (`*`,
`?`, `[ab]`, `**`), and what a pattern finds is literal again. Only then the text before the first `=` is a name of the
user's own. So a file `lr=0.1.txt`, `notes[1].txt` or `hf:notes.txt` can be named; `stdlib` is always the bundled
corpus. A file is its inode: under two names, as by a link, it is read once inside a corpus and refused in two.
"""

import glob
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from profiler.errors import CorpusError
from profiler.text.corpus.formats import BUILT, form_of, stem_of

STDLIB, HUB = "stdlib", "hf:"
NAMED = re.compile(r"([\w-]+)=(.+)", re.DOTALL)


@dataclass(frozen=True)
class Corpus:
    """One corpus.

    Attributes:
        place: as the user wrote it, without the name.
        domain: the user's name for it, or one made of the place.
        named: whether the user gave the name.
        files: its files, in order; none for `stdlib` and the hub.
        n_links: files that are another one of `files` under a second name.
        n_others: entries of a folder that have no ending of a corpus, and links to nothing.
    """

    place: str
    domain: str
    named: bool = False
    files: tuple[str, ...] = ()
    n_links: int = 0
    n_others: int = 0

    @property
    def is_stdlib(self) -> bool:
        """Whether it is the bundled corpus."""
        return self.place == STDLIB and not self.files

    @property
    def is_hub(self) -> bool:
        """Whether it is a dataset of the hub."""
        return self.place.startswith(HUB) and not self.files


def corpora(texts: Iterable[str]) -> list[Corpus]:
    """The corpora that the user named.

    Raises:
        CorpusError: a corpus does not exist or has no known ending, or two share a file.
    """
    named = [corpus_of(text) for text in texts]
    for number, corpus in enumerate(named):
        for other in named[:number]:
            _refuse_shared(other, corpus)
    return named


def corpus_of(text: str) -> Corpus:
    """The corpus of one name.

    Raises:
        CorpusError: there is no such file, or none of a known ending.
    """
    name, place = _parsed(text)
    if place == STDLIB or (place.startswith(HUB) and not _exists(place)):
        return Corpus(place, name or place.removeprefix(HUB), named=bool(name))
    paths, domain = _paths(place)
    files, n_links = _once(file for file in paths if Path(file).is_file())
    known = [file for file in files if form_of(file)]
    unknown = [file for file in files if not form_of(file)]
    if unknown and (not known or not Path(place).is_dir()):
        raise CorpusError(
            f"corpus file {unknown[0]!r} has no known ending: rename it to what it is, one of {', '.join(BUILT)}, or"
            " packed, as .jsonl.gz; convert other formats first"
        )
    if not known:
        raise CorpusError(
            f"corpus {text!r} was not found: give stdlib, a file, folder or glob of {', '.join(BUILT)}, or a hub"
            " dataset as hf:name[:config][:split]"
        )
    n_others = len(unknown) + sum(not Path(path).is_file() for path in paths)
    return Corpus(place, name or domain, bool(name), tuple(known), n_links, n_others)


def is_stdlib(text: str) -> bool:
    """Whether a name stands for the bundled corpus; no other file or host is looked at to tell."""
    return text.rpartition("=")[2] == STDLIB and _parsed(text)[1] == STDLIB


def _parsed(text: str) -> tuple[str, str]:
    """A name of the user's own, empty where there is none, and the place."""
    if _exists(text) or glob.glob(text, recursive=True):  # noqa: PTH207 (a glob may be absolute)
        return "", text
    named = NAMED.fullmatch(text)
    return (named[1], named[2]) if named else ("", text)


def _exists(place: str) -> bool:
    return os.path.exists(place)  # noqa: PTH110 (Path.exists raises where a name is too long)


def _paths(place: str) -> tuple[list[str], str]:
    """Files and other entries at a place, sorted, and the domain they make."""
    path = Path(place)
    if not _exists(place):
        entries = [entry for entry in sorted(glob.glob(place, recursive=True)) if not Path(entry).is_dir()]  # noqa: PTH207
        return entries, path.parent.name or "corpus"
    if not path.is_dir():
        return [place], stem_of(place)
    return _saved(path) or _below(path), path.resolve().name or "corpus"


def _below(folder: Path) -> list[str]:
    """Everything in a folder and the folders in it that is not hidden; each folder once, though links lead to it
    twice."""
    files, seen = [], set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [str(Path(parent) / name) for name in names if not name.startswith(".")]
    return sorted(files)


def _saved(folder: Path) -> list[str]:
    """Files of a dataset that `save_to_disk` wrote, in its order; none where the folder is none.

    Raises:
        CorpusError: it has several splits, or its list of files cannot be read.
    """
    try:
        if (splits := folder / "dataset_dict.json").is_file():
            names = json.loads(splits.read_text(encoding="utf-8"))["splits"]
            if len(names) > 1:
                raise CorpusError(
                    f"corpus {str(folder)!r} is a dataset of {len(names)} splits ({', '.join(names)}): give the folder"
                    f" of one, such as {folder / names[0]}"
                )
            folder = folder / names[0]
        if not (state := folder / "state.json").is_file():
            return []
        return [
            str(folder / entry["filename"]) for entry in json.loads(state.read_text(encoding="utf-8"))["_data_files"]
        ]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise CorpusError(
            f"corpus {str(folder)!r} looks like a dataset that save_to_disk wrote, but its list of files cannot be read"
            f" ({error!r}): save it again, or give its files"
        ) from None


def _inode(file: str) -> tuple[int, int]:
    status = Path(file).stat()
    return status.st_dev, status.st_ino


def _once(files: Iterable[str]) -> tuple[list[str], int]:
    """Each file once, under its first name, and how many names were left out."""
    names = list(files)
    by_inode = {_inode(file): file for file in reversed(names)}
    once = set(by_inode.values())
    return [file for file in names if file in once], len(names) - len(once)


def _refuse_shared(first: Corpus, other: Corpus) -> None:
    """Refuse documents that would count twice.

    Raises:
        CorpusError: two corpora are the same, or share a file.
    """
    inodes = {_inode(file): file for file in first.files}
    shared = next(((inodes[_inode(file)], file) for file in other.files if _inode(file) in inodes), None)
    if shared or first.place == other.place:
        what = f" as {shared[0]!r} and {shared[1]!r}" if shared and shared[0] != shared[1] else ""
        raise CorpusError(
            f"corpus {other.place!r} is given twice{what}, with {first.place!r}: its documents would count twice; give"
            " it once"
        )
