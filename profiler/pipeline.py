"""The pass. Read this file first: it is the design in code.

    corpus -> windows -> model -> attribution -> recorder (accumulators) -> store

One pass over the corpus, one forward pass per batch. Memory is that of the accumulators and of one batch; it does not
grow with the corpus. Numbers go to the file at the end, positions and windows as they stream by.
"""

import json
import platform
import resource
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
import torch

from profiler import attribution, tables
from profiler.attribution import Closure
from profiler.behaviours.expressions import own_classes
from profiler.config import RunConfig
from profiler.context import Marks, past_of
from profiler.corpus import documents
from profiler.errors import CorpusError, ModelError
from profiler.keys import stable_hash
from profiler.model import Model, load_model, logits_summary
from profiler.reading import Domains, Reading, tokenize
from profiler.recorder import Recorder
from profiler.store import Store
from profiler.tokens import token_classes, token_texts
from profiler.windows import Batch, Chunk, Layout, chunks, random_windows

LIBRARIES = ("torch", "transformers", "transformer_lens", "datasets", "duckdb", "polars", "numpy")
CLOSURE_TOLERANCE = {"float64": 1e-5, "float32": 1e-3, "bfloat16": 0.2, "float16": 0.05}
DROP_NOTES = {
    "invalid_json": ("lines", "lines of a .jsonl file that hold no JSON object"),
    "no_text": ("documents", "documents whose text field is empty, absent or not a string"),
    "lone_surrogates": ("characters", "lone surrogates, no Unicode text, replaced by ?"),
    "undecodable": ("characters", "U+FFFD in the text: it stands for bytes that are no UTF-8 (or stood so in the file)"),
    "token_limit": ("tokens", "end of the last document, beyond --tokens; raise it to read on"),
    "windows_not_chosen": ("tokens", "in windows that --windows-per-document did not draw; not read"),
    "no_positions": ("documents", "documents too short to hold a token with a token to predict"),
    "last_tokens": ("positions", "last token of a document: nothing to predict"),
    "bos": ("positions", "BOS put before a window: recorded under class bos, left out of the views"),
    "first": ("positions", "first of a window without BOS: recorded under class first, left out of the views"),
    "special": ("positions", "special tokens inside the text: recorded under class special, left out of the views"),
}


@dataclass
class Progress:
    """How far the pass is: what a progress bar shows."""

    tokens: int = 0
    documents: int = 0
    seconds: float = 0.0
    stage: str = "recording"


@dataclass(frozen=True)
class Outcome:
    """What a finished pass leaves to say."""

    path: Path
    bytes: int
    progress: Progress
    closure: Closure


Report = Callable[[Progress], None]


def record(
    config: RunConfig,
    path: Path,
    *,
    model: Model | None = None,
    overwrite: bool = False,
    report: Report = lambda _: None,
) -> Outcome:
    """Stream the corpus through the model once and leave a run database at `path`.

    Args:
        config: what to run on what.
        path: the run file; it appears when the pass has ended.
        model: a model already loaded for this `config`, to save loading it.
        report: called after every chunk.

    Raises:
        ProfilerError: the model, the corpus or the place of the run is not usable.
    """
    own = own_classes(config.classes)
    model = model or load_model(config)
    with Store(path, overwrite) as store:
        run = Pass(model, config, store)
        for chunk in run.chunks():
            store.add_chunk(chunk, run.read(chunk))
            report(run.progress)
        run.write()
        report(run.progress)
        size = store.finish(own)
    return Outcome(path, size, run.progress, run.closure)


