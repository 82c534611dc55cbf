"""The forecast is near the truth, and a disk budget lowers rows, never statistics."""

from pathlib import Path

import duckdb
import pytest

from profiler.config import RunConfig
from profiler.errors import RunError
from profiler.model.load import load_model
from profiler.recording.forecast import forecast, trial, within_budget
from profiler.recording.pipeline import record

ROWS = ("samples_per_stratum", "dense_positions", "extremes")
STATISTICS = ("cell_counts", "cell_sums", "power_sums", "spectrum_counts", "density_counts", "quantiles")


@pytest.fixture(scope="module")
def model(base_config):
    return load_model(base_config)


@pytest.fixture(scope="module")
def config(base_config) -> RunConfig:
    """The tokens of the corpus are stated, as on the command line."""
    return base_config.model_copy(update={"tokens": 5_000})


def test_forecast_of_bytes_is_within_a_factor_of_two(config, model, tmp_path):
    outcome = record(config, tmp_path / "run.duckdb", model=model)
    ahead = forecast(config, model.spec)
    assert ahead.bytes / 2 <= outcome.bytes <= ahead.bytes * 2, (ahead, outcome.bytes)


def test_forecast_grows_with_what_is_kept(config, model):
    base = forecast(config, model.spec).bytes
    for change in (
        {"samples_per_stratum": 50},
        {"dense_positions": 5_000},
        {"extremes": 100},
        {"replicate_groups": 64},
        {"components": ("L0N1", "L0N2", "L0N3")},
    ):
        assert forecast(config.model_copy(update=change), model.spec).bytes > base, change


def test_a_trial_measures_a_positive_time(config, model):
    seconds = trial(model, config)
    assert seconds > 0
    assert forecast(config, model.spec, seconds).seconds >= seconds * config.tokens


def test_without_a_budget_nothing_is_lowered(config, model):
    assert within_budget(config, model.spec) == (config, ())


def test_a_budget_lowers_rows_alone_and_says_so(config, model):
    wide = config.model_copy(update={"samples_per_stratum": 64, "dense_positions": 4_096, "extremes": 64})
    least = wide.model_copy(update={"samples_per_stratum": 1, "dense_positions": 64, "extremes": 1})
    budget = (forecast(wide, model.spec).bytes + forecast(least, model.spec).bytes) // 2
    lowered, said = within_budget(wide.model_copy(update={"disk_budget": budget}), model.spec)
    assert forecast(lowered, model.spec).bytes <= budget
    changed = {f for f in RunConfig.model_fields if getattr(lowered, f) != getattr(wide, f)} - {"disk_budget"}
    assert changed
    assert changed <= set(ROWS)
    assert {text.split()[0] for text in said} == changed


def test_a_budget_that_is_too_small_is_refused_with_the_least_that_works(config, model):
    with pytest.raises(RunError, match="--disk-budget 1,000 bytes is too small"):
        within_budget(config.model_copy(update={"disk_budget": 1_000}), model.spec)


@pytest.mark.slow
def test_lowered_rows_leave_every_statistic_as_it_was(config, model, tmp_path: Path):
    lowered = config.model_copy(update={"samples_per_stratum": 1, "dense_positions": 4, "extremes": 1})
    for name, settings in (("whole", config), ("less", lowered)):
        record(settings, tmp_path / f"{name}.duckdb", model=model)
    with duckdb.connect() as connection:
        for name in ("whole", "less"):
            connection.execute(f"ATTACH '{tmp_path / name}.duckdb' AS {name} (READ_ONLY)")
        for table in STATISTICS:
            both = [
                connection.execute(f"SELECT count(*) FROM (FROM {a}.{table} EXCEPT FROM {b}.{table})").fetchone()[0]
                for a, b in (("whole", "less"), ("less", "whole"))
            ]
            assert both == [0, 0], table
        sizes = [
            connection.execute(f"SELECT count(*) FROM {name}.sample_rows").fetchone()[0] for name in ("whole", "less")
        ]
    assert sizes[1] < sizes[0]
