"""Images a second of a DDPM here, beside diffusers' pipelines with the same weights and evaluations.

    pip install diffusers && python benchmarks/beside_diffusers.py

Both draw a batch by DDIM with the same number of evaluations of the network, theirs by `DDIMPipeline` from the folder
that `save_diffusers` wrote. `ratio` is their time over ours in the same round, median over rounds; aim: at least 1.
`difference` is between the images of both for the same noise, where a schedule of 20 times lets them visit the same.
Batches are multiples of 16: smaller ones are filled up here, so that an image does not depend on its batch.
The network is that of google/ddpm-cifar10-32, with random weights; on a CPU also one of 32 channels and one of digits.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from timing import device, interleaved, ratios, record

from robustgen.config.generators import DDPMConfig
from robustgen.config.sampler import SamplerConfig
from robustgen.generators import DDPM, build_generator, save_diffusers
from robustgen.images import DatasetInfo
from robustgen.modes import channels_last
from robustgen.randomness import Rng, rng_for

DIGITS = DatasetInfo("digits", tuple("0123456789"), (1, 8, 8), (0.3,), (0.4,))
CIFAR = DatasetInfo("cifar10", tuple("0123456789"), (3, 32, 32), (0.5,) * 3, (0.25,) * 3)


class _Given(Rng):
    """The stream of noise that diffusers draws from a seed."""

    def __init__(self) -> None:
        super().__init__(torch.tensor(0))
        self._generator = torch.Generator().manual_seed(0)

    def normal(self, shape):
        return torch.randn(tuple(shape), generator=self._generator)


def _pipeline(folder: Path, timesteps: int, where: str):
    import diffusers

    network = diffusers.UNet2DModel.from_pretrained(folder / "unet", low_cpu_mem_usage=False).to(where).eval()
    pipeline = diffusers.DDIMPipeline(network, diffusers.DDIMScheduler(num_train_timesteps=timesteps))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _built(info: DatasetInfo, settings: DDPMConfig, where: str) -> DDPM:
    model = build_generator(settings, info, rng_for(0))
    assert isinstance(model, DDPM)
    with rng_for(0, "noise").seeding_torch(), torch.no_grad():
        model.network.conv_out.weight.normal_(0, 0.02)
    return channels_last(model).to(where).eval()


def difference(info: DatasetInfo, settings: DDPMConfig) -> float:
    """Largest between the images of both, of [0, 1], for the same noise on the CPU."""
    model = _built(info, settings.model_copy(update={"timesteps": 20}), "cpu")
    model.configure_sampler(SamplerConfig(solver="ddim", evaluations=20))
    with tempfile.TemporaryDirectory() as folder:
        save_diffusers(Path(folder), model)
        pipeline = _pipeline(Path(folder), 20, "cpu")
    theirs = pipeline(
        batch_size=2, generator=torch.Generator().manual_seed(0), num_inference_steps=20, use_clipped_model_output=True,
        output_type="pt",
    ).images  # fmt: skip
    ours = model.sample(torch.zeros(2, dtype=torch.int64), _Given())
    return float((ours - theirs).abs().max())


def compare(
    info: DatasetInfo, settings: DDPMConfig, batch: int, evaluations: int, where: str, rounds: int
) -> dict[str, object]:
    model = _built(info, settings, where)
    model.configure_sampler(SamplerConfig(solver="ddim", evaluations=evaluations))
    with tempfile.TemporaryDirectory() as folder:
        save_diffusers(Path(folder), model)
        pipeline = _pipeline(Path(folder), 1000, where)
    labels = torch.zeros(batch, dtype=torch.int64, device=where)

    def ours() -> None:
        model.sample(labels, rng_for(0, device=where).each(range(batch)))

    def theirs() -> None:
        pipeline(batch_size=batch, num_inference_steps=evaluations, use_clipped_model_output=True, output_type="pt")

    works = {"ours": ours, "diffusers": theirs}
    seconds = interleaved(works, where, rounds)
    return {
        "images": "x".join(map(str, info.shape)),
        "channels": settings.channels,
        "batch": batch,
        "evaluations": evaluations,
        "images/s": round(batch / seconds["ours"], 2),
        "diffusers images/s": round(batch / seconds["diffusers"], 2),
        "ratio": round(ratios(works, "ours", where, rounds)["diffusers"], 3),
        "difference": float(f"{difference(info, settings):.1e}"),
    }


def main() -> None:
    where = device()
    digits = DDPMConfig(channels=16, multipliers=(1, 2), blocks=1, attention=())
    rows = [compare(DIGITS, digits, 256, 50, where, 5)]
    if where == "cpu":
        rows += [
            compare(CIFAR, DDPMConfig(channels=32), 16, 10, where, 5),
            compare(CIFAR, DDPMConfig(), 16, 1, where, 3),
        ]
    else:
        rows += [compare(CIFAR, DDPMConfig(), 512, 50, where, 3)]
    record("diffusers", where, rows)


if __name__ == "__main__":
    main()
