"""Model cards: a README.md about a classifier, with the metadata that Hugging Face reads. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from robustgen.config.loading import from_content
from robustgen.config.recipe import Arm
from robustgen.config.training import TrainingConfig
from robustgen.records.evaluation_info import EvaluationInfo
from robustgen.report.evaluation_tables import (
    Certification,
    Evaluation,
    made_for,
    read_result,
    repeat_command,
    threat_text,
)
from robustgen.stats.formatting import percent, percent_range
from robustgen.storage.files import read_json
from robustgen.storage.run_folder import RunDir
from robustgen.units import show_names

HUB_DATASETS = {
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "mnist": "ylecun/mnist",
    "svhn": "ufldl-stanford/svhn",
    "tiny-imagenet": "zh-plus/tiny-imagenet",
}
"""Names of datasets on Hugging Face; a card names no others there."""
_NORMS = {"linf": "l-infinity", "l2": "l2", "l1": "l1"}
_FOLDER = "hf:FOLDER"


@dataclass(frozen=True)
class Training:
    """How a classifier was trained.

    data      settings of the dataset
    settings  of its training
    images    its proxy sets, and how many real images it was trained on
    """

    data: Mapping[str, Any]
    settings: TrainingConfig
    images: Arm


def training_of(folder: Path) -> Training | None:
    """How the classifier in a folder was trained, from what the command train or the run has written; else None."""
    if (folder / "asked.json").exists():
        asked = read_json(folder / "asked.json")
        if "train" not in asked:
            return None
        return Training(
            asked["data"], TrainingConfig.model_validate(asked["train"]), Arm.model_validate(asked["proxies"])
        )
    run, arm = _place_in_run(folder)
    if run is None:
        return None
    recipe = from_content(read_json(run.recipe), str(run.recipe))
    return Training(recipe.data.to_json(), recipe.training(arm), recipe.arms[arm]) if arm in recipe.arms else None


def results_of(folder: Path) -> list[Path]:
    """Files of finished verdicts and certificates of the classifier in a folder: in it, or in the run that it is in."""
    paths = [path for path in sorted(folder.glob("*.npz")) if path.with_name(f"{path.stem}.info.json").exists()]
    run, arm = _place_in_run(folder)
    if run is not None:
        done = [*run.verdicts(arm, "*").parent.glob(f"{arm}.*.done"), run.certificates(arm).with_suffix(".done")]
        paths += [
            path.with_suffix(".npz")
            for path in sorted(done)
            if path.exists() and read_json(path).get("classifier") == folder.resolve().name
        ]
    return [path for path in paths if _finished(read_result(path))]


def _place_in_run(folder: Path) -> tuple[RunDir | None, str]:
    """The run that a classifier belongs to, and its arm."""
    place = folder.resolve()
    run = RunDir(place.parent.parent)
    inside = place.parent.name == "classifiers" and run.recipe.exists()
    return (run if inside else None), place.name.rpartition("-")[0]


def _finished(found: Evaluation | Certification) -> bool:
    return found.verdicts.finished if isinstance(found, Evaluation) else found.certificates.finished


def read_results_for(paths: Iterable[Path], digest: str) -> list[Evaluation | Certification]:
    """Read verdicts and certificates for a card.

    Args:
        digest: of the classifier's weights, `storage.weights.weights_digest`.

    Raises:
        ValueError: a file is missing, damaged, unfinished or about another classifier.
    """
    results = []
    for path in dict.fromkeys(path.resolve() for path in paths):
        found = read_result(path)
        if not _finished(found):
            raise ValueError(f"{path} is not finished; repeat the command that made it, or leave it out")
        own = made_for(found.verdicts)[0] if isinstance(found, Evaluation) else found.certificates.model
        if own != digest:
            raise ValueError(f"{path} is about another classifier: weights {own}, expected {digest}; leave it out")
        results.append(found)
    return results


def model_card(
    name: str,
    about: Mapping[str, Any],
    results: Sequence[Evaluation | Certification],
    training: Training | None,
    license_name: str | None = None,
) -> str:
    """The card of a classifier as Markdown, its metadata in front.

    Args:
        about: content of its `model.json`.
        results: verdicts and certificates of this classifier.
        license_name: such as mit; without it the metadata has no license.
    """
    head = yaml.safe_dump(_metadata(name, about, results, license_name), sort_keys=False, allow_unicode=True)
    channels, height, width = about["shape"]
    parts = [
        f"---\n{head}---",
        f"# {name}",
        f"A classifier of {height}x{width} images ({channels} {'channel' if channels == 1 else 'channels'}) of "
        f"{about['dataset']} in {len(about['classes'])} classes; network {about['architecture']}. {_purpose(about)}",
        _use(about),
        "\n\n".join(["## Evaluation", *_evaluation(results)]),
        "\n\n".join(["## Training", *_trained(training, about["architecture"])]),
        "## Limits\n\nA robust accuracy holds for its threat model and its test images, and is an upper bound: other "
        "attacks may break more. It says nothing about other perturbations, such as rotations or other radii.",
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(
    name: str, about: Mapping[str, Any], results: Sequence[Evaluation | Certification], license_name: str | None
) -> dict[str, Any]:
    """The metadata of Hugging Face's model cards."""
    dataset = about["dataset"]
    hub = HUB_DATASETS.get(dataset)
    metadata: dict[str, Any] = {"library_name": "robustgen", "pipeline_tag": "image-classification"}
    if license_name is not None:
        metadata["license"] = license_name
    metadata |= {"tags": ["adversarial-robustness", "image-classification"], "metrics": ["accuracy"]}
    if hub is not None:
        metadata["datasets"] = [hub]
    if metrics := [metric for found in results for metric in _metrics(found)]:
        result = {
            "task": {"type": "image-classification"},
            "dataset": {"name": dataset, "type": hub or dataset, "split": "test"},
            "metrics": metrics,
        }
        metadata["model-index"] = [{"name": name, "results": [result]}]
    return metadata


