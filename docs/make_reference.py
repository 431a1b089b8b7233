"""The reference pages of the documentation site, from the code: commands, settings, files, and the Python interface.

docs/site_hooks.py puts them into the site. No page is typed, so none can differ from the code.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import typer
from pydantic import BaseModel

import robustgen
from robustgen.cli import GROUPS, app
from robustgen.config.generator_base import GeneratorConfig
from robustgen.config.generators import GENERATOR_CONFIGS
from robustgen.config.losses import LOSS_CONFIGS, LossConfig
from robustgen.config.recipe import Recipe
from robustgen.records.certificates import Certificates
from robustgen.records.evaluation_info import EvaluationInfo
from robustgen.records.loading import OF_CLASSIFIERS, OF_PROXY_SETS
from robustgen.records.quality import Quality
from robustgen.records.verdicts import Verdicts

Settings = type[BaseModel]
KINDS: dict[Settings, dict[str, Any]] = {LossConfig: dict(LOSS_CONFIGS), GeneratorConfig: dict(GENERATOR_CONFIGS)}
"""Settings that have one class per `kind`."""


def commands_page() -> str:
    """Every command with its usage, description, examples and options, under the headings of `robustgen --help`."""
    group = typer.main.get_command(app)
    lines = [
        "# Command line",
        "What `robustgen COMMAND --help` prints, for every command. Options of `robustgen` itself come before "
        "the name of the command.",
        options_table(group, "robustgen"),
    ]
    for heading, names in GROUPS.items():
        lines += [f"## {heading}", *(command_text(group.commands[name], f"robustgen {name}") for name in names)]
    return "\n\n".join(lines) + "\n"


def command_text(command: Any, name: str) -> str:
    context = typer.Context(command, info_name=name)
    usage = " ".join(command.get_usage(context).removeprefix("Usage: ").split())
    return "\n\n".join([f"### {name}", f"```text\n{usage}\n```", *prose(command.help), options_table(command, name)])


def prose(text: str) -> Iterator[str]:
    """Paragraphs of a command's help; those after a backspace, click's mark of fixed lines, as code."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b\n"):
            yield f"```bash\n{textwrap.dedent(paragraph.removeprefix(chr(8) + chr(10)))}\n```"
        else:
            yield cell(paragraph)


def options_table(command: Any, name: str) -> str:
    context = typer.Context(command, info_name=name)
    records = [record for option in command.get_params(context) if (record := option.get_help_record(context))]
    rows = [f"| `{' '.join(names.split())}` | {cell(text)} |" for names, text in records if "--help" not in names]
    return "\n".join(["| argument or option | meaning |", "| --- | --- |", *rows])


def settings_page() -> str:
    """Every setting of a recipe: its values, default and meaning, from the classes that check it."""
    lines = [
        "# Settings",
        "The settings of a recipe. `robustgen show RECIPE` prints their values; a YAML file or `--set NAME=VALUE` "
        "changes them. A setting of a section is named with it: `peak_lr` of `train.schedule` is "
        "`train.schedule.peak_lr`. Numbers may be fractions, such as `8/255`.",
    ]
    for config, places in sections().items():
        kinds = KINDS.get(config)
        if kinds is None:
            lines += [f"## {title(places)}", *class_text(config)]
            continue
        lines += [f"## {title(places)}", "A section with a `kind`. Each kind has its own settings."]
        for kind, member in kinds.items():
            lines += [f"### {title(places)}: {kind}", *class_text(member)]
    return "\n\n".join(lines) + "\n"


def title(places: list[str]) -> str:
    return ", ".join(places)


def sections() -> dict[Settings, list[str]]:
    """The classes of settings that a recipe holds, and where: breadth first, each once."""
    found: dict[Settings, list[str]] = {Recipe: ["The recipe"]}
    queue: list[tuple[Settings, str]] = [(Recipe, "")]
    while queue:
        config, place = queue.pop(0)
        members = list(KINDS[config].values()) if config in KINDS else [config]
        for member in members:
            for name, field in member.model_fields.items():
                for inner, suffix in classes_in(field.annotation):
                    where = f"{place}{name}{suffix}"
                    places = found.setdefault(inner, [])
                    if where not in places:
                        places.append(where)
                        queue.append((inner, f"{where}."))
    return found


