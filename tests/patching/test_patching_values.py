"""What is put in, the linter's second half, and the commands."""

import dataclasses
import re
from collections import Counter

import numpy as np
import patch_models
import pytest
import torch
from typer.testing import CliRunner

from profiler import cli
from profiler.circuits import circuit_tables, yaml_files
from profiler.circuits.circuit import Circuit, Scope, members_of
from profiler.circuits.scoring import scores
from profiler.config import ModelSettings
from profiler.model.load import load_model
from profiler.patching import batch as batches
from profiler.patching import setting, sites, sweep, values
from profiler.patching.capability import attention_moved, attention_patterns, capability
from profiler.patching.redundancy import redundancy_tables
from profiler.patching.setting import PatchSettings
from profiler.patching.sites import Target
from profiler.patching.sweep_tables import SweepPlan, plans, run_plan
from profiler.prompts.pairs import jsonl
from profiler.prompts.pairs.encode import Encoded

NET = patch_models.network("gpt2")


def _setting(n: int = 6) -> setting.PairRuns:
    return setting.prepare("discovery", NET, Encoded(patch_models.token_pairs(n), ()))


def test_means_are_of_the_own_template_and_length() -> None:
    one = _setting()
    references = patch_models.token_pairs(40, seed=9)
    found = values.means(NET, one.clean, one.batch, references)
    assert found.by_template == 1
    row = 2
    length = len(one.batch.pairs[row].clean)
    same = [p for p in references if len(p.corrupted) == length][: values.MOST]
    tokens = torch.tensor([p.corrupted for p in same])
    runs = batches.trace(NET, tokens, torch.full((len(same),), length - 1))
    for site in ("head", "resid_pre", "neuron"):
        expected = runs[site][1].mean(0)
        assert (found.trace[site][1][row, :length] - expected).abs().max() < 1e-12
    assert found.donor()("head", 1) is found.trace["head"][1]


def test_too_few_references_fall_back_to_all_positions() -> None:
    one = _setting()
    length = len(one.batch.pairs[0].clean)
    references = [p for p in patch_models.token_pairs(40, seed=9) if len(p.corrupted) == length]
    found = values.means(NET, one.clean, one.batch, references)
    covered = [len(p.clean) == length for p in one.batch.pairs]
    assert found.by_template == sum(covered) / len(covered) < 1
    other = covered.index(False)
    assert (found.trace["head"][0][other] - found.trace["head"][0][other, :1]).abs().max() == 0
    inside = found.trace["head"][0][covered.index(True), :length].mean(0)
    assert (found.trace["head"][0][other, 0] - inside).abs().max() < 1e-12


def test_noise_is_the_same_every_time_and_of_its_size() -> None:
    one = _setting()
    first, again, other = (values.noise(one.clean, one.batch, seed)("neuron", 0) for seed in (0, 0, 1))
    live = one.clean["neuron"][0]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert ((first - live).std() / live[one.batch.valid].std()).item() == pytest.approx(values.NOISE, rel=0.05)
    assert torch.equal(values.zero(one.clean)("neuron", 0), torch.zeros_like(live))


def test_plans_cover_both_directions_and_every_value() -> None:
    one = _setting()
    donors = {"zero": values.zero(one.clean), "noise": values.noise(one.clean, one.batch)}
    made = plans(one, donors, by_role=True)
    assert [(p.direction, p.value) for p in made] == [
        ("denoise", "resample"),
        ("noise", "resample"),
        ("noise", "zero"),
        ("noise", "noise"),
    ]
    assert {t.site for t in made[0].targets} == {*sites.PER_HEAD, *sites.WHOLE} - {"mixer_out"}
    assert {t.positions for t in made[0].targets if t.site == "head"} == {"all", *one.roles}
    assert {t.positions for t in plans(one, {}, by_role=False)[0].targets if t.site == "head"} == {"all"}
    seen: list[int] = []
    zero = run_plan(
        one, SweepPlan((Target("head", 1, 0), Target("mlp_out", 0)), "noise", "zero", donors["zero"]), seen.append
    )
    plain = sweep.intervene(NET, one.batch.clean, one.batch.ends, one.batch, [Target("mlp_out", 0)], donors["zero"])
    assert zero[1].target.site == "mlp_out"
    assert zero[1].panel[:, 0] == pytest.approx(batches_logit_diff(plain, one).numpy(), abs=1e-10)
    assert seen == [1, 2]


