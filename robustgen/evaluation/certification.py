"""Certificates by randomized smoothing: an l2 radius within which no perturbation changes the smoothed prediction.

    g(x) = argmax_c P(f(x + n) = c),    n normal with standard deviation sigma in each pixel

The smoothed classifier g is what is certified, not the classifier f. Source: Cohen et al. 2019, arXiv:1902.02918.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustgen.contracts import Progress, silent
from robustgen.evaluation.checks import check_images, check_logits
from robustgen.modes import batch_invariant, evaluating
from robustgen.randomness import Rng, content_ids, rng_for
from robustgen.records.certificates import ABSTAINED, Certificates
from robustgen.storage.files import SaveInterval, differences
from robustgen.storage.weights import weights_digest

_NO_CLASS = -1
"""The vote of a noisy copy whose logits are not all finite: it counts for no class."""


@dataclass(frozen=True)
class Smoothed:
    """The smoothed classifier g(x) = most likely class of model(x + noise), noise ~ N(0, sigma^2).

    Its methods call `predict` and `certify` of this module with this model and sigma; further arguments are passed on.
    """

    model: nn.Module
    sigma: float

    def predict(self, images: Tensor, **how: Any) -> np.ndarray:
        """Classes (N,), or ABSTAINED."""
        return predict(self.model, images, self.sigma, **how)

    def certify(self, images: Tensor, labels: Tensor, **how: Any) -> Certificates:
        """Classes and radii, one row per image."""
        return certify(self.model, images, labels, self.sigma, **how)


def certify(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    sigma: float,
    *,
    selection: int = 100,
    samples: int = 100_000,
    alpha: float = 0.001,
    seed: int = 0,
    batch_size: int = 1024,
    path: Path | None = None,
    progress: Progress = silent,
) -> Certificates:
    """CERTIFY of Cohen et al. for each image: the class of the smoothed classifier, and its certified radius.

        c = the class with most votes of `selection` noisy copies
        k = votes for c of `samples` new noisy copies
        p = lower one-sided Clopper-Pearson bound of P(f(x + n) = c) at level 1 - alpha
        abstain if p < 1/2, else radius = sigma * PhiInv(p)

    For each image the statement is wrong with probability at most alpha over the noise. Sampling stops as soon
    as the result would be to abstain even if every remaining copy voted for c. Nothing else stops early.

    Args (N images):
        model: images (N, C, H, W) in [0, 1], noise added and not clipped, to logits (N, K); used in evaluation mode
            and restored afterwards. Copies with NaN or infinite logits vote for no class.
        images: float32 in [0, 1], on the model's device.
        labels: (N,) integers in [0, K); they do not affect certificates, only certified accuracies.
        sigma: standard deviation of the noise, in pixels of [0, 1].
        seed: seed of the noise. Copy j of an image depends only on the seed, the image's content, j and the kind of
            device, so that neither the order of the images nor the batch size changes a certificate.
        batch_size: copies in one forward pass.
        path: file in which certificates are saved while the work runs, and from which it resumes.

    Raises:
        ValueError: images, labels or numbers cannot be certified, or `path` holds other certificates.
    """
    _check_numbers(sigma, samples, alpha, batch_size, selection)
    check_images(images, labels)
    ids = content_ids(images.cpu().numpy())
    blank = Certificates.blank(
        ids, labels.cpu().numpy(), images[0].numel(), sigma=float(sigma), alpha=float(alpha),
        selection=selection, samples=samples, seed=seed, model=weights_digest(model),
    )  # fmt: skip
    found = blank if path is None or not path.exists() else _resumed(path, blank)
    if found.finished:
        return found
    spare = samples - _votes_needed(samples, alpha)
    each = selection + samples
    interval = SaveInterval()

    def report(copies: int) -> None:
        done, count = int(found.done.sum()), len(found)
        note = f"{done} of {count} images, {int((found.predicted != ABSTAINED).sum())} certified"
        progress(done * each + copies, count * each, "passes", note)

    with evaluating(model), torch.no_grad():
        logits = batch_invariant(model, images[:1])
        check_logits(logits.expand(len(labels), -1) if logits.ndim == 2 else logits, labels)
        for row in np.flatnonzero(~found.done):
            rng = rng_for(seed, "certify", int(ids[row]), device=images.device)
            winners = _winners(model, images[row], sigma, each, rng, batch_size)
            chosen, votes, spent = _count(winners, selection, spare, report)
            lower = lower_bound(votes, samples, alpha)
            certain = lower >= 0.5
            found.votes[row], found.spent[row], found.lower[row] = votes, spent, lower
            found.predicted[row] = chosen if certain else ABSTAINED
            found.radius[row] = sigma * NormalDist().inv_cdf(lower) if certain else 0.0
            if path is not None and interval.due():
                with interval.saving():
                    found.save(path)
    report(0)
    if path is not None:
        found.save(path)
    return found


def predict(
    model: nn.Module,
    images: Tensor,
    sigma: float,
    *,
    samples: int = 1000,
    alpha: float = 0.001,
    seed: int = 0,
    batch_size: int = 1024,
    progress: Progress = silent,
) -> np.ndarray:
    """PREDICT of Cohen et al.: the class (N,) that the smoothed classifier gives each image, or ABSTAINED.

    The two classes with most votes, k1 >= k2, are compared by a two-sided binomial test of k1 in k1 + k2 at 1/2;
    abstains if its p-value exceeds alpha. A prediction differs from g(x) with probability at most alpha.

    Arguments are those of `certify`.
    """
    from scipy.stats import binomtest

    _check_numbers(sigma, samples, alpha, batch_size)
    check_images(images, torch.zeros(len(images), dtype=torch.int64))
    ids = content_ids(images.cpu().numpy())
    answers = np.full(len(images), ABSTAINED, dtype=np.int64)
    with evaluating(model), torch.no_grad():
        for row, image in enumerate(images):
            rng = rng_for(seed, "predict", int(ids[row]), device=images.device)
            winners = torch.cat(list(_winners(model, image, sigma, samples, rng, batch_size))).cpu().numpy()
            votes = np.bincount(winners[winners != _NO_CLASS], minlength=2)
            first = int(votes.argmax())
            second = int(np.delete(votes, first).max())
            total = int(votes[first]) + second
            if total and binomtest(int(votes[first]), total).pvalue <= alpha:
                answers[row] = first
            progress(row + 1, len(images), "images")
    return answers


def lower_bound(votes: int, samples: int, alpha: float) -> float:
    """Clopper and Pearson's lower bound of a probability at one-sided level 1 - alpha: BetaInv(alpha; k, n - k + 1)."""
    from scipy.stats import beta

    return float(beta.ppf(alpha, votes, samples - votes + 1)) if votes else 0.0


