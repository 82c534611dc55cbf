"""Sites of a model at which dictionaries stand: what is there in a pass, another value put in, the way to the logits.

A site is read by hooks at the modules that `profiler.model.writers` found, so nothing is asked of an architecture by
name; what an MLP reads and the norm before it are found by looking which norm of the layer made the very tensor that
the MLP is called with. What a dictionary writes is a cut of `profiler.model.wiring`: with the denominators of norms
held, the direct effect of a part of it is the part's product with the direction there,

    dla(part) = (part, as it stands at the cut) . (direction of the logit at the cut)

The cut of the residual stream before or after a layer is found by a traced pass of its own. Parts of what a block's
matrix reads (attn_z, mlp_post) are first multiplied by that matrix. Cost: none in the pass but the values' memory.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from profiler.dictionaries.dictionary import Place
from profiler.dictionaries.hooks import READ_ALONE
from profiler.errors import DictionaryError
from profiler.model import norms
from profiler.model.direct import Weights, at_unembed
from profiler.model.norms import HeldNorm
from profiler.model.wiring import Stream, TokenDirections, Toward, Wiring, find, site_of
from profiler.model.writers import Writer

PROBED = 6  # tokens of the pass that finds norms and ways
Value = Float[Tensor, "window offset width"]
BLOCK_SITES = {
    "attn_z": "head",
    "attn_out": "head",
    "attn_written": "head",
    "mlp_post": "neuron",
    "mlp_out": "neuron",
    "mlp_written": "neuron",
}
"""Of the sites of a block, the kind of its units."""
ADDED = ("attn_out", "mlp_out")
"""Sites of what a block adds to the residual stream, after a norm of its own."""
INSIDE = ("attn_z", "mlp_post")
"""Sites that a block's matrix reads."""


