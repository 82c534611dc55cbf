"""Every file of queries/: its header, its grain, its parameters, and its rows against a slow recomputation."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import brute
import brute_contexts
import duckdb
import fake_run
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from scipy import stats

from profiler import query
from profiler.generality import store as generality_store

CAUSAL = "latest_experiment"  # read by queries of patching; test_patching_queries.py has a file with their tables
CHECKS = {
    *generality_store.TABLES,
    "latest_check",
    "predictions",
    "ledger",
}  # test_generality_store.py has a file with these
TWO_RUNS = "other.behaviour_rows"  # read by the comparison of two runs; test_compare.py has two
NAMES = [n for n in query.names() if not {CAUSAL, TWO_RUNS, *CHECKS} & set(query.header(n).reads)]
HEADS_AND_NEURONS = ["head", "neuron"]
RECOMPUTED: dict[str, Callable[[fake_run.FakeRun, query.Connection], None]] = dict(brute_contexts.CHECKS)
ABOUT_HEADS = ("head_attention", "head_effects", "coverage_curve", "precision_recall", "unexplained", "token_split")


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> fake_run.FakeRun:
    return fake_run.build(tmp_path_factory.mktemp("fake") / "fake.duckdb")


@pytest.fixture(scope="module")
def copy(fake: fake_run.FakeRun) -> Path:
    """The same file again: DuckDB opens a file only once in a process unless the settings are the same."""
    return Path(shutil.copy(fake.path, fake.path.with_name("copy.duckdb")))


@pytest.fixture(scope="module")
def db(fake: fake_run.FakeRun) -> Iterator[query.Connection]:
    with query.open_run(fake.path) as connection:
        yield connection


def defaults(name: str) -> dict[str, object]:
    """What the query needs: a head for head_attention, a neuron for the others."""
    required = [p.name for p in query.header(name).parameters if p.required]
    assert set(required) <= {"component", "behaviour"}
    values = {"component": "L1H1" if name in ABOUT_HEADS else "L0N1", "behaviour": "previous"}
    return {parameter: values[parameter] for parameter in required}


def test_there_are_queries() -> None:
    assert len(NAMES) >= 17


@pytest.mark.parametrize("name", NAMES)
def test_header_is_complete_and_no_line_too_long(name: str) -> None:
    parsed = query.header(name)
    assert parsed.question.endswith("?")
    assert parsed.grain.startswith("one row")
    assert all(len(line) <= 150 for line in query.sql_text(name).splitlines() if not line.startswith("    UNION ALL"))


@pytest.mark.parametrize("name", NAMES)
def test_runs_with_its_defaults_and_has_its_key(db: query.Connection, name: str) -> None:
    frame = query.run(db, name, **defaults(name))
    assert len(frame) > 0
    key = list(query.header(name).key)
    assert frame.select(key).is_duplicated().sum() == 0
    assert frame.select(key).null_count().sum_horizontal().item() == 0
    # sums of floats are taken in the order of the threads: the last bits may differ, the rows and their order not
    assert_frame_equal(frame, query.run(db, name, **defaults(name)), rel_tol=1e-11, abs_tol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_runs_alone_in_another_connection(db: query.Connection, copy: Path, name: str) -> None:
    """As in a shell: variables set beforehand, then the whole file."""
    with duckdb.connect(str(copy), read_only=True) as shell:
        for parameter, value in defaults(name).items():
            shell.execute(f"SET VARIABLE {parameter} = '{value}'")
        columns = [c[0] for c in shell.execute(query.sql_text(name)).description]
        rows = shell.fetchall()
    frame = query.run(db, name, **defaults(name))
    assert columns == frame.columns
    assert len(rows) == len(frame)


@pytest.mark.parametrize("name", NAMES)
def test_a_required_parameter_is_asked_for_in_a_shell(copy: Path, name: str) -> None:
    with duckdb.connect(str(copy), read_only=True) as shell:
        if defaults(name):
            with pytest.raises(duckdb.Error, match="set the component first"):
                shell.execute(query.sql_text(name))
        else:
            shell.execute(query.sql_text(name))


@pytest.mark.parametrize("name", NAMES)
def test_declares_the_parameters_that_it_reads_and_no_others(name: str) -> None:
    text = query.sql_text(name)
    declared = {p.name for p in query.header(name).parameters}
    own = set(re.findall(r"SET VARIABLE (\w+) = \(", text))  # lists that the file makes for itself
    assert (
        declared
        == set(re.findall(r"getvariable\('(\w+)'\)", text)) - own
        == set(re.findall(r"SET VARIABLE (\w+) = coalesce", text))
    )


def test_every_default_in_a_header_is_the_one_in_the_sql() -> None:
    seen = 0
    for name in NAMES:
        for parameter in query.header(name).parameters:
            pattern = rf"coalesce\(getvariable\('{parameter.name}'\)::\w+, ([^)]*)\);"
            written = re.search(pattern, query.sql_text(name))
            if not parameter.required:
                assert written is not None
                assert written[1] == repr(parameter.default)
                seen += 1
    assert seen >= 7


@pytest.mark.parametrize("name", NAMES)
def test_reads_what_it_says(db: query.Connection, name: str) -> None:
    text = re.sub(r"--.*", "", query.sql_text(name))
    relations = {
        r[0]
        for r in db.cursor()
        .execute("SELECT table_name FROM duckdb_tables() UNION SELECT view_name FROM duckdb_views() WHERE NOT internal")
        .fetchall()
    }
    used = {
        r
        for r in relations
        if re.search(rf"(?:FROM|JOIN)\s+{r}\b", text) and not re.search(rf"\b{r} AS (?:NOT MATERIALIZED )?\(", text)
    }
    said = {r for r in query.header(name).reads if not r.endswith("()")}
    assert said == used


def test_the_index_lists_every_query_and_no_other() -> None:
    lines = (Path(query.assets.folder("queries")) / "README.md").read_text(encoding="utf-8").splitlines()
    rows = {m[1]: line for line in lines if (m := re.match(r"\| \[(\w+)\]\(\1\.sql\)", line))}
    assert sorted(rows) == query.names()
    for name, line in rows.items():
        parsed = query.header(name)
        shown = [f"**{p.name}**" if p.required else f"{p.name} = {p.default!r}" for p in parsed.parameters]
        assert line == f"| [{name}]({name}.sql) | {parsed.question} | {parsed.grain} | {', '.join(shown) or '–'} |"


def recomputes(function: Callable) -> Callable:
    """Register the recomputation of the query that the function is named after."""
    RECOMPUTED[function.__name__.removeprefix("check_")] = function
    return function


@pytest.mark.parametrize("name", NAMES)
def test_equals_a_slow_recomputation(fake: fake_run.FakeRun, db: query.Connection, name: str) -> None:
    RECOMPUTED[name](fake, db)


def live(fake: fake_run.FakeRun) -> list[dict]:
    """Rows of the heads and neurons."""
    return fake.components.filter(pl.col("kind").is_in(HEADS_AND_NEURONS)).to_dicts()


@recomputes
def check_component_overview(fake: fake_run.FakeRun, db: query.Connection) -> None:
    classes = brute.column(fake, "class")
    everywhere = np.ones(len(classes), bool)
    ids = [c["component_id"] for c in live(fake)]
    wanted = []
    for c in live(fake):
        a, d = fake.activation[c["component_id"]], fake.dla[c["component_id"]]
        m = np.abs(d)

        def share(use: np.ndarray, m: np.ndarray = m) -> float:
            return m[use].sum() / np.abs(fake.dla[np.ix_(ids, np.flatnonzero(use))]).sum()

        shares = {
            k: m[fake.ordinary & (classes == k)].sum() / m[fake.ordinary].sum() if m.any() else 0
            for k in sorted(set(classes[fake.ordinary]))
        }
        top = max(shares, key=lambda k: shares[k])
        wanted.append({
            "component": c["component"], "kind": c["kind"], "layer": c["layer"], "n": int(fake.ordinary.sum()),
            "activation": a[fake.ordinary].mean(), "activation_se": brute.jackknife(fake, brute.mean_of(a, everywhere)),
            "activation_sd": a[fake.ordinary].std(), "dla": d[fake.ordinary].mean(),
            "dla_se": brute.jackknife(fake, brute.mean_of(d, everywhere)), "abs_dla": m[fake.ordinary].mean(),
            "abs_dla_se": brute.jackknife(fake, brute.mean_of(m, everywhere)), "share_abs_dla": share(fake.ordinary),
            "share_abs_dla_se": brute.jackknife(fake, share), "top_class": top, "top_class_share": shares[top] if m.any() else None,
            "activation_min": a[fake.ordinary].min(), "activation_max": a[fake.ordinary].max(),
        })  # fmt: skip
    wanted.sort(key=lambda row: -row["abs_dla"])
    brute.agree(query.run(db, "component_overview"), wanted)
    brute.agree(query.run(db, "component_overview", top=0, kind="head"), [r for r in wanted if r["kind"] == "head"])
    brute.agree(query.run(db, "component_overview", top=3), wanted[:3])


@recomputes
def check_component_place(fake: fake_run.FakeRun, db: query.Connection) -> None:
    ids = [c["component_id"] for c in live(fake)]
    sizes = np.abs(fake.dla)
    order = sorted(live(fake), key=lambda c: -sizes[c["component_id"]][fake.ordinary].sum())
    for place, c in enumerate(order, 1):
        m = sizes[c["component_id"]]

        def share(use: np.ndarray, m: np.ndarray = m) -> float:
            return m[use].sum() / sizes[np.ix_(ids, np.flatnonzero(use))].sum()

        wanted = {
            "component": c["component"], "kind": c["kind"], "layer": c["layer"], "n": int(fake.ordinary.sum()), "abs_dla": m[fake.ordinary].mean(),
            "share_abs_dla": share(fake.ordinary), "share_abs_dla_se": brute.jackknife(fake, share), "place": place, "n_components": len(ids),
        }  # fmt: skip
        brute.agree(query.run(db, "component_place", component=c["component"]), [wanted])
    assert query.run(db, "component_place", component="embed").is_empty()


@recomputes
def check_spectrum_by_class(fake: fake_run.FakeRun, db: query.Connection) -> None:
    i = fake.row("L0N1")
    x, m = fake.activation[i][fake.ordinary], np.abs(fake.dla[i])[fake.ordinary]
    d, classes, bins = fake.dla[i][fake.ordinary], brute.column(fake, "class")[fake.ordinary], fake_run.bin_of(x, 2)
    edges = fake.tables["bins"].filter(pl.col("resolution") == "spectrum").sort("bin")
    wanted = []
    for number, name in sorted({(int(b), c) for b, c in zip(bins, classes, strict=True)}):
        cell, lo, hi = (bins == number) & (classes == name), edges["lo"][number], edges["hi"][number]
        is_class = brute.column(fake, "class") == name
        p_class, n_all = (classes == name).mean(), len(x)
        se = brute.jackknife(fake, lambda use, k=is_class: (use & k).sum() / use.sum())
        effect = max(1.0, se**2 / (p_class * (1 - p_class) / n_all))
        n_eff, p = (bins == number).sum() / effect, cell.sum() / (bins == number).sum()
        z = stats.norm.ppf(0.975)
        middle, half = p + z**2 / (2 * n_eff), z * np.sqrt(p * (1 - p) / n_eff + z**2 / (4 * n_eff**2))
        wanted.append({
            "class": name, "bin": number, "lo": lo, "hi": hi, "n": int(cell.sum()), "class_share": p,
            "class_share_lo": max(0, (middle - half) / (1 + z**2 / n_eff)), "class_share_hi": min(1, (middle + half) / (1 + z**2 / n_eff)),
            "within_class": cell.sum() / (classes == name).sum(), "expected_value": (lo + hi) / 2 * cell.sum() / n_all,
            "sum_dla": d[cell].sum(), "sum_abs_dla": m[cell].sum(), "importance_share": m[cell].sum() / m.sum(),
        })  # fmt: skip
    found = query.run(db, "spectrum_by_class", component="L0N1")
    brute.agree(found, wanted)
    assert found["expected_value"].sum() == pytest.approx(x.mean(), abs=0.2 * np.abs(x).mean())
    assert found["importance_share"].sum() == pytest.approx(1)


@recomputes
def check_density(fake: fake_run.FakeRun, db: query.Connection) -> None:
    x = np.sort(fake.activation[fake.row("L0N5")][fake.ordinary])
    found = query.run(db, "density", component="L0N5")
    numbers, n = np.unique(fake_run.bin_of(x, 16), return_counts=True)
    assert found["bin"].to_list() == numbers.tolist()
    assert found["n"].to_list() == n.tolist()
    assert np.allclose(found["p"], n / len(x))
    assert np.allclose(found["cumulative"], n.cumsum() / len(x))
    assert ((found["lo"] < found["hi"]).all()) and found["lo"].is_sorted()


def check_contexts(fake: fake_run.FakeRun, found: pl.DataFrame) -> None:
    for row in found.iter_rows(named=True):
        wanted = brute.context(fake, row["position_id"])
        assert {k: row[k] for k in wanted if k in row} == {k: v for k, v in wanted.items() if k in row}


@recomputes
def check_quantile_samples(fake: fake_run.FakeRun, db: query.Connection) -> None:
    i = fake.row("L0N1")
    found = query.run(db, "quantile_samples", component="L0N1", per_quantile=3)
    everything = query.run(db, "quantile_samples", component="L0N1", per_quantile=1000)
    samples = fake.tables["sample_rows"].filter(pl.col("component_id") == i)
    for q, stratum in (
        fake.tables["quantiles"].filter(pl.col("component_id") == i).select("quantile", "bin").iter_rows()
    ):
        inside = set(samples.filter(pl.col("bin") == stratum)["position_id"])
        mine = found.filter(pl.col("quantile") == q)
        assert set(everything.filter(pl.col("quantile") == q)["position_id"]) == inside
        assert len(mine) == min(3, len(inside))
        assert set(mine["position_id"]) <= inside
        n = (fake_run.bin_of(fake.activation[i][fake.ordinary], 2) == stratum).sum()
        assert mine["inclusion_probability"].to_list() == pytest.approx([len(inside) / n] * len(mine))
        assert mine["activation"].is_between(mine["stratum_lo"], mine["stratum_hi"]).all()
    check_contexts(fake, found)
    assert found["position_id"].n_unique() < len(everything)


@recomputes
def check_extremes(fake: fake_run.FakeRun, db: query.Connection) -> None:
    i = fake.row("L0N5")
    found = query.run(db, "extremes", component="L0N5")
    for measure, values in [("activation", fake.activation[i]), ("dla", fake.dla[i])]:
        ordered = np.sort(values[fake.ordinary])
        for side, wanted in [("top", ordered[::-1][:10]), ("bottom", ordered[:10])]:
            mine = found.filter((pl.col("measure") == measure) & (pl.col("side") == side))
            assert mine["rank"].to_list() == list(range(1, 11))
            assert np.allclose(mine[measure], wanted)
    check_contexts(fake, found)
    assert len(query.run(db, "extremes", component="L0N5", top=2)) == 8


@recomputes
def check_random_samples(fake: fake_run.FakeRun, db: query.Connection) -> None:
    found = query.run(db, "random_samples", component="L0N5", n=30)
    dense = fake.positions.filter("dense")
    assert found["position_id"].is_in(dense["position_id"].to_list()).all()
    assert len(found) == found["position_id"].n_unique() == 30
    assert (
        found["position_id"].to_list()
        == query.run(db, "random_samples", component="L1H0", n=30)["position_id"].to_list()
    )
    joined = found.join(fake.positions, on="position_id", suffix="_raw", maintain_order="left")
    for name in ("loss", "rank", "entropy"):
        assert joined[name].to_list() == joined[f"{name}_raw"].to_list()
    place = {p: k for k, p in enumerate(fake.positions["position_id"])}
    assert found["activation"].to_list() == [fake.activation[fake.row("L0N5"), place[p]] for p in found["position_id"]]
    check_contexts(fake, found)
    assert len(query.run(db, "random_samples", component="L0N5", n=10**6)) == len(dense)


def check_by(axis: str) -> Callable[[fake_run.FakeRun, query.Connection], None]:
    def check(fake: fake_run.FakeRun, db: query.Connection) -> None:
        for component in ("L0N1", "L1H0"):
            found = query.run(db, f"by_{axis}", component=component)
            brute.agree(found.sort("value"), brute.breakdown(fake, component, axis))
            order = {"class": [c for c, _, _ in fake_run.CLASSES], "position": [b for b, _, _ in fake_run.BUCKETS]}
            wanted = order.get(axis.removeprefix("next_"), fake_run.DOMAINS)
            assert found["value"].to_list() == [v for v in wanted if v in set(found["value"])]

    return check


RECOMPUTED |= {f"by_{axis}": check_by(axis) for axis in brute.AXES}


@recomputes
def check_important_by_domain(fake: fake_run.FakeRun, db: query.Connection) -> None:
    wanted = []
    ids = [c["component_id"] for c in live(fake)]
    for domain in sorted(fake_run.DOMAINS):
        cell, groups, rows = brute.column(fake, "domain") == domain, brute.groups_of_domain(fake, domain), []
        for c in live(fake):
            m = np.abs(fake.dla[c["component_id"]])

            def share(use: np.ndarray, m: np.ndarray = m, cell: np.ndarray = cell) -> float:
                return m[use & cell].sum() / np.abs(fake.dla[np.ix_(ids, np.flatnonzero(use & cell))]).sum()

            mean, se = m[fake.ordinary & cell].mean(), brute.jackknife(fake, brute.mean_of(m, cell), groups)
            assert se is not None
            rows.append({
                "domain": domain, "component": c["component"], "kind": c["kind"], "n": int((fake.ordinary & cell).sum()),
                "abs_dla": mean, "abs_dla_se": se, "abs_dla_lo": mean - brute.t(len(groups)) * se,
                "abs_dla_hi": mean + brute.t(len(groups)) * se, "share_abs_dla": share(fake.ordinary),
                "share_abs_dla_se": brute.jackknife(fake, share, groups), "groups": len(groups),
            })  # fmt: skip
        rows.sort(key=lambda row: -row["abs_dla"])
        wanted.append([row | {"rank": k + 1} for k, row in enumerate(rows)])
    brute.agree(query.run(db, "important_by_domain", top=4), wanted[0][:4] + wanted[1][:4])
    brute.agree(query.run(db, "important_by_domain", top=0), wanted[0] + wanted[1])


@recomputes
def check_head_attention(fake: fake_run.FakeRun, db: query.Connection) -> None:
    i, dense = fake.row("L1H1"), brute.column(fake, "dense")
    weight = np.abs(fake.dla[i])
    rows = fake.tables["head_attention_rows"].filter(pl.col("component_id") == i)
    rows = fake.positions.select("position_id").join(rows, on="position_id", how="left", maintain_order="left")
    wanted = []
    for measure in [
        "previous",
        "first",
        "self",
        "induction",
        "duplicate",
        "two_back",
        "prefix_induction",
        "newline",
        "delimiter",
        "top_weight",
        "entropy",
        "dla_to_attended",
    ]:
        x = np.nan_to_num(rows[measure].cast(pl.Float32).cast(pl.Float64).fill_null(0).to_numpy())
        plain, weighted = brute.mean_of(x, dense), brute.mean_of(x * weight, dense)

        def by_weight(use: np.ndarray, x: np.ndarray = x) -> float:
            return (x * weight)[use & dense].sum() / weight[use & dense].sum()

        wanted.append({
            "measure": measure, "mean": plain(fake.ordinary), "se": brute.jackknife(fake, plain), "n": int(dense.sum()),
            "importance_weighted_mean": by_weight(fake.ordinary), "importance_weighted_se": brute.jackknife(fake, by_weight),
        })  # fmt: skip
        assert weighted(fake.ordinary) != by_weight(fake.ordinary)
    brute.agree(query.run(db, "head_attention", component="L1H1"), wanted)
    assert query.run(db, "head_attention", component="L0N1").is_empty()


@recomputes
def check_logit_effects(fake: fake_run.FakeRun, db: query.Connection) -> None:
    texts = fake.tables["tokens"]["token"]
    rows = fake.tables["logit_effects"].filter(pl.col("component_id") == fake.row("L1N4")).sort("side", "rank")
    wanted = [
        {"side": r["side"], "rank": r["rank"], "token": texts[r["token_id"]], "effect": r["effect"]}
        for r in rows.to_dicts()
    ]
    brute.agree(query.run(db, "logit_effects", component="L1N4"), wanted)
    assert query.run(db, "logit_effects", component="L0H0").is_empty()


@recomputes
def check_dead_components(fake: fake_run.FakeRun, db: query.Connection) -> None:
    for below in (0.0001, 0.002, 0.3):
        wanted = []
        for c in live(fake):
            x = fake.activation[c["component_id"]][fake.ordinary]
            n, active = len(x), int((x >= 2.0**-16).sum())
            one_bin = len(set(fake_run.bin_of(x, 2))) == 1
            if not (one_bin or x.max() <= 0 or active / n < below):
                continue
            reason = "one bin" if one_bin else "never active" if x.max() <= 0 else "rarely active"
            row = {"component": c["component"], "reason": reason, "n": n, "n_active": active, "active_share": active / n,
                   "activation_min": x.min(), "activation_max": x.max()}  # fmt: skip
            for name, size in [("upper_bound", n), ("upper_bound_documents", 60)]:
                p, z = active / n, stats.norm.ppf(0.95)
                root = np.sqrt(p * (1 - p) / size + z**2 / (4 * size**2))
                row[name] = 3 / size if active == 0 else (p + z**2 / (2 * size) + z * root) / (1 + z**2 / size)
            wanted.append(row)
        wanted.sort(key=lambda row: row["n_active"])
        found = query.run(db, "dead_components", below=below)
        exact = [k for k in wanted[0] if not k.startswith("upper")]
        brute.agree(found, wanted, exact)
        for name in ("upper_bound", "upper_bound_documents"):
            assert found[name].to_list() == pytest.approx([row[name] for row in wanted], rel=1e-3)
    reasons = dict(query.run(db, "dead_components", below=0.002).select("component", "reason").iter_rows())
    assert reasons == {
        "L0N2": "never active", "L0N3": "one bin", "L0N4": "rarely active",
        "L1N2": "never active", "L1N3": "one bin", "L1N4": "rarely active",
    }  # fmt: skip


@recomputes
def check_attribution_closure(fake: fake_run.FakeRun, db: query.Connection) -> None:
    table = (
        fake.tables["closure"]
        .drop("block", "part")
        .with_columns(relative=pl.max_horizontal("residual", "logit_residual") / pl.col("scale"))
    )
    brute.agree(query.run(db, "attribution_closure"), table.to_dicts())


@recomputes
def check_attribution_by_kind(fake: fake_run.FakeRun, db: query.Connection) -> None:
    everywhere = np.ones(len(fake.positions), bool)
    wanted = []
    for kind in fake.components["kind"].unique().to_list():
        ids = fake.components.filter(pl.col("kind") == kind)["component_id"].to_list()
        d, m = fake.dla[ids].sum(0), np.abs(fake.dla[ids]).sum(0)
        row = {"kind": kind, "n_components": len(ids), "n": int(fake.ordinary.sum())}
        for name, values in [("dla", d), ("abs_dla", m)]:
            row |= {
                name: values[fake.ordinary].mean(),
                f"{name}_se": brute.jackknife(fake, brute.mean_of(values, everywhere)),
            }
        wanted.append(row)
    wanted.sort(key=lambda row: -row["abs_dla"])
    found = query.run(db, "attribution_by_kind")
    brute.agree(found, wanted)
    assert found["dla"].sum() == pytest.approx(fake.dla.sum(0)[fake.ordinary].mean())


@recomputes
def check_run_info(fake: fake_run.FakeRun, db: query.Connection) -> None:
    brute.agree(query.run(db, "run_info"), fake.tables["runs"].to_dicts())


@recomputes
def check_corpus(fake: fake_run.FakeRun, db: query.Connection) -> None:
    documents, wanted = fake.tables["documents"], []
    for domain in sorted(fake_run.DOMAINS):
        mine = documents.filter(pl.col("domain") == domain)
        n = int((fake.ordinary & (brute.column(fake, "domain") == domain)).sum())
        wanted.append({"domain": domain, "n_documents": len(mine), "n_tokens": mine["n_tokens"].sum(), "n": n,
                       "n_dropped": mine["n_dropped"].sum(), "groups": mine["group_id"].n_unique()})  # fmt: skip
    brute.agree(query.run(db, "corpus"), wanted)


@recomputes
def check_drops(fake: fake_run.FakeRun, db: query.Connection) -> None:
    brute.agree(query.run(db, "drops"), fake.tables["drops"].sort("reason").to_dicts())


@recomputes
def check_table_sizes(fake: fake_run.FakeRun, db: query.Connection) -> None:
    found = query.run(db, "table_sizes")
    assert dict(found.select("table_name", "n_rows").iter_rows()) == {k: len(v) for k, v in fake.tables.items()}
    assert set(found["table_name"]) == set(re.findall(r"pragma_storage_info\('(\w+)'\)", query.sql_text("table_sizes")))
    assert 0.5 * fake.path.stat().st_size < found["bytes"].sum() <= fake.path.stat().st_size
