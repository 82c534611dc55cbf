"""What a pass will take, before it starts: bytes of the run file, memory, and time.

Rows and bytes follow from the settings: a component's values are taken to fill the logarithmic bins as normal values
do. Time is rates times amounts. The rates are measured at the start, on this machine and this model (`trial`): reading
a token (forward pass and attribution), the statistics of a value, a position whose logits are summarised, the logit
effects of a neuron, writing a row, committing a byte. No constant of a machine stands here.

A disk budget is met by lowering sampled rows: samples per stratum, then dense positions, then extremes; a memory limit
by less memory for a batch (profiler.recording.batches). Statistics are never dropped. Bytes per row are those of
finished runs (DuckDB compresses ids well and floats hardly).
"""

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import torch

from profiler.config import RunConfig
from profiler.database import arrays, connections
from profiler.database.pass_commits import flush
from profiler.errors import RunError
from profiler.model.components import Block, ModelSpec
from profiler.model.direct import by_part, logits_summary
from profiler.model.forward import Capture, Wanted
from profiler.model.gradients.in_pass import EffectPass, EffectTotals, with_totals
from profiler.model.load import DEFAULT_CONTEXT, Model
from profiler.recording import tables
from profiler.recording.accumulators import state
from profiler.recording.accumulators.bins import DENSITY, SPECTRUM, Resolution
from profiler.recording.accumulators.cells import Axes
from profiler.recording.accumulators.spectrum import LEAST_ROOM, ROOM, counting_type
from profiler.recording.batches import NUMBER, BatchSizes
from profiler.recording.memory import resident, usable
from profiler.recording.recorder import Recorder, token_sum_rows
from profiler.recording.selection import Selection, sized
from profiler.recording.totals import LEAST_WRITING
from profiler.statistics import normal_shares
from profiler.text.corpus import is_stdlib
from profiler.text.documents import TokenizedDocument
from profiler.text.token_classes import CLASSES
from profiler.text.windows import Batch, Layout, Window, make_batch, windows_of

BYTES_PER_ROW = {
    "cell_sums": 12.5,
    "power_sums": 108,
    "spectrum_counts": 11.4,
    "density_counts": 4,
    "quantiles": 22,
    "samples": 14,
    "extremes": 14,
    "dense": 14,
    "head_attention": 52,
    "logit_effects": 14,
    "windows": 4,
    "positions": 20,
    "recorded": 14,
    "token_sums": 28,
    "total_sums": 40,
    "totals": 4,
}
CLASSES_IN_USE, CLASSES_SEEN, CELLS_IN_USE = 12, 18, 0.8
"""Token classes of text, as if they were equally common, and those that occur; the share of cells that a group of
documents has."""
DOCUMENT_TOKENS = 2_000  # of a document whose length is not known
EXPECTED_DOMAINS = 3
QUANTILE_ROWS, EXTREME_KINDS = 11, 4
FIXED_BYTES = 8_600_000
FILE_OVERHEAD = 1.12  # blocks that are free or not full, and what is derived from the rows
UNKNOWN_TOKENS = 1_000_000
WARM_UP, TRIAL_TOKENS, TRIAL_OUTCOMES, TRIAL_VOCABULARY = 32, 1024, 256, 8192
TRIAL_ROWS, TRIAL_BYTES = 2**17, 2**24
TRIAL_SECONDS, LEAST_SECONDS = 2.0, 1e-6  # of a trial batch
ROW_WORK = 2.0
"""Work for a row of the run file, relative to that of writing it once: it is made, written, and read again for what is
derived from it."""
FIXED_ROWS = 5_000_000
"""Work that does not grow with the rows (views, behaviours, comments), as rows."""
EFFECT_COPIES = 4  # tables alive at once, of logit effects
LIBRARIES_BYTES = 200_000_000
"""Memory of compiled code, of the texts of the vocabulary and of DuckDB, whatever the model: measured."""
DUCKDB_SHARE = 2  # DuckDB may hold half as much as the accumulators while it writes (`Totals.write`)
LEAST_MEMORY = 2**20  # of a batch, beyond which it is not lowered


