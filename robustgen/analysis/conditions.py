"""The sufficient conditions for learning robustness from generated images, measured (arXiv:2103.01946, App. E)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from robustgen.analysis.contracts import ProxySubject
from robustgen.analysis.subjects import blocks, check_subject, digest, to_floats
from robustgen.contracts import Progress, silent
from robustgen.evaluation.checks import check_logits
from robustgen.modes import BatchInvariant, evaluating
from robustgen.records.conditions import ConditionsRecord
from robustgen.records.record import About
from robustgen.storage.weights import weights_digest
from robustgen.threat import ThreatModel


@dataclass(frozen=True)
class Conditions:
    """Accurate labeler, unlikely attacks, sufficient coverage.

    M is the set of all real images, D their distribution, f* their labels, f the labeler, D^ the generator, S(x) the
    threat model's ball:

        1. f agrees with f* on M                                        measured on the test images
        2. P_(x ~ D^)[ x not in M, some x' in M has x in S(x'), f(x) != f*(x') ] is about 0
        3. D^(x) > 0 wherever D(x) > 0

    Only the training and test images of M are known, so the measured rate of condition 2 is a lower bound; it is
    informative only if many generated images are in a known ball. Densities are unknown too: for condition 3 a test
    image counts as covered if a generated image is closer than its fifth nearest other test image (Naeem et al. 2020,
    arXiv:2002.09797). By this definition m images of a perfect generator cover a fraction of
    1 - (n-1)...(n-5) / (n+m-1)...(n+m-5) of n test images: 97 % for m = n, nearly 100 % for m much larger than n.
    Distances are between pixels, in the norm of the threat model.
    """

    neighbors: int = 5
    """The rank of the nearest neighbor that defines coverage."""

    def __post_init__(self) -> None:
        if self.neighbors < 1:
            raise ValueError(f"neighbors must be at least 1, got {self.neighbors}")

    def __repr__(self) -> str:
        # As in records of version 0.1, so that they remain valid.
        return f"Conditions(neighbours={self.neighbors})"

    def __call__(
        self,
        subject: ProxySubject,
        *,
        seed: int = 0,
        batch_size: int = 512,
        path: Path | None = None,
        progress: Progress = silent,
    ) -> ConditionsRecord:
        """Measure the conditions. Labels of generated images are the predictions of `subject.labeler`.

        Raises:
            ValueError: no labeler, too few test images, or `path` is a record of something else.
        """
        check_subject(subject)
        if subject.labeler is None:
            raise ValueError(
                "the conditions need a labeler, got none; pass one (that of a run is in its folder labeller)"
            )
        if len(subject.test) <= self.neighbors:
            raise ValueError(f"coverage needs more than {self.neighbors} test images, got {len(subject.test)}")
        inputs = digest(subject.train, subject.train_labels, subject.test, subject.test_labels, subject.generated)
        threat = subject.threat
        about = About(repr(self), str(threat), seed, f"{inputs} {weights_digest(subject.labeler)}")
        if found := ConditionsRecord.resume(path, about):
            return found
        with evaluating(subject.labeler):
            model = BatchInvariant(subject.labeler)
            seen = predicted(model, subject.test, batch_size)
            check_logits(model(to_floats(subject.test[:1])).detach(), subject.test_labels[:1])
            given = predicted(model, subject.generated, batch_size)
        real = torch.cat([to_floats(subject.train), to_floats(subject.test)])
        labels = torch.cat([subject.train_labels, subject.test_labels])
        total = len(subject.generated) + len(real) + len(subject.test)
        nearest_real, in_ball, attacks, copies = _attacks(subject.generated, given, real, labels, threat)
        progress(len(subject.generated), total, "images")
        clashes = _clashes(real, labels, threat)
        progress(len(subject.generated) + len(real), total, "images")
        record = ConditionsRecord(
            about=about,
            right=(seen == subject.test_labels).cpu().numpy(),
            nearest_real=nearest_real.cpu().numpy(),
            in_ball=in_ball.cpu().numpy(),
            attacks=attacks.cpu().numpy(),
            copies=np.array(copies),
            clashes=clashes.cpu().numpy(),
            **_coverage(subject, given, self.neighbors),
        )
        progress(total, total, "images")
        if path is not None:
            record.save(path)
        return record


@torch.no_grad()
def predicted(model: nn.Module, images: Tensor, batch_size: int) -> Tensor:
    """(N,) predicted classes of images, uint8 or float."""
    return torch.cat([model(to_floats(some)).argmax(1) for some in images.split(batch_size)])


def _attacks(
    generated: Tensor, given: Tensor, real: Tensor, labels: Tensor, threat: ThreatModel
) -> tuple[Tensor, Tensor, Tensor, int]:
    """(nearest, in_ball, attacks, copies): the columns of the record about generated images.

    Copies of real images belong to M, so they are neither in a ball nor attacks.
    """
    nearest, near, wrong = [], [], []
    for rows, distances in blocks(generated, real, threat.norm):
        least = distances.amin(1)
        within = (distances <= _reach(threat)) & (least > 0)[:, None]
        nearest.append(least)
        near.append(within.any(1))
        wrong.append((within & (given[rows][:, None] != labels)).any(1))
    nearest_real = torch.cat(nearest)
    return nearest_real, torch.cat(near), torch.cat(wrong), int((nearest_real == 0).sum())


def _clashes(real: Tensor, labels: Tensor, threat: ThreatModel) -> Tensor:
    """(r,) whether a real image with a different label is within eps."""
    return torch.cat(
        [
            ((distances <= _reach(threat)) & (labels[rows][:, None] != labels)).any(1)
            for rows, distances in blocks(real, real, threat.norm)
        ]
    )


def _reach(threat: ThreatModel) -> float:
    """eps with the float32 tolerance of `ThreatModel.contains`."""
    return threat.eps * (1 + 1e-5) + 1e-7


def _coverage(subject: ProxySubject, given: Tensor, neighbors: int) -> dict[str, np.ndarray]:
    """The columns of the record about test images: distances to generated, training and other test images."""
    norm, test = subject.threat.norm, subject.test
    nearest, alike, reach, train = [], [], [], []
    for rows, distances in blocks(test, subject.generated, norm):
        nearest.append(distances.amin(1))
        other = subject.test_labels[rows][:, None] != given
        alike.append(distances.masked_fill(other, torch.inf).amin(1))
    for rows, distances in blocks(test, test, norm):
        own = torch.arange(rows.start, rows.stop, device=test.device)
        distances[torch.arange(len(own), device=test.device), own] = torch.inf
        reach.append(distances.kthvalue(neighbors, dim=1).values)
    train += [distances.amin(1) for _, distances in blocks(test, subject.train, norm)]
    columns = {"nearest_generated": nearest, "nearest_alike": alike, "nearest_train": train, "reach": reach}
    return {name: torch.cat(blocks_of).cpu().numpy() for name, blocks_of in columns.items()}
