"""Two runs: a planted change is found, nothing is found where nothing changed, and unlike runs are refused."""

import shutil
from pathlib import Path

import duckdb
import numpy as np
import planted
import polars as pl
import pytest
from scipy import stats

from profiler.behaviours.compare import compare, open_both
from profiler.cli import app
from profiler.database import query
from profiler.errors import QueryError, RunError
from profiler.pages import build, comparison, numbers

CHANGED = "L0H3"  # matters more where it attends to an induction target
OFTENER = "L0H5"  # attends there more often, and matters no more there


def make(path: Path, seed: int, changed: bool, n: int = 12, sources: str = "") -> Path:
    rng = np.random.default_rng(seed)
    w = planted.world(rng, n_documents=72, per_document=12)
    heads = []
    for i in range(n):
        share = 0.6 if changed and f"L0H{i}" == OFTENER else 0.3
        where = rng.random(len(w)) < share
        more = np.where(where, 5.0, 1.0) if changed and f"L0H{i}" == CHANGED else 1.0
        size = np.exp(w.effect + rng.normal(0, 0.3, len(w))) * more
        heads.append(planted.attends(f"L0H{i}", {"induction": where}, size))
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


@pytest.mark.slow
def test_the_changed_component_is_found_and_no_other(runs):
    result = compare(*runs)
    first = result.frame.row(0, named=True)
    assert (first["component"], first["behaviour"]) == (CHANGED, "induction")
    assert first["difference"] == pytest.approx(0.38, abs=0.06)
    assert first["times"] == pytest.approx(5, abs=1)
    assert first["times_lo"] < 5 < first["times_hi"]
    assert first["q"] < 0.001
    assert result.frame.filter(pl.col("q") < 0.05)["component"].to_list() == [CHANGED]
    often = result.frame.row(
        by_predicate=(pl.col("component") == OFTENER) & (pl.col("behaviour") == "induction"), named=True
    )
    assert often["coverage_b"] - often["coverage_a"] > 0.2
    tested = result.frame.filter(pl.col("p").is_not_null())
    assert (tested["q"] >= tested["p"]).all()
    assert result.notes == ()


def test_a_head_that_attends_elsewhere_and_matters_equally_is_told_from_one_that_changed(runs):
    frame = compare(*runs).frame.filter(pl.col("behaviour") == "induction")
    rows = {row["component"]: row for row in frame.to_dicts()}
    often, changed = rows[OFTENER], rows[CHANGED]
    assert often["rate_a"] == pytest.approx(0.3, abs=0.04) and often["rate_b"] == pytest.approx(0.6, abs=0.04)
    assert often["attends_q"] < 0.001 and often["q"] > 0.05
    assert changed["attends_q"] > 0.05 and changed["q"] < 0.001
    others = frame.filter(~pl.col("component").is_in([OFTENER, CHANGED]))
    assert (others["attends_q"] > 0.05).all()
    assert (frame["attends_q"] >= frame["attends_p"]).all()


def test_where_a_behaviour_is_of_the_text_its_rate_is_shown_and_not_tested(runs):
    frame = compare(*runs, family="context").frame
    assert len(frame) > 0 and frame["rate_a"].null_count() == 0
    assert frame["attends_p"].null_count() == frame["attends_q"].null_count() == len(frame)


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


