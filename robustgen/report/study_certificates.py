"""Certified accuracy over several seeds: means and ranges at each radius. No torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from robustgen.records.certificates import Certificates
from robustgen.records.tables import Table
from robustgen.report import figures
from robustgen.report.study_summary import Study
from robustgen.stats.formatting import percent, points, points_range
from robustgen.stats.seeds import SeedStatistics


def certificates_section(study: Study) -> dict[str, Any] | None:
    """Sentences, table and figure of certified arms, with gains over the first one; None without certificates."""
    found = {
        study.name(arm): [run.certificates[arm] for run in study.results.values() if arm in run.certificates]
        for arm in study.recipe["arms"]
    }
    found = {name: seeds for name, seeds in found.items() if seeds}
    if not found:
        return None
    settings = study.recipe["certification"]
    return {
        "sentences": _sentences(found),
        "table": _table(found),
        "svg": _figure(found),
        "count": len(next(iter(found.values()))[0]),
        "settings": settings,
    }


def _sentences(found: dict[str, list[Certificates]]) -> list[str]:
    """Certified accuracy at radius sigma of the first arm, and of the others from the largest gain over it down."""
    base_name, base = next(iter(found.items()))
    gains = {name: _gain(seeds, base) for name, seeds in found.items() if seeds is not base}
    share = SeedStatistics(tuple(one.accuracy(one.sigma).value for one in base))
    over = f", on average over {len(base)} seeds" if len(base) > 1 else ""
    at = f"certified accuracy at l2 radius {base[0].sigma:g}{over}"
    sentences = [f"{base_name}, smoothed: {percent(share.mean)} % {at}."]
    for name, gain in sorted(gains.items(), key=lambda item: item[1].mean if item[1] else -1.0, reverse=True):
        share = SeedStatistics(tuple(one.accuracy(one.sigma).value for one in found[name]))
        change = f", {points(gain.mean)} points ({points_range(gain.interval, 'one seed')}) over {base_name}"
        sentences.append(f"{name}, smoothed: {percent(share.mean)} %{change if gain else ''}.")
    return sentences


def _gain(seeds: list[Certificates], base: list[Certificates]) -> SeedStatistics:
    """Gain of certified accuracy at radius sigma over the first arm, paired within seeds."""
    if len(seeds) != len(base):
        return SeedStatistics(())
    ours, theirs = ([one.accuracy(one.sigma).value for one in many] for many in (seeds, base))
    return SeedStatistics(tuple(own - other for own, other in zip(ours, theirs, strict=True)))


def _table(found: dict[str, list[Certificates]]) -> Table:
    """Means over seeds of certified accuracy (percent) at several radii and of the average certified radius."""
    first = next(iter(found.values()))
    radii = first[0].radii
    rows = []
    for name, seeds in found.items():
        shares = [SeedStatistics(tuple(one.accuracy(radius).value for one in seeds)) for radius in radii]
        average = SeedStatistics(tuple(one.average_radius for one in seeds))
        gain = _gain(seeds, first)
        compared = bool(gain) and seeds is not first
        change = f"{points(gain.mean)} ({points_range(gain.interval, 'one seed')})" if compared else ""
        deviation = "" if np.isnan(average.deviation) else f" +- {average.deviation:.3f}"
        rows.append((name, *(percent(share.mean) for share in shares), f"{average.mean:.3f}{deviation}", change))
    return Table(
        ("training images", *(f"r {radius:g}" for radius in radii), "ACR", f"gain at {first[0].sigma:g}, 95 %"),
        tuple(rows),
    )


def _figure(found: dict[str, list[Certificates]]) -> str:
    """Certified accuracy over the radius: means over seeds, and bands that span the seeds."""
    reach = max(float(one.radius.max()) for seeds in found.values() for one in seeds)
    radii = np.linspace(0.0, 1.05 * max(reach, 1e-6), 200)
    curves = {}
    for name, seeds in found.items():
        values = np.array([[one.accuracy(float(radius)).value for radius in radii] for one in seeds])
        bands = list(zip(values.min(0).tolist(), values.max(0).tolist(), strict=True))
        curves[name] = values.mean(0).tolist(), bands
    return figures.certified_curves(radii, curves)
