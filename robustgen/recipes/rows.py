"""Building blocks of recipes that reproduce rows of papers: threat models, labeler, generators, and `row`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from robustgen.config.generator_base import GeneratorConfig
from robustgen.config.generators import BigGANConfig, DDPMConfig, EDMConfig, GaussianConfig, VDVAEConfig
from robustgen.config.losses import AttackedConfig, InnerAttackConfig, PlainConfig, TRADESConfig
from robustgen.config.recipe import (
    Arm,
    DataConfig,
    EvaluationConfig,
    KeepConfig,
    Recipe,
    Reported,
    SamplingConfig,
    ThreatConfig,
)
from robustgen.config.training import EPOCH_IMAGES, ScheduleConfig, TrainingConfig

CLASS_COUNTS = {
    "digits": 10, "mnist": 10, "cifar10": 10, "cifar100": 100, "svhn": 10, "tiny-imagenet": 200, "imagenet64": 1000,
    "celeba": 4, "afhq": 3,
}  # fmt: skip
THREATS = {
    "linf": ThreatConfig(norm="linf", eps=8 / 255),
    "l2": ThreatConfig(norm="l2", eps=128 / 255),
    "l2-0.5": ThreatConfig(norm="l2", eps=0.5),
    "linf-0.3": ThreatConfig(norm="linf", eps=0.3),
}
PAPER_GENERATORS: dict[str, GeneratorConfig] = {
    "gaussian": GaussianConfig(),
    "vdvae": VDVAEConfig(),
    "biggan": BigGANConfig(),
    "ddpm": DDPMConfig(),
    "edm": EDMConfig(),
}
"""Generators by the names in the tables' column of images, with the settings of their papers."""
FILES = {"80m-ti": ("data/80m-ti/ti_500K_pseudo_labeled.pickle",)}
"""Published images without a generator here, and the paths at which their files are expected."""
STEEPEST_L2 = InnerAttackConfig(optimizer="steepest", step_size=0.2)
"""Inner attack of the ports in l2, with steps of 2 eps / 10. The setting of the official code is not known."""


def schedule(epochs: float, batch_size: int, peak_lr: float, **more: Any) -> ScheduleConfig:
    """A schedule of epochs of 50,000 images, rounded down to whole steps."""
    total = int(epochs * EPOCH_IMAGES) // batch_size * batch_size
    return ScheduleConfig(total_images=total, batch_size=batch_size, peak_lr=peak_lr, **more)


PAPER_LABELLER = TrainingConfig(
    architecture="wrn-28-10",
    loss=PlainConfig(),
    schedule=schedule(200, 256, 0.1, warmup=0.0),
    real_share=1.0,
    smoothing=0.0,
    ema_decay=0.0,
    models=1,
    early_stopping=False,
)
"""Standard training of Carmon et al. (arXiv:1905.13736), whose method of pseudo-labels the papers use."""

PORTS = TrainingConfig(
    loss=TRADESConfig(beta=5.0, attack=InnerAttackConfig(optimizer="steepest"), statistics="both"),
    schedule=schedule(400, 512, 0.2, decay="one-cycle"),
    ema_start=0.025,
    generated_order="replacement",
    smooth="all",
    models=1,
    validation_attack="steepest-margin",
)
"""Training in the public PyTorch ports, where it differs from the official code."""


@dataclass(frozen=True)
class Base:
    """Settings that all rows of a paper share.

    paper     prefix of the rows' names
    cited     authors, year, arXiv number
    alone     training without generated images
    mixed     training with generated images
    sampling  sampling of generated images
    keep      keep rule; `per_class` is for ten classes and scaled for other numbers of classes
    labels    labels of generated images: "predicted" by the labeler, or "condition" labels
    """

    paper: str
    cited: str
    alone: TrainingConfig
    mixed: TrainingConfig
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    keep: KeepConfig = field(default_factory=KeepConfig)
    labels: str = "predicted"


def row(
    base: Base,
    data: str,
    norm: str,
    architecture: str,
    images: str = "none",
    *,
    label: str = "",
    summary: str = "",
    reported: Reported | None = None,
    train: dict[str, Any] | None = None,
    **more: Any,
) -> Recipe:
    """The recipe of one row: a network on a dataset, with images of one generator or file, or without.

    Args:
        norm: a key of THREATS.
        images: none, a key of GENERATORS, or a key of FILES.
        label: end of the row's name; default: `images`.
        train: training settings that differ from those of the base.
        more: other settings of the recipe that differ.
    """
    alone = images == "none"
    training = base.alone if alone else base.mixed
    settings = {"architecture": architecture, **(train or {})}
    if norm.startswith("l2") and isinstance(training.loss, AttackedConfig) and "loss" not in settings:
        settings["loss"] = training.loss.model_copy(update={"attack": STEEPEST_L2})
    training = TrainingConfig.model_validate({**dict(training), **settings})
    keep = base.keep
    if keep.rule in ("top-confidence", "balanced"):
        keep = keep.model_copy(update={"per_class": 10 * keep.per_class // CLASS_COUNTS[data]})
    network = architecture.removesuffix("-unnormalised")
    ending = label or ("" if alone else images)
    return Recipe(
        **{
            "name": "-".join(filter(None, [f"{base.paper}/{data}", norm, network, ending])),
            "summary": summary or _summary(data, norm, architecture, images, training.augment),
            "data": DataConfig(name=data),
            "threat": THREATS[norm],
            "labeller": PAPER_LABELLER,
            "generators": {images: PAPER_GENERATORS[images]} if images in PAPER_GENERATORS else {},
            "published": {images: FILES[images]} if images in FILES else {},
            "sampling": base.sampling,
            "labels": base.labels,
            "keep": keep,
            "train": training,
            "arms": {"real": Arm()} if alone else {images: Arm(proxy=images)},
            "evaluation": EvaluationConfig(suite="autoattack" if reported and reported.by == "AutoAttack" else "aa+mt"),
            "reported": reported,
            **more,
        }
    )


def _summary(data: str, norm: str, architecture: str, images: str, augment: str) -> str:
    made = "real images alone" if images == "none" else f"with {images}"
    return f"{architecture} on {data}, {norm}, {made}, {augment}"


def parse(table: str) -> list[list[str]]:
    """Rows and columns of a table in text form, with columns separated by blanks."""
    return [line.split() for line in table.strip().splitlines()]


def figures(base: Base, place: str, clean: str, robust: str, autoattack: str, unsure: str = "") -> Reported:
    """The reported accuracies from three columns of a table: `robust` is under AA+MT, or if "-" under AutoAttack."""
    known = {name: float(text) for name, text in (("robust", robust), ("autoattack", autoattack)) if text != "-"}
    by = "AA+MT" if "robust" in known else "AutoAttack"
    if by == "AutoAttack":
        known = {"robust": known["autoattack"]}
    return Reported(
        clean=None if clean == "-" else float(clean), by=by, where=f"{base.cited}, {place}", unsure=unsure, **known
    )
