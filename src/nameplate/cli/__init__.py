"""The command line: one function a command, each parses, calls and prints."""

from __future__ import annotations

import sys

from nameplate.cli import (  # noqa: F401
    audit,
    backbones,
    cache,
    doctor,
    evaluate,
    experiments,
    export,
    feedback,
    folds,
    lr_find,
    predict,
    push,
    recipes,
    serve,
    train,
)
from nameplate.cli.app import app
from nameplate.cli.ending import run
from nameplate.cli.help import as_command
from nameplate.cli.options import refuse_addresses, with_address

__all__ = ["app", "main"]


def main() -> None:
    """Run a command: exit code 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    sys.exit(run(lambda: as_command(app)(refuse_addresses(with_address(sys.argv[1:])))))
