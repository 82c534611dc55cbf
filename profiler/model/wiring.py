"""How what each block writes reaches the logits, found from the model itself: writers, norms on their way, multipliers.

Cut the graph at every *writer* (the last matrix of a block: attention output, MLP down, experts, the output of a
state-space or convolution mixer), at the embeddings, and at every norm. What is left between a cut and the next norm is
additions and fixed multipliers (Granite's residual multiplier, Gemma's embedding scale, Cohere's logit scale), so a
gradient between them is that multiplier, exactly. A matrix whose output reaches no norm on the way to the logits, such
as a query projection, is no writer. No name of an architecture is asked for.

Experts that transformers computes in one module are one writer: what the router hands them is held, as attention
patterns are. A gate of one value (Qwen's shared experts have one) is held too: the multiplier of its wire is the
sigmoid of the gate's output at each position.

With the denominators of those norms held (`profiler.model.norms`), the way from a writer to a logit is linear, and

    dla(unit) = (what the unit adds to its writer's output) . (direction of the logit at that output).

`Directions` computes those, from the unembedding backwards. Cost: positions * d_model for every norm on the way.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from profiler.errors import ModelError
from profiler.model import norms
from profiler.model.norms import HeldNorm

HEAD = "unembed"
"""Name of the sink where the unembedding reads."""
CALL = "#"
"""Stands before the number of a call in names."""

Direction = Float[Tensor, "*position model"]


@dataclass(frozen=True, eq=False)
class Wire:
    """A fixed multiplication between a cut and the sink that reads it.

    Attributes:
        source: the module whose output is cut: a writer, an embedding or a norm.
        multiplier: a number, or a number for each dimension.
        gate: the module whose output's sigmoid multiplies as well, at each position; None where there is none.
    """

    source: str
    multiplier: float | Float[Tensor, " model"]
    gate: str | None = None


@dataclass(frozen=True, eq=False)
class Sink:
    """A norm on the way to the logits, or the unembedding (`norm` is None), and what it reads.

    Attributes:
        name: the path of the module; of a norm's second call in a pass with `#2` after it (NanoChat norms its
            embeddings and its final residual stream by one module).
    """

    name: str
    norm: HeldNorm | None
    wires: tuple[Wire, ...]


@dataclass(frozen=True, eq=False)
class Wiring:
    """The way of every writer to the logits.

    Attributes:
        sinks: the unembedding first; each sink after all that read its output.
        sources: writers and embeddings in the order the model calls them.
        logit_scale: what the unembedding's output is multiplied by (before a soft cap).
        soft_cap: c of c * tanh(z / c), where the model ends in a soft cap.
    """

    sinks: tuple[Sink, ...]
    sources: tuple[str, ...]
    logit_scale: float
    soft_cap: float | None

    @cached_property
    def path_norms(self) -> tuple[str, ...]:
        """Norms whose denominators a forward pass has to leave."""
        return tuple(sink.name for sink in self.sinks if sink.norm is not None)

    @cached_property
    def gates(self) -> tuple[str, ...]:
        """Gates whose sigmoid a forward pass has to leave."""
        gates = (wire.gate for sink in self.sinks for wire in sink.wires)
        return tuple(dict.fromkeys(gate for gate in gates if gate is not None))

    @cached_property
    def final(self) -> Sink | None:
        """The final norm; None where the unembedding reads the residual stream itself."""
        wires = self.sinks[0].wires
        return next((sink for sink in self.sinks if [sink.name] == [wire.source for wire in wires]), None)

    def capped(self, logits: Float[Tensor, "*shape vocab"]) -> Float[Tensor, "*shape vocab"]:
        """The model's own logits: after its soft cap, where it has one."""
        return logits if self.soft_cap is None else self.soft_cap * (logits / self.soft_cap).tanh()

    def cap_slope(self, capped: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """How much a capped logit moves for a logit before the cap, 1 - (capped / c)^2; NaN where there is no cap."""
        return torch.full_like(capped, torch.nan) if self.soft_cap is None else 1 - (capped / self.soft_cap).square()

    @cached_property
    def readers(self) -> dict[str, tuple[tuple[Sink, Wire], ...]]:
        """Of each cut, what reads it."""
        by_writer: dict[str, list[tuple[Sink, Wire]]] = {}
        for sink in self.sinks:
            for wire in sink.wires:
                by_writer.setdefault(wire.source, []).append((sink, wire))
        return {source: tuple(pairs) for source, pairs in by_writer.items()}


def scaled(value: Float[Tensor, "*any model"], multiplier: float | Tensor) -> Float[Tensor, "*any model"]:
    """The value times a fixed multiplier."""
    return value if isinstance(multiplier, float) and multiplier == 1.0 else value * multiplier


class Directions:
    """The direction of a logit at the output of every writer, embedding and norm, worked out where it is asked for.

    Args:
        at_unembed: its direction at what the unembedding reads: its row of the unembedding, centred and scaled.
        scales: of each of `wiring.path_norms` its denominator, of each of `wiring.gates` its sigmoid, at the same
            positions.
    """

    def __init__(self, wiring: Wiring, at_unembed: Direction, scales: Mapping[str, Float[Tensor, "*#position 1"]]):
        self.wiring, self.scales = wiring, scales
        self._before: dict[str, Direction] = {HEAD: at_unembed}

    def at(self, source: str) -> Direction:
        """The direction at the output of a writer, an embedding or a norm."""
        parts = [self._through(sink, wire) for sink, wire in self.wiring.readers[source]]
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)

    def _through(self, sink: Sink, wire: Wire) -> Direction:
        """The direction before a wire."""
        before = scaled(self._before_sink(sink), wire.multiplier)
        return before if wire.gate is None else before * self.scales[wire.gate].to(before.dtype)

    def _before_sink(self, sink: Sink) -> Direction:
        """The direction at what a sink reads; remembered where more than one cut is read there."""
        if sink.name in self._before:
            return self._before[sink.name]
        assert sink.norm is not None
        before = sink.norm.pull_back(self.at(sink.name), self.scales[sink.name])
        if len(sink.wires) > 1:
            self._before[sink.name] = before
        return before


