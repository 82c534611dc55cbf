"""Blocks of a model: which matrix writes for which units of which layer, from the module tree.

`profiler.model.wiring` finds what writes to the residual stream; here each writer gets its layer (its number in the
list of layers it stands in) and its kind: heads where it belongs to an attention module, neurons where it belongs to an
MLP (or stands in the layer itself, as OPT's does), else the channels of a mixer. A module of experts gives a block of
neurons for each expert. Models that TransformerLens reads have
the same blocks under its names (`blocks.3.attn.o`, `blocks.3.mlp.out`).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from profiler.errors import ModelError
from profiler.model.components import EXPERT, Block, UnitKind
from profiler.model.wiring import Wiring, is_embedding, is_experts

MLP = re.compile(r"mlp|feed_?forward|ffn|decoderlayer|experts?$", re.IGNORECASE)
ATTENTION = re.compile(r"attention", re.IGNORECASE)
PER_LAYER = "per_layer_projection"


@dataclass(frozen=True, eq=False)
class Writer:
    """A block and the matrix that writes for it.

    Attributes:
        site: the path of the module; what it reads are the block's values (but for experts: see `activations`).
        reader: the path of the module that holds it, for heads the attention.
        width: values of a unit: d_head of heads, 1 of neurons.
        expert: the number of the expert in its module; None where the module is no module of experts.
    """

    block: Block
    site: str
    reader: str
    width: int
    expert: int | None = None


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
        raise ModelError(
            f"the token embeddings of {name!r} do not write to what its unembedding reads: a matrix stands before the"
            " first layer or after the last"
        )
    layers = _layers(modules, [site for site in wiring.sources if site not in embeddings], name)
    writers = []
    for site in wiring.sources:
        if site not in embeddings:
            writers += _writers(site, modules, layers, network, name)
    order: tuple[UnitKind, ...] = ("head", "mixer", "neuron", "per_layer")
    writers.sort(key=lambda w: (w.block.layer, order.index(w.block.kind), w.block.group[:1], w.expert or 0))
    blocks = [writer.block for writer in writers]
    if len(set(blocks)) < len(blocks):
        double = next(block for block in blocks if blocks.count(block) > 1)
        raise ModelError(
            f"{name!r} has two writers of {double.kind}s in layer {double.layer}: their units have one name"
        )
    rest = tuple(site for site in embeddings if site != token)
    return Sources(tuple(writers), token, rest, len(modules[layers]), layers)


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


def _writers(
    site: str, modules: dict[str, nn.Module], layers: str, network: PreTrainedModel, name: str
) -> list[Writer]:
    """The writers of a module: one, or one for each of its experts.

    Raises:
        ModelError: it stands in no layer, or writes for no whole number of heads.
    """
    if not site.startswith(f"{layers}."):
        raise ModelError(
            f"{site!r} of {name!r} writes after the last layer (a projection or prediction head): what stands before it"
            " cannot be followed to the logits"
        )
    layer = int(site.removeprefix(f"{layers}.").split(".")[0])
    holder, module = site.rpartition(".")[0], modules[site]
    if is_experts(module):
        n_experts, neurons = len(module.get_parameter("down_proj")), len(down(module, 0))
        blocks = [Block(layer, "neuron", neurons, f"{EXPERT}{expert}") for expert in range(n_experts)]
        return [Writer(block, site, holder, 1, expert) for expert, block in enumerate(blocks)]
    width = _inputs(module)
    kind = _kind(site, type(modules[holder]).__name__)
    group = "S0" if "shared" in site.removeprefix(f"{layers}.") and kind == "neuron" else ""
    units = width
    if kind == "head":
        units = network.config.get_text_config().num_attention_heads
        if width % units:
            raise ModelError(f"{site!r} of {name!r} reads {width} values, which {units} heads do not divide")
    return [Writer(Block(layer, kind, units, group), site, holder, width // units)]


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


def down(module: nn.Module, expert: int) -> Float[Tensor, "neuron model"]:
    """W_down of an expert: a row for each of its neurons."""
    weight: Tensor = module.get_parameter("down_proj").detach()[expert]
    return weight if module.is_transposed else weight.T


def down_biases(module: nn.Module) -> Float[Tensor, "expert model"] | None:
    """The bias of each expert's last matrix; None where they have none."""
    return module.get_parameter("down_proj_bias").detach() if module.has_bias else None


def activations(
    module: nn.Module, expert: int, read: Float[Tensor, "position model"]
) -> Float[Tensor, "position neuron"]:
    """Activations of an expert's neurons from what it read, as the module computes them: act(gate) * in, or act(in)."""
    name = "gate_up_proj" if module.has_gate else "up_proj"
    weight = module.get_parameter(name).detach()[expert]
    values = read @ (weight if module.is_transposed else weight.T)
    if module.has_bias:
        values = values + module.get_parameter(f"{name}_bias").detach()[expert]
    act: Callable[[Tensor], Tensor] = getattr(module, "_apply_gate" if module.has_gate else "act_fn")
    return act(values)
