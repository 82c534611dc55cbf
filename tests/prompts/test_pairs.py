"""Pairs: what each corruption changes, files that come back as they were, errors that name the pair, the linter."""

import dataclasses
import json
import random
from pathlib import Path

import patch_models
import pytest
import tiny

from profiler.errors import PairError
from profiler.prompts import pairs
from profiler.prompts.pairs import jsonl, lint
from profiler.prompts.pairs.pair import Pair, spans_of

VOCABULARY = tuple(range(5, 200))
CASES = [
    (task.name, scheme, split) for task in pairs.TASKS for scheme in task.schemes for split in ("train", "held_out")
]


def one(task: str, scheme: str, split: str = "train", n: int = 12) -> list[Pair]:
    return pairs.make(task, scheme, split, n, seed=1, vocabulary=VOCABULARY)


@pytest.mark.parametrize(("task", "scheme", "split"), CASES)
def test_every_task_makes_pairs_that_differ(task: str, scheme: str, split: str) -> None:
    made = one(task, scheme, split)
    assert len({pair.name for pair in made}) == 12
    assert made == one(task, scheme, split)
    for pair in made:
        assert pair.clean != pair.corrupted
        assert (pair.task, pair.scheme, pair.split) == (task, scheme, split)
        assert not set(pair.answers) & set(pair.distractors)
        for _, (first, last) in pair.roles:
            assert 0 <= first < last <= len(pair.clean)


@pytest.mark.parametrize("task", [task.name for task in pairs.TASKS])
def test_splits_share_no_prompt(task: str) -> None:
    scheme = pairs.find_task(task).schemes[0]
    train, held_out = ({pair.clean for pair in one(task, scheme, split, 60)} for split in ("train", "held_out"))
    assert not train & held_out


def _names(pair: Pair) -> tuple[str, str, str, str]:
    """Indirect object and subject, and what stands at IO, S1 and S2 of the corrupted prompt."""
    words = {role: pair.clean[a:b] for role, (a, b) in pair.roles}
    changed = [
        (a, b)
        for a, b in zip(
            pair.clean.replace(".", " .").replace(",", " ,").split(),
            pair.corrupted.replace(".", " .").replace(",", " ,").split(),
            strict=True,
        )
        if a != b
    ]
    return words, changed


@pytest.mark.parametrize(
    ("scheme", "roles"), [("abc", ["S2"]), ("swapped", ["S2"]), ("s_only", ["S1", "S2"]), ("io_only", ["IO"])]
)
def test_indirect_object_schemes_change_their_names_alone(scheme: str, roles: list[str]) -> None:
    for pair in one("ioi", scheme):
        words, changed = _names(pair)
        assert words["S1"] == words["S2"] == pair.distractors[0]
        assert words["IO"] == pair.answers[0]
        assert [f" {old}" for old, _ in changed] == [words[role] for role in roles]
        new = {f" {new}" for _, new in changed}
        assert len(new) == 1
        assert (new == {words["IO"]}) == (scheme == "swapped") == pair.symmetric
    orders = {pair.stratum("order") for pair in one("ioi", scheme)}
    assert orders == {"ABBA", "BABA"}


def test_docstring_schemes() -> None:
    for scheme in pairs.find_task("docstring").schemes:
        for pair in one("docstring", scheme):
            head, body = (text.split(":param", 1) for text in (pair.clean, pair.corrupted))
            answer = pair.answers[0].strip()
            a, b = dict(pair.roles)["A_def"]
            assert pair.clean[a:b] == f" {answer}"
            assert (head[1] == body[1]) == (scheme != "described")
            assert (head[0] == body[0]) == (scheme == "described")
            assert (answer in body[0]) == (scheme in ("described", "next"))
            before = pair.clean[slice(*dict(pair.roles)["B_def"])]
            assert pair.clean[slice(*dict(pair.roles)["B_doc"])] == before
            assert f"{before.strip()}, {answer}" in pair.clean
            if scheme == "next":
                assert sorted(pair.clean) == sorted(pair.corrupted)


