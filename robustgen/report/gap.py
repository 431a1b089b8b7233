"""The gap between few and more real images in a report: the share that each arm closes, and its cost. No torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from robustgen.config.recipe import Recipe
from robustgen.planning.costs import cost_of_arm
from robustgen.records.tables import Table
from robustgen.report.figures import COLORS, GRAY, axes_on, svg
from robustgen.report.study_summary import Study
from robustgen.report.tables import changes_of, proxies_of
from robustgen.stats.formatting import percent, percent_range, points
from robustgen.stats.gap import GapClosed, gap_closed


def upper_arm(study: Study) -> str | None:
    """The arm with the most real images, of those that have no generated ones and change nothing else.

    None where no such arm has more real images than the baseline.
    """
    counts: dict[str, float] = {}
    for arm in study.alike:
        contents = study.recipe["arms"][arm]
        if not proxies_of(contents) and not changes_of(contents):
            counts[arm] = _real_images(study.recipe, arm)
    most = max(counts, key=lambda arm: counts[arm], default=None)
    return most if most and counts[most] > _real_images(study.recipe, study.baseline) else None


def _real_images(recipe: dict[str, Any], arm: str) -> float:
    """Number of real training images of an arm; infinite for all."""
    count = recipe["arms"][arm].get("train_images") or recipe["data"]["train"] or "all"
    return float("inf") if count == "all" else float(count)


def shares_closed(study: Study, upper: str) -> dict[str, GapClosed]:
    """The share of the gap that every other arm closes, over the seeds in which all three were evaluated."""
    found = {}
    for arm in study.alike:
        runs = study.with_arm(arm, study.baseline, upper)
        if arm not in (study.baseline, upper) and runs:
            ours, lower, most = (
                np.stack([run.verdicts[one].robust for run in runs]) for one in (arm, study.baseline, upper)
            )
            found[arm] = gap_closed(ours, lower, most)
    return found


def gap_section(study: Study) -> dict[str, Any] | None:
    """Title, sentences, table, figure and costs; None without an arm of more real images next to the baseline's."""
    upper = upper_arm(study)
    if upper is None or not study.with_arm(study.baseline, upper):
        return None
    found = shares_closed(study, upper)
    over = "seeds; small dots are seeds" if len(study.results) > 1 else "test images"
    gap, shares = gap_sentence(study, upper), share_sentences(study, found)
    return {
        "title": gap_title(study, upper, found),
        "sentences": [gap, *shares.values()],
        "first": [gap, *(shares[arm] for arm in _told_first(found))],
        "table": gap_table(study, found),
        "svg": gap_figure(study, upper, found),
        "caption": f"Robust accuracy with 95 % intervals over {over}. Dashed lines: the ends of the gap.",
        "costs": costs_table(study),
        "several": len(study.results) > 1,
    }


def gap_title(study: Study, upper: str, found: dict[str, GapClosed]) -> str | None:
    """The result in words: the largest share, or that there is none; None where no share is known."""
    if not found or not all(one.known for one in found.values()):
        return None
    between = f"the gap between {study.name(study.baseline)} and {study.name(upper)}"
    best = max(found, key=lambda arm: (found[arm].interval[0] > 0, found[arm].value))
    if found[best].interval[0] > 0:
        return f"{study.name(best)} closes {100 * found[best].value:.0f} % of {between}"
    return f"No arm closes a significant part of {between}"


def gap_sentence(study: Study, upper: str) -> str:
    """Both ends of the gap, and whether it is significant."""
    gap, interval = _gap(study, upper)
    ends = (f'"{study.name(arm)}" ({percent(study.robust(arm).mean)} % robust)' for arm in (study.baseline, upper))
    unknown = "" if interval[0] > 0 else ": not significantly above 0, so no share of it is given"
    return f"The gap between {' and '.join(ends)} is {percent(gap)} points ({percent_range(interval)}){unknown}."


def _gap(study: Study, upper: str) -> tuple[float, tuple[float, float]]:
    runs = study.with_arm(study.baseline, upper)
    lower, most = (np.stack([run.verdicts[arm].robust for run in runs]) for arm in (study.baseline, upper))
    whole = gap_closed(most, lower, most)
    return whole.gap, whole.gap_interval


