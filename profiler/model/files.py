"""What a model's files may do before they are loaded: nothing but hold numbers and words. No torch, no network of its
own.

A model directory comes from a stranger as a run file does. Code that comes with it and pickled weights are run by no
load that was not asked for (profiler.model.load); this looks at the rest: a file that names other files (an index of
shards, an adapter's base model), a name of a kernel to be fetched and run, a link that leads out of the directory, a
pipe, a file that fills the memory. Hub names are asked for their small files alone.

Cost: reading the configuration and the index of shards.
"""

import json
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from profiler.errors import ModelError

LARGEST_TEXT = 256_000_000
"""Bytes of the largest tokenizer, configuration or template that is read; the largest in use have 35 MB."""
SAFE = ".safetensors"
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
KERNELS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")
"""Settings in which transformers takes a hub repository of compiled code for a name."""


def check(place: str, *, remote_code: bool = False, pickle: bool = False) -> None:
    """Whether the files of a model can be loaded with no more rights than were given.

    Args:
        place: a directory, or a hub name.
        remote_code: code that comes with the model may be run.
        pickle: weights that are not safetensors may be loaded.

    Raises:
        ModelError: they cannot; the file and what is wrong with it are named.
    """
    folder = Path(place)
    if folder.is_dir():
        for file in folder.iterdir():
            _check_file(file, folder.resolve(), place)
    config = _read(place, "config.json")
    if not remote_code and (named := [config[key] for key in KERNELS if _is_kernel(config.get(key))]):
        raise ModelError(
            f"config.json of model {place!r} names code to fetch and run ({named[0]!r}): take it out, or, if you trust"
            " it, add --trust-remote-code"
        )
    endings = (SAFE, ".bin") if pickle else (SAFE,)
    for name, shard in _shards(place, config):
        if not _is_plain(shard) or not shard.endswith(endings):
            raise ModelError(
                f"{name} of model {place!r} names the file {shard!r}: it must be one of the model's own, ending in"
                f" {' or '.join(endings)}"
            )


def _check_file(file: Path, folder: Path, place: str) -> None:
    """Whether a file of a directory is a plain one of its own, and no larger than it can be.

    Raises:
        ModelError: it is not.
    """
    target = file.resolve()
    if file.is_symlink() and not file.name.endswith(SAFE) and not _inside(target, folder):
        raise ModelError(
            f"{file.name} of model {place!r} is a link to {target}, outside the directory: copy the file there"
        )
    try:
        found = file.stat()
    except OSError as error:
        raise ModelError(
            f"{file.name} of model {place!r} cannot be read ({error.strerror}): copy the file there"
        ) from None
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise ModelError(f"{file.name} of model {place!r} is no file: take it out of the directory")
    if found.st_size > LARGEST_TEXT and file.suffix in (".json", ".jinja", ".txt", ".md", ".model"):
        raise ModelError(
            f"{file.name} of model {place!r} has {found.st_size / 1e6:,.0f} MB, at most {LARGEST_TEXT / 1e6:,.0f} are"
            " read: give a directory with a tokenizer of ordinary size"
        )


def _inside(target: Path, folder: Path) -> bool:
    """Whether a link stays in its directory, or in the hub's cache, whose snapshots are links to `blobs` beside
    them."""
    blobs = folder.parent.parent / "blobs"
    return target.is_relative_to(folder) or (folder.parent.name == "snapshots" and target.is_relative_to(blobs))


def _is_kernel(value: Any) -> bool:
    named = value.values() if isinstance(value, dict) else [value]
    return any(isinstance(one, str) and "/" in one for one in named)


def _is_plain(name: str) -> bool:
    """Whether a name is that of a file and no path, on any system."""
    return name not in ("", ".", "..") and name == PurePosixPath(name).name == PureWindowsPath(name).name


def _shards(place: str, config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Which file names which file of weights."""
    explicit = config.get("transformers_weights")
    if explicit is not None:
        yield "config.json", str(explicit).removesuffix(".index.json")
    for name in {
        *INDEXES,
        *([str(explicit)] if str(explicit).endswith(".index.json") and _is_plain(str(explicit)) else []),
    }:
        shards = _read(place, name).get("weight_map", {})
        yield from (
            (name, str(shard)) for shard in set(map(str, shards.values() if isinstance(shards, dict) else [shards]))
        )


def _read(place: str, name: str) -> dict[str, Any]:
    """The object in a file of JSON; empty where there is no such file.

    Raises:
        ModelError: it holds something else.
    """
    file = _file(place, name)
    if file is None:
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{name} of model {place!r} cannot be read ({error}): take a copy that is whole") from None
    if not isinstance(found, dict):
        raise ModelError(f"{name} of model {place!r} holds no JSON object: take a copy that is whole")
    return found


def _file(place: str, name: str) -> Path | None:
    """A file of a directory, or of a hub repository, fetched; None where there is none or it cannot be reached."""
    if Path(place).is_dir():
        file = Path(place) / name
        return file if file.is_file() else None
    from transformers.utils.hub import cached_file

    quietly = ("gated_repo", "missing_entries", "connection_errors")
    try:
        found = cached_file(place, name, **{f"_raise_exceptions_for_{what}": False for what in quietly})
    except (OSError, ValueError):
        return None  # no such repository: loading it says so
    return Path(found) if found else None