def claim(rows: pl.DataFrame, groups: pl.DataFrame) -> dict | None:
    """One claim of one run, from its rows: coverages, log ratio, its variance and degrees of freedom, all by loops."""
    domain, group, document = (rows[name].to_numpy() for name in ("domain", "group_id", "doc_id"))
    weight, h = rows["weight"].to_numpy(), rows["holds"].to_numpy()
    m = weight * np.abs(rows["dla"].to_numpy().astype(float))

    def kish(size: np.ndarray) -> float:
        totals = np.array([size[document == d].sum() for d in set(document)])
        return totals.sum() ** 2 / (totals**2).sum()

    def sums(use: np.ndarray) -> tuple[float, float, float, float]:
        """Held, rest, scrambled, and the share of a document that chance would give both."""
        held = rest = scrambled = unlike = 0.0
        for d in set(domain):
            at = use * (domain == d)
            rate = (weight * at)[h].sum() / (weight * at).sum()
            held += (m * at)[h].sum() * (1 - rate)
            rest += (m * at)[~h].sum() * rate
            scrambled += (m * at).sum() * rate
            unlike += (m * at).sum() * rate * (1 - rate)
        total = (m * use).sum()
        return held / total, rest / total, scrambled / total, unlike / total

    held, rest, scrambled, unlike = sums(np.ones(len(m)))
    prior = 0.5 * unlike / kish(m)
    value = np.log((held + prior) / (rest + prior)) if prior else 0.0
    variances, frees = [], []
    for (name,), part in groups.group_by("domain"):
        left = []
        for g, n in part.select("group_id", "n_documents").iter_rows():
            scale = 1 / (1 - n / part["n_documents"].sum())
            a, b, *_ = sums(np.where(group == g, 0.0, np.where(domain == name, scale, 1.0)))
            left.append(np.log((a + prior) / (b + prior)) if prior else 0.0)
        variances.append((len(left) - 1) / len(left) * ((np.array(left) - np.mean(left)) ** 2).sum())
        frees.append(len(left) - 1)
    rate, rate_variance, rate_df = rate_of(rows, groups, kish(weight))
    variance, coverage = sum(variances), m[h].sum() / m.sum()
    testable = None if not prior else min(kish(weight * h), kish(weight * ~h)) >= 10
    df = variance**2 / sum(v**2 / f for v, f in zip(variances, frees, strict=True)) if variance else sum(frees)
    return {
        "coverage": coverage,
        "scrambled": scrambled,
        "value": value,
        "variance": max(variance, float(coverage in (0, 1))),
        "df": df,
        "testable": testable,
        "rate": rate,
        "rate_variance": rate_variance,
        "rate_df": rate_df,
    }


def rate_of(rows: pl.DataFrame, groups: pl.DataFrame, documents: float) -> tuple[float, float, float]:
    """Share of positions at which a claim holds, its variance (delete a group, by loops) and its degrees of freedom."""
    domain, group = (rows[name].to_numpy() for name in ("domain", "group_id"))
    weight, h = rows["weight"].to_numpy(), rows["holds"].to_numpy()
    rate = weight[h].sum() / weight.sum()
    variances, frees = [], []
    for (name,), part in groups.group_by("domain"):
        left = []
        for g, n in part.select("group_id", "n_documents").iter_rows():
            scale = 1 / (1 - n / part["n_documents"].sum())
            use = weight * np.where(group == g, 0.0, np.where(domain == name, scale, 1.0))
            left.append(use[h].sum() / use.sum())
        variances.append((len(left) - 1) / len(left) * ((np.array(left) - np.mean(left)) ** 2).sum())
        frees.append(len(left) - 1)
    own = sum(variances)
    df = own**2 / sum(v**2 / f for v, f in zip(variances, frees, strict=True)) if own else sum(frees)
    return rate, max(own, (1 / (documents + 2)) ** 2 if rate in (0, 1) else 0.0), df


ROWS = (
    "SELECT component, behaviour, domain, group_id, doc_id, weight, dla, holds FROM behaviour_rows WHERE family ="
    " 'attention'"
)
PLACES = "SELECT group_id, domain, n_documents FROM replicate_groups JOIN domains USING (domain_id)"


def slow(a: Path, b: Path) -> pl.DataFrame:
    """The same from the rows of both runs, one claim after the other, with SciPy's t and false discoveries."""
    claims = []
    for path in (a, b):
        groups = query.run(path, PLACES)
        parts = query.run(path, ROWS).group_by("component", "behaviour")
        claims.append({key: claim(part, groups) for key, part in parts})
    rows = []
    for key in claims[0].keys() & claims[1].keys():
        x, y = (one[key] for one in claims)
        known = x["testable"] is not None and y["testable"] is not None
        total, times = (x["variance"] + y["variance"], y["value"] - x["value"]) if known else (0.0, None)
        df = total**2 / (x["variance"] ** 2 / x["df"] + y["variance"] ** 2 / y["df"]) if total else None
        p = (
            2 * float(stats.t.sf(abs(times) / np.sqrt(total), df))
            if x["testable"] and y["testable"] and total
            else None
        )
        moved = x["rate_variance"] + y["rate_variance"]
        moved_df = moved**2 / (x["rate_variance"] ** 2 / x["rate_df"] + y["rate_variance"] ** 2 / y["rate_df"])
        attends_p = 2 * float(stats.t.sf(abs(y["rate"] - x["rate"]) / np.sqrt(moved), moved_df))
        above = [z["coverage"] - z["scrambled"] for z in (x, y)]
        rows.append(
            (
                *key,
                x["coverage"],
                y["coverage"],
                x["scrambled"],
                y["scrambled"],
                above[1] - above[0],
                None if times is None else float(np.exp(times)),
                p,
                x["rate"],
                y["rate"],
                attends_p,
            )
        )
    coverages = "coverage_a coverage_b scrambled_a scrambled_b"
    names = f"component behaviour {coverages} difference times p rate_a rate_b attends_p".split()
    frame = pl.DataFrame(rows, schema=names, orient="row").sort("component", "behaviour")
    frame = frame.with_columns(attends_q=pl.Series(stats.false_discovery_control(frame["attends_p"].to_numpy())))
    tested = frame.filter(pl.col("p").is_not_null())
    q = tested.select("component", "behaviour", q=pl.Series(stats.false_discovery_control(tested["p"].to_numpy())))
    return frame.join(q, on=["component", "behaviour"], how="left").sort("component", "behaviour")


