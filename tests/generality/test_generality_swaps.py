"""Gradient-guided swaps find planted blind spots that random swaps find at their base rate, and find none where none
are."""

import numpy as np
import planted_heads as ph
import pytest
import torch
from questions import question

from profiler.generality.edits import observe, swap_search, swaps
from profiler.generality.edits.sites import expectation
from profiler.generality.evidence.claims import claim_of
from profiler.patching.sites import parse_target

VOCABULARY, TEXTS, BLIND = ph.vocabulary(), ph.texts(40), 13


def found(net, component: str, role: str, tried: int = 8, texts=TEXTS) -> dict:
    checked = swaps.check(
        net, question(component, role, "swaps"), claim_of(role, component), texts, VOCABULARY, tried=tried
    )
    return {one.statistic: one for one in checked.findings}


def test_a_blind_spot_is_found_in_every_text_by_gradient_and_rarely_by_chance():
    break_rate = found(ph.network(blind=(BLIND,)), "L0H0", "previous token")["break rate"]
    assert break_rate.value == 1.0
    assert break_rate.null < 0.15
    assert break_rate.p < 1e-6
    assert "gradients" in break_rate.shares


def test_random_swaps_find_it_at_the_base_rate():
    """One of 50 other tokens at one of 4 to 29 offsets."""
    one = found(ph.network(blind=(BLIND,)), "L0H0", "previous token", tried=16)["break rate of a swap"]
    expected = 1 / (ph.V - 2) * np.mean([1 / n for n in range(5, 30)])
    assert one.null == pytest.approx(expected, abs=3 * np.sqrt(expected / (40 * 16)))
    assert one.value == pytest.approx(1 / 16)


@pytest.mark.slow
def test_nothing_is_broken_where_there_is_no_blind_spot():
    for component, role in (("L0H0", "previous token"), ("L1H0", "induction"), ("L0N0", "fires on numbers")):
        break_rate = found(ph.network(), component, role)["break rate"]
        assert (break_rate.value, break_rate.null) == (0.0, 0.0), role
        assert break_rate.hi < 0.15


@pytest.mark.slow
def test_a_neuron_that_misses_a_token_of_its_class_and_fires_on_one_outside():
    net = ph.network(deaf=(3,))
    misses, strays = found(net, "L0N0", "fires on numbers"), found(net, "L0N1", "fires on numbers")
    assert misses["break rate"].value == 1.0
    assert misses["fire rate"].value == 0.0
    assert strays["fire rate"].value == 1.0
    assert strays["break rate"].value == 0.0
    assert strays["fire rate"].null < 0.2


def test_the_best_swap_puts_the_blind_token_before():
    checked = swaps.check(
        ph.network(blind=(BLIND,)),
        question("L0H0", "previous token", "swaps"),
        claim_of("previous token"),
        TEXTS,
        VOCABULARY,
        tried=4,
    )
    assert all(f"⟦ w{BLIND}⟧«" in edit.after for edit in checked.edits)
    assert all(edit.shift > 0.7 for edit in checked.edits)


def subject(net, component: str, role: str, search="break") -> swap_search.SwapSearch:
    return swap_search.SwapSearch(net, parse_target(component), claim_of(role, component), VOCABULARY, search)