def classes_in(kind: Any, suffix: str = "") -> Iterator[tuple[Settings, str]]:
    """Classes of settings inside a type, with what their place adds: `.NAME` in a dictionary, `[N]` in a sequence."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield next((base for base in KINDS if issubclass(kind, base)), kind), suffix
        return
    origin = typing.get_origin(kind)
    added = ".NAME" if origin is dict else "[N]" if origin in (list, tuple) else ""
    for inner in typing.get_args(kind):
        yield from classes_in(inner, suffix + added)


def class_text(config: Settings) -> list[str]:
    """The description of a class of settings and the table of its fields."""
    meanings = attribute_docstrings(config)
    rows = []
    for name, field in config.model_fields.items():
        if field.exclude:
            continue
        default = "required" if field.is_required() else shown(field.get_default(call_default_factory=True))
        values = cell(f"`{values_of(field.annotation, field.metadata)}`")
        rows.append(f"| `{name}` | {values} | {default} | {cell(meanings.get(name, ''))} |")
    text = inspect.cleandoc(config.__dict__.get("__doc__") or "")
    table = "\n".join(["| setting | values | default | meaning |", "| --- | --- | --- | --- |", *rows])
    return [*(cell(part) for part in text.split("\n\n") if part), *([table] if rows else [])]


def attribute_docstrings(config: Settings) -> dict[str, str]:
    """The strings below the fields of a class and of the classes it is built from."""
    found: dict[str, str] = {}
    for base in reversed(config.__mro__):
        if not issubclass(base, BaseModel) or base is BaseModel:
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body  # type: ignore[attr-defined]
        for field, text in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[ast.unparse(field.target)] = inspect.cleandoc(str(text.value.value))
    return found


def values_of(kind: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> str:
    """A type in words: `"cosine" or "step"`, `integer >= 1`, `number`."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        inner, *more = typing.get_args(kind)
        return values_of(inner, [*more, *metadata])
    if origin is Literal:
        return " or ".join(map(str, typing.get_args(kind)))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(values_of(part, metadata) for part in typing.get_args(kind))
    if origin in (list, tuple):
        return f"list of {values_of(next(part for part in typing.get_args(kind) if part is not ...))}"
    if origin is dict:
        return f"NAME: {values_of(typing.get_args(kind)[1])}"
    names: dict[Any, str] = {int: "integer", float: "number", str: "text", bool: "true or false", type(None): "none"}
    if kind in names:
        return names[kind] + ("" if kind in (bool, str, type(None)) else bounds(metadata))
    return "section"


def bounds(metadata: list[Any] | tuple[Any, ...]) -> str:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    parts = [piece for item in metadata for piece in (getattr(item, "metadata", None) or [item])]
    limits = [
        f" {signs[name]} {value:g}"
        for part in parts
        for name in signs
        if (value := getattr(part, name, None)) is not None
    ]
    return ",".join(limits)


def shown(value: Any) -> str:
    if isinstance(value, BaseModel):
        kind = getattr(value, "kind", None)
        return f"`{kind}`" if kind else "its defaults"
    if value is None or value in ((), [], {}, ""):
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def cell(text: str) -> str:
    """Text for one line of Markdown: outside of code spans, signs with a meaning in Markdown are escaped."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(part if part.startswith("`") else re.sub(r"([|<*[])", r"\\\1", part) for part in parts)


def python_page() -> str:
    """The public names of `import robustgen`, by the module that defines them."""
    modules: dict[str, list[str]] = {}
    for name, module in robustgen._PUBLIC.items():
        modules.setdefault(module, []).append(name)
    lines = [
        "# Python",
        "What `import robustgen` offers. Tensors of images are (N, C, H, W) in [0, 1]. "
        "The interfaces to implement for attacks, losses and generators of your own are on "
        "[another page](interfaces.md).",
    ]
    for module, names in modules.items():
        lines.append(f"## {module}")
        lines += [f"::: {module}.{name}\n    options:\n      heading_level: 3" for name in names]
    return "\n\n".join(lines) + "\n"


def interfaces_page() -> str:
    """The interfaces of members of a family, and the checks of one's own."""
    modules = ("robustgen.contracts", "robustgen.testing", "robustgen.generators.contracts")
    lines = [
        "# Interfaces",
        "What an attack, a loss, an augmentation or a generator of your own must do, and functions that test it. "
        "[Extending robustgen](../extending.md) shows one of each.",
        *(f"## {module}\n\n::: {module}\n    options:\n      show_root_heading: false" for module in modules),
    ]
    return "\n\n".join(lines) + "\n"


