"""A small complete run file whose raw values are known, for tests of views, queries, `Run` and reports.

`build(path)` draws the activation and the DLA of every component at every position from a seeded generator, fills every
table of schema.sql from these arrays with plain numpy and polars (none of the recorder's code), and returns them, so
that a test can recompute any answer by brute force. Special positions carry wild values (1e4): whoever forgets to
leave them out gets an answer that is far off. The texts of the tokens are nasty on purpose.

Run as a script it writes a file to look at: `python tests/fake_run.py fake.duckdb`.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import polars as pl

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from profiler.store_comments import comment_statements  # noqa: E402

CONTEXT_LENGTH = 16
QUANTILES = [0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999]
DOMAINS = ["code", "docs"]
GROUPS_PER_DOMAIN = 4

TOKENS: dict[str, list[str]] = {
    "number": ["1", "42", " 1999", "2024", " 3", "007"],
    "capitalised": [" Mary", " John", "The", " Paris", "Def"],
    "word": [" the", " of", " and", " store", " gave", " drink", " to", "return", " self", "ing", " import", " عربي", "שלום"],
    "punctuation": [".", ",", '"', "'", "(", ")", "&", "`", "</td>", "<script>alert(1)</script>", "'; DROP TABLE runs; --"],
    "whitespace": ["\n", "\t", "    ", "\r\n", "\n\n"],
    "byte": ["<0xE2>", "<0x80>", "<0xF0>"],
    "other": ["😀", "→", "日本", "\u202e"],
    "special": ["<|bos|>", "<|sep|>"],
}
CLASSES = [
    ("number", "digits, with or without a blank before them", False),
    ("capitalised", "a word that begins with a capital", False),
    ("word", "any other word or piece of one", False),
    ("punctuation", "marks and brackets", False),
    ("whitespace", "blanks, tabs and line ends only", False),
    ("byte", "bytes that are no UTF-8 alone", False),
    ("other", "everything else", False),
    ("bos", "the BOS put before a window", True),
    ("first", "first token of a window without BOS", True),
    ("special", "special tokens inside the text", True),
]
CLASS_ID = {name: number for number, (name, _, _) in enumerate(CLASSES)}
VOCABULARY = [(text, CLASS_ID[name]) for name, texts in TOKENS.items() for text in texts]
BOS = next(i for i, (text, _) in enumerate(VOCABULARY) if text == "<|bos|>")
SEPARATOR = BOS + 1
BUCKETS = [("0", 0, 0), ("1", 1, 1), ("2-3", 2, 3), ("4-7", 4, 7), ("8-15", 8, 15), ("16-31", 16, 31)]


@dataclass(frozen=True)
class FakeRun:
    """A run file and the raw values behind it.

    `activation` and `dla` are float64 [component, position] and hold values that float32 holds exactly. `positions` has
    a row per position in the same order (class, next_class, bucket, group_id, domain, special, dense, ...);
    `components` a row per component (component_id, component, kind, layer, unit).
    """

    path: Path
    activation: np.ndarray
    dla: np.ndarray
    positions: pl.DataFrame
    components: pl.DataFrame
    tables: dict[str, pl.DataFrame]

    @property
    def ordinary(self) -> np.ndarray:
        """bool [position]: true where the position is not special."""
        return self.positions["special"].is_null().to_numpy()

    def row(self, component: str) -> int:
        """Index of `component` in the arrays."""
        return self.components["component"].to_list().index(component)


def bin_edges(per_octave: int) -> np.ndarray:
    """Finite edges of the log-linear bins, ascending: -2^16 .. -2^-16, 2^-16 .. 2^16, `per_octave` bins an octave."""
    octaves = 2.0 ** np.arange(-16, 16)
    positive = np.append((octaves[:, None] * (1 + np.arange(per_octave) / per_octave)).ravel(), 2.0**16)
    return np.concatenate([-positive[::-1], positive])


def bin_of(values: np.ndarray, per_octave: int) -> np.ndarray:
    """Bin number of each value: lo <= x < hi for positive ones, lo < x <= hi for negative ones, (-2^-16, 2^-16) is zero."""
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


def make_components(n_layers: int, n_heads: int, d_mlp: int) -> pl.DataFrame:
    rows = []
    for layer in range(n_layers):
        rows += [(f"L{layer}H{h}", "head", layer, h) for h in range(n_heads)]
        rows += [(f"L{layer}N{n}", "neuron", layer, n) for n in range(d_mlp)]
    rows += [("embed", "embed", None, None), ("pos_embed", "pos_embed", None, None)]
    for layer in range(n_layers):
        rows += [(f"L{layer}_attn_bias", "attn_bias", layer, None), (f"L{layer}_mlp_bias", "mlp_bias", layer, None)]
    rows.append(("final_bias", "final_bias", None, None))
    schema = {"component": pl.String, "kind": pl.String, "layer": pl.Int32, "unit": pl.Int32}
    return pl.DataFrame(rows, schema=schema, orient="row").with_row_index("component_id").cast({"component_id": pl.Int32})


def make_documents(rng: np.random.Generator, n_documents: int) -> list[dict]:
    """Token ids of each document, with its domain and replicate group; the last document's window has no BOS."""
    documents = []
    for doc in range(n_documents):
        domain = int(doc % 3 == 0)
        ids = rng.integers(0, BOS, size=rng.integers(4, 27)).tolist()
        if doc % 10 == 5:
            ids[2] = SEPARATOR
        group = domain * GROUPS_PER_DOMAIN + int(rng.integers(GROUPS_PER_DOMAIN))
        source = f"{DOMAINS[domain]}/file_{doc}.txt#{doc * 7}" if doc != 4 else 'docs/<b>"odd" & \'name\'</b>.txt'
        documents.append({"doc_id": doc, "ids": ids, "domain_id": domain, "group_id": group, "source": source})
    return documents


