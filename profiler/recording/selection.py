"""Which components a pass records: all of them, or those that --layers, --kinds and --select leave.

Accumulators have a row per recorded component, in the order of ids; tables name components by their ids in the whole
model, so a run of some components holds the rows that a run of all has of them. Embeddings and biases are always
recorded: they are few. Attribution is computed for every component in any case, so that all DLA can be held against the
logits.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import polars as pl
import torch

from profiler.config import RunConfig
from profiler.errors import ComponentError
from profiler.model.components import Block, ModelSpec, parse_label
from profiler.model.direct import Part

RANGE = re.compile(r"(\d+)(?:-(\d+))?$")
RICH, DENSE, LEAST_DENSE, SAMPLES, FEW_SAMPLES = 10_000, 1024, 256, 4, 2
"""Up to RICH components a pass keeps DENSE positions and SAMPLES a stratum; beyond, fewer."""


def ranges_of(text: str, what: str) -> Iterator[range]:
    """The ranges that a list such as 0,4,10-20 names, ends included.

    Args:
        what: is named, for the message.

    Raises:
        ComponentError: it is no such list.
    """
    for part in text.split(","):
        match = RANGE.match(part.strip())
        if match is None:
            raise ComponentError(f"{what} {text!r} cannot be read: write numbers and ranges from 0, as in 0,4,10-20")
        yield range(int(match[1]), int(match[2] or match[1]) + 1)


def sized(config: RunConfig, spec: ModelSpec) -> RunConfig:
    """The settings with dense positions and samples that follow the number of components, where none are given."""
    n = len(Selection.of(spec, config).ids)
    dense = DENSE if n <= RICH else max(LEAST_DENSE, 2 ** ((DENSE * RICH // n).bit_length() - 1))
    defaults = {"dense_positions": dense, "samples_per_stratum": SAMPLES if n <= RICH else FEW_SAMPLES}
    changes = {name: value for name, value in defaults.items() if getattr(config, name) is None}
    return config.model_copy(update=changes) if changes else config


def _refuse_dictionaries_without_units(spec: ModelSpec, config: RunConfig, chosen: np.ndarray) -> None:
    """Refuse dictionaries of which nothing would be recorded, and features that no dictionary has.

    Raises:
        ComponentError: there is such a dictionary, or such features.
    """
    for facts in spec.dictionaries:
        if not chosen[spec.slices[facts.block]].any():
            raise ComponentError(
                f"nothing of the dictionary in layer {facts.block.layer} ({facts.source}) would be recorded, for"
                " --layers, --kinds, --features or --select leave it out: name it there too, or do without it"
            )
    if config.features is not None and not any(facts.block.kind == "feature" for facts in spec.dictionaries):
        raise ComponentError("--features chooses among a dictionary's features: give one with --dictionary L2=PATH")


@dataclass(frozen=True, eq=False)
class Selection:
    """Components of a model that are recorded.

    Attributes:
        ids: int64, ascending: the component of each row.
    """

    spec: ModelSpec
    ids: np.ndarray

    @classmethod
    def of(cls, spec: ModelSpec, config: RunConfig) -> "Selection":
        """What the settings leave.

        Raises:
            ComponentError: a layer, kind or component is not in the model, or nothing is left.
        """
        chosen = np.ones(spec.n_components, dtype=bool)
        if config.layers is not None:
            ranges = list(ranges_of(config.layers, "layers"))
            for block, of_block in spec.slices.items():
                chosen[of_block] &= any(block.layer in layers for layers in ranges)
            if beyond := [layers[-1] for layers in ranges if layers[-1] >= spec.n_layers]:
                raise ComponentError(
                    f"--layers {config.layers}: layer {beyond[0]} is not in a model of {spec.described()}"
                )
        if config.kinds:
            for block, of_block in spec.slices.items():
                chosen[of_block] &= block.kind in config.kinds
        if config.features is not None:
            for block in (facts.block for facts in spec.dictionaries if facts.block.kind == "feature"):
                asked = np.zeros(block.units, dtype=bool)
                for units in ranges_of(config.features, "features"):
                    asked[units.start : units.stop] = True
                chosen[spec.slices[block]] &= asked
        if config.select:
            named = np.zeros(len(chosen), dtype=bool)
            named[[spec.id_of(parse_label(label)) for label in config.select]] = True
            named[spec.embeddings_and_biases] = True
            named[spec.remainders] = True
            chosen &= named
        ids = chosen.nonzero()[0]
        if spec.blocks and not any(chosen[of_block].any() for of_block in spec.slices.values()):
            raise ComponentError(
                f"--layers, --kinds and --select together leave nothing to record of {spec.described()}: ask for more"
            )
        _refuse_dictionaries_without_units(spec, config, chosen)
        return cls(spec, ids)

    @property
    def everything(self) -> bool:
        """Whether all components are recorded."""
        return len(self.ids) == self.spec.n_components

    @property
    def all_of_the_model(self) -> bool:
        """Whether all components of the model itself are recorded, units of dictionaries apart."""
        n: int = self.spec.embeddings_and_biases.stop
        return int(np.searchsorted(self.ids, n)) == n

    def rows(self, components: slice) -> slice:
        """Rows of the components with these ids that are recorded."""
        first, stop = np.searchsorted(self.ids, [components.start, components.stop])
        return slice(int(first), int(stop))

    def row_of(self, label: str) -> int:
        """The row of a component.

        Raises:
            ComponentError: it is not in the model, or not recorded.
        """
        number = self.spec.id_of(parse_label(label))
        rows = self.rows(slice(number, number + 1))
        if rows.start == rows.stop:
            raise ComponentError(f"--components {label} is not among what --layers, --kinds and --select leave")
        return int(rows.start)

    def units(self, block: Block) -> np.ndarray:
        """Numbers of the units of a block that are recorded."""
        ids = self.spec.slices[block]
        units: np.ndarray = self.ids[self.rows(ids)] - ids.start
        return units

    def part(self, part: Part) -> Part | None:
        """What is recorded of a part of a batch, by row; None where nothing is."""
        if self.everything:
            return part
        rows = self.rows(part.components)
        columns = torch.from_numpy(self.ids[rows] - part.components.start).to(part.dla.device)
        if not len(columns):
            return None
        if len(columns) == part.dla.shape[-1]:
            return replace(part, components=rows)
        return replace(part, components=rows, activation=part.activation[..., columns], dla=part.dla[..., columns])

    @cached_property
    def blocks(self) -> dict[Block, slice]:
        """Rows of each block of which something is recorded."""
        rows = {block: self.rows(ids) for block, ids in self.spec.slices.items()}
        return {block: of for block, of in rows.items() if of.stop > of.start}

    @property
    def embeddings_and_biases(self) -> slice:
        """Rows of embeddings and biases."""
        return self.rows(self.spec.embeddings_and_biases)

    @property
    def remainders(self) -> slice:
        """Rows of what dictionaries' units leave over."""
        return self.rows(self.spec.remainders)

    @property
    def in_order(self) -> tuple[slice, ...]:
        """Rows that are recorded together, ascending: of blocks, of embeddings and biases, of dictionaries."""
        parts = (*self.blocks.values(), self.embeddings_and_biases, self.remainders)
        return tuple(sorted((rows for rows in parts if rows.stop > rows.start), key=lambda rows: rows.start))

    @cached_property
    def presence_runs(self) -> tuple[tuple[int, slice], ...]:
        """ModelSpec.presence_runs by row; runs of which nothing is recorded are left out."""
        runs = ((presence, self.rows(ids)) for presence, ids in self.spec.presence_runs)
        return tuple((presence, rows) for presence, rows in runs if rows.stop > rows.start)

    @cached_property
    def head_rows(self) -> dict[Block, slice]:
        """Of each block of heads of which some are recorded, their numbers among all recorded heads."""
        slices: dict[Block, slice] = {}
        for block, rows in self.blocks.items():
            if block.kind == "head":
                first = max((heads.stop for heads in slices.values()), default=0)
                slices[block] = slice(first, first + rows.stop - rows.start)
        return slices

    def count(self, kind: str) -> int:
        """Units of a kind that are recorded."""
        return sum(rows.stop - rows.start for block, rows in self.blocks.items() if block.kind == kind)

    def named(self, frame: pl.DataFrame) -> pl.DataFrame:
        """A table with the ids of its components where it has their rows."""
        if self.everything or "component_id" not in frame.columns:
            return frame
        ids = self.ids[frame["component_id"].to_numpy()].astype(np.int32)
        return frame.with_columns(component_id=pl.Series(ids))

    def numbered(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The inverse of `named`."""
        if self.everything or "component_id" not in frame.columns:
            return frame
        rows = np.searchsorted(self.ids, frame["component_id"].to_numpy()).astype(np.int32)
        return frame.with_columns(component_id=pl.Series(rows))
