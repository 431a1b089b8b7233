"""Randomized-smoothing certificates of a run as a table, a figure and sentences. No torch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from robustgen.records.certificates import Certificates
from robustgen.records.tables import Table
from robustgen.report import figures
from robustgen.report.tables import Results, name_of
from robustgen.stats.formatting import percent
from robustgen.stats.intervals import PairedDifference


def by_name(results: Results) -> dict[str, Certificates]:
    """Certificates of a run by the arm names that its tables use."""
    return {name_of(results.recipe, arm): found for arm, found in results.certificates.items()}


def certificates_table(named: Mapping[str, Certificates], first_column: str = "training images") -> Table:
    """One row per classifier: certified accuracy in percent at several radii, ACR and abstentions in percent."""
    first = next(iter(named.values()))
    rows = tuple(
        (
            name,
            *(percent(found.accuracy(radius).value) for radius in first.radii),
            f"{found.average_radius:.3f}",
            percent(found.abstained.value),
        )
        for name, found in named.items()
    )
    return Table((first_column, *(f"r {radius:g}" for radius in first.radii), "ACR", "abstained %"), rows)


def certified_gains(named: Mapping[str, Certificates], baseline: str) -> list[str]:
    """A sentence per arm: ACR and certified accuracy at radius sigma, with differences to the baseline; of the baseline
    if there is no other arm."""
    base = named[baseline]
    sentences = []
    for name, found in named.items():
        if name == baseline:
            continue
        more, low, high = radius_gain(found, base)
        change = "larger" if low > 0 else "smaller" if high < 0 else "not significantly different"
        gain = PairedDifference.of(found.certified(base.sigma), base.certified(base.sigma))
        sentences.append(
            f"{name}, smoothed: average certified radius {found.average_radius:.3f}, "
            f"{more:+.3f} ({low:+.3f} to {high:+.3f}): {change}; certified accuracy at l2 radius {base.sigma:g}: "
            f"{percent(found.accuracy(base.sigma).value)} %, {gain}."
        )
    return sentences or [
        f"{baseline}, smoothed: average certified radius {base.average_radius:.3f}; certified accuracy at l2 radius "
        f"{base.sigma:g}: {percent(base.accuracy(base.sigma).value)} %."
    ]


def radius_gain(found: Certificates, base: Certificates) -> tuple[float, float, float]:
    """Difference of the average certified radii on the same images, and its 95 % interval (normal approximation).

    Raises:
        ValueError: the certificates are of different images.
    """
    if not np.array_equal(found.ids, base.ids):
        raise ValueError("expected certificates of the same images, got different images; certify both on the same set")
    gains = np.where(found.certified(), found.radius, 0.0) - np.where(base.certified(), base.radius, 0.0)
    half = 1.96 * gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else np.nan
    return float(gains.mean()), float(gains.mean() - half), float(gains.mean() + half)


def certified_figure(named: Mapping[str, Certificates]) -> str:
    """Certified accuracy over the radius, with its 95 % interval as a band."""
    reach = max(float(found.radius.max()) for found in named.values())
    radii = np.linspace(0.0, 1.05 * max(reach, 1e-6), 200)
    curves = {}
    for name, found in named.items():
        shares = [found.accuracy(float(radius)) for radius in radii]
        curves[name] = [share.value for share in shares], [share.interval for share in shares]
    return figures.certified_curves(radii, curves)
