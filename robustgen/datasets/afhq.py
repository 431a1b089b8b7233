"""AFHQ: faces of cats, dogs and wild animals, from the unpacked official archive (arXiv:1912.01865)."""

from __future__ import annotations

from pathlib import Path

from robustgen.datasets import folder
from robustgen.images import ImageSet


def load(path: Path | None = None, size: int | None = None) -> tuple[ImageSet, ImageSet | None]:
    """Training images, and the official validation images (in version 2: test images) as the test set.

    Args:
        path: the folder that holds `afhq` with train and val (or test) in it, or it; `data/afhq` when not given.
        size: pixels a side; 224 when not given, as Sehwag et al. (arXiv:2104.09425) take it.

    Raises:
        ValueError: nothing there, or a damaged file; says where to get it.
    """
    root = Path("data/afhq") if path is None else path
    for place in (root / "afhq", root):
        if (place / "train").is_dir() and ((place / "val").is_dir() or (place / "test").is_dir()):
            return folder.load(place, size or 224, name="afhq")
    raise ValueError(
        f"no AFHQ in {root}: expected afhq/train and afhq/val with cat, dog and wild in each; get it with robustgen "
        "fetch afhq, or from https://github.com/clovaai/stargan-v2, unpack it, and say where with "
        "--set data.path=FOLDER"
    )
