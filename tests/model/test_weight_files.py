"""Checkpoints that are not whole are refused by name; what transformers only warns about is an error or a note."""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
import tiny
import torch
import zoo
from live_bytes import LiveBytes
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertLMHeadModel,
    CodeGenConfig,
    CodeGenForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    GPTJConfig,
    GPTJForCausalLM,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
)

from profiler.bundled.scores import load_scored_model
from profiler.cli import main
from profiler.config import RunConfig
from profiler.errors import ModelError
from profiler.model.forward import Wanted
from profiler.model.load import _weights_hash, load_model
from profiler.model.weight_files import read_network, stored_dtypes, unknown_fields
from profiler.recording.pipeline import Pass, record
from profiler.recording.tables import logit_effects
from profiler.recording.write import Rows

Tensors = dict[str, Tensor]
MASK = torch.ones(1, 1, 48, 48)


def rewritten(folder: Path, change: Callable[[Tensors], Tensors]) -> Path:
    """A saved model, or one of its files, whose tensors are others."""
    file = folder / "model.safetensors" if folder.is_dir() else folder
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return folder


def settings_changed(folder: Path, **fields) -> Path:
    """A saved model whose config.json says something else."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    return folder


def loaded(folder: Path, **settings):
    """What every command loads."""
    return load_model(RunConfig(model=str(folder), corpora=("none",), **settings))


def command(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys) -> tuple[int, str, str]:
    """Exit code, output and error of a command line, white space folded."""
    monkeypatch.setattr(sys, "argv", ["profiler", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = (" ".join(text.split()) for text in capsys.readouterr())
    return end.value.code or 0, out, err


def first_half(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {name: tensors[name][:8].clone()}


BROKEN = {
    "prefix": (
        "llama",
        lambda t: {f"_orig_mod.{k}": v for k, v in t.items()},
        r"21 are missing .*: lm_head\.weight, .*and 17 more; 21 are in the checkpoint and not in LlamaForCausalLM: "
        r"_orig_mod\.lm_head\.weight.*with '_orig_mod\.' before its name",
    ),
    "no unembedding": (
        "neox",
        lambda t: {k: v for k, v in t.items() if k != "embed_out.weight"},
        r"1 is missing from the checkpoint: (embed_out|lm_head)\.weight\. These would be random",
    ),
    "no embedding of a tied pair": (
        "gpt2",
        lambda t: {k: v for k, v in t.items() if k != "transformer.wte.weight"},
        r"missing from the checkpoint: .*wte\.weight",
    ),
    "a bias too few": (
        "gpt2",
        lambda t: {k: v for k, v in t.items() if k != "transformer.h.1.mlp.c_fc.bias"},
        r"1 is missing from the checkpoint: transformer\.h\.1\.mlp\.c_fc\.bias",
    ),
    "a head too many": (
        "llama",
        lambda t: t | {"v_head.weight": torch.ones(3)},
        r"1 is in the checkpoint and not in LlamaForCausalLM: v_head\.weight\. Take the unexpected",
    ),
    "shape": (
        "llama",
        first_half("model.norm.weight"),
        r"1 is of another shape: model\.norm\.weight \(\[8\] in the checkpoint, \[16\] in the model\)",
    ),
    "nan": (
        "gpt2",
        lambda t: t | {"transformer.h.0.ln_1.bias": torch.full((16,), torch.nan)},
        r"hold NaN or infinity: 16 values in 1 of its tensors, transformer\.h\.0\.ln_1\.bias \(16\)",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_checkpoint_that_is_not_whole_is_refused_with_the_names(case, tmp_path):
    name, change, message = BROKEN[case]
    folder = rewritten(tiny.save(name, tmp_path / "model"), change)
    with pytest.raises(ModelError, match=message):
        loaded(folder)
    with pytest.raises(ModelError, match=message):
        load_scored_model(str(folder))


def test_the_command_line_refuses_before_anything_is_written(tmp_path, corpus_file, monkeypatch, capsys):
    folder = rewritten(tiny.save("llama", tmp_path / "model"), BROKEN["prefix"][1])
    arguments = [
        "record",
        str(folder),
        "--corpus",
        str(corpus_file),
        "--tokens",
        "300",
        "--out",
        str(tmp_path / "run.duckdb"),
    ]
    code, _, error = command(arguments, monkeypatch, capsys)
    assert code == 1 and "is not read whole" in error
    assert tiny.names(tmp_path) == ["model"]


SMALL = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 48, **tiny.SIZES}
OLD = {
    "gpt2": (tiny.ARCHITECTURES["gpt2"], ("h.0.attn.bias", "h.0.attn.masked_bias"), "transformer."),
    "neox": (
        tiny.ARCHITECTURES["neox"],
        tuple(f"gpt_neox.layers.0.attention.{n}" for n in ("bias", "masked_bias", "rotary_emb.inv_freq")),
        "",
    ),
    "llama": (tiny.ARCHITECTURES["llama"], ("model.layers.1.self_attn.rotary_emb.inv_freq",), ""),
    "gptj": (
        lambda: GPTJForCausalLM(GPTJConfig(rotary_dim=8, **SMALL)),
        ("transformer.h.0.attn.bias", "transformer.h.0.attn.masked_bias"),
        "",
    ),
    "codegen": (
        lambda: CodeGenForCausalLM(CodeGenConfig(rotary_dim=8, **SMALL | {"n_head": 4})),
        ("transformer.h.0.attn.causal_mask",),
        "",
    ),
    "gpt_neo": (
        lambda: GPTNeoForCausalLM(
            GPTNeoConfig(
                hidden_size=16,
                num_layers=1,
                num_heads=2,
                max_position_embeddings=48,
                attention_types=[[["global"], 1]],
                **tiny.SIZES,
            )
        ),
        ("transformer.h.0.attn.attention.bias", "transformer.h.0.attn.attention.masked_bias"),
        "",
    ),
    "falcon": (
        lambda: FalconForCausalLM(
            FalconConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, **tiny.SIZES)
        ),
        ("transformer.h.0.self_attention.maybe_rotary.inv_freq",),
        "",
    ),
}


@pytest.mark.parametrize("name", OLD)
def test_buffers_of_old_checkpoints_and_tied_tensors_are_no_reason_to_refuse(name, tmp_path):
    """As the hub has them: masks and rotary frequencies beside the weights, GPT-2's names without their prefix."""
    build, buffers, prefix = OLD[name]
    torch.manual_seed(0)
    network = build()
    network.save_pretrained(tmp_path)
    rewritten(
        tmp_path, lambda t: {k.removeprefix(prefix): v for k, v in t.items()} | {k: MASK.clone() for k in buffers}
    )
    read, _ = read_network("old", str(tmp_path), torch.float32)
    wanted = network.state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in read.state_dict().items())


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_a_whole_checkpoint_has_no_notes(name, tmp_path):
    assert loaded(tiny.save(name, tmp_path)).spec.notes == ()


