"""Open a classifier from a folder, a weights file, a function or the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robustgen.config.source import Source
from robustgen.storage.files import without_escapes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robustgen.images import DatasetInfo


def open_classifier(source: Source, info: DatasetInfo) -> nn.Module:
    """Open the classifier of a source, in evaluation mode and with frozen parameters.

    Raises:
        ValueError: the source does not exist, or does not match its options.
    """
    from robustgen.models.external import load_external, with_normalization
    from robustgen.models.foreign import is_scripted
    from robustgen.models.saved import load_classifier

    if Path(source.place).is_dir():
        check_folder_alone(source)
        return load_classifier(Path(source.place)).requires_grad_(False)
    model = load_external(source.place, info, source.weights, source.architecture)
    if source.normalize != "none":
        if source.architecture is not None or source.place.startswith("hub:"):
            raise ValueError(f"{source.place} includes normalization; leave out --normalize")
        model = with_normalization(model, *normalization_of(source, info))
    model.eval()
    return model if any(map(is_scripted, model.modules())) else model.requires_grad_(False)


def check_folder_alone(source: Source) -> None:
    """Raise ValueError if options are given with a folder written by train, which says all by itself."""
    given = {
        "--weights": source.weights is not None,
        "--architecture": source.architecture is not None,
        "--normalize": source.normalize != "none",
    }
    for name in (name for name, there in given.items() if there):
        raise ValueError(f"{source.place} is a folder written by train, which needs no {name}; leave it out")


def images_known_to(source: Source) -> DatasetInfo | None:
    """Facts about the images that a classifier was trained for, where it knows them: made by train, or of the hub."""
    from robustgen.models import hub
    from robustgen.models.catalog import RELEASE_INFOS
    from robustgen.models.saved import dataset_info, read_model_json

    if Path(source.place).is_dir():
        return dataset_info(read_model_json(Path(source.place)))
    if source.place.startswith(hub.PREFIX):
        return RELEASE_INFOS[hub.find_release(source.place.removeprefix(hub.PREFIX))[1].data]
    return None


def check_accepts(model: nn.Module, place: str, images: Tensor, classes: int | None = None, more: bool = False) -> None:
    """Run a classifier on two images, to find out early whether it accepts them.

    Args:
        model: in evaluation mode, or a function.
        place: what the user calls it.
        images: (N, C, H, W) in [0, 1]; the first two are used.
        classes: number of classes, where the logits must have as many.
        more: the logits may have more than that.

    Raises:
        ValueError: the model raises an error, which the message repeats in one line with the shape of the input; or it
            returns no tensor.
    """
    import torch
    from torch import Tensor

    try:
        with torch.no_grad():
            logits = model(images[:2])
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a foreign model raises
        raise ValueError(
            f"{place} does not accept these images: for input {tuple(images[:2].shape)} in [0, 1] it raised: "
            f"{_words_of(error)}; {_advice(images)}"
        ) from error
    if (
        isinstance(logits, Tensor)
        and classes is not None
        and logits.shape[1:] != (classes,)
        and not (more and logits.dim() == 2 and logits.shape[1] > classes)
    ):
        raise ValueError(
            f"{place} returns {tuple(logits.shape)} for 2 images, expected (2, {classes}): the images have {classes} "
            "classes; choose other images, or another model"
        )
    if not isinstance(logits, Tensor):
        raise ValueError(f"{place} must return logits, a tensor (N, classes); it returned {type(logits).__name__}")


def check_gradient(model: nn.Module, place: str, images: Tensor) -> None:
    """Run a classifier's backward pass on two images, to find out early whether gradient attacks can use it.

    A model whose output has no gradient passes: its evaluation has a red flag that says so.

    Args:
        model, place, images: as in `check_accepts`, which the model passed.

    Raises:
        ValueError: the model raises an error, which the message repeats in one line with the shape of the input; or its
            output is not of floats.
    """
    import torch

    points = images[:2].detach().clone().requires_grad_()
    try:
        with torch.enable_grad():
            logits = model(points)
            if logits.requires_grad:
                torch.autograd.grad(logits.sum(), points, allow_unused=True)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a foreign model raises
        raise ValueError(
            f"{place} cannot be attacked: for input {tuple(points.shape)} in [0, 1] that requires a gradient, its "
            f"forward or backward pass raised: {_words_of(error)}; mend it, or choose another model"
        ) from error
    if not logits.is_floating_point():
        raise ValueError(f"{place} must return logits as floats; it returned {logits.dtype}, which cannot be attacked")


def _words_of(error: Exception) -> str:
    """The message of an error in one line, after its type where that is needed to understand it."""
    text = " ".join(without_escapes(str(error)).split())
    plain = text and isinstance(error, RuntimeError | ValueError)
    return text if plain else f"{type(error).__name__}: {text}".removesuffix(": ")


def _advice(images: Tensor) -> str:
    other = "choose other images, or another model"
    if images.shape[1] == 1:
        return f"if it takes RGB images, add --set data.color=rgb, which repeats the gray channel; else {other}"
    return other


def normalization_of(source: Source, info: DatasetInfo) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation per channel of `--normalize`: those of the dataset, or those given."""
    text = source.normalize
    if text == "data":
        return info.mean, info.std
    mean, slash, std = text.partition("/")
    try:
        values = [float(x) for x in mean.split(",")], [float(x) for x in std.split(",")]
    except ValueError:
        slash = ""
    if not slash or len(values[0]) != info.shape[0] or len(values[1]) != info.shape[0]:
        raise ValueError(
            f"--normalize must be none, data, or MEAN/DEVIATION with {info.shape[0]} numbers each, such as "
            f"{','.join(map(str, info.mean))}/{','.join(map(str, info.std))}; got {text!r}"
        )
    return values
