"""Tables of the fake run (see fake_run), filled from its raw values with plain numpy and polars.

The bins are a second implementation, by search among edges; profiler.recording.accumulators.bins reads them off the
bits of the float.
"""

import json
from dataclasses import asdict

import duckdb
import numpy as np
import polars as pl
from fake_values import (
    BUCKETS,
    CLASSES,
    CONTEXT_LENGTH,
    DOMAINS,
    VOCABULARY,
)

from profiler.model.components import uniform

QUANTILES = [0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999]
POSITION_COLUMNS = (
    *("position_id", "window_id", "doc_id", "pos", "offset", "token_id", "next_token_id", "class_id", "target_logit"),
    *("loss", "rank", "entropy", "cap_slope", "special", "role", "previous_token_id", "distance", "prefix_match"),
    *("bracket_depth", "in_quotes", "dense"),
)
"""Columns of position_rows."""


def bin_edges(per_octave: int) -> np.ndarray:
    """Finite edges of the log-linear bins, ascending: -2^16 .. -2^-16, 2^-16 .. 2^16, `per_octave` bins an octave."""
    octaves = 2.0 ** np.arange(-16, 16)
    positive = np.append((octaves[:, None] * (1 + np.arange(per_octave) / per_octave)).ravel(), 2.0**16)
    return np.concatenate([-positive[::-1], positive])


def bin_of(values: np.ndarray, per_octave: int) -> np.ndarray:
    """Bin number of each value: lo <= x < hi for positive ones, lo < x <= hi for negative ones, (-2^-16, 2^-16) is
    zero."""
    edges = bin_edges(per_octave)
    above = np.searchsorted(edges, values, side="right")
    below = np.searchsorted(edges, values, side="left")
    return np.where(values > 0, above, below)


def bins_frame() -> pl.DataFrame:
    frames = []
    for resolution, per_octave in [("spectrum", 2), ("density", 16)]:
        edges = np.concatenate([[-np.inf], bin_edges(per_octave), [np.inf]])
        number = np.arange(len(edges) - 1)
        frames.append(pl.DataFrame({"resolution": resolution, "bin": number, "lo": edges[:-1], "hi": edges[1:]}))
    return pl.concat(frames)


