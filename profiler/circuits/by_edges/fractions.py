"""CPR and CMD as MIB's leaderboard defines them, so that numbers can be compared with it.

Faithfulness f of the best edges at ten fixed fractions of all edges (Mueller et al. 2025, MIB; its
`evaluate_area_under_curve`): CPR, the area under f, takes the edges of the largest signed score, which leaves out
what holds the answer back; CMD, the area of |1 - f|, takes those of the largest |score|. The two are of different
circuits. Areas are trapezoids over the fractions, from 0.001 to 1, of |1 - f| at their ends: where f crosses 1 in
between the area is over-counted, and `cmd_exact` is not. Sizes are rounded down; the empty circuit is run under the
same ablation.
Nodes: heads and MLPs by their summed edges' scores, a node outside silenced towards everybody.

Scores are EAP-IG on the discovery pairs, f is measured on fresh ones (`test`) where there are some. Cost: about forty
passes over the pairs.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float

from profiler.circuits.by_edges.edge_sets import EdgeEvaluator
from profiler.circuits.circuit import INPUT
from profiler.circuits.scoring import curve

FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
ORDERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"signed": np.asarray, "absolute": np.abs}


def best(scores: Float[np.ndarray, " item"], size: int) -> np.ndarray:
    """The set of the `size` largest scores; of equal ones the first of the model."""
    keep = np.zeros(len(scores), dtype=bool)
    keep[np.argsort(-scores, kind="stable")[:size]] = True
    return keep


def rows(evaluate: EdgeEvaluator, importance: Float[np.ndarray, "writer reader"]) -> pl.DataFrame:
    """Table `circuit_fractions` without its experiment: a row per level, order and fraction.

    Args:
        importance: what each edge is worth to the metric, positive where it helps; by writer and reader.
    """
    ends = evaluate.ends
    of_edges = importance[ends[:, 0], ends[:, 1]]
    writers = [writer for writer in evaluate.graph.writers if writer != INPUT]
    of_nodes = importance.sum(1)[[evaluate.graph.writers.index(writer) for writer in writers]]
    made: list[dict[str, Any]] = []
    for level, scores in (("edge", of_edges), ("node", of_nodes)):
        for order, form in ORDERS.items():
            sizes = [int(fraction * len(scores)) for fraction in FRACTIONS]
            sets = np.stack([best(form(scores), size) for size in sizes])
            keep = sets if level == "edge" else np.stack([_silenced(evaluate, writers, row) for row in sets])
            for fraction, size, value in zip(FRACTIONS, sizes, evaluate.faithfulness(keep), strict=True):
                row = {"level": level, "ranking": order, "fraction": fraction, "size": size, "items": len(scores)}
                made.append(row | {"faithfulness": float(value)})
    return pl.DataFrame(made)


def _silenced(evaluate: EdgeEvaluator, writers: list[str], live: np.ndarray) -> np.ndarray:
    """The edges that are left where only some nodes write."""
    mask = evaluate.graph.from_nodes(writer for writer, is_live in zip(writers, live, strict=True) if is_live)
    return np.asarray(mask[torch.from_numpy(evaluate.ends[:, 0]), torch.from_numpy(evaluate.ends[:, 1])].numpy())


def areas(table: pl.DataFrame) -> dict[str, float]:
    """CPR, CMD and CMD without over-counting, by level: `edge_cpr`, `edge_cmd`, `edge_cmd_exact`, `node_cpr` ..."""
    values = {}
    for level in ("edge", "node"):
        by_order = {
            order: table.filter(level=level, ranking=order).sort("fraction")["faithfulness"].to_numpy()
            for order in ORDERS
        }
        x = np.array(FRACTIONS)
        values[f"{level}_cpr"] = curve.area(x, by_order["signed"])
        values[f"{level}_cmd"] = curve.area(x, np.abs(1 - by_order["absolute"]))
        values[f"{level}_cmd_exact"] = curve.distance(x, by_order["absolute"])
    return values
