"""The first screen of a report: the answer as a title, one figure, a few sentences. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from robustgen.report.figures import COLORS, GRAY, axes_on, svg
from robustgen.report.study_summary import Study
from robustgen.report.tables import Results, mentioned_arms, name_of
from robustgen.stats.formatting import percent, points, points_range
from robustgen.stats.intervals import PairedDifference

Interval = tuple[float, float]
MOST = 8
"""Largest number of arms in the figure."""


class ArmResult(NamedTuple):
    """Robust accuracy of an arm with its 95 % interval, and its gain over the baseline; None for the baseline.

    seeds  robust accuracy of each seed, where there are several
    """

    name: str
    robust: float
    interval: Interval
    gain: float | None = None
    gain_interval: Interval = (math.nan, math.nan)
    seeds: tuple[float, ...] = ()

    @property
    def significant(self) -> bool:
        """Whether the interval of the gain excludes 0."""
        low, high = self.gain_interval
        return self.gain is not None and (low > 0 or high < 0)


def headline_of_run(results: Results) -> list[ArmResult]:
    """The baseline, and the arms that are shown; intervals are over test images, gains are paired."""
    base = results.verdicts[results.baseline]
    rows = {}
    for arm, verdicts in results.verdicts.items():
        share, gain = verdicts.robust_accuracy, PairedDifference.of(verdicts.robust, base.robust)
        own = (None,) if arm == results.baseline else (gain.value, gain.interval)
        rows[arm] = ArmResult(name_of(results.recipe, arm), share.value, share.interval, *own)
    return _shown(results.recipe, rows, results.baseline)


def headline_of_study(study: Study) -> list[ArmResult]:
    """The same over seeds: means, and Student's t intervals of accuracies and of gains paired within seeds."""
    rows = {}
    for arm in study.alike:
        robust, gain = study.robust(arm), study.gain(arm)
        own = (None,) if arm == study.baseline else (gain.mean, gain.interval)
        if gain:
            rows[arm] = ArmResult(study.name(arm), robust.mean, robust.interval, *own)._replace(seeds=robust.values)
    return _shown(study.recipe, rows, study.baseline)


def _shown(recipe: dict[str, Any], rows: dict[str, ArmResult], baseline: str) -> list[ArmResult]:
    """The baseline, and the arms that have a sentence: at most `MOST`, those of the highest robust accuracy.

    The arm with the largest significant gain is always among them, so that the title is true of all arms.
    """
    others = {arm: row.robust for arm, row in rows.items() if arm != baseline}
    chosen = sorted(mentioned_arms(recipe, others), key=lambda arm: others[arm], reverse=True)[: MOST - 1]
    best = max(others, key=lambda arm: _by_gain(rows[arm]), default=None)
    if best is not None and best not in chosen:
        chosen = [*chosen[: MOST - 2], best]
    return [rows[baseline], *(rows[arm] for arm in others if arm in chosen)]


def _by_gain(row: ArmResult) -> tuple[bool, float]:
    """Key by which the arm with the largest significant gain comes last, or else that with the largest gain."""
    return row.significant and (row.gain or 0.0) > 0, row.gain or 0.0


def title_of(rows: Sequence[ArmResult]) -> str:
    """The result in words: the largest significant gain, or that there is none."""
    base, others = rows[0], rows[1:]
    if not others:
        return f"{base.name}: {percent(base.robust)} % robust"
    best = max(others, key=_by_gain)
    if best.significant and (best.gain or 0.0) > 0:
        return f"{best.name}: {points(best.gain or 0.0).lstrip('+')} points more robust than {base.name}"
    if all(math.isnan(row.gain_interval[0]) for row in others):
        return f"{best.name}: {percent(best.robust)} % robust, {base.name}: {percent(base.robust)} %"
    return f"No arm is significantly more robust than {base.name}"


def short_sentences(rows: Sequence[ArmResult], count: int = 3) -> list[str]:
    """The baseline, and the arms with the largest gains."""
    base, others = rows[0], sorted(rows[1:], key=lambda row: row.gain or 0.0, reverse=True)
    over = f" on average over {len(base.seeds)} seeds" if len(base.seeds) > 1 else ""
    sentences = [f"{base.name}: {percent(base.robust)} % robust{over}."]
    for row in others[: count - 1]:
        interval = points_range(row.gain_interval, "no interval from one seed")
        gain = f"{points(row.gain or 0.0)} points ({interval}) over {base.name}"
        sentences.append(f"{row.name}: {percent(row.robust)} % robust, {gain}.")
    return sentences


def headline_figure(rows: Sequence[ArmResult]) -> str:
    """A row per arm: robust accuracy with its interval, the gain is written above it; dashed: the baseline."""
    figure, axes = axes_on(7.4, 0.8 + 0.42 * len(rows))
    axes.axvline(100 * rows[0].robust, color=COLORS[1], linestyle="--", linewidth=1.2)
    for i, row in enumerate(reversed(rows)):
        better, worse = row.significant and (row.gain or 0) > 0, row.significant and (row.gain or 0) < 0
        color = COLORS[1] if row.gain is None else COLORS[0] if better else COLORS[4] if worse else GRAY
        low, high = (100 * end for end in row.interval)
        axes.plot([low, high], [i, i], color=color, linewidth=2.5, alpha=0.45, solid_capstyle="round")
        axes.plot(100 * np.array(row.seeds), np.full(len(row.seeds), i), ".", color=GRAY, markersize=4)
        axes.plot([100 * row.robust], [i], "o", color=color, markersize=7)
        if row.gain is not None:
            interval = points_range(row.gain_interval, "")
            text = f"{points(row.gain)} ({interval})" if interval else points(row.gain)
            axes.annotate(text, (100 * row.robust, i), (0, 8), textcoords="offset points", ha="center",
                          fontsize=9, color=GRAY)  # fmt: skip
    axes.set_yticks(range(len(rows)), [row.name for row in reversed(rows)], color=GRAY, fontsize=10)
    axes.set_ylim(-0.6, len(rows) - 0.2)
    axes.set_xlabel("robust accuracy, test %", color=GRAY, fontsize=9)
    return svg(figure)


def headline_caption(rows: Sequence[ArmResult]) -> str:
    """What the figure shows, in words."""
    several = len(rows[0].seeds) > 1
    over = "seeds; small dots are seeds" if several else "test images"
    gains = f" Numbers: gains over {rows[0].name} in points; gray: not significant." if len(rows) > 1 else ""
    return f"Robust accuracy with 95 % intervals over {over}. Dashed: {rows[0].name}.{gains}"


def first_screen(
    rows: Sequence[ArmResult],
    gap: Mapping[str, Any] | None,
    certificates: Mapping[str, Any] | None,
    certified_caption: str,
) -> dict[str, Any]:
    """Figure, caption and sentences of the first screen, about certificates, the gap to more real images, or gains."""
    if certificates:
        return {
            "svg": certificates["svg"],
            "caption": certified_caption,
            "sentences": certificates["sentences"][:3],
        }
    return {
        "svg": gap["svg"] if gap else headline_figure(rows),
        "caption": gap["caption"] if gap else headline_caption(rows),
        "sentences": gap["first"] if gap else short_sentences(rows),
    }