def test_a_checkpoint_in_several_files_is_read_whole_or_refused(tmp_path):
    network = tiny.network("llama")
    network.double().save_pretrained(tmp_path, max_shard_size="20KB")
    tiny.tokenizer().save_pretrained(tmp_path)
    files = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(files) > 1 and stored_dtypes(str(tmp_path)) == {torch.float64}
    read = loaded(tmp_path, dtype="float64")
    assert read.spec.notes == ()
    rewritten(files[0], lambda tensors: dict(list(tensors.items())[1:]))
    with pytest.raises(ModelError, match="1 is missing from the checkpoint"):
        loaded(tmp_path)
    files[1].unlink()
    with pytest.raises(ModelError, match=r"lacks model-00002-of-.*, which its index"):
        loaded(tmp_path)


def test_an_adapter_is_refused(tmp_path):
    folder = tiny.save("gpt2", tmp_path)
    (folder / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "big/model", "peft_type": "LORA"})
    )
    with pytest.raises(ModelError, match=r"is a LoRA adapter of 'big/model'.*merge it"):
        loaded(folder)


def test_quantised_weights_are_refused(tmp_path):
    """transformers would dequantise some kinds without a word, and read others as they are."""
    folder = settings_changed(tiny.save("llama", tmp_path), quantization_config={"quant_method": "fp8"})
    with pytest.raises(ModelError, match=r"are quantised \(fp8\)"):
        loaded(folder)


def test_an_empty_tokenizer_is_refused(tmp_path):
    """transformers makes one of nothing but `<|endoftext|>` where a GPT-2 has no tokenizer files."""
    tiny.network("gpt2").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"no tokens but its special ones"):
        loaded(tmp_path)


