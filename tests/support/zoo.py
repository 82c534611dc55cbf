"""Tiny random models of the families that people use: transformers' own classes, four layers wide enough to tell apart.

Every parameter is moved away from its initial value, so that no bias is 0 and no norm is the identity. Nothing is
downloaded. `double` replaces norms that round to float32 inside by the same in float64, so that parts can be held
against a sum to the last bits.
"""

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

VOCAB, WIDTH, LAYERS, HEADS, KEY_HEADS, NEURONS, CONTEXT = 257, 32, 3, 4, 2, 48, 64
NAMES = frozenset(dir(transformers))  # transformers makes its list anew at each look
IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
NOISE = 0.05
WINDOW = 16  # of sliding windows, shorter than the windows that tests run


def _llama_like(family: str, **changes: Any) -> Callable[[], PreTrainedModel]:
    """A family whose configuration has Llama's fields."""
    fields = {
        "vocab_size": VOCAB,
        "hidden_size": WIDTH,
        "intermediate_size": NEURONS,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS,
        "max_position_embeddings": CONTEXT,
        **IDS,
    }
    text = "Text" if f"{family}TextConfig" in NAMES else ""
    return lambda: _made(f"{family}ForCausalLM", f"{family}{text}Config", fields | changes)


def _made(model: str, config: str, fields: dict[str, Any]) -> PreTrainedModel:
    return getattr(transformers, model)(getattr(transformers, config)(**fields))


