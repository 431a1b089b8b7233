"""Figures of a run: curves as SVG and image grids as PNG, embedded as text in one self-contained page. No torch."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from robustgen.records.arc import ARCRecord
from robustgen.records.history import History
from robustgen.records.landscapes import LandscapesRecord
from robustgen.records.sweeps import SweepRecord

COLORS = (
    "#2f6fde", "#d9822b", "#2a9d5c", "#a04bbf", "#c0392b", "#0f8a8a", "#e0559f", "#8a8a00", "#5f7396", "#00a0d6",
)  # fmt: skip
GRAY = "#888888"
"""Readable on white and on black backgrounds."""

Curve = TypeVar("Curve")


def image_grid(images: np.ndarray, columns: int, gap: int = 1) -> Image.Image:
    """Grid of images (N, H, W, C) uint8, `columns` per row, separated by `gap` transparent pixels."""
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    sheet = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4), dtype=np.uint8)
    for i, image in enumerate(images):
        y, x = (i // columns) * (height + gap), (i % columns) * (width + gap)
        color = np.repeat(image, 3, axis=2) if channels == 1 else image
        sheet[y : y + height, x : x + width, :3] = color
        sheet[y : y + height, x : x + width, 3] = 255
    return Image.fromarray(sheet)


def preview_grid(path: Path, each: int = 10) -> Image.Image:
    """Grid of a preview file: one column per class, at most `each` rows."""
    with np.load(path, allow_pickle=False) as stored:
        images, labels = stored["images"], stored["labels"]
    classes = np.unique(labels)[:10]
    columns = [images[labels == k][:each] for k in classes]
    depth = min(len(column) for column in columns)
    ordered = np.stack([column[:depth] for column in columns], axis=1).reshape(-1, *images.shape[1:])
    return image_grid(ordered, len(classes))


def data_uri(image: Image.Image) -> str:
    """An image as a PNG `data:` URI."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def axes_on(width: float = 6.4, height: float = 3.4) -> tuple[Any, Any]:
    """A transparent figure of the given size in inches, and its axes, drawn in gray."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    axes.tick_params(colors=GRAY, labelsize=8)
    axes.grid(color=GRAY, alpha=0.25, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRAY)
    return figure, axes


def svg(figure: Any) -> str:
    """A figure as an SVG element without XML header and metadata; equal figures give equal text."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "robustgen", "svg.fonttype": "none"}):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return text[text.index("<svg") :]


