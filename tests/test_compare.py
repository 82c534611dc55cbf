"""Two runs: a planted change is found, nothing is found where nothing changed, and unlike runs are refused."""

import shutil
from pathlib import Path

import duckdb
import numpy as np
import planted
import polars as pl
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from profiler import query, report
from profiler.behaviours.compare import compare, open_both
from profiler.cli import app
from profiler.errors import QueryError, RunError
from profiler.report import comparison, numbers

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
        con.execute("UPDATE documents SET source = ? || source, text_hash = hash(? || source) >> 1", [sources, sources])
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("compared")
    return make(folder / "a.duckdb", 1, False, sources="a/"), make(folder / "b.duckdb", 2, True, sources="b/")


@pytest.fixture
def runs(made, tmp_path) -> tuple[Path, Path]:
    """Copies, which a test may change."""
    return tuple(Path(shutil.copy(path, tmp_path)) for path in made)


def test_the_changed_component_is_found_and_no_other(runs):
    result = compare(*runs)
    first = result.frame.row(0, named=True)
    assert (first["component"], first["behaviour"]) == (CHANGED, "induction")
    assert first["difference"] == pytest.approx(0.5, abs=0.1)
    assert first["q"] < 0.001
    assert result.frame.filter(pl.col("q") < 0.05)["component"].to_list() == [CHANGED]
    assert (result.frame["q"] >= result.frame["p"]).all()
    assert result.notes == ()


@pytest.mark.slow
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


def slow(a: Path, b: Path) -> pl.DataFrame:
    """The same from both runs' own answers to the query behaviours, with SciPy's t and statsmodels' false discoveries."""
    frames = [query.run(path, "behaviours", top=0).filter(pl.col("coverage_se").is_not_null()) for path in (a, b)]
    floor = (
        pl.when(pl.col("coverage").is_between(1e-12, 1 - 1e-12))
        .then(0.0)
        .otherwise(1 / (pl.col("effective_documents") + 2))
    )
    frames = [f.with_columns(se=pl.max_horizontal("coverage_se", floor)) for f in frames]
    both = frames[0].join(frames[1], on=["component", "behaviour"], suffix="_b").sort("component", "behaviour")
    se = np.hypot(both["se"].to_numpy(), both["se_b"].to_numpy())
    difference = (both["coverage_b"] - both["coverage"]).to_numpy()
    p = 2 * stats.t.sf(np.abs(difference) / se, 2 * planted.GROUPS - 1)
    q = multipletests(p, method="fdr_bh")[1]
    return both.with_columns(difference=difference, difference_se=se, p=p, q=q)


def test_the_query_equals_a_slow_recomputation(runs):
    want, got = slow(*runs), compare(*runs).frame.sort("component", "behaviour")
    assert got.select("component", "behaviour").equals(want.select("component", "behaviour"))
    for ours, theirs in (("coverage_a", "coverage"), ("coverage_b", "coverage_b"), ("difference", "difference"), ("difference_se", "difference_se"),
                         ("coverage_a_lo", "coverage_lo"), ("coverage_b_hi", "coverage_hi_b")):  # fmt: skip
        assert got[ours].to_numpy() == pytest.approx(want[theirs].to_numpy(), abs=1e-9)
    for name in ("p", "q"):
        assert got[name].to_numpy() == pytest.approx(want[name].to_numpy(), rel=0.03, abs=1e-12)
    names = ["component", "round", "behaviour"]
    for run, column in (("", "largest_a"), ("_b", "largest_b")):
        ranked = (
            want.with_columns(round=-pl.col(f"coverage{run}").round(9))
            .sort(names)
            .group_by("component", maintain_order=True)
            .first()
        )
        assert dict(got.select("component", column).unique().rows()) == dict(
            ranked.select("component", "behaviour").rows()
        )
    assert (got["differs"] == (got["largest_a"] != got["largest_b"])).all()
    top = compare(*runs, top=2).frame
    assert top["component"].n_unique() == 2


