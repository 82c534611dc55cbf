"""A model whose writers can be watched, changed and differentiated: the network on which total effects are measured.

The network is a twin of the loaded one, with the hooks of a pass (`profiler.model.forward`) and, before them, one at
the matrix of every block, which gives what it reads to an edit. So what is ablated and what a gradient is asked of is
what a pass records, in every architecture. Neurons of routed experts are left out: they have no value where their
expert was not chosen.

Two ways to hold what is not linear, for `frozen`: attention gets its queries and keys without their gradient, so that
its pattern is a constant of the backward pass; the denominators of norms are constants likewise (the rules of
layer-wise relevance propagation for attention and norms: Achtibat et al. 2024, AttnLRP; Jafari et al. 2025, RelP).

Cost: a forward pass; the unembedding is applied at the positions whose loss is asked for.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask, sdpa_mask

from profiler.axes import PerPosition, TokenIds
from profiler.errors import ModelError
from profiler.model import norms
from profiler.model.components import Block
from profiler.model.direct import at_unembed, centred_logit, final_norm
from profiler.model.forward import EAGER, FUSED, Capture, Wanted, goes_through_register, watch
from profiler.model.load import Model, twin_of
from profiler.model.wiring import Directions
from profiler.model.writers import Writer

Values = Float[Tensor, "window offset unit width"]
"""What a block's matrix reads, by unit: d_head values of a head, 1 of a neuron or channel."""
Edit = Callable[[Block, Values], Values]


def unchanged(_block: Block, value: Values) -> Values:
    """The edit that changes nothing."""
    return value


@dataclass(frozen=True, eq=False)
class WatchedPass:
    """What one forward pass left.

    Attributes:
        logit: of each position's next token, centred over the vocabulary, before a soft cap.
        loss: -ln p(next token), nats, of the positions it was asked for, in their order.
        values: of each block what its matrix read, after the edit, as `Values`.
        capture: what the pass recorded.
    """

    logit: PerPosition
    loss: Float[Tensor, " row"]
    values: dict[Block, Tensor]
    capture: Capture


@dataclass
class _EditNow:
    """What the hooks do in the call under way."""

    edit: Edit = unchanged
    shape: tuple[int, ...] = (0, 0)
    values: dict[Block, Tensor] = field(default_factory=dict)


