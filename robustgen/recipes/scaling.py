"""Scale any recipe down to two minutes on two cores, with the same stages, loss, augmentation and mixture."""

from __future__ import annotations

import re

from robustgen.config.generators import GaussianConfig
from robustgen.config.recipe import KeepConfig, Recipe
from robustgen.config.sampler import SamplerConfig
from robustgen.config.training import TrainingConfig
from robustgen.recipes.rows import CLASS_COUNTS

SCALES = ("tiny",)
SIDE = 8
"""Side length in pixels to which images of datasets other than digits are resized."""
SMALLEST = {
    "wrn": "wrn-10-1", "trades-wrn": "trades-wrn-10-1", "rawrn": "wrn-10-1", "preact-resnet": "preact-resnet-18",
    "resnet": "resnet-18", "resnest": "resnet-18",
}  # fmt: skip
"""Smallest network of each family. RaWRN and ResNeSt have no small variant; a related family is used."""
BATCH = 32
STEPS, FEW_STEPS = 240, 48
"""Training steps of WRN-10-1, and of the larger networks of SMALLEST."""
KEPT = 200


def scaled(recipe: Recipe, scale: str) -> Recipe:
    """A scaled-down recipe with the name NAME-tiny. It tests that everything works; its accuracies are meaningless.

    Unchanged: threat model, loss, optimizer, form of the schedule, augmentation, arms and phases, shares, labels, kinds
    of generators. Scaled down: images (a few hundred of 8x8 pixels, from the recipe's dataset if its path is set, else
    digits), networks, counts, attack steps. All pseudo-labeled images are kept. Published proxy sets are replaced by a
    Gaussian of the same name. There is one classifier per arm, the suite `quick`, and no analyses or reported numbers.

    Raises:
        ValueError: the scale is unknown, or a network has no small variant.
    """
    if scale not in SCALES:
        raise ValueError(f"unknown scale {scale!r}; known: {', '.join(SCALES)}")
    given = recipe.data.path is not None
    name = recipe.data.name if given else "digits"
    classes = CLASS_COUNTS.get(name, 10)
    sampling, certification = recipe.sampling, recipe.certification
    count = max(2 * KEPT, 4 * classes)
    return Recipe.model_validate(
        {
            **dict(recipe),
            "name": f"{recipe.name}-{scale}",
            "summary": f"{scale}: {recipe.summary}",
            "data": recipe.data.model_copy(
                update={
                    "name": name,
                    "resize": None if name == "digits" else SIDE,
                    "train": max(400, 10 * classes),
                    "validation": 64,
                    "test": 64,
                }
            ),
            "labeller": _training(recipe.labeller),
            "generators": {
                **{source: config.smallest() for source, config in recipe.generators.items()},
                **{source: GaussianConfig() for source in recipe.published if source not in recipe.generators},
            },
            "published": {},
            "sampling": sampling.model_copy(
                update={
                    "evaluations": _evaluations(sampling),
                    "count": count,
                    "shard_images": count // 2,
                    "special": {
                        source: draw.model_copy(update={"evaluations": _evaluations(draw)})
                        for source, draw in sampling.special.items()
                    },
                }
            ),
            # A labeler this inaccurate may predict some class for no image, and then balancing fails.
            "keep": KeepConfig(rule="all", without_copies=recipe.keep.without_copies)
            if recipe.labels == "predicted" or name not in CLASS_COUNTS
            else recipe.keep.model_copy(
                update={"per_class": max(1, KEPT // classes), "confidence": 0.0, "special": {}}
            ),
            "train": _training(recipe.train),
            "evaluation": recipe.evaluation.model_copy(update={"suite": "quick", "batch_size": 64}),
            "measure": recipe.measure and recipe.measure.model_copy(update={"judged": 64}),
            "analyses": (),
            "certification": certification
            and certification.model_copy(update={"selection": 10, "samples": 100, "images": 16}),
            "reported": None,
        }
    )


def _training(settings: TrainingConfig) -> TrainingConfig:
    if ":" in settings.architecture:  # a network of the user's own stays
        return _short(settings, settings.architecture, FEW_STEPS)
    family = re.match(r"[a-z]+(?:-[a-z]+)*", settings.architecture)
    options = re.search(r"(?:-(?:silu|relu|unnormalised))*$", settings.architecture)
    if family is None or options is None or family[0] not in SMALLEST:
        raise ValueError(
            f"no small variant of {settings.architecture!r} is known; choose one of the families {', '.join(SMALLEST)} "
            "as train.architecture"
        )
    architecture = SMALLEST[family[0]] + options[0]
    return _short(settings, architecture, STEPS if "wrn" in architecture else FEW_STEPS)


def _short(settings: TrainingConfig, architecture: str, steps: int) -> TrainingConfig:
    return TrainingConfig.model_validate(
        {
            **dict(settings),
            "architecture": architecture,
            "schedule": settings.schedule.model_copy(
                update={"total_images": steps * BATCH, "batch_size": BATCH, "peak_lr": 0.1}
            ),
            "loss": settings.loss.smallest(),
            "accumulate": 1,
            "precision": "float32",
            "compile": False,
            "models": 1,
            "validations": 2,
            "validation_steps": 5,
        }
    )


def _evaluations(draw: SamplerConfig) -> int | None:
    """At most 9 evaluations, odd as Heun requires; the default of a Markov chain is kept, because it is short here."""
    return draw.evaluations and min(draw.evaluations, 9)
