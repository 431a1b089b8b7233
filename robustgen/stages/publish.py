"""Publish a classifier in a common format; the written file is loaded again and its logits compared."""

from __future__ import annotations

import importlib.util
import io
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustgen.config.recipe import DataConfig
from robustgen.config.source import Source
from robustgen.images import DatasetInfo
from robustgen.models import build_model, hub
from robustgen.models.catalog import RELEASE_INFOS
from robustgen.models.saved import NETWORK_SOURCE, dataset_info, load_classifier, read_model_json, save_classifier
from robustgen.models.sources import check_accepts, open_classifier
from robustgen.randomness import rng_for
from robustgen.records.verdicts import Verdicts
from robustgen.report.model_card import Training, model_card, read_results_for, results_of, training_of
from robustgen.storage.files import atomic_write, first_line, read_json, write_json
from robustgen.storage.weights import load_weights, save_weights, weights_digest

Reopened = Callable[[Tensor], Tensor]
"""Images to logits, by the published file."""


@dataclass(frozen=True)
class PublishedClassifier:
    """A classifier to publish.

    name          its name
    model         in evaluation mode
    info          the dataset it was trained for
    architecture  a name for `build_model`; None for external networks
    threat        NORM:EPS; None if unknown
    padding       width of the zero padding around the image before the network
    verdicts      its verdicts under AutoAttack, if it has been evaluated
    code          file with the code of its network, where the user wrote that
    training      how it was trained, where that is recorded
    results       files of its verdicts and certificates, for its card
    license_name  of the card, such as mit
    """

    name: str
    model: nn.Module
    info: DatasetInfo
    architecture: str | None
    threat: str | None = None
    padding: int = 0
    verdicts: Verdicts | None = None
    code: Path | None = None
    training: Training | None = None
    results: tuple[Path, ...] = ()
    license_name: str | None = None


def subject_of(source: Source, data: DataConfig) -> PublishedClassifier:
    """The classifier of a folder made by train, of the hub, or of another source.

    Args:
        data: the images it classifies, for a model of another source; not loaded otherwise.

    Raises:
        ValueError: no classifier there, or weights that do not fit.
    """
    from robustgen.datasets import load_test

    folder = Path(source.place)
    if folder.is_dir():
        about = read_model_json(folder)
        path = folder / "autoattack.npz"
        verdicts = Verdicts.load(path) if path.exists() else None
        return PublishedClassifier(
            folder.name,
            _contiguous(load_classifier(folder)),
            dataset_info(about),
            about["architecture"],
            about.get("threat"),
            verdicts=verdicts if verdicts is not None and verdicts.finished else None,
            code=folder / NETWORK_SOURCE if (folder / NETWORK_SOURCE).exists() else None,
            training=training_of(folder),
            results=tuple(results_of(folder)),
        )
    if source.place.startswith(hub.PREFIX):
        full, release = hub.find_release(source.place.removeprefix(hub.PREFIX))
        model = hub.open_release(release, source.weights or hub.locate(full, release)).eval()
        return PublishedClassifier(
            full.rpartition("/")[2],
            model,
            RELEASE_INFOS[release.data],
            release.architecture,
            release.threat,
            release.padding,
        )
    info = load_test(data).info
    own = source.architecture if source.normalize == "none" else None
    name = source.place if ":" in source.place else folder.stem
    return PublishedClassifier(name, open_classifier(source, info), info, own)


def publish(subject: PublishedClassifier, form: str, into: Path) -> str:
    """Write a classifier in a format, load it again, and compare the logits of random images.

    Raises:
        ValueError: an unknown format, a classifier that it cannot represent, or different logits; no files are left.
    """
    if form not in FORMS:
        raise ValueError(f"unknown form {form!r}; known: {', '.join(FORMS)}")
    images = rng_for(0, "publish").uniform((3, *subject.info.shape))
    check_accepts(subject.model, subject.name, images)
    existed = into.exists()
    files: list[Path] = []
    try:
        reopened = FORMS[form](subject, into, files)
        with torch.no_grad():
            wanted, found = subject.model(images), reopened(images)
        gap = float((wanted - found).abs().max())
        if not gap <= 1e-4 * max(1.0, float(wanted.abs().max())):
            raise ValueError(
                f"{into} does not reproduce the classifier's logits when it is loaded again: they differ by {gap:g}"
            )
    except BaseException:
        for path in files:
            path.unlink(missing_ok=True)
        if into.is_dir() and not existed and not any(into.iterdir()):
            into.rmdir()
        raise
    return f"{', '.join(map(str, files))}; loaded again, logits differ by {gap:.1g}"


