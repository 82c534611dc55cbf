"""Every broken model directory ends in one sentence that names the cause, and nothing is left behind."""

import json
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
import transformers
import zoo
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from profiler.cli import main
from profiler.config import RunConfig
from profiler.errors import ModelError
from profiler.model.load import load_model

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 12345\n"
SHAPE = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
Make = Callable[[Path], object]


def settings(family: str = "llama", **fields: object) -> Make:
    """A good directory whose config.json says something else."""

    def make(folder: Path) -> None:
        file = tiny.save(family, folder) / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return make


def tensor(name: str, value: torch.Tensor) -> Make:
    """A good directory with another tensor in it."""

    def make(folder: Path) -> None:
        file = tiny.save("llama", folder) / "model.safetensors"
        save_file(load_file(file) | {name: value}, file, metadata={"format": "pt"})

    return make


def written(name: str, change: Callable[[bytes], bytes | None]) -> Make:
    """A good directory one of whose files has other bytes, or is not there."""

    def make(folder: Path) -> None:
        file = tiny.save("llama", folder) / name
        if (data := change(file.read_bytes())) is None:
            file.unlink()
        else:
            file.write_bytes(data)

    return make


def shards(spoil: Callable[[Path], object]) -> Make:
    """A directory of several weight files, the second of them spoilt."""

    def make(folder: Path) -> None:
        tiny.network("llama").save_pretrained(folder, max_shard_size="20KB")
        tiny.tokenizer().save_pretrained(folder)
        spoil(sorted(folder.glob("model-*.safetensors"))[1])

    return make


def network(build: Callable[[], PreTrainedModel]) -> Make:
    """A directory of another kind of model."""

    def make(folder: Path) -> None:
        build().save_pretrained(folder)
        tiny.tokenizer().save_pretrained(folder)

    return make


def adapter(folder: Path) -> None:
    folder.mkdir()
    given = {"peft_type": "LORA", "base_model_name_or_path": "big/model", "r": 4}
    (folder / "adapter_config.json").write_text(json.dumps(given))
    save_file({"base_model.model.x.lora_A.weight": torch.ones(4, 16)}, folder / "adapter_model.safetensors")


def more_tokens(folder: Path) -> None:
    tiny.save("llama", folder)
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens([f"<extra{i}>" for i in range(10)])
    tokenizer.save_pretrained(folder)


def no_tokenizer(folder: Path) -> None:
    tiny.network("llama").save_pretrained(folder)


def renamed(name: str) -> Make:
    def make(folder: Path) -> None:
        (tiny.save("llama", folder) / "model.safetensors").rename(folder / name)

    return make


def other(model: str, config: str, **fields: object) -> Make:
    return network(lambda: getattr(transformers, model)(getattr(transformers, config)(**fields)))


