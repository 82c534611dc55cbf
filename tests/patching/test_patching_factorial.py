"""Corruptions crossed, and recall of attribution: planted responses, slow recomputations, the queries and the page."""

import dataclasses
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import patch_models
import polars as pl
import pytest
import tiny
import torch
from polars.testing import assert_frame_equal

from profiler.circuits import experiment
from profiler.database import query
from profiler.model.steps.network import forward
from profiler.pages import build
from profiler.patching import factorial
from profiler.patching.attribution import recall
from profiler.patching.batch import batch_of, trace
from profiler.patching.metrics import logit_diff
from profiler.patching.setting import PatchSettings
from profiler.patching.sites import every
from profiler.patching.sweep import intervene, resample
from profiler.prompts import pairs
from profiler.prompts.pairs.crossed import Factor, cell_name, cells
from profiler.prompts.pairs.encode import encode

pytestmark = pytest.mark.slow

VOCABULARY = tuple(range(5, 200))
FACTORS = (Factor(("a",)), Factor(("b", "c")))
MODEL = patch_models.loaded("neox_sequential")


@pytest.mark.parametrize("task", pairs.TASKS, ids=lambda task: task.name)
def test_every_task_is_crossed(task: pairs.Task) -> None:
    for split in ("train", "held_out"):
        made = pairs.cross(task.name, split, 8, 1, VOCABULARY)
        assert made == pairs.cross(task.name, split, 8, 1, VOCABULARY)
        for one in made:
            assert [pair.scheme for pair in one] == [cell_name(cell) for cell in cells(task.factors)[1:]]
            assert len({pair.corrupted for pair in one} | {one[0].clean}) == len(one) + 1
            assert len({(pair.clean, pair.answers, pair.distractors, pair.roles) for pair in one}) == 1
            assert {pair.split for pair in one} == {split}
    known = {change for factor in task.factors for change in factor.changes}
    assert set(task.schemes) <= known


def test_one_change_alone_is_the_scheme() -> None:
    """Of names and of arguments: the cell of one change against the pair that the scheme itself makes."""
    for one in pairs.cross("ioi", "train", 6, 2):
        clean = str(one[0].clean)
        by_name = {pair.scheme: str(pair.corrupted) for pair in one}
        a, b = one[0].answers[0], one[0].distractors[0]
        assert by_name["swapped"] == f"{a}".join(clean.rsplit(str(b), 1))
        assert by_name["order"].split() == _exchanged(clean.split(), str(a).strip(), str(b).strip())
        for scheme, changed in (("abc", 1), ("s_only", 2), ("io_only", 1)):
            differ = [(x, y) for x, y in zip(clean.split(), by_name[scheme].split(), strict=True) if x != y]
            assert len(differ) == changed, scheme
            assert len({y for _, y in differ}) == 1
        assert Counter(by_name["s_only + io_only"].split()) & Counter([str(a).strip(), str(b).strip()]) == Counter()
    for one in pairs.cross("docstring", "train", 6, 2):
        by_name = {pair.scheme: str(pair.corrupted) for pair in one}
        assert by_name["described + arguments"].count(",") == str(one[0].clean).count(",")
        assert by_name["answer"].split(":param")[1:] == str(one[0].clean).split(":param")[1:]


def _exchanged(words: list[str], a: str, b: str) -> list[str]:
    """The first mention of each in the other's place."""
    strip = [word.strip(".,?") for word in words]
    i, j = strip.index(a), strip.index(b)
    new = list(words)
    new[i], new[j] = words[i].replace(a, b), words[j].replace(b, a)
    return new


def test_contrasts_are_orthogonal_and_complete() -> None:
    found = factorial.contrasts(FACTORS)
    assert [(one.name, one.order) for one in found] == [("b", 1), ("c", 1), ("a", 1), ("a x b", 2), ("a x c", 2)]
    weights = np.stack([one.weights for one in found])
    products = weights @ weights.T
    assert np.abs(products - np.diag(np.diag(products))).max() < 1e-15
    assert np.abs(weights.sum(1)).max() < 1e-15
    design = pairs.find_task("ioi").factors
    assert len(factorial.contrasts(design)) == len(cells(design)) - 1 == 23


