"""Sample a generative model into a proxy set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from robustgen.config.sampler import SamplerConfig
from robustgen.stages.common import images_in_a_pass

if TYPE_CHECKING:
    from robustgen.contracts import Progress


@dataclass(frozen=True)
class Sample:
    """Sample `count` images of a finished generator into a proxy set; `guide` is a weaker generator (autoguidance)."""

    generator: Path
    sampler: SamplerConfig
    folder: Path
    seed: int
    count: int
    shard_images: int = 100_000
    guide: Path | None = None

    shared: ClassVar[bool] = True

    def __call__(self, device: str, progress: Progress) -> str:
        import numpy as np

        from robustgen.config.generator_base import TrainedGeneratorConfig
        from robustgen.config.generators import GENERATOR_CONFIGS
        from robustgen.generators import read_generator, weights_file
        from robustgen.proxy.sampling import sample_batch, sample_proxies
        from robustgen.proxy.store import digest_of
        from robustgen.runtime.precision import choose_precision

        model, about = read_generator(self.generator)
        guide = read_generator(self.guide)[0].to(device) if self.guide else None
        made_by: dict[str, Any] = {
            "kind": about["settings"]["kind"],
            "weights": digest_of(weights_file(self.generator)),
            **model.to(device).configure_sampler(self.sampler, guide),
            **({"guide_weights": digest_of(weights_file(self.guide))} if self.guide else {}),
        }
        batch_size = images_in_a_pass(model.shape, device)
        precision = "float32"
        if issubclass(GENERATOR_CONFIGS[made_by["kind"]], TrainedGeneratorConfig):
            precision = choose_precision(
                self.sampler.precision, device, self.folder / "precision.json", -(-self.count // batch_size),
                lambda precision: sample_batch(model, np.arange(batch_size), self.seed, device, precision),
            )  # fmt: skip
        if precision != "float32":
            made_by["precision"] = precision
        proxies = sample_proxies(
            model,
            self.count,
            self.folder,
            classes=about["classes"],
            seed=self.seed,
            batch_size=batch_size,
            shard_images=self.shard_images,
            made_by=made_by,
            precision=precision,
            device=device,
            progress=progress,
        )
        return f"{len(proxies)} images"
