"""Near duplicates among examples, and labels in tables."""

from collections import Counter

import polars as pl

from profiler.pages.component import headline, repeats

LICENCE = "permission is hereby granted free of charge to any person obtaining a copy".split()


def frame(*contexts: list[str]) -> pl.DataFrame:
    return pl.DataFrame({"rank": range(1, len(contexts) + 1), "tokens": contexts})


def test_the_first_of_near_duplicates_stays_in_its_order():
    other = "def make ( self , name ) : return name . upper ( )".split()
    shifted = [*LICENCE[2:], "of", "this"]
    found = repeats.distinct(frame(LICENCE, other, shifted, LICENCE, other[:5]))
    assert found["rank"].to_list() == [1, 2, 5]


def test_how_alike_is_a_share_of_the_longer():
    bag = Counter(LICENCE)
    half = Counter(LICENCE[: len(LICENCE) // 2])
    assert repeats.are_alike(bag, bag) and not repeats.are_alike(bag, half)
    seven = (Counter("aaaaaaabcd"), Counter("aaaaaaaxyz"))
    assert repeats.are_alike(*seven)
    assert not repeats.are_alike(Counter("aaaaaabcde"), Counter("aaaaaavxyz"))


def test_contexts_without_tokens_are_compared_by_words():
    rows = {"context_before": ["a b c", "a b c", "x y"], "context_token": ["d"] * 3, "context_after": ["e", "e", None]}
    assert len(repeats.distinct(pl.DataFrame(rows))) == 2
    assert repeats.distinct(pl.DataFrame(rows).clear()).is_empty()


def behaviours(**changes: object) -> pl.DataFrame:
    row = {"component": "L2H1", "behaviour": "induction", "family": "attention", "coverage": 0.66}
    row |= {"coverage_lo": 0.62, "coverage_hi": 0.7, "random": 0.01, "scrambled_hi": 0.3, "n_held": 200}
    return pl.DataFrame([row | changes])


def test_a_table_says_what_a_component_does_or_nothing():
    overview = pl.DataFrame({"component": ["L0H0", "L2H1", "L0N1"], "kind": ["head", "head", "neuron"]})
    asked = []

    def answer(kind: str, n: int) -> pl.DataFrame:
        asked.append((kind, n))
        return behaviours() if kind == "head" else behaviours(component="L0N1", coverage=0.3)

    labelled = headline.with_labels(overview, answer)
    assert asked == [("head", 2), ("neuron", 1)]
    assert labelled["component"].to_list() == overview["component"].to_list()
    none, label, weak = labelled["label"]
    assert none is None and weak is None and label.startswith("Induction: 66")
    assert headline.with_labels(overview.clear(), answer).columns == ["component", "kind", "label"]