def grouped_sums(component_ids: np.ndarray, values: np.ndarray, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums [component, cell] of `values` [component, position] over positions with the same `key`; and the cells."""
    cells, inverse = np.unique(key, return_inverse=True)
    out = np.zeros((len(component_ids), len(cells)))
    for i in range(len(component_ids)):
        out[i] = np.bincount(inverse, weights=values[i], minlength=len(cells))
    return out, cells


def make_cells(activation, dla, positions, components) -> tuple[pl.DataFrame, pl.DataFrame]:
    counts, sums = [], []
    ids = components["component_id"].to_numpy()
    ordinary = positions["special"].is_null().to_numpy()
    for axis, column in [("class", "class_id"), ("next_class", "next_class_id"), ("position", "bucket_id")]:
        use = np.ones(len(positions), bool) if axis == "class" else ordinary
        key = (positions[column].to_numpy() * 1000 + positions["group_id"].to_numpy())[use]
        n, cells = grouped_sums(ids[:1], np.ones((1, use.sum())), key)
        counts.append(
            pl.DataFrame(
                {
                    "presence": 0,
                    "axis": axis,
                    "value_id": cells // 1000,
                    "group_id": cells % 1000,
                    "n": n[0].astype(int),
                }
            )
        )
        parts = [grouped_sums(ids, values[:, use], key)[0] for values in (activation, dla, np.abs(dla))]
        sums.append(
            pl.DataFrame(
                {
                    "component_id": np.repeat(ids, len(cells)),
                    "axis": [axis] * (len(ids) * len(cells)),
                    "value_id": np.tile(cells // 1000, len(ids)),
                    "group_id": np.tile(cells % 1000, len(ids)),
                    "sum_activation": parts[0].ravel(),
                    "sum_dla": parts[1].ravel(),
                    "sum_abs_dla": parts[2].ravel(),
                }
            )
        )
    return pl.concat(counts), pl.concat(sums)


def make_power_sums(activation, dla, positions, components) -> pl.DataFrame:
    rows = []
    key = positions["class_id"].to_numpy() * 100 + positions["domain_id"].to_numpy()
    for cell in np.unique(key):
        use = key == cell
        a, d = activation[:, use], dla[:, use]
        columns: dict[str, object] = {
            "component_id": components["component_id"],
            "class_id": cell // 100,
            "domain_id": cell % 100,
        }
        columns["n"] = int(use.sum())
        for name, x in [("a", a), ("d", d)]:
            away = x - x.mean(1, keepdims=True)
            columns |= {f"{name}_mean": x.mean(1)} | {f"{name}_m{p}": (away**p).sum(1) for p in (2, 3, 4)}
            columns |= {f"{name}_abs": np.abs(x).sum(1), f"{name}_min": x.min(1), f"{name}_max": x.max(1)}
        rows.append(pl.DataFrame(columns))
    return pl.concat(rows)


def make_spectrum(activation, dla, positions, live) -> pl.DataFrame:
    frames = []
    base = pl.DataFrame({"class_id": positions["class_id"]})
    for i in live:
        frame = base.with_columns(bin=bin_of(activation[i], 2), d=dla[i])
        cells = frame.group_by("class_id", "bin", maintain_order=True)
        sums = cells.agg(n=pl.len(), sum_dla=pl.col("d").sum(), sum_abs_dla=pl.col("d").abs().sum())
        frames.append(sums.with_columns(component_id=pl.lit(int(i))))
    return pl.concat(frames)


def make_density(activation, ordinary, live) -> pl.DataFrame:
    frames = []
    for i in live:
        number, n = np.unique(bin_of(activation[i][ordinary], 16), return_counts=True)
        frames.append(pl.DataFrame({"component_id": int(i), "bin": number, "n": n}))
    return pl.concat(frames)


def make_quantiles(density: pl.DataFrame, live) -> pl.DataFrame:
    """The density bin in which the cumulative count first reaches q * N; its middle is the value."""
    edges = np.concatenate([[-np.inf], bin_edges(16), [np.inf]])
    rows = []
    for i in live:
        mine = density.filter(pl.col("component_id") == i)
        numbers, cumulative = mine["bin"].to_numpy(), mine["n"].cum_sum().to_numpy()
        for q in QUANTILES:
            number = numbers[np.searchsorted(cumulative, q * cumulative[-1] - 1e-9)]
            lo, hi = edges[number], edges[number + 1]
            value = lo if np.isinf(hi) else hi if np.isinf(lo) else (lo + hi) / 2
            rows.append(
                (
                    int(i),
                    q,
                    value,
                    int(bin_of(np.array([value]), 2)[0]),
                    *level_of(numbers, cumulative, number, q, edges),
                )
            )
    schema = {
        "component_id": pl.Int64,
        "quantile": pl.Float64,
        "value": pl.Float64,
        "bin": pl.Int64,
        "level": pl.Float64,
        "reached": pl.Float64,
        "off": pl.Float64,
    }
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    nearest = pl.col("off") <= pl.col("off").min().over("component_id", "level")
    return frame.with_columns(pl.when(nearest).then(pl.col("level", "reached"))).drop("off")


def level_of(numbers, cumulative, number: int, q: float, edges) -> tuple:
    """The edge of a quantile's bin whose odds of being above are nearest to the quantile's, that share, and how far
    off."""
    best = (None, None, None)
    for edge in (number, number + 1):
        below = int(cumulative[numbers < edge][-1]) if (numbers < edge).any() else 0
        share = 1 - below / cumulative[-1]
        if 0 < share < 1:
            off = abs(np.log(share / (1 - share)) - np.log((1 - q) / q))
            if off <= np.log(2) and (best[2] is None or off < best[2]):
                best = (float(edges[edge]), float(share), float(off))
    return best


def value_rows(activation, dla, positions, i: int, which: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "component_id": np.full(len(which), i),
            "position_id": positions["position_id"].to_numpy()[which],
            "activation": activation[i][which],
            "dla": dla[i][which],
        }
    )


def dense_values(activation, dla, positions, i: int, which: np.ndarray) -> pl.DataFrame:
    rows = value_rows(activation, dla, positions, i, which)
    return rows.with_columns(bin=pl.Series(bin_of(activation[i][which], 2), dtype=pl.Int16))


def make_pooled(activation, positions, samples: pl.DataFrame) -> pl.DataFrame:
    """Per component and stratum: ordinary positions, and those that are dense or sampled, as sets."""
    ordinary = positions["special"].is_null().to_numpy()
    ids, dense = positions["position_id"].to_numpy(), set(positions.filter("dense")["position_id"])
    rows = []
    for i, values in enumerate(activation):
        bins = bin_of(values, 2)
        mine = set(samples.filter(pl.col("component_id") == i)["position_id"])
        for number in np.unique(bins[ordinary]):
            inside = set(ids[ordinary & (bins == number)])
            rows.append((i, int(number), len(inside), len(inside & (dense | mine))))
    return pl.DataFrame(rows, schema=["component_id", "bin", "n", "kept"], orient="row")


def make_samples(rng, activation, dla, positions, live, per_bin: int) -> pl.DataFrame:
    ordinary = np.flatnonzero(positions["special"].is_null().to_numpy())
    frames = []
    for i in live:
        bins = bin_of(activation[i], 2)
        for number in np.unique(bins[ordinary]):
            inside = ordinary[bins[ordinary] == number]
            chosen = np.sort(rng.permutation(inside)[:per_bin])
            frames.append(value_rows(activation, dla, positions, i, chosen).with_columns(bin=pl.lit(int(number))))
    return pl.concat(frames)


def make_extremes(activation, dla, positions, live, k: int) -> pl.DataFrame:
    ordinary = np.flatnonzero(positions["special"].is_null().to_numpy())
    frames = []
    for i in live:
        for measure, values in [("activation", activation[i]), ("dla", dla[i])]:
            for side, sign in [("top", -1), ("bottom", 1)]:
                chosen = ordinary[np.argsort(sign * values[ordinary], kind="stable")[:k]]
                frame = value_rows(activation, dla, positions, i, chosen)
                frames.append(
                    frame.with_columns(
                        measure=pl.lit(measure),
                        side=pl.lit(side),
                        rank=np.arange(1, len(chosen) + 1),
                        key=pl.lit(None, pl.Float64),
                    )
                )
    return pl.concat(frames)


def make_head_attention(rng, positions, components) -> pl.DataFrame:
    dense = positions.filter("dense")["position_id"].to_numpy()
    frames = []
    for i in components.filter(pl.col("kind") == "head")["component_id"]:
        parts = rng.dirichlet(np.full(6, 0.4), len(dense))
        names = ["previous_token", "first_token", "self", "induction", "duplicate"]
        rest = {n: parts[:, 5] * share for n, share in [("two_back", 0.6), ("newline", 0.3), ("delimiter", 0.1)]}
        rest["prefix_induction"] = parts[:, 3] * (rng.random(len(dense)) < 0.5)
        frames.append(
            pl.DataFrame(
                {
                    "component_id": np.full(len(dense), i),
                    "position_id": dense,
                    **{n: parts[:, k] for k, n in enumerate(names)},
                    **rest,
                    "entropy": -(parts * np.log(np.maximum(parts, 1e-300))).sum(1),
                    "top_offset": rng.integers(0, 9, len(dense)),
                    "top_weight": parts.max(1),
                    "sink": np.zeros(len(dense)),
                    "dla_to_attended": rng.normal(0, 1, len(dense)),
                }
            )
        )
    return pl.concat(frames)


def make_token_sums(activation, dla, positions, components) -> dict[str, pl.DataFrame]:
    """Sums per token of every head and of one neuron, by a plain group-by."""
    ordinary = positions["special"].is_null().to_numpy()
    token = positions["token_id"].to_numpy()[ordinary]
    ids, counts = np.unique(token, return_counts=True)
    kept = components.filter((pl.col("kind") == "head") | (pl.col("component") == "L1N1"))["component_id"].to_numpy()
    sums = [grouped_sums(kept, v[kept][:, ordinary], token)[0].ravel() for v in (activation, dla, np.abs(dla))]
    columns = {"component_id": np.repeat(kept, len(ids)), "token_id": np.tile(ids, len(kept))}
    columns |= dict(zip(("sum_activation", "sum_dla", "sum_abs_dla"), sums, strict=True))
    return {
        "token_counts": pl.DataFrame({"presence": 0, "token_id": ids, "n": counts}),
        "token_sums": pl.DataFrame(columns),
    }


def make_logit_effects(rng, components, k: int = 10) -> pl.DataFrame:
    rows = []
    for i in components.filter(pl.col("kind") == "neuron")["component_id"]:
        effect = rng.normal(0, 1, len(VOCABULARY))
        order = np.argsort(effect)
        for side, chosen in [("boosted", order[::-1][:k]), ("suppressed", order[:k])]:
            rows += [(i, side, r + 1, int(t), float(effect[t]), 3 * float(effect[t])) for r, t in enumerate(chosen)]
    return pl.DataFrame(rows, schema=["component_id", "side", "rank", "token_id", "effect", "product"], orient="row")


def make_run_row(documents, positions, components, shape, dla) -> pl.DataFrame:
    n_layers, n_heads, d_mlp = shape
    special = positions["special"].is_not_null().sum()
    n_tokens = sum(len(d["ids"]) for d in documents)
    config = {
        "model": "fake",
        "corpus": ["fake:code", "fake:docs"],
        "seed": 0,
        "context_length": CONTEXT_LENGTH,
        "dtype": "float32",
    }
    return pl.DataFrame(
        [
            {
                "run_id": "5e0fa4e",
                "created": "2026-01-02T03:04:05Z",
                "model": "fake",
                "model_hash": "00aa",
                "tokenizer_hash": "00bb",
                "architecture": "FakeForCausalLM",
                "n_layers": n_layers,
                "n_heads": n_heads,
                "d_mlp": d_mlp,
                "dictionaries": "[]",
                "blocks": json.dumps([asdict(block) for block in uniform(n_layers, n_heads, d_mlp)]),
                "d_model": 8,
                "n_vocab": len(VOCABULARY),
                "config": json.dumps(config),
                "versions": json.dumps({"duckdb": duckdb.__version__, "device": "cpu"}),
                "model_card": "# Fake\n\nRandom values that no model made, to test queries and pages.",
                "model_notes": [],
                "n_documents": len(documents),
                "n_streamed": len(documents),
                "corpus_digest": "00cc",
                "recorded_logit_sum": 2.0 * len(positions),
                "squared_logit_sum": 2.0 * len(positions),
                "norm_scale_sum": 3.0 * (len(positions) - special),
                "norm_scale_n": len(positions) - special,
                "block_scale_sums": pl.Series([None] * 2 * n_layers, dtype=pl.Float64),
                "n_tokens": n_tokens,
                "n_positions": len(positions) - special,
                "n_special": special,
                "seconds": 2.5,
                "tokens_per_second": n_tokens / 2.5,
                "closure_residual": 3e-6,
                "logit_residual": 5e-6,
                "closure_scale": float(np.abs(dla.sum(0)).max()),
                "peak_memory_bytes": 123456789,
                "complete": True,
            }
        ]
    )


def make_group_importance(sums: pl.DataFrame, components: pl.DataFrame) -> pl.DataFrame:
    special = [i for i, (_, _, special) in enumerate(CLASSES) if special]
    live = components.filter(pl.col("kind").is_in(["head", "neuron"])).select("component_id")
    rows = sums.filter(pl.col("axis") == "class", ~pl.col("value_id").is_in(special)).join(live, on="component_id")
    return rows.group_by("group_id").agg(pl.col("sum_abs_dla").sum()).sort("group_id")


def make_names(components: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Tables that name components, classes, tokens, domains, buckets and bins."""
    tokens = [(i, token, class_id) for i, (token, class_id) in enumerate(VOCABULARY)]
    classes, buckets = ([(i, *row) for i, row in enumerate(rows)] for rows in (CLASSES, BUCKETS))
    return {
        "components": components,
        "classes": pl.DataFrame(classes, schema=["class_id", "class", "description", "special"], orient="row"),
        "tokens": pl.DataFrame(tokens, schema=["token_id", "token", "class_id"], orient="row"),
        "vocabulary": pl.DataFrame({"tokens": [[token for token, _ in VOCABULARY]]}),
        "domains": pl.DataFrame({"domain_id": [0, 1], "domain": DOMAINS}),
        "position_buckets": pl.DataFrame(buckets, schema=["bucket_id", "bucket", "lo", "hi"], orient="row"),
        "bins": bins_frame(),
    }


def make_text(documents, windows, positions: pl.DataFrame, dla: np.ndarray) -> dict[str, pl.DataFrame]:
    """Tables of documents, windows and positions."""
    frame = pl.DataFrame(
        [
            {
                "doc_id": d["doc_id"],
                "domain": DOMAINS[d["domain_id"]],
                "source": d["source"],
                "place": f"fake:{d['doc_id']}",
                "text_hash": d["doc_id"],
                "group_id": d["group_id"],
                "n_tokens": len(d["ids"]),
                "n_dropped": 5 if d["doc_id"] == 7 else 0,
                "domain_id": d["domain_id"],
            }
            for d in documents
        ]
    )
    return {
        "replicate_groups": frame.group_by("group_id", "domain_id").agg(n_documents=pl.len()).sort("group_id"),
        "documents": frame.drop("domain_id"),
        "windows": pl.DataFrame([{k: w[k] for k in ("window_id", "doc_id", "start", "token_ids")} for w in windows]),
        "position_rows": positions.with_columns(target_logit=dla.sum(0), cap_slope=pl.lit(None, pl.Float64)).select(
            POSITION_COLUMNS
        ),
    }


def make_losses(n_positions: int, scale: float) -> dict[str, pl.DataFrame]:
    """Tables of the closure by chunk, and of what was dropped."""
    notes = [
        "had fewer than 2 tokens: nothing to predict",
        "over the limit of one document; raise --max-document-tokens",
    ]
    return {
        "closure": pl.DataFrame(
            {
                "chunk": [0, 1, 2],
                "block": [0, 0, 1],
                "part": [0, 1, 0],
                "n": [300, 300, n_positions - 600],
                "residual": [1e-6, 3e-6, 2e-6],
                "logit_residual": [2e-6, 5e-6, 4e-6],
                "scale": [scale / 2, scale, scale / 3],
            }
        ),
        "drops": pl.DataFrame(
            {
                "reason": ["document too short", "window cut"],
                "n": [3, 5],
                "unit": ["documents", "tokens"],
                "note": notes,
            }
        ),
    }


def make_dictionaries() -> dict[str, pl.DataFrame]:
    """Two dictionaries of which no unit is recorded, the second of which reconstructs nothing; sampled windows."""
    facts = {"dictionary_id": [0, 1], "units": ["L0D", "L1.resid_post:D"], "kind": ["feature", "direction"]}
    facts |= {"form": ["SAELens standard", "vectors"], "reads": ["mlp_out", "resid_post"], "source": ["a", "b"]}
    facts |= {"writes": ["mlp_out", "resid_post"], "n_units": [64, 1], "names": [[], ["probe"]], "digest": ["x", "y"]}
    facts |= {"n": [10, None], "error_squares": [3.0, None], "whole_squares": [40.0, None]}
    facts |= {"whole_sums": [[10.0, -5.0], None], "active_units": [25.0, None]}
    windows = {"dictionary_id": [0, 0], "key": [-7, 5], "n": [4, 6], "loss": [8.0, 15.0]}
    windows |= {"spliced": [9.0, 17.0], "ablated": [20.0, 36.0]}
    return {"dictionaries": pl.DataFrame(facts), "spliced_windows": pl.DataFrame(windows)}


def make_tables(
    rng, activation, dla, positions, components, documents, windows, shape, per_bin, n_extremes
) -> dict[str, pl.DataFrame]:
    ordinary = positions["special"].is_null().to_numpy()
    live = components["component_id"].to_list()
    density = make_density(activation, ordinary, live)
    counts, sums = make_cells(activation, dla, positions, components)
    dense = np.flatnonzero(positions["dense"].to_numpy())
    recorded = [i for i, label in enumerate(components["component"]) if label in ("L0H0", "L1N1")]
    everywhere = np.arange(len(positions))
    samples = make_samples(rng, activation, dla, positions, live, per_bin)
    return {
        "runs": make_run_row(documents, positions, components, shape, dla),
        **make_names(components),
        **make_text(documents, windows, positions, dla),
        "cell_counts": counts,
        "cell_sums": sums,
        "group_importance": make_group_importance(sums, components),
        "power_sums": make_power_sums(activation, dla, positions, components),
        "spectrum_counts": make_spectrum(activation, dla, positions, live),
        "density_counts": density,
        "quantiles": make_quantiles(density, live),
        "sample_rows": samples,
        "extreme_rows": make_extremes(activation, dla, positions, live, n_extremes),
        "dense_rows": pl.concat([dense_values(activation, dla, positions, i, dense) for i in range(len(components))]),
        "pooled_strata": make_pooled(activation, positions, samples),
        "recorded_rows": pl.concat([value_rows(activation, dla, positions, i, everywhere) for i in recorded]),
        "head_attention_rows": make_head_attention(rng, positions, components),
        "logit_effects": make_logit_effects(rng, components),
        **make_token_sums(activation, dla, positions, components),
        **make_dictionaries(),
        **make_losses(len(positions), np.abs(dla.sum(0)).max()),
    }
