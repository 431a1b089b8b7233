"""Checks of an evaluation: red flags for robust accuracies that are doubtful, errors where none can be measured."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustgen.attacks.common import NoGradient, image_gradient
from robustgen.images import check_labels
from robustgen.records.verdicts import Verdicts
from robustgen.stats.exact import shows_gain, shows_less, shows_more
from robustgen.stats.intervals import PairedDifference, Proportion


def check_images(images: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless images are (N, C, H, W), float32 or float64, in [0, 1], with one label each."""
    if images.ndim != 4 or images.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"expected float32 images of shape (N, C, H, W), got {images.dtype} of shape {tuple(images.shape)}"
        )
    if not len(images):
        raise ValueError("there are no images to evaluate")
    if not torch.isfinite(images).all():
        wrong = int((~torch.isfinite(images)).flatten(1).any(1).nonzero()[0])
        raise ValueError(f"image {wrong} holds NaN or infinite pixels")
    if images.min() < 0 or images.max() > 1:
        raise ValueError(
            f"pixels must lie in [0, 1], got {images.min():.3g} to {images.max():.3g}; normalization belongs inside "
            "the model"
        )
    if labels.is_floating_point() or labels.shape != images.shape[:1]:
        raise ValueError(
            f"expected one integer label for each of {len(images)} images, got {labels.dtype} {tuple(labels.shape)}"
        )


def check_logits(logits: Tensor, labels: Tensor) -> None:
    """Raise ValueError if logits have a wrong shape or labels are out of range."""
    if logits.ndim != 2 or len(logits) != len(labels):
        raise ValueError(
            f"the model must return logits (N, K), got shape {tuple(logits.shape)} for {len(labels)} images"
        )
    check_labels(labels.cpu().numpy(), len(labels), logits.shape[1], "test images")


NO_GRADIENT = "no-gradient"

FLAGS = (
    "nan-logits", "random-logits", "batch-dependence", "training-mode", "probabilities", "zero-gradients", NO_GRADIENT,
    "normalised-twice", "not-normalised", "near-chance", "refused-successes", "black-box-better",
)  # fmt: skip
"""Names of the red flags, with which their sentences begin; docs/flags.md has a section for each."""


def training_flag(model: nn.Module) -> list[str]:
    """Red flag for a model in training mode."""
    if model.training:
        return ["training-mode: the model came in training mode; it was evaluated in evaluation mode and put back"]
    return []


