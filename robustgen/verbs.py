"""What the verbs do: settings and folders in, files and a sentence for the user out. torch is imported as they run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustgen.fits import Draw, Fit, Generator
from robustgen.recipe import AIMING_LOSSES, NOISE_LOSSES, Arm, Data, Keep, Sampling, Threat, Training
from robustgen.records import save_arrays

if TYPE_CHECKING:
    from torch import nn

    from robustgen.contracts import Attack, Loss, Progress
    from robustgen.threat import ThreatModel
    from robustgen.training.classifier import Validate


def fit(
    settings: Generator,
    data: Data,
    folder: Path,
    seed: int,
    device: str,
    progress: Progress,
    base: Path | None = None,
) -> str:
    """Fit one generative model to the training images alone; `base` is the finished one that it starts from."""
    from robustgen.distributed import place, wait_for_all
    from robustgen.generators import Augmented, Gaussian, build_generator, save_generator
    from robustgen.modes import channels_last
    from robustgen.randomness import rng_for
    from robustgen.training.generator import train_generator

    images = load_data(data).train
    model = build_generator(settings, images.info, rng_for(seed, "initialise generator"))
    if base is not None:
        _start_from(model, base)
    fitted: nn.Module = model
    if isinstance(settings, Fit):
        fitted = train_generator(
            channels_last(model).to(device), images, settings, folder, seed=seed, device=device, progress=progress
        )
        sentence = f"trained {settings.steps} steps"
    else:
        assert isinstance(model, Gaussian | Augmented)
        sentence = model.fit(images)
    if place()[0] == 0:
        saved: Any = fitted
        save_generator(folder, saved, settings, images.info, seed=seed, images=len(images))
        (folder / "checkpoint.pt").unlink(missing_ok=True)
    wait_for_all()
    return sentence


def _start_from(model: Any, base: Path) -> None:
    """Give a generator the weights of another of the same network.

    Raises:
        ValueError: not finished, or another network.
    """
    from robustgen.checkpoints import load_weights
    from robustgen.generators import load_generator

    _, about = load_generator(base)
    try:
        load_weights(base / "weights.safetensors", model)
    except ValueError as error:
        raise ValueError(f"a generator of kind {about['settings']['kind']} cannot be its base: {error}") from None


def sample(
    generator: Path,
    settings: Sampling,
    folder: Path,
    seed: int,
    device: str,
    progress: Progress,
    draw: Draw | None = None,
    guide: Path | None = None,
) -> str:
    """Draw a proxy set from a finished generator, by `draw` (the settings' own when not given)."""
    from robustgen.generators import load_generator, weights_file
    from robustgen.proxy.sampling import sample_proxies
    from robustgen.proxy.store import digest_of

    model, about = load_generator(generator)
    leader = load_generator(guide)[0].to(device) if guide else None
    made_by: dict[str, Any] = {
        "kind": about["settings"]["kind"],
        "weights": digest_of(weights_file(generator)),
        **model.to(device).draw_by(draw or settings, leader),
        **({"guide_weights": digest_of(weights_file(guide))} if guide else {}),
    }
    proxies = sample_proxies(
        model,
        settings.count,
        folder,
        classes=about["classes"],
        seed=seed,
        batch_size=images_in_a_pass(model.shape, device),
        shard_images=settings.shard_images,
        made_by=made_by,
        device=device,
        progress=progress,
    )
    return f"{len(proxies)} images"


def label(proxy: Path, classifier: Path, device: str, progress: Progress, labels: str = "predicted") -> str:
    """Give a proxy set labels and confidences by a finished classifier."""
    from robustgen.models.saved import load_classifier
    from robustgen.proxy.labeling import pseudo_label
    from robustgen.proxy.store import ProxySet, digest_of

    proxies = ProxySet(proxy)
    model = load_classifier(classifier)
    pseudo_label(
        proxies,
        model,
        made_by={"what": "by a classifier", "weights": digest_of(classifier / "weights.safetensors")},
        labels=labels,
        batch_size=images_in_a_pass(proxies.shape, device),
        device=device,
        progress=progress,
    )
    if labels == "condition":
        return f"mean probability of the class asked for: {100 * float(proxies.column('confidence').mean()):.1f} %"
    if not proxies.has("condition") or proxies.manifest["generator"].get("conditional") is False:
        return f"mean confidence {100 * float(proxies.column('confidence').mean()):.1f} %"
    agreed = (proxies.column("label") == proxies.column("condition")).mean()
    return f"{100 * agreed:.1f} % of the labels are the class asked for"


def keep_best(proxy: Path, settings: Keep, progress: Progress) -> str:
    """Choose which images of a labelled proxy set are used."""
    from robustgen.proxy.filtering import keep
    from robustgen.proxy.store import ProxySet

    proxies = ProxySet(proxy)
    labels = proxies.column("label")
    keep(proxies, settings)
    rows = proxies.kept()
    shown = preview(rows, labels[rows], len(proxies.classes))
    save_arrays(proxy / "preview.npz", {"images": proxies.images(shown["images"]), "labels": shown["labels"]})
    return f"{len(rows)} of {len(proxies)} images kept"


def import_set(files: list[Path], format: str | None, folder: Path, shard_images: int, progress: Progress) -> str:
    """Make a proxy set of a published one."""
    from robustgen.proxy.exchange import import_proxies, open_source
    from robustgen.proxy.formats import format_of

    chosen = format or format_of(files)
    sources = [{"name": file.name, "bytes": file.stat().st_size if file.is_file() else 0} for file in files]
    proxies = import_proxies(
        open_source(files, chosen),
        folder,
        made_by={"kind": "imported", "format": chosen, "files": sources},
        shard_images=shard_images,
        progress=progress,
    )
    guessed = "" if format else ", by the name"
    return f"{len(proxies)} images of {len(proxies.classes)} classes (format {chosen}{guessed})"


def export_set(proxy: Path, path: Path, kept: bool, progress: Progress) -> str:
    """Write a proxy set as an `.npz`, or as a folder of pictures."""
    from robustgen.proxy.exchange import export_proxies
    from robustgen.proxy.store import ProxySet

    format = "npz" if path.suffix == ".npz" else "folder"
    count = export_proxies(ProxySet(proxy), path, format, kept=kept, progress=progress)
    return f"{count} images -> {path}"


def merge_sets(proxies: list[Path], shares: list[float], folder: Path, seed: int, progress: Progress) -> str:
    """Draw one proxy set from several."""
    import numpy as np

    from robustgen.proxy.merging import merge
    from robustgen.proxy.store import ProxySet

    merged = merge([ProxySet(proxy) for proxy in proxies], shares, folder, seed=seed, progress=progress)
    drawn = np.bincount(merged.column("source")[merged.kept()], minlength=len(proxies))
    parts = ", ".join(f"{count} of {proxy}" for count, proxy in zip(drawn, proxies, strict=True))
    return f"{drawn.sum()} of {len(merged)} images kept: {parts}"


def check_set(
    proxy: Path, real: Data | None, near: Threat | None, within: bool, device: str, progress: Progress
) -> str:
    """Look for damage, duplicates, and copies of real images in a proxy set."""
    import numpy as np

    from robustgen.proxy.copies import Near, find_copies
    from robustgen.proxy.store import ProxySet

    proxies = ProxySet(proxy)
    proxies.verify(progress)
    references = {}
    if real is not None:
        splits = load_data(real)
        seen = np.concatenate([splits.train.images, splits.validation.images])
        references = {"training": seen, "test": splits.test.images}
    threshold = None if near is None else Near(near.norm, near.eps, within)
    counts = find_copies(proxies, references, near=threshold, device=device, progress=progress)
    looked = {"duplicates", *(f"copies of {name} images" for name in references)}
    if near is not None:
        looked |= {f"near-copies of {name} images" for name in references} | ({"near-duplicates"} if within else set())
    found = [f"{count} {name}" for name, count in counts.items() if name in looked]
    return f"{len(proxies)} images as they were made; {', '.join(found)}"


def train(
    settings: Training,
    data: Data,
    threat: Threat,
    sources: Arm,
    folder: Path,
    seed: int,
    device: str,
    progress: Progress,
    track: Sequence[str] = (),
) -> str:
    """Train one classifier into a folder, on real images and those of the proxy sets whose folders `sources` names."""
    from robustgen.augment import build_augmentation
    from robustgen.distributed import place, wait_for_all
    from robustgen.models import build_model
    from robustgen.models.saved import save_classifier
    from robustgen.modes import channels_last
    from robustgen.randomness import rng_for
    from robustgen.training.classifier import train_classifier
    from robustgen.training.mixing import Mixture, stretches_of
    from robustgen.training.validation import noisy_validator, robust_validator

    splits = load_data(data)
    info = splits.train.info
    model = channels_last(build_model(settings.architecture, info, rng_for(seed, "initialise"))).to(device)
    mixture = Mixture(
        splits.train,
        stretches_of(sources, settings),
        batch_size=settings.schedule.batch_size,
        repeats=settings.repeats,
        order=settings.generated_order,
        smoothing=settings.smoothing,
        smooth=settings.smooth,
        augment=build_augmentation(settings.augment),
        seed=seed,
        device=device,
    )
    adversary = threat_model(threat)
    noisy = settings.loss in NOISE_LOSSES
    robust = settings.loss != "plain" and not noisy
    validate: Validate | None = None
    if len(splits.validation) and noisy:
        validate = noisy_validator(splits.validation, settings.noise.sigma, seed, device)
    elif len(splits.validation) and robust:
        validate = robust_validator(splits.validation, adversary, settings.validation_steps, seed, device)
    trained = train_classifier(
        model,
        mixture,
        build_loss(settings),
        adversary,
        settings,
        folder,
        seed=seed,
        validate=validate,
        progress=progress,
        track=track,
    )
    measured = trained.measured
    if place()[0] == 0:
        save_classifier(
            folder,
            trained.model,
            settings.architecture,
            info,
            threat=str(threat) if robust else None,
            sigma=settings.noise.sigma if noisy else None,
            seed=seed,
            step=trained.step,
            validation=None
            if measured is None
            else {
                "clean": [measured.clean.count, measured.clean.total],
                "robust": [measured.robust.count, measured.robust.total],
            },
        )
        (folder / "checkpoint.pt").unlink(missing_ok=True)
    wait_for_all()
    if measured is None:
        return f"trained {settings.schedule.steps} steps"
    return (
        f"best at step {trained.step}: validation clean {100 * measured.clean.value:.1f} %, "
        f"{'under noise' if noisy else 'robust'} {100 * measured.robust.value:.1f} %"
    )


def fitting_passes(settings: Training, data: Data, threat: Threat, folder: Path, device: str) -> Training:
    """The settings with as many passes a step as make its batch fit a GPU (`training.memory.passes_that_fit`)."""
    from robustgen.distributed import place
    from robustgen.training.memory import passes_that_fit

    if device == "cpu":
        if place()[0] == 0:
            print("--batch auto is for GPUs; on a CPU the recipe's batch is used")
        return settings
    info = load_data(data).train.info
    passes = passes_that_fit(settings, info, build_loss(settings), threat_model(threat), folder, device)
    return settings.model_copy(update={"accumulate": passes})


def load_data(data: Data) -> Any:
    """The splits of a recipe's images."""
    from robustgen.datasets import load_splits

    return load_splits(data)


def preview(images: Any, labels: Any, classes: int, each: int = 10) -> dict[str, Any]:
    """The first `each` images of each class, class after class, with their labels."""
    import numpy as np

    rows = np.concatenate([np.flatnonzero(labels == k)[:each] for k in range(classes)])
    return {"images": images[rows], "labels": labels[rows]}


def threat_model(threat: Threat) -> ThreatModel:
    from robustgen.threat import ThreatModel

    return ThreatModel(threat.norm, threat.eps)


def images_in_a_pass(shape: tuple[int, int, int], device: str) -> int:
    """How many images go through a network together: on a CPU what its caches hold, on a GPU what fills it."""
    pixels = shape[1] * shape[2]
    return max(16, 2**16 // pixels if device == "cpu" else 2**20 // pixels)


def build_loss(settings: Training) -> Loss:
    """The loss of a recipe's settings with its inner attack, and what is put around it.

    Raises:
        ValueError: hat without a standard classifier, or one that is not finished.
    """
    from robustgen.augment import build_augmentation, mixes_labels
    from robustgen.losses import AWP, LOSSES, WeakToStrong

    arguments: dict[str, Any] = {} if settings.real_weight is None else {"real_weight": settings.real_weight}
    if settings.loss in NOISE_LOSSES:
        arguments |= _noise_settings(settings)
    elif settings.loss != "plain":
        arguments["attack"] = _inner_attack(settings)
    if settings.loss in ("trades", "mart", "hat", "score"):
        arguments["beta"] = settings.beta
    if settings.loss == "trades":
        arguments["statistics"] = settings.statistics
    if settings.loss in AIMING_LOSSES:
        mixed = settings.aim == "automatic" and mixes_labels(build_augmentation(settings.augment))
        arguments["aim"] = "targets" if mixed or settings.aim == "targets" else "predictions"
    if settings.loss == "hat":
        arguments |= {"weight": settings.helper.weight, "factor": settings.helper.factor}
        arguments["standard"] = _standard_classifier(settings.helper.standard)
    if settings.loss == "gkl":
        arguments |= settings.decoupled.model_dump()
    loss = LOSSES[settings.loss](**arguments)
    if settings.awp:
        loss = AWP(loss, settings.awp, settings.awp_warmup)
    grows = settings.attack.first_steps is not None or settings.attack.first_eps < 1
    if "attack" in arguments and grows:
        return WeakToStrong(loss, settings.attack.first_steps, settings.attack.first_eps)
    return loss


def _inner_attack(settings: Training) -> Attack:
    """The attack of a robust loss, on the objective that it is for."""
    from robustgen.attacks import PGD, official_training_attack
    from robustgen.attacks.pgd import NEAR_START
    from robustgen.losses import NFGSM
    from robustgen.losses.score import squared_error
    from robustgen.objectives import cross_entropy, kl_divergence

    objectives = {"adversarial": cross_entropy, "mart": cross_entropy, "score": squared_error}
    objective, inner = objectives.get(settings.loss, kl_divergence), settings.attack
    if inner.optimiser == "n-fgsm":
        return NFGSM(objective=objective)
    steepest = PGD(inner.steps, inner.step_size, objective=objective)
    attack = official_training_attack(inner.steps, objective) if inner.optimiser == "adam" else steepest
    deviation = NEAR_START if inner.start == "normal" else None
    return replace(attack, deviation=deviation, mode="as-is" if inner.mode == "train" else inner.mode)


def _standard_classifier(folder: str | None) -> nn.Module:
    """The classifier that labels HAT's helper images."""
    from robustgen.models.saved import load_classifier

    if folder is None:
        raise ValueError(
            "the loss hat needs a standard classifier: robustgen train --plain --into models/labeller, then "
            "--set train.helper.standard=models/labeller"
        )
    return load_classifier(Path(folder)).requires_grad_(False)


def _noise_settings(settings: Training) -> dict[str, Any]:
    """The arguments of a loss under noise; what is not given is left to the loss."""
    noise = settings.noise
    own: dict[str, dict[str, Any]] = {
        "gaussian-noise": {"draws": noise.draws},
        "stability": {"beta": settings.beta},
        "consistency": {"draws": noise.draws, "weight": noise.weight, "entropy": noise.entropy},
        "smoothadv": {"draws": noise.draws, "eps": noise.eps, "steps": noise.steps},
        "macer": {
            "draws": noise.draws, "weight": noise.weight, "gamma": noise.gamma, "temperature": noise.temperature,
        },
    }  # fmt: skip
    given = {name: value for name, value in own[settings.loss].items() if value is not None}
    return {"sigma": noise.sigma, **given}
