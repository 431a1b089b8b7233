"""Turn packed CIFAR-10 files into the official formats, for tests and benchmarks on real images.

    python benchmarks/unpack_cifar10.py cifar10_train.npz cifar10_test_0_7999.npz --into data/cifar10
    python benchmarks/unpack_cifar10.py TRAIN TEST --into data/cifar10 --format binary --train 5000 --test 1000
    python benchmarks/unpack_cifar10.py TRAIN --cut 2 --into pieces
    python benchmarks/unpack_cifar10.py pieces/train-0.npz pieces/train-1.npz TEST --into data/cifar10

With --cut a file is cut into packed files that are small enough to be sent; several training files are put together.

A packed file is an `.npz` of lossless WebP mosaics: `webp` bytes cut by `offsets`, `counts` images in each, `cols`
images a row, `shape` (N, 32, 32, 3), `labels`. Formats: python (pickled batches), binary (records of 3,073 bytes),
npz (`image`, `label`).
"""

from __future__ import annotations

import argparse
import io
import pickle
from pathlib import Path

import numpy as np
from PIL import Image

BATCHES = 5


def read_packed(path: Path, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` images (N, 32, 32, 3) uint8 and labels (N,) int64; mosaics beyond them are not decoded."""
    with np.load(path, allow_pickle=False) as packed:
        total, height, width, channels = (int(n) for n in packed["shape"])
        count = total if count is None else min(count, total)
        webp, offsets, counts, columns = packed["webp"], packed["offsets"], packed["counts"], int(packed["cols"])
        labels = packed["labels"][:count].astype(np.int64)
    parts, have = [], 0
    for number, inside in enumerate(counts):
        if have >= count:
            break
        sheet = np.asarray(Image.open(io.BytesIO(webp[offsets[number] : offsets[number + 1]].tobytes())).convert("RGB"))
        rows = len(sheet) // height
        tiles = sheet.reshape(rows, height, columns, width, channels).swapaxes(1, 2)
        parts.append(tiles.reshape(-1, height, width, channels)[:inside])
        have += int(inside)
    return np.concatenate(parts)[:count], labels


def cut(path: Path, pieces: int, into: Path) -> list[Path]:
    """Cut a packed file between its mosaics into `pieces` packed files `train-0.npz` ...; returns them."""
    with np.load(path, allow_pickle=False) as packed:
        content = {name: packed[name] for name in packed.files}
    into.mkdir(parents=True, exist_ok=True)
    found, first = [], 0
    for number, sheets in enumerate(np.array_split(np.arange(len(content["counts"])), pieces)):
        offsets = content["offsets"][sheets[0] : sheets[-1] + 2]
        images = int(content["counts"][sheets].sum())
        part = {
            "webp": content["webp"][offsets[0] : offsets[-1]],
            "offsets": offsets - offsets[0],
            "counts": content["counts"][sheets],
            "cols": content["cols"],
            "shape": np.array([images, *content["shape"][1:]]),
            "labels": content["labels"][first : first + images],
        }
        found.append(into / f"train-{number}.npz")
        np.savez(found[-1], **part)
        first += images
    return found


def write_python(folder: Path, batches: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """`cifar-10-batches-py`: a pickled dictionary a batch, pixels channel by channel."""
    folder = folder / "cifar-10-batches-py"
    folder.mkdir(parents=True, exist_ok=True)
    for name, (images, labels) in batches.items():
        content = {
            b"batch_label": name.encode(),
            b"labels": labels.tolist(),
            b"data": images.transpose(0, 3, 1, 2).reshape(len(images), -1),
            b"filenames": [b"%d.png" % i for i in range(len(images))],
        }
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))


def write_binary(folder: Path, batches: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """`cifar-10-batches-bin`: a label byte and 3,072 pixel bytes an image."""
    folder = folder / "cifar-10-batches-bin"
    folder.mkdir(parents=True, exist_ok=True)
    for name, (images, labels) in batches.items():
        pixels = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        records = np.concatenate([labels.astype(np.uint8)[:, None], pixels], axis=1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="training files, then the file of test images")
    parser.add_argument("--cut", type=int, metavar="N", help="only cut the training file into N packed files")
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--format", choices=["python", "binary", "npz"], default="python")
    parser.add_argument("--train", type=int, help="only the first N training images")
    parser.add_argument("--test", type=int, help="only the first N test images")
    asked = parser.parse_args()
    if asked.cut:
        print(*cut(asked.files[0], asked.cut, asked.into), sep="\n")
        return
    if len(asked.files) < 2:
        parser.error("expected at least one training file and the file of test images")
    parts = [read_packed(file, asked.train) for file in asked.files[:-1]]
    train = tuple(np.concatenate(values)[: asked.train] for values in zip(*parts, strict=True))
    test = read_packed(asked.files[-1], asked.test)
    if asked.format == "npz":
        asked.into.mkdir(parents=True, exist_ok=True)
        np.savez(asked.into / "cifar10.npz", image=train[0], label=train[1])
        np.savez(asked.into / "cifar10_test.npz", image=test[0], label=test[1])
    else:
        cuts = np.array_split(np.arange(len(train[0])), BATCHES)
        batches = {f"data_batch_{i}": (train[0][cut], train[1][cut]) for i, cut in enumerate(cuts, 1)}
        write = write_python if asked.format == "python" else write_binary
        write(asked.into, {**batches, "test_batch": test})
    print(f"{len(train[0])} training and {len(test[0])} test images in {asked.into}")


if __name__ == "__main__":
    main()
