"""Where attribution patching can be believed: its agreement with exact patching, cell by cell. numpy only.

Why: an estimate from a gradient is best for small patches late in the model and worst for whole residual streams (the
essay, "Does this make any sense?"). What matters are false negatives: a false positive is patched exactly and dropped,
a false negative is never looked at. So each cell (site, layer, size of the patch) states agreement and false negatives,
cells and targets that fail are listed as `use exact`, and what was never patched exactly gets a bound from a random
sample.

Cost: none; the exact patches are made by `sweep`.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from profiler.statistics import clopper_pearson, level, pearson, spearman

SIZE_EDGES = (0.0, 0.1, 0.3, 1.0, np.inf)
SIGN_AGREEMENT = 0.9
RELATIVE_ERROR = 0.5
FEWEST_TARGETS = 3
"""Two points always correlate by 1 or -1."""


@dataclass(frozen=True)
class EstimateAgreement:
    """Agreement of estimates with exact effects over the targets of a cell.

    Attributes:
        n: targets.
        pearson, spearman: correlations; NaN below three targets.
        sign: share of targets with an effect whose estimate has the same sign; NaN without such targets.
        slope: of exact on estimated effects, through 0; above 1 the estimate is too small.
        error: |estimate - exact| over |exact|, norms over the cell.
        false_negatives: share of targets with an effect whose estimate is below the threshold.
    """

    n: int
    pearson: float
    spearman: float
    sign: float
    slope: float
    error: float
    false_negatives: float

    @property
    def reliable(self) -> bool:
        """Whether estimates may stand in for exact patches here: right sign, small error, no false negative."""
        right = self.sign >= SIGN_AGREEMENT or bool(np.isnan(self.sign))
        return right and self.error <= RELATIVE_ERROR and not self.false_negatives > 0


def agreement(
    estimated: Float[np.ndarray, " target"], exact: Float[np.ndarray, " target"], threshold: float
) -> EstimateAgreement:
    """Agreement of a cell; `threshold` is the size from which an effect counts."""
    large = np.abs(exact) >= threshold
    square = float((estimated**2).sum())
    size = float(np.linalg.norm(exact))
    enough = len(exact) >= FEWEST_TARGETS
    return EstimateAgreement(
        n=len(exact),
        pearson=pearson(estimated, exact) if enough else float("nan"),
        spearman=spearman(estimated, exact) if enough else float("nan"),
        sign=float((np.sign(estimated) == np.sign(exact))[large].mean()) if large.any() else float("nan"),
        slope=float((estimated * exact).sum()) / square if square else float("nan"),
        error=float(np.linalg.norm(estimated - exact)) / size if size else 0.0,
        false_negatives=float((np.abs(estimated)[large] < threshold).mean()) if large.any() else float("nan"),
    )


def size_bin(size: float) -> str:
    """The name of the patch size's cell."""
    low, high = next((a, b) for a, b in itertools.pairwise(SIZE_EDGES) if size < b)
    return f"{low:g} to {high:g}" if np.isfinite(high) else f"{low:g} or more"


def recall(
    estimated: Float[np.ndarray, " target"], exact: Float[np.ndarray, " target"], k: int, looked_at: int
) -> float:
    """Share of the k largest exact effects among the `looked_at` largest estimates; ties in order of the targets."""
    true = np.argsort(-level(np.abs(exact)), kind="stable")[:k]
    seen = set(np.argsort(-level(np.abs(estimated)), kind="stable")[:looked_at].tolist())
    return float(np.mean([target in seen for target in true])) if k else float("nan")


def false_negative_bound(hits: int, sampled: int, unpatched: int) -> float:
    """95 % upper bound of how many targets that were never patched exactly have an effect.

    Args:
        hits: targets with an effect in a random sample of them.
        sampled: size of the sample.
        unpatched: how many there are.
    """
    return clopper_pearson(hits, sampled, 0.90)[1] * unpatched


def use_exact(
    estimated: Float[np.ndarray, " target"],
    exact: Float[np.ndarray, " target"],
    saturated: Bool[np.ndarray, " target"],
    threshold: float,
) -> Bool[np.ndarray, " target"]:
    """Targets whose estimate is not to be believed: saturated, a false negative, or of the wrong sign or size."""
    large = np.abs(exact) >= threshold
    wrong = np.abs(estimated - exact) > RELATIVE_ERROR * np.maximum(np.abs(exact), threshold)
    return np.asarray(saturated | (large & wrong))
