"""Sample a generative model into a proxy set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustgen.config.generators import SamplerConfig
from robustgen.config.recipe import SamplingConfig
from robustgen.stages.common import images_in_a_pass

if TYPE_CHECKING:
    from robustgen.contracts import Progress


def sample(
    generator: Path,
    settings: SamplingConfig,
    folder: Path,
    seed: int,
    device: str,
    progress: Progress,
    draw: SamplerConfig | None = None,
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
        **model.to(device).configure_sampler(draw or settings, leader),
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
