"""What can be profiled: heads, neurons and other units of blocks, and the embeddings and biases. No torch here.

A model is a list of blocks in the order of its layers: the heads of a layer, its neurons, where it has them the
neurons of each expert, the channels of a mixer that is no attention (state space, convolution, recurrence) and of a
per-layer projection. Blocks may differ in size and a layer may lack any of them. Ids are dense and follow the blocks:
a block's values are one slice of every accumulator. The embeddings and biases come after them; with them the direct
logit attributions of all components add up to the centred target logit (design, section 1).

Units of dictionaries (features, directions, subspaces) describe again what some of these write: they stand outside of
that sum, and their ids come last, so that those of the model's own components are the same with and without. A
dictionary that reconstructs a write has two components more, what its reconstruction leaves over (its error) and what
it has without any unit (its bias): with them its units' attributions add up to that of the write.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Any, Literal

from profiler.errors import ComponentError

UnitKind = Literal["head", "neuron", "mixer", "per_layer", "feature", "direction", "subspace"]
ComponentKind = Literal[
    "head",
    "neuron",
    "mixer",
    "per_layer",
    "feature",
    "direction",
    "subspace",
    "embed",
    "pos_embed",
    "attn_bias",
    "mlp_bias",
    "mixer_bias",
    "per_layer_bias",
    "final_bias",
    "dictionary_error",
    "dictionary_bias",
]
LABEL = re.compile(r"L(?P<layer>\d+)(?P<group>[ES]\d+|\.\w+:(?=D))?(?P<letter>[HNMPD])(?P<unit>\d+|error$|bias$)$")
LETTERS: dict[UnitKind, str] = {
    "head": "H",
    "neuron": "N",
    "mixer": "M",
    "per_layer": "P",
    "feature": "D",
    "direction": "D",
    "subspace": "D",
}
KIND_OF_LETTER: dict[str, UnitKind] = {letter: kind for kind, letter in reversed(LETTERS.items())}
OUTSIDE: tuple[UnitKind, ...] = ("feature", "direction", "subspace")
"""Kinds of units of dictionaries, outside of the sum of the logit."""
LABELLED: tuple[UnitKind, ...] = ("head", "neuron", *OUTSIDE)
"""Kinds that behaviours can be claimed of."""
REMAINDERS: dict[str, ComponentKind] = {"error": "dictionary_error", "bias": "dictionary_bias"}
"""What a dictionary's labels end in where they name no unit."""
OF_DICTIONARIES: tuple[ComponentKind, ...] = ("feature", "direction", "subspace", *REMAINDERS.values())
WORDS: dict[UnitKind, str] = {
    "head": "head",
    "neuron": "neuron",
    "mixer": "mixer channel",
    "per_layer": "per-layer unit",
    "feature": "feature",
    "direction": "direction",
    "subspace": "subspace",
}
KINDS: tuple[UnitKind, ...] = tuple(WORDS)
BIAS_OF: dict[UnitKind, ComponentKind] = {
    "head": "attn_bias",
    "neuron": "mlp_bias",
    "mixer": "mixer_bias",
    "per_layer": "per_layer_bias",
}
IN_EVERY_LAYER: tuple[UnitKind, ...] = ("head", "neuron")
"""Kinds whose bias is a component of every layer, 0 where it has none."""
FORMS = (
    "L5H3 for a head, L5N1024 for a neuron, L5E3N17 for a neuron of expert 3, L5S0N17 for one of a shared expert, L5M3"
    " for a channel of another mixer, L5P12 for a per-layer projection, L5D12 for a feature or direction"
)
EXPERT = "E"
"""What the groups of experts begin with: E3 is expert 3; S0 is shared expert 0."""


@dataclass(frozen=True, order=True)
class ComponentId:
    """One component.

    Attributes:
        layer: None for embed, pos_embed and final_bias.
        unit: None for embeddings and biases.
        group: of a neuron: E3 in expert 3, S0 in shared expert 0; of a dictionary that shares its layer with another,
            what tells them apart (".mlp_out:"); empty elsewhere.
    """

    kind: ComponentKind
    layer: int | None = None
    unit: int | None = None
    group: str = ""

    @property
    def label(self) -> str:
        """The name shown to people: L5H3, L5N1024, L5S0N17, L5D12, L5.mlp_out:D12, L5Derror, L5_attn_bias, embed."""
        if self.kind in LETTERS:
            return f"L{self.layer}{self.group}{LETTERS[self.kind]}{self.unit}"
        if self.kind in REMAINDERS.values():
            return f"L{self.layer}{self.group}D{self.kind.removeprefix('dictionary_')}"
        return self.kind if self.layer is None else f"L{self.layer}_{self.kind}"