def batches_logit_diff(logits: torch.Tensor, one: setting.PairRuns) -> torch.Tensor:
    from profiler.patching.metrics import logit_diff

    return logit_diff(logits, one.batch.options)


def test_capability_sees_a_model_that_cannot_do_the_task() -> None:
    one = _setting()
    found = {check.name: check for check in capability(one)}
    right = float((one.metric_clean > 0).mean())
    assert found["answer above distractors, clean"].value == right
    assert found["answer above distractors, clean"].level == ("ok" if right >= 0.75 else "warning")
    still = dataclasses.replace(one, corrupted=one.clean)
    same = {check.name: check for check in capability(still)}
    assert same["heads that changed at the end"].value == 0
    assert same["logit difference, clean to corrupted"].value == 0
    assert same["logit difference, clean to corrupted"].level == "warning"
    assert same["KL of the answer's distribution"].value == 0
    assert 0 < found["heads that changed at the end"].value <= 1
    assert same["heads that moved beside the answer"].finding == "none"
    assert same["well-known attention that moved"].finding == "none"
    assert same["other likely tokens kept"].value == 1
    assert 0 <= found["other likely tokens kept"].value < 1


def test_shared_circuits_that_moved_are_named() -> None:
    """L0H0 carries the answer; L0H1 moves as much and writes nothing toward it."""
    net = patch_models.hand_built(
        [patch_models._layer([patch_models._head({0: 1}, 6), patch_models._head({0: 1}, 2)], [])]
    )
    one = setting.prepare("discovery", net, Encoded(patch_models.gate_batch().pairs, ()))
    found = {check.name: check for check in capability(one)}
    assert found["heads that changed at the end"].value == 1
    assert found["heads that moved beside the answer"].finding == "1: L0H1 100%"
    assert found["heads that moved beside the answer"].value == 0.5


def test_well_known_attention_is_told_by_its_places() -> None:
    tokens = torch.tensor([[9, 1, 2, 1, 0], [9, 1, 5, 7, 1]])
    found = attention_patterns(tokens, torch.tensor([3, 4]))
    assert found["first token"].tolist() == [[True, False, False, False, False]] * 2
    assert found["token before"].nonzero().tolist() == [[0, 2], [1, 3]]
    assert found["copy"].nonzero().tolist() == [[0, 1], [1, 1]]
    assert found["induction"].nonzero().tolist() == [[0, 2], [1, 2]]


def test_attention_that_moved_says_from_what_to_what() -> None:
    one = _setting()
    ends = one.batch.ends
    for run, key in ((one.clean, ends - 1), (one.corrupted, torch.zeros_like(ends))):
        pattern = torch.zeros_like(run["pattern"][0])
        pattern[torch.arange(len(ends)), 1, ends, key] = 1.0
        run.sites["pattern"] = [pattern, torch.zeros_like(pattern)]
    assert attention_moved(one).finding == "first token L0H1 0% to 100%; token before L0H1 100% to 0%"


def test_roles_are_read_off_the_attention() -> None:
    one = _setting()
    pattern = torch.zeros_like(one.clean["pattern"][0])
    for row in range(len(one.batch)):
        first = one.batch.roles["first"][row].nonzero()[0, 0]
        pattern[row, :, one.batch.ends[row], first] = 1.0
    one.clean.sites["pattern"] = [pattern, pattern]
    assert circuit_tables._attended(one, Target("head", 0, 1), "end") == ("first", 1.0)
    only = [
        m
        for plan in plans(one, {}, by_role=True)
        for m in run_plan(one, plan)
        if m.target == Target("head", 0, 1, "end")
    ]
    assert circuit_tables.reads(one, only, ["L0H1"]) == {"L0H1": "at end attends to first (100%)"}
    alike = torch.ones_like(pattern) / pattern.shape[-1]
    one.clean.sites["pattern"] = [alike, alike]
    assert circuit_tables.reads(one, only, ["L0H1"]) == {}  # no token gets 30 %, so no role names any


