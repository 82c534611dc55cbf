"""Raw values of the fake run (see fake_run): vocabulary, documents, windows, positions, activation and DLA.

The texts of the tokens are nasty on purpose; special positions carry wild values (1e4).
"""

import numpy as np
import polars as pl

CONTEXT_LENGTH = 32
DOMAINS = ["code", "docs"]

TOKENS: dict[str, list[str]] = {
    "number": ["1", "42", " 1999", "2024", " 3", "007"],
    "capitalised": [" Mary", " John", "The", " Paris", "Def"],
    "word": [
        " the",
        " of",
        " and",
        " store",
        " gave",
        " drink",
        " to",
        "return",
        " self",
        "ing",
        " import",
        " عربي",
        "שלום",
    ],
    "punctuation": [
        ".",
        ",",
        '"',
        "'",
        "(",
        ")",
        "&",
        "`",
        "</td>",
        "<script>alert(1)</script>",
        "'; DROP TABLE runs; --",
    ],
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
    made = pl.DataFrame(rows, schema=schema, orient="row").with_row_index("component_id")
    groups, presence = pl.lit(None, pl.String).alias("block_group"), pl.lit(0, pl.Int32).alias("presence")
    return made.select(pl.col("component_id").cast(pl.Int32), "component", "kind", "layer", groups, "unit", presence)


def make_documents(rng: np.random.Generator, n_documents: int, n_domains: int, n_groups: int) -> list[dict]:
    """Token ids of each document, with its domain and replicate group; the last document's window has no BOS."""
    documents = []
    for doc in range(n_documents):
        domain = int(doc % 3 == 0) % n_domains
        ids = rng.integers(0, BOS, size=rng.integers(4, 44)).tolist()
        if doc % 10 == 5:
            ids[2] = SEPARATOR
        group = domain * n_groups + int(rng.integers(n_groups))
        source = f"{DOMAINS[domain]}/file_{doc}.txt#{doc * 7}" if doc != 4 else "docs/<b>\"odd\" & 'name'</b>.txt"
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
            windows.append(
                {**doc, "window_id": window_id, "number": number, "start": start, "token_ids": ids, "bos": with_bos}
            )
    return windows


def open_marks(text: str) -> tuple[int, bool]:
    """Open brackets and an open quote at the end of a text, character by character."""
    depth, quote, line, i = 0, 0, "", 0
    while i < len(text):
        run = len(text[i:]) - len(text[i:].lstrip('"'))
        if run:
            ended = run >= 3 if quote == 3 else run % 2 == 1
            quote = (0 if ended else quote) if quote else 3 if run >= 3 and run % 6 else int(run == 1)
            line += text[i : i + run]
            i += run
            continue
        if text[i] == "\n":
            depth, quote, line = 0 if line.strip() == "" else depth, 0 if quote == 1 else quote, ""
        else:
            depth, line = max(0, depth + (text[i] in "([{") - (text[i] in ")]}")), line + text[i]
        i += 1
    return depth, quote > 0


def past_of(ids: list[int], offset: int, earlier: list[int] | None = None) -> dict:
    """What came before, by looking: repetition in the window `ids`; marks in the document, `earlier` its tokens
    before."""
    texts = [VOCABULARY[t][0] for t in ids]
    copies = [k for k in range(offset) if ids[k] == ids[offset]]
    matches = [next((m for m in range(k + 1) if ids[k - m] != ids[offset - m]), k + 1) for k in copies]
    before = "".join(VOCABULARY[t][0] for t in earlier or []) + "".join(texts[:offset])
    settled = (
        before.rstrip('"') if texts[offset].startswith('"') else before
    )  # a run of marks that goes on is not read yet
    return {
        "previous_token_id": ids[offset - 1] if offset else None,
        "distance": offset - copies[-1] if copies else None,
        "prefix_match": min(8, max(matches, default=0)),
        "bracket_depth": open_marks(before + texts[offset])[0],
        "in_quotes": open_marks(settled)[1],
    }


def role_of(doc_id: int, pos: int) -> str | None:
    """Every third document is no conversation, another third has no tool."""
    turns = (None, ("template", "user", "assistant"), ("template", "user", "template", "tool"))[doc_id % 3]
    return turns and turns[pos // 4 % len(turns)]


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
        "window_id": window["window_id"],
        "doc_id": window["doc_id"],
        "pos": None if window["bos"] and offset == 0 else window["start"] + offset - window["bos"],
        "offset": offset,
        "token_id": token,
        "next_token_id": following,
        "class_id": class_id,
        "next_class_id": next_class,
        "bucket_id": bucket,
        "group_id": window["group_id"],
        "domain_id": window["domain_id"],
        "special": special,
        "role": None if special == "bos" else role_of(window["doc_id"], window["start"] + offset - window["bos"]),
        **past_of(window["token_ids"], offset, window["ids"][: window["start"]]),
    }


def make_positions(rng: np.random.Generator, windows: list[dict], n_dense: int) -> pl.DataFrame:
    rows = [position_of(w, offset) for w in windows for offset in range(len(w["token_ids"]) - 1)]
    frame = pl.DataFrame(rows, infer_schema_length=None)
    ordinary = np.flatnonzero(frame["special"].is_null().to_numpy())
    dense = np.zeros(len(frame), bool)
    dense[rng.choice(ordinary, size=min(n_dense, len(ordinary)), replace=False)] = True
    loss, entropy, rank = (
        rng.exponential(2.5, len(frame)),
        rng.exponential(2.0, len(frame)),
        rng.geometric(0.2, len(frame)) - 1,
    )
    names = np.array([name for name, _, _ in CLASSES])
    frame = frame.with_columns(
        pl.Series("dense", dense),
        pl.Series("class", names[frame["class_id"].to_numpy()]),
        pl.Series("next_class", names[frame["next_class_id"].to_numpy()]),
        pl.Series("bucket", np.array([b for b, _, _ in BUCKETS])[frame["bucket_id"].to_numpy()]),
        pl.Series("domain", np.array(DOMAINS)[frame["domain_id"].to_numpy()]),
        pl.Series("loss", loss),
        pl.Series("rank", rank, dtype=pl.Int32),
        pl.Series("entropy", entropy),
    )
    kept = [pl.when("dense").then(c).alias(c) for c in ("loss", "rank", "entropy")]
    return frame.with_columns(kept)


def neuron_values(rng: np.random.Generator, unit: int, positions: pl.DataFrame) -> np.ndarray:
    """One activation per position. Units 2 and 3 never fire, unit 4 fires once, unit 1 likes numbers, 5 is
    heavy-tailed."""
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
        values[np.flatnonzero(positions["special"].is_null().to_numpy())[unit % 50]] = 0.3
        return values
    return rng.standard_t(2, n) * 3


def make_values(
    rng: np.random.Generator, components: pl.DataFrame, positions: pl.DataFrame
) -> tuple[np.ndarray, np.ndarray]:
    """Activation and DLA [component, position]; a head's activation and those of embeddings and biases are norms."""
    n = len(positions)
    activation = np.zeros((len(components), n))
    dla = np.empty((len(components), n))
    for row in components.iter_rows(named=True):
        i = row["component_id"]
        if row["kind"] == "head":
            activation[i] = np.exp(rng.normal(0.0, 0.8, n))
        elif row["kind"] == "neuron":
            activation[i] = neuron_values(rng, row["unit"], positions)
        else:
            activation[i] = 1.0 if row["kind"] == "final_bias" else np.exp(rng.normal(0.0, 0.2, n))
        write = rng.normal(0.1, 0.4, n) * (1 + 0.5 * (positions["domain_id"].to_numpy() == row["component_id"] % 2))
        dla[i] = write * activation[i] if row["kind"] in ("head", "neuron") else write
    wild = positions["special"].is_not_null().to_numpy()
    activation[:, wild] = 1e4
    dla[:, wild] *= 1e4
    return activation.astype(np.float32).astype(np.float64), dla.astype(np.float32).astype(np.float64)