@pytest.mark.slow
def test_the_query_equals_a_slow_recomputation(runs):
    want, got = slow(*runs), compare(*runs).frame.sort("component", "behaviour")
    assert got.select("component", "behaviour").equals(want.select("component", "behaviour"))
    assert got["p"].is_null().equals(want["p"].is_null())
    for name in ("coverage_a", "coverage_b", "scrambled_a", "scrambled_b", "difference", "times"):
        assert got[name].is_null().equals(want[name].is_null())
        assert got[name].drop_nulls().to_numpy() == pytest.approx(
            want[name].drop_nulls().to_numpy(), rel=1e-6, abs=1e-9
        )
    assert got["rate_a"].to_numpy() == pytest.approx(want["rate_a"].to_numpy(), rel=1e-9)
    assert got["rate_b"].to_numpy() == pytest.approx(want["rate_b"].to_numpy(), rel=1e-9)
    for name in ("p", "q", "attends_p", "attends_q"):
        assert got[name].drop_nulls().to_numpy() == pytest.approx(
            want[name].drop_nulls().to_numpy(), rel=0.03, abs=1e-12
        )
    for run, path in zip("ab", runs, strict=True):
        own = query.run(path, "behaviours", top=0)
        both = got.join(own, on=["component", "behaviour"])
        assert both[f"coverage_{run}_lo"].to_numpy() == pytest.approx(both["coverage_lo"].to_numpy(), abs=1e-9)
        assert both[f"coverage_{run}_hi"].to_numpy() == pytest.approx(both["coverage_hi"].to_numpy(), abs=1e-9)
        above = want.with_columns(above=-(pl.col(f"coverage_{run}") - pl.col(f"scrambled_{run}")).round(9))
        first = above.sort("component", "above", "behaviour").group_by("component", maintain_order=True).first()
        assert dict(got.select("component", f"largest_{run}").unique().rows()) == dict(
            first.select("component", "behaviour").rows()
        )
    assert set(got.filter("differs")["component"]) <= {CHANGED}
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


@pytest.mark.slow
def test_shared_documents_and_other_weights_are_said(tmp_path):
    a, b = make(tmp_path / "a.duckdb", 1, False), edit(make(tmp_path / "b.duckdb", 2, False), model_hash="other")
    notes = compare(a, b).notes
    assert notes[0].startswith(f"72 documents of {a} have a text that is also in {b}")
    assert "weights differ" in notes[1]


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_page_says_what_changed_with_the_querys_numbers(runs, tmp_path, capsys):
    app(["compare", *map(str, runs), "--out", str(tmp_path / "page.html")], standalone_mode=False)
    assert "page.html" in capsys.readouterr().out
    html = (tmp_path / "page.html").read_text()
    row = compare(*runs, top=100).frame.row(0, named=True)
    assert "1 of 12 tested heads change what they matter for" in html
    assert f"“induction” of {CHANGED} goes from {numbers.share_with_interval(row, 'coverage_a')}" in html
    assert html.count("<script src") == 0
    assert "ATTACH" in html


@pytest.mark.slow
def test_a_page_without_a_change_says_so(tmp_path):
    a, b = (make(tmp_path / f"{name}.duckdb", 1, False, 2, f"{name}/") for name in "ab")
    with open_both(a, b) as both:
        made = comparison.build(build.Reader(both), "a", "b", ("note",))
    assert "may still exist" in made.answer[0]
    assert made.answer[1] == "note"
    assert [s.title for s in made.sections] == ["Both runs", "Changed", "Within the first run"]
