"""Errors as one line for the user."""

from __future__ import annotations

USER_ERRORS = (ValueError, OSError)
"""Errors caused by a user's input, files or disk; they are shown in one line, without a traceback."""


def describe_error(error: BaseException) -> str:
    """An error as one line for the user."""
    if isinstance(error, OSError) and error.strerror:
        where = f" {error.filename}" if error.filename else ""
        advice = "; free disk space and run the command again to resume" if error.errno in (28, 122, 27) else ""
        return f"cannot use{where}: {error.strerror}{advice}"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, USER_ERRORS) else f"{type(error).__name__}: {text}"
