"""Threat models: the perturbations that an adversary may make; the only lp geometry in the package."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustgen.randomness import Rng
from robustgen.units import parse_number, show_number

NORMS = ("linf", "l2", "l1")


def _per_image(values: Tensor, like: Tensor) -> Tensor:
    """(N,) shaped to multiply (N, ...)."""
    return values.view(-1, *([1] * (like.ndim - 1)))


@dataclass(frozen=True)
class ThreatModel:
    """All images within `eps` of the clean one in `norm`, and within the box [0, 1].

    norm: "linf", "l2" or "l1".
    eps:  radius in units of pixels in [0, 1]: 8/255 for 8 of 255 gray levels; in l1 the sum over all of them.

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
        return self.length(points - images)

    def length(self, moves: Tensor) -> Tensor:
        """(N,) the norm of each of (N, ...)."""
        moves = moves.flatten(1)
        if self.norm == "linf":
            return moves.abs().amax(1)
        return moves.norm(dim=1) if self.norm == "l2" else moves.abs().sum(1)

    def contains(self, points: Tensor, images: Tensor) -> Tensor:
        """(N,) whether each point is allowed, up to the rounding of float32."""
        inside = (points >= 0).flatten(1).all(1) & (points <= 1).flatten(1).all(1)
        return inside & (self.distance(points, images) <= self.eps * (1 + 1e-5) + 1e-7)

    def project(self, points: Tensor, images: Tensor) -> Tensor:
        """Allowed points near the given ones: first onto the ball around `images`, then into [0, 1].

        In linf that is the exact projection on the intersection. In l2 it is the usual one: as `images` lie
        in the box, clipping only brings a point nearer to them, so the result is in both. In l1, where clipping
        would waste much of the radius, it is the exact projection on the intersection again.
        """
        if self.norm == "linf":
            return points.clamp(images - self.eps, images + self.eps).clamp_(0, 1)
        if self.norm == "l1":
            return _project_l1(points, images, self.eps)
        delta = points - images
        length = delta.flatten(1).norm(dim=1)
        shrink = torch.where(length > self.eps, self.eps / length.clamp_min(1e-30), torch.ones_like(length))
        return (images + delta * _per_image(shrink, images)).clamp_(0, 1)

    def ascend(self, gradient: Tensor) -> Tensor:
        """Steepest ascent: the step of norm 1 along which a linear function with this gradient increases most.

        The sign of the gradient in linf, the gradient over its length in l2, in l1 the single pixel with the
        steepest gradient; zero where the gradient is zero.
        """
        if self.norm == "linf":
            return gradient.sign()
        if self.norm == "l1":
            flat = gradient.flatten(1)
            steepest = flat.abs().argmax(1, keepdim=True)
            step = torch.zeros_like(flat).scatter(1, steepest, flat.gather(1, steepest).sign())
            return step.view_as(gradient)
        length = gradient.flatten(1).norm(dim=1).clamp_min(1e-30)
        return gradient / _per_image(length, gradient)

    def _direction(self, images: Tensor, rng: Rng) -> Tensor:
        """Random direction of norm 1: uniform on the sphere in l2; exponential magnitudes with random signs in l1."""
        if self.norm == "l2":
            noise = rng.normal(images.shape)
        else:
            signed = 2 * rng.uniform(images.shape) - 1
            noise = signed.sign() * -torch.log1p(-signed.abs())
        return noise / _per_image(self.length(noise).clamp_min(1e-30), images)

    def random_start(self, images: Tensor, rng: Rng) -> Tensor:
        """A uniform sample from the ball, clipped to the box."""
        if self.norm == "linf":
            return self.project(images + (2 * rng.uniform(images.shape) - 1) * self.eps, images)
        # The radius of a uniform point of a d-ball is U^(1/d), whatever the norm.
        radius = rng.uniform((len(images),)).pow(1 / images[0].numel()) * self.eps
        return self.project(images + self._direction(images, rng) * _per_image(radius, images), images)

    def boundary_start(self, images: Tensor, rng: Rng) -> Tensor:
        """A random perturbation of norm eps, clipped to the box: Auto-PGD's start.

        linf: uniform noise over its largest magnitude; l2: a uniform direction; l1: normal noise, projected.
        """
        if self.norm == "l1":
            return self.project(images + rng.normal(images.shape), images)
        if self.norm == "linf":
            noise = 2 * rng.uniform(images.shape) - 1
            noise = noise / _per_image(noise.flatten(1).abs().amax(1).clamp_min(1e-30), images)
        else:
            noise = self._direction(images, rng)
        return self.project(images + noise * self.eps, images)


def _project_l1(points: Tensor, images: Tensor, eps: float) -> Tensor:
    """The nearest point (Euclidean) within `eps` in l1 of `images`, which lie in the box, and within the box.

    A coordinate that moved by m, with room r to the box's edge on that side, keeps min(max(m - t, 0), r) of it. The
    total falls as t grows; the t for which it is eps is found by bisection and then solved on its linear piece.
    Source: Croce & Hein 2021, arXiv:2103.01208 (by sorting there).
    """
    moves = (points - images).flatten(1)
    size = moves.abs()
    room = torch.where(moves > 0, 1 - images.flatten(1), images.flatten(1)).clamp_min(0)
    low = torch.zeros_like(size[:, :1])
    high = size.amax(1, keepdim=True)
    for _ in range(24):
        middle = (low + high) / 2
        too_much = (size - middle).clamp_min(0).minimum(room).sum(1, keepdim=True) > eps
        low, high = torch.where(too_much, middle, low), torch.where(too_much, high, middle)
    kept = (size - low).clamp_min(0)
    sloped = (kept > 0) & (kept < room)
    count = sloped.sum(1, keepdim=True)
    fixed = torch.where(sloped, 0.0, kept.minimum(room)).sum(1, keepdim=True)
    exact = (torch.where(sloped, size, 0.0).sum(1, keepdim=True) + fixed - eps) / count.clamp_min(1)
    cut = torch.where((count > 0) & (low > 0), exact.clamp(low, high), low)
    kept = (size - cut).clamp_min(0).minimum(room)
    # Rounding of float32 may exceed the radius: rescale. Points inside, up to rounding, stay unchanged.
    kept = kept * (eps / kept.sum(1, keepdim=True).clamp_min(1e-30)).clamp_max(1)
    inside = size.minimum(room)
    kept = torch.where(inside.sum(1, keepdim=True) <= eps * (1 + 1e-6), inside, kept)
    return (images.flatten(1) + moves.sign() * kept).clamp_(0, 1).view_as(points)
