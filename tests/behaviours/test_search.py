"""Behaviours found by words."""

import pytest

from profiler.behaviours.library import library
from profiler.behaviours.search import NamedBehaviour, match
from profiler.errors import QueryError

KNOWN = [NamedBehaviour(b.name, b.description, 999 if b.priority is None else b.priority) for b in library()]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("year", "on_year"),
        ("number", "on_number"),
        ("induction", "induction"),
        ("attends to the previous token", "previous_token"),
        ("which heads attend to themselves: self", "self"),
        ("before a year", "before_year"),
        ("inside quotes", "in_quotes"),
        ("heads that copy", "copies"),
        ("first token", "first_token"),
        ("On_Year", "on_year"),
    ],
)
def test_words_mean_a_behaviour(words, name):
    assert match(words, KNOWN)[0].name == name


def test_near_ones_are_named_after_the_best():
    assert [b.name for b in match("year", KNOWN)][:2] == ["on_year", "before_year"]


@pytest.mark.parametrize("words", ["xyzzy", "", "the of to"])
def test_words_that_mean_nothing_are_told_what_there_is(words):
    with pytest.raises(QueryError, match="on_year"):
        match(words, KNOWN)
