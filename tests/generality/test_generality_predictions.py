"""Predictions, the role catalogue and published circuits in a run: scored by what came after, changed by nobody
unseen."""

import hashlib
import re
from pathlib import Path

import duckdb
import fake_check
import planted_claims as planted
import polars as pl
import pytest
from typer.testing import CliRunner

from profiler.circuits import yaml_files
from profiler.cli import app
from profiler.database import query
from profiler.errors import PredictionError
from profiler.generality import role_catalogue, store
from profiler.generality.distributions.variants import variants
from profiler.generality.evidence import predictions, published
from profiler.generality.evidence.distributions import FRESH, VARIANTS
from profiler.generality.evidence.finding import Finding
from profiler.generality.evidence.predictions import Prediction
from profiler.generality.evidence.verdict import judge
from profiler.patching.setting import PatchSettings
from profiler.prompts.pairs import TASKS

# --- predictions ---


def outcomes(checked: Path) -> dict[str, dict]:
    return {row["statement"]: row for row in query.run(checked, "predictions").to_dicts()}


@pytest.mark.slow
def test_predictions_are_scored_by_what_came_after(checked_run: Path) -> None:
    found = outcomes(checked_run)
    names, code, fails, none = (found[one.statement] for one in fake_check.PREDICTIONS)
    assert (names["outcome"], names["check_id"], names["overlap"]) == ("confirmed", "narrow", 0.25)
    assert (code["outcome"], fails["outcome"]) == ("confirmed", "refuted")
    assert (none["outcome"], none["value"]) == (None, None)
    assert all(row["intact"] for row in found.values())
    status = {
        (r["subject"], r["distribution"], r["statistic"]): r["status"]
        for r in query.run(checked_run, "ledger").to_dicts()
    }
    assert status["planted", "names", "faithfulness"] == "registered"
    assert status["L0H1", "domain: code", "coverage"] == "registered"
    assert status["planted", "natural text", "faithfulness"] == "post hoc"


def test_a_prediction_made_with_the_answer_at_hand_is_post_hoc(checked: Path) -> None:
    late = [
        Prediction("late", "planted", "faithfulness", ">", 0.5, "natural text"),
        Prediction("late too", "circuit", "necessity", ">", 0.5, "names"),
        Prediction("in time", "planted", "faithfulness", ">", 0.5, "no such distribution yet"),
        Prediction("other prompts", "L0H1", "coverage", ">", 0.5, "names", circuit="another"),
    ]
    store.register(checked, late)
    found = outcomes(checked)
    assert [found[one.statement]["known_before"] for one in late] == [True, True, False, False]
    assert ("planted", "faithfulness", "natural text") not in store.registered(checked)
    store.resolve(checked)
    assert [outcomes(checked)[one.statement]["outcome"] for one in late] == [None] * 4
    fake_check.write(checked)
    store.resolve(checked)
    assert outcomes(checked)["late"]["outcome"] == "confirmed"


def test_a_score_says_what_the_interval_says() -> None:
    one = Finding("c", "", "faithfulness", "names", "faithfulness", 0.8, 0.7, 0.9, 48, "prompts")
    said = {t: (predictions.outcome(">", t, one), predictions.outcome("<", t, one)) for t in (0.6, 0.75, 0.95)}
    assert said == {0.6: ("confirmed", "refuted"), 0.75: ("undecided", "undecided"), 0.95: ("refuted", "confirmed")}


def test_the_hash_is_of_everything_and_the_same_in_sql(checked_run: Path) -> None:
    previous = ""
    for entry, kind, written, content, before, hashed in fake_check.rows(
        checked_run, "SELECT * FROM prediction_log ORDER BY entry"
    ):
        text = "\n".join([str(entry), kind, written, content, previous])
        assert (before, hashed) == (previous, hashlib.sha256(text.encode()).hexdigest())
        previous = hashed
    assert fake_check.rows(checked_run, "SELECT * FROM prediction_head") == [(7, previous)]


TAMPERED = {
    "threshold": "UPDATE prediction_log SET content = replace(content, '0.7', '0.1') WHERE entry = 1",
    "time": "UPDATE prediction_log SET written = '2001-01-01T00:00:00.000000+00:00' WHERE entry = 1",
    "outcome": "UPDATE prediction_log SET content = replace(content, 'refuted', 'confirmed') WHERE kind = 'resolved'",
    "first entry gone": "DELETE FROM prediction_log WHERE entry = 1",
    "middle gone": "DELETE FROM prediction_log WHERE entry = 3",
    "last gone": "DELETE FROM prediction_log WHERE entry = 7",
    "swapped": "UPDATE prediction_log SET entry = CASE entry WHEN 1 THEN 2 WHEN 2 THEN 1 ELSE entry END",
    "head too": "UPDATE prediction_head SET entries = 6",
}


