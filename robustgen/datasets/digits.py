"""scikit-learn's handwritten digits: 1,797 real images of 8x8, in the package, no download.

The test part of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998, CC BY 4.0): 13
writers, 32x32 bitmaps counted in 4x4 blocks, so pixels are 0..16; here 255/16 times that, rounded.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robustgen.images import DatasetInfo, ImageSet

INFO = DatasetInfo("digits", tuple("0123456789"), (1, 8, 8), (0.3053,), (0.3760,))


def load(path: Path | None = None) -> tuple[ImageSet, ImageSet | None]:
    """All 1,797 images; there is no official test set."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    return ImageSet(images, digits.target.astype(np.int64), INFO, "digits"), None
