"""Choose a recipe for a user's own images: what to train, how large, how long, within a given time. Needs no torch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from robustgen.config.generators import AnyGeneratorConfig, EDMConfig, GaussianConfig
from robustgen.config.losses import InnerAttackConfig, PlainConfig, TRADESConfig
from robustgen.config.recipe import (
    Arm,
    DataConfig,
    EvaluationConfig,
    KeepConfig,
    MeasureConfig,
    Recipe,
    SamplingConfig,
    ThreatConfig,
)
from robustgen.config.training import ScheduleConfig, TrainingConfig
from robustgen.planning.facts import Choice, ImageFacts, Speed

AUTO_NETWORKS = ("wrn-10-1", "wrn-10-2", "wrn-16-2", "wrn-16-4", "preact-resnet-18", "wrn-28-10")
"""Built-in networks to choose from, smallest first."""
CHANNELS = (16, 32, 64, 128)
"""Widths of the diffusion model to choose from."""
MARGIN = 0.85
"""Share of the time that is planned; the rest is for loading, labels, metrics and the report."""
SWIFT_PASSES = 400.0
"""Cost of the suite swift in forward passes an image, a gradient counting as two (`docs/evaluation.md`)."""
SHORTEST, SHORTEST_DIFFUSION = 25_600, 50_000
"""Images that the shortest useful training of a classifier, and of a diffusion model, sees."""
LOW_RATE = 0.05
"""Peak learning rate of networks without normalization layers, which the 0.2 of the others makes diverge."""
EVALUATIONS = 10
"""Network evaluations of a sampled image, with the solver ipndm."""


def slowest_pass(seconds: float) -> float:
    """Seconds of a forward pass an image with which the shortest training, by one-step attacks, takes all the time."""
    return seconds / (SHORTEST * (InnerAttackConfig(optimizer="n-fgsm").passes + 7))


def slowest_diffusion(seconds: float) -> float:
    """Seconds of a training image with which the shortest training of a diffusion model takes all the time."""
    return seconds / SHORTEST_DIFFUSION


def seconds_of(text: str) -> float:
    """Seconds in a time such as 90s, 30m, 2h or 1d.

    Raises:
        ValueError: another form, or less than a minute.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd])\s*", text)
    seconds = float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[found[2]] if found else 0.0
    if seconds < 60:
        raise ValueError(f"expected a time of a minute or more, such as 30m, 2h or 1d, got {text!r}")
    return seconds


def diffusion_network(channels: int, side: int) -> EDMConfig:
    """The diffusion model of this width for images of `side` x `side` pixels."""
    return EDMConfig(
        channels=channels,
        multipliers=(1, 2) if side <= 16 else (1, 2, 2) if side <= 32 else (1, 2, 2, 2),
        blocks=1 if channels <= 32 else 2,
        attention=() if channels <= 32 else (16,),
        augment=0.0,
        dropout=0.1,
    )


def choose_side(facts: ImageFacts, seconds: float, device: str) -> tuple[int | None, Choice]:
    """Pixels a side to resize images to (None: their own size), a multiple of 4 for the diffusion model."""
    own = min(facts.shape[1:])
    if own < 8:
        return 8, Choice(
            "size", "8x8", f"images of {facts.shape[1]}x{facts.shape[2]} are enlarged to the smallest size"
        )
    largest = 64 if device != "cpu" and seconds >= 7200 else 32
    side = min(own - own % 4, largest)
    square = facts.shape[1] == facts.shape[2] == side
    if square:
        return None, Choice("size", f"{side}x{side}", "as they are")
    why = f"{facts.shape[1]}x{facts.shape[2]} takes too long on this device in this time" if own > largest else "square"
    return side, Choice("size", f"{side}x{side}", why)


