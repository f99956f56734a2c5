"""How the help is shown: commands by purpose with a line each, plain words for the kinds of values, and -v and -q."""

from __future__ import annotations

import inspect
import re
from typing import Any

import typer

GROUPS: dict[str, dict[str, str]] = {
    "Look": {
        "demo": "Tour the embedded photos, from audit to answers.",
        "look": "Count, sample and measure labelled photos.",
        "audit": "Find copies, leaks, wrong labels and damaged photos.",
        "augment": "Draw augmented photos as training sees them.",
    },
    "Train": {
        "train": "Train a classifier in seconds, or a network by a recipe.",
        "ensemble": "Make one bundle of several, such as those of folds.",
        "recipes": "List the recipes.",
        "lr-find": "Try learning rates for a recipe.",
        "backbones": "List the networks that can be trained.",
        "backbone": "Export a network of timm for 'train --backbone'.",
        "convert-weights": "Convert pickled weights without running their code.",
    },
    "Judge": {
        "evaluate": "Evaluate a model on photos that did not train it.",
        "compare": "Compare backbones or recipes on the same photos.",
        "leaderboard": "Rank bundles and runs on the same photos.",
        "extra-data": "Test whether additional photos help.",
    },
    "Use": {
        "identify": "Name the car in each photo.",
        "explain": "Show what in a photo speaks for a nameplate.",
        "verify": "Check an advert's photos against the car it names.",
        "predict": "Name the cars in many photos and write a table.",
        "submit": "Write a Kaggle submission.",
    },
    "Share": {
        "export": "Write a model as one ONNX file, or in int8.",
        "push": "Upload a bundle to the Hugging Face hub.",
        "serve": "Serve models over HTTP: an API and a web page.",
        "keys": "Make, list and revoke API keys of 'serve'.",
        "feedback": "Manage users' corrections.",
    },
    "Look after": {
        "doctor": "Show versions, runtimes, extras and a test answer.",
        "cache": "Show or clear what Nameplate keeps on disk.",
    },
}
"""Heading → command → what it does, short enough for one line of 80 columns. In this order they are listed."""
OTHERS = "More"
"""Heading of the commands that are in no group."""
KINDS = {"path": "PATH", "file": "FILE", "directory": "FOLDER", "str": "TEXT", "int": "N", "float": "X"}
"""Python's word for the kind of an option's value → the word that the help shows."""


def as_command(app: typer.Typer) -> Any:
    """Return the parser of an app, ready to be called with the words of a command line."""
    for each in (app, *(group.typer_instance for group in app.registered_groups)):
        if each is None:
            continue
        if each is not app:
            each.info.short_help = each.info.help
        for command in each.registered_commands:
            command.short_help = summary(command.callback)
    made: Any = typer.main.get_command(app)
    order = [name for commands in GROUPS.values() for name in commands]
    listed = sorted(made.commands, key=lambda name: order.index(name) if name in order else len(order))
    made.commands = {name: made.commands[name] for name in listed}
    made.format_commands = lambda _, formatter: _write_groups(made, formatter)
    _show_plainly(made)
    _add_everywhere(made, [each for each in made.params if each.name in ("verbose", "quiet")])
    return made


def summary(callback: object) -> str:
    """Return the first sentence of a command's docstring; typer alone would cut it at the end of the line."""
    return re.split(r"(?<=\.)\s", inspect.getdoc(callback) or "", maxsplit=1)[0]


def _write_groups(made: Any, formatter: Any) -> None:
    """Write the commands under their headings, all in one column."""
    left = dict(made.commands)
    width = max(len(name) for name in left)
    groups = {heading: {name: line for name, line in each.items() if name in left} for heading, each in GROUPS.items()}
    known = {name for each in groups.values() for name in each}
    groups[OTHERS] = {name: each.get_short_help_str(1000) for name, each in left.items() if name not in known}
    for heading, lines in groups.items():
        if lines:
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), line) for name, line in lines.items()])


def _show_plainly(command: Any) -> None:
    """Show arguments by their names alone, and options without Python types such as `<int range>`."""
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            parameter.display_type_rich = lambda **_: None
        elif parameter.metavar is None and not parameter.is_flag:
            parameter.metavar = _kind(str(parameter.display_type(None)))
    for inner in getattr(command, "commands", {}).values():
        _show_plainly(inner)


def _kind(shown: str) -> str:
    """The word for a kind of value.

    >>> _kind("<int range>"), _kind("<path>"), _kind("<frozen|fine-tune>"), _kind("<list[str]>")
    ('N', 'PATH', 'frozen|fine-tune', 'TEXT')
    """
    plain = re.sub(r"^<(?:list\[)?|\]?>$", "", shown).removesuffix(" range")
    return KINDS.get(plain.lower(), plain)


def _add_everywhere(command: Any, options: list[Any]) -> None:
    """Let every command take the options that stand before it as well: people write them last."""
    for inner in getattr(command, "commands", {}).values():
        inner.params = [*inner.params, *options]
        _add_everywhere(inner, options)
