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
    """Table and figure of the certified arms, with gains over the first one; None without certificates."""
    found = {
        study.name(arm): [run.certificates[arm] for run in study.results.values() if arm in run.certificates]
        for arm in study.recipe["arms"]
    }
    found = {name: seeds for name, seeds in found.items() if seeds}
    if not found:
        return None
    settings = study.recipe["certification"]
    return {
        "table": _table(found),
        "svg": _figure(found),
        "count": len(next(iter(found.values()))[0]),
        "settings": settings,
    }


def _table(found: dict[str, list[Certificates]]) -> Table:
    """Means over seeds of certified accuracy (percent) at several radii and of the average certified radius."""
    first = next(iter(found.values()))
    radii = first[0].radii
    rows = []
    for name, seeds in found.items():
        shares = [SeedStatistics(tuple(one.accuracy(radius).value for one in seeds)) for radius in radii]
        average = SeedStatistics(tuple(one.average_radius for one in seeds))
        pairs = zip(seeds, first, strict=False) if len(seeds) == len(first) else ()
        gain = SeedStatistics(
            tuple(one.accuracy(one.sigma).value - base.accuracy(base.sigma).value for one, base in pairs)
        )
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
