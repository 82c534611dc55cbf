"""Counter-examples against plain Python over the fake run's raw values: which positions, in which order, and how
often."""

import re
import sys
from collections import Counter, defaultdict

import fake_run
import numpy as np
import polars as pl
import pytest
from fake_values import CLASSES, VOCABULARY
from questions import question
from scipy import stats

from profiler.database import query
from profiler.generality.counterexamples import find
from profiler.generality.counterexamples.rates import rate
from profiler.generality.evidence.claims import claim_of
from profiler.statistics import share_interval

TEXTS = [text for text, _ in VOCABULARY]
STOP = {"the", "and", "def", "return", "import", "self", "class", "with", "from", "this", "have", "may"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fake_run.build(tmp_path_factory.mktemp("run") / "run.duckdb", n_dense=300, n_documents=80)


def ordinary(token: int) -> bool:
    return not CLASSES[VOCABULARY[token][1]][2]


def name_like(token: int) -> bool:
    return re.fullmatch(r" [A-Z][a-z]{2,}", TEXTS[token]) is not None and TEXTS[token].strip().lower() not in STOP


def head_rows(run, component: str) -> list[dict]:
    """Everything known of the head's kept rows, from the tables of the generator."""
    number = run.row(component)
    t = run.tables
    windows = {w["window_id"]: w["token_ids"] for w in t["windows"].iter_rows(named=True)}
    attention = {
        r["position_id"]: r
        for r in t["head_attention_rows"].filter(pl.col("component_id") == number).iter_rows(named=True)
    }
    rows = []
    for i, p in enumerate(run.positions.iter_rows(named=True)):
        if p["special"] is not None or not p["dense"]:
            continue
        ids, offset = windows[p["window_id"]], p["offset"]
        a = attention[p["position_id"]]
        before, attended = ids[: offset + 1], ids[offset - a["top_offset"]] if offset >= a["top_offset"] else None
        names = [token for token in before if ordinary(token) and name_like(token)]
        rows.append(
            {
                **p,
                **{k: v for k, v in a.items() if k != "position_id"},
                "dla": float(np.float32(run.dla[number, i])),
                "activation": float(np.float32(run.activation[number, i])),
                "before": before,
                "attended": attended,
                "next_seen": p["next_token_id"] in before,
                "repeated": p["distance"] is not None,
                "continues": p["distance"] is not None and ids[offset - p["distance"] + 1] == p["next_token_id"],
                "name_repeated": max(Counter(names).values(), default=0) > 1,
            }
        )
    return rows


def named(token: int | None) -> bool:
    return token is not None and ordinary(token) and name_like(token)


ASKED = {
    "induction": (
        lambda r: r["repeated"],
        lambda r: r["induction"] >= 0.5,
        lambda r: r["induction"],
        lambda r: min(r["prefix_match"], 4) * 2 + r["continues"],
    ),
    "previous token": (
        lambda r: r["offset"] >= 2,
        lambda r: r["previous_token"] >= 0.5,
        lambda r: r["previous_token"],
        lambda r: r["class_id"],
    ),
    "name mover": (
        lambda r: named(r["next_token_id"]) and r["next_seen"],
        lambda r: named(r["attended"]) and r["dla_to_attended"] >= 0.1,
        lambda r: r["top_weight"] if named(r["attended"]) else 0,
        lambda r: r["class_id"],
    ),
    "S-inhibition": (
        lambda r: named(r["next_token_id"]) and r["name_repeated"],
        lambda r: named(r["attended"]) and r["before"].count(r["attended"]) > 1 and r["top_weight"] >= 0.5,
        lambda r: r["top_weight"] if named(r["attended"]) and r["before"].count(r["attended"]) > 1 else 0,
        lambda r: r["class_id"],
    ),
    "copying": (
        lambda r: r["next_seen"],
        lambda r: r["attended"] == r["next_token_id"] and r["dla_to_attended"] >= 0.1,
        lambda r: r["top_weight"] if r["attended"] == r["next_token_id"] else 0,
        lambda r: r["class_id"],
    ),
    "copy suppression": (
        lambda r: r["next_seen"],
        lambda r: r["dla_to_attended"] <= -0.1,
        lambda r: r["top_weight"] if r["dla_to_attended"] < 0 else 0,
        lambda r: r["class_id"],
    ),
}


def asked(rows: list[dict], role: str) -> list[dict]:
    """Rows with what the claim says of each, and the importance of being silent there."""
    trigger, act, strength, like = ASKED[role]
    for r in rows:
        r |= {
            "should": bool(trigger(r)),
            "acts": bool(act(r)),
            "strength": float(strength(r)),
            "like": like(r),
            "m": abs(r["dla"]),
        }
    acting = defaultdict(list)
    for r in rows:
        if r["should"] and r["acts"]:
            acting[r["like"]].append(r["m"])
    everywhere = [m for ms in acting.values() for m in ms] or [r["m"] for r in rows if r["should"]]
    for r in rows:
        at = acting[r["like"]]
        r["expected"] = float(np.mean(at if len(at) >= 5 else everywhere)) if everywhere else 0.0
        r["missing"] = r["expected"] * (1 - r["strength"])
    ranked = sorted(rows, key=lambda r: (-r["m"], r["position_id"]))
    for place, r in enumerate(ranked):
        r["matters"] = (place + 0.5) / len(rows) <= 0.05
    return rows


@pytest.mark.parametrize("role", ASKED)
@pytest.mark.parametrize("component", ["L0H1", "L1H0"])
def test_silent_positions_in_order(run, role, component):
    rows = asked(head_rows(run, component), role)
    wrong = sorted(
        (r for r in rows if r["should"] and not r["acts"]), key=lambda r: (-round(r["missing"], 9), r["position_id"])
    )
    found = find.find(
        run.path, question(component, role, "counter-examples"), claim_of(role), top=10_000, per_document=10_000
    ).examples
    silent = [e for e in found if e.kind == "silent"]
    assert {e.position_id for e in silent} == {r["position_id"] for r in wrong}
    assert [e.importance for e in silent] == pytest.approx([r["missing"] for r in wrong], rel=1e-5, abs=1e-7)
    assert [e.rank for e in silent] == list(range(1, len(silent) + 1))
    activation = {r["position_id"]: r["activation"] for r in rows}
    assert all(e.activation == activation[e.position_id] for e in silent)


def test_strays_are_the_largest_of_the_whole_corpus(run):
    component, number = "L1H0", run.row("L1H0")
    rows = asked(head_rows(run, component), "induction")
    extremes = run.tables["extreme_rows"].filter((pl.col("component_id") == number) & (pl.col("measure") == "dla"))
    repeated = dict(run.positions.select("position_id", pl.col("distance").is_not_null()).iter_rows())
    wanted = {p: abs(d) for p, d in extremes.select("position_id", "dla").iter_rows() if not repeated[p]}
    wanted |= {r["position_id"]: r["m"] for r in rows if r["matters"] and not r["should"]}
    found = find.find(
        run.path,
        question(component, "induction", "counter-examples"),
        claim_of("induction"),
        top=10_000,
        per_document=10_000,
    ).examples
    strays = [e for e in found if e.kind == "stray"]
    assert [e.position_id for e in strays] == sorted(wanted, key=lambda p: (-np.float32(wanted[p]), p))


@pytest.mark.parametrize("role", ["induction", "previous token", "copying"])
def test_rates(run, role):
    component = "L0H1"
    rows = asked(head_rows(run, component), role)
    found = {
        f.statistic: f
        for f in find.find(run.path, question(component, role, "counter-examples"), claim_of(role)).findings
    }
    should = [r for r in rows if r["should"]]
    silent = sum(not r["acts"] for r in should) / len(should)
    assert found["silent share"].value == pytest.approx(silent)
    expected = sum(r["expected"] for r in should if not r["acts"]) / sum(r["expected"] for r in should)
    assert found["silent share by importance"].value == pytest.approx(expected, rel=1e-5)
    assert found["silent share"].n == len({r["doc_id"] for r in should})
    if role == "previous token":
        assert "stray share" not in found  # it acts everywhere: nothing to stray into
        return
    stray = sum(r["m"] for r in rows if not r["should"]) / sum(r["m"] for r in rows)
    assert found["stray share by importance"].value == pytest.approx(stray, rel=1e-5)
    assert found["stray share by importance"].lo < stray < found["stray share by importance"].hi
    other = asked(head_rows(run, "L0H0"), role)
    assert found["stray share by importance"].null == pytest.approx(
        sum(r["m"] for r in other if not r["should"]) / sum(r["m"] for r in other), rel=1e-5
    )


def test_a_neuron_that_fires_as_claimed_has_no_counter_examples(run, tmp_path):
    """L1N1's activation is put to 5 on numbers and 0 elsewhere: silent and stray rates are 0, with their upper
    bounds."""
    import shutil

    import duckdb

    path = tmp_path / "numbers.duckdb"
    shutil.copy(run.path, path)
    with duckdb.connect(str(path)) as con:
        number = con.sql("SELECT component_id FROM components WHERE component = 'L1N1'").fetchall()[0][0]
        for table in ("dense_rows", "sample_rows"):
            con.execute(f"""UPDATE {table} SET activation = 0.0 WHERE component_id = {number};
                UPDATE {table} SET activation = 5.0 WHERE component_id = {number} AND position_id IN (
                    SELECT position_id FROM position_facts WHERE list_contains(properties, 'number'))""")
        con.execute(f"UPDATE quantiles SET value = 5.0 WHERE component_id = {number} AND quantile = 0.999")
    found = find.find(
        path, question("L1N1", "fires on numbers", "counter-examples"), claim_of("fires on numbers", "L1N1")
    )
    assert not found.examples
    rates = {f.statistic: f for f in found.findings}
    assert rates["silent share"].value == 0.0
    assert 0 < rates["silent share"].hi < 0.5
    assert rates["stray share"].value in (0.0, None)
    assert find.find(
        path, question("L1N1", "fires on commas", "counter-examples"), claim_of("fires on commas", "L1N1")
    ).examples


def test_documents_give_few_examples_each(run):
    found = find.find(
        run.path,
        question("L1H0", "previous token", "counter-examples"),
        claim_of("previous token"),
        top=30,
        per_document=1,
    ).examples
    assert len(found) == 30
    assert max(Counter(e.document for e in found).values()) == 1


def test_hostile_text_is_data(run):
    found = find.find(
        run.path,
        question("L1H0", "previous token", "counter-examples"),
        claim_of("previous token"),
        top=200,
        per_document=9,
    ).examples
    assert any("<script>" in e.context for e in found)
    assert any("DROP TABLE" in e.context for e in found)
    assert query.run(run.path, "SELECT count(*) FROM runs").item() == 1
    token = {e.position_id: e.token for e in found}
    real = dict(run.positions.select("position_id", "token_id").iter_rows())
    assert all(TEXTS[real[p]] == text for p, text in token.items())
    assert all(f"«{e.token}»" in e.context for e in found)


def test_a_claim_that_text_cannot_show_is_refused(run):
    found = find.find(
        run.path, question("L1H0", "backup name mover", "counter-examples"), claim_of("backup name mover")
    )
    assert not found.examples
    assert {f.statistic for f in found.findings} == set(find.STATISTICS)
    assert all(f.value is None and "self-repair" in f.refused for f in found.findings)


def test_rates_have_the_interval_of_the_runs_own_sql(run):
    rng = np.random.default_rng(0)
    weight, share = rng.uniform(1, 3, 12), rng.uniform(0, 0.4, 12)
    value, n = float((weight * share).sum() / weight.sum()), 30.0
    left = (weight.sum() * value - weight * share) / (weight.sum() - weight)
    se = np.sqrt(11 / 12 * ((left - left.mean()) ** 2).sum())
    text = (
        f"SELECT share_lo({value}, {se}, {stats.t.ppf(0.975, 11)}, {n}), share_hi({value}, {se},"
        f" {stats.t.ppf(0.975, 11)}, {n})"
    )
    assert share_interval(value, weight, weight * share, n) == pytest.approx(query.run(run.path, text).row(0))
    assert share_interval(0.0, weight, 0 * share, n) == (0.0, 0.1)
    assert share_interval(1.0, weight, weight, n) == (0.9, 1.0)
    assert share_interval(value, weight[:1], (weight * share)[:1], n) == (None, None)


def test_intervals_hold_their_level():
    """Documents of a beta-distributed share: about 95 % of the intervals hold the true one (by chance, 1 in 10,000
    seeds fails)."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(150):
        share = rng.beta(2, 6, size=120)
        rows = pl.DataFrame(
            {
                "doc_id": np.repeat(np.arange(120), 8),
                "group_id": np.repeat(np.arange(120) % 24, 8),
                "domain": "d",
                "n_documents": 5,
                "wrong": rng.random(960) < np.repeat(share, 8),
            }
        )
        one = rate(rows, pl.col("wrong"), pl.lit(True), pl.lit(1.0))
        held += one.lo <= 0.25 <= one.hi
    assert stats.binomtest(held, 150, 0.95).pvalue > 1e-4


def test_reading_counter_examples_needs_no_torch():
    import subprocess

    script = "import profiler.generality.counterexamples.find, sys; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
        == "False"
    )
