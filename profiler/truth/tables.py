"""What came out beside the truth: members found, areas under the ROC, the table of true and printed words, totals.

Cost: none; polars frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from profiler.statistics import ROUNDING, clopper_pearson, level

UNDECIDED = "inconclusive"
REFUSED = "refused"
"""The word of a model that patch or check refused."""
RUN = ("model", "size", "seed")


VERDICTS = pl.Schema(
    {
        "model": pl.String(),
        "size": pl.String(),
        "seed": pl.Int64(),
        "heads": pl.Int64(),
        "members": pl.List(pl.String()),
        "chosen": pl.List(pl.String()),
        "true_word": pl.String(),
        "word": pl.String(),
        "sentence": pl.String(),
        "roles": pl.List(pl.String()),
        "roles_right": pl.Int64(),
        "roles_read": pl.Int64(),
        "edges_right": pl.Int64(),
        "edges_chosen": pl.Int64(),
        "edges_true": pl.Int64(),
        "patch_seconds": pl.Float64(),
        "check_seconds": pl.Float64(),
    }
)
"""Columns of `TruthResult.verdicts`."""
SCORES = pl.Schema(
    {
        "model": pl.String(),
        "size": pl.String(),
        "seed": pl.Int64(),
        "component": pl.String(),
        "score": pl.Float64(),
        "is_member": pl.Boolean(),
    }
)
"""Columns of `TruthResult.scores`."""


@dataclass(frozen=True, eq=False)
class TruthResult:
    """What patch and check said of models whose circuits are known.

    Attributes:
        verdicts: a row per model, size and seed: true and chosen members, true and printed word, the sentence, seconds.
        scores: a row per head of each: the score it was ranked by, and whether it is a member.
    """

    verdicts: pl.DataFrame
    scores: pl.DataFrame

    @cached_property
    def members(self) -> pl.DataFrame:
        """Members per model, size and seed: true and false positives, misses, and the area under the ROC of scores.

        Models whose circuit was claimed rather than chosen have no members here.
        """
        areas = {key: roc_area(frame) for key, frame in self.scores.group_by(RUN)}
        rows = self.verdicts.filter(pl.col("chosen").is_not_null()).select(
            *RUN,
            "heads",
            pl.col("members").list.set_intersection("chosen").list.len().alias("right"),
            pl.col("chosen").list.set_difference("members").list.len().alias("false"),
            pl.col("members").list.set_difference("chosen").list.len().alias("missed"),
        )
        return rows.with_columns(
            pl.Series("roc_area", [areas.get(key) for key in rows.select(RUN).rows()], dtype=pl.Float64)
        )

    @cached_property
    def words(self) -> pl.DataFrame:
        """How often each true word was printed as each word, a row per true word."""
        counts = self.verdicts.group_by("true_word", "word").len("n")
        wide = counts.pivot("word", index="true_word", values="n", sort_columns=True).sort("true_word")
        return wide.with_columns(pl.exclude("true_word").fill_null(0))

    @cached_property
    def by_model(self) -> pl.DataFrame:
        """A row per model and size: members, words and seconds over all seeds."""
        right = pl.col("word") == pl.col("true_word")
        words = self.verdicts.group_by("model", "size", maintain_order=True).agg(
            pl.len().alias("runs"),
            pl.col("heads").first(),
            pl.col("true_word").first(),
            pl.col("word").value_counts(sort=True).alias("printed"),
            right.sum().alias("right_words"),
            pl.col("patch_seconds", "check_seconds").mean(),
        )
        members = self.members.group_by("model", "size").agg(
            pl.col("right", "false", "missed").sum(), pl.col("roc_area").mean()
        )
        printed = pl.col("printed").list.eval(
            pl.format("{} {}", pl.element().struct.field("word"), pl.element().struct.field("count"))
        )
        return words.join(members, on=["model", "size"], how="left", maintain_order="left").with_columns(
            printed.list.join(", ").alias("printed")
        )

    @cached_property
    def totals(self) -> pl.DataFrame:
        """Shares over everything, with 95 % intervals (Clopper and Pearson): words right, wrong, undecided, refused;
        true members and edges that are chosen; chosen members, roles and edges that are true."""
        word, true = self.verdicts["word"], self.verdicts["true_word"]
        apart = word.is_in([UNDECIDED, REFUSED])
        n = len(word)
        right, false, missed = (int(self.members[name].sum() or 0) for name in ("right", "false", "missed"))
        patched = self.verdicts.filter(pl.col("chosen").is_not_null())
        counts = ("roles_right", "roles_read", "edges_right", "edges_chosen", "edges_true")
        roles_right, roles_read, edges_right, edges_chosen, edges_true = (
            int(patched[name].sum() or 0) for name in counts
        )
        rows = [
            ("right word", int((word == true).sum()), n),
            ("wrong word", int(((word != true) & ~apart).sum()), n),
            ("inconclusive", int((word == UNDECIDED).sum()), n),
            ("refused", int((word == REFUSED).sum()), n),
            ("true members that are chosen", right, right + missed),
            ("chosen members that are true", right, right + false),
            ("roles read off that are true", roles_right, roles_read),
            ("true edges that are chosen", edges_right, edges_true),
            ("chosen edges that are true", edges_right, edges_chosen),
        ]
        return pl.DataFrame([_share(*row) for row in rows], orient="row")

    @property
    def roc_area(self) -> float | None:
        """Area under the pooled ROC of all heads of all models."""
        return roc_area(self.scores)

    def markdown(self) -> str:
        """The tables of docs/truth.md: printed words by model and size, true by printed words, and shares."""
        sizes = self.by_model["size"].unique(maintain_order=True).to_list()
        printed = {(row["model"], row["size"]): row for row in self.by_model.iter_rows(named=True)}
        models = self.by_model.unique("model", maintain_order=True).select("model", "true_word").rows()
        by_model = [
            (f"`{model}`", word, *(printed.get((model, size), {}).get("printed", "") for size in sizes))
            for model, word in models
        ]
        heads = [next(row["heads"] for row in printed.values() if row["size"] == size) for size in sizes]
        named = [f"{size}, {n} heads" for size, n in zip(sizes, heads, strict=True)]
        shares = [
            (row["what"], f"{row['k']} of {row['n']}", f"{row['share']:.1%} ({row['lo']:.1%} to {row['hi']:.1%})")
            for row in self.totals.iter_rows(named=True)
            if row["n"]
        ]
        if self.roc_area is not None:
            shares.append(("area under the ROC of members, all heads", "", f"{self.roc_area:.4f}"))
        return "\n\n".join(
            (
                _markdown(("model", "true word", *named), by_model),
                _markdown(("true word, printed as", *self.words.columns[1:]), self.words.rows()),
                _markdown(("share", "of", "with the 95 % interval"), shares),
            )
        )

    def roc(self) -> pl.DataFrame:
        """Pooled ROC over all heads of all models: threshold of the score, rates of true and false positives."""
        return roc_curve(self.scores["score"].to_numpy(), self.scores["is_member"].to_numpy())


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _share(what: str, k: int, n: int) -> dict[str, object]:
    low, high = clopper_pearson(k, n) if n else (None, None)
    return {"what": what, "k": k, "n": n, "share": k / n if n else None, "lo": low, "hi": high}


def roc_area(scores: pl.DataFrame) -> float | None:
    """Area under the ROC of scores: how often a member scores above another head, ties half.

    None where there are no members, or nothing else.
    """
    members, rest = (scores.filter(is_member=flag)["score"].to_numpy() for flag in (True, False))
    if not len(members) or not len(rest):
        return None
    above = members[:, None] - rest[None]
    return float(((above > ROUNDING) + 0.5 * (np.abs(above) <= ROUNDING)).mean())


def roc_curve(scores: np.ndarray, is_member: np.ndarray) -> pl.DataFrame:
    """Rates of true and false positives among heads that score at least a threshold, for every score that occurs.

    Scores that differ by rounding alone are one.
    """
    scores = level(scores)
    thresholds = np.unique(scores)[::-1]
    rates = [(scores >= threshold) for threshold in thresholds]
    return pl.DataFrame(
        {
            "threshold": thresholds,
            "true_positives": [_rate(above, is_member) for above in rates],
            "false_positives": [_rate(above, ~is_member) for above in rates],
        }
    )


def _rate(above: np.ndarray, among: np.ndarray) -> float:
    return float(above[among].mean()) if among.any() else float("nan")
