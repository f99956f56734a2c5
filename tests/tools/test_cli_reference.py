"""The reference of the command line."""

from __future__ import annotations

from tools.cli_reference import cli_reference

from nameplate.cli import app
from nameplate.cli.help import as_command


def test_it_has_every_command_with_all_that_it_takes() -> None:
    sections = {each.partition("\n")[0].strip(" #"): each for each in cli_reference().split("\n##")}
    commands = as_command(app).commands
    for group in ("keys", "feedback"):
        commands |= {f"{group} {name}": command for name, command in commands[group].commands.items()}
    assert len(commands) > 30
    for name, command in commands.items():
        section = sections[f"nameplate {name}"]
        for option in command.params:
            if option.name not in ("verbose", "quiet") and not hasattr(command, "commands") and not option.hidden:
                assert all(word in section for word in option.opts if word.startswith("--")), (name, option.name)
