"""A model directory from a stranger: it holds numbers and words, and whatever else it holds is refused in a sentence
and not run."""

import json
import os
import shutil
from pathlib import Path

import pytest
import tiny
from safetensors.torch import load_file, save_file

from profiler.bundled.scores import load_scored_model
from profiler.config import RunConfig
from profiler.errors import ModelError
from profiler.model import files
from profiler.model.load import load_model

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(model_dirs, tmp_path) -> Path:
    """A good directory, to be spoilt."""
    return Path(shutil.copytree(model_dirs["gpt2"], tmp_path / "model"))


def loads(folder: Path, **rights: bool) -> None:
    load_model(RunConfig(model=str(folder), corpora=("none",), **rights))


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def shard(folder: Path, name: str) -> None:
    """The weights in a file that an index names."""
    weights = load_file(folder / "model.safetensors")
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights, name)}))
    (folder / "model.safetensors").unlink()
    if "\x00" not in name:
        save_file(weights, folder / name, {"format": "pt"})


def code(folder: Path) -> Path:
    """Code beside the model that leaves a file where it is run; that file."""
    mark = folder.with_name("pwned")
    text = f"open({str(mark)!r}, 'w').write('x')\nclass Evil: pass\n"
    for name in (
        "evil.py",
        "custom_generate/generate.py",
        "configuration_gpt2.py",
        "modeling_gpt2.py",
        "setup.py",
        "conftest.py",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "chat_template.jinja").write_text(
        "{{ cycler.__init__.__globals__.os.system('touch " + str(mark) + "') }}"
    )
    own = dict.fromkeys(("AutoConfig", "AutoModelForCausalLM"), "evil.Evil")
    edit(folder / "config.json", auto_map=own)
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]})
    for name in ("training_args.bin", "pytorch_model.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (folder / name).write_bytes(b"cos\nsystem\n(S'touch " + str(mark).encode() + b"'\ntR.")
    return mark


@pytest.mark.parametrize("kind", [None, "evil"])
@pytest.mark.parametrize("load", [loads, lambda folder: load_scored_model(str(folder))])
def test_code_beside_a_model_is_not_run(load, kind, folder, monkeypatch):
    """Nor is it asked for at the terminal: a model of a kind that transformers knows loads, another is refused."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked at the terminal"))
    mark = code(folder)
    if kind is None:
        load(folder)
    else:
        edit(folder / "config.json", model_type=kind)
        with pytest.raises(ModelError):
            load(folder)
    assert not mark.exists()


@pytest.mark.parametrize("load", [loads, lambda folder: load_scored_model(str(folder))])
def test_pickled_weights_are_not_loaded_unasked(load, folder):
    mark = code(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError):
        load(folder)
    assert not mark.exists()


@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors",
        "sub/model.safetensors",
        "/etc/hostname",
        "..\\model.safetensors",
        "C:\\model.safetensors",
        "weights.bin",
        "",
        "..",
    ],
)
def test_an_index_names_weights_of_the_model_alone(name, folder):
    (folder / "sub").mkdir()
    weights = load_file(folder / "model.safetensors")
    for place in (folder.parent, folder / "sub"):
        save_file(weights, place / "model.safetensors", {"format": "pt"})
    (folder / "model.safetensors").unlink()
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights, name)}))
    with pytest.raises(ModelError, match=r"one of the model's own"):
        loads(folder)


def test_shards_of_the_model_are_loaded(folder):
    shard(folder, "model-00001-of-00001.safetensors")
    loads(folder)


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/x.safetensors", "evil.bin", "../x.safetensors.index.json", 3]
)
def test_a_configuration_names_weights_of_the_model_alone(name, folder):
    edit(folder / "config.json", transformers_weights=name)
    with pytest.raises(ModelError, match=r"transformers_weights|one of the model's own"):
        loads(folder)


@pytest.mark.parametrize("key", files.KERNELS)
@pytest.mark.parametrize("value", ["evil/kernel", "evil/kernel@main:run", {"": "evil/kernel"}])
def test_a_kernel_of_the_hub_is_not_fetched(key, value, folder):
    edit(folder / "config.json", **{key: value})
    with pytest.raises(ModelError, match="code to fetch"):
        loads(folder)


def test_an_adapter_names_another_model_and_is_refused(folder):
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/etc", "peft_type": "LORA"}))
    with pytest.raises(ModelError, match="is a LoRA adapter of"):
        loads(folder)


@pytest.mark.parametrize(
    "name", ["card.md", "tokenizer.json", "config.json", "chat_template.jinja", "generation_config.json"]
)
def test_a_link_out_of_the_directory_is_refused(name, folder):
    """The card goes into the run: a link to a key would be given away with it."""
    secret = folder.with_name("secret")
    secret.write_text("key")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(secret)
    with pytest.raises(ModelError, match="outside the directory"):
        loads(folder)


def test_links_inside_and_of_weights_and_of_the_hubs_cache_are_followed(folder, tmp_path):
    weights = tmp_path / "elsewhere.safetensors"
    (folder / "model.safetensors").rename(weights)
    (folder / "model.safetensors").symlink_to(weights)
    (folder / "config.json").rename(folder / "c.json")
    (folder / "config.json").symlink_to("c.json")
    files.check(str(folder))
    blobs, snapshot = tmp_path / "models--x" / "blobs", tmp_path / "models--x" / "snapshots" / "abc"
    blobs.mkdir(parents=True), snapshot.mkdir(parents=True)
    shutil.copy(folder / "c.json", blobs / "1f")
    (snapshot / "config.json").symlink_to("../../blobs/1f")
    files.check(str(snapshot))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_that_would_never_end_is_refused(folder):
    (folder / "tokenizer.json").unlink()
    os.mkfifo(folder / "tokenizer.json")
    with pytest.raises(ModelError, match="is no file"):
        loads(folder)


def test_a_tokenizer_that_would_fill_the_memory_is_refused(folder):
    with (folder / "tokenizer.json").open("r+b") as file:
        file.truncate(files.LARGEST_TEXT + 1)
    with pytest.raises(ModelError, match="MB, at most"):
        loads(folder)


@pytest.mark.parametrize(
    "name",
    ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", INDEX, "model.safetensors"],
)
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"3",
        b'"x"',
        b"\xff\xfe",
        b"{",
        b"[" * 100_000,
        b'{"model": 3}',
        b'{"weight_map": 3, "n_layer": "x"}',
    ],
)
def test_any_bytes_in_any_file_load_or_are_one_sentence(name, data, folder):
    if name == INDEX:
        (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(data)
    try:
        loads(folder)
    except ModelError as error:
        assert "Traceback" not in str(error)


def test_a_tokenizer_that_breaks_in_rust_is_one_sentence(folder):
    found = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    found["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": "(((("}, "behavior": "Isolated", "invert": False}
    (folder / "tokenizer.json").write_text(json.dumps(found))
    with pytest.raises(ModelError):
        loads(folder)


def test_text_of_a_model_is_text(folder):
    """Escapes in names that a run will show: they are values, and the pass does not mind."""
    assert tiny.END
    edit(folder / "config.json", architectures=["\x1b]52;c;eA==\x07"])
    loads(folder)
