"""What makes a robust accuracy doubtful, said in a sentence; and what makes an evaluation impossible, as an error."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustgen.images import check_labels
from robustgen.records import Verdicts


def check_images(images: Tensor, labels: Tensor) -> None:
    """Raises ValueError unless images are (N, C, H, W) floats in [0, 1] with a label each."""
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            f"expected float images of shape (N, C, H, W), got {images.dtype} of shape {tuple(images.shape)}"
        )
    if not len(images):
        raise ValueError("there are no images to evaluate")
    if not torch.isfinite(images).all():
        wrong = int((~torch.isfinite(images)).flatten(1).any(1).nonzero()[0])
        raise ValueError(f"image {wrong} holds NaN or infinite pixels")
    if images.min() < 0 or images.max() > 1:
        raise ValueError(
            f"pixels must lie in [0, 1], got {images.min():.3g} to {images.max():.3g}; normalisation belongs inside "
            "the model"
        )
    if labels.is_floating_point() or labels.shape != images.shape[:1]:
        raise ValueError(
            f"expected one integer label for each of {len(images)} images, got {labels.dtype} {tuple(labels.shape)}"
        )


def check_logits(logits: Tensor, labels: Tensor) -> None:
    """Raises ValueError where nothing can be evaluated: wrong shapes, labels out of range."""
    if logits.ndim != 2 or len(logits) != len(labels):
        raise ValueError(
            f"the model must return logits (N, K), got shape {tuple(logits.shape)} for {len(labels)} images"
        )
    check_labels(labels.cpu().numpy(), len(labels), logits.shape[1], "test images")


def flags_of(model: nn.Module, images: Tensor, labels: Tensor, logits: Tensor) -> list[str]:
    """Sentences about a model before it is attacked. `logits` are its answers for `images`, given before.

    Looked for: NaN or infinite logits, random answers, probabilities instead of logits, gradients that vanish.
    """
    flags = []
    broken = int((~torch.isfinite(logits)).any(1).sum())
    if broken:
        flags.append(f"{broken} clean images give NaN or infinite logits; they count as broken, not as robust")
    again = torch.nan_to_num(model(images))
    if not torch.allclose(again, torch.nan_to_num(logits), rtol=1e-4, atol=1e-4):
        flags.append("the model answers differently when asked again; evaluate randomised models with EOT attacks")
    rows = logits[torch.isfinite(logits).all(1)]
    if len(rows) and rows.min() >= 0 and torch.allclose(rows.sum(1), torch.ones_like(rows[:, 0]), atol=1e-3):
        flags.append("the outputs are probabilities, not logits; gradients of a saturated softmax hide attacks")
    share = _zero_gradients(model, images, labels)
    if share > 0.1:
        flags.append(
            f"{100 * share:.0f} % of the images have a cross-entropy without gradient; gradient attacks are weak there"
        )
    return flags


def _zero_gradients(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.enable_grad():
        points = images.detach().requires_grad_()
        loss = nn.functional.cross_entropy(model(points), labels, reduction="sum")
        if not loss.requires_grad:
            return 1.0
        (gradient,) = torch.autograd.grad(loss, points)
    return float((gradient.flatten(1).abs().amax(1) == 0).float().mean())


def flags_after(verdicts: Verdicts) -> list[str]:
    """Sentences about a finished evaluation."""
    flags = []
    classes = verdicts.clean_logits.shape[1]
    accuracy = verdicts.clean_accuracy.value
    if accuracy < 1.5 / classes:
        flags.append(
            f"clean accuracy {100 * accuracy:.1f} % is near chance ({100 / classes:.0f} %); robustness means little"
        )
    for number, name in enumerate(verdicts.attacks):
        flat, seen = verdicts.flat[number]
        if seen and flat > 0.1 * seen:
            flags.append(
                f"{name} found no gradient at the start for {100 * flat / seen:.0f} % of its images: they are masked"
            )
        if verdicts.rejected[number] > 0.01 * len(verdicts):
            flags.append(
                f"{verdicts.rejected[number]} successes of {name} did not hold when the model was asked again; it may "
                "answer at random, or differ in precision"
            )
    if "square" in verdicts.attacks:
        saved = int((verdicts.fell_to == verdicts.attacks.index("square")).sum())
        if saved > 0.002 * len(verdicts):
            flags.append(
                f"square, which sees no gradients, broke {saved} images that gradient attacks left: these are masked"
            )
    return flags
