"""The `nameplate` app that the other modules add their commands to, and `nameplate demo`.

Every command imports what is heavy inside its function, so that `nameplate --help` stays quick.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from nameplate import __version__
from nameplate.cli import screen
from nameplate.cli.ending import DEBUG
from nameplate.cli.options import RuntimeOption, Threads

app = typer.Typer(
    name="nameplate",
    help="Read a car's make and model off a photo.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        screen.out.print(f"nameplate {__version__}")
        raise typer.Exit


def _verbose(context: typer.Context, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        begun = time.monotonic()
        os.environ[DEBUG] = "1"
        screen.notes.print(screen.environment())
        context.call_on_close(lambda: screen.notes.print(screen.cost(time.monotonic() - begun)))


def _quiet(context: typer.Context, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        screen.notes.quiet = True


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            callback=_verbose,
            expose_value=False,
            help="Also show versions, time and memory, and where a fault happened.",
        ),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            callback=_quiet,
            expose_value=False,
            help="Show answers and errors, but no progress and no notes.",
        ),
    ] = False,
) -> None:
    """Read a car's make and model off a photo."""


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the page and the model.")] = Path(
        "nameplate-demo"
    ),
    runtime: RuntimeOption = "auto",
    threads: Threads = None,
) -> None:
    """Take a guided tour of the embedded photos: audit, train, evaluate, identify, and a page with the pictures."""
    from nameplate.demo.tour import tour

    with screen.progress() as report:
        tour(output, runtime=runtime, threads=threads, say=screen.step, progress=report)
