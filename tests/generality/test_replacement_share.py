"""Shares explained, their intervals and bins; null heads; the guard on what is divided by."""

from dataclasses import replace

import numpy as np
import patch_models
import pytest
import replacement_models as built
import torch
from questions import question

from profiler.generality.replacement import explain, shares, view
from profiler.generality.replacement.copy_rules import BUILT_IN
from profiler.generality.replacement.rows import DIRECT, GONE
from profiler.generality.replacement.view import ClaimedRule
from profiler.patching.sites import Target

EXACT = 1e-9

ASKED = question("L0H0", "previous token", "replacement")


# --- shares ---


def test_shares_intervals_and_bins():
    rng = np.random.default_rng(0)
    documents = np.repeat(np.arange(60), 20)
    ablated = rng.exponential(1.0, 1200)
    replaced = 0.25 * ablated
    one = shares.share(replaced, ablated, documents, "KL")
    assert one.explained == pytest.approx(0.75) and one.lo == pytest.approx(0.75) and one.hi == pytest.approx(0.75)
    noisy = shares.share(rng.exponential(0.25, 1200), ablated, documents, "KL")
    assert noisy.lo < 0.75 < noisy.hi and 0.01 < noisy.hi - noisy.lo < 0.1
    parts = shares.bins(ablated)
    assert [len(at) for _, _, at in parts] == [1200, 600, 300, 180, 60, 48, 12]
    assert ablated[parts[-1][2]].min() >= ablated[parts[-2][2]].max()


def test_intervals_cover():
    """95 % intervals of a ratio with documents of their own level, 200 draws: between 89 and 99 % hold it."""
    rng = np.random.default_rng(1)
    documents, hits = np.repeat(np.arange(40), 10), 0
    for _ in range(200):
        level = rng.gamma(2.0, 1.0, 40)[documents]
        share = shares.share(
            0.4 * level * rng.uniform(0.5, 1.5, 400), level * rng.uniform(0.5, 1.5, 400), documents, "KL"
        )
        hits += share.lo <= 0.6 <= share.hi
    assert 178 <= hits <= 198


def test_ratios_of_nothing_are_refused():
    rng = np.random.default_rng(2)
    documents = np.repeat(np.arange(40), 10)
    tiny = shares.share(np.full(400, 1e-7), np.full(400, 1e-6), documents, "KL")
    assert tiny.explained is None and "too little" in tiny.refused
    noise = shares.share(rng.normal(0, 1, 400), rng.normal(0.02, 1, 400), documents, "net loss")
    assert noise.explained is None and ("not clear of 0" in noise.refused or "too little" in noise.refused)
    few = shares.share(np.ones(30), np.ones(30), np.arange(30) % 5, "KL")
    assert few.explained is None and few.refused == "5 documents, at least 20 are needed"


def test_nulls_are_floored_and_p_counts_the_share_itself():
    null, n = shares.null_of(0.8, [0.9, -30.0, None, 0.1])
    assert null.mean == pytest.approx((0.9 - 1 + 0.1) / 3) and n == 3 and null.p == pytest.approx(2 / 4)
    assert shares.null_of(0.8, [None])[0].mean is None


# --- the guard ---


def test_null_heads_are_as_many_as_p_needs_and_of_the_nearest_layers_first():
    net = patch_models.network("neox_sequential")
    target = Target("head", 1, 0)
    claim = ClaimedRule(target, BUILT_IN["previous_token"], "previous token")
    found = explain._candidates(net, [claim], claim, 0)
    assert [head.label for head in found] == ["L1H1", "L0H0", "L0H1", "L2H0", "L2H1"]
    twin = ClaimedRule(Target("head", 0, 1), BUILT_IN["previous_token"], "previous token")
    assert "L0H1" not in [head.label for head in explain._candidates(net, [claim, twin], claim, 0)]
    assert 1 / (1 + explain.NULLS) < 0.05 <= 1 / explain.NULLS
    fires = ClaimedRule(Target("neuron", 1, 2), BUILT_IN["class_mean"])
    neurons = explain._candidates(net, [fires], fires, 0)
    assert len(neurons) == min(explain.CANDIDATES, net.d_mlp - 1) and Target("neuron", 1, 2) not in neurons


