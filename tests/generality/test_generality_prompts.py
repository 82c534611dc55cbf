"""Distributions of prompts: variants change one thing and keep the rest; triggers are found where they are and nowhere
else."""

import random
import re

import numpy as np
import pytest

from profiler.errors import QueryError
from profiler.generality.distributions import build, triggers
from profiler.generality.distributions.variants import variants
from profiler.patching.setting import PatchSettings
from profiler.prompts.pairs import make
from profiler.prompts.pairs.pair import Pair
from profiler.prompts.tasks import words


def of(task: str, scheme: str | None = None, n: int = 12, split: str = "train") -> dict[str, tuple[Pair, ...]]:
    """Pairs by name of the distribution."""
    return {v.name: v.pairs for v in variants(PatchSettings(task, scheme, split=split), n, ())}


IOI, DOCSTRING = of("ioi"), of("docstring")


def names_in(text: str) -> list[str]:
    """Every name of either split, in order."""
    known = {*words.names("train"), *words.names("held_out")}
    return [word for word in re.findall(r"[A-Z][a-z]+", text) if word in known]


def test_distributions_are_in_order_from_narrow_to_wide():
    assert list(IOI)[:3] == ["fresh prompts", "held-out names", "held-out templates"]
    assert {"extra mention", "two extra mentions", "distractor", "longer gap", "word order", "lower case"} < set(IOI)
    assert {"extra mention", "distractor", "longer gap", "word order"} < set(DOCSTRING)


def test_held_out_names_and_templates_change_one_thing_each():
    for pair in IOI["held-out names"]:
        assert set(names_in(pair.clean)) <= set(words.names("held_out")) and pair.template.startswith("train/")
    for pair in IOI["held-out templates"]:
        assert set(names_in(pair.clean)) <= set(words.names("train")) and pair.template.startswith("held_out/")


def test_a_circuit_found_on_held_out_words_is_tested_on_the_others():
    for pair in of("ioi", split="held_out")["held-out names"]:
        assert set(names_in(pair.clean)) <= set(words.names("train")) and pair.template.startswith("held_out/")


def test_discovery_and_fresh_prompts_differ():
    discovery = {pair.clean for pair in make("ioi", "abc", "train", 48, 0)}
    assert not discovery & {pair.clean for pair in of("ioi", n=48)["fresh prompts"]}


@pytest.mark.parametrize(
    ("distribution", "answers", "subjects"),
    [
        ("fresh prompts", 1, 2),
        ("extra mention", 2, 2),
        ("two extra mentions", 3, 2),
        ("distractor", 1, 2),
        ("longer gap", 1, 2),
        ("word order", 1, 2),
    ],
)
def test_mentions_of_answer_and_subject(distribution, answers, subjects):
    for pair in IOI[distribution]:
        found = names_in(pair.clean)
        assert (found.count(pair.answers[0].strip()), found.count(pair.distractors[0].strip())) == (answers, subjects)
        assert found[-1] == pair.distractors[0].strip()  # the subject is named last
        assert len(set(found)) == 2 + (distribution == "distractor")


def test_the_third_person_is_a_distractor_too():
    for pair in IOI["distractor"]:
        assert set(names_in(pair.clean)) == {option.strip() for option in (*pair.answers, *pair.distractors)}


@pytest.mark.parametrize("distribution", [name for name in IOI if name != "lower case"])
def test_the_corruption_is_the_schemes_own(distribution):
    """abc: the last name alone is another one; words around it stay."""
    for pair in IOI[distribution]:
        assert re.sub(r"[A-Z][a-z]+", "_", pair.clean) == re.sub(r"[A-Z][a-z]+", "_", pair.corrupted)
        clean, corrupted = names_in(pair.clean), names_in(pair.corrupted)
        assert clean[:-1] == corrupted[:-1] and corrupted[-1] not in clean


def test_swapped_pairs_of_a_variant_mention_the_new_answer_again():
    for pair in of("ioi", "swapped")["extra mention"]:
        assert names_in(pair.corrupted)[-1] == pair.answers[0].strip()


def test_small_letters_everywhere():
    for pair in IOI["lower case"]:
        assert pair.clean == pair.clean.lower() and pair.answers[0] == pair.answers[0].lower()


def test_roles_of_variants_stand_on_the_words_they_name():
    for pairs in IOI.values():
        for pair in pairs:
            roles = {role: pair.clean[a:b] for role, (a, b) in pair.roles}
            named = {role: word for role, word in roles.items() if not role.startswith("extra")}
            assert named == {"IO": pair.answers[0], "S1": pair.distractors[0], "S2": pair.distractors[0]}
    for distribution in DOCSTRING:
        for pair in DOCSTRING[distribution]:
            roles = {role: pair.clean[a:b] for role, (a, b) in pair.roles}
            assert roles["A_def"].strip("( ") == pair.answers[0].strip(), distribution
            assert roles["B_doc"].strip() == roles["B_def"].strip("( ") and roles["param"][1:] == "param"


def signature(text: str) -> list[str]:
    return [part.split(":")[0] for part in re.search(r"\(\w+, (.*?)\)( ->|:)", text)[1].split(", ")]


def test_docstring_variants_still_ask_for_the_next_argument():
    for distribution, pairs in DOCSTRING.items():
        for pair in pairs:
            asked = int(pair.stratum("described"))
            described = re.findall(r"[:@]param (\w+):", pair.clean)
            assert signature(pair.clean)[:asked] == described, distribution
            assert f" {signature(pair.clean)[asked]}" == pair.answers[0], distribution
            changed = [a != b for a, b in zip(signature(pair.clean), signature(pair.corrupted), strict=True)]
            assert changed == [i == asked for i in range(len(changed))], distribution
            assert re.search(r"[:@]param$", pair.clean), distribution


