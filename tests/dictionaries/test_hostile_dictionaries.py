"""Files that lie: each is refused in a sentence, and nothing of it runs or fills the memory."""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from profiler.dictionaries import read as dictionaries
from profiler.errors import DictionaryError

D, UNITS = 4, 6
RAN: list[str] = []


class Bomb:
    """Unpickling it shows."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return RAN.append, ("ran",)


def read(asked: str) -> None:
    dictionaries.read(asked, lambda _: D)


def good() -> dict[str, torch.Tensor]:
    return {
        "W_enc": torch.ones(D, UNITS),
        "W_dec": torch.ones(UNITS, D),
        "b_enc": torch.zeros(UNITS),
        "b_dec": torch.zeros(D),
    }


def header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def npz(file: Path, entries: dict[str, bytes], packed: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(file, "w", packed) as made:
        for name, content in entries.items():
            made.writestr(name, content)
    return file


def pickled_array() -> bytes:
    made = io.BytesIO()
    np.save(made, np.array([Bomb()], dtype=object), allow_pickle=True)
    return made.getvalue()


FILES: dict[str, Callable[[Path], Path]] = {
    "pickle": lambda to: write(to / "ae.pt", pickle.dumps(Bomb())),
    "pickle under another name": lambda to: write(to / "a.npy", pickle.dumps(Bomb())),
    "array of objects": lambda to: write(to / "a.npy", pickled_array()),
    "array of objects, packed": lambda to: npz(to / "a.npz", {"W_dec.npy": pickled_array()}),
    "shape beyond the file": lambda to: write(to / "a.npy", header((10**15,)) + b"0000"),
    "shape of nothing": lambda to: write(to / "a.npy", header((0, 4))),
    "negative shape": lambda to: write(to / "a.npy", header((-1, -4)) + b"0" * 16),
    "shape that is code": lambda to: write(to / "a.npy", header((1,)).replace(b"(1,)", b"x()!")),
    "claims far more than it is packed in": lambda to: npz(
        to / "a.npz", {"W_dec.npy": header((2**22,)) + bytes(2**24)}, zipfile.ZIP_DEFLATED
    ),
    "no array": lambda to: npz(to / "a.npz", {"../../evil.sh": b"true"}),
    "too many": lambda to: npz(to / "a.npz", {f"{i}.npy": header((1,)) + b"0000" for i in range(300)}),
    "no zip": lambda to: write(to / "a.npz", b"PK\x03\x04 and then nothing"),
    "empty": lambda to: write(to / "a.safetensors", b""),
    "header beyond the file": lambda to: write(to / "a.safetensors", struct.pack("<Q", 2**62) + b"{}"),
    "overlapping": lambda to: write(to / "a.safetensors", overlapping()),
    "not finite": lambda to: saved(to / "a.safetensors", good() | {"b_enc": torch.full((UNITS,), torch.nan)}),
    "another size": lambda to: saved(to / "a.safetensors", good() | {"b_enc": torch.zeros(UNITS + 1)}),
    "another side": lambda to: saved(to / "a.safetensors", good() | {"W_enc": torch.zeros(D, UNITS + 1)}),
    "too many axes": lambda to: saved(to / "a.safetensors", good() | {"W_dec": torch.zeros(UNITS, D, 1)}),
    "k beyond the units": lambda to: saved(to / "a.safetensors", good() | {"k": torch.tensor(UNITS + 1)}),
    "complex numbers": lambda to: saved(
        to / "a.safetensors", good() | {"b_dec": torch.zeros(D, dtype=torch.complex64)}
    ),
    "another kind of file": lambda to: write(to / "a.exe", b"MZ"),
    "a folder of nothing": lambda to: to,
    "nothing": lambda to: to / "absent",
}


def write(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file


def saved(file: Path, tensors: dict[str, torch.Tensor]) -> Path:
    save_file(tensors, file)
    return file


def overlapping() -> bytes:
    one = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    text = json.dumps({"W_dec": one, "b_dec": one}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(16)


@pytest.mark.parametrize("what", list(FILES))
def test_a_file_that_lies_is_refused(tmp_path: Path, what: str) -> None:
    asked = f"L0.resid_post={FILES[what](tmp_path)}"
    with pytest.raises(DictionaryError) as refused:
        read(asked)
    assert "\n" not in str(refused.value)
    assert RAN == []


def cfg(**changes: object) -> dict[str, object]:
    fields = {"architecture": "standard", "metadata": {"hook_name": "blocks.0.hook_resid_post"}}
    return fields | changes


SETTINGS: dict[str, str] = {
    "no JSON": "{",
    "a list": "[]",
    "nested without end": "[" * 100_000,
    "another architecture": json.dumps(cfg(architecture="temporal")),
    "another activation": json.dumps(cfg(activation_fn_str="tanh-relu")),
    "a norm by an average": json.dumps(cfg(normalize_activations="expected_average_only_in")),
    "another norm": json.dumps(cfg(normalize_activations="whitening")),
    "one head": json.dumps(cfg(metadata={"hook_name": "blocks.0.attn.hook_z", "hook_head_index": 3})),
    "no hook": json.dumps(cfg(metadata={})),
    "another hook": json.dumps(cfg(metadata={"hook_name": "blocks.0.attn.hook_pattern"})),
    "another layer": json.dumps(cfg(metadata={"hook_name": "blocks.7.hook_resid_post"})),
    "k of another type": json.dumps(cfg(architecture="topk", k="many")),
    "k beyond the units": json.dumps(cfg(architecture="topk", k=UNITS + 1)),
    "a threshold that is not there": json.dumps(cfg(architecture="jumprelu")),
    "a hook of another type": json.dumps(cfg(metadata={"hook_name": ["blocks.0.hook_resid_post"]})),
}


@pytest.mark.parametrize("what", list(SETTINGS))
def test_settings_that_cannot_be_followed_are_refused(tmp_path: Path, what: str) -> None:
    (tmp_path / "cfg.json").write_text(SETTINGS[what], encoding="utf-8")
    save_file(good(), tmp_path / "sae_weights.safetensors")
    with pytest.raises(DictionaryError):
        read(f"L0={tmp_path}")


@pytest.mark.parametrize(
    "line",
    [
        "numbers = 0.4*L1N1",  # of another layer
        "numbers = 0.4*L0N9",  # beyond the last neuron
        "numbers = 0.4*L0H1",
        "numbers = 0.4 L0N1",
        "numbers = 0.4*L0N1 0.3*L0N2",
        "numbers 0.4*L0N1",
        "numbers = 0*L0N1",
        "numbers = __import__('os')",
        "numbers = L0N1\nnumbers = L0N2",
        "",
    ],
)
def test_combinations_that_cannot_be_read_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.txt").write_text(line, encoding="utf-8")
    with pytest.raises(DictionaryError):
        read(f"L0={tmp_path / 'a.txt'}")


@pytest.mark.parametrize(
    "asked", ["a.npy", "L2", "L2=", "N2=a.npy", "L2.layer=a.npy", "L2.mlp_in=a.npy", "L2.mlp_in:nowhere=a", "L-1=a.npy"]
)
def test_what_names_no_place_is_refused(asked: str) -> None:
    with pytest.raises(DictionaryError, match="--dictionary"):
        read(asked)


def test_a_vector_needs_a_site_and_its_width(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones(D))
    with pytest.raises(DictionaryError, match=r"L0\.resid_post="):
        read(f"L0={tmp_path / 'a.npy'}")
    np.save(tmp_path / "b.npy", np.ones(D + 1))
    with pytest.raises(DictionaryError, match="4 wide"):
        read(f"L0.resid_post={tmp_path / 'b.npy'}")
    np.save(tmp_path / "c.npy", np.zeros(D))
    with pytest.raises(DictionaryError, match="0 everywhere"):
        read(f"L0.resid_post={tmp_path / 'c.npy'}")
    np.save(tmp_path / "d.npy", np.ones((2, D)))
    with pytest.raises(DictionaryError, match="depend on one another"):
        read(f"L0.resid_post=subspace:{tmp_path / 'd.npy'}")


def test_yaml_is_read_without_making_objects(tmp_path: Path) -> None:
    save_file(good(), tmp_path / "layer_0.safetensors")
    text = "feature_input_hook: !!python/object/apply:os.system ['true']\n"
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(DictionaryError, match=r"config\.yaml"):
        read(f"L0={tmp_path}")
