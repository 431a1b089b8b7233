"""The data set as pieces that travel, and back."""

from __future__ import annotations

import hashlib
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pieces import Piece, find_piece, write_piece
from PIL import Image
from place import Place
from plan import Plan
from unpack_cifar10 import write_binary

from robustgen.config.recipe import DataConfig
from robustgen.datasets.cifar import BINARY_FOLDER, INFO, load, read_binary_batch
from robustgen.images import ImageSet


def pack(plan: Plan, source: Path, into: Path) -> None:
    """The official files as pieces that travel: pictures of many images, WebP without loss, checked by decoding."""
    train, test = load(source)
    if test is None:
        raise ValueError(f"{source} has no test images")
    if plan.data.train is not None:
        count = plan.data.train + plan.data.validation
        train, test = train.take(np.arange(min(len(train), 2 * count))), test.take(np.arange(min(len(test), 64)))
    cuts = np.array_split(np.arange(len(train)), plan.pieces)
    parts = {f"data-{number}": train.take(cut) for number, cut in enumerate(cuts)} | {"data-test": test}
    for name, images in parts.items():
        sheets = [mosaic_of(images.images[i : i + plan.mosaic]) for i in range(0, len(images), plan.mosaic)]
        tensors = {
            "webp": torch.frombuffer(bytearray(b"".join(sheets)), dtype=torch.uint8),
            "lengths": torch.tensor([len(sheet) for sheet in sheets]),
            "labels": torch.from_numpy(images.labels.astype(np.uint8)),
        }
        about: dict[str, Any] = {"images": len(images), "mosaic": plan.mosaic, "pieces": plan.pieces}
        about["pixels"] = digest_of_images(images.images)
        size = write_piece([into], name, of={"scale": plan.name}, about=about, tensors=tensors)
        if digest_of_images(unpacked(find_piece([into], name))[0]) != about["pixels"]:
            raise ValueError(
                f"{name} does not decode to the images it was made of; is Pillow's WebP without loss here?"
            )
        print(f"{name}: {len(images)} images, {size / 2**20:.1f} MiB")


def digest_of_images(images: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()


def mosaic_of(images: np.ndarray, columns: int = 25) -> bytes:
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    filled = np.zeros((rows * columns, height, width, channels), dtype=np.uint8)
    filled[:count] = images
    sheet = filled.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    file = io.BytesIO()
    picture = Image.fromarray(sheet.reshape(rows * height, columns * width, channels))
    picture.save(file, format="webp", lossless=True, quality=100, method=4, exact=True)
    return file.getvalue()


def unpacked(piece: Piece | None, side: int = 32, columns: int = 25) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 3) uint8 and labels (N,)."""
    assert piece is not None
    found, parts, first = piece.tensors(), [], 0
    for length in found["lengths"].tolist():
        content = found["webp"][first : first + length].numpy().tobytes()
        sheet = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        tiles = sheet.reshape(len(sheet) // side, side, columns, side, 3).swapaxes(1, 2)
        parts.append(tiles.reshape(-1, side, side, 3)[: piece.about["mosaic"]])
        first += length
    count = piece.about["images"]
    return np.concatenate(parts)[:count], found["labels"].numpy().astype(np.int64)


def unpack(plan: Plan, place: Place) -> list[str]:
    """Make official files of the data pieces that are here; returns the names of those that still miss."""
    folder = place.work / "data"
    missing = []
    for name in (*(f"data-{number}" for number in range(plan.pieces)), "data-test"):
        batch = "test_batch" if name == "data-test" else f"data_batch_{int(name[5:]) + 1}"
        if (folder / BINARY_FOLDER / f"{batch}.bin").exists():
            continue
        piece = find_piece((place.keep, *place.sources), name, {"scale": plan.name})
        if piece is None:
            missing.append(name)
            continue
        images, labels = unpacked(piece)
        if digest_of_images(images) != piece.about["pixels"]:
            raise ValueError(f"{piece.folder} decodes to other images than were packed; pack and send it again")
        aside = folder / f"{name}.part"
        write_binary(aside, {batch: (images, labels)})
        (folder / BINARY_FOLDER).mkdir(parents=True, exist_ok=True)
        (aside / BINARY_FOLDER / f"{batch}.bin").replace(folder / BINARY_FOLDER / f"{batch}.bin")
        shutil.rmtree(aside)
    return missing


def data_of(plan: Plan, place: Place) -> DataConfig:
    """The images, all pieces of them.

    Raises:
        ValueError: a piece was never sent to this machine.
    """
    missing = unpack(plan, place)
    if missing:
        raise ValueError(f"{', '.join(missing)} never came to this machine; send it, and name its folder with --from")
    return plan.data.model_copy(update={"path": str(place.work / "data")})


def test_images(place: Place) -> ImageSet:
    """The test images need no training images; the reader wants a batch of either."""
    folder = place.work / "data" / BINARY_FOLDER
    return ImageSet(*read_binary_batch(folder / "test_batch.bin"), INFO, str(folder))
