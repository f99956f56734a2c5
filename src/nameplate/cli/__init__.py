"""The command line: one function a command, each parses, calls and prints."""

from __future__ import annotations

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
from nameplate.cli.ending import run
from nameplate.cli.help import as_command
from nameplate.cli.on_ray import with_address
from nameplate.cli.words import refuse_addresses

__all__ = ["app", "main"]


def main() -> None:
    """Run a command: exit code 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    sys.exit(run(lambda: as_command(app)(refuse_addresses(with_address(sys.argv[1:])))))