def share_sentences(study: Study, found: dict[str, GapClosed]) -> dict[str, str]:
    """The share of every arm, where it is known."""
    sentences = {}
    for arm, one in found.items():
        share = f"{percent(one.value)} %", percent_range(one.interval)
        if not one.known:
            continue
        if one.interval[0] > 0:
            said = f"closes {share[0]} ({share[1]}) of the gap"
        elif one.interval[1] < 0:
            below = f'{percent(-one.gain)} points below "{study.name(study.baseline)}"'
            said = f"closes nothing of the gap: it is {below} ({share[0]} of the gap, {share[1]})"
        else:
            said = f"closes no significant part of the gap: {share[0]} ({share[1]})"
        sentences[arm] = f"{study.name(arm)}: {said}."
    return sentences


def _told_first(found: dict[str, GapClosed]) -> list[str]:
    """The arm that closes most and the next; or the one that loses most, if it loses significantly."""
    known = sorted((arm for arm in found if found[arm].known), key=lambda arm: found[arm].value, reverse=True)
    if len(known) > 1 and found[known[-1]].interval[1] < 0:
        return [known[0], known[-1]]
    return known[:2]


def gap_table(study: Study, found: dict[str, GapClosed]) -> Table:
    """A row per arm: robust accuracy, gain over the baseline, share of the gap with its interval."""
    rows = []
    for arm in study.alike:
        one = found.get(arm)
        cells = (points(one.gain), percent(one.value), percent_range(one.interval) if one.known else "") if one else ()
        robust = percent(study.robust(arm).mean), percent_range(interval_of(study, arm))
        rows.append((study.name(arm), *robust, *(cells or ("", "", ""))))
    return Table(("training images", "robust %", "95 %", "gain", "gap closed %", "95 %"), tuple(rows))


def interval_of(study: Study, arm: str) -> tuple[float, float]:
    """95 % interval of an arm's robust accuracy: over seeds if there are several, else over images."""
    runs = study.with_arm(arm)
    return study.robust(arm).interval if len(runs) > 1 else runs[0].verdicts[arm].robust_accuracy.interval


def costs_table(study: Study) -> Table | None:
    """Operations that each arm needs if it is trained alone; None where a network has no count."""
    recipe = Recipe.model_validate(study.recipe)
    rows = []
    for arm in study.alike:
        on_real = recipe.arms[arm].model_copy(update={"proxy": None, "phases": ()})
        cost, own = (cost_of_arm(recipe, one) for one in (recipe.arms[arm], on_real))
        if cost is None or own is None:
            return None
        parts = (own.train, cost.train - own.train, cost.fit, cost.sample, cost.flops)
        rows.append((study.name(arm), *(f"{part / 1e15:.3g}" if part else "" for part in parts)))
    columns = ("classifier", "labeler", "generator", "sampling", "total")
    return Table(("training images, PFLOP", *columns), tuple(rows))


def gap_figure(study: Study, upper: str, found: dict[str, GapClosed]) -> str:
    """Robust accuracy of all arms with 95 % intervals; the ends of the gap as lines, shares of it written in."""
    figure, axes = axes_on(7.4, 0.9 + 0.36 * len(study.alike))
    for arm, color in ((study.baseline, COLORS[1]), (upper, COLORS[2])):
        axes.axvline(100 * study.robust(arm).mean, color=color, linestyle="--", linewidth=1.2)
    arms = [*(arm for arm in study.alike if arm != upper), upper]
    for i, arm in enumerate(reversed(arms)):
        value = 100 * study.robust(arm).mean
        low, high = (100 * end for end in interval_of(study, arm))
        axes.plot([low, high], [i, i], color=COLORS[0], linewidth=2, alpha=0.5)
        axes.plot(100 * np.array(study.robust(arm).values), np.full(len(study.robust(arm)), i), ".", color=GRAY)
        axes.plot([value], [i], "o", color=COLORS[0], markersize=5)
        one = found.get(arm)
        if one is not None and one.known:
            text = f"{100 * one.value:.0f} % of the gap ({100 * one.interval[0]:.0f} to {100 * one.interval[1]:.0f})"
            axes.annotate(text, (value, i), (0, 6), textcoords="offset points", ha="center", fontsize=8, color=GRAY)
    axes.set_yticks(range(len(arms)), [study.name(arm) for arm in reversed(arms)], color=GRAY)
    axes.set_ylim(-0.6, len(arms) - 0.2)
    axes.set_xlabel("robust accuracy, test %", color=GRAY, fontsize=9)
    return svg(figure)
