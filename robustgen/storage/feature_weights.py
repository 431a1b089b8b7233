"""Published weight files of feature networks: their names, their addresses, and whether a file is genuine."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from robustgen.storage.downloads import weights_folder


@dataclass(frozen=True)
class WeightsFile:
    """One published file.

    name     its name in the folder
    url      its authors' address
    sha256   the first digits of its SHA-256; at least eight hexadecimal digits
    purpose  what it is used for
    """

    name: str
    url: str
    sha256: str
    purpose: str


PUBLISHED: dict[str, WeightsFile] = {
    "inception-2015": WeightsFile(
        "pt_inception-2015-12-05-6726825d.pth",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        "6726825d",
        "Inception-v3 of TensorFlow, 2015-12-05: FID, KID and IS as published",
    ),
    "vgg16": WeightsFile(
        "vgg16-397923af.pth",
        "https://download.pytorch.org/models/vgg16-397923af.pth",
        "397923af",
        "VGG-16 trained on ImageNet: the network inside LPIPS, for nearest neighbors",
    ),
    "lpips-vgg": WeightsFile(
        "lpips_v0.1_vgg.pth",
        "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/vgg.pth",
        "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
        "the linear heads of LPIPS v0.1 on VGG-16",
    ),
}
"""By the name that `find_weights` takes."""


def has_weights(name: str) -> bool:
    """Whether a file of that name exists; `find_weights` verifies its content too."""
    return (weights_folder() / PUBLISHED[name].name).is_file()


def find_weights(name: str) -> Path:
    """The path of a published file in the user's folder.

    Raises:
        ValueError: it is missing (says where to get it and where to put it), or is not the published one.
    """
    wanted = PUBLISHED[name]
    path = weights_folder() / wanted.name
    if not path.is_file():
        raise ValueError(
            f"there is no {wanted.name} ({wanted.purpose}) in {path.parent}; run: robustgen fetch {name}; or download "
            f"it from {wanted.url} and put it there under this name, or set ROBUSTGEN_WEIGHTS to another folder"
        )
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(wanted.sha256):
        raise ValueError(
            f"{path} is not the published file: its SHA-256 begins with {found[: len(wanted.sha256)]}, expected "
            f"{wanted.sha256}; download it again from {wanted.url}"
        )
    return path