def _gpt(model: str, config: str, **changes: Any) -> Callable[[], PreTrainedModel]:
    """A family whose configuration has GPT-2's fields."""
    fields = {"vocab_size": VOCAB, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": CONTEXT, **IDS}
    return lambda: _made(model, config, fields | changes)


GEMMA = {"head_dim": 8, "sliding_window": WINDOW, "query_pre_attn_scalar": 12}
SLIDING = ["sliding_attention", "sliding_attention", "full_attention"]
LATENT = {
    "num_key_value_heads": HEADS,
    "q_lora_rank": 12,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}
DELTA = {
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "full_attention_interval": 3,
}

DENSE: dict[str, Callable[[], PreTrainedModel]] = {
    "gpt1": _gpt("OpenAIGPTLMHeadModel", "OpenAIGPTConfig"),
    "gpt2": _gpt("GPT2LMHeadModel", "GPT2Config", n_inner=NEURONS),
    "gptj": _gpt("GPTJForCausalLM", "GPTJConfig", n_inner=NEURONS, rotary_dim=4),
    "codegen": _gpt("CodeGenForCausalLM", "CodeGenConfig", n_ctx=CONTEXT, n_inner=NEURONS, rotary_dim=4),
    "gpt_bigcode": _gpt("GPTBigCodeForCausalLM", "GPTBigCodeConfig", n_inner=NEURONS, multi_query=True),
    "gpt_neo": lambda: _made(
        "GPTNeoForCausalLM",
        "GPTNeoConfig",
        {
            "vocab_size": VOCAB,
            "hidden_size": WIDTH,
            "num_layers": 2,
            "num_heads": HEADS,
            "max_position_embeddings": CONTEXT,
            "intermediate_size": NEURONS,
            "attention_types": [[["global", "local"], 1]],
            "window_size": WINDOW,
            **IDS,
        },
    ),
    "neox_parallel": _llama_like("GPTNeoX", use_parallel_residual=True, num_key_value_heads=HEADS),
    "neox_sequential": _llama_like("GPTNeoX", use_parallel_residual=False, num_key_value_heads=HEADS),
    "opt": _llama_like("OPT", ffn_dim=NEURONS, word_embed_proj_dim=WIDTH),
    "xglm": _llama_like("XGLM", d_model=WIDTH, num_layers=LAYERS, attention_heads=HEADS, ffn_dim=NEURONS),
    "biogpt": _llama_like("BioGpt"),
    "bloom": _llama_like("Bloom", n_layer=LAYERS, n_head=HEADS),
    "mpt": lambda: _made(
        "MptForCausalLM",
        "MptConfig",
        {"vocab_size": VOCAB, "d_model": WIDTH, "n_layers": LAYERS, "n_heads": HEADS, "max_seq_len": CONTEXT, **IDS},
    ),
    "falcon": _llama_like("Falcon", multi_query=True, parallel_attn=True, alibi=False),
    "falcon_new": _llama_like("Falcon", num_kv_heads=2, new_decoder_architecture=True, alibi=False),
    "falcon_alibi": _llama_like("Falcon", multi_query=False, parallel_attn=False, bias=True, alibi=True),
    "starcoder2": _llama_like("Starcoder2", sliding_window=WINDOW),
    "phi2": _llama_like("Phi", partial_rotary_factor=0.5, num_key_value_heads=HEADS),
    "phi3": _llama_like("Phi3", sliding_window=WINDOW),
    "stablelm": _llama_like("StableLm", partial_rotary_factor=0.25, use_qkv_bias=True),
    "stablelm2": _llama_like("StableLm", partial_rotary_factor=0.25, use_parallel_residual=True, qk_layernorm=True),
    "llama2": _llama_like("Llama", num_key_value_heads=HEADS),
    "llama3": _llama_like(
        "Llama",
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ),
    "llama_tied": _llama_like("Llama", tie_word_embeddings=True, head_dim=16),
    "llama_biases": _llama_like("Llama", attention_bias=True, mlp_bias=True),
    "mistral": _llama_like("Mistral", sliding_window=WINDOW),
    "mistral_nemo": _llama_like("Mistral", sliding_window=None, head_dim=12),
    "ministral3": _llama_like("Ministral3", head_dim=8),
    "qwen2": _llama_like("Qwen2"),
    "qwen2_sliding": _llama_like("Qwen2", use_sliding_window=True, sliding_window=WINDOW, max_window_layers=2),
    "qwen3": _llama_like("Qwen3", head_dim=16),
    "gemma1": _llama_like("Gemma", head_dim=16, num_key_value_heads=1),
    "gemma2": _llama_like("Gemma2", **GEMMA),
    "gemma3": _llama_like("Gemma3", layer_types=SLIDING, **GEMMA),
    "olmo1": _llama_like("Olmo"),
    "olmo1_clip": _llama_like("Olmo", clip_qkv=0.1),
    "olmo2": _llama_like("Olmo2"),
    "olmo3": _llama_like("Olmo3", sliding_window=WINDOW, layer_types=SLIDING),
    "cohere": _llama_like("Cohere", logit_scale=0.0625),
    "cohere_qk": _llama_like("Cohere", logit_scale=0.0625, use_qk_norm=True),
    "cohere2": _llama_like("Cohere2", logit_scale=0.25, sliding_window=WINDOW),
    "granite": _llama_like(
        "Granite", embedding_multiplier=12.0, attention_multiplier=0.1, residual_multiplier=0.22, logits_scaling=8.0
    ),
    "smollm3": _llama_like("SmolLM3"),
    "deepseek_v3": _llama_like("DeepseekV3", first_k_dense_replace=LAYERS, n_group=1, topk_group=1, **LATENT),
    "glm4": _llama_like("Glm4", head_dim=8),
    "exaone4": _llama_like("Exaone4", sliding_window=WINDOW, sliding_window_pattern=3),
    "seed_oss": _llama_like("SeedOss", head_dim=8),
    "nemotron": _llama_like("Nemotron"),
    "apertus": _llama_like("Apertus"),
    "arcee": _llama_like("Arcee"),
    "helium": _llama_like("Helium", head_dim=8),
    "ernie4_5": _llama_like("Ernie4_5"),
    "hunyuan": _llama_like("HunYuanDenseV1", head_dim=8),
    "bitnet": _llama_like("BitNet"),
    "nanochat": _llama_like("NanoChat"),
}
"""Attention and MLPs, one of each in every layer."""

HYBRID: dict[str, Callable[[], PreTrainedModel]] = {
    "gemma4": _llama_like(
        "Gemma4",
        head_dim=8,
        global_head_dim=16,
        sliding_window=WINDOW,
        vocab_size_per_layer_input=VOCAB,
        hidden_size_per_layer_input=8,
        num_kv_shared_layers=0,
        layer_types=SLIDING,
    ),
    "qwen3_5": _llama_like("Qwen3_5", head_dim=8, **DELTA),
    "mamba": _llama_like("Mamba", state_size=4),
    "mamba2": _llama_like("Mamba2", num_heads=8, head_dim=8, state_size=4, n_groups=1),
    "bamba": _llama_like("Bamba", attn_layer_indices=[1], **MAMBA),
    "falcon_h1": _llama_like("FalconH1", mamba_d_ssm=64, head_dim=8, **MAMBA),
    "lfm2": _llama_like("Lfm2", layer_types=["conv", "full_attention", "conv"]),
    "recurrent_gemma": _llama_like("RecurrentGemma", head_dim=8, lru_width=WIDTH, attention_window_size=WINDOW),
}
"""Mixers that are no attention, per-layer projections, layers of different width."""

ROUTED = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}
EXPERTS: dict[str, Callable[[], PreTrainedModel]] = {
    "mixtral": _llama_like("Mixtral", num_local_experts=4, num_experts_per_tok=2, sliding_window=WINDOW),
    "qwen2_moe": _llama_like("Qwen2Moe", num_experts=4, shared_expert_intermediate_size=20, **ROUTED),
    "qwen3_moe": _llama_like("Qwen3Moe", head_dim=8, num_experts=4, norm_topk_prob=True, **ROUTED),
    "qwen3_next": _llama_like(
        "Qwen3Next", head_dim=8, num_experts=4, shared_expert_intermediate_size=20, **ROUTED, **DELTA
    ),
    "qwen3_5_moe": _llama_like(
        "Qwen3_5Moe", head_dim=8, num_experts=4, shared_expert_intermediate_size=20, **ROUTED, **DELTA
    ),
    "olmoe": _llama_like("Olmoe", num_experts=4, num_experts_per_tok=2),
    "flex_olmo": _llama_like("FlexOlmo", num_experts=4, num_experts_per_tok=2),
    "phimoe": _llama_like("Phimoe", num_local_experts=4, num_experts_per_tok=2, sliding_window=WINDOW),
    "gpt_oss": _llama_like(
        "GptOss",
        head_dim=8,
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=WINDOW,
        layer_types=SLIDING,
        rope_parameters={"rope_type": "default", "rope_theta": 150000.0},
    ),
    "deepseek_v2": _llama_like(
        "DeepseekV2", n_routed_experts=4, n_shared_experts=2, first_k_dense_replace=1, **ROUTED, **LATENT
    ),
    "deepseek_v3_experts": _llama_like(
        "DeepseekV3",
        n_routed_experts=8,
        n_shared_experts=1,
        first_k_dense_replace=1,
        n_group=2,
        topk_group=1,
        routed_scaling_factor=2.5,
        **ROUTED,
        **LATENT,
    ),
    "glm4_moe": _llama_like(
        "Glm4Moe", head_dim=8, n_routed_experts=4, n_shared_experts=1, first_k_dense_replace=1, **ROUTED
    ),
    "dots1": _llama_like("Dots1", n_routed_experts=4, n_shared_experts=1, first_k_dense_replace=1, **ROUTED),
    "ernie4_5_moe": _llama_like(
        "Ernie4_5_Moe",
        moe_num_experts=4,
        moe_k=2,
        moe_num_shared_experts=1,
        moe_intermediate_size=24,
        moe_layer_start_index=1,
    ),
    "hunyuan_moe": _llama_like("HunYuanMoEV1", head_dim=8, num_experts=4, moe_topk=2),
    "granitemoe": _llama_like(
        "GraniteMoe",
        num_local_experts=4,
        num_experts_per_tok=2,
        embedding_multiplier=12.0,
        attention_multiplier=0.1,
        residual_multiplier=0.22,
        logits_scaling=6.0,
    ),
    "granitemoe_shared": _llama_like(
        "GraniteMoeShared", num_local_experts=4, num_experts_per_tok=2, shared_intermediate_size=20
    ),
    "granitemoe_hybrid": _llama_like(
        "GraniteMoeHybrid",
        num_local_experts=4,
        num_experts_per_tok=2,
        shared_intermediate_size=20,
        layer_types=["mamba", "attention", "mamba"],
        **MAMBA,
    ),
    "jamba": _llama_like(
        "Jamba",
        num_experts=4,
        num_experts_per_tok=2,
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
        mamba_d_state=8,
        use_mamba_kernels=False,
    ),
    "lfm2_moe": _llama_like(
        "Lfm2Moe", num_experts=4, num_dense_layers=1, layer_types=["conv", "full_attention", "conv"], **ROUTED
    ),
    "minimax_m2": _llama_like("MiniMaxM2", head_dim=8, num_local_experts=4, num_experts_per_tok=2),
    "gemma4_moe": _llama_like(
        "Gemma4",
        head_dim=8,
        global_head_dim=16,
        sliding_window=WINDOW,
        vocab_size_per_layer_input=VOCAB,
        hidden_size_per_layer_input=0,
        num_kv_shared_layers=0,
        layer_types=SLIDING,
        enable_moe_block=True,
        num_experts=4,
        top_k_experts=2,
        moe_intermediate_size=24,
    ),
    "nemotron_h": _llama_like(
        "NemotronH",
        layers_block_type=["mamba", "attention", "moe"],
        head_dim=8,
        n_routed_experts=4,
        n_shared_experts=1,
        moe_shared_expert_intermediate_size=20,
        mamba_num_heads=4,
        mamba_head_dim=16,
        ssm_state_size=8,
        n_groups=1,
        **ROUTED,
    ),
}
"""Mixtures of experts, with and without shared experts, gates of these, biases, and layers without experts."""


