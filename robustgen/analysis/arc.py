"""ARC: how large a perturbation hides whether an image is real or generated (arXiv:2104.09425, Sec. 3)."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from robustgen.analysis.contracts import ProxySubject
from robustgen.analysis.subjects import CLASSES, GENERATED, REAL, check_subject, digest, to_floats
from robustgen.attacks import APGD, PGD
from robustgen.augment import AUGMENTATIONS
from robustgen.contracts import Attack, Augment, Batch, Loss, Progress, silent
from robustgen.images import DatasetInfo, one_hot, to_unit
from robustgen.losses.adversarial import Adversarial, Plain
from robustgen.models import build_model
from robustgen.modes import BatchInvariant, channels_last, debias_statistics, evaluating
from robustgen.objectives import margin
from robustgen.randomness import Rng, content_ids, rng_for
from robustgen.records.arc import ARCResult
from robustgen.records.history import History
from robustgen.records.record import BROKEN, PENDING, ROBUST, About
from robustgen.storage.checkpoints import Stateful
from robustgen.storage.weights import load_weights, save_weights
from robustgen.threat import ThreatModel
from robustgen.training.classifier import parameter_groups
from robustgen.training.ema import EMA, ramped
from robustgen.training.loop import Loop
from robustgen.training.schedules import rising_cosine, set_lr

MULTIPLES = (0, 1 / 32, 1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1, 1.5, 2, 3, 4)
"""Default radii, in units of eps: fine at first, where each discriminator starts from its neighbour."""


@dataclass(frozen=True)
class ARC:
    """Area under the robust discrimination curve.

    For each radius a discriminator is trained on attacked real and generated images, half and half, and attacked
    again on held-out ones. p(r) is the share told rightly whatever is done within r, both kinds counting alike;
    ARC is the area of (p - 1/2)+ over r. Small is close. The discriminator of a radius starts from the weights of the
    one before, the first from scratch; all are averaged weights. Radii are taken in order until chance explains what
    is told apart. Real images: `train` to learn from, `test` held out; generated images are split at random, as many
    held out as there are test images, at most half.

    The paper's discriminators, grid and attacks are not published; these are ours.
    """

    radii: tuple[float, ...] = ()
    """In pixels of [0, 1], from 0 up; if none is given, multiples of eps up to 4."""
    architecture: str = "wrn-10-1"
    augment: str = "none"
    """Of real and generated images alike, while learning."""
    total_images: int = 160 * 128
    """Seen at the first radius, real and generated together ..."""
    further_images: int = 40 * 128
    """... and at each further one; more may fit the training images alone where these are few."""
    batch_size: int = 128
    peak_lr: float = 0.1
    steps: int = 5
    """Of the inner attack: steepest ascent by 2.5 / steps of the radius."""
    test_steps: int = 40
    """Of the attack on held-out images: Auto-PGD on the margin."""

    def __post_init__(self) -> None:
        if any(after <= before for before, after in pairwise(self.radii)) or any(r < 0 for r in self.radii):
            raise ValueError(f"radii must ascend from 0 or more, got {', '.join(f'{r:g}' for r in self.radii)}")
        if self.augment not in AUGMENTATIONS:
            raise ValueError(f"unknown augmentation {self.augment!r}; known: {', '.join(AUGMENTATIONS)}")
        for name in ("total_images", "further_images", "steps", "test_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.batch_size < 2 or self.batch_size % 2:
            raise ValueError(f"batch_size must be even, half real and half generated, got {self.batch_size}")

    def __call__(
        self,
        subject: ProxySubject,
        *,
        seed: int = 0,
        batch_size: int = 512,
        path: Path | None = None,
        progress: Progress = silent,
    ) -> ARCResult:
        """Measure; saved after each radius, taken up within it.

        Discriminators are kept in `discriminators(path, record)`, where `score` finds them.

        Raises:
            ValueError: too few images, or `path` holds something else.
        """
        check_subject(subject)
        radii, real, generated, held_out, is_real = self._prepare(subject, seed)
        images_of = digest(subject.train, subject.test, subject.generated)
        about = About(repr(self), subject.threat.norm, seed, images_of)
        found = ARCResult.resume(path, about)
        record = found or _unmeasured(about, radii, held_out, is_real)
        if path is not None and found is None:
            record.save(path)
        with tempfile.TemporaryDirectory() as aside:
            folder = discriminators(path, record) if path is not None else Path(aside)
            model: nn.Module | None = None
            for at, radius in enumerate(radii):
                if record.finished:
                    break
                if record.stands[0, at] != PENDING:
                    continue
                threat = ThreatModel(subject.threat.norm, float(radius))
                if model is None and at:
                    model = _load(folder / f"{at - 1:02d}", self.architecture, subject.info).to(subject.train.device)
                pairs = Pairs(real, generated, self.batch_size, AUGMENTATIONS[self.augment], rng_for(seed, "arc", at))
                model = self._train(model, pairs, threat, subject.info, folder / f"{at:02d}", seed, at, progress)
                labels = torch.where(torch.from_numpy(is_real), REAL, GENERATED).to(held_out.device)
                attack = APGD(self.test_steps, margin) if radius else None
                rng = rng_for(seed, "arc", "held out", device=held_out.device)
                stands, score = robustly_right(model, held_out, labels, threat, attack, rng, batch_size)
                record = _with(record, at, stands, score)
                if path is not None:
                    record.save(path)
        return record

    def _prepare(self, subject: ProxySubject, seed: int) -> tuple[np.ndarray, Tensor, Tensor, Tensor, np.ndarray]:
        """Radii; real and generated images to learn from; all held-out ones, and which of them are real."""
        eps = subject.threat.eps
        if not (self.radii or eps):
            raise ValueError("ARC needs radii, or a threat model with eps above 0 to take multiples of")
        radii = np.array(self.radii or [multiple * eps for multiple in MULTIPLES], dtype=np.float64)
        count = min(len(subject.test), len(subject.generated) // 2)
        if min(count, len(subject.train)) < 10:
            raise ValueError(
                f"ARC needs 10 real training images, 10 test images and 20 generated ones or more, got "
                f"{len(subject.train)}, {len(subject.test)} and {len(subject.generated)}"
            )
        order = torch.from_numpy(split_order(len(subject.generated), seed)).to(subject.generated.device)
        held_out = torch.cat([to_floats(subject.test), to_floats(subject.generated[order[:count]])])
        is_real = np.arange(len(held_out)) < len(subject.test)
        return radii, subject.train, subject.generated[order[count:]], held_out, is_real

    def _train(
        self,
        model: nn.Module | None,
        pairs: Pairs,
        threat: ThreatModel,
        info: DatasetInfo,
        folder: Path,
        seed: int,
        at: int,
        progress: Progress,
    ) -> nn.Module:
        """The discriminator of one radius, resumed from `folder` and left there."""
        if model is None:
            model = _build(self.architecture, info, rng_for(seed, "arc", "initialise")).to(pairs.real.device)
        loss = Adversarial(PGD(self.steps, 2.5 / self.steps)) if threat.eps else Plain()
        images = self.further_images if at else self.total_images
        rng = rng_for(seed, "arc", at, "train", device=pairs.real.device)

        def told(done: int, total: int, unit: str, note: str = "") -> None:
            progress(done, total, unit, f"radius {threat.eps:.4g}, {note}")

        trained = train_discriminator(
            model, pairs, loss, threat, max(1, images // self.batch_size), self.peak_lr, folder, rng, told
        )
        save_weights(folder / "weights.safetensors", trained)
        (folder / "checkpoint.pt").unlink(missing_ok=True)
        return trained


class Pairs:
    """Batches of half real and half generated images, drawn with replacement; batch t depends on t alone."""

    def __init__(self, real: Tensor, generated: Tensor, batch_size: int, augment: Augment | None, rng: Rng):
        self.real, self.generated, self.half = real, generated, batch_size // 2
        self.augment, self.rng = augment, rng.to(real.device)

    def batch(self, step: int) -> Batch:
        rng = self.rng.at("batch", step)
        parts = [
            to_floats(images[rng.at(name).integers(len(images), (self.half,))])
            for name, images in (("real", self.real), ("generated", self.generated))
        ]
        labels = torch.tensor([REAL, GENERATED], device=self.real.device).repeat_interleave(self.half)
        images = torch.cat(parts).contiguous(memory_format=torch.channels_last)
        targets = one_hot(labels, 2)
        if self.augment is not None:
            images, targets = self.augment(images, targets, rng.at("augment"))
        return Batch(images, targets, labels == GENERATED)


def train_discriminator(
    model: nn.Module,
    pairs: Pairs,
    loss: Loss,
    threat: ThreatModel,
    steps: int,
    peak_lr: float,
    folder: Path,
    rng: Rng,
    progress: Progress = silent,
) -> nn.Module:
    """Train in place, resuming from `folder`; returns the EMA weights.

    As classifiers are trained: SGD with Nesterov momentum, a short warm-up and a cosine to 0, zero-debiased
    statistics.
    """
    model.train().requires_grad_(True)
    optimizer = torch.optim.SGD(parameter_groups(model, 5e-4), lr=peak_lr, momentum=0.9, nesterov=True)
    ema, history = EMA(model), History()
    state: dict[str, Stateful] = {"model": model, "average": ema, "optimiser": optimizer, "history": history}
    with Loop(
        folder / "checkpoint.pt", steps, state, unit_per_step=2 * pairs.half, progress=progress,
        log=lambda row: history.add(**row),
    ) as loop:  # fmt: skip
        for t in loop:
            set_lr(optimizer, peak_lr * rising_cosine(t, steps, round(0.1 * steps)))
            debias_statistics(model, t, 0.9)
            value = loss(model, pairs.batch(t), threat, rng.at(t))
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            ema.update(model, ramped(0.98, t))
            loop.record(value)
    history.save(folder / "history.npz")
    return ema.model.eval()


def split_order(count: int, seed: int) -> np.ndarray:
    """Positions of generated images: held out first, then to learn from."""
    return rng_for(seed, "arc", "split").permutation(count)


@torch.no_grad()
def robustly_right(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    attack: Attack | None,
    rng: Rng,
    batch_size: int = 512,
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) ROBUST or BROKEN of each image, and (N,) the clean image's logit of real minus that of generated.

    An image stands when it is right clean and the attack finds nothing; without one, clean alone counts. The model is
    asked again about what the attack claims.
    """
    stands, score = [], []
    streams = rng.each(content_ids(images.cpu().numpy()))
    with evaluating(model):
        stable = BatchInvariant(model)
        for first in range(0, len(images), batch_size):
            some, truth = images[first : first + batch_size], labels[first : first + batch_size]
            logits = stable(some)
            right = (logits.argmax(1) == truth) & torch.isfinite(logits).all(1)
            score.append(logits[:, REAL] - logits[:, GENERATED])
            rows = right.nonzero().squeeze(1)
            if attack is not None and len(rows):
                found = attack(stable, some[rows], truth[rows], threat, streams.rows(first + rows))
                logits = stable(found)
                wrong = (logits.argmax(1) != truth[rows]) | ~torch.isfinite(logits).all(1)
                right[rows[wrong & threat.contains(found, some[rows])]] = False
            stands.append(right)
    standing = torch.cat(stands).cpu().numpy()
    return np.where(standing, ROBUST, BROKEN).astype(np.int8), torch.cat(score).float().cpu().numpy()


