"""Thresholds of verdicts: each decides, is stored with the check that it decided, and is shown on the check's page."""

import re
from dataclasses import fields, replace
from html import unescape
from pathlib import Path

import fake_check
import fake_run
import planted_claims as planted
import pytest
from test_generality_verdict import DISTRIBUTIONS, FINDINGS, number, role

from profiler.database import query
from profiler.generality.evidence import needs
from profiler.generality.evidence.ledger import lines
from profiler.generality.evidence.thresholds import DEFAULT, Thresholds
from profiler.generality.evidence.verdict import judge
from profiler.pages import build

HOLDS = tuple(role("corpus", 0.9, subject=f"L{i}H0") for i in range(3))
REMOVED = number("names", 0.8, technique="necessity", statistic="necessity")


@pytest.mark.parametrize(
    ("more", "threshold", "value", "before", "after"),
    [
        ((number("templates", 0.76, 0.01),), "margin", 0.02, "generalises", "narrows"),
        ((number("templates", 1.05, 0.02),), "over", 0.01, "generalises", "over-recovers"),
        ((), "faithful", 0.97, "generalises", "does something else"),
        ((REMOVED,), "necessity", 0.9, "generalises", "inconclusive"),
        ((role("corpus", 0.7),), "role_share", 0.85, "generalises", "does something else"),
        ((*HOLDS, role("corpus", 0.1)), "refuted_share", 0.2, "narrows", "does something else"),
        ((number("templates", 0.62, 0.04),), "alpha", 0.001, "narrows", "inconclusive"),
    ],
)
def test_a_changed_threshold_changes_the_verdict(
    more: tuple, threshold: str, value: float, before: str, after: str
) -> None:
    findings = (*FINDINGS[:2], *more)
    assert judge(findings, DISTRIBUTIONS).word == before
    assert judge(findings, DISTRIBUTIONS, thresholds=replace(DEFAULT, **{threshold: value})).word == after


@pytest.mark.slow
def test_a_changed_threshold_changes_a_planted_verdict(tmp_path: Path) -> None:
    """A circuit that narrows from 0.92 to 0.3 is as good everywhere to whom 0.7 less is as good."""
    path = fake_run.build(tmp_path / "run.duckdb").path
    for name, thresholds in (("strict", DEFAULT), ("lenient", replace(DEFAULT, margin=0.7))):
        fake_check.write(path, name, planted.narrow, thresholds=thresholds)
    words = dict(query.run(path, "SELECT check_id, word FROM checks").iter_rows())
    assert words["strict"] == "narrows" and words["lenient"] != "narrows"


def test_the_other_thresholds_of_the_ledger_decide_their_lines() -> None:
    replaced = role("corpus", 0.6, technique="replacement", statistic="explained", null=0.1, null_hi=0.2)
    edits = role("corpus", 0.3, technique="edits", statistic="success rate", null=0.1, null_hi=None, p=0.001)
    for finding, threshold, value, speaks in (
        (replaced, "explained", 0.7, ("for", "undecided")),
        (edits, "no_better", 0.4, ("for", "against")),
    ):
        found = [
            lines((finding,), DISTRIBUTIONS, thresholds=thresholds)[0].speaks
            for thresholds in (DEFAULT, replace(DEFAULT, **{threshold: value}))
        ]
        assert tuple(found) == speaks
    open_one = lines((number("discovery", 0.52, 0.1),), DISTRIBUTIONS)
    needed = [needs.needs(open_one, open_one[0], t)[0].needed for t in (DEFAULT, Thresholds(faithful=0.4))]
    assert needed[0] > needed[1]


def test_every_threshold_has_a_meaning_and_a_row() -> None:
    rows = Thresholds(margin=0.123).rows()
    assert [row.name for row in rows] == [one.name for one in fields(Thresholds)]
    assert all(row.meaning for row in rows)
    assert next(row.value for row in rows if row.name == "margin") == 0.123


@pytest.mark.slow
def test_a_check_stores_its_thresholds_and_the_page_shows_them(tmp_path: Path) -> None:
    path = fake_run.build(tmp_path / "run.duckdb").path
    thresholds = Thresholds(margin=0.123, fewest=31)
    fake_check.write(path, "other")
    fake_check.write(path, thresholds=thresholds)
    stored = query.run(path, "thresholds")
    assert dict(zip(stored["name"], stored["value"], strict=True)) == {row.name: row.value for row in thresholds.rows()}
    of_other = query.run(path, "thresholds", check_id="other")
    assert of_other.filter(name="margin")["value"].item() == 0.2
    page = unescape(re.sub(r"<[^>]+>", " ", build.build(path, "generality")))
    for row in thresholds.rows():
        assert row.name in page and row.meaning.replace("|", "") in page.replace("|", "")
    assert "0.123" in page
