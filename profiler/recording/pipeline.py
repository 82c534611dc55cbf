"""The pass. Read this file first: it is the design in code.

    corpus -> windows -> model -> attribution -> recorder (accumulators) -> store

One pass over the corpus, one forward pass per batch (two where a window's values do not fit in a batch's memory:
profiler.recording.batches). The unit of work is a fixed, numbered chunk; a run is the fold of
its chunks (profiler.recording.totals), committed every now and then (profiler.database.pass_commits) and written to its
file at the end. So a pass goes on after any stop, and chunks can be read anywhere, with the same result. Memory is that
of the accumulators and of one batch, claimed at the start; it does not grow with the corpus. Commits are spaced so that
they take 3 % of the time.
"""

import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import torch

from profiler.axes import PerPosition, TokenIds
from profiler.behaviours import additions
from profiler.behaviours.expressions import own_classes
from profiler.config import RunConfig
from profiler.database import connections, faults
from profiler.database.faults import first_line
from profiler.database.pass_commits import RunPart
from profiler.errors import CorpusError, ModelError, RunError
from profiler.model import direct
from profiler.model.described.attached import Described, Rebuild
from profiler.model.described.splice import losses
from profiler.model.direct import Closure, Part
from profiler.model.forward import Capture, Factors, Read, Routed, Wanted
from profiler.model.gradients.in_pass import EffectPass, EffectTotals, with_totals
from profiler.model.load import Model, load_model, with_reader_note
from profiler.model.validation import ROUNDING
from profiler.recording import identity, tables
from profiler.recording.accumulators.dense import DensePlan
from profiler.recording.batches import BatchSizes
from profiler.recording.memory import give_back
from profiler.recording.recorder import Recorder, Shared
from profiler.recording.selection import Selection, sized
from profiler.recording.totals import PassProgress, Totals
from profiler.recording.write import UNPRUNED_POSITIONS, Rows, Store, refuse_bad_place
from profiler.text.context import Marks, past_of
from profiler.text.corpus import check as check_corpora
from profiler.text.corpus import documents
from profiler.text.documents import Cursor, Domains, Reading, tokenize
from profiler.text.shards import Share
from profiler.text.token_classes import encode, special_ids, token_classes, token_offsets, token_texts
from profiler.text.windows import Batch, Chunk, Layout, chunks, random_windows

LIBRARIES = ("torch", "transformers", "transformer_lens", "datasets", "duckdb", "polars", "numpy")
COMMIT_SECONDS, COMMIT_SHARE = 15.0, 0.03


@dataclass
class Pace:
    """When to commit: not before `least` seconds, and so rarely that commits take COMMIT_SHARE of the time."""

    least: float = COMMIT_SECONDS
    last: float = field(default_factory=lambda: time.perf_counter())
    cost: float = 0.0

    def due(self) -> bool:
        """Whether it is time."""
        return time.perf_counter() - self.last >= max(self.least, self.cost / COMMIT_SHARE if self.least else 0.0)

    def time(self, commit: Callable[[], None]) -> None:
        """Commit, and note what it costs."""
        start = time.perf_counter()
        commit()
        self.last = time.perf_counter()
        self.cost = self.last - start


@dataclass(frozen=True)
class Outcome:
    """What a finished pass leaves to say.

    Attributes:
        carried: part of the centred target logit that the recorded components carry (Totals.carried_part).
        before: the run was there already, and --resume had nothing to do.
    """

    path: Path
    bytes: int
    progress: PassProgress
    closure: Closure
    carried: float = 1.0
    before: bool = False


Report = Callable[[PassProgress], None]
Engine = Callable[["Pass"], Iterator[RunPart]]