def discriminators(path: Path, record: ARCResult) -> Path:
    """The folder of a record's discriminators, NN/weights.safetensors; another for other images or settings."""
    about = hashlib.sha256(repr(record.about).encode()).hexdigest()[:12]
    return path.with_suffix("") / about


def load_discriminators(path: Path, info: DatasetInfo, arc: ARC) -> list[nn.Module]:
    """The robust discriminators of a record that `arc` has left at `path`: those of radii above 0.

    Raises:
        ValueError: the record is missing or not finished, or there is none.
    """
    record = ARCResult.load(path)
    if not record.finished:
        raise ValueError(f"{path} is not finished; repeat the command that made it")
    chosen = [at for at in range(record.reached) if record.radii[at] > 0]
    if not chosen:
        raise ValueError(f"{path} holds no discriminator of a radius above 0; add radii")
    folder = discriminators(path, record)
    return [_load(folder / f"{at:02d}", arc.architecture, info).eval().requires_grad_(False) for at in chosen]


@torch.no_grad()
def score(
    models: Sequence[nn.Module],
    read: Callable[[np.ndarray], np.ndarray],
    count: int,
    *,
    batch_size: int = 1024,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> np.ndarray:
    """(count,) float32: how real each image looks, the mean over discriminators of softmax(logits)_real.

    Images that look most real are worth keeping (arXiv:2104.09425, Table 11). Those that the discriminators have
    learnt from are scored a little lower than they deserve.

    Args:
        models: robust discriminators, `load_discriminators`.
        read: positions to images, uint8 (n, H, W, C): `ProxySet.images`.
    """
    scores = np.empty(count, dtype=np.float32)
    for model in models:
        model.to(device).eval()
    for first in range(0, count, batch_size):
        index = np.arange(first, min(first + batch_size, count))
        images = to_unit(torch.from_numpy(read(index)).to(device).permute(0, 3, 1, 2))
        likely = [BatchInvariant(model)(images).softmax(1)[:, REAL] for model in models]
        scores[index] = torch.stack(likely).mean(0).cpu().numpy()
        progress(int(index[-1]) + 1, count, "images")
    return scores


def _build(architecture: str, info: DatasetInfo, rng: Rng | None = None) -> nn.Module:
    return channels_last(build_model(architecture, replace(info, classes=CLASSES), rng))


def _load(folder: Path, architecture: str, info: DatasetInfo) -> nn.Module:
    model = _build(architecture, info)
    load_weights(model, folder / "weights.safetensors")
    return model


def _unmeasured(about: About, radii: np.ndarray, held_out: Tensor, is_real: np.ndarray) -> ARCResult:
    shape = (len(is_real), len(radii))
    return ARCResult(
        about=about,
        radii=radii,
        ids=content_ids(held_out.cpu().numpy()),
        real=is_real,
        stands=np.full(shape, PENDING, dtype=np.int8),
        score=np.full(shape, math.nan, dtype=np.float32),
        ended=np.array(False),
    )


def _with(record: ARCResult, at: int, stands: np.ndarray, score: np.ndarray) -> ARCResult:
    """The record with one more radius; it ends where the 95 % interval comes down to a half."""
    all_stands, all_scores = record.stands.copy(), record.score.copy()
    all_stands[:, at], all_scores[:, at] = stands, score
    record = replace(record, stands=all_stands, score=all_scores)
    last = at + 1 == len(record.radii) or record.discrimination_accuracy(at).interval[0] <= 0.5
    return replace(record, ended=np.array(last))
