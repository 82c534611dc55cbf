"""A model's dictionaries at their sites: activation and direct effect of every unit, and what they leave over.

    value = encoder(what stands at the site that it reads)
    dla   = value * factor * (row of the decoder . direction of the target's logit where the row is written)

with the denominators of norms held, as for every other component (profiler.model.direct). The rows of a transcoder are
written where the MLP's output is added; those of an autoencoder of the residual stream are parts of the stream, and
their effect is that of this part with everything after it left as it is. Of a dictionary that reconstructs a write x,

    x = sum of its units' parts + what its reconstruction has without any unit (its bias) + the rest (its error)

so the DLA of its units, its bias and its error add up to that of x, exactly.

Cost: two products of positions * d_in * units, one of tokens * d_model * units, one gather of positions * units.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from profiler.dictionaries import read as files
from profiler.dictionaries.dictionary import Dictionary, Encoding, Place
from profiler.errors import DictionaryError
from profiler.model.components import REMAINDERS, Block, ComponentId, DictionaryFacts, ModelSpec
from profiler.model.described.sites import Cut, Sites
from profiler.model.direct import Part, gathered
from profiler.model.wiring import Toward

Scales = Mapping[str, Float[Tensor, "window offset 1"]]
Rebuilt = Float[Tensor, "window offset width"]


@dataclass(frozen=True, eq=False)
class Attached:
    """A dictionary in a model.

    Attributes:
        facts: its block and what it is.
        dictionary: its weights, in the dtype of attribution, on the model's device.
        writes: the cuts that its rows are written at, with the rows as they stand there.
    """

    facts: DictionaryFacts
    dictionary: Dictionary
    writes: tuple[tuple[Cut, Float[Tensor, "unit model"]], ...]

    @property
    def block(self) -> Block:
        """Its units."""
        return self.facts.block


@dataclass(frozen=True, eq=False)
class Described:
    """The dictionaries of a model.

    Attributes:
        sites: where they read and write.
    """

    sites: Sites
    attached: tuple[Attached, ...]

    @property
    def rebuilding(self) -> tuple[Attached, ...]:
        """Those that reconstruct what stands at the site that they write."""
        return tuple(each for each in self.attached if each.facts.rebuilds)

    def parts(
        self, values: Mapping[Place, Tensor], scales: Scales, spec: ModelSpec, targets: Int[Tensor, "window offset"]
    ) -> Iterator[tuple[Part, "Rebuild | None"]]:
        """Each dictionary's units in turn, with what was made of the write that they reconstruct; errors and biases
        last.

        Args:
            values: what a pass left at the sites.
            scales: denominators and gates, as the pass left them.
            targets: each position's token.
        """
        left: dict[ComponentId, tuple[Tensor, Tensor]] = {}
        for each in self.attached:
            encoded = each.dictionary.encode(_flat(values[each.dictionary.reads], targets.shape, each))
            toward = [self.sites.toward(cut, targets, scales) for cut, _ in each.writes]
            part = _units(each, encoded, toward, spec.slices[each.block])
            rebuild = None
            if each.facts.rebuilds:
                rebuild = Rebuild.of(each, encoded, _flat(values[each.dictionary.writes], targets.shape, each))
                left |= _remainders(each, rebuild, toward[0])
            yield part, rebuild
        if left:
            activation, dla = (
                torch.stack([left[component][i] for component in spec.remainder_ids], -1) for i in (0, 1)
            )
            yield Part(spec.remainders, activation, dla), None


@dataclass(frozen=True, eq=False)
class Rebuild:
    """What a dictionary made of a write.

    Attributes:
        whole: what stands there.
        rebuilt: the reconstruction.
        rest: what it has without any unit.
        values: of its units.
    """

    attached: Attached
    whole: Rebuilt
    rebuilt: Rebuilt
    rest: Rebuilt
    values: Float[Tensor, "window offset unit"]

    @classmethod
    def of(cls, attached: Attached, encoded: Encoding, whole: Rebuilt) -> "Rebuild":
        """Of a write and what the encoder made of its input."""
        dictionary = attached.dictionary
        return cls(attached, whole, dictionary.decode(encoded), dictionary.rest(encoded), encoded.values)

    def at(self, windows: Int[Tensor, " window"]) -> "Rebuild":
        """The same of some windows."""
        chosen = windows.to(self.whole.device)
        tables = (table[chosen] for table in (self.whole, self.rebuilt, self.rest, self.values))
        return Rebuild(self.attached, *tables)


def _flat(value: Tensor, shape: torch.Size, attached: Attached) -> Float[Tensor, "window offset width"]:
    """What a hook left, windows apart and heads side by side, in the dictionary's dtype."""
    return value.reshape(*shape, -1).to(attached.dictionary.w_enc.dtype)


