"""Reads many damaged copies of a file of every kind in a process that is watched; test_damaged_files.py starts it.

python tests/storage/damaged_files.py FOLDER COUNT NAME...     NAME is one of TARGETS

Prints a JSON object a line: what a reader did that it must not do (errors other than the user's, more than LARGEST
bytes, code that is run), and at the end of each target how many copies were read and how many refused.
"""

from __future__ import annotations

import argparse
import faulthandler
import functools
import importlib
import io
import json
import os
import pickle
import resource
import struct
import sys
import tarfile
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import save as safetensors_bytes
from torch import nn

from robustgen.config.generators import DDPMConfig, GaussianConfig
from robustgen.config.loading import read_recipe
from robustgen.datasets import cifar, imagenet64, mnist, npz, svhn
from robustgen.generators import build_generator, read_generator, save_diffusers, save_generator
from robustgen.images import DatasetInfo
from robustgen.models import build_model
from robustgen.models.saved import dataset_info, load_classifier, read_model_json, save_classifier
from robustgen.proxy.exchange import import_proxies, open_source
from robustgen.proxy.store import ProxySet
from robustgen.randomness import rng_for
from robustgen.recipes import RECIPES
from robustgen.records.certificates import Certificates
from robustgen.records.history import History
from robustgen.records.verdicts import Verdicts
from robustgen.report.by_class import confusion, robust_by_class
from robustgen.runtime.errors import USER_ERRORS, describe_error
from robustgen.storage.checkpoints import load_checkpoint, save_checkpoint
from robustgen.storage.weights import read_weights

LARGEST = 2 * 1024**3
"""Bytes that a reader may allocate; the files have less than a megabyte."""
LONGEST = 20
"""Seconds for one file."""

Draw = np.random.Generator
Mutate = Callable[[bytes, Draw], bytes]

# What is done to a file. Each function returns a damaged copy of its content.

FIELDS = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


def place(content: bytes | bytearray, draw: Draw) -> int:
    """A position: half of the time near the beginning or the end, where headers and directories are."""
    size = max(1, len(content))
    near = int(draw.integers(0, min(size, 512)))
    return (near, size - 1 - near, *draw.integers(0, size, 2).tolist())[int(draw.integers(0, 4))]


def damaged(content: bytes, draw: Draw) -> bytes:
    """One to three changes of bytes: values, bits, fields, pieces cut out, doubled, moved, or cut off."""
    changed = bytearray(content)
    for _ in range(int(draw.integers(1, 4))):
        at, kind = place(changed, draw), int(draw.integers(0, 9))
        length = int(2 ** draw.uniform(0, 8))
        if kind <= 1 and changed:
            changed[at] = int(draw.integers(0, 256))
        elif kind == 2 and changed:
            changed[at] ^= 1 << int(draw.integers(0, 8))
        elif kind == 3:
            width = int(draw.choice([2, 4, 8]))
            value = FIELDS[int(draw.integers(0, len(FIELDS)))] % 2 ** (8 * width)
            changed[at : at + width] = value.to_bytes(width, "little" if draw.random() < 0.7 else "big")
        elif kind == 4:
            del changed[at : at + length]
        elif kind == 5:
            changed[at:at] = changed[at : at + length]
        elif kind == 6:
            other = place(changed, draw)
            changed[at : at + length] = changed[other : other + length]
        elif kind == 7:
            changed[at:at] = draw.bytes(length)
        elif draw.random() < 0.3:
            del changed[at:]
    return bytes(changed)


TEXTS = ("", "0", "-1", "nan", "../x", "/etc/passwd", "a" * 10_000, "\x00", "\x1b[31mred", "é\u2028", "wrn-9999999-9",
         "1/0")  # fmt: skip
NUMBERS = (0, -1, 1, 2, 3, 1000, 2**31, 2**53, 2**63, -(2**63), 10**30, 10**400, 0.5, -0.5, 1e308, float("nan"),
           float("inf"))  # fmt: skip


