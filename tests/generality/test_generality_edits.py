"""Edits of texts on heads that do one known thing: claims that are true succeed always, false ones no more than
controls."""

from dataclasses import replace

import numpy as np
import planted_heads as ph
import pytest
import torch
from questions import question

from profiler import statistics
from profiler.errors import PatchError
from profiler.generality.edits import edits, observe, plans, results
from profiler.generality.edits import texts as edits_texts
from profiler.generality.edits.sites import expectation
from profiler.generality.evidence.claims import claim_of
from profiler.patching.sites import parse_target

NET, VOCABULARY, TEXTS = ph.network(), ph.vocabulary(), ph.texts(40)


def rates(component: str, role: str, texts=TEXTS, net=NET) -> dict[str, tuple[float | None, float | None]]:
    """Value and control of each statistic."""
    found = edits.check(net, question(component, role, "edits"), claim_of(role, component), texts, VOCABULARY).findings
    return {one.statistic: (one.value, one.null) for one in found}


@pytest.mark.parametrize(
    "component, role", [("L0H0", "previous token"), ("L1H0", "induction"), ("L0N0", "fires on numbers")]
)
def test_true_claims_always_succeed_and_controls_never(component, role):
    found = {name: pair for name, pair in rates(component, role).items() if name.startswith("success rate")}
    assert len(found) > 1
    assert set(found.values()) == {(1.0, 0.0)}


def test_findings_carry_interval_test_and_setting():
    first, *_ = edits.check(
        NET, question("L1H0", "induction", "edits"), claim_of("induction"), TEXTS, VOCABULARY
    ).findings
    assert (first.statistic, first.technique, first.unit, first.n) == ("success rate", "edits", "documents", 40)
    assert first.lo == pytest.approx(1 - 3 / 40)
    assert first.hi == 1.0
    assert first.p < 0.001
    assert first.choices.components == "head"
    assert first.shares == ("data corpus",)


@pytest.mark.parametrize(
    "component, role", [("L1H0", "previous token"), ("L1H0", "duplicate token"), ("L0H0", "induction")]
)
def test_wrong_claims_do_no_better_than_controls(component, role):
    value, control = rates(component, role)["success rate"]
    assert value < control + 0.1


def test_a_prefix_head_is_not_a_plain_induction_head():
    """The control plants the last token without the one before it: a head that does not mind is found out."""
    value, control = rates("L1H0", "prefix induction")["success rate: plant a copy"]
    assert value == 0.0
    assert control < 0.1  # it moves as much under both
    assert rates("L1H0", "induction")["success rate: plant a copy"] == (1.0, 0.0)


def test_edits_expose_a_fraud_that_looks_like_an_induction_head():
    """L1H1 attends to what follows FIXED. Where the last token is FIXED again, that is what an induction head would
    do."""
    looks = [
        ph.EditText(t.document, (*t.tokens[:10], ph.FIXED, *t.tokens[10:12], ph.FIXED), 1)
        for t in ph.texts(40, words=ph.V)
    ]
    looks = [t for t in looks if t.tokens.count(ph.FIXED) == 2]
    seen = observe.see(NET, parse_target("L1H1"), [t.tokens for t in looks])
    targets = [expectation(claim_of("induction"), t, VOCABULARY).targets for t in looks]
    assert observe.mass(seen.attention, targets).min() > 0.9
    found = rates("L1H1", "induction")
    assert found["success rate"][0] < 0.1
    assert found["success rate: plant a copy"][0] == 0.0


def test_edits_and_controls_change_as_many_tokens_and_keep_the_claim_apart():
    for role in ("induction", "previous token", "duplicate token", "prefix induction"):
        claim = claim_of(role)
        made = plans.plans(claim, TEXTS, VOCABULARY)
        assert made
        for plan in made:
            assert len(plan.changed) >= 1
            if "prefix" not in role:
                assert len(plan.changed) == len(plan.control_changed), plan.operation
            assert plan.text.end not in (*plan.changed, *plan.control_changed)
            edited, control = (ph.EditText("", row, plan.text.next_token) for row in (plan.edited, plan.control))
            before, after, same = (expectation(claim, t, VOCABULARY) for t in (plan.text, edited, control))
            if "remove" in plan.operation:
                assert before.trigger and not after.trigger
                assert same == before
            if "plant" in plan.operation:
                assert not before.trigger and after.trigger and not same.trigger


def test_replacements_are_as_frequent():
    bands = np.arange(ph.V) // 5
    vocabulary = edits_texts.Vocabulary(VOCABULARY.texts, VOCABULARY.class_ids, bands, VOCABULARY.ordinary, {})
    for plan in plans.plans(claim_of("previous token"), ph.texts(30, length=12), vocabulary):
        for i, row in ((plan.changed[0], plan.edited), (plan.control_changed[0], plan.control)):
            free = set(np.nonzero(bands == bands[plan.text.tokens[i]])[0]) - {
                *plan.text.tokens,
                plan.text.next_token,
                0,
            }
            assert not free or row[i] in free


def test_attention_seen_at_the_last_token_is_that_of_each_text_alone():
    rows = [t.tokens[:n] for t, n in zip(TEXTS, (5, 9, 30, 7, 12), strict=False)]
    for component in ("L0H0", "L1H0", "L0N0"):
        target = parse_target(component)
        together = observe.see(NET, target, rows, batch=2)
        for i, row in enumerate(rows):
            alone = observe.see(NET, target, [row])
            torch.testing.assert_close(together.norm[i], alone.norm[0])
            torch.testing.assert_close(together.attention[i, : alone.attention.shape[1]], alone.attention[0])
            assert not together.attention[i, alone.attention.shape[1] :].any()