def splits_of(facts: ImageFacts) -> tuple[int, int | None]:
    """Validation images, and test images to set aside where the data has no test set of its own."""
    validation = min(1024, max(facts.classes, 20, facts.count // 8), facts.count // 4)
    return validation, None if facts.test else min(2000, max(facts.classes, facts.count // 5))


def choose(
    facts: ImageFacts,
    speed: Speed,
    seconds: float,
    data: DataConfig,
    threat: ThreatConfig,
    network: str | None = None,
) -> tuple[Recipe, list[Choice]]:
    """A recipe whose stages fit the time, with the reason of each choice.

    Args:
        data: name, path and size of the images; validation and test images are chosen here.
        network: the network to train; default: the largest built-in one that the time and the images allow.

    Raises:
        ValueError: too few images, or too little time for the smallest network.
    """
    validation, aside = splits_of(facts)
    fewest = facts.count - validation - (aside or 0)
    if fewest < 2 * facts.classes:
        raise ValueError(
            f"{facts.count} images of {facts.classes} classes are too few: after {validation} for validation"
            f"{f' and {aside} for testing' if aside else ''} {fewest} remain, expected at least 2 per class"
        )
    budget = _Budget(seconds * MARGIN, speed.jobs)
    photographs, side = facts.shape[0] == 3, _side(facts, data)
    fitted = _generator(facts, speed, budget, fewest, data)
    budget = replace(budget, diffusion=isinstance(fitted.settings, EDMConfig))
    training = _training(facts, speed, budget, fewest, network)
    judged = _judged(facts, speed, budget, training.network, aside)
    train = facts.count - validation - (judged if aside else 0)  # with those that the time does not allow to judge
    count = _count(speed, budget, fitted.settings, train)
    real_share = 0.3 if side <= 16 else 0.5
    augment, augment_why = _augmentation(photographs, side)
    batch = _batch(train)
    robust = TrainingConfig(
        architecture=training.network,
        loss=TRADESConfig(attack=training.attack),
        schedule=ScheduleConfig(
            total_images=_steps(training.images, batch),
            batch_size=batch,
            peak_lr=0.2 if speed.normalized else LOW_RATE,
            warmup=0.1,
        ),
        real_share=real_share,
        augment=augment,
        models=1,
        validations=10,
        validation_steps=20,
    )
    standard = min(3 * training.images, max(40 * train, 150 * batch))
    recipe = Recipe(
        name="auto",
        summary=f"chosen by robustgen run auto for {facts.count} images of {facts.classes} classes",
        data=data.model_copy(update={"validation": validation, "test": judged}),
        threat=threat,
        labeller=robust.model_copy(
            update={
                "loss": PlainConfig(),
                "schedule": ScheduleConfig(
                    total_images=_steps(standard, batch),
                    batch_size=batch,
                    peak_lr=0.1 if speed.normalized else LOW_RATE,
                    warmup=0.05,
                ),
                "real_share": 1.0,
                "smoothing": 0.0,
                "statistics_decay": 0.9,
                "early_stopping": False,
            }
        ),
        generators={fitted.name: fitted.settings},
        sampling=SamplingConfig(
            count=count,
            shard_images=min(count, 100_000),
            **({"solver": "ipndm", "evaluations": EVALUATIONS} if budget.diffusion else {}),
        ),
        labels="condition",
        keep=KeepConfig(rule="top-confidence", per_class=max(1, count // (2 * facts.classes))),
        train=robust,
        arms={"real": Arm(), fitted.name: Arm(proxy=fitted.name)},
        evaluation=EvaluationConfig(suite="swift", batch_size=256),
        measure=MeasureConfig(judged=1000),
    )
    counted = f"{train} to train on, {validation} to validate, {judged} to test"
    choices = [Choice("images", counted, "a fifth at most is set aside" if aside else "it has test images")]
    if facts.largest > 5 * max(facts.rarest, 1):
        spread = f"{facts.rarest} to {facts.largest} images each"
        choices.append(Choice("classes", f"{facts.classes}", f"imbalanced, {spread}; generated images are balanced"))
    choices += [
        Choice("network", training.network, training.why),
        Choice("inner attack", str(training.attack.optimizer), _attack_why(training.attack)),
        Choice("training", f"{training.images:,} images", f"{training.images / train:.0f} times the training images"),
        Choice("generator", fitted.name, fitted.why),
        Choice("generated", f"{count:,} images", "of each class the half of which a standard classifier is surest"),
        Choice("labels", "condition", "those that the generator was asked for: every class has its share"),
        Choice("real images", f"{real_share:.0%} of a batch", _share_why(real_share)),
        Choice("augmentation", augment, augment_why),
        Choice("evaluation", f"swift, {judged} images", _judged_why(judged)),
    ]
    if not speed.normalized:
        choices.append(Choice("learning rate", f"{LOW_RATE:g}", "the network has no normalization layers"))
    return recipe, choices


def _judged_why(judged: int) -> str:
    points = 196 * math.sqrt(0.25 / judged)
    return f"close to AutoAttack at a twentieth of its cost; so many give an accuracy to {points:.0f} points"


def _augmentation(photographs: bool, side: int) -> tuple[str, str]:
    """Pad by 4 pixels of 32, as in the papers, and in proportion for smaller images."""
    if photographs:
        return "crop-flip" if side >= 32 else f"crop-flip-{max(1, side // 8)}", "photographs"
    if side < 16:
        return "none", "gray images may be characters: no flips; a shift would cut off strokes at the border"
    return f"shift-{side // 8}", "gray images may be characters: no flips"


def _share_why(share: float) -> str:
    return "as in the papers" if share == 0.3 else "more than the papers' 30 %: this generator is weaker than theirs"


@dataclass(frozen=True)
class _Budget:
    """Seconds of each stage. With two jobs the classifier of real images trains while the generator does.

    diffusion  whether a diffusion model is trained; without it, its time goes to the classifiers
    """

    seconds: float
    jobs: int
    diffusion: bool = True

    @property
    def fit(self) -> float:
        """Of a diffusion model."""
        return self.seconds * (0.3 if self.jobs > 1 else 0.25)

    @property
    def sample(self) -> float:
        return self.seconds * 0.08

    @property
    def train(self) -> float:
        """Of one robust classifier."""
        if self.diffusion:
            return self.seconds * (0.42 if self.jobs > 1 else 0.24)
        return self.seconds * (0.5 if self.jobs > 1 else 0.33)

    @property
    def judge(self) -> float:
        """Of one robust classifier."""
        return self.seconds * (0.15 if self.jobs > 1 else 0.08)


def _attack_why(attack: InnerAttackConfig) -> str:
    if attack.optimizer == "n-fgsm":
        return "one step: ten steps take too long for the smallest network"
    return "ten steps, as in the papers"


def _batch(train: int) -> int:
    return 128 if train < 20_000 else 256 if train < 100_000 else 512


def _steps(images: int, batch: int) -> int:
    """Images of whole steps, at least ten."""
    return max(10, images // batch) * batch


def _side(facts: ImageFacts, data: DataConfig) -> int:
    return data.resize or min(facts.shape[1:])


@dataclass(frozen=True)
class _Training:
    """Network, inner attack, and the images that a robust classifier sees."""

    network: str
    attack: InnerAttackConfig
    images: int
    why: str


@dataclass(frozen=True)
class _Fitted:
    """A generator: its name in the recipe and its settings."""

    name: str
    settings: AnyGeneratorConfig
    why: str


def _training(facts: ImageFacts, speed: Speed, budget: _Budget, train: int, network: str | None) -> _Training:
    """The largest network that sees enough images in the time, with a ten-step attack if possible."""
    wanted = min(20_000_000, max(SHORTEST, 40 * train))
    most = max(60_000, 400 * train)
    ten, one = InnerAttackConfig(), InnerAttackConfig(optimizer="n-fgsm")

    def affordable(name: str, attack: InnerAttackConfig) -> int:
        return int(budget.train / (speed.passes[name] * (attack.passes + 7)))

    def length(name: str, attack: InnerAttackConfig) -> int:
        return min(most, affordable(name, attack))

    if network is not None:
        attack = ten if affordable(network, ten) >= wanted else one
        return _Training(network, attack, length(network, attack), "as requested")
    limit = 2 if train < 2_000 else 4 if train < 20_000 else len(AUTO_NETWORKS) - 1
    known = [name for name in AUTO_NETWORKS[: limit + 1] if name in speed.passes]
    fitting = [name for name in known if affordable(name, ten) >= wanted]
    if fitting:
        best = fitting[-1]
        why = f"large enough for {train} images" if best == AUTO_NETWORKS[limit] else "the largest that the time allows"
        return _Training(best, ten, length(best, ten), why)
    smallest = known[0]
    if affordable(smallest, one) < 10 * _batch(train):
        need = 10 * _batch(train) * speed.passes[smallest] * (one.passes + 7) / budget.train * budget.seconds / MARGIN
        raise ValueError(f"the time is too short for the smallest network: give --time {math.ceil(need / 60)}m or more")
    quick = [name for name in known if affordable(name, one) >= wanted]
    best = quick[-1] if quick else smallest
    why = "the largest that the time allows" if quick else "the smallest: the time is short"
    return _Training(best, one, length(best, one), why)


def _generator(facts: ImageFacts, speed: Speed, budget: _Budget, train: int, data: DataConfig) -> _Fitted:
    """A diffusion model that sees enough images in the time, else a Gaussian per class."""
    wanted = min(50_000_000, max(SHORTEST_DIFFUSION, 60 * train))
    affordable = {channels: int(budget.fit / cost) for channels, cost in speed.diffusion.items()}
    fitting = [channels for channels in CHANNELS if affordable.get(channels, 0) >= wanted]
    if not fitting:
        least = min(speed.diffusion.values(), default=0.0) * wanted / budget.fit * budget.seconds / MARGIN
        why = f"a Gaussian per class: a diffusion model needs {math.ceil(least / 60)} minutes in all"
        return _Fitted("gaussian", GaussianConfig(), why)
    channels = fitting[-1] if train >= 5_000 else fitting[min(1, len(fitting) - 1)]
    batch = 128 if channels < 64 else 256
    seen = _steps(min(affordable[channels], max(400 * train, 150_000)), batch)
    settings = EDMConfig.model_validate(
        {
            **dict(diffusion_network(channels, _side(facts, data))),
            "flip": facts.shape[0] == 3,
            "total_images": seen,
            "batch_size": batch,
            "peak_lr": 2e-3 if channels <= 32 else 1e-3,
            "warmup_images": min(seen // 5, 10_000_000),
            "cooldown": 0.3,
        }
    )
    return _Fitted("edm", settings, f"a class-conditional diffusion model of {channels} channels, {seen:,} images")


def _count(speed: Speed, budget: _Budget, generator: AnyGeneratorConfig, train: int) -> int:
    """Images to sample."""
    most = int(min(1_000_000, max(4_000, 20 * train)))
    if not isinstance(generator, EDMConfig):
        return most
    each = speed.diffusion[generator.channels] / 3 * EVALUATIONS
    return max(500, min(most, int(budget.sample / each)))


def _judged(facts: ImageFacts, speed: Speed, budget: _Budget, architecture: str, aside: int | None) -> int:
    """Test images to attack."""
    affordable = int(budget.judge / (SWIFT_PASSES * speed.passes[architecture]))
    return max(10, min(aside or facts.test, affordable))
