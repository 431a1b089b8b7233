"""The documentation site: its order names every page, and its reference every command, setting and public name."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_docs import DOCS, script

import robustgen
from conftest import REPOSITORY
from robustgen.cli import VERBS
from robustgen.config.generators import GENERATOR_CONFIGS
from robustgen.config.losses import LOSS_CONFIGS
from robustgen.config.recipe import Recipe
from robustgen.recipes import RECIPES

reference, tutorials = script("make_reference"), script("make_tutorials")
SITE = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())


def places(entries) -> list[str]:
    """Pages of a part of the navigation."""
    if isinstance(entries, str):
        return [entries]
    return [place for entry in (entries if isinstance(entries, list) else entries.values()) for place in places(entry)]


def test_the_navigation_names_every_page_once():
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} | set(reference.PAGES)
    named = places(SITE["nav"])
    assert set(named) == pages and len(named) == len(pages)


def test_the_page_of_commands_has_every_command_and_option(robustgen):
    page = reference.commands_page()
    assert re.findall(r"^### robustgen ([\w-]+)$", page, re.MULTILINE) == list(VERBS)
    for command in ("evaluate", "fit"):
        _, text, _ = robustgen(command, "--help")
        options = set(re.findall(r"^ +(?:-\w, )?(--[\w-]+)", text, re.MULTILINE)) - {"--help"}
        section = page.partition(f"### robustgen {command}\n")[2].partition("\n### ")[0]
        assert len(options) > 5 and all(f"{option}" in section for option in options)


def leaves(content):
    """Names of all settings in a JSON-like recipe."""
    for name, value in content.items():
        yield name
        if isinstance(value, dict) and name not in ("generators", "arms", "special", "published"):
            yield from leaves(value)


def test_the_page_of_settings_has_every_setting():
    page = reference.settings_page()
    named = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    for recipe in RECIPES.values():
        assert set(leaves(recipe.to_json())) <= named
    for kinds in (LOSS_CONFIGS, GENERATOR_CONFIGS):
        for kind, config in kinds.items():
            if not config.__module__.startswith("robustgen."):
                continue  # another test has registered it
            section = re.search(rf"^### [\w., ]+: {re.escape(kind)}\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
            assert all(f"| `{name}` |" in section[1] for name in config.model_fields), kind
    assert "| `peak_lr` | `number > 0` | required | Peak learning rate." in page
    assert "train.schedule" in page and Recipe.__doc__.splitlines()[0] in page


def test_the_pages_of_python_have_every_public_name():
    page = reference.python_page()
    named = {line.rpartition(".")[2] for line in re.findall(r"^::: (.+)$", page, re.MULTILINE)}
    assert named == set(robustgen.__all__) - {"__version__"}


def test_the_page_of_files_has_every_column():
    from dataclasses import fields

    from robustgen.records.certificates import Certificates
    from robustgen.records.loading import OF_CLASSIFIERS, OF_PROXY_SETS
    from robustgen.records.verdicts import Verdicts

    page = reference.files_page()
    for record in (Verdicts, Certificates, *OF_CLASSIFIERS.values(), *OF_PROXY_SETS.values()):
        section = page.partition(f".{record.__name__}`")[2].partition("\n## ")[0]
        named = {name for row in re.findall(r"^\| `([\w, ]+)` \|", section, re.MULTILINE) for name in row.split(", ")}
        assert {field.name for field in fields(record)} <= named, record


def test_types_are_written_in_words():
    values = {
        name: reference.values_of(field.annotation, field.metadata) for name, field in Recipe.model_fields.items()
    }
    assert values["threads"] == "integer >= 1" and values["labels"] == "predicted or condition"
    assert values["seeds"] == "list of integer" and values["arms"] == "NAME: section"


SETTLED = ("size", "images", "network", "generated", "labels", "augmentation", "evaluation", "learning rate")
"""Choices of `run auto` that do not depend on the speed of the machine."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "photos", "audit"])
def test_a_tutorial_prints_what_its_page_shows(name, tmp_path):
    """All of its commands in order; the numbers may differ."""
    page = DOCS / "tutorials" / f"{name}.md"
    pieces = [(piece, printed) for piece, printed in tutorials.run_page(page.read_text(), tmp_path)]
    assert len(pieces) >= 5
    for piece, printed in pieces:
        if piece["output"] is not None:
            assert tutorials.without_numbers(printed) == tutorials.without_numbers(piece["output"]), piece["commands"]
    planned = [tutorials.without_numbers(printed) for piece, printed in pieces if " run auto " in piece["commands"]]
    for row in re.findall(rf"^(?:{'|'.join(SETTLED)}) .*", page.read_text(), re.MULTILINE):
        assert all(tutorials.without_numbers(row) in text for text in planned), row
    for picture in re.findall(r"!\[[^\]]+\]\(([\w.-]+)\)", page.read_text()):
        assert (tmp_path / picture).stat().st_size > 500 and (page.parent / picture).exists()


