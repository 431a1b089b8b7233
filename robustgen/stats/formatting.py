"""Fractions and intervals as text for tables and sentences. Values that are unknown (NaN) become empty text."""

from __future__ import annotations

import math


def percent(value: float) -> str:
    """A fraction in percent: 0.613 as "61.3"."""
    return "" if math.isnan(value) else f"{100 * value:.1f}"


def points(value: float) -> str:
    """A difference of fractions in percentage points, with its sign: 0.021 as "+2.1"."""
    return "" if math.isnan(value) else f"{100 * value:+.1f}"


def percent_range(interval: tuple[float, float]) -> str:
    """An interval of fractions in percent: "60.0 to 62.5"."""
    return "" if math.isnan(interval[0]) else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def points_range(interval: tuple[float, float], unknown: str = "") -> str:
    """An interval of differences in percentage points: "-0.4 to +3.1"; `unknown` where its ends are NaN."""
    return unknown if math.isnan(interval[0]) else f"{100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}"


def number(value: float) -> str:
    """A number with four significant digits."""
    return "" if math.isnan(value) else f"{value:.4g}"


def number_range(interval: tuple[float, float]) -> str:
    """An interval with four significant digits at both ends."""
    return "" if math.isnan(interval[0]) else f"{interval[0]:.4g} to {interval[1]:.4g}"
