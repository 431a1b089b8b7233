"""Losses of the smoothed classifier itself: adversarial training of it, or maximization of its certified radius."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustgen.contracts import Batch
from robustgen.losses.smoothing import check_noise, copies_of, noises_for
from robustgen.modes import frozen_bn_stats
from robustgen.randomness import Rng
from robustgen.threat import ThreatModel


def soft_vote(logits: Tensor) -> Tensor:
    """(N, K) log of the mean prediction of noisy copies, ln 1/m sum_j softmax(z_j), from logits (m, N, K)."""
    return logits.log_softmax(2).logsumexp(0) - math.log(len(logits))


@dataclass(frozen=True)
class SmoothAdv:
    """Adversarial training of the soft smoothed classifier.

        x' = argmax over |x' - x| <= eps  of  -sum_k target_k ln 1/m sum_j softmax(f(x' + n_j))_k
        loss = mean over j of CE(f(x' + n_j), target)

    by `steps` of projected gradient ascent in l2 from x itself, each of length 2 eps / steps. The attack and the
    training step use the same noises n_j. The radius `eps` is in l2 and independent of the threat model, because
    certificates are in l2. (The official code lets eps grow over the first ten epochs; here it is constant.)

    Source: Salman et al. 2019, arXiv:1906.04584, SmoothAdv-PGD. There eps is 0.25 to 2, steps 2 to 10, m 1 to 8.
    """

    sigma: float = 0.25
    draws: int = 2
    eps: float = 0.5
    steps: int = 2

    def __post_init__(self) -> None:
        check_noise(self.sigma, self.draws, eps=self.eps)
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")

    def attacked(self, model: nn.Module, images: Tensor, targets: Tensor, noises: Tensor) -> Tensor:
        """x' (N, C, H, W) for these noises (m * N, C, H, W); parameters and their gradients are not changed."""
        ball = ThreatModel("l2", self.eps)
        points = images.detach()
        for _ in range(self.steps):
            points = points.requires_grad_()
            logits = model(copies_of(points, self.draws) + noises).unflatten(0, (self.draws, -1))
            gain = -(targets * soft_vote(logits)).sum()
            (gradient,) = torch.autograd.grad(gain, points)
            step = ball.ascend(gradient) * (2 * self.eps / self.steps)
            points = ball.project(points.detach() + step, images)
        return points

    def __call__(self, model: nn.Module, batch: Batch, threat: ThreatModel, rng: Rng) -> Tensor:
        noises = noises_for(batch.images, self.sigma, self.draws, rng)
        with frozen_bn_stats(model):
            points = self.attacked(model, batch.images, batch.targets, noises)
        return F.cross_entropy(model(copies_of(points, self.draws) + noises), copies_of(batch.targets, self.draws))


def macer_loss(
    logits: Tensor, targets: Tensor, *, sigma: float, weight: float, gamma: float, temperature: float
) -> Tensor:
    """Cross-entropy of the soft smoothed classifier, plus a hinge loss on its certified radii.

        mean over n of  -sum_k target_k ln(q_nk + 1e-10)  +  weight * sigma / 2 * max(gamma - xi_n, 0)
        q_n = 1/m sum_j softmax(z_jn),   p_n = 1/m sum_j softmax(temperature * z_jn)
        xi_n = PhiInv(largest of p_n) - PhiInv(second largest of p_n)

    The second term is for images that p_n classifies correctly and whose xi_n is finite; their certified radius is
    sigma / 2 * xi.

    Args (m copies, N images, K classes):
        logits: (m, N, K).
        targets: (N, K) probabilities; the label is the most probable class.
        weight: lambda in the paper; 12 at sigma 0.25.
        gamma: target radius, in units of sigma / 2; 8.
        temperature: beta in the paper; 16.

    Source: Zhai et al. 2020, arXiv:2001.02378.
    """
    error = -(targets * (logits.softmax(2).mean(0) + 1e-10).log()).sum()
    top, classes = (temperature * logits).softmax(2).mean(0).topk(2, dim=1)
    with torch.no_grad():
        gap = torch.special.ndtri(top[:, 0]) - torch.special.ndtri(top[:, 1])
        counted = (classes[:, 0] == targets.argmax(1)) & torch.isfinite(gap) & (gap <= gamma)
    # Select rows first, then compute them again: an infinite quantile gives NaN gradients even where it is masked.
    lacking = gamma - (torch.special.ndtri(top[counted, 0]) - torch.special.ndtri(top[counted, 1]))
    return (error + weight * sigma / 2 * lacking.sum()) / len(targets)


@dataclass(frozen=True)
class MACER:
    """MACER: training without attacks that maximizes the certified radius (`macer_loss`)."""

    sigma: float = 0.25
    draws: int = 16
    weight: float = 12.0
    gamma: float = 8.0
    temperature: float = 16.0

    def __post_init__(self) -> None:
        check_noise(self.sigma, self.draws, weight=self.weight, gamma=self.gamma, temperature=self.temperature)

    def __call__(self, model: nn.Module, batch: Batch, threat: ThreatModel, rng: Rng) -> Tensor:
        noisy = copies_of(batch.images, self.draws) + noises_for(batch.images, self.sigma, self.draws, rng)
        logits = model(noisy).unflatten(0, (self.draws, -1))
        return macer_loss(
            logits, batch.targets, sigma=self.sigma, weight=self.weight, gamma=self.gamma, temperature=self.temperature
        )