@pytest.mark.parametrize("statement", TAMPERED.values(), ids=TAMPERED)
def test_a_prediction_changed_in_the_file_after_its_test_is_seen(checked: Path, statement: str) -> None:
    fake_check.rows(checked, statement)
    found = query.run(checked, "predictions")
    assert not found["intact"].all()
    with pytest.raises(PredictionError, match="was changed after it was written"):
        store.register(checked, [Prediction("more", "planted", "faithfulness", ">", 0.5, "corpus")])
    with pytest.raises(PredictionError, match="was changed after it was written"):
        store.resolve(checked)
    result = CliRunner().invoke(app, ["predict", "list", str(checked)])
    assert isinstance(result.exception, PredictionError)
    assert store.registered(checked) < {
        ("circuit", "faithfulness", "names"),
        ("L0H1", "coverage", "domain: code"),
        ("planted", "faithfulness", "templates"),
        ("L1H1", "coverage", "corpus"),
    }


def test_a_log_forged_from_the_start_is_seen_by_the_check_and_by_the_receipt(checked: Path) -> None:
    """Whoever rewrites every hash still disagrees with what the check saw, and with what was printed."""
    receipt = fake_check.rows(checked, "SELECT hash FROM prediction_log WHERE entry = 1")[0][0]
    log = fake_check.rows(checked, "SELECT entry, kind, written, content FROM prediction_log ORDER BY entry")
    old = {hashed: entry for entry, hashed in fake_check.rows(checked, "SELECT entry, hash FROM prediction_log")}
    previous, fresh = "", []
    for entry, kind, written, content in log:
        content = content.replace('"threshold":0.7', '"threshold":0.1')
        for known, number in old.items():
            content = content.replace(known, fresh[number - 1][5] if number <= len(fresh) else known)
        hashed = predictions.entry_hash(entry, kind, written, content, previous)
        fresh.append((entry, kind, written, content, previous, hashed))
        previous = hashed
    with duckdb.connect(str(checked)) as shell:
        shell.execute("DELETE FROM prediction_log")
        shell.executemany("INSERT INTO prediction_log VALUES (?, ?, ?, ?, ?, ?)", fresh)
        shell.execute("UPDATE prediction_head SET hash = ?", [previous])
        assert shell.execute("SELECT bool_and(intact) FROM prediction_entries").fetchall() == [(True,)]
    assert not query.run(checked, "predictions")["intact"].any()
    fake_check.rows(
        checked,
        "UPDATE checks SET prediction_head = (SELECT hash FROM prediction_log l WHERE l.entry = prediction_entries)",
    )
    assert query.run(checked, "predictions")["intact"].all()
    result = CliRunner().invoke(app, ["predict", "list", str(checked), "--receipt", receipt])
    assert "is not in" in str(result.exception)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"direction": ">="}, "give > or <"),
        ({"threshold": float("nan")}, "give a finite number"),
        ({"distribution": " "}, "--distribution is empty"),
    ],
)
def test_a_prediction_that_cannot_be_scored_is_refused(checked: Path, change: dict, said: str) -> None:
    given = {
        "statement": "s",
        "subject": "c",
        "statistic": "faithfulness",
        "direction": ">",
        "threshold": 0.5,
        "distribution": "corpus",
    } | change
    with pytest.raises(PredictionError, match=said):
        store.register(checked, [Prediction(**given)])
    assert len(fake_check.rows(checked, "SELECT * FROM prediction_log")) == 7


def test_a_prediction_is_about_a_distribution_that_a_check_can_have(checked: Path) -> None:
    """What no check measures stays open for ever."""
    (domain,) = fake_check.rows(checked, "SELECT domain FROM domains LIMIT 1")[0]
    (named,) = fake_check.rows(checked, "SELECT name FROM check_distributions ORDER BY ordinal DESC LIMIT 1")[0]
    for known in ("held-out names", "corpus", f"domain: {domain}", named):
        assert store.distribution_of(checked, known) == known
    assert store.distribution_of(checked, "mine=pairs.jsonl") == "mine"
    with pytest.raises(
        PredictionError, match="'heldout names' is none that a check has, did you mean 'held-out names'"
    ):
        store.distribution_of(checked, "heldout names")


def test_the_names_of_distributions_are_those_that_checks_make(tmp_path: Path) -> None:
    made = {variant.name for task in TASKS for variant in variants(PatchSettings(task.name), 1, tuple(range(400, 600)))}
    assert made == {FRESH, *VARIANTS}


