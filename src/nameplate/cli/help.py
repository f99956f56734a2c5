"""The help as the parser would not write it by itself: whole summaries, and no types of Python's."""

from __future__ import annotations

import inspect
import re
from typing import Any

import typer


def as_command(app: typer.Typer) -> Any:
    """The parser of an app, ready to be called with the words of a command line."""
    for each in (app, *(group.typer_instance for group in app.registered_groups)):
        if each is None:
            continue
        if each is not app:
            each.info.short_help = each.info.help
        for command in each.registered_commands:
            command.short_help = summary(command.callback)
    made = typer.main.get_command(app)
    _show_plainly(made)
    return made


def summary(callback: object) -> str:
    """The first sentence of a command's docstring: the parser would cut it where the line ends."""
    return re.split(r"(?<=\.)\s", inspect.getdoc(callback) or "", maxsplit=1)[0]


def _show_plainly(command: Any) -> None:
    """Arguments are shown by their names alone, which say what they are: no `DATA <list[Path]>`."""
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            parameter.display_type_rich = lambda **_: None
    for inner in getattr(command, "commands", {}).values():
        _show_plainly(inner)
