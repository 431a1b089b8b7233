"""Certify a smoothed classifier."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from robustgen.config.recipe import CertificationConfig, DataConfig
from robustgen.config.source import Source
from robustgen.records.certificates import Certificates
from robustgen.runtime.distributed import place, wait_for_all
from robustgen.stages.common import check_not_begun_by_one, images_in_a_pass, load_judged
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

    shared: ClassVar[bool] = True

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
        rank, world = place()
        part = self.path if world == 1 else _part(self.path, rank, world)
        rows = slice(0, None if settings.images is None else settings.every * settings.images, settings.every)
        provenance: AbstractContextManager[None] = nullcontext()
        if self.command and rank == 0:
            info = current_info(self.command, self.source, self.data, tuple(test.info.classes), model, device)
            info = replace(info, denoiser=str(self.denoiser or ""))
            begun = self.path.exists()
            finished = begun and Certificates.load(self.path).finished
            provenance = recording(self.path, info, begun or part.exists(), finished)
        images, labels = to_unit(test.pixels(device)[rows]), test.targets(device)[rows]
        sharing = min(world, len(images)) or 1
        if world > 1 and self.path.exists():
            kept = Certificates.load(self.path)
            check_not_begun_by_one(self.path, kept.finished)
            return kept
        if rank < sharing:
            with provenance:
                found = certification.certify(
                    model.to(device).requires_grad_(False),
                    images[rank::world],
                    labels[rank::world],
                    settings.sigma,
                    selection=settings.selection,
                    samples=settings.samples,
                    alpha=settings.alpha,
                    seed=self.seed,
                    batch_size=images_in_a_pass(test.info.shape, device),
                    path=part,
                    progress=progress,
                )
            if world == 1:
                return found
        wait_for_all()
        if rank == 0:
            merged([Certificates.load(_part(self.path, number, world)) for number in range(sharing)]).save(self.path)
        wait_for_all()
        for file in self.path.parent.glob(f"{self.path.stem}.part-{rank}-of-*.npz"):  # also of another number
            file.unlink(missing_ok=True)
        return Certificates.load(self.path)


def _part(path: Path, rank: int, world: int) -> Path:
    return path.with_name(f"{path.stem}.part-{rank}-of-{world}.npz")


def merged(parts: Sequence[Certificates]) -> Certificates:
    """The certificates of P processes as one, where part p holds every P-th image."""
    import numpy as np

    columns: dict[str, Any] = {}
    for name, first in vars(parts[0]).items():
        if isinstance(first, np.ndarray):
            columns[name] = np.empty(sum(map(len, parts)), dtype=first.dtype)
            for number, part in enumerate(parts):
                columns[name][number :: len(parts)] = getattr(part, name)
    return replace(parts[0], **columns)
