"""What the run is made of, at full scale and at one that a CPU makes in seconds; and how a measurement chooses."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pieces import digest_of_json

from robustgen.config.generators import EDMConfig
from robustgen.config.losses import InnerAttackConfig, TRADESConfig
from robustgen.config.recipe import DataConfig, SamplingConfig, ThreatConfig
from robustgen.config.training import ScheduleConfig, TrainingConfig

ARMS = ("generated", "real")


@dataclass(frozen=True)
class Plan:
    """Settings of every step, from the package's own types.

    trade        settings of both arms; without generated images the share of real ones is 1
    compiled     whether the U-Net is, for fitting and sampling (`trade.compile`: the classifiers); only a measurement
                 that saw it work and pay turns these on
    hows         ways of running the U-Net to be measured
    pieces       into how many pieces the training images go
    mosaic       images in one WebP picture of a piece
    suite        of the verdicts
    chunk        test images judged together, all attacks; as many chunks as time allows, the same for both arms
    candidates   (architecture, batch, how) to be measured, the most wanted first
    networks     U-Nets to be measured: channels, multipliers, blocks
    repeats      steps timed for a row
    size         of the matrices that are multiplied, and the copy in MiB
    """

    name: str
    data: DataConfig
    fit: EDMConfig
    sampling: SamplingConfig
    trade: TrainingConfig
    threat: ThreatConfig
    compiled: bool
    hows: tuple[str, ...]
    pieces: int
    mosaic: int
    suite: str
    chunk: int
    candidates: tuple[tuple[str, int, str], ...]
    networks: tuple[tuple[int, tuple[int, ...], int], ...]
    fit_batch: int
    repeats: int
    size: int
    copy_mib: int
    seed: int = 0

    @property
    def of_fit(self) -> dict[str, str]:
        return {"data": digest_of_json(self.data.to_json()), "fit": digest_of_json([self.fit.to_json(), self.seed])}

    def of_train(self, arm: str, generator: str | None) -> dict[str, str]:
        found = {"data": self.of_fit["data"], "training": digest_of_json([self.trade.to_json(), self.seed])}
        if arm == "generated":
            found |= {"sampling": digest_of_json(self.sampling.to_json()), "generator": str(generator)}
        return found

    def chosen(self, choice: dict[str, Any]) -> Plan:
        """With what a measurement, or a person, chose; see CHOICES."""
        unknown = sorted(choice.keys() - CHOICES.keys())
        if unknown:
            raise ValueError(f"unknown choice {unknown[0]!r}; known: {', '.join(CHOICES)}")
        fit, trade, sampling, plan = self.fit.to_json(), self.trade.to_json(), self.sampling.to_json(), self
        for name, value in choice.items():
            match name:
                case "architecture":
                    trade["architecture"] = value
                case "train_images":
                    batch = trade["schedule"]["batch_size"]
                    trade["schedule"]["total_images"] = max(1, int(value) // batch) * batch
                case "real_share":
                    trade["real_share"] = value
                case "channels" | "multipliers" | "blocks":
                    fit[name] = value
                case "fit_images":
                    fit["total_images"] = max(1, int(value) // fit["batch_size"]) * fit["batch_size"]
                case "generated":
                    sampling["count"] = value
                case "compile_training":
                    trade["compile"] = value
                case "compile_generator":
                    plan = dataclasses.replace(plan, compiled=value)
        settings: dict[str, Any] = {
            "fit": EDMConfig(**fit),
            "trade": TrainingConfig(**trade),
            "sampling": SamplingConfig(**sampling),
        }
        return dataclasses.replace(plan, **settings)


CHOICES = {
    "architecture": "of the robust classifiers",
    "train_images": "that each of them sees",
    "real_share": "of the batches of the arm with generated images",
    "channels": "of the U-Net",
    "multipliers": "of the U-Net",
    "blocks": "of the U-Net",
    "fit_images": "that the U-Net sees",
    "generated": "images that are sampled",
    "compile_training": "whether the classifiers are compiled",
    "compile_generator": "whether the U-Net is",
}

FULL = Plan(
    name="full",
    data=DataConfig(name="cifar10", validation=1024),
    fit=EDMConfig(
        channels=64,
        multipliers=(2, 2, 2),
        blocks=2,
        augment=0.0,
        flip=True,
        total_images=4_000 * 1024,
        batch_size=1024,
        peak_lr=1e-3,
        warmup_images=300 * 1024,
        cooldown=0.3,
        precision="bfloat16",
        previews=1,
    ),
    sampling=SamplingConfig(count=300 * 1024, solver="ipndm", evaluations=10, shard_images=25 * 1024),
    trade=TrainingConfig(
        architecture="preact-resnet-18",
        schedule=ScheduleConfig(total_images=1_600 * 1024, batch_size=1024, peak_lr=0.4, warmup=0.05),
        loss=TRADESConfig(beta=5.0),
        precision="bfloat16",
        real_share=0.3,
        models=1,
        validations=6,
    ),
    threat=ThreatConfig(norm="linf", eps=8 / 255),
    compiled=False,
    hows=("channels-last", "compiled"),
    pieces=2,
    mosaic=1000,
    suite="autoattack",
    chunk=1000,
    candidates=(
        ("preact-resnet-18", 1024, "channels-last"),
        ("wrn-16-8", 1024, "channels-last"),
        ("preact-resnet-18", 1024, "compiled"),
        ("wrn-16-8", 1024, "compiled"),
        ("preact-resnet-18", 512, "channels-last"),
        ("wrn-16-8", 512, "channels-last"),
        ("preact-resnet-18", 1024, "eager"),
        ("wrn-16-8", 1024, "eager"),
        ("wrn-28-10", 512, "channels-last"),
        ("wrn-28-10", 1024, "channels-last"),
        ("preact-resnet-18", 1024, "graph"),
        ("wrn-16-8", 1024, "graph"),
    ),
    networks=((64, (2, 2, 2), 2), (128, (1, 2, 2), 2)),
    fit_batch=1024,
    repeats=5,
    size=8192,
    copy_mib=4096,
)

TINY = Plan(
    name="tiny",
    data=DataConfig(name="cifar10", validation=32, train=160),
    fit=EDMConfig(
        channels=8,
        multipliers=(1, 1),
        blocks=1,
        attention=(),
        augment=0.0,
        flip=True,
        dropout=0.0,
        total_images=40 * 16,
        batch_size=16,
        peak_lr=2e-3,
        warmup_images=10 * 16,
        cooldown=0.3,
        precision="bfloat16",
        previews=1,
    ),
    sampling=SamplingConfig(count=64, solver="ipndm", evaluations=2, shard_images=32),
    trade=TrainingConfig(
        architecture="wrn-10-1",
        schedule=ScheduleConfig(total_images=12 * 32, batch_size=32, peak_lr=0.1, warmup=0.1),
        loss=TRADESConfig(attack=InnerAttackConfig(steps=2)),
        precision="bfloat16",
        real_share=0.5,
        statistics_decay=0.9,
        models=1,
        validations=2,
        validation_steps=2,
    ),
    threat=ThreatConfig(norm="linf", eps=8 / 255),
    compiled=False,
    hows=("channels-last",),
    pieces=2,
    mosaic=50,
    suite="pgd-40",
    chunk=16,
    candidates=(("wrn-10-1", 16, "channels-last"), ("wrn-10-1", 16, "eager"), ("wrn-10-1", 16, "graph")),
    networks=((8, (1, 1), 1),),
    fit_batch=16,
    repeats=1,
    size=128,
    copy_mib=4,
)

SCALES = {"full": FULL, "tiny": TINY}

FIT_SECONDS, ARM_SECONDS, SAMPLE_SECONDS = 400, 230, 70
"""What the README's half hour leaves to the three; starting, compiling and validating are on top."""
COMPILED_WORTH = 0.9
"""Of a compiled network's images: compiling takes the rest."""
WIDE_FROM = 2_500_000
"""Images from which on the wide network is preferred: both have 11 million parameters, PreActResNet-18 is three times
as fast, and a network that has seen its training images less than some 50 times gains more from seeing more."""