@pytest.mark.slow
def test_the_command_line_registers_resolves_and_lists(unchecked: Path) -> None:
    call = lambda *arguments: CliRunner().invoke(app, ["predict", *arguments], catch_exceptions=False)  # noqa: E731
    assert "no prediction was registered" in call("list", str(unchecked)).output
    said = call(
        "register",
        str(unchecked),
        "--statement",
        "it [b]holds[/b]",
        "--subject",
        "circuit",
        "--statistic",
        "faithfulness",
        "--threshold",
        "0.5",
        "--distribution",
        "names=names.jsonl",
    )
    (receipt,) = re.findall(r"^[0-9a-f]{64}$", said.output, re.MULTILINE)
    fake_check.write(unchecked)
    assert "confirmed  it [b]holds[/b]" in call("resolve", str(unchecked)).output
    assert "no prediction is open" in call("resolve", str(unchecked)).output
    assert "it [b]holds[/b]" in call("list", str(unchecked), "--receipt", receipt).output
    late = call(
        "register",
        str(unchecked),
        "--statement",
        "late",
        "--subject",
        "planted",
        "--statistic",
        "necessity",
        "--threshold",
        "0.5",
        "--distribution",
        "names",
    )
    assert "counts as post hoc" in late.output


# --- the role catalogue, published circuits ---


def test_roles_are_remembered_shown_predicted_and_scored(unchecked: Path) -> None:
    fake_check.write(unchecked, "first", planted.generalises)
    again = fake_check.circuit(
        "second", [("L0H1", "induction head"), ("L1H0", "previous token"), ("L1H1", "induction")]
    )
    assert role_catalogue.known(unchecked, ["L1H1"]) == ()
    expected = role_catalogue.expect(unchecked, again, "names")
    assert {(one.component, one.role, one.speaks) for one in expected.known} == {
        ("L0H1", "induction", "for"),
        ("L0H1", "S-inhibition", "against"),
        ("L1H0", "induction", "for"),
    }
    assert expected.registered == 1
    assert role_catalogue.agreement(expected.known, again) == (1, 2)
    assert role_catalogue.expect(unchecked, again, "names").registered == 0
    (row,) = query.run(unchecked, "predictions").to_dicts()
    assert (row["subject"], row["role"], row["origin"], row["known_before"]) == (
        "L0H1",
        "induction head",
        "role catalogue",
        False,
    )
    covered = Finding("L0H1", "induction head", "coverage", "names", "coverage", 0.2, 0.1, 0.3, 48, "prompts")
    verdict = judge([covered], ["discovery"])
    store.write(
        unchecked, "second", circuit=again, findings=[covered], distributions=fake_check.DISTRIBUTIONS, verdict=verdict
    )
    (scored,) = store.resolve(unchecked)
    assert scored.outcome == "refuted"
    catalogue = query.run(unchecked, "role_catalogue", component="L0H1").filter(circuit="second")
    assert catalogue.select("role", "speaks").rows() == [("induction head", "against")]
    third = fake_check.circuit("third", [("L0H1", "induction")])
    role_catalogue.expect(unchecked, third, "discovery")
    assert query.run(unchecked, "predictions").filter(circuit="third")["direction"].to_list() == [">"]


def test_published_circuits_can_be_read_and_have_their_numbers() -> None:
    found = {one.name: one for one in published.circuits()}
    assert (
        set(found)
        == set(published.names())
        == {"copy-suppression-gpt2", "docstring-attn-only-4l", "induction-gpt2", "ioi-gpt2"}
    )
    ioi = found["ioi-gpt2"]
    assert len(ioi.members) == 26
    assert len({member.role for member in ioi.members}) == 7
    for name, one in found.items():
        assert one == yaml_files.read(published.path_of(name))
        assert published.numbers(name)
        assert all(number.source for number in published.numbers(name))
    assert published.path_of("no such") is None
    assert published.numbers("no such") == ()


def test_published_numbers_stand_beside_what_was_found(checked: Path) -> None:
    found = [Finding("ioi-gpt2", "", "faithfulness", "discovery", "faithfulness", 0.9, 0.8, 1.0, 48, "prompts")]
    (ioi,) = (one for one in published.circuits() if one.name == "ioi-gpt2")
    store.write(
        checked,
        ioi.name,
        circuit=ioi,
        findings=found,
        distributions=fake_check.DISTRIBUTIONS,
        verdict=judge(found, ["discovery"]),
    )
    frame = query.run(checked, "published_numbers")
    beside = frame.filter(pl.col("measured").is_not_null())
    assert beside.select("published", "measured").rows() == [(0.87, 0.9)]
    assert len(frame) == len(published.numbers(ioi.name))


def test_the_command_line_lists_published_circuits() -> None:
    listed = CliRunner().invoke(app, ["circuits", "list"], catch_exceptions=False).output
    assert all(name in listed for name in published.names())
    assert "1.285" in listed
    shown = CliRunner().invoke(app, ["circuits", "show", "ioi-gpt2"], catch_exceptions=False).output
    assert "{component: L9H9, role: name mover}" in shown
    assert "choose copy-suppression-gpt2" in str(CliRunner().invoke(app, ["circuits", "show", "ioi"]).exception)
