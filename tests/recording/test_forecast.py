"""The forecast is near the truth, and a disk budget lowers rows, never statistics."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import duckdb
import measured
import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

import profiler
from profiler.config import RunConfig
from profiler.errors import RunError
from profiler.model.components import uniform
from profiler.model.forward import Wanted
from profiler.model.load import BUNDLED, load_model
from profiler.recording import forecast as forecasts
from profiler.recording.forecast import Rates, forecast, state_bytes, trial, within_budget, within_memory
from profiler.recording.memory import resident, usable
from profiler.recording.pipeline import record
from profiler.recording.totals import Totals

ROWS = ("samples_per_stratum", "dense_positions", "extremes")
STATISTICS = ("cell_counts", "cell_sums", "power_sums", "spectrum_counts", "density_counts", "quantiles")


@pytest.fixture(scope="module")
def model(base_config):
    return load_model(base_config)


@pytest.fixture(scope="module")
def config(base_config) -> RunConfig:
    """The tokens of the corpus are stated, as on the command line."""
    return base_config.model_copy(update={"tokens": 5_000})


@pytest.mark.slow
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


class CountingClock:
    """A clock on which every look takes a second."""

    def __init__(self):
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        return float(self.looks)


def test_a_trial_times_every_kind_of_work(config, model, tmp_path):
    """With a second between looks at the clock, a rate is one over the amount of work that was timed."""
    rates = trial(model, config, tmp_path, CountingClock())
    neurons = max(block.units for block in model.spec.blocks)
    tokens = round(1 / rates.forward)
    assert tokens in (forecasts.WARM_UP, model.spec.context_length)
    assert rates.token == pytest.approx(2 / tokens), "the forward pass, then attribution"
    assert rates.value == pytest.approx(1 / (tokens * neurons))
    assert rates.outcome == pytest.approx(1 / min(forecasts.TRIAL_OUTCOMES, model.spec.n_vocab))
    assert rates.effect == pytest.approx(1 / model.spec.d_mlp)
    assert rates.row == pytest.approx(forecasts.ROW_WORK / forecasts.TRIAL_ROWS)
    assert rates.byte == pytest.approx(1 / forecasts.TRIAL_BYTES)
    assert not list(tmp_path.iterdir()), "a trial leaves nothing behind"
    assert model.run(torch.zeros(1, 4, dtype=torch.int64), Wanted()).attention == {}


def test_the_forecast_of_time_is_rates_times_amounts(config, model):
    """Each kind of work is counted: of the time with all rates, none is left out."""
    spec = model.spec
    one = {name: forecast(config, spec, Rates(**{name: 1.0})).time for name in vars(Rates())}
    assert one["token"]["reading"] == config.tokens
    assert not any(one["forward"].values()), "all blocks are held: there is no second forward pass"
    assert one["value"]["reading"] == config.tokens * spec.n_components
    assert config.dense_positions <= one["outcome"]["reading"] <= config.tokens
    assert one["effect"]["logit effects"] == sum(b.units for b in spec.blocks if b.kind == "neuron")
    assert one["byte"]["committing"] == state_bytes(config, spec)
    assert one["row"]["writing"] > spec.n_components * config.dense_positions
    every = forecast(config, spec, Rates(*[1.0] * len(one)))
    assert every.seconds == pytest.approx(sum(sum(time.values()) for time in one.values()))


def test_the_forecast_of_time_grows_with_components(config, model):
    """The statistics and rows of many components cost time of their own (they were left out)."""
    rates = Rates(value=1.0, row=1.0, byte=1.0)
    many = replace(model.spec, blocks=uniform(2, 2, 2400))
    few, more = (forecast(config, spec, rates).seconds for spec in (model.spec, many))
    assert more > 10 * few


def test_bytes_of_accumulators_are_those_that_are_allocated(config, model):
    """All but filled cells of the spectrum, which are given memory as they are filled."""
    domains = forecasts._domains(config)
    totals = Totals(model.spec, config)
    totals.recorder.cells.grow(domains * config.replicate_groups)
    totals.recorder.powers.grow(domains)
    held = sum(array.nbytes for array in totals.arrays().values())
    assert state_bytes(config, model.spec) == held + int(model.spec.n_components * forecasts._bins_bytes(config))


def test_each_corpus_is_a_domain_but_where_documents_have_their_own():
    def domains(*corpora: str, field: str | None = None) -> int:
        return forecasts._domains(RunConfig(model="m", corpora=corpora, domain_field=field))

    assert [domains("a.txt"), domains("a.txt", "b.txt"), domains("stdlib"), domains("a.txt", field="topic")] == [
        1,
        2,
        3,
        3,
    ]


@pytest.mark.slow
@pytest.mark.parametrize("neurons", [400, 1600, 6400])
def test_memory_state_and_file_are_within_a_fifth_of_the_forecast(neurons, tmp_path):
    """Passes in processes of their own, over running text and a tokenizer of words."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(str(BUNDLED))
    sizes = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.2}
    GPT2LMHeadModel(
        GPT2Config(n_layer=2, n_head=4, n_embd=32, n_positions=64, n_inner=neurons // 2, **sizes)
    ).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    command = [sys.executable, measured.__file__, str(tmp_path / "model"), str(tmp_path / "run.duckdb"), "30000"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900)
    found = json.loads(done.stdout.splitlines()[-1])
    for what, (ahead, taken) in found.items():
        assert ahead == pytest.approx(taken, rel=0.2), (what, found)


def test_batches_are_made_smaller_to_fit_into_memory(config, model):
    wide = config.model_copy(update={"batch_size": 4096, "tokens": None})
    whole, least = (
        forecast(wide.model_copy(update={"batch_size": n}), model.spec).memory for n in (wide.batch_size, 1)
    )
    limited = wide.model_copy(update={"memory_limit": (whole + least) // 2})
    fitting, (said,) = within_memory(limited, model.spec, in_use=0)
    ahead = forecast(fitting, model.spec)
    assert ahead.memory <= limited.memory_limit
    assert 1 < ahead.batch.windows < wide.batch_size == fitting.batch_size
    assert f"-> {fitting.batch_memory:,} bytes: a batch is {ahead.batch.windows:,} windows" in said
    assert within_memory(wide, model.spec, in_use=0, free=whole) == (wide, ())


def test_a_memory_limit_that_is_too_small_is_refused_before_the_pass(config, model, tmp_path):
    with pytest.raises(RunError, match=r"--memory-limit 0.01 GB is too small .*accumulators .*--dense-positions"):
        profiler.record(config.model_copy(update={"memory_limit": 10_000_000}), tmp_path / "run.duckdb", model=model)
    assert not list(tmp_path.iterdir())
    with pytest.raises(RunError, match=r"this machine's memory .* is too small"):
        within_memory(config, model.spec, in_use=0, free=1_000)


def test_a_memory_limit_changes_no_identity(config):
    assert config.digest() == config.model_copy(update={"memory_limit": 10**9}).digest()


def test_memory_is_asked_of_the_system():
    assert 10**7 < resident() < 10**12 and usable() > 0


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
