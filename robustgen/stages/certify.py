"""Certify a smoothed classifier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from robustgen.config.recipe import CertificationConfig, DataConfig
from robustgen.records.certificates import Certificates
from robustgen.stages.common import images_in_a_pass

if TYPE_CHECKING:
    from robustgen.contracts import Progress
    from robustgen.models.sources import Source


def certify(
    source: Source,
    data: DataConfig,
    settings: CertificationConfig,
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
    from robustgen.models.sources import open_classifier

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
