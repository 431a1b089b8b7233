"""The README's picture, from a finished run of the demonstration: real and generated images, and the robustness gain.

python docs/make_picture.py runs/digits docs/digits.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from robustgen.records.history import History
from robustgen.report.figures import COLORS, GRAY, preview_grid
from robustgen.report.tables import name_of, read_results
from robustgen.storage.files import read_json
from robustgen.storage.run_folder import RunDir


def main(run: RunDir, target: Path) -> None:
    results = read_results(run)
    proxies = [arm["proxy"] for arm in results.recipe["arms"].values() if arm["proxy"]]
    figure = Figure(figsize=(11, 5.6), layout="constrained", facecolor="white")
    places = figure.subplot_mosaic(
        [["real", *proxies], ["curves", "curves", "bars"]], height_ratios=[1.25, 1], width_ratios=[1, 1, 1]
    )
    pictures = {"real": run.real_samples, **{name: run.proxy(name) / "preview.npz" for name in proxies}}
    total = read_json(run.root / "data.json")["counts"]["train"]
    counts = {"real": f"{total} real training images"} | {name: f"generated: {name}" for name in proxies}
    for name, path in pictures.items():
        places[name].imshow(np.asarray(preview_grid(path)), interpolation="nearest")
        places[name].set_title(counts[name], fontsize=10)
        places[name].axis("off")
    for color, (arm, chosen) in zip(COLORS, results.chosen.items(), strict=False):
        history = History.load(run.root / "classifiers" / chosen / "validation.npz")
        label = name_of(results.recipe, arm)
        places["curves"].plot(history["step"], 100 * history["averaged_robust"], color=color, label=label)
        places["curves"].plot(history["step"], 100 * history["raw_robust"], color=color, linestyle="--", linewidth=0.9)
    places["curves"].set_xlabel("training step", fontsize=9)
    places["curves"].set_ylabel("robust accuracy, validation %", fontsize=9)
    places["curves"].legend(fontsize=8, frameon=False, title="solid: averaged weights, dashed: raw", title_fontsize=8)
    bars = places["bars"]
    for i, (arm, verdicts) in enumerate(results.verdicts.items()):
        share = verdicts.robust_accuracy
        error = [[100 * (share.value - share.interval[0])], [100 * (share.interval[1] - share.value)]]
        bars.bar(i, 100 * share.value, 0.6, color=COLORS[i], alpha=0.8)
        bars.errorbar(i, 100 * share.value, yerr=error, color="black", capsize=3, linewidth=1)
        bars.text(i, 2, f"{100 * share.value:.1f}", ha="center", color="white", fontsize=11, fontweight="bold")
        bars.text(i, -4, name_of(results.recipe, arm), ha="center", va="top", fontsize=8)
    bars.set_xticks([])
    bars.set_ylabel(f"robust, test % ({results.threat}, {results.recipe['evaluation']['suite']})", fontsize=9)
    for name in ("curves", "bars"):
        places[name].tick_params(labelsize=8)
        places[name].grid(axis="y", color=GRAY, alpha=0.25)
        for side in ("top", "right"):
            places[name].spines[side].set_visible(False)
    figure.savefig(target, dpi=90, metadata={"Software": None})


if __name__ == "__main__":
    main(RunDir(sys.argv[1]), Path(sys.argv[2]))