class Pass:
    """The state of one pass over a corpus."""

    def __init__(self, model: Model, config: RunConfig, store: Store):
        self.model, self.config, self.store = model, config, store
        self.texts = token_texts(model.tokenizer, model.spec.n_vocab)
        self.class_ids = token_classes(self.texts, set(model.tokenizer.all_special_ids))
        self.layout = Layout(
            model.spec.context_length, model.bos_id, torch.tensor(self.class_ids), config.seed, config.replicate_groups
        )
        self.marks = Marks.of(self.texts)
        self.domains = Domains(config.replicate_groups)
        self.recorder = Recorder(model.spec, config, model.spec.context_length)
        self.dropped: Counter[str] = Counter()
        self.progress, self.started = Progress(), time.perf_counter()
        self.created = datetime.now(UTC).isoformat(timespec="seconds")
        self.closure = Closure()
        self.scales = (0.0, 0)

    def chunks(self) -> Any:
        """The corpus in numbered chunks of windows."""
        reading, k, stride = Reading(), self.config.windows_per_document, self.layout.stride
        stream = documents(self.config, reading.dropped)
        choose = None if k is None else random_windows(self.layout, k)
        limit = self.config.tokens
        tokenized = tokenize(stream, self.model.encode, self.domains, limit, reading, choose, stride)
        yield from chunks(tokenized, self.layout)
        self.dropped += reading.dropped

    def read(self, chunk: Chunk) -> Closure:
        """Run the model on a chunk and feed every accumulator; how well its parts added up."""
        closure = Closure()
        for batch in chunk.batches(self.config.batch_size, self.layout):
            closure = closure.merge(self._read_batch(batch))
        self._write_recorded()
        self._count(chunk)
        self.closure = self.closure.merge(closure)
        return closure

    def _read_batch(self, batch: Batch) -> Closure:
        recorder, model = self.recorder, self.model
        plan = recorder.dense.plan(batch)
        queries = (plan.windows, plan.offsets)
        capture = model.run(batch.tokens, queries)
        targets = batch.targets.to(capture.residual.device)
        stream, scale = attribution.final_norm(capture.residual, model.weights)
        logits = attribution.centred_logit(stream, scale, model.weights, targets)
        shared = recorder.prepare(batch, len(self.domains.names))
        total = torch.zeros_like(logits)
        for part in attribution.by_part(capture, model.weights, model.spec, targets, scale):
            total += part.dla.sum(-1, dtype=torch.float64)
            recorder.add(shared, plan, part)
        recorder.add_attention(batch, plan, capture, model.weights, scale)
        theirs, recorder.dense.outcome[plan.slots] = logits_summary(capture.logits, targets, queries)
        self.store.stage_positions(batch, logits.cpu().numpy(), past_of(batch.tokens, self.marks))
        self._add_scale(scale, batch.ordinary.to(scale.device))
        return self._checked(attribution.closure(total, logits, theirs, batch.valid.to(total.device)))

    def _checked(self, closure: Closure) -> Closure:
        """Refuse to go on where the parts do not add up.

        Raises:
            ModelError: the sum of all DLA, or the final residual stream, does not give the model's logits.
        """
        exact, worst = self.config.dtype == "float64", max(closure.residual, closure.logit_residual)
        limit = CLOSURE_TOLERANCE[self.config.dtype] * max(closure.scale, 1.0)
        if closure.residual <= (1e-8 if exact else limit) and closure.logit_residual <= limit:
            return closure
        raise ModelError(
            f"the parts of {self.config.model!r} do not add up to its logits (off by {worst:.3g} of {closure.scale:.3g}): its "
            f"architecture ({self.model.spec.architecture}) writes to the logits in a way the profiler does not read, such as norms "
            "after a block, capped logits or NaN; numbers would be wrong, so nothing was written"
        )

    def _add_scale(self, scale: torch.Tensor, ordinary: torch.Tensor) -> None:
        """Sum up the final norm's denominator, for the mean that logit effects are stated at."""
        chosen = scale[..., 0][ordinary].double()
        self.scales = (self.scales[0] + chosen.sum().item(), self.scales[1] + len(chosen))

    def _write_recorded(self) -> None:
        """Write what was kept of the components recorded at every position, and forget it."""
        recorded = self.recorder.recorded
        for component in recorded.components:
            values = recorded.activation.pop(component, []), recorded.dla.pop(component, [])
            if recorded.positions:
                self.store.insert("recorded_rows", tables.recorded_rows(component, recorded.positions, *values))
        recorded.positions.clear()

    def _count(self, chunk: Chunk) -> None:
        self.progress.documents += len(chunk.documents)
        self.progress.tokens += sum(len(w.token_ids) for w in chunk.windows) - len(chunk.windows) * (
            self.layout.bos_id is not None
        )
        self.progress.seconds = time.perf_counter() - self.started
        self.dropped += chunk.dropped
        self.dropped["no_positions"] += sum(
            len(d.token_ids) < 2 - (self.layout.bos_id is not None) for d in chunk.documents
        )
        self.dropped["last_tokens"] += sum(d.reads_end(self.layout.stride) for d in chunk.documents)

    def write(self) -> None:
        """Write every accumulator, then the positions and windows they refer to, then the run's own row.

        Raises:
            CorpusError: there was no position to write about.
        """
        if not self.recorder.cells.counts.sum():
            raise CorpusError(
                f"corpus {', '.join(self.config.corpora)} holds no text the model could read: {dict(self.dropped)}"
            )
        self.progress.stage = "writing"
        for table, frames in self._frames().items():
            self.store.insert(table, frames)
        self.store.keep_referenced(tables.dense_outcomes(self.recorder.dense))
        self.store.insert("runs", self._run_row())

    def _frames(self) -> dict[str, Any]:
        r, spec, config = self.recorder, self.model.spec, self.config
        scale = self.scales[0] / max(self.scales[1], 1)
        vocabulary = pl.DataFrame({"token_id": range(len(self.texts)), "token": self.texts, "class_id": self.class_ids})
        return {
            "components": tables.components(spec),
            "classes": tables.classes(),
            "tokens": vocabulary,
            "vocabulary": pl.DataFrame({"tokens": [self.texts]}),
            "domains": pl.DataFrame({"domain_id": range(len(self.domains.names)), "domain": self.domains.names}),
            "replicate_groups": self._groups(),
            "position_buckets": tables.position_buckets(r.cells.axes.n_buckets),
            "bins": tables.bins(),
            "cell_counts": tables.cell_counts(r.cells),
            "cell_sums": tables.cell_sums(r.cells),
            "power_sums": tables.power_sums(r.cells, r.powers, config.replicate_groups),
            "spectrum_counts": tables.spectrum_counts(r.spectrum),
            "density_counts": tables.density_counts(r.spectrum),
            "quantiles": tables.quantiles(r.spectrum),
            "sample_rows": tables.sample_rows(r.samples),
            "extreme_rows": tables.extreme_rows(r.extremes),
            "dense_rows": tables.dense_rows(r.dense),
            "head_attention_rows": tables.head_attention_rows(r.dense, spec),
            "logit_effects": tables.logit_effects(self.model.weights, spec, scale, config.logit_effects),
            "token_counts": tables.token_counts(r.tokens),
            "token_sums": tables.token_sums(r.tokens),
            "drops": self._drops(),
        }

    def _groups(self) -> pl.DataFrame:
        sql = "SELECT group_id, count(*) AS n_documents FROM documents GROUP BY group_id ORDER BY group_id"
        groups = pl.from_arrow(self.store.connection.sql(sql).to_arrow_table())
        return groups.with_columns(domain_id=pl.col("group_id") // self.config.replicate_groups)

    def _special_counts(self) -> dict[str, int]:
        of_class = self.recorder.cells.counts.sum(0)
        return {name: int(of_class[i]) for i, name in enumerate(("bos", "first", "special"))}

    def _drops(self) -> pl.DataFrame:
        counts = dict(self.dropped) | self._special_counts()
        rows = [(reason, counts.get(reason, 0), unit, note) for reason, (unit, note) in DROP_NOTES.items()]
        return pl.DataFrame(rows, schema=["reason", "n", "unit", "note"], orient="row")

    def _run_row(self) -> pl.DataFrame:
        spec, config = self.model.spec, self.config
        special = sum(self._special_counts().values())
        everything = int(self.recorder.cells.counts[:, self.recorder.cells.axes.slices["class"]].sum())
        identity = f"{config.digest()} {spec.weights_hash} {spec.tokenizer_hash}"
        self.progress.seconds = time.perf_counter() - self.started
        row = {
            "run_id": f"{stable_hash(identity) % 2**64:016x}", "created": self.created, "model": config.model, "model_hash": spec.weights_hash,
            "tokenizer_hash": spec.tokenizer_hash, "architecture": spec.architecture, "n_layers": spec.n_layers,
            "n_heads": spec.n_heads, "d_mlp": spec.d_mlp, "d_model": spec.d_model, "n_vocab": spec.n_vocab,
            "config": config.model_copy(update={"context_length": spec.context_length}).model_dump_json(),
            "versions": json.dumps(_versions(config)), "model_card": spec.card,
            "n_documents": self.progress.documents, "n_tokens": self.progress.tokens, "n_positions": everything - special,
            "n_special": special, "seconds": self.progress.seconds, "tokens_per_second": self.progress.tokens / self.progress.seconds,
            "closure_residual": self.closure.residual, "closure_scale": self.closure.scale, "logit_residual": self.closure.logit_residual,
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "complete": True,
        }  # fmt: skip
        return pl.DataFrame([row])


def _versions(config: RunConfig) -> dict[str, str]:
    """Versions of what the numbers depend on."""
    libraries = {name: version(name) for name in LIBRARIES}
    return {
        "profiler": version("generality-profiler"),
        "python": platform.python_version(),
        "device": config.device,
    } | libraries
