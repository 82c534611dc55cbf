"""Files of pairs as EAP-IG and feature-circuits publish them become pairs; what is wrong with them is named."""

import json
from pathlib import Path

import pytest

from profiler.errors import PairError
from profiler.generality.distributions.build import parse
from profiler.patching.setting import PatchSettings
from profiler.prompts import pairs
from profiler.prompts.pairs import jsonl

SHARED = Path(__file__).parents[3] / "shared"

YEARS = (
    "clean,corrupted,label\n"
    "The plan lasted from the year 1642 to the year 16,The plan lasted from the year 1601 to the year 16,42\n"
)
AGREEMENT = {
    "clean_prefix": "The friends",
    "patch_prefix": "The friend",
    "clean_answer": " have",
    "patch_answer": " has",
    "case": "plural",
}


def test_later_years_are_the_answers_of_a_row_of_eap_ig(tmp_path: Path) -> None:
    (tmp_path / "greater-than.csv").write_text(YEARS)
    (made,) = pairs.read(tmp_path / "greater-than.csv")
    assert (made.name, made.task, made.scheme) == ("greater-than.csv:2", "greater-than", "eap-ig")
    assert made.clean == "The plan lasted from the year 1642 to the year 16"
    assert made.corrupted == "The plan lasted from the year 1601 to the year 16"
    assert made.answers == tuple(str(year) for year in range(43, 100))
    assert made.distractors == tuple(f"{year:02d}" for year in range(43))


def test_the_patch_prefix_of_feature_circuits_is_the_corrupted_prompt(tmp_path: Path) -> None:
    (tmp_path / "sva-simple.jsonl").write_text(json.dumps(AGREEMENT) + "\n")
    (made,) = pairs.read(tmp_path / "sva-simple.jsonl")
    assert (made.name, made.task, made.template) == ("sva-simple.jsonl:1", "sva-simple", "plural")
    assert (made.clean, made.corrupted) == ("The friends", "The friend")
    assert (made.answers, made.distractors, made.symmetric) == ((" have",), (" has",), True)
    jsonl.write(tmp_path / "again.jsonl", [made])
    assert pairs.read(tmp_path / "again.jsonl") == [made]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "clean,corrupted\na,b\n", "has columns clean, corrupted and 1 rows"),
        ("a.csv", "", "has columns none and 0 rows"),
        ("a.csv", "clean,corrupted,label\na,b,99\n", "pair 'a.csv:2': label '99' is no year"),
        ("a.csv", "clean,corrupted,label\na,,42\n", "pair 'a.csv:2' lacks a prompt"),
        ("a.jsonl", json.dumps(AGREEMENT | {"patch_answer": 3}), "pair 'a.jsonl:1': patch_answer must be text"),
        ("a.jsonl", json.dumps({"clean_prefix": "The"}), "patch_prefix, clean_answer, patch_answer must be text"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(PairError, match=said):
        pairs.read(tmp_path / name)
    with pytest.raises(PairError, match="cannot be read"):
        pairs.read(tmp_path / f"gone-{name}")


def test_patch_and_check_take_such_files() -> None:
    assert PatchSettings("folder/greater-than.csv").is_file
    assert PatchSettings("folder/greater-than.csv").name == "greater-than"
    assert parse("years=greater-than.csv") == ("years", "file", "greater-than.csv")


@pytest.mark.parametrize(
    ("name", "n"), [("greater-than.csv", 1000), ("sva-simple.jsonl", None), ("sva-nounpp.jsonl", None)]
)
def test_published_files_are_read_whole(name: str, n: int | None) -> None:
    path = SHARED / "data" / "tasks" / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    lines = len(path.read_text(encoding="utf-8").splitlines()) - path.name.endswith(".csv")
    assert len(pairs.read(path)) == lines == (n or lines)