def odd_value(draw: Draw, depth: int = 0) -> Any:
    """A value that a JSON file may have where another is expected."""
    kind = int(draw.integers(0, 8))
    if kind <= 2:
        return NUMBERS[int(draw.integers(0, len(NUMBERS)))]
    if kind == 3:
        return TEXTS[int(draw.integers(0, len(TEXTS)))]
    if kind == 4 and depth < 4:
        return [odd_value(draw, depth + 1) for _ in range(int(draw.integers(0, 4)))]
    if kind == 5 and depth < 4:
        return {str(odd_value(draw, 4)): odd_value(draw, depth + 1) for _ in range(int(draw.integers(0, 4)))}
    if kind == 6:
        return [0] * 400
    return (None, True, False)[int(draw.integers(0, 3))]


def nodes(tree: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value in a tree."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from nodes(tree[key])


def changed_tree(tree: Any, draw: Draw) -> Any:
    """A copy of JSON-like content with one to three values replaced, removed, renamed or moved."""
    tree = json.loads(json.dumps(tree))
    if draw.random() < 0.03:
        return odd_value(draw)
    for _ in range(int(draw.integers(1, 4))):
        found = list(nodes(tree))
        if not found:
            break
        (holder, key), (other, key2) = (found[int(draw.integers(0, len(found)))] for _ in range(2))
        kind = int(draw.integers(0, 8))
        if kind <= 3:
            holder[key] = odd_value(draw)
        elif kind == 4:
            del holder[key]
        elif kind == 5:
            holder[key] = json.loads(json.dumps(other[key2]))
        elif kind == 6 and isinstance(holder[key], int | float):
            holder[key] = holder[key] * int(draw.choice([-1, 2, 10**6, 10**12])) + int(draw.integers(-1, 2))
        elif isinstance(holder, dict):
            holder[str(odd_value(draw, 4))] = odd_value(draw)
        else:
            holder.append(odd_value(draw))
    return tree


def damaged_json(content: bytes, draw: Draw) -> bytes:
    if draw.random() < 0.25:
        return damaged(content, draw)
    if draw.random() < 0.01:
        return b"[" * 100_000
    return json.dumps(changed_tree(json.loads(content), draw)).encode()


YAML_LINES = (
    "".join(
        f"{name}: &{name} [{', '.join([of] * 8)}]\n"
        for name, of in zip("abcdef", ("x", "*a", "*b", "*c", "*d", "*e"), strict=True)
    )
    + "seed: [*f, *f, *f, *f]\n",
    "x: !!python/object/apply:os.system ['true']\n",
    "x: !!binary aGVsbG8\n",
    "seed: 2020-01-01\n",
    "seed: 2020-99-99\n",
    "seed: 1:2:3:4\n",
    "seed: &s [*s]\n",
    "data: &d {path: *d}\n",
    "<<: [1, 2]\n",
    "? [a, b]\n: 1\n",
    "? {a: b}\n: 1\n",
    "1: 2\n",
    "null: 3\n",
    "~: {x: 1}\n",
    "train: " + "{a: " * 3000 + "\n",
    "train: " + "[" * 3000 + "\n",
    "seed: 0x\n",
    "seed: 0b2\n",
    "seed: " + "9" * 5000 + "\n",
    "seed: .inf\n",
    "base: [1]\n",
    "base: {a: 1}\n",
    "base: 3\n",
    "%YAML 9.9\n---\n",
    "\t- a\n",
    "--- a\n--- b\n",
)


def damaged_yaml(content: bytes, draw: Draw) -> bytes:
    kind = int(draw.integers(0, 8))
    if kind == 0:
        return damaged(content, draw)
    if kind <= 2:
        lines = content.decode().splitlines(keepends=True)
        lines.insert(int(draw.integers(0, len(lines) + 1)), YAML_LINES[int(draw.integers(0, len(YAML_LINES)))])
        return "".join(lines).encode()
    changed = changed_tree(_as_tree(content), draw)
    return yaml.dump(changed, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False).encode()


@functools.cache
def _as_tree(content: bytes) -> Any:
    return yaml.safe_load(content)


ODD_ARRAYS: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    lambda a: np.atleast_1d(a)[:0],
    lambda a: a[..., None],
    lambda a: a.reshape(-1),
    lambda a: a[0] if a.ndim and len(a) else np.array(0),
    lambda a: a.astype(np.float64) if a.dtype.kind in "iufb" else a,
    lambda a: a.astype(np.float16) if a.dtype.kind in "iufb" else a,
    lambda a: a.astype("U20"),
    lambda a: a.astype("S20") if a.dtype.kind in "iufb" else a,
    lambda a: a.astype(np.complex64) if a.dtype.kind in "iufb" else a,
    lambda a: a.astype(">i8") if a.dtype.kind in "iufb" else a,
    lambda a: np.full_like(a, np.nan) if a.dtype.kind == "f" else a,
    lambda a: np.full_like(a, np.iinfo(a.dtype).max) if a.dtype.kind in "iu" else a,
    lambda a: np.full_like(a, np.iinfo(a.dtype).min) if a.dtype.kind in "iu" else a,
    lambda a: np.concatenate([a, a]) if a.ndim else a,
    lambda a: np.array(5),
    lambda a: np.array("text"),
    lambda a: np.zeros((2, 0, 3)),
    lambda a: np.zeros(3, dtype=[("x", "i4"), ("y", "f8")]),
    lambda a: np.zeros(len(a) if a.ndim else 1, dtype="M8[s]"),
    lambda a: np.asfortranarray(a),
)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def changed_npy(content: bytes, draw: Draw) -> bytes:
    """An `.npy` with changed bytes, another header, or another array in it."""
    kind = int(draw.integers(0, 4))
    if kind == 0:
        return damaged(content, draw)
    if kind == 1:
        shape = tuple(int(n) for n in draw.choice([0, 1, 3, 60, 10**6, 2**40, -1], int(draw.integers(0, 5))))
        dtype = ("|u1", "<i8", "<f4", "|O", "<U9", "|V8", [("a", "<i4")], "xx", 3)[int(draw.integers(0, 9))]
        text = repr({"descr": dtype, "fortran_order": bool(draw.random() < 0.2), "shape": shape}).ljust(117) + "\n"
        header = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()
        return header + content[128 : 128 + int(draw.integers(0, 5000))]
    try:
        array = np.load(io.BytesIO(content))
        about = json.loads(str(array)) if array.ndim == 0 and array.dtype.kind == "U" else None
    except Exception:  # it was damaged before
        return damaged(content, draw)
    if about is not None and draw.random() < 0.8:  # settings as JSON
        return npy(np.array(json.dumps(changed_tree(about, draw))))
    if kind == 2 and array.dtype.kind in "iu" and array.size:
        array = array.copy()
        info = np.iinfo(array.dtype)
        odd = (-(2**62), -2, -1, 0, 1, 5, 100, 999_999, 10**6, 2**31, 2**62)
        values = [value for value in odd if info.min <= value <= info.max]
        array.reshape(-1)[int(draw.integers(0, array.size))] = values[int(draw.integers(0, len(values)))]
        return npy(array)
    with warnings.catch_warnings(action="ignore"):
        return npy(ODD_ARRAYS[int(draw.integers(0, len(ODD_ARRAYS)))](array))