@dataclass
class Passing:
    """What the pass under way left at sites, and what is put in there."""

    left: dict[Place, Tensor] = field(default_factory=dict)
    put: dict[Place, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Cut:
    """Where what is written at a place stands in a wiring.

    Attributes:
        wiring: in which the cut is found; a stream's is its own.
        source: the cut's name there.
        matrix: of what a block's matrix reads, that matrix; None elsewhere.
    """

    wiring: Wiring
    source: str
    matrix: Float[Tensor, "value model"] | None

    def at_cut(self, values: Float[Tensor, "*any width"]) -> Float[Tensor, "*any model"]:
        """Parts of what stands at the place, as they stand at the cut."""
        return values if self.matrix is None else values @ self.matrix


class Sites:
    """The sites of a network that dictionaries read and write.

    Args:
        network: the network that a pass runs; hooks are added to it, in place.
        weights: what direct logit attribution reads of it.
        twin: makes another network of the same tensors, that nothing hooks.

    Raises:
        DictionaryError: a place is not in the model.
    """

    def __init__(self, network: PreTrainedModel, weights: Weights, twin: Callable[[], PreTrainedModel]):
        self.network, self.weights, self._twin = network, weights, twin
        self.passing = Passing()
        self._modules = dict(network.named_modules())
        self._watched: set[Place] = set()

    def width(self, place: Place) -> int:
        """Values of a position at a place.

        Raises:
            DictionaryError: it is not in the model.
        """
        self._refuse_absent(place)
        if place.site in INSIDE:
            return int(self.weights.matrix(self._writer(place).block).shape[0])
        return int(self.weights.unembed.shape[1])

    def watch(self, place: Place) -> None:
        """Let every pass leave what stands at a place.

        Raises:
            DictionaryError: it is not in the model.
        """
        if place in self._watched:
            return
        self._refuse_absent(place)
        self._watched.add(place)
        if place.site in ("resid_pre", "resid_post"):
            self._watch_stream(place)
        elif place.site in (*READ_ALONE, "resid_mid"):
            self._watch_mlp(place)
        elif place.site in INSIDE:
            module = self._modules[self._writer(place).site]
            module.register_forward_pre_hook(_reads(self.passing, place))
        else:
            self._modules[site_of(self._source(place))].register_forward_hook(_writes(self.passing, place))

    def take(self) -> dict[Place, Value]:
        """What the last pass left, which is held no longer."""
        taken, self.passing.left = self.passing.left, {}
        return taken

    def putting(self, values: Mapping[Place, Value]) -> AbstractContextManager[None]:
        """While the context is open, values stand at these places in the place of the model's own."""
        return _putting(self.passing, values)

    def cut(self, place: Place) -> Cut:
        """Where what is written at a place stands on the way to the logits.

        Raises:
            DictionaryError: nothing writes there, or it is not in the model.
        """
        self._refuse_absent(place)
        if place.site in READ_ALONE:
            raise DictionaryError(f"{place} is read by the MLP alone: what a dictionary writes stands elsewhere")
        if place.site.startswith("resid"):
            stream = Stream(self._layer(place.layer), after=place.site != "resid_pre")
            wiring = find(self._twin(), self._probe, self.weights.dtype, stream)
            if stream.name not in wiring.readers:
                raise DictionaryError(f"what stands at {place} does not reach the logits")
            return Cut(wiring, stream.name, None)
        block = self._writer(place).block
        inside = self.weights.matrix(block) if place.site in INSIDE else None
        return Cut(self.weights.wiring, self._source(place), inside)

    def toward(
        self, cut: Cut, targets: Int[Tensor, "window offset"], scales: Mapping[str, Float[Tensor, "window offset 1"]]
    ) -> Toward:
        """The direction of each position's centred target logit at a cut."""
        return TokenDirections(cut.wiring, partial(at_unembed, self.weights), targets, scales).at(cut.source)

    def can_be_put(self, place: Place) -> bool:
        """Whether a value can stand there in a pass, and all that reads it sees it."""
        return place.site not in (*READ_ALONE, "resid_mid")

    def _refuse_absent(self, place: Place) -> None:
        n = self.weights.sources.n_layers
        if not 0 <= place.layer < n:
            raise DictionaryError(f"{place} is not in a model of {n} layers, counted from 0")
        if place.site in BLOCK_SITES:
            self._writer(place)

    def _layer(self, number: int) -> str:
        return f"{self.weights.sources.layers}.{number}"

    @cached_property
    def _probe(self) -> Int[Tensor, "1 offset"]:
        n = min(PROBED, len(self.weights.unembed))
        return torch.arange(n, device=self.weights.unembed.device)[None]

    def _writer(self, place: Place) -> Writer:
        """The writer of a place's block.

        Raises:
            DictionaryError: the layer has none, or several.
        """
        kind = BLOCK_SITES.get(place.site, "neuron")
        found = [w for b, w in self.weights.writers.items() if (b.layer, b.kind) == (place.layer, kind)]
        if len(found) != 1 or found[0].expert is not None:
            what = "no such block" if not found else "experts, whose outputs are no one matrix's"
            raise DictionaryError(f"{place} is not in the model: layer {place.layer} has {what}")
        return found[0]

    def _source(self, place: Place) -> str:
        """The cut that a block's write is: of the matrix, or for what is added of the norm of its own."""
        writer = self._writer(place)
        own = self.weights.own_norm.get(writer.block)
        return writer.site if own is None or place.site not in ADDED else own.name

    def _watch_stream(self, place: Place) -> None:
        module = self._modules[self._layer(place.layer)]
        if place.site == "resid_pre":
            module.register_forward_pre_hook(_reads(self.passing, place), with_kwargs=True)
        else:
            module.register_forward_hook(_writes(self.passing, place))

    def _watch_mlp(self, place: Place) -> None:
        """Watch what the MLP reads, or the norm that made it."""
        writer = self._writer(Place(place.layer, "mlp_out"))
        layer = self._layer(place.layer)
        if writer.reader == layer:
            raise DictionaryError(f"{place} is not in the model: its MLP is no module of its own")
        if place.site == "mlp_in":
            self._modules[writer.reader].register_forward_pre_hook(_reads(self.passing, place))
            return
        name = self._norm_before(layer, writer.reader, place)
        norm = norms.read(self._modules[name], name, self.weights.unembed.shape[1], self.weights.dtype)
        seen = _reads(self.passing, place) if place.site == "resid_mid" else _normalised(self.passing, place, norm)
        self._modules[name].register_forward_pre_hook(seen)

    def _norm_before(self, layer: str, reader: str, place: Place) -> str:
        """The norm of a layer whose output its MLP reads.

        Raises:
            DictionaryError: there is none.
        """
        network = self._twin()
        modules, made, read = dict(network.named_modules()), dict[str, Tensor](), list[Tensor]()
        handles = [modules[reader].register_forward_pre_hook(lambda _m, args: read.append(args[0]))]
        for name, module in modules.items():
            if name.startswith(f"{layer}.") and norms.is_norm(module):
                handles.append(module.register_forward_hook(partial(_keep, made, name)))
        with torch.inference_mode():
            network(self._probe, use_cache=False)
        for handle in handles:
            handle.remove()
        found = [name for name, value in made.items() if read and value.shape == read[0].shape and value.equal(read[0])]
        if not found:
            raise DictionaryError(f"{place} is not in the model: no norm of the layer makes what its MLP reads")
        return found[-1]


def _keep(made: dict[str, Tensor], name: str, _module: nn.Module, _args: Any, output: Any) -> None:
    if torch.is_tensor(output):
        made[name] = output


def _reads(passing: Passing, place: Place) -> Callable[..., Any]:
    """A hook that leaves what a module is called with, or puts another value in."""

    def hook(_module: nn.Module, args: tuple[Any, ...], named: dict[str, Any] | None = None) -> Any:
        value = args[0] if args else (named or {})["hidden_states"]
        passing.left[place] = value
        if place not in passing.put:
            return None
        put = passing.put[place].to(value.dtype).reshape(value.shape)
        if named is None:
            return (put, *args[1:])
        return ((put, *args[1:]), named) if args else (args, {**named, "hidden_states": put})

    return hook


def _writes(passing: Passing, place: Place) -> Callable[..., Any]:
    """A hook that leaves what a module returns, or puts another value in."""

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        value = output[0] if isinstance(output, tuple | list) else output
        passing.left[place] = value
        if place not in passing.put:
            return None
        put = passing.put[place].to(value.dtype).reshape(value.shape)
        return type(output)([put, *output[1:]]) if isinstance(output, tuple | list) else put

    return hook


def _normalised(passing: Passing, place: Place, norm: HeldNorm) -> Callable[..., None]:
    """A hook that leaves what a norm makes of its input before its gain and bias."""

    def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        passing.left[place] = norm.centred(args[0]) / norm.denominator(args[0])

    return hook


@contextmanager
def _putting(passing: Passing, values: Mapping[Place, Tensor]) -> Any:
    passing.put = dict(values)
    try:
        yield
    finally:
        passing.put = {}