def record(
    config: RunConfig,
    path: Path,
    *,
    model: Model | None = None,
    overwrite: bool = False,
    resume: bool = False,
    commit_seconds: float = COMMIT_SECONDS,
    engine: Engine | None = None,
    report: Report = lambda _: None,
) -> Outcome:
    """Stream the corpus through the model once and leave a run database at `path`.

    Args:
        config: what to run on what.
        path: the run file; it appears when the pass has ended.
        model: a model already loaded for this `config`, to save loading it.
        resume: go on from the last commit of a pass that was stopped; from the start where there is none.
        commit_seconds: least time between commits; 0 commits after every chunk.
        engine: reads the chunks elsewhere and gives back pieces in order; None reads them here.
        report: called after every chunk.

    Raises:
        ProfilerError: the model, the corpus or the place of the run is not usable, or a stopped pass is another one.
    """
    own = own_classes(config.classes)
    refuse_bad_place(path, overwrite=overwrite, resume=resume)
    if model is None:
        if not (resume and path.exists()):  # nothing is read again for a finished run
            check_corpora(config)
        model = with_reader_note(load_model(config))
    with Store(path, overwrite=overwrite, resume=resume) as store:
        run, pace = Pass(model, config, store, overwrite=overwrite), Pace(commit_seconds)
        if resume and (done := run.resume()):
            return done
        for _ in run.steps(engine):
            report(run.progress)
            if pace.due():
                pace.time(run.commit)
        run.write()
        report(run.progress)
        size = store.finish(own)
    return Outcome(path, size, run.progress, run.totals.closure, run.totals.carried_part)


