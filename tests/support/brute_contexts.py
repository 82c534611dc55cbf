"""Slow recomputations of the queries behind contexts: context_tokens and spectrum_samples, position by position."""

import brute
import numpy as np
import polars as pl
import pytest
from brute_evidence import CHECKS
from fake_run import FakeRun, bin_of

from profiler.database import query

__all__ = ["CHECKS"]


def stored_at(fake: FakeRun, label: str) -> dict[int, tuple[float, float]]:
    """Position and value of every row that holds the component."""
    found = {}
    for table in ("sample_rows", "extreme_rows", "dense_rows", "recorded_rows"):
        rows = fake.tables.get(table)
        if rows is not None:
            mine = rows.filter(pl.col("component_id") == fake.row(label))
            found |= {p: (a, d) for p, a, d in mine.select("position_id", "activation", "dla").iter_rows()}
    return found


def one(fake: FakeRun, label: str, position_id: int, stored: dict[int, tuple[float, float]]) -> dict:
    """The row of one position, found by walking along its window."""
    at = fake.positions.row(by_predicate=pl.col("position_id") == position_id, named=True)
    window = fake.tables["windows"].row(by_predicate=pl.col("window_id") == at["window_id"], named=True)["token_ids"]
    places = range(max(0, at["offset"] - 24), min(len(window), at["offset"] + 9))
    rows = {r["offset"]: r for r in fake.positions.filter(pl.col("window_id") == at["window_id"]).to_dicts()}
    ids = [rows[o]["position_id"] if o in rows else None for o in places]
    losses = dict(fake.tables["position_rows"].select("position_id", "loss").iter_rows())
    chance = [None if losses.get(i) is None else float(np.exp(-losses[i])) for i in ids]
    return {
        "position_id": position_id,
        "shown": at["offset"] - places[0],
        "tokens": [fake.tables["tokens"]["token"][window[o]] for o in places],
        "activations": [stored[i][0] if i in stored else None for i in ids],
        "dlas": [stored[i][1] if i in stored else None for i in ids],
        "probabilities": chance,
    }


def check_context_tokens(fake: FakeRun, db: query.Connection) -> None:
    for label in ("L0H1", "L1N1"):
        stored, i = stored_at(fake, label), fake.row(label)
        tables = [fake.tables[name].filter(pl.col("component_id") == i) for name in ("sample_rows", "extreme_rows")]
        found = query.run(db, "context_tokens", component=label)
        assert found["position_id"].to_list() == sorted({p for t in tables for p in t["position_id"]})
        for row in found.sample(25, seed=1).to_dicts():
            wanted = one(fake, label, row["position_id"], stored)
            for name, value in wanted.items():
                if name == "probabilities":
                    assert all(brute.same(a, b) for a, b in zip(row[name], value, strict=True)), label
                else:
                    assert row[name] == value, (label, name)
        seen = dict(zip(found["position_id"], found["top_offset"], strict=True))
        attention = fake.tables["head_attention_rows"].filter(pl.col("component_id") == i)
        known = dict(attention.select("position_id", "top_offset").iter_rows())
        assert seen == {p: known.get(p) for p in seen} and (
            label == "L1N1" or any(v is not None for v in seen.values())
        )
        asked = found["position_id"][:3].to_list()
        part = query.run(db, "context_tokens", component=label, positions=",".join(map(str, asked)))
        assert part.equals(found.head(3))


def check_spectrum_samples(fake: FakeRun, db: query.Connection) -> None:
    label, i = "L0N1", fake.row("L0N1")
    found = query.run(db, "spectrum_samples", component=label)
    samples = fake.tables["sample_rows"].filter(pl.col("component_id") == i)
    assert found["position_id"].sort().equals(samples["position_id"].sort())
    bins = bin_of(fake.activation[i][fake.ordinary], 2)
    for (stratum,), rows in found.group_by("stratum"):
        n = (bins == stratum).sum()
        assert rows["weight"].to_list() == pytest.approx([n / len(rows)] * len(rows))
        assert rows["inclusion_probability"].to_list() == pytest.approx([len(rows) / n] * len(rows))
        assert rows["activation"].is_between(rows["stratum_lo"], rows["stratum_hi"]).all()
    assert found["weight"].sum() == pytest.approx(fake.ordinary.sum())
    names = ["domain", "source", "context_before", "context_token", "context_after", "token", "next_token"]
    rows = found.sample(20, seed=0)
    brute.agree(rows, [brute.context(fake, p) for p in rows["position_id"]], names)


CHECKS |= {"context_tokens": check_context_tokens, "spectrum_samples": check_spectrum_samples}
