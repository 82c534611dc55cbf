"""Coverage of a behaviour: planted shares come back, intervals hold what they promise, baselines are what they say."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import duckdb
import fake_run
import numpy as np
import planted
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from profiler.behaviours import additions
from profiler.cli import app
from profiler.database import query
from profiler.errors import QueryError

SIMULATIONS = 1000


def coverage(path, label: str, behaviour: str, **parameters) -> dict:
    frame = query.run(path, "behaviours", component=label, family="", **parameters)
    return frame.row(by_predicate=query.pl.col("behaviour") == behaviour, named=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "truth", [0.25, pytest.param(0.6, marks=pytest.mark.monthly), pytest.param(0.92, marks=pytest.mark.monthly)]
)
def test_intervals_cover_in_95_of_100_worlds_of_clustered_documents(tmp_path, truth):
    """1,000 heads, each with documents of its own: how often induction holds, and how much matters, differ by
    document."""
    rng = np.random.default_rng(int(1000 * truth))
    w = planted.world(rng, n_documents=96, per_document=8)
    heads, n_documents = [], w.document.max() + 1
    for i in range(SIMULATIONS):
        rate = rng.beta(6 * truth, 6 * (1 - truth), n_documents)[w.document]
        size = np.exp(rng.normal(0, 0.5, n_documents)[w.document] + rng.normal(0, 0.7, len(w)))
        heads.append(planted.attends(f"L0H{i}", {"induction": rng.random(len(w)) < rate}, size))
    path = planted.write(tmp_path / "clustered.duckdb", w, heads)
    frame = query.run(path, "behaviours", behaviour="induction", top=0)
    assert len(frame) == SIMULATIONS
    inside = ((frame["coverage_lo"] <= truth) & (truth <= frame["coverage_hi"])).mean()
    naive = 1.96 * (frame["coverage"] * (1 - frame["coverage"]) / frame["n"]).sqrt()
    assert 0.93 <= inside <= 0.97
    assert ((frame["coverage"] - truth).abs() <= naive).mean() < 0.85
    assert frame["coverage"].mean() == pytest.approx(truth, abs=0.01)


DOMAINS = {"one": (96,), "two": (130, 40), "ten": (60, 30, 20, 15, 12, 10, 8, 6, 4, 3)}


@pytest.mark.slow
@pytest.mark.parametrize("sizes", DOMAINS.values(), ids=DOMAINS)
def test_intervals_cover_in_95_of_100_worlds_of_several_domains(tmp_path, sizes):
    """500 heads, each with documents of its own, in domains of unequal sizes that differ much: a domain is no sample of
    domains."""
    rng = np.random.default_rng(sum(sizes))
    w = planted.world(rng, n_documents=sum(sizes), per_document=8)
    w = replace(w, domain=rng.permutation(np.repeat(np.arange(len(sizes)), sizes))[w.document])
    truths = np.linspace(0.25, 0.75, len(sizes)) if len(sizes) > 1 else np.array([0.4])
    heads, n_documents, mean = [], sum(sizes), truths[w.domain]
    first = np.searchsorted(w.document, np.arange(n_documents))
    for i in range(500):
        rate = rng.beta(6 * mean[first], 6 * (1 - mean[first]))[w.document]
        size = np.exp(rng.normal(0, 0.5, n_documents)[w.document] + rng.normal(0, 0.7, len(w)))
        heads.append(planted.attends(f"L0H{i}", {"induction": rng.random(len(w)) < rate}, size))
    path = planted.write(tmp_path / "domains.duckdb", w, heads)
    frame = query.run(path, "behaviours", behaviour="induction", top=0)
    truth = float(mean.mean())
    inside = ((frame["coverage_lo"] <= truth) & (truth <= frame["coverage_hi"])).mean()
    assert 0.925 <= inside <= 0.98
    width = (frame["coverage_hi"] - frame["coverage_lo"]).mean() / 2
    assert frame["coverage_se"].mean() == pytest.approx(frame["coverage"].std(), rel=0.12)
    assert width < 2.6 * frame["coverage"].std()


def slow_comparison(path, label: str, kind: str, layer: int) -> dict[str, tuple[float, float, int]]:
    """Median and largest coverage of the others and how many they are, by behaviour, from behaviour_rows row by row."""
    peers = query.run(
        path,
        "SELECT component FROM components WHERE kind = getvariable('k') AND layer = getvariable('l')",
        k=kind,
        l=layer,
    )
    ordered = sorted(peers["component"], key=lambda name: hashlib.md5(name.encode()).hexdigest())
    others = [name for name in (ordered if kind == "head" else ordered[:17]) if name != label]
    rows = query.run(path, "SELECT component, behaviour, weight * abs(dla)::DOUBLE AS m, holds FROM behaviour_rows")
    found = {}
    for (behaviour,), part in rows.filter(pl.col("component").is_in(others), pl.col("holds").is_not_null()).group_by(
        "behaviour"
    ):
        shares = [
            one.filter("holds")["m"].sum() / one["m"].sum()
            for _, one in part.group_by("component")
            if one["m"].sum() > 0
        ]
        found[behaviour] = (float(np.median(shares)), max(shares), part["component"].n_unique())
    return found


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A run with more neurons in a layer than others are compared with."""
    return fake_run.build(tmp_path_factory.mktemp("wide") / "wide.duckdb", d_mlp=24, n_heads=3).path