def _metrics(found: Evaluation | Certification) -> list[dict[str, Any]]:
    if isinstance(found, Certification):
        own = found.certificates
        shares = {f"certified accuracy, l2 radius {own.sigma:g}, {len(own)} images": own.accuracy(own.sigma)}
    else:
        verdicts = found.verdicts
        shares = {
            f"clean accuracy, {len(verdicts)} images": verdicts.clean_accuracy,
            f"robust accuracy, {verdicts.suite}, {threat_text(verdicts)}, {len(verdicts)} images": (
                verdicts.robust_accuracy
            ),
        }
    return [{"type": "accuracy", "name": name, "value": round(100 * share.value, 2)} for name, share in shares.items()]


def _purpose(about: Mapping[str, Any]) -> str:
    if about.get("threat"):
        norm, _, eps = about["threat"].partition(":")
        return f"It was trained to be robust to perturbations of {_NORMS.get(norm, norm)} norm up to {eps}."
    if about.get("sigma"):
        return f"It was trained under Gaussian noise of standard deviation {about['sigma']}, for randomized smoothing."
    return "No threat model is recorded that it was trained for."


def _use(about: Mapping[str, Any]) -> str:
    classes = list(map(str, about["classes"]))
    named = ", ".join(classes) if len(classes) <= 20 else show_names(classes)
    shape = ", ".join(map(str, about["shape"]))
    return f"""## Use

With robustgen and `huggingface_hub` installed:

```python
import robustgen
from huggingface_hub import snapshot_download

model = robustgen.load_model("hf:" + snapshot_download("OWNER/NAME"))  # or "hf:FOLDER" of a copy
logits = model(images)
```

`images` are (N, {shape}) in [0, 1]; normalization is inside the model. Classes: {named}. If the folder has a file \
`network.py`, opening the model runs it."""


def _evaluation(results: Sequence[Evaluation | Certification]) -> list[str]:
    """Tables of robust and certified accuracies, red flags, and the commands that repeat them."""
    judged = [found for found in results if isinstance(found, Evaluation)]
    certified = [found for found in results if isinstance(found, Certification)]
    if not results:
        return [f"Not evaluated yet: `robustgen evaluate {_FOLDER} --suite autoattack`."]
    texts = []
    if judged:
        rows = []
        for found in judged:
            clean, robust = found.verdicts.clean_accuracy, found.verdicts.robust_accuracy
            shares = [cell for s in (clean, robust) for cell in (percent(s.value), percent_range(s.interval))]
            rows.append((found.verdicts.suite, threat_text(found.verdicts), f"{clean.total:,}", *shares))
        texts.append(_table(("attacks", "threat", "images", "clean %", "95 %", "robust %", "95 %"), rows))
        flags = [f"- {found.verdicts.suite}: {flag}" for found in judged for flag in found.verdicts.flags]
        texts.append("Red flags:\n\n" + "\n".join(flags) if flags else "The evaluation raised no red flags.")
    if certified:
        rows = []
        for other in certified:
            own = other.certificates
            at = own.accuracy(own.sigma)
            cells = (f"{own.average_radius:.3f}", percent(at.value), percent_range(at.interval))
            rows.append((f"{own.sigma:g}", f"{len(own):,}", *cells))
        columns = ("noise", "images", "average certified radius", "certified % at that radius", "95 %")
        texts.append("Randomized smoothing, l2:\n\n" + _table(columns, rows))
    commands = dict.fromkeys(repeat_command(replace(found, info=EvaluationInfo(model=_FOLDER))) for found in results)
    words = "To repeat, with the images in the place of NAME=PATH:\n\n"
    return [*texts, words + "\n".join(f"    {command}" for command in commands)]


def _trained(training: Training | None, architecture: str) -> list[str]:
    """How it was trained; `architecture` names the network as its `model.json` does, without folders of a machine."""
    if training is None:
        return ["Not recorded."]
    data, proxies = training.data, training.images.proxies
    count = training.images.train_images or data.get("train") or "all"
    images = f"{count:,}" if isinstance(count, int) else "all that are not held out"
    names = ", ".join(Path(name).name for name in proxies)
    generated = f"Generated images were mixed in: {names}." if proxies else "No generated images."
    usual = {**TrainingConfig(schedule=training.settings.schedule).to_json(), "schedule": {}}
    changed = _changed({**training.settings.to_json(), "architecture": architecture}, usual)
    settings = yaml.safe_dump({"train": changed}, sort_keys=False)
    return [
        f"Real training images of {data['name']}: {images}. {generated}",
        f"Settings that differ from robustgen's defaults:\n\n```yaml\n{settings}```",
    ]


def _changed(content: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that differ from the default; all of a section of another kind."""
    changed: dict[str, Any] = {}
    for name, value in content.items():
        usual = default.get(name)
        if isinstance(value, Mapping) and isinstance(usual, Mapping) and value.get("kind") == usual.get("kind"):
            if inner := _changed(value, usual):
                changed[name] = inner
        elif value != usual:
            changed[name] = value
    return changed


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