def _votes_needed(samples: int, alpha: float) -> int:
    """The fewest votes with which an image is certified; the bound rises with the votes."""
    few, enough = 0, samples
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if lower_bound(middle, samples, alpha) >= 0.5 else (middle, enough)
    return enough


def _winners(model: nn.Module, image: Tensor, sigma: float, count: int, rng: Rng, batch_size: int) -> Iterator[Tensor]:
    """The predicted classes of `count` noisy copies of an image (C, H, W), one batch at a time."""
    for noise in _noise_batches(image, count, rng, batch_size):
        logits = batch_invariant(model, noise.mul_(sigma).add_(image))
        yield torch.where(torch.isfinite(logits).all(1), logits.argmax(1), _NO_CLASS)


def _noise_batches(image: Tensor, count: int, rng: Rng, batch_size: int) -> Iterator[Tensor]:
    """Standard normal noise for `count` copies of an image, in batches (n, C, H, W) laid out channels-last.

    The noise is from a torch.Generator seeded by the place of `rng`: `Rng.normal` takes two to four times as long, and
    raised the total time above 1.05 times that of the passes of small networks. The disadvantage is that numbers differ
    between CPU and GPU. They are drawn in blocks of a fixed number of copies, so that batches can have any size.
    """
    channels, height, width = image.shape
    generator = torch.Generator(image.device).manual_seed(int(rng.keys) & (2**63 - 1))
    numbers = 2**16 if image.device.type == "cpu" else 2**22
    block = 2 ** int(math.log2(max(1, numbers // image.numel())))
    left = torch.empty(0, height, width, channels, device=image.device)
    for first in range(0, count, batch_size):
        size = min(batch_size, count - first)
        parts = [left] if len(left) else []
        while sum(map(len, parts)) < size:
            parts.append(torch.randn(block, height, width, channels, device=image.device, generator=generator))
        drawn = torch.cat(parts) if len(parts) > 1 else parts[0]
        left = drawn[size:]
        yield drawn[:size].permute(0, 3, 1, 2)


def _count(
    winners: Iterator[Tensor], selection: int, spare: int, report: Callable[[int], None]
) -> tuple[int, int, int]:
    """(class selected, votes for it, copies spent) from the winners of the selection and, after it, the estimation.

    Stops at the first vote with which more than `spare` votes are against the class.
    """
    ballots: list[np.ndarray] = []
    chosen, votes, against, seen = _NO_CLASS, 0, 0, 0
    for batch in winners:
        here = batch
        if seen < selection:
            ballots.append(batch[: selection - seen].cpu().numpy())
            here = batch[selection - seen :]
        seen += len(batch)
        if chosen == _NO_CLASS and seen >= selection:
            chosen = _most_voted(np.concatenate(ballots))
            if chosen == _NO_CLASS:
                return chosen, 0, selection
        other = here != chosen
        more = int(other.sum())
        if against + more > spare:
            # The position of the deciding vote, so that the record does not depend on batches.
            last = int(np.flatnonzero(other.cpu().numpy())[spare - against])
            return chosen, votes + last - (spare - against), seen - len(here) + last + 1
        against, votes = against + more, votes + len(here) - more
        report(seen)
    return chosen, votes, seen


def _most_voted(winners: np.ndarray) -> int:
    """The class with most votes, the first in case of a tie; _NO_CLASS if all votes are invalid."""
    valid = winners[winners != _NO_CLASS]
    return int(np.bincount(valid).argmax()) if len(valid) else _NO_CLASS


def _check_numbers(sigma: float, samples: int, alpha: float, batch_size: int, selection: int = 1) -> None:
    if not (np.isfinite(sigma) and sigma > 0):
        raise ValueError(f"sigma must be a finite number above 0, got {sigma}")
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha must lie between 0 and 0.5, got {alpha}")
    for name, value in (("selection", selection), ("samples", samples), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    needed = int(np.ceil(np.log2(1 / alpha)))
    if samples < needed:
        raise ValueError(f"{samples} samples cannot certify any image at alpha {alpha:g}; use at least {needed}")


def _resumed(path: Path, wanted: Certificates) -> Certificates:
    found = Certificates.load(path)
    changes = differences(found.about(), wanted.about())
    if not changes and not (np.array_equal(found.ids, wanted.ids) and np.array_equal(found.labels, wanted.labels)):
        changes = ["its images differ"]
    if changes:
        raise ValueError(
            f"{path} holds other certificates: {'; '.join(changes[:3])}; choose another path, or remove it"
        )
    return found
