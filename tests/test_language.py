"""Docstrings, comments and messages, README and docs use the field's words and American spelling."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

CLEAN = (
    "robustgen/evaluation", "robustgen/models", "robustgen/datasets", "robustgen/generators", "robustgen/proxy",
    "robustgen/storage",
    "robustgen/report", "robustgen/records", "robustgen/analysis",
    "robustgen/stats", "robustgen/planning", "robustgen/runtime", "robustgen/augment",
    "robustgen/recipes", "robustgen/losses", "robustgen/training", "robustgen/config", "robustgen/pipeline",
    "robustgen/stages", "robustgen/attacks", "robustgen/cli", "robustgen/contracts.py", "robustgen/modes.py",
    "robustgen/threat.py", "robustgen/objectives.py", "robustgen/randomness.py", "robustgen/images.py",
    "robustgen/api.py", "robustgen/testing.py", "robustgen/units.py", "robustgen/__init__.py",
    "README.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md",
    "docs/index.md", "docs/make_reference.py", "docs/site_hooks.py",
    "docs/tutorials", "docs/how-to", "docs/explanation", "docs/make_tutorials.py", "docs/docstring_fields.py",
    "docs/analyses.md", "docs/architecture.md", "docs/certificates.md",
    "docs/clusters.md", "docs/components.md", "docs/data.md", "docs/diagnostics.md", "docs/evaluation.md",
    "docs/extending.md", "docs/flags.md",
    "docs/generators.md", "docs/glossary.md", "docs/hub.md", "docs/proxies.md", "docs/quality.md",
    "docs/reproduce.md", "docs/study.md", "docs/study", "docs/training.md",
)  # fmt: skip
"""Folders and files that are held to it: Python, templates and Markdown."""

BANNED = (
    r"so-many", r"so-manieth", r"anew", r"beside", r"owed", r"foretells?", r"likest", r"bought", r"buys", r"told",
    r"asked of", r"kin", r"heeds?", r"whosoever", r"(?<!there )is no(?! (?:longer|more))", r"what there is",
    r"\w*(?:optimis|normalis|initialis)\w*", r"neighbour\w*", r"colour\w*", r"behaviour\w*",
)  # fmt: skip
PATTERN = re.compile(rf"(?<![\w-])(?:{'|'.join(BANNED)})(?![\w-])", re.IGNORECASE)

ALLOWED = re.compile(
    r"normalised-twice|not-normalised|-?unnormalised|--normalise|^    normalise  |the class asked of the generator"
    r"|\.neighbours\.npz|^neighbours$|^optimiser ?$|^initialise( lesson| generator)?$|attack\.optimiser="
    r"|^Conditions\(neighbours=$",
    re.MULTILINE,
)
"""Names kept on disk, also in records, in options, and a field named like its option; keys that are a whole string."""


def prose(path: Path) -> list[tuple[int, str]]:
    """(line, text) of docstrings, comments and strings of a module, or of any line of another file."""
    source = path.read_text()
    if path.suffix != ".py":
        return list(enumerate(source.splitlines(), 1))
    strings = [
        (node.lineno, node.value)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return strings + [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]


def violations(path: Path) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line}: {found.group()}"
        for line, text in prose(path)
        for found in PATTERN.finditer(ALLOWED.sub("", text))
    ]


@pytest.mark.parametrize("place", CLEAN)
def test_prose_uses_the_words_of_the_field(place):
    root = ROOT / place
    files = [root] if root.is_file() else [f for f in root.rglob("*") if f.suffix in (".py", ".j2", ".md")]
    assert files and not [line for file in files for line in violations(file)]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [("it is no file", 1), ("it is no longer", 0), ("told apart", 1), ("kind", 0), ("besides", 0), ("Optimiser", 1)],
)
def test_banned_words_are_found_as_words(text, wrong):
    assert len(PATTERN.findall(text)) == wrong
