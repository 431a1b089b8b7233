"""The documentation site: its order names every page, and its reference every command, setting and public name."""

import importlib.util
import re
import subprocess
import sys

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

reference = script("make_reference")
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
            section = re.search(rf"^### [\w., ]+: {re.escape(kind)}\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
            assert all(f"| `{name}` |" in section[1] for name in config.model_fields), kind
    assert "| `peak_lr` | `number > 0` | required | Peak learning rate." in page
    assert "train.schedule" in page and Recipe.__doc__.splitlines()[0] in page


def test_the_pages_of_python_have_every_public_name():
    page = reference.python_page()
    named = {line.rpartition(".")[2] for line in re.findall(r"^::: (.+)$", page, re.MULTILINE)}
    assert named == set(robustgen.__all__) - {"__version__"}


def test_types_are_written_in_words():
    values = {
        name: reference.values_of(field.annotation, field.metadata) for name, field in Recipe.model_fields.items()
    }
    assert values["threads"] == "integer >= 1" and values["labels"] == "predicted or condition"
    assert values["seeds"] == "list of integer" and values["arms"] == "NAME: section"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("mkdocstrings") is None:
        pytest.skip("needs the extra docs: pip install 'robustgen[docs]'; make docs installs it")
    words = ["-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert "Peak learning rate" in (tmp_path / "site" / "reference" / "settings.html").read_text()
