"""ARC: how well real and generated images can be discriminated under attack (arXiv:2104.09425, Sec. 3)."""

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
from robustgen.analysis.subjects import DISCRIMINATOR_CLASSES, GENERATED, REAL, check_subject, digest, to_floats
from robustgen.attacks import APGD, PGD
from robustgen.augment import AUGMENTATIONS
from robustgen.contracts import Attack, Augment, Batch, Loss, Progress, silent
from robustgen.images import DatasetInfo, one_hot, to_unit
from robustgen.losses.adversarial import Adversarial, Plain
from robustgen.models import build_model
from robustgen.modes import BatchInvariant, channels_last, debias_statistics, evaluating
from robustgen.objectives import margin
from robustgen.randomness import Rng, content_ids, rng_for
from robustgen.records.arc import ARCRecord
from robustgen.records.history import History
from robustgen.records.record import BROKEN, PENDING, ROBUST, About
from robustgen.runtime.distributed import from_first, gathered, in_turns, place
from robustgen.storage.checkpoints import Stateful
from robustgen.storage.weights import load_weights, save_weights
from robustgen.threat import ThreatModel
from robustgen.training.classifier import parameter_groups
from robustgen.training.ema import EMA, ramped
from robustgen.training.loop import Loop
from robustgen.training.schedules import rising_cosine, set_lr

_MULTIPLES = (0, 1 / 32, 1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1, 1.5, 2, 3, 4)
"""Default radii in units of eps, with small first steps, because each discriminator starts from the previous one."""


