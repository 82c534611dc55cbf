"""Any set of edges in one forward pass.

Why: a circuit's edges say who may hear whom. Outside the circuit each reader hears what a writer said in another run:

    reader's input = residual stream + sum over writers w of drop[w, reader] * (other_w - live_w)

so that all edges of a layer are one matrix product of `drop` with the difference of all writers so far. Writers: the
embedding, each head, each MLP. Readers: query, key and value of each head, each MLP, the logits. Biases and positions
are heard by everyone. With everything kept the run is the model's; with nothing kept it is the other run.

In a parallel model attention and MLP of a layer read the same stream, so no edge joins them. Sets of nodes need no
readers: `with_nodes` replaces what the dropped nodes write, for many sets at once.

Cost: one forward pass and per layer one [writer, reader] x [writer, prompt position model] product; the last layer is
computed where the answer is read alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from profiler.circuits.circuit import INPUT, OUTPUT, Edge
from profiler.circuits.nodes import lost, nodes_by_site
from profiler.errors import CircuitError
from profiler.model.steps.network import Network, Offsets, Stream, at, forward
from profiler.model.steps.plain import Norm, PlainNetwork, attend, mix, neurons
from profiler.patching.batch import PairBatch, Tokens, Trace
from profiler.patching.sites import units_of

Writes = Float[Tensor, "writer prompt position model"]
READS = ("q", "k", "v")
AT_ONCE = 512
"""Tokens of one pass: what every reader hears of more does not fit a processor's cache, and takes twice as long."""


@dataclass(frozen=True)
class Graph:
    """Writers and readers of a model in the order of a forward pass, and which edges there are."""

    n_layers: int
    n_heads: int
    parallel: bool

    @cached_property
    def writers(self) -> tuple[str, ...]:
        """Labels of what writes to the residual stream."""
        layers = range(self.n_layers)
        return (INPUT, *(label for i in layers for label in (*self.heads(i), f"L{i}_mlp_out")))

    @cached_property
    def readers(self) -> tuple[str, ...]:
        """Labels of what reads it."""
        layers = range(self.n_layers)
        return (*(label for i in layers for label in self._readers(i)), OUTPUT)

    def heads(self, layer: int) -> list[str]:
        """Labels of the heads of a layer."""
        return [f"L{layer}H{head}" for head in range(self.n_heads)]

    def _readers(self, layer: int) -> list[str]:
        return [*(f"{head}.{read}" for read in READS for head in self.heads(layer)), f"L{layer}_mlp_out"]

    def before(self, layer: int, *, mlp: bool = False) -> int:
        """How many writers come before what a layer's attention (or its MLP) reads."""
        return 1 + layer * (self.n_heads + 1) + (self.n_heads if mlp and not self.parallel else 0)

    def reader_slice(self, layer: int, *, mlp: bool = False) -> slice:
        """Columns of a layer's attention readers, or of its MLP."""
        first = layer * (3 * self.n_heads + 1)
        return (
            slice(first + 3 * self.n_heads, first + 3 * self.n_heads + 1)
            if mlp
            else slice(first, first + 3 * self.n_heads)
        )

    @cached_property
    def exists(self) -> Bool[Tensor, "writer reader"]:
        """Which edges the model has."""
        exists = torch.zeros(len(self.writers), len(self.readers), dtype=torch.bool)
        for layer in range(self.n_layers):
            for mlp in (False, True):
                exists[: self.before(layer, mlp=mlp), self.reader_slice(layer, mlp=mlp)] = True
        exists[:, -1] = True
        return exists

    def mask(self, edges: Iterable[Edge]) -> Bool[Tensor, "writer reader"]:
        """The mask that keeps these edges; a reader without its part (`L1H0`) means its query, key and value.

        Raises:
            CircuitError: the model has no such edge.
        """
        mask = torch.zeros_like(self.exists)
        for edge in edges:
            readers = [edge.reader] if edge.reader in self.readers else [f"{edge.reader}.{read}" for read in READS]
            if edge.writer not in self.writers or any(reader not in self.readers for reader in readers):
                raise CircuitError(f"edge {edge.writer} to {edge.reader}: the model has no such writer or reader")
            columns = [self.readers.index(reader) for reader in readers]
            if not self.exists[self.writers.index(edge.writer), columns].all():
                raise CircuitError(
                    f"edge {edge.writer} to {edge.reader} does not exist: its reader does not come later"
                )
            mask[self.writers.index(edge.writer), columns] = True
        return mask

    def between(self, labels: Iterable[str]) -> Bool[Tensor, "writer reader"]:
        """The mask that keeps every edge between these nodes, the input and the logits."""
        chosen = {INPUT, OUTPUT, *labels}
        rows = torch.tensor([writer in chosen for writer in self.writers])
        columns = torch.tensor([reader.split(".")[0] in chosen for reader in self.readers])
        return self.exists & rows[:, None] & columns[None, :]

    def from_nodes(self, labels: Iterable[str]) -> Bool[Tensor, "writer reader"]:
        """The mask that silences the nodes not listed towards everybody: the node circuit as edges."""
        chosen = {INPUT, *labels}
        return self.exists & torch.tensor([writer in chosen for writer in self.writers])[:, None]


