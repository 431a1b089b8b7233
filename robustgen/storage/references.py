"""Names of Python code that a user wrote: FILE.py:NAME or PACKAGE.MODULE:NAME, with arguments. No torch here."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from robustgen.storage.files import atomic_write
from robustgen.units import show_names


@dataclass(frozen=True)
class Reference:
    """The name of a network or generator that is not built in.

    where      a file `net.py`, a module `package.module`, `timm`, `hf`, or `object` for one that was built in Python
    name       a function, a class or an object of it; for hf a folder
    arguments  keyword arguments, of plain values: `net.py:make(width=64)`
    """

    where: str
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Reference | None:
        """A reference from text; None where the text has another form.

        Raises:
            ValueError: arguments that are not plain values by name.
        """
        if text.startswith("hf:"):
            return cls("hf", text.removeprefix("hf:"))
        name = r"[\w.\-/]+" if text.startswith("timm:") else r"[A-Za-z_]\w*"
        found = re.fullmatch(rf"(timm|[^:()]*[^:()\s]):({name})(\(.*\))?", text, re.DOTALL)
        return cls(found[1], found[2], _arguments(found[3] or "()", text)) if found and found[1] != "hub" else None

    @property
    def file(self) -> Path | None:
        """The source file, where one is named."""
        return Path(self.where) if self.where.endswith(".py") else None

    def __str__(self) -> str:
        inner = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{self.where}:{self.name}" + (f"({inner})" if inner else "")


def _arguments(text: str, reference: str) -> dict[str, Any]:
    try:
        call = ast.parse(f"f{text}", mode="eval").body
        if isinstance(call, ast.Call) and not call.args and all(one.arg for one in call.keywords):
            return {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
    except (SyntaxError, ValueError):
        pass
    raise ValueError(f"{reference}: expected arguments by name with plain values, such as (width=64), got {text}")


def find_code(reference: Reference, file: Path | None = None) -> Callable[..., Any]:
    """The function, class or callable object that a reference to Python code names; its module is run.

    Args:
        file: a copy of the source file to use in place of the reference's.

    Raises:
        ValueError: no such file, module or name, or code that fails.
    """
    module = _module(reference, file)
    found = getattr(module, reference.name, None)
    if callable(found):
        return found
    known = [name for name, thing in vars(module).items() if callable(thing) and not name.startswith("_")]
    raise ValueError(f"{reference}: no function {reference.name!r}; known: {show_names(known) or 'none'}")


def _module(reference: Reference, file: Path | None) -> ModuleType:
    path = file or reference.file
    if path is None:
        try:
            return importlib.import_module(reference.where)
        except ImportError as error:
            raise ValueError(f"cannot import {reference.where} ({error})") from None
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"robustgen_external_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # As if the file were run: modules next to it, or next to the file that it was copied from, can be imported.
    neighbors = [str(place.resolve().parent) for place in (path, reference.file) if place is not None]
    sys.path[:0] = neighbors
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path} fails when it is imported: {type(error).__name__}: {one_line(error)}") from error
    finally:
        del sys.path[: len(neighbors)]
    return module


def one_line(error: Exception) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split())


def digest_of_file(path: Path) -> str:
    """SHA-256 of a source file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def keep_copy(reference: Reference, kept: Path) -> Path | None:
    """Copy the source file that a reference names, before work with it begins; None where it names none.

    Raises:
        ValueError: no such file, or one that has changed since the copy was made.
    """
    if reference.file is None:
        return None
    if not reference.file.is_file():
        raise ValueError(f"there is no file {reference.file}")
    if kept.exists() and digest_of_file(kept) != digest_of_file(reference.file):
        raise ValueError(
            f"{reference.file} has changed since training began in {kept.parent}; choose another folder, or remove it"
        )
    if not kept.exists():
        with atomic_write(kept) as file:
            file.write(reference.file.read_bytes())
    return kept


def note_of_change(reference: Reference, kept: Path) -> str:
    """A sentence where a source file differs from the copy that is used in its place; empty where it does not."""
    file = reference.file
    if file is None or not file.is_file() or digest_of_file(file) == digest_of_file(kept):
        return ""
    return f"{file} has changed since {kept.parent} was trained; the copy from then, {kept}, is used"
