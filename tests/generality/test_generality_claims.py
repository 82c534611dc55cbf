"""Words of roles become the claims they are known for, and every claim's SQL binds to the columns it may use."""

import duckdb
import fake_run
import pytest

from profiler.behaviours.library import library
from profiler.behaviours.token_properties import PROPERTIES
from profiler.generality.evidence import claims

MEANT = {
    "Induction head": "induction",
    "long-prefix induction": "prefix induction",
    "previous token": "previous token",
    "at S1 attends to the token before (97%)": "previous token",
    "duplicate-token head": "duplicate token",
    "at S2 attends to S1 (93%)": "duplicate token",
    "S-Inhibition": "S-inhibition",
    "at end attends to S2 (60%)": "S-inhibition",
    "name mover": "name mover",
    "at end attends to IO (55%)": "name mover",
    "backup name mover": "backup name mover",
    "negative name mover": "copy suppression",
    "copy suppression": "copy suppression",
    "argument mover": "copying",
    "at end attends to itself (80%)": "current token",
    "at end attends to the first token (99%)": "first token",
}


@pytest.mark.parametrize("words", MEANT)
def test_words_of_heads(words):
    assert claims.claim_of(words, "L1H2").role == MEANT[words]


def test_words_of_neurons():
    assert claims.claim_of("fires on numbers", "L0N3").token_property == "number"
    assert claims.claim_of("number word neuron", "L0N3").token_property == "number_word"
    before = claims.claim_of("before a sentence end", "L0N3")
    assert before.trigger == "list_contains(next_properties, 'sentence_end')"
    assert before.behaviour == "before_sentence_end"


def test_words_that_claim_nothing_known():
    assert claims.claim_of("", "L0H0") is None
    assert claims.claim_of("does something clever", "L0H0") is None
    assert claims.claim_of("induction", "L0N0") is None


def test_behaviours_named_by_claims_are_those_of_the_library():
    known = {behaviour.name for behaviour in library()}
    asked = [*claims.HEAD_CLAIMS, *(claims.on_token(p.name, next_token=n) for p in PROPERTIES for n in (False, True))]
    assert {claim.behaviour for claim in asked} - {""} <= known


def test_acting_is_what_the_library_calls_the_behaviour():
    by_name = {behaviour.name: behaviour for behaviour in library()}
    for claim in claims.HEAD_CLAIMS:
        if claim.mass:
            assert by_name[claim.behaviour].condition == claim.acts


def test_sql_binds(tmp_path):
    run = fake_run.build(tmp_path / "run.duckdb")
    types = {"attended": "''", "attended_properties": "['']", "strength_of_firing": "0.5"}
    more = ", ".join(f"{types.get(name, 'true')} AS {name}" for name in claims.MORE)
    with duckdb.connect(str(run.path), read_only=True) as con:
        for claim in (*claims.HEAD_CLAIMS, claims.on_token("number"), claims.on_token("year", next_token=True)):
            row = f"SELECT {claim.trigger}, {claim.acts}, ({claim.strength})::DOUBLE, {claim.expected_by}"
            con.execute(f"{row} FROM (SELECT *, {more} FROM {claim.kind}_facts) LIMIT 1")