def test_years_have_all_later_endings_as_answers() -> None:
    for pair in one("greater-than", "01"):
        first, last = dict(pair.roles)["year"]
        start = int(pair.clean[first:last])
        assert pair.corrupted[first:last] == "01"
        assert pair.answers == tuple(f"{year:02d}" for year in range(start + 1, 100))
        assert pair.distractors == tuple(f"{year:02d}" for year in range(start + 1))
    for pair in one("greater-than", "late"):
        assert int(pair.corrupted[slice(*dict(pair.roles)["year"])]) > int(pair.clean[slice(*dict(pair.roles)["year"])])


def test_repeats_are_predictable_only_where_clean() -> None:
    for scheme in ("first", "last"):
        for pair in one("repeated-tokens", scheme):
            places = {role: span[0] for role, span in pair.roles}
            assert pair.clean[places["first"]] == pair.clean[places["second"]] == pair.clean[-1]
            assert pair.clean[places["copied"]] == pair.answers[0]
            changed = [i for i, (a, b) in enumerate(zip(pair.clean, pair.corrupted, strict=True)) if a != b]
            assert changed == [places["copied"] if scheme == "first" else len(pair.clean) - 1]
    train, held_out = ({t for p in one("repeated-tokens", "first", s) for t in p.clean} for s in ("train", "held_out"))
    assert not train & held_out


def test_unknown_tasks_and_schemes_are_errors() -> None:
    with pytest.raises(PairError, match="no task 'nose': choose ioi"):
        pairs.make("nose", None, "train", 1)
    with pytest.raises(PairError, match="no corruption scheme 'x': choose abc"):
        pairs.make("ioi", "x", "train", 1)
    assert pairs.make("ioi", None, "train", 1)[0].scheme == "abc"


@pytest.mark.parametrize(("task", "scheme", "split"), CASES[::3])
def test_files_come_back_as_they_were(tmp_path: Path, task: str, scheme: str, split: str) -> None:
    made = one(task, scheme, split)
    jsonl.write(tmp_path / "pairs.jsonl", made)
    assert pairs.read(tmp_path / "pairs.jsonl") == made


GOOD = {"clean": "a b", "corrupted": "a c", "answer": " d", "distractors": [" e"]}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "pairs.jsonl:2 is no JSON"),
        ("[]", "is no JSON object"),
        (json.dumps({"clean": "a"}), "lacks corrupted, answer, distractors"),
        (json.dumps(GOOD | {"nose": 1, "name": "x"}), "pair 'x' has unknown nose"),
        (json.dumps(GOOD | {"clean": 3}), "prompt 3 is neither"),
        (json.dumps(GOOD | {"clean": ""}), "prompt '' is neither"),
        (json.dumps(GOOD | {"distractors": []}), "no list of continuations"),
        (json.dumps(GOOD | {"roles": {"s": "z"}}), "pair 'pairs.jsonl:2': role 's' is 'z', which does not stand"),
        (json.dumps(GOOD | {"roles": {"s": [1]}}), "role 's' is"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, value: str, message: str) -> None:
    (tmp_path / "pairs.jsonl").write_text(json.dumps(GOOD) + "\n" + value + "\n")
    with pytest.raises(PairError, match=message.replace("[", r"\[")):
        pairs.read(tmp_path / "pairs.jsonl")


def test_short_lines_are_enough(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps(GOOD | {"answer": [" d", " f"], "roles": {"s": "b"}}) + "\n\n")
    (made,) = pairs.read(tmp_path / "p.jsonl")
    assert made == Pair("p.jsonl:1", "own", "own", "a b", "a c", (" d", " f"), (" e",), (("s", (2, 3)),))
    for name, text in (("empty.jsonl", ""), ("gone.jsonl", None)):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(PairError, match=name):
            pairs.read(tmp_path / name)


