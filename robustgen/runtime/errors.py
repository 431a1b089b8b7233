"""Errors as one line for the user."""

from __future__ import annotations

import errno

from robustgen.storage.files import WriteError, printable

USER_ERRORS = (ValueError, OSError)
"""Errors caused by a user's input, files or disk; they are shown in one line, without a traceback."""

_NO_ROOM = "free disk space and run the command again to resume"
_NO_WRITING = "choose a folder that can be written"
_GONE = "restore the folder and repeat the command"
_ADVICE = {
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EFBIG: _NO_ROOM,
    errno.EROFS: _NO_WRITING,
    errno.EACCES: _NO_WRITING,
    errno.EPERM: _NO_WRITING,
    errno.ENOTDIR: _NO_WRITING,
    errno.ENOENT: _GONE,
    errno.ESTALE: _GONE,
}
"""What to do when a file cannot be written, by the system's reason."""


class StageFailed(ValueError):
    """A stage ended with an error; the message is for the user, `details` is its traceback."""

    def __init__(self, message: str, details: str = "", ours: bool = False):
        super().__init__(message)
        self.details = details
        self.ours = ours
        """Whether it looks like a bug of this program, not a mistake of the user."""


def is_bug(error: BaseException) -> bool:
    """Whether an error is our fault, as far as we can tell: not one of the user's input, files, disk or memory."""
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's, without torch
    return not (isinstance(error, USER_ERRORS) or memory)


def describe_error(error: BaseException) -> str:
    """An error as one line for the user."""
    if isinstance(error, WriteError):
        takes = "" if error.needed is None else f", which takes {error.needed:,} bytes"
        free = "" if error.free is None else f" ({error.free:,} bytes are free)"
        advice = f"; {_ADVICE[error.errno]}" if error.errno in _ADVICE else ""
        return f"cannot write {error.filename}{takes}: {error.strerror}{free}{advice}"
    if isinstance(error, OSError) and error.strerror:
        where = f" {error.filename}" if error.filename else ""
        advice = f"; {_NO_ROOM}" if _ADVICE.get(error.errno or 0) == _NO_ROOM else ""
        return f"cannot use{where}: {error.strerror}{advice}"
    text = printable(str(error)) or type(error).__name__
    return text if isinstance(error, USER_ERRORS) else f"{type(error).__name__}: {text}"
