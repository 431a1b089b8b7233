"""Certify a smoothed classifier."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from robustgen.config.recipe import CertificationConfig, DataConfig
from robustgen.config.source import Source
from robustgen.records.certificates import Certificates
from robustgen.stages.common import images_in_a_pass, load_judged
from robustgen.stages.recording import current_info, recording

if TYPE_CHECKING:
    from robustgen.contracts import Progress


@dataclass(frozen=True)
class Certify:
    """Certify one smoothed classifier on test images, optionally with a diffusion model as denoiser in front."""

    source: Source
    data: DataConfig
    config: CertificationConfig
    path: Path
    seed: int
    denoiser: Path | None = None
    command: str = ""
    """The command line, to be stored with the provenance of the certificates; a run keeps its own provenance."""

    def __call__(self, device: str, progress: Progress) -> str:
        return f"{self.certificates(device, progress).summary} -> {self.path}"

    def certificates(self, device: str, progress: Progress) -> Certificates:
        """The certificates, which are also saved to `path`."""
        from robustgen.evaluation import certification
        from robustgen.evaluation.denoising import Denoised
        from robustgen.generators import Diffusion, read_generator
        from robustgen.images import to_unit
        from robustgen.models.sources import check_accepts

        settings = self.config
        test, model = load_judged(self.data, self.source)
        check_accepts(model, self.source.place, to_unit(test.pixels("cpu")[:2]), len(test.info.classes), test.numbered)
        if self.denoiser is not None:
            diffusion, about = read_generator(self.denoiser)
            if not isinstance(diffusion, Diffusion):
                kind = about["settings"]["kind"]
                raise ValueError(f"{self.denoiser} holds a {kind}; a denoiser must be a diffusion model: ddpm or edm")
            model = Denoised(model, diffusion, settings.sigma)
            check_accepts(model, f"{self.source.place} behind {self.denoiser}", to_unit(test.pixels("cpu")[:2]))
        rows = slice(0, None if settings.images is None else settings.every * settings.images, settings.every)
        provenance: AbstractContextManager[None] = nullcontext()
        if self.command:
            info = current_info(self.command, self.source, self.data, tuple(test.info.classes), model, device)
            info = replace(info, denoiser=str(self.denoiser or ""))
            begun = self.path.exists()
            provenance = recording(self.path, info, begun, begun and Certificates.load(self.path).finished)
        with provenance:
            return certification.certify(
                model.to(device).requires_grad_(False),
                to_unit(test.pixels(device)[rows]),
                test.targets(device)[rows],
                settings.sigma,
                selection=settings.selection,
                samples=settings.samples,
                alpha=settings.alpha,
                seed=self.seed,
                batch_size=images_in_a_pass(test.info.shape, device),
                path=self.path,
                progress=progress,
            )