class EffectNetwork:
    """The network of a model, for total effects.

    Attributes:
        writers: the writer of each block that is measured, in the order of blocks.
        left_out: units of routed experts, which are not.
    """

    def __init__(self, model: Model, **watching: Any):
        """Make the twin.

        Args:
            watching: options of `profiler.model.forward.watch`, where attention rows are to be read.
        """
        self.model, self._now, self._holds_norms = model, _EditNow(), False
        self.module = twin_of(model.unwatched).requires_grad_(requires_grad=False)
        self._forward = watch(self.module, model.weights.sources, model.weights.wiring, **watching)
        self.writers: dict[Block, Writer] = {b: w for b, w in model.weights.writers.items() if w.expert is None}
        self.left_out = sum(block.units for block in model.weights.writers if block not in self.writers)
        modules = dict(self.module.named_modules())
        for writer in self.writers.values():
            modules[writer.site].register_forward_pre_hook(self._edited(writer), prepend=True)
        modules[model.weights.sources.embed].register_forward_hook(_begin_graph)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.weights.unembed.device

    def _edited(self, writer: Writer) -> Callable[..., Any]:
        now = self._now

        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            value = args[0].reshape(*now.shape, writer.block.units, writer.width)
            now.values[writer.block] = changed = now.edit(writer.block, value)
            return (changed.reshape(args[0].shape), *args[1:])  # even if unchanged: a gradient is asked of the value

        return hook

    def run(
        self,
        tokens: TokenIds,
        targets: TokenIds,
        edit: Edit = unchanged,
        loss_at: Bool[Tensor, "window offset"] | None = None,
        wanted: Wanted | None = None,
    ) -> WatchedPass:
        """One forward pass; with gradients where torch records them.

        Args:
            targets: the next token of each position.
            loss_at: positions whose loss is wanted.
            wanted: what the capture is to hold, in the place of `loss_at`: no loss then.
        """
        tokens, targets = tokens.to(self.device), targets.to(self.device)
        nowhere = torch.zeros_like(tokens, dtype=torch.bool) if loss_at is None else loss_at.to(self.device)
        windows, offsets = nowhere.nonzero(as_tuple=True)
        self._now.edit, self._now.shape, self._now.values = edit, tuple(tokens.shape), {}
        try:
            asked = Wanted(logits=(windows, offsets)) if wanted is None else wanted.to(self.device)
            capture = self._forward(tokens, asked)
            values = self._now.values
        finally:
            self._now.edit, self._now.values = unchanged, {}
        stream, scale = final_norm(capture, self.model.weights)
        scale = scale.detach() if self._holds_norms else scale
        logit = centred_logit(stream, scale, self.model.weights, targets)
        logits = capture.logits[: len(windows)].to(torch.promote_types(capture.logits.dtype, torch.float32))
        logits = self.model.weights.wiring.capped(logits)
        loss = nn.functional.cross_entropy(logits, targets[nowhere], reduction="none")
        return WatchedPass(logit, loss, values, capture)

    def direct_slopes(self, passed: WatchedPass, targets: TokenIds) -> Iterator[tuple[Block, Values]]:
        """Of each block, the derivative of the centred logit by what its matrix reads, directly alone.

        With the denominators of norms on the way held: times the value it is the direct logit attribution.
        """
        weights, scales = self.model.weights, {name: value.detach() for name, value in passed.capture.scales.items()}
        directions = Directions(weights.wiring, at_unembed(weights, targets.to(self.device)), scales)
        for block, writer in self.writers.items():
            slope = directions.at(writer.site) @ weights.matrix(block).T
            yield block, slope.unflatten(-1, (block.units, writer.width))

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Hold attention patterns and denominators of norms in the backward pass; forward passes are the same.

        Raises:
            ModelError: the model's attention cannot be reached, or a norm is of another form.
        """
        readers = [writer.reader for block, writer in self.writers.items() if block.kind == "head"]
        own = self.module.config._attn_implementation
        if readers and not (own in FROZEN and goes_through_register(self.module, readers)):
            raise ModelError(
                f"{self.model.spec.name!r} calls no attention function of transformers' register, so that its"
                " attention cannot be held: leave out the method frozen"
            )
        handles = [norm.register_forward_hook(_holds(norm, name)) for name, norm in self._norms()]
        try:
            if readers:
                self.module.set_attn_implementation(FROZEN[own])
            self._holds_norms = True
            yield
        finally:
            self._holds_norms = False
            for handle in handles:
                handle.remove()
            if readers:
                self.module.set_attn_implementation(own)

    def _norms(self) -> Iterator[tuple[str, nn.Module]]:
        return ((name, part) for name, part in self.module.named_modules() if norms.is_norm(part))


def _begin_graph(_module: nn.Module, _args: Any, output: Tensor) -> Tensor | None:
    """Embeddings begin the graph: no weight has a gradient of its own."""
    return output.detach().requires_grad_() if torch.is_grad_enabled() else None


def _held_attention(own: str) -> Callable[..., Any]:
    """An attention function of the register with the pattern held."""

    def attention(module: nn.Module, query: Tensor, key: Tensor, *inputs: Any, **options: Any) -> Any:
        return AttentionInterface()[own](module, query.detach(), key.detach(), *inputs, **options)

    return attention


FROZEN = {FUSED: "profiler_held_fused", EAGER: "profiler_held_eager"}
"""Of the attention functions of a pass, those that hold the pattern, by their names in transformers' register."""
for _own, _mask in ((FUSED, sdpa_mask), (EAGER, eager_mask)):
    AttentionInterface.register(FROZEN[_own], _held_attention(_own))
    AttentionMaskInterface.register(FROZEN[_own], _mask)


def _holds(norm: nn.Module, name: str) -> Callable[..., Tensor]:
    """A hook that gives a norm's output the gradient that it has with its denominator held."""
    weight = getattr(norm, "weight", None)
    read: list[norms.HeldNorm] = []

    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return output
        stream = args[0]
        if not read:
            dtype = stream.dtype if weight is None else torch.promote_types(stream.dtype, weight.dtype)
            read.append(norms.read(_bare(module), name, stream.shape[-1], dtype))
        linear_norm = read[0]
        linear = linear_norm.centred(stream) * linear_norm.gain / linear_norm.denominator(stream).detach()
        return output.detach() + (linear - linear.detach()).to(output.dtype)

    return hook


def _bare(module: nn.Module) -> nn.Module:
    """A norm without hooks."""
    bare = copy.copy(module)
    bare._forward_hooks, bare._forward_pre_hooks = type(module._forward_hooks)(), type(module._forward_pre_hooks)()
    return bare
