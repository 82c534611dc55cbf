"""Pairs of a user's own: divided into parts to find, test and hold out, which share no pair."""

from dataclasses import replace
from itertools import count

import patch_models
import pytest

from profiler import actions
from profiler.circuits import experiment, pair_runs
from profiler.circuits.circuit import Circuit, Scope
from profiler.errors import PairError
from profiler.generality.distributions import build, circuit_of_run
from profiler.generality.distributions.subject import CheckSettings, Distributions
from profiler.model.steps.as_network import network_of
from profiler.patching import setting
from profiler.patching.setting import PatchSettings
from profiler.prompts.pairs import jsonl


def _file(folder, n: int, held_out: int = 0) -> str:
    unlike = list({pair.clean: pair for pair in patch_models.pairs(3 * (n + held_out), seed=4)}.values())[
        : n + held_out
    ]
    made = [replace(pair, name=f"own/{i}") for i, pair in enumerate(unlike)]
    marked = [replace(pair, split="held_out") for pair in made[n:]]
    jsonl.write(folder / "own.jsonl", [*made[:n], *marked, *made[:3]])  # three stand there twice
    return str(folder / "own.jsonl")


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("n", "held_out", "pairs", "sizes"),
    [(8, 0, 48, (8, 0, 0)), (60, 0, 48, (30, 30, 0)), (60, 0, 10, (10, 10, 0)), (30, 12, 24, (24, 6, 12))],
)
def test_pairs_of_a_file_are_divided_and_none_is_in_two_parts(tmp_path, n, held_out, pairs, sizes, seed) -> None:
    settings = PatchSettings(_file(tmp_path, n, held_out), pairs=pairs, seed=seed)
    parts = setting.parts_of_file(settings)
    assert (len(parts.discovery), len(parts.test), len(parts.held_out)) == sizes
    every = [pair.clean for part in (parts.discovery, parts.test, parts.held_out) for pair in part]
    assert len(set(every)) == len(every) == sum(sizes)
    assert {pair.split for pair in parts.held_out} <= {"held_out"} and {pair.split for pair in parts.test} <= {"train"}
    drawn = setting.draw(patch_models.loaded("gpt2"), settings, settings.split, seed)
    assert tuple(drawn) == parts.discovery == setting.parts_of_file(settings).discovery
    warned = actions.warnings_of(settings)
    assert any("found and judged on the same" in text for text in warned) == (sizes[1] + sizes[2] == 0)
    assert any("check needs 20" in text for text in warned) == (sizes[0] < 20)
    other = replace(settings, split="held_out")
    if held_out:
        assert setting.parts_of_file(other).discovery == parts.held_out
    else:
        with pytest.raises(PairError, match="no pair of split"):
            setting.parts_of_file(other)


def test_the_test_part_of_a_file_is_judged_and_checked(tmp_path) -> None:
    """What a check calls fresh prompts are pairs of the file that the circuit was not found on."""
    model, settings = patch_models.loaded("gpt2"), PatchSettings(_file(tmp_path, 44, 21), pairs=24)
    parts = setting.parts_of_file(settings)
    made = pair_runs.other_settings(model, network_of(model), settings)
    assert [(one.name, len(one.batch)) for one in made] == [("test", 20), ("held_out", 21)]
    task = Scope(settings.task, "x", ())
    found = circuit_of_run.task_of(Circuit("c", "m", (), task))
    assert (
        found.is_file
        and circuit_of_run.task_of(Circuit("c", "m", (), replace(task, task="own.jsonl")), tmp_path).is_file
    )
    maker = build.PromptMaker(model, network_of(model))
    named = build._task_distributions(maker, tmp_path, settings, CheckSettings(), count())
    seen = {one.distribution.name: {pair.pair.clean for pair in one.setting.batch.pairs} for one in named}
    assert seen == {
        name: {pair.clean for pair in part}
        for name, part in zip(("discovery", "fresh prompts", "held-out pairs"), vars(parts).values(), strict=True)
    }


def test_a_pair_that_cannot_be_asked_is_left_out_of_a_file_and_said(tmp_path, monkeypatch) -> None:
    """One unequal pair refuses no file: not for patch, and not as a distribution of a check."""
    file = _file(tmp_path, 12)
    pairs = jsonl.read(file)
    broken = replace(pairs[0], name="unequal", clean=f"so so so {pairs[0].clean}", roles=())
    jsonl.write(file, [*pairs, broken])
    model, said = patch_models.loaded("gpt2"), []

    class Reached(Exception):
        """Patching began."""

    def reached(_experiment):
        raise Reached

    monkeypatch.setattr(experiment, "sweeps", reached)
    with pytest.raises(Reached):
        experiment.patch(model, PatchSettings(file), tmp_path / "run.duckdb", said.append)
    (sentence,) = [line for line in said if line.startswith("left out")]
    assert sentence.startswith(f"left out: 1 of 13 pairs of {file} (1 because clean and corrupted prompt have")
    assert "pair 'unequal': clean has" in sentence
    own = CheckSettings(distributions=(f"own={file}",))
    maker = build.PromptMaker(model, network_of(model), fewest=5)
    one = build._file_distribution(maker, "own", file, 0)
    assert one.distribution.n_prompts == 12
    (told,) = build.left_out(Distributions((one,)), None, own)
    assert told.startswith("left out: 4 of 16 pairs of own (1 because clean")  # three stand there twice
