"""What is said of patch and check beside the truth: members, ROC, words, totals; the command on two small models."""

import re
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from profiler.cli import app
from profiler.errors import CircuitError, ModelError
from profiler.truth import evaluate
from profiler.truth.evaluate import TruthSettings, ask
from profiler.truth.models import MODELS
from profiler.truth.tables import SCORES, VERDICTS, TruthResult, roc_area

ROWS = [  # model, members, chosen, true word, word
    ("and", ["L0H0", "L0H1"], ["L0H0", "L0H1"], "generalises", "inconclusive"),
    ("or", ["L0H0", "L0H1"], ["L0H0"], "generalises", "generalises"),
    ("crowd", ["L0H0"], ["L0H0", "L0H3"], "generalises", "does something else"),
    ("false-claim", ["L0H0"], None, "does something else", "does something else"),
    ("brackets", ["L0H0"], None, "generalises", "refused"),
]
OF_HEADS = [1.0, 0.0, 0.0, 1e-13], [0.5, 0.2, 0.9, 0.0]


@pytest.fixture
def result():
    names = ("model", "members", "chosen", "true_word", "word")
    rest = dict.fromkeys(VERDICTS) | {"size": "small", "seed": 0, "heads": 4}
    counted = {"roles_right": 1, "roles_read": 2} | {"edges_right": 1, "edges_chosen": 1, "edges_true": 2}
    rest |= counted
    verdicts = [rest | dict(zip(names, row, strict=True)) for row in ROWS]
    scores = [
        {"model": model, "size": "small", "seed": 0, "component": f"L0H{i}", "score": score, "is_member": i < 2}
        for model, values in zip(("or", "and"), OF_HEADS, strict=True)
        for i, score in enumerate(values)
    ]
    return TruthResult(pl.DataFrame(verdicts, VERDICTS), pl.DataFrame(scores, SCORES))


def test_members_are_counted_where_a_circuit_was_chosen(result):
    columns = ("model", "right", "false", "missed", "roc_area")
    assert result.members.select(columns).rows() == [
        ("and", 2, 0, 0, 0.5),
        ("or", 1, 0, 1, 0.75),
        ("crowd", 1, 1, 0, None),
    ]


def test_the_area_is_the_share_of_heads_that_a_member_scores_above_ties_half():
    frame = pl.DataFrame({"score": [0.3, 0.3 + 1e-15, 0.1], "is_member": [True, False, False]})
    assert roc_area(frame) == 0.75
    assert roc_area(frame.filter("is_member")) is None


def test_words_are_counted_by_true_word_and_refusals_and_indecision_are_no_wrong_words(result):
    words = ["true_word", "does something else", "generalises", "inconclusive", "refused"]
    assert result.words.select(words).rows() == [("does something else", 1, 0, 0, 0), ("generalises", 1, 1, 1, 1)]
    assert {row["what"]: (row["k"], row["n"]) for row in result.totals.to_dicts()} == {
        "right word": (2, 5),
        "wrong word": (1, 5),
        "inconclusive": (1, 5),
        "refused": (1, 5),
        "true members that are chosen": (4, 5),
        "chosen members that are true": (4, 5),
        "roles read off that are true": (3, 6),
        "true edges that are chosen": (3, 6),
        "chosen edges that are true": (3, 3),
    }


def test_the_pooled_curve_begins_at_the_highest_score_and_ends_with_every_head(result):
    curve = result.roc()
    assert curve.row(0) == (1.0, 0.25, 0.0)
    assert curve.select("true_positives", "false_positives").row(-1) == (1.0, 1.0)
    assert curve["threshold"].to_list() == [1.0, 0.9, 0.5, 0.2, 1e-13]


def test_the_tables_are_written_as_markdown(result):
    lines = result.markdown().splitlines()
    assert lines[0] == "| model | true word | small, 4 heads |"
    assert "| `crowd` | generalises | does something else 1 |" in lines
    assert "| generalises | 1 | 1 | 1 | 1 |" in lines
    assert any(line.startswith("| wrong word | 1 of 5 | 20.0% (") for line in lines)
    assert result.roc_area == pytest.approx((2 * 2 - 1.5) / 4, abs=0.2)
    assert lines[-1] == f"| area under the ROC of members, all heads |  | {result.roc_area:.4f} |"