def portions(curves: dict[str, Curve], most: int = 6) -> list[dict[str, Curve]]:
    """Split curves by name into groups of about equal size, with at most `most` curves for one figure."""
    items = list(curves.items())
    parts = -(-len(items) // most)
    return [dict(items[len(items) * k // parts : len(items) * (k + 1) // parts]) for k in range(parts)]


def legend(axes: Any) -> None:
    """Add a legend in gray, readable on white and on black backgrounds."""
    axes.legend(fontsize=8, frameon=False, labelcolor=GRAY).set_in_layout(True)


def validation_curves(histories: dict[str, History], what: str = "robust accuracy") -> str:
    """Accuracy on the validation images during training: EMA weights solid, raw weights dashed."""
    figure, axes = axes_on()
    for color, (name, history) in zip(COLORS, histories.items(), strict=False):
        axes.plot(history["step"], 100 * history["averaged_robust"], color=color, label=f"{name}, EMA")
        axes.plot(
            history["step"],
            100 * history["raw_robust"],
            color=color,
            linestyle="--",
            linewidth=1,
            label=f"{name}, raw",
        )
    axes.set_xlabel("step", color=GRAY, fontsize=9)
    axes.set_ylabel(f"{what}, validation %", color=GRAY, fontsize=9)
    legend(axes)
    return svg(figure)


def loss_curves(histories: dict[str, History]) -> str:
    """Training loss, smoothed over windows of 1/50 of the run."""
    figure, axes = axes_on()
    for color, (name, history) in zip(COLORS, histories.items(), strict=False):
        window = max(1, len(history) // 50)
        smooth = np.convolve(history["loss"], np.ones(window) / window, "valid")
        axes.plot(history["step"][window - 1 :], smooth, color=color, label=name)
    axes.set_xlabel("step", color=GRAY, fontsize=9)
    axes.set_ylabel("loss", color=GRAY, fontsize=9)
    legend(axes)
    return svg(figure)


def accuracy_bars(rows: list[tuple[str, float, tuple[float, float], float, tuple[float, float]]]) -> str:
    """Bars of clean and robust accuracy; a row is (name, clean, its interval, robust, its interval)."""
    figure, axes = axes_on(6.4, 0.6 + 0.55 * len(rows))
    for i, (_, clean, clean_interval, robust, robust_interval) in enumerate(reversed(rows)):
        for value, interval, color, offset in (
            (clean, clean_interval, GRAY, 0.18),
            (robust, robust_interval, COLORS[0], -0.18),
        ):
            error = [[100 * (value - interval[0])], [100 * (interval[1] - value)]]
            axes.barh(i + offset, 100 * value, 0.32, color=color, alpha=0.75)
            axes.errorbar(100 * value, i + offset, xerr=error, color=GRAY, capsize=2, linewidth=1)
    axes.set_yticks(range(len(rows)), [row[0] for row in reversed(rows)], color=GRAY)
    axes.set_xlabel("accuracy, test %: clean (gray), robust (blue)", color=GRAY, fontsize=9)
    axes.set_xlim(0, 100)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    return svg(figure)


def sweep_curves(
    sweeps: dict[str, SweepRecord],
    mark: float | None,
    crosses: dict[str, float],
    *,
    logarithmic: bool = False,
    until: float = np.inf,
) -> str:
    """Robust accuracy with 95 % bands; a dotted line at `mark`, and crosses for other measurements at that value."""
    figure, axes = axes_on()
    for color, (name, sweep) in zip(COLORS, sweeps.items(), strict=False):
        shares = [sweep.accuracy(at) for at in range(len(sweep.values))]
        low, high = (100 * np.array(ends) for ends in zip(*(share.interval for share in shares), strict=True))
        axes.fill_between(sweep.values, low, high, color=color, alpha=0.18, linewidth=0)
        axes.plot(sweep.values, [100 * s.value for s in shares], color=color, marker="o", markersize=3, label=name)
        if mark is not None and name in crosses:
            axes.plot([mark], [100 * crosses[name]], color=color, marker="x", markersize=6)
    if mark is not None:
        axes.axvline(mark, color=GRAY, linestyle=":", linewidth=1)
    axes.set_ylim(0, None)
    if logarithmic:
        axes.set_xscale("log")
        ticks = sorted({int(value) for sweep in sweeps.values() for value in sweep.values})
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
    else:
        axes.set_xlim(0, min(until, max(sweep.values[-1] for sweep in sweeps.values())))
    first = next(iter(sweeps.values()))
    axes.set_xlabel(first.axis, color=GRAY, fontsize=9)
    axes.set_ylabel("robust accuracy, test %", color=GRAY, fontsize=9)
    legend(axes)
    return svg(figure)


def arc_curves(records: dict[str, ARCRecord]) -> str:
    """Robust discrimination accuracy over the radius, a curve per generator; "" without records."""
    if not records:
        return ""
    figure, axes = axes_on()
    for color, (name, record) in zip(COLORS, records.items(), strict=False):
        shares = [100 * record.discrimination_accuracy(at).value for at in range(record.reached)]
        label = f"{name}: ARC {record.arc:.4f}"
        axes.plot(record.radii[: record.reached], shares, color=color, marker="o", markersize=3, label=label)
    axes.axhline(50, color=GRAY, linestyle=":", linewidth=1)
    norm = next(iter(records.values())).about.threat
    axes.set_xlabel(f"radius r in {norm}, pixels of [0, 1]", color=GRAY, fontsize=9)
    axes.set_ylabel("discrimination accuracy, held-out %", color=GRAY, fontsize=9)
    legend(axes)
    return svg(figure)


def landscape_maps(landscapes: dict[str, LandscapesRecord], classes: list[str]) -> str:
    """Loss landscapes, a column per classifier and a row per image: blue is correct, red is misclassified.

    All maps share one color scale; the decision boundary is black.
    """
    from matplotlib.figure import Figure

    rows = max(len(found) for found in landscapes.values())
    finite = [found.heights[np.isfinite(found.heights)] for found in landscapes.values()]
    limit = max((float(np.abs(heights).max()) for heights in finite if heights.size), default=1.0) or 1.0
    figure = Figure(figsize=(2.4 * len(landscapes) + 0.9, 2.2 * rows + 0.3), layout="constrained")
    figure.patch.set_alpha(0)
    cells = figure.subplots(rows, len(landscapes), squeeze=False)
    for column, (name, found) in zip(cells.T, landscapes.items(), strict=True):
        for i, axes in enumerate(column):
            if i >= len(found):
                axes.set_axis_off()
                continue
            ends = float(found.axis[0]), float(found.axis[-1])
            heights = found.heights[i]
            picture = axes.imshow(
                heights, extent=(*ends, *ends), origin="lower", cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto"
            )
            if np.isfinite(heights).all() and heights.min() < 0 < heights.max():
                axes.contour(found.axis, found.axis, heights, levels=[0.0], colors="black", linewidths=1.2)
            axes.plot([0, 1], [0, 0], color="black", linewidth=0.6, marker="o", markersize=2.5)
            axes.set(xlim=ends, ylim=ends)
            axes.set_title(f"{name}: image {i} ({classes[int(found.labels[i])]})", fontsize=8, color=GRAY)
            axes.tick_params(colors=GRAY, labelsize=7)
    bar = figure.colorbar(picture, ax=cells, shrink=0.6)
    bar.ax.tick_params(colors=GRAY, labelsize=7)
    figure.supxlabel("u, along the attack", fontsize=8, color=GRAY)
    figure.supylabel("v, along random signs", fontsize=8, color=GRAY)
    return svg(figure)


def certified_curves(radii: np.ndarray, curves: dict[str, tuple[list[float], list[tuple[float, float]]]]) -> str:
    """Certified accuracy over the l2 radius; each curve is (values, intervals)."""
    figure, axes = axes_on()
    for color, (name, (values, intervals)) in zip(COLORS, curves.items(), strict=False):
        low, high = 100 * np.asarray(intervals).T
        axes.fill_between(radii, low, high, color=color, alpha=0.15, linewidth=0)
        axes.plot(radii, 100 * np.asarray(values), color=color, label=name)
    axes.set_xlabel("l2 radius", color=GRAY, fontsize=9)
    axes.set_ylabel("certified accuracy, test %", color=GRAY, fontsize=9)
    axes.set_ylim(0, 100)
    legend(axes)
    return svg(figure)
