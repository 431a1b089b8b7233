"""Figures of several seeds: dots are seeds, bands span the seeds. No torch."""

from __future__ import annotations

import numpy as np

from robustgen.report.figures import COLORS, GRAY, axes_on, legend, svg
from robustgen.report.study_summary import Curves
from robustgen.stats.seeds import RankCorrelation, SeedStatistics


def seed_dots(rows: dict[str, SeedStatistics], baseline: str) -> str:
    """A row per arm with a dot per seed and a bar at the mean; the dotted line is the mean of the baseline."""
    figure, axes = axes_on(7.4, 0.7 + 0.3 * len(rows))
    for i, spread in enumerate(reversed(rows.values())):
        values = 100 * np.array(spread.values)
        axes.plot([values.min(), values.max()], [i, i], color=GRAY, linewidth=1, alpha=0.6)
        axes.plot(values, np.full(len(values), i), "o", color=COLORS[0], markersize=4, alpha=0.75)
        axes.plot([values.mean()], [i], "|", color=COLORS[1], markersize=13, markeredgewidth=2.5)
    axes.axvline(100 * rows[baseline].mean, color=GRAY, linestyle=":", linewidth=1)
    axes.set_yticks(range(len(rows)), list(reversed(rows)), color=GRAY)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlabel("robust accuracy, test %", color=GRAY, fontsize=9)
    return svg(figure)


def banded_curves(found: dict[str, Curves], what: str) -> str:
    """Validation accuracy, means over seeds: EMA weights solid, raw weights dashed; bands span the seeds."""
    figure, axes = axes_on()
    for color, (name, one) in zip(COLORS, found.items(), strict=False):
        for values, style, alpha, ending in ((one.averaged, "-", 0.2, "EMA"), (one.raw, "--", 0.08, "raw")):
            low, mean, high = 100 * values.min(0), 100 * values.mean(0), 100 * values.max(0)
            axes.fill_between(one.step, low, high, color=color, alpha=alpha, linewidth=0)
            label = f"{name}, {ending}"
            axes.plot(one.step, mean, color=color, linestyle=style, linewidth=1.3, label=label)
    axes.set_xlabel("step", color=GRAY, fontsize=9)
    axes.set_ylabel(f"{what}, validation %", color=GRAY, fontsize=9)
    legend(axes)
    return svg(figure)


def share_curves(found: dict[str, dict[float, SeedStatistics]], base: SeedStatistics) -> str:
    """Robust accuracy over the share of real images: lines through means, dots for seeds; dotted: real images only."""
    figure, axes = axes_on()
    for color, (name, shares) in zip(COLORS, found.items(), strict=False):
        axes.plot(list(shares), [100 * one.mean for one in shares.values()], color=color, label=name)
        for share, one in shares.items():
            axes.plot([share] * len(one), 100 * np.array(one.values), "o", color=color, markersize=3.5, alpha=0.6)
    axes.axhline(100 * base.mean, color=GRAY, linestyle=":", linewidth=1, label="real only")
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of real images in a batch", color=GRAY, fontsize=9)
    axes.set_ylabel("robust accuracy, test %", color=GRAY, fontsize=9)
    legend(axes)
    return svg(figure)


def correlation_dots(found: dict[str, RankCorrelation]) -> str:
    """A row per metric: its rank correlation with the robustness gain, and the 95 % interval."""
    figure, axes = axes_on(6.4, 0.7 + 0.32 * len(found))
    for i, one in enumerate(reversed(found.values())):
        axes.plot(one.interval, [i, i], color=COLORS[0], linewidth=2, alpha=0.5)
        axes.plot([one.value], [i], "o", color=COLORS[0], markersize=5)
    axes.axvline(0, color=GRAY, linestyle=":", linewidth=1)
    axes.set_xlim(-1.05, 1.05)
    axes.set_yticks(range(len(found)), list(reversed(found)), color=GRAY)
    axes.set_xlabel("Spearman's rank correlation with the robustness gain", color=GRAY, fontsize=9)
    return svg(figure)