def test_the_query_runs_in_a_plain_shell(runs):
    with duckdb.connect(str(runs[0]), read_only=True) as shell:
        shell.execute(f"ATTACH '{runs[1]}' AS other (READ_ONLY)")
        rows = shell.execute(query.sql_text("compare")).fetchall()
    assert len(rows) == len(compare(*runs, top=100).frame)


def test_the_other_run_is_closed_too(runs):
    with open_both(*runs) as both:
        for text in (
            "ATTACH 'x.duckdb' AS x",
            "SET threads = 2",
            "CREATE TABLE other.t (x INTEGER)",
            "FROM read_text('/etc/hosts')",
        ):
            with pytest.raises(QueryError):
                query.run(both, text)


def edit(path: Path, table: str = "runs", /, **columns: object) -> Path:
    with duckdb.connect(str(path)) as con:
        for name, value in columns.items():
            con.execute(f"UPDATE {table} SET {name} = ?", [value])
    return path


def test_runs_of_other_tokenizers_or_shapes_are_refused(runs):
    a, b = runs
    before = a.read_bytes()
    with pytest.raises(RunError, match="different tokenizers"):
        compare(a, edit(b, tokenizer_hash="other"))
    edit(b, tokenizer_hash="t", n_layers=5)
    with pytest.raises(RunError, match=r"different shape \(n_layers 1 and 5\)"):
        compare(a, b)
    with pytest.raises(RunError, match="are one run: name two"):
        compare(a, a.parent / "." / a.name)
    with pytest.raises(RunError, match="there is no file"):
        compare(a, b.with_name("none.duckdb"))
    assert a.read_bytes() == before


def test_shared_documents_and_other_weights_are_said(tmp_path):
    a, b = make(tmp_path / "a.duckdb", 1, False), edit(make(tmp_path / "b.duckdb", 2, False), model_hash="other")
    notes = compare(a, b).notes
    assert notes[0].startswith(f"72 documents of {a} have a text that is also in {b}")
    assert "weights differ" in notes[1]


def test_shared_documents_are_known_by_their_text_not_by_their_name(tmp_path):
    """Disjoint files of one name have none in common; a file under another name has all."""
    a, one_name, renamed = (make(tmp_path / f"{name}.duckdb", 1, False) for name in ("a", "one_name", "renamed"))
    edit(one_name, "documents", text_hash=-1)
    edit(renamed, "documents", source="of another name")
    assert compare(a, one_name).notes == ()
    assert [note[:12] for note in compare(a, renamed).notes] == ["72 documents"]


def test_the_command(runs, capsys):
    app(["compare", *map(str, runs)], standalone_mode=False)
    out = capsys.readouterr().out.splitlines()
    assert out[0].split()[:3] == ["component", "behaviour", "coverage_a"]
    assert out[2].split()[:2] == [CHANGED, "induction"]


def test_the_page_says_what_changed_with_the_querys_numbers(runs, tmp_path, capsys):
    app(["compare", *map(str, runs), "--out", str(tmp_path / "page.html")], standalone_mode=False)
    assert "page.html" in capsys.readouterr().out
    html = (tmp_path / "page.html").read_text()
    row = compare(*runs, top=100).frame.row(0, named=True)
    assert "1 of 12 heads change what they do" in html
    assert f"“induction” of {CHANGED} goes from {numbers.share_with_interval(row, 'coverage_a')}" in html
    assert html.count("<script src") == 0
    assert "ATTACH" in html


def test_a_page_without_a_change_says_so(tmp_path):
    a, b = (make(tmp_path / f"{name}.duckdb", 1, False, 2, f"{name}/") for name in "ab")
    with open_both(a, b) as both:
        made = comparison.build(report.Reader(both), "a", "b", ("note",))
    assert "may still be there" in made.answer[0]
    assert made.answer[1] == "note"
    assert [s.title for s in made.sections] == ["Both runs", "Changed", "Within the first run"]