def unit_in_words(component: ComponentId) -> str:
    """A unit of a block in words: "neuron 17 of layer 5", "neuron 17 of expert 3 in layer 5"."""
    assert component.kind in WORDS
    unit = f"{WORDS[component.kind]} {component.unit}"
    if component.kind in OUTSIDE:
        at = component.group.strip(".:")
        return f"{unit} of layer {component.layer}{f' at {at}' if at else ''}"
    if not component.group:
        return f"{unit} of layer {component.layer}"
    expert = f"expert {component.group[1:]}" if component.group.startswith(EXPERT) else "a shared expert"
    return f"{unit} of {expert} in layer {component.layer}"


def parse_label(label: str) -> ComponentId:
    """The unit of a block that `label` names, or what a dictionary's units leave over.

    A label does not say whether L5D12 is a feature, a direction or a subspace: `ModelSpec.named` does.

    Raises:
        ComponentError: the label is not of the form L5H3 or L5N1024.
    """
    match = LABEL.match(label.strip())
    if match is None or (match["unit"] in REMAINDERS and match["letter"] != LETTERS["feature"]):
        raise ComponentError(f"component {label!r} cannot be read: write {FORMS}")
    if match["unit"] in REMAINDERS:
        return ComponentId(REMAINDERS[match["unit"]], int(match["layer"]), group=match["group"] or "")
    kind = KIND_OF_LETTER[match["letter"]]
    return ComponentId(kind, int(match["layer"]), int(match["unit"]), match["group"] or "")


@dataclass(frozen=True)
class Block:
    """Units of one kind that write through one matrix.

    Attributes:
        layer: from 0.
        units: how many.
        group: E3 for expert 3, S0 for shared expert 0, ".mlp_out:" for the dictionary there; empty for the only block
            of its kind in the layer.
    """

    layer: int
    kind: UnitKind
    units: int
    group: str = ""

    @property
    def name(self) -> str:
        """What its units' labels have in common: L5H, L5S0N."""
        return f"L{self.layer}{self.group}{LETTERS[self.kind]}"

    @property
    def is_routed(self) -> bool:
        """Whether a router sends it some positions alone: its units are absent at the others."""
        return self.group.startswith(EXPERT)


def uniform(n_layers: int, n_heads: int, d_mlp: int) -> tuple[Block, ...]:
    """Blocks of a model whose layers are alike; without neurons where `d_mlp` is 0."""
    kinds: tuple[tuple[UnitKind, int], ...] = (("head", n_heads), ("neuron", d_mlp))
    return tuple(Block(layer, kind, units) for layer in range(n_layers) for kind, units in kinds if units)


@dataclass(frozen=True)
class PositionValues:
    """Values of a position that are in memory while a network runs; 0 of a model that is only read of in a run.

    Attributes:
        held: what all writers read, embeddings write and the final norm reads.
        largest: what the writer that reads most reads.
        formed: attention weights of a layer to each position, where the network forms them (one for each head); 0 where
            a fused kernel does not.
    """

    held: int = 0
    largest: int = 0
    formed: int = 0

    def with_factors(self, gated: Collection[Block]) -> "PositionValues":
        """The same where gate and value of the neurons of some blocks are read too."""
        units = [2 * block.units for block in gated]
        return replace(self, held=self.held + sum(units), largest=self.largest + max(units, default=0))


@dataclass(frozen=True)
class DictionaryFacts:
    """A dictionary in a model: its units and what they are.

    Attributes:
        block: its units.
        form: what it was read as, in words.
        reads, writes: sites, `resid_post`.
        rebuilds: whether its units together reconstruct what stands at `writes`.
        width: values of a position there.
        source, digest: where it was read from, and the hash of that.
        names: of its units, where it names them.
    """

    block: Block
    form: str
    reads: str
    writes: str
    rebuilds: bool
    width: int
    source: str
    digest: str
    names: tuple[str, ...] = ()

    @property
    def remainders(self) -> tuple[ComponentId, ...]:
        """Its error and its bias; none where it reconstructs nothing."""
        layer, group = self.block.layer, self.block.group
        return tuple(ComponentId(kind, layer, group=group) for kind in REMAINDERS.values()) if self.rebuilds else ()