def changed_members(change: Callable[[str, bytes, Draw], bytes], compression: int = zipfile.ZIP_STORED) -> Mutate:
    """Changes in members of a zip archive whose check sums are right again; or bytes of the archive itself."""

    def mutate(content: bytes, draw: Draw) -> bytes:
        if draw.random() < 0.3:
            return damaged(content, draw)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        for name in draw.choice(list(members), int(draw.integers(1, 3))).tolist():
            kind = draw.random()
            if kind < 0.05:
                members.pop(name, None)
            elif kind < 0.1:
                members[str(draw.choice(["x.npy", "../x.npy", "kept.npy", "rows.npy", "x"]))] = members.get(name, b"")
            elif name in members:
                members[name] = change(name, members[name], draw)
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", compression) as archive:
            for name, member in members.items():
                archive.writestr(name, member)
        return stream.getvalue()

    return mutate


mutated_npz = changed_members(lambda name, content, draw: changed_npy(content, draw))
mutated_npz_deflated = changed_members(lambda name, content, draw: changed_npy(content, draw), zipfile.ZIP_DEFLATED)

GLOBALS = (
    b"cos\nsystem\n(S'true'\ntR.",
    b"cbuiltins\nexec\n(S'1'\ntR.",
    b"cbuiltins\neval\n(S'1'\ntR.",
    b"cnumpy\nload\n(S'x'\ntR.",
    b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(L99999999999L\ntS'b'\ntR.",
    b"cnumpy\nndarray\n((L99999999999L\ntS'u1'\ntR.",
    b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'V2000000000'\ntRtR.",
    b"cnumpy\ndtype\n(S'V2000000000'\ntR.",
    b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.",
    b"ccollections\nOrderedDict\n(K\x01tR.",
    b"cbuiltins\nset\n(]K\x01atR.",
    b"ctorch\nSize\n(tR.",
    b"\x8a\xff" + b"\x7f" * 255 + b".",
    b"\x8b\xff\xff\xff\x7f.",
    b"Nr\xff\xff\xff\x7f.",
    b"\x96\xff\xff\xff\xff\x0f\x00\x00\x00.",
    b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
    b"]" * 50_000 + b"a" * 49_999 + b".",
    b"(" * 50_000 + b".",
    b"Vx\n" + b"\x85" * 50_000 + b".",
    b"N}" + b"2" * 100 + b"u.",
)


def damaged_pickle(content: bytes, draw: Draw) -> bytes:
    kind = draw.random()
    if kind < 0.15:
        other = GLOBALS[int(draw.integers(0, len(GLOBALS)))]
        at = place(content, draw)
        return other if draw.random() < 0.5 else content[:at] + other.removesuffix(b".") + content[at:]
    return damaged(content, draw)


def changed_pickle(content: bytes, draw: Draw) -> bytes:
    """A pickle with other values at its places, or with changed bytes."""
    if draw.random() < 0.6:
        return damaged_pickle(content, draw)
    held = pickle.loads(content)
    key = list(held)[int(draw.integers(0, len(held)))]
    kind = int(draw.integers(0, 4))
    if kind == 0:
        held.pop(key)
    elif kind == 1:
        held[key] = odd_value(draw)
    elif kind == 2 and isinstance(held[key], np.ndarray):
        with warnings.catch_warnings(action="ignore"):
            held[key] = ODD_ARRAYS[int(draw.integers(0, len(ODD_ARRAYS)))](held[key])
    else:
        held[odd_key(draw)] = held[key]
    return pickle.dumps(held)


def odd_key(draw: Draw) -> Any:
    return (b"x", 3, None, (1, 2), b"\xff", "é", b"data", "labels")[int(draw.integers(0, 8))]


def damaged_torch_member(name: str, content: bytes, draw: Draw) -> bytes:
    return damaged_pickle(content, draw) if name.endswith(".pkl") else damaged(content, draw)


def damaged_safetensors(content: bytes, draw: Draw) -> bytes:
    """Its bytes, or its header with the right length in front."""
    if draw.random() < 0.4:
        return damaged(content, draw)
    (size,) = struct.unpack("<Q", content[:8])
    header, rest = content[8 : 8 + size], content[8 + size :]
    header = damaged_json(header, draw) if draw.random() < 0.8 else damaged(header, draw)
    return struct.pack("<Q", len(header)) + header + rest


TAR_FIELDS = ((0, 100), (100, 8), (124, 12), (156, 1), (157, 100), (257, 8), (345, 155))
TAR_TEXTS = (b"77777777777\0", b"-1", b"\x80" + b"\xff" * 11, b"00000001000\0", b"0", b"1", b"2", b"S", b"L", b"x",
             b"g", b"V", b"../x", b"000001.png", b"000001.cls", b"\xff\xfe")  # fmt: skip


def damaged_tar(content: bytes, draw: Draw) -> bytes:
    """Its bytes, or fields of one header, whose check sum is right again."""
    if draw.random() < 0.3:
        return damaged(content, draw)
    changed = bytearray(content)
    starts = [start for start in range(0, len(content), 512) if content[start + 257 : start + 262] == b"ustar"]
    for start in draw.choice(starts, int(draw.integers(1, 3))).tolist():
        at, length = TAR_FIELDS[int(draw.integers(0, len(TAR_FIELDS)))]
        text = (*TAR_TEXTS, draw.bytes(length))[int(draw.integers(0, len(TAR_TEXTS) + 1))]
        changed[start + at : start + at + length] = text.ljust(length, b"\0")[:length]
        changed[start + 148 : start + 156] = b" " * 8
        changed[start + 148 : start + 156] = b"%06o\0 " % sum(changed[start : start + 512])
    return bytes(changed)


# Files of every kind, and who reads them.

INFO = DatasetInfo("tiny", ("a", "b", "c"), (3, 8, 8), (0.3, 0.3, 0.3), (0.4, 0.4, 0.4))
rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(18, 3))


