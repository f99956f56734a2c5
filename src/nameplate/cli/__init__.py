"""The command line: one function a command, each parses, calls and prints."""

from __future__ import annotations

import io
import os
import sys

from nameplate.cli import (  # noqa: F401 - they add their commands
    audit,
    compare,
    evaluate,
    explain,
    export,
    extra_data,
    feedback,
    keys,
    predict,
    serve,
    verify,
)
from nameplate.cli.commands import app
from nameplate.cli.on_ray import with_address
from nameplate.cli.screen import notes, tell_error
from nameplate.errors import NameplateError, UsageError

__all__ = ["app", "main"]


def main() -> None:
    """Run a command: exit code 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):  # a terminal without Cyrillic shows \\u0430 rather than fails
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(args=with_address(sys.argv[1:]))
    except NameplateError as error:
        tell_error(error)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        notes.print("Interrupted. What was done is kept: run the same command to go on.")
        sys.exit(130)
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