@dataclass(frozen=True)
class ModelSpec:
    """The sizes and identity of a model: what a run needs to name its components and to be repeated."""

    name: str
    architecture: str
    n_layers: int
    d_model: int
    n_vocab: int
    context_length: int
    weights_hash: str
    tokenizer_hash: str
    blocks: tuple[Block, ...]
    card: str | None = None
    notes: tuple[str, ...] = field(default=())
    dictionaries: tuple[DictionaryFacts, ...] = field(default=())
    footprint: PositionValues = PositionValues()

    @property
    def n_heads(self) -> int:
        """Heads of the layer that has most."""
        return max((block.units for block in self.blocks if block.kind == "head"), default=0)

    @property
    def d_mlp(self) -> int:
        """Neurons of the layer that has most, those of all its experts together; 0 where no MLP can be read."""
        in_layer: Counter[int] = Counter()
        for block in self.blocks:
            in_layer[block.layer] += block.units if block.kind == "neuron" else 0
        return max(in_layer.values(), default=0)

    @cached_property
    def slices(self) -> dict[Block, slice]:
        """Ids of each block's units, those of dictionaries last."""
        after = self.first_embedding_or_bias + len(self.constants)
        outside = [facts.block for facts in self.dictionaries]
        return _slices(self.blocks, 0) | _slices(outside, after)

    @cached_property
    def presences(self) -> dict[Block, int]:
        """Of each block that is routed, its number, from 1; 0 stands for the positions of all other components."""
        return {block: i for i, block in enumerate((b for b in self.blocks if b.is_routed), 1)}

    @cached_property
    def presence_runs(self) -> tuple[tuple[int, slice], ...]:
        """Slices of component ids, in order, whose components are present at the same positions, with their number."""
        runs: list[tuple[int, slice]] = []
        for block in self.blocks:
            ids, presence = self.slices[block], self.presences.get(block, 0)
            first = runs.pop()[1].start if runs and runs[-1][0] == presence == 0 else ids.start
            runs.append((presence, slice(first, ids.stop)))
        first = runs.pop()[1].start if runs and runs[-1][0] == 0 else self.first_embedding_or_bias
        return (*runs, (0, slice(first, self.n_components)))

    @cached_property
    def head_rows(self) -> dict[Block, slice]:
        """Of each block of heads, their numbers among the heads of all layers."""
        blocks = [block for block in self.blocks if block.kind == "head"]
        ends = list(accumulate(block.units for block in blocks))
        return {block: slice(end - block.units, end) for block, end in zip(blocks, ends, strict=True)}

    @property
    def n_all_heads(self) -> int:
        """Heads of all layers."""
        return sum(block.units for block in self.blocks if block.kind == "head")

    @property
    def n_components(self) -> int:
        """Units of blocks, embeddings and biases, and units of dictionaries with what these leave over."""
        n: int = self.remainders.stop
        return n

    @property
    def first_embedding_or_bias(self) -> int:
        """Id of the first embedding or bias."""
        return sum(block.units for block in self.blocks)

    @cached_property
    def constants(self) -> tuple[ComponentId, ...]:
        """Embeddings and biases in the order of their ids."""
        kinds = [
            (layer, kind)
            for layer in range(self.n_layers)
            for kind in BIAS_OF
            if kind in IN_EVERY_LAYER or any(b.layer == layer and b.kind == kind for b in self.blocks)
        ]
        biases = (ComponentId(BIAS_OF[kind], layer) for layer, kind in kinds)
        return (ComponentId("embed"), ComponentId("pos_embed"), *biases, ComponentId("final_bias"))

    @property
    def embeddings_and_biases(self) -> slice:
        """Ids of the embeddings and biases."""
        return slice(self.first_embedding_or_bias, self.first_embedding_or_bias + len(self.constants))

    @cached_property
    def remainder_ids(self) -> dict[ComponentId, int]:
        """Ids of the errors and biases of dictionaries, after their units."""
        left = (component for facts in self.dictionaries for component in facts.remainders)
        return {component: self.remainders.start + i for i, component in enumerate(left)}

    @property
    def remainders(self) -> slice:
        """The same as a slice."""
        first = self.embeddings_and_biases.stop + sum(facts.block.units for facts in self.dictionaries)
        return slice(first, first + sum(len(facts.remainders) for facts in self.dictionaries))

    def components(self) -> Iterator[ComponentId]:
        """Every component in the order of its id."""
        for block in self.blocks:
            yield from (ComponentId(block.kind, block.layer, unit, block.group) for unit in range(block.units))
        yield from self.constants
        for block in (facts.block for facts in self.dictionaries):
            yield from (ComponentId(block.kind, block.layer, unit, block.group) for unit in range(block.units))
        yield from self.remainder_ids

    def named(self, label: str) -> ComponentId:
        """The component that a label names, with its kind.

        Raises:
            ComponentError: the label cannot be read, or the model has no such layer, block or unit.
        """
        component = parse_label(label)
        if component in self.remainder_ids:
            return component
        return replace(component, kind=self.block_of(component).kind)

    def block_of(self, component: ComponentId) -> Block:
        """The block that a unit belongs to.

        Raises:
            ComponentError: the model has no such layer, block or unit.
        """
        if component.layer is None or component.unit is None:
            raise ComponentError(f"{component.label} is no head or neuron: name the unit of a block ({FORMS})")
        letters = {str(kind): letter for kind, letter in LETTERS.items()}
        wanted = (component.layer, letters.get(component.kind), component.group)
        block = next((b for b in self.slices if (b.layer, LETTERS[b.kind], b.group) == wanted), None)
        if block is None or component.unit >= block.units:
            raise ComponentError(
                f"{component.label} is not in {self.name}, which has {self.described()}, all counted from 0"
                f"{self._beside()}"
            )
        return block

    def _beside(self) -> str:
        """The labels of its dictionaries' units in words, for messages."""
        if not self.dictionaries:
            return ""
        blocks = (facts.block for facts in self.dictionaries)
        return "; of dictionaries " + ", ".join(f"{block.name}0 to {block.name}{block.units - 1}" for block in blocks)

    def id_of(self, component: ComponentId) -> int:
        """The dense id of a unit, or of what a dictionary's units leave over.

        Raises:
            ComponentError: the model has no such layer, block or unit.
        """
        if component in self.remainder_ids:
            return self.remainder_ids[component]
        first: int = self.slices[self.block_of(component)].start
        return first + (component.unit or 0)

    def described(self) -> str:
        """Its sizes in words: "24 layers of 16 heads and 4,096 neurons"."""
        return sizes_in_words(self.n_layers, self.blocks)

    def blocks_as_facts(self) -> list[dict[str, Any]]:
        """The blocks as plain values, for the run file."""
        return [asdict(block) for block in self.blocks]


