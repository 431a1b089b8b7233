"""Published weights of generative models: names, addresses, and on which terms they may be used. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robustgen.storage.downloads import Download, weights_folder


@dataclass(frozen=True)
class PublishedGenerator:
    """One published generator.

    kind         as recipes name it
    dataset      what it was trained on, as in `robustgen list datasets` where it is one of them
    conditional  whether it is conditioned on the class label
    license      of the weights
    file         where it is; no digests are published
    sampling     how its authors sample it, as options of `robustgen sample`; empty: the default
    """

    kind: str
    dataset: str
    conditional: bool
    license: str
    file: Download
    sampling: str = ""

    @property
    def about(self) -> str:
        """A line for lists."""
        condition = "conditional" if self.conditional else "unconditional"
        return f"{self.kind}, {self.dataset}, {condition}; {self.license}; {self.file.url}"


_NVIDIA = "CC BY-NC-SA 4.0, non-commercial"
_EDM = "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained"


_ADA = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained"
_NVIDIA_CODE = "NVIDIA Source Code License, non-commercial"
_VDVAE = "https://openaipublic.blob.core.windows.net/very-deep-vaes-assets/vdvae-assets-2"


def _edm(dataset: str, name: str, evaluations: int = 0) -> tuple[str, PublishedGenerator]:
    full = f"edm-{name}"
    file = Download(f"{_EDM}/{full}.pkl", f"{full}.pkl")
    sampling = f"--evaluations {evaluations}" if evaluations else ""
    return full, PublishedGenerator("edm", dataset, "-cond-" in name, _NVIDIA, file, sampling)


def _vdvae(seed: int, iteration: int) -> tuple[str, PublishedGenerator]:
    file = f"cifar10-seed{seed}-iter-{iteration}-model-ema.th"
    return f"vdvae-cifar10-seed{seed}", PublishedGenerator(
        "vdvae", "cifar10", False, "MIT, of its repository", Download(f"{_VDVAE}/{file}", file)
    )


GENERATOR_FILES: dict[str, PublishedGenerator] = dict(
    [
        _edm("cifar10", "cifar10-32x32-cond-vp"),
        _edm("cifar10", "cifar10-32x32-cond-ve"),
        _edm("cifar10", "cifar10-32x32-uncond-vp"),
        _edm("cifar10", "cifar10-32x32-uncond-ve"),
        _edm("ffhq", "ffhq-64x64-uncond-vp", 79),
        _edm("ffhq", "ffhq-64x64-uncond-ve", 79),
        _edm("afhq", "afhqv2-64x64-uncond-vp", 79),
        _edm("afhq", "afhqv2-64x64-uncond-ve", 79),
        _edm("imagenet-64x64", "imagenet-64x64-cond-adm"),
        (
            "stylegan2-ada-cifar10",
            PublishedGenerator(
                "stylegan2", "cifar10", True, _NVIDIA_CODE, Download(f"{_ADA}/cifar10.pkl", "stylegan2-ada-cifar10.pkl")
            ),
        ),
        *(_vdvae(seed, iteration) for seed, iteration in ((0, 900_000), (1, 1_050_000), (2, 650_000), (3, 1_050_000))),
    ]
)
"""By the name that `robustgen fetch` and `import-generator` take."""


def published_as(path: Path) -> tuple[str, PublishedGenerator | None]:
    """(name, entry) of a published file by its name; (its stem, None) for another."""
    for name, one in GENERATOR_FILES.items():
        if one.file.name == path.name:
            return name, one
    return path.stem, None


def find_generator_file(text: str) -> Path:
    """The path that a user means: a file, or the name of a published one in the folder of weights.

    Raises:
        ValueError: a published one that is not there; says how to get it.
    """
    path = Path(text)
    if path.exists() or text not in GENERATOR_FILES:
        return path
    file = GENERATOR_FILES[text].file
    found = weights_folder() / file.name
    if not found.is_file():
        raise ValueError(f"there is no {file.name} in {found.parent}; run: robustgen fetch {text}")
    return found
