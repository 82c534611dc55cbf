"""Estimates held against ablations, recall with its bounds, self-repair, and ways that add up."""

from pathlib import Path

import effect_models
import numpy as np
import polars as pl
import pytest
import torch

from profiler.effects import checks, methods, repair, routes
from profiler.effects.ablation import AblationCase, ablate
from profiler.effects.settings import EffectSettings
from profiler.model.load import load_model
from profiler.truth.circuit import ModelSize
from profiler.truth.directory import build
from profiler.truth.models import hand_models

TINY = ModelSize("tiny", 1, 1, 1, 0)


def test_cases_of_a_linear_model_agree_with_their_estimates():
    model = effect_models.linear()
    layout, windows = effect_models.windows(model, effect_models.random_ids(4, 12))
    net, _, batch = effect_models.batch_of(model, effect_models.random_ids(4, 12))
    settings = EffectSettings(methods=("gradient", "integrated"), checked=8, steps=2)
    made = checks.check(net, layout, windows, methods.references(net, (batch,)), settings)
    np.testing.assert_allclose(made["estimated"], made["exact"], rtol=1e-5, atol=1e-6)
    agreement = checks.reliability_rows(made)
    assert agreement["reliable"].all()
    assert {*agreement["kind"]} == {"head", "neuron"} and {*agreement["layer"]} == {None, 0, 1}
    assert {*made.filter(kind="neuron")["method"]} == {"gradient"}, "integrated is of heads"


def test_weights_of_the_cases_add_up_to_all_units_at_all_positions():
    model = effect_models.loaded("neox")
    layout, windows = effect_models.windows(model, effect_models.random_ids(3, 12))
    net, _, batch = effect_models.batch_of(model, effect_models.random_ids(3, 12))
    made = checks.check(
        net, layout, windows, methods.references(net, (batch,)), EffectSettings(methods=("gradient",), checked=8)
    ).filter(value="mean")
    n = sum(int(batch.ordinary.sum()) * block.units for block in net.writers)
    assert made["weight"].sum() == pytest.approx(n)
    assert 6 * len(net.writers) <= made.height <= 8 * len(net.writers), "small strata are drawn whole"
    assert {*made["stratum"]} == {0, 1, 2}


def cases(exact, stratum, weight=10.0):
    columns = {"exact": exact, "estimated": exact, "stratum": stratum, "weight": [weight] * len(exact)}
    named = {"method": "gradient", "drawn_by": "gradient", "value": "mean", "kind": "head", "layer": 0}
    return pl.DataFrame(columns).with_columns(**{name: pl.lit(value) for name, value in named.items()})


def test_recall_counts_what_the_largest_estimates_miss():
    """Two of four in the first stratum, one of four in the second, none of eight in the third."""
    made = cases([1.0, 0.5, 0.0, 0.0] + [0.3, 0.0, 0.0, 0.0] + [0.0] * 8, [0] * 4 + [1] * 4 + [2] * 8)
    first, second = checks.recall_rows(made).sort("looked_at").to_dicts()
    assert (first["hits"], first["false_negatives"], second["hits"], second["false_negatives"]) == pytest.approx(
        (20, 10, 30, 0)
    )
    assert first["recall"] == pytest.approx(2 / 3) and second["recall"] == 1
    upper = 1 - 0.05 ** (1 / 8)  # none of eight, one-sided
    assert second["false_negatives_hi"] == pytest.approx(80 * upper)
    assert 0 < first["recall_lo"] < first["recall"] and second["recall_lo"] < 1


def test_nothing_measured_is_no_recall():
    (row, _) = checks.recall_rows(cases([0.0] * 6, [0, 0, 1, 1, 2, 2])).to_dicts()
    assert row["recall"] is None and row["hits"] == 0


def test_ways_add_up_and_leave_nothing():
    """Of every head; the ways are closed by what the same gradients say of the head itself."""
    for form in ("gpt2", "neox", "llama"):
        model = effect_models.loaded(form)
        net, _, batch = effect_models.batch_of(model, effect_models.random_ids(2, 10))
        references = methods.references(net, (batch,))
        heads = [(block, unit) for block in net.writers if block.kind == "head" for unit in range(block.units)]
        frame = routes.routes(model, [batch], heads, references, 3)
        whole = {f.block: f for f in methods.effects(net, batch, "integrated", references, 3) if f.reference == "mean"}
        for block, unit in heads:
            own = frame.filter(component=f"L{block.layer}H{unit}")
            expected = float(whole[block].total["logit"][batch.ordinary][:, unit].mean())
            assert own["effect"].sum() == pytest.approx(expected, rel=1e-4, abs=1e-6), (form, block, unit)
            rest = own.filter(through="other")["size"].item()
            assert rest < 1e-4 * own["size"].sum(), (form, block, unit)


@pytest.fixture(scope="module")
def gates(tmp_path_factory):
    """Hand-built models by name, each with the windows of its clean discovery prompts."""

    def make(name: str):
        folder: Path = tmp_path_factory.mktemp(name)
        built = build(next(m for m in hand_models() if m.name == name), folder, TINY, pairs=8)
        model = load_model(effect_models.settings(folder, prepend_bos=True))
        pairs = built.prompts[0].pairs
        ids = [model.encode(pair.clean) + model.encode(pair.answers[0]) for pair in pairs]
        return built, model, effect_models.windows(model, ids)

    return make


def last(window) -> int:
    return window.n_positions - 1


def ablated(model, layout, windows, label):
    """Real effects of a head's removal at the last position of each window, on that position alone."""
    from profiler.model.gradients.network import EffectNetwork

    net = EffectNetwork(model)
    layer, unit = map(int, label[1:].split("H"))
    block = next(block for block in net.writers if block.kind == "head" and block.layer == layer)
    zero = torch.zeros(net.writers[block].width, dtype=torch.float64)
    return [
        e.own
        for e in ablate(net, layout, [AblationCase(block, unit, window, last(window), zero) for window in windows])
    ]


def test_both_inputs_of_an_and_are_needed_and_either_of_an_or_is_not(gates):
    for name, needed in (("and", True), ("or", False)):
        built, model, (layout, windows) = gates(name)
        for label in built.truth.members[:2]:
            effects = np.array(ablated(model, layout, windows, label))
            assert (effects.mean() > 0.5) == needed, (name, label, effects)


def test_a_serial_backup_brings_back_what_is_removed(gates):
    built, model, (layout, windows) = gates("serial-backup")
    from profiler.model.gradients.network import EffectNetwork

    net = EffectNetwork(model)
    means = {b: torch.zeros(b.units, w.width, dtype=torch.float64) for b, w in net.writers.items()}
    frame = repair.repair(net, layout, windows, means, n=12, seed=0)
    first = min(built.truth.members)
    row = frame.filter(component=first).to_dicts()[0]
    assert row["repaired"] == pytest.approx(1, abs=0.1), (first, frame)
    assert row["n"] == 12 and row["direct"] > 0
