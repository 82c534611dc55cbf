"""Standard error of an estimate whose domains are fixed and whose documents are sampled, in NumPy. No torch.

The stratified delete-a-group jackknife of the run's own SQL (macros without, domain_variance, jackknife_se and jackknife_df
of views.sql; Wolter, Introduction to Variance Estimation, chapter 4; Rust and Rao 1996): each unit (a replicate group, or a
document) is left out of its own domain in turn, the domain's other units are weighted up, and

    se^2 = sum over domains d of (G_d - 1) / G_d * sum over units g of d of (estimate without g - mean of those in d)^2.
"""

from dataclasses import dataclass
from math import floor, sqrt

import numpy as np
from jaxtyping import Float, Int
from scipy import stats


@dataclass(frozen=True)
class Error:
    """A standard error and its degrees of freedom (Satterthwaite 1946)."""

    se: float
    df: float

    @property
    def half(self) -> float:
        """Half of a 95 % interval."""
        return float(stats.t.ppf(0.975, floor(self.df + 1e-6))) * self.se


def ratio_error(
    above: Float[np.ndarray, " unit"],
    below: Float[np.ndarray, " unit"],
    domain: Int[np.ndarray, " unit"],
    size: Float[np.ndarray, " unit"] | None = None,
) -> Error | None:
    """The error of sum(above) / sum(below) over units, or None where one unit holds all that is divided by.

    Args:
        above, below: sums of each unit; units that hold nothing belong there too, with 0.
        domain: number of each unit's domain.
        size: documents in each unit; none is 1 each.
    """
    value = above.sum() / below.sum()
    left = [_without(sums, domain, np.ones(len(sums)) if size is None else size) for sums in (above, below)]
    if (left[1] <= 1e-12 * below.sum()).any():
        return None
    change = left[0] / left[1] - value
    return _combine([change[domain == d] for d in np.unique(domain)])


def _without(
    sums: Float[np.ndarray, " unit"], domain: Int[np.ndarray, " unit"], size: Float[np.ndarray, " unit"]
) -> Float[np.ndarray, " unit"]:
    """The total when each unit is left out, its domain's others weighted up to the domain's documents."""
    of_domain, documents, units = (
        np.bincount(domain, x, domain.max() + 1)[domain] for x in (sums, size, np.ones(len(sums)))
    )
    part = np.where(units > 1, size / documents, 0.0)
    return sums.sum() - of_domain + (of_domain - sums) / (1 - part)


def _combine(changes: list[np.ndarray]) -> Error:
    """From the changes of the estimate, domain by domain; one unit alone in its domain is held against the estimate itself."""
    variances = np.array([(n - 1) * x.var() if (n := len(x)) > 1 else x[0] ** 2 for x in changes])
    free = np.array([max(1, len(x) - 1) for x in changes])
    spread = (variances**2 / free).sum()
    return Error(sqrt(variances.sum()), float(variances.sum() ** 2 / spread if spread else free.sum()))
