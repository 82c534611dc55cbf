"""Metrics: values by hand, what they drive, a user's own function, and what is refused."""

import json
from pathlib import Path

import duckdb
import numpy as np
import patch_models
import pytest
import torch

import profiler
from profiler.errors import CircuitError, PairError
from profiler.generality.check import metric_of
from profiler.patching import metrics, own_metric
from profiler.patching.metrics import BUILT_IN, Options
from profiler.patching.setting import prepare
from profiler.patching.sites import every
from profiler.patching.sweep import resample
from profiler.patching.sweep_tables import SweepPlan, change, run_plan
from profiler.prompts.pairs import Encoded, jsonl

LOGITS = torch.tensor([[3.0, 1.0, 2.0, 0.0], [0.0, 0.0, 1.0, 1.0]], dtype=torch.float64)
OPTIONS = Options(
    torch.tensor([[0, 1], [2, 2]]),
    torch.tensor([[0.5, 0.5], [1.0, 0.0]], dtype=torch.float64),
    torch.tensor([[2], [3]]),
    torch.ones(2, 1, dtype=torch.float64),
)
OWN = """
def margin(logits, options):
    best = logits.gather(-1, options.answers).amax(-1)
    return best - logits.gather(-1, options.distractors).amax(-1)

def hard(logits, options):
    return margin(logits, options) > 0

def wrong(logits, options):
    return logits

def broken(logits, options):
    return 1 / 0
"""


def _runs(metric: metrics.Metric):
    pairs = Encoded(patch_models.token_pairs(8), ())
    return prepare("discovery", patch_models.network("gpt2"), pairs, metric)


def test_values_by_hand() -> None:
    chance = LOGITS.softmax(-1)
    clean = torch.zeros_like(LOGITS)
    found = {name: OPTIONS.asked_by(metric, clean).values(LOGITS) for name, metric in BUILT_IN.items()}
    assert found["logit_diff"] == pytest.approx([0.0, 0.0])
    assert found["prob_diff"] == pytest.approx([float(chance[0, 0] + chance[0, 1] - chance[0, 2]), 0.0], abs=1e-12)
    assert found["accuracy"].tolist() == [1.0, 0.5]
    uniform = -np.log(4) - LOGITS.log_softmax(-1).mean(-1).numpy()
    assert found["kl"] == pytest.approx(-uniform, abs=1e-12)
    assert OPTIONS.asked_by(BUILT_IN["kl"], LOGITS).values(LOGITS) == pytest.approx([0, 0], abs=1e-15)
    with pytest.raises(ValueError, match="no clean run"):
        BUILT_IN["kl"].of(LOGITS, OPTIONS)


def test_rows_and_parts_keep_the_metric_and_the_clean_run() -> None:
    options = OPTIONS.asked_by(BUILT_IN["kl"], LOGITS)
    twice = options.rows(2)
    assert twice.values(torch.cat([LOGITS, LOGITS])) == pytest.approx([0] * 4, abs=1e-15)
    assert options.of([1]).values(LOGITS[1:]) == pytest.approx([0], abs=1e-15)
    assert OPTIONS.asked_by(BUILT_IN["prob_diff"], LOGITS).reference is None


@pytest.mark.parametrize("name", ["prob_diff", "kl"])
def test_a_metric_drives_shares_and_selection(name: str) -> None:
    """What a patch recovers is the metric's own change, recomputed from plain logits."""
    runs = _runs(BUILT_IN[name])
    targets = tuple(every(runs.net, "head"))
    measured = run_plan(runs, SweepPlan(targets, "noise", "resample", resample(runs.corrupted)))
    logs = runs.clean.logits.log_softmax(-1)
    for one in measured:
        kl = one.panel[:, metrics.METRICS.index("kl_from_reference")]
        options = runs.batch.options
        if name == "kl":
            assert change(runs, one) == pytest.approx(kl, abs=1e-12)
        else:
            assert np.abs(change(runs, one) - (runs.metric_clean - one.metric)).max() == 0
            own = (logs.exp().gather(-1, options.answers) * (options.answer_weight > 0)).sum(-1)
            other = (logs.exp().gather(-1, options.distractors) * (options.distractor_weight > 0)).sum(-1)
            assert runs.metric_clean == pytest.approx((own - other).numpy(), abs=1e-12)
    assert runs.judged_by(metrics.LOGIT_DIFF).metric is metrics.LOGIT_DIFF
    assert runs.judged_by(runs.metric) is runs


