"""Pairs of a user's own: divided into parts to find, test and hold out, which share no pair."""

from dataclasses import replace
from itertools import count

import patch_models
import pytest

from profiler import actions
from profiler.circuits import experiment
from profiler.circuits.circuit import Circuit, Scope
from profiler.errors import PairError
from profiler.generality.distributions import build, circuit_of_run
from profiler.generality.distributions.subject import CheckSettings
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
    made = experiment.other_settings(model, network_of(model), settings)
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
