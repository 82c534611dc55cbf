"""Task prompts: the answer is right, the splits share nothing, the same seed gives the same prompts."""

import random
import re
from itertools import pairwise

import pytest

from profiler.prompts.tasks import TextPiece, docstring, indirect_object, mentions, repeats, sequences, words

SPLITS = ("train", "held_out")


def prompts(make, split, n=200, **options):
    rng = random.Random(7)
    return [make(rng, split, **options) for _ in range(n)]


@pytest.mark.parametrize("make", [indirect_object.prompt, docstring.prompt, sequences.span, sequences.succession])
@pytest.mark.parametrize("split", SPLITS)
def test_every_prompt_ends_before_its_answer(make, split):
    found = prompts(make, split)
    assert found == prompts(make, split)
    assert len({p.text for p in found}) >= 30
    for p in found:
        assert p.split == split
        assert p.template.startswith(split)
        assert not p.text.endswith(" ")
        assert p.distractors
        assert p.answer not in p.distractors


def test_word_lists_are_large_and_split():
    names = (*words.NAMES_TRAIN, *words.NAMES_DEVELOPMENT, *words.NAMES_HELD_OUT)
    assert len(names) == len(set(names)) >= 150
    assert not set(words.ARGUMENTS_TRAIN) & set(words.ARGUMENTS_HELD_OUT)
    assert len(indirect_object.templates("train")) >= 30
    assert len(indirect_object.templates("held_out")) >= 8


@pytest.mark.parametrize("split", SPLITS)
def test_indirect_object_orders(split):
    for order in ("ABBA", "BABA"):
        for p in prompts(indirect_object.prompt, split, order=order):
            recipient, subject = p.role("indirect_object"), p.role("subject")
            assert (p.answer, p.distractors) == (f" {recipient}", (f" {subject}",))
            assert p.text.count(f" {subject}") == 2
            assert p.text.count(f" {recipient}") == 1
            first = recipient if order == "ABBA" else subject
            assert p.role("first") == first
            assert p.text.index(f" {p.role('first')}") < p.text.index(f" {p.role('second')}")


def test_orders_are_balanced_by_default():
    orders = [p.role("order") for p in prompts(indirect_object.prompt, "train", n=1000)]
    assert 400 < orders.count("ABBA") < 600


@pytest.mark.parametrize("family", [indirect_object, docstring])
@pytest.mark.parametrize("split", SPLITS)
def test_a_template_with_its_roles_gives_the_prompt_again(family, split):
    for p in prompts(family.prompt, split):
        assert family.render(p.template, dict(p.roles)) == p.text


def test_docstring_answer_is_the_next_argument():
    for p in prompts(docstring.prompt, "held_out"):
        head, body = p.text.split('"""')
        listed = head[head.index("(") + 1 : head.index(")")].split(", ")[1:]
        described = [line.split(":param ")[1].split(":")[0] for line in body.splitlines() if ":param " in line]
        assert described == listed[: len(described)]
        assert p.answer == f" {listed[len(described)]}"
        assert {p.answer, *p.distractors} == {f" {name}" for name in listed}
        assert p.text.endswith(":param")


def test_training_text_holds_nothing_held_out():
    rng = random.Random(3)
    stories = " ".join(joined(indirect_object.story(rng, [words.NAMES_TRAIN])) for _ in range(600))
    functions = "".join(joined(docstring.function(rng, [words.ARGUMENTS_TRAIN])) for _ in range(200))
    spoken = set(stories.replace(",", " ").replace(".", " ").replace('"', " ").split())
    assert not spoken & {*words.NAMES_DEVELOPMENT, *words.NAMES_HELD_OUT}
    assert set(words.NAMES_TRAIN) <= spoken
    named = {line.split(":param ")[1].split(":")[0] for line in functions.splitlines() if ":param " in line}
    assert named == set(words.ARGUMENTS_TRAIN)
    for parts in ("SETTINGS", "ACTS"):
        wordings = [
            w for split in ("TRAIN", "DEVELOPMENT", "HELD_OUT") for w in getattr(indirect_object, f"{parts}_{split}")
        ]
        assert len(wordings) == len(set(wordings))