def test_which_gradients_are_flat(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    found = {
        name: metrics.is_flat((runs := _runs(own_metric.find(name))).batch.options, runs.corrupted.logits)
        for name in (*BUILT_IN, f"{file}:margin", f"{file}:hard")
    }
    assert [name.rpartition(":")[2] for name, flat in found.items() if flat] == ["accuracy", "hard"]


def test_a_function_of_a_file_and_a_callable(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    first = own_metric.find(f"{file}:margin")
    assert first.name.startswith("own.py:margin#")
    assert OPTIONS.asked_by(first, LOGITS).values(LOGITS).tolist() == [1.0, 0.0]
    file.write_text(OWN.replace("amax", "amin"))
    assert own_metric.find(f"{file}:margin").name != first.name
    assert OPTIONS.asked_by(own_metric.find(metrics.logit_diff), LOGITS).values(LOGITS).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ("nonsense", "is unknown"),
        ("absent.py:f", "cannot be read"),
        ("{file}:absent", "has no function 'absent'"),
        ("{file}:wrong", "returned"),
        ("{file}:broken", "ZeroDivisionError"),
        ("{bad}:f", "cannot be executed"),
    ],
)
def test_what_is_no_metric_is_refused(asked: str, what: str, tmp_path: Path) -> None:
    file, bad = tmp_path / "own.py", tmp_path / "bad.py"
    file.write_text(OWN)
    bad.write_text("raise RuntimeError('no')")
    with pytest.raises(PairError, match=what):
        OPTIONS.asked_by(own_metric.find(asked.format(file=file, bad=bad)), LOGITS).values(LOGITS)


def test_a_run_never_says_which_file_is_executed(tmp_path: Path) -> None:
    from profiler.circuits import yaml_files

    circuit = yaml_files.circuit_of(
        {"members": ["L0H0"], "scope": {"metric": f"{tmp_path}/own.py:margin#00000000"}}, "c"
    )
    with pytest.raises(CircuitError, match="not loaded on the word of a run"):
        metric_of(circuit, None)
    assert metric_of(circuit, metrics.LOGIT_DIFF) is metrics.LOGIT_DIFF


@pytest.mark.slow
def test_accuracy_judges_and_the_logit_difference_selects(tmp_path: Path) -> None:
    """The whole experiment under a flat metric: what is stored says both."""
    file = tmp_path / "toy.jsonl"
    jsonl.write(file, patch_models.pairs(12))
    said: list[str] = []
    model = patch_models.loaded("gpt2")
    small = {"neurons": 2, "top": 2, "steps": 2, "draws": 5, "by_role": False, "pairs": 12}
    run = tmp_path / "r.duckdb"
    done = profiler.patch(
        run, file, model=model, metric="accuracy", report=lambda step: said.append(step.text), **small
    )
    assert any("logit difference selects" in text for text in said)
    plain = profiler.patch(run, file, model=model, **small)
    assert done.circuit.members == plain.circuit.members
    assert (done.circuit.scope.metric, plain.circuit.scope.metric) == ("accuracy", "logit_diff")
    assert done.frames["patch_shares"]["share"].equals(plain.frames["patch_shares"]["share"])
    with duckdb.connect(str(run), read_only=True) as connection:
        rows = connection.execute(
            "SELECT metric, selected_by, metric_unit, settings FROM patch_experiments ORDER BY metric"
        ).fetchall()
    assert [row[:3] for row in rows] == [
        ("accuracy", "logit_diff", "share of pairs"),
        ("logit_diff", "logit_diff", "logits"),
    ]
    assert json.loads(rows[0][3])["metric"] == "accuracy"
    model_metric = done.scores.filter(metric="metric_model", pair_set="discovery")["score"][0]
    assert 0 <= model_metric <= 1
