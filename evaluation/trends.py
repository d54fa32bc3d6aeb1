"""Straight lines through samples, with what may be said of their slopes; percentiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, correlation, fmean, linear_regression, median

CONFIDENCE = 0.95
# Below this many independent samples nothing can be said of a slope.
FEWEST = 3.0


@dataclass(frozen=True, slots=True)
class Trend:
    """A fitted line, and the two-sided 95% bounds of its slope."""

    slope: float
    intercept: float
    lower: float
    upper: float

    def at(self, x: float) -> float:
        """Return the height of the line."""
        return self.intercept + self.slope * x


def trend(xs: Sequence[float], ys: Sequence[float]) -> Trend:
    """Fit a line by least squares; raises ValueError for fewer than four samples.

    Samples of memory resemble those before them, so that the textbook's bounds are too narrow.
    They are widened by counting only as many samples as are independent of each other, reckoned
    from the autocorrelation of the residuals (Santer et al., J. Geophys. Res. 105, 2000, section
    4: "adjusted standard error and adjusted degrees of freedom").
    """
    if len(xs) < 4:
        raise ValueError(f"a slope needs at least four samples, not {len(xs)}")
    slope, intercept = linear_regression(xs, ys)
    residuals = [y - intercept - slope * x for x, y in zip(xs, ys, strict=True)]
    independent = _independent(residuals)
    mean = fmean(xs)
    spread = math.fsum((x - mean) ** 2 for x in xs)
    variance = math.fsum(r * r for r in residuals) / (independent - 2)
    half = student_t(independent - 2) * math.sqrt(variance / spread)
    return Trend(slope, intercept, slope - half, slope + half)


def _independent(residuals: Sequence[float]) -> float:
    earlier, later = residuals[:-1], residuals[1:]
    if len(set(earlier)) < 2 or len(set(later)) < 2:
        return float(len(residuals))
    r = max(0.0, correlation(earlier, later))
    return max(FEWEST, len(residuals) * (1 - r) / (1 + r))


def student_t(degrees: float, confidence: float = CONFIDENCE) -> float:
    """Return the two-sided quantile of Student's t.

    Exact for 1 and 2 degrees of freedom; the series of Abramowitz and Stegun, 26.7.5, above.
    Between 1 and 2 the larger one counts, and below 5 the series is within 1%.
    """
    p = (1 + confidence) / 2
    if degrees < 2:
        return math.tan(math.pi * (p - 0.5))
    if degrees < 3:
        return (2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p)))
    x, n = NormalDist().inv_cdf(p), degrees
    terms = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return x + math.fsum(term / n**k for k, term in enumerate(terms, 1))


def percentile(values: Sequence[float], p: float) -> float:
    """Return the smallest value that at least p percent of the values do not exceed."""
    if not values:
        raise ValueError("there is no percentile of nothing")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * p / 100) - 1)]


def windowed_percentile(values: Sequence[float], p: float, windows: int) -> float:
    """Return the median of the percentiles of equal, consecutive windows.

    One pause of the machine spoils one window, and not the figure.
    """
    size = max(1, len(values) // windows)
    parts = [values[at : at + size] for at in range(0, size * min(windows, len(values)), size)]
    return median(percentile(part, p) for part in parts)
