"""Images of one's own as a WebDataset: `.tar` archives with a picture KEY.png (or .jpg ...) and its label KEY.cls.

One archive, or a folder of archives; those whose names begin with test, or with val, are the test set.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robustgen.datasets.npz import of_one_kind
from robustgen.datasets.pictures import SUFFIXES, Pictures, image_set
from robustgen.datasets.sizes import Loaded, Reading
from robustgen.storage.tars import index_tar
from robustgen.units import show_names


def load(path: Path | None = None, size: int | None = None, how: Reading | None = None) -> Loaded:
    """All images of the archives, in the order of the archives' names and of their samples.

    Raises:
        ValueError: nothing there, damaged archives or pictures, or labels that are not one class number each.
    """
    if path is None:
        raise ValueError("data set webdataset needs its archive; say which with --data webdataset=FILE.tar")
    archives = [path]
    if path.is_dir():
        archives = sorted(place for place in path.iterdir() if place.suffix == ".tar" and place.name[0] != ".")
        if not archives:
            raise ValueError(f"there are no .tar archives in {path}")
    tests, vals = ([one for one in archives if one.name.lower().startswith(part)] for part in ("test", "val"))
    rest = [one for one in archives if one not in tests and one not in vals]
    held_out = tests or vals
    skip = how is not None and how.skip_bad
    if not rest or not held_out:
        return image_set(_find(rest or held_out, path), size, skip, "webdataset"), None
    train = image_set(_find(rest, path), size, skip, "webdataset")
    if tests and vals:
        train = train.noting(
            f"{path}: {show_names([one.name for one in vals])} are not used; tests are in test archives"
        )
    test = image_set(_find(held_out, path), size, skip, "webdataset", like=train)
    return of_one_kind(train, test)


def _find(archives: Sequence[Path], origin: Path) -> Pictures:
    samples = [(archive, *sample) for archive in archives for sample in index_tar(archive, SUFFIXES)]
    if not samples:
        raise ValueError(f"{archives[0]} holds no pictures with a .cls of the same name")

    def opened(i: int) -> io.BytesIO:
        archive, _, offset, count, _ = samples[i]
        with archive.open("rb") as file:
            file.seek(offset)
            return io.BytesIO(file.read(count))

    names = tuple(f"{archive.name}: {name}" for archive, name, *_ in samples)
    labels = np.array([sample[4] for sample in samples], dtype=np.int64)
    return Pictures(str(origin), names, opened, labels, None)
