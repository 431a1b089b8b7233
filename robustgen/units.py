"""Numbers and names in the form in which people write them."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Collection
from fractions import Fraction


def parse_number(text: str | float) -> float:
    """A number or a fraction: "0.03", "8/255", 0.5."""
    try:
        return float(Fraction(text.replace(" ", ""))) if isinstance(text, str) and "/" in text else float(text)
    except (ValueError, TypeError, ArithmeticError):
        raise ValueError(f"expected a number or a fraction such as 8/255, got {show_value(text)}") from None


def show_number(value: float) -> str:
    """The shortest form: 8/255 if it is an integer number of gray levels, otherwise a decimal."""
    levels = value * 255
    if 0 < value < 1 and abs(levels - round(levels)) < 1e-9 and f"{value:g}" != str(value):
        return f"{round(levels)}/255"
    return f"{value:g}"


def show_duration(seconds: float) -> str:
    """7 s, 3 min 20 s, 2 h 5 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def parse_duration(text: str | int) -> int:
    """Seconds in 90s, 30m, 12h, 2d, or in Slurm's 12:00:00, 30:00 and 1-12:00:00; a number is seconds.

    YAML reads 12:00:00 as a number of seconds by itself.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    short = re.fullmatch(r"(\d{1,9})([smhd])", str(text).strip())
    if short:
        return int(short[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[short[2]]
    long = re.fullmatch(r"(?:(\d{1,4})-)?(?:(\d{1,4}):)?(\d{1,4}):(\d\d)", str(text).strip())
    if not long or (long[1] and not long[2]):
        raise ValueError(f"expected a time such as 90m, 12h, 12:00:00 or 1-12:00:00, got {show_value(text)}")
    days, hours, minutes, seconds = (int(part or 0) for part in long.groups())
    return ((24 * days + hours) * 60 + minutes) * 60 + seconds


def show_names(names: Collection[object], shown: int = 5) -> str:
    """All of a few names; of many the first five, and how many more there are: "a, b, c, d, e and 195 more"."""
    some = ", ".join(str(name) for name in list(names)[:shown])
    return f"{some} and {len(names) - shown} more" if len(names) > shown else some


def show_value(value: object) -> str:
    """A value from a file as Python writes it; of a long or nested one the beginning."""
    text = _SHORT.repr(value)
    return text if len(text) <= 200 else f"{text[:196]} ..."


def _short_repr() -> reprlib.Repr:
    short = reprlib.Repr()
    short.maxlevel, short.maxlist, short.maxtuple, short.maxdict = 3, 8, 8, 5
    short.maxstring, short.maxlong, short.maxother = 120, 40, 120
    return short


_SHORT = _short_repr()


def show_class(name: str) -> str:
    """A class in a sentence: "class cat"; but "class 10" if that is its name."""
    return name if name.lower().startswith("class ") else f"class {name}"
