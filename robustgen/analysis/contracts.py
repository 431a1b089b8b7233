"""What an analysis looks at, and what it must return."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from robustgen.contracts import Progress, silent
from robustgen.images import DatasetInfo
from robustgen.records.closeness import Closeness
from robustgen.records.record import Findings
from robustgen.threat import ThreatModel


@dataclass(frozen=True)
class Subject:
    """What an analysis looks at.

    model     images (N, C, H, W) in [0, 1] to logits (N, K); used in evaluation mode and left as found
    images    float32 in [0, 1], on the model's device
    labels    (N,) integers in [0, K)
    threat    norm and radius
    made_for  which classifier: a digest of its weights, or nothing; findings of another are not taken up
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    threat: ThreatModel
    made_for: str = ""


class Analysis(Protocol):
    """Looks at a subject and leaves findings: arrays with one row an image, a table, red flags.

    Its settings are fields. Findings are saved to `path` as they come and taken up from there; finished ones are
    returned as they are, those of something else are refused. Neither the batch size nor the order of the images
    changes an image's rows, and equal input gives equal bytes.
    """

    def __call__(
        self,
        subject: Subject,
        *,
        seed: int = 0,
        batch_size: int = 512,
        path: Path | None = None,
        progress: Progress = silent,
    ) -> Findings: ...


@dataclass(frozen=True)
class ProxySubject:
    """What an analysis of generated images looks at. Images are (N, C, H, W), uint8 or float32 in [0, 1].

    info       of the data set
    threat     its norm is that of all distances; its radius is where one is needed
    train      real images that a discriminator may learn from, such as those that the generator has learnt from
    test       real images held out from the generator and from every network
    generated  images, whether kept or not
    labeller   the standard classifier that labels generated images, for those that ask for it
    model      the classifier whose robustness is carried over, for those that ask for it
    """

    info: DatasetInfo
    threat: ThreatModel
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    generated: Tensor
    generated_labels: Tensor
    labeller: nn.Module | None = None
    model: nn.Module | None = None


class ProxyAnalysis(Protocol):
    """Looks at generated images beside real ones and leaves a record: rows, a table, red flags.

    Its settings are fields. The record is saved to `path` as it comes and taken up from there; a finished one is
    returned as it is, one of other images, networks, settings or seed is refused. The batch size changes no row, and
    equal input gives equal bytes.
    """

    def __call__(
        self,
        subject: ProxySubject,
        *,
        seed: int = 0,
        batch_size: int = 512,
        path: Path | None = None,
        progress: Progress = silent,
    ) -> Closeness: ...