@dataclass(frozen=True)
class Rates:
    """Seconds of a unit of work, measured here.

    Attributes:
        token: forward pass and attribution of a token.
        forward: the forward pass of a token alone.
        described: a token's encoders and decoders of dictionaries, and the attribution of their units.
        value: the statistics of a component's value at a token.
        outcome: a position whose logits are summarised.
        effect: the logit effects of a neuron.
        row: a row of the run file.
        byte: a byte of the accumulators, claimed and committed.
    """

    token: float = 0.0
    forward: float = 0.0
    value: float = 0.0
    outcome: float = 0.0
    effect: float = 0.0
    row: float = 0.0
    byte: float = 0.0
    described: float = 0.0


@dataclass(frozen=True)
class BatchForecast:
    """A batch of the longest windows.

    Attributes:
        windows: how many.
        width: tokens of each.
        bytes: memory.
        held: whether the values of all blocks are held; if not, they leave a second forward pass one block at a time.
    """

    windows: int
    width: int
    bytes: int
    held: bool

    @property
    def sentence(self) -> str:
        """It in words."""
        windows = f"{self.windows:,} windows" if self.windows > 1 else "a window"
        said = f"a batch is {windows} of {self.width:,} tokens and takes {self.bytes / 1e9:,.2f} GB of memory"
        return said if self.held else f"{said}, a block at a time, in a second forward pass (see --batch-memory)"


@dataclass(frozen=True)
class Forecast:
    """What a pass takes, by part.

    Attributes:
        parts: bytes of the run file by table.
        time: seconds by stage.
        memory_parts: bytes of memory at the peak: what the process holds before, libraries, accumulators, and the
            larger of a batch and the writing.
        batch: how the longest windows are read.
        token_memory: bytes of memory that sums per token take during the pass, exactly.
        lowered: what a disk budget or a memory limit lowered.
    """

    parts: dict[str, int]
    time: dict[str, float]
    memory_parts: dict[str, int]
    batch: BatchForecast
    token_memory: int = 0
    lowered: tuple[str, ...] = field(default=())

    @property
    def bytes(self) -> int:
        """Size of the run file."""
        return FIXED_BYTES + int(sum(self.parts.values()) * FILE_OVERHEAD)

    @property
    def seconds(self) -> float:
        """Time of the pass, loading the model and reading the corpus left out."""
        return sum(self.time.values())

    @property
    def memory(self) -> int:
        """Largest resident size of the process."""
        return sum(self.memory_parts.values())


