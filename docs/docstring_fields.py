"""An extension of griffe for the site: aligned fields in docstrings, `name  meaning`, become Markdown lists."""

from __future__ import annotations

import re
from typing import Any

import griffe

FIELD = re.compile(r"^(\w+(?:, \w+)*) {2,}(\S.*)$")


def as_lists(text: str) -> str:
    """The text with every paragraph of `name  meaning` lines, and their indented continuations, as a list."""
    paragraphs = []
    for paragraph in text.split("\n\n"):
        lines = paragraph.split("\n")
        if FIELD.match(lines[0]) and all(FIELD.match(line) or line.startswith("  ") for line in lines):
            lines = [FIELD.sub(r"- `\1`: \2", line) for line in lines]
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)


class Fields(griffe.Extension):
    def on_object(self, *, obj: Any, **others: Any) -> None:
        if obj.docstring:
            obj.docstring.value = as_lists(obj.docstring.value)
