"""The command line: one function a command, each parses, calls and prints."""

from __future__ import annotations

import os
import sys

from nameplate.cli.commands import app
from nameplate.cli.screen import notes
from nameplate.errors import NameplateError, UsageError

__all__ = ["app", "main"]


def main() -> None:
    """Run a command: exit code 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    try:
        app()
    except NameplateError as error:
        notes.print(f"[bold red]error[/bold red] {_escaped(error)}")
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        notes.print("Interrupted. What was done is kept: run the same command to go on.")
        sys.exit(130)
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _escaped(error: NameplateError) -> str:
    from rich.markup import escape

    return escape(str(error))
