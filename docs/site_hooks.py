"""Hooks of the documentation site (mkdocs.yml): generated pages, linked files outside docs/, and formulas."""

from __future__ import annotations

import html
import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import latex2mathml.converter
from mkdocs.structure.files import File, Files

DOCS = Path(__file__).resolve().parent
REPOSITORY = DOCS.parent
sys.path.insert(0, str(DOCS))

import make_reference  # noqa: E402

LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)]*)?\)")
NOTEBOOK = re.compile(r"\[notebook\]\(([\w-]+\.ipynb)\)")
FORMULA = re.compile(r'(?<=class="arithmatex">)\\([(\[])\s*(.*?)\s*\\[)\]](?=</(?:span|div)>)', re.DOTALL)
"""What pymdownx.arithmatex makes of `$...$` and `$$...$$`."""


def on_config(config: Any) -> Any:
    """Take the address of the repository from [project.urls], where there is one."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    config.repo_url = project.get("urls", {}).get("Repository")
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the reference pages, and every file outside docs/ that a page links to, as a page of its own."""
    for place, page in make_reference.PAGES.items():
        files.append(File.generated(config, place, content=page()))
    for path in sorted(linked_files(files)):
        files.append(File.generated(config, place_of(path), content=text_of(path)))
    return files


def linked_files(files: Files) -> set[Path]:
    """Files of the repository outside docs/ that pages link to."""
    found = set()
    for page in files.documentation_pages():
        if page.abs_src_path is None:
            continue
        for target, _ in LINK.findall(Path(page.abs_src_path).read_text()):
            path = (Path(page.abs_src_path).parent / target).resolve()
            if path.is_file() and REPOSITORY in path.parents and DOCS not in path.parents:
                found.add(path)
    return found


def place_of(path: Path) -> str:
    """The place in the site of a file of the repository."""
    name = path.relative_to(REPOSITORY).as_posix()
    return f"repository/{name}" if name.endswith(".md") else f"repository/{name}.md"


def text_of(path: Path) -> str:
    """A Markdown file without its links to other files of the repository; any other as a block of code."""
    name = path.relative_to(REPOSITORY)
    if path.suffix == ".md":
        return re.sub(r"!?\[([^\]]*)\]\((?!https?:|#)[^)]+\)", r"\1", path.read_text())
    return f"# {name}\n\n```{path.suffix.removeprefix('.')}\n{path.read_text()}\n```\n"


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Lead links that leave docs/ to the pages of these files, and those to the folder of a study to its report."""
    if page.file.abs_src_path is None:
        return markdown
    folder = Path(page.file.abs_src_path).parent

    def inside(link: re.Match[str]) -> str:
        path = (folder / link[1]).resolve()
        if path.is_file() and DOCS not in path.parents:
            start = Path(page.file.src_uri).parent
            return f"]({os.path.relpath(place_of(path), start)}{link[2] or ''})"
        return f"]({link[1]}/report.html)" if (path / "report.html").is_file() else link[0]

    return LINK.sub(inside, with_colab(markdown, page.file.src_uri, config.repo_url))


def with_colab(markdown: str, place: str, repository: str | None) -> str:
    """Next to the link to the notebook of a page one that opens it in Colab, where the repository is on GitHub."""
    found = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(\.git)?/?", repository or "")
    if found is None:
        return markdown
    folder = f"https://colab.research.google.com/github/{found[1]}/blob/main/docs/{Path(place).parent.as_posix()}"
    return NOTEBOOK.sub(lambda link: f"{link[0]} ([open in Colab]({folder}/{link[1]}))", markdown)


def on_page_content(content: str, page: Any, config: Any, files: Files) -> str:
    """Make MathML of formulas: browsers show it without a script and without a network."""

    def mathml(formula: re.Match[str]) -> str:
        display = "inline" if formula[1] == "(" else "block"
        return latex2mathml.converter.convert(html.unescape(formula[2]), display=display)

    return FORMULA.sub(mathml, content)