def _planted(values: dict[str, float], n: int = 12, noise: float = 0.0, seed: int = 0) -> factorial.Responses:
    """One head whose response is a sum of values of changes and of pairs of changes, and one that never responds."""
    lost = np.zeros((3, 6, n))
    for place, cell in enumerate(cells(FACTORS)):
        for key, value in values.items():
            if set(key) <= set(cell):
                lost[0, place] += value
    lost[0] += noise * np.random.default_rng(seed).standard_normal(lost[0].shape)
    lost[2] = lost[0]
    return factorial.Responses(FACTORS, ("L0H0", "L0H1", factorial.MODEL), (0, 0, None), lost, 0)


def _effects(found: factorial.Responses, component: str = "L0H0") -> dict[str, dict]:
    return {row["axis"]: row for row in factorial.factor_rows(found).filter(component=component).to_dicts()}


def test_planted_main_effects_and_interactions_come_back_exactly() -> None:
    found = _effects(_planted({"a": 2.0, "b": 3.0, "ab": 5.0}))
    # with b: (2 + 3 + 5) - 3 = 7 lost to a; without: 2, at two levels of three
    assert found["a"]["effect"] == pytest.approx((2 + 7 + 2) / 3)
    # b against nothing: 3 without a, 8 with it
    assert found["b"]["effect"] == pytest.approx((3 + 8) / 2)
    # c against the mean of nothing and b: -1.5 without a, -4 with it
    assert found["c"]["effect"] == pytest.approx((-1.5 - 4) / 2)
    assert found["a x b"]["effect"] == pytest.approx(5)
    assert found["a x c"]["effect"] == pytest.approx(-2.5)
    assert sum(row["part"] for row in found.values()) == pytest.approx(1)
    assert all(row["effect_lo"] <= row["effect"] <= row["effect_hi"] for row in found.values())
    assert found["a x b"]["p_adjusted"] < 0.05


def test_corruptions_that_add_up_have_no_interaction() -> None:
    found = _effects(_planted({"a": 2.0, "c": -1.0}))
    assert found["a"]["effect"] == pytest.approx(2)
    assert found["c"]["effect"] == pytest.approx(-1)
    assert [found[axis]["effect"] for axis in ("b", "a x b", "a x c")] == pytest.approx([0, 0, 0], abs=1e-12)
    assert found["a"]["part"] + found["c"]["part"] == pytest.approx(1)
    silent = _effects(_planted({"a": 2.0}), "L0H1")
    assert {row["part"] for row in silent.values()} == {0.0}
    assert {row["p_adjusted"] for row in silent.values()} == {1.0}


@pytest.mark.slow
def test_chance_is_told_from_an_effect() -> None:
    """Intervals of a planted effect and of interactions that are not there cover the truth in most of 80 draws."""
    covered = Counter[str]()
    for seed in range(80):
        found = _effects(_planted({"a": 2.0}, 24, noise=0.5, seed=seed))
        assert found["a"]["p_adjusted"] < 0.05
        for axis, truth in (("a", 2), ("a x b", 0), ("a x c", 0), ("b", 0)):
            covered[axis] += found[axis]["effect_lo"] <= truth <= found[axis]["effect_hi"]
    assert min(covered.values()) >= 68 and len(covered) == 4


def test_parts_beyond_two_changes_are_given_together() -> None:
    factors = (Factor(("a",)), Factor(("b",)), Factor(("c",)))
    lost = np.zeros((2, 8, 4))
    lost[:, -1] = 1.0  # responds only where all three are made
    rows = factorial.factor_rows(factorial.Responses(factors, ("L0H0", factorial.MODEL), (0, None), lost, 0))
    one = {row["axis"]: row for row in rows.filter(component="L0H0").to_dicts()}
    assert one["higher"]["part"] == pytest.approx(1 / 7)
    assert one["higher"]["effect"] is None
    assert sum(row["part"] for row in one.values()) == pytest.approx(1)