@pytest.mark.parametrize("name", ["digits", "photos", "audit"])
def test_the_notebook_of_a_tutorial_is_that_of_its_page(name):
    page = DOCS / "tutorials" / f"{name}.md"
    notebook = json.loads(page.with_suffix(".ipynb").read_text())
    assert notebook == tutorials.notebook_of(page.read_text()), "run: python docs/make_tutorials.py --notebooks"
    assert f"]({name}.ipynb)" in page.read_text()
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert sum("%%sh -e\nrobustgen " in text for text in code) >= 3 and any(
        text.startswith("%%writefile") for text in code
    )
    commands = [line for text in code if text.startswith("%%sh -e\n") for line in text.splitlines()[1:]]
    assert len(commands) == len(re.findall(r"^    (?:robustgen|python) ", page.read_text(), re.MULTILINE))


def test_the_first_cell_finds_commands_in_the_environment_of_the_kernel(monkeypatch):
    monkeypatch.setenv("PATH", "elsewhere")
    exec(tutorials.PREPARE, {})
    assert os.environ["PATH"] == os.pathsep.join([str(Path(sys.executable).parent), "elsewhere"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="install robustgen for this kernel first"):
        exec(tutorials.PREPARE, {})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "photos", "audit"])
def test_a_notebook_runs_and_prints_what_its_page_shows(name, tmp_path, monkeypatch):
    for needed in ("nbclient", "ipykernel"):
        pytest.importorskip(needed, reason="needs the extra docs: pip install 'robustgen[docs]'; make docs installs it")
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("COLUMNS", "100")
    notebook = nbformat.read(DOCS / "tutorials" / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    shown = ["".join(out["text"] for out in cell.get("outputs", ())) for cell in notebook.cells]
    folder = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=3600, kernel_name="python3", resources=folder).execute()
    for cell, expected in zip(notebook.cells, shown, strict=True):
        printed = "".join(out.get("text", "") for out in cell.get("outputs", ()))
        printed = re.sub(r"\x1b\[[\d;]*m", "", printed)  # kernels ask for colors
        assert all(
            tutorials.without_numbers(line) in tutorials.without_numbers(printed) for line in expected.splitlines()
        ), cell.source


def test_colab_opens_the_notebooks_of_a_repository_on_github():
    if not all(importlib.util.find_spec(name) for name in ("mkdocs", "latex2mathml")):
        pytest.skip("needs the extra docs: pip install 'robustgen[docs]'; make docs installs it")
    hooks, text = script("site_hooks"), "also a [notebook](audit.ipynb)."
    assert hooks.with_colab(text, "tutorials/audit.md", None) == text
    assert hooks.with_colab(text, "tutorials/audit.md", "https://github.com/us/robustgen") == (
        "also a [notebook](audit.ipynb) ([open in Colab](https://colab.research.google.com/github/us/robustgen/blob/main/"
        "docs/tutorials/audit.ipynb))."
    )


def test_files_commands_and_outputs_of_a_tutorial_are_recognized(tmp_path):
    text = """
```python title="one.py"
print("started")
print("found", 3.5)
```

    python one.py

```text
found 2.25
```

and `python two.py` in a sentence.
"""
    ((piece, printed),) = tutorials.run_page(text, tmp_path)
    assert piece["commands"] == "    python one.py\n" and printed == "found 3.5\n"
    assert tutorials.without_numbers(printed) == tutorials.without_numbers(piece["output"])
    with pytest.raises(RuntimeError, match=r"python none\.py failed with code 2"):
        list(tutorials.run_page("    python none.py\n", tmp_path))
    with pytest.raises(ValueError, match="runs robustgen and python"):
        list(tutorials.run_page("    rm files\n", tmp_path))


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_needs_no_other_server(tmp_path):
    if not all(importlib.util.find_spec(name) for name in ("mkdocs", "mkdocstrings", "latex2mathml")):
        pytest.skip("needs the extra docs: pip install 'robustgen[docs]'; make docs installs it")
    site = tmp_path / "site"
    words = ["-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert "Peak learning rate" in (site / "reference" / "settings.html").read_text()
    pages = {path: path.read_text() for path in site.rglob("*.html")}
    assert not [path for path, text in pages.items() if re.search(r'<script[^>]*src="(https?:)?//', text)]
    assert not [path for path, text in pages.items() if re.search(r'class="arithmatex">\s*\\[(\[]', text)]
    assert pages[site / "explanation" / "robust-accuracy.html"].count("<math ") == 3
