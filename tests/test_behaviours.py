"""Coverage of a behaviour: planted shares come back, intervals hold what they promise, baselines are what they say."""

import numpy as np
import planted
import pytest

from profiler import query

SIMULATIONS = 1000


def coverage(path, label: str, behaviour: str, **parameters) -> dict:
    frame = query.run(path, "behaviours", component=label, family="", **parameters)
    return frame.row(by_predicate=query.pl.col("behaviour") == behaviour, named=True)


@pytest.mark.parametrize("truth", [0.25, 0.6, 0.92])
def test_intervals_cover_in_95_of_100_worlds_of_clustered_documents(tmp_path, truth):
    """1,000 heads, each with documents of its own: how often induction holds, and how much matters, differ by document."""
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
