"""The reference of the command line, as Markdown made from the commands themselves: `python -m tools.cli_reference`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from nameplate.cli import app
from nameplate.cli.help import GROUPS, as_command

HEAD = """# Commands

All commands and their options, as `--help` shows them. `-v` and `-q` may stand before a command or after it.
Exit codes: 0 done, 1 failed, 2 wrong usage.
"""


def cli_reference() -> str:
    """The page: a heading for each purpose, and below it its commands with what they take."""
    commands = as_command(app)
    parts = [HEAD, *_options(commands)]
    left = dict(commands.commands)
    for purpose, members in GROUPS.items():
        parts.append(f"## {purpose}\n")
        for name in members:
            parts += _command(left.pop(name), name)
    if left:
        raise ValueError(f"commands in no group of nameplate.cli.help: {', '.join(left)}")
    return "\n".join(parts)


def _command(command: Any, name: str, level: int = 3) -> Iterator[str]:
    """A command's section; those of its subcommands follow it."""
    inner = getattr(command, "commands", {})
    yield f"{'#' * level} nameplate {name}\n"
    yield _text(inspect.cleandoc(command.help or "")) + "\n"
    usage = command.get_usage(type(command).context_class(command, info_name=f"nameplate {name}", terminal_width=100))
    yield f"```text\n{usage.removeprefix('Usage: ')}\n```\n"
    if not inner:
        yield from _options(command)
    for each, subcommand in inner.items():
        yield from _command(subcommand, f"{name} {each}", level + 1)


def _options(command: Any) -> Iterator[str]:
    """A table of what a command takes, as its help has it."""
    context = type(command).context_class(command)
    everywhere = ("verbose", "quiet", "help")
    records = [each.get_help_record(context) for each in command.params if each.name not in everywhere]
    rows = [f"| `{_cell(taken)}` | {_text(_cell(meaning))} |" for taken, meaning in filter(None, records)]
    if rows:
        yield "\n".join(("| takes | meaning |", "| --- | --- |", *rows)) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _text(text: str) -> str:
    """A help text as Markdown: commands in quotes become code, and brackets and angles stay what they are."""
    escaped = re.sub(r"([\\*_\[\]])", r"\\\1", text.replace("\\|", "|")).replace("<", "&lt;").replace("|", "\\|")
    return re.sub(r"'((?:nameplate|--)[^']*)'", lambda found: f"`{found[1]}`", escaped)


if __name__ == "__main__":
    print(cli_reference())