WIDE_UNET_FROM = 5_000_000
"""Images from which on the U-Net of 128 channels is preferred: below, it sees every training image too seldom."""


def choose(plan: Plan, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Network and counts of images from a measurement's rows, so that the steps fit their seconds.

    Rates that were not measured change nothing.
    """

    def rates(what: str, **wanted: Any) -> list[tuple[float, bool]]:
        return [
            (row["images/s"] * (COMPILED_WORTH if row["how"] == "compiled" else 1.0), row["how"] == "compiled")
            for row in rows
            if row["what"] == what and "images/s" in row and all(row.get(key) == value for key, value in wanted.items())
            and row["how"] in ("channels-last", "compiled")
        ]  # fmt: skip

    choice: dict[str, Any] = {}
    by_network = {
        name: max(found)
        for name in ("wrn-16-8", "preact-resnet-18", plan.trade.architecture)
        if (found := rates("trades-10", network=name, batch=plan.trade.schedule.batch_size))
    }
    for name, (rate, compiled) in by_network.items():
        images = int(rate * ARM_SECONDS)
        if name == "wrn-16-8" and images < WIDE_FROM and len(by_network) > 1:
            continue
        choice |= {"architecture": name, "train_images": images, "compile_training": compiled}
        break
    for channels, multipliers, blocks in reversed(plan.networks):
        name = network_name(channels, multipliers, blocks)
        found = rates("edm training", network=name, batch=plan.fit.batch_size)
        if not found:
            continue
        rate, compiled = max(found)
        images = int(rate * FIT_SECONDS)
        if images < WIDE_UNET_FROM and channels != plan.networks[0][0]:
            continue
        choice |= {"channels": channels, "multipliers": list(multipliers), "blocks": blocks, "fit_images": images}
        choice["compile_generator"] = compiled
        drawn = rates("edm sampling", network=name, evaluations=plan.sampling.evaluations)
        if drawn:
            shard = plan.sampling.shard_images
            choice["generated"] = max(1, int(max(drawn)[0] * SAMPLE_SECONDS) // shard) * shard
        break
    return choice


def network_name(channels: int, multipliers: Sequence[int], blocks: int) -> str:
    return f"{channels}x{','.join(map(str, multipliers))}, {blocks} blocks"
