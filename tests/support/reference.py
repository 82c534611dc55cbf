"""A slow, independent recomputation with plain transformers and NumPy: what every kept row of a run must say.

It shares no code with the profiler. Weights are taken from the Hugging Face modules by hand for each architecture, the
activations by PyTorch hooks on the unchanged model, and everything is float64.
"""

from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel


@dataclass
class Parts:
    """Of one architecture: where the output matrices are, as (module, weight [in, out], bias)."""

    attn_out: list
    mlp_out: list
    final_norm: torch.nn.Module
    layer_norm: bool


def parts_of(network: PreTrainedModel) -> Parts:
    name = type(network).__name__
    if name == "GPT2LMHeadModel":
        blocks = network.transformer.h
        return Parts([b.attn.c_proj for b in blocks], [b.mlp.c_proj for b in blocks], network.transformer.ln_f, True)
    if name == "GPTNeoXForCausalLM":
        blocks = network.gpt_neox.layers
        return Parts(
            [b.attention.dense for b in blocks],
            [b.mlp.dense_4h_to_h for b in blocks],
            network.gpt_neox.final_layer_norm,
            True,
        )
    blocks = network.model.layers
    return Parts([b.self_attn.o_proj for b in blocks], [b.mlp.down_proj for b in blocks], network.model.norm, False)


def weight(module: torch.nn.Module) -> np.ndarray:
    """[in, out]; GPT-2's Conv1D stores it that way, Linear the other."""
    w = module.weight.detach().double().numpy()
    return w if type(module).__name__ == "Conv1D" else w.T


def layer_forward(network: PreTrainedModel, token_ids: list[int]) -> dict[str, list[np.ndarray]]:
    """Inputs of every output matrix, input of the final norm, attention patterns and logits for one window."""
    parts, seen = parts_of(network), {"z": [], "post": [], "residual": []}

    def keep(name):
        return lambda _module, args: seen[name].append(args[0][0].detach().double().numpy())

    hooks = [m.register_forward_pre_hook(keep("z")) for m in parts.attn_out]
    hooks += [m.register_forward_pre_hook(keep("post")) for m in parts.mlp_out]
    hooks.append(parts.final_norm.register_forward_pre_hook(keep("residual")))
    network.set_attn_implementation("eager")
    with torch.no_grad():
        out = network(torch.tensor([token_ids]), output_attentions=True)
    for hook in hooks:
        hook.remove()
    return seen | {
        "logits": out.logits[0].double().numpy(),
        "patterns": [a[0].double().numpy() for a in out.attentions],
    }


def component_values(
    network: PreTrainedModel, token_ids: list[int], offset: int, target: int
) -> dict[str, tuple[float, float]]:
    """Activation and DLA of every head and neuron at one offset of one window, by label."""
    parts, seen = parts_of(network), layer_forward(network, token_ids)
    unembed = network.lm_head.weight.detach().double().numpy()
    gamma = parts.final_norm.weight.detach().double().numpy()
    x = seen["residual"][0][offset]
    eps = getattr(parts.final_norm, "eps", None) or parts.final_norm.variance_epsilon
    scale = np.sqrt((x.var() if parts.layer_norm else (x**2).mean()) + eps)

    def dla(write: np.ndarray) -> float:
        normed = (write - write.mean() if parts.layer_norm else write) / scale * gamma
        logits = unembed @ normed
        return logits[target] - logits.mean()

    values, n_heads = {}, network.config.num_attention_heads
    for layer, (attn, mlp) in enumerate(zip(parts.attn_out, parts.mlp_out, strict=True)):
        z, w_o, w_out = seen["z"][layer][offset], weight(attn), weight(mlp)
        d_head = len(z) // n_heads
        for head in range(n_heads):
            block = slice(head * d_head, (head + 1) * d_head)
            write = z[block] @ w_o[block]
            values[f"L{layer}H{head}"] = (np.linalg.norm(write), dla(write))
        for neuron, activation in enumerate(seen["post"][layer][offset]):
            values[f"L{layer}N{neuron}"] = (activation, dla(activation * w_out[neuron]))
    return values