def forecast(config: RunConfig, spec: ModelSpec, rates: Rates = Rates(), in_use: int = 0) -> Forecast:
    """The forecast for one configuration.

    Args:
        rates: as measured by `trial`.
        in_use: bytes that the process holds before the pass.
    """
    config, chosen = sized(config, spec), Selection.of(spec, config)
    rows = _rows(config, chosen)
    held_state, batch = state_bytes(config, spec), _batch(config, spec)
    buffers = min(_file_bytes(config, spec), max(LEAST_WRITING, held_state // DUCKDB_SHARE))
    writing = max(_effect_bytes(config, spec), buffers)
    tokens, outcomes = config.tokens or UNKNOWN_TOKENS, _planned(config)
    return Forecast(
        {name: int(count * BYTES_PER_ROW[name]) for name, count in rows.items()},
        {
            "reading": tokens * (rates.token + rates.value * len(chosen.ids)) + outcomes * rates.outcome,
            "second forward pass": 0.0 if batch.held else tokens * rates.forward,
            "dictionaries": tokens * rates.described,
            "logit effects": _with_effects(chosen) * rates.effect if config.logit_effects else 0.0,
            "committing": held_state * rates.byte,
            "writing": (FIXED_ROWS + sum(rows.values())) * rates.row,
        },
        {
            "before": in_use,
            "libraries": LIBRARIES_BYTES,
            "accumulators": held_state,
            "batch or writing": max(batch.bytes, writing),
        },
        batch,
        token_memory=spec.n_vocab * len(token_sum_rows(chosen, config)) * 24,
    )


def _rows(config: RunConfig, chosen: Selection) -> dict[str, float]:
    """Rows of the run file by table."""
    spec, n, tokens = chosen.spec, len(chosen.ids), config.tokens or UNKNOWN_TOKENS
    domains, groups = _domains(config), _groups(config)
    dense = min(config.dense_positions or 0, tokens)
    sampled = n * _kept(SPECTRUM, tokens, config.samples_per_stratum or 0)
    extremes = n * EXTREME_KINDS * min(config.extremes, tokens)
    referred = min(tokens, sampled + extremes + dense)
    has_totals = config.effects == "total"
    return {
        "cell_sums": n * Axes.for_context(spec.context_length).n_cells * groups * CELLS_IN_USE,
        "power_sums": n * CLASSES_SEEN * domains,
        "spectrum_counts": n * CLASSES_IN_USE * _occupied(SPECTRUM, tokens / CLASSES_IN_USE),
        "density_counts": n * _occupied(DENSITY, tokens),
        "quantiles": n * QUANTILE_ROWS,
        "samples": sampled,
        "extremes": extremes,
        "dense": n * dense,
        "head_attention": chosen.count("head") * dense,
        "logit_effects": _with_effects(chosen) * len(tables.SIDES) * config.logit_effects,
        "positions": referred,
        "windows": min(tokens, referred * spec.context_length),
        "recorded": tokens * len(config.components),
        "token_sums": min(tokens, spec.n_vocab) * len(token_sum_rows(chosen, config)),
        "total_sums": n * groups * has_totals,
        "totals": n * dense * has_totals,
    }


def _with_effects(chosen: Selection) -> int:
    """Recorded units that have logit effects."""
    return sum(chosen.count(kind) for kind in ("neuron", "feature", "direction"))


def _domains(config: RunConfig) -> int:
    """Domains that the corpora are taken to have: each is one, but where it says of each document which."""
    if config.domain_field is None:
        return sum(EXPECTED_DOMAINS if is_stdlib(corpus) else 1 for corpus in config.corpora)
    return max(EXPECTED_DOMAINS, len(config.corpora))


def _groups(config: RunConfig) -> float:
    """Replicate groups that have a document, of all domains."""
    groups, tokens = _domains(config) * config.replicate_groups, config.tokens or UNKNOWN_TOKENS
    windows = config.windows_per_document
    length = DOCUMENT_TOKENS if windows is None else windows * (config.context_length or DEFAULT_CONTEXT)
    documents = max(1.0, tokens / length)
    return groups * -float(np.expm1(-documents / groups))


def _occupied(resolution: Resolution, n: int | float) -> float:
    """Bins that `n` normal values are expected to fall in."""
    return float(-np.expm1(-n * normal_shares(resolution.edges())).sum())


def _kept(resolution: Resolution, n: int | float, k: int) -> float:
    """Values that are kept of `n` normal ones, `k` of a bin at most."""
    return float(np.minimum(k, n * normal_shares(resolution.edges())).sum())


def _planned(config: RunConfig) -> float:
    """Positions whose logits are summarised: those that enter the uniform sample, of which later ones push some out."""
    k, tokens = config.dense_positions or 0, config.tokens or UNKNOWN_TOKENS
    return min(float(tokens), k * (1 + float(np.log(max(tokens / k, 1.0))))) if k else 0.0


def state_bytes(config: RunConfig, spec: ModelSpec) -> int:
    """Bytes of the accumulators once every domain has been seen; nothing is allocated."""
    recorder = Recorder(spec, config.model_copy(update={"device": "meta"}), spec.context_length)
    domains = _domains(config)
    recorder.cells.grow(domains * config.replicate_groups)
    recorder.powers.grow(domains)
    return state.n_bytes(recorder.accumulators()) + int(len(recorder.chosen.ids) * _bins_bytes(config))


def _bins_bytes(config: RunConfig) -> float:
    """Bytes of a component's filled cells of the spectrum, and of the room beside them."""
    filled = CLASSES_IN_USE * _occupied(SPECTRUM, (config.tokens or UNKNOWN_TOKENS) / CLASSES_IN_USE)
    cell = NUMBER // 2 + counting_type(config.tokens).itemsize + 2 * 8
    return (filled * (1 + 1 / (2 * ROOM)) + LEAST_ROOM) * cell


def _batch(config: RunConfig, spec: ModelSpec) -> BatchForecast:
    """A batch of the longest windows that there can be."""
    sizes, width = BatchSizes.of(config, spec), min(spec.context_length, config.tokens or spec.context_length)
    windows = min(sizes.fitting(width), max(1, (config.tokens or UNKNOWN_TOKENS) // width))
    held = sizes.holds(windows * width)
    return BatchForecast(windows, width, sizes.bytes_of(windows, width), held)


def _effect_bytes(config: RunConfig, spec: ModelSpec) -> int:
    """Bytes of memory that the logit effects take while they are written."""
    if not config.logit_effects or not spec.d_mlp:
        return 0
    tokens = min(tables.EFFECT_TOKENS, spec.n_vocab)
    return EFFECT_COPIES * tokens * (min(tables.EFFECT_ROWS, spec.d_mlp) + spec.d_model) * NUMBER


def within_budget(config: RunConfig, spec: ModelSpec) -> tuple[RunConfig, tuple[str, ...]]:
    """The configuration with sampled rows lowered until the disk budget is met, and what was lowered.

    Raises:
        RunError: the statistics alone are larger than the budget.
    """
    budget, config = config.disk_budget, sized(config, spec)
    if budget is None:
        return config, ()
    start = config
    for name, least in (("samples_per_stratum", 1), ("dense_positions", 64), ("extremes", 1)):
        while _file_bytes(config, spec) > budget and getattr(config, name) > least:
            config = config.model_copy(update={name: max(least, getattr(config, name) // 2)})
    if _file_bytes(config, spec) > budget:
        raise RunError(
            f"--disk-budget {budget:,} bytes is too small: statistics of {_n_recorded(config, spec):,} components"
            f" alone need about {_file_bytes(config, spec):,} bytes; raise the budget, record fewer components with"
            " --layers, --kinds or --select, or lower --replicate-groups"
        )
    fields = ("samples_per_stratum", "dense_positions", "extremes")
    return config, tuple(
        f"{f} {getattr(start, f)} -> {getattr(config, f)}" for f in fields if getattr(start, f) != getattr(config, f)
    )


def _file_bytes(config: RunConfig, spec: ModelSpec) -> int:
    rows = _rows(config, Selection.of(spec, config))
    return FIXED_BYTES + int(sum(count * BYTES_PER_ROW[name] for name, count in rows.items()) * FILE_OVERHEAD)


def within_memory(
    config: RunConfig, spec: ModelSpec, in_use: int | None = None, free: int | None = None
) -> tuple[RunConfig, tuple[str, ...]]:
    """The configuration with a batch that fits into memory, and what was lowered.

    The limit is `--memory-limit`, or else what the system can give this process, on the device of the pass. The memory
    of a batch is halved until all fits, or until a batch is a window whose blocks are read one at a time.

    Args:
        in_use: bytes that the process holds; None asks the system.
        free: bytes that it may hold in all where no limit is given; None asks the system.

    Raises:
        RunError: a window does not fit into --batch-memory, or it and the accumulators not into memory.
    """
    in_use = resident(config.device) if in_use is None else in_use
    limit = config.memory_limit or (in_use + usable(config.device) if free is None else free)
    config = sized(config, spec)
    _refuse_small_batch(config, spec)
    start = ahead = forecast(config, spec, in_use=in_use)
    before = memory = BatchSizes.of(config, spec).budget
    while ahead.memory > limit and memory > LEAST_MEMORY and _can_be_lowered(ahead):
        memory //= 2
        config = config.model_copy(update={"batch_memory": memory})
        ahead = forecast(config, spec, in_use=in_use)
    exact = in_use + ahead.memory_parts["accumulators"]
    if (ahead.memory if config.memory_limit else exact) > limit:
        parts = ", ".join(f"{name} {_gigabytes(size)}" for name, size in ahead.memory_parts.items())
        whose = "--memory-limit" if config.memory_limit else "this machine's memory"
        raise RunError(
            f"{whose} {_gigabytes(limit)} is too small for {_n_recorded(config, spec):,} components: the pass needs"
            f" about {_gigabytes(ahead.memory)} ({parts}); raise it, record fewer components with --layers, --kinds or"
            " --select, or lower --dense-positions, --samples, --extremes, --replicate-groups or --context-length, or"
            " give --token-sums none or a narrower --dtype"
        )
    return config, () if ahead is start else (f"batch_memory {before:,} -> {memory:,} bytes: {ahead.batch.sentence}",)


def _can_be_lowered(ahead: Forecast) -> bool:
    """Whether less memory for a batch is less memory for the pass."""
    batch = ahead.batch
    return batch.bytes == ahead.memory_parts["batch or writing"] and (batch.windows > 1 or batch.held)


def _refuse_small_batch(config: RunConfig, spec: ModelSpec) -> None:
    """Refuse a batch's memory that is asked for and that no window fits into, however it is read.

    Raises:
        RunError: naming the least.
    """
    ahead = _batch(config, spec)
    if config.batch_memory is not None and ahead.bytes > config.batch_memory:
        how = "" if ahead.held else ", read a block at a time"
        raise RunError(
            f"--batch-memory {_gigabytes(config.batch_memory)} is too small: a window of {ahead.width:,} tokens needs"
            f" {_gigabytes(ahead.bytes)}{how}; raise it, or lower --context-length or --dense-positions"
        )


def _n_recorded(config: RunConfig, spec: ModelSpec) -> int:
    return len(Selection.of(spec, config).ids)


def _gigabytes(n: int) -> str:
    return f"{n / 1e9:,.2f} GB"


def trial(
    model: Model, config: RunConfig, folder: Path | None = None, clock: Callable[[], float] = time.perf_counter
) -> Rates:
    """Rates of every kind of work of a pass, each measured once on a little of it, after a warm-up.

    Args:
        folder: where the run is written; None takes the system's folder for temporary files.
        clock: seconds.
    """
    read = _Trial(model, config, clock)
    read.batch(WARM_UP)  # compiles, and fills caches
    start = clock()
    read.batch(WARM_UP)
    fitting = int(WARM_UP * TRIAL_SECONDS / max(clock() - start, LEAST_SECONDS))
    size = min(TRIAL_TOKENS, max(WARM_UP, fitting))
    token, forward, value = map(min, zip(read.batch(size), read.batch(size), strict=True))
    with TemporaryDirectory(dir=folder) as name:
        row = ROW_WORK * _row_seconds(Path(name), clock)
        byte = _byte_seconds(Path(name), clock)
    return Rates(token, forward, value, read.outcome(), read.effect(), row, byte, read.described(size))


class _Trial:
    """Small pieces of a pass, timed."""

    def __init__(self, model: Model, config: RunConfig, clock: Callable[[], float]):
        self.model, self.clock = model, clock
        spec = model.spec
        samples = sized(config, spec).samples_per_stratum
        self.block: Block = max(spec.blocks, key=lambda block: block.units)
        self.spec = replace(spec, blocks=(self.block,), dictionaries=())
        everything = {"components": (), "layers": None, "kinds": (), "select": (), "features": None}
        sizes = {"token_sums": "none", "dense_positions": 0, "samples_per_stratum": samples}
        self.config = config.model_copy(update=everything | sizes)
        ordinary = torch.tensor([number for number, token_class in enumerate(CLASSES) if not token_class.special])
        classes = ordinary[torch.arange(spec.n_vocab) % len(ordinary)]
        self.layout = Layout(spec.context_length, None, classes, config.seed, config.replicate_groups)
        self.recorder = Recorder(self.spec, self.config, spec.context_length)
        frozen = config.effect_method == "frozen"
        self.effects = EffectPass(model, is_frozen=frozen) if config.effects == "total" else None
        self.vocabulary = min(TRIAL_VOCABULARY, spec.n_vocab)
        self.part_of_vocabulary = self.vocabulary / spec.n_vocab

    @torch.no_grad()
    def batch(self, tokens: int) -> tuple[float, float, float]:
        """Seconds of a token, of its forward pass alone, and of a component's value at a token, of a batch of about
        that many tokens."""
        width = min(tokens, self.model.spec.context_length)
        batch = make_batch([self._window(n, width) for n in range(tokens // width)], self.layout)
        shared = self.recorder.prepare(batch, self.recorder.dense.plan(batch), 1)
        slices, parts = self.model.spec.slices, []
        mine = slices[self.block]
        start = self.clock()
        capture, totals = self._run(batch)
        forward = self.clock()
        targets = batch.targets.to(capture.residual.device)
        for part in with_totals(by_part(capture, self.model.weights, self.model.spec, targets), totals, slices):
            parts += [part] if part.components == mine else []
        middle = self.clock()
        self.recorder.add(shared, replace(parts[0], components=self.spec.slices[self.block]))
        end = self.clock()
        n = batch.tokens.numel()
        return (middle - start) / n, (forward - start) / n, (end - middle) / (n * self.block.units)

    def _run(self, batch: Batch) -> tuple[Capture, EffectTotals]:
        """One pass over a batch, as a pass runs it."""
        if self.effects is None:
            return self.model.run(batch.tokens, Wanted()), {}
        return self.effects.run(batch, Wanted())

    @torch.inference_mode()
    def described(self, tokens: int) -> float:
        """Seconds of a token's dictionaries: encoders, decoders and attribution of their units."""
        if self.model.described is None:
            return 0.0
        width = min(tokens, self.model.spec.context_length)
        batch = make_batch([self._window(n, width) for n in range(tokens // width)], self.layout)
        capture = self.model.run(batch.tokens, Wanted())
        start = self.clock()
        targets = batch.targets.to(capture.residual.device)
        for _ in self.model.described.parts(capture.sites, capture.scales, self.model.spec, targets):
            pass
        return (self.clock() - start) / batch.tokens.numel()

    def _window(self, number: int, width: int) -> Window:
        """A window of random tokens, in a document of its own."""
        ids = np.random.default_rng(number).integers(0, self.model.spec.n_vocab, width)
        group = number % self.config.replicate_groups
        (window,) = windows_of(TokenizedDocument(number, 0, "", "", str(number), group, ids, 0), self.layout)
        return window

    @torch.inference_mode()
    def outcome(self) -> float:
        """Seconds of a position whose logits are summarised: the unembedding and what is made of it."""
        rows = self.model.weights.unembed[: self.vocabulary]
        hidden = rows[:TRIAL_OUTCOMES]
        targets = torch.zeros(len(hidden), dtype=torch.int64)
        start = self.clock()
        logits_summary(hidden @ rows.T, targets, self.model.weights.wiring)
        return (self.clock() - start) / len(hidden) / self.part_of_vocabulary

    @torch.inference_mode()
    def effect(self) -> float:
        """Seconds of a neuron's logit effects."""
        k, weights = self.config.logit_effects, self.model.weights
        block = next((b for b in self.model.spec.blocks if b.kind == "neuron" and weights.has_fixed_way(b)), None)
        if block is None or not k:
            return 0.0
        w_out = weights.matrix(block)[: tables.EFFECT_ROWS]
        toward = weights.unembed[: self.vocabulary].to(w_out.dtype)
        start = self.clock()
        for _ in tables.strongest([(torch.arange(len(toward), device=toward.device), w_out @ toward.T)], k):
            pass
        return (self.clock() - start) / len(w_out) / self.part_of_vocabulary


def _row_seconds(folder: Path, clock: Callable[[], float]) -> float:
    """Seconds of a row of the run file."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "component_id": np.arange(TRIAL_ROWS, dtype=np.int32) // TRIAL_TOKENS,
            "position_id": np.arange(TRIAL_ROWS) % TRIAL_TOKENS,
            "activation": rng.normal(size=TRIAL_ROWS).astype(np.float32),
            "dla": rng.normal(size=TRIAL_ROWS).astype(np.float32),
            "bin": np.zeros(TRIAL_ROWS, dtype=np.int16),
        }
    )
    connection = connections.begin(folder / "trial.duckdb", folder)
    connection.execute(
        "CREATE TABLE trial (component_id INT, position_id BIGINT, activation REAL, dla REAL, bin SMALLINT)"
    )
    start = clock()
    connection.register("frame", frame.to_arrow())
    connection.execute("INSERT INTO trial SELECT * FROM frame")
    connection.execute("CHECKPOINT")
    seconds = clock() - start
    connection.close()
    return seconds / TRIAL_ROWS


def _byte_seconds(folder: Path, clock: Callable[[], float]) -> float:
    """Seconds of a byte that is claimed and committed."""
    start = clock()
    claimed = np.zeros(TRIAL_BYTES, dtype=np.uint8)
    claimed[...] = claimed
    arrays.write(folder / "state", {"claimed": claimed})
    flush(folder / "state")
    zlib.crc32((folder / "state").read_bytes())  # as a commit is checked
    return (clock() - start) / TRIAL_BYTES