def test_an_extra_mention_goes_with_the_answer():
    for pair in DOCSTRING["extra mention"]:
        for text in (pair.clean, pair.corrupted):
            assert f"Uses {signature(text)[int(pair.stratum('described'))]}." in text


def test_a_task_without_variants_has_its_held_out_split():
    assert list(of("sva")) == ["fresh prompts", "held-out words and templates"]


# --- triggers ---


def read(text: str) -> triggers.Passage:
    """A passage whose tokens are words with the blank before them, and single marks; the vocabulary is its own."""
    parts = re.findall(r" ?\w+|\s|[^\w\s]", text)
    assert "".join(parts) == text
    vocabulary = list(dict.fromkeys(parts))
    return triggers.passage(np.array([vocabulary.index(part) for part in parts]), vocabulary)


def spelt(passage: triggers.Passage, span: tuple[int, int]) -> str:
    return passage.text[passage.begins[span[0]] : passage.begins[span[1]]]


def test_people_in_text_are_found_with_their_places():
    passage = read("then Alice and Robert met. Soon Robert thanked Alice again")
    (one,) = [t for t in triggers.people(passage) if t.follows]
    assert {role: spelt(passage, span) for role, span in one.roles} == {
        "IO": " Alice",
        "S1": " Robert",
        "S2": " Robert",
    }
    assert spelt(passage, (one.end, one.end + 1)) == " thanked"
    assert one.answer == int(passage.ids[passage.token_at[passage.text.index(" Alice")]])


@pytest.mark.parametrize(
    "text",
    [
        "then Alice and Robert met. Soon Robert thanked Maria again",  # followed by neither
        "then Alice met Alice. Soon Robert thanked Alice again",  # the last one is not the repeated one
        "then Alice and Maria met. Soon Robert thanked Alice again",  # three people
        "then Alice and The met. Soon The thanked Alice again",  # a function word is no name
        "then Alice and Robert met. " + "so it was " * 30 + "and Robert thanked Alice again",  # too far
    ],
)
def test_what_is_no_trigger_is_not_found(text):
    assert triggers.people(read(text)) == []


def test_a_repeated_name_that_follows_is_a_trigger_that_speaks_against_the_claim():
    (one,) = triggers.people(read("then Alice and Robert met. Soon Robert asked what Robert saw"))
    assert not one.follows


CODE = '''
def take(self, size, colour="red", *, last=None):
    """Take it.

    :param size: how much
    :param colour: which
    :param last: when
    """
def other(a):
    :param missing: not in the signature
'''


def test_arguments_in_text_are_found_in_their_order():
    passage = read(CODE)
    found = triggers.code(passage)
    answers = [passage.text[passage.begins[one.end + 1] : passage.begins[one.end + 2]] for one in found]
    assert answers == [" size", " colour", " last"]
    assert all(spelt(passage, (one.end, one.end + 1)) == "param" for one in found)
    assert [spelt(passage, dict(one.roles)["A_def"]).strip() for one in found] == ["size", "colour", "last"]


def test_arguments_out_of_order_are_none():
    assert triggers.code(read("def f(self, first, second):\n    :param second: no\n")) == []


def test_repeated_text_is_found_where_it_goes_on_as_before():
    passage = read(" a b c x y a b c z a b q")
    found = triggers.repeated(passage)
    assert [(spelt(passage, (one.end, one.end + 1)), one.answer) for one in found] == [(" b", int(passage.ids[2]))]


def test_the_pair_of_a_trigger_changes_what_its_scheme_says():
    passage = read("then Alice and Robert met. Soon Robert thanked Alice again")
    one = next(t for t in triggers.people(passage) if t.follows)
    pool = triggers.pool_of([(90,), (91,), (int(passage.ids[1]),)])
    expected = {"abc": ["S2"], "s_only": ["S1", "S2"], "io_only": ["IO"], "swapped": ["S2"]}
    for scheme, roles in expected.items():
        pair = triggers.pair_of(one, passage.ids, "ioi", scheme, pool, random.Random(0), "doc")
        differ = [i for i, (a, b) in enumerate(zip(pair.clean, pair.corrupted, strict=True)) if a != b]
        assert differ == [dict(pair.roles)[role][0] for role in roles]
        new = {pair.corrupted[i] for i in differ}
        assert new == {one.answer} if scheme == "swapped" else new <= {90, 91} and len(new) == 1
        assert pair.stratum("document") == "doc"
    assert triggers.pair_of(one, passage.ids, "ioi", "no such scheme", pool, random.Random(0), "doc") is None


def test_pieces_of_a_document_end_behind_the_word_that_follows():
    text = "x " * 300 + "then Alice and Robert met. Soon Robert thanked Alice again" + " y" * 300
    (piece,) = triggers.pieces("ioi", text)
    assert piece.endswith("thanked Alice ") and len(piece) < 250
    assert list(triggers.pieces("docstring", "no arguments here")) == []


# --- distributions of the user's own ---


def test_own_distributions_are_read():
    assert build.parse("mine=pairs.jsonl") == ("mine", "file", "pairs.jsonl")
    assert build.parse("quoted=sql:token = 'a'") == ("quoted", "sql", "token = 'a'")


@pytest.mark.parametrize("given", ["pairs.jsonl", "mine=pairs.txt", "=sql:true", "mine"])
def test_what_is_no_distribution_is_refused(given):
    with pytest.raises(QueryError, match=r"NAME=FILE\.jsonl"):
        build.parse(given)