def run(*words: str) -> tuple[int, str]:
    """Exit code and output of the command line, blanks folded."""
    result = CliRunner().invoke(cli.app, list(words))
    return result.exit_code, re.sub(r"\s+", " ", result.output)


def test_tasks_are_listed_shown_and_written(tmp_path) -> None:
    code, text = run("tasks")
    assert code == 0
    assert all(f"{name} " in text for name in ("ioi", "docstring", "greater-than", "repeated-tokens", "sva"))
    assert "abc, swapped, s_only, io_only" in text
    code, text = run("tasks", "ioi", "--scheme", "swapped", "--pairs", "2")
    assert code == 0
    assert text.count("clean ") == text.count("corrupted ") == 2
    code, text = run("tasks", "docstring", "--pairs", "7", "--out", str(tmp_path / "d.jsonl"))
    assert code == 0
    assert len(jsonl.read(tmp_path / "d.jsonl")) == 7
    assert run("tasks", "ioi", "--split", "nose")[0] == 2
    assert run("tasks", "nose")[0] == 1


@pytest.mark.slow
def test_a_circuit_is_found_and_judged_by_command(tmp_path) -> None:
    model = str(patch_models.loaded("gpt2").spec.name)
    jsonl.write(tmp_path / "toy.jsonl", patch_models.pairs(6))
    quick = ("--neurons", "2", "--top", "2", "--draws", "5", "--no-by-role")
    out, toy, saved = str(tmp_path / "r.duckdb"), str(tmp_path / "toy.jsonl"), tmp_path / "c.yaml"
    code, text = run("patch", out, toy, "--model", model, "--save", str(saved), *quick)
    assert code == 0, text
    assert " member" in text
    assert "forecast: about" in text
    assert yaml_files.read(saved).scope.task == "toy"
    yaml_files.write(saved, Circuit("mine", model, members_of(["L1H0"]), Scope("toy", "", ())))
    code, text = run("patch", out, toy, "--circuit", str(saved), *quick)
    assert code == 0, text
    assert ": 1 member " in text
    assert "L1H0" in text
    code, text = run("query", out, "circuit_scope")
    assert code == 0
    assert "mine" in text
    assert run("patch", out, toy, "--split", "nose")[0] == 2


def test_references_are_none_of_the_pairs() -> None:
    """Means of the pairs' own prompts would hold what they are to take away."""
    model = patch_models.loaded("neox_sequential")
    settings = PatchSettings("repeated-tokens", pairs=12)
    known = setting.encoded(model, setting.draw(model, settings, "train", settings.seed))
    found = setting.references(model, settings, known)
    assert len(found.pairs) > 100
    assert {pair.pair.template for pair in found.pairs} == {pair.pair.template for pair in known.pairs}
    assert not {pair.clean for pair in found.pairs} & {pair.clean for pair in known.pairs}


@pytest.mark.slow
@pytest.mark.parametrize("task", ["ioi", "repeated-tokens"])
def test_every_pair_has_fifty_references_of_its_own_template_and_length(task: str) -> None:
    """Templates are thousands, so references are drawn for each that some pair has."""
    model = load_model(ModelSettings(model="bundled"))
    settings = PatchSettings(task, pairs=12)
    known = setting.encoded(model, setting.draw(model, settings, "train", settings.seed))
    found = setting.references(model, settings, known).pairs
    alike = Counter((pair.pair.template, len(pair.corrupted)) for pair in found)
    assert min(alike[pair.pair.template, len(pair.clean)] for pair in known.pairs) >= values.MOST == 50
    assert not {pair.clean for pair in found} & {pair.clean for pair in known.pairs}
    again = setting.references(model, settings, known).pairs
    assert again == found


