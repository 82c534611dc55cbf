"""A loaded model as steps to patch, and its weights written out where their form is known.

Why: what patching does must be what the model does. So nothing about a model is assumed: it is tried on a few tokens.
Layer by layer its logits must be the model's own; where the values of an attention or MLP are given, its work can be
left out if the layer's output stays the same; a pass can go on from cached keys and values, and the last layer can be
computed at one offset, if that changes nothing.

`plain_of` knows the forms of GPT-2, GPT-NeoX (sequential and parallel) and Llama, and of every model built like them.
Whether a model is like them is not guessed from its name: the logits of both are compared.
Cost: a dozen forward passes over a few tokens; for `plain_of` a copy of the weights where keys are shared.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.activations import ACT2FN

from profiler.errors import ModelError
from profiler.model.forward import Wanted, goes_through_register
from profiler.model.load import Model, twin_of
from profiler.model.steps.modules import ModuleNetwork
from profiler.model.steps.network import Network, Offsets, Steps, forward
from profiler.model.steps.plain import Layer, Norm, PlainNetwork, mix
from profiler.model.validation import ROUNDING, WINDOW_FIELDS

PROBE = 24
PROMPTS = 3
TOLERANCE = {torch.float64: 1e-5, torch.float32: 2e-4}
LOOSE = 0.05
PARAMETER = {"attn_out": "attn_out", "head": "heads", "mlp_out": "mlp_out", "neuron": "neurons"}
"""Of a site, the name of its values in `Steps.rest`."""


def network_of(model: Model) -> Network:
    """A model as steps: its own modules, over the very same tensors; the weights written out where these are known and
    the queries, keys and values of its attention cannot be reached.

    Raises:
        ModelError: taken layer by layer it computes other logits, or its attention cannot be reached.
    """
    module = twin_of(model.network).requires_grad_(requires_grad=False)
    for part in module.modules():
        part._forward_hooks.clear()
        part._forward_pre_hooks.clear()
        vars(part).pop("profiler_watch", None)
    net = ModuleNetwork(module, model.weights, model.attention, partial(_plain_as_model, model))
    name = f"{model.spec.name!r} ({model.spec.architecture})"
    width = min(PROBE, model.spec.context_length)
    rows = torch.arange(PROMPTS * width, device=net.device).view(PROMPTS, width)
    with torch.inference_mode():
        _try(net, model, rows * 7 % model.spec.n_vocab, name)
    if net.inside_attention or not net.n_heads:
        return net
    try:
        return plain_of(model)
    except ModelError as error:
        raise ModelError(
            f"{name} cannot be patched: its attention does not let its queries, keys and values be reached (it calls no"
            f" attention function of transformers' register, and no softmax between two products), and {error}"
        ) from error


def network_of_heads(model: Model) -> Network:
    """A model as steps, in which circuits can be looked for.

    Raises:
        ModelError: it cannot be run as steps, or has no heads.
    """
    net = network_of(model)
    if not net.n_heads:
        raise ModelError(
            f"{model.spec.name!r} ({model.spec.architecture}) has no heads, of which circuits are made: patch channels"
            " of its mixers with `profiler.patching.sweep`, or name a model with attention"
        )
    return net


def network_of_direct_heads(model: Model) -> Network:
    """A model as steps whose heads have direct parts of the logits.

    Raises:
        ModelError: it cannot be run as steps, has no heads, or norms of the residual stream stand between its layers.
    """
    net = network_of_heads(model)
    if not net.heads_direct:
        raise ModelError(
            f"norms of the residual stream stand between the layers of {model.spec.name!r} ({model.spec.architecture}),"
            " so that its heads have no direct part of the logits of their own, which this asks for: patch it with"
            " `patch`, or name another model"
        )
    return net


class _StepTrial:
    """Comparisons on a few tokens.

    Args:
        tokens: prompts that differ.
    """

    def __init__(self, net: ModuleNetwork, tokens: Int[Tensor, "prompt offset"]):
        self.net, self.tokens = net, tokens
        self.sites: dict[tuple[str, int], Tensor] = {}
        self.tolerance = ROUNDING[net.dtype]

    def close(self, got: Tensor, expected: Tensor) -> bool:
        """Whether two results differ by rounding alone."""
        return bool((got - expected).abs().max() <= self.tolerance * expected.abs().max().clamp_min(1e-9))

    def keep(self, site: str, layer: int, value: Tensor, _offsets: Offsets) -> Tensor:
        """The edit that keeps every site."""
        self.sites[site, layer] = value
        return value


def _try(net: ModuleNetwork, model: Model, tokens: Int[Tensor, "prompt offset"], name: str) -> None:
    """Try what a network allows, and note it.

    Raises:
        ModelError: taken layer by layer it computes something else.
    """
    own, trial = logits_of(model, tokens), _StepTrial(net, tokens)
    net.module(tokens, use_cache=False)  # notes in which form its modules return
    if not _holds(lambda: trial.close(forward(net, tokens), own)):
        raise ModelError(f"{name} cannot be patched: run layer by layer it computes other logits")
    net.asks_again = not _holds(lambda: _repeated(trial, own))
    if net.asks_again and not _repeated(trial, own):
        raise ModelError(f"{name} cannot be patched: its layers compute other logits for several rows of a prompt")
    net.adds_in_place = _changes_in_place(trial)
    net.inside_attention = net.inside_attention and trial.close(forward(net, tokens, trial.keep), own)
    steps = net.begin(tokens)
    stream = steps.stream
    for layer in range(net.n_layers):
        after = steps.layer(layer, stream, trial.keep)
        _try_layer(trial, steps, layer, stream, after, name)
        stream = after
    _try_end(trial, own)
    first = tokens.shape[1] // 2
    net.resumes = True
    net.resumes = _holds(lambda: _from_past(trial, first, own))


def _holds(trial: Callable[[], bool]) -> bool:
    """Whether something can be done, and gives the same."""
    try:
        return trial()
    except (RuntimeError, TypeError, ValueError, KeyError, IndexError, AttributeError, NotImplementedError):
        return False


def _try_layer(trial: _StepTrial, steps: Steps, layer: int, stream: Tensor, after: Tensor, name: str) -> None:
    """Find which given values can stand in for the work of a layer's attention or MLP.

    Raises:
        ModelError: put in where they were written, they change what the layer computes.
    """
    net = trial.net
    for written, read in (("attn_out", "head"), ("mlp_out", "neuron")):
        part = net.part(layer, written)
        if part is None or part.child is part.module:
            continue
        net.stands_in.add((layer, written))
        forms = [written] if part.writer is None else [written, read]
        given = [{PARAMETER[site]: trial.sites[site, layer]} for site in forms]
        if not all(_holds(partial(_stood_in, trial, steps, layer, stream, after, values)) for values in given):
            net.stands_in.discard((layer, written))
            if not all(_stood_in(trial, steps, layer, stream, after, values) for values in given):
                raise ModelError(
                    f"{name} cannot be patched: layer {layer} computes something else where what its"
                    f" {'attention' if written == 'attn_out' else 'MLP'} wrote is put in"
                )
    heads = trial.sites.get(("head", layer))
    if net.inside_attention and net.own_attention and heads is not None:
        net.inside_attention = _holds(partial(_attends, trial, steps, layer, stream))
    if heads is not None and net.inside_attention:
        every, first = (steps.heads(layer, stream, partial(_twice_v, only_first=only)) for only in (False, True))
        net.heads_apart = net.heads_apart and trial.close(every[:, :, 0], first[:, :, 0])
    if heads is not None and net.neurons(layer):
        twice = steps.neurons(layer, stream, 2 * heads)
        net.parallel = bool((twice == steps.neurons(layer, stream, heads)).all())


def _changes_in_place(trial: _StepTrial) -> bool:
    """Whether layers change the very values that their blocks wrote."""
    net, before = trial.net, dict[tuple[str, int], tuple[Tensor, Tensor]]()

    def keep(site: str, layer: int, value: Tensor, _offsets: Offsets) -> Tensor:
        before[site, layer] = value, value.clone()
        return value

    net.adds_in_place = False
    forward(net, trial.tokens, keep, patterns=False)
    return any(not bool((value == copied).all()) for value, copied in before.values())


def _twice_v(site: str, _layer: int, value: Tensor, _offsets: Offsets, *, only_first: bool) -> Tensor:
    """The edit that doubles the values of all heads, or of the first."""
    if site != "v":
        return value
    factor = torch.ones(value.shape[2], 1, dtype=value.dtype, device=value.device)
    factor[: 1 if only_first else None] = 2
    return value * factor


def _attends(trial: _StepTrial, steps: Steps, layer: int, stream: Tensor) -> bool:
    """Whether what is taken for queries, keys, values and patterns of a module's own attention are these: patterns sum
    to 1, reach nothing later and mix the values to what the heads wrote, and queries or keys of 0 give one other
    pattern."""
    pattern, v, head = (trial.sites[site, layer] for site in ("pattern", "v", "head"))
    still = [steps.pattern(layer, stream, partial(_without, lost)) for lost in ("q", "k")]
    return (
        trial.close(pattern.sum(-1), torch.ones_like(pattern[..., 0]))
        and not pattern.triu(1).any()
        and trial.close(mix(pattern.to(v.dtype), v), head)
        and trial.close(*still)
        and not trial.close(still[0], pattern)
    )


def _without(lost: str, site: str, _layer: int, value: Tensor, _offsets: Offsets) -> Tensor:
    """The edit that puts 0 at a site."""
    return value * 0 if site == lost else value


def _stood_in(
    trial: _StepTrial, steps: Steps, layer: int, stream: Tensor, after: Tensor, given: dict[str, Any]
) -> bool:
    return trial.close(steps.rest(layer, stream, **given), after)


def _try_end(trial: _StepTrial, own: Float[Tensor, "prompt offset vocab"]) -> None:
    """Find whether the last layer can be computed at one offset a prompt."""
    net, n = trial.net, trial.tokens.shape[1]
    last = net.n_layers - 1
    ends = torch.arange(n - 1, n - 1 - len(trial.tokens), -1, device=net.device)
    rows = torch.arange(len(ends), device=net.device)
    both = {(last, "attn_out"), (last, "mlp_out")}
    net.narrow_end = both <= net.stands_in and not net.weights.mixes_beside(last)
    net.narrow_end = net.narrow_end and _holds(
        lambda: trial.close(forward(net, trial.tokens, ends=ends), own[rows, ends])
    )


def _repeated(trial: _StepTrial, own: Float[Tensor, "prompt offset vocab"]) -> bool:
    steps = trial.net.begin(trial.tokens)
    return trial.close(steps.to_end(0, steps.stream.repeat(2, 1, 1)), own.repeat(2, 1, 1))


def _from_past(trial: _StepTrial, first: int, own: Float[Tensor, "prompt offset vocab"]) -> bool:
    net, tokens = trial.net, trial.tokens
    steps = net.begin(tokens, past=net.past(tokens, first))
    rows = steps.to_end(0, steps.stream.repeat(2, 1, 1))
    return steps.first == first and trial.close(rows, own[:, first:].repeat(2, 1, 1))


def plain_of(model: Model) -> PlainNetwork:
    """The weights of a model written out.

    Raises:
        ModelError: the model's form is not known here, or it computes something else.
    """
    bridge = model.bridge
    if bridge is None or not model.spec.d_mlp:
        raise ModelError(
            f"the weights of {model.spec.name!r} ({model.spec.architecture}) cannot be read one by one: {_known()}"
        )
    try:
        with torch.inference_mode(mode=False), torch.no_grad():
            net = _network(bridge, model.spec.context_length)
    except Exception as error:
        raise ModelError(
            f"the weights of {model.spec.name!r} cannot be read one by one ({error}): {_known()}"
        ) from error
    _compare(model, net)
    return net


def longest(model: Model) -> int:
    """The longest prompt that can be patched, in tokens."""
    readers = [writer.reader for writer in model.weights.sources.writers if writer.block.kind == "head"]
    return model.spec.context_length if goes_through_register(model.network, readers) else reach(model)


def reach(model: Model) -> int:
    """The longest text, in tokens, on which every layer attends to everything before, as weights written out do."""
    config = model.network.config
    sizes = [getattr(config, name, None) for name in WINDOW_FIELDS]
    local = "local" in (getattr(config, "attention_layers", None) or ["local"])
    if not local or getattr(config, "use_sliding_window", True) is False:
        sizes = []
    return min([model.spec.context_length, *(size for size in sizes if isinstance(size, int) and size > 0)])


def _plain_as_model(model: Model) -> PlainNetwork:
    """The weights written out, where they compute what the model does on texts of any length.

    Raises:
        ModelError: their form is not known, or some layers attend to the last tokens alone.
    """
    if reach(model) < model.spec.context_length:
        raise ModelError(
            f"the weights of {model.spec.name!r} cannot be read one by one: some of its layers attend to the last"
            f" {reach(model)} tokens alone"
        )
    return plain_of(model)


def _known() -> str:
    return "the forms known are those of GPT-2, GPT-NeoX, Llama and models built like them"


def _compare(model: Model, net: PlainNetwork) -> None:
    """Refuse a model whose logits are not those of the weights."""
    tokens = torch.arange(1, 1 + min(PROBE, reach(model)), device=net.device)[None] % model.spec.n_vocab
    with torch.inference_mode():
        theirs = logits_of(model, tokens)
        difference = (forward(net, tokens) - theirs).abs().max().item()
    scale = theirs.abs().max().item()
    if not difference <= TOLERANCE.get(theirs.dtype, LOOSE) * max(1.0, scale):
        raise ModelError(
            f"the weights of {model.spec.name!r} cannot be read one by one (their logits are off by"
            f" {difference:.1e} of {scale:.1f}): {_known()}"
        )


def _network(bridge: Any, context: int) -> PlainNetwork:
    cfg = bridge.cfg
    positions = bridge.pos_embed.weight.detach() if cfg.positional_embedding_type == "standard" else None
    return PlainNetwork(
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
    offsets = torch.arange(context, device=bridge.W_E.device)[None]
    cos, sin = body.rotary_emb(bridge.W_E.detach()[None, :1], offsets)
    return cos[0].detach(), sin[0].detach()


def logits_of(model: Model, tokens: Int[Tensor, "prompt offset"]) -> Float[Tensor, "prompt offset vocab"]:
    """The logits of the model's own forward pass."""
    n, width = tokens.shape
    every = (torch.arange(n).repeat_interleave(width), torch.arange(width).repeat(n))
    logits = model.run(tokens, Wanted(logits=every)).logits.unflatten(0, (n, width))
    return model.weights.wiring.capped(logits)
