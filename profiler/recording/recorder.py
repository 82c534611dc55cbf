"""Feed every accumulator from the parts of a batch.

The recorder knows no model and no database. Per batch it prepares once what all parts share (indicators, classes,
keys), then takes one part after another: sums per cell, power sums, spectrum, samples, extremes, dense rows, and the
components to be recorded at every position. A part of components that are present at some positions alone (an expert's
neurons) is taken with what is shared of those positions: nothing is added for the others.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from profiler.axes import HeadOutputs
from profiler.config import RunConfig
from profiler.model import attention
from profiler.model.components import Block, ModelSpec
from profiler.model.described.attached import Rebuild
from profiler.model.direct import Part, Weights, attended_dla, logits_summary
from profiler.model.forward import Capture, Wanted
from profiler.model.wiring import Wiring
from profiler.recording.accumulators import compiled
from profiler.recording.accumulators.bins import SPECTRUM
from profiler.recording.accumulators.cells import N_CLASSES, Axes, CellSums, PowerSums
from profiler.recording.accumulators.dense import DensePlan, DenseRows
from profiler.recording.accumulators.fidelity import Fidelity
from profiler.recording.accumulators.gates import GateSums
from profiler.recording.accumulators.smallest import Smallest
from profiler.recording.accumulators.spectrum import SpectrumCounts, counting_type
from profiler.recording.accumulators.token_sums import TokenSums
from profiler.recording.accumulators.total_sums import TotalSums
from profiler.recording.selection import Selection, sized
from profiler.text.sampling_keys import component_keys, component_marks
from profiler.text.windows import Batch

EXTREME_KINDS = (("activation", "top"), ("activation", "bottom"), ("dla", "top"), ("dla", "bottom"))


def token_sum_rows(chosen: Selection, config: RunConfig) -> list[int]:
    """Rows of the components that get sums per token: all, or heads and those named by --components, or none."""
    if config.token_sums == "none":
        return []
    if config.token_sums == "all":
        return list(range(len(chosen.ids)))
    heads = [i for block in chosen.head_rows for i in range(chosen.blocks[block].start, chosen.blocks[block].stop)]
    return sorted({*heads, *(chosen.row_of(label) for label in config.components)})


@dataclass(frozen=True)
class Shared:
    """What all parts of one batch share, on the device of the values.

    Attributes:
        order: the positions as the compiled loop wants them; None: tensor operations take their place.
        seen: ordinary positions of earlier batches.
        plan: where the positions of dense rows stand in a part.
        valid: where each position stands in a part, windows one after the other.
        present: of all positions of the batch, whether they are among these; None where these are all.
    """

    groups: Int[Tensor, " window"]
    domains: Int[Tensor, " window"]
    hot: Float[Tensor, "window cell offset"]
    seen: int
    order: compiled.Order | None
    plan: DensePlan
    cells: Int[Tensor, " token"]
    valid: Int[Tensor, " token"]
    classes: Int[Tensor, " token"]
    ordinary: Int[Tensor, " ordinary"]
    keys: Int[Tensor, " ordinary"]
    positions: Int[Tensor, " ordinary"]
    tokens: Int[Tensor, " ordinary"]
    present: Bool[Tensor, " token_of_batch"] | None = None

    def at(self, present: Int[Tensor, " present"]) -> "Shared":
        """What is shared of some positions, for a part that has values of these alone.

        Args:
            present: where they stand among the positions of the batch (window * width + offset), ascending.
        """
        n_windows, width = len(self.hot), self.hot.shape[-1]
        row_of = _rows_of(present, n_windows * width)
        planned = row_of.to(self.plan.offsets.device)[self.plan.windows * width + self.plan.offsets]
        slots = self.plan.slots[planned >= 0]
        planned = planned[planned >= 0]
        at = row_of[self.valid]
        is_present = at >= 0
        ordinary = torch.zeros_like(is_present).index_fill_(0, self.ordinary, value=True)
        kept_ordinary = is_present[self.ordinary]
        return replace(
            self,
            hot=self.hot * (row_of >= 0).view(n_windows, 1, width) if self.order is None else self.hot,
            order=None if self.order is None else self.order.at(row_of.numpy()),
            plan=DensePlan(torch.zeros_like(planned), planned, slots),
            cells=self.cells[is_present],
            valid=at[is_present],
            classes=self.classes[is_present],
            ordinary=ordinary[is_present].nonzero()[:, 0],
            keys=self.keys[kept_ordinary],
            positions=self.positions[kept_ordinary],
            tokens=self.tokens[kept_ordinary],
            present=is_present,
        )


@dataclass
class Recorded:
    """Values of chosen components at every position of a chunk, taken out when the chunk is written."""

    components: list[int]
    positions: list[Tensor] = field(default_factory=list)
    activation: dict[int, list[Tensor]] = field(default_factory=dict)
    dla: dict[int, list[Tensor]] = field(default_factory=dict)

    def take(self) -> list[tuple[int, list[Tensor], list[Tensor], list[Tensor]]]:
        """Component, position ids, activations and DLA of each component, in batches; nothing of them is left here."""
        taken = [(c, self.positions, self.activation[c], self.dla[c]) for c in self.components if self.positions]
        self.positions, self.activation, self.dla = [], {}, {}
        return taken


class Recorder:
    """All accumulators of a run; components are numbered by their rows (profiler.recording.selection)."""

    def __init__(self, spec: ModelSpec, config: RunConfig, context_length: int):
        self.config = config = sized(config, spec)
        self.chosen = chosen = Selection.of(spec, config)
        widest = max((facts.width for facts in spec.dictionaries if facts.rebuilds), default=0)
        self.device, n = torch.device(config.device), len(chosen.ids)
        k_samples, k_dense = config.samples_per_stratum or 1, config.dense_positions or 0
        self.dtype = torch.float64 if config.dtype == "float64" else torch.float32
        self.cells = CellSums(Axes.for_context(context_length), n, self.device, len(spec.presences))
        self.powers = PowerSums(n, self.device, self.dtype)
        self.spectrum = SpectrumCounts(n, self.device, chosen.in_order, counting_type(config.tokens))
        self.marks = component_marks(config.seed, spec.n_components)[torch.from_numpy(chosen.ids)].to(self.device)
        self.samples = Smallest(n * SPECTRUM.n_bins, k_samples, torch.int64, self.dtype, self.device)
        self.extremes = Smallest(n * len(EXTREME_KINDS), config.extremes, self.dtype, self.dtype, self.device)
        has_totals = config.effects == "total"
        self.dense = DenseRows(k_dense, n, chosen.count("head"), self.device, has_totals=has_totals)
        self.totals = TotalSums(n if has_totals else 0, self.device)
        self.gates = GateSums(n, self.device)
        self.fidelity = Fidelity(sum(facts.rebuilds for facts in spec.dictionaries), widest, self.device)
        self.seen = 0
        self.recorded = Recorded([*dict.fromkeys(map(chosen.row_of, config.components))])
        self.presences = {rows.start: p for block, rows in chosen.blocks.items() if (p := spec.presences.get(block))}
        summed = token_sum_rows(chosen, config)
        present = tuple(p for p, rows in chosen.presence_runs if p and any(rows.start <= c < rows.stop for c in summed))
        self.tokens = TokenSums(summed, spec.n_vocab, self.device, present)

    def prepare(self, batch: Batch, plan: DensePlan, n_domains: int) -> Shared:
        """Grow to the domains seen so far, count the batch's positions, and lay out what its parts share."""
        self.cells.grow(n_domains * self.config.replicate_groups)
        self.powers.grow(n_domains)
        hot = self.cells.axes.indicator(batch, self.dtype)
        self.cells.count(batch.groups, hot)
        self.totals.grow(len(self.cells.counts))
        self.gates.grow(len(self.cells.counts))
        if self.config.effects == "total":
            self.totals.count(batch.groups, self._ordinary(hot))
        known = batch.domains[:, None] * N_CLASSES + batch.classes
        valid = batch.valid.view(-1).nonzero()[:, 0]
        ordinary = batch.ordinary.view(-1)[valid].nonzero()[:, 0]
        flat = valid[ordinary]
        if self.recorded.components:
            self.recorded.positions.append(batch.position_ids.view(-1)[valid])
        self.tokens.count(batch.tokens.view(-1)[flat].to(self.device))
        seen, self.seen = self.seen, self.seen + len(ordinary)

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(self.device)

        return Shared(
            groups=move(batch.groups),
            domains=move(batch.domains),
            hot=move(hot),
            seen=seen,
            order=self._order(batch, valid),
            plan=plan,
            cells=move(known.view(-1)[valid]),
            valid=move(valid),
            classes=move(batch.classes.view(-1)[valid]),
            ordinary=move(ordinary),
            keys=move(batch.keys.view(-1)[flat]),
            positions=move(batch.position_ids.view(-1)[flat]),
            tokens=move(batch.tokens.view(-1)[flat]),
        )

    def add(self, shared: Shared, part: Part) -> None:
        """Take what is recorded of one part of a batch (Selection.part)."""
        presence = 0
        if part.present is not None:
            presence, everywhere, shared = self.presences[part.components.start], shared, shared.at(part.present)
            self.dense.leave_out(everywhere.plan, part.components)
            self._count_present(presence, shared)
        self.dense.update(shared.plan, part)
        if part.total is not None or part.factors is not None:
            ordinary = self._ordinary(shared.hot)
            self.totals.update(shared.groups, ordinary, part)
            self.gates.update(shared.groups, ordinary, part)
            self.dense.update_factors(shared.plan, part)
        activation, dla = (values.flatten(0, 1) for values in (part.activation, part.dla))
        self._record(shared, part.components, activation, dla)
        if self.tokens.keeps(part.components):
            rows = shared.valid[shared.ordinary]
            if presence:
                self.tokens.count_present(presence, shared.tokens)
            self.tokens.update(part.components, shared.tokens, activation[rows], dla[rows])
        if shared.order is None:
            self._add_tensors(shared, part, activation[shared.valid], dla[shared.valid])
        elif len(shared.order.classes.rows):
            accumulators = (self.cells, self.powers, self.spectrum, self.samples, self.extremes)
            compiled.add(*accumulators, self.marks, shared.order, part.components, activation, dla)

    def _ordinary(self, hot: Float[Tensor, "window cell offset"]) -> Float[Tensor, "window offset"]:
        """1 at ordinary positions, which alone have a class of the next token."""
        return hot[:, self.cells.axes.slices["next_class"]].sum(1)

    def _count_present(self, presence: int, shared: Shared) -> None:
        """Count the positions that the components of a presence are present at."""
        if shared.order is None:
            self.cells.count_present(presence, shared.groups, shared.hot)
            return
        groups, counts = shared.order.counts(self.cells.axes.n_cells)
        self.cells.count_of(presence)[torch.from_numpy(groups)] += torch.from_numpy(counts)

    def _add_tensors(self, shared: Shared, part: Part, activation: Tensor, dla: Tensor) -> None:
        """What the compiled loop does, with tensor operations."""
        if part.present is not None:
            part = _in_windows(part, len(shared.hot), shared.hot.shape[-1])
        self.cells.update(shared.groups, shared.hot, part)
        self.powers.update(shared.domains, shared.hot[:, self.cells.axes.slices["class"]], part)
        self.powers.update_extrema(shared.cells, part.components, activation, dla)
        self.spectrum.update(part.components, activation, dla, shared.classes, shared.ordinary)
        activation, dla = activation[shared.ordinary], dla[shared.ordinary]
        self._sample(shared, part.components, activation, dla)
        self._keep_extremes(shared, part.components, activation, dla)

    def add_rebuilt(self, number: int, shared: Shared, rebuild: Rebuild) -> None:
        """Take how well a dictionary reconstructs the batch's ordinary positions.

        Args:
            number: the dictionary's among those that reconstruct.
        """
        rows = shared.valid[shared.ordinary]
        tables = (rebuild.whole, rebuild.rebuilt, rebuild.values)
        self.fidelity.update(number, *(table.flatten(0, 1)[rows] for table in tables))

    def accumulators(self) -> dict[str, Any]:
        """Everything that is added up over a run, by name: what a commit saves and a merge adds."""
        names = ("cells", "powers", "spectrum", "samples", "extremes", "dense", "tokens", "totals", "gates", "fidelity")
        return {name: getattr(self, name) for name in names}

    def merge(self, other: "Recorder") -> None:
        """Add another part of the corpus."""
        mine, theirs = self.accumulators(), other.accumulators()
        for name, accumulator in mine.items():
            accumulator.merge(theirs[name])
        self.seen += other.seen

    def _order(self, batch: Batch, valid: Int[Tensor, " token"]) -> compiled.Order | None:
        """The sorted positions the compiled loop wants; None on other devices."""
        if self.device.type != "cpu":
            return None
        groups, domains = (table[:, None].expand_as(batch.valid) for table in (batch.groups, batch.domains))
        buckets = self.cells.axes.buckets(batch.tokens.shape[1]).expand_as(batch.valid)
        columns = (groups, domains, batch.classes, batch.ordinary, batch.next_classes, buckets, batch.keys)
        return compiled.make_order(valid, *(table[batch.valid] for table in (*columns, batch.position_ids)))

    def wanted(self, batch: Batch, plan: DensePlan, wiring: Wiring) -> Wanted:
        """What the forward pass must capture: attention at the planned positions, and logits there and at window ends.

        Attention is read layer by layer into its measures and the tokens attended to, logits are summarised
        (`logits_summary`); those at the last position of each window are checked.
        """
        tokens, classes = (table[plan.windows].to(self.device) for table in (batch.tokens, batch.classes))
        offsets = plan.offsets.to(self.device)
        counted = attention.masks(tokens, classes, offsets)
        planned = (plan.windows, plan.offsets)
        logits = torch.cat([plan.windows, batch.ends[0]]), torch.cat([plan.offsets, batch.ends[1]])
        targets = batch.targets[logits].to(self.device)
        return Wanted(
            logits,
            planned,
            lambda rows: (attention.summarise(rows, counted, offsets), attention.attended(rows, tokens)),
            summary=lambda some, numbers: logits_summary(some, targets[numbers], wiring),
        )

    def add_outcomes(self, plan: DensePlan, outcomes: Float[Tensor, "query 4"]) -> None:
        """Take loss, rank, entropy and slope of the soft cap at the planned dense positions."""
        self.dense.update_outcomes(plan, outcomes)

    def take_recorded(self) -> list[tuple[int, list[Tensor], list[Tensor], list[Tensor]]]:
        """What was recorded at every position since the last call, by component id: see `Recorded.take`."""
        return [(int(self.chosen.ids[row]), where, a, d) for row, where, a, d in self.recorded.take()]

    def add_attention(self, plan: DensePlan, block: Block, z: HeadOutputs, capture: Capture, weights: Weights) -> None:
        """Take what was read off the attention of a block of heads at the planned dense positions.

        Args:
            z: what its heads mixed.
            capture: the pass that read its attention; a block whose attention it could not read is left out.
        """
        if block not in capture.attention or (heads := self.chosen.head_rows.get(block)) is None:
            return
        measures, target = capture.attention[block]
        windows, offsets = plan.windows.to(self.device), plan.offsets.to(self.device)
        scales = {name: value[windows, offsets] for name, value in capture.scales.items()}
        copied = attended_dla(z[windows, offsets], block, weights, target, scales)
        table = torch.cat([measures, copied[..., None].to(measures.dtype)], -1)
        self.dense.update_attention(plan, heads, table[:, self.chosen.units(block)])

    def _record(self, shared: Shared, components: slice, activation: Tensor, dla: Tensor) -> None:
        for component in self.recorded.components:
            if components.start <= component < components.stop:
                column = component - components.start
                for recorded, values in ((self.recorded.activation, activation), (self.recorded.dla, dla)):
                    own = values[shared.valid, column]
                    if shared.present is not None:  # NaN where it is absent
                        own = own.new_full(shared.present.shape, torch.nan).masked_scatter_(shared.present, own)
                    recorded.setdefault(component, []).append(own.cpu())

    def _sample(self, shared: Shared, components: slice, activation: Tensor, dla: Tensor) -> None:
        first = torch.arange(components.start, components.stop, device=self.device) * SPECTRUM.n_bins
        cells = first + SPECTRUM.index(activation)
        keys = component_keys(shared.keys, self.marks[components])
        self.samples.offer(cells, keys, shared.positions, activation, dla, shared.seen)

    def _keep_extremes(self, shared: Shared, components: slice, activation: Tensor, dla: Tensor) -> None:
        first = torch.arange(components.start, components.stop, device=self.device) * len(EXTREME_KINDS)
        for kind, (measure, side) in enumerate(EXTREME_KINDS):
            values = activation if measure == "activation" else dla
            keys = -values if side == "top" else values
            self.extremes.offer(first + kind, keys, shared.positions, activation, dla, shared.seen)


def _rows_of(rows: Int[Tensor, " token"], n: int) -> Int[Tensor, " position"]:
    """Where each of `n` positions stands among `rows`, -1 where it does not."""
    numbers = torch.arange(len(rows), device=rows.device)
    return torch.full((n,), -1, device=rows.device).index_copy_(0, rows, numbers)


def _in_windows(part: Part, n_windows: int, width: int) -> Part:
    """A part of some positions, widened to every position; 0 where it has no values."""
    assert part.present is not None
    present = part.present

    def spread(values: Float[Tensor, "1 present unit"]) -> Float[Tensor, "window offset unit"]:
        room = values.new_zeros(n_windows * width, values.shape[-1])
        return room.index_copy_(0, present, values[0]).view(n_windows, width, -1)

    return Part(part.components, spread(part.activation), spread(part.dla))
