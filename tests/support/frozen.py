"""The oracle of direct logit attribution: a gradient, with what is held detached. It shares no code with the profiler.

Outputs of the last matrix of every block are cut; the gradient of the centred target logit at a cut, with the
denominators of norms detached, is the direction of the logit there (stop-gradient attribution). Blocks are found by the
names that transformers gives their last matrices.
"""

import torch
import zoo
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

LAST = ("o_proj out_proj c_proj dense dense_4h_to_h down_proj fc_out fc2 w2 linear_out per_layer_projection").split()


def attributions(network: PreTrainedModel, tokens: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Centred target logits before a soft cap, [window, offset], and of each block's last matrix the DLA of each value
    that it reads, [window, offset, value].

    Args:
        network: made by `zoo.double`.
    """
    cuts: dict[str, tuple[Tensor, Tensor]] = {}
    head = network.get_output_embeddings()
    d_model = head.weight.shape[1]
    norms = [module for module in network.modules() if isinstance(module, zoo.DoubleNorm)]
    handles = []

    def cut(name):
        def hook(module, args, output):
            leaf = output.detach().requires_grad_(True)
            cuts[name] = (args[0].detach().reshape(*tokens.shape, -1), leaf)
            return leaf * 1.0

        return hook

    for name, module in network.named_modules():
        weight = getattr(module, "weight", None)
        if name.split(".")[-1] not in LAST or weight is None or weight.dim() != 2 or "per_layer_model" in name:
            continue
        if (weight.shape[1] if isinstance(module, Conv1D) else weight.shape[0]) == d_model:
            handles.append(module.register_forward_hook(cut(name)))
    seen: list[Tensor] = []
    handles.append(head.register_forward_hook(lambda *given: seen.append(given[-1])))
    try:
        for norm in norms:
            norm.held = True
        with torch.enable_grad():
            logits = network(tokens, use_cache=False).logits
            z = seen[0] if _cap(network) else logits
            centred = z.gather(-1, targets[..., None])[..., 0] - z.mean(-1)
            leaves = {name: leaf for name, (_, leaf) in cuts.items()}
            grads = torch.autograd.grad(centred.sum(), list(leaves.values()), allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
        for norm in norms:
            norm.held = False
    found = {}
    for (name, (read, leaf)), grad in zip(cuts.items(), grads, strict=True):
        module = network.get_submodule(name)
        matrix = module.weight.detach() if isinstance(module, Conv1D) else module.weight.detach().T
        toward = (torch.zeros_like(leaf) if grad is None else grad) @ matrix.T
        found[name] = read * toward.reshape(*tokens.shape, -1)
    return centred.detach(), found


def _cap(network: PreTrainedModel) -> float | None:
    config = network.config.get_text_config()
    return getattr(config, "final_logit_softcapping", None) or getattr(config, "logits_soft_cap", None)
