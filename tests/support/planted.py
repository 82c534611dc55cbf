"""Runs whose components were built by hand to do known things, in documents that are not alike: the truth for
statistics.

`write(path, plan)` fills the tables that behaviour queries read. Positions come in documents, documents in domains and
replicate groups; each component says at each position how large its activation and DLA are and, for heads, where they
attend. Everything is drawn from a seeded generator, and what was planted is returned beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fake_run
import numpy as np
import polars as pl
from fake_tables import bin_of, bins_frame

VOCABULARY = [
    "<|bos|>",
    " the",
    " of",
    " 7",
    " 1999",
    "\n",
    " Mary",
    "(",
    ")",
    ".",
    "x",
    " cat",
    "2024",
    "ing",
    " and",
    ",",
]
WORDS = np.array([1, 2, 10, 11, 13, 14])
NUMBERS, NEWLINE = np.array([3, 4, 12]), 5
GROUPS = 12
ATTENTION = "previous_token two_back first_token self induction prefix_induction duplicate newline delimiter".split()


@dataclass(frozen=True)
class World:
    """Positions of a planted run: one entry per position in each array.

    `effect` is what the position's document adds to its importance (log scale), the clustering that intervals must see.
    """

    document: np.ndarray
    domain: np.ndarray
    token: np.ndarray
    following: np.ndarray
    effect: np.ndarray

    def __len__(self) -> int:
        return len(self.document)


def world(
    rng: np.random.Generator, n_documents: int = 60, per_document: int = 20, n_domains: int = 2, spread: float = 0.5
) -> World:
    """Documents of unequal length in `n_domains` domains of equal numbers of documents."""
    sizes = rng.integers(per_document // 2, per_document * 3 // 2 + 1, n_documents)
    document = np.repeat(np.arange(n_documents), sizes)
    n = len(document)
    share = rng.beta(2, 4, n_documents)[document]
    token = np.where(rng.random(n) < share, rng.choice(NUMBERS, n), rng.choice(WORDS, n))
    return World(
        document, document % n_domains, token, np.roll(token, -1), rng.normal(0, spread, n_documents)[document]
    )


@dataclass(frozen=True)
class Component:
    """A planted component: activation and DLA at each position of the world, and attention columns for a head."""

    label: str
    activation: np.ndarray
    dla: np.ndarray
    attention: dict[str, np.ndarray] | None = None


Plant = Callable[[World, np.random.Generator], Component]


def attends(label: str, where: dict[str, np.ndarray], dla: np.ndarray, copied: np.ndarray | float = 1.0) -> Component:
    """A head with 0.9 of its attention on the named places where the mask says so, 0.01 elsewhere."""
    n = len(dla)
    columns = {name: np.where(where.get(name, np.zeros(n, bool)), 0.9, 0.01) for name in ATTENTION}
    return Component(label, np.abs(dla) + 1, dla, columns | {"dla_to_attended": np.broadcast_to(copied, n)})


def _tables(w: World, components: list[Component]) -> dict[str, pl.DataFrame]:
    offset = np.arange(len(w)) - np.searchsorted(w.document, w.document) + 1
    position = w.document.astype(np.int64) * 2**32 + offset
    return (
        _names(w, components)
        | _documents(w)
        | {"position_rows": _positions(w, position, offset)}
        | _value_rows(components, position)
        | _sums(components)
    )


def _names(w: World, components: list[Component]) -> dict[str, pl.DataFrame]:
    """The run, its components, classes, tokens and bins."""
    classes = [(i, *c) for i, c in enumerate(fake_run.CLASSES)]
    run = {"run_id": "planted", "model": "planted", "n_positions": len(w), "n_layers": 1, "n_heads": 1, "d_mlp": 1}
    return {
        "runs": pl.DataFrame([run | {"tokenizer_hash": "t", "model_hash": "m", "complete": True}]),
        "components": pl.DataFrame(
            {
                "component_id": range(len(components)),
                "component": [c.label for c in components],
                "kind": ["head" if c.attention is not None else "neuron" for c in components],
                "layer": 0,
                "unit": range(len(components)),
                "presence": 0,
            }
        ),
        "classes": pl.DataFrame(classes, schema=["class_id", "class", "description", "special"], orient="row"),
        "tokens": pl.DataFrame(
            {
                "token_id": range(len(VOCABULARY)),
                "token": VOCABULARY,
                "class_id": [7] + [0 if i in NUMBERS else 2 for i in range(1, len(VOCABULARY))],
            }
        ),
        "vocabulary": pl.DataFrame({"tokens": [VOCABULARY]}),
        "bins": bins_frame(),
    }


def _documents(w: World) -> dict[str, pl.DataFrame]:
    """Domains, replicate groups, documents, and a window of each document."""
    n_documents, n_domains = int(w.document.max()) + 1, int(w.domain.max()) + 1
    domain = [int(w.domain[np.searchsorted(w.document, d)]) for d in range(n_documents)]
    group = [domain[d] * GROUPS + d // n_domains % GROUPS for d in range(n_documents)]
    groups = pl.DataFrame({"group_id": group, "domain_id": domain}).group_by("group_id", "domain_id")
    return {
        "domains": pl.DataFrame({"domain_id": range(n_domains), "domain": [f"domain{i}" for i in range(n_domains)]}),
        "replicate_groups": groups.agg(n_documents=pl.len()),
        "documents": pl.DataFrame(
            {
                "doc_id": range(n_documents),
                "domain": [f"domain{i}" for i in domain],
                "source": [f"d{i}" for i in range(n_documents)],
                "group_id": group,
                "n_tokens": 1,
                "n_dropped": 0,
            }
        ),
        "windows": pl.DataFrame(
            {
                "window_id": [d * 2**20 for d in range(n_documents)],
                "doc_id": range(n_documents),
                "start": 0,
                "token_ids": [[0, *w.token[w.document == d].tolist(), 1] for d in range(n_documents)],
            }
        ),
    }


def _positions(w: World, position: np.ndarray, offset: np.ndarray) -> pl.DataFrame:
    """Every position, recorded whole."""
    return pl.DataFrame(
        {
            "position_id": position,
            "window_id": w.document * 2**20,
            "doc_id": w.document,
            "pos": offset,
            "offset": offset,
            "token_id": w.token,
            "next_token_id": w.following,
            "class_id": np.where(np.isin(w.token, NUMBERS), 0, 2),
            "target_logit": 0.0,
            "loss": 1.0,
            "rank": 0,
            "entropy": 1.0,
            "cap_slope": None,
            "special": None,
            "role": None,
            "previous_token_id": np.roll(w.token, 1),
            "distance": None,
            "prefix_match": 0,
            "bracket_depth": 0,
            "in_quotes": False,
            "dense": True,
        },
        schema_overrides={"cap_slope": pl.Float64, "special": pl.String, "role": pl.String, "distance": pl.Int32},
    )


def _values(components: list[Component]) -> tuple[np.ndarray, np.ndarray]:
    """Activation and DLA, float32 [component, position]."""
    activation, dla = (
        np.array([getattr(c, name) for c in components], dtype=np.float32) for name in ("activation", "dla")
    )
    return activation, dla


def _value_rows(components: list[Component], position: np.ndarray) -> dict[str, pl.DataFrame]:
    """Activation, DLA and attention at every position, and how many rows there are of each bin."""
    activation, dla = _values(components)
    n, ids = len(position), np.arange(len(components))
    dense = pl.DataFrame(
        {
            "component_id": np.repeat(ids, n),
            "position_id": np.tile(position, len(ids)),
            "activation": activation.ravel(),
            "dla": dla.ravel(),
            "bin": bin_of(activation.astype(float), 2).ravel().astype(np.int16),
        }
    )
    counted = dense.group_by("component_id", "bin").agg(n=pl.len())
    strata = counted.with_columns(kept=pl.col("n"), bin=pl.col("bin").cast(pl.Int32))
    same = {"entropy": 1.0, "top_offset": 1, "top_weight": 0.9}
    attention = [
        pl.DataFrame({"component_id": np.full(n, i), "position_id": position, **component.attention, **same})
        for i, component in enumerate(components)
        if component.attention is not None
    ]
    return {
        "dense_rows": dense,
        "pooled_strata": strata,
        "spectrum_counts": strata.select("component_id", "bin", "n", class_id=0, sum_dla=0.0, sum_abs_dla=0.0),
        **({"head_attention_rows": pl.concat(attention)} if attention else {}),
    }


def _sums(components: list[Component]) -> dict[str, pl.DataFrame]:
    """Quantiles and sums over all positions."""
    activation, dla = _values(components)
    ids, n = np.arange(len(components)), activation.shape[1]
    quantiles = []
    for i, row in enumerate(activation):
        for quantile in (0.5, 0.75, 0.9, 0.95, 0.99):
            value = float(np.quantile(row, quantile, method="higher"))
            quantiles.append((i, quantile, value, 0, value, float((row >= value).mean())))
    sums = {"sum_activation": activation.sum(1), "sum_dla": dla.sum(1), "sum_abs_dla": np.abs(dla.astype(float)).sum(1)}
    return {
        "quantiles": pl.DataFrame(
            quantiles, schema=["component_id", "quantile", "value", "bin", "level", "reached"], orient="row"
        ),
        "cell_sums": pl.DataFrame({"component_id": ids, "axis": "class", "value_id": 0, "group_id": 0, **sums}),
        "power_sums": pl.DataFrame(
            {"component_id": ids, "class_id": 0, "domain_id": 0, "n": n, "d_abs": sums["sum_abs_dla"]}
        ),
    }


def write(path: Path, w: World, components: list[Component], more: dict[str, pl.DataFrame] | None = None) -> Path:
    """The run file of these components, with `more` tables; every position is a dense one."""
    fake_run.write(path, _tables(w, components) | (more or {}))
    return path
