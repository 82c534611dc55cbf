"""What a model's files may do before they are loaded: nothing but hold numbers and words. No torch, no network of its
own.

A model directory comes from a stranger as a run file does. Code that comes with it and pickled weights are run by no
load that was not asked for (profiler.model.load); this looks at the rest: a file that names other files (an index of
shards, an adapter's base model), a name of a kernel to be fetched and run, a link that leads out of the directory, a
pipe, a file that fills the memory; and at files that are not what their names say: a Git-LFS pointer, weights that are
cut off. Hub names are asked for their small files alone.

Cost: reading the configuration, the index of shards, and the headers of the weight files.
"""

import json
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from profiler.errors import ModelError

LARGEST_TEXT = 256_000_000
"""Bytes of the largest tokenizer, configuration or template that is read; the largest in use have 35 MB."""
SAFE = ".safetensors"
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
KERNELS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")
"""Settings in which transformers takes a hub repository of compiled code for a name."""
ADAPTER = "adapter_config.json"
LFS = b"version https://git-lfs"
"""How a file begins that Git LFS left in the place of a large one."""
LENGTH_BYTES = 8
"""Bytes of a safetensors file that say how long its header is."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as the header of a safetensors file declares it; `dtype` is safetensors' name, such as BF16."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Values in it."""
        return prod(self.shape)


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
    elif (
        folder.exists() or len(PurePosixPath(place).parts) > len(("owner", "name")) or place.startswith((".", "/", "~"))
    ):
        what = "is a file" if folder.is_file() else "is not there"
        raise ModelError(f"model {place!r} {what}: give a directory, a Hugging Face name, or `bundled`")
    config = read_json(place, "config.json")
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


def refuse_incomplete(place: str, *, pickle: bool = False) -> None:
    """Refuse a directory that lacks its settings or its weights.

    An adapter's directory may lack both, and a hub name is no directory.

    Raises:
        ModelError: what is missing, and what is there in its stead.
    """
    names = {file.name for file in Path(place).iterdir()} if Path(place).is_dir() else {ADAPTER}
    if ADAPTER in names:
        return
    if "config.json" not in names:
        raise ModelError(f"model {place!r} has no config.json: give a directory as `save_pretrained` writes it")
    if any(name.endswith(SAFE) for name in names) or INDEXES[0] in names:
        return
    pickled = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth")))
    if pickled and pickle:
        return
    if pickled:
        raise ModelError(
            f"the weights of model {place!r} are pickled ({pickled[0]}) and can run code: save them as safetensors, or,"
            " if you trust them, add --allow-pickle"
        )
    packed = next((f" ({name} is for another program)" for name in names if name.endswith(".gguf")), "")
    raise ModelError(f"model {place!r} has no weights{packed}: put model.safetensors beside its config.json")


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
        status = file.stat()
    except OSError as error:
        raise ModelError(
            f"{file.name} of model {place!r} cannot be read ({error.strerror}): copy the file there"
        ) from None
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise ModelError(f"{file.name} of model {place!r} is no file: take it out of the directory")
    if stat.S_ISREG(status.st_mode):
        refuse_pointer(file, place)
    if status.st_size > LARGEST_TEXT and file.suffix in (".json", ".jinja", ".txt", ".md", ".model"):
        raise ModelError(
            f"{file.name} of model {place!r} has {status.st_size / 1e6:,.0f} MB, at most {LARGEST_TEXT / 1e6:,.0f} are"
            " read: give a directory with a tokenizer of ordinary size"
        )


def refuse_pointer(file: Path, place: str) -> None:
    """Refuse what Git LFS left in the place of a file.

    Raises:
        ModelError: it is a pointer, or cannot be read.
    """
    try:
        with file.open("rb") as opened:
            begins = opened.read(len(LFS))
    except OSError as error:
        raise ModelError(
            f"{file.name} of model {place!r} cannot be read ({error.strerror}): see who may read it"
        ) from None
    if begins == LFS:
        raise ModelError(
            f"{file.name} of model {place!r} is a Git-LFS pointer and not the file itself: run `git lfs pull` in the"
            " repository it was cloned from, or download the model again"
        )


def stored_tensors(weights: Iterable[Path], place: str) -> dict[str, StoredTensor]:
    """Every tensor in safetensors files, from their headers alone.

    Raises:
        ModelError: a file is missing, is cut off, or is no safetensors file.
    """
    tensors: dict[str, StoredTensor] = {}
    for file in weights:
        if not file.is_file():
            raise ModelError(
                f"model {place!r} lacks {file.name}, which its index of weights names: take a copy that is whole"
            )
        refuse_pointer(file, place)
        tensors |= _header(file, place)
    return tensors


def _header(file: Path, place: str) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file.

    Raises:
        ModelError: the file is cut off, or is none.
    """
    what, size = f"{file.name} of model {place!r}", file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(LENGTH_BYTES), "little")
        if size < LENGTH_BYTES or length > size - LENGTH_BYTES:
            raise ModelError(
                f"{what} has {size:,} bytes and no whole header: it is cut off, or no safetensors file; download it"
                " again"
            )
        header = opened.read(length)
    try:
        entries = {key: entry for key, entry in json.loads(header).items() if key != "__metadata__"}
        tensors = {key: StoredTensor(str(e["dtype"]), tuple(map(int, e["shape"]))) for key, e in entries.items()}
        end = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ModelError(f"the header of {what} cannot be read ({type(error).__name__}): download it again") from None
    if LENGTH_BYTES + length + end > size:
        raise ModelError(
            f"{what} is cut off: its header declares {LENGTH_BYTES + length + end:,} bytes, the file has {size:,};"
            " download it again"
        )
    return tensors


def _inside(target: Path, folder: Path) -> bool:
    """Whether a link stays in its directory, or in the hub's cache, whose snapshots are links to `blobs` beside
    them."""
    blobs = folder.parent.parent / "blobs"
    return target.is_relative_to(folder) or (folder.parent.name == "snapshots" and target.is_relative_to(blobs))


def _is_kernel(value: Any) -> bool:
    named = value.values() if isinstance(value, dict) else [value]
    return any(isinstance(name, str) and "/" in name for name in named)


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
        shards = read_json(place, name).get("weight_map", {})
        yield from (
            (name, str(shard)) for shard in set(map(str, shards.values() if isinstance(shards, dict) else [shards]))
        )


def read_json(place: str, name: str) -> dict[str, Any]:
    """The object in a file of JSON; empty where there is no such file.

    Raises:
        ModelError: it holds something else.
    """
    file = file_of(place, name)
    if file is None:
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{name} of model {place!r} cannot be read ({error}): take a copy that is whole") from None
    if not isinstance(content, dict):
        raise ModelError(f"{name} of model {place!r} holds no JSON object: take a copy that is whole")
    return content


def is_adapter(place: str) -> bool:
    """Whether a directory or hub name holds an adapter of another model."""
    return bool(read_json(place, ADAPTER))


def file_of(place: str, name: str) -> Path | None:
    """A file of a directory, or of a hub repository, fetched; None where there is none or it cannot be reached."""
    if Path(place).is_dir():
        file = Path(place) / name
        return file if file.is_file() else None
    from transformers.utils.hub import cached_file

    quietly = ("gated_repo", "missing_entries", "connection_errors")
    try:
        path = cached_file(place, name, **{f"_raise_exceptions_for_{what}": False for what in quietly})
    except (OSError, ValueError):
        return None  # no such repository: loading it says so
    return Path(path) if path else None