BROKEN: dict[str, tuple[Make, str]] = {
    "LoRA adapter": (adapter, "is a LoRA adapter of 'big/model'.*merge it into that model"),
    "LFS pointer": (written("model.safetensors", lambda _: POINTER.encode()), "is a Git-LFS pointer.*git lfs pull"),
    "LFS pointer of a shard": (shards(lambda f: f.write_text(POINTER)), "model-00002-of-00003.*Git-LFS pointer"),
    "LFS pointer of the tokenizer": (written("tokenizer.json", lambda _: POINTER.encode()), "tokenizer.json.*Git-LFS"),
    "weights cut in the header": (written("model.safetensors", lambda b: b[:10]), "10 bytes and no whole header"),
    "weights cut off": (written("model.safetensors", lambda b: b[:9000]), "is cut off: its header declares"),
    "empty weights": (written("model.safetensors", lambda _: b""), "0 bytes and no whole header"),
    "missing shard": (shards(lambda f: f.unlink()), "lacks model-00002-of-00003.safetensors, which its index"),
    "no weights": (written("model.safetensors", lambda _: None), "has no weights: put model.safetensors"),
    "weights of another program": (renamed("model.gguf"), "model.gguf is for another program"),
    "pickled weights": (renamed("pytorch_model.bin"), "are pickled .*--allow-pickle"),
    "no settings": (written("config.json", lambda _: None), "has no config.json"),
    "no tokenizer": (no_tokenizer, "has no tokenizer that can be read"),
    "tokens added": (more_tokens, "token ids up to 266, its model knows 0 to 256"),
    "text for a number": (settings(num_hidden_layers="two"), r"num_hidden_layers is 'two' \(str\), expected int"),
    "list for a number": (settings(hidden_size=[16]), r"hidden_size is \[16\] \(list\), expected int"),
    "nothing for a number": (settings(num_attention_heads=None), r"num_attention_heads is None .*expected int"),
    "text for a float": (settings(rms_norm_eps="small"), r"rms_norm_eps is 'small' \(str\), expected float"),
    "number for an object": (settings(rope_parameters=3), r"rope_parameters is 3 \(int\), expected RopeParameters or"),
    "unknown activation": (settings(hidden_act="nosuch"), "its field 'hidden_act' is at fault"),
    "unknown rotary embedding": (settings(rope_parameters={"rope_type": "x"}), "'rope_parameters' is at fault"),
    "no heads": (settings(num_attention_heads=0), "num_attention_heads is 0, expected 1 or more"),
    "no heads of gpt2": (settings("gpt2", n_head=0), "n_head is 0, expected 1 or more"),
    "no key heads": (settings(num_key_value_heads=0), "its field 'num_key_value_heads' is at fault"),
    "no layers": (settings(num_hidden_layers=0), "num_hidden_layers is 0, expected 1 or more"),
    "no vocabulary": (settings(vocab_size=0), "vocab_size is 0, expected 1 or more"),
    "no positions": (settings(max_position_embeddings=0), "max_position_embeddings is 0, expected 1 or more"),
    "width of a head 0": (settings(head_dim=0), "its field 'head_dim' is at fault"),
    "negative size": (settings(intermediate_size=-24), "intermediate_size is -24, expected 0 to"),
    "absurdly many layers": (settings(num_hidden_layers=10**9), "num_hidden_layers is 1,000,000,000, expected 0 to"),
    "many layers": (settings(num_hidden_layers=10_000), "asks for 10,000 layers, and its weight files hold 21 tensors"),
    "10^12 weights": (settings(hidden_size=10**6, intermediate_size=10**6), "asks for 6,000,.* weights.*hold 12,144"),
    "absurd vocabulary": (
        settings(vocab_size=10**12),
        r"lm_head.weight \(\[1000000000000, 16\] asked for, \[257, 16\]",
    ),
    "absurd context": (settings("gpt2", n_positions=10**7), r"wpe.weight \(\[10000000, 16\] asked for"),
    "tensor of no dimension": (tensor("model.norm.weight", torch.tensor(1.0)), r"model.norm.weight \(\[\] in the"),
    "empty tensor": (tensor("model.norm.weight", torch.zeros(0)), r"model.norm.weight \(\[0\] in the checkpoint"),
    "packed tensor": (tensor("model.norm.weight", torch.ones(16, dtype=torch.int8)), r"model.norm.weight \(I8\)"),
    "NaN": (tensor("model.norm.weight", torch.full((16,), torch.nan)), r"NaN or infinity.*model.norm.weight \(16\)"),
    "infinity": (tensor("model.norm.weight", torch.full((16,), torch.inf)), r"NaN or infinity.*norm.weight \(16\)"),
    "quantised": (settings(quantization_config={"quant_method": "gptq", "bits": 4}), r"are quantised \(gptq\)"),
    "quantised somehow": (settings(quantization_config="x"), r"quantization_config is 'x' \(str\), expected dict"),
    "unknown kind": (settings(model_type="nosuch"), "model type `nosuch`"),
    "kind that is a number": (settings(model_type=3), r"model_type is 3 \(int\), expected str"),
    "field that hides a method": (settings(to_dict=1), "has a field 'to_dict', which is no setting"),
    "field of Python": (settings(__class__=1), "has a field '__class__', which is no setting"),
    "another form of output": (settings(return_dict=False), "does not run on a few tokens"),
    "encoder-decoder": (
        other("T5ForConditionalGeneration", "T5Config", d_model=16, d_kv=8, d_ff=24, num_layers=1, vocab_size=257),
        "T5ForConditionalGeneration.* is an encoder-decoder",
    ),
    "masked language model": (
        other("BertForMaskedLM", "BertConfig", vocab_size=257, **SHAPE),
        "BertForMaskedLM.* is a masked language model",
    ),
    "classifier": (
        other("LlamaForSequenceClassification", "LlamaConfig", vocab_size=257, **SHAPE),
        "saved with another head than an unembedding",
    ),
    "image model": (other("ViTModel", "ViTConfig", **SHAPE), "ViTModel.* is no causal language model"),
    "no layers at all": (
        other("LlamaForCausalLM", "LlamaConfig", vocab_size=257, **SHAPE | {"num_hidden_layers": 0}),
        "num_hidden_layers is 0",
    ),
    "a file": (lambda folder: folder.write_text("x"), "is a file: give a directory"),
    "nothing": (lambda _: None, "is not there: give a directory"),
    "an empty directory": (lambda folder: folder.mkdir(), "has no config.json"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_directory_is_refused_in_one_sentence(case, tmp_path, corpus_file, monkeypatch, capsys):
    make, message = BROKEN[case]
    make(tmp_path / "model")
    before = tiny.names(tmp_path)
    out = str(tmp_path / "run.duckdb")
    command = ["record", str(tmp_path / "model"), "--corpus", str(corpus_file), "--tokens", "300", "--out", out]
    monkeypatch.setattr(sys, "argv", ["profiler", *command])
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main()
    error = " ".join(capsys.readouterr().err.split())
    assert end.value.code == 1
    assert error.count("profiler:") == 1 and "Traceback" not in error
    assert re.search(message, error), error
    assert tiny.names(tmp_path) == before


FAMILIES = ("gpt2", "llama2", "gemma3", "opt", "bloom", "lfm2", "deepseek_v3")
VALUES = (
    *(0, -1, 1, 2, 3, 7, 10**6, 10**12, 10**30, 0.0, 0.5, -2.5, 1e300, float("nan"), float("inf")),
    *(None, True, False, "", "x", "\x00", "relu", "1", [], [1], [None], {}, {"a": 1}, ["full_attention"]),
    *({"rope_type": "x"}, {"rope_theta": "x"}, [[["global"], 1]], "../../etc/passwd", "evil/kernel"),
)
FIELDS = (
    *("is_encoder_decoder", "tie_word_embeddings", "dtype", "num_key_value_heads", "head_dim", "return_dict"),
    *(
        "output_attentions",
        "attn_implementation",
        "quantization_config",
        "sliding_window",
        "text_config",
        "layer_types",
    ),
)


def spoilt(rng: random.Random, given: dict[str, object]) -> dict[str, object]:
    """Settings of which one or two are others, or gone."""
    changed = dict(given)
    for _ in range(rng.choice((1, 1, 2))):
        key = rng.choice((*sorted(given), *FIELDS))
        changed[key] = rng.choice(VALUES)
        if rng.random() < 0.15:
            del changed[key]
    return changed


def all_load_or_are_refused(folder: Path, families: tuple[str, ...], draws: int, seed: int) -> None:
    rng = random.Random(seed)
    for family in families:
        zoo.build(family, torch.float32).save_pretrained(folder / family)
        tiny.tokenizer().save_pretrained(folder / family)
        file = folder / family / "config.json"
        given = json.loads(file.read_text())
        for _ in range(draws):
            changed = spoilt(rng, given)
            file.write_text(json.dumps(changed))
            keys = [key for key in given | changed if changed.get(key) != given.get(key)]
            different = {key: changed.get(key, "taken out") for key in keys}
            dtype = rng.choice(("float32", "float64"))
            try:
                load_model(RunConfig(model=str(folder / family), corpora=("none",), dtype=dtype))
            except ModelError as error:
                assert "Traceback" not in str(error)
            except Exception as error:
                raise AssertionError(f"{family} with {different}") from error


def test_no_settings_give_a_traceback(tmp_path):
    all_load_or_are_refused(tmp_path, FAMILIES[:2], 12, 0)


@pytest.mark.monthly
def test_no_settings_of_many_families_give_a_traceback(tmp_path):
    all_load_or_are_refused(tmp_path, tuple(zoo.FAMILIES), 12, 1)
