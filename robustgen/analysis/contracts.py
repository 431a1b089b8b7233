"""Contracts of analyses: the subject they analyze and the record they return."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from robustgen.contracts import Progress, silent
from robustgen.images import DatasetInfo
from robustgen.records.record import ClassifierRecord, ProxyRecord
from robustgen.threat import ThreatModel


@dataclass(frozen=True)
class Subject:
    """A classifier and the images to analyze it on.

    model     images (N, C, H, W) in [0, 1] to logits (N, K); used in evaluation mode, its mode is restored
    images    float32 in [0, 1], on the model's device
    labels    (N,) integers in [0, K)
    threat    norm and radius
    made_for  digest of the classifier's weights, or ""; an analysis does not resume from a record with another digest
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    threat: ThreatModel
    made_for: str = ""


class Analysis(Protocol):
    """An analysis of a classifier. It returns a record: arrays with one row per image, a table, red flags.

    Its settings are fields. The record is saved to `path` during the analysis, and the analysis resumes from it. A
    finished record is returned unchanged, a record of something else is refused. Rows of an image do not depend on the
    batch size or the order of the images, and equal input gives equal bytes.
    """

    def __call__(
        self,
        subject: Subject,
        *,
        seed: int = 0,
        batch_size: int = 512,
        path: Path | None = None,
        progress: Progress = silent,
    ) -> ClassifierRecord: ...


@dataclass(frozen=True)
class ProxySubject:
    """Generated and real images to compare. Images are (N, C, H, W), uint8 or float32 in [0, 1].

    info       facts about the dataset
    threat     its norm is used for all distances, its radius where an analysis needs one
    train      real images for training discriminators, usually the training set of the generator
    test       real images that neither the generator nor any network was trained on
    generated  generated images, kept or not
    labeler    the standard classifier that labels generated images, for analyses that need it
    model      the robust classifier, for analyses that need it
    """

    info: DatasetInfo
    threat: ThreatModel
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    generated: Tensor
    generated_labels: Tensor
    labeler: nn.Module | None = None
    model: nn.Module | None = None


class ProxyAnalysis(Protocol):
    """An analysis that compares generated images with real ones. It returns a record: rows, a table, flags.

    Its settings are fields. The record is saved to `path` during the analysis, and the analysis resumes from it. A
    finished record is returned unchanged, a record of other images, networks, settings or seed is refused. Rows do not
    depend on the batch size, and equal input gives equal bytes.
    """

    def __call__(
        self,
        subject: ProxySubject,
        *,
        seed: int = 0,
        batch_size: int = 512,
        path: Path | None = None,
        progress: Progress = silent,
    ) -> ProxyRecord: ...
