"""What travels: named sets of tensors, cut into small files with digests.

FOLDER/NAME/manifest.json    what it is, what it was made of, a SHA-256 of every part and of the manifest itself
FOLDER/NAME/part-0.bin ...   safetensors bytes, cut every PART_BYTES

Of several folders that hold a NAME, the one that is furthest counts.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from robustgen.storage.files import atomic_write, read_json, write_json

PART_BYTES = 14 * 2**20
"""A file that comes back may have 16 MiB."""
MOST_BYTES = 4 * PART_BYTES
"""A command may bring back 8 files and 64 MiB: four parts, and room for manifests and a picture."""


@dataclass(frozen=True)
class Piece:
    """A NAME in one folder, as its manifest tells.

    of        what it was made of: digests by name; a piece made of something else is refused
    progress  how far it is; of several the furthest counts
    about     anything else worth keeping
    """

    folder: Path
    name: str
    of: dict[str, str]
    progress: float
    about: dict[str, Any]
    parts: list[dict[str, Any]]

    def payload(self) -> bytes:
        """Raises ValueError for a part that is missing or altered; says which and what to do."""
        found = []
        for part in self.parts:
            path = self.folder / part["file"]
            content = path.read_bytes() if path.is_file() else b""
            if hashlib.sha256(content).hexdigest() != part["sha256"]:
                raise ValueError(
                    f"{path} is missing or differs from its manifest; bring {self.name} back again, or leave it out"
                )
            found.append(content)
        return b"".join(found)

    def tensors(self) -> dict[str, Tensor]:
        return load(self.payload()) if self.parts else {}

    @property
    def sha256(self) -> str:
        """Of all there is to it."""
        return hashlib.sha256("".join(part["sha256"] for part in self.parts).encode()).hexdigest()


def digest_of_json(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def write_piece(
    folders: Sequence[Path],
    name: str,
    *,
    of: dict[str, str],
    progress: float = 1.0,
    about: dict[str, Any] | None = None,
    tensors: dict[str, Tensor] | None = None,
) -> int:
    """Write a piece into each folder in the place of an older one, its manifest last; returns its bytes.

    Raises:
        ValueError: more than a command can bring back.
    """
    payload = save({key: value.contiguous() for key, value in tensors.items()}) if tensors else b""
    if len(payload) > MOST_BYTES:
        raise ValueError(
            f"{name} has {len(payload) / 2**20:.0f} MiB, a command brings back {MOST_BYTES / 2**20:.0f}; "
            "choose a smaller network"
        )
    cuts = [payload[first : first + PART_BYTES] for first in range(0, len(payload), PART_BYTES)]
    parts: list[dict[str, Any]] = [
        {"file": f"part-{number}.bin", "bytes": len(cut), "sha256": hashlib.sha256(cut).hexdigest()}
        for number, cut in enumerate(cuts)
    ]
    manifest: dict[str, Any] = {"name": name, "of": of, "progress": progress, "about": about or {}, "parts": parts}
    manifest["sha256"] = digest_of_json(manifest)
    for folder in folders:
        here = folder / name
        (here / "manifest.json").unlink(missing_ok=True)
        here.mkdir(parents=True, exist_ok=True)
        for stale in here.glob("part-*.bin"):
            stale.unlink()
        for part, cut in zip(parts, cuts, strict=True):
            with atomic_write(here / part["file"]) as file:
                file.write(cut)
        write_json(here / "manifest.json", manifest)
    return len(payload)


def read_piece(folder: Path) -> Piece:
    """Raises ValueError where the manifest is altered."""
    manifest = read_json(folder / "manifest.json")
    told = manifest.pop("sha256", None) if isinstance(manifest, dict) else None
    if told is None or told != digest_of_json(manifest):
        raise ValueError(f"{folder / 'manifest.json'} was altered: its digest differs; bring {folder.name} back again")
    fields = ("name", "of", "progress", "about", "parts")
    return Piece(folder, *(manifest[field] for field in fields))


def names_in(folders: Iterable[Path]) -> list[str]:
    return sorted({path.parent.name for folder in folders for path in folder.glob("*/manifest.json")})


def find_piece(folders: Iterable[Path], name: str, of: dict[str, str] | None = None) -> Piece | None:
    """The furthest piece of that name; the first folder's among equals.

    Raises:
        ValueError: it was made of something else; says of what.
    """
    found = [read_piece(folder / name) for folder in folders if (folder / name / "manifest.json").exists()]
    best = max(found, key=lambda piece: piece.progress, default=None)
    if best is not None and of is not None and best.of != of:
        other = ", ".join(sorted(key for key in {*of, *best.of} if of.get(key) != best.of.get(key)))
        raise ValueError(
            f"{best.folder} was made with another {other}; use the settings it was made with, or remove it"
        )
    return best


def collect(folders: Sequence[Path], into: Path) -> list[str]:
    """Copy every piece that is further than the one there, parts checked; returns their names.

    Raises:
        ValueError: a part that is missing or altered; nothing of that piece is copied.
    """
    taken = []
    for name in names_in(folders):
        piece, there = find_piece(folders, name), find_piece([into], name)
        assert piece is not None
        if there is not None and there.progress >= piece.progress:
            continue
        piece.payload()
        shutil.rmtree(into / name, ignore_errors=True)
        shutil.copytree(piece.folder, into / name)
        for path in [into / name, *(into / name).iterdir()]:  # what comes back may be read-only
            path.chmod(path.stat().st_mode | 0o200)
        taken.append(name)
    return taken


def rounded(tensor: Tensor) -> Tensor:
    """In bfloat16, where it is a matrix or more; vectors and numbers are few and stay as they are."""
    tensor = tensor.detach().cpu()
    return tensor.to(torch.bfloat16) if tensor.dtype == torch.float32 and tensor.ndim > 1 else tensor


Rule = tuple[str, str, str]
"""(beginning, ending, instead) of the tensors that are left out: "zeros", or the beginning of those that serve."""


def take_apart(content: object, leave_out: Sequence[Rule], most_bytes: int) -> tuple[Any, dict[str, Tensor], list[str]]:
    """A checkpoint as plain JSON and rounded tensors; as many rules are followed as make it fit, one after another.

    Returns the JSON, the tensors, and what was left out, a phrase each.
    """
    tensors: dict[str, Tensor] = {}

    def apart(value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            tensors[path] = rounded(value)
            return {"tensor": path, "dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape)}
        if isinstance(value, dict):
            return {"dict": [[key, apart(each, f"{path}/{key}")] for key, each in value.items()]}
        if isinstance(value, list | tuple):
            if any(isinstance(each, dict | list | tuple | Tensor) for each in value):
                return {"list": [apart(each, f"{path}/{number}") for number, each in enumerate(value)]}
            return {"plain": list(value)}
        return {"plain": value}

    plan = apart(content, "")
    missing: dict[str, str] = {}
    told = []
    for beginning, ending, instead in leave_out:
        if sum(tensor.nbytes for tensor in tensors.values()) + 2**20 <= most_bytes:
            break
        # Numbers and vectors stay: they are few, and Adam's count of steps is one of them.
        going = [n for n, t in tensors.items() if n.startswith(beginning) and n.endswith(ending) and t.ndim > 1]
        for name in going:
            missing[name] = instead if instead == "zeros" else instead + name.removeprefix(beginning)
            del tensors[name]
        told.append(f"{beginning}...{ending} (instead: {instead})")
    return {"plan": plan, "missing": missing}, tensors, told


def put_together(said: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    """The checkpoint again, in the types it had."""

    def whole(part: dict[str, Any]) -> Any:
        if "tensor" in part:
            name = part["tensor"]
            while name in said["missing"]:
                name = said["missing"][name]
            dtype = getattr(torch, part["dtype"])
            return torch.zeros(part["shape"], dtype=dtype) if name == "zeros" else tensors[name].to(dtype).clone()
        if "dict" in part:
            return {key: whole(each) for key, each in part["dict"]}
        return [whole(each) for each in part["list"]] if "list" in part else part["plain"]

    return whole(said["plan"])