def test_null_heads_on_a_part_of_the_text_are_those_of_all_of_it_when_it_is_all():
    """Every k-th reading; with fewer tokens asked for than there are, a part, and the claim's own share stays."""
    readings = built.texts().testing
    n = sum(int(reading.counted.sum()) for reading in readings)
    assert explain.part_of(readings, n) == tuple(readings)
    part = explain.part_of(readings, n // 2)
    assert 0 < len(part) < len(readings) and set(part) < set(readings)


def test_a_share_alone_has_no_null_and_no_guard():
    net = built.model([built.layer([built.previous_head(), built.first_head(), built.previous_head(0.7)])])
    target = Target("head", 0, 0)
    full, alone = (ClaimedRule(target, BUILT_IN["previous_token"], "x", alone=alone) for alone in (False, True))
    first, second = explain.examine(net, built.texts(), [full, alone], 2)
    assert second.shares["KL"] == first.shares["KL"]
    assert second.n_nulls["KL"] == 0 and DIRECT not in second.shares and not second.guard.rivals
    assert first.n_nulls["KL"] > 0 and DIRECT in first.shares


def test_a_component_that_others_stand_in_for_is_refused_and_shown_without_them():
    """Two heads write the same; a neuron passes on at most one of them, so that the loss of one alone is small."""
    heads = [built.previous_head(1.0), built.previous_head(1.0), built.diffuse_head(0.05)]
    net = built.model([built.layer(heads, neurons=built.VOCAB)])
    bound = built.layer([built.diffuse_head(0.0)] * 3, neurons=built.VOCAB)
    bound.w_in[built.OUT], bound.w_out[:, built.OUT] = torch.eye(built.VOCAB).double(), -torch.eye(built.VOCAB).double()
    bound.b_in[:] = -1.05  # 2 is cut down to 1.05: a head alone is worth 1, the second 0.05
    net = replace(net, layers=(net.layers[0], bound))
    found = built.explained(net, "L0H0", "previous_token")
    assert found.guard.rivals[:1] == ("L0H1",) and found.guard.without_rivals[1] > 2
    assert "stand in for it" in found.guard.refused or "make up for it" in found.guard.refused
    named = {finding.statistic: finding for finding in found.findings(ASKED)}
    assert named["explained"].value is None and named["explained"].refused == found.guard.refused
    assert named[f"explained, {GONE}"].value == pytest.approx(1, abs=EXACT)


def test_the_guard_says_which_of_the_two_it_is():
    none, some = (1.0, 0.9, 1.1), (3.0, 2.5, 3.5)
    assert view._why(none, some, ("L0H1", "L1H2")).startswith(
        "L0H1 and L1H2 stand in for it: with them gone its ablation costs 3.0"
    )
    assert view._why((0.3, 0.2, 0.4), None, ()).startswith("later components make up for it: its ablation costs 0.30")
    assert view._why(none, (2.2, 1.9, 2.6), ("L0H1",)) == ""
    assert view._why((0.4, 0.3, 0.6), none, ("L0H1",)) == ""


def test_a_component_without_stand_ins_is_not_refused():
    net = built.model([built.layer([built.previous_head(), built.first_head(), built.diffuse_head()])])
    found = built.explained(net, "L0H0", "previous_token")
    assert found.guard.refused == "" and found.guard.later[0] == pytest.approx(1)
    finding = found.findings(ASKED.on("somewhere"))[0]
    assert (finding.statistic, finding.distribution, finding.technique, finding.unit) == (
        "explained",
        "somewhere",
        "replacement",
        "documents",
    )
    assert finding.value == pytest.approx(1) and finding.n == 80 and finding.null < 0.5