def test_a_prediction_head_is_refused(tmp_path):
    """BERT's unembedding reads what a matrix and a nonlinearity made of the last layer."""
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    network = BertLMHeadModel(BertConfig(max_position_embeddings=48, vocab_size=257, is_decoder=True, **shape))
    network.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="a prediction head stands between the last layer and the unembedding"):
        loaded(tmp_path)


def test_a_model_that_looks_ahead_is_refused(tmp_path):
    """An embedding model's configuration: a decoder's weights, and attention in both directions."""
    zoo.build("gemma3", torch.float32).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    loaded(tmp_path)
    settings_changed(tmp_path, use_bidirectional_attention=True)
    with pytest.raises(ModelError, match="attend to what comes after them"):
        loaded(tmp_path)


def test_windows_longer_than_the_models_positions_are_refused(tmp_path):
    """They were cut to what the model knows, without a word."""
    folder = tiny.save("gpt2", tmp_path)
    assert loaded(folder, context_length=48).spec.context_length == 48
    with pytest.raises(ModelError, match=r"--context-length 49 is longer than the 48 positions"):
        loaded(folder, context_length=49)


def test_weights_that_are_rounded_are_noted_in_the_run(tmp_path, corpus_file, monkeypatch, capsys):
    folder = rewritten(tiny.save("gpt2", tmp_path / "model"), lambda t: {k: v.double() for k, v in t.items()})
    assert stored_dtypes(str(folder)) == {torch.float64}
    note = "weights stored as float64 are rounded to float32; --dtype float64 keeps them as they are"
    assert loaded(folder, dtype="float64").spec.notes == ()
    assert loaded(folder).spec.notes == (note,)
    record(
        RunConfig(model=str(folder), corpora=(str(corpus_file),), tokens=300, dense_positions=20),
        tmp_path / "run.duckdb",
    )
    with duckdb.connect(str(tmp_path / "run.duckdb"), read_only=True) as run:
        assert run.execute("SELECT model_notes FROM runs").fetchone() == ([note],)
    code, out, _ = command(["info", str(tmp_path / "run.duckdb")], monkeypatch, capsys)
    assert code == 0 and "are rounded to float32" in out


def test_what_a_narrow_dtype_cannot_hold_is_refused(tmp_path):
    folder = rewritten(tiny.save("gpt2", tmp_path), lambda t: t | {"transformer.h.0.ln_1.bias": torch.full((16,), 1e6)})
    with pytest.raises(ModelError, match=r"16 values .*are too large for float16: try --dtype float32"):
        loaded(folder, dtype="float16")


def test_bfloat16_weights_fit_into_float32(tmp_path):
    folder = rewritten(tiny.save("gpt2", tmp_path), lambda t: {k: v.bfloat16() for k, v in t.items()})
    assert loaded(folder).spec.notes == ()
    assert loaded(folder, dtype="float16").spec.notes == (
        "weights stored as bfloat16 are rounded to float16; --dtype bfloat16 keeps them as they are",
    )


def test_fields_that_no_settings_declare_are_noted(tmp_path):
    folder = settings_changed(tiny.save("gpt2", tmp_path), layer_norm_epsilonn=3.0, n_ctx=48)
    [note] = loaded(folder).spec.notes
    assert (
        note
        == "fields of config.json that GPT2Config does not declare: layer_norm_epsilonn, n_ctx; a misspelt one changes"
        " nothing"
    )
    assert unknown_fields(AutoModelForCausalLM.from_pretrained(tiny.save("llama", tmp_path / "llama")).config) == []


def test_embeddings_that_are_tied_in_the_settings_alone_are_noted(tmp_path):
    folder = tiny.save("gpt2", tmp_path)
    rewritten(folder, lambda t: t | {"lm_head.weight": t["transformer.wte.weight"] + 1})
    assert any("two different matrices" in note for note in loaded(folder).spec.notes)