def files_page() -> str:
    """The files that stages write, and the columns of each."""
    files: list[tuple[str, str, type]] = [
        ("Verdicts", "evaluation/ARM.SUITE.npz of a run, SUITE.npz of a classifier", Verdicts),
        ("Provenance of verdicts and certificates", "NAME.info.json", EvaluationInfo),
        ("Certificates", "certification/ARM.npz of a run, certificates.npz of a classifier", Certificates),
        ("Quality of generated images", "quality/GENERATOR.npz of a run, quality.npz of a proxy set", Quality),
        *(
            (f"Analysis {kind}", f"analysis/NAME.{kind}.npz", record)
            for kind, record in {**OF_CLASSIFIERS, **OF_PROXY_SETS}.items()
        ),
    ]
    lines = [
        "# Files",
        "Weights are `.safetensors`, arrays `.npz` that `numpy.load` reads without pickles, settings `.json`. Files "
        "appear whole: a process that is killed leaves none half written. The folders are those of "
        "[a run](../architecture.md#files-of-a-run), [a proxy set](../proxies.md) and [a published classifier]"
        "(../hub.md#publishing-your-own). Below, N is the number of test images and K the number of classes.",
        "The text `about` in an `.npz` holds what is not an array, as JSON. The class named below reads the file: "
        "`robustgen.Verdicts.load(path)`.",
    ]
    for heading, place, record in files:
        prose = columns_of(inspect.cleandoc(record.__doc__ or ""))[0]
        documented = [inspect.cleandoc(vars(base).get("__doc__") or "") for base in reversed(record.__mro__[:-1])]
        columns = [column for text in documented for column in columns_of(text)[1] if column[0] != "kind"]
        rows = [f"| `{name}` | {cell(text)} |" for name, text in columns]
        lines += [f"## {heading}", f"File: {place}. Class: `{record.__module__}.{record.__name__}`.", *prose]
        lines += ["\n".join(["| column | meaning |", "| --- | --- |", *rows])] if rows else []
    return "\n\n".join(lines) + "\n"


def columns_of(docstring: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Paragraphs of a docstring, and the list of fields in it: names, two spaces or more, meaning."""
    prose: list[str] = []
    columns: list[tuple[str, str]] = []
    for paragraph in docstring.split("\n\n"):
        if not re.match(r"\w[\w, ]*?  +\S", paragraph):
            prose.append(f"```text\n{paragraph}\n```" if paragraph.startswith("    ") else cell(paragraph))
            continue
        for line in paragraph.splitlines():
            if found := re.match(r"(\w[\w, ]*?)  +(\S.*)", line):
                columns.append((found[1], found[2]))
            else:
                columns[-1] = (columns[-1][0], f"{columns[-1][1]} {line.strip()}")
    return prose, columns


PAGES: dict[str, Callable[[], str]] = {
    "reference/commands.md": commands_page,
    "reference/settings.md": settings_page,
    "reference/python.md": python_page,
    "reference/interfaces.md": interfaces_page,
    "reference/files.md": files_page,
}
"""Pages by their place in docs/."""


def write(folder: Path) -> None:
    """Write all pages, for a look at them without building the site."""
    for place, page in PAGES.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(page())


if __name__ == "__main__":
    import sys

    write(Path(sys.argv[1]))