def assert_compared(path, label: str) -> None:
    kind, layer = ("head" if "H" in label else "neuron"), int(label[1])
    wanted = slow_comparison(path, label, kind, layer)
    found = query.run(path, "behaviours", component=label, family="")
    assert set(found["behaviour"]) == set(wanted)
    for row in found.iter_rows(named=True):
        assert (row["random"], row["random_hi"], row["n_random"]) == pytest.approx(
            wanted[row["behaviour"]], rel=1e-12
        ), row["behaviour"]


@pytest.mark.slow
def test_what_the_run_keeps_of_others_is_what_their_rows_say(wide):
    for label in ("L1H0", "L0N1", "L0N5", "L1N20", "L1N23"):
        assert_compared(wide, label)
    sizes = {
        label: query.run(wide, "behaviours", component=label)["n_random"].unique().to_list()
        for label in ("L1H0", *(f"L0N{i}" for i in range(24)))
    }
    assert sizes.pop("L1H0") == [2]
    assert sorted(n for (n,) in sizes.values()) == [16] * 17 + [17] * 7


def test_others_do_not_depend_on_what_else_is_asked(wide):
    together = query.run(wide, "behaviours", kind="neuron", top=0)
    for label in ("L0N1", "L1N20"):
        assert_frame_equal(
            together.filter(pl.col("component") == label), query.run(wide, "behaviours", component=label), rel_tol=1e-12
        )


@pytest.mark.slow
def test_others_are_asked_a_behaviour_that_was_added_too(wide, tmp_path):
    path = Path(shutil.copy(wide, tmp_path / "run.duckdb"))
    kept = "SELECT * FROM layer_coverages ORDER BY ALL"
    before = query.run(path, kept)
    additions.add_behaviour(path, "thingish", "list_contains(properties, 'thing') OR activation > 1")
    assert_compared(path, "L0N1")
    additions.add_class(path, "thing", "text ~ '[0-9]'")
    for label in ("L0N1", "L1H0"):
        assert_compared(path, label)
    additions.remove_class(path, "thing")
    assert_compared(path, "L0N1")
    additions.remove_behaviour(path, "thingish")
    assert query.run(path, kept).equals(before)


def test_a_run_of_an_earlier_version_says_what_to_do(wide, tmp_path):
    path = Path(shutil.copy(wide, tmp_path / "old.duckdb"))
    wanted = query.run(path, "behaviours", component="L0N1")
    with duckdb.connect(str(path)) as old:
        old.execute("DROP TABLE layer_coverages")
    with pytest.raises(QueryError, match=r"earlier version .* profiler behaviours refresh RUN"):
        query.run(path, "behaviours", component="L0N1")
    app(["behaviours", "refresh", str(path)], standalone_mode=False)
    assert_frame_equal(query.run(path, "behaviours", component="L0N1"), wanted, rel_tol=1e-12)