def test_means_are_never_zeros_for_want_of_a_template() -> None:
    """Pairs whose template no reference has get the mean over all positions of all references."""
    one = _setting()
    other = [
        dataclasses.replace(pair, pair=dataclasses.replace(pair.pair, template="else"))
        for pair in patch_models.token_pairs(12, seed=9)
    ]
    found = values.means(NET, one.clean, one.batch, other)
    assert found.by_template == 0
    for site in ("head", "mlp_out"):
        rows = found.trace[site][1]
        assert rows.abs().max() > 0 and (rows == rows[:1, :1]).all()


def test_intervals_downstream_are_of_the_mean() -> None:
    values = torch.from_numpy(np.random.default_rng(0).normal(1.0, 1.0, 400))
    found = redundancy_tables._mean(values)
    assert found["delta_dla"] == pytest.approx(values.mean().item())
    assert found["delta_dla_hi"] - found["delta_dla_lo"] == pytest.approx(2 * 1.96 * values.std().item() / 20, rel=0.1)
    assert found["delta_dla_lo"] < found["delta_dla"] < found["delta_dla_hi"]


def test_means_of_references_resampled_scatter_around_the_means() -> None:
    """Their mean is the mean, and their scatter the error of a mean of so many references."""
    one = _setting(1)
    length = one.batch.clean.shape[1]
    references = [p for p in patch_models.token_pairs(200, seed=9) if len(p.clean) == length][: values.MOST]
    found = values.means(NET, one.clean, one.batch, references)
    again = torch.stack([run["head"][0][0, length - 1] for run in found.redrawn()])
    mean, known = found.trace["head"][0][0, length - 1], batches.trace(NET, *_tokens(references))["head"][0][:, -1]
    assert again.shape[0] == values.REDRAWS
    assert torch.allclose(mean, known.mean(0))
    error = known.std(0) / len(references) ** 0.5
    assert ((again.mean(0) - mean).abs() < 4 * error / values.REDRAWS**0.5 + 1e-12).all()
    ratio = (again.std(0) / error)[error > error.max() / 10]
    assert 0.7 < ratio.mean() < 1.3
    assert all(not run["attn_out"] for run in found.redrawn())


def _tokens(pairs) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.tensor([pair.corrupted for pair in pairs])
    return tokens, torch.full((len(pairs),), tokens.shape[1] - 1)


@pytest.mark.slow
def test_intervals_of_faithfulness_cover_under_other_references(monkeypatch) -> None:
    """Twelve references a draw, many draws: an interval that knows of the draw covers what all of them give."""
    one = _setting(6)
    pool = patch_models.token_pairs(400, seed=9)
    circuit = Circuit("c", "m", members_of(["L0H0", "L1H1"]), Scope("toy", "", ()))
    nodes = circuit_tables.evaluator(one, circuit, mlps=False).nodes
    keep = np.array([node in circuit.components for node in nodes])

    def judged(references, seed):
        made = values.means(NET, one.clean, one.batch, references, seed)
        runs = dataclasses.replace(one, outside=made.trace, redrawn=made.redrawn)
        evaluate = circuit_tables.evaluator(runs, circuit, mlps=False)
        again = circuit_tables.redrawn_values(runs, circuit, np.stack([keep, 0 * keep > 0]), mlps=False)
        return [scores.faithfulness(evaluate, keep, some) for some in (again, None)]

    rng, covered, alone, draws = np.random.default_rng(0), 0, 0, 16
    monkeypatch.setattr(values, "MOST", len(pool))
    monkeypatch.setattr(values, "REDRAWS", 12)
    best = judged(pool, 0)[0].normalised
    for seed in range(draws):
        some = [pool[i] for i in rng.permutation(len(pool))[:36]]
        knows, not_knows = judged(some, seed)
        covered += knows.interval[0] <= best <= knows.interval[1]
        alone += not_knows.interval[0] <= best <= not_knows.interval[1]
        assert knows.normalised == not_knows.normalised
    assert covered >= 0.8 * draws and covered >= alone