def graph_of(net: PlainNetwork) -> Graph:
    """The graph of a network."""
    return Graph(net.n_layers, net.n_heads, net.parallel)


def all_writes(net: PlainNetwork, run: Trace) -> Writes:
    """What every writer wrote in a run, at all positions."""
    parts = [run["embed"][0][None]]
    for layer, w in enumerate(net.layers):
        parts.append(torch.einsum("pohd,hdm->hpom", run["head"][layer], w.w_o))
        parts.append((run["mlp_out"][layer] - w.b_out)[None])
    return torch.cat(parts)


def masked(
    net: PlainNetwork, tokens: Tokens, ends: Int[Tensor, " prompt"], keep: Bool[Tensor, "writer reader"], other: Writes
) -> Float[Tensor, "prompt vocab"]:
    """Logits at the ends with every edge outside `keep` carrying what its writer wrote in the other run.

    Args:
        keep: which edges carry what this run writes.
        other: `all_writes` of the run that stands in.
    """
    drop = (~keep & graph_of(net).exists).to(dtype=other.dtype, device=other.device)
    parts = parts_of(tokens)
    return torch.cat([run(net, tokens[part], ends[part], State(other[:, part], drop)) for part in parts])


def parts_of(tokens: Tokens) -> list[slice]:
    """The prompts in parts that are run together."""
    size = max(1, AT_ONCE // tokens.shape[1])
    return [slice(begin, begin + size) for begin in range(0, len(tokens), size)]


def run(
    net: PlainNetwork, tokens: Tokens, ends: Int[Tensor, " prompt"], state: "State", embedding: Stream | None = None
) -> Float[Tensor, "prompt vocab"]:
    """Logits at the ends, every reader hearing what `state` lets it hear.

    Args:
        embedding: token embeddings to run on instead of the tokens' own.
    """
    graph = graph_of(net)
    stream = net.embed[tokens] if embedding is None else embedding
    state.add(stream[None])
    stream = stream if net.positions is None else stream + net.positions[: tokens.shape[1]]
    for layer in range(net.n_layers):
        stream = _masked_layer(net, layer, stream, state, graph, ends if layer == net.n_layers - 1 else None)
    heard = state.heard(stream, slice(-1, None), len(graph.writers), ends)[0]
    return (net.norm_final(heard) @ net.unembed + net.b_unembed)[:, 0]


class State:
    """Differences of all writers so far, [writer, prompt, position, model], and what readers hear of them."""

    def __init__(self, other: Writes, drop: Float[Tensor, "writer reader"]):
        self.other, self.drop, self.n = other, drop, 0
        self.differences = torch.empty_like(other)
        self.at_ends = False

    def add(self, live: Writes, ends: Offsets = None) -> None:
        """Note what the next writers wrote; from `ends` on, at the answer's position alone."""
        if ends is not None and not self.at_ends:
            rows = torch.arange(len(ends), device=ends.device)
            self.other, self.differences = (part[:, rows, ends][:, :, None] for part in (self.other, self.differences))
            self.at_ends = True
        upto = self.n + len(live)
        torch.sub(self.other[self.n : upto], live, out=self.differences[self.n : upto])
        self.n = upto

    def heard(self, stream: Tensor, readers: slice, n: int, ends: Offsets = None) -> Float[Tensor, "reader p o m"]:
        """What each reader's input is: the stream, and the difference of every writer it must not hear live."""
        drop = self.drop[:n, readers]
        used = drop.any(1).nonzero()[:, 0]
        if not len(used):
            return stream[None]
        rows = self.differences[:n][used] if len(used) < n else self.differences[:n]
        if ends is not None and not self.at_ends:
            rows = rows[:, torch.arange(len(ends), device=ends.device), ends][:, :, None]
        heard = torch.addmm(stream.reshape(1, -1), drop[used].T, rows.flatten(1))
        made: Tensor = heard.unflatten(1, rows.shape[1:])
        return made


def _masked_layer(net: PlainNetwork, layer: int, stream: Tensor, state: State, graph: Graph, ends: Offsets) -> Tensor:
    w = net.layers[layer]
    heads, n = net.n_heads, graph.before(layer)
    columns = graph.reader_slice(layer)
    inputs = [slice(columns.start + i * heads, columns.start + (i + 1) * heads) for i in range(3)]
    read_out = at(stream, ends)
    q = _project(state.heard(read_out, inputs[0], n, ends), w.norm_attn, w.w_q, w.b_q)
    k = _project(state.heard(stream, inputs[1], n), w.norm_attn, w.w_k, w.b_k)
    v = _project(state.heard(stream, inputs[2], n), w.norm_attn, w.w_v, w.b_v)
    queries = torch.arange(k.shape[1], device=k.device)[None] if ends is None else ends[:, None]
    mixed = mix(attend(net, q, k, queries), v)
    written = torch.einsum("pohd,hdm->hpom", mixed, w.w_o)
    before = read_out if net.parallel else read_out + written.sum(0) + w.b_o
    if not net.parallel:
        state.add(written, ends)
    read = state.heard(before, graph.reader_slice(layer, mlp=True), graph.before(layer, mlp=True), ends)[0]
    post = neurons(net, layer, w.norm_mlp(read)) @ w.w_out
    if net.parallel:
        state.add(written, ends)
    state.add(post[None], ends)
    return read_out + written.sum(0) + w.b_o + post + w.b_out


def _project(
    heard: Float[Tensor, "reader p o m"], norm: Norm, weight: Float[Tensor, "head m d"], bias: Float[Tensor, "head d"]
) -> Float[Tensor, "p o head d"]:
    """Queries, keys or values, each head from what it hears; one product for all where they hear the same."""
    made: Tensor
    if len(heard) == 1:
        flat = weight.permute(1, 0, 2).reshape(weight.shape[1], -1)
        made = (norm(heard[0]) @ flat).unflatten(-1, bias.shape) + bias
        return made
    made = torch.bmm(norm(heard).flatten(1, 2), weight) + bias[:, None]
    made = made.unflatten(1, heard.shape[1:3]).permute(1, 2, 0, 3)
    return made


def with_nodes(
    net: Network,
    tokens: Tokens,
    ends: Int[Tensor, " prompt"],
    drop: Bool[Tensor, "set node"],
    nodes: list[str],
    other: Trace,
    masks: dict[str, Bool[Tensor, "prompt position"]] | None = None,
) -> Float[Tensor, "set prompt vocab"]:
    """Logits with, for each set, the dropped nodes writing what they wrote in the other run.

    Args:
        drop: which of `nodes` each set silences.
        nodes: labels of heads, MLPs and neurons, whole or at a role (`profiler.circuits.nodes`).
        masks: the positions of each role, where nodes are at roles.
    """
    n_sets, n = len(drop), len(tokens)
    sites = nodes_by_site(net, nodes)

    def edit(site: str, layer: int, value: Tensor, positions: Offsets) -> Tensor:
        if (site, layer) not in sites:
            return value
        only = None if positions is None else ends
        here = {part: at(mask, only) for part, mask in (masks or {}).items()}
        gone = lost(sites[site, layer], drop, here, n, units_of(net, site, layer))
        if not gone.any():
            return value
        given = at(other[site][layer], only).repeat(n_sets, *[1] * (value.ndim - 1))
        return torch.where(gone[..., None] if site == "head" else gone, given, value)

    with torch.inference_mode():
        logits = forward(net, tokens.repeat(n_sets, 1), edit, ends.repeat(n_sets), patterns=False)
    of_sets: Tensor = logits.unflatten(0, (n_sets, n))
    return of_sets


def node_mask_logits(
    net: PlainNetwork, batch: PairBatch, labels: Iterable[str], other: Writes
) -> Float[Tensor, "prompt vocab"]:
    """Logits of the clean prompts with only these nodes live, through the edge mask."""
    with torch.inference_mode():
        return masked(net, batch.clean, batch.ends, graph_of(net).from_nodes(labels), other)