TOY = patch_models.pairs(1)[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corrupted": TOY.clean + "x"}, "'p0': clean has .* tokens and corrupted"),
        ({"corrupted": TOY.clean}, "'p0'.*same tokens"),
        ({"clean": (0, *range(60, 70)), "corrupted": tuple(range(60, 70)), "roles": ()}, "'p0'.*BOS"),
        ({"clean": "a" * 60, "corrupted": "b" * 60, "roles": ()}, "'p0' has 61 tokens"),
        ({"answers": ("x",)}, "'p0': answers .* different tokens"),
        ({"distractors": ()}, "'p0': answers"),
        ({"roles": (("r", (500, 501)),)}, "'p0': role 'r'.*covers no token"),
    ],
)
def test_pairs_that_cannot_be_asked_are_named(change: dict, message: str) -> None:
    """A22."""
    broken = dataclasses.replace(TOY, **change)
    with pytest.raises(PairError, match=message):
        pairs.encode([broken], tiny.tokenizer(), 0, 48)


def test_unusable_pairs_are_dropped_and_counted() -> None:
    broken = dataclasses.replace(TOY, corrupted=TOY.clean + "x")
    found = pairs.encode([TOY, broken, TOY], tiny.tokenizer(), 0, 48)
    assert [p.pair for p in found.pairs] == [TOY]
    assert found.dropped == (("length", 1), ("repeated", 1))
    assert found.n_dropped == 2
    assert found.left_out("p.jsonl").startswith(
        "left out: 2 of 3 pairs of p.jsonl (1 because clean and corrupted prompt have different numbers of tokens; 1"
        " because the same tokens as an earlier pair); pair 'p0': clean has"
    )
    assert pairs.encode([TOY], tiny.tokenizer(), 0, 48).left_out("p.jsonl") == ""
    made = found.pairs[0]
    assert len(made.clean) == len(made.corrupted) == len(TOY.clean) + 1
    assert made.first_difference == 1 + dict(TOY.roles)["second"][0] + next(
        i
        for i in range(3)
        if TOY.clean[slice(*dict(TOY.roles)["second"])][i] != TOY.corrupted[dict(TOY.roles)["second"][0] + i]
    )
    assert dict(made.roles)["end"] == (len(made.clean) - 1,)
    start = dict(TOY.roles)["first"][0] + 1
    assert dict(made.roles)["first"] == (start, start + 1, start + 2)


def test_roles_of_a_text() -> None:
    assert spans_of("ab ab", [("x", "ab", 0), ("y", "ab", -1)]) == (("x", (0, 2)), ("y", (3, 5)))
    with pytest.raises(PairError, match="stands 2 times"):
        spans_of("ab ab", [("x", "ab", 2)])


def test_linter_counts_what_it_sees() -> None:
    rng = random.Random(0)
    drawn = [
        dataclasses.replace(p, name=f"n{i}", strata=(("kind", rng.choice("ab")), ("same", "x")))
        for i, p in enumerate(patch_models.pairs(12))
    ]
    broken = dataclasses.replace(drawn[0], corrupted=drawn[0].clean + "x")
    found = {c.name: c for c in lint.check(pairs.encode([*drawn, *[broken] * 6], tiny.tokenizer(), 0, 48))}
    assert found["dropped"].value == pytest.approx(6 / 18)
    assert found["dropped"].level == "warning"
    assert found["stratum: same"].level == "note"
    assert found["stratum: kind"].level == "ok"
    assert found["where they differ"].value == 0
    assert "second" in found["where they differ"].finding
    assert found["one answer's share"].value == 1
    assert found["one answer's share"].level == "warning"
    nowhere = [dataclasses.replace(p, roles=()) for p in drawn]
    again = {c.name: c for c in lint.check(pairs.encode(nowhere, tiny.tokenizer(), 0, 48))}
    assert again["where they differ"].value == 1
    assert again["where they differ"].level == "note"
