"""What is said to differ between domains, runs or activations differs in the component, and not in the text alone."""

from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import planted
import polars as pl
import pytest

from profiler.behaviours.compare import compare
from profiler.database import query

RATES = (0.1, 0.5)  # of number tokens, by domain: a text whose base rates differ
SEEDS = 4
NOISE = """UPDATE {table} SET dla = (
    -ln(1e-6 + ((hash(component_id * 100003 + position_id * 7919 + {seed}) % 1000003) / 1000003.0))
)::FLOAT"""


def text(rng: np.random.Generator, rates: tuple[float, ...] = RATES) -> planted.World:
    """200 documents of two domains, with numbers as often as `rates` say in each."""
    w = planted.world(rng, n_documents=200, per_document=10)
    rate = np.array(rates)[w.domain]
    token = np.where(rng.random(len(w)) < rate, rng.choice(planted.NUMBERS, len(w)), rng.choice(planted.WORDS, len(w)))
    return replace(w, token=token, following=np.roll(token, -1))


def neuron(
    label: str, w: planted.World, rng: np.random.Generator, factor: np.ndarray | float = 1.0
) -> planted.Component:
    """A neuron whose |DLA| is exponential noise, as large as its document makes it, times `factor`."""
    size = rng.exponential(1.0, len(w)) * np.exp(w.effect) * factor
    return planted.Component(label, rng.exponential(1.0, len(w)) + 0.01, size)


def on_numbers(w: planted.World) -> np.ndarray:
    return np.isin(w.token, planted.NUMBERS)


def noise_run(path: Path, seed: int, rates: tuple[float, ...] = RATES, n: int = 60) -> Path:
    rng = np.random.default_rng(seed)
    w = text(rng, rates)
    return planted.write(path, w, [neuron(f"L0N{i}", w, rng) for i in range(n)])


@pytest.mark.slow
def test_between_domains_noise_is_not_found_although_the_text_differs(tmp_path):
    found = tested = 0
    for seed in range(SEEDS):
        frame = query.run(noise_run(tmp_path / f"{seed}.duckdb", seed), "polysemantic", kind="neuron", family="token")
        assert frame["coverage_a"].is_not_null().all()
        found, tested = found + (frame["q"] < 0.05).sum(), tested + len(frame)
    assert tested == 60 * SEEDS
    assert found <= 0.05 * tested


@pytest.mark.slow
def test_between_runs_noise_is_not_found_although_the_text_differs(tmp_path):
    found = rows = 0
    for seed in range(SEEDS):
        a = noise_run(tmp_path / f"a{seed}.duckdb", seed, (0.1, 0.3))
        b = noise_run(tmp_path / f"b{seed}.duckdb", 100 + seed, (0.5, 0.7))
        frame = compare(a, b, kind="neuron", family="token").frame
        tested = frame.filter(pl.col("p").is_not_null())
        on_number = tested.filter(behaviour="on_number")
        assert len(on_number) == 60
        assert (on_number["coverage_b"] - on_number["coverage_a"]).mean() > 0.2
        assert not frame.filter("differs", pl.col("q").is_null()).height
        found, rows = found + (tested["q"] < 0.05).sum(), rows + len(tested)
        assert 0.01 < (tested["p"] < 0.05).mean() < 0.09
    assert found <= 0.05 * rows


def cares(w: planted.World) -> np.ndarray:
    """|DLA| four times as large on numbers."""
    return np.where(on_numbers(w), 4.0, 1.0)


def test_a_component_that_cares_for_numbers_in_one_domain_alone_is_found(tmp_path):
    rng = np.random.default_rng(1)
    w = text(rng)
    once = [neuron(f"L0N{i}", w, rng, np.where(w.domain == 1, cares(w), 1.0)) for i in range(10)]
    rest = [neuron(f"L0N{i}", w, rng) for i in range(10, 60)]
    path = planted.write(tmp_path / "cares.duckdb", w, once + rest)
    found = query.run(path, "polysemantic", kind="neuron", family="token").filter(pl.col("q") < 0.05)
    right = found.filter(pl.col("component").is_in([c.label for c in once]))
    assert len(right) == 10
    assert len(found) - len(right) <= 1
    rows = right.filter(behaviour="on_number")
    assert len(rows) >= 2  # of the others a behaviour that overlaps with it has the smallest p
    assert rows["ratio_a"].mean() == pytest.approx(1, abs=0.3)
    assert rows["ratio_b"].mean() == pytest.approx(4, abs=1)
    assert (rows["times"].is_between(rows["times_lo"], rows["times_hi"])).all()