class Pass:
    """One pass over a corpus: what reads it, and what it has added up."""

    def __init__(self, model: Model, config: RunConfig, store: Store | Rows, *, overwrite: bool = False):
        config = sized(config, model.spec)
        self.model, self.config, self.store, self.overwrite = model, config, store, overwrite
        self.texts = token_texts(model.tokenizer, model.spec.n_vocab)
        self.class_ids = token_classes(self.texts, special_ids(model.tokenizer))
        self.layout = Layout(
            model.spec.context_length, model.bos_id, torch.tensor(self.class_ids), config.seed, config.replicate_groups
        )
        self.marks = Marks.of(self.texts)
        self.identity = identity.of_config(config, model.spec)
        self.sizes = BatchSizes.of(config, model.spec)
        self.totals = _claimed(model, config)
        self.effects = (
            EffectPass(model, is_frozen=config.effect_method == "frozen") if config.effects == "total" else None
        )
        self.started, self.before = time.perf_counter(), 0.0

    @property
    def run_file(self) -> Store:
        """Where the run is written; a worker has none."""
        assert isinstance(self.store, Store)
        return self.store

    @property
    def recorder(self) -> Recorder:
        """All accumulators."""
        return self.totals.recorder

    @property
    def progress(self) -> PassProgress:
        """How far the pass is, with the time it has taken, stops not counted."""
        return replace(self.totals.progress, seconds=self.before + time.perf_counter() - self.started)

    def resume(self) -> Outcome | None:
        """Resume from the last commit; return the existing outcome if finished.

        Raises:
            RunError: what is there is of another pass; the difference is named.
        """
        partial = self.run_file.partial
        facts = partial.manifest.facts if partial.manifest else {}
        finished = None if self.overwrite or facts.get("overwrite") else _finished(self.run_file.path, self.identity)
        if partial.manifest is None:
            return finished
        _same(self.identity, partial.manifest.identity, f"the pass stopped in {partial.folder}")
        self.totals.restore(facts, partial.state())
        self.overwrite, self.before = facts["overwrite"], facts["seconds"]
        return None

    def commit(self) -> None:
        """Make everything read so far lasting; in the memory that reading leaves, so that a long pass needs no more."""
        give_back()
        facts = self.totals.facts() | {"seconds": self.progress.seconds, "overwrite": self.overwrite}
        self.run_file.commit(self.identity, facts, self.totals.arrays(), self.totals.referred())
        give_back()

    def steps(self, engine: Engine | None = None) -> Iterator[None]:
        """Read chunk after chunk, here or by an engine, from where the pass stands."""
        if self.totals.cursor.done:
            return
        for _ in map(self.read, self.chunks()) if engine is None else map(self.take, engine(self)):
            if self.store.staged > UNPRUNED_POSITIONS:
                self.store.prune(self.totals.referred())
            yield

    def chunks(self) -> Iterator[Chunk]:
        """The corpus in numbered chunks of windows, those left to read; ends by noting what came after the last."""
        reading = Reading(expected=self.totals.cursor.passed)
        yield from corpus_chunks(
            self.config, self.model.tokenizer, self.layout, self.totals.domains, reading, self.totals.cursor
        )
        self.totals.end(reading.dropped, reading.passed)

    def read(self, chunk: Chunk) -> Closure:
        """Run the model on a chunk and feed every accumulator; return how well its parts added up.

        What earlier chunks and the tokenizer have left is given back first, so that no chunk needs more memory than
        another.
        """
        give_back()
        closure = Closure()
        for batch in chunk.batches(self.sizes.fitting, self.layout):
            closure = closure.merge(self._read_batch(batch))
        for component, *values in self.totals.recorder.take_recorded():
            self.store.hold("recorded_rows", tables.recorded_rows(component, *values))
        self.store.add_chunk(chunk, closure)
        self.totals.count(chunk, closure, self.layout)
        return closure

    def take(self, piece: RunPart) -> None:
        """Add what was read elsewhere."""
        other = Totals(self.model.spec, self.config)
        other.restore(piece.facts, piece.state)
        self.totals.merge(other)
        for table, rows in piece.rows.items():
            self.store.hold(table, rows)

    def _read_batch(self, batch: Batch) -> Closure:
        recorder, model = self.totals.recorder, self.model
        plan = recorder.dense.plan(batch)
        wanted = recorder.wanted(batch, plan, model.weights.wiring)
        held = self.sizes.holds(batch.tokens.numel())
        capture, totals = self._run(batch, wanted if held else replace(wanted, take=let_go))
        targets = batch.targets.to(capture.residual.device)
        stream, scale = direct.final_norm(capture, model.weights)
        logits = direct.centred_logit(stream, scale, model.weights, targets)
        shared = recorder.prepare(batch, plan, len(self.totals.domains.names))
        sums = PartSums(recorder, shared, torch.zeros_like(logits), torch.zeros_like(logits))
        if held:
            self._add_held(capture, targets, plan, sums, totals)
        else:
            self._add_block_by_block(batch, capture, targets, plan, sums)
        if model.described is not None:
            self._describe(model.described, batch, capture, shared)
        self.totals.add_carried(sums.carried, logits, batch.valid.to(logits.device))
        theirs, outcomes = capture.logits[:, 0], capture.logits[:, 1:]
        recorder.add_outcomes(plan, outcomes[: len(plan.slots)])
        past = past_of(batch.tokens, self.marks, batch.windows, bos=self.layout.bos_id is not None)
        self.store.stage_positions(batch, logits.cpu().numpy(), past)
        self.totals.add_scale(scale, direct.block_denominators(capture, model.weights), batch.ordinary.to(scale.device))
        ends = (
            theirs[len(plan.slots) :],
            batch.ends,
        )  # not at planned positions: which those are depends on what came before
        return self._checked(direct.closure(sums.total, logits, batch.valid.to(logits.device), *ends))

    def _add_held(
        self, capture: Capture, targets: TokenIds, plan: DensePlan, sums: "PartSums", totals: EffectTotals
    ) -> None:
        """Feed the accumulators from a pass that holds what all writers read."""
        recorder, weights, spec = self.totals.recorder, self.model.weights, self.model.spec
        for part in with_totals(direct.by_part(capture, weights, spec, targets), totals, spec.slices):
            sums.add(part)
        for block in capture.attention:
            recorder.add_attention(plan, block, capture.units[block], capture, weights)

    def _add_block_by_block(
        self, batch: Batch, capture: Capture, targets: TokenIds, plan: DensePlan, sums: "PartSums"
    ) -> None:
        """Feed the accumulators from a second forward pass, from each writer as soon as it has read its values.

        Args:
            capture: what the first pass left: denominators, embeddings and attention.
        """
        recorder, weights, routed = self.totals.recorder, self.model.weights, dict[str, Routed]()
        attribution = direct.Attribution.of(capture, weights, self.model.spec, targets)

        def take(site: str, read: Read, factors: Factors | None) -> None:
            with torch.inference_mode(mode=False):  # what accumulators allocate here is written outside of the pass too
                for part in attribution.at(site, read, factors):
                    sums.add(part)
                if isinstance(read, Routed):
                    routed[site] = read.choices
                elif (block := weights.blocks_at[site][0]) in capture.attention:
                    recorder.add_attention(plan, block, read, capture, weights)

        self.model.run(batch.tokens, Wanted(take=take))
        sums.add(attribution.constants(capture, routed))

    def _run(self, batch: Batch, wanted: Wanted) -> tuple[Capture, EffectTotals]:
        """One pass over a batch, with the total effects of its units where they are recorded."""
        if self.effects is None:
            return self.model.run(batch.tokens, wanted), {}
        return self.effects.run(batch, wanted)

    def _describe(self, described: Described, batch: Batch, capture: Capture, shared: Shared) -> None:
        """Feed the accumulators from the dictionaries' units, and measure how well they reconstruct."""
        recorder, model = self.totals.recorder, self.model
        targets, rebuilds = batch.targets.to(capture.residual.device), list[Rebuild]()
        entering = recorder.fidelity.entering(batch)
        for part, rebuild in described.parts(capture.sites, capture.scales, model.spec, targets):
            if (own := recorder.chosen.part(part)) is not None:
                recorder.add(shared, own)
            if rebuild is not None:
                recorder.add_rebuilt(len(rebuilds), shared, rebuild)
                rebuilds.append(rebuild.at(entering))
        recorder.fidelity.n += len(shared.ordinary)
        if len(entering):
            tokens, after, ordinary = (table[entering] for table in (batch.tokens, batch.targets, batch.ordinary))
            lost = losses(model, tokens, after, ordinary, rebuilds)
            recorder.fidelity.take(batch.keys[entering, 0], batch.ordinary[entering].sum(1), lost)

    def _checked(self, closure: Closure) -> Closure:
        """Refuse to go on where the parts do not add up.

        Raises:
            ModelError: the sum of all DLA, or the final residual stream, does not give the model's logits.
        """
        worst = torch.tensor(closure.values()[:2]).max().item()  # a NaN stays
        if worst <= ROUNDING[self.model.weights.unembed.dtype] * max(closure.scale, 1.0):
            return closure
        raise ModelError(
            f"the parts of {self.config.model!r} do not add up to its logits (off by {worst:.3g} of"
            f" {closure.scale:.3g}): its architecture ({self.model.spec.architecture}) writes to the logits in a way"
            " that is not read on this text, or computes NaN; numbers would be wrong, so the pass ends here"
        )

    def write(self) -> None:
        """Commit the last chunks, then write every table from what is committed.

        Raises:
            CorpusError: there was no position to write about; what was committed is forgotten.
        """
        if not self.totals.recorder.seen:
            self.run_file.partial.clear()  # going on would end here again
            part = f" in shard {self.config.shard}" if self.config.shard else ""
            raise CorpusError(
                f"corpus {', '.join(self.config.corpora)} holds no position{part}: no token, special ones left out,"
                f" that has one after it to predict ({self.totals.documents_read()}); give longer documents, or raise"
                " --tokens"
            )
        self.totals.progress.stage = "writing"
        self.commit()
        self.totals.progress = self.progress
        self.totals.write(self.run_file, self._of_model(), _versions(self.config))

    def _of_model(self) -> dict[str, Any]:
        """The tables that follow from the model alone."""
        spec = self.model.spec
        vocabulary = pl.DataFrame({"token_id": range(len(self.texts)), "token": self.texts, "class_id": self.class_ids})
        return {
            "components": tables.components(spec, self.totals.recorder.chosen.ids),
            "classes": tables.classes(),
            "tokens": vocabulary,
            "vocabulary": pl.DataFrame({"tokens": [self.texts]}),
            "position_buckets": tables.position_buckets(self.totals.recorder.cells.axes.n_buckets),
            "bins": tables.bins(),
            "logit_effects": self._logit_effects(),
        }

    def _logit_effects(self) -> Iterator[pl.DataFrame]:
        """Table `logit_effects`, units of dictionaries last."""
        chosen, scales, k = self.totals.recorder.chosen, self.totals.effect_scales, self.config.logit_effects
        yield from tables.logit_effects(self.model.weights, chosen, scales, k)
        if self.model.described is not None:
            yield from tables.described_effects(self.model.described, chosen, scales, k)


