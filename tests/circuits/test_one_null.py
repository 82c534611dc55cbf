"""`patch` and `check` compare a circuit with random ones by one definition; what does nothing is never significant."""

import dataclasses

import numpy as np
import patch_models
import planted_circuits as planted
import pytest
from function_evaluator import FunctionEvaluator

from profiler import statistics
from profiler.circuits import choose, circuit_tables, nodes
from profiler.circuits.circuit import Circuit, Scope, members_of
from profiler.circuits.scoring import null
from profiler.generality.faithfulness import prompts
from profiler.patching.setting import prepare
from profiler.prompts.pairs import Encoded


def test_one_of_two_heads_that_stand_in_for_each_other_is_not_as_good_as_both() -> None:
    """Eight of the fourteen other pairs have one of the two: as faithful, and nothing is lost without them."""
    either = FunctionEvaluator(6, lambda s: float(bool(s & {0, 1})))
    found = null.random_circuits(either, np.arange(6) < 2)
    assert (len(found.faithfulness), found.alternatives) == (14, 14)
    assert int((np.abs(1 - found.faithfulness) < 1e-9).sum()) == 8
    assert found.p == found.p_least == 1 / 15
    half = null.random_circuits(either, np.arange(6) < 1)
    assert half.p == (1 + 1) / (1 + 5)  # the other half is as good as this one


def test_to_lose_more_than_everything_is_no_better() -> None:
    assert null.shortfall(np.ones(2), np.array([1.3, 1.0])).tolist() == [0, 0]
    assert null.shortfall(np.array([0.9, 1.4, 1.0]), np.array([1.0, np.nan, 0.2])) == pytest.approx([0.1, 0.4, 0.8])


@pytest.mark.parametrize(("name", "heads"), [("or", ("L0H0",)), ("sum", ("L0H0",)), ("serial", ("L0H0", "L1H0"))])
def test_patch_and_check_give_the_same_p(name: str, heads: tuple[str, ...]) -> None:
    """On the same pairs, beside the same circuits."""
    pairs = Encoded(patch_models.gate_batch(24).pairs, ())
    runs = prepare("discovery", patch_models.GATES[name](), pairs)
    circuit = Circuit("c", "toy", members_of(heads), Scope("gate", "24", ("off",), intact="MLPs"))
    base = planted.subject(planted.GENERALISES, draws=9)
    subject = dataclasses.replace(base, net=runs.net, circuit=circuit)
    evaluate = circuit_tables.evaluator(runs, circuit, mlps=False)
    keep = evaluate.mask(nodes.members_nodes(circuit))
    others = prompts.matched(evaluate.nodes, keep, 9, subject.settings.seed)
    checked = prompts.random_circuits(subject, runs, keep)
    patched = null.beside(evaluate, keep, others)
    assert prompts.closeness_null(checked.faithful, checked.necessity).p == patched.p
    assert patched.faithfulness == pytest.approx(checked.faithful[1:], abs=1e-9)


def test_only_what_is_as_near_is_asked_what_is_lost_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, plain = [], FunctionEvaluator.necessity
    monkeypatch.setattr(FunctionEvaluator, "necessity", lambda self, sets: asked.append(len(sets)) or plain(self, sets))
    null.random_circuits(FunctionEvaluator(20, lambda s: float(s >= {0, 1, 2})), np.arange(20) < 3, draws=99)
    assert asked == [1]


def test_what_stands_in_is_looked_for_only_where_something_is_missing() -> None:
    """A complete circuit costs no pass of other nodes; before, each of them was run."""
    sets: list[frozenset[int]] = []
    evaluate = FunctionEvaluator(50, lambda s: sets.append(frozenset(s)) or float(0 in s))
    choose.complete(evaluate, np.arange(50) < 1, range(50))
    assert all(len(one) in (0, 1, 49, 50) for one in sets)


# --- rounding is no effect ---


def test_what_changes_the_last_bits_always_to_one_side_has_no_effect() -> None:
    """The backup of a serial pair changes nothing alone but rounding, and had p .0015, or .11 beside inert nodes."""
    rng = np.random.default_rng(0)
    values = np.stack([1e-9 + 1e-11 * rng.random(20), 1.0 + rng.random(20)])
    found = statistics.flip_tests(values)
    assert found.adjusted[0] == 1 and found.adjusted[1] < 0.05
    assert statistics.sign_flip_p(values[0]) == 1
    effects = choose.Effects(values * 1e-7, np.zeros((2, 20)), np.full(20, 1e-7))
    assert choose.candidates(effects) == [1]  # shares are tested, so the unit of the metric does not matter
    assert choose.tests(effects).adjusted[0] == 1


@pytest.mark.parametrize("unit", [1.0, 1e-9, 1e6])
def test_whether_there_is_something_to_explain_does_not_depend_on_the_unit(unit: float) -> None:
    clean = unit * (3.0 + np.random.default_rng(1).random(20))
    assert statistics.is_higher(clean, np.zeros(20)) and statistics.is_higher(clean, clean - unit)
    assert not statistics.is_higher(clean, clean - 1e-8 * unit)
    assert not statistics.is_higher(clean - unit, clean)
    assert not statistics.is_higher(np.zeros(20), np.zeros(20))
