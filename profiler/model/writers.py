"""Blocks of a model: which matrix writes for which units of which layer, from the module tree.

`profiler.model.wiring` finds what writes to the residual stream; here each writer gets its layer (its number in the
list of layers it stands in) and its kind: heads where it belongs to an attention module, neurons where it belongs to an
MLP (or stands in the layer itself, as OPT's does), else the channels of a mixer. Models that TransformerLens reads have
the same blocks under its names (`blocks.3.attn.o`, `blocks.3.mlp.out`).
"""

import re
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from profiler.errors import ModelError
from profiler.model.components import Block, UnitKind
from profiler.model.wiring import Wiring, is_embedding

MLP = re.compile(r"mlp|feed_?forward|ffn|decoderlayer|experts?$", re.IGNORECASE)
ATTENTION = re.compile(r"attention", re.IGNORECASE)
PER_LAYER = "per_layer_projection"


@dataclass(frozen=True, eq=False)
class Writer:
    """A block and the matrix that writes for it.

    Attributes:
        site: the path of the module; what it reads are the block's values.
        reader: the path of the module that holds it, for heads the attention.
        width: values of a unit: d_head of heads, 1 of neurons.
    """

    block: Block
    site: str
    reader: str
    width: int


@dataclass(frozen=True, eq=False)
class Sources:
    """All that writes to the residual stream: writers in the order of their blocks, token embeddings, and embeddings of
    positions or token types; `layers` is the path of the list of layers."""

    writers: tuple[Writer, ...]
    embed: str
    pos_embeds: tuple[str, ...]
    n_layers: int
    layers: str

    def layers_of(self, network: PreTrainedModel) -> tuple[nn.Module, ...]:
        """The layers of a network with these sources."""
        return tuple(network.get_submodule(self.layers).children())


def sources(network: PreTrainedModel, wiring: Wiring, name: str) -> Sources:
    """Writers and embeddings of a decoder.

    Raises:
        ModelError: something that writes belongs to no layer or is of no kind that can be read.
    """
    modules = dict(network.named_modules())
    embeddings = [site for site in wiring.sources if is_embedding(modules[site])]
    token = next((site for site in modules if modules[site] is network.get_input_embeddings()), None)
    if token not in embeddings:
        raise ModelError(f"the token embeddings of {name!r} do not write to what its unembedding reads")
    layers = _layers(modules, [site for site in wiring.sources if site not in embeddings], name)
    found = [_writer(site, modules, layers, network, name) for site in wiring.sources if site not in embeddings]
    order: tuple[UnitKind, ...] = ("head", "mixer", "neuron", "per_layer")
    found.sort(key=lambda w: (w.block.layer, order.index(w.block.kind), w.block.group))
    blocks = [writer.block for writer in found]
    if len(set(blocks)) < len(blocks):
        double = next(block for block in blocks if blocks.count(block) > 1)
        raise ModelError(
            f"{name!r} has two writers of {double.kind}s in layer {double.layer}: their units have one name"
        )
    rest = tuple(site for site in embeddings if site != token)
    return Sources(tuple(found), token, rest, len(modules[layers]), layers)


def _layers(modules: dict[str, nn.Module], sites: list[str], name: str) -> str:
    """The path of the list of layers: the outermost list that holds writers."""
    lists = [path for site in sites for path in _above(site) if isinstance(modules[path], nn.ModuleList)]
    outermost = {path for path in lists if not any(path.startswith(f"{other}.") for other in lists)}
    if len(outermost) != 1:
        raise ModelError(
            f"{name!r} has {'no list of layers' if not outermost else 'several lists of layers'} that write to one"
            f" residual stream ({', '.join(sorted(outermost)) or 'writers: ' + ', '.join(sites[:3])}): name a decoder"
            " of layers with attention or MLPs"
        )
    return outermost.pop()


def _above(site: str) -> list[str]:
    parts = site.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def _writer(site: str, modules: dict[str, nn.Module], layers: str, network: PreTrainedModel, name: str) -> Writer:
    if not site.startswith(f"{layers}."):
        raise ModelError(
            f"{site!r} of {name!r} writes after the last layer (a projection or prediction head): what stands before it"
            " cannot be followed to the logits"
        )
    layer = int(site.removeprefix(f"{layers}.").split(".")[0])
    holder = site.rpartition(".")[0]
    width = _inputs(modules[site])
    kind = _kind(site, type(modules[holder]).__name__)
    group = "S0" if "shared" in site.removeprefix(f"{layers}.") and kind == "neuron" else ""
    units = width
    if kind == "head":
        units = network.config.get_text_config().num_attention_heads
        if width % units:
            raise ModelError(f"{site!r} of {name!r} reads {width} values, which {units} heads do not divide")
    return Writer(Block(layer, kind, units, group), site, holder, width // units)


def _kind(site: str, holder: str) -> UnitKind:
    if site.endswith(PER_LAYER):
        return "per_layer"
    if ATTENTION.search(holder):
        return "head"
    return "neuron" if MLP.search(holder) else "mixer"


def _inputs(module: nn.Module) -> int:
    """Values that a matrix reads of a token."""
    weight = module.get_parameter("weight")
    return weight.shape[0] if isinstance(module, Conv1D) else weight.shape[1]