@dataclass(frozen=True, eq=False)
class Toward:
    """The direction at an output, factored: that of position p is scale[p] * of_token[number[p]].

    Attributes:
        of_token: a direction for each distinct token.
        number: which of them is each position's.
        scale: what the held denominators and gates on the way make of it, at each position.
    """

    of_token: Float[Tensor, "token model"]
    number: Int[Tensor, "window offset"]
    scale: Float[Tensor, "window offset"]

    def directions(self) -> Float[Tensor, "window offset model"]:
        """The direction of each position."""
        return self.of_token[self.number] * self.scale[..., None]

    def rows(self, rows: Int[Tensor, " row"]) -> Float[Tensor, "row model"]:
        """The directions of some positions (window * width + offset)."""
        return self.of_token[self.number.flatten()[rows]] * self.scale.flatten()[rows, None]

    def along(self, vector: Float[Tensor, "*any model"]) -> Float[Tensor, "window offset"]:
        """The product with a vector, the same at all positions or of each."""
        if vector.dim() == 1:
            return (self.of_token @ vector)[self.number] * self.scale
        return (self.of_token[self.number] * vector).sum(-1) * self.scale


class TokenDirections:
    """The same directions, worked out for the distinct tokens of a batch instead of for all of its positions.

    A way to the logits is linear but for the denominators and gates on it, which are numbers: they can be multiplied
    afterwards. Text has far fewer distinct next tokens than positions (18 to 26 % of 4,096 to 16,384), so products with
    directions are cheaper by as much. Where what a cut writes reaches the logits by several ways with denominators of
    their own, its directions are those of all positions.

    Args:
        at_unembed: directions of tokens at what the unembedding reads.
        targets: each position's token.
        scales: as for `Directions`, at all positions.
    """

    def __init__(
        self,
        wiring: Wiring,
        at_unembed: Callable[[Int[Tensor, " token"]], Direction],
        targets: Int[Tensor, "window offset"],
        scales: Mapping[str, Float[Tensor, "window offset 1"]],
    ):
        self.wiring, self.scales = wiring, scales
        unique: tuple[Tensor, Tensor] = targets.unique(return_inverse=True)
        tokens, self.number = unique
        toward = at_unembed(tokens)
        self.none = torch.ones(targets.shape, dtype=toward.dtype, device=targets.device)
        free = dict.fromkeys(scales, torch.ones_like(toward[:1, :1]))
        self._of_tokens = Directions(wiring, toward, free)
        self._of_positions: Callable[[], Directions] = lambda: Directions(wiring, at_unembed(targets), scales)

    def at(self, source: str) -> Toward:
        """The directions at the output of a writer, an embedding or a norm."""
        factors = list(self._factors(source))
        told = [factor for factor in factors if factor is not None]
        if len(told) < len(factors):
            directions = self._of_positions().at(source)
            every = torch.arange(self.number.numel(), device=self.number.device)
            return Toward(directions.flatten(0, 1), every.view_as(self.number), self.none)
        scale = self.none
        for name, divides in told:
            value = self.scales[name][..., 0].to(scale.dtype)
            scale = scale / value if divides else scale * value
        return Toward(self._of_tokens.at(source), self.number, scale)

    def _factors(self, source: str) -> Iterator[tuple[str, bool] | None]:
        """The held denominators (true) and gates (false) on the only way from a cut to the logits; None: several ways
        lead there."""
        while source != HEAD:
            if len(self.wiring.readers[source]) > 1:
                yield None
                return
            ((sink, wire),) = self.wiring.readers[source]
            if wire.gate is not None:
                yield wire.gate, False
            if sink.norm is not None:
                yield sink.name, True
            source = sink.name