def _safetensors(subject: PublishedClassifier, into: Path, files: list[Path]) -> Reopened:
    """Write safetensors weights and a JSON description: a folder that every command accepts, or FILE.safetensors."""
    architecture = _known(subject, "safetensors")
    if subject.padding:
        raise ValueError(
            f"{subject.name} pads its images, which model.json cannot describe; publish it as torch-export"
        )
    if into.suffix == ".safetensors":
        save_weights(into, subject.model)
        files.append(into)
        write_json(into.with_suffix(".json"), _about(subject))
        files.append(into.with_suffix(".json"))
        return _rebuilt(subject, into)
    files += [into / "weights.safetensors", into / "model.json"]  # first: a failed write leaves neither
    if subject.code is not None:
        files.append(into / NETWORK_SOURCE)
        into.mkdir(parents=True, exist_ok=True)
        with atomic_write(into / NETWORK_SOURCE) as file:
            file.write(subject.code.read_bytes())
    save_classifier(into, subject.model, architecture, subject.info, threat=subject.threat, published_as=subject.name)
    return load_classifier(into)


def _hf_folder(subject: PublishedClassifier, into: Path, files: list[Path]) -> Reopened:
    """Write a folder as by safetensors, with a model card, for `huggingface_hub.upload_folder`."""
    card = into / "README.md"
    if card.exists():
        raise ValueError(f"{card} exists and may have been edited; choose a new folder with --into, or move the file")
    results = read_results_for(subject.results, weights_digest(subject.model))
    reopened = _safetensors(subject, into, files)
    files.append(card)
    about = read_json(into / "model.json")
    with atomic_write(card) as file:
        file.write(model_card(into.name, about, results, subject.training, subject.license_name).encode())
    return reopened


def _robustbench(subject: PublishedClassifier, into: Path, files: list[Path]) -> Reopened:
    """Write a state dictionary under RobustBench's names, and its model description, to be completed by hand."""
    architecture = _known(subject, "robustbench")
    title = _robustbench_class(subject, architecture)
    network = subject.model[-1] if subject.padding and isinstance(subject.model, nn.Sequential) else subject.model
    with atomic_write(into) as file:
        torch.save({name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}, file)
    files.append(into)
    verdicts = subject.verdicts
    clean, robust = (
        ("", "")
        if verdicts is None
        else (f"{100 * share.value:.2f}" for share in (verdicts.clean_accuracy, verdicts.robust_accuracy))
    )
    description = {
        "link": "",
        "name": "",
        "authors": "",
        "additional_data": False,
        "number_forward_passes": 1,
        "dataset": subject.info.name,
        "venue": "",
        "architecture": title,
        "eps": (subject.threat or "").partition(":")[2],
        "clean_acc": clean,
        "reported": robust,
        "autoattack_acc": robust,
        "footnote": "",
        "unreliable": False,
    }
    write_json(into.with_suffix(".json"), description)
    files.append(into.with_suffix(".json"))
    return _rebuilt(subject, into)


_ROBUSTBENCH = {"wrn": "WideResNet", "preact-resnet": "PreActResNet", "trades-wrn": "WideResNet", "resnet": "ResNet"}
"""Families with a class in RobustBench; the last two do not normalize there."""


