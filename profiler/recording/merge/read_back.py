"""The totals of a finished run, read back from its tables: everything a merge needs is in the run file, in full.

Counts stand there as they are, sums by cell rounded to FLOAT; sampling keys follow from the seed and from where a
document stands; extremes are ordered by values that the file holds in full. No model is needed. Cost: reading the
tables once, and the accumulators' memory.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Int
from torch import Tensor

from profiler.config import RunConfig
from profiler.database import faults, query
from profiler.errors import EngineError, RunError
from profiler.model.attention import MEASURES
from profiler.model.components import ModelSpec, blocks_from_facts, dictionaries_from_facts
from profiler.model.direct import Closure
from profiler.recording.accumulators.bins import SPECTRUM
from profiler.recording.accumulators.cells import EXTREMA, POWERS, CellSums, PowerSums
from profiler.recording.accumulators.dense import DenseRows
from profiler.recording.accumulators.fidelity import PUT, Fidelity
from profiler.recording.accumulators.smallest import Entries, Smallest
from profiler.recording.accumulators.spectrum import Bins, SpectrumCounts
from profiler.recording.accumulators.token_sums import TokenSums
from profiler.recording.recorder import EXTREME_KINDS
from profiler.recording.selection import Selection
from profiler.recording.totals import DROP_NOTES, PassProgress, Totals
from profiler.text.documents import Cursor, Passed
from profiler.text.sampling_keys import GOLDEN, mix, signed, stable_hash
from profiler.text.windows import POSITION_SHIFT

OF_MODEL = ("components", "classes", "tokens", "vocabulary", "position_buckets", "bins", "logit_effects")


class Stored:
    """A finished run, open for reading, without access to anything but its file."""

    def __init__(self, path: Path):
        """Open it.

        Raises:
            RunError: it is no finished run, one of an earlier version, or being written.
        """
        self.path = path
        self.connection = query.open_run(path)
        try:
            (self.row,) = self.rows("FROM runs").to_dicts()
            self.rows("SELECT place, text_hash FROM documents LIMIT 0")
            self.row["corpus_digest"], self.row["norm_scale_n"], self.row["model_notes"], self.row["dictionaries"]
            self.config = RunConfig(**json.loads(self.row["config"]))
        except EngineError:
            self.connection.close()
            raise
        except (RunError, ValueError, KeyError, TypeError):
            self.connection.close()
            raise RunError(
                f"{path} is no finished run that can be merged: name a file that `profiler record` of this version"
                " wrote"
            ) from None
        self.spec = _spec(self.row, self.config)
        self.chosen = Selection.of(self.spec, self.config)

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def rows(self, sql: str) -> pl.DataFrame:
        """Rows of a statement.

        Raises:
            RunError: the file is damaged, or a table is not there.
        """
        try:
            return pl.DataFrame(self.connection.sql(sql).to_arrow_table())
        except faults.FAULTS as error:
            raise faults.fault_error(error, f"reading {self.path}", query.UNCHANGED) from None
        except query.UNREADABLE as error:
            reason = str(error).strip().splitlines()[0]
            raise RunError(
                f"{self.path} cannot be read ({reason}): take a copy that is whole, or record it again"
            ) from None

    def of_model(self) -> dict[str, pl.DataFrame]:
        """The tables that follow from the model alone."""
        return {table: self.rows(f"FROM {table}") for table in OF_MODEL}

    def committed(self) -> dict[str, pl.DataFrame]:
        """The rows that a pass commits as it goes: documents, closure, recorded rows, positions and windows."""
        positions = self.rows("SELECT * EXCLUDE (loss, rank, entropy, cap_slope, dense) FROM position_rows")
        return {
            "documents": self.rows("FROM documents"),
            "closure": self.rows("SELECT * EXCLUDE (chunk) FROM closure"),
            "recorded_rows": self.rows("FROM recorded_rows"),
            "positions": positions,
            "windows": self.rows("FROM windows"),
        }

    def totals(self) -> Totals:
        """Everything that the pass had added up."""
        totals, row = Totals(self.spec, self.config.model_copy(update={"device": "cpu"})), self.row
        totals.domains.names = self.rows("FROM domains ORDER BY domain_id")["domain"].to_list()
        self._fill(totals)
        drops = dict(self.rows("SELECT reason, n FROM drops").iter_rows())
        totals.dropped.update(
            {r: n for r, n in drops.items() if r in DROP_NOTES and r not in ("bos", "first", "special")}
        )
        totals.progress = PassProgress(row["n_tokens"], row["n_documents"], row["seconds"])
        n = int(self.rows("SELECT coalesce(sum(n), 0)::BIGINT AS n FROM closure")["n"].item())
        totals.closure = Closure(n, row["closure_residual"], row["logit_residual"], row["closure_scale"])
        totals.scales = (row["norm_scale_sum"], row["norm_scale_n"])
        totals.carried = (row["recorded_logit_sum"], row["squared_logit_sum"])
        totals.block_scales = {i: total for i, total in enumerate(row["block_scale_sums"]) if total is not None}
        totals.cursor = Cursor(passed=Passed(row["n_streamed"], row["corpus_digest"]), done=True)
        totals.created, totals.peak = row["created"], row["peak_memory_bytes"]
        return totals

    def _fill(self, totals: Totals) -> None:
        r, n_domains = totals.recorder, len(totals.domains.names)
        r.seen = self.row["n_positions"]
        r.cells.grow(n_domains * self.config.replicate_groups)
        r.powers.grow(n_domains)
        keys = self._position_keys()
        self._cells(r.cells)
        self._powers(r.powers)
        self._spectrum(r.spectrum)
        self._tokens(r.tokens)
        self._samples(r.samples, r.marks, keys)
        self._extremes(r.extremes)
        self._dense(r.dense, keys)
        self._fidelity(r.fidelity)

    def _position_keys(self) -> pl.DataFrame:
        """The sampling key of every kept position (profiler.text.sampling_keys.position_keys)."""
        rows = self.rows("SELECT position_id, doc_id, place FROM position_rows JOIN documents USING (doc_id)")
        places = rows["place"].unique()
        hashed = pl.DataFrame(
            {"place": places, "start": [stable_hash(f"{self.config.seed}\x00{place}") for place in places]},
            schema={"place": pl.String, "start": pl.Int64},
        )
        rows = rows.join(hashed, on="place", maintain_order="left")
        positions, starts = _tensor(rows, "position_id"), _tensor(rows, "start")
        key = mix(((positions & (2**POSITION_SHIFT - 1)) + 1) * signed(GOLDEN) + starts)
        return pl.DataFrame({"position_id": positions.numpy(), "position_key": key.numpy()})

    def _of_rows(self, sql: str) -> pl.DataFrame:
        """Rows of a table of components, which are numbered by their rows in the accumulators."""
        return self.chosen.numbered(self.rows(sql))

    def _cells(self, cells: CellSums) -> None:
        start = pl.col("axis").replace_strict({a: s.start for a, s in cells.axes.slices.items()}, return_dtype=pl.Int64)
        counts = self.rows("FROM cell_counts").with_columns(cell=start + pl.col("value_id"))
        everywhere, present = counts.filter(pl.col("presence") == 0), counts.filter(pl.col("presence") > 0)
        cells.counts[_at(everywhere, "group_id", "cell")] = _tensor(everywhere, "n")
        presence, group, cell = _at(present, "presence", "group_id", "cell")
        cells.present_counts[presence - 1, group, cell] = _tensor(present, "n")
        sums = self._of_rows("FROM cell_sums").with_columns(cell=start + pl.col("value_id"))
        at = _at(sums, "group_id", "cell", "component_id")
        for target, name in zip(cells.sums, ("sum_activation", "sum_dla", "sum_abs_dla"), strict=True):
            target[at] = _tensor(sums, name).double()

    def _powers(self, powers: PowerSums) -> None:
        rows = self._of_rows("FROM power_sums")
        at = _at(rows, "domain_id", "class_id", "component_id")
        for target, name in zip((*powers.sums, *powers.extrema), (*POWERS, *EXTREMA), strict=True):
            target[at] = _tensor(rows, name).to(target.dtype)

    def _spectrum(self, spectrum: SpectrumCounts) -> None:
        rows = self._of_rows("FROM spectrum_counts ORDER BY component_id, class_id, bin")
        component, token_class, number = _at(rows, "component_id", "class_id", "bin")
        sums = torch.stack([_tensor(rows, "sum_dla"), _tensor(rows, "sum_abs_dla")]).double()
        spectrum.take(Bins(component, token_class * SPECTRUM.n_bins + number, _tensor(rows, "n"), sums))
        fine = self._of_rows("FROM density_counts")
        spectrum.density[_at(fine, "component_id", "bin")] = _tensor(fine, "n").to(spectrum.density.dtype)

    def _tokens(self, tokens: TokenSums) -> None:
        counts = self.rows("FROM token_counts")
        everywhere, present = counts.filter(pl.col("presence") == 0), counts.filter(pl.col("presence") > 0)
        tokens.counts[_at(everywhere, "token_id")] = _tensor(everywhere, "n")
        presence, token = _at(present, "presence", "token_id")
        tokens.present_counts[torch.searchsorted(tokens.presences, presence), token] = _tensor(present, "n")
        rows = self._of_rows("FROM token_sums")
        at = (
            _tensor(rows, "token_id").long(),
            torch.searchsorted(tokens.components, _tensor(rows, "component_id").long()),
        )
        for target, name in zip(tokens.sums, ("sum_activation", "sum_dla", "sum_abs_dla"), strict=True):
            target[at] = _tensor(rows, name)

    def _samples(self, samples: Smallest, marks: Int[Tensor, " component"], keys: pl.DataFrame) -> None:
        rows = self._of_rows("FROM sample_rows").join(keys, on="position_id", maintain_order="left")
        component = _tensor(rows, "component_id").long()
        key = (_tensor(rows, "position_key") ^ marks[component]) * signed(GOLDEN)
        samples.update(_entries(rows, component * SPECTRUM.n_bins + _tensor(rows, "bin"), key))

    def _extremes(self, extremes: Smallest) -> None:
        kinds = {f"{measure} {side}": i for i, (measure, side) in enumerate(EXTREME_KINDS)}
        value = pl.when(pl.col("measure") == "activation").then("activation").otherwise("dla").cast(pl.Float64)
        rows = self._of_rows("FROM extreme_rows").with_columns(
            kind=(pl.col("measure") + " " + pl.col("side")).replace_strict(kinds, return_dtype=pl.Int64),
            key=pl.coalesce("key", pl.when(pl.col("side") == "top").then(-value).otherwise(value)),
        )
        cells = _tensor(rows, "component_id").long() * len(EXTREME_KINDS) + _tensor(rows, "kind")
        extremes.update(_entries(rows, cells, _tensor(rows, "key").to(extremes.keys.dtype)))

    def _dense(self, dense: DenseRows, keys: pl.DataFrame) -> None:
        outcomes = self.rows(
            "SELECT position_id, loss, rank, entropy, cap_slope FROM position_rows WHERE dense ORDER BY position_id"
        )
        n = outcomes.height
        chosen = outcomes.join(keys, on="position_id", maintain_order="left")
        dense.positions[:n], dense.keys[:n] = _tensor(chosen, "position_id"), _tensor(chosen, "position_key")
        dense.outcome[:n] = torch.from_numpy(outcomes.select(pl.exclude("position_id").cast(pl.Float64)).to_numpy())
        rows = self._of_rows("FROM dense_rows")
        slot = torch.searchsorted(dense.positions[:n].contiguous(), _tensor(rows, "position_id"))
        for target, name in ((dense.activation, "activation"), (dense.dla, "dla")):
            target[:n] = torch.nan  # where the component is absent
            target[slot, _tensor(rows, "component_id").long()] = _tensor(rows, name)
        heads = self._of_rows("FROM head_attention_rows ORDER BY component_id, position_id")
        if not heads.height:  # attention weights of this model cannot be read
            return
        table = heads.select(pl.col(*MEASURES, "dla_to_attended").cast(pl.Float32)).to_numpy()
        dense.attention[:n] = torch.from_numpy(table.reshape(dense.attention.shape[1], n, -1).transpose(1, 0, 2).copy())

    def _fidelity(self, fidelity: Fidelity) -> None:
        rows = self.rows("FROM dictionaries WHERE n IS NOT NULL ORDER BY dictionary_id").to_dicts()
        for number, row in enumerate(rows):
            fidelity.n[0] = row["n"]
            squares = [row["error_squares"], row["whole_squares"], row["active_units"]]
            fidelity.squares[number] = torch.tensor(squares, dtype=torch.float64)
            sums = torch.tensor(row["whole_sums"], dtype=torch.float64)
            fidelity.sums[number, : len(sums)] = sums
        tables = [
            self.rows(f'FROM spliced_windows WHERE dictionary_id = {int(row["dictionary_id"])} ORDER BY "key"')
            for row in rows
        ]
        if tables:
            columns = ["loss", *(f"{name}_{i}" for i in range(len(tables)) for name in PUT)]
            wide = pl.concat(
                [
                    tables[0].select("loss"),
                    *(table.select(pl.col(*PUT).name.suffix(f"_{i}")) for i, table in enumerate(tables)),
                ],
                how="horizontal",
            )
            losses = torch.from_numpy(wide.select(columns).cast(pl.Float64).fill_null(torch.nan).to_numpy().copy())
            fidelity.take(_tensor(tables[0], "key"), _tensor(tables[0], "n"), losses)


def _spec(row: dict[str, Any], config: RunConfig) -> ModelSpec:
    assert config.context_length is not None  # a run keeps what the model gave (identity.settings)
    return ModelSpec(
        row["model"],
        row["architecture"],
        row["n_layers"],
        row["d_model"],
        row["n_vocab"],
        config.context_length,
        row["model_hash"],
        row["tokenizer_hash"],
        blocks_from_facts(json.loads(row["blocks"])),
        row["model_card"],
        tuple(row["model_notes"] or ()),
        dictionaries_from_facts(json.loads(row["dictionaries"] or "[]")),
    )


def _tensor(frame: pl.DataFrame, column: str) -> Tensor:
    return torch.from_numpy(np.array(frame[column].to_numpy()))


def _at(frame: pl.DataFrame, *columns: str) -> tuple[Tensor, ...]:
    return tuple(_tensor(frame, column).long() for column in columns)


def _entries(rows: pl.DataFrame, cells: Tensor, keys: Tensor) -> Entries:
    return Entries(cells, keys, *(_tensor(rows, name) for name in ("position_id", "activation", "dla")))
