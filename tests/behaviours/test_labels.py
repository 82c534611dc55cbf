"""Blind labels: what is shown gives nothing away, answers are kept one by one, the score is Clopper and Pearson's."""

from pathlib import Path

import fake_run
import polars as pl
import pytest
from scipy import stats
from typer.testing import CliRunner

from profiler.behaviours import labels
from profiler.cli import app
from profiler.database import query
from profiler.errors import ComponentError, RunError


@pytest.fixture
def run(tmp_path) -> Path:
    return fake_run.build(tmp_path / "fake.duckdb").path


def test_examples_come_from_every_band_one_per_document_in_an_order_that_says_nothing(run):
    left = labels.begin(run, "L0N1", "numbers", per_band=4).left
    assert set(left.columns) == {"band", "position_id", "context_before", "context_token", "context_after"}
    assert set(left["band"]) == set(labels.BANDS)
    facts = query.run(run, "SELECT position_id, doc_id, band FROM component_facts WHERE component = 'L0N1'")
    drawn = left.join(facts, on="position_id", suffix="_true")
    assert drawn["band"].equals(drawn["band_true"])
    assert not drawn.select("band", "doc_id").is_duplicated().any()
    assert drawn.group_by("band").len()["len"].max() == 4
    assert not left["band"].is_sorted()
    assert not left["band"].is_sorted(descending=True)
    assert left.equals(labels.begin(run, "L0N1", "numbers", per_band=4).left)


def test_answers_are_kept_and_asked_once(run):
    before = run.read_bytes()
    session = labels.begin(run, "L0N1", "numbers", 3)
    path = labels.labels_path(run, "L0N1")
    for row in session.left.head(5).to_dicts():
        labels.write(path, labels.Label(session.run_id, "L0N1", "numbers", row["position_id"], row["band"], True))
    again = labels.begin(run, "L0N1", "numbers", 3)
    assert len(again.given) == 5
    assert again.left["position_id"].to_list() == session.left["position_id"].to_list()[5:]
    assert labels.begin(run, "L0N1", "something else", 3).left.equals(session.left)
    assert run.read_bytes() == before


@pytest.mark.parametrize(("yes", "n"), [(0, 5), (3, 7), (9, 9)])
def test_the_score_is_clopper_and_pearson(yes, n):
    answers = tuple(labels.Label("r", "L0N1", "h", i, 0.9, i < yes) for i in range(n))
    row = labels.score(answers).row(0, named=True)
    exact = stats.binomtest(yes, n).proportion_ci(method="exact")
    assert (row["band"], row["n"], row["fits"], row["share"]) == (0.9, n, yes, yes / n)
    assert (row["lo"], row["hi"]) == pytest.approx((exact.low, exact.high))
    assert labels.score(()).is_empty()


def test_in_the_terminal(run):
    args = ["label", str(run), "--component", "L0N1", "--hypothesis", "numbers", "--per-band", "1"]
    first = CliRunner().invoke(app, args, input="y\nx\nn\nq\n")
    assert first.exit_code == 0
    assert "answer y, n or q" in first.output
    assert "activation" not in first.output.split("band  ")[0].replace("activation it begins", "")
    kept = labels.read(labels.labels_path(run, "L0N1"), query.run(run, "SELECT run_id FROM runs").item())
    assert [one.fits for one in kept] == [True, False]
    second = CliRunner().invoke(app, args, input="y\n" * 9)
    assert "[1 of 4]" in second.output
    scored = CliRunner().invoke(app, [*args, "--score"])
    assert "[1 of" not in scored.output
    assert scored.output.count("\n") >= 8


def test_mistakes(run, tmp_path):
    with pytest.raises(ComponentError):
        labels.begin(run, "L9N9", "h")
    path = labels.labels_path(run, "L0N1")
    path.write_text("not json\n")
    with pytest.raises(RunError, match="cannot be read"):
        labels.begin(run, "L0N1", "h")
    path.unlink()
    labels.write(path, labels.Label("another", "L0N1", "h", 1, 0.0, True))
    with pytest.raises(RunError, match="another run"):
        labels.begin(run, "L0N1", "h")
    with pytest.raises(RunError, match="cannot be written"):
        labels.write(tmp_path / "none" / "x.jsonl", labels.Label("r", "L0N1", "h", 1, 0.0, True))
    assert isinstance(labels.score(()), pl.DataFrame)
