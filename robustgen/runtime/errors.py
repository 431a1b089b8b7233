"""Errors as one line for the user."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


USER_ERRORS = (ValueError, OSError)
"""What a user's input, files or disk may cause: told in one line."""


def describe_error(error: BaseException) -> str:
    """An error as one line for the user."""
    if isinstance(error, OSError) and error.strerror:
        where = f" {error.filename}" if error.filename else ""
        advice = "; free some space and repeat the command, nothing is lost" if error.errno in (28, 122, 27) else ""
        return f"cannot use{where}: {error.strerror}{advice}"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, USER_ERRORS) else f"{type(error).__name__}: {text}"