def _encoder_decoder() -> PreTrainedModel:
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    return transformers.BartForConditionalGeneration(transformers.BartConfig(vocab_size=VOCAB, **sizes, **heads))


def _masked() -> PreTrainedModel:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=VOCAB, **sizes))


REFUSED: dict[str, Callable[[], PreTrainedModel]] = {
    "llama4": _llama_like(
        "Llama4", head_dim=8, intermediate_size_mlp=NEURONS, num_local_experts=2, interleave_moe_layer_step=1
    ),
    "jetmoe": _llama_like("JetMoe", num_local_experts=4, num_experts_per_tok=2, kv_channels=8),
    "gemma3n": _llama_like(
        "Gemma3n",
        head_dim=8,
        sliding_window=WINDOW,
        vocab_size_per_layer_input=VOCAB,
        hidden_size_per_layer_input=8,
        num_kv_shared_layers=0,
        layer_types=SLIDING,
        altup_num_inputs=2,
        laurel_rank=4,
        activation_sparsity_pattern=[0.0] * LAYERS,
        intermediate_size=[NEURONS] * LAYERS,
    ),
    "rwkv": _llama_like("Rwkv", attention_hidden_size=WIDTH, context_length=CONTEXT, rescale_every=0),
    "opt_350m": _llama_like("OPT", ffn_dim=NEURONS, word_embed_proj_dim=WIDTH // 2, do_layer_norm_before=False),
    "modernbert_decoder": _llama_like("ModernBertDecoder", cls_token_id=0, sep_token_id=0),
    "bart": _encoder_decoder,
    "bert": _masked,
}
"""Families that transformers holds and that are not read."""

FAMILIES = DENSE | HYBRID | EXPERTS


def _layer_norms_after_blocks() -> PreTrainedModel:
    network = FAMILIES["gemma2"]()
    for layer in network.model.layers:
        layer.post_attention_layernorm, layer.post_feedforward_layernorm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
    return network


MADE_UP: dict[str, Callable[[], PreTrainedModel]] = {"layer_norms_after_blocks": _layer_norms_after_blocks}
"""Forms that the rule covers and no family has: norms after blocks that centre and have a bias."""


def build(name: str, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    """A family's tiny model, with every parameter moved; experts in the way that runs in every dtype."""
    torch.manual_seed(0)
    made = (FAMILIES | MADE_UP)[name]().eval()
    for parameter in made.parameters():
        parameter.data.add_(NOISE * torch.randn_like(parameter))
    if name in EXPERTS:
        made.set_experts_implementation("eager")
    return made.to(dtype)


OFFSET_NORMS = ("Gemma", "Qwen3_5RMS", "Qwen3_5MoeRMS", "Qwen3NextRMS", "RecurrentGemma", "NemotronLayerNorm1P")
"""Norms whose stored weight is the gain less 1."""


class DoubleNorm(nn.Module):
    """A norm of another module's parameters that computes in the dtype it is given, its denominator held or not."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        kind = type(norm).__name__
        self.centres = "RMS" not in kind and not hasattr(norm, "variance_epsilon")
        self.eps = getattr(norm, "eps", getattr(norm, "variance_epsilon", 1e-5))
        weight = getattr(norm, "weight", None)
        self.offset = 1.0 if kind.startswith(OFFSET_NORMS) else 0.0
        if kind.startswith(("Gemma4", "Gemma3n")):
            self.offset = 0.0
        self.weight = None if weight is None else nn.Parameter(weight.detach().clone(), requires_grad=False)
        bias = getattr(norm, "bias", None)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        self.held = False

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True) if self.centres else x
        denominator = (centred.square().mean(-1, keepdim=True) + self.eps).sqrt()
        y = centred / (denominator.detach() if self.held else denominator)
        y = y if self.weight is None else y * (self.weight + self.offset)
        return y if self.bias is None else y + self.bias


def double(network: PreTrainedModel) -> PreTrainedModel:
    """The network with its norms of the residual stream in float64, in place."""
    d_model = network.get_output_embeddings().weight.shape[1]
    for name, module in list(network.named_modules()):
        kind, weight = type(module).__name__, getattr(module, "weight", None)
        if "Norm" not in kind or "Gated" in kind or any(True for _ in module.children()):
            continue
        if any(part in name for part in ("q_norm", "k_norm", "v_norm", "q_layernorm", "k_layernorm", "_a_layernorm")):
            continue
        if weight is None or tuple(weight.shape) == (d_model,):
            parent, _, last = name.rpartition(".")
            setattr(network.get_submodule(parent), last, DoubleNorm(module))
    return network
