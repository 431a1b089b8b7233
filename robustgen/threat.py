"""What an adversary may do to an image: the only lp geometry in the package."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustgen.randomness import Rng
from robustgen.units import parse_number, show_number

NORMS = ("linf", "l2")


def _per_image(values: Tensor, like: Tensor) -> Tensor:
    """(N,) shaped to multiply (N, ...)."""
    return values.view(-1, *([1] * (like.ndim - 1)))


@dataclass(frozen=True)
class ThreatModel:
    """All images within `eps` of the clean one in `norm`, and within the box [0, 1].

    norm: "linf" or "l2".
    eps:  radius in units of pixels in [0, 1]: 8/255 for 8 of 255 grey levels.

    Methods take images of shape (N, ...) and work on each of the N.
    """

    norm: str
    eps: float

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ValueError(f"unknown norm {self.norm!r}; known: {', '.join(NORMS)}")
        if not (math.isfinite(self.eps) and self.eps >= 0):
            raise ValueError(f"eps must be a finite number, at least 0, got {self.eps}")
        if self.norm == "linf" and self.eps > 1:
            raise ValueError(
                f"eps {self.eps:g} in linf exceeds the whole range of a pixel, [0, 1]; did you mean {self.eps:g}/255?"
            )

    @classmethod
    def parse(cls, text: str) -> ThreatModel:
        """From "NORM:EPS", such as "linf:8/255" or "l2:0.5"."""
        norm, colon, eps = text.partition(":")
        if not colon:
            raise ValueError(f"expected NORM:EPS such as linf:8/255, got {text!r}")
        return cls(norm.strip().lower(), parse_number(eps))

    def __str__(self) -> str:
        return f"{self.norm}:{show_number(self.eps)}"

    def distance(self, points: Tensor, images: Tensor) -> Tensor:
        """(N,) the norm of `points - images`."""
        delta = (points - images).flatten(1)
        return delta.abs().amax(1) if self.norm == "linf" else delta.norm(dim=1)

    def contains(self, points: Tensor, images: Tensor) -> Tensor:
        """(N,) whether each point is allowed, up to the rounding of float32."""
        inside = (points >= 0).flatten(1).all(1) & (points <= 1).flatten(1).all(1)
        return inside & (self.distance(points, images) <= self.eps * (1 + 1e-5) + 1e-7)

    def project(self, points: Tensor, images: Tensor) -> Tensor:
        """Allowed points near the given ones: first onto the ball around `images`, then into [0, 1].

        In linf that is the exact projection on the intersection. In l2 it is the usual one: as `images` lie
        in the box, clipping only brings a point nearer to them, so the result is in both.
        """
        if self.norm == "linf":
            return points.clamp(images - self.eps, images + self.eps).clamp_(0, 1)
        delta = points - images
        length = delta.flatten(1).norm(dim=1)
        shrink = torch.where(length > self.eps, self.eps / length.clamp_min(1e-30), torch.ones_like(length))
        return (images + delta * _per_image(shrink, images)).clamp_(0, 1)

    def ascend(self, gradient: Tensor) -> Tensor:
        """The step of norm 1 along which a linear function with this gradient rises most.

        The sign of the gradient in linf, the gradient over its length in l2; zero where the gradient is zero.
        """
        if self.norm == "linf":
            return gradient.sign()
        length = gradient.flatten(1).norm(dim=1).clamp_min(1e-30)
        return gradient / _per_image(length, gradient)

    def _direction(self, images: Tensor, rng: Rng) -> Tensor:
        noise = rng.normal(images.shape)
        return noise / _per_image(noise.flatten(1).norm(dim=1).clamp_min(1e-30), images)

    def random_start(self, images: Tensor, rng: Rng) -> Tensor:
        """A uniform draw from the ball, brought into the box."""
        if self.norm == "linf":
            return self.project(images + (2 * rng.uniform(images.shape) - 1) * self.eps, images)
        # The radius of a uniform point of a d-ball is U^(1/d).
        radius = rng.uniform((len(images),)).pow(1 / images[0].numel()) * self.eps
        return self.project(images + self._direction(images, rng) * _per_image(radius, images), images)

    def boundary_start(self, images: Tensor, rng: Rng) -> Tensor:
        """A random point of norm eps, brought into the box: AutoPGD's start.

        linf: uniform noise over its largest magnitude; l2: a uniform direction.
        """
        if self.norm == "linf":
            noise = 2 * rng.uniform(images.shape) - 1
            noise = noise / _per_image(noise.flatten(1).abs().amax(1).clamp_min(1e-30), images)
        else:
            noise = self._direction(images, rng)
        return self.project(images + noise * self.eps, images)