def test_weights_are_read_onto_the_device_by_accelerate_where_it_is_installed(tmp_path, monkeypatch):
    """The same model, hash and logits; refused where accelerate is missing."""
    folder = tiny.save("llama", tmp_path)
    plain = loaded(folder, dtype="bfloat16")
    monkeypatch.setattr("profiler.model.load.find_spec", lambda _: None)
    with pytest.raises(ModelError, match="--device-map needs accelerate"):
        loaded(folder, device_map="auto")
    monkeypatch.undo()
    pytest.importorskip("accelerate")
    placed = loaded(folder, dtype="bfloat16", device_map="auto")
    assert placed.spec == plain.spec
    assert {str(weight.device) for weight in placed.network.parameters()} == {"cpu"}
    tokens = torch.arange(10)[None]
    rows = (torch.zeros(10, dtype=torch.int64), torch.arange(10))
    assert torch.equal(placed.run(tokens, Wanted(rows)).logits, plain.run(tokens, Wanted(rows)).logits)


def test_weights_are_read_onto_the_device_of_the_pass_however_many_there_are(tmp_path, monkeypatch):
    """Accelerate's own choice would spread the model over all cards; a device that is not there is one sentence."""
    pytest.importorskip("accelerate")
    folder, asked = tiny.save("llama", tmp_path), []

    def from_pretrained(*arguments, own=AutoModelForCausalLM.from_pretrained, **options):
        asked.append(options["device_map"])
        return own(*arguments, **options | {"device_map": {"": "cpu"}})

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)
    config = RunConfig(model=str(folder), corpora=("none",), device="cuda:1", device_map="auto")
    with pytest.raises(ModelError, match="--device cuda:1 cannot be used here") as caught:
        load_model(config)
    assert asked == [{"": "cuda:1"}]
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    with pytest.raises(ModelError) as caught:
        load_model(config)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", pytest.param("qwen2_moe", marks=pytest.mark.monthly)])
def test_a_half_precision_models_weights_are_not_copied_into_float32(family, tmp_path):
    """Neither loading nor a pass nor the effects of neurons hold float32 numbers for more than a part of the weights
    at once: of all tensors together, not of each alone."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 16, "num_attention_heads": 2, "max_position_embeddings": 48}
    sizes["num_key_value_heads"] = 2
    makers = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(intermediate_size=256, **sizes, **tiny.SIZES)),
        "qwen2_moe": lambda: Qwen2MoeForCausalLM(
            Qwen2MoeConfig(
                moe_intermediate_size=64, shared_expert_intermediate_size=64, num_experts=4, **sizes, **tiny.SIZES
            )
        ),
    }
    torch.manual_seed(0)
    makers[family]().bfloat16().save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    corpus = tiny.write_corpus(tmp_path / "corpus.jsonl", n_documents=8)
    config = RunConfig(
        model=str(tmp_path / "model"), corpora=(str(corpus),), dtype="bfloat16", batch_size=2, dense_positions=8
    )
    with LiveBytes({torch.float32, torch.float64}) as loading:
        model = load_model(config)
    run = Pass(model, config, Rows())
    chunk = next(run.chunks())
    run.read(chunk)  # what is cast once for all, and the accumulators' own memory, are there
    with LiveBytes({torch.float32, torch.float64}) as reading:
        run.read(chunk)
        for _ in logit_effects(model.weights, run.recorder.chosen, run.totals.effect_scales, 5):
            pass
    assert "bridge" not in vars(model), "TransformerLens' view is made only when it is asked for"
    weights = sum(value.numel() for value in model.network.parameters())
    print(family, loading.peak / weights / 4, reading.peak / weights / 4)
    assert 0 < loading.peak < 4 * weights / 4
    assert 0 < reading.peak < 4 * weights / 4
    assert {value.dtype for value in model.network.parameters()} == {torch.bfloat16}


def test_weights_are_hashed_a_block_at_a_time(tmp_path, monkeypatch):
    """The hash is that of all bytes, however long a block is; no operation copies a whole tensor."""
    folder = tiny.save("llama", tmp_path)
    model = loaded(folder)
    whole = hashlib.blake2b(digest_size=16)
    for name, value in sorted(model.network.state_dict().items()):
        whole.update(f"{name} {value.dtype} {tuple(value.shape)}".encode() + value.numpy().tobytes())
    monkeypatch.setattr("profiler.model.load.HASHED_BYTES", 1000)
    with LiveBytes() as seen:
        again = _weights_hash(model.network)
    assert model.spec.weights_hash == whole.hexdigest() == again
    assert seen.peak <= 1000