@pytest.mark.slow
def test_between_runs_a_component_that_changed_is_found_and_one_that_read_another_text_is_not(tmp_path):
    """Both care for numbers; coverage rises from 0.3 to 0.8 of itself because there are more, which is no change."""
    paths, labels = [], [f"L0N{i}" for i in range(60)]
    for name, seed, rate, changed in (("a", 1, 0.1, False), ("b", 2, 0.5, True)):
        rng = np.random.default_rng(seed)
        w = text(rng, (rate, rate))
        factors = [cares(w) if not changed or i >= 10 else cares(w) ** 2 for i in range(60)]
        paths.append(
            planted.write(
                tmp_path / f"{name}.duckdb", w, [neuron(x, w, rng, f) for x, f in zip(labels, factors, strict=True)]
            )
        )
    rows = compare(*paths, kind="neuron", family="token").frame.filter(behaviour="on_number")
    same = rows.filter(pl.col("component").is_in(labels[10:]))
    changed = rows.filter(pl.col("component").is_in(labels[:10]))
    assert (same["coverage_b"] - same["coverage_a"]).min() > 0.3
    assert (same["p"] < 0.05).sum() <= 6
    assert (changed["q"] < 0.01).all()
    assert changed["times"].mean() == pytest.approx(4, abs=0.8)


@pytest.mark.slow
def test_the_importance_ratio_is_above_one_exactly_where_coverage_is_above_scrambled(tmp_path):
    a, b = (noise_run(tmp_path / f"{seed}.duckdb", seed, n=20) for seed in (1, 2))
    frame = compare(a, b, kind="neuron", family="token").frame
    for run in "ab":
        rows = frame.filter((pl.col(f"coverage_{run}") - pl.col(f"scrambled_{run}")).abs() > 1e-9)
        assert len(rows) > 50
        assert ((rows[f"ratio_{run}"] > 1) == (rows[f"coverage_{run}"] > rows[f"scrambled_{run}"])).all()


def test_the_mixture_of_noise_is_what_the_scrambled_one_would_be_in_every_slice(tmp_path):
    rng = np.random.default_rng(5)
    w = text(rng)
    path = planted.write(
        tmp_path / "mixture.duckdb",
        w,
        [neuron("L0N0", w, rng), neuron("L0N1", w, rng, np.where(on_numbers(w), 6.0, 1.0))],
    )
    frame = query.run(path, "mixture", component="L0N0", behaviours="on_number").filter(behaviour="on_number")
    shares = dict(frame.filter(slice="domain").select("value", "share").iter_rows())
    assert shares["domain1"] - shares["domain0"] > 0.3  # of the text alone
    assert (frame["scrambled"].is_between(frame["share_lo"], frame["share_hi"])).mean() >= 0.8
    cares = query.run(path, "mixture", component="L0N1", behaviours="on_number").filter(
        behaviour="on_number", slice="domain"
    )
    assert (cares["share_lo"] > cares["scrambled"]).all()


@pytest.mark.slow
def test_a_real_run_whose_dla_is_noise_has_no_polysemantic_neurons(tmp_path):
    from profiler.cli import app

    path = tmp_path / "run.duckdb"
    many_documents = ["--tokens", "40000", "--context-length", "128", "--windows-per-document", "2"]
    app(["record", "bundled", "--corpus", "stdlib", *many_documents, "--out", str(path)], standalone_mode=False)
    for seed in range(3):
        with duckdb.connect(str(path)) as con:
            for table in ("dense_rows", "sample_rows"):
                con.execute(NOISE.format(table=table, seed=15485863 * seed))
        frame = query.run(path, "polysemantic", kind="neuron", top=100)
        assert len(frame) > 50
        assert (frame["q"] < 0.05).sum() <= 0.05 * len(frame)


@pytest.mark.slow
def test_a_rate_whose_error_cannot_be_told_is_not_tested(tmp_path):
    """All rows of one domain are of a single group, although the domain has more: how the rate varies is unknown."""
    rng = np.random.default_rng(7)
    w = planted.world(rng, n_documents=60, per_document=10)
    elsewhere = np.where(w.domain == 0, rng.random(len(w)) < 0.2, rng.random(len(w)) < 0.8)
    head = planted.attends("L0H0", {"induction": elsewhere}, np.exp(rng.normal(0, 0.3, len(w))))
    path = planted.write(tmp_path / "run.duckdb", w, [head])
    assert query.run(path, "polysemantic")["attends"].to_list() == ["induction"]
    with duckdb.connect(str(path)) as con:
        con.execute(
            """UPDATE documents SET group_id = (SELECT min(group_id) FROM documents WHERE domain = 'domain1')
            WHERE domain = 'domain1'"""
        )
    assert query.run(path, "polysemantic").is_empty()
