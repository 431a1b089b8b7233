"""Loss landscapes: the margin on a plane through an image (arXiv:2103.01946, App. C)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robustgen.analysis.contracts import Subject
from robustgen.attacks import evaluation_attack
from robustgen.contracts import Progress, silent
from robustgen.evaluation.checks import check_images, check_logits
from robustgen.modes import BatchInvariant, evaluating
from robustgen.objectives import margin
from robustgen.randomness import Rng, content_ids, rng_for
from robustgen.records.landscapes import LandscapesRecord
from robustgen.records.record import About
from robustgen.threat import ThreatModel


@dataclass(frozen=True)
class Landscapes:
    """The margin around the first test images, along an adversarial and a random direction.

        height(u, v) = z_y - max_{k != y} z_k  at  image + u * worst + v * random,      u, v in [-extent, extent]

    `worst` is the perturbation that PGD finds on the margin; `random` has entries of equal magnitude, random signs, and
    norm eps. Negative heights are misclassified. Points are not clipped to [0, 1], because clipping would add kinks
    that do not come from the network. The papers do not report the range of their axes.
    """

    images: int = 2
    """Number of images, from the start of the test set."""
    points: int = 41
    """Points per axis; odd, so that the image itself is one of them."""
    extent: float = 1.0
    """Range of u and v; 1 is the full perturbation."""
    steps: int = 40
    """Steps of PGD with Adam, the papers' evaluation attack."""

    def __post_init__(self) -> None:
        for name in ("images", "points", "steps"):
            value = getattr(self, name)
            if value != int(value) or value < 1:
                raise ValueError(f"{name} must be a whole number from 1 up, got {value:g}")
        if self.points % 2 == 0 or self.points < 3:
            raise ValueError(f"points must be odd and at least 3, got {self.points}")
        if not (math.isfinite(self.extent) and self.extent > 0):
            raise ValueError(f"extent must be a finite number above 0, got {self.extent:g}")

    @torch.no_grad()
    def __call__(
        self,
        subject: Subject,
        *,
        seed: int = 0,
        batch_size: int = 512,
        path: Path | None = None,
        progress: Progress = silent,
    ) -> LandscapesRecord:
        """Compute the landscapes.

        Raises:
            ValueError: eps is 0, images or logits are invalid, or `path` is a record of something else.
        """
        threat = subject.threat
        if threat.eps == 0:
            raise ValueError("landscapes need a threat model with eps above 0")
        images, labels = subject.images[: self.images], subject.labels[: self.images]
        check_images(images, labels)
        about = About(repr(self), str(threat), seed, subject.made_for)
        ids = content_ids(images.cpu().numpy())
        if found := LandscapesRecord.resume_on(path, about, ids, labels.cpu().numpy()):
            return found
        rng = rng_for(seed, "analyse", "landscapes", device=images.device).each(ids)
        axis = torch.linspace(-self.extent, self.extent, self.points, device=images.device)
        axis[self.points // 2] = 0
        with evaluating(subject.model):
            model = BatchInvariant(subject.model)
            check_logits(model(images), labels)
            # Use all steps, without stopping at misclassification, to get the direction of the worst point.
            attack = replace(evaluation_attack(self.steps, margin), until_fooled=False)
            worst = attack(model, images, labels, threat, rng.at("attack")) - images
            sideways = random_signs(images, threat, rng.at("signs"))
            heights, allowed = [], []
            for i in range(len(images)):
                over = _plane(images[i], worst[i], sideways[i], axis)
                logits = torch.cat([model(over[k : k + batch_size]) for k in range(0, len(over), batch_size)])
                heights.append(-margin(logits, labels[i].expand(len(over))).view(self.points, self.points))
                allowed.append(threat.contains(over, images[i].expand_as(over)).view(self.points, self.points))
                progress(i + 1, len(images), "images")
        result = LandscapesRecord(
            about=about,
            ids=ids,
            labels=labels.cpu().numpy(),
            axis=axis.cpu().numpy(),
            heights=torch.stack(heights).float().cpu().numpy(),
            allowed=torch.stack(allowed).cpu().numpy(),
            length=threat.distance(images + worst, images).cpu().numpy().astype(np.float32),
        )
        if path is not None:
            result.save(path)
        return result


def random_signs(images: Tensor, threat: ThreatModel, rng: Rng) -> Tensor:
    """A random direction for each image: entries of equal magnitude and random sign, norm eps."""
    signs = torch.where(rng.uniform(images.shape) < 0.5, -1.0, 1.0)
    size = threat.eps if threat.norm == "linf" else threat.eps / math.sqrt(images[0].numel())
    return signs * size


def _plane(image: Tensor, worst: Tensor, sideways: Tensor, axis: Tensor) -> Tensor:
    """(G * G, C, H, W) points of the plane: row v, column u."""
    v, u = (grid.reshape(-1, 1, 1, 1) for grid in torch.meshgrid(axis, axis, indexing="ij"))
    return image + u * worst + v * sideways