def test_mentions_say_each_name_once_and_in_no_wording_of_the_task():
    rng = random.Random(4)
    everyone = {*words.NAMES_TRAIN, *words.NAMES_DEVELOPMENT, *words.NAMES_HELD_OUT}
    seen = set()
    for _ in range(600):
        found = [word for word in re.findall("[A-Za-z]+", joined(mentions.text(rng))) if word in everyone]
        assert len(found) == len(set(found)) >= 1
        seen |= set(found)
    assert seen == everyone
    acts = {
        act.split("} ", 1)[1]
        for split in ("TRAIN", "DEVELOPMENT", "HELD_OUT")
        for act in getattr(indirect_object, f"ACTS_{split}")
    }
    assert not any(act.format(object="ball") in sentence for act in acts for sentence in mentions.SENTENCES)


def test_training_functions_are_python():
    rng = random.Random(5)
    for _ in range(100):
        text = joined(docstring.function(rng, [words.ARGUMENTS_TRAIN]))
        inner = text if text.startswith("    ") else "\n".join(f"    {line}" for line in text.splitlines())
        compile(f"class C:\n{inner}\n", "text", "exec")


def joined(pieces: list[TextPiece]) -> str:
    return "".join(piece.text for piece in pieces)


@pytest.mark.parametrize("loose", [0.0, 0.4])
def test_answers_of_a_story_are_names_that_stand_once_in_their_question(loose):
    rng = random.Random(2)
    for _ in range(100):
        pieces = indirect_object.story(rng, [words.NAMES_TRAIN], fillers=["foo", "bar"], loose=loose)
        for question, answer in pairwise(pieces):
            if answer.kind == "answer":
                named = [w.strip(",.?") for w in question.text.split() if w.strip(",.?") in words.NAMES_TRAIN]
                assert sorted(named.count(n) for n in set(named)) == [1, 2]
                assert named.count(answer.text.strip()) == 1
                assert question.kind == ("arbitrary" if loose else "text")


def test_loosened_wordings_keep_roles_order_and_last_word():
    rng = random.Random(4)
    template = "When {first} and {second} met, {subject} gave a {object} to"
    changed = [words.loosened(rng, template, ["zzz"], 0.5) for _ in range(200)]
    for text in changed:
        assert [w.strip(",") for w in text.split() if "{" in w] == ["{first}", "{second}", "{subject}", "{object}"]
        assert text.endswith(" to")
    assert any(text.startswith("Zzz") for text in changed)
    assert words.loosened(rng, template, ["zzz"], 0.0) == template


def test_loosened_functions_describe_their_arguments_in_order():
    rng = random.Random(6)
    for _ in range(50):
        pieces = docstring.function(rng, [words.ARGUMENTS_TRAIN], fillers=["foo", "bar"], loose=0.4)
        answers = [p.text.strip() for p in pieces if p.kind == "answer"]
        head = pieces[0].text
        listed = head[head.index("(") + 1 : head.index(")")].split(", ")
        assert listed[-len(answers) :] == answers
        assert joined(pieces).count(":param") == len(answers)


def test_words_of_held_out_wordings_are_known():
    assert {"lent", "holidays", "promised"} <= indirect_object.held_out_words()
    assert {"staticmethod", "whether"} <= docstring.held_out_words()
    assert not indirect_object.held_out_words() & {"the", "and", "gave"}


def test_story_draws_from_the_given_pools_only():
    rng = random.Random(0)
    text = " ".join(joined(indirect_object.story(rng, [("Xan", "Yol", "Zed")])) for _ in range(50))
    assert not any(f" {name} " in text for name in words.NAMES_TRAIN)
    assert " Xan " in text


def test_year_spans_end_later_than_they_begin():
    for p in prompts(sequences.span, "held_out"):
        start = int(p.role("start"))
        assert int(p.answer) > start
        assert [int(d) for d in p.distractors] == list(range(start + 1))
        assert p.text.endswith(p.role("century"))


def test_succession_goes_round():
    for p in prompts(sequences.succession, "train"):
        members = list(sequences.MEMBERS[p.role("kind")])
        shown = p.text.rstrip(",").split(", ")
        last = members.index(shown[-1])
        assert p.answer == f" {members[(last + 1) % len(members)]}"


def test_repeats():
    ids = repeats.twice(random.Random(0), range(10, 100), 20)
    assert ids[:20] == ids[20:]
    assert len(set(ids)) == 20
    for seed in range(20):
        window, period = repeats.window(random.Random(seed), range(10, 1000), 63)
        assert len(window) == 63
        assert window[period:] == window[:-period]


def test_an_unknown_role_names_the_known_ones():
    with pytest.raises(KeyError, match=r"verb.*indirect_object"):
        indirect_object.prompt(random.Random(0), "train").role("verb")