def test_layers_after_the_component_are_run_only_for_the_final_residual_stream():
    import patch_models

    net, rows = patch_models.network("neox_sequential"), [[1, 5, 9, 2, 7], [3, 3, 8]]
    for component in ("L0H1", "L1H0", "L2H1", "L1N3"):
        whole, short = (
            observe.see(net, parse_target(component), rows, residual=residual) for residual in (True, False)
        )
        for name in ("attention", "values", "mixed", "norm"):
            torch.testing.assert_close(getattr(short, name), getattr(whole, name), rtol=0, atol=1e-12)
        assert short.residual.shape == (2, 0) and whole.residual.shape == (2, net.d_model)


def test_logit_written_is_the_recorded_definition():
    """On a real form with norms: what one component writes for a token, against the difference without it."""
    import patch_models

    net = patch_models.network("gpt2")
    rows = [[1, 5, 9, 2, 7], [3, 3, 8]]
    for component in ("L1H1", "L1N3"):
        target = parse_target(component)
        seen = observe.see(net, target, rows)
        tokens = torch.tensor([4, 11])
        w = net.plain.layers[1]
        write = seen.mixed @ w.w_o[1] if target.site == "head" else seen.mixed * w.w_out[3]
        centred = (
            (write - write.mean(-1, keepdim=True))
            / net.plain.norm_final.scale(seen.residual)
            * net.plain.norm_final.weight
        )
        logits = centred @ net.plain.unembed
        wanted = logits.gather(1, tokens[:, None])[:, 0] - logits.mean(-1)
        torch.testing.assert_close(observe.logit_written(net, target, seen, tokens), wanted)


def test_too_few_texts_are_refused_with_a_reason():
    found = edits.check(
        NET, question("L1H0", "induction", "edits"), claim_of("induction"), TEXTS[:5], VOCABULARY
    ).findings
    assert all(one.value is None and "20 are needed" in one.refused for one in found)


@pytest.mark.parametrize(
    "role, why", [("backup name mover", "self-repair"), ("first token", "special"), ("copy suppression", "predict")]
)
def test_claims_that_no_edit_can_test_are_refused(role, why):
    (only,) = edits.check(NET, question("L1H0", role, "edits"), claim_of(role), TEXTS, VOCABULARY).findings
    assert only.value is None
    assert why in only.refused


def test_a_claim_about_neurons_is_no_claim_about_a_head():
    with pytest.raises(PatchError, match="L1H0 is a head"):
        edits.check(NET, question("L1H0", "fires", "edits"), claim_of("fires on numbers", "L0N0"), TEXTS, VOCABULARY)


def test_hostile_text_stays_data():
    nasty = [f"<script>{i}</script>'; DROP TABLE runs; --" for i in range(ph.V)]
    vocabulary = edits_texts.Vocabulary(
        tuple(nasty), *(getattr(VOCABULARY, n) for n in ("class_ids", "bands", "ordinary", "properties"))
    )
    first, *_ = edits.check(
        NET, question("L0H0", "previous token", "edits"), claim_of("previous token"), TEXTS, vocabulary
    ).edits
    assert "<script>" in first.before and "DROP TABLE" in first.after
    assert results.spell((3, 4, 5), (1,), VOCABULARY) == " w3⟦ w4⟧« w5»"
    assert results.spell(tuple(range(1, 30)), (2,), VOCABULARY, 1) == "… w2⟦ w3⟧ w4… w28« w29»"


def test_mcnemar_against_its_definition():
    first, second = np.array([1.0, 1, 1, 0, 1, 0]), np.array([0.0, 0, 0, 1, 1, 0])
    assert statistics.mcnemar_p(first, second) == pytest.approx((4 + 1) / 16)
    assert statistics.mcnemar_p(second, second) == 1.0


NAMES = np.isin(np.arange(ph.V), range(20, 27))
NAMED = replace(VOCABULARY, properties={"name_like": NAMES}, special=np.arange(ph.V) == 0)
PROMPTS = tuple(
    edits_texts.EditText(f"p{i}", (0, 1, 20 + i % 3, 2, 23 + i % 4, 3, 4, 20 + i % 3, 5, 6), 23 + i % 4)
    for i in range(12)
)
"""Two names, the first again, and the second due: tokens 1 to 6 are words, and 7 to 19 stand in none of these."""


@pytest.mark.parametrize("role", ["name mover", "S-inhibition"])
def test_names_of_prompts_become_names_of_prompts_and_so_do_the_controls(role):
    vocabulary = NAMED.of_texts(PROMPTS)
    made = plans.plans(claim_of(role), PROMPTS, vocabulary, fixed_end=True)
    assert len(made) == len(PROMPTS)
    for plan in made:
        assert plan.changed == ((4,) if role == "name mover" else (2,))
        assert plan.control_changed == ((2,) if role == "name mover" else (4,))
        put = {plan.edited[plan.changed[0]], plan.control[plan.control_changed[0]]}
        assert all(NAMES[token] for token in put) and not put & set(plan.text.tokens)


def test_the_vocabulary_of_prompts_is_what_stands_in_them():
    """A corpus may not hold the prompts' names at all; then they are still replaced, and replace each other."""
    poor = replace(NAMED, ordinary=np.isin(np.arange(ph.V), range(1, 20)))
    assert not plans.plans(claim_of("name mover"), PROMPTS, poor, fixed_end=True)
    vocabulary = poor.of_texts(PROMPTS)
    assert set(np.nonzero(vocabulary.ordinary)[0]) == {*range(1, 7), *range(20, 27)}
    assert (
        vocabulary.bands[1] == 3
        and vocabulary.bands[20] == 3
        and vocabulary.bands[23] == 2
        and vocabulary.bands[9] == 0
    )
    assert edits_texts.counts_of(PROMPTS, ph.V)[23] == 6