@torch.no_grad()
def flags_of(model: nn.Module, images: Tensor, labels: Tensor, logits: Tensor) -> list[str]:
    """Red flags of a model in evaluation mode before it is attacked. `logits` are its outputs for `images`."""
    flags = []
    count, clean = len(images), torch.nan_to_num(logits)
    broken = int((~torch.isfinite(logits)).any(1).sum())
    if broken:
        flags.append(
            f"nan-logits: {broken} of {count} clean images give NaN or infinite logits; they count as broken, not as "
            "robust"
        )
    again = torch.nan_to_num(model(images).to(logits.dtype))
    repeatable = torch.allclose(again, clean, rtol=1e-4, atol=1e-4)
    if not repeatable:
        flags.append(
            "random-logits: the model returns different logits for the same images; use the suite autoattack-rand"
        )
    elif count > 1 and not _close(model(images[: count // 2]), clean[: count // 2]):
        flags.append(
            "batch-dependence: an image's logits depend on the other images of the batch (batch statistics?); attacks "
            "then change several images at once, and a verdict does not belong to one image"
        )
    rows = logits[torch.isfinite(logits).all(1)]
    if len(rows) and rows.min() >= 0 and torch.allclose(rows.sum(1), torch.ones_like(rows[:, 0]), atol=1e-3):
        flags.append("probabilities: the outputs are probabilities, not logits; a saturated softmax hides attacks")
    finite = torch.isfinite(logits).all(1)
    share = _zero_gradients(model, images[finite], labels[finite])
    if share is None:
        flags.append(f"{NO_GRADIENT}: {NoGradient()}")
    elif shows_more(share, 0.1):
        flags.append(
            f"zero-gradients: {100 * share.value:.0f} % of the images have a cross-entropy without gradient "
            "(saturated or rounded?); gradient attacks are weak there: try other objectives, or a "
            "differentiable stand-in (BPDA)"
        )
    return flags + (_normalization_flags(model, images, labels, logits) if repeatable and not broken else [])


def _close(first: Tensor, second: Tensor) -> bool:
    return torch.allclose(torch.nan_to_num(first.to(second.dtype)), second, rtol=1e-3, atol=1e-3)


def _zero_gradients(model: nn.Module, images: Tensor, labels: Tensor) -> Proportion | None:
    """Images whose cross-entropy has a zero gradient; None if the loss is not differentiable."""
    if not len(images):
        return Proportion(0, 0)
    with torch.enable_grad():
        points = images.detach().requires_grad_()
        loss = nn.functional.cross_entropy(model(points), labels, reduction="sum")
        try:
            gradient = image_gradient(loss, points)
        except NoGradient:
            return None
    return Proportion(int((gradient.flatten(1).abs().amax(1) == 0).sum()), len(images))


def _normalization_flags(model: nn.Module, images: Tensor, labels: Tensor, logits: Tensor) -> list[str]:
    """Red flags of a model whose accuracy rises by one normalization more, or one less.

    It must rise by 10 points, by more than chance explains on these images, and above the accuracy of a constant
    prediction.
    """
    if len(images) < 32:
        return []
    mean = images.mean((0, 2, 3), keepdim=True)
    std = images.std((0, 2, 3), keepdim=True).clamp_min(1e-3)
    asis = (logits.argmax(1) == labels).cpu().numpy()
    most_frequent = float(labels.bincount().max()) / len(labels)
    flags = []
    for name, changed, what in (
        ("normalised-twice", images * std + mean, "undone once: it is probably applied twice"),
        ("not-normalised", (images - mean) / std, "applied: the model probably expects it (--normalize data)"),
    ):
        right = (model(changed).argmax(1) == labels).cpu().numpy()
        rise, share = PairedDifference.of(right, asis), Proportion(int(right.sum()), len(right))
        better_than_one_class = most_frequent == 1 or shows_more(share, most_frequent)
        if rise.value > 0.1 and shows_gain(rise) and better_than_one_class:
            shares = f"{100 * asis.mean():.0f} % right as it is, {100 * right.mean():.0f} % with normalization {what}"
            flags.append(f"{name}: {shares}")
    return flags


def flags_after(verdicts: Verdicts) -> list[str]:
    """Red flags of a finished evaluation."""
    flags = []
    classes = verdicts.clean_logits.shape[1]
    accuracy = verdicts.clean_accuracy
    # Certainly better: three times chance, or halfway from chance to 1 if there are few classes.
    if accuracy.value < 1.5 / classes and shows_less(accuracy, min(3 / classes, (1 + 1 / classes) / 2)):
        flags.append(
            f"near-chance: clean accuracy {100 * accuracy.value:.1f} % is near chance ({100 / classes:.0f} %); "
            "robustness means little"
        )
    for number, name in enumerate(verdicts.attacks):
        flat, seen = verdicts.flat[number]
        if shows_more(Proportion(int(flat), int(seen)), 0.1):
            flags.append(
                f"zero-gradients: {name} found no gradient at the start for {100 * flat / seen:.0f} % of its images"
            )
        refused = min(int(verdicts.rejected[number]), len(verdicts))  # an image may be refused in several runs
        if shows_more(Proportion(refused, len(verdicts)), 0.01):
            flags.append(
                f"refused-successes: {verdicts.rejected[number]} successes of {name} were not confirmed by the "
                "model itself; it may be stochastic, or numerical precision decides near its decision boundary"
            )
    if "square" in verdicts.attacks:
        saved = int((verdicts.fell_to == verdicts.attacks.index("square")).sum())
        if shows_more(Proportion(saved, len(verdicts)), 0.002):
            flags.append(
                f"black-box-better: square, which sees no gradients, broke {saved} images that gradient attacks left; "
                "gradients may be masked, and other attacks may find more"
            )
    return flags
