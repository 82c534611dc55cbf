"""How numbers are written in sentences and cells: significant digits, per cents, intervals."""

from typing import Any

import polars as pl
from scipy.special import stdtrit

MISSING = "–"
BLANK = "\u00a0"


def number(value: float | None, digits: int = 3) -> str:
    """`digits` significant digits; thousands grouped; very small and very large ones as powers of ten."""
    if value is None or value != value:
        return MISSING
    if value == 0:
        return "0"
    if abs(value) >= 1e7 or abs(value) < 1e-4:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}×10{superscript(int(exponent))}".replace("-", "−")
    decimals = max(0, digits - 1 - _exponent(value, digits))
    return f"{value:,.{decimals}f}".replace("-", "−")


def superscript(exponent: int) -> str:
    """An exponent in raised digits: −3 as ⁻³."""
    return str(exponent).translate(str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"))


def _exponent(value: float, digits: int) -> int:
    return int(f"{value:.{digits - 1}e}".split("e")[1])


def count(value: int | None) -> str:
    """A whole number with its thousands grouped."""
    return MISSING if value is None else f"{value:,}"


def percent(share: float | None, digits: int = 2) -> str:
    """A share as a per cent."""
    if share is None or share != share:
        return MISSING
    return f"<{BLANK}0.001{BLANK}%" if 0 < share < 1e-5 else f"{number(100 * share, digits)}{BLANK}%"


def signed(value: float | None, digits: int = 2) -> str:
    """A number with its sign, + or −."""
    return ("+" if value is not None and value > 0 else "") + number(value, digits)


def share_with_interval(row: dict[str, Any], name: str) -> str:
    """Such as 12 % (95 % interval 10–14 %), from `name`, `name`_lo and `name`_hi; without bounds, the share alone."""
    low, high = row.get(f"{name}_lo"), row.get(f"{name}_hi")
    if low is None or high is None:
        return percent(row[name])
    return f"{percent(row[name])} (95{BLANK}% interval {number(100 * low, 2)}–{number(100 * high, 2)}{BLANK}%)"


def add_bounds(
    frame: pl.DataFrame, name: str, t: float | None, least: float | None = None, most: float | None = None
) -> pl.DataFrame:
    """The frame with `name`_lo and `name`_hi, ± t standard errors, cut at `least` and `most`; null without `t`."""
    if f"{name}_lo" in frame.columns:
        return frame
    half = pl.lit(None, pl.Float64) if t is None else t * pl.col(f"{name}_se")
    low, high = (pl.col(name) - half).clip(lower_bound=least), (pl.col(name) + half).clip(upper_bound=most)
    return frame.with_columns(low.alias(f"{name}_lo"), high.alias(f"{name}_hi"))


def t_quantile(n_groups: int | None) -> float | None:
    """The 0.975 quantile of Student's t for a jackknife over `n_groups` replicate groups; None below two groups."""
    return None if n_groups is None or n_groups < 2 else float(stdtrit(n_groups - 1, 0.975))
