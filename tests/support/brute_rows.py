"""Slow recomputations of the queries that list positions: samples, extremes, random ones, attention row by row."""

import brute
import fake_run
import numpy as np
import polars as pl
import pytest
from brute_behaviours import CHECKS, check

from profiler.database import query

__all__ = ["CHECKS", "check"]


def check_contexts(fake: fake_run.FakeRun, found: pl.DataFrame) -> None:
    for row in found.iter_rows(named=True):
        wanted = brute.context(fake, row["position_id"])
        assert {k: row[k] for k in wanted if k in row} == {k: v for k, v in wanted.items() if k in row}


@check
def quantile_samples(fake: fake_run.FakeRun, db: query.Connection) -> None:
    i = fake.row("L0N1")
    found = query.run(db, "quantile_samples", component="L0N1", per_quantile=3)
    everything = query.run(db, "quantile_samples", component="L0N1", per_quantile=1000)
    samples = fake.tables["sample_rows"].filter(pl.col("component_id") == i)
    rows = fake.tables["quantiles"].filter(pl.col("component_id") == i).sort("quantile")
    strata = rows["bin"].to_list()
    for place, (q, stratum, level) in enumerate(rows.select("quantile", "bin", "level").iter_rows()):
        if level is None and stratum in strata[:place]:
            assert q not in found["quantile"].to_list()
            continue
        inside = set(samples.filter(pl.col("bin") == stratum)["position_id"])
        mine = found.filter(pl.col("quantile") == q)
        assert set(everything.filter(pl.col("quantile") == q)["position_id"]) == inside
        assert len(mine) == min(3, len(inside))
        assert set(mine["position_id"]) <= inside
        n = (fake_run.bin_of(fake.activation[i][fake.ordinary], 2) == stratum).sum()
        assert mine["stratum_share"].to_list() == pytest.approx([n / fake.ordinary.sum()] * len(mine))
        assert mine["inclusion_probability"].to_list() == pytest.approx([len(inside) / n] * len(mine))
        assert mine["activation"].is_between(mine["stratum_lo"], mine["stratum_hi"]).all()
    check_contexts(fake, found)
    assert found["position_id"].n_unique() < len(everything)


@check
def extremes(fake: fake_run.FakeRun, db: query.Connection) -> None:
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


@check
def random_samples(fake: fake_run.FakeRun, db: query.Connection) -> None:
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


@check
def head_attention(fake: fake_run.FakeRun, db: query.Connection) -> None:
    i, dense = fake.row("L1H1"), brute.column(fake, "dense")
    weight = np.abs(fake.dla[i])
    rows = fake.tables["head_attention_rows"].filter(pl.col("component_id") == i)
    rows = fake.positions.select("position_id").join(rows, on="position_id", how="left", maintain_order="left")
    wanted = []
    for measure in [
        "previous_token",
        "first_token",
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
            return (x * weight * use * dense).sum() / (weight * use * dense).sum()

        mean, (se, half) = plain(fake.ordinary), brute.error(fake, plain)
        heavy, (heavy_se, heavy_half) = by_weight(fake.ordinary), brute.error(fake, by_weight)
        wanted.append(
            {
                "measure": measure,
                "mean": mean,
                "se": se,
                "mean_lo": mean - half,
                "mean_hi": mean + half,
                "n": int(dense.sum()),
                "importance_weighted_mean": heavy,
                "importance_weighted_se": heavy_se,
                "importance_weighted_mean_lo": heavy - heavy_half,
                "importance_weighted_mean_hi": heavy + heavy_half,
            }
        )
        assert weighted(fake.ordinary) != by_weight(fake.ordinary)
    brute.agree(query.run(db, "head_attention", component="L1H1"), wanted)
    assert query.run(db, "head_attention", component="L0N1").is_empty()