@dataclass
class _Cuts:
    """What a traced pass leaves: leaves at every cut, what norms and the unembedding read, and outputs of gates."""

    leaves: dict[str, Tensor]
    read: dict[str, Tensor]
    twice: set[str]
    gates: dict[str, Tensor]
    calls: Counter[str]
    head: Tensor | None = None


@dataclass(frozen=True)
class Stream:
    """The residual stream before or after a layer.

    Attributes:
        layer: the path of the layer's module.
        after: whether after it.
    """

    layer: str
    after: bool

    @property
    def name(self) -> str:
        """What the cut is called in a wiring that was found with it."""
        return f"{self.layer}{CALL}{'after' if self.after else 'before'}"

    def cut(self, network: PreTrainedModel, cuts: _Cuts, d_model: int) -> Any:
        """Hook the layer, so that the stream there is a leaf; the hook's handle."""
        cut, module = _cut(self.name, cuts, d_model), network.get_submodule(self.layer)
        if self.after:
            return module.register_forward_hook(cut)

        def before(_module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
            if args:
                return (cut(_module, (), args[0]), *args[1:]), named
            return args, {**named, "hidden_states": cut(_module, (), named["hidden_states"])}

        return module.register_forward_pre_hook(before, with_kwargs=True)


def call_name(site: str, call: int) -> str:
    """The name of a norm's call in a pass, counted from 1."""
    return site if call == 1 else f"{site}{CALL}{call}"


def site_of(name: str) -> str:
    """The path of the module of a sink or of a wire's source."""
    return name.partition(CALL)[0]


def find(
    network: PreTrainedModel, tokens: Int[Tensor, "1 offset"], dtype: torch.dtype, stream: "Stream | None" = None
) -> Wiring:
    """The wiring of a decoder, from one traced pass over one window of a few tokens.

    Args:
        dtype: that of the norms' gains and of all directions.
        stream: a point of the residual stream that is cut as well: what comes before it is then found no more.

    Raises:
        ModelError: something between a block and the logits is no addition, fixed multiplication or norm.
    """
    modules = dict(network.named_modules())
    cuts, logits = _traced(network, tokens, stream)
    scale, cap = _after_unembed(network, cuts, logits)
    sink_of: dict[str, Sink] = {}
    waiting, order = [HEAD], list(cuts.leaves)
    d_model = cuts.read[HEAD].shape[-1]
    while waiting:
        name = waiting.pop()
        wires = tuple(_wires(name, cuts))
        norm = None if name == HEAD else norms.read(modules[site_of(name)], name, d_model, dtype)
        sink_of[name] = Sink(name, norm, wires)
        waiting += [wire.source for wire in wires if wire.source in cuts.read and wire.source not in sink_of]
    for name in cuts.twice & {wire.source for sink in sink_of.values() for wire in sink.wires}:
        raise ModelError(f"{name!r} is used more than once in a pass: what it writes has no layer of its own")
    sinks = sorted(sink_of.values(), key=lambda sink: -order.index(sink.name) if sink.norm else -len(order))
    reached = {wire.source for sink in sinks for wire in sink.wires}
    sources = tuple(name for name in order if name in reached and name not in sink_of)
    return Wiring(tuple(sinks), sources, scale, cap)


def _wires(sink: str, cuts: _Cuts) -> Iterator[Wire]:
    """What a sink reads, each with its multiplier."""
    read = cuts.read[sink]
    leaves = {name: leaf for name, leaf in cuts.leaves.items() if name != sink}
    if not read.requires_grad:
        return
    grads = torch.autograd.grad(
        read, list(leaves.values()), torch.ones_like(read), retain_graph=True, allow_unused=True
    )
    for name, grad in zip(leaves, grads, strict=True):
        if grad is not None and bool(grad.any()):
            yield _wire(name, sink, grad, cuts.gates)


def _wire(source: str, sink: str, grad: Float[Tensor, "*position model"], gates: Mapping[str, Tensor]) -> Wire:
    """The wire that a gradient of ones came back by.

    Raises:
        ModelError: its multiplication differs between tokens by more than a gate.
    """
    rows = grad.reshape(-1, grad.shape[-1])
    first = rows[0]
    if bool((rows == first).all()):
        return Wire(source, float(first[0]) if bool((first == first[0]).all()) else first.clone())
    near = norms.COARSE_ROUNDING if rows.dtype.itemsize < torch.float32.itemsize else norms.ROUNDING
    for gate, output in gates.items():
        ungated = rows / output.sigmoid().reshape(-1, 1)
        if bool((ungated / ungated[0, 0] - 1).abs().max() <= near):
            multiplier = float(ungated[0, 0])
            return Wire(source, 1.0 if abs(multiplier - 1) <= near else multiplier, gate)
    if not any(part.isdigit() for part in source.split(".")) and not sink.count(".layers."):
        why = "several residual streams are mixed" if "embed" in source else "a prediction head stands"
        raise ModelError(
            f"{why} between the last layer and the unembedding ({source!r} before {sink!r}), so what is before it is"
            " changed by more than fixed multipliers and norms: name a model whose final norm is what it unembeds"
        )
    raise ModelError(
        f"what {source!r} writes is multiplied by another number at each token before {sink!r}: only fixed multipliers"
        " can be followed to the logits"
    )


def _traced(
    network: PreTrainedModel, tokens: Int[Tensor, "1 offset"], stream: Stream | None = None
) -> tuple[_Cuts, Tensor]:
    """One pass with every candidate cut."""
    cuts = _Cuts({}, {}, set(), {}, Counter())
    head = network.get_output_embeddings()
    d_model = head.weight.shape[1]
    with ExitStack() as stack:
        for name, module in network.named_modules():
            hook = None
            if module is head:
                stack.callback(module.register_forward_pre_hook(_reads_head(cuts)).remove)
                stack.callback(module.register_forward_hook(_cut_head(cuts)).remove)
            elif norms.is_norm(module):
                stack.callback(module.register_forward_pre_hook(_reads_call(name, cuts, d_model)).remove)
                hook = _cut_call(name, cuts, d_model)
            elif _may_write(module, d_model):
                hook = _cut(name, cuts, d_model)
            elif _writes_values(module, 1):
                hook = _hold_gate(name, cuts)
            if hook is not None:
                stack.callback(module.register_forward_hook(hook).remove)
        if stream is not None:
            stack.callback(stream.cut(network, cuts, d_model).remove)
        with torch.enable_grad():
            logits = network(tokens.to(head.weight.device), use_cache=False).logits
    return cuts, logits


def is_embedding(module: nn.Module) -> bool:
    """Whether it looks up a vector of each token or position, in a table or by a formula."""
    return isinstance(module, nn.Embedding) or "embedding" in type(module).__name__.lower()


def is_experts(module: nn.Module) -> bool:
    """Whether it computes all experts of a layer from three-dimensional weights, as `use_experts_implementation` of
    transformers has it: it is called with hidden states, the experts chosen at each position and their weights."""
    down = getattr(module, "down_proj", None)
    if not torch.is_tensor(down) or down.dim() != len(("expert", "in", "out")):
        return False
    return all(hasattr(module, name) for name in ("has_gate", "has_bias", "is_transposed", "has_post_expert_norm"))


def _may_write(module: nn.Module, d_model: int) -> bool:
    return is_embedding(module) or is_experts(module) or _writes_values(module, d_model)


def _writes_values(module: nn.Module, n: int) -> bool:
    """Whether it is a matrix that writes `n` values of a token."""
    weight = getattr(module, "weight", None)
    if weight is None or weight.dim() != len(("in", "out")):
        return False
    return bool((weight.shape[1] if isinstance(module, Conv1D) else weight.shape[0]) == n)


def _hold_gate(name: str, cuts: _Cuts) -> Callable[..., Any]:
    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        if not torch.is_tensor(output):
            return None
        cuts.gates[name] = output.detach()
        return cuts.gates[name]

    return hook


def _cut(name: str, cuts: _Cuts, d_model: int) -> Callable[..., Any]:
    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        value = output[0] if isinstance(output, tuple) else output
        if value.shape[-1] != d_model:
            return None
        if name in cuts.leaves:
            cuts.twice.add(name)
        leaf = value.detach().clone().requires_grad_()
        cuts.leaves[name] = leaf
        passed = leaf * 1.0  # a view of a leaf must not be changed in place
        return (passed, *output[1:]) if isinstance(output, tuple) else passed

    return hook


def _cut_call(name: str, cuts: _Cuts, d_model: int) -> Callable[..., Any]:
    """Cut the output of each call of a norm, which `_reads_call` has counted."""

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        return _cut(call_name(name, cuts.calls[name]), cuts, d_model)(module, args, output)

    return hook


def _reads_call(name: str, cuts: _Cuts, d_model: int) -> Callable[..., Any]:
    def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if args and args[0].shape[-1] == d_model:
            cuts.calls[name] += 1
            cuts.read[call_name(name, cuts.calls[name])] = args[0]

    return hook


def _reads_head(cuts: _Cuts) -> Callable[..., Any]:
    def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        cuts.read[HEAD] = args[0]

    return hook


def _cut_head(cuts: _Cuts) -> Callable[..., Any]:
    def hook(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        cuts.head = output.detach().clone().requires_grad_()
        return cuts.head * 1.0

    return hook


def _after_unembed(network: PreTrainedModel, cuts: _Cuts, logits: Tensor) -> tuple[float, float | None]:
    """What comes after the unembedding: a fixed multiplier, and the c of a soft cap.

    Raises:
        ModelError: it is neither.
    """
    assert cuts.head is not None
    (grad,) = torch.autograd.grad(logits, cuts.head, torch.ones_like(logits), retain_graph=True)
    if bool((grad == grad.flatten()[0]).all()):
        return float(grad.flatten()[0]), None
    config = network.config.get_text_config()
    cap = next(
        (getattr(config, key) for key in ("final_logit_softcapping", "logits_soft_cap") if getattr(config, key, None)),
        None,
    )
    z = cuts.head.detach().double()
    if cap and (cap * (z / cap).tanh() - logits.detach().double()).abs().max() <= norms.ROUNDING * cap:
        return 1.0, float(cap)
    raise ModelError(
        "what the model does to its logits after the unembedding is neither a fixed multiplier nor a soft cap"
    )