def let_go(_site: str, _read: Read, _factors: Factors | None) -> None:
    """What is done with what a writer read in a pass that is for denominators alone."""


@dataclass(frozen=True, eq=False)
class PartSums:
    """Where the parts of a batch go: the recorder, and float64 sums of DLA at each position.

    Attributes:
        total: of all components.
        own: of those that are recorded, where not all are.
    """

    recorder: Recorder
    shared: Shared
    total: PerPosition
    own: PerPosition

    def add(self, part: Part) -> None:
        """Take a part."""
        direct.add_up(self.total, part)
        chosen = self.recorder.chosen
        if (recorded := chosen.part(part)) is not None:
            self.recorder.add(self.shared, recorded)
            if not chosen.all_of_the_model:
                direct.add_up(self.own, recorded)

    @property
    def carried(self) -> PerPosition:
        """The sum of DLA of the recorded components."""
        return self.total if self.recorder.chosen.all_of_the_model else self.own


def _claimed(model: Model, config: RunConfig) -> Totals:
    """Empty totals in memory of their own.

    Raises:
        ModelError: they do not fit.
    """
    try:
        totals = Totals(model.spec, config)
        totals.claim()
    except (MemoryError, RuntimeError) as error:  # torch raises the second where memory does not reach
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise ModelError(
            f"the statistics of {len(Selection.of(model.spec, config).ids):,} components do not fit in memory"
            f" ({first_line(error)}): record fewer with --layers, --kinds or --select, lower --samples, --extremes,"
            " --dense-positions or --replicate-groups, or --token-sums none"
        ) from None
    return totals


