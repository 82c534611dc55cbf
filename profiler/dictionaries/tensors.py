"""Tensors of a file that a stranger may have made: safetensors, npz or npy; never pickle.

What is read is checked before memory is asked for: names, shapes, dtypes, and that what is said to be there is there
(an npz can claim a thousand times what it holds). Values that are not finite are refused. Cost: reading the file.
"""

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from profiler.errors import DictionaryError

MOST_TENSORS, MOST_AXES, MOST_BYTES, MOST_PACKED = 256, 4, 2**37, 100
"""Tensors of a file, axes of a tensor, bytes of all tensors, and bytes of an entry for each that it is packed in."""
FLOATS = ("F64", "F32", "F16", "BF16")
INTEGERS = ("I64", "I32", "I16", "I8", "U8")
READ_ERRORS = (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error, SafetensorError)
PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")
ENDINGS = (".safetensors", ".npz", ".npy")


def read(file: Path) -> dict[str, Tensor]:
    """Every tensor of a file, by name; of an npy file under the name `array`.

    Raises:
        DictionaryError: the file is not there, of another kind, damaged, or holds what no dictionary does.
    """
    if file.suffix in PICKLES:
        raise DictionaryError(
            f"{file} is a pickle, which can run code: load it where you trust it and save its tensors with"
            " safetensors.torch.save_file"
        )
    if file.suffix not in ENDINGS:
        raise DictionaryError(f"{file} is no file of tensors: give a .safetensors, .npz or .npy file")
    try:
        found = _safetensors(file) if file.suffix == ".safetensors" else _numpy(file)
    except READ_ERRORS as error:
        raise DictionaryError(f"{file} cannot be read ({_first_line(error)}): take a copy that is whole") from None
    if not found:
        raise DictionaryError(f"{file} holds no tensor: name the file that holds the weights")
    for name, tensor in found.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise DictionaryError(f"{name!r} of {file} holds NaN or infinite values: take a copy that is whole")
    return found


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _safetensors(file: Path) -> dict[str, Tensor]:
    with safe_open(file, framework="pt") as opened:
        names = list(opened.keys())
        _refuse_number(len(names))
        slices = {name: opened.get_slice(name) for name in names}
        for name, piece in slices.items():
            _refuse_shape(name, tuple(piece.get_shape()))
            if piece.get_dtype() not in (*FLOATS, *INTEGERS):
                raise ValueError(f"{name!r} is of dtype {piece.get_dtype()}")
        return {name: opened.get_tensor(name) for name in slices}


def _numpy(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".npy":
        with file.open("rb") as opened:
            return {"array": _array("array", opened, file.stat().st_size)}
    with zipfile.ZipFile(file) as packed:
        entries = packed.infolist()
        _refuse_number(len(entries))
        for entry in entries:
            if not entry.filename.endswith(".npy") or entry.file_size > MOST_PACKED * max(entry.compress_size, 1):
                raise ValueError(f"{entry.filename!r} is no array, or claims far more than it is packed in")
        if sum(entry.file_size for entry in entries) > MOST_BYTES:
            raise ValueError(f"it claims more than {MOST_BYTES:,} bytes")
        found = {}
        for entry in entries:
            with packed.open(entry) as opened:
                name = entry.filename.removesuffix(".npy")
                found[name] = _array(name, opened, entry.file_size)
        return found


def _array(name: str, opened: IO[bytes] | zipfile.ZipExtFile, size: int) -> Tensor:
    """An array in npy form, of a file of `size` bytes.

    Raises:
        ValueError: it is of objects, or not as long as its header says.
    """
    version = np.lib.format.read_magic(opened)
    readers: dict[Any, Any] = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"npy version {version} is not known")
    shape, fortran, dtype = readers[version](opened)
    _refuse_shape(name, shape)
    if dtype.kind not in "fiu" or dtype.itemsize > np.dtype(np.float64).itemsize:
        raise ValueError(f"{name!r} is of dtype {dtype}: numbers are expected")
    n_bytes = math.prod(shape) * dtype.itemsize
    if opened.tell() + n_bytes != size:
        raise ValueError(f"{name!r} says that it has {n_bytes:,} bytes, and the file has others")
    values = np.frombuffer(opened.read(n_bytes), dtype=dtype).reshape(shape, order="F" if fortran else "C")
    return torch.from_numpy(np.array(values, dtype=dtype.newbyteorder("=")))


def _refuse_number(n: int) -> None:
    if n > MOST_TENSORS:
        raise ValueError(f"it holds {n:,} tensors, and a dictionary has at most {MOST_TENSORS}")


def _refuse_shape(name: str, shape: tuple[int, ...]) -> None:
    if len(shape) > MOST_AXES or math.prod(shape) <= 0 or math.prod(shape) > MOST_BYTES:
        raise ValueError(f"{name!r} has shape {list(shape)}")
