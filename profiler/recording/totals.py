"""Everything a pass adds up: accumulators, counters, closure, and where it stands. A monoid: empty, fed, merged, saved.

A pass, what it has committed, what a worker sends and a run that is merged into another are all totals, so going on
after a stop, several workers and several machines are the same operation. The tables of statistics are made from totals
alone.
Cost: a merge is one addition over all accumulators, a few hundred megabytes for a model of four thousand components.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import torch

from profiler.axes import Scale
from profiler.config import RunConfig
from profiler.database.pass_commits import ReferredRows
from profiler.model.components import ModelSpec
from profiler.model.direct import Closure
from profiler.recording import tables
from profiler.recording.accumulators import state
from profiler.recording.identity import settings
from profiler.recording.memory import give_back, peak_resident
from profiler.recording.recorder import Recorder
from profiler.recording.write import Store
from profiler.text.documents import Cursor, Domains, Passed
from profiler.text.sampling_keys import stable_hash
from profiler.text.shards import Share
from profiler.text.windows import POSITION_SHIFT, WINDOW_SHIFT, Chunk, Layout

LEAST_WRITING = 256_000_000
DROP_NOTES = {
    "invalid_json": ("rows", "rows of a .json or .jsonl file that are no JSON object"),
    "ragged_rows": ("rows", "rows of a .csv or .tsv file with more values than its first line has fields"),
    "no_text": ("documents", "documents whose text field is empty, absent or holds no text"),
    "no_template": ("documents", "conversations that the tokenizer's chat template refuses"),
    "no_roles": (
        "documents",
        "conversations read with role NULL: the chat template rewrites what is written in messages, or the tokenizer"
        " does not tell which characters its tokens cover",
    ),
    "blank_lines": ("lines", "blank lines, which part documents"),
    "same_file": ("files", "files that are another one of the corpus under a second name, such as a link: read once"),
    "other_files": (
        "files",
        "entries of a folder or glob without an ending of a corpus, or links to nothing: not read",
    ),
    "lone_surrogates": ("characters", "lone surrogates, no Unicode text, replaced by ?"),
    "undecodable": (
        "characters",
        "U+FFFD in the text: it stands for bytes that are no UTF-8 (or stood so in the file)",
    ),
    "token_limit": ("tokens", "end of the last document, beyond --tokens; raise it to read on"),
    "windows_not_chosen": ("tokens", "in windows that --windows-per-document did not draw; not read"),
    "no_positions": ("documents", "documents too short to hold a token with a token to predict"),
    "last_tokens": ("positions", "last token of a document: nothing to predict"),
    "bos": ("positions", "BOS put before a window: recorded under class bos, left out of the views"),
    "first": ("positions", "first of a window without BOS: recorded under class first, left out of the views"),
    "special": ("positions", "special tokens inside the text: recorded under class special, left out of the views"),
}


@dataclass
class PassProgress:
    """How far the pass is: what a progress bar shows."""

    tokens: int = 0
    documents: int = 0
    seconds: float = 0.0
    stage: str = "recording"


class Totals:
    """The sums, in the memory of the device that the model runs on."""

    def __init__(self, spec: ModelSpec, config: RunConfig):
        self.spec, self.config = spec, config
        self.recorder = Recorder(spec, config, spec.context_length)
        self.domains = Domains(config.replicate_groups)
        self.dropped: Counter[str] = Counter()
        self.progress, self.closure, self.cursor = PassProgress(), Closure(), Cursor()
        self.scales = (0.0, 0)
        self.block_scales: dict[int, float] = {}
        self.carried = (0.0, 0.0)
        self.created = datetime.now(UTC).isoformat(timespec="seconds")
        self.peak = 0

    @property
    def effect_scales(self) -> list[float]:
        """Of each block, and then of each dictionary, the denominator that its logit effects are stated at: the final
        norm's mean, times the mean of the block's own norm where it has one."""
        n = max(self.scales[1], 1)
        mean = self.scales[0] / n
        blocks = range(len(self.spec.blocks))
        of_blocks = [mean * self.block_scales[i] / n if i in self.block_scales else mean for i in blocks]
        return [*of_blocks, *[mean] * len(self.spec.dictionaries)]

    def add_scale(self, scale: Scale, of_blocks: dict[int, Scale], ordinary: torch.Tensor) -> None:
        """Sum up the denominators of the final norm and of blocks' own norms, for the means that logit effects are
        stated at.

        Args:
            of_blocks: by the block's number; blocks without a norm of their own have none.
        """
        chosen = scale[..., 0][ordinary].double()
        self.scales = (self.scales[0] + chosen.sum().item(), self.scales[1] + len(chosen))
        if of_blocks:
            sums = torch.stack([own[..., 0][ordinary].double().sum() for own in of_blocks.values()]).tolist()
            for number, total in zip(of_blocks, sums, strict=True):
                self.block_scales[number] = self.block_scales.get(number, 0.0) + total

    def add_carried(self, carried: torch.Tensor, logits: torch.Tensor, valid: torch.Tensor) -> None:
        """Sum up what recorded components carry of the centred target logit: their DLA times it, and its square.

        Args:
            carried: DLA of all recorded components together, at each position.
            logits: the centred target logit.
        """
        mine, whole = carried[valid].double(), logits[valid].double()
        self.carried = (self.carried[0] + float(mine @ whole), self.carried[1] + float(whole @ whole))

    @property
    def carried_part(self) -> float:
        """The sum over positions of recorded DLA * centred target logit, as a part of the sum of that logit's square.

        It is 1, to rounding, where everything is recorded.
        """
        return self.carried[0] / (self.carried[1] or 1.0)

    def count(self, chunk: Chunk, closure: Closure, layout: Layout) -> None:
        """Count a chunk that has been read, and stand behind it."""
        bos = layout.bos_id is not None
        self.progress.documents += len(chunk.documents)
        self.progress.tokens += sum(len(w.token_ids) - bos for w in chunk.windows)
        self.dropped += chunk.dropped
        self.dropped["no_positions"] += sum(len(d.token_ids) < 2 - bos for d in chunk.documents)
        self.dropped["last_tokens"] += sum(d.reads_end(layout.stride) for d in chunk.documents)
        self.closure = self.closure.merge(closure)
        self.cursor = chunk.cursor

    def end(self, dropped: Counter[str], passed: Passed) -> None:
        """The corpus has ended.

        Args:
            dropped: what was dropped after the last document; the first share counts it.
            passed: every document streamed.
        """
        if 0 in Share.parse(self.config.shard).members:
            self.dropped += dropped
        self.cursor = Cursor(self.cursor.chunk, self.cursor.tokens_before, passed, done=True)

    def merge(self, other: "Totals") -> None:
        """Add another part of the corpus, which comes after this one's where both were read in order."""
        self.recorder.merge(other.recorder)
        self.dropped += other.dropped
        self.progress.tokens += other.progress.tokens
        self.progress.documents += other.progress.documents
        self.progress.seconds += other.progress.seconds
        self.closure = self.closure.merge(other.closure)
        self.scales = (self.scales[0] + other.scales[0], self.scales[1] + other.scales[1])
        self.carried = (self.carried[0] + other.carried[0], self.carried[1] + other.carried[1])
        numbers = self.block_scales.keys() | other.block_scales.keys()
        self.block_scales = {i: self.block_scales.get(i, 0.0) + other.block_scales.get(i, 0.0) for i in sorted(numbers)}
        self.domains.names = max(self.domains.names, other.domains.names, key=len)
        self.cursor = max(self.cursor, other.cursor, key=lambda c: c.chunk)
        self.peak = max(self.peak, other.peak)

    def facts(self) -> dict[str, Any]:
        """All that is not an array, for JSON."""
        return {
            "tokens": self.progress.tokens,
            "documents": self.progress.documents,
            "seconds": self.progress.seconds,
            "dropped": dict(self.dropped),
            "closure": list(asdict(self.closure).values()),
            "scales": list(self.scales),
            "block_scales": list(self.block_scales.items()),
            "carried": list(self.carried),
            "domains": self.domains.names,
            "seen": self.recorder.seen,
            "created": self.created,
            "peak": self.peak_memory(),
            "cursor": asdict(self.cursor),
            "committed": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The accumulators' state."""
        return state.arrays(self.recorder.accumulators())

    def claim(self) -> None:
        """Touch the accumulators' memory: a pass that begins then has all that it will need."""
        if self.recorder.device.type == "cpu":
            for array in self.arrays().values():
                array[...] = array

    def restore(self, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Become what `facts` and `arrays` were made from.

        Raises:
            KeyError, TypeError: they are not of this version or these settings.
        """
        state.restore(self.recorder.accumulators(), arrays)
        self.progress = PassProgress(facts["tokens"], facts["documents"], facts["seconds"])
        self.dropped, self.closure = Counter(facts["dropped"]), Closure(*facts["closure"])
        self.scales, self.domains.names = (facts["scales"][0], facts["scales"][1]), list(facts["domains"])
        self.block_scales = dict(facts["block_scales"])
        self.carried = (facts["carried"][0], facts["carried"][1])
        self.recorder.seen, self.created, self.peak = facts["seen"], facts["created"], facts["peak"]
        self.cursor = Cursor(**facts["cursor"] | {"passed": Passed(**facts["cursor"]["passed"])})

    def peak_memory(self) -> int:
        """Largest resident size in bytes, of this process or of one that read another part."""
        return max(self.peak, peak_resident())

    def referred(self) -> dict[str, ReferredRows]:
        """Staged positions and windows that a sample refers to; all where components are recorded everywhere."""
        r = self.recorder
        if r.recorded.components:
            return {}
        referred = torch.cat(
            [t.flatten().cpu() for t in (r.samples.positions, r.extremes.positions, r.dense.positions)]
        )
        positions = referred[referred >= 0].unique()
        number = (positions & (2**POSITION_SHIFT - 1)) // self.spec.context_length
        windows = (((positions >> POSITION_SHIFT) << WINDOW_SHIFT) + number).unique()
        return {
            "positions": ReferredRows("position_id", positions.numpy()),
            "windows": ReferredRows("window_id", windows.numpy()),
        }

    def frames(self) -> Mapping[str, pl.DataFrame | Iterator[pl.DataFrame]]:
        """The tables of statistics and samples."""
        r = self.recorder
        made: dict[str, pl.DataFrame | Iterator[pl.DataFrame]] = {
            "domains": pl.DataFrame({"domain_id": range(len(self.domains.names)), "domain": self.domains.names}),
            "cell_counts": tables.cell_counts(r.cells),
            "cell_sums": tables.cell_sums(r.cells, r.chosen),
            "group_importance": tables.group_importance(r.cells, r.chosen),
            "power_sums": tables.power_sums(r.cells, r.powers, r.chosen, self.config.replicate_groups),
            "spectrum_counts": tables.spectrum_counts(r.spectrum),
            "density_counts": tables.density_counts(r.spectrum),
            "quantiles": tables.quantiles(r.spectrum, r.powers),
            "sample_rows": tables.sample_rows(r.samples),
            "extreme_rows": tables.extreme_rows(r.extremes),
            "dense_rows": tables.dense_rows(r.dense),
            "head_attention_rows": tables.head_attention_rows(r.dense, r.chosen),
            "token_counts": tables.token_counts(r.tokens),
            "token_sums": tables.token_sums(r.tokens, r.chosen),
            "drops": self._drops(),
            "dictionaries": tables.dictionaries(self.spec, r.fidelity),
            "spliced_windows": tables.spliced_windows(self.spec, r.fidelity),
        }
        if r.chosen.everything:
            return made
        return {
            table: r.chosen.named(frames) if isinstance(frames, pl.DataFrame) else map(r.chosen.named, frames)
            for table, frames in made.items()
        }

    def write(self, store: Store, of_model: dict[str, Any], versions: dict[str, str]) -> None:
        """Write every table of the run from what is added up and from the rows that `store` has committed.

        Args:
            of_model: the tables that follow from the model alone.
        """
        store.limit_memory(max(LEAST_WRITING, sum(array.nbytes for array in self.arrays().values()) // 2))
        for table, frames in {**of_model, **self.frames()}.items():
            give_back()
            store.insert(table, frames)
        give_back()
        store.assemble(tables.dense_outcomes(self.recorder.dense), self.config.replicate_groups)
        store.insert("runs", self.run_row(versions))

    def documents_read(self) -> str:
        """How many documents were read, and what was dropped of them, in words."""
        dropped = (f"{n:,} {DROP_NOTES[reason][1]}" for reason, n in self.dropped.items() if n)
        return "; ".join([f"{self.progress.documents:,} documents read", *dropped])

    def _special_counts(self) -> dict[str, int]:
        of_class = self.recorder.cells.counts.sum(0)
        return {name: int(of_class[i]) for i, name in enumerate(("bos", "first", "special"))}

    def _drops(self) -> pl.DataFrame:
        counts = dict(self.dropped) | self._special_counts()
        rows = [(reason, counts.get(reason, 0), unit, note) for reason, (unit, note) in DROP_NOTES.items()]
        return pl.DataFrame(rows, schema=["reason", "n", "unit", "note"], orient="row")

    def run_row(self, versions: dict[str, str]) -> pl.DataFrame:
        """Table `runs`."""
        spec, config, cells = self.spec, self.config, self.recorder.cells
        special = sum(self._special_counts().values())
        everything = int(cells.counts[:, cells.axes.slices["class"]].sum())
        passed, stored = self.cursor.passed, settings(config, spec)
        files = "".join(f" {facts.digest}" for facts in spec.dictionaries)
        identity = f"{stored.digest()} {spec.weights_hash} {spec.tokenizer_hash} {passed.digest}{files}"
        row = {
            "run_id": f"{stable_hash(identity) % 2**64:016x}",
            "created": self.created,
            "model": config.model,
            "model_hash": spec.weights_hash,
            "tokenizer_hash": spec.tokenizer_hash,
            "architecture": spec.architecture,
            "n_layers": spec.n_layers,
            "n_heads": spec.n_heads,
            "d_mlp": spec.d_mlp,
            "blocks": json.dumps(spec.blocks_as_facts()),
            "dictionaries": json.dumps([asdict(facts) for facts in spec.dictionaries]),
            "d_model": spec.d_model,
            "n_vocab": spec.n_vocab,
            "config": stored.model_dump_json(),
            "versions": json.dumps(versions),
            "model_card": spec.card,
            "model_notes": list(spec.notes),
            "n_streamed": passed.n,
            "corpus_digest": passed.digest,
            "n_documents": self.progress.documents,
            "n_tokens": self.progress.tokens,
            "n_positions": everything - special,
            "n_special": special,
            "seconds": self.progress.seconds,
            "tokens_per_second": self.progress.tokens / self.progress.seconds,
            "closure_residual": self.closure.residual,
            "closure_scale": self.closure.scale,
            "logit_residual": self.closure.logit_residual,
            "recorded_logit_sum": self.carried[0],
            "squared_logit_sum": self.carried[1],
            "norm_scale_sum": self.scales[0],
            "block_scale_sums": [self.block_scales.get(number) for number in range(len(spec.blocks))],
            "norm_scale_n": self.scales[1],
            "peak_memory_bytes": self.peak_memory(),
            "complete": True,
        }
        return pl.DataFrame([row])
