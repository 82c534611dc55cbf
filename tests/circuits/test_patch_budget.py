"""The forecast counts what is done, and a budget leaves out what decides least, says so, or refuses."""

from dataclasses import replace
from pathlib import Path

import patch_models
import pytest

import profiler
from profiler.circuits import duration
from profiler.circuits.duration import UnitCosts
from profiler.cli.options import seconds
from profiler.errors import PairError, ProfilerError
from profiler.patching.setting import PairRuns, PatchSettings, prepare
from profiler.prompts.pairs import Encoded, jsonl

COSTS = UnitCosts(1.0, 0.5, 3.0, 0.25, 1.5, 4.0)


@pytest.fixture
def runs() -> PairRuns:
    return prepare("discovery", patch_models.network("gpt2"), Encoded(patch_models.token_pairs(48), ()))


def test_the_forecast_is_counts_times_costs(runs: PairRuns) -> None:
    settings = PatchSettings("ioi", pairs=len(runs.batch))
    one = duration.forecast(runs, settings, COSTS)
    more = duration.forecast(runs, replace(settings, neurons=74), COSTS).seconds
    assert more - one.seconds == pytest.approx(2 * 10 * COSTS.patch)
    assert duration.forecast(runs, replace(settings, steps=9), COSTS).seconds - one.seconds == pytest.approx(
        2 * COSTS.slope + COSTS.edge_slope
    )
    half = duration.forecast(runs, replace(settings, pairs=settings.pairs // 2), COSTS).seconds
    assert half == pytest.approx(one.seconds / 2, rel=0.05)
    assert duration.forecast(runs, replace(settings, draws=39), COSTS).circuits < one.circuits
    assert one.sentence.startswith("forecast: about ") and f"{one.patches:,.0f} patches" in one.sentence
    assert "40 s" in duration.PatchForecast(1.0, 1.0, 40.0).sentence


def test_a_budget_leaves_out_what_decides_least(runs: PairRuns) -> None:
    settings = PatchSettings("ioi")
    whole = duration.forecast(runs, settings, COSTS).seconds
    assert duration.within(whole, runs, settings, COSTS) == (settings, ())
    least, left_out = duration.within(whole - 1, runs, settings, COSTS)
    assert (least, left_out) == (replace(settings, neurons=32), ("neurons 64 -> 32",))
    half, left_out = duration.within(whole / 2, runs, settings, COSTS)
    assert half.draws >= 39 and half.pairs >= 20 and len(left_out) > 1
    assert duration.forecast(runs, half, COSTS).seconds <= whole / 2
    with pytest.raises(PairError, match="give that much"):
        duration.within(whole / 100, runs, settings, COSTS)


def test_what_is_measured_is_measured(runs: PairRuns) -> None:
    costs = duration.unit_costs(runs, PatchSettings("toy.jsonl", by_role=False))
    assert min(vars(costs).values()) > 0


@pytest.mark.slow
def test_a_patch_says_what_it_leaves_out(tmp_path: Path) -> None:
    file, said = tmp_path / "toy.jsonl", []
    jsonl.write(file, patch_models.pairs(12))
    model = patch_models.loaded("gpt2")
    small = {"neurons": 2, "top": 2, "steps": 2, "draws": 5, "by_role": False, "pairs": 12}
    report = lambda step: said.append(step)  # noqa: E731
    done = profiler.patch(tmp_path / "r.duckdb", file, model=model, budget=3600.0, report=report, **small)
    notes = [step.text for step in said if step.is_note]
    assert "left out to keep to 60 min: nothing" in notes
    assert any(text.startswith("forecast: about") for text in notes)
    assert said[-1].done == said[-1].total and done.frames["patch_experiments"]["n_pairs"][0] == 12
    with pytest.raises(PairError, match="the budget is"):
        profiler.patch(tmp_path / "s.duckdb", file, model=model, budget=1e-6, **small)
    assert not (tmp_path / "s.duckdb").exists()


@pytest.mark.parametrize(("text", "value"), [("90s", 90), ("10m", 600), ("1.5h", 5400)])
def test_times(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["10", "m", "-1m", "0s", "1d"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ProfilerError, match="is not a time"):
        seconds(text)
