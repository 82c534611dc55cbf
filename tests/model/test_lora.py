"""A LoRA adapter merged into its base is the base with the adapter beside its matrices; whatever else is refused."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

import profiler
from profiler.config import ModelChoice, RunConfig
from profiler.errors import ModelError
from profiler.model.load import Model, load_model
from profiler.model.of_run import load_for

RANK, ALPHA = 3, 5.0
SITES = {
    "gpt2": ("transformer.h.0.attn.c_attn", "transformer.h.1.mlp.c_proj"),
    "llama": ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj", "lm_head"),
}
SETTINGS = {"peft_type": "LORA", "base_model_name_or_path": "/etc", "r": RANK, "lora_alpha": ALPHA}


def base_of(form: str, folder: Path) -> Path:
    return tiny.save(form, folder / "base")


def thin(form: str, base: Path) -> dict[str, Tensor]:
    """A and B of some matrices, under peft's names."""
    network = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(3)
    tensors = {}
    for site in SITES[form]:
        module = network.get_submodule(site)
        n_out, n_in = module.weight.shape[::-1] if isinstance(module, Conv1D) else module.weight.shape
        tensors[f"base_model.model.{site}.lora_A.weight"] = torch.randn(RANK, n_in, dtype=torch.float64)
        tensors[f"base_model.model.{site}.lora_B.weight"] = torch.randn(n_out, RANK, dtype=torch.float64)
    return tensors


def saved(folder: Path, tensors: dict[str, Tensor], **settings: object) -> Path:
    place = folder / "adapter"
    place.mkdir()
    (place / "adapter_config.json").write_text(json.dumps(SETTINGS | settings))
    save_file(tensors, place / "adapter_model.safetensors")
    return place


def loaded(adapter: Path, base: Path) -> Model:
    return load_model(RunConfig(model=str(adapter), base=str(base), corpora=("x",), dtype="float64"))


@pytest.mark.parametrize(
    ("settings", "scales"),
    [
        ({}, [ALPHA / RANK] * 3),
        ({"use_rslora": True, "init_lora_weights": "gaussian"}, [ALPHA / RANK**0.5] * 3),
        ({"alpha_pattern": {"down_proj": 2.0, "mlp.c_proj": 2.0}}, [ALPHA / RANK, 2 / RANK, ALPHA / RANK]),
    ],
    ids=["plain", "root of the rank", "one matrix of another scale"],
)
@pytest.mark.parametrize("form", list(SITES))
def test_a_merged_adapter_is_its_base_with_the_products_added(form, settings, scales, tmp_path) -> None:
    base = base_of(form, tmp_path)
    tensors = thin(form, base)
    model = loaded(saved(tmp_path, tensors, **settings), base)
    beside = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64).eval()
    for site, scale in zip(SITES[form], scales, strict=False):
        a, b = (tensors[f"base_model.model.{site}.lora_{side}.weight"] for side in "AB")

        def add(_module: object, args: tuple[Tensor], out: Tensor, a: Tensor = a, b: Tensor = b, s: float = scale):
            return out + s * (args[0] @ a.T @ b.T)

        beside.get_submodule(site).register_forward_hook(add)
    tokens = torch.arange(1, 25)[None]
    with torch.inference_mode():
        got, expected = model.unwatched(tokens).logits, beside(tokens).logits
        plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)(tokens).logits
    rounded = 1e-12 if form == "gpt2" else 1e-5  # Llama's norms round to float32 inside
    assert (got - expected).abs().max() <= rounded * expected.abs().max()
    assert (got - plain).abs().max() > 0.01 * expected.abs().max()
    assert any("merged into its base" in note for note in model.spec.notes)


def test_an_adapter_of_embeddings_and_what_was_trained_whole(tmp_path) -> None:
    base = base_of("llama", tmp_path)
    network = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
    embed = network.model.embed_tokens.weight
    a, b = torch.randn(RANK, len(embed)).double(), torch.randn(embed.shape[1], RANK).double()
    norm = torch.randn(embed.shape[1]).double()
    tensors = {
        "base_model.model.model.embed_tokens.lora_embedding_A": a,
        "base_model.model.model.embed_tokens.lora_embedding_B": b,
        "base_model.model.model.norm.weight": norm,
    }
    merged = loaded(saved(tmp_path, tensors), base).unwatched
    assert torch.allclose(merged.model.embed_tokens.weight, embed + ALPHA / RANK * (b @ a).T, rtol=0, atol=1e-14)
    assert torch.equal(merged.model.norm.weight, norm)
    assert torch.equal(merged.lm_head.weight, network.lm_head.weight)