def _units(attached: Attached, encoded: Encoding, toward: Sequence[Toward], components: slice) -> Part:
    """Activation and DLA of a dictionary's units."""
    factor, values = attached.dictionary.factor(encoded), encoded.values
    scaled = values if factor is None else values * factor
    dla = torch.zeros_like(values)
    for (_, rows), direction in zip(attached.writes, toward, strict=True):
        dla += gathered(scaled, direction.of_token @ rows.T, direction)
    if attached.block.kind == "subspace":
        return Part(components, values.norm(dim=-1, keepdim=True), dla.sum(-1, keepdim=True))
    return Part(components, values, dla)


def _remainders(attached: Attached, rebuild: Rebuild, toward: Toward) -> dict[ComponentId, tuple[Tensor, Tensor]]:
    """Size and DLA of a dictionary's error and bias, as they stand where its rows are written."""
    (cut, _), *_ = attached.writes
    parts = {"error": rebuild.whole - rebuild.rebuilt, "bias": rebuild.rest}
    layer, group = attached.block.layer, attached.block.group
    written = {name: cut.at_cut(part) for name, part in parts.items()}
    return {
        ComponentId(REMAINDERS[name], layer, group=group): (part.norm(dim=-1), toward.along(part))
        for name, part in written.items()
    }


def has_fixed_way(cut: Cut) -> bool:
    """Whether what is written at a cut reaches the logits through the final norm alone."""
    final = cut.wiring.final
    direct = {cut.wiring.sinks[0].name, *([final.name] if final else [])}
    return {sink.name for sink, _ in cut.wiring.readers[cut.source]} <= direct


def attach(asked: Sequence[str], sites: Sites) -> Described:
    """The dictionaries that were asked for, at their sites.

    Args:
        asked: as `--dictionary` takes them (profiler.dictionaries.read).

    Raises:
        DictionaryError: one cannot be read, or does not fit the model.
    """
    weights = sites.weights
    found = [files.read(text, sites.width) for text in asked]
    groups = _groups(found)
    attached = []
    for dictionary, group in zip(found, groups, strict=True):
        _refuse_other_width(dictionary, sites)
        moved = dictionary.to(weights.dtype, weights.unembed.device)
        sites.watch(dictionary.reads)
        if dictionary.rebuilds:
            sites.watch(dictionary.writes)
        later = [(place, rows) for place, rows in moved.beyond if place.layer < weights.sources.n_layers]
        cuts = [(sites.cut(place), rows) for place, rows in [(moved.writes, moved.rows), *later]]
        attached.append(
            Attached(_facts(dictionary, group), moved, tuple((cut, cut.at_cut(rows)) for cut, rows in cuts))
        )
    return Described(sites, tuple(attached))


def _facts(dictionary: Dictionary, group: str) -> DictionaryFacts:
    place = dictionary.reads
    return DictionaryFacts(
        Block(place.layer, dictionary.kind, dictionary.units, group),
        dictionary.form,
        place.site,
        dictionary.writes.site,
        dictionary.rebuilds,
        dictionary.w_dec.shape[1],
        dictionary.source,
        dictionary.digest,
        dictionary.names,
    )


def _groups(found: Sequence[Dictionary]) -> list[str]:
    """What tells the units of dictionaries of one layer apart in their labels: nothing where it has one alone, else the
    site, and a number where they share that too.

    A transcoder is told by `transcoder`.
    """
    in_layer = Counter(dictionary.reads.layer for dictionary in found)
    seen: Counter[tuple[int, str]] = Counter()
    groups = []
    for dictionary in found:
        layer, site = dictionary.reads.layer, dictionary.writes.site
        site = site if dictionary.reads == dictionary.writes else "transcoder"
        seen[layer, site] += 1
        number = seen[layer, site]
        groups.append("" if in_layer[layer] == 1 else f".{site}{number if number > 1 else ''}:")
    return groups


def _refuse_other_width(dictionary: Dictionary, sites: Sites) -> None:
    """Refuse a dictionary of another width than its sites.

    Raises:
        DictionaryError: it is.
    """
    sizes = {dictionary.reads: dictionary.w_enc.shape[0], dictionary.writes: dictionary.w_dec.shape[1]}
    for place, size in sizes.items():
        if sites.width(place) != size:
            raise DictionaryError(
                f"the dictionary {dictionary.source} is {size:,} wide at {place}, and the model {sites.width(place):,}:"
                " it belongs to another model or site"
            )


def with_dictionaries(spec: ModelSpec, described: Described) -> ModelSpec:
    """The spec with its dictionaries' units."""
    return replace(spec, dictionaries=tuple(each.facts for each in described.attached))
