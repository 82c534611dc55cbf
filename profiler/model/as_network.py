"""A loaded model's weights as a `Network`. With `profiler.model.load` the only module that knows TransformerLens.

Why: `profiler.model.network` computes with plain tensors. The forms it knows are those of GPT-2, GPT-NeoX (sequential
and parallel) and Llama, and of every model built like them. Whether a model is like them is not guessed from its name:
the logits of both are compared on a few dozen tokens, and a model that differs is refused. Layers that attend to the
last tokens alone (Mistral, GPT-Neo) are like them on prompts that are no longer, and `reach` says how long that is.
Cost: a copy of the weights where keys are shared between heads, and one forward pass.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.activations import ACT2FN

from profiler.errors import ModelError
from profiler.model.forward import Wanted
from profiler.model.load import Model
from profiler.model.network import Layer, Network, Norm, forward

PROBE = 64
TOLERANCE = {torch.float64: 1e-5, torch.float32: 2e-4}
LOOSE = 0.05


def network_of(model: Model) -> Network:
    """The weights of a model in the form that patching computes with.

    Raises:
        ModelError: the model has no MLP that can be read, or computes something that `Network` does not.
    """
    bridge = model.bridge
    if bridge is None or not model.spec.d_mlp:
        raise ModelError(
            f"patching cannot read the weights of {model.spec.name!r} ({model.spec.architecture}): {_known()}"
        )
    try:
        net = _network(bridge, model.spec.context_length)
    except Exception as error:
        raise ModelError(f"patching cannot read the weights of {model.spec.name!r} ({error}): {_known()}") from error
    _compare(model, net)
    return net


def reach(model: Model) -> int:
    """The longest prompt, in tokens, on which every layer attends to everything before: what patching computes."""
    config = model.network.config
    sizes = [getattr(config, name, None) for name in ("sliding_window", "window_size")]
    local = "local" in (getattr(config, "attention_layers", None) or ["local"])
    if not local or getattr(config, "use_sliding_window", True) is False:
        sizes = []
    return min([model.spec.context_length, *(size for size in sizes if isinstance(size, int) and size > 0)])


def _known() -> str:
    return "it knows the forms of GPT-2, GPT-NeoX, Llama and models built like them"


def _compare(model: Model, net: Network) -> None:
    """Refuse a model whose logits are not those of the network."""
    tokens = torch.arange(1, 1 + min(PROBE, reach(model)), device=net.device)[None] % model.spec.n_vocab
    with torch.inference_mode():
        theirs = logits_of(model, tokens)
        difference = (forward(net, tokens) - theirs).abs().max().item()
    scale = theirs.abs().max().item()
    if not difference <= TOLERANCE.get(theirs.dtype, LOOSE) * max(1.0, scale):
        raise ModelError(
            f"patching computes other logits than {model.spec.name!r} (off by {difference:.1e} of {scale:.1f}):"
            f" {_known()}"
        )


def _network(bridge: Any, context: int) -> Network:
    cfg = bridge.cfg
    positions = bridge.pos_embed.weight.detach() if cfg.positional_embedding_type == "standard" else None
    return Network(
        layers=tuple(_layer(block, cfg) for block in bridge.blocks),
        embed=bridge.W_E.detach(),
        positions=positions,
        rotary=_rotary(bridge, context) if cfg.positional_embedding_type == "rotary" else None,
        norm_final=_norm(bridge.ln_final, cfg),
        unembed=bridge.W_U.detach(),
        b_unembed=bridge.b_U.detach(),
        act=ACT2FN[cfg.act_fn],
        parallel=bool(cfg.parallel_attn_mlp),
        attn_scale=cfg.d_head**-0.5 if cfg.attn_scale is None or cfg.attn_scale <= 0 else 1 / cfg.attn_scale,
    )


def _norm(norm: Any, cfg: Any) -> Norm:
    weight = norm.weight.detach() + (1.0 if getattr(cfg, "rmsnorm_uses_offset", False) else 0.0)
    bias = getattr(norm, "bias", None)
    eps = next((getattr(norm, name) for name in ("eps", "variance_epsilon") if hasattr(norm, name)), cfg.eps)
    centres = "RMS" not in str(cfg.normalization_type)
    return Norm(weight, torch.zeros_like(weight) if bias is None else bias.detach(), centres, float(eps))


def _layer(block: Any, cfg: Any) -> Layer:
    attn, mlp = block.attn, block.mlp
    w_q, w_out = attn.W_Q.detach(), mlp.W_out.detach()
    heads, d_model, d_head = w_q.shape

    def per_head(weight: Tensor) -> Tensor:
        return weight.detach().repeat_interleave(heads // weight.shape[0], 0).contiguous()

    def bias(value: Tensor | None, *shape: int) -> Tensor:
        return w_q.new_zeros(shape) if value is None else value.detach()

    def head_bias(value: Tensor | None) -> Tensor:
        return w_q.new_zeros(heads, d_head) if value is None else per_head(value)

    gate = getattr(mlp, "W_gate", None)
    return Layer(
        _norm(block.ln1, cfg),
        _norm(block.ln2, cfg),
        w_q,
        per_head(attn.W_K),
        per_head(attn.W_V),
        head_bias(attn.b_Q),
        head_bias(attn.b_K),
        head_bias(attn.b_V),
        attn.W_O.detach(),
        bias(attn.b_O, d_model),
        mlp.W_in.detach(),
        bias(mlp.b_in, w_out.shape[0]),
        None if gate is None else gate.detach(),
        None if gate is None else bias(getattr(mlp, "b_gate", None), w_out.shape[0]),
        w_out,
        bias(mlp.b_out, d_model),
    )


def _rotary(bridge: Any, context: int) -> tuple[Tensor, Tensor]:
    """The model's own tables of cosines and sines."""
    inner = bridge.original_model
    body = getattr(inner, inner.base_model_prefix)
    places = torch.arange(context, device=bridge.W_E.device)[None]
    cos, sin = body.rotary_emb(bridge.W_E.detach()[None, :1], places)
    return cos[0].detach(), sin[0].detach()


def logits_of(model: Model, tokens: Int[Tensor, "prompt offset"]) -> Float[Tensor, "prompt offset vocab"]:
    """The logits of the model's own forward pass."""
    n, width = tokens.shape
    every = (torch.arange(n).repeat_interleave(width), torch.arange(width).repeat(n))
    logits: Tensor = model.run(tokens, Wanted(logits=every)).logits.unflatten(0, (n, width))
    cap = model.soft_cap
    return logits if cap is None else cap * (logits / cap).tanh()