def _crossed(n: int = 5) -> list[list[pairs.TokenPair]]:
    """Toy prompts with two cells: another word, and the same with a second word changed too."""
    first = patch_models.pairs(n, 0)
    second = [p.corrupted.replace("the ", "she ", 1) for p in first]
    both = [first, [dataclasses.replace(p, corrupted=text) for p, text in zip(first, second, strict=True)]]
    made = [encode(some, tiny.tokenizer(), 0, 48).pairs for some in both]
    return [list(row) for row in zip(*made, strict=True)]


def test_responses_are_exact_patches() -> None:
    """Each against a plain forward pass with the value of the cell's run put in."""
    net, prompts = patch_models.network("gpt2"), _crossed()
    found = factorial.responses(net, (Factor(("x", "y")),), prompts)
    base = batch_of([p[0] for p in prompts], dtype=torch.float64)
    clean = logit_diff(forward(net, base.clean, ends=base.ends), base.options).numpy()
    assert found.components[-1] == factorial.MODEL and found.lost.shape == (len(found.components), 3, 5)
    assert np.abs(found.lost[:, 0]).max() == 0
    for cell in (0, 1):
        other = batch_of([p[cell] for p in prompts], dtype=torch.float64)
        run = trace(net, other.corrupted, base.ends)
        for place, target in enumerate(t for site in ("head", "mlp_out") for t in every(net, site)):
            logits = intervene(net, base.clean, base.ends, base, [target], resample(run))
            slow = clean - logit_diff(logits, base.options).numpy()
            assert found.components[place] == target.label
            assert found.lost[place, cell + 1] == pytest.approx(slow, abs=1e-12)
        assert found.lost[-1, cell + 1] == pytest.approx(
            clean - logit_diff(run.logits, base.options).numpy(), abs=1e-12
        )


