"""What a pass will take, before it starts: bytes by table, and time from a short trial of the model itself.

Bytes per row are those of finished runs (DuckDB compresses ids well and floats hardly). A disk budget is met by
lowering sampled rows: samples per stratum, then dense positions, then extremes; statistics are never dropped.
"""

import time
from dataclasses import dataclass

import torch

from profiler.config import RunConfig
from profiler.errors import RunError
from profiler.model.components import ModelSpec
from profiler.model.forward import Wanted
from profiler.model.load import Model
from profiler.recording.accumulators.cells import N_CLASSES, Axes
from profiler.recording.recorder import token_sum_components

BYTES_PER_ROW = {
    "cell_sums": 26,
    "power_sums": 130,
    "spectrum_counts": 22,
    "density_counts": 5,
    "samples": 17,
    "extremes": 17,
    "dense": 14,
    "windows": 4,
    "positions": 30,
    "recorded": 14,
    "token_sums": 26,
}
OCCUPIED_STRATA, OCCUPIED_BINS, OCCUPIED_CLASSES = 70, 500, 0.6
EXPECTED_DOMAINS = 3
FIXED_BYTES = 8_000_000
OVERHEAD = 3.0
UNKNOWN_TOKENS = 1_000_000


@dataclass(frozen=True)
class Forecast:
    """Bytes by part of the run, the sum, and seconds (both rough: within a factor of two).

    `token_memory`: bytes of memory that sums per token take during the pass, exactly.
    """

    parts: dict[str, int]
    seconds: float
    lowered: tuple[str, ...] = ()
    token_memory: int = 0

    @property
    def bytes(self) -> int:
        """Size of the run file."""
        return FIXED_BYTES + sum(self.parts.values())


def forecast(config: RunConfig, spec: ModelSpec, forward_seconds_per_token: float = 0.0) -> Forecast:
    """The forecast for one configuration."""
    n, tokens = spec.n_components, config.tokens or UNKNOWN_TOKENS
    cells = Axes.for_context(spec.context_length).n_cells
    sampled = n * OCCUPIED_STRATA * config.samples_per_stratum
    extremes = n * 4 * config.extremes
    kept = min(tokens, sampled + extremes + config.dense_positions)
    rows = {
        "cell_sums": n * cells * EXPECTED_DOMAINS * config.replicate_groups * OCCUPIED_CLASSES,
        "power_sums": n * N_CLASSES * EXPECTED_DOMAINS * OCCUPIED_CLASSES,
        "spectrum_counts": n * N_CLASSES * OCCUPIED_STRATA * OCCUPIED_CLASSES / 2,
        "density_counts": n * OCCUPIED_BINS,
        "samples": sampled,
        "extremes": extremes,
        "dense": n * config.dense_positions,
        "positions": kept,
        "windows": min(tokens, kept * spec.context_length),
        "recorded": tokens * len(config.components),
        "token_sums": min(tokens, spec.n_vocab) * len(token_sum_components(spec, config)),
    }
    return Forecast(
        {name: int(count * BYTES_PER_ROW[name]) for name, count in rows.items()},
        tokens * forward_seconds_per_token * OVERHEAD,
        token_memory=spec.n_vocab * len(token_sum_components(spec, config)) * 24,
    )


def within_budget(config: RunConfig, spec: ModelSpec) -> tuple[RunConfig, tuple[str, ...]]:
    """The configuration with sampled rows lowered until the disk budget is met, and what was lowered.

    Raises:
        RunError: the statistics alone are larger than the budget.
    """
    if config.disk_budget is None:
        return config, ()
    start = config
    for field, least in (("samples_per_stratum", 1), ("dense_positions", 64), ("extremes", 1)):
        while forecast(config, spec).bytes > config.disk_budget and getattr(config, field) > least:
            config = config.model_copy(update={field: max(least, getattr(config, field) // 2)})
    if forecast(config, spec).bytes > config.disk_budget:
        raise RunError(
            f"--disk-budget {config.disk_budget:,} bytes is too small: statistics of {spec.n_components:,} components"
            f" alone need about {forecast(config, spec).bytes:,} bytes; raise the budget or lower --replicate-groups"
        )
    fields = ("samples_per_stratum", "dense_positions", "extremes")
    return config, tuple(
        f"{f} {getattr(start, f)} -> {getattr(config, f)}" for f in fields if getattr(start, f) != getattr(config, f)
    )


def trial(model: Model, config: RunConfig) -> float:
    """Seconds per token of the model's forward pass alone: two small batches, the second is timed."""
    tokens = torch.randint(0, model.spec.n_vocab, (min(config.batch_size, 4), model.spec.context_length))
    model.run(tokens, Wanted())
    start = time.perf_counter()
    model.run(tokens, Wanted())
    return (time.perf_counter() - start) / tokens.numel()
