"""Two runs: a planted change is found, nothing is found where nothing changed, and unlike runs are refused."""

from pathlib import Path

import duckdb
import numpy as np
import planted
import polars as pl
import pytest

from profiler.behaviours.compare import compare
from profiler.cli import app
from profiler.errors import RunError

CHANGED = "L0H3"


def make(path: Path, seed: int, changed: bool, n: int = 12, sources: str = "") -> Path:
    rng = np.random.default_rng(seed)
    w = planted.world(rng, n_documents=72, per_document=12)
    heads = []
    for i in range(n):
        share = 0.8 if changed and f"L0H{i}" == CHANGED else 0.3
        size = np.exp(w.effect + rng.normal(0, 0.3, len(w)))
        heads.append(planted.attends(f"L0H{i}", {"induction": rng.random(len(w)) < share}, size))
    planted.write(path, w, heads)
    with duckdb.connect(str(path)) as con:
        con.execute("UPDATE documents SET source = ? || source", [sources])
    return path


@pytest.fixture
def runs(tmp_path) -> tuple[Path, Path]:
    return make(tmp_path / "a.duckdb", 1, False, sources="a/"), make(tmp_path / "b.duckdb", 2, True, sources="b/")


def test_the_changed_component_is_found_and_no_other(runs):
    result = compare(*runs)
    first = result.frame.row(0, named=True)
    assert (first["component"], first["behaviour"]) == (CHANGED, "induction")
    assert first["difference"] == pytest.approx(0.5, abs=0.1)
    assert first["q"] < 0.001
    assert result.frame.filter(pl.col("q") < 0.05)["component"].to_list() == [CHANGED]
    assert (result.frame["q"] >= result.frame["p"]).all()
    assert result.notes == ()


def test_false_discoveries_are_rare_where_nothing_changed(tmp_path):
    found = 0
    for seed in range(3):
        a = make(tmp_path / f"a{seed}.duckdb", 10 + seed, False, 30, "a/")
        b = make(tmp_path / f"b{seed}.duckdb", 20 + seed, False, 30, "b/")
        result = compare(a, b).frame.filter(pl.col("behaviour") == "induction")
        assert len(result) == 30
        found += (result["p"] < 0.05).sum()
        assert (result["q"] < 0.05).sum() <= 1
    assert found / 90 < 0.12


def edit(path: Path, **columns: object) -> Path:
    with duckdb.connect(str(path)) as con:
        for name, value in columns.items():
            con.execute(f"UPDATE runs SET {name} = ?", [value])
    return path


def test_runs_of_other_tokenizers_or_shapes_are_refused(runs):
    a, b = runs
    before = a.read_bytes()
    with pytest.raises(RunError, match="different tokenizers"):
        compare(a, edit(b, tokenizer_hash="other"))
    edit(b, tokenizer_hash="t", n_layers=5)
    with pytest.raises(RunError, match=r"different shape \(n_layers 1 and 5\)"):
        compare(a, b)
    with pytest.raises(RunError, match="there is no file"):
        compare(a, b.with_name("none.duckdb"))
    assert a.read_bytes() == before


def test_shared_documents_and_other_weights_are_said(tmp_path):
    a, b = make(tmp_path / "a.duckdb", 1, False), edit(make(tmp_path / "b.duckdb", 2, False), model_hash="other")
    notes = compare(a, b).notes
    assert notes[0].startswith("72 documents are in both runs")
    assert "weights differ" in notes[1]


def test_the_command(runs, capsys):
    app(["compare", *map(str, runs)], standalone_mode=False)
    out = capsys.readouterr().out.splitlines()
    assert out[0].split()[:3] == ["component", "behaviour", "coverage_a"]
    assert out[2].split()[:2] == [CHANGED, "induction"]