@pytest.mark.parametrize("component, role", [("L0H0", "previous token"), ("L1H0", "induction"), ("L1H0", "copying")])
def test_predicted_change_is_the_slope_of_the_exact_one(component, role):
    """Embeddings a little of the way from one token to another: exact change over predicted change is 1."""
    net = ph.network(blind=(BLIND,))
    asked = subject(net, component, role)
    case = swap_search.cases_of(asked, TEXTS, np.random.default_rng(0), trigger=True, fixed_end=False)[3]
    change, step = swap_search.predicted(asked, case), 1e-6
    tokens, ends = observe.padded([case.text.tokens], net.device)
    for row, token in ((0, 5), (len(case.groups) - 1, BLIND), (len(case.groups) // 2, 20)):
        moved = net.embed[tokens].clone()
        for i in case.groups[row]:
            moved[0, i] += step * (net.embed[token] - net.embed[tokens[0, i]])
        pair = [(case.text, case.here)]
        exact = asked.f(observe.see_once(net, asked.target, tokens, ends, moved), pair) - asked.f(
            observe.see_once(net, asked.target, tokens, ends), pair
        )
        assert exact.item() / step == pytest.approx(change[row, token].item(), rel=1e-3, abs=1e-8)


def test_swaps_keep_what_the_claim_says():
    net = ph.network()
    for role, search in (("induction", "break"), ("induction", "fire"), ("previous token", "break")):
        asked = subject(net, "L1H0", role, search)
        for case in swap_search.cases_of(
            asked, TEXTS[:10], np.random.default_rng(0), trigger=search == "break", fixed_end=False
        ):
            for swap in (
                *swap_search.propose(asked, case, 6),
                *swap_search.at_random(asked, case, 6, np.random.default_rng(1)),
            ):
                after = ph.EditText("", swap.on(case.text.tokens), case.text.next_token)
                assert after.tokens != case.text.tokens
                assert expectation(asked.claim, after, VOCABULARY) == case.here
                assert all(VOCABULARY.ordinary[case.text.tokens[i]] for i in swap.offsets)


def test_copies_are_swapped_together():
    text = ph.EditText("d", (0, 4, 5, 6, 4, 8, 4), 5)
    groups = swap_search.groups_of(text, expectation(claim_of("induction"), text, VOCABULARY), VOCABULARY)
    assert groups == ((2,), (3,), (5,), (1, 4, 6))


def test_confirmed_values_are_those_of_forward_passes():
    net = ph.network(blind=(BLIND,))
    asked = subject(net, "L0H0", "previous token")
    case = swap_search.cases_of(asked, TEXTS, np.random.default_rng(0), trigger=True, fixed_end=False)[0]
    swap = swap_search.Swap((case.text.end - 1,), BLIND)
    (value,) = swap_search.measured(asked, case, [swap]).after
    tokens = torch.tensor([swap.on(case.text.tokens)])
    seen = observe.see_once(net, asked.target, tokens, torch.tensor([case.text.end]))
    assert value == pytest.approx(seen.attention[0, case.text.end - 1].item())
    assert value < 0.2 < case.before


def test_too_few_texts_where_it_acts_are_refused():
    refused = found(ph.network(), "L1H1", "induction")
    assert all(one.value is None and "20 are needed" in one.refused for one in refused.values())


def test_the_search_is_the_same_again():
    first, second = (found(ph.network(blind=(BLIND,)), "L0H0", "previous token", texts=ph.texts(25)) for _ in range(2))
    assert first == second


@pytest.mark.slow
def test_the_stage_asks_every_member_and_names_what_it_cannot_ask(tmp_path):
    """The planted model on the texts of a fake run: rows of all three techniques, in the circuit's own words."""
    from dataclasses import replace

    import fake_run
    import planted_circuits

    from profiler.circuits.circuit import Circuit, Member, Scope
    from profiler.generality.counterexamples.find import CounterExample
    from profiler.generality.distributions.subject import Distributions
    from profiler.generality.edits import of_roles
    from profiler.generality.edits.results import Edit
    from profiler.generality.evidence.finding import Finding, joined

    run = fake_run.build(tmp_path / "run.duckdb", n_documents=80)
    assert len(run.tables["tokens"]) <= ph.V
    members = (
        Member("L0H0", "reads the token before (97%)"),
        Member("L1H1", "does something clever"),
        Member("L0N0"),
    )
    told: list[str] = []
    circuit = Circuit("c", "m", members, Scope("own", "none", ()))
    subject = replace(
        planted_circuits.subject(planted_circuits.NARROW),
        net=ph.network(),
        circuit=circuit,
        run=run.path,
        distributions=Distributions(()),
        report=told.append,
    )
    result = joined((of_roles.wrong_positions(subject), of_roles.edited(subject)))
    rows = (*result.findings, *result.rows)
    assert {type(row) for row in result.rows} == {CounterExample, Edit}
    assert {row.role for row in rows if isinstance(row, CounterExample | Edit)} == {members[0].role}
    (success,) = [
        r
        for r in rows
        if isinstance(r, Finding) and (r.technique, r.statistic) == ("edits", "success rate") and r.value is not None
    ]
    assert (success.subject, success.role, success.value, success.null) == ("L0H0", members[0].role, 1.0, 0.0)
    assert {r.subject for r in rows if isinstance(r, Finding) and "claim nothing" in r.refused} == {"L1H1"}
    assert {r.subject for r in rows if isinstance(r, Finding) and "no role is claimed" in r.refused} == {"L0N0"}
    assert told == ["edits and swaps of L0H0", "edits and swaps of L1H1", "edits and swaps of L0N0"]
