"""A network of modules as steps: the very modules that a pass records, called layer by layer.

The network is asked once, with its layers left out, what it calls each layer with; then its layers are called with that
from any residual stream. Hooks at the writers that `profiler.model.wiring` found give values to an edit, put values in,
or stop a layer on its way. What is inside of its attention is reached by `profiler.model.steps.attention`. What of this
a network allows is tried in `profiler.model.steps.as_network`.
"""

import copy
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from profiler.errors import ModelError
from profiler.model.components import Block
from profiler.model.direct import Weights, at_unembed
from profiler.model.forward import goes_through_register, routed
from profiler.model.norms import before_norm
from profiler.model.steps.attention import EAGER, FUSED, watch_own
from profiler.model.steps.experts import ROUTED, Experts
from profiler.model.steps.network import WRITTEN, Edit, Network, Offsets, Past, PerHead, Steps, Stream, at, unchanged
from profiler.model.steps.under_way import Calls, LayerCall, Reached
from profiler.model.wiring import Directions, scaled, site_of
from profiler.model.writers import Writer

if TYPE_CHECKING:
    from profiler.model.steps.plain import PlainNetwork


@dataclass(frozen=True, eq=False)
class _Part:
    """The heads, the MLP or another block of a layer, as they are patched.

    Attributes:
        read, written: the sites of what its matrix reads and writes.
        module: what writes it: the block's matrix; for a mixture of experts the MLP as a whole, or its experts.
        writer: of that matrix; None for a mixture of experts.
        block: of the units (of several experts, the first's).
        child: the part of the layer that holds all of it; the module itself where the layer holds that, or where given
            values are put in at the module alone.
        at_ends: whether it belongs to the MLP, which may be computed at the ends alone.
    """

    read: str
    written: str
    module: nn.Module
    writer: Writer | None
    block: Block
    child: nn.Module
    at_ends: bool

    def in_units(self, value: Float[Tensor, "prompt offset value"]) -> Tensor:
        """What the matrix reads, by head."""
        assert self.writer is not None
        return value.unflatten(-1, (self.block.units, self.writer.width)) if self.writer.width > 1 else value

    def flat(self, value: Tensor) -> Float[Tensor, "prompt offset value"]:
        """What the matrix reads, heads side by side."""
        assert self.writer is not None
        return value.flatten(-2) if self.writer.width > 1 else value


def _whole_part(layer: nn.Module, own: list[tuple[Block, nn.Module, Writer]], read: str) -> _Part | None:
    """The heads or the MLP of a layer; None where it has none, or where several of its parts hold experts alone."""
    children = {child for child in layer.children() if {*child.modules()} & {module for _, module, _ in own}}
    if len(children) > 1:
        own = [(block, module, writer) for block, module, writer in own if not block.group]
        children = {child for child in children if {*child.modules()} & {module for _, module, _ in own}}
    if len(children) != 1:
        return None
    child = children.pop()
    block, module, writer = own[0]
    if len(own) > 1 or block.group:
        return _Part(read, WRITTEN[read], child, None, block, child, read == "neuron")
    return _Part(read, WRITTEN[read], module, writer, block, child, read == "neuron")


def _form(out: Any) -> tuple[type, int] | None:
    """In what a module returns its value first of several, and of how many; None where it returns the value alone."""
    return (type(out), len(out)) if isinstance(out, tuple | list) else None


def _other_site(block: Block) -> str | None:
    """The site of units that are neither heads nor neurons of an MLP as a whole; None where there is none."""
    if block.kind in ("mixer", "per_layer"):
        return block.kind
    if block.kind == "neuron" and block.group:
        return "expert" if block.is_routed else "shared"
    return None