def images_npz(folder: Path) -> Path:
    npz.write_npz(folder / "images.npz", IMAGES, LABELS)
    return folder / "images.npz"


def deflated_npz(folder: Path) -> Path:
    np.savez_compressed(folder / "images.npz", image=IMAGES, label=LABELS)
    return folder / "images.npz"


def verdicts_npz(folder: Path) -> Path:
    found = Verdicts.unjudged("quick", "linf:0.1", ("clean", "a", "b"), np.arange(12), LABELS, 3)
    found.clean_prediction[:] = LABELS
    found.clean_logits[:] = 0.5
    found.fell_to[::2] = 1
    found.target[::2] = 2
    found.faced[1::2] = 3
    found.broken_logits[::2] = 1.0
    found.rows = np.arange(12)[::-1].copy()
    found.save(folder / "verdicts.npz")
    return folder / "verdicts.npz"


def use_verdicts(path: Path) -> None:
    found = Verdicts.load(path)
    assert isinstance(found.finished, bool)
    for each in (found.clean_accuracy, found.robust_accuracy, *map(found.robust_after, range(len(found.attacks)))):
        str(each)
    confusion(found)
    robust_by_class(found)
    found.entrants(1, 0)
    found.pass_on(1)
    Verdicts.merge([found])
    " ".join((*found.flags, *found.notes, found.made_for, found.suite, found.threat))