def test_a_run_of_an_adapter_finds_its_base_again(tmp_path) -> None:
    base = base_of("gpt2", tmp_path)
    place, out = saved(tmp_path, thin("gpt2", base)), tmp_path / "run.duckdb"
    corpus = tiny.write_corpus(tmp_path / "corpus.jsonl", n_documents=4)
    given = {"model": str(place), "base": str(base), "corpora": (str(corpus),), "tokens": 200, "context_length": 32}
    profiler.record(RunConfig(**given), out)
    again = load_for(out, ModelChoice())
    assert again.spec.weights_hash != load_model(RunConfig(model=str(base), corpora=("x",))).spec.weights_hash
    assert any("merged into its base" in note for note in again.spec.notes)


def _only_a(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in tensors.items() if "lora_A" in key}


def _elsewhere(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.replace("layers.0", "layers.7"): value for key, value in tensors.items()}


def _wider(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: torch.cat([value, value], 1) if "lora_A" in key else value for key, value in tensors.items()}


def _with(key: str, value: Tensor):
    return lambda tensors: tensors | {key: value}


MAGNITUDE = "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector"
REFUSED = {
    "another kind": ({"peft_type": "IA3"}, dict, "of type 'IA3'"),
    "magnitudes": ({"use_dora": True}, dict, "use_dora: True"),
    "initial weights taken off the base": ({"init_lora_weights": "pissa"}, dict, "init_lora_weights: 'pissa'"),
    "at some tokens only": ({"alora_invocation_tokens": [1]}, dict, "alora_invocation_tokens"),
    "no number": ({"lora_alpha": "16"}, dict, "lora_alpha is '16', expected a number"),
    "a pattern": ({"alpha_pattern": {"(a+)+$": 2}}, dict, "expected names of modules"),
    "no B": ({}, _only_a, r"has \{'A': \(3, 16\)\}"),
    "another shape": ({}, _wider, "whose weight is"),
    "another model": ({}, _elsewhere, "is no matrix of LlamaForCausalLM"),
    "magnitude vector": ({}, _with(MAGNITUDE, torch.ones(16)), "no part of a LoRA"),
    "a tensor of no module": ({}, _with("x.weight", torch.ones(2)), "no part of a LoRA"),
    "a whole tensor of another shape": ({}, _with("base_model.model.lm_head.weight", torch.ones(2, 2)), "its base"),
    "nothing": ({}, lambda _: {"base_model.model.model.norm.weight": torch.ones(16)}, "holds no A and B"),
    "NaN": (
        {},
        lambda tensors: {key: value * torch.nan for key, value in tensors.items()},
        "NaN or infinity",
    ),
}


@pytest.mark.parametrize("what", list(REFUSED))
def test_what_is_no_sum_of_weights_is_refused(what: str, tmp_path) -> None:
    settings, changed, said = REFUSED[what]
    base = base_of("llama", tmp_path)
    with pytest.raises(ModelError, match=said):
        loaded(saved(tmp_path, changed(thin("llama", base)), **settings), base)


def test_an_adapter_of_tied_embeddings_is_refused(tmp_path) -> None:
    base = base_of("gpt2", tmp_path)
    tensors = {
        "base_model.model.lm_head.lora_A.weight": torch.ones(RANK, 16),
        "base_model.model.lm_head.lora_B.weight": torch.ones(257, RANK),
    }
    with pytest.raises(ModelError, match="both the embedding and the unembedding"):
        loaded(saved(tmp_path, tensors), base)


def test_pickled_weights_and_links_of_an_adapter_are_refused(tmp_path) -> None:
    base = base_of("llama", tmp_path)
    place = saved(tmp_path, thin("llama", base))
    (place / "adapter_model.safetensors").rename(place / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"has no adapter_model\.safetensors"):
        loaded(place, base)
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps(SETTINGS))
    (place / "adapter_config.json").unlink()
    (place / "adapter_config.json").symlink_to(secret)
    with pytest.raises(ModelError, match="outside the directory"):
        loaded(place, base)


def test_a_base_beside_a_whole_model_is_refused(tmp_path) -> None:
    base = base_of("llama", tmp_path)
    with pytest.raises(ModelError, match="--base is for a LoRA adapter"):
        loaded(base, base)


def test_an_adapter_without_base_says_what_to_give(tmp_path) -> None:
    place = saved(tmp_path, thin("llama", base_of("llama", tmp_path)))
    with pytest.raises(ModelError, match=r"is a LoRA adapter of '/etc'.*--base"):
        load_model(RunConfig(model=str(place), corpora=("x",)))
