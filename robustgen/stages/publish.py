"""Publish a classifier in a common format; the written file is loaded again and its logits compared."""

from __future__ import annotations

import importlib.util
import io
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustgen.config.recipe import DataConfig
from robustgen.config.source import Source
from robustgen.images import DatasetInfo
from robustgen.models import build_model, hub
from robustgen.models.catalog import RELEASE_INFOS
from robustgen.models.foreign import Adapted
from robustgen.models.saved import NETWORK_SOURCE, dataset_info, load_classifier, read_model_json, save_classifier
from robustgen.models.sources import check_accepts, check_folder_alone, normalization_of, open_classifier
from robustgen.models.wide_resnet import Normalize
from robustgen.randomness import rng_for
from robustgen.records.verdicts import Verdicts
from robustgen.report.model_card import model_card, read_results_for, results_of, training_of
from robustgen.storage.files import atomic_write, first_line, read_json, write_json
from robustgen.storage.references import Reference
from robustgen.storage.weights import load_weights, save_weights, weights_digest
from robustgen.units import show_names

Reopened = Callable[[Tensor], Tensor]
"""Images to logits, by the published file."""


@dataclass(frozen=True)
class PublishedClassifier:
    """A classifier to publish.

    name          its name
    model         in evaluation mode
    info          the dataset it was trained for
    architecture  a name for `build_model`, which puts `info`'s normalization in front; None for programs
    threat        NORM:EPS; None if unknown
    padding       width of the zero padding around the image before the network
    verdicts      its verdicts under AutoAttack, if it has been evaluated
    code          file with the code of its network, where the user wrote that
    folder        made by train, where it comes from one; its card says what the folder records
    results       further files of verdicts and certificates, for its card
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
    folder: Path | None = None
    results: tuple[Path, ...] = ()
    license_name: str | None = None


def subject_of(source: Source, data: DataConfig) -> PublishedClassifier:
    """The classifier of a folder made by train, of the hub, or of another source.

    Args:
        data: the images it classifies, for a model of another source; not loaded otherwise.

    Raises:
        ValueError: no classifier there, options that it does not need, or weights that do not fit.
    """
    folder = Path(source.place)
    if folder.is_dir():
        check_folder_alone(source)
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
            folder=folder,
        )
    if source.place.startswith(hub.PREFIX):
        if source.architecture is not None or source.normalize != "none":
            raise ValueError(f"{source.place} is known; leave out --architecture and --normalize")
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
    return _subject_from_elsewhere(source, data)


def _subject_from_elsewhere(source: Source, data: DataConfig) -> PublishedClassifier:
    """A weights file, a program, or a network of the user's own, whose file is published with it."""
    from robustgen.datasets import load_test

    info = load_test(data).info
    model = open_classifier(source, info)
    named = source.architecture or source.place
    reference = Reference.parse(named)
    name = Path(source.place).name if ":" in source.place else Path(source.place).stem
    if reference is None:
        return PublishedClassifier(name, model, info, source.architecture)
    if reference.where == "hf":  # a folder on this machine
        return PublishedClassifier(name, model, info, None)
    if source.normalize == "none":
        seen = info.unnormalized()
    else:
        mean, std = normalization_of(source, info)
        seen = replace(info, mean=tuple(mean), std=tuple(std))
    return PublishedClassifier(name, model, seen, str(reference), code=reference.file)


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
    model = _as_built(subject)
    if into.suffix == ".safetensors":
        save_weights(into, model)
        files.append(into)
        write_json(into.with_suffix(".json"), _about(subject))
        files.append(into.with_suffix(".json"))
        return _rebuilt(subject, into)
    if (into / "asked.json").exists():
        raise ValueError(
            f"{into} is a folder written by train, which would be overwritten; choose another one with --into"
        )
    files += [into / "weights.safetensors", into / "model.json"]  # first: a failed write leaves neither
    if subject.code is not None:
        files.append(into / NETWORK_SOURCE)
        into.mkdir(parents=True, exist_ok=True)
        with atomic_write(into / NETWORK_SOURCE) as file:
            file.write(subject.code.read_bytes())
    save_classifier(into, model, architecture, subject.info, threat=subject.threat, published_as=subject.name)
    return load_classifier(into)


def _as_built(subject: PublishedClassifier) -> nn.Module:
    """The model as `build_model` builds it: a network of the user's own stands behind normalization, in `Adapted`."""
    model = subject.model
    if Reference.parse(subject.architecture or "") is None:
        return model
    if isinstance(model, Adapted) and isinstance(model.normalize, Normalize):
        return model  # trained here
    if isinstance(model, nn.Sequential) and isinstance(model[0], Normalize):
        model = model[1]  # `with_normalization`; `info` has its numbers
    return Adapted(model.network if isinstance(model, Adapted) else model, subject.info.mean, subject.info.std)


def _hf_folder(subject: PublishedClassifier, into: Path, files: list[Path]) -> Reopened:
    """Write a folder as by safetensors, with a model card, for `huggingface_hub.upload_folder`."""
    if into.suffix == ".safetensors" or into.is_file():
        raise ValueError(f"hf-folder needs a folder, got the name of a file with --into {into}")
    card = into / "README.md"
    if card.exists():
        raise ValueError(f"{card} exists and may have been edited; choose a new folder with --into, or move the file")
    if others := _other_files(into):
        raise ValueError(
            f"{into} holds {show_names(others)}, which would be uploaded too; choose a new folder with --into"
        )
    recorded = [] if subject.folder is None else results_of(subject.folder)
    results = read_results_for([*recorded, *subject.results], weights_digest(subject.model))
    training = None if subject.folder is None else training_of(subject.folder)
    reopened = _safetensors(_without_folders(subject), into, files)
    files.append(card)
    about = read_json(into / "model.json")
    with atomic_write(card) as file:
        file.write(model_card(into.name, about, results, training, subject.license_name).encode())
    return reopened


def _other_files(into: Path) -> list[str]:
    """Names in a folder that publish does not write; hidden ones are those of git and the hub."""
    own = {"weights.safetensors", "model.json", NETWORK_SOURCE}
    found = into.iterdir() if into.is_dir() else ()
    return sorted(path.name for path in found if path.name not in own and not path.name.startswith("."))


def _without_folders(subject: PublishedClassifier) -> PublishedClassifier:
    """The classifier with its network named by the published copy of its file, not by a path of this machine."""
    reference = Reference.parse(subject.architecture or "")
    if reference is None or subject.code is None:
        return subject
    return replace(subject, architecture=str(replace(reference, where=NETWORK_SOURCE)))


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