def history_npz(folder: Path) -> Path:
    history = History()
    for step in range(20):
        history.add(step=step, loss=1 / (step + 1), robust=0.5)
    history.save(folder / "history.npz")
    return folder / "history.npz"


def use_history(path: Path) -> None:
    history = History.load(path)
    for name in history.columns:
        float(history[name].sum())
        assert len(history[name]) == len(history)


def certificates_npz(folder: Path) -> Path:
    found = Certificates.blank(
        np.arange(12), LABELS, 192, sigma=0.25, selection=10, samples=100, alpha=0.01, seed=0, model="x"
    )
    found.save(folder / "certificates.npz")
    return folder / "certificates.npz"


def use_certificates(path: Path) -> None:
    found = Certificates.load(path)
    str((found.summary, found.finished, found.radii, found.linf_accuracy(0.1), found.linf_radius.sum()))


def cifar_batches(folder: Path) -> Path:
    data = rng.integers(0, 256, (6, 3072), dtype=np.uint8)
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        content = {b"data": data, b"labels": [0, 1, 2, 3, 4, 9], b"batch_label": b"x"}
        (folder / name).write_bytes(pickle.dumps(content, 2))
    return folder / "data_batch_2"


def carmon_pickle(folder: Path) -> Path:
    content = {"data": IMAGES, "extrapolated_targets": LABELS, "prediction_model": "wrn"}
    (folder / "ti.pickle").write_bytes(pickle.dumps(content))
    return folder / "ti.pickle"


def imagenet_batch(folder: Path) -> Path:
    data = rng.integers(0, 256, (2, 12288), dtype=np.uint8)
    (folder / "train_data_batch_1").write_bytes(pickle.dumps({"data": data, "labels": [1, 1000]}))
    return folder / "train_data_batch_1"


def import_of(form: str) -> Callable[[Path], None]:
    def use(path: Path) -> None:
        source = open_source([path], form)
        total = sum(len(block) for block in source.blocks(0))
        assert total == len(source.labels)

    return use


def safetensors(folder: Path) -> Path:
    (folder / "w.safetensors").write_bytes(safetensors_bytes(network().state_dict()))
    return folder / "w.safetensors"


def torch_file(legacy: bool = False, objects: bool = False) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        content: dict[str, Any] = {"state_dict": network().state_dict(), "epoch": 3}
        if objects:
            content |= {"args": argparse.Namespace(lr=0.1), "best": np.float64(0.5), "model": network()}
        torch.save(content, folder / "w.pt", _use_new_zipfile_serialization=not legacy)
        return folder / "w.pt"

    return write


def use_weights(path: Path) -> None:
    for name, tensor in read_weights(path).items():
        assert isinstance(name, str)
        float(tensor.float().sum()) if tensor.numel() < 10**6 else None


def checkpoint(folder: Path) -> Path:
    save_checkpoint(folder / "c.pt", {"step": 3}, model=network())
    return folder / "c.pt"