def cut_windows(documents: list[dict]) -> list[dict]:
    windows = []
    last = len(documents) - 1
    for doc in documents:
        with_bos = doc["doc_id"] != last
        step = CONTEXT_LENGTH - 1 if with_bos else CONTEXT_LENGTH
        for number, start in enumerate(range(0, len(doc["ids"]), step)):
            ids = ([BOS] if with_bos else []) + doc["ids"][start : start + step]
            window_id = doc["doc_id"] * 2**20 + number
            windows.append({**doc, "window_id": window_id, "number": number, "start": start, "token_ids": ids, "bos": with_bos})
    return windows


def position_of(window: dict, offset: int) -> dict:
    token, following = window["token_ids"][offset : offset + 2]
    special = None
    if offset == 0:
        special = "bos" if window["bos"] else "first"
    elif token == SEPARATOR:
        special = "special"
    class_id = CLASS_ID[special] if special else VOCABULARY[token][1]
    next_class = VOCABULARY[following][1]
    bucket = next(i for i, (_, lo, hi) in enumerate(BUCKETS) if lo <= offset <= hi)
    return {
        "position_id": window["doc_id"] * 2**32 + window["number"] * CONTEXT_LENGTH + offset,
        "window_id": window["window_id"], "doc_id": window["doc_id"],
        "pos": None if window["bos"] and offset == 0 else window["start"] + offset - window["bos"],
        "offset": offset, "token_id": token, "next_token_id": following, "class_id": class_id,
        "next_class_id": next_class, "bucket_id": bucket, "group_id": window["group_id"],
        "domain_id": window["domain_id"], "special": special,
    }  # fmt: skip


def make_positions(rng: np.random.Generator, windows: list[dict], n_dense: int) -> pl.DataFrame:
    rows = [position_of(w, offset) for w in windows for offset in range(len(w["token_ids"]) - 1)]
    frame = pl.DataFrame(rows, infer_schema_length=None)
    ordinary = np.flatnonzero(frame["special"].is_null().to_numpy())
    dense = np.zeros(len(frame), bool)
    dense[rng.choice(ordinary, size=min(n_dense, len(ordinary)), replace=False)] = True
    loss, entropy, rank = rng.exponential(2.5, len(frame)), rng.exponential(2.0, len(frame)), rng.geometric(0.2, len(frame)) - 1
    names = np.array([name for name, _, _ in CLASSES])
    frame = frame.with_columns(
        pl.Series("dense", dense), pl.Series("class", names[frame["class_id"].to_numpy()]),
        pl.Series("next_class", names[frame["next_class_id"].to_numpy()]),
        pl.Series("bucket", np.array([b for b, _, _ in BUCKETS])[frame["bucket_id"].to_numpy()]),
        pl.Series("domain", np.array(DOMAINS)[frame["domain_id"].to_numpy()]),
        pl.Series("loss", loss), pl.Series("rank", rank, dtype=pl.Int32), pl.Series("entropy", entropy),
    )  # fmt: skip
    kept = [pl.when("dense").then(c).alias(c) for c in ("loss", "rank", "entropy")]
    return frame.with_columns(kept)


