"""The bundled corpus: the Python standard library's own source, tests and documentation.

Why: a fresh machine without network or data set hub still has several tens of megabytes of real text written by
people, because Python ships with it. Nothing is copied into the package; the files are read where they lie.

Cost: listing a directory tree and reading files one by one, on demand. The first document is yielded after
reading one file. No third-party import.

Three domains:

* `code`: the library's `.py` files outside its tests;
* `tests`: the library's own tests (absent from some distributions, such as Debian's);
* `prose`: the language reference that `help()` shows (`pydoc_data.topics`), docstrings of compiled modules (text
  that stands in no `.py` file), and the library's README and `.txt` files.

Left out: installed packages, byte code, files written at build time for one machine (`_sysconfigdata*`,
`config-*`), test data that is not source, and files without text.
"""

import hashlib
import importlib
import inspect
import os
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Literal, TypedDict, get_args

Split = Literal["all", "train", "held_out"]
SPLITS: dict[str, Split] = {split: split for split in get_args(Split)}
Domain = Literal["code", "tests", "prose"]

HELD_OUT_IN = 10
"""One document in this many is held out of training."""

_SKIPPED_FOLDERS = {"site-packages", "dist-packages", "__pycache__", "lib-dynload"}
_TEST_FOLDERS = {"test", "tests", "idle_test"}
_NOT_PROSE = {"Grammar.txt", "PatternGrammar.txt"}
_COMPILED = """
    _abc _ast _asyncio _bisect _blake2 _bz2 _codecs _collections _contextvars _csv _ctypes _curses
    _datetime _decimal _elementtree _functools _hashlib _heapq _imp _io _json _locale _lsprof _lzma
    _multiprocessing _operator _pickle _posixsubprocess _queue _random _signal _socket _sqlite3 _sre
    _ssl _stat _string _struct _symtable _thread _tracemalloc _warnings _weakref _zoneinfo array atexit
    audioop binascii builtins cmath errno faulthandler fcntl gc grp itertools marshal math mmap posix
    pwd pyexpat readline resource select sys syslog termios time unicodedata zlib
"""
"""Modules without a Python source whose docstrings are read; a module that this Python lacks is passed over."""


class StdlibDocument(TypedDict):
    """One text: `id` (stable, slash-separated), `domain` and the whole `text`."""

    id: str
    domain: Domain
    text: str


def held_out(doc_id: str) -> bool:
    """Whether a document is kept out of training: about one in `HELD_OUT_IN`, by a hash of its id alone."""
    digest = hashlib.blake2b(doc_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % HELD_OUT_IN == 0


def documents(split: str = "all") -> Iterator[StdlibDocument]:
    """Every document of the corpus in a fixed order: files by path, then topics, then compiled modules.

    Args:
        split: `train` and `held_out` partition `all` (see `held_out`). Which split a document is in depends on
            its id only, so it stays the same between machines and Python versions.

    Raises:
        ValueError: for any other split.
    """
    if (chosen := SPLITS.get(split)) is None:
        raise ValueError(f"split is {split!r}; expected 'all', 'train' or 'held_out'")
    return (d for d in _every_document(chosen) if d["text"].strip())


def _every_document(split: Split) -> Iterator[StdlibDocument]:
    yield from _files(Path(sysconfig.get_path("stdlib")), split)
    yield from _topics(split)
    yield from _compiled(split)


def _wanted(doc_id: str, split: Split) -> bool:
    return split == "all" or held_out(doc_id) == (split == "held_out")


def _files(root: Path, split: Split) -> Iterator[StdlibDocument]:
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(s for s in subfolders if s not in _SKIPPED_FOLDERS and not s.startswith("config-"))
        for name in sorted(names):
            relative = (Path(folder) / name).relative_to(root)
            domain = domain_of(relative)
            doc_id = f"stdlib/{relative.as_posix()}"
            if domain and _wanted(doc_id, split):
                yield StdlibDocument(id=doc_id, domain=domain, text=_read(root / relative))


def domain_of(relative: Path) -> Domain | None:
    """The domain of a file by its path below the library's folder, or None where it is not part of the corpus."""
    in_tests = bool(_TEST_FOLDERS.intersection(relative.parts[:-1]))
    if relative.suffix == ".py":
        if relative.name.startswith("_sysconfigdata") or relative.parts[0] == "pydoc_data":
            return None
        return "tests" if in_tests else "code"
    is_prose = relative.suffix == ".txt" or relative.name.startswith("README")
    return "prose" if is_prose and not in_tests and relative.name not in _NOT_PROSE else None


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _topics(split: Split) -> Iterator[StdlibDocument]:
    try:
        from pydoc_data.topics import topics
    except ImportError:
        return
    for name in sorted(topics):
        if _wanted(f"topics/{name}", split):
            yield StdlibDocument(id=f"topics/{name}", domain="prose", text=topics[name])


def _compiled(split: Split) -> Iterator[StdlibDocument]:
    for name in _COMPILED.split():
        if not _wanted(f"builtin/{name}", split):
            continue
        try:
            with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
                module = importlib.import_module(name)
        except ImportError:
            continue
        yield StdlibDocument(id=f"builtin/{name}", domain="prose", text=_docstrings(module))


def _docstrings(module: ModuleType) -> str:
    """The module's docstring, then each public member's and each class member's own, in alphabetical order."""
    parts = [inspect.cleandoc(module.__doc__ or "")]
    for name, member in sorted(vars(module).items()):
        if name.startswith("_") or not (inspect.isroutine(member) or inspect.isclass(member)):
            continue
        parts.append(_entry(name, member))
        if inspect.isclass(member):
            own = sorted(vars(member).items())
            parts += [_entry(f"{name}.{n}", m) for n, m in own if not n.startswith("_")]
    return "\n\n".join(p for p in parts if p)


def _entry(name: str, member: object) -> str:
    text = getattr(member, "__doc__", None)
    return f"{name}\n{inspect.cleandoc(text)}" if isinstance(text, str) and text.strip() else ""
