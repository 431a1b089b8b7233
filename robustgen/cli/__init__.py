"""The command line: one module per command. Heavy imports are deferred until a command needs them."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from typing import Any, TextIO

import typer

from robustgen.cli import (
    analyse,
    certify,
    check,
    compare,
    evaluate,
    export,
    fetch,
    fit,
    import_,
    import_generator,
    keep,
    label,
    list,
    measure,
    merge,
    plan,
    publish,
    report,
    run,
    sample,
    score,
    show,
    stop,
    train,
    watch,
)  # fmt: skip
from robustgen.cli.app import GROUPS, Options, app

__all__ = ["app", "main"]

COMMANDS = (
    analyse, certify, check, compare, evaluate, export, fetch, fit, import_, import_generator, keep, label, list,
    measure, merge, plan, publish, report, run, sample, score, show, stop, train, watch,
)  # fmt: skip
"""Modules of commands: importing one registers it."""

VERBS = tuple(name for names in GROUPS.values() for name in names)
"""All commands."""

_USAGE_ERRORS: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
"""click's base of usage errors, wherever this version of typer keeps click."""


_BUG = (
    "; this looks like a bug of robustgen: please report it, with what `robustgen --traceback COMMAND` prints; "
    "everything finished is kept"
)


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning; notes of this package as one line."""
    from robustgen.storage.files import Note

    if isinstance(message, Note):
        print(f"robustgen: note: {message}", file=sys.stderr)
    else:
        _usual_warning(message, category, filename, lineno, file, line)


_usual_warning = warnings.showwarning


def main() -> None:
    """Run the command line.

    Exit codes: 0 success, 2 an error that the user can fix, 75 after SIGTERM, 130 after Ctrl-C, 1 a bug.
    An error is one line; its traceback is printed before it with --traceback or ROBUSTGEN_TRACEBACK=1.
    """
    from robustgen.runtime.distributed import leave
    from robustgen.runtime.errors import StageFailed, describe_error, is_bug
    from robustgen.runtime.preemption import Preempted

    Options.traceback = False
    warnings.showwarning = _show
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads slow each other down
    try:
        if app(prog_name="robustgen", standalone_mode=False) == 130:  # how some versions of typer pass on Ctrl-C
            raise KeyboardInterrupt
    except (KeyboardInterrupt, typer.Abort):
        print("\nStopped. Everything finished is kept; repeat the command to resume.", file=sys.stderr)
        sys.exit(130)
    except Preempted as stopped:
        print(f"robustgen: {stopped}", file=sys.stderr)
        raise
    except _USAGE_ERRORS as error:
        command = error.ctx.command_path if getattr(error, "ctx", None) else "robustgen"
        print(f"robustgen: {error.format_message()} See: {command} --help", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        ours = error.ours if isinstance(error, StageFailed) else is_bug(error)
        if Options.traceback:
            details = error.details if isinstance(error, StageFailed) else ""
            print(details or traceback.format_exc(), file=sys.stderr, end="" if not details else "\n")
        print(f"robustgen: {describe_error(error)}{_BUG if ours else ''}", file=sys.stderr)
        sys.exit(1 if ours else 2)
    leave()
    sys.exit(0)