def test_answers_are_kept_and_not_asked_again(tmp_path, monkeypatch):
    def refuse(_settings):
        raise ModelError("it cannot be read")

    monkeypatch.setattr(evaluate, "load_model", refuse)
    file, seen = tmp_path / "answers.jsonl", []
    first = ask(TruthSettings(models=("sum",)), answers=file)
    both = ask(TruthSettings(models=("sum", "crowd")), answers=file, report=seen.append)
    assert [row["model"] for row in seen] == ["crowd"]
    assert both.verdicts["model"].to_list() == ["sum", "crowd"] and len(first.verdicts) == 1
    file.write_text(file.read_text() + "{}\n")
    with pytest.raises(CircuitError, match="line 3: this is no answer"):
        ask(TruthSettings(models=("sum",)), answers=file)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (TruthSettings(sizes=("huge",)), "no size 'huge': choose small, medium, large"),
        (TruthSettings(seeds=0), "seeds 0 and pairs 40"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_any_model_is_made(settings, said, tmp_path):
    with pytest.raises(CircuitError, match=said):
        ask(settings, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_model_that_cannot_be_patched_is_refused_in_its_row_and_the_rest_goes_on(monkeypatch):
    def refuse(_settings):
        raise ModelError("it cannot be read")

    monkeypatch.setattr(evaluate, "load_model", refuse)
    seen = []
    result = evaluate.ask(TruthSettings(models=("sum", "false-claim")), report=seen.append)
    assert [(row["word"], row["sentence"]) for row in seen] == [("refused", "it cannot be read")] * 2
    assert result.by_model["printed"].to_list() == ["refused 1"] * 2
    assert result.totals.filter(what="chosen members that are true")["share"].to_list() == [None]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # scipy warns of effects that are equal but for rounding
@pytest.mark.parametrize("name", ["or", pytest.param("over-recovers", marks=pytest.mark.monthly)])
def test_what_decides_is_what_the_commands_say(name):
    """Members, roles and the word, by the stages that decide them and by patch and check as a user runs them."""
    stages, commands = (
        ask(TruthSettings(models=(name,), whole=whole)).verdicts.row(0, named=True) for whole in (False, True)
    )
    same = ("chosen", "word", "roles_right", "roles_read")
    assert [stages[column] for column in same] == [commands[column] for column in same]
    assert stages["edges_true"] is None and commands["edges_true"] is not None


DOCS = Path(__file__).parents[2] / "docs" / "truth.md"
TABLED = re.compile(r"^\| `([a-z-]+)` \| ([a-z -]+) \| ([a-z -]+) \d+ \|", re.MULTILINE)
"""A row of the table of docs/truth.md: model, true word, and the word that every run at `small` printed."""


def test_the_table_of_the_documentation_has_every_model_with_its_true_word():
    rows = {model: (true, printed) for model, true, printed in TABLED.findall(DOCS.read_text(encoding="utf-8"))}
    assert {model: true for model, (true, _) in rows.items()} == {name: MODELS[name]().word for name in MODELS}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # scipy warns of effects that are equal but for rounding
@pytest.mark.parametrize(
    "name",
    ["serial-backup", *(pytest.param(name, marks=pytest.mark.monthly) for name in ("polysemantic", "part-of-sum"))],
)
def test_the_table_of_the_documentation_is_what_the_command_prints(name):
    rows = {model: printed for model, _, printed in TABLED.findall(DOCS.read_text(encoding="utf-8"))}
    assert ask(TruthSettings(models=(name,))).verdicts["word"].to_list() == [rows[name]]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # scipy warns of effects that are equal but for rounding
def test_the_command_prints_true_words_beside_printed_ones_and_keeps_the_models(tmp_path):
    command = ["circuits", "truth", "--models", "one-template,false-claim", "--whole"]
    command += ["--out", str(tmp_path)]
    said = CliRunner().invoke(app, command, catch_exceptions=False).output
    assert "one-template small 0: narrows (true: narrows)" in said
    assert "false-claim small 0: does something else (true: does something else)" in said
    assert (tmp_path / "one-template-small-0" / "run.duckdb").exists()
    assert (tmp_path / "false-claim-small-0" / "truth.json").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # scipy warns of effects that are equal but for rounding
def test_a_true_circuit_can_be_given_with_its_roles():
    row = ask(TruthSettings(models=("polysemantic",), given=True)).verdicts.row(0, named=True)
    assert (row["chosen"], row["word"]) == (None, "narrows")
    assert (row["roles_right"], row["roles_read"]) == (2, 2)


@pytest.mark.monthly
@pytest.mark.filterwarnings("ignore")  # scipy warns of effects that are equal but for rounding
def test_a_corpus_is_recorded_first_where_tokens_are_asked_for():
    row = ask(TruthSettings(models=("over-recovers",), tokens=500)).verdicts.row(0, named=True)
    assert (row["chosen"], row["word"]) == (row["members"], "over-recovers")