def _robustbench_class(subject: PublishedClassifier, architecture: str) -> str:
    """RobustBench's name of the network. Raises ValueError if RobustBench has no class that computes the same."""
    found = re.fullmatch(r"([a-z-]+?)((?:-\d+)+)((?:-[a-z]+\d?)*)", architecture)
    family, variants = (found[1], set(found[3].split("-")[1:])) if found else ("", set())
    takes = {"relu", "unnormalised"} | ({"silu"} if family in ("wrn", "preact-resnet") else set())
    if found is None or family not in _ROBUSTBENCH or not variants <= takes:
        raise ValueError(f"RobustBench has no class for {architecture}; it has: {', '.join(_ROBUSTBENCH)}")
    side = subject.info.shape[1] + 2 * subject.padding
    if side != 32:
        raise ValueError(f"RobustBench's {architecture} needs images of 32x32, this one is for {side}x{side}")
    plain = "unnormalised" in variants or (not any(subject.info.mean) and set(subject.info.std) == {1.0})
    if family in ("trades-wrn", "resnet") and not plain:
        raise ValueError(f"RobustBench's {architecture} does not normalize its inputs, this one does")
    return _ROBUSTBENCH[family] + found[2]


def _torch_export(subject: PublishedClassifier, into: Path, files: list[Path]) -> Reopened:
    """Write a `.pt2` program that needs only torch, for any number of images."""
    with _exporting(subject, "torch-export"):
        exported = torch.export.export(
            subject.model,
            (torch.zeros(2, *subject.info.shape),),
            dynamic_shapes=({0: torch.export.Dim("images", min=1)},),
        )
    with atomic_write(into) as file:
        torch.export.save(exported, file)
    files.append(into)
    reopened: Reopened = torch.export.load(str(into)).module()
    return reopened


@contextmanager
def _exporting(subject: PublishedClassifier, form: str) -> Iterator[None]:
    """Turn an error of torch's exporter into one line; the exporter's output is dropped."""
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    except Exception as error:  # the exporter raises many kinds, most of them pages long
        raise ValueError(
            f"torch cannot export {subject.name} as {form} ({first_line(error).strip()}); rewrite what depends on the "
            "images' values, or publish its weights"
        ) from error
    finally:
        logging.disable(logging.NOTSET)


def _onnx(subject: PublishedClassifier, into: Path, files: list[Path]) -> Reopened:
    """Write an ONNX graph for any number of images; needs the extra `onnx`."""
    absent = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if absent:
        raise ValueError(
            f"publishing as ONNX needs {', '.join(absent)}; install them with pip install 'robustgen[onnx]'"
        )
    with _exporting(subject, "onnx"):
        program = torch.onnx.export(
            subject.model,
            (torch.zeros(2, *subject.info.shape),),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("images", min=1)},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    with atomic_write(into) as file:
        file.write(program.model_proto.SerializeToString())
    files.append(into)
    import onnxruntime  # type: ignore[import-not-found]

    session = onnxruntime.InferenceSession(str(into), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


FORMS: dict[str, Callable[[PublishedClassifier, Path, list[Path]], Reopened]] = {
    "safetensors": _safetensors,
    "hf-folder": _hf_folder,
    "robustbench": _robustbench,
    "torch-export": _torch_export,
    "onnx": _onnx,
}
"""Writers by format: each writes to a path, lists the files it has written, and loads them again."""


def _contiguous(model: nn.Module) -> nn.Module:
    """The model with contiguous weights: an exported program keeps their memory format."""
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return model


def _known(subject: PublishedClassifier, form: str) -> str:
    if subject.architecture is None:
        raise ValueError(
            f"{form} needs a network that robustgen builds by name, but {subject.name} is not one; publish it as "
            "torch-export"
        )
    return subject.architecture


def _about(subject: PublishedClassifier) -> dict[str, Any]:
    info = subject.info
    return {
        "name": subject.name,
        "architecture": subject.architecture,
        "dataset": info.name,
        "classes": info.classes,
        "shape": info.shape,
        "mean": info.mean,
        "std": info.std,
        "threat": subject.threat,
    }


def _rebuilt(subject: PublishedClassifier, weights: Path) -> Reopened:
    assert subject.architecture is not None
    model = load_weights(build_model(subject.architecture, subject.info, source=subject.code), weights)
    return (nn.Sequential(nn.ZeroPad2d(subject.padding), model) if subject.padding else model).eval()
