"""Moments about the mean that merge: the formulas, for numbers, arrays and tensors alike, and inside the compiled loop.

A power sum about zero loses what it is for where the mean is far from zero: with mean 10,000 and standard deviation 1 a
fourth moment is the difference of sums 10^16 times its size. So values are summed about a value of their own, and the
sums of two parts are joined with the difference of their means (Chan, Golub and LeVeque 1979; Pébay 2008, equations 1.3
to 1.5). An empty part changes nothing, to the bit. n counts values, m2 to m4 are sums of powers of value - mean.
"""

from typing import Any

Moments = tuple[Any, Any, Any, Any]
"""Mean, m2, m3, m4."""
Sums = tuple[Any, Any, Any, Any, Any]
"""A shift, and the sums of the powers 1 to 4 of value - shift."""


def about_mean(n: Any, shift: Any, s1: Any, s2: Any, s3: Any, s4: Any) -> Moments:
    """Moments of n > 0 values from sums of powers of value - shift; exact to rounding where shift is among them.

    Returns:
        Mean, m2, m3, m4.
    """
    off = s1 / n
    m2 = s2 - off * s1
    m3 = s3 - 3 * off * s2 + 2 * off * off * s1
    m4 = s4 - 4 * off * s3 + 6 * off * off * s2 - 3 * off * off * off * s1
    return shift + off, m2, m3, m4


def joined(n: Any, a: Moments, k: Any, b: Moments, whole: Any) -> Moments:
    """Moments of n values and k others together.

    Args:
        a, b: their moments, zeros where there are no values.
        whole: n + k, or anything else above 0 where that is 0.

    Returns:
        Mean, m2, m3, m4.
    """
    mean, m2, m3, m4 = a
    other, k2, k3, k4 = b
    away = other - mean
    step, left = away * (k / whole), away * (n / whole)  # how far the mean of all is from each
    m4 = m4 + k4 + 4 * (left * k3 - step * m3) + 6 * (left * left * k2 + step * step * m2) + n * step**4 + k * left**4
    m3 = m3 + k3 + 3 * (left * k2 - step * m2) + k * left * left * left - n * step * step * step
    m2 = m2 + k2 + step * left * whole
    return mean + step, m2, m3, m4