def haiku(folder: Path) -> Path:
    params = {
        "wide_res_net/conv": {"w": np.zeros((3, 3, 1, 4), np.float32)},
        "wide_res_net/linear": {"w": np.zeros((4, 3), np.float32), "b": np.zeros(3, np.float32)},
        "wide_res_net/batch_norm": {"scale": np.ones((1, 1, 1, 4), np.float32), "offset": np.zeros((1, 1, 1, 4))},
    }
    state = {"wide_res_net/batch_norm/mean_ema": {"average": np.zeros((1, 1, 1, 4), np.float32)}}
    held = np.empty(2, dtype=object)
    held[:] = [params, state]
    np.save(folder / "w.npy", held, allow_pickle=True)
    return folder / "w.npy"


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def tar(folder: Path) -> Path:
    with tarfile.open(folder / "set.tar", "w") as archive:
        for number, (pixels, label) in enumerate(zip(IMAGES[:4], LABELS, strict=False)):
            for suffix, content in ((".cls", str(label).encode()), (".png", png(pixels))):
                member = tarfile.TarInfo(f"{number:06d}{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return folder / "set.tar"


def picture(folder: Path) -> Path:
    (folder / "set" / "0").mkdir(parents=True)
    (folder / "set" / "0" / "0.png").write_bytes(png(IMAGES[0]))
    return folder / "set" / "0" / "0.png"


def damaged_png(content: bytes, draw: Draw) -> bytes:
    """Its bytes, or bytes of a chunk whose check sum is right again."""
    changed = bytearray(damaged(content, draw))
    if draw.random() < 0.6 and len(changed) > 40:
        size = int.from_bytes(changed[8:12], "big")
        if 16 + size < len(changed):
            changed[16 + size : 20 + size] = struct.pack(">I", zlib.crc32(changed[12 : 16 + size]))
    return bytes(changed)


def proxy(folder: Path) -> Path:
    np.savez(folder / "set.npz", image=IMAGES, label=LABELS)
    proxies = import_proxies(open_source([folder / "set.npz"], "npz"), folder / "p", made_by={"x": 1}, shard_images=5)
    proxies.add_columns({"what": "x"}, confidence=np.linspace(0, 1, 12), kept=np.arange(12) % 2 == 0)
    return folder / "p" / "manifest.json"


def use_proxy(path: Path) -> None:
    proxies = ProxySet(path.parent)
    proxies.counts()
    proxies.images(proxies.kept()[:3])
    proxies.block(0, len(proxies))
    for name in ("condition", "label", "confidence"):
        proxies.column(name)[:3]
    str((proxies.shape, proxies.classes, proxies.columns))
    proxies.verify()


def recipe_file(suffix: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / f"mine{suffix}"
        whole = RECIPES["digits-smoke"].to_json()
        part = {
            "base": "digits-smoke",
            "name": "x",
            "seed": 3,
            "train": {"loss": {"kind": "trades", "beta": 5}, "models": 1},
            "generators": {"g": {"kind": "gaussian"}},
            "arms": {"real": {}, "g": {"proxy": "g", "changes": ["loss.beta=3"]}},
            "threat": "linf:8/255",
        }
        path.write_text(json.dumps(whole) if suffix == ".json" else yaml.safe_dump(part, sort_keys=False))
        return path

    return write


def use_recipe(path: Path) -> None:
    recipe = read_recipe(path, RECIPES)
    json.dumps(recipe.to_json())
    for arm in recipe.arms:
        recipe.training(arm)


def classifier(folder: Path) -> Path:
    model = build_model("wrn-10-1", INFO, rng_for(0))
    save_classifier(folder, model, "wrn-10-1", INFO, threat="linf:0.1", validation={"robust": [1, 2]})
    return folder / "model.json"


def use_classifier(path: Path) -> None:
    dataset_info(read_model_json(path.parent))
    load_classifier(path.parent)


DDPM = DDPMConfig(channels=32, multipliers=(1,), blocks=1, attention=())


def diffusers(file: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        model = build_generator(DDPM, INFO, rng_for(0))
        save_diffusers(folder, model)  # type: ignore[arg-type]
        return folder / file

    return write


def generator(folder: Path) -> Path:
    model = build_generator(DDPM, INFO, rng_for(0))
    save_generator(folder, model, DDPM, INFO)
    return folder / "generator.json"


def gaussian(folder: Path) -> Path:
    from robustgen.images import ImageSet

    config = GaussianConfig()
    model = build_generator(config, INFO, rng_for(0))
    model.fit(ImageSet(IMAGES, LABELS, INFO))
    save_generator(folder, model, config, INFO)
    return folder / "generator.json"


def idx(folder: Path) -> Path:
    (folder / "x-ubyte").write_bytes(b"\0\0\x08\x03" + struct.pack(">3I", 2, 28, 28) + bytes(2 * 784))
    return folder / "x-ubyte"


def mat(folder: Path) -> Path:
    from scipy.io import savemat

    images = rng.integers(0, 256, (32, 32, 3, 2), dtype=np.uint8)
    savemat(folder / "train.mat", {"X": images, "y": np.array([[1], [10]])})
    return folder / "train.mat"


@dataclass(frozen=True)
class Target:
    """A kind of file.

    write   a good one into a folder
    read    by the package
    damage  a copy of its content
    share   of the copies of a format, where it is one of several forms of it
    """

    write: Callable[[Path], Path]
    read: Callable[[Path], object]
    damage: Mutate
    share: float = 1.0


def use_generator(path: Path) -> None:
    read_generator(path.parent)


def use_diffusers(path: Path) -> None:
    read_generator(path.parent.parent)


torch_members = changed_members(damaged_torch_member)
TARGETS = {
    "images": Target(images_npz, npz.load, mutated_npz),
    "proxy import": Target(images_npz, import_of("npz"), mutated_npz, 0.5),
    "proxy import, deflated": Target(deflated_npz, import_of("npz"), mutated_npz_deflated, 0.5),
    "verdicts": Target(verdicts_npz, use_verdicts, mutated_npz),
    "history": Target(history_npz, use_history, mutated_npz),
    "certificates": Target(certificates_npz, use_certificates, mutated_npz),
    "cifar": Target(cifar_batches, lambda path: cifar.load(path.parent), changed_pickle),
    "carmon": Target(carmon_pickle, import_of("pickle"), changed_pickle),
    "imagenet64": Target(imagenet_batch, imagenet64.read_batch, changed_pickle, 0.5),
    "safetensors": Target(safetensors, use_weights, damaged_safetensors),
    "pt": Target(torch_file(), use_weights, torch_members, 0.25),
    "pt with objects": Target(torch_file(objects=True), use_weights, torch_members, 0.25),
    "pt, legacy": Target(torch_file(legacy=True), use_weights, damaged_pickle, 0.25),
    "pt with objects, legacy": Target(torch_file(True, True), use_weights, damaged_pickle, 0.25),
    "checkpoint": Target(checkpoint, lambda path: load_checkpoint(path, model=network()), torch_members, 0.5),
    "haiku": Target(haiku, use_weights, damaged_pickle),
    "tar": Target(tar, import_of("webdataset"), damaged_tar),
    "picture": Target(picture, lambda path: import_of("folder")(path.parent.parent), damaged_png, 0.5),
    "manifest": Target(proxy, use_proxy, damaged_json),
    "recipe json": Target(recipe_file(".json"), use_recipe, damaged_json, 0.5),
    "recipe yaml": Target(recipe_file(".yaml"), use_recipe, damaged_yaml, 0.5),
    "model.json": Target(classifier, use_classifier, damaged_json),
    "generator.json": Target(generator, use_generator, damaged_json, 0.5),
    "generator.json, gaussian": Target(gaussian, use_generator, damaged_json, 0.5),
    "diffusers config": Target(diffusers("unet/config.json"), use_diffusers, damaged_json, 0.5),
    "diffusers scheduler": Target(diffusers("scheduler/scheduler_config.json"), use_diffusers, damaged_json, 0.5),
    "idx": Target(idx, mnist.read_idx, damaged, 0.5),
    "mat": Target(mat, svhn.read_mat, damaged, 0.5),
}
ASKS_FOR_MORE = ("pt, legacy", "pt with objects, legacy")
"""torch reads these with buffers as large as a length field says, at most 4 GB; a refusal of them is one line."""

# The watched process.

FORBIDDEN = ("exec", "compile", "import", "os.", "subprocess.", "socket.", "ctypes.", "shutil.", "pty.", "code.__new__",
             "function.__new__", "builtins.input", "webbrowser.", "urllib.", "marshal.load")  # fmt: skip
HARMLESS = ("os.listdir", "os.scandir", "os.putenv")
HARMLESS_MODULES = (
    "robustgen",
    "numpy",
    "torch",
    "PIL",
    "olefile",
    "yaml",
    "scipy",
    "pydantic",
    "sympy",
    "mpmath",
    "gmpy2",
)
"""Imported by these libraries themselves where they meet something rare; besides the standard library."""
watching: list[tuple[str, str]] | None = None


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Note events that only code from a file can cause. Literals in headers are parsed by `ast`, which runs nothing."""
    if watching is None:
        return
    if event == "open":
        mode, flags = arguments[1], arguments[2]
        writes = (isinstance(mode, str) and set(mode) & set("wax+")) or (flags or 0) & (os.O_WRONLY | os.O_RDWR)
        if writes:
            watching.append((event, str(arguments)))
        return
    if not event.startswith(FORBIDDEN) or event in HARMLESS:
        return
    if event == "import" and str(arguments[0]).split(".")[0] in (*HARMLESS_MODULES, *sys.stdlib_module_names):
        return
    if event in ("compile", "exec", "marshal.loads"):
        frame = sys._getframe(1)
        while frame is not None:
            name = frame.f_code.co_filename
            if name.endswith(("/ast.py", "/dataclasses.py")) or "importlib" in name:
                return
            frame = frame.f_back  # type: ignore[assignment]
    watching.append((event, str(arguments)[:200]))


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and all that it was raised from or during."""
    seen: set[int] = set()
    stack = [error]
    while stack:
        one = stack.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            stack += [one.__cause__, one.__context__]


def complaint(error: BaseException, may_ask: bool = False) -> str | None:
    """What is wrong with an error that a reader raised; None where it is one line for the user."""
    for one in () if may_ask else causes(error):
        if isinstance(one, MemoryError) or "can't allocate memory" in str(one) or "Unable to allocate" in str(one):
            return f"allocates too much: {type(one).__name__}: {one}"
    if not isinstance(error, USER_ERRORS):
        return f"raises {type(error).__name__}: {error}"
    text = describe_error(error)
    if len(text) > 2000 or not text.replace("é", "e").isprintable():
        return f"says {len(text)} characters: {text[:200]!r}"
    return None


def run(name: str, folder: Path, count: int, only: int | None = None) -> None:
    """Read a good file, then damaged copies of it."""
    global watching
    target = TARGETS[name]
    path = target.write(folder)
    good = path.read_bytes()
    with warnings.catch_warnings(action="ignore"):
        target.read(path)
    refused, shown = 0, set[str]()
    count = max(1, round(count * target.share))
    for number in range(count) if only is None else [only]:
        draw = np.random.default_rng([number, zlib.crc32(name.encode())])
        path.write_bytes(target.damage(good, draw))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        faulthandler.dump_traceback_later(LONGEST, exit=True)
        problem, where, events = None, "", []
        try:
            with warnings.catch_warnings(action="ignore"):
                watching = events
                target.read(path)
                watching = None
        except (Exception, RecursionError) as error:
            watching = None
            refused += 1
            problem = complaint(error, name in ASKS_FOR_MORE)
            where = "".join(traceback.format_exception(error)[-8:])
        finally:
            watching = None
            faulthandler.cancel_dump_traceback_later()
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        if events:
            problem = f"runs something: {events[:3]}"
        elif grown > LARGEST // 8:
            problem = f"allocates {grown:,} bytes"
        kind = f"{(problem or '')[:60]} {where.splitlines()[-4:-2] if where else ''}"
        if problem and (kind not in shown or only is not None):
            shown.add(kind)
            found = {"target": name, "number": number, "problem": problem[:500], "where": where[-3000:]}
            print(json.dumps(found), flush=True)
    print(json.dumps({"target": name, "count": count, "refused": refused}), flush=True)


def main() -> None:
    folder, count, names = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    torch.set_num_threads(1)
    # What torch imports itself when a network is first built on its device meta, some of it written to temporary files.
    for module in ("torch._dynamo", "torch._inductor.utils", "torch._refs"):
        importlib.import_module(module)
    sys.addaudithook(watch)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + LARGEST, in_use + LARGEST))
    for name in names:
        place = folder / name.replace(" ", "-").replace(",", "")
        place.mkdir(parents=True)
        run(name, place, count, int(os.environ["ONLY"]) if "ONLY" in os.environ else None)


if __name__ == "__main__":
    main()