def _slices(blocks: Sequence[Block], first: int) -> dict[Block, slice]:
    """Ids of each block's units, from `first` on."""
    ends = list(accumulate((block.units for block in blocks), initial=first))[1:]
    return {block: slice(end - block.units, end) for block, end in zip(blocks, ends, strict=True)}


def dictionaries_from_facts(facts: list[Mapping[str, Any]]) -> tuple[DictionaryFacts, ...]:
    """The dictionaries that `dataclasses.asdict` wrote."""
    return tuple(
        DictionaryFacts(**{**given, "block": Block(**given["block"]), "names": tuple(given["names"])})
        for given in facts
    )


def blocks_from_facts(facts: list[Mapping[str, Any]]) -> tuple[Block, ...]:
    """The blocks that `ModelSpec.blocks_as_facts` wrote."""
    return tuple(Block(**block) for block in facts)


def sizes_in_words(n_layers: int, blocks: Sequence[Block]) -> str:
    """Layers and units of a model in words: "24 layers of 16 heads and 4,096 neurons"."""
    sizes = {kind: {b.units for b in blocks if b.kind == kind and not b.is_routed} for kind in LETTERS}
    words = [f"{_between(sizes[kind])} {WORDS[kind]}s" for kind in LETTERS if sizes[kind]]
    experts = Counter(block.layer for block in blocks if block.is_routed)
    if experts:
        neurons = _between({block.units for block in blocks if block.is_routed})
        words.append(f"{_between({*experts.values()})} experts of {neurons} neurons")
    return f"{n_layers} layers of {' and '.join(words)}"


def units_in_words(kinds: Iterable[str]) -> str:
    """Kinds of units in words: "heads and neurons", "heads, neurons and mixer channels"."""
    present = set(kinds)
    words = [f"{word}s" for kind, word in WORDS.items() if kind in present]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _between(sizes: set[int]) -> str:
    least, most = min(sizes), max(sizes)
    return f"{most:,}" if least == most else f"{least:,} to {most:,}"