def neuron_values(rng: np.random.Generator, unit: int, positions: pl.DataFrame) -> np.ndarray:
    """One activation per position. Units 2 and 3 never fire, unit 4 fires once, unit 1 likes numbers, 5 is heavy-tailed."""
    n = len(positions)
    number = (positions["class"] == "number").to_numpy()
    kind = unit % 6
    if kind == 0:
        return np.maximum(rng.normal(-0.5, 1.0, n), 0.0)
    if kind == 1:
        return np.where(number, rng.normal(3.0, 0.7, n), rng.normal(-0.1, 0.3, n))
    if kind == 2:
        return -rng.uniform(1e-3, 0.17, n)
    if kind == 3:
        return np.zeros(n)
    if kind == 4:
        values = -rng.uniform(0.0, 0.17, n)
        values[np.flatnonzero(positions["special"].is_null().to_numpy())[unit % 50]] = 0.9
        return values
    return rng.standard_t(2, n) * 3


def make_values(
    rng: np.random.Generator, components: pl.DataFrame, positions: pl.DataFrame
) -> tuple[np.ndarray, np.ndarray]:
    """Activation and DLA [component, position]; a head's activation is a norm, a closing term's is 0."""
    n = len(positions)
    activation = np.zeros((len(components), n))
    dla = np.empty((len(components), n))
    for row in components.iter_rows(named=True):
        i = row["component_id"]
        if row["kind"] == "head":
            activation[i] = np.exp(rng.normal(0.0, 0.8, n))
        elif row["kind"] == "neuron":
            activation[i] = neuron_values(rng, row["unit"], positions)
        write = rng.normal(0.1, 0.4, n) * (1 + 0.5 * (positions["domain_id"].to_numpy() == row["component_id"] % 2))
        dla[i] = write * activation[i] if row["kind"] in ("head", "neuron") else write
    wild = positions["special"].is_not_null().to_numpy()
    live = components["kind"].is_in(["head", "neuron"]).to_numpy()
    activation[np.ix_(live, wild)] = 1e4
    dla[:, wild] *= 1e4
    return activation.astype(np.float32).astype(np.float64), dla.astype(np.float32).astype(np.float64)


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
        counts.append(pl.DataFrame({"axis": axis, "value_id": cells // 1000, "group_id": cells % 1000, "n": n[0].astype(int)}))
        parts = [grouped_sums(ids, values[:, use], key)[0] for values in (activation, dla, np.abs(dla))]
        sums.append(pl.DataFrame({
            "component_id": np.repeat(ids, len(cells)), "axis": [axis] * (len(ids) * len(cells)),
            "value_id": np.tile(cells // 1000, len(ids)), "group_id": np.tile(cells % 1000, len(ids)),
            "sum_activation": parts[0].ravel(), "sum_dla": parts[1].ravel(), "sum_abs_dla": parts[2].ravel(),
        }))  # fmt: skip
    return pl.concat(counts), pl.concat(sums)


def make_power_sums(activation, dla, positions, components) -> pl.DataFrame:
    rows = []
    key = positions["class_id"].to_numpy() * 100 + positions["domain_id"].to_numpy()
    for cell in np.unique(key):
        use = key == cell
        a, d = activation[:, use], dla[:, use]
        columns: dict[str, object] = {"component_id": components["component_id"], "class_id": cell // 100, "domain_id": cell % 100}
        columns["n"] = int(use.sum())
        for name, x in [("a", a), ("d", d)]:
            columns |= {f"{name}{p}": (x**p).sum(1) for p in (1, 2, 3, 4)}
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
            rows.append((int(i), q, value, int(bin_of(np.array([value]), 2)[0])))
    return pl.DataFrame(rows, schema=["component_id", "quantile", "value", "bin"], orient="row")


def value_rows(activation, dla, positions, i: int, which: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame({
        "component_id": np.full(len(which), i), "position_id": positions["position_id"].to_numpy()[which],
        "activation": activation[i][which], "dla": dla[i][which],
    })  # fmt: skip


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
                frames.append(frame.with_columns(measure=pl.lit(measure), side=pl.lit(side), rank=np.arange(1, len(chosen) + 1)))
    return pl.concat(frames)


def make_head_attention(rng, positions, components) -> pl.DataFrame:
    dense = positions.filter("dense")["position_id"].to_numpy()
    frames = []
    for i in components.filter(pl.col("kind") == "head")["component_id"]:
        parts = rng.dirichlet(np.ones(6), len(dense))
        names = ["previous", "first", "self", "induction", "duplicate"]
        frames.append(pl.DataFrame({
            "component_id": np.full(len(dense), i), "position_id": dense, **{n: parts[:, k] for k, n in enumerate(names)},
            "entropy": -(parts * np.log(parts)).sum(1), "top_offset": rng.integers(0, 9, len(dense)),
            "top_weight": parts.max(1), "dla_to_attended": rng.normal(0, 1, len(dense)),
        }))  # fmt: skip
    return pl.concat(frames)


def make_logit_effects(rng, components, k: int = 10) -> pl.DataFrame:
    rows = []
    for i in components.filter(pl.col("kind") == "neuron")["component_id"]:
        effect = rng.normal(0, 1, len(VOCABULARY))
        order = np.argsort(effect)
        for side, chosen in [("boosted", order[::-1][:k]), ("suppressed", order[:k])]:
            rows += [(i, side, r + 1, int(t), float(effect[t])) for r, t in enumerate(chosen)]
    return pl.DataFrame(rows, schema=["component_id", "side", "rank", "token_id", "effect"], orient="row")


def make_run_row(documents, positions, components, shape, dla) -> pl.DataFrame:
    n_layers, n_heads, d_mlp = shape
    special = positions["special"].is_not_null().sum()
    n_tokens = sum(len(d["ids"]) for d in documents)
    config = {"model": "fake", "corpus": ["fake:code", "fake:docs"], "seed": 0, "context_length": CONTEXT_LENGTH, "dtype": "float32"}
    return pl.DataFrame([{
        "run_id": "5e0fa4e", "created": "2026-01-02T03:04:05Z", "model": "fake", "model_hash": "00aa", "tokenizer_hash": "00bb",
        "architecture": "FakeForCausalLM", "n_layers": n_layers, "n_heads": n_heads, "d_mlp": d_mlp, "d_model": 8,
        "n_vocab": len(VOCABULARY), "config": json.dumps(config), "versions": json.dumps({"duckdb": duckdb.__version__, "device": "cpu"}),
        "model_card": "# Fake\n\nRandom values that no model made, to test queries and pages.", "n_documents": len(documents),
        "n_tokens": n_tokens, "n_positions": len(positions) - special, "n_special": special, "seconds": 2.5,
        "tokens_per_second": n_tokens / 2.5, "closure_residual": 3e-6, "closure_scale": float(np.abs(dla.sum(0)).max()),
        "peak_memory_bytes": 123456789, "complete": True,
    }])  # fmt: skip


def make_tables(rng, activation, dla, positions, components, documents, windows, shape, per_bin, n_extremes) -> dict[str, pl.DataFrame]:
    ordinary = positions["special"].is_null().to_numpy()
    live = components.filter(pl.col("kind").is_in(["head", "neuron"]))["component_id"].to_list()
    density = make_density(activation, ordinary, live)
    counts, sums = make_cells(activation, dla, positions, components)
    dense = np.flatnonzero(positions["dense"].to_numpy())
    recorded = [i for i, label in enumerate(components["component"]) if label in ("L0H0", "L1N1")]
    doc_frame = pl.DataFrame([
        {"doc_id": d["doc_id"], "domain": DOMAINS[d["domain_id"]], "source": d["source"], "group_id": d["group_id"],
         "n_tokens": len(d["ids"]), "n_dropped": 5 if d["doc_id"] == 7 else 0, "domain_id": d["domain_id"]} for d in documents
    ])  # fmt: skip
    scale = np.abs(dla.sum(0)).max()
    return {
        "runs": make_run_row(documents, positions, components, shape, dla),
        "components": components,
        "classes": pl.DataFrame([(i, *c) for i, c in enumerate(CLASSES)], schema=["class_id", "class", "description", "special"], orient="row"),
        "tokens": pl.DataFrame([(i, t, c) for i, (t, c) in enumerate(VOCABULARY)], schema=["token_id", "token", "class_id"], orient="row"),
        "vocabulary": pl.DataFrame({"tokens": [[t for t, _ in VOCABULARY]]}),
        "domains": pl.DataFrame({"domain_id": [0, 1], "domain": DOMAINS}),
        "replicate_groups": doc_frame.group_by("group_id", "domain_id").agg(n_documents=pl.len()).sort("group_id"),
        "position_buckets": pl.DataFrame([(i, *b) for i, b in enumerate(BUCKETS)], schema=["bucket_id", "bucket", "lo", "hi"], orient="row"),
        "bins": bins_frame(),
        "documents": doc_frame.drop("domain_id"),
        "windows": pl.DataFrame([{k: w[k] for k in ("window_id", "doc_id", "start", "token_ids")} for w in windows]),
        "position_rows": positions.with_columns(target_logit=dla.sum(0)).select(
            "position_id", "window_id", "doc_id", "pos", "offset", "token_id", "next_token_id", "class_id",
            "target_logit", "loss", "rank", "entropy", "special", "dense",
        ),
        "cell_counts": counts,
        "cell_sums": sums,
        "power_sums": make_power_sums(activation, dla, positions, components),
        "spectrum_counts": make_spectrum(activation, dla, positions, live),
        "density_counts": density,
        "quantiles": make_quantiles(density, live),
        "sample_rows": make_samples(rng, activation, dla, positions, live, per_bin),
        "extreme_rows": make_extremes(activation, dla, positions, live, n_extremes),
        "dense_rows": pl.concat([value_rows(activation, dla, positions, i, dense) for i in range(len(components))]),
        "recorded_rows": pl.concat([value_rows(activation, dla, positions, i, np.arange(len(positions))) for i in recorded]),
        "head_attention_rows": make_head_attention(rng, positions, components),
        "logit_effects": make_logit_effects(rng, components),
        "closure": pl.DataFrame({"chunk": [0, 1, 2], "n": [300, 300, len(positions) - 600], "residual": [1e-6, 3e-6, 2e-6], "scale": [scale / 2, scale, scale / 3]}),
        "drops": pl.DataFrame({"reason": ["document too short", "window cut"], "n": [3, 5], "unit": ["documents", "tokens"],
                               "note": ["had fewer than 2 tokens: nothing to predict", "over the limit of one document; raise --max-document-tokens"]}),
    }  # fmt: skip


def write(path: Path, tables: dict[str, pl.DataFrame]) -> None:
    """Create the file as the store does: schema, rows sorted by component, views, comments."""
    schema, views = (ROOT / "profiler" / name for name in ("schema.sql", "views.sql"))
    path.unlink(missing_ok=True)
    con = duckdb.connect(str(path), config={"storage_compatibility_version": "v1.2.0"})
    con.execute(schema.read_text(encoding="utf-8"))
    for name, frame in tables.items():
        keys = [c for c in ("component_id", "axis", "class_id", "bin", "position_id") if c in frame.columns]
        con.register("incoming", (frame.sort(keys, maintain_order=True) if keys and name != "tokens" else frame).to_arrow())
        con.execute(f"INSERT INTO {name} BY NAME SELECT * FROM incoming")
        con.unregister("incoming")
    con.execute(views.read_text(encoding="utf-8"))
    for statement in [s for file in (schema, views) for s in comment_statements(file.read_text(encoding="utf-8"))]:
        con.execute(statement)
    con.close()


def build(
    path: Path | str, *, seed: int = 0, n_layers: int = 2, n_heads: int = 2, d_mlp: int = 6,
    n_documents: int = 60, n_dense: int = 80, per_bin: int = 8, n_extremes: int = 10,
) -> FakeRun:  # fmt: skip
    """Write a complete run to `path` and return it with its raw values."""
    rng = np.random.default_rng(seed)
    components = make_components(n_layers, n_heads, d_mlp)
    documents = make_documents(rng, n_documents)
    windows = cut_windows(documents)
    positions = make_positions(rng, windows, n_dense)
    activation, dla = make_values(rng, components, positions)
    shape = (n_layers, n_heads, d_mlp)
    tables = make_tables(rng, activation, dla, positions, components, documents, windows, shape, per_bin, n_extremes)
    write(Path(path), tables)
    return FakeRun(Path(path), activation, dla, positions, components, tables)


if __name__ == "__main__":
    built = build(Path(sys.argv[1] if len(sys.argv) > 1 else "fake.duckdb"))
    print(f"{built.path}: {len(built.components)} components, {int(built.ordinary.sum())} positions, {len(built.positions)} with special ones")
