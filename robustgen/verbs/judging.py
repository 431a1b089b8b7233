"""What the verbs that judge do: `evaluate` and `certify`, on a classifier from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robustgen.recipe import Certification, Data, Evaluation, Threat
from robustgen.records import Verdicts, adversarial_file, clean_file, write_array
from robustgen.records.certificates import Certificates
from robustgen.runs import read_json, write_json
from robustgen.verbs.making import images_in_a_pass, threat_model

if TYPE_CHECKING:
    from torch import nn

    from robustgen.contracts import Progress
    from robustgen.images import DatasetInfo


@dataclass(frozen=True)
class Source:
    """Where a classifier comes from.

    place         a folder made by train, a weights file, FILE.py:FUNCTION, PACKAGE.MODULE:FUNCTION or
                  hub:NAME
    weights       a file to load into what the function returned, or into the published network
    architecture  of a weights file
    normalise     "none", "data" for mean and deviation of the data set, or MEAN/DEVIATION, a number a channel
    """

    place: str
    weights: Path | None = None
    architecture: str | None = None
    normalise: str = "none"


def judge(
    source: Source,
    data: Data,
    threat: Threat,
    settings: Evaluation,
    path: Path,
    seed: int,
    device: str,
    progress: Progress,
) -> Verdicts:
    """Evaluate one classifier on the test images of a data set; under torchrun, each process a share of them."""
    from robustgen.datasets import load_test
    from robustgen.distributed import place, wait_for_all
    from robustgen.evaluation.cascade import evaluate, times_file
    from robustgen.evaluation.suites import find_suite
    from robustgen.images import to_unit

    find_suite(settings.suite)
    test = load_test(data)
    model = open_classifier(source, test.info).to(device)
    rank, world = place()
    if settings.keep_images and rank == 0:
        write_array(clean_file(path), test.images)
    part = path if world == 1 else path.with_name(f"{path.stem}.part-{rank}-of-{world}.npz")
    if world == 1 or not path.exists():
        verdicts = evaluate(
            model,
            to_unit(test.pixels(device)[rank::world]),
            test.targets(device)[rank::world],
            threat_model(threat),
            settings.suite,
            seed=seed,
            batch_size=settings.batch_size,
            path=part,
            keep_images=settings.keep_images,
            progress=progress,
        )
        if world == 1:
            return verdicts
    wait_for_all()
    if rank == 0 and not path.exists():
        merge_parts(path, [path.with_name(f"{path.stem}.part-{number}-of-{world}.npz") for number in range(world)])
    wait_for_all()
    for file in (part, times_file(part), adversarial_file(part)):
        file.unlink(missing_ok=True)
    return Verdicts.load(path)


def merge_parts(path: Path, parts: list[Path]) -> None:
    """Put together what processes evaluated side by side, part p every P-th image: images, seconds, then verdicts."""
    import numpy as np

    from robustgen.evaluation.cascade import times_file

    whole = Verdicts.merge([Verdicts.load(part) for part in parts])
    if adversarial_file(parts[0]).exists():
        kept = [np.load(adversarial_file(part)) for part in parts]
        images = np.empty((len(whole), *kept[0].shape[1:]), dtype=kept[0].dtype)
        for number, some in enumerate(kept):
            images[number :: len(parts)] = some
        write_array(adversarial_file(path), images)
    seconds: dict[str, float] = {}
    for part in parts:
        for attack, time in read_json(times_file(part)).items():
            seconds[attack] = round(seconds.get(attack, 0.0) + time, 3)
    write_json(times_file(path), seconds)
    whole.save(path)


def open_classifier(source: Source, info: DatasetInfo) -> nn.Module:
    """The classifier of a source, in evaluation mode, its parameters without gradients.

    Raises:
        ValueError: nothing there, or something that does not fit.
    """
    from robustgen.models.external import load_model, normalised
    from robustgen.models.saved import load_classifier

    if Path(source.place).is_dir():
        for given, name in ((source.weights, "--weights"), (source.architecture, "--architecture")):
            if given is not None:
                raise ValueError(f"{source.place} is a folder made by train, which needs no {name}")
        return load_classifier(Path(source.place)).requires_grad_(False)
    model = load_model(source.place, info, source.weights, source.architecture)
    if source.normalise != "none":
        if source.architecture is not None or source.place.startswith("hub:"):
            raise ValueError(f"{source.place} normalises by itself; leave out --normalise")
        model = normalised(model, *_normalisation(source.normalise, info))
    return model.eval().requires_grad_(False)


def _normalisation(text: str, info: DatasetInfo) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation of each channel: the data set's, or as written."""
    if text == "data":
        return info.mean, info.std
    mean, slash, std = text.partition("/")
    try:
        values = [float(x) for x in mean.split(",")], [float(x) for x in std.split(",")]
    except ValueError:
        slash = ""
    if not slash or len(values[0]) != info.shape[0] or len(values[1]) != info.shape[0]:
        raise ValueError(
            f"--normalise takes none, data, or MEAN/DEVIATION with {info.shape[0]} numbers each, such as "
            f"{','.join(map(str, info.mean))}/{','.join(map(str, info.std))}; got {text!r}"
        )
    return values


def certify(
    source: Source,
    data: Data,
    settings: Certification,
    path: Path,
    seed: int,
    device: str,
    progress: Progress,
    denoiser: Path | None = None,
) -> Certificates:
    """Certify one classifier, smoothed, on test images of a data set; with a diffusion model in front if asked."""
    from robustgen.datasets import load_test
    from robustgen.evaluation import certification
    from robustgen.evaluation.denoising import Denoised
    from robustgen.generators import Diffusion, load_generator
    from robustgen.images import to_unit

    test = load_test(data)
    model = open_classifier(source, test.info)
    if denoiser is not None:
        diffusion, about = load_generator(denoiser)
        if not isinstance(diffusion, Diffusion):
            raise ValueError(f"{denoiser} is no diffusion model but a {about['settings']['kind']}: it cannot denoise")
        model = Denoised(model, diffusion, settings.sigma)
    rows = slice(0, None if settings.images is None else settings.every * settings.images, settings.every)
    return certification.certify(
        model.to(device).requires_grad_(False),
        to_unit(test.pixels(device)[rows]),
        test.targets(device)[rows],
        settings.sigma,
        selection=settings.selection,
        samples=settings.samples,
        alpha=settings.alpha,
        seed=seed,
        batch_size=images_in_a_pass(test.info.shape, device),
        path=path,
        progress=progress,
    )
