"""The oracle of direct logit attribution: a gradient, with what is held detached. It shares no code with the profiler.

Outputs of the last matrix of every block are cut; the gradient of the centred target logit at a cut, with the
denominators of norms detached, is the direction of the logit there (stop-gradient attribution). Blocks are found by the
names that transformers gives their last matrices. Modules of experts are cut after their output, and called again token
by token: their output is linear in their last matrices, so that a gradient by these gives each neuron's part.
"""

from dataclasses import dataclass, field

import torch
import zoo
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

LAST = (
    "o_proj out_proj c_proj dense dense_4h_to_h down_proj fc_out fc2 w2 linear_out output_linear per_layer_projection"
).split()
GATES = ("shared_expert_gate",)
"""Small matrices whose output multiplies what a shared expert writes: held."""


@dataclass
class CutPass:
    """What a pass with cut blocks left.

    Attributes:
        read, leaf: by the name of each block's last matrix, what it read [window, offset, value] and its cut output.
        stream: what the last norm read.
        unembedded: output of the unembedding, before a soft cap or a scale.
        called: of each module of experts what it was called with: read, chosen experts, their weights.
    """

    logits: Tensor | None = None
    read: dict[str, Tensor] = field(default_factory=dict)
    leaf: dict[str, Tensor] = field(default_factory=dict)
    stream: Tensor | None = None
    unembedded: Tensor | None = None
    called: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)


def cut_pass(network: PreTrainedModel, tokens: Tensor) -> CutPass:
    """One pass with every block cut after its last matrix and the denominators of norms held.

    Args:
        network: made by `zoo.double`.
    """
    left, handles = CutPass(), []
    head = network.get_output_embeddings()
    norms = [module for module in network.modules() if isinstance(module, zoo.DoubleNorm)]

    def cut(name):
        def hook(module, args, output):
            left.leaf[name] = output.detach().requires_grad_(True)
            left.read[name] = args[0].detach().reshape(*tokens.shape, -1)
            return left.leaf[name] * 1.0

        return hook

    def cut_experts(name):
        def hook(module, args, output):
            left.leaf[name] = output.detach().requires_grad_(True)
            left.called[name] = tuple(value.detach() for value in args)
            return left.leaf[name] * 1.0

        return hook

    for name, module in network.named_modules():
        weight = getattr(module, "weight", None)
        if name.split(".")[-1] in GATES:
            handles.append(module.register_forward_hook(lambda _module, _args, output: output.detach()))
        if torch.is_tensor(getattr(module, "down_proj", None)):
            handles.append(module.register_forward_hook(cut_experts(name)))
        if name.split(".")[-1] not in LAST or weight is None or weight.dim() != 2 or "per_layer_model" in name:
            continue
        if matrix_of(network, name).shape[1] == head.weight.shape[1]:
            handles.append(module.register_forward_hook(cut(name)))
    handles.append(head.register_forward_hook(lambda *given: setattr(left, "unembedded", given[-1])))
    handles += [norm.register_forward_pre_hook(lambda *given: setattr(left, "stream", given[-1][0])) for norm in norms]
    try:
        for norm in norms:
            norm.held = True
        with torch.enable_grad():
            left.logits = network(tokens, use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
        for norm in norms:
            norm.held = False
    return left


def attributions(network: PreTrainedModel, tokens: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Centred target logits before a soft cap, [window, offset], and of each block's last matrix the DLA of each value
    that it reads, [window, offset, value]; of a module of experts that of each neuron of each expert, [window, offset,
    expert, neuron], NaN where the expert was not chosen."""
    left = cut_pass(network, tokens)
    z = left.unembedded if _cap(network) else left.logits
    centred = z.gather(-1, targets[..., None])[..., 0] - z.mean(-1)
    grads = torch.autograd.grad(centred.sum(), list(left.leaf.values()), allow_unused=True)
    found = {}
    for (name, leaf), grad in zip(left.leaf.items(), grads, strict=True):
        if name in left.called:
            by_token = _of_experts(network.get_submodule(name), left.called[name], grad.reshape(-1, grad.shape[-1]))
            found[name] = by_token.unflatten(0, tokens.shape)
            continue
        toward = (torch.zeros_like(leaf) if grad is None else grad) @ matrix_of(network, name).T
        found[name] = left.read[name] * toward.reshape(*tokens.shape, -1)
    return centred.detach(), found


def _of_experts(module: nn.Module, called: tuple[Tensor, ...], toward: Tensor) -> Tensor:
    """DLA of each neuron of each expert, [token, expert, neuron]."""
    read, chosen, weights = called
    last, along = module.down_proj, -1 if module.is_transposed else -2
    found = []
    for token in range(len(read)):
        at = slice(token, token + 1)
        with torch.enable_grad():
            last.requires_grad_(True)
            written = module(read[at], chosen[at], weights[at])
            (grad,) = torch.autograd.grad((written * toward[at]).sum(), last)
        of_token = (grad * last.detach()).sum(along)
        absent = torch.ones(len(last), dtype=torch.bool).index_fill(0, chosen[token], value=False)
        found.append(of_token.masked_fill(absent[:, None], torch.nan))
    return torch.stack(found)


def added_by_heads(network: PreTrainedModel, tokens: Tensor, name: str, n_heads: int) -> Tensor:
    """Norm of what each head of an attention adds to what the last norm reads, [window, offset, head]: the head's write
    times the derivative of that stream (a gradient of a gradient, Pearlmutter's trick).

    Args:
        name: of the attention's last matrix.
    """
    left = cut_pass(network, tokens)
    weights = torch.zeros_like(left.stream, requires_grad=True)
    (back,) = torch.autograd.grad(left.stream, left.leaf[name], weights, create_graph=True)
    z = left.read[name].unflatten(-1, (n_heads, -1))
    writes = torch.einsum("wohd,hdm->hwom", z, matrix_of(network, name).unflatten(0, (n_heads, -1)))
    added = [torch.autograd.grad(back, weights, write, retain_graph=True)[0].norm(dim=-1) for write in writes]
    return torch.stack(added, -1)


def matrix_of(network: PreTrainedModel, name: str) -> Tensor:
    """A matrix with a row for each value that it reads."""
    module = network.get_submodule(name)
    return module.weight.detach() if isinstance(module, Conv1D) else module.weight.detach().T


def _cap(network: PreTrainedModel) -> float | None:
    config = network.config.get_text_config()
    return getattr(config, "final_logit_softcapping", None) or getattr(config, "logits_soft_cap", None)