class ModuleNetwork(Network):
    """A network of modules as steps. What its modules allow is tried in `profiler.model.steps.as_network`.

    Args:
        module: the network; it is changed in place: hooks, and which attention function is called.
        weights: what direct logit attribution reads of it.
        attention: the attention that it runs by default, by transformers' name.

    Attributes:
        stands_in: layers and sites whose given values can stand in for all of an attention's or MLP's work.
        read_plain: writes the weights out.
        resumes: whether a pass can go on from keys and values of earlier offsets.
        asks_again: whether what layers are called with must be asked for anew for another number of rows.
        adds_in_place: whether layers change what their blocks wrote (Falcon adds the attention to the MLP's).
        own_attention: whether attention modules compute their attention themselves, through no register.
    """

    def __init__(
        self, module: PreTrainedModel, weights: Weights, attention: str, read_plain: Callable[[], "PlainNetwork"]
    ):
        self.module, self.weights, self.read_plain, self._now = module, weights, read_plain, LayerCall()
        self.layers = weights.sources.layers_of(module)
        self.n_layers = len(self.layers)
        self._modules = dict(module.named_modules())
        self._parts = [self._parts_of(number) for number in range(self.n_layers)]
        self._forms: dict[nn.Module, tuple[type, int] | None] = {}
        self.d_model, self.n_vocab = weights.unembed.shape[1], len(weights.unembed)
        self.device, self.dtype = weights.unembed.device, weights.unembed.dtype
        self.n_heads = max((self.heads(i) for i in range(self.n_layers)), default=0)
        self.d_mlp = max((self.neurons(i) for i in range(self.n_layers)), default=0)
        self.places_matter = bool(weights.sources.pos_embeds)
        self.other_kinds = any(self._is_beside(block) for block in weights.writers)
        self.stands_in: set[tuple[int, str]] = set()
        self.resumes = self.narrow_end = self.parallel = self.asks_again = False
        self.heads_apart = self.adds_in_place = True
        self.own_attention = False
        self.inside_attention = self._take_attention(attention)
        self._hook()

    @cached_property
    def plain(self) -> "PlainNetwork":
        return self.read_plain()

    @cached_property
    def embed(self) -> Float[Tensor, "vocab model"]:  # type: ignore[override]
        with torch.inference_mode(mode=False), torch.no_grad():
            embedded: Tensor = self._modules[self.weights.sources.embed](torch.arange(self.n_vocab, device=self.device))
        return embedded

    def heads(self, layer: int) -> int:
        part = self.part(layer, "attn_out")
        return part.block.units if part is not None else 0

    def neurons(self, layer: int) -> int:
        part = self.part(layer, "mlp_out")
        return part.block.units if part is not None and part.writer is not None else 0

    def has_mlp(self, layer: int) -> bool:
        return self.part(layer, "mlp_out") is not None

    def part(self, layer: int, written: str) -> _Part | None:
        """The heads or the MLP of a layer; None where it has none."""
        return self._parts[layer].get(written)

    def units(self, site: str, layer: int) -> int:
        part = self.part(layer, WRITTEN[site])
        return 0 if part is None else part.block.units

    def experts(self, layer: int) -> Experts | None:
        part = self.part(layer, WRITTEN["expert"])
        if part is None:
            return None
        writers = self.weights.writers
        own = [block for block in writers if writers[block].site == writers[part.block].site]
        return Experts(part.module, len(own), part.block.units)

    def direct(self, site: str, layer: int) -> bool:
        part = self.part(layer, site)
        return part is None or self.weights.has_fixed_way(part.block)

    def _is_beside(self, block: Block) -> bool:
        """Whether what a block writes is part of no layer's `attn_out` or `mlp_out`, or of one without a direct way."""
        site = {"head": "attn_out", "neuron": "mlp_out"}.get(block.kind)
        if site is None or (part := self.part(block.layer, site)) is None or not self.direct(site, block.layer):
            return True
        return self._modules[self.weights.writers[block].site] not in {*part.child.modules()}

    def _parts_of(self, number: int) -> dict[str, _Part]:
        layer, writers = self.layers[number], self.weights.writers
        own = [(block, writer) for block, writer in writers.items() if block.layer == number]
        parts = [
            _whole_part(layer, [(b, self._modules[w.site], w) for b, w in own if b.kind == kind], read)
            for kind, read in (("head", "head"), ("neuron", "neuron"))
        ]
        found = [part for part in parts if part is not None]
        inside = {module for part in found if part.read == "neuron" for module in part.child.modules()}
        taken = {part.module for part in found}
        for block, writer in own:
            module = self._modules[writer.site]
            if module not in taken and (read := _other_site(block)) is not None:
                taken.add(module)
                of_matrix = None if writer.expert is not None else writer
                found.append(_Part(read, WRITTEN[read], module, of_matrix, block, module, module in inside))
        return {part.written: part for part in found}

    def _take_attention(self, attention: str) -> bool:
        """Let every attention module give its parts to the edit; whether there is one."""
        parts = [part for parts in self._parts if (part := parts.get("attn_out")) is not None]
        sites = [part.writer.reader for part in parts if part.writer is not None]
        holders = [self._modules[site] for site in sites]
        through = {"sdpa": FUSED, "eager": EAGER}.get(attention)
        if through is None or not goes_through_register(self.module, sites):
            self.own_attention = True
            for holder in holders:
                watch_own(holder, self._now)
            return bool(holders)
        self.module.set_attn_implementation(through)
        for holder in holders:
            vars(holder)["profiler_steps"] = self._now
        return bool(holders)

    def _hook(self) -> None:
        self._modules[self.weights.sources.embed].register_forward_hook(self._embedded)
        for number, layer in enumerate(self.layers):
            self._wrap_layer(number, layer)
            for part in self._parts[number].values():
                if part.writer is not None:
                    part.module.register_forward_pre_hook(self._before_writer(number, part))
                elif part.read == "expert":
                    part.module.register_forward_pre_hook(self._before_experts(number, part), with_kwargs=True)
                part.module.register_forward_hook(self._after_writer(number, part))
                if part.child is not part.module:
                    self._wrap_child(number, part)

    def _embedded(self, _module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        return output if self._now.calls is None else self._now.edit("embed", 0, output, None)

    def _before_writer(self, number: int, part: _Part) -> Callable[..., Any]:
        """Give what a matrix reads to the edit, put in what is given, or stop."""
        now = self._now

        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            if now.layer != number:
                return None
            if part.read in now.given:
                return (part.flat(now.given[part.read]).reshape(args[0].shape),)
            value = part.in_units(args[0].reshape(now.rows, -1, args[0].shape[-1]))  # OPT flattens before its MLP
            changed = now.edit(part.read, number, value, self._offsets(part))
            if now.until == part.read:
                raise Reached(changed)
            return (part.flat(changed).reshape(args[0].shape),)  # even if unchanged: a gradient is asked of the value

        return hook

    def _before_experts(self, number: int, part: _Part) -> Callable[..., None]:
        """Show the edit what experts read, which are chosen and with which weights; nothing of it can be changed."""
        now = self._now

        def hook(_module: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
            if now.layer == number and now.edit is not unchanged:
                for site, value in zip(ROUTED, routed((*args, *named.values())), strict=True):
                    now.edit(site, number, value.reshape(now.rows, -1, value.shape[-1]), self._offsets(part))

        return hook

    def _after_writer(self, number: int, part: _Part) -> Callable[..., Any]:
        """Give what was written to the edit, or put in what is given."""
        now = self._now

        def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
            if now.layer != number:
                return None
            out = output[0] if isinstance(output, tuple) else output
            value = out.reshape(now.rows, -1, out.shape[-1])
            given = now.given.get(part.written)
            changed = given if given is not None else now.edit(part.written, number, value, self._offsets(part))
            changed = self._to_add(changed.reshape(out.shape))
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        return hook

    def _to_add(self, value: Tensor) -> Tensor:
        """A value for the layer to add to the residual stream; a copy where it may add to that in place."""
        return value.clone() if self.adds_in_place else value

    def _offsets(self, part: _Part) -> Offsets:
        return self._now.ends if part.at_ends else None

    def _wrap_layer(self, number: int, layer: nn.Module) -> None:
        """Let a layer leave what it was called with, and do nothing, while calls are collected."""
        own, now = layer.forward, self._now

        def forward(*args: Any, **kwargs: Any) -> Any:
            if now.calls is None:
                out = own(*args, **kwargs)
                self._forms[layer] = _form(out)
                return out
            now.calls.append((args, kwargs))
            stream = args[0] if args else kwargs["hidden_states"]
            if number == self.n_layers - 1:
                raise Reached(stream)
            return self._as_returned(layer, stream)

        layer.forward = forward

    def _wrap_child(self, number: int, part: _Part) -> None:
        """Let given values stand in for the whole work of an attention or MLP; and an MLP work at the ends alone."""
        child, now = part.child, self._now
        own = child.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            if now.layer == number and (number, part.written) in self.stands_in:
                if part.written in now.given:
                    return self._as_returned(child, self._to_add(now.given[part.written]))
                if part.read in now.given:
                    return self._as_returned(child, part.module(part.flat(now.given[part.read])))
            if now.layer == number and part.written == "mlp_out" and now.local_ends is not None:
                args = (at(args[0], now.local_ends), *args[1:])
            out = own(*args, **kwargs)
            self._forms[child] = _form(out)
            return out

        child.forward = forward

    def _as_returned(self, module: nn.Module, value: Tensor) -> Any:
        """A value in the form in which a module returns it: alone, or first of several."""
        form = self._forms[module]
        return value if form is None else form[0]([value, *[None] * (form[1] - 1)])

    def begin(
        self, tokens: Int[Tensor, "prompt offset"], edit: Edit = unchanged, past: Past | None = None
    ) -> "_ModuleSteps":
        return _ModuleSteps(self, self.calls(tokens, edit, past), tokens, past)

    def calls(self, tokens: Int[Tensor, "prompt offset"], edit: Edit, past: Past | None) -> Calls:
        """What the network gives each layer for some prompts, the layers left out."""
        calls: Calls = []
        first = past.first if past is not None else 0
        cached = {"use_cache": False} if past is None else {"past_key_values": past.stored, "use_cache": True}
        with self._now.being(calls=calls, edit=edit, rows=len(tokens)), suppress(Reached):
            self.module(tokens[:, first:], **cached)
        return calls

    def past(self, tokens: Int[Tensor, "prompt offset"], first: int) -> Past | None:
        if not first or not self.resumes:
            return None
        stored = self.module(tokens[:, :first], use_cache=True).past_key_values
        return Past(first, stored) if isinstance(stored, Cache) else None

    def call(self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any], **now: Any) -> Tensor:
        """One layer; or what it had when it was told to stop."""
        with self._now.being(layer=number, **now):
            try:
                out = self.layers[number](*args, **kwargs)
            except Reached as reached:
                return reached.value
        stream: Tensor = out if _form(out) is None else out[0]
        return stream

    @cached_property
    def _norms_at_end(self) -> bool:
        """Whether a final norm stands after the last layer, and not in it."""
        final, layers = self.weights.wiring.final, self.weights.sources.layers
        return final is not None and not site_of(final.name).startswith(f"{layers}.")

    def logits(self, stream: Float[Tensor, "*shape model"]) -> Float[Tensor, "*shape vocab"]:
        wiring = self.weights.wiring
        if wiring.final is not None and self._norms_at_end:
            stream = self._modules[site_of(wiring.final.name)](stream)
            stream = scaled(stream, wiring.sinks[0].wires[0].multiplier)
        return wiring.capped(scaled(self.module.get_output_embeddings()(stream), wiring.logit_scale))

    def toward(self, tokens: Int[Tensor, "*position"]) -> Float[Tensor, "*position model"]:
        wiring, direction = self.weights.wiring, at_unembed(self.weights, tokens)
        if wiring.final is None or wiring.final.norm is None:
            return direction
        norm = wiring.final.norm
        return before_norm(scaled(direction, wiring.sinks[0].wires[0].multiplier), norm.gain, centres=norm.centres)

    def toward_from(self, site: str, layer: int, tokens: Int[Tensor, "*position"]) -> Float[Tensor, "*position model"]:
        part = self.part(layer, site)
        assert part is not None
        self._refuse_indirect(site, layer)
        wiring = self.weights.wiring
        unit = torch.ones((1,) * (tokens.dim() + 1), dtype=self.weights.dtype, device=self.device)
        directions = Directions(wiring, at_unembed(self.weights, tokens), dict.fromkeys(wiring.path_norms, unit))
        return directions.at(self.weights.writers[part.block].site)

    def logit_bias(self, tokens: Int[Tensor, "*position"]) -> Float[Tensor, "*position"]:
        return self.weights.token_bias[tokens]

    def final_scale(self, stream: Float[Tensor, "*shape model"]) -> Float[Tensor, "*shape 1"]:
        final = self.weights.wiring.final
        if final is None or final.norm is None:
            return torch.ones_like(stream[..., :1])
        return final.norm.denominator(stream)

    def embedded(self, value: Float[Tensor, "*shape model"]) -> Float[Tensor, "*shape model"]:
        return scaled(value, self.weights.wiring.readers[self.weights.sources.embed][0][1].multiplier)

    def w_o(self, layer: int) -> Float[Tensor, "head d_head model"]:
        part = self.part(layer, "attn_out")
        if part is None or part.writer is None:
            return torch.zeros(0, 1, self.d_model, dtype=self.weights.dtype, device=self.device)
        by_head: Tensor = self.weights.matrix(part.block).unflatten(0, (part.block.units, part.writer.width))
        return by_head

    def w_out(self, layer: int) -> Float[Tensor, "neuron model"]:
        part = self.part(layer, "mlp_out")
        if part is None or part.writer is None:
            return torch.zeros(0, self.d_model, dtype=self.weights.dtype, device=self.device)
        return self.weights.matrix(part.block)

    def out_bias(self, site: str, layer: int) -> Float[Tensor, " model"] | None:
        part = self.part(layer, site)
        return None if part is None or part.writer is None else self.weights.bias(part.block)

    def own_norm(self, site: str, layer: int) -> bool:
        part = self.part(layer, site)
        if part is None:
            return False
        multiplier = self._multiplier(part.block)
        return part.block in self.weights.own_norm or not (isinstance(multiplier, float) and multiplier == 1.0)

    def added(
        self,
        site: str,
        layer: int,
        written: Float[Tensor, "*shape model"],
        out: Float[Tensor, "*#shape model"],
    ) -> Float[Tensor, "*shape model"]:
        part = self.part(layer, site)
        assert part is not None
        self._refuse_indirect(site, layer)
        through = self.weights.as_added(part.block, written)
        sink = self.weights.own_norm.get(part.block)
        if sink is None or sink.norm is None:
            return through
        return through / sink.norm.denominator(scaled(out, self._multiplier(part.block)))

    def _refuse_indirect(self, site: str, layer: int) -> None:
        """Raise where what a block writes has no direct part of the logits.

        Raises:
            ModelError: more norms than its own and the final one follow.
        """
        if not self.direct(site, layer):
            raise ModelError(
                f"what layer {layer} writes at {site} has no direct part of the logits: norms of the stream, or"
                " of several blocks together, stand between it and the final norm; patch it, or read its recorded"
                " attribution instead"
            )

    def added_bias(self, site: str, layer: int) -> Float[Tensor, " model"] | None:
        part = self.part(layer, site)
        sink = None if part is None else self.weights.own_norm.get(part.block)
        if sink is None or sink.norm is None or sink.norm.bias is None:
            return None
        return scaled(sink.norm.bias, self.weights.wiring.readers[sink.name][0][1].multiplier)

    def _multiplier(self, block: Block) -> float | Tensor:
        return self.weights.wiring.readers[self.weights.writers[block].site][0][1].multiplier


class _ModuleSteps(Steps):
    """Layers called with the arguments that the network gave them.

    Args:
        calls: of each layer its arguments, as the network gave them for the prompts.
    """

    def __init__(self, net: ModuleNetwork, calls: Calls, tokens: Int[Tensor, "prompt offset"], past: Past | None):
        self.net: ModuleNetwork
        self.net, self._calls, self._tokens, self._past = net, calls, tokens, past
        self._n, self._again = len(tokens), dict[int, Calls]()
        args, kwargs = calls[0]
        self.stream = args[0] if args else kwargs["hidden_states"]
        self.first = past.first if past is not None else 0
        self._alike: dict[int, bool] = {}

    def _call(self, number: int, stream: Stream, **now: Any) -> Tensor:
        times = len(stream) // self._n
        args, kwargs = self._calls_of(times)[number]
        arguments = tuple(self._for_rows(value, number, times) for value in args[1:])
        named = {name: self._for_rows(value, number, times) for name, value in kwargs.items()}
        given = (stream, *arguments) if args else ()
        return self.net.call(
            number, given, named if args else named | {"hidden_states": stream}, rows=len(stream), **now
        )

    def _calls_of(self, times: int) -> Calls:
        """What the network gives its layers for `times` rows of each prompt, where it must be asked again for that."""
        if times == 1 or not self.net.asks_again:
            return self._calls
        if times not in self._again:
            self._again[times] = self.net.calls(self._tokens.repeat(times, 1), unchanged, self._past)
        return self._again[times]

    def _for_rows(self, value: Any, number: int, times: int) -> Any:
        """An argument of a layer for `times` rows of each prompt."""
        if isinstance(value, Cache):
            return self._cache(value, number, times)
        if isinstance(value, tuple | list):
            return type(value)(self._for_rows(part, number, times) for part in value)
        if isinstance(value, dict):
            return {key: self._for_rows(part, number, times) for key, part in value.items()}
        if times == 1 or self.net.asks_again or self._n == 1 or not torch.is_tensor(value):
            return value
        if not value.dim() or len(value) != self._n:
            return value
        if id(value) not in self._alike:
            self._alike[id(value)] = bool((value == value[:1]).all())
        if self._alike[id(value)]:
            return value[:1].expand(times * self._n, *value.shape[1:])
        return value.repeat(times, *[1] * (value.dim() - 1))

    def _cache(self, cache: Cache, number: int, times: int) -> Cache:
        """A copy with a layer's keys and values repeated, which that layer may add to."""
        copied, layer = copy.copy(cache), copy.copy(cast(DynamicLayer, cache.layers[number]))
        assert layer.keys is not None
        assert layer.values is not None
        layer.keys, layer.values = (part.repeat(times, 1, 1, 1) for part in (layer.keys, layer.values))
        copied.layers = [*cache.layers[:number], layer, *cache.layers[number + 1 :]]
        return copied

    def layer(
        self, number: int, stream: Stream, edit: Edit = unchanged, ends: Offsets = None, *, patterns: bool = True
    ) -> Float[Tensor, "prompt computed model"]:
        stream = edit("resid_pre", number, stream, None)
        narrow = ends is not None and self.net.narrow_end
        now = {"ends": ends, "local_ends": ends - self.first} if narrow and ends is not None else {}
        out = self._call(number, stream, edit=edit, patterns=patterns and self.net.inside_attention, **now)
        return at(out, None if ends is None else ends - self.first)

    def heads(self, number: int, stream: Stream, edit: Edit = unchanged, *, patterns: bool = False) -> PerHead:
        if not self.net.heads(number):
            return stream.new_zeros(*stream.shape[:2], 0, 1)
        return self._call(number, stream, edit=edit, patterns=patterns, until="head")

    def pattern(self, number: int, stream: Stream, edit: Edit) -> Float[Tensor, "prompt head query key"]:
        return self._call(number, stream, edit=edit, patterns=True, until="pattern")

    def neurons(
        self, number: int, stream: Stream, heads: PerHead, ends: Offsets = None
    ) -> Float[Tensor, "prompt computed neuron"]:
        stream, given = self._narrowed(stream, {"head": heads}, ends)
        if not self.net.neurons(number):
            return stream.new_zeros(*stream.shape[:2], 0)
        return self._call(number, stream, given=self._present(number, given), until="neuron")

    def rest(
        self,
        number: int,
        stream: Stream,
        *,
        heads: PerHead | None = None,
        attn_out: Stream | None = None,
        neurons: Float[Tensor, "prompt offset neuron"] | None = None,
        mlp_out: Stream | None = None,
        others: dict[str, Tensor] | None = None,
        edit: Edit = unchanged,
        ends: Offsets = None,
    ) -> Float[Tensor, "prompt computed model"]:
        values = {"head": heads, "attn_out": attn_out, "neuron": neurons, "mlp_out": mlp_out}
        given = {site: value for site, value in values.items() if value is not None} | (others or {})
        stream, given = self._narrowed(stream, given, ends)
        out = self._call(number, stream, given=self._present(number, given), edit=edit)
        return at(out, None if ends is None or out.shape[1] == 1 else ends - self.first)

    def _narrowed(
        self, stream: Stream, given: dict[str, Tensor], ends: Offsets
    ) -> tuple[Float[Tensor, "prompt computed model"], dict[str, Tensor]]:
        """The same at the ends alone, where the last layer can be computed there."""
        if ends is None or not self.net.narrow_end:
            return stream, given
        local = ends - self.first

        def narrow(value: Tensor) -> Tensor:
            return value if value.shape[1] == 1 else at(value, local)

        return narrow(stream), {site: narrow(value) for site, value in given.items()}

    def _present(self, number: int, given: dict[str, Tensor]) -> dict[str, Tensor]:
        """Without sites that the layer lacks."""
        lacks = {"head", "attn_out"} if not self.net.heads(number) else set()
        if not self.net.neurons(number):
            lacks |= {"neuron"}
        return {site: value for site, value in given.items() if site not in lacks}
