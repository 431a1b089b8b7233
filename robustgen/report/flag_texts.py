"""Explanations of red flags, from docs/flags.md: each section is named like its flag. No torch."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

PLACES = (
    Path(__file__).with_name("flags.md"),
    Path(__file__).resolve().parent.parent.parent / "docs" / "flags.md",
)
"""Where the page is: an installed package has a copy of it, a checkout the page itself."""


@cache
def explanations() -> dict[str, str]:
    """Text of every section of the page, in one line, by its heading; empty without the page."""
    page = next((place for place in PLACES if place.is_file()), None)
    if page is None:
        return {}
    _, *sections = re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    pairs = (section.partition("\n") for section in sections)
    return {name.strip(): _plain(text) for name, _, text in pairs}


def explain_flag(flag: str) -> tuple[str, str]:
    """A red flag ("random-logits: ...") and its explanation, which is empty for a name that the page does not have."""
    return flag, explanations().get(flag.partition(":")[0].strip(), "")


def _plain(markdown: str) -> str:
    """One line without the marks of links and code."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    return " ".join(text.replace("`", "").split())