@dataclass(frozen=True)
class ARC:
    """Area under the robust discrimination curve.

    For each radius r a discriminator is adversarially trained on real and generated images, half each, and attacked
    on held-out ones. p(r) is its robust accuracy, averaged over both kinds; ARC is the area of (p - 1/2)+ over r. A
    small ARC means that generated images are close to real ones. Each discriminator starts from the EMA weights of the
    previous radius, the first from random weights. Radii are processed in ascending order until p(r) is not
    significantly above 1/2. Real images: `train` for training, `test` held out. Generated images are split at random:
    as many are held out as there are test images, at most half.

    The discriminators, radii and attacks of the paper are not published; these are our own choices.
    """

    radii: tuple[float, ...] = ()
    """Radii in pixels of [0, 1], ascending; default: multiples of eps up to 4 eps."""
    architecture: str = "wrn-10-1"
    augment: str = "none"
    """Augmentation of real and generated images during training."""
    total_images: int = 160 * 128
    """Training images seen at the first radius, real and generated together."""
    further_images: int = 40 * 128
    """Training images seen at each further radius. Higher values can overfit a small training set."""
    batch_size: int = 128
    peak_lr: float = 0.1
    steps: int = 5
    """Steps of the inner maximization: PGD with step size 2.5 / steps * radius."""
    test_steps: int = 40
    """Steps of the attack on held-out images: Auto-PGD on the margin."""

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
    ) -> ARCRecord:
        """Measure ARC. The record is saved after each radius; an interrupted training resumes from its checkpoint.

        Discriminators are stored in `discriminators(path, record)`, from which `load_discriminators` reads them.

        Of P processes (`runtime.distributed`) each attacks a P-th of the held-out images, which is most of the work.
        All train the same discriminators and take the weights of the first, which writes the files.

        Raises:
            ValueError: too few images, or `path` is a record of something else.
        """
        check_subject(subject)
        radii, real, generated, held_out, is_real = self._prepare(subject, seed)
        images_of = digest(subject.train, subject.test, subject.generated)
        about = About(repr(self), subject.threat.norm, seed, images_of)
        found = from_first(lambda: ARCRecord.resume(path, about))
        record = found or _unmeasured(about, radii, held_out, is_real)
        writes = path is not None and place()[0] == 0
        if path is not None and writes and found is None:
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
                rank, world = place()
                share = slice(len(labels) * rank // world, len(labels) * (rank + 1) // world)
                parts = gathered(robustly_right(model, held_out[share], labels[share], threat, attack, rng, batch_size))
                record = _with(record, at, *map(np.concatenate, zip(*parts, strict=True)))
                if path is not None and writes:
                    record.save(path)
        return record

    def _prepare(self, subject: ProxySubject, seed: int) -> tuple[np.ndarray, Tensor, Tensor, Tensor, np.ndarray]:
        """(radii, real and generated training images, held-out images, which of these are real)."""
        eps = subject.threat.eps
        if not (self.radii or eps):
            raise ValueError("ARC needs radii, or a threat model with eps above 0 to take multiples of")
        radii = np.array(self.radii or [multiple * eps for multiple in _MULTIPLES], dtype=np.float64)
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
        """Train the discriminator of one radius, with checkpoint and final weights in `folder`."""
        if model is None:
            model = _build(self.architecture, info, rng_for(seed, "arc", "initialise")).to(pairs.real.device)
        loss = Adversarial(PGD(self.steps, 2.5 / self.steps)) if threat.eps else Plain()
        images = self.further_images if at else self.total_images
        rng = rng_for(seed, "arc", at, "train", device=pairs.real.device)

        def with_radius(done: int, total: int, unit: str, note: str = "") -> None:
            progress(done, total, unit, f"radius {threat.eps:.4g}, {note}")

        trained = train_discriminator(
            model, pairs, loss, threat, max(1, images // self.batch_size), self.peak_lr, folder, rng, with_radius
        )
        of_first = from_first(lambda: {name: value.cpu() for name, value in trained.state_dict().items()})
        if place()[0] == 0:
            save_weights(folder / "weights.safetensors", trained)
            (folder / "checkpoint.pt").unlink(missing_ok=True)
        else:
            trained.load_state_dict(of_first)
        return trained


class Pairs:
    """Batches of half real and half generated images, drawn with replacement; batch t depends only on t."""

    def __init__(self, real: Tensor, generated: Tensor, batch_size: int, augment: Augment | None, rng: Rng):
        self.real, self.generated, self.half = real, generated, batch_size // 2
        self.augment, self.rng = augment, rng.to(real.device)

    def batch(self, step: int) -> Batch:
        rng = self.rng.at("batch", step)
        halves = [
            to_floats(images[rng.at(name).integers(len(images), (self.half,))])
            for name, images in (("real", self.real), ("generated", self.generated))
        ]
        labels = torch.tensor([REAL, GENERATED], device=self.real.device).repeat_interleave(self.half)
        images = torch.cat(halves).contiguous(memory_format=torch.channels_last)
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
    """Train a discriminator in place, resuming from the checkpoint in `folder`; returns the model with EMA weights.

    Training settings are those of classifiers: SGD with Nesterov momentum, short warm-up, cosine schedule to 0,
    zero-debiased batch-norm statistics.
    """
    model.train().requires_grad_(True)
    optimizer = torch.optim.SGD(parameter_groups(model, 5e-4), lr=peak_lr, momentum=0.9, nesterov=True)
    ema, history = EMA(model), History()
    state: dict[str, Stateful] = {"model": model, "average": ema, "optimiser": optimizer, "history": history}
    with Loop(
        folder / "checkpoint.pt", steps, state, unit_per_step=2 * pairs.half, progress=progress,
        writes=place()[0] == 0, log=lambda row: history.add(**row),
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
    if place()[0] == 0:
        history.save(folder / "history.npz")
    return ema.model.eval()


def split_order(count: int, seed: int) -> np.ndarray:
    """A random order of generated images; the first ones are held out, the rest is for training."""
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
    """(N,) ROBUST or BROKEN for each image, and (N,) logit "real" minus logit "generated" of the clean images.

    An image is robust if its clean version is classified correctly and the attack finds no adversarial example. Without
    an attack only the clean image counts. Results of the attack are verified with the model.
    """
    if not len(images):  # more processes than images
        return np.empty(0, dtype=np.int8), np.empty(0, dtype=np.float32)
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
    robust = torch.cat(stands).cpu().numpy()
    return np.where(robust, ROBUST, BROKEN).astype(np.int8), torch.cat(score).float().cpu().numpy()


def discriminators(path: Path, record: ARCRecord) -> Path:
    """The folder of a record's discriminators (NN/weights.safetensors), unique to its images and settings."""
    about = hashlib.sha256(repr(record.about).encode()).hexdigest()[:12]
    return path.with_suffix("") / about


def load_discriminators(path: Path, info: DatasetInfo, arc: ARC) -> list[nn.Module]:
    """Load the robust discriminators (radii above 0) that belong to the record of `arc` at `path`.

    Raises:
        ValueError: the record is missing or not finished, or has no radius above 0.
    """
    record = ARCRecord.load(path)
    if not record.finished:
        raise ValueError(f"{path} is not finished; run the command that created it again to finish it")
    chosen = [at for at in range(record.reached) if record.radii[at] > 0]
    if not chosen:
        raise ValueError(f"{path} has no discriminator of a radius above 0; add radii")
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
    """(count,) float32 score of each image: mean over discriminators of the predicted probability of "real".

    Scores can select the most realistic images (arXiv:2104.09425, Table 11). Images from the discriminators' training
    set get slightly lower scores than held-out ones. Processes (`runtime.distributed`) share the images, and all return
    the scores.

    Args:
        models: robust discriminators, see `load_discriminators`.
        read: function from positions to images, uint8 (n, H, W, C), such as `ProxySet.images`.
    """
    scores = np.empty(count, dtype=np.float32)
    for model in models:
        model.to(device).eval()

    def batch(number: int) -> np.ndarray:
        index = np.arange(number * batch_size, min((number + 1) * batch_size, count))
        images = to_unit(torch.from_numpy(read(index)).to(device).permute(0, 3, 1, 2))
        probabilities = [BatchInvariant(model)(images).softmax(1)[:, REAL] for model in models]
        return torch.stack(probabilities).mean(0).cpu().numpy()

    done = 0
    for some in in_turns(math.ceil(count / batch_size), batch):
        scores[done : done + len(some)] = some
        done += len(some)
        progress(done, count, "images")
    return from_first(lambda: scores)


def _build(architecture: str, info: DatasetInfo, rng: Rng | None = None) -> nn.Module:
    return channels_last(build_model(architecture, replace(info, classes=DISCRIMINATOR_CLASSES), rng))


def _load(folder: Path, architecture: str, info: DatasetInfo) -> nn.Module:
    model = _build(architecture, info)
    load_weights(model, folder / "weights.safetensors")
    return model


def _unmeasured(about: About, radii: np.ndarray, held_out: Tensor, is_real: np.ndarray) -> ARCRecord:
    shape = (len(is_real), len(radii))
    return ARCRecord(
        about=about,
        radii=radii,
        ids=content_ids(held_out.cpu().numpy()),
        real=is_real,
        stands=np.full(shape, PENDING, dtype=np.int8),
        score=np.full(shape, math.nan, dtype=np.float32),
        ended=np.array(False),
    )


def _with(record: ARCRecord, at: int, stands: np.ndarray, score: np.ndarray) -> ARCRecord:
    """The record with one more radius. It ends when the 95 % interval of the accuracy includes 1/2."""
    all_stands, all_scores = record.stands.copy(), record.score.copy()
    all_stands[:, at], all_scores[:, at] = stands, score
    record = replace(record, stands=all_stands, score=all_scores)
    last = at + 1 == len(record.radii) or record.discrimination_accuracy(at).interval[0] <= 0.5
    return replace(record, ended=np.array(last))