def corpus_chunks(
    config: RunConfig, tokenizer: Any, layout: Layout, domains: Domains, reading: Reading, cursor: Cursor
) -> Iterator[Chunk]:
    """The chunks of the run's share of the corpus that come after `cursor`; no model is needed.

    Raises:
        CorpusError: the corpus cannot be read, or what `reading` expects was not passed.
    """
    stream, k = documents(config, reading.dropped, tokenizer), config.windows_per_document
    choose = None if k is None else random_windows(layout, k)
    share = Share.parse(config.shard)
    tokenized = tokenize(
        stream,
        partial(encode, tokenizer),
        domains,
        config.tokens,
        reading,
        choose,
        layout.stride,
        share,
        cursor,
        partial(token_offsets, tokenizer),
    )
    yield from chunks(tokenized, layout, after=cursor.chunk)
    reading.check()


def _same(mine: identity.Identity, theirs: identity.Identity, what: str) -> None:
    """Refuse to go on with another pass.

    Raises:
        RunError: a setting, the weights, the tokenizer or the version differ.
    """
    if differing := identity.differences(mine, theirs):
        raise RunError(
            f"{what} is another one: {'; '.join(differing)}. Give the command it was begun with, or choose another"
            " --out, or begin anew with --overwrite"
        )


def _finished(path: Path, mine: identity.Identity) -> Outcome | None:
    """The run at `path`, where there is one.

    Raises:
        RunError: it is no run, or one of other settings.
    """
    if not path.exists():
        return None
    try:
        with connections.reading(path) as connection:
            (row,) = pl.DataFrame(connection.sql("FROM runs").to_arrow_table()).to_dicts()
        theirs = identity.of_run(row)
    except faults.FAULTS as error:
        raise faults.fault_error(error, f"reading {path}", "It is as it was.") from None
    except (duckdb.Error, ValueError, KeyError) as error:
        raise RunError(f"{path} exists and is no run that could go on ({error}): choose another --out") from None
    _same(mine, theirs, f"the run in {path}")
    additions.complete(path)
    progress = PassProgress(row["n_tokens"], row["n_documents"], row["seconds"])
    closure = Closure(row["n_positions"], row["closure_residual"], row["logit_residual"], row["closure_scale"])
    carried = row["recorded_logit_sum"] / (row["squared_logit_sum"] or 1.0)
    return Outcome(path, path.stat().st_size, progress, closure, carried, before=True)


def _versions(config: RunConfig) -> dict[str, str]:
    """Versions of what the numbers depend on."""
    libraries = {name: version(name) for name in LIBRARIES}
    return {
        "profiler": version("generality-profiler"),
        "python": platform.python_version(),
        "device": config.device,
    } | libraries
