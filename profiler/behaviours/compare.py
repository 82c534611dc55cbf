"""Two runs side by side: which components do something else in the second, with false discoveries controlled.

Two runs of one model over different corpora, or of two checkpoints of one model, ask the same claims of the same
components; the coverages are compared by their jackknife errors, which are independent because the documents are. Runs of
models of different shape, or of different tokenizers, have no component or token in common and are refused; runs that
read the same documents are not independent, and that is said.

Method: difference over the root of the summed squared standard errors, t with the smaller run's groups less one degrees
of freedom (conservative), Benjamini and Hochberg (1995) over all rows. Cost: one query `behaviours` per run.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from scipy import stats
from statsmodels.stats.multitest import multipletests

from profiler import query
from profiler.errors import RunError

SHAPE = ("architecture", "n_layers", "n_heads", "d_mlp", "n_vocab")
FACTS = "SELECT model, model_hash, tokenizer_hash, architecture, n_layers, n_heads, d_mlp, n_vocab, (SELECT count(*) FROM replicate_groups) AS n_groups FROM runs"
SHARED = "SELECT DISTINCT domain, source FROM documents"


@dataclass(frozen=True)
class Comparison:
    """Rows (component, behaviour, both coverages, difference, se, p, q), smallest p first, and what to know of them."""

    frame: pl.DataFrame
    notes: tuple[str, ...]


def compare(first: Path, second: Path, kind: str = "head", family: str = "attention", top: int = 0) -> Comparison:
    """Every claim of a family asked of both runs.

    Args:
        top: the most important components of the first run only; 0 takes all.

    Raises:
        RunError: no finished run, or runs whose components or tokens are not the same.
    """
    facts = [query.run(path, FACTS).row(0, named=True) for path in (first, second)]
    _refuse_unlike(first, second, *facts)
    frames = [query.run(path, "behaviours", kind=kind, family=family, top=t) for path, t in ((first, top), (second, 0))]
    df = min(fact["n_groups"] for fact in facts) - 1
    return Comparison(_tested(*frames, df), _notes(first, second, *facts))


def _refuse_unlike(first: Path, second: Path, a: dict, b: dict) -> None:
    """Only runs of the same tokens and the same components can be compared.

    Raises:
        RunError: they are not.
    """
    if a["tokenizer_hash"] != b["tokenizer_hash"]:
        raise RunError(
            f"{first} and {second} have different tokenizers ({a['model']}, {b['model']}): the same text is other tokens there, "
            "so classes and positions have no counterpart; record both with models of one tokenizer"
        )
    if unlike := [name for name in SHAPE if a[name] != b[name]]:
        name = unlike[0]
        raise RunError(
            f"{first} and {second} are of models of different shape ({name} {a[name]} and {b[name]}): L0H0 of one is not L0H0 "
            "of the other; compare runs of one model, or of checkpoints of one"
        )


def _notes(first: Path, second: Path, a: dict, b: dict) -> tuple[str, ...]:
    shared = query.run(first, SHARED).join(query.run(second, SHARED), on=["domain", "source"]).height
    notes = []
    if shared:
        notes.append(
            f"{shared:,} documents are in both runs: the errors are not independent, so differences are surer than shown where "
            "the texts push both runs the same way"
        )
    if a["model_hash"] != b["model_hash"]:
        notes.append("the weights differ: a component of one number need not have become the same thing in training")
    return tuple(notes)


def _tested(a: pl.DataFrame, b: pl.DataFrame, df: int) -> pl.DataFrame:
    """Both runs' rows joined, the difference tested, q added."""
    floor = [_with_floor(frame) for frame in (a, b)]
    rows = floor[0].join(floor[1], on=["component", "behaviour"], suffix="_b", maintain_order="left")
    se = (pl.col("se") ** 2 + pl.col("se_b") ** 2).sqrt()
    rows = rows.with_columns(difference=pl.col("coverage_b") - pl.col("coverage"), difference_se=se)
    rows = rows.filter(pl.col("difference_se") > 0)
    p = 2 * stats.t.sf((rows["difference"] / rows["difference_se"]).abs().to_numpy(), df)
    q = multipletests(p, method="fdr_bh")[1] if len(p) else np.array([])
    named = rows.select(
        "component", "behaviour", coverage_a="coverage", coverage_a_lo="coverage_lo", coverage_a_hi="coverage_hi", coverage_b="coverage_b",
        coverage_b_lo="coverage_lo_b", coverage_b_hi="coverage_hi_b", difference="difference", difference_se="difference_se",
    )  # fmt: skip
    return named.with_columns(p=p, q=q).sort("p", "component", "behaviour")


def _with_floor(frame: pl.DataFrame) -> pl.DataFrame:
    """Standard errors; a coverage of exactly 0 or 1 has 1 / (effective documents + 2), as a uniform prior would leave."""
    least = pl.when(pl.col("coverage").is_between(1e-12, 1 - 1e-12)).then(0.0).otherwise(1 / (pl.col("effective_documents") + 2))  # fmt: skip
    kept = frame.filter(pl.col("coverage").is_not_null(), pl.col("coverage_se").is_not_null())
    return kept.select(
        "component", "behaviour", "coverage", "coverage_lo", "coverage_hi", se=pl.max_horizontal("coverage_se", least)
    )
