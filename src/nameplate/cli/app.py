"""The `nameplate` app that the other modules add their commands to, and `nameplate demo`.

Every command imports what is heavy inside its function, so that `nameplate --help` stays quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nameplate import __version__
from nameplate.cli import screen
from nameplate.cli.options import RuntimeOption, Threads

app = typer.Typer(
    name="nameplate",
    help="Read a car's make and model off a photo.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        screen.out.print(f"nameplate {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
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