def test_prompts_with_a_cell_that_cannot_be_asked_are_counted() -> None:
    made = [tuple(pair for pair in patch_models.pairs(2, seed)) for seed in range(3)]
    made.append((*patch_models.pairs(1, 7), pairs.Pair("odd", "toy", "x", "ab", "abc", ("a",), ("x",))))
    kept, dropped = factorial.usable(made, MODEL)
    assert (len(kept), dict(dropped)) == (3, {"length": 1})


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment of a task that every tokenizer can be asked."""
    out = tmp_path_factory.mktemp("crossed") / "run.duckdb"
    settings = PatchSettings("repeated-tokens", pairs=8, neurons=6, top=2, steps=2, draws=5, by_role=False)
    experiment.patch(MODEL, settings, out, lambda _: None)
    return out


@pytest.mark.slow
def test_the_query_is_made_of_the_cells(path: Path) -> None:
    """Main effects and interaction of two factors from the stored means, in plain Python."""
    lost = {(row["component"], row["cell"]): row["lost"] for row in query.run(path, "corruption_cells").to_dicts()}
    frame = query.run(path, "corruption_factors")
    assert frame.select("component", "axis").is_duplicated().sum() == 0
    assert set(frame["component"]) == {name for name, _ in lost}
    assert set(frame["axis"]) == {"first", "last", "first x last"}
    for row in frame.to_dicts():
        none, first, last, both = (lost[row["component"], c] for c in ("as it is", "first", "last", "first + last"))
        slow = {
            "first": (first - none + both - last) / 2,
            "last": (last - none + both - first) / 2,
            "first x last": both - first - last + none,
        }
        assert row["effect"] == pytest.approx(slow[row["axis"]], abs=1e-12)
        squares = {axis: value**2 * (1 if "x" not in axis else 0.25) for axis, value in slow.items()}
        assert row["part"] == pytest.approx(squares[row["axis"]] / sum(squares.values()))
        assert row["additive"] == pytest.approx((squares["first"] + squares["last"]) / sum(squares.values()))
    clear = frame.filter(pl.col("p_adjusted") < 0.05)
    for name, some in clear.group_by("component"):
        assert set(some["responds_to"]) == {some.sort("part")["axis"][-1]}, name
    one = query.run(path, "corruption_factors", component="L0H0")
    same = frame.filter(component="L0H0")
    assert_frame_equal(one, same, rel_tol=1e-12, abs_tol=1e-12)  # another plan, another order of sums
    checks = query.run(path, "pair_checks").filter(check_name="corruptions crossed")
    assert checks["finding"].to_list() == ["16 of 16 prompts in 4 combinations"]


def test_recall_against_counting_by_hand(path: Path) -> None:
    stored = query.run(path, "attribution_recall")
    keys = ["method", "direction", "component_kind", "positions", "asked", "looked_at"]
    assert stored.select(keys).is_duplicated().sum() == 0
    exact = query.run(path, "FROM patch_attribution")  # in the order in which they were measured
    for row in stored.filter(pl.col("component_kind") != "neuron").to_dicts():
        cell = exact.filter(method=row["method"], direction=row["direction"], component_kind=row["component_kind"])
        cell = cell.filter((pl.col("positions") == "all") == (row["positions"] == "all"))
        wanted, seen = (
            cell.with_row_index().sort(-pl.col(name).abs().round(6), "index").head(row[n])  # equal ones in their order
            for name, n in (("exact", "wanted"), ("estimated", "looked_at"))
        )
        both = wanted.join(seen, on=["component", "positions"], how="inner")
        assert (row["hits"], row["n"], row["unpatched"]) == (len(both), len(cell), 0)
        assert row["recall"] == row["recall_lo"] == pytest.approx(len(both) / row["wanted"])
        assert row["false_negatives_hi"] == row["wanted"] - row["hits"]


def test_recall_of_neurons_is_bounded_by_the_sample() -> None:
    """Three effects among ten looked at; none, or one, in a sample of ten of the other ninety."""

    def rows(hit: bool) -> dict:
        exact = [0.5] * 3 + [0.0] * 7 + [0.3 if hit else 0.0] + [0.0] * 9
        frame = pl.DataFrame(
            {"component": [f"L0N{i}" for i in range(20)], "exact": exact, "estimated": exact}
        ).with_columns(
            method=pl.lit("gradient"),
            direction=pl.lit("noise"),
            component_kind=pl.lit("neuron"),
            granularity=pl.lit("node"),
            value=pl.lit("resample"),
            pair_set=pl.lit("discovery"),
            positions=pl.lit("all"),
        )
        labels = frame["component"].to_list()
        return recall.recall_rows(frame, labels[:10], labels[10:], 100, 0.02).row(0, named=True)

    none, one = rows(False), rows(True)
    most = 90 * (1 - 0.05 ** (1 / 10))
    assert (none["recall"], none["hits"], none["unpatched"], none["method"]) == (1.0, 3, 80, "any")
    assert none["false_negatives_hi"] == pytest.approx(most)
    assert none["recall_lo"] == pytest.approx(3 / (3 + most))
    assert one["recall"] == pytest.approx(3 / (3 + 9))
    assert one["recall_lo"] < none["recall_lo"]


def test_the_page_shows_what_each_component_responds_to(path: Path) -> None:
    page = build.build(path, "circuit")
    assert "What it responds to</h2>" in page
    frame = query.run(path, "corruption_factors")
    drawn = build.load("circuit").circuit_charts.responses(frame).to_dict()
    rows = next(iter(drawn["datasets"].values()))
    assert {(row["component"], row["axis"]) for row in rows} == set(
        itertools.product(frame["component"].unique(), ("first", "last", "first x last"))
    )
    assert "What it misses" in page
