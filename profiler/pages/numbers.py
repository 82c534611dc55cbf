"""How numbers are written in sentences and cells: significant digits, per cents, intervals."""

from typing import Any

MISSING = "–"
BLANK = "\u00a0"
LEVEL = f"95{BLANK}%"
"""Of every interval."""
SMALL, LARGE = 1e-4, 1e7
"""Sizes below and from which a number is written with a power of ten."""
LEAST_SHARE = 1e-5
"""The least share that is written in digits."""


def number(value: float | None, digits: int = 3) -> str:
    """`digits` significant digits; thousands grouped; very small and very large ones as powers of ten."""
    if value is None or value != value:
        return MISSING
    if value == 0:
        return "0"
    if abs(value) >= LARGE or abs(value) < SMALL:
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
    return f"<{BLANK}0.001{BLANK}%" if 0 < share < LEAST_SHARE else f"{number(100 * share, digits)}{BLANK}%"


def signed(value: float | None, digits: int = 2) -> str:
    """A number with its sign, + or −."""
    return ("+" if value is not None and value > 0 else "") + number(value, digits)


def share_with_interval(row: dict[str, Any], name: str) -> str:
    """Such as 12 % (95 % interval 10–14 %), from `name`, `name`_lo and `name`_hi; without bounds, the share alone."""
    low, high = row.get(f"{name}_lo"), row.get(f"{name}_hi")
    if low is None or high is None:
        return percent(row[name])
    return f"{percent(row[name])} ({LEVEL} interval {percent_range(low, high)}{BLANK}%)"


def percent_range(low: float, high: float) -> str:
    """Two shares as per cents without the sign: 10–14; where a dash would stand beside a minus, −3 to 7."""
    return f"{number(100 * low, 2)}{' to ' if low < 0 else '–'}{number(100 * high, 2)}"


def capitalised(text: str) -> str:
    """A text as the beginning of a sentence."""
    return text[:1].upper() + text[1:]


def plural(n: int | None, noun: str) -> str:
    """A count with its noun: 1 head, 32 heads."""
    return f"{count(n)} {noun}{'' if n == 1 else 's'}"
