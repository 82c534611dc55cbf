"""Readers of dictionaries: against what SAELens computed, and each other form against its formula by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from profiler.dictionaries import read as dictionaries
from profiler.dictionaries.dictionary import Dictionary, Place
from profiler.dictionaries.hooks import place_of
from profiler.errors import DictionaryError

WRITTEN = Path(__file__).parents[3] / "shared" / "data" / "dictionaries" / "saelens-6.54.12"
FOLDERS = sorted(folder for folder in WRITTEN.glob("*") if folder.is_dir())
D, UNITS = 6, 10


def width(place: Place) -> int:
    return 8 if place.site == "mlp_post" else D


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"W_enc": (D, UNITS), "W_dec": (UNITS, D), "b_enc": (UNITS,), "b_dec": (D,), "threshold": (UNITS,)}
    made = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return made | {"threshold": made["threshold"].abs()}


def inputs() -> torch.Tensor:
    return torch.randn(7, D, generator=torch.Generator().manual_seed(9))


def read(asked: str) -> Dictionary:
    return dictionaries.read(asked, width)


def save_saelens(folder: Path, cfg: dict, tensors: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(cfg), encoding="utf-8")
    save_file(tensors, folder / "sae_weights.safetensors")
    return folder


@pytest.mark.skipif(not FOLDERS, reason="the folder ../shared/data/dictionaries is not there")
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_features_and_output_are_those_of_saelens_to_the_bit(folder: Path) -> None:
    """SAELens 6.54.12 wrote the weights, and what it makes of 40 activations of a real model."""
    expected = load_file(folder / "expected.safetensors")
    found = dictionaries.read(f"L2={folder}", lambda _: 64)
    x = expected["input"].flatten(1)
    encoded = found.encode(x)
    assert torch.equal(encoded.values, expected["features"])
    assert torch.equal(found.decode(encoded), expected["output"].flatten(1))


@pytest.mark.skipif(not FOLDERS, reason="the folder ../shared/data/dictionaries is not there")
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_units_parts_and_the_rest_are_the_reconstruction(folder: Path) -> None:
    """value * row * factor, over all units, and what is left without any."""
    expected = load_file(folder / "expected.safetensors")
    found = dictionaries.read(f"L2={folder}", lambda _: 64).to(torch.float64, torch.device("cpu"))
    encoded = found.encode(expected["input"].flatten(1).double())
    factor = found.factor(encoded)
    parts = encoded.values @ found.rows * (1.0 if factor is None else factor)
    torch.testing.assert_close(parts + found.rest(encoded), found.decode(encoded), rtol=1e-12, atol=1e-12)


def test_the_flat_form_before_version_6(tmp_path: Path) -> None:
    """hook_point, an activation function by name, factors of fine-tuning."""
    made, x = weights(), inputs()
    del made["threshold"]
    factors = torch.rand(UNITS) + 0.5
    flat = {"hook_point": "blocks.1.hook_resid_pre", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}}
    found = read(f"L1={save_saelens(tmp_path / 'a', flat, made | {'scaling_factor': factors})}")
    before = (x - made["b_dec"]) @ made["W_enc"] + made["b_enc"]
    values = torch.where(before >= before.topk(3).values[:, -1:], before.relu(), 0.0)
    assert (found.reads, found.writes) == (Place(1, "resid_pre"), Place(1, "resid_pre"))
    torch.testing.assert_close(found.encode(x).values, values)
    torch.testing.assert_close(
        found.decode(found.encode(x)), values @ (made["W_dec"] * factors[:, None]) + made["b_dec"]
    )


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_gemma_scope(tmp_path: Path, ending: str) -> None:
    made, x = weights(), inputs()
    if ending == "npz":
        np.savez(tmp_path / "params.npz", **{name: value.numpy() for name, value in made.items()})
    else:
        save_file({name.lower(): value for name, value in made.items()}, tmp_path / "params.safetensors")
        hooks = {"hf_hook_point_in": "model.layers.3.output", "architecture": "jump_relu"}
        (tmp_path / "config.json").write_text(json.dumps(hooks), encoding="utf-8")
    found = read(f"L3{'.resid_post' if ending == 'npz' else ''}={tmp_path}")
    before = x @ made["W_enc"] + made["b_enc"]
    assert found.writes == Place(3, "resid_post")
    torch.testing.assert_close(found.encode(x).values, before.relu() * (before > made["threshold"]))


def test_gemma_scope_2_with_a_skip_connection(tmp_path: Path) -> None:
    """It is multiplied as it stands; a square encoder in small letters is not turned."""
    made = {name.lower(): value for name, value in weights().items()}
    made |= {
        "w_enc": torch.randn(D, D),
        "w_dec": torch.randn(D, D),
        "b_enc": torch.zeros(D),
        "threshold": torch.ones(D),
    }
    made["affine_skip_connection"] = torch.randn(D, D)
    save_file(made, tmp_path / "params.safetensors")
    found, x = read(f"L0.mlp_in:mlp_out={tmp_path}"), inputs()
    values = (x @ made["w_enc"]).relu() * (x @ made["w_enc"] > 1)
    wanted = values @ made["w_dec"] + made["b_dec"] + x @ made["affine_skip_connection"]
    torch.testing.assert_close(found.decode(found.encode(x)), wanted)


@pytest.mark.parametrize("square", [False, True])
def test_circuit_tracer_turns_the_encoder(tmp_path: Path, square: bool) -> None:
    units = D if square else UNITS
    w_enc, w_dec, w_skip = torch.randn(units, D), torch.randn(units, D), torch.randn(D, D)
    made = {"W_enc": w_enc, "W_dec": w_dec, "b_enc": torch.randn(units), "b_dec": torch.randn(D), "W_skip": w_skip}
    save_file(made | {"activation_function.threshold": torch.full((1, units), 0.5)}, tmp_path / "layer_1.safetensors")
    hooks = "feature_input_hook: hook_resid_mid\nfeature_output_hook: hook_mlp_out\n"
    (tmp_path / "config.yaml").write_text(hooks, encoding="utf-8")
    found, x = read(f"L1={tmp_path}"), inputs()
    before = x @ w_enc.T + made["b_enc"]
    values = before.relu() * (before > 0.5)
    assert (found.reads, found.writes) == (Place(1, "resid_mid"), Place(1, "mlp_out"))
    torch.testing.assert_close(found.decode(found.encode(x)), values @ w_dec + made["b_dec"] + x @ w_skip.T)


def test_circuit_tracers_top_k(tmp_path: Path) -> None:
    made = {name: value for name, value in weights().items() if name != "threshold"}
    made |= {"W_enc": made["W_enc"].T.contiguous(), "k": torch.tensor(2)}
    save_file(made, tmp_path / "layer_0.safetensors")
    found = read(f"L0.mlp_in:mlp_out={tmp_path / 'layer_0.safetensors'}")
    assert int((found.encode(inputs()).values > 0).sum(-1).max()) <= 2


def test_a_cross_layer_transcoder_writes_its_layer_and_later_ones(tmp_path: Path) -> None:
    w_enc, w_dec = torch.randn(UNITS, D), torch.randn(UNITS, 2, D)
    encoder = {
        "W_enc_1": w_enc,
        "b_enc_1": torch.randn(UNITS),
        "b_dec_1": torch.zeros(D),
        "threshold_1": torch.rand(UNITS),
    }
    save_file(encoder, tmp_path / "W_enc_1.safetensors")
    save_file({"W_dec_1": w_dec}, tmp_path / "W_dec_1.safetensors")
    found, x = read(f"L1={tmp_path}"), inputs()
    before = x @ w_enc.T + encoder["b_enc_1"]
    assert (found.reads, found.writes) == (Place(1, "resid_mid"), Place(1, "mlp_out"))
    assert [place for place, _ in found.beyond] == [Place(2, "mlp_out")]
    assert not found.rebuilds
    assert torch.equal(found.rows, w_dec[:, 0])
    assert torch.equal(found.beyond[0][1], w_dec[:, 1])
    torch.testing.assert_close(found.encode(x).values, before.relu() * (before > encoder["threshold_1"]))


@pytest.mark.parametrize("ending", ["npy", "npz", "safetensors"])
def test_vectors_are_directions(tmp_path: Path, ending: str) -> None:
    """The value is the projection on the unit vector, and the part of the input along it."""
    vector, x = torch.randn(D), inputs()
    file = tmp_path / f"probe.{ending}"
    if ending == "npy":
        np.save(file, vector.numpy())
    elif ending == "npz":
        np.savez(file, probe=vector.numpy())
    else:
        save_file({"probe": vector}, file)
    found = read(f"L1.resid_post={file}")
    unit = vector.double() / vector.double().norm()
    x = x.double()
    assert (found.kind, found.names) == ("direction", ("array" if ending == "npy" else "probe",))
    torch.testing.assert_close(found.encode(x).values[:, 0], x @ unit)
    torch.testing.assert_close(found.encode(x).values @ found.rows, (x @ unit)[:, None] * unit)


def test_combinations_of_neurons_have_the_value_that_is_written(tmp_path: Path) -> None:
    file = tmp_path / "some.txt"
    file.write_text("# two\nnumbers = 0.4*L2N1 + 0.3*L2N7\nquotes = L2N0 - 2e-1 * L2N3  # less\n", encoding="utf-8")
    found, x = read(f"L2={file}"), torch.randn(5, 8, dtype=torch.float64)
    assert found.names == ("numbers", "quotes")
    assert found.reads == found.writes == Place(2, "mlp_post")
    values = found.encode(x).values
    torch.testing.assert_close(values, torch.stack([0.4 * x[:, 1] + 0.3 * x[:, 7], x[:, 0] - 0.2 * x[:, 3]], 1))
    part = values[:, :1] * found.rows[0]
    torch.testing.assert_close(part @ found.w_enc[:, 0], values[:, 0], msg="the part holds all of the value")
    assert not bool(part[:, [0, 2, 3, 4, 5, 6]].any())


@pytest.mark.parametrize("turned", [False, True])
def test_a_subspace_is_made_orthonormal(tmp_path: Path, turned: bool) -> None:
    """Along whichever side is as wide as the site; its part is the projection."""
    rows, x = torch.randn(3, D, dtype=torch.float64), inputs().double()
    save_file({"rotation": (rows.T if turned else rows).contiguous()}, tmp_path / "rotation.safetensors")
    found = read(f"L0.resid_pre={tmp_path / 'rotation.safetensors'}")
    projector = torch.linalg.pinv(rows) @ rows
    assert (found.kind, found.units) == ("subspace", 1)
    torch.testing.assert_close(found.encode(x).values @ found.rows, x @ projector)
    np.save(tmp_path / "matrix.npy", rows.numpy())
    named = read(f"L0.resid_pre=subspace:{tmp_path / 'matrix.npy'}")
    torch.testing.assert_close(named.encode(x).values.norm(dim=1), (x @ projector).norm(dim=1))


def test_the_digest_is_of_the_bytes_and_of_the_site(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones(D))
    np.save(tmp_path / "b.npy", np.arange(D) + 1.0)
    digests = [read(f"L1.{asked}").digest for asked in (f"resid_post={tmp_path}/a.npy", f"resid_pre={tmp_path}/a.npy")]
    digests.append(read(f"L1.resid_post={tmp_path}/b.npy").digest)
    assert len(set(digests)) == 3
    (tmp_path / "c").mkdir()
    (tmp_path / "a.npy").rename(tmp_path / "c" / "a.npy")
    assert read(f"L1.resid_post={tmp_path}/c/a.npy").digest == digests[0]


@pytest.mark.parametrize(
    ("hook", "place"),
    [
        ("blocks.5.hook_mlp_out", Place(5, "mlp_out")),
        ("blocks.0.attn.hook_z", Place(0, "attn_z")),
        ("blocks.11.ln2.hook_normalized", Place(11, "mlp_normalized")),
        ("model.layers.5.pre_feedforward_layernorm.output", Place(5, "mlp_in")),
        ("model.language_model.layers.40.output", Place(40, "resid_post")),
    ],
)
def test_hooks_are_sites(hook: str, place: Place) -> None:
    assert place_of(hook) == place


@pytest.mark.parametrize("hook", ["blocks.5.attn.hook_q", "hook_embed", "blocks.x.hook_mlp_out", ""])
def test_other_hooks_are_refused(hook: str) -> None:
    with pytest.raises(DictionaryError, match="no site that is known"):
        place_of(hook)
